"""Whoever takes his answers slowly, or not at all, or goes away: what is kept for him has an end, in bytes and in
time, and the others do not notice."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.model import Uid
from dicomwatchd.series.grouping import Held
from dicomwatchd.web.dicomweb.room import Limits
from dicomwatchd.web.dicomweb.sending import Pace
from dicomwatchd.web.serving import Patience
from tests.synthetic import Made, Maker
from tests.system.dicomweb_served import Served, served_from
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore, archive

MIB = 1024**2
#: Files of 24 MiB: much more than a connection's buffers take.
SIDE = 3548
FILE_BYTES = SIDE * SIDE * 2
MOST = Held(64 * MIB, 4 * FILE_BYTES + MIB)
NEVER, SOON = Pace(1, 3600.0), Pace(8 * MIB, 3.0)
TAKES_NOTHING = Patience(write=3600.0)
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, MemoryCatalogue, list[Made]]:
    """Two large images and six small ones, a series each."""
    store, catalogue = MemoryStore(chunk_bytes=MIB), MemoryCatalogue()
    root = tmp_path_factory.mktemp("slow")
    large = Maker(seed=51).ct_series(root / "large", slices=2, rows=SIDE, columns=SIDE)
    small = Maker(seed=52).ct_series(root / "small", slices=6, rows=256, columns=256)
    for files in (large, small):
        listed = [(Uid(one.series_uid), one.sop_instance_uid, one.path.read_bytes()) for one in files]
        catalogue.put(archive(store, listed, study=Uid(files[0].study_uid)).record())
    return store, catalogue, [*large, *small]


@contextmanager
def running(
    made: tuple[MemoryStore, MemoryCatalogue, list[Made]], pace: Pace, *, patience: Patience = TAKES_NOTHING
) -> Iterator[Served]:
    store, catalogue, _ = made
    with served_from(store, catalogue, limits=Limits(MOST, 0.5, pace), patience=patience, current_seconds=0.0) as found:
        yield found


def place(one: Made) -> str:
    return f"/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"


class Slow:
    """A connection that takes nothing but what is asked for by `recv`."""

    def __init__(self, found: Served, path: str, person: str, accept: str = "application/dicom") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(found.address)
        self.socket.sendall(
            f"GET /dicom-web{path} HTTP/1.1\r\nHost: x\r\nX-Test-Person: {person}\r\nAccept: {accept}\r\n\r\n".encode()
        )

    def head(self) -> tuple[int, dict[str, str]]:
        found = b""
        while b"\r\n\r\n" not in found:
            found += self.socket.recv(1)
        first, *lines = found.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return int(first.split()[1]), headers

    def rest_bytes(self) -> int:
        """Until the other end closes."""
        taken = 0
        try:
            while piece := self.socket.recv(65536):
                taken += len(piece)
        except ConnectionResetError:
            pass
        return taken

    def abort(self) -> None:
        """By a reset: what lies in the buffers is gone."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@contextmanager
