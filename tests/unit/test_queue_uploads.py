"""What the state keeps of a folder that was handed in, and what it lets go when that comes to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.errors import ClaimLost
from dicomwatchd.model import FileState, StudyEvent, StudyState
from dicomwatchd.queue.rows import UNREADABLE, Arrival, Root, Source
from dicomwatchd.queue.uploads import KEPT_SECONDS
from dicomwatchd.rights import Asker
from tests.unit.queues import STUDY, Bench

SOMEBODY = Asker(1000, 1000)
ROOT = Root(1, 2, "")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def source(bench: Bench) -> Source:
    return bench.queue.uploads.begin("upload-1", b"/stick", ROOT, delete=True, asker=SOMEBODY).source


def state(bench: Bench) -> str | None:
    shown = bench.queue.reports.show(STUDY)
    return None if shown is None else str(shown["state"])


def end(bench: Bench, source: Source, *, unfinished: bool = False) -> bool:
    return bench.queue.uploads.end(source.source_id, {}, unfinished=unfinished)


def test_it_does_not_end_with_a_file_that_has_come_to_no_end(bench: Bench, source: Source) -> None:
    bench.add("IM1", source=source)
    assert not end(bench, source)
    assert bench.queue.uploads.progress(source.source_id).waiting == 1
    assert end(bench, source, unfinished=True)


def test_it_does_not_end_with_a_deletion_under_way(bench: Bench, source: Source) -> None:
    bench.add("IM1", source=source)
    bench.wait_until_quiet(STUDY, source)
    bench.authorise(bench.claim())
    assert not end(bench, source, unfinished=True)
    bench.queue.uploads.cancel(source.source_id)
    assert not end(bench, source, unfinished=True) and bench.queue.uploads.deleting_files(source.source_id) == 1


def test_a_study_that_another_source_holds_waits_for_that_one(bench: Bench, source: Source) -> None:
    bench.add("IM1", source=source)
    bench.add("IM2")
    assert end(bench, source, unfinished=True)
    assert state(bench) == StudyState.ARRIVING
    bench.wait_until_quiet()
    assert state(bench) == StudyState.QUEUED


def test_a_study_that_no_other_source_holds_is_queued_or_gone(bench: Bench, source: Source) -> None:
    bench.add("IM1", source=source)
    assert end(bench, source, unfinished=True)
    assert state(bench) is None


@pytest.mark.parametrize("others", [False, True])
def test_a_claim_on_its_files_is_revoked(others: bool, bench: Bench, source: Source) -> None:
    if others:
        bench.add("IM2")
    bench.add("IM1", source=source)
    bench.wait_until_quiet(STUDY, source, bench.source)
    claim = bench.claim()
    bench.queue.uploads.cancel(source.source_id)
    with pytest.raises(ClaimLost):
        bench.queue.shipments.advance(claim, StudyEvent.STORED)
    assert state(bench) == (StudyState.QUEUED if others else None)


@pytest.mark.parametrize("others", [False, True])
def test_a_parked_study_is_kept_for_the_files_of_others_alone(others: bool, bench: Bench, source: Source) -> None:
    if others:
        bench.add("IM2")
    bench.add("IM1", source=source)
    bench.wait_until_quiet(STUDY, source, bench.source)
    bench.queue.claims.park(bench.claim(), code="x", reason="x")
    assert bench.queue.uploads.progress(source.source_id).failed == 1
    assert end(bench, source)
    assert state(bench) == (StudyState.PARKED if others else None)


def test_nothing_comes_of_an_upload_that_has_ended(bench: Bench, source: Source) -> None:
    assert end(bench, source)
    bench.add("IM1", source=source)
    assert state(bench) is None and not bench.rows("SELECT * FROM files")


def test_all_that_was_seen_is_owed_an_account(bench: Bench, source: Source) -> None:
    bench.add("IM1", "IM2", source=source)
    unread = Arrival(b"A", b"IM3", bench.identity(), FileState.QUARANTINED, code=UNREADABLE, reason="x")
    bench.queue.arrivals.add(source.source_id, [unread], 0)
    [first, second, third] = [row["file_id"] for row in bench.rows("SELECT file_id FROM files ORDER BY file_id")]
    bench.queue.arrivals.forget([first, third])
    assert bench.queue.uploads.vanished(source.source_id, 10) == (1, [(b"A/IM1", "seen")])
    bench.queue.arrivals.forget([second])
    assert bench.queue.uploads.vanished(source.source_id, 1) == (2, [(b"A/IM1", "seen")])


@pytest.mark.parametrize(("kind", "deleted", "gone"), [("deleted", 1, []), ("gone", 0, [(b"A/IM1", "unknown")])])
def test_a_deletion_that_a_crash_cut_off(
    kind: str, deleted: int, gone: list[tuple[bytes, str]], bench: Bench, source: Source
) -> None:
    bench.add("IM1", source=source)
    bench.wait_until_quiet(STUDY, source)
    bench.authorise(bench.claim())
    [staged] = bench.queue.deletions.pending()
    bench.queue.deletions.concluded(staged, kind, "a crash")
    progress = bench.queue.uploads.progress(source.source_id)
    assert (progress.deleted, progress.verified, progress.files) == (deleted, deleted, deleted)
    assert bench.queue.uploads.vanished(source.source_id, 10)[1] == gone


def test_results_go_when_their_time_has_come(bench: Bench, source: Source) -> None:
    assert end(bench, source)
    bench.clock.seconds += KEPT_SECONDS - 1
    assert bench.queue.uploads.prune() == 0
    bench.clock.seconds += 2
    assert bench.queue.uploads.prune() == 1 and bench.queue.uploads.known("upload-1") is None
