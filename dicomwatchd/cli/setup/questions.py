"""The questions as data: key, words, default, check, and what an answer becomes in the configuration.

A question's key is also its option on the command line: catalogue_endpoint_url is --catalogue-endpoint-url. A check
returns the answer as it is kept, and what is to be said of it; it raises Refused where the answer cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dicomwatchd.cli.setup import answers as of
from dicomwatchd.cli.setup import folders, keys, reach
from dicomwatchd.cli.setup.answers import Answers, Place
from dicomwatchd.cli.setup.folders import Refused
from dicomwatchd.cli.setup.machine import Machine
from dicomwatchd.config import loading
from dicomwatchd.config.archive import DynamoDBSettings, S3Settings
from dicomwatchd.config.basics import INBOX_NAME
from dicomwatchd.config.text import STATE_DATABASE
from dicomwatchd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Around:
    """In what a question is asked: this machine, whether a service is wanted, and whether networks may be asked."""

    machine: Machine
    service: bool
    may_ask_archive: bool = True


class Checked(NamedTuple):
    value: str
    notes: tuple[str, ...] = ()


Becomes = list[tuple[Place, Any]]


def _always(_answers: Answers) -> bool:
    return True


def _never(_answers: Answers) -> bool:
    return False


def _nothing(_value: str, _answers: Answers) -> Becomes:
    return []


@dataclass(frozen=True, slots=True)
class Question:
    """``applies`` says whether there is such a thing at all, by the answers before it; ``is_asked`` whether a person is
    asked, or it has an option and a default alone."""

    key: str
    text: str
    why: str
    default: Callable[[Answers, Around], str]
    check: Callable[[str, Answers, Around], Checked]
    becomes: Callable[[str, Answers], Becomes] = _nothing
    applies: Callable[[Answers], bool] = _always
    is_asked: Callable[[Answers], bool] = _always
    metavar: str = "TEXT"

    @property
    def option(self) -> str:
        return f"--{self.key.replace('_', '-')}"


# -- the checks -----------------------------------------------------------------------------------------------------


def _state(value: str, _answers: Answers, around: Around) -> Checked:
    path = folders.checked(value, around.machine, service=around.service)
    kind = folders.file_system(path)
    if folders.is_network(kind):
        raise Refused(f"is on {kind}: the state must be on a local disk")
    if around.service:
        folders.require_the_daemons(path, around.machine)
    return Checked(str(path))


def _inbox(value: str, answers: Answers, around: Around) -> Checked:
    path = folders.checked(value, around.machine, service=around.service)
    folders.require_apart(path, "the inbox", iter([("the state", Path(answers["state_directory"]))]))
    folders.require_no_tree_of_ours(path)
    if not path.is_dir():
        return Checked(str(path), ("is not there yet and will be made",))
    notes = []
    kind = folders.file_system(path)
    if folders.is_network(kind):
        notes.append(f"is a network share ({kind}), which sends no events: it will be looked through regularly instead")
    if number := folders.entries(path):
        notes.append(f"has {number:,} entries already, whose files will be archived, too")
    return Checked(str(path), tuple(notes))


def _inbox_name(value: str, _answers: Answers, _around: Around) -> Checked:
    if not re.fullmatch(INBOX_NAME, value):
        raise Refused("must be a short name of letters, digits, '_', '.' and '-', without patient data: it is logged")
    return Checked(value)


def _store(value: str, answers: Answers, around: Around) -> Checked:
    if of.is_bucket(value):
        bucket, prefix = of.bucket_and_prefix(value)
        _require_valid({"kind": "s3", "bucket": bucket, "prefix": prefix})
        return Checked(f"s3://{bucket}/{prefix}".rstrip("/"))
    path = folders.checked(value, around.machine, service=around.service)
    others = [("the state", Path(answers["state_directory"])), ("the inbox", Path(answers["inbox"]))]
    folders.require_apart(path, "the archive", iter(others))
    if not path.is_dir():
        if not path.parent.is_dir() and len(path.parts) > _SHARE_DEPTH:
            return Checked(str(path), (f"is not there yet and will be made, and {path.parent} with it",))
        return Checked(str(path), ("is not there yet and will be made",))
    if folders.is_archive(path):
        return Checked(str(path), ("holds an archive already, which will be used",))
    if folders.entries(path):
        raise Refused("is not empty and holds no archive: choose another folder, or an empty one")
    return Checked(str(path))


#: Parts of a path such as /mnt/nas/archive: what is above it may be the place of a share that is not mounted.
_SHARE_DEPTH = 3


def _require_valid(store: dict[str, Any]) -> None:
    try:
        loading.parse_archive({"store": store})
    except ConfigError as error:
        raise Refused("; ".join(reason for _, reason in error.problems)) from error


def _region(value: str, _answers: Answers, _around: Around) -> Checked:
    if not re.fullmatch(r"[a-z0-9-]{1,40}", value):
        raise Refused("must be the name of a region, such as eu-central-1; another store's is often us-east-1")
    return Checked(value)


def _endpoint(value: str, answers: Answers, around: Around) -> Checked:
    known = {**answers, "endpoint_url": value}
    data = dict(_store_data(known))
    try:
        settings, _ = loading.parse_archive({"store": data})
    except ConfigError as error:
        raise Refused(_plain(error)) from error
    if not around.may_ask_archive or not isinstance(settings, S3Settings):
        return Checked(value)
    return Checked(value, (reach.bucket(settings, keys.session(around.machine)),))


def _plain(error: ConfigError) -> str:
    text = "; ".join(reason for _, reason in error.problems)
    return text.replace(
        "set insecure_http: true", "if patient data may be sent unencrypted, start setup with --insecure-http"
    )


def _ca_file(value: str, _answers: Answers, _around: Around) -> Checked:
    if value and not Path(value).is_file():
        raise Refused("is not a file: it must hold the certificates of a private CA, in PEM form")
    return Checked(value and str(Path(value).absolute()))


def _yes_or_no(value: str, _answers: Answers, _around: Around) -> Checked:
    if value not in ("yes", "no"):
        raise Refused("must be yes or no")
    return Checked(value)


def _kms_key(value: str, answers: Answers, _around: Around) -> Checked:
    form = r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d+:key/\S+" if of.is_amazon(answers) else r"[!-~]{1,256}"
    if value != of.NOTHING["kms_key"] and not re.fullmatch(form, value):
        raise Refused(
            "must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), or none; an alias can come to mean another"
        )
    return Checked(value)


def _catalogue(value: str, answers: Answers, around: Around) -> Checked:
    kind, _, name = value.partition(":")
    if kind == "sqlite":
        if name:
            path = folders.checked(str(Path(name).parent), around.machine, service=around.service)
            folders.require_apart(path, "the catalogue's folder", iter([("the inbox", Path(answers["inbox"]))]))
            if path / Path(name).name == Path(answers["state_directory"]) / STATE_DATABASE:
                raise Refused("is the daemon's own state; name another file")
        return Checked(value)
    if not of.is_bucket(answers["store"]):
        raise Refused("must be sqlite, or sqlite:/path/to/catalogue.db, for an archive in a folder")
    if kind != "dynamodb" or not re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", name):
        raise Refused("must be dynamodb:TABLE, sqlite, or sqlite:/path/to/catalogue.db")
    if of.endpoint_of(answers) is not None:
        return Checked(value)  # where the table is, is asked next
    return Checked(value, _of_table({**answers, "catalogue": value}, around))


def _catalogue_endpoint(value: str, answers: Answers, around: Around) -> Checked:
    return Checked(value, _of_table({**answers, "catalogue_endpoint_url": value}, around))


def _of_table(answers: Answers, around: Around) -> tuple[str, ...]:
    try:
        _, settings = loading.parse_archive(
            {"store": dict(_store_data(answers)), "catalogue": dict(_catalogue_data(answers))}
        )
    except ConfigError as error:
        raise Refused(_plain(error)) from error
    if not around.may_ask_archive or not isinstance(settings, DynamoDBSettings):
        return ()
    return (reach.table(settings, keys.session(around.machine)),)


def _after_archiving(value: str, _answers: Answers, _around: Around) -> Checked:
    if value == of.KEEP:
        return Checked(value)
    if value != of.DELETE:
        raise Refused("must be keep or delete")
    return Checked(value, ("begins once the test study has been proven; until then files are kept",))


def _seconds(value: str, _answers: Answers, _around: Around) -> Checked:
    if not re.fullmatch(r"\d{1,5}", value):
        raise Refused("must be a whole number of seconds")
    return Checked(value)


# -- what they become -----------------------------------------------------------------------------------------------


def _inbox_becomes(value: str, _answers: Answers) -> Becomes:
    found: Becomes = [(("inboxes", 0, "path"), value)]
    if folders.is_network(folders.file_system(Path(value))):
        found.append((("inboxes", 0, "watch"), "poll"))
    return found


def _name_of(answers: Answers, _around: Around) -> str:
    """The folder's name where it can be one."""
    name = Path(answers["inbox"]).name
    return name if re.fullmatch(INBOX_NAME, name) else "inbox"


