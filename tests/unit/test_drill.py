"""A restore drill says of a study what is so: equal, not as it is recorded, or not compared, and why."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.daemon import drill_report
from dicomwatchd.drill import rounds, trial
from dicomwatchd.drill.lot import SAMPLE, Lot
from dicomwatchd.drill.rounds import RestoreDrills
from dicomwatchd.drill.scratch import NAME, Scratch, ScratchUnusable
from dicomwatchd.drill.trial import Nothing, Trial
from dicomwatchd.errors import ArchiveRefused, OutOfReach, Permanent, StateUnavailable, Stopping
from dicomwatchd.model import Uid
from dicomwatchd.queue.drills import KEEP_SECONDS, Drilled, Outcome
from tests.pieces import Log
from tests.unit.memory_archive import PATIENT, SERIES, STUDY, MemoryCatalogue, MemoryStore, archive, content
from tests.unit.queues import Bench

DAY = 86400.0


class Room:
    """A disk of 1 GB with so much free."""

    total = 10**9

    def __init__(self) -> None:
        self.free = 10**9


class Yard:
    """An archive of one study of three instances, a state, and drills in it that are stepped by hand."""

    def __init__(self, root: Path, plan: RestoreDrill | None = None) -> None:
        self.bench = Bench(root)
        self.clock = self.bench.clock
        self.store, self.log, self.room = MemoryStore(), Log(), Room()
        self.catalogue = MemoryCatalogue()
        self.root = root
        self.busy = self.trouble = False
        self.beats = 0
        self.at_beat: dict[int, Any] = {}
        self.plan = plan or RestoreDrill(studies_per_day=4)
        self.make()

    def make(self) -> None:
        random = Random(1)
        self.scratch = Scratch(self.root, lambda: f"{random.getrandbits(64):016x}", 0.1, lambda _path: self.room)
        self.trial = Trial(
            self.store,
            self.catalogue,
            self.scratch,
            self.clock,
            lambda: f"{random.getrandbits(64):016x}",
            random.random,
        )
        self.drills = RestoreDrills(
            self.bench.queue.drills,
            self.store,
            "archive-1",
            self.trial,
            self.scratch,
            self.plan,
            self.clock,
            random,
            self.log,
            busy=lambda: self.busy,
            in_trouble=lambda: self.trouble,
        )

    def archive(self, study: Uid = STUDY, instances: int = 3, before: Manifest | None = None) -> Manifest:
        files = [(SERIES, f"{study}.9.{n}", content(n, 2500)) for n in range(instances)]
        manifest = archive(self.store, files, study=study, before=before)
        self.catalogue.records[study] = manifest.record()
        return manifest

    def beat(self) -> None:
        self.beats += 1
        if action := self.at_beat.get(self.beats):
            action()

    def of(self, study: Uid = STUDY, most_bytes: int = 10**9) -> Drilled | None:
        tried = self.trial.of(study, most_bytes, self.beat, lambda _seconds: None)
        assert self.left() == []
        return None if isinstance(tried, Nothing) else tried

    def left(self) -> list[str]:
        return os.listdir(self.root / NAME) if (self.root / NAME).exists() else []

    def day(self, days: float = 1.0) -> None:
        """The drills are stepped through so many days."""
        end = self.clock.seconds + days * DAY
        while self.clock.seconds < end:
            self.drills.step()
            self.clock.seconds += 300

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.bench.rows("SELECT outcome FROM drills ORDER BY drill_id")]

    def problems(self, runs_for_seconds: float = DAY) -> list[str]:
        return [*drill_report.problems(self.bench.queue.drills, self.plan, self.clock.now(), runs_for_seconds)]

    def document(self) -> dict[str, Any]:
        return drill_report.document(self.bench.queue.drills, self.plan)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    yard.bench.queue.close()


def erase(yard: Yard, study: Uid = STUDY, through: int = 101) -> None:
    number = erasures.newest_number(yard.store, study) + 1
    assert erasures.create(
        yard.store, Erasure("archive-1", study, number, "2026-01-31T12:00:00.000Z", "x", 0, "x", through)
    )
    yard.catalogue.records.pop(study, None)
    for key in [key for key in yard.store.versions if key.startswith(keys.study_prefix(study))]:
        del yard.store.versions[key]


# --- one study


def test_a_study_that_comes_back(yard: Yard) -> None:
    yard.archive()
    seen: list[list[Path]] = []
    yard.at_beat[3] = lambda: seen.append(list((yard.root / NAME).rglob("*")))
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.revision) == (Outcome.EQUAL, 1)
    assert (drilled.instances, drilled.equal, drilled.size_bytes) == (3, 3, 7500)
    # There was a copy, and for nobody else to see.
    assert seen and seen[0] and (yard.root / NAME).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda data: data[:-1], lambda data: data + b"?"])
def test_other_bytes(yard: Yard, change: Any) -> None:
    key = yard.archive().instances[1].key
    yard.store.versions[key] = [change(yard.store.versions[key][0])]
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances, drilled.equal) == (Outcome.FAILED, trial.DIFFERS, 3, 2)


def test_a_missing_object(yard: Yard) -> None:
    del yard.store.versions[yard.archive().instances[1].key]
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances, drilled.equal) == (Outcome.FAILED, trial.DIFFERS, 3, 2)


def test_a_version_beneath(yard: Yard) -> None:
    """All comes back, and yet somebody has written where nobody may."""
    yard.store.versioned = True
    item = archive(yard.store, [(SERIES, "1.2.9", content(1))]).instances[0]
    manifest = yard.store.versions[keys.manifest(STUDY, 1)][0].replace(b'"version_id": null', b'"version_id": "0"')
    yard.store.versions[keys.manifest(STUDY, 1)] = [manifest.replace(b'"version_id":null', b'"version_id":"0"')]
    yard.store.overwrite(item.key, b"another")
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances, drilled.equal) == (Outcome.FAILED, trial.ELSEWHERE, 1, 1)


def test_a_manifest_that_cannot_be_read(yard: Yard) -> None:
    yard.store.versions[yard.archive().key] = [b"{}"]
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances) == (Outcome.FAILED, trial.MANIFEST, 0)


def test_a_manifest_that_is_gone(yard: Yard) -> None:
    del yard.store.versions[yard.archive().key]
    drilled = yard.of()
    assert drilled is not None and (drilled.outcome, drilled.code) == (Outcome.FAILED, trial.MANIFEST)


def test_a_newest_revision_that_cannot_be_read(yard: Yard) -> None:
    """What an older one lists comes back, which is not all."""
    newest = yard.archive(instances=4, before=yard.archive())
    yard.catalogue.records.clear()
    yard.store.versions[newest.key] = [b"{}"]
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances, drilled.equal) == (Outcome.FAILED, trial.MANIFEST, 3, 3)


def test_a_disk_that_gives_other_bytes_back(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on the disk is read once more: the fetch has hashed what came over the network."""
    yard.archive()
    real = trial._compare

    def damaged(found: Any, folder: Path, beat: Any) -> Any:
        path = next(path for path in folder.rglob("*.dcm"))
        path.write_bytes(b"?" + path.read_bytes()[1:])
        return real(found, folder, beat)

    monkeypatch.setattr(trial, "_compare", damaged)
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.code, drilled.instances, drilled.equal) == (Outcome.FAILED, trial.DISK, 3, 2)


