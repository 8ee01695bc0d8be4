"""What is old goes from the state, what is told of it stays true, and nothing that is still needed goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.model import StudyEvent, StudyState
from dicomwatchd.queue.database import pruning
from dicomwatchd.queue.database.pruning import KEEP_SECONDS, KEEP_STEPS
from dicomwatchd.queue.rows import Proven
from tests.pieces import Pieces
from tests.synthetic import Maker
from tests.unit.queues import STUDY, Bench
from tests.unit.test_queue_plans import Recording, complaints

DAY = 86400.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def archive(bench: Bench, study: str, *, files: int = 1, kept: bool = False) -> None:
    claim = bench.claimed(*(f"{study}-{bench._inode}-{number}" for number in range(files)), study=study)
    if kept:
        bench.queue.deletions.keep(claim, bench.record(claim), None)
    else:
        bench.queue.deletions.purged(study, bench.authorise(claim), [], [])
    bench.queue.shipments.finish(
        claim,
        {
            "source": "ct1",
            "revision": 1,
            "started_at": bench.clock.now() - 10,
            "files": files,
            "bytes": 100 * files,
            "retries": 1,
            "sent_bytes": 100_000 * files,
            "stages": {"upload": {"files": files, "bytes": 100 * files, "seconds": 2.0}},
        },
    )


def prune(bench: Bench) -> int:
    """To the end; in how many pages."""
    bench.clock.seconds += 3600
    pages = 1
    while bench.queue.pruning.step():
        pages += 1
    assert not bench.queue.pruning.step(), "not again before an hour is over"
    return pages


def count(bench: Bench, table: str) -> int:
    return int(bench.rows(f"SELECT COUNT(*) FROM {table}")[0][0])


def test_nothing_goes_for_thirty_days(bench: Bench) -> None:
    archive(bench, STUDY)
    before = {t: count(bench, t) for t in ("transitions", "shipments", "series", "studies")}
    bench.clock.seconds += KEEP_SECONDS - DAY
    prune(bench)
    assert before == {t: count(bench, t) for t in before}


def test_what_is_left_of_a_study(bench: Bench) -> None:
    archive(bench, "1.2.1")
    bench.clock.seconds += KEEP_SECONDS + 2 * DAY
    archive(bench, "1.2.2")
    prune(bench)
    assert {row["study_uid"] for row in bench.rows("SELECT * FROM transitions")} == {"1.2.2"}
    assert [row["study_uid"] for row in bench.rows("SELECT * FROM series")] == ["1.2.2"]
    assert [row["study_uid"] for row in bench.rows("SELECT * FROM shipments")] == ["1.2.2"]
    old, new = bench.rows("SELECT * FROM studies ORDER BY study_uid")
    assert old["attributes"] == "{}" and new["attributes"] != "{}"
    assert (old["state"], old["revision"], old["patient_id"]) == (StudyState.ARCHIVED, 1, "P1")
    shown = bench.queue.reports.show("1.2.1")
    assert shown is not None
    assert (shown["state"], shown["history"], shown["last_shipment"]) == ("archived", [], None)
    assert shown["archived_at"] < shown["history_since"]
    assert bench.queue.reports.status()["studies"] == {"archived": 2}
    assert len(bench.queue.audit.of_study("1.2.1")) == 2, "the record of deletions is not the pruning's"


def test_what_is_here_keeps_all_but_its_old_steps(bench: Bench) -> None:
    """Kept files may have to be sent again, to another archive, with their attributes."""
    archive(bench, STUDY, kept=True)
    claim = bench.claimed("IM9", study="1.2.3")
    bench.queue.claims.park(claim, code="x", reason="x")
    bench.add("IM8", study="1.2.4")
    attributes = [tuple(row) for row in bench.rows("SELECT study_uid, attributes FROM studies")]
    bench.clock.seconds += 400 * DAY
    archive(bench, "1.2.5")
    prune(bench)
    after = [tuple(row) for row in bench.rows("SELECT study_uid, attributes FROM studies WHERE study_uid != '1.2.5'")]
    assert after == attributes and count(bench, "series") == 4
    shown = bench.queue.reports.show("1.2.3")
    assert shown is not None and [step["event"] for step in shown["history"]] == ["quiet", "claimed", "failed"]


def test_the_steps_of_a_study_that_is_tried_for_ever(bench: Bench) -> None:
    bench.add("IM1")
    bench.wait_until_quiet()
    for number in range(200):
        claim = bench.claim()
        bench.queue.claims.release(claim, not_before=0.0, code="x", reason="", attempts=number)
        bench.clock.seconds += DAY
    prune(bench)
    assert count(bench, "transitions") <= KEEP_STEPS + 62
    shown = bench.queue.reports.show(STUDY)
    assert shown is not None and len(shown["history"]) == 50


def test_a_study_that_was_half_recorded_stays_so(bench: Bench) -> None:
    """The store may hold a manifest that the catalogue does not know: however long ago that was, and however often the
    study was tried since, it is not forgotten when its files go."""
    claim = bench.claimed("IM1")
    files = bench.send(claim)
    bench.queue.shipments.verified(claim, [Proven(file, "etag-md5", bench.clock.now()) for file in files])
    bench.queue.shipments.advance(claim, StudyEvent.VERIFIED)
    bench.queue.claims.release(claim, not_before=0.0, code="x", reason="", attempts=1)
    for number in range(60):
        bench.clock.seconds += DAY
        bench.queue.claims.release(bench.claim(), not_before=0.0, code="x", reason="", attempts=number)
    prune(bench)
    assert count(bench, "transitions") <= KEEP_STEPS + 63
    bench.queue.arrivals.forget([file.file_id for file in files])
    bench.wait_until_quiet()
    assert bench.state() is StudyState.QUEUED


def test_a_study_that_was_recorded_is_not_taken_for_half(bench: Bench) -> None:
    archive(bench, STUDY)
    claim = bench.claimed("IM2")
    bench.queue.claims.release(claim, not_before=0.0, code="x", reason="", attempts=1)
    for number in range(60):
        bench.clock.seconds += DAY
        bench.queue.claims.release(bench.claim(), not_before=0.0, code="x", reason="", attempts=number)
    prune(bench)
    bench.queue.arrivals.forget([row[0] for row in bench.rows("SELECT file_id FROM files")])
    bench.wait_until_quiet()
    assert bench.state() is StudyState.ARCHIVED


def test_a_token_does_not_come_again(bench: Bench) -> None:
    """A study made anew begins above every token that there was, which the newest step's number tells."""
    archive(bench, STUDY)
    highest = bench.rows("SELECT MAX(transition_id) FROM transitions")[0][0]
    bench.clock.seconds += 400 * DAY
    prune(bench)
    assert bench.rows("SELECT MAX(transition_id) FROM transitions")[0][0] == highest
    before = bench.queue.reports.progress()
    bench.add("IM7", study="1.2.7")
    assert bench.rows("SELECT token FROM studies WHERE study_uid = '1.2.7'")[0][0] >= highest
    assert bench.queue.reports.progress() > before


