"""Requests that no client makes, over real sockets: each has an answer of 4xx or the ordinary one, soon, and the next
client does not notice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.model import Uid
from tests.synthetic import Made, Maker
from tests.system.dicomweb_served import Served, served_from
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore, archive

PATIENCE_SECONDS = 60
LONG = 12_000  # of 16 KiB that a request's head may have


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Made]]:
    """A clip of 20 frames."""
    store, catalogue = MemoryStore(chunk_bytes=65536), MemoryCatalogue()
    [made] = Maker(seed=61).us_multiframe(tmp_path_factory.mktemp("attacked") / "clip", frames=20)
    listed = [(Uid(made.series_uid), made.sop_instance_uid, Path(made.path).read_bytes())]
    catalogue.put(archive(store, listed, study=Uid(made.study_uid)).record())
    with served_from(store, catalogue) as running:
        yield running, made


def place(one: Made) -> str:
    return f"/dicom-web/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"


def said(found: Served, request: str, *, half_closed: bool = False) -> bytes:
    """All that comes back until the other end closes."""
    with socket.create_connection(found.address, PATIENCE_SECONDS) as connection:
        connection.sendall(request.encode("latin-1"))
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass  # what we said was not read to its end
        return answer


def asked(path: str, *lines: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *lines, "", ""))


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return int(answer[9:12])


@pytest.mark.parametrize(
    ("accept", "statuses"),
    [
        ("multipart/related", {200, 400, 406}),
        ('multipart/related; type="application/octet-stream', {400}),
        ('multipart/related; type="' + "\\" * LONG, {400}),
        ('multipart/related; type="' + '\\"' * (LONG // 2) + '"', {400, 406}),
        ("a/b" + "; q" * 2000, {400, 406}),
        ("a/b" + ";" * 8000, {400, 406}),
        ("a/b" + " " * 8000 + "x", {400, 406}),
        ("," * 8000, {200, 400, 406}),
        (", ".join(["*/*;q=0.1"] * 700), {400}),
        ("a" * LONG, {400}),
        ("*/*;q=1e309", {400}),
        ("*/*;q=nan", {400}),
        ("*/*;q=-1", {400}),
        ("*/*;q=0", {406}),
        ("application/octet-stream; transfer-syntax=../../etc/passwd", {406}),
        ("text/html;charset=\xff\xfe", {400, 406}),
        ("*/*;" + "a=b;" * 2000, {200, 400, 406}),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("what", ["/frames/1", "", "/metadata", "/rendered", "/bulkdata/7FE00010"])
def test_whatever_is_accepted(found: tuple[Served, Made], accept: str, statuses: set[int], what: str) -> None:
    running, one = found
    answer = said(running, asked(place(one) + what, f"Accept: {accept}"))
    assert status_of(answer) in statuses, answer[:200]
    assert not running.failures


@pytest.mark.parametrize(
    "ranges",
    ["bytes=0-0", "bytes=" + ",".join(f"{at}-{at}" for at in range(1500)), "bytes=-1", "bytes=0-" + "9" * 4000, "x=1"],
    ids=lambda value: value[:16],
)
@pytest.mark.parametrize("what", ["/frames/1", "", "/bulkdata/7FE00010"])
def test_ranges_are_passed_over(found: tuple[Served, Made], ranges: str, what: str) -> None:
    """As RFC 9110 section 14.2 has it: all of it once, and not a thousand parts of it."""
    running, one = found
    plain = said(running, asked(place(one) + what, "Accept: */*"))
    answer = said(running, asked(place(one) + what, "Accept: */*", f"Range: {ranges}"))
    assert status_of(answer) == status_of(plain) == 200
    assert len(answer.partition(b"\r\n\r\n")[2]) == len(plain.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("frames", "statuses"),
    [
        ("1," * 999 + "1", {200}),
        ("1," * 1000 + "1", {413}),
        ("0", {400}),
        ("-1", {400}),
        ("1,,2", {400}),
        ("1e3", {400}),
        ("999999999", {404}),
        ("9999999999", {400}),
        ("%D9%A1", {400}),
        ("1-20", {400}),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_lists_of_frames(found: tuple[Served, Made], frames: str, statuses: set[int]) -> None:
    running, one = found
    answer = said(running, asked(f"{place(one)}/frames/{frames}", "Accept: */*"))
    assert status_of(answer) in statuses, answer[:200]


def test_half_open_connections_and_half_requests_hold_up_nobody(found: tuple[Served, Made]) -> None:
    running, one = found
    path = f"{place(one)}/frames/1"
    request = asked(path, "Accept: */*")
    whole = said(running, request)
    # Whoever says that he will say no more still gets his answer, or none; never a part of one that looks whole.
    answer = said(running, request, half_closed=True)
    assert not answer or len(answer) == len(whole)
    halves = [socket.create_connection(running.address, PATIENCE_SECONDS) for _ in range(100)]
    try:
        for number, half in enumerate(halves):
            half.sendall(request.encode()[: number * len(request) // 101])
        assert len(said(running, request)) == len(whole)
    finally:
        for half in halves:
            half.close()
    # Several in one go are answered one after the other.
    keeping = request.replace("Connection: close\r\n", "")
    assert said(running, keeping * 20 + request).count(b"HTTP/1.1 200") == 21
