"""`search --held`: the studies that this machine's daemon holds, as the catalogue has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive.catalogues.port import OLD_RECORDS
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.control.server import ControlServer
from dicomwatchd.daemon.commands import reading
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import Queue, open_queue
from dicomwatchd.queue.holds import TWO_PATIENTS
from tests.pieces import Log
from tests.unit.test_cli_archive import Site, bare, hospital, site

__all__ = ["bare", "hospital", "site"]

HELD = [Uid("1.9.1"), Uid("1.9.3"), Uid("1.9.9")]


@pytest.fixture
def queue(hospital: Site) -> Iterator[Queue]:
    """The state of a daemon that holds Doe's two studies, and one that the catalogue does not have."""
    queue = open_queue(hospital.state, SystemClock(), lambda _: None)
    for uid in HELD:
        queue.holds.hold(uid, TWO_PATIENTS, [{"patient_id": "A"}, {"patient_id": "B"}], lambda _: False)
    yield queue
    queue.close()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["1.9.3", "1.9.1"]),
        (["--patient", "B"], ["1.9.3"]),
        (["--name", "doe*", "--date", "..2026-01-31"], ["1.9.1"]),
        (["--description", "mr head", "--modality", "ct"], ["1.9.3", "1.9.1"]),
        (["--modality", "MR"], []),
        (["--incomplete"], []),
        (["--after", "20260215#1.9.3"], ["1.9.1"]),
    ],
)
def test_what_is_held_is_found_by_any_condition(
    hospital: Site, queue: Queue, arguments: list[str], found: list[str]
) -> None:
    said = hospital.json("search", "--held", *arguments)
    assert [one["study_uid"] for one in said["studies"]] == found
    assert said["not_in_catalogue"] == ["1.9.9"]
    assert said["notes"] == ["the daemon is not running; this is its last saved state"]
    result = hospital.ctl("search", "--held", *arguments)
    lines = result.stdout.splitlines()
    assert [line.split("\t")[-1] for line in lines[1:]] == found or lines == ["No study matches."]
    assert "study 1.9.9 is held, and not in the catalogue" in result.stderr


def test_it_goes_on_where_a_list_ended(hospital: Site, queue: Queue) -> None:
    first = hospital.json("search", "--held", "--limit", "1")
    assert first["truncated"] and first["next"] == "20260215#1.9.3"
    rest = hospital.json("search", "--held", "--limit", "1", "--after", first["next"])
    assert [one["study_uid"] for one in rest["studies"]] == ["1.9.1"] and rest["next"] is None
    assert len(hospital.json("search", "--held", "--limit", "1", "--all")["studies"]) == 2


def test_what_was_released_is_not_held(hospital: Site, queue: Queue) -> None:
    queue.holds.release(HELD[0], "seen", {"released_by": {"uid": 0}})
    queue.holds.release(HELD[2], "seen", {"released_by": {"uid": 0}})
    said = hospital.json("search", "--held")
    assert [one["study_uid"] for one in said["studies"]] == ["1.9.3"] and said["not_in_catalogue"] == []


def test_the_catalogue_is_asked_for_the_held_studies_alone(
    hospital: Site, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = type(hospital.catalogue())
    asked: list[Uid] = []
    get = catalogue.get

    def counted(self: object, uid: Uid) -> StudyRecord | None:
        asked.append(uid)
        return get(self, uid)  # type: ignore[arg-type]

    monkeypatch.setattr(catalogue, "get", counted)
    monkeypatch.setattr(catalogue, "search", None)
    hospital.json("search", "--held", "--name", "doe")
    assert asked == HELD


def test_the_running_daemon_is_asked_also_for_an_archive_of_the_options(
    hospital: Site, queue: Queue, tmp_path: Path
) -> None:
    server = ControlServer(tmp_path / "socket", reading(queue, None, {}), Log())  # type: ignore[arg-type]
    server.start()
    try:
        place = ("--directory", str(hospital.archive), "--catalogue-file", str(hospital.catalogue_file))
        said = hospital.json("search", "--held", "--socket", str(tmp_path / "socket"), *place)
    finally:
        server.stop()
    assert [one["study_uid"] for one in said["studies"]] == ["1.9.3", "1.9.1"] and said["notes"] == []
    refused = hospital.ctl("search", "--held", *place)
    assert refused.exit_code == 2 and "--socket" in refused.stderr


def test_without_a_daemon_and_its_state_there_is_a_plain_error(hospital: Site, tmp_path: Path) -> None:
    for arguments in ((), ("--socket", str(tmp_path / "none"))):
        result = hospital.ctl("search", "--held", *arguments)
        assert (result.exit_code, result.stdout) == (4, "") and "the daemon is not running" in result.stderr
    assert hospital.ctl("search").exit_code == 0


def test_what_an_earlier_version_has_recorded_is_said_to_be_found_by_its_first_patient_only(
    hospital: Site, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = hospital.catalogue()
    cls, get = type(catalogue), type(catalogue).get

    def as_before(self: object, uid: Uid) -> StudyRecord | None:
        record = get(self, uid)  # type: ignore[arg-type]
        return record and replace(record, identities=None)

    monkeypatch.setattr(cls, "get", as_before)
    monkeypatch.setattr(cls, "shortcomings", lambda *_: (OLD_RECORDS,))
    assert OLD_RECORDS in hospital.json("search", "--held", "--patient", "A")["notes"]


def test_of_many_that_are_not_in_the_catalogue_some_are_named(hospital: Site, queue: Queue) -> None:
    for number in range(25):
        queue.holds.hold(Uid(f"1.8.{number}"), TWO_PATIENTS, [], lambda _: False)
    result = hospital.ctl("search", "--held")
    assert result.stderr.count("is held, and not in the catalogue") == 20
    assert "6 more are held, and not in the catalogue" in result.stderr
    assert len(hospital.json("search", "--held")["not_in_catalogue"]) == 26
