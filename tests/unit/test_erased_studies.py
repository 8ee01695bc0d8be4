"""The daemon and a study that was erased from the archive, at whatever moment: it sends nothing more of it, brings
nothing back, and deletes no local file on the strength of what is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.erasing.erasure import SETTLE_SECONDS, Report
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.port import ObjectStore, StoredObject
from dicomwatchd.cli.studies.same_medium import with_the_same_dicomdir
from dicomwatchd.errors import Conflict, DicomwatchdError, OutOfReach, Permanent, StudyErased
from dicomwatchd.fetch import look_up
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline.deletion.batch import DeletionBatch, Result
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.proof import LeaseRefused
from dicomwatchd.pipeline.erased import LOOK_SECONDS, NOTING_SECONDS, ErasedStudies
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from dicomwatchd.queue.holds import ERASED
from dicomwatchd.queue.rows import LocalFile
from dicomwatchd.rights import Asker
from dicomwatchd.upload_text import sentences
from tests import schemas
from tests.discs import export
from tests.pieces import ARCHIVE_ID, Pieces, at
from tests.synthetic import Made, Maker
from tests.unit.erasing import BECAUSE, WHO, MemoryEraser, eraser
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore
from tests.unit.test_holds import call
from tests.unit.uploading import Handed

BY: dict[str, object] = {"uid": 0, "login": "root"}
STUDY = Uid(Maker(seed=3).study_uid(0))


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def drop(pieces: Pieces, series: int = 1, count: int = 3, study: int = 0) -> list[Made]:
    maker = Maker(seed=3)
    return maker.ct_series(pieces.inbox / f"S{series}", slices=count, study=study, series=series, rows=16, columns=16)


def erase(pieces: Pieces, **options: Any) -> Report:
    """By somebody elsewhere, while this daemon stands still."""
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.archive_id = ARCHIVE_ID
    made = eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID, **options)
    return made.erase(STUDY, BECAUSE, WHO)


def record(pieces: Pieces) -> None:
    """The first step of an erasure alone."""
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    made = eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID)
    made._on_record(made.survey(STUDY), BECAUSE, WHO)


def of_study(pieces: Pieces) -> list[str]:
    return [key for key in pieces.memory.versions if key.startswith(keys.study_prefix(STUDY))]


def here(made: list[Made]) -> bool:
    return all(one.path.exists() for one in made)


def state(pieces: Pieces) -> str:
    found = pieces.queue.reports.show(STUDY)
    return "" if found is None else str(found["state"])


def held(pieces: Pieces) -> list[str]:
    return [hold.code for hold in pieces.queue.holds.open(10) if hold.study_uid == STUDY]


def later(pieces: Pieces) -> None:
    """Until nobody goes by an earlier look any more."""
    pieces.clock.advance(LOOK_SECONDS + 1)


def test_late_slices_are_neither_archived_nor_deleted(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    assert pieces.left() == []
    assert erase(pieces).is_complete
    later(pieces)
    late = drop(pieces, series=2)
    other = drop(pieces, series=3, study=1)
    pieces.run(4)
    assert here(late) and of_study(pieces) == []
    assert not any(one.path.exists() for one in other), "other studies go their way"
    assert state(pieces) == StudyState.PARKED and held(pieces) == [ERASED]
    assert pieces.log.events("study-erased") == [{"study_uid": STUDY}]
    assert BECAUSE not in json.dumps([str(one) for one in pieces.log.entries]), "a person's text is in no log"
    [hold] = pieces.queue.holds.open(10)
    assert hold.files == 3 and hold.found[0]["because"] == BECAUSE
    assert pieces.queue.reports.parked(10) == [], "it is told once, among those that are held"


def test_a_retry_is_no_release(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(3)
    assert pieces.queue.claims.retry(STUDY)
    pieces.run(3)
    pieces.restart()
    pieces.run(3)
    assert here(late) and of_study(pieces) == [] and held(pieces) == [ERASED]
    assert len(pieces.log.events("study-erased")) == 1


def test_a_release_archives_it_again_and_the_archive_has_it_again(pieces: Pieces) -> None:
    first = drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(3)
    assert pieces.queue.holds.release(STUDY, "a new consent", BY) == 3
    [entry] = [one.body for one in pieces.queue.audit.of_study(STUDY) if one.body["kind"] == "hold-released"]
    assert (entry["hold"], entry["because"]) == (ERASED, "a new consent")
    pieces.run(3)
    assert not any(one.path.exists() for one in late), "on new proofs"
    found = look_up(pieces.memory, pieces.catalogue, STUDY).manifest
    assert {item.sha256 for item in found.instances} == {one.sha256 for one in late}
    assert not {one.sha256 for one in first} & pieces.archived(), "what was erased is not back"
    pieces.catalogue.records.clear()  # type: ignore[attr-defined]
    assert rebuild(pieces.memory, pieces.catalogue).recorded == 1
    assert look_up(pieces.memory, pieces.catalogue, STUDY).manifest == found
    more = drop(pieces, series=4)
    pieces.run(3)
    assert not any(one.path.exists() for one in more) and held(pieces) == []


def held_again(pieces: Pieces) -> list[Made]:
    """New slices of the study, held here; whoever holds them up has erased it, or is about to."""
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(4)
    assert held(pieces) == [ERASED] and here(late)
    return late


def test_a_release_while_it_is_being_erased_waits_for_its_end(pieces: Pieces) -> None:
    """Whoever erases deletes all that is there: what was archived anew, and deleted here, would go with the rest."""
    drop(pieces)
    pieces.run()
    late: list[Made] = []
    passed = [0.0]

    def sleep(_: float) -> None:
        passed[0] += SETTLE_SECONDS
        if not late:
            late.extend(held_again(pieces))
            assert pieces.queue.holds.release(STUDY, "the wrong study", BY) == 3
            pieces.run(4)
            assert here(late), "what is there is about to be deleted"
            assert pieces.log.events("study-delayed")[-1]["code"] == "being-erased"

    report = erase(pieces, settle_seconds=SETTLE_SECONDS, sleep=sleep, monotonic=lambda: passed[0])
    assert report.is_complete and here(late) and of_study(pieces) == []
    pieces.clock.advance(3600)
    pieces.run(4)
    assert pieces.left() == [] and {one.sha256 for one in late} <= pieces.archived()
    assert look_up(pieces.memory, pieces.catalogue, STUDY).manifest.revision > report.erasure.through_revision


def test_an_erasure_that_was_broken_off_has_ended_after_a_day(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    record(pieces)
    late = held_again(pieces)
    pieces.queue.holds.release(STUDY, "the wrong study", BY)
    pieces.clock.advance(erasures.MOST_SECONDS)
    pieces.run(4)
    assert here(late)
    pieces.clock.advance(erasures.ABANDONED_SECONDS)
    pieces.run(4)
    assert pieces.left() == [] and {one.sha256 for one in late} <= pieces.archived()


def test_an_erasure_that_was_broken_off_before_its_last_word_is_run_again(pieces: Pieces) -> None:
    """Nothing of the study is there any more."""
    drop(pieces)
    pieces.run()

    def lost() -> None:
        raise OutOfReach("no answer")

    with at(erasures, "put_end", lost), pytest.raises(OutOfReach):
        erase(pieces)
    assert of_study(pieces) == []
    late = held_again(pieces)
    pieces.queue.holds.release(STUDY, "the wrong study", BY)
    again = erase(pieces)
    assert again.is_complete and erasures.has_ended(pieces.memory, again.erasure, pieces.clock.now())
    later(pieces)
    pieces.run(4)
    assert here(late) and held(pieces) == [ERASED], "for a run of its own"
    pieces.queue.holds.release(STUDY, "the wrong study", BY)
    pieces.run(4)
    assert pieces.left() == [] and {one.sha256 for one in late} <= pieces.archived()


def test_an_erasure_of_which_something_is_left_has_not_ended(pieces: Pieces) -> None:
    """It is run again, and then deletes what is there."""
    drop(pieces)
    pieces.run()
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.archive_id = ARCHIVE_ID
    made = eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID)
    assert isinstance(made.objects, MemoryEraser)
    made.objects.refuses[of_study(pieces)[0]] = "AccessDenied"
    report = made.erase(STUDY, BECAUSE, WHO)
    assert not report.is_complete and not erasures.has_ended(pieces.memory, report.erasure, pieces.clock.now())
    again = erase(pieces)
    assert again.is_complete and erasures.has_ended(pieces.memory, again.erasure, pieces.clock.now())


@pytest.mark.parametrize("what", ["asleep", "another run"])
def test_whoever_erases_stops_before_what_was_archived_anew(pieces: Pieces, what: str) -> None:
    """As when the machine was closed over the weekend, in the midst of it; or somebody has run it once more, to its
    end, and the study was released after that."""
    drop(pieces)
    pieces.run()
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.archive_id = ARCHIVE_ID
    late: list[Made] = []

    def sleep(_: float) -> None:
        if late:
            return
        late.extend(held_again(pieces))
        if what == "another run":
            erase(pieces)
            pieces.queue.holds.release(STUDY, "a new consent", BY)  # which is for the first of the two
            later(pieces)
            pieces.run(4)
            assert here(late) and held(pieces) == [ERASED]
        else:
            pieces.clock.advance(erasures.ABANDONED_SECONDS)
        pieces.queue.holds.release(STUDY, "a new consent", BY)
        pieces.clock.advance(3600)
        pieces.run(4)
        assert pieces.left() == [] and {one.sha256 for one in late} <= pieces.archived()

    first = eraser(
        pieces.memory,
        pieces.catalogue,
        ARCHIVE_ID,
        now=pieces.clock.now,
        monotonic=pieces.clock.monotonic,
        settle_seconds=1.0,
        sleep=sleep,
    )
    with pytest.raises(DicomwatchdError) as stopped:
        first.erase(STUDY, BECAUSE, WHO)
    assert stopped.value.code == ("erasing-too-long" if what == "asleep" else "conflict")
    assert {one.sha256 for one in late} <= pieces.archived()
    assert pieces.catalogue.get(STUDY) is not None


def test_whoever_erases_takes_no_record_of_what_was_archived_anew(pieces: Pieces) -> None:
    """The machine was closed in the midst of its last page."""
    drop(pieces)
    pieces.run()
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.archive_id = ARCHIVE_ID
    late: list[Made] = []

    def another_run() -> None:
        if late:
            return
        late.extend(held_again(pieces))
        erase(pieces)
        for _ in range(2):  # for either of the two
            pieces.queue.holds.release(STUDY, "a new consent", BY)
            later(pieces)
            pieces.run(4)
        assert pieces.left() == [] and pieces.catalogue.get(STUDY) is not None

    first = eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID)
    assert isinstance(first.objects, MemoryEraser)
    first.objects.before = another_run
    with pytest.raises(Conflict):
        first.erase(STUDY, BECAUSE, WHO)
    assert {one.sha256 for one in late} <= pieces.archived()
    assert pieces.catalogue.get(STUDY) is not None


def test_a_release_is_for_the_erasure_that_was_looked_at(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    drop(pieces, series=2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    assert erase(pieces).erasure.number == 2
    later(pieces)
    late = drop(pieces, series=3)
    pieces.run(3)
    assert here(late) and of_study(pieces) == [] and held(pieces) == [ERASED]
    with pytest.raises(StudyErased):
        look_up(pieces.memory, pieces.catalogue, STUDY)


def test_files_that_are_kept_after_archiving_stay_when_they_fall_due(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=600.0))
    made = drop(pieces)
    pieces.run(2)
    assert here(made) and set(pieces.states().values()) == {"kept"}
    erase(pieces)
    pieces.clock.advance(700)
    pieces.run(3)
    assert here(made) and of_study(pieces) == [] and held(pieces) == [ERASED]
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    assert here(made) and {one.sha256 for one in made} <= pieces.archived(), "kept for as long again"
    pieces.clock.advance(700)
    pieces.run(3)
    assert pieces.left() == []
    pieces.close()


def test_files_that_are_kept_for_good_are_archived_again_once_it_is_released(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    made = drop(pieces)
    pieces.run(2)
    erase(pieces)
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(3)
    assert here(made + late) and of_study(pieces) == []
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    assert {one.sha256 for one in made + late} == pieces.archived() and here(made + late)
    pieces.close()


def released_meanwhile(pieces: Pieces) -> None:
    """Erased elsewhere, noted by another thread here, and released, in a moment of a shipment's."""
    record(pieces)
    later(pieces)
    with pytest.raises(StudyErased):
        pieces.context.erased.require_none(STUDY)
    pieces.queue.holds.release(STUDY, "a new consent", BY)