def test_stats_stay_true(bench: Bench) -> None:
    for number in range(12):
        archive(bench, f"1.2.{number % 5}", files=2)
        bench.clock.seconds += 5 * 3600
    before = bench.queue.reports.stats(1000)
    assert len(before["days"]) == 3
    bench.clock.seconds += KEEP_SECONDS + 3 * DAY
    prune(bench)
    assert count(bench, "shipments") == 0
    after = bench.queue.reports.stats(1000)
    assert after["days"] == before["days"]
    assert {**after["totals"], "studies": 0} == {**before["totals"], "studies": 0}
    archive(bench, "1.2.9")
    assert len(bench.queue.reports.stats(1000)["days"]) == 4
    assert len(bench.queue.reports.stats(7)["days"]) == 1


def test_a_day_is_added_up_bit_by_bit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between two pages counts nothing twice."""
    monkeypatch.setattr(pruning, "_PAGE", 2)
    for number in range(9):
        archive(bench, f"1.2.{number % 3}")
    before = bench.queue.reports.stats(1000)
    bench.clock.seconds += KEEP_SECONDS + 3 * DAY
    for _ in range(30):
        bench.clock.seconds += 3600
        bench.queue.pruning.step()
        assert bench.queue.reports.stats(1000)["totals"]["shipments"] == 9
        bench.reopen()
    while count(bench, "shipments"):
        prune(bench)
    assert bench.queue.reports.stats(1000)["days"] == before["days"]


def test_the_counts_of_an_upload_that_has_ended_go(bench: Bench) -> None:
    upload = bench.queue.arrivals.add_source("upload-1", b"/handed/in", "upload")
    bench.add("IM1", study="1.2.8", source=upload)
    bench.add("IM2", study="1.2.9")
    bench.run("DELETE FROM files WHERE source_id = ?", upload.source_id)
    prune(bench)
    assert len(bench.rows("SELECT * FROM file_counts WHERE source_id = ?", upload.source_id)) == 1, "it is there still"
    bench.run("DELETE FROM sources WHERE source_id = ?", upload.source_id)
    prune(bench)
    assert bench.rows("SELECT * FROM file_counts WHERE source_id = ?", upload.source_id) == []
    assert len(bench.rows("SELECT * FROM file_counts")) == 1


def test_it_is_done_in_pages_and_by_indexes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_PAGE", 3)
    for number in range(10):
        archive(bench, f"1.2.{number}")
    bench.clock.seconds += KEEP_SECONDS + 3 * DAY
    recording = Recording(bench.queue._database._connection)
    bench.queue._database._connection = recording  # type: ignore[assignment]
    assert prune(bench) >= 60 / 3 + 10 / 3
    assert complaints(recording.plans) == []
    assert count(bench, "transitions") == 1 and count(bench, "series") == 0


def test_a_clock_that_was_set_back_prunes_nothing(bench: Bench) -> None:
    archive(bench, STUDY)
    steps = count(bench, "transitions")
    bench.clock.seconds -= 400 * DAY
    bench.reopen()
    prune(bench)
    assert count(bench, "transitions") == steps


def test_a_study_that_comes_back_is_what_it_was(tmp_path: Path) -> None:
    """With the attributes of its file, by which the manifest's are no other patient's."""
    pieces = Pieces(tmp_path)
    made = Maker(seed=5).mr_study(pieces.inbox / "A", series=2, slices=2)
    contents = [path.read_bytes() for path in pieces.left()]
    study = made[0].study_uid
    pieces.run()
    first = pieces.manifest(study)
    pieces.clock.advance(KEEP_SECONDS + DAY)
    while pieces.queue.pruning.step():
        pass
    with pieces.queue._database.read() as db:
        [row] = db.execute("SELECT attributes FROM studies").fetchall()
        assert row["attributes"] == "{}" and not db.execute("SELECT 1 FROM series").fetchall()
    again = Maker(seed=5).mr_study(pieces.inbox / "B", series=3, slices=2)
    contents += [path.read_bytes() for path in pieces.left()]
    pieces.run()
    assert pieces.left() == [] and again[0].study_uid == study
    second = pieces.manifest(study)
    assert second.revision == first.revision + 1
    assert second.attributes == first.attributes and second.flags == first.flags == ()
    assert set(first.series) < set(second.series) and all(second.series.values())
    pieces.require_nothing_lost(*contents)
    pieces.close()


def test_a_study_that_may_be_forgotten_by_then_is_read_again(bench: Bench) -> None:
    """Between the look at a file and its being taken up the study may have lost its attributes."""
    series = f"{STUDY}.1"
    bench.add("IM1")
    assert bench.queue.arrivals.on_record(STUDY, series, "", "")
    bench.wait_until_quiet()
    claim = bench.claim()
    bench.queue.deletions.purged(STUDY, bench.authorise(claim), [], [])
    bench.finish(claim)
    assert not bench.queue.arrivals.on_record(STUDY, series, "", "")
    archive(bench, "1.2.2", kept=True)
    assert bench.queue.arrivals.on_record("1.2.2", "1.2.2.1", "", ""), "its files are here"
