"""What `top` is answered: the studies on their way, by their files' states; taken once a second, whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.daemon.live import LEAST_SECONDS, LiveView
from dicomwatchd.model import FileState, StudyEvent
from dicomwatchd.prometheus.counts import Counts
from dicomwatchd.prometheus.sampling import LONGEST_REST_SECONDS, REST
from dicomwatchd.queue.rows import Proven
from tests.pieces import FakeClock, Pieces
from tests.synthetic import Maker
from tests.unit.queues import STUDY, Bench
from tests.unit.test_queue_plans import Recording, complaints


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def seen(bench: Bench, study: str = STUDY) -> dict[str, Any]:
    [found] = [one for one in bench.queue.moving.studies(10) if one["study_uid"] == study]
    return found


def test_a_study_is_seen_at_each_stage_with_its_files(bench: Bench) -> None:
    moving = bench.queue.moving
    bench.add("IM1", "IM2", "IM3")
    arriving = seen(bench)
    assert (arriving["state"], arriving["files"]) == ("arriving", {"ready": 3, "stored": 0, "deleting": 0})
    assert arriving["quiet_at"] is not None and arriving["bytes"] is None and arriving["inbox"] == "ct1"
    since = arriving["waits_since"]
    bench.wait_until_quiet()
    assert (seen(bench)["state"], seen(bench)["quiet_at"]) == ("queued", None)
    claim = bench.claim()
    assert (seen(bench)["state"], seen(bench)["bytes"]) == ("uploading", 300)
    files = bench.send(claim)
    verifying = seen(bench)
    assert (verifying["state"], verifying["verified"], verifying["files"]["stored"]) == ("verifying", 0, 3)
    queue = bench.queue
    queue.shipments.verified(claim, [Proven(file, "etag-md5", bench.clock.now()) for file in files[:2]])
    assert seen(bench)["verified"] == 2
    queue.shipments.verified(claim, [Proven(files[2], "etag-md5", bench.clock.now())])
    queue.shipments.advance(claim, StudyEvent.VERIFIED)
    assert (seen(bench)["state"], seen(bench)["verified"]) == ("recording", None)
    queue.shipments.recorded(claim, 1)
    files = bench.files(claim, FileState.STORED)
    queue.deletions.authorise(claim, [(file, {"sha256": file.sha256, "verified_at": 1.0}) for file in files[:1]])
    purging = seen(bench)
    assert (purging["state"], purging["files"]) == ("purging", {"ready": 0, "stored": 2, "deleting": 1})
    assert purging["waits_since"] == since
    assert purging["bytes"] == 300, "as it was first seen"
    queue.deletions.purged(claim.study_uid, files[:1], [], [])
    assert moving.last_archived(5) == []
    bench.finish(claim)
    assert moving.studies(10) == [] or seen(bench)["state"] == "arriving"
    [last] = moving.last_archived(5)
    assert (last["study_uid"], last["inbox"]) == (STUDY, "ct1")
    assert moving.files_taken_up() == 3


def test_those_that_wait_longest_come_first_and_no_more_than_asked_for(bench: Bench) -> None:
    for number in range(5):
        bench.add("IM1", study=f"1.2.{number}")
        bench.clock.seconds += 1
    assert [one["study_uid"] for one in bench.queue.moving.studies(3)] == ["1.2.0", "1.2.1", "1.2.2"]


def test_a_look_walks_no_table(bench: Bench) -> None:
    bench.add("IM1", study="1.2.9")
    claim = bench.claimed("IM1", "IM2")
    bench.send(claim)
    recording = Recording(bench.queue._database._connection)
    bench.queue._database._connection = recording  # type: ignore[assignment]
    bench.queue.moving.studies(10)
    bench.queue.moving.files_taken_up()
    bench.queue.moving.last_archived(10)
    # The newest of all shipments, by the index of their times: a scan to SQLite, of so many entries as are wanted.
    plans = {sql: steps for sql, steps in recording.plans.items() if "ORDER BY finished_at DESC" not in sql}
    [newest] = [steps for sql, steps in recording.plans.items() if sql not in plans]
    assert newest == ["SCAN shipments USING INDEX shipments_by_time"]
    assert len(plans) >= 3 and complaints(plans) == []


class _StandsStill(FakeClock):
    """Goes on when it is told to, however long a busy machine takes in between."""

    def monotonic(self) -> float:
        return 1000.0 + self.ahead


class _Taken:
    """A status that takes as long as it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.seconds, self.number = clock, 0.0, 0

    def __call__(self) -> dict[str, Any]:
        self.number += 1
        self.clock.advance(self.seconds)
        return {"number": self.number}


def test_it_is_taken_once_a_second_and_less_often_where_that_takes_long(bench: Bench) -> None:
    clock = _StandsStill()
    taken = _Taken(clock)
    view = LiveView(taken, bench.queue.moving, Counts(), clock)

    def asked() -> int:
        return int(view.command({}, lambda _: None)["status"]["number"])

    assert [asked() for _ in range(5)] == [1] * 5
    clock.advance(LEAST_SECONDS - 0.1)
    assert asked() == 1
    clock.advance(0.1)
    taken.seconds = 1.0
    assert asked() == 2
    clock.advance(REST - 0.1)
    assert asked() == 2
    clock.advance(0.2)
    taken.seconds = 600.0
    assert asked() == 3
    clock.advance(LONGEST_REST_SECONDS)
    assert asked() == 4, "a disk that was away for ten minutes is there again"


def test_many_that_ask_at_once_have_it_taken_once(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()
    number = 0

    def slow() -> dict[str, Any]:
        nonlocal number
        number += 1
        entered.set()
        assert go_on.wait(10)
        return {}

    view = LiveView(slow, bench.queue.moving, Counts(), FakeClock())
    threads = [threading.Thread(target=view.command, args=({}, lambda _: None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert number == 1


def test_what_is_sent_is_counted_as_it_is_sent(pieces: Pieces) -> None:
    """Also of a study that never comes to its end."""
    sent: list[int] = []
    object.__setattr__(pieces.parts.context, "sent", sent.append)
    made = Maker(seed=3).ct_series(pieces.inbox, slices=3, rows=16, columns=16)
    pieces.run()
    assert sorted(sent) == sorted(one.size_bytes for one in made)
