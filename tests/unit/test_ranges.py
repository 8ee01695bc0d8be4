"""Parts of objects from stores that do as they like with Range: the right bytes, or an error, never other bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.archive.layout.bundle import Span, pieces
from dicomwatchd.archive.stores import ranges
from dicomwatchd.archive.stores.ranges import Wanted, cut, surplus
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.errors import Permanent, Transient
from tests.unit.test_data_plane import Server

DATA = bytes(range(100))


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", 'ETag: "x"', *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def partial(first: int, last: int, total: object, body: bytes | None = None) -> bytes:
    shown = DATA[first : last + 1] if body is None else body
    return answer("206 Partial Content", shown, f"Content-Range: bytes {first}-{last}/{total}")


@contextmanager
def answering(
    monkeypatch: pytest.MonkeyPatch, with_fast_path: bool, *answers: bytes, **changes: Any
) -> Iterator[tuple[S3Store, Server]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = Server(list(answers))
    store = S3Store(
        S3Settings(
            kind="s3",
            bucket="bucket",
            prefix="",
            ca_file=None,
            region="eu-central-1",
            endpoint_url=f"http://127.0.0.1:{server.port}",
            insecure_http=True,
            **changes,
        ),
        connections=1,
        with_fast_path=with_fast_path,
    )
    yield store, server
    store.close()
    server.close()


def part(store: S3Store, offset: int, length: int) -> bytes:
    return b"".join(store.read("a/x.tar", offset_bytes=offset, length_bytes=length))


both_ways = pytest.mark.parametrize("with_fast_path", [True, False], ids=["short", "long"])


@both_ways
def test_a_part_as_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    with answering(monkeypatch, with_fast_path, partial(10, 19, 100)) as (store, server):
        assert part(store, 10, 10) == DATA[10:20]
        assert b"\r\nrange: bytes=10-19\r\n" in server.requests[0].lower()


@both_ways
def test_a_store_that_ignores_range(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    """It answers with everything, which is right; the part is cut out of it here."""
    whole = answer("200 OK", DATA)
    with answering(monkeypatch, with_fast_path, whole, whole, whole) as (store, _):
        assert part(store, 10, 10) == DATA[10:20]
        assert part(store, 95, 10) == DATA[95:]
        assert part(store, 200, 10) == b""


WRONG = {
    "another beginning": partial(11, 20, 100),
    "from the beginning": partial(0, 9, 100),
    "one byte more": partial(10, 20, 100),
    "one byte less, and the object goes on": partial(10, 18, 100),
    "one byte less than it says": partial(10, 19, 100, DATA[10:19]),
    "in other units": answer("206 Partial Content", DATA[10:20], "Content-Range: lines 10-19/100"),
    "several at once": answer("206 Partial Content", DATA[10:20], "Content-Range: bytes 10-14,15-19/100"),
    "a number that is none": answer("206 Partial Content", DATA[10:20], "Content-Range: bytes +10-19/100"),
}


@both_ways
@pytest.mark.parametrize("wrong", WRONG)
def test_another_part_is_no_answer(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool, wrong: str) -> None:
    with answering(monkeypatch, with_fast_path, *[WRONG[wrong]] * 8) as (store, _), pytest.raises(Transient):
        part(store, 10, 10)


@both_ways
def test_what_ends_before_is_what_there_is(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    refused = answer("416 Range Not Satisfiable", b"<Error><Code>InvalidRange</Code></Error>")
    with answering(monkeypatch, with_fast_path, partial(95, 99, 100), refused, refused) as (store, _):
        assert part(store, 95, 10) == DATA[95:]
        assert part(store, 100, 10) == b""


@both_ways
def test_an_object_that_is_not_there(monkeypatch: pytest.MonkeyPatch, with_fast_path: bool) -> None:
    missing = answer("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
    with answering(monkeypatch, with_fast_path, missing, missing) as (store, _), pytest.raises(Permanent):
        part(store, 100, 10)


def test_a_part_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(monkeypatch, True, *[partial(0, 9, 100)] * 8) as (store, _), pytest.raises(Transient):
        list(store.read("a/x.tar"))


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (3, -1)])
def test_no_part_at_all(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="part"):
        Wanted(offset, length)


@given(st.integers(0, 120), st.integers(1, 120), st.integers(1, 40))
def test_cut_is_a_slice(skip: int, length: int, chunk: int) -> None:
    chunks = [DATA[at : at + chunk] for at in range(0, len(DATA), chunk)]
    found = list(cut(chunks, skip, length))
    assert b"".join(found) == DATA[skip : skip + length]
    assert all(found)
    assert b"".join(cut(chunks, skip, None)) == DATA[skip:]


def test_cut_asks_for_no_more_than_it_needs() -> None:
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for at in range(0, 100, 10):
            taken.append(at)
            yield DATA[at : at + 10]

    assert b"".join(cut(chunks(), 5, 15)) == DATA[5:20]
    assert taken == [0, 10]


@given(st.integers(0, 99), st.integers(1, 100), st.integers(0, 99), st.integers(0, 120), st.integers(0, 120))
def test_surplus_says_where_the_part_is_or_nothing(offset: int, length: int, first: int, size: int, total: int) -> None:
    """Whatever an honest server sends: what is taken of it is the part that was wanted."""
    body = DATA[first : first + size]
    said = f"bytes {first}-{first + len(body) - 1}/{total or 100}"
    found = surplus(Wanted(offset, length), said, len(body))
    if found is not None:
        assert first == offset and len(body) <= length
        assert body[found : found + length] == DATA[offset : offset + length] or total == first + len(body)


@given(st.text(max_size=40))
def test_no_header_is_too_strange(text: str) -> None:
    assert surplus(Wanted(3, 4), text, 4) in (None, 0)
    assert ranges.surplus(None, text, 4) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), max_size=8), st.integers(1, 30), st.integers(0, 20))
def test_pieces_are_cut_at_the_borders(layout: list[tuple[int, int]], chunk: int, start: int) -> None:
    spans, at = [], start
    for gap, size in layout:
        spans.append(Span(at + gap, size, ""))
        at += gap + size
    stream = bytes(number % 251 for number in range(at + 7))
    chunks = [stream[begin : begin + chunk] for begin in range(start, len(stream), chunk)]
    got = dict.fromkeys(spans, b"")
    between = 0
    for span, piece in pieces(chunks, start, spans):
        assert piece
        if span is None:
            between += len(piece)
        else:
            got[span] += bytes(piece)
    assert got == {span: stream[span.offset_bytes : span.end_bytes] for span in spans}
    assert between + sum(map(len, got.values())) == len(stream) - start
