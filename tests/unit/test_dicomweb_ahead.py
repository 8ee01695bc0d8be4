"""Reading ahead: few at once, in nobody's way, and what goes wrong is told to whoever asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from dicomwatchd.errors import StudyNotFound
from dicomwatchd.model import Uid
from dicomwatchd.web.dicomweb.ahead import ReadAhead

STUDY, OTHER = Uid("1.2.3"), Uid("1.2.4")


def test_more_than_two_at_once_are_left_out() -> None:
    seen: list[Uid] = []
    going, may_end = threading.Semaphore(0), threading.Event()

    def read(study: Uid) -> None:
        seen.append(study)
        going.release()
        assert may_end.wait(60)

    with ThreadPoolExecutor(8) as pool:
        ahead = ReadAhead(read, pool)
        for _ in range(2):
            ahead.begin(STUDY)
            assert going.acquire(timeout=60)
        ahead.begin(OTHER)
        may_end.set()
    assert seen == [STUDY, STUDY]


def test_its_place_is_free_again_whatever_happens() -> None:
    seen: list[Uid] = []

    def read(study: Uid) -> None:
        seen.append(study)
        raise StudyNotFound("no")

    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(read, pool)
        for _ in range(5):
            ahead.begin(STUDY)
            pool.submit(int).result()
    assert len(seen) == 5
    ahead.begin(OTHER)  # there are no threads any more
    assert OTHER not in seen
