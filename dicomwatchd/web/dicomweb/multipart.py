"""multipart/related bodies (RFC 2387, PS3.18 section 8.6.1.2), streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: The bytes of a part, in their order.
Value = Iterable[bytes]
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """``value`` is asked for once everything before it has been handed out."""

    headers: Mapping[str, str]
    value: Value


def cut(value: Value) -> Iterator[bytes]:
    """In pieces that a socket takes."""
    for piece in value:
        for at in range(0, len(piece), _PIECE_BYTES):
            yield piece[at : at + _PIECE_BYTES]


def alone(values: Iterable[Value]) -> Iterator[bytes]:
    """A body that is no multipart's."""
    for value in values:
        yield from value


def boundary(random: bytes) -> str:
    """Of at least 16 random bytes: what is stored was there before the boundary was drawn, so that the chance that it
    holds one is 2 to the -128th for each of its bytes, and nobody can have put it there."""
    if len(random) < 16:
        raise ValueError("a boundary that can be guessed")
    return f"dicomwatchd-{random.hex()}"


def content_type(media_type: str, mark: str, transfer_syntax_uid: str = "") -> str:
    syntax = f'; transfer-syntax="{transfer_syntax_uid}"' if transfer_syntax_uid else ""
    return f'multipart/related; type="{media_type}"{syntax}; boundary={mark}'


def head(mark: str, headers: Mapping[str, str], *, is_first: bool) -> bytes:
    lines = [f"--{mark}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return (b"" if is_first else b"\r\n") + "\r\n".join(lines).encode("latin-1")


def end(mark: str) -> bytes:
    return f"\r\n--{mark}--\r\n".encode("latin-1")


def body(mark: str, parts: Iterable[Part]) -> Iterator[bytes]:
    """A part that raises ends the body in its middle, without the boundary that closes it: no client takes that for all
    there is."""
    is_first = True
    for part in parts:
        yield head(mark, part.headers, is_first=is_first)
        is_first = False
        yield from part.value
    yield end(mark)


def length(mark: str, parts: Iterable[tuple[Mapping[str, str], int]]) -> int:
    """How many bytes `body` gives of parts with these headers and sizes."""
    total = len(end(mark))
    for number, (headers, size_bytes) in enumerate(parts):
        total += len(head(mark, headers, is_first=number == 0)) + size_bytes
    return total
