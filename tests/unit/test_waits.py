"""A study of which a DICOMDIR lists more than is there waits for it: once, for a bounded time, and for nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.cli.studies.show import _listed
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces
from tests.synthetic import Made, Maker

WAIT = 600.0


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path, max_wait_seconds=WAIT)
    yield made
    made.close()


def export(pieces: Pieces, *, folder: str = "CD", study: int = 0, seed: int = 3) -> list[Made]:
    """What a medium of one patient has; the DICOMDIR last."""
    maker = Maker(seed=seed)
    files = maker.ct_series(pieces.root / f"made-{folder}-{study}", slices=4, study=study)
    return maker.media(pieces.inbox / folder, files)


def take_away(pieces: Pieces, *made: Made) -> None:
    for one in made:
        aside = pieces.root / "aside" / one.path.relative_to(pieces.inbox)
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(one.path, aside)


def bring_back(pieces: Pieces, *made: Made) -> None:
    for one in made:
        one.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(pieces.root / "aside" / one.path.relative_to(pieces.inbox), one.path)


def go(pieces: Pieces) -> None:
    """Until every study has been quiet, and what can be shipped is."""
    pieces.settle()
    pieces.parts.upkeep.step()
    pieces.parts.upkeep.step()
    pieces.parts.tick()
    pieces.ship()


def state(pieces: Pieces, made: list[Made]) -> str:
    shown = pieces.queue.reports.show(made[0].study_uid)
    assert shown is not None
    return str(shown["state"])


def events(pieces: Pieces) -> list[tuple[str, object]]:
    return [
        (event, fields["missing_files"])
        for event, _, fields in pieces.log.entries
        if event in ("study-waits", "study-incomplete")
    ]


def test_all_there_waits_for_nothing(pieces: Pieces) -> None:
    made = export(pieces)
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED and events(pieces) == []


def test_it_waits_for_what_is_missing_and_goes_on_when_it_has_come(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[1])
    for _ in range(5):
        go(pieces)
        assert state(pieces, made) == StudyState.ARRIVING
    bring_back(pieces, made[1])
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    assert pieces.manifest(made[0].study_uid).revision == 1
    assert events(pieces) == [("study-waits", 1)]


def test_it_goes_on_after_the_longest_time_and_says_so(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[1], made[2])
    go(pieces)
    pieces.clock.advance(WAIT)
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    assert events(pieces) == [("study-waits", 2), ("study-incomplete", 2)]
    assert len(pieces.manifest(made[0].study_uid).instances) == 2


def test_a_file_that_arrives_restarts_the_quiet_time_and_not_the_longest_one(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0], made[1])
    go(pieces)
    pieces.clock.advance(WAIT - 60)
    bring_back(pieces, made[0])
    go(pieces)
    assert state(pieces, made) == StudyState.ARRIVING
    pieces.clock.advance(60)
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    assert events(pieces) == [("study-waits", 2), ("study-incomplete", 1)]


def test_files_that_keep_arriving_do_not_keep_it_waiting(pieces: Pieces) -> None:
    """Nor does a DICOMDIR that is written anew for ever."""
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    since = pieces.clock.now()
    while state(pieces, made) == StudyState.ARRIVING:
        made[-1].path.touch()
        made[1].path.touch()
        go(pieces)
        assert pieces.clock.now() - since < WAIT + 60


def test_it_waits_once_for_a_list(pieces: Pieces) -> None:
    """What comes after that is archived when it is quiet, one after the other."""
    made = export(pieces)
    take_away(pieces, made[0], made[1])
    go(pieces)
    pieces.clock.advance(WAIT)
    go(pieces)
    bring_back(pieces, made[0])
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    assert len(pieces.manifest(made[0].study_uid).instances) == 3
    assert events(pieces) == [("study-waits", 2), ("study-incomplete", 2)]


def test_without_the_dicomdir_it_waits_no_more(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    made[-1].path.unlink()
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED and events(pieces) == [("study-waits", 1)]


def test_a_restart_goes_on_waiting_from_where_it_was(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    pieces.clock.advance(WAIT / 2)
    pieces.restart()
    go(pieces)
    assert state(pieces, made) == StudyState.ARRIVING
    pieces.clock.advance(WAIT / 2)
    pieces.parts.tick()
    pieces.ship()
    assert state(pieces, made) == StudyState.ARCHIVED


def test_another_configuration_holds_for_what_waits_already(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    pieces.max_wait_seconds = 0.0
    pieces.restart()
    pieces.parts.tick()
    pieces.ship()
    assert state(pieces, made) == StudyState.ARCHIVED


@pytest.mark.parametrize("seconds", [-86400.0 * 365, 86400.0 * 365])
def test_a_clock_that_was_wrong_keeps_it_no_longer_than_once_more(pieces: Pieces, seconds: float) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    monotonic = pieces.clock.monotonic()
    pieces.clock.now = lambda now=pieces.clock.now: now() + seconds  # type: ignore[method-assign,misc]
    for _ in range(60):
        go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    assert pieces.clock.monotonic() - monotonic < 60 * 30


def test_other_studies_are_not_held_up(pieces: Pieces) -> None:
    made = export(pieces)
    other = export(pieces, folder="CD2", study=1, seed=4)
    take_away(pieces, made[0])
    go(pieces)
    assert state(pieces, made) == StudyState.ARRIVING and state(pieces, other) == StudyState.ARCHIVED


def test_a_dicomdir_elsewhere_does_not_speak_for_it(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, inboxes=2, max_wait_seconds=WAIT)
    made = export(pieces)
    take_away(pieces, made[0])
    (pieces.inbox / "OTHER").mkdir()
    shutil.copy(made[-1].path, pieces.inbox / "OTHER" / "DICOMDIR")
    shutil.move(made[-1].path, pieces.inboxes[1] / "DICOMDIR")
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    pieces.close()


def test_what_was_archived_before_is_not_waited_for(pieces: Pieces) -> None:
    """Here, or by somebody else: the archive is asked."""
    made = export(pieces)
    take_away(pieces, made[0], made[-1])
    go(pieces)
    assert len(pieces.manifest(made[0].study_uid).instances) == 3
    pieces.close()
    shutil.rmtree(pieces.state)
    pieces.state.mkdir()
    pieces.start()
    bring_back(pieces, made[0], made[-1])
    pieces.settle()
    assert state(pieces, made) == StudyState.ARRIVING
    pieces.parts.upkeep.step()
    pieces.parts.tick()
    pieces.ship()
    assert state(pieces, made) == StudyState.ARCHIVED
    assert len(pieces.manifest(made[0].study_uid).instances) == 4


def test_what_the_daemon_has_archived_itself_it_need_not_ask_for(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    pieces.clock.advance(WAIT)
    go(pieces)
    [one] = rows_of_lists(pieces)
    assert one["lacking"] == made[0].sop_instance_uid


def rows_of_lists(pieces: Pieces) -> list[dict[str, object]]:
    with pieces.queue._database.read() as db:
        return [dict(row) for row in db.execute("SELECT * FROM listed")]


def test_a_damaged_copy_is_there(pieces: Pieces) -> None:
    made = export(pieces)
    content = made[0].path.read_bytes()
    made[0].path.write_bytes(content[:-100])
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED and events(pieces) == []


def test_kept_files_are_there(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, max_wait_seconds=WAIT, after_archive=AfterArchive(delete=False))
    made = export(pieces)
    go(pieces)
    made[0].path.touch()
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED and events(pieces) == []
    pieces.close()


def test_files_that_are_taken_away_while_it_waits_leave_nothing_behind(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    take_away(pieces, *made[1:-1])
    for _ in range(3):
        go(pieces)
    assert pieces.queue.reports.show(made[0].study_uid) is None
    with pieces.queue._database.read() as db:
        assert db.execute("SELECT COUNT(*) FROM listed_waits").fetchone()[0] == 0
    assert pieces.catalogue.get(Uid(made[0].study_uid)) is None


def test_what_is_said_of_it(pieces: Pieces) -> None:
    made = export(pieces)
    take_away(pieces, made[1], made[2])
    go(pieces)
    reports = pieces.queue.reports
    shown = reports.show(made[0].study_uid)
    assert shown is not None
    until = shown["listed"].pop("waits_until")
    missing = sorted((made[1].sop_instance_uid, made[2].sop_instance_uid))
    assert shown["listed"] == {"dicomdirs": 1, "images": 4, "missing": 2, "missing_uids": missing}
    [queued] = reports.queue(10)
    assert queued["waits_for_listed"] == {"missing": 2, "until": until} and queued["state"] == "arriving"
    assert reports.status()["studies_waiting_for_listed"] == 1
    lines = "\n".join(f"{name} {text}" for name, text in _listed(shown["listed"] | {"waits_until": until}))
    assert "lists 4 images; 2 neither here nor archived" in lines and missing[0] in lines and until in lines
    bring_back(pieces, made[1], made[2])
    go(pieces)
    shown = reports.show(made[0].study_uid)
    assert shown is not None
    assert shown["listed"] is None, "its files are gone, and the DICOMDIR speaks for what is here"
    assert reports.status()["studies_waiting_for_listed"] == 0 and reports.queue(10) == []


def test_a_run_that_ends_does_not_wait(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, max_wait_seconds=WAIT)
    pieces.parts.begin(waits_for_listed=False)
    pieces.intakes = list(pieces.parts.sources.intakes.values())
    made = export(pieces)
    take_away(pieces, made[0])
    go(pieces)
    assert state(pieces, made) == StudyState.ARCHIVED
    pieces.close()
