"""A lifecycle rule is added when it was shown and asked for, for what has the tag, and no other rule is touched."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import botocore.exceptions
import pytest
from click.testing import CliRunner, Result

from dicomwatchd.archive import factory
from dicomwatchd.archive.stores.port import Transition
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.expiry import judge
from dicomwatchd.archive.stores.s3.setup import _Setup, add_transitions
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import Encryption, ObjectTag
from dicomwatchd.errors import NotSupported
from tests import schemas
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unit.test_ranges import answer, answering

TAG = ObjectTag(key="archive", value="images")
MOVES = [Transition(30, "GLACIER_IR"), Transition(365, "DEEP_ARCHIVE")]
WANTED = {
    "ID": "dicomwatchd-transition p/",
    "Status": "Enabled",
    "Filter": {"And": {"Prefix": "p/studies/", "Tags": [{"Key": "archive", "Value": "images"}]}},
    "Transitions": [{"Days": 30, "StorageClass": "GLACIER_IR"}, {"Days": 365, "StorageClass": "DEEP_ARCHIVE"}],
}
OTHERS: list[dict[str, Any]] = [
    {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "q/"}, "Expiration": {"Days": 1}},
    {
        "ID": "no id of ours",
        "Status": "Disabled",
        "Prefix": "",
        "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
    },
]


class Client:
    """A bucket's rules."""

    def __init__(self, rules: list[dict[str, Any]] | None = None) -> None:
        self.rules = copy.deepcopy(rules or [])
        self.minimum: str | None = None
        self.writes: list[dict[str, Any]] = []
        self.forgets = self.refuses = self.is_strict = self.has_limit = False
        self.meta = SimpleNamespace(partition="aws", region_name="eu-central-1")

    def get_bucket_lifecycle_configuration(self, **_: Any) -> dict[str, Any]:
        if not self.rules:
            raise self._error("NoSuchLifecycleConfiguration", 404)
        return {"Rules": self.rules, **({"TransitionDefaultMinimumObjectSize": self.minimum} if self.minimum else {})}

    def put_bucket_lifecycle_configuration(self, **arguments: Any) -> None:
        if self.refuses:
            raise self._error("AccessDenied", 403)
        if self.is_strict and not all("Filter" in rule for rule in arguments["LifecycleConfiguration"]["Rules"]):
            raise self._error("InvalidRequest", 400)
        if self.has_limit and len(arguments["LifecycleConfiguration"]["Rules"]) > 1000:
            raise self._error("MalformedXML", 400)
        self.writes.append(arguments)
        if not self.forgets:
            self.rules = copy.deepcopy(arguments["LifecycleConfiguration"]["Rules"])

    @staticmethod
    def _error(code: str, status: int) -> botocore.exceptions.ClientError:
        details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return botocore.exceptions.ClientError(details, "lifecycle")


def added(client: Client, tag: ObjectTag | None = TAG) -> tuple[str, str]:
    bucket = S3Bucket(
        client=cast(Any, client), name="b", prefix="p/", endpoint="s3", encryption=Encryption(), is_amazon=True, tag=tag
    )
    step = add_transitions(bucket, MOVES, lambda: "x")
    return step.outcome, step.detail