def test_a_store_out_of_reach(yard: Yard) -> None:
    yard.archive()
    yard.store.fault = OutOfReach("away", endpoint="s3")
    drilled = yard.of()
    assert drilled == Drilled(STUDY, Outcome.NOT_DONE, OutOfReach.code)


def test_a_store_that_goes_away_meanwhile(yard: Yard) -> None:
    yard.archive(instances=8)

    def away(_key: str, _number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk[:0]
            raise OutOfReach("away", endpoint="s3")

    def leave() -> None:
        yard.store.tampering = away

    yard.at_beat[7] = leave
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.NOT_DONE
    assert 0 < drilled.equal == drilled.instances < 8, "what came back before counts"


def test_a_store_that_refuses_everything_ends_nothing(yard: Yard) -> None:
    yard.archive()
    yard.store.fault = ArchiveRefused("another archive")
    assert yard.of() == Drilled(STUDY, Outcome.NOT_DONE, ArchiveRefused.code)


def test_a_catalogue_out_of_reach_hinders_nothing(yard: Yard) -> None:
    yard.archive()
    yard.catalogue.fault = OutOfReach("away")
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.EQUAL


def test_cold_storage_is_left_alone(yard: Yard) -> None:
    manifest = yard.archive()
    yard.store.cold[manifest.instances[2].key] = "GLACIER"
    yard.store.reads.clear()
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.COLD
    assert yard.store.asked_back == []
    assert not any(keys.holds_instances(key) for key in yard.store.reads)


def test_an_erased_study_is_none(yard: Yard) -> None:
    yard.archive()
    erase(yard)
    assert yard.of() is None


def test_a_study_that_is_erased_meanwhile(yard: Yard) -> None:
    yard.archive()
    yard.at_beat[2] = lambda: erase(yard)
    assert yard.of() is None


def test_a_study_that_was_archived_again_after_it_was_erased(yard: Yard) -> None:
    """An erasure excuses no revision that came later."""
    yard.archive()
    erase(yard, through=0)
    del yard.store.versions[yard.archive().instances[0].key]
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.FAILED


def test_a_study_on_its_way_is_none_yet(yard: Yard) -> None:
    yard.store.versions[yard.archive().instances[0].key] = [b"x"]
    del yard.store.versions[keys.manifest(STUDY, 1)]
    yard.catalogue.records.clear()
    assert yard.of() is None


def test_a_revision_that_comes_meanwhile(yard: Yard) -> None:
    first = yard.archive()
    yard.at_beat[2] = lambda: yard.archive(instances=5, before=first)
    drilled = yard.of()
    assert drilled is not None
    assert (drilled.outcome, drilled.revision, drilled.instances) == (Outcome.EQUAL, 1, 3)


def test_no_room_and_too_large(yard: Yard) -> None:
    yard.archive()
    yard.room.free = 10**8 + 7499 + 3 * 4096
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.NO_ROOM
    yard.room.free += 1
    drilled = yard.of()
    assert drilled is not None and drilled.outcome is Outcome.EQUAL
    drilled = yard.of(most_bytes=7499)
    assert drilled is not None and drilled.outcome is Outcome.TOO_LARGE


@pytest.mark.parametrize("beat", range(1, 12))
def test_a_stop_leaves_nothing(yard: Yard, beat: int) -> None:
    yard.archive()

    def stop() -> None:
        raise Stopping("stop")

    yard.at_beat[beat] = stop
    with pytest.raises(Stopping):
        yard.of()
    assert yard.left() == []


# --- where the copies lie


def test_what_is_not_ours_stays(yard: Yard) -> None:
    yard.archive()
    folder = yard.root / NAME
    (folder / "study-0123456789abcdef" / "1.2").mkdir(parents=True)
    (folder / "study-0123456789abcdef" / "1.2" / "IM1").write_text("x")
    (folder / "study-0123456789abcdeX").mkdir()
    (folder / "lost+found").mkdir()
    (folder / "study-fedcba9876543210").symlink_to(yard.root)
    folder.chmod(0o700)
    assert yard.scratch.clear() == 1
    assert sorted(yard.left()) == ["lost+found", "study-0123456789abcdeX", "study-fedcba9876543210"]
    assert (yard.root / "state.db").exists()


def test_a_folder_that_is_not_private_or_is_a_link(yard: Yard) -> None:
    (yard.root / NAME).mkdir(mode=0o755)
    (yard.root / NAME).chmod(0o755)
    with pytest.raises(ScratchUnusable):
        yard.scratch.clear()
    (yard.root / NAME).rmdir()
    (yard.root / "inbox").mkdir(mode=0o700)
    (yard.root / NAME).symlink_to("inbox")
    yard.archive()
    drilled = yard.trial.of(STUDY, 10**9, yard.beat, lambda _: None)
    assert isinstance(drilled, Drilled) and (drilled.outcome, drilled.code) == (Outcome.NOT_DONE, ScratchUnusable.code)
    yard.drills.clear()
    assert yard.log.events("restore-drill-scratch") != [] and os.listdir(yard.root / "inbox") == []


# --- which study


class Counted:
    """A store that lists so many studies, and counts what is asked of it."""

    def __init__(self, uids: list[str]) -> None:
        self.prefixes = sorted(f"studies/{uid}/" for uid in uids)
        self.listed = 0

    def common_prefixes(self, _prefix: str, after: str = "") -> Iterator[str]:
        for one in self.prefixes:
            if one > after:
                self.listed += 1
                yield one


def test_every_study_has_the_same_chance() -> None:
    """Nine of ten studies are of one maker, and their keys stand close together."""
    uids = [f"1.2.840.1.{n}" for n in range(900)] + [f"1.3.{n}" for n in range(100)]
    store, random, drawn = Counted(uids), Random(7), []
    lot = Lot()
    for _ in range(1000):
        lot.walk(store, random, lambda: None, piece=250)  # type: ignore[arg-type]
        lot = Lot(lot.to_text())
        if (study := lot.draw(random)) is not None and store.listed > 1000:  # after the first round
            drawn.append(study)
    rare = sum(study.startswith("1.3.") for study in drawn)
    assert 60 < rare < 140, "a tenth of them, as there are"
    assert len(set(drawn)) > 500


def test_a_draw_lists_no_more_than_a_piece() -> None:
    store, random = Counted([f"1.2.{n}" for n in range(5000)]), Random(7)
    lot = Lot()
    for number in range(1, 6):
        lot.walk(store, random, lambda: None, piece=1000)  # type: ignore[arg-type]
        assert store.listed <= 1000 * number
        assert lot.draw(random) is not None
    lot.walk(store, random, lambda: None, piece=1000)  # type: ignore[arg-type]
    assert lot.is_complete and len(lot.to_text()) < 10_000
    before = store.listed
    for _ in range(SAMPLE // 2):
        lot.draw(random)
    assert store.listed == before


def test_a_small_archive_is_gone_through_before_any_study_comes_again() -> None:
    store, random, lot = Counted(["1.2.1", "1.2.2", "1.2.3"]), Random(7), Lot()
    drawn = []
    for _ in range(6):
        lot.walk(store, random, lambda: None)  # type: ignore[arg-type]
        drawn.append(lot.draw(random))
    assert sorted(map(str, drawn[:3])) == sorted(map(str, drawn[3:])) == ["1.2.1", "1.2.2", "1.2.3"]


@pytest.mark.parametrize("said", ["{", "[]", '{"sample": ["x"]}', '{"sample": 3}', '{"sample": ["1.2"], "seen": 0}'])
def test_a_lot_that_cannot_be_read_begins_anew(said: str) -> None:
    assert Lot(said).to_text() == Lot().to_text()


def test_an_empty_archive() -> None:
    lot = Lot()
    lot.walk(Counted([]), Random(1), lambda: None)  # type: ignore[arg-type]
    assert lot.draw(Random(1)) is None


# --- when, and what is told


def test_as_many_a_day_as_asked_for(yard: Yard) -> None:
    for number in range(20):
        yard.archive(Uid(f"1.2.3.{number}"))
    yard.day(5)
    assert 15 <= len(yard.outcomes()) <= 25 and set(yard.outcomes()) == {"equal"}
    instances = 3 * len(yard.outcomes())
    said = yard.document()
    assert (said["instances"], said["instances_equal"], said["studies"]["equal"]) == (
        instances,
        instances,
        instances / 3,
    )
    assert len(yard.log.events("restore-drill")) == len(yard.outcomes())
    assert yard.problems() == []
    assert "CANARY" not in repr(yard.log.entries) + repr(said) and "CANARY" in repr(PATIENT)


def test_none_when_none_are_asked_for(tmp_path: Path) -> None:
    yard = Yard(tmp_path, RestoreDrill())
    yard.archive()
    yard.day(3)
    assert yard.outcomes() == [] and yard.problems() == []
    yard.bench.queue.close()


def test_a_restart_makes_none_earlier(yard: Yard) -> None:
    yard.archive()
    yard.day()
    before = len(yard.outcomes())
    for _ in range(50):
        yard.make()
        yard.drills.step()
    assert len(yard.outcomes()) <= before + 1


def test_a_clock_that_was_set_back(yard: Yard) -> None:
    yard.archive()
    yard.day()
    yard.clock.seconds -= 400 * DAY
    before = len(yard.outcomes())
    yard.day(3)
    assert len(yard.outcomes()) >= before + 6


def test_no_more_bytes_a_day_than_allowed(tmp_path: Path) -> None:
    plan = RestoreDrill.model_construct(studies_per_day=1000, bytes_per_day=30_000)
    yard = Yard(tmp_path, plan)
    for number in range(20):
        yard.archive(Uid(f"1.2.3.{number}"))
    yard.day(2)
    assert 2 * 22_500 <= yard.document()["bytes"] <= 3 * 30_000
    assert set(yard.outcomes()) == {"equal"}, "and nothing is looked at for which there are no bytes left"
    yard.bench.queue.close()


def test_it_leaves_a_store_in_trouble_alone(yard: Yard) -> None:
    yard.archive()
    yard.trouble = True
    yard.day(2)
    assert yard.outcomes() == []
    yard.trouble = False
    yard.drills.step()
    assert yard.outcomes() == ["equal"]


def test_a_failure_is_told_until_the_study_comes_back(yard: Yard) -> None:
    manifest = yard.archive()
    key = manifest.instances[0].key
    data = yard.store.versions.pop(key)
    for number in range(30):
        yard.archive(Uid(f"1.2.3.{number}"), instances=1)
    yard.drills._turn(STUDY, 10**9)
    [problem] = yard.problems()
    assert problem == (
        f"restore drill: study {STUDY} did not come back whole: 1 of 3 instances are missing or have other bytes; run"
        f" dicomwatchctl verify --deep {STUDY}, and archive them again from their source"
    )
    assert yard.log.events("restore-drill-failed")[0]["failed_instances"] == 1
    yard.day(3)
    failed = yard.outcomes().count("failed")
    assert 2 <= failed <= 5, "tried again once a day, and others beside it"
    assert len(yard.outcomes()) > failed + 2
    yard.store.versions[key] = data
    yard.day(2)
    assert yard.problems() == [] and yard.document()["failed"] == []
    figures = yard.document()
    assert figures["instances"] - figures["instances_equal"] == failed, "what was so stays in the figures"


def test_a_failed_study_that_is_erased_is_no_problem_any_more(yard: Yard) -> None:
    yard.store.versions.pop(yard.archive().instances[0].key)
    yard.drills._turn(STUDY, 10**9)
    assert len(yard.problems()) == 1
    erase(yard)
    yard.day(2)
    assert yard.problems() == []


def test_a_failed_study_of_which_nothing_is_left_stays_a_problem(yard: Yard) -> None:
    """Neither the store nor the catalogue knows it any more, and nobody has erased it."""
    yard.store.versions.pop(yard.archive().instances[0].key)
    yard.drills._turn(STUDY, 10**9)
    yard.store.versions.clear()
    yard.catalogue.fault = OutOfReach("away")
    for number in range(9):
        yard.archive(Uid(f"1.2.3.{number}"), instances=1)
    yard.day(3)
    [problem] = yard.problems()
    assert "manifest" in problem and str(STUDY) in problem
    assert yard.outcomes().count("equal") >= 5, "and it is in nobody's way"


def test_what_was_of_another_archive_says_nothing_of_this_one(yard: Yard) -> None:
    drills = yard.bench.queue.drills
    drills.belong_to("archive-1")
    drills.record(Drilled("1.2.1", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    drills.keep_lot("x")
    drills.belong_to("archive-1")
    assert len(yard.problems()) == 1 and drills.lot() == "x"
    drills.belong_to("archive-2")
    assert yard.problems() == [] and drills.lot() == "" and drills.figures().last_at is None


def test_out_of_reach_is_no_failure_of_the_archive(yard: Yard) -> None:
    yard.archive()
    yard.store.fault = OutOfReach("away", endpoint="s3")
    yard.day(2)
    assert set(yard.outcomes()) == {"not-done"} and yard.problems() == []
    said = yard.document()
    assert (said["instances"], said["failed"], said["last_compared_at"]) == (0, [], None)
    assert yard.log.events("restore-drill-left-out")[0]["code"] == OutOfReach.code
    yard.day(8)
    [problem] = yard.problems()
    assert problem.startswith("restore drill: no study could be fetched for 7 days")
    assert yard.problems(60.0) == [], "it may have been off all the time"
    yard.store.fault = None
    yard.day(1)
    assert yard.problems() == []


def test_an_archive_in_cold_storage_is_no_problem(yard: Yard) -> None:
    for item in yard.archive().instances:
        yard.store.cold[item.key] = "DEEP_ARCHIVE"
    yard.day(10)
    assert set(yard.outcomes()) == {"cold"} and yard.problems() == [] and yard.store.asked_back == []


def test_cold_studies_are_passed_over(yard: Yard) -> None:
    for number in range(4):
        for item in yard.archive(Uid(f"1.2.3.{number}")).instances:
            yard.store.cold[item.key] = "GLACIER"
    yard.archive()
    yard.day(1)
    assert "equal" in yard.outcomes() and "cold" in yard.outcomes()


def test_many_failures_are_counted(yard: Yard) -> None:
    for number in range(25):
        yard.bench.queue.drills.record(Drilled(f"1.2.{number}", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    problems = yard.problems()
    assert len(problems) == 21 and problems[-1] == "restore drill: 5 more studies did not come back"


def test_each_failure_says_what_to_do() -> None:
    said = {
        code: drill_report.sentence(Drilled(STUDY, Outcome.FAILED, code, 1, 3, 2))
        for code in (trial.DIFFERS, trial.MANIFEST, trial.ELSEWHERE, trial.DISK)
    }
    assert len(set(said.values())) == 4
    assert all(f"verify --deep {STUDY}" in text for code, text in said.items() if code != trial.DISK)


# --- out of the way


def test_it_gives_way_and_stops(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While studies are archived it waits between any two pieces; a stop in the midst leaves nothing."""
    yard.archive()
    waits: list[float] = []
    stopping: Any = SimpleNamespace(is_set=lambda: len(waits) > 4, wait=waits.append)
    monkeypatch.setattr(yard.drills, "_stopping", stopping)
    yard.busy = True
    with pytest.raises(Stopping):
        yard.drills._turn(STUDY, 10**9)
    assert set(waits) == {rounds.GIVES_WAY_SECONDS} and 5 <= len(waits) <= 7
    assert yard.left() == [] and yard.document()["last_compared_at"] is None


def test_the_thread_removes_what_a_killed_one_has_left(yard: Yard) -> None:
    yard.archive()
    left = yard.root / NAME / "study-00000000000000ff"
    left.mkdir(parents=True)
    (yard.root / NAME).chmod(0o700)
    (left / "IM1").write_text("x")
    stopping = threading.Event()
    with pytest.raises(Permanent):
        yard.drills.want(STUDY)  # nobody would answer
    thread = threading.Thread(target=yard.drills.run, args=(stopping, lambda: None))
    thread.start()
    try:
        while not yard.drills._runs:
            stopping.wait(0.01)
        wanted = yard.drills.want(STUDY)
        assert wanted.done.wait(20)
        assert wanted.drilled is not None and wanted.drilled.outcome is Outcome.EQUAL and not wanted.is_cut_off
    finally:
        stopping.set()
        thread.join(20)
    assert yard.left() == []
    assert yard.log.events("restore-drill-scratch") == [{"studies": 1}]


def test_a_state_whose_disk_is_full_ends_nothing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.archive()

    def full() -> Any:
        raise StateUnavailable("the disk with the daemon's state is full", code="state-full", endpoint="state")

    stopping = threading.Event()
    turns: list[int] = []

    def beat() -> None:
        turns.append(1)
        if len(turns) > 3:
            stopping.set()

    monkeypatch.setattr(yard.bench.queue._database, "write", full)
    monkeypatch.setattr(rounds, "_TURN_SECONDS", 0.01)
    yard.clock.seconds += DAY
    yard.drills._due = yard.clock.now()
    yard.drills.run(stopping, beat)
    assert len(turns) == 4 and yard.left() == [] and yard.outcomes() == []


# --- what the state keeps


def test_what_is_old_goes_but_for_what_is_still_wrong(yard: Yard) -> None:
    drills = yard.bench.queue.drills
    drills.record(Drilled("1.2.1", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    drills.record(Drilled("1.2.2", Outcome.FAILED, trial.DIFFERS, 1, 3, 2))
    drills.record(Drilled("1.2.2", Outcome.EQUAL, "", 1, 3, 3))
    for number in range(600):
        drills.record(Drilled(f"1.2.3.{number}", Outcome.EQUAL, "", 1, 1, 1))
    assert not drills.step()
    assert drills.figures().instances == 609
    yard.clock.seconds += KEEP_SECONDS + DAY
    assert drills.step() and not drills.step()
    assert [row["study_uid"] for row in yard.bench.rows("SELECT study_uid FROM drills")] == ["1.2.1"]
    assert drills.figures().instances == 0 and [one.study_uid for one in drills.failed(9)] == ["1.2.1"]
