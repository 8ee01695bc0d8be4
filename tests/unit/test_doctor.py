"""What the doctor finds at an inbox and in a store: each thing that the guarantee hangs on is looked at, and told."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd import doctor
from dicomwatchd.archive.stores.port import Capabilities, Destination
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.probe import probe
from dicomwatchd.config import loading
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import OutOfReach
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unit.test_deletion_races import without_strict_rename
from tests.unit.test_staging import without_locks

#: Findings by their subjects, those of the inbox without its name.
Examine = Callable[..., dict[str, doctor.Finding]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    (tmp_path / "inbox" / "DOE").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    parsed = loading.parse(
        {
            "state_directory": str(tmp_path / "state"),
            "archive": {
                "store": {"kind": "directory", "path": str(tmp_path / "archive")},
                "catalogue": {"kind": "sqlite", "path": str(tmp_path / "archive" / "catalogue.db")},
            },
            "inboxes": [{"name": "ct1", "path": str(tmp_path / "inbox"), "watch": "poll"}],
        }
    )

    def found(catalogue: MemoryCatalogue | None = None, **store: Any) -> dict[str, doctor.Finding]:
        findings = doctor.examine(parsed, MemoryStore(**store), catalogue or MemoryCatalogue())
        return {finding.subject.removeprefix("inbox ct1: "): finding for finding in findings}

    return found


def test_a_folder_that_cannot_be_listed(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine()["folders"].outcome == "good"
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path).endswith("/DOE"):
            raise PermissionError(errno.EACCES, "not for you")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    finding = examine()["folders"]
    assert finding.outcome == "bad" and "1 cannot be listed (EACCES)" in finding.detail


@pytest.mark.parametrize(
    ("mode", "outcome", "text"),
    [
        (0o755, "good", "can be run"),
        (0o777, "bad", "can be written to by its group or by others"),
        (0o644, "bad", "is no program that the daemon's user may run"),
        (None, "bad", "No such file or directory"),
    ],
)
def test_the_command_for_alarms_is_looked_at(tmp_path: Path, mode: int | None, outcome: str, text: str) -> None:
    command = tmp_path / "on-alarm"
    if mode is not None:
        command.write_text("#!/bin/sh\ntouch ran\n")
        command.chmod(mode)
    [found] = doctor._command_for_alarms(SimpleNamespace(on_alarm=(str(command), "radiology")))  # type: ignore[arg-type]
    assert (found.subject, found.outcome) == ("on_alarm", outcome) and text in found.detail
    assert not (tmp_path / "ran").exists()
    assert [*doctor._command_for_alarms(SimpleNamespace(on_alarm=None))] == []  # type: ignore[arg-type]


def test_a_store_that_ends_objects_by_itself(examine: Examine) -> None:
    assert examine()["lifecycle"].outcome == "good"
    finding = examine(expires="a rule ends them")["lifecycle"]
    assert (finding.outcome, finding.detail) == ("bad", "a rule ends them")


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (
            "",
            "the store answers ListObjectsV2 as if it had been asked for no prefix (is it the store, or a proxy before"
            " it, that does not give the prefix back?)",
        ),
        (
            "p/probe/another/",
            "the store answers ListObjectsV2 with a listing of another prefix than it was asked for (does the store, or"
            " a proxy before it, mix up requests, or keep answers?)",
        ),
    ],
)
def test_a_store_whose_listings_are_of_another_prefix(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, named: str, text: str
) -> None:
    client: Any = SimpleNamespace(
        put_object=lambda **_: {"ETag": '"00"'},
        head_object=lambda **_: {"ETag": '"00"', "ContentLength": 1},
        list_objects_v2=lambda **_: {"Prefix": named, "IsTruncated": False},
    )
    bucket = S3Bucket(client, "b", "p/", "s3 at test", Encryption(mode="store-default"))
    monkeypatch.setattr(MemoryStore, "probe", lambda _, scratch_key: probe(bucket, scratch_key))
    finding = examine()["store probe"]
    assert (finding.outcome, finding.detail) == ("bad", text)


def test_an_index_that_the_catalogue_lacks(examine: Examine) -> None:
    assert examine()["catalogue: indexes"].outcome == "good"
    said = examine(MemoryCatalogue(lacking=("the table has no index by-term",)))["catalogue: indexes"]
    assert (said.outcome, said.detail) == ("note", "the table has no index by-term")


def test_a_catalogue_that_fails_when_its_indexes_are_looked_at(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> tuple[str, ...]:
        raise OutOfReach("the catalogue does not answer", endpoint="catalogue")

    monkeypatch.setattr(MemoryCatalogue, "shortcomings", fails)
    found = examine()
    assert found["catalogue"].outcome == "good" and found["catalogue: indexes"].outcome == "note"
    assert "does not answer" in found["catalogue: indexes"].detail


@pytest.mark.parametrize(("answer", "outcome"), [("yes", "good"), ("no", "note")])
def test_a_store_that_calls_its_key_service_for_each_object(examine: Examine, answer: str, outcome: str) -> None:
    found = examine(capabilities=Capabilities(details={"S3 Bucket Key": answer}))
    assert found["store: S3 Bucket Key"].outcome == outcome


@pytest.mark.parametrize(
    ("capabilities", "outcome", "text"),
    [
        (Capabilities(etag_is_content=True), "good", "by the ETag"),
        (
            Capabilities(checksum_on_head=True, checksum_of_parts=True),
            "good",
            "by the checksum that this store computes",
        ),
        (Capabilities(checksum_on_head=True), "note", "large objects, sent in parts, by reading them back"),
        (Capabilities(etag_follows_content=True), "note", "large objects, sent in parts, by reading them back"),
        (Capabilities(etag_follows_content=True, etag_follows_parts=True), "good", "once it has compared the bytes"),
        (Capabilities(etag_follows_parts=True), "note", "by reading every object back"),
        (Capabilities(), "note", "by reading every object back"),
    ],
)
def test_how_a_store_lets_itself_be_verified(
    examine: Examine, capabilities: Capabilities, outcome: str, text: str
) -> None:
    place = Destination("s3", "memory", "tests", "")
    finding = examine(capabilities=capabilities, destination=place)["verification"]
    assert finding.outcome == outcome and text in finding.detail


def test_what_several_daemons_at_one_inbox_need(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine()
    assert [found[what].outcome for what in ("strict renames", "locks")] == ["good", "good"]
    without_strict_rename(monkeypatch)
    without_locks(monkeypatch)
    found = examine()
    assert [found[what].outcome for what in ("strict renames", "locks")] == ["note", "note"]