def watched(found: Served) -> Iterator[list[int]]:
    """How many bytes lay in temporary files, again and again."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            seen.append(found.temporary_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def fetched(found: Served, one: Made, person: str) -> requests.Response:
    headers = {"Accept": "application/dicom", "X-Test-Person": person}
    return requests.get(found.url + place(one), headers=headers, timeout=PATIENCE_SECONDS)


def test_many_who_read_slowly_take_so_much_of_the_disk_and_no_more(
    made: tuple[MemoryStore, MemoryCatalogue, list[Made]],
) -> None:
    large, small = made[2][0], made[2][2:]
    with running(made, NEVER) as found, watched(found) as seen, ExitStack() as stack:
        slow = [Slow(found, place(large), f"slow {number % 6}") for number in range(30)]
        for one in slow:
            stack.callback(one.socket.close)
        heads = [one.head() for one in slow]
        # Four have found room. To the others it was said when to come again.
        assert sorted(status for status, _ in heads) == [200] * 4 + [503] * 26
        assert all(int(headers["retry-after"]) > 0 for status, headers in heads if status == 503)
        assert found.temporary_bytes() <= MOST.disk_bytes
        # Whoever reads small images does not notice.
        for image in small * 4:
            answer = fetched(found, image, "quick")
            assert answer.status_code == 200 and answer.content == image.path.read_bytes()
        refused = fetched(found, large, "quick")
        assert refused.status_code == 503 and refused.json()["error"] == "no-room" and refused.headers["Retry-After"]
        # One who takes his answer after all, has all of it, and makes room.
        taker = next(one for one, (status, _) in zip(slow, heads, strict=True) if status == 200)
        size_bytes = large.path.stat().st_size
        taken = 0
        while taken < size_bytes:
            taken += len(taker.socket.recv(MIB))
        assert fetched(found, large, "quick").content == large.path.read_bytes()
    assert FILE_BYTES * 3 < max(seen) <= MOST.disk_bytes


def test_one_person_leaves_room_for_the_others(made: tuple[MemoryStore, MemoryCatalogue, list[Made]]) -> None:
    large = made[2][0]
    with running(made, NEVER) as found, ExitStack() as stack:
        slow = [Slow(found, place(large), "slow") for _ in range(20)]
        for one in slow:
            stack.callback(one.socket.close)
        assert sorted(one.head()[0] for one in slow) == [200] * 2 + [503] * 18
        for _ in range(3):
            assert fetched(found, large, "quick").content == large.path.read_bytes()


def test_who_is_too_slow_loses_his_answer(made: tuple[MemoryStore, MemoryCatalogue, list[Made]]) -> None:
    """By the rate at which it is taken, however little lies between two bytes."""
    large = made[2][0]
    with running(made, SOON) as found, ExitStack() as stack:
        slow = [Slow(found, place(large), f"slow {number}") for number in range(4)]
        for one in slow:
            stack.callback(one.socket.close)
        assert [one.head()[0] for one in slow] == [200] * 4
        assert fetched(found, large, "quick").status_code == 503
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.02):
                for one in slow:
                    one.socket.recv(4096)

        dripping = threading.Thread(target=drip)
        dripping.start()
        # Who has to wait has his turn, and as fast as he likes.
        answer = fetched(found, large, "quick")
        until = time.monotonic() + PATIENCE_SECONDS
        while answer.status_code == 503:
            assert time.monotonic() < until
            answer = fetched(found, large, "quick")
        assert answer.content == large.path.read_bytes()
        wait_until(lambda: found.temporary_bytes() == 0)
        ended.set()
        dripping.join()
        for one in slow:
            assert one.rest_bytes() < FILE_BYTES, "torn, and not whole"


def test_who_takes_nothing_is_cut_off(made: tuple[MemoryStore, MemoryCatalogue, list[Made]]) -> None:
    large = made[2][0]
    with running(made, NEVER, patience=Patience(write=1.0)) as found, ExitStack() as stack:
        for number in range(4):
            slow = Slow(found, place(large), f"slow {number}")
            stack.callback(slow.socket.close)
            assert slow.head()[0] == 200
        wait_until(lambda: found.temporary_bytes() == 0)
        assert fetched(found, large, "slow 0").content == large.path.read_bytes()


@pytest.mark.parametrize("when", ["at once", "while it waits", "after the head", "in the middle"])
def test_whoever_goes_away_leaves_nothing_behind(
    made: tuple[MemoryStore, MemoryCatalogue, list[Made]], when: str
) -> None:
    large = made[2][0]
    study = f"/studies/{large.study_uid}"
    frame = f"{place(large)}/frames/1"
    asked = ((place(large), "application/dicom"), (study, "*/*"), (frame, "*/*"))
    with running(made, NEVER) as found:
        for number in range(30):
            path, accept = asked[number % 3]
            one = Slow(found, path, f"slow {number % 5}", accept)
            if when == "while it waits":
                time.sleep(0.02)
            elif when != "at once" and one.head()[0] == 200 and when == "in the middle":
                one.socket.recv(65536)
            one.abort()
        # All of the room is there again, once the last of them has been given up.
        wait_until(lambda: fetched(found, large, "quick").content == large.path.read_bytes())
        wait_until(lambda: found.temporary_bytes() == 0 and _all_the_room(found, large))


def _all_the_room(found: Served, large: Made) -> bool:
    with ExitStack() as stack:
        slow = [Slow(found, place(large), f"slow {number}") for number in range(4)]
        for one in slow:
            stack.callback(one.abort)
        return [one.head()[0] for one in slow] == [200] * 4


def test_a_study_that_is_erased_while_somebody_takes_it(tmp_path: Path) -> None:
    """The answer ends in its middle; nothing of it is handed out, or kept, after that."""
    store, catalogue = MemoryStore(chunk_bytes=MIB), MemoryCatalogue()
    large = Maker(seed=53).ct_series(tmp_path, slices=3, rows=SIDE, columns=SIDE)
    study = Uid(large[0].study_uid)
    listed = [(Uid(one.series_uid), one.sop_instance_uid, one.path.read_bytes()) for one in large]
    manifest = archive(store, listed, study=study)
    catalogue.put(manifest.record())
    with running((store, catalogue, large), NEVER) as found, ExitStack() as stack:
        slow = Slow(found, f"/studies/{study}", "slow", "*/*")
        stack.callback(slow.socket.close)
        assert slow.head()[0] == 200
        assert erasures.create(store, Erasure("0" * 32, study, 1, "2026-01-01T00:00:00.000Z", "test", 0, "root", 1))
        for key in [key for key in store.versions if keys.parse_instance(key) or keys.parse_manifest(key)]:
            del store.versions[key]
        assert slow.rest_bytes() < 2 * FILE_BYTES
        wait_until(lambda: found.temporary_bytes() == 0)
        for path in (f"/studies/{study}", place(large[0]), f"{place(large[0])}/frames/1"):
            assert found.get(path).status_code == 410, path
