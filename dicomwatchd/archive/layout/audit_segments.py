"""Finished segments of audit chains in the archive: each an object that is created once and never changed.

A segment is a gzip file of JSON lines: a header, and then the entries of the chain as they were, byte for byte. So
``zcat`` shows it, the SHA-256 of what it shows is in the key, and each entry holds the SHA-256 of the line before it;
the header has the one of the entry before the first, which is the last of the segment before. Whether an entry follows
the one before it can be checked with ``sha256sum`` alone.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import NoSuchObject, Permanent, Transient

FORMAT = "dicomwatchd-audit-segment/1"
FIRST = "0" * 64

_MOST_LINE_BYTES = 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class BadSegment(Permanent):
    """What is there is not the segment that its key names, or there is nothing: its text says which and why."""

    code = "bad-audit-segment"


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """What a segment's key says of it."""

    chain_id: str
    first: int
    last: int
    sha256: str
    attempt: int = 1

    @property
    def key(self) -> str:
        return keys.audit_segment(self.chain_id, self.first, self.last, self.sha256, self.attempt)

    @property
    def text(self) -> str:
        return f"entries {self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a segment."""

    chain_id: str
    first: int
    last: int
    previous: str
    head: str
    format: str = FORMAT


@dataclass(frozen=True, slots=True)
class Packed:
    """A segment as it is sent. ``sha256`` is that of its text; ``studies`` are those that it speaks of."""

    sha256: str
    data: bytes
    studies: frozenset[str]


def follows(text: str, sequence: int, previous: str) -> str | None:
    """The hash of this entry if it is the one of that number, after the one of that hash; None if it is not."""
    try:
        body = json.loads(text)
        if body["sequence"] != sequence or body["previous"] != previous or not isinstance(body["study_uid"], str):
            return None
        return hashlib.sha256(text.encode("ascii")).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def pack(header: Header, entries: Iterable[str]) -> Packed:
    """The same entries always make the same text. Raises BadSegment where they are not what the header says."""
    packer, content = zlib.compressobj(6, zlib.DEFLATED, _GZIP), hashlib.sha256()
    data, studies = bytearray(), set()
    walk = _Walk(header.first, header.previous)
    for number, line in enumerate(_lines(header, entries)):
        if number and not walk.step(line):
            raise BadSegment(f"entry {walk.sequence} does not follow the one before it")
        if number:
            studies.add(str(json.loads(line)["study_uid"]))
        raw = line.encode("ascii") + b"\n"
        content.update(raw)
        data += packer.compress(raw)
    if (walk.sequence - 1, walk.previous) != (header.last, header.head):
        raise BadSegment(f"entry {walk.sequence} is missing")
    return Packed(content.hexdigest(), bytes(data + packer.flush()), frozenset(studies))


def _lines(header: Header, entries: Iterable[str]) -> Iterator[str]:
    yield json.dumps(asdict(header), sort_keys=True, separators=(",", ":"))
    yield from entries


class _Walk:
    """From entry to entry."""

    def __init__(self, sequence: int, previous: str) -> None:
        self.sequence, self.previous = sequence, previous

    def step(self, text: str) -> bool:
        found = follows(text, self.sequence, self.previous)
        if found is None:
            return False
        self.sequence, self.previous = self.sequence + 1, found
        return True


def read_checked(
    store: ObjectStore, name: SegmentKey, wanted: Callable[[str], bool] = lambda _: False
) -> tuple[Header, list[str]]:
    """Read a segment from the store and check every byte of it: (its header, the entries that are ``wanted``).

    Raises BadSegment, with two equal readings behind it: a bit that changed on the way must not look like a segment
    that was tampered with. Raises Transient, Permanent for a store that does not answer.
    """
    first, found = _read_once(store, name, wanted)
    if not isinstance(found, BadSegment):
        return found
    second, again = _read_once(store, name, wanted)
    if not isinstance(again, BadSegment):
        return again
    if first != second:
        raise Transient("two reads of a segment of the audit chain differ", code="damaged-on-the-way")
    raise again


def _read_once(
    store: ObjectStore, name: SegmentKey, wanted: Callable[[str], bool]
) -> tuple[str, tuple[Header, list[str]] | BadSegment]:
    """(the hash of what was read, what it is)."""
    raw = hashlib.sha256()
    try:
        found = _read(store, name, wanted, raw.update)
    except BadSegment as error:
        return raw.hexdigest(), error
    return raw.hexdigest(), found


def _read(
    store: ObjectStore, name: SegmentKey, wanted: Callable[[str], bool], seen: Callable[[bytes], None]
) -> tuple[Header, list[str]]:
    content, kept = hashlib.sha256(), []
    header: Header | None = None
    walk = _Walk(name.first, "")
    for line in _text_of(store, name, seen):
        content.update(line + b"\n")
        text = _ascii(line, name)
        if header is None:
            header = _header(text, name)
            walk.previous = header.previous
            continue
        if walk.sequence > name.last:
            raise BadSegment(f"the segment of {name.text} continues after its end")
        if not walk.step(text):
            raise BadSegment(f"entry {walk.sequence}, in the segment of {name.text}, does not follow the one before it")
        if wanted(text):
            kept.append(text)
    if header is None or walk.sequence != name.last + 1:
        raise BadSegment(f"the segment of {name.text} is cut off after entry {walk.sequence - 1}")
    if walk.previous != header.head:
        raise BadSegment(f"the segment of {name.text} does not end as its header says")
    if content.hexdigest() != name.sha256:
        raise BadSegment(f"the segment of {name.text} does not match its key")
    return header, kept


def _ascii(line: bytes, name: SegmentKey) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadSegment(f"the segment of {name.text} is damaged") from error


def _header(text: str, name: SegmentKey) -> Header:
    try:
        header = Header(**json.loads(text))
        fits = (header.format, header.chain_id, header.first, header.last) == (
            FORMAT,
            name.chain_id,
            name.first,
            name.last,
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise BadSegment(f"the segment of {name.text} has no header") from error
    if not fits:
        raise BadSegment(f"the segment of {name.text} has the header of another segment")
    return header


def _text_of(store: ObjectStore, name: SegmentKey, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    """The lines, without more memory than one of them takes. Raises BadSegment."""
    unpacker, line = zlib.decompressobj(_GZIP), b""
    try:
        for chunk in store.read(name.key):
            packed = bytes(chunk)
            seen(packed)
            while packed:
                if unpacker.eof:
                    raise BadSegment(f"the segment of {name.text} continues after its end")
                line += unpacker.decompress(packed, _MOST_LINE_BYTES)
                packed = unpacker.unconsumed_tail or unpacker.unused_data
                *lines, line = line.split(b"\n")
                yield from lines
                if len(line) > _MOST_LINE_BYTES:
                    raise BadSegment(f"the segment of {name.text} is damaged")
        if line or not unpacker.eof:
            raise BadSegment(f"the segment of {name.text} is cut off")
    except zlib.error as error:
        raise BadSegment(f"the segment of {name.text} is damaged") from error
    except NoSuchObject as error:
        raise BadSegment(f"the segment of {name.text} is missing") from error


def listed(store: ObjectStore, chain_id: str) -> Iterator[tuple[SegmentKey, int]]:
    """The segments of a chain, with the sizes of their objects, as the store lists them: in their order. What is no
    segment's key is passed over."""
    for seen in store.listing(keys.audit_segments_prefix(chain_id)):
        parsed = keys.parse_audit_segment(seen.key)
        if parsed is not None:
            yield SegmentKey(*parsed), seen.size_bytes
