"""A few batches of a purge are at a local disk at once, all at a share; and nobody waits for a turn for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from dicomwatchd.answering import AlwaysAnswering
from dicomwatchd.pipeline.deletion import at_once
from dicomwatchd.pipeline.deletion.at_once import AT_ONCE, Turns, turns_at
from dicomwatchd.pipeline.deletion.batch import BATCH_FILES, DeletionBatch
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from tests.pieces import Pieces
from tests.unit.dicomfiles import STUDY, data_set, encode


class Crowd:
    """How many are within at once, and how many were at the most."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.now = self.most = 0

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.lock.notify_all()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1

    def wait_for(self, number: int) -> None:
        """Until there have been so many."""
        with self.lock:
            assert self.lock.wait_for(lambda: self.most >= number, 60)


def crowd_of(turns: Turns, threads: int, at_once: int) -> Crowd:
    """So many of them have to be within at once, or none gets any further."""
    crowd, together = Crowd(), threading.Barrier(at_once, timeout=60)

    def work() -> None:
        with turns.turn(), crowd:
            together.wait()
            time.sleep(0.02)

    begun = [threading.Thread(target=work) for _ in range(threads)]
    for thread in begun:
        thread.start()
    for thread in begun:
        thread.join()
    return crowd


def test_so_many_have_a_turn_and_no_more() -> None:
    assert crowd_of(Turns(lambda: None, 3), 12, 3).most == 3


def test_a_turn_that_ends_badly_is_given_back() -> None:
    turns = Turns(lambda: None, 1)
    for _ in range(3):
        with pytest.raises(OSError, match="odd"), turns.turn():
            raise OSError("odd")
    assert crowd_of(turns, 2, 1).most == 1


def test_whoever_has_waited_long_goes_on_without_one_and_is_alive_meanwhile() -> None:
    beats: list[None] = []
    turns = Turns(lambda: beats.append(None), 1, most_seconds=2.0)
    with ExitStack() as hung:
        hung.enter_context(turns.turn())
        ends = threading.Timer(60.0, hung.close)  # or else whoever waits for ever would
        ends.start()
        began = time.monotonic()
        with turns.turn():
            assert 1.5 < time.monotonic() - began < 50.0
        ends.cancel()
    assert len(beats) == 2
    assert crowd_of(turns, 4, 1).most == 1, "who went on without one has given none back"


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("is_shared", "small_bytes", "fewest", "most"),
    [(False, 0, 2, AT_ONCE), (False, at_once.SMALL_BYTES, 1, 1), (True, at_once.SMALL_BYTES, AT_ONCE + 1, 1000)],
    ids=["large files", "small files", "a share"],
)
def test_batches_of_a_purge(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, is_shared: bool, small_bytes: int, fewest: int, most: int
) -> None:
    monkeypatch.setattr(at_once, "is_on_a_share", lambda _: is_shared)
    monkeypatch.setattr(at_once, "SMALL_BYTES", small_bytes)
    monkeypatch.setattr(at_once, "Turns", partial(Turns, most_seconds=3600.0))
    crowd, stage = Crowd(), DeletionBatch._stage

    def staging(batch: DeletionBatch, *rest: object) -> None:
        with crowd:
            crowd.wait_for(fewest)
            stage(batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DeletionBatch, "_stage", staging)
    batches = 3 * AT_ONCE
    for number in range(batches * BATCH_FILES):
        (pieces.inbox / f"IM{number:05}").write_bytes(encode(data_set(SOPInstanceUID=f"{STUDY}.1.{number}")))
    pool = Pool(Pace(batches, pieces.clock, idle_seconds=lambda: 0.0))
    pieces.dispatcher._lane = pool.lane
    try:
        pieces.run()
    finally:
        pool.close()
    assert pieces.left() == []
    assert fewest <= crowd.most <= most


def test_where_the_folder_cannot_be_opened_nobody_waits(pieces: Pieces) -> None:
    source = pieces.sources[0]
    pieces.inbox.rename(pieces.root / "elsewhere")
    turn = turns_at(source, [1], AlwaysAnswering(), lambda: None)
    with ExitStack() as all_of_them:
        for _ in range(3 * AT_ONCE):
            all_of_them.enter_context(turn())