def _service(answers: Answers) -> Iterator[tuple[str, Any]]:
    yield "region", answers["region"]
    if answers.get("ca_file"):
        yield "ca_file", answers["ca_file"]
    if answers.get("insecure_http") == "yes":
        yield "insecure_http", True


def _store_data(answers: Answers) -> Iterator[tuple[str, Any]]:
    if not of.is_bucket(answers["store"]):
        yield "kind", "directory"
        yield "path", answers["store"]
        return
    bucket, prefix = of.bucket_and_prefix(answers["store"])
    yield "kind", "s3"
    yield "bucket", bucket
    if prefix:
        yield "prefix", prefix
    yield from _service(answers)
    if (url := of.endpoint_of(answers)) is not None:
        yield "endpoint_url", url
    if (key := answers.get("kms_key", of.NOTHING["kms_key"])) != of.NOTHING["kms_key"]:
        yield "encryption", {"mode": "aws:kms", "key_id": key}


def _catalogue_data(answers: Answers) -> Iterator[tuple[str, Any]]:
    if not of.uses_dynamodb(answers):
        yield "kind", "sqlite"
        yield "path", of.catalogue_file(answers)
        return
    yield "kind", "dynamodb"
    yield "table", answers["catalogue"].partition(":")[2]
    yield from _service(answers)
    if (url := of.endpoint_of(answers, "catalogue_endpoint_url")) is not None:
        yield "endpoint_url", url