def ends(pieces: Pieces) -> None:
    """The rest of that erasure."""
    for key in of_study(pieces):
        del pieces.memory.versions[key]
    pieces.catalogue.records.clear()  # type: ignore[attr-defined]
    newest = erasures.newest(pieces.memory, STUDY)
    assert newest is not None
    erasures.put_end(pieces.memory, newest, newest.erased_at)


def test_what_is_released_right_before_it_is_kept_is_archived_again(tmp_path: Path) -> None:
    """Kept it would count as archived, and what was archived of it is what was erased."""
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    made = drop(pieces)
    pieces.settle()
    with at(pieces.queue.deletions, "keep", lambda: released_meanwhile(pieces)):
        pieces.ship()
    assert set(pieces.states().values()) == {"ready"} and state(pieces) == StudyState.ARRIVING
    ends(pieces)
    pieces.run()
    assert set(pieces.states().values()) == {"kept"} and pieces.archived() == {one.sha256 for one in made}
    pieces.close()


def test_what_is_released_in_the_midst_of_its_deletion_is_archived_again(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stays where it is, for want of a lease."""
    drop(pieces)
    pieces.settle()

    def refused(batch: DeletionBatch) -> list[tuple[LocalFile, Result]]:
        released_meanwhile(pieces)
        return [(one, LeaseRefused()) for one, _ in batch.items]

    monkeypatch.setattr(DeletionBatch, "delete", refused)
    pieces.ship()
    assert set(pieces.states().values()) == {"ready"} and state(pieces) == StudyState.ARRIVING


def erased_meanwhile(pieces: Pieces) -> None:
    """All of it, while this daemon stands still: the machine was asleep, or a share has not answered."""
    released_meanwhile(pieces)
    ends(pieces)


def test_a_file_that_was_proven_before_an_erasure_stays_when_it_is_over(pieces: Pieces) -> None:
    """The store was asked about the staged files, and everything has happened since: the release as well."""
    made = drop(pieces)
    pieces.settle()
    with at(FinalCheck, "gone", lambda: erased_meanwhile(pieces), after=True):
        pieces.ship()
    assert here(made) and of_study(pieces) == []
    assert pieces.log.events("study-delayed")[-1]["code"] == "erased-meanwhile"
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {one.sha256 for one in made}
    assert look_up(pieces.memory, pieces.catalogue, STUDY).manifest.revision > erasures.MARGIN_REVISIONS


def test_what_was_verified_before_an_erasure_is_not_recorded_when_it_is_over(tmp_path: Path) -> None:
    """It was on its way when the study was released, so it counts as sent; and it would be kept as archived."""
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    made = drop(pieces)
    pieces.settle()
    with (
        at(pieces.context.shipments, "stored", lambda: released_meanwhile(pieces)),
        at(pieces.context.turns, "turn", lambda: ends(pieces)),
    ):
        pieces.ship()
    assert of_study(pieces) == [], "no manifest lists what is gone"
    assert pieces.log.events("study-delayed")[-1]["code"] == "erased-meanwhile"
    pieces.run()
    assert set(pieces.states().values()) == {"kept"} and pieces.archived() == {one.sha256 for one in made}
    pieces.close()


def test_what_was_erased_and_released_while_it_was_recorded_does_not_count_as_archived(pieces: Pieces) -> None:
    made = drop(pieces)
    pieces.settle()
    with (
        at(pieces.catalogue, "put", lambda: erased_meanwhile(pieces)),
        at(pieces.context.shipments, "recorded", lambda: None) as calls,
    ):
        pieces.ship()
    assert calls == [0] and pieces.log.events("study-delayed")[-1]["code"] == "erased-meanwhile"
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {one.sha256 for one in made}


def test_another_site_respects_it_and_a_release_here_is_none_there(pieces: Pieces, tmp_path: Path) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    there, late = drop(other, series=2), drop(pieces, series=3)
    later(pieces)
    pieces.run(3)
    other.run(3)
    assert here(there) and here(late) and of_study(pieces) == []
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    other.run(3)
    assert here(there) and held(other) == [ERASED] and not any(one.path.exists() for one in late)
    other.close()


# -- at whatever moment of a shipment it comes -----------------------------------------------------------------------

#: Where the erasure begins: each step of a shipment, before and after.
MOMENTS: dict[str, Callable[[Pieces], tuple[Any, str, bool]]] = {
    "before the first byte": lambda p: (p.memory, "put", False),
    "after the first object": lambda p: (p.memory, "put", True),
    "stored": lambda p: (p.context.shipments, "share_locations", True),
    "verified": lambda p: (p.context.shipments, "verified", True),
    "before it is recorded": lambda p: (p.catalogue, "put", False),
    "recorded": lambda p: (p.catalogue, "put", True),
    "before the deletion is on record": lambda p: (p.context.deletions, "authorise", False),
    "the deletion is on record": lambda p: (p.context.deletions, "authorise", True),
}


@pytest.mark.parametrize(("is_slow", "bundled"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_at_each_step_of_a_shipment(tmp_path: Path, moment: str, is_slow: bool, bundled: bool) -> None:
    """The record comes at that moment. A quick daemon may go by its last look, and ends before anything is deleted; a
    slow one notices. Whatever is gone from the inbox was in the archive when it went."""
    pieces = Pieces(tmp_path, bundling=Bundling(1 << 20, 1 << 22) if bundled else None)
    made = drop(pieces)

    def begins() -> None:
        record(pieces)
        if is_slow:
            pieces.clock.advance(LOOK_SECONDS + 1)

    target, name, after = MOMENTS[moment](pieces)
    gone_before: list[str] = []
    with at(target, name, begins, after=after):
        pieces.run(3)
    assert erasures.newest_number(pieces.memory, STUDY) == 1
    if is_slow and not moment.startswith("the deletion is"):
        assert here(made), "it has noticed"
    for one in made:
        assert one.path.exists() or one.sha256 in pieces.archived(), "gone while it was there"
        gone_before += [] if one.path.exists() else [one.sha256]
    # Two minutes later all of it goes, whatever was sent after the record.
    pieces.clock.advance(SETTLE_SECONDS)
    assert erase(pieces).is_complete and of_study(pieces) == []
    assert pieces.catalogue.get(STUDY) is None
    pieces.run(4)
    assert of_study(pieces) == [] and pieces.catalogue.get(STUDY) is None, "nothing comes back by itself"
    assert [one.sha256 for one in made if not one.path.exists()] == gone_before, "and nothing more goes"
    with pytest.raises(StudyErased):
        look_up(pieces.memory, pieces.catalogue, STUDY)
    left = [one for one in made if one.path.exists()]
    if left:
        assert held(pieces) == [ERASED]
        note(pieces)
        [hold] = pieces.queue.holds.open(10)
        assert hold.found[0]["number"] == "2", "the newest is what a person is to see"
        pieces.queue.holds.release(STUDY, "a new consent", BY)
        pieces.run(4)
        assert pieces.left() == [] and {one.sha256 for one in left} == pieces.archived(), "whatever had become of them"
    pieces.close()


@pytest.mark.parametrize("moment", ["before it is recorded", "recorded"])
def test_what_is_recorded_too_late_is_not_called_archived(tmp_path: Path, moment: str) -> None:
    """Nothing is deleted here, so nobody would look once more."""
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    made = drop(pieces)

    def passes() -> None:
        record(pieces)
        pieces.clock.advance(SETTLE_SECONDS)
        erase(pieces)

    target, name, after = MOMENTS[moment](pieces)
    with at(target, name, passes, after=after):
        pieces.run(3)
    assert here(made) and state(pieces) == StudyState.PARKED and held(pieces) == [ERASED]
    with pytest.raises(StudyErased):
        look_up(pieces.memory, pieces.catalogue, STUDY)
    pieces.close()


def test_files_that_are_staged_are_put_back(pieces: Pieces) -> None:
    """The last look: the record comes when the files are staged, and the objects are still there."""
    made = drop(pieces)

    def begins() -> None:
        record(pieces)
        pieces.clock.advance(LOOK_SECONDS + 1)

    from dicomwatchd.archive.proof import final_check

    with at(final_check, "missing", begins):
        pieces.run(3)
    assert here(made) and held(pieces) == [ERASED]
    assert len(of_study(pieces)) == 4, "they were there all the time"


def test_a_daemon_that_stood_still_between_the_last_look_and_the_unlink(pieces: Pieces) -> None:
    """Everything is gone by the time it goes on."""
    made = drop(pieces)

    def passes() -> None:
        record(pieces)
        pieces.clock.advance(SETTLE_SECONDS)
        erase(pieces)

    from dicomwatchd.archive.proof import final_check

    with at(final_check, "missing", passes, after=True):
        pieces.run(3)
    assert here(made) and of_study(pieces) == [] and held(pieces) == [ERASED]


def test_what_was_sent_meanwhile_is_told(pieces: Pieces) -> None:
    drop(pieces)

    def begins() -> None:
        record(pieces)
        later(pieces)

    with at(pieces.memory, "put", begins, after=True):
        pieces.run(3)
    assert pieces.log.events("sent-while-erased") == [{"study_uid": STUDY}]
    pieces.queue.claims.retry(STUDY)
    pieces.run(2)
    assert len(pieces.log.events("sent-while-erased")) == 1, "by this shipment, and by no later one"


def test_what_is_sent_early_stops(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    late = drop(pieces, series=2, count=5)
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    pieces.dispatcher.work_off()  # not quiet yet: what there is, is sent early
    assert of_study(pieces) == [] and here(late)
    pieces.run(3)
    assert of_study(pieces) == [] and here(late) and held(pieces) == [ERASED]
    pieces.close()


def test_the_word_of_the_store_is_asked_for_once_for_a_quick_shipment(pieces: Pieces) -> None:
    asked = 0
    real = pieces.memory.listing

    def listing(prefix: str, after: str = "") -> Any:
        nonlocal asked
        asked += prefix.startswith(keys.ERASED)
        return real(prefix, after)

    pieces.memory.listing = listing  # type: ignore[method-assign]
    drop(pieces, count=20)
    pieces.run()
    assert pieces.left() == [] and asked <= 2


def test_a_store_that_does_not_tell_is_no_leave_to_delete(pieces: Pieces) -> None:
    made = drop(pieces)
    from dicomwatchd.errors import OutOfReach

    real = pieces.memory.listing

    def listing(prefix: str, after: str = "") -> Any:
        if prefix.startswith(keys.ERASED):
            raise OutOfReach("ListObjectsV2 failed: AccessDenied (403)", endpoint="s3")
        return real(prefix, after)

    pieces.memory.listing = listing  # type: ignore[method-assign]
    pieces.run(3)
    assert here(made)


def test_a_record_that_cannot_be_read_parks_the_study(pieces: Pieces) -> None:
    pieces.memory.versions[keys.erasure(STUDY, 1)] = [b"{"]
    made = drop(pieces)
    pieces.run(3)
    assert here(made) and of_study(pieces) == [] and state(pieces) == StudyState.PARKED
    assert [one["code"] for one in pieces.queue.reports.parked(10)] == ["bad-erasure"]
    with pytest.raises(Permanent):
        pieces.queue.holds.release(STUDY, "it is not held", BY)


def test_manifests_that_were_there_are_none_of_the_study_that_is_archived_again(pieces: Pieces) -> None:
    """A leftover of an erasure that was not finished neither comes back nor is in the way."""
    first = drop(pieces)
    pieces.run()
    left = look_up(pieces.memory, pieces.catalogue, STUDY).manifest
    erase(pieces)
    pieces.memory.versions[left.key] = [left.to_bytes()]
    pieces.catalogue.put(left.record())
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    found = look_up(pieces.memory, pieces.catalogue, STUDY).manifest
    assert {item.sha256 for item in found.instances} == {one.sha256 for one in late}
    assert found.previous_sha256 is None and not any(one.path.exists() for one in late)
    assert not {one.sha256 for one in first} & {item.sha256 for item in found.instances}


def test_a_study_of_many_revisions_begins_again_above_all_of_them(pieces: Pieces) -> None:
    """Even where that is far above any number that would be plausible for a first revision."""
    assert isinstance(pieces.memory, MemoryStore)
    drop(pieces)
    pieces.run()
    [manifest_key] = [key for key in of_study(pieces) if "/manifests/" in key]
    pieces.memory.versions[keys.manifest(STUDY, 4000)] = pieces.memory.versions[manifest_key]
    report = erase(pieces)
    assert report.erasure.through_revision > 4000
    later(pieces)
    drop(pieces, series=2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    assert pieces.left() == []
    found = look_up(pieces.memory, pieces.catalogue, STUDY).manifest
    assert found.revision == report.erasure.through_revision + 1
    pieces.catalogue.records.clear()  # type: ignore[attr-defined]
    assert rebuild(pieces.memory, pieces.catalogue).problems == ()


# -- what is on record, and what is not any more ---------------------------------------------------------------------


def entries(pieces: Pieces, kind: str) -> list[dict[str, Any]]:
    return [one.body for one in pieces.queue.audit.of_study(STUDY) if one.body["kind"] == kind]


def rows(pieces: Pieces, table: str) -> int:
    with pieces.queue._database.read() as db:
        found: int = db.execute(f"SELECT COUNT(*) FROM {table} WHERE study_uid = ?", (STUDY,)).fetchone()[0]
    return found


def note(pieces: Pieces) -> None:
    pieces.clock.advance(NOTING_SECONDS + 1)
    pieces.context.erased.step()


def test_an_erasure_whose_record_is_damaged_hides_no_other(pieces: Pieces) -> None:
    drop(pieces)
    other = Uid(drop(pieces, series=2, study=1)[0].study_uid)
    pieces.run()
    pieces.memory.versions[erase(pieces).erasure.key] = [b"{}"]
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID).erase(other, BECAUSE, WHO)
    assert other > STUDY, "it is listed before"
    note(pieces)
    assert pieces.queue.audit.proofs(other)["erasures"] and pieces.queue.reports.show(other) is None


def test_each_daemon_that_had_the_study_notes_its_erasure_once(pieces: Pieces, tmp_path: Path) -> None:
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    drop(pieces)
    pieces.run()
    erase(pieces)
    for _ in range(3):
        note(pieces)
        note(other)
    [entry] = entries(pieces, "study-erased")
    assert (entry["number"], entry["because"], entry["erased_by"]) == (1, BECAUSE, {"uid": 1000, "login": "eraser"})
    assert entries(other, "study-erased") == [], "it never had it"
    assert pieces.queue.audit.broken_at() is None
    [told] = pieces.queue.audit.proofs(STUDY)["erasures"]
    assert told["because"] == BECAUSE and told["erased_by"]["login"] == "eraser"
    drop(pieces, series=2)
    pieces.run(3)
    assert len(entries(pieces, "study-erased")) == 1
    other.close()


def test_what_names_the_patient_goes_from_the_state(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    assert rows(pieces, "studies") == 1 and rows(pieces, "identities") and rows(pieces, "series")
    erase(pieces)
    note(pieces)
    for table in ("studies", "identities", "series", "holds", "files", "arrivals"):
        assert rows(pieces, table) == 0, table
    assert entries(pieces, "deleted"), "the evidence for what was deleted stays"
    late = drop(pieces, series=2)
    pieces.run(3)
    assert here(late) and held(pieces) == [ERASED] and of_study(pieces) == []
    note(pieces)
    assert rows(pieces, "identities"), "as long as the files are here"
    for one in late:
        one.path.unlink()
    pieces.run(3)
    note(pieces)
    assert rows(pieces, "identities") == rows(pieces, "holds") == rows(pieces, "studies") == 0
    assert held(pieces) == []


def test_what_was_released_and_archived_again_stays_in_the_state(pieces: Pieces) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    drop(pieces, series=2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "a new consent", BY)
    pieces.run(3)
    note(pieces)
    assert rows(pieces, "studies") == 1 and rows(pieces, "holds") == 1
    late = drop(pieces, series=3)
    pieces.run(3)
    assert not any(one.path.exists() for one in late), "the release holds"
    erase(pieces)
    note(pieces)
    assert rows(pieces, "studies") == 0 and len(entries(pieces, "study-erased")) == 2


def test_a_study_that_is_on_its_way_is_not_forgotten(pieces: Pieces) -> None:
    made = drop(pieces)
    pieces.settle()

    def noted() -> None:
        record(pieces)
        note(pieces)
        assert rows(pieces, "studies") == 1

    with at(pieces.memory, "put", noted):
        pieces.ship()
    assert here(made) and held(pieces) == [ERASED]


def test_a_store_that_does_not_answer_is_asked_in_the_next_round(pieces: Pieces) -> None:
    from dicomwatchd.errors import OutOfReach

    drop(pieces)
    pieces.run()
    erase(pieces)
    pieces.memory.fault = OutOfReach("ListObjectsV2 failed", endpoint="s3")
    note(pieces)
    assert entries(pieces, "study-erased") == []
    pieces.memory.fault = None
    note(pieces)
    assert len(entries(pieces, "study-erased")) == 1


# -- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [False, True])
def test_an_upload_of_an_erased_study_is_neither_archived_nor_deleted(
    pieces: Pieces, tmp_path: Path, delete: bool
) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    folder = tmp_path / "stick"
    made = Maker(seed=3).ct_series(folder / "1", slices=2, study=0, series=2, rows=16, columns=16)
    other = Maker(seed=4).ct_series(folder / "other", slices=1, rows=16, columns=16)
    result = Handed(pieces, folder, delete=delete).go()
    assert here(made) and of_study(pieces) == [] and other[0].path.exists() is not delete
    assert not result["complete"] and not result["deletable"] and not result["images_deletable"]
    said = " ".join(sentences(result, delete=delete))
    assert "may now be deleted" not in said and "erased" in said
    schemas.check("upload", result)
    assert BECAUSE not in json.dumps([str(one) for one in pieces.log.entries])


def test_an_erasure_while_an_upload_is_being_deleted(pieces: Pieces, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    made = Maker(seed=3).ct_series(folder / "1", slices=4, study=0, series=2, rows=16, columns=16)

    def begins() -> None:
        record(pieces)
        later(pieces)

    with at(pieces.context.deletions, "authorise", begins, after=True):
        result = Handed(pieces, folder, delete=True).go()
    assert here(made) and not result["deletable"]


# -- who asks over the control socket ----------------------------------------------------------------------------------


def test_what_a_person_sees_and_says(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(pieces)
    pieces.run()
    erase(pieces)
    later(pieces)
    late = drop(pieces, series=2)
    pieces.run(3)
    said = call(pieces, "attention", Asker(0, 0), monkeypatch)
    [study] = said["held"]
    assert study["code"] == "erased" and study["erasure"]["because"] == BECAUSE and study["files"] == 3
    assert said["parked"] == []
    schemas.check("attention", json.loads(json.dumps(said)))
    with pytest.raises(DicomwatchdError):
        call(pieces, "release", Asker(4242, 4242), monkeypatch, study_uid=STUDY, because="I would like to")
    assert here(late) and held(pieces) == [ERASED]
    answer = call(pieces, "release", Asker(0, 0), monkeypatch, study_uid=STUDY, because="yes", shown=study["shown"])
    assert answer == {"study_uid": STUDY, "files": 3, "was_erased": True}
    pieces.run(3)
    assert not any(one.path.exists() for one in late)


# -- a medium of several studies -------------------------------------------------------------------------------------


def test_other_studies_of_a_medium_keep_its_dicomdir_and_are_named(pieces: Pieces) -> None:
    made = export(pieces, studies=3)
    pieces.run()
    first, *others = sorted({Uid(one.study_uid) for one in made[:-1]})
    assert with_the_same_dicomdir(pieces.store, first) == others
    pieces.memory.versions.pop(keys.export(others[0], made[-1].sha256))
    assert with_the_same_dicomdir(pieces.store, first) == others[1:], "it has none"
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    report = eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID).erase(first, BECAUSE, WHO)
    assert report.found.dicomdirs == 1 and report.is_complete
    assert pieces.manifest(others[1]).exports and made[-1].path.exists()


def test_a_dicomdir_that_cannot_be_read_names_nobody(pieces: Pieces) -> None:
    made = export(pieces, studies=2)
    pieces.run()
    first, _ = sorted({Uid(one.study_uid) for one in made[:-1]})
    pieces.memory.versions[keys.export(first, made[-1].sha256)] = [b"DICM" * 50]
    assert with_the_same_dicomdir(pieces.store, first) == []


def erased_studies(pieces: Pieces, store: ObjectStore) -> ErasedStudies:
    return ErasedStudies(
        store,
        pieces.queue.holds,
        pieces.queue.erasures,
        pieces.clock,
        pieces.log,
        require_archive=lambda: None,
    )


class SlowStore(MemoryStore):
    """Says nothing of erasures before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answers = threading.Event()
        self.trouble: DicomwatchdError | None = None

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self.asked += 1
        assert self.answers.wait(20)
        if self.trouble is not None:
            raise self.trouble
        yield from super().listing(prefix, after)


def look_at_once(looks: ErasedStudies, store: SlowStore, people: int) -> list[object]:
    def look() -> object:
        try:
            return looks.require_none(Uid(STUDY))
        except DicomwatchdError as error:
            return error

    with ThreadPoolExecutor(people) as threads:
        asked = [threads.submit(look) for _ in range(people)]
        while not store.asked:
            time.sleep(0.001)
        time.sleep(0.1)  # the others come
        store.answers.set()
        return [one.result() for one in asked]


def test_of_all_who_come_while_one_looks_nobody_else_asks(pieces: Pieces) -> None:
    store = SlowStore()
    assert look_at_once(erased_studies(pieces, store), store, 8) == [0] * 8
    assert store.asked == 1


def test_one_who_finds_no_answer_finds_none_for_all_and_is_asked_again_later(pieces: Pieces) -> None:
    store = SlowStore()
    store.trouble = OutOfReach("away")
    looks = erased_studies(pieces, store)
    assert look_at_once(looks, store, 8) == [store.trouble] * 8
    store.trouble = None
    assert looks.require_none(Uid(STUDY)) == 0


def test_nobody_goes_by_a_look_that_has_taken_longer_than_its_word_holds(pieces: Pieces) -> None:
    store = SlowStore()
    looks = erased_studies(pieces, store)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(looks.require_none, Uid(STUDY))
        while not store.asked:
            time.sleep(0.001)
        pieces.clock.advance(LOOK_SECONDS + 1)
        second = threads.submit(looks.require_none, Uid(STUDY))
        while store.asked < 2:
            assert not second.done()
            time.sleep(0.001)
        store.answers.set()
        assert (first.result(), second.result()) == (0, 0)


def test_nobody_waits_for_himself(pieces: Pieces) -> None:
    """The simulation has one thread, in which a study's shipment comes while another one looks."""
    store = MemoryStore()
    looks = erased_studies(pieces, store)
    real, within = store.listing, list[int]()

    def listing(prefix: str, after: str = "") -> Iterator[StoredObject]:
        if not within:
            within.append(-1)
            within[0] = looks.require_none(Uid(STUDY))
        return real(prefix, after)

    store.listing = listing  # type: ignore[method-assign]
    assert looks.require_none(Uid(STUDY)) == 0
    assert within == [0]
