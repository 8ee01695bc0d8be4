"""From answers to a configuration: where each goes, how the file is written, and what of it differs from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import yaml

from dicomwatchd.config.text import read_yaml
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError

#: By the question's key; an answer that nobody gave and that has no default is not in it.
Answers = Mapping[str, str]
#: The keys that lead to a value in the configuration.
Place = tuple[str | int, ...]

#: Words that stand for an answer that is none.
NOTHING = {"endpoint_url": "amazon", "catalogue_endpoint_url": "amazon", "kms_key": "none"}
KEEP, DELETE = "keep", "delete"
AFTER_ARCHIVE: Place = ("inboxes", 0, "after_archive")

_HEADER = """\
# Configuration of dicomwatchd, written by dicomwatchctl setup; dicomwatchd.yaml(5) explains every key. After a change:
# dicomwatchctl config check, dicomwatchd-folders, systemctl reload dicomwatchd. Never put credentials here.
"""


def is_bucket(store: str) -> bool:
    return store.startswith("s3://")


def bucket_and_prefix(store: str) -> tuple[str, str]:
    """ "s3://images/ct" -> ("images", "ct/")."""
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def endpoint_of(answers: Answers, key: str = "endpoint_url") -> str | None:
    """The URL; None for Amazon's own."""
    url = answers.get(key) or NOTHING[key]
    return None if url == NOTHING[key] else url


def is_amazon(answers: Answers) -> bool:
    """The store is Amazon's own S3."""
    return is_bucket(answers.get("store", "")) and endpoint_of(answers) is None


def uses_dynamodb(answers: Answers) -> bool:
    return answers.get("catalogue", "").startswith("dynamodb:")


def catalogue_file(answers: Answers) -> str:
    """The path of the SQLite file: named, or beside the archive, or in the state directory where that is a bucket."""
    _, _, named = answers.get("catalogue", "").partition(":")
    folder = answers["state_directory"] if is_bucket(answers["store"]) else answers["store"]
    return named or f"{folder.rstrip('/')}/catalogue.db"


def data_of(answers: Answers, values: Iterable[tuple[Place, Any]], after_archive: str) -> dict[str, Any]:
    """The configuration as plain data. ``values`` are what the answers become, in the order of the file."""
    data: dict[str, Any] = {}
    for place, value in values:
        _put(data, place, value)
    _put(data, AFTER_ARCHIVE, after_archive)
    if is_amazon(answers):  # which charges by the request
        _put(data, ("archive", "layout", "kind"), "bundled")
    return data


def _put(data: dict[str, Any], place: Place, value: Any) -> None:
    at: Any = data
    for key, following in pairwise(place):
        made: Any = [] if isinstance(following, int) else {}
        if isinstance(key, int):
            if len(at) <= key:
                at.append(made)
            at = at[key]
        else:
            at = at.setdefault(key, made)
    at[place[-1]] = value


def text_of(data: Mapping[str, Any]) -> str:
    """The file."""
    return _HEADER + yaml.safe_dump(
        dict(data), sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000
    )


def with_deletion(content: bytes) -> str | None:
    """The same file with deletion in place of keeping. None where it is not, byte for byte, one that `text_of` has
    written: what somebody has changed is for that person to change."""
    try:
        data = read_yaml(content.decode("utf-8"))
    except (UnicodeDecodeError, ConfigError):
        return None
    if not isinstance(data, dict) or text_of(data).encode() != content or _at(data, AFTER_ARCHIVE) != KEEP:
        return None
    _put(data, AFTER_ARCHIVE, DELETE)
    return text_of(data)


def differences(there: Config, asked: Config, places: Iterable[Place], inbox: str | None) -> list[tuple[str, Any, Any]]:
    """(place, what is there, what was asked for) of each of ``places`` where they differ. What is asked for of an inbox
    is compared with the file's inbox with the path ``inbox``, or its first where that is None."""
    ours, theirs = asked.model_dump(mode="json"), there.model_dump(mode="json")
    boxes = [box["path"] for box in theirs["inboxes"]]
    index = 0 if inbox is None else boxes.index(inbox) if inbox in boxes else len(boxes)
    found: list[tuple[str, Any, Any]] = []
    for place in places:
        counterpart = ("inboxes", index, *place[2:]) if place[0] == "inboxes" else place
        wanted, is_there = _at(ours, place), _at(theirs, counterpart)
        if wanted != is_there:
            found.append((named(counterpart), is_there, wanted))
    return found


def _at(data: Any, place: Place) -> Any:
    for key in place:
        if isinstance(key, int):
            if not isinstance(data, list) or key >= len(data):
                return None
        elif not isinstance(data, dict) or key not in data:
            return None
        data = data[key]
    return data


def named(place: Place) -> str:
    """("inboxes", 0, "path") -> "inboxes[0].path"."""
    text = ""
    for key in place:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text