def _store_becomes(_value: str, answers: Answers) -> Becomes:
    return [(("archive", "store", key), value) for key, value in _store_data(answers)]


def _catalogue_becomes(_value: str, answers: Answers) -> Becomes:
    return [(("archive", "catalogue", key), value) for key, value in _catalogue_data(answers)]


# -- the questions --------------------------------------------------------------------------------------------------


def _is_bucket(answers: Answers) -> bool:
    return of.is_bucket(answers["store"])


def _plainly(value: str) -> Callable[[Answers, Around], str]:
    return lambda _answers, _around: value


def _region_default(_answers: Answers, around: Around) -> str:
    known = around.machine.environment
    return known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION") or "eu-central-1"


def _catalogue_default(answers: Answers, _around: Around) -> str:
    return "dynamodb:dicom-studies" if of.is_amazon(answers) else "sqlite"


QUESTIONS = (
    Question(
        "state_directory",
        "Folder of the daemon's state",
        "Its queue and its record of deletions; on a local disk.",
        _plainly("/var/lib/dicomwatchd"),
        _state,
        lambda value, _answers: [(("state_directory",), value)],
        is_asked=_never,
        metavar="PATH",
    ),
    Question(
        "inbox",
        "Folder that modalities write into",
        "Whatever arrives there is archived.",
        _plainly("/srv/dicom/ct1"),
        _inbox,
        _inbox_becomes,
        metavar="PATH",
    ),
    Question(
        "inbox_name",
        "Name of the inbox",
        "It is in logs and statistics, so it must not hold patient data.",
        _name_of,
        _inbox_name,
        lambda value, _answers: [(("inboxes", 0, "name"), value)],
        is_asked=_never,
        metavar="NAME",
    ),
    Question(
        "quiet_seconds",
        "Seconds without a new file after which a study is archived",
        "Longer than the longest pause in which a modality sends one study.",
        _plainly("60"),
        _seconds,
        lambda value, _answers: [(("inboxes", 0, "quiet_seconds"), int(value))],
        is_asked=_never,
        metavar="SECONDS",
    ),
    Question(
        "store",
        "Where studies are archived: a folder, or s3://BUCKET or s3://BUCKET/PREFIX",
        "A folder of its own, on another disk than the inbox; or Amazon S3, or another store with its interface.",
        _plainly("/srv/archive"),
        _store,
        _store_becomes,
        metavar="PATH|s3://BUCKET",
    ),
    Question(
        "region",
        "Region of the store",
        "As its provider names it.",
        _region_default,
        _region,
        applies=_is_bucket,
        metavar="NAME",
    ),
    Question(
        "ca_file",
        "File with the certificates of a private CA",
        "In PEM form, for stores whose certificate no public authority has signed.",
        _plainly(""),
        _ca_file,
        applies=_is_bucket,
        is_asked=_never,
        metavar="FILE",
    ),
    Question(
        "insecure_http",
        "Whether the store may be spoken to without TLS",
        "Patient data is sent unencrypted then.",
        _plainly("no"),
        _yes_or_no,
        applies=_is_bucket,
        is_asked=_never,
    ),
    Question(
        "endpoint_url",
        "Address of the S3 service (https://HOST[:PORT]), or amazon",
        "The bucket is looked for there at once.",
        _plainly(of.NOTHING["endpoint_url"]),
        _endpoint,
        applies=_is_bucket,
        metavar="URL",
    ),
    Question(
        "kms_key",
        "ARN of the KMS key that encrypts the objects, or none",
        "With none the bucket's own encryption holds, which at Amazon is AES256 with keys of Amazon's.",
        _plainly(of.NOTHING["kms_key"]),
        _kms_key,
        applies=_is_bucket,
        is_asked=of.is_amazon,
        metavar="ARN",
    ),
    Question(
        "catalogue",
        "Catalogue of the studies: dynamodb:TABLE or sqlite",
        "SQLite is a file on this machine; a DynamoDB table is for several machines, and stays if this one is lost.",
        _catalogue_default,
        _catalogue,
        _catalogue_becomes,
        is_asked=_is_bucket,
        metavar="dynamodb:TABLE|sqlite",
    ),
    Question(
        "catalogue_endpoint_url",
        "Address of the DynamoDB service (https://HOST[:PORT]), or amazon",
        "The table is looked for there at once.",
        _plainly(of.NOTHING["catalogue_endpoint_url"]),
        _catalogue_endpoint,
        applies=lambda answers: of.uses_dynamodb(answers) and of.endpoint_of(answers) is not None,
        metavar="URL",
    ),
    Question(
        "after_archiving",
        "What becomes of a local file once the archive provably holds it: keep or delete",
        "Keep until you trust it; delete frees the disk, each file on its own proof, once the test study is proven.",
        _plainly(of.KEEP),
        _after_archiving,
        metavar="keep|delete",
    ),
)