def test_it_stands_beside_the_others() -> None:
    client = Client(OTHERS)
    client.minimum = "varies_by_storage_class"
    assert added(client)[0] == "set"
    assert client.rules == [*OTHERS, WANTED]
    assert client.writes[0]["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
    assert added(client) == ("present", "") and len(client.writes) == 1
    empty = Client()
    assert added(empty)[0] == "set" and empty.rules == [WANTED]


def test_it_ends_nothing() -> None:
    client = Client()
    added(client)
    found = judge(client.rules, "p/", False, TAG)
    assert found.unaccepted is None and "GLACIER_IR 30 days after" in found.notes[0]
    assert not {"Expiration", "NoncurrentVersionExpiration"} & client.rules[0].keys()


CHANGED: dict[str, dict[str, Any]] = {
    "other days": {"Transitions": [{"Days": 31, "StorageClass": "GLACIER_IR"}]},
    "switched off": {"Status": "Disabled"},
    "another tag": {"Filter": {"And": {"Prefix": "p/studies/", "Tags": [{"Key": "archive", "Value": "x"}]}}},
    "everything": {"Filter": {"Prefix": "p/studies/"}},
    "with an end": {"Expiration": {"Days": 400}},
    "large ones": {"Filter": {"And": {**WANTED["Filter"]["And"], "ObjectSizeGreaterThan": 10}}},  # type: ignore[index]
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=CHANGED.keys())
def test_one_of_its_name_with_other_settings_is_left(changes: dict[str, Any]) -> None:
    theirs = [*OTHERS, {**WANTED, **changes}]
    client = Client(theirs)
    outcome, detail = added(client)
    assert outcome == "not supported" and "was left" in detail
    assert client.rules == theirs and client.writes == []


def test_a_store_that_cannot() -> None:
    client = Client(OTHERS)
    client.forgets = True
    assert added(client)[0] == "not supported" and client.rules == OTHERS
    client.refuses = True
    outcome, detail = added(client)
    assert outcome == "not supported" and "AccessDenied" in detail
    with pytest.raises(NotSupported):
        added(Client(), tag=None)


def test_rules_of_the_older_form_are_left() -> None:
    """Both forms in one configuration are refused: "Filter element can only be used in Lifecycle V2"."""
    client = Client(OTHERS)
    client.is_strict = True
    outcome, detail = added(client)
    assert outcome == "not supported" and "older form" in detail and client.rules == OTHERS


# -- the command -----------------------------------------------------------------------------------------------------


class Site:
    def __init__(self, folder: Path) -> None:
        self.store, self.catalogue, self.folder = MemoryStore(), MemoryCatalogue(), folder
        (folder / "state").mkdir()
        self.configure("tag: {key: archive, value: images}")

    def configure(self, more: str) -> None:
        (self.folder / "config.yaml").write_text(
            f"state_directory: {self.folder}/state\n"
            "archive:\n"
            f"  store: {{kind: s3, bucket: bucket, prefix: p/, {more}}}\n"
            f"  catalogue: {{kind: sqlite, path: {self.folder}/c}}\n"
        )

    def init(self, *arguments: str, answer: str = "") -> Result:
        words = ["archive", "init", *arguments]
        result = CliRunner().invoke(root, ["--config", str(self.folder / "config.yaml"), *words], input=answer)
        if "--json" in arguments and result.exit_code < 2:
            schemas.check_output(words, result.stdout, result.exit_code)
        return result


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    monkeypatch.setattr(factory, "open_store", lambda *_, **__: site.store)
    monkeypatch.setattr(factory, "open_catalogue", lambda *_, **__: site.catalogue)
    return site


def test_it_is_shown_and_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--lifecycle", "365:DEEP_ARCHIVE", "--lifecycle", "30:GLACIER_IR")
    assert site.init(*words).exit_code == 2, "nobody can be asked"
    monkeypatch.setattr("dicomwatchd.cli.studies.archive._may_be_asked", lambda: True)
    result = site.init(*words, answer="n\n")
    assert result.exit_code == 1 and site.store.transitions == () and site.catalogue.archive_id is None
    assert "p/studies/ with the tag archive=images move to GLACIER_IR 30 days" in result.output
    assert "must be restored" in result.output
    result = site.init(*words, answer="y\n")
    assert result.exit_code == 0 and site.store.transitions == tuple(MOVES)
    assert "set            store: lifecycle of instances and bundles" in result.output


def test_it_may_be_confirmed_beforehand(site: Site) -> None:
    assert site.init("--lifecycle", "90:GLACIER", "--json").exit_code == 2
    result = site.init("--lifecycle", "90:GLACIER", "--yes", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["steps"][-1]["outcome"] == "set"
    assert site.store.transitions == (Transition(90, "GLACIER"),)


def test_without_a_word_there_is_none(site: Site) -> None:
    assert site.init().exit_code == 0 and site.store.transitions == ()


@pytest.mark.parametrize(
    "words",
    [
        ["--lifecycle", "90"],
        ["--lifecycle", "0:GLACIER"],
        ["--lifecycle", "90:STANDARD_IA"],
        ["--lifecycle", "90:EXPIRE"],
        ["--lifecycle", "30:GLACIER", "--lifecycle", "90:GLACIER_IR"],
        ["--lifecycle", "30:GLACIER", "--lifecycle", "30:DEEP_ARCHIVE"],
        ["--lifecycle", "30:GLACIER", "--lifecycle", "90:GLACIER"],
    ],
)
def test_what_no_store_does_is_refused(site: Site, words: list[str]) -> None:
    assert site.init(*words, "--yes").exit_code == 2 and site.store.versions == {}


def test_without_a_tag_it_would_move_manifests(site: Site) -> None:
    site.configure("region: eu-central-1")
    result = site.init("--lifecycle", "90:GLACIER", "--yes")
    assert result.exit_code == 2 and "archive.store.tag" in result.output and site.store.transitions == ()


# -- what others have set --------------------------------------------------------------------------------------------

RULES = (
    b'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ID>theirs</ID><Status>Enabled'
    b"</Status><Filter><Prefix></Prefix>%s</Filter><Expiration><Days>1</Days></Expiration></Rule>"
    b"</LifecycleConfiguration>"
)
ENCRYPTION = (
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
    b"</ApplyServerSideEncryptionByDefault>%s</Rule></ServerSideEncryptionConfiguration>"
)
BLOCKED = b"<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>"


@pytest.mark.parametrize("does", ["transitions", "lifecycle"])
def test_a_rule_that_would_lose_a_condition_is_left(monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """<ArchiveZone/> is Ceph's: without it the rule would end the objects of all zones."""
    with answering(monkeypatch, False, answer("200 OK", RULES % b"<ArchiveZone/>")) as (store, server):
        setup = _Setup(store._bucket, lambda: "x", amazon=False)
        step = setup.step(does, setup.lifecycle if does == "lifecycle" else lambda: setup.transitions(TAG, MOVES))
    assert step.outcome == "not supported" and "would lose: ArchiveZone" in step.detail
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET"]


def test_what_is_known_goes_back_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    size = b"<Prefix>p/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag><ObjectSizeLessThan>9</ObjectSizeLessThan>"
    size = b"<And>%s</And>" % size
    answers = [answer("200 OK", RULES.replace(b"<Prefix></Prefix>", b"") % size), answer("200 OK", b"")]
    with answering(monkeypatch, False, *answers, *[answer("200 OK", RULES % b"")] * 2) as (store, server):
        setup = _Setup(store._bucket, lambda: "x", amazon=False)
        setup.step("transitions", lambda: setup.transitions(TAG, MOVES))
    assert server.requests[1].startswith(b"PUT ")
    for part in (b"<ObjectSizeLessThan>9</ObjectSizeLessThan>", b"<Key>a</Key>", b"<ID>theirs</ID>"):
        assert part in server.requests[1]


def test_what_is_blocked_stays_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default encryption is written with all that is set beside it: SSE-C, whose keys only its writer has."""
    answers = [answer("200 OK", ENCRYPTION % BLOCKED), answer("200 OK", b""), answer("200 OK", ENCRYPTION % BLOCKED)]
    with answering(monkeypatch, False, *answers) as (store, server):
        bucket = replace(store._bucket, encryption=Encryption.model_validate({"mode": "aws:kms", "key_id": "k"}))
        setup = _Setup(bucket, lambda: "x", amazon=True)
        setup.step("encryption", setup.default_encryption)
    assert server.requests[1].startswith(b"PUT ") and b"<SSEAlgorithm>aws:kms</SSEAlgorithm>" in server.requests[1]
    assert BLOCKED in server.requests[1]
    unknown = answer("200 OK", ENCRYPTION % b"<Another>1</Another>")
    with answering(monkeypatch, False, unknown) as (store, server):
        bucket = replace(store._bucket, encryption=Encryption.model_validate({"mode": "aws:kms", "key_id": "k"}))
        setup = _Setup(bucket, lambda: "x", amazon=True)
        assert "would lose: Another" in setup.step("encryption", setup.default_encryption).detail


def test_more_rules_than_a_bucket_may_have() -> None:
    client = Client([{**OTHERS[0], "ID": f"{number}"} for number in range(1000)])
    client.has_limit = True
    outcome, detail = added(client)
    assert outcome == "not supported" and "1,000 rules" in detail and len(client.rules) == 1000
