"""An attack on the receiver's port costs nothing but itself: a modality beside it goes on, and memory stays."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.dicom_peer import (
    Gone,
    Modality,
    associate_rq,
    c_store_rq,
    command,
    data_set_of,
    item,
    p_data,
)
from tests.synthetic import CT_IMAGE, EXPLICIT_LITTLE_ENDIAN
from tests.system import invariants
from tests.system.receiving import Receiving
from tests.system.site import Site

CT = [(CT_IMAGE, [EXPLICIT_LITTLE_ENDIAN])]
MiB = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, log_level="INFO")
    yield site
    site.close()


@pytest.fixture
def receiving(site: Site) -> Iterator[Receiving]:
    receiving = Receiving(site, idle_seconds=3)
    receiving.start()
    yield receiving
    receiving.close()


def require_well(receiving: Receiving, number: int = 1) -> None:
    """A modality comes, sends and is answered at once."""
    since = time.monotonic()
    with Modality(receiving.port) as modality:
        assert modality.send(f"1.2.{number}", b"an image") == 0
        modality.release()
    assert time.monotonic() - since < 20
    assert data_set_of(receiving.site.inbox / f"1.2.{number}.dcm") == b"an image"


def connected(receiving: Receiving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiving.port), timeout=30)


def ended(connection: socket.socket) -> bool:
    """Whether the receiver has closed, after whatever it had to say."""
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
    connection.close()
    return True


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BBL", kind, 0, length)


#: What somebody sends instead of an A-ASSOCIATE-RQ.
BEFORE: dict[str, Callable[[Random], bytes]] = {
    "garbage": lambda random: random.randbytes(100_000),
    "http": lambda _: b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n",
    "a-long-request": lambda _: header(1, 0xFFFFFFFF) + b"\0" * 100_000,
    "zeroes": lambda _: b"\0" * 100_000,
    "data-first": lambda _: p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")),
    "an-empty-request": lambda _: header(1, 0),
    "garbage-in-a-request": lambda random: header(1, 5000) + random.randbytes(5000),
    "items-that-are-too-long": lambda _: header(1, 72) + b"\0\1" + b" " * 66 + b"\x10\0\xff\xff",
    "no-contexts": lambda _: associate_rq([]),
    "a-context-without-syntax": lambda _: associate_rq([(CT_IMAGE, [])]),
    "thousands-of-contexts": lambda _: associate_rq(CT * 6000),
    "a-context-that-is-no-uid": lambda _: associate_rq([("../../etc/passwd", ["\xff\xff"])]),
}
#: What a peer sends once it has an association.
AFTER: dict[str, Callable[[Random], bytes]] = {
    "a-long-pdu": lambda _: header(4, 0xFFFFFFFF) + b"\0" * 100_000,
    "an-empty-pdu": lambda _: header(4, 0),
    "a-value-that-is-longer-than-its-pdu": lambda _: header(4, 10) + struct.pack(">LBB", 5000, 1, 3) + b"\0" * 4,
    "a-value-of-nothing": lambda _: header(4, 6) + struct.pack(">LBB", 0, 1, 3),
    "another-context": lambda _: p_data(99, 3, c_store_rq(CT_IMAGE, b"1.2.3")),
    "a-data-set-without-a-command": lambda _: p_data(1, 2, b"data"),
    "an-endless-command": lambda _: p_data(1, 1, b"\0" * 16000) * 200,
    "garbage-in-a-command": lambda random: p_data(1, 3, random.randbytes(200)),
    "a-command-without-a-field": lambda _: p_data(1, 3, command({0x0110: b"\1\0"})),
    "another-command-in-a-data-set": lambda _: p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")) * 2,
    "a-request-once-more": lambda _: associate_rq(CT),
    "a-release-in-a-data-set": lambda _: p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")) + header(5, 4) + b"\0" * 4,
    "garbage": lambda random: random.randbytes(100_000),
}


@pytest.mark.parametrize("kind", [*BEFORE])
def test_instead_of_a_request(kind: str, receiving: Receiving) -> None:
    connection = connected(receiving)
    with suppress(ConnectionError):
        connection.sendall(BEFORE[kind](Random(5)))
    assert ended(connection)
    require_well(receiving)
    assert [path.name for path in receiving.site.inbox.iterdir()] == ["1.2.1.dcm"]
    assert not receiving.site.events("crash")


@pytest.mark.parametrize("kind", [*AFTER])
def test_within_an_association(kind: str, receiving: Receiving) -> None:
    with Modality(receiving.port) as modality:
        with suppress(ConnectionError):
            modality.socket.sendall(AFTER[kind](Random(5)))
        assert ended(modality.socket)
    require_well(receiving)
    assert [path.name for path in receiving.site.inbox.iterdir()] == ["1.2.1.dcm"]
    assert not receiving.site.events("crash")


NO_UIDS = [
    b"../../etc/passwd",
    b"/etc/passwd",
    b"1.2/3",
    b"",
    b"1..2",
    b"1.2.3\n",
    b"DOE^JANE",
    b"\xff\xfe",
    b"1." * 40,
    b".",
]


def test_uids_that_are_none(receiving: Receiving) -> None:
    with Modality(receiving.port) as modality:
        for uid in NO_UIDS:
            assert modality.send(uid, b"x" * 1000) == 0xC000
        assert modality.send(b"1.2.3\0", b"x" * 1000) == 0, "padding is none of the UID"
        modality.release()
    assert [path.name for path in receiving.site.inbox.iterdir()] == ["1.2.3.dcm"]
    assert "DOE" not in receiving.site.log_file.read_text() and "etc" not in receiving.site.log_file.read_text()


def test_other_messages(receiving: Receiving) -> None:
    """C-FIND with an identifier of any length, C-CANCEL, C-ECHO: nothing is stored, nothing is kept in memory."""
    before = receiving.rss_bytes
    with Modality(receiving.port) as modality:
        find = command({0x0002: b"1.2\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0800: b"\1\0"})
        modality.socket.sendall(p_data(1, 3, find))
        for _ in range(3000):
            modality.socket.sendall(p_data(1, 0, b"\0" * 16000))
        modality.socket.sendall(p_data(1, 2, b""))
        assert modality.answer()[0x0900] == (0x0211).to_bytes(2, "little")
        modality.socket.sendall(p_data(1, 3, command({0x0100: b"\xff\x0f", 0x0120: b"\1\0", 0x0800: b"\1\1"})))
        modality.socket.sendall(p_data(1, 3, command({0x0100: b"\x30\0", 0x0110: b"\7\0", 0x0800: b"\1\1"})))
        assert modality.answer()[0x0120] == b"\7\0"
        assert modality.send("1.2.9", b"") == 0xC000, "no data set"
    assert receiving.rss_bytes - before < 8 * MiB
    assert list(receiving.site.inbox.iterdir()) == []


@pytest.mark.parametrize("half", [b"", b"\1", associate_rq(CT)[:50]], ids=["nothing", "a-byte", "half-a-request"])
def test_slow_to_begin(half: bytes, receiving: Receiving) -> None:
    """Who does not ask for an association in time is gone, also one who sends a byte now and then."""
    connection = connected(receiving)
    connection.sendall(half)
    since = time.monotonic()
    stop = threading.Event()

    def trickle() -> None:
        with suppress(OSError):
            while half and not stop.wait(0.5):
                connection.sendall(b"\0")

    trickling = threading.Thread(target=trickle)
    trickling.start()
    require_well(receiving)
    assert ended(connection)
    stop.set()
    trickling.join()
    assert time.monotonic() - since < 60


def test_slow_within_an_association(receiving: Receiving) -> None:
    """A PDU has to be there in time, whole."""
    with Modality(receiving.port) as modality:
        since = time.monotonic()
        modality.socket.sendall(p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")) + header(4, 10_000))
        with suppress(ConnectionError):
            while time.monotonic() - since < 60:
                modality.socket.sendall(b"\0")
                time.sleep(0.2)
        assert time.monotonic() - since < 30
    with Modality(receiving.port) as idle:
        assert idle.pdu() == (7, b"\0\0\0\0")
    require_well(receiving)


def test_a_thousand_connections(receiving: Receiving) -> None:
    """Most of them are closed at once; a modality at another address does not notice, and there are no more threads."""
    assert receiving.process is not None
    process = psutil.Process(receiving.process.pid)
    before = receiving.rss_bytes
    held = []
    for _ in range(1000):
        with suppress(OSError):
            held.append(connected(receiving))
    most = process.num_threads()
    beside = socket.create_connection(("127.0.0.1", receiving.port), timeout=30, source_address=("127.0.0.2", 0))
    beside.sendall(associate_rq(CT))
    assert beside.recv(1) == b"\2"
    beside.close()
    assert most <= 40
    assert receiving.rss_bytes - before < 40 * MiB
    for connection in held:
        connection.close()

    def has_room() -> bool:
        try:
            Modality(receiving.port).release()
        except (Gone, OSError):
            return False
        return True

    receiving.site.wait_for(has_room, 60, "the places to be free")
    require_well(receiving)
    refused = [event["reason"] for event in receiving.site.events("association-refused")]
    assert 0 < len(refused) < 200, "the log is not flooded either"
    invariants.report(
        "receiver-connections", "connections to the receiver's port that say nothing", tried=1000, threads_at_most=most
    )


def test_memory_is_flat(site: Site) -> None:
    """An object of 400 MB, sixteen associations with large requests: a buffer each, and no more."""
    receiving = Receiving(site)
    receiving.start()
    try:
        require_well(receiving)
        before = receiving.rss_bytes
        piece, count, most = p_data(1, 0, b"\0" * 131_066), 3200, 0
        with Modality(receiving.port) as modality:
            modality.socket.sendall(p_data(1, 3, c_store_rq(CT_IMAGE, b"1.2.3")))
            for number in range(count):
                modality.socket.sendall(piece)
                if number % 100 == 0:
                    most = max(most, receiving.rss_bytes - before)
            modality.socket.sendall(p_data(1, 2, b"end "))
            assert modality.answer()[0x0900] == b"\0\0"
        assert (site.inbox / "1.2.3.dcm").stat().st_size > count * 131_066
        assert most < 8 * MiB
        invariants.report("receiver-memory", "memory for one object of 400 MB", tried=1, grown_bytes=most)
    finally:
        receiving.close()


def test_a_request_that_takes_long_to_read(receiving: Receiving) -> None:
    """The worst of what is let in: a quarter of a megabyte of the smallest items."""
    small = item(0x54, struct.pack(">H", 3) + b"1.2" + b"\1\1")
    many = small * (60_000 // len(small))
    request = associate_rq([(CT_IMAGE, ["1"] * 2000)] * 16, more=many)
    began = receiving.processor_seconds
    connection = connected(receiving)
    connection.sendall(request)
    ended_or_answered = connection.recv(1)
    taken = receiving.processor_seconds - began
    connection.close()
    assert ended_or_answered in (b"", b"\2", b"\3", b"\7") and taken < 5
    require_well(receiving)