def values_of(answers: Answers) -> Becomes:
    """All that the answers become, in the order of the file."""
    return [
        one
        for question in QUESTIONS
        if question.key in answers
        for one in question.becomes(answers[question.key], answers)
    ]


_STORE: Place = ("archive", "store")
_CATALOGUE: Place = ("archive", "catalogue")
#: Where in the configuration an option's answer is found again, to be compared.
_PLACES: dict[str, tuple[Place, ...]] = {
    "state_directory": (("state_directory",),),
    "inbox": (("inboxes", 0, "path"),),
    "inbox_name": (("inboxes", 0, "name"),),
    "quiet_seconds": (("inboxes", 0, "quiet_seconds"),),
    "store": tuple((*_STORE, key) for key in ("kind", "path", "bucket", "prefix")),
    **{key: ((*_STORE, key),) for key in ("region", "ca_file", "insecure_http", "endpoint_url")},
    "kms_key": ((*_STORE, "encryption"),),
    "catalogue": tuple((*_CATALOGUE, key) for key in ("kind", "table", "path")),
    "catalogue_endpoint_url": ((*_CATALOGUE, "endpoint_url"),),
    "after_archiving": (of.AFTER_ARCHIVE,),
}


def places_of(given: Iterable[str], answers: Answers) -> list[Place]:
    """The places in the configuration that options have spoken of."""
    given = set(given)
    places = [place for question in QUESTIONS if question.key in given for place in _PLACES[question.key]]
    if "store" not in given and answers.get("catalogue") == "sqlite":
        # Where the file is follows from the store, of which nothing was said.
        places = [place for place in places if place != (*_CATALOGUE, "path")]
    return places
