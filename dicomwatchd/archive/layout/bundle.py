"""Bundles: small instances of a study in one object, an uncompressed POSIX ustar archive that `tar xf` unpacks.

The manifest says where in it each instance begins; the headers are for others to read, and for us only where all
manifests are lost. Equal members in equal
order give equal bytes: times, owners and modes are fixed, names hold UIDs and nothing else of the patient.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from dicomwatchd.archive.stores.port import Buffer, Chunk, ObjectStore
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Digest, Uid
from dicomwatchd.ports import Cancellation, never_cancelled, until_cancelled

BLOCK_BYTES = 512
#: Two empty blocks end the archive (POSIX.1-1988, ustar interchange format).
END_BYTES = 2 * BLOCK_BYTES
#: No bundle is larger: it is sent in one request, from one buffer.
BUNDLE_LIMIT_BYTES = 16 * 1024 * 1024
_SHORT = 8  # hex digits of the SHA-256 in the name of a member whose UID has several contents


@dataclass(frozen=True, slots=True)
class Member:
    """One instance's bytes in a bundle: ``digest`` of them alone, beginning at ``offset_bytes`` of the bundle."""

    series_uid: Uid
    sop_instance_uid: Uid
    digest: Digest
    offset_bytes: int


def member_bytes(size_bytes: int) -> int:
    """What a file of this size takes up in a bundle: its header, and its content up to a whole block."""
    return BLOCK_BYTES + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


class Bundle:
    """A bundle that is being put together in one buffer, for files of the given sizes at most, in this order.

    Read a file into `buffer`, then `add` it; what was read and is not added is overwritten by the next. `finish` once.
    """

    def __init__(self, sizes_bytes: Iterable[int]) -> None:
        self._data = bytearray(sum(map(member_bytes, sizes_bytes)) + END_BYTES)
        self._end = 0
        self._room = memoryview(b"")
        self._members: dict[tuple[Uid, Uid, str], Member] = {}

    def buffer(self, size_bytes: int) -> memoryview:
        """Where the next file's bytes belong; of use until the next call."""
        self._room.release()
        start = self._end + BLOCK_BYTES
        self._room = memoryview(self._data)[start : start + size_bytes]
        return self._room

    def add(self, series_uid: Uid, sop_instance_uid: Uid) -> Member:
        """Hash what is in the room and keep it as a member. A second copy of a member takes no room."""
        digest = Digest(hashlib.sha256(self._room).hexdigest(), len(self._room))
        content = (series_uid, sop_instance_uid, digest.sha256)
        if content not in self._members:
            start = self._end + BLOCK_BYTES
            self._members[content] = Member(series_uid, sop_instance_uid, digest, start)
            self._end += member_bytes(digest.size_bytes)
            used = start + digest.size_bytes
            self._data[used : self._end] = bytes(self._end - used)
        return self._members[content]

    def finish(self) -> Buffer:
        """The whole archive."""
        for member, name in zip(self._members.values(), _names([*self._members.values()]), strict=True):
            start = member.offset_bytes - BLOCK_BYTES
            self._data[start : member.offset_bytes] = _header(name, member)
        self._room.release()
        self._data[self._end : self._end + END_BYTES] = bytes(END_BYTES)
        del self._data[self._end + END_BYTES :]
        # Nobody writes to it any more; to make bytes of it would take the room a second time.
        return Buffer.of(cast(bytes, self._data))


def _names(members: Sequence[Member]) -> Iterator[str]:
    """``<SOPInstanceUID>.dcm``, in the folder of its series, as `fetch` names it. Where several contents share the UID
    each of them has the beginning of its SHA-256 in its name, and a number where even that is shared."""
    contents = Counter((m.series_uid, m.sop_instance_uid) for m in members)
    used: Counter[tuple[Uid, Uid, str]] = Counter()
    for member in members:
        name = str(member.sop_instance_uid)
        if contents[member.series_uid, member.sop_instance_uid] > 1:
            short = member.digest.sha256[:_SHORT]
            used[member.series_uid, member.sop_instance_uid, short] += 1
            count = used[member.series_uid, member.sop_instance_uid, short]
            name += f"-{short}" if count == 1 else f"-{short}-{count}"
        yield f"{name}.dcm"


def _header(name: str, member: Member) -> bytes:
    """The 512 bytes before a member: a regular file, mode 0644, of nobody, of 1970."""
    fields = (
        (name, 100),
        ("0000644", 8),
        ("0000000", 8),
        ("0000000", 8),
        (f"{member.digest.size_bytes:011o}", 12),
        ("00000000000", 12),
        (" " * 8, 8),  # the checksum counts as spaces in itself
        ("0", 1),
        ("", 100),
        ("ustar", 6),
        ("00", 2),
        ("", 32),
        ("", 32),
        ("0000000", 8),
        ("0000000", 8),
        (str(member.series_uid), 155),
        ("", 12),
    )
    header = bytearray(b"".join(text.encode("ascii").ljust(length, b"\0") for text, length in fields))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


_MEMBER_NAME = re.compile(rf"([0-9.]+)/([0-9.]+)(?:-[0-9a-f]{{{_SHORT}}}(?:-[0-9]+)?)?\.dcm\Z")


def members_of(data: bytes) -> list[Member]:
    """What the headers of a whole bundle say is in it. Raises ValueError for anything that `Bundle` does not make."""
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                name = _MEMBER_NAME.match(info.name)
                if name is None or info.type != tarfile.REGTYPE:
                    raise ValueError("a bundle contains something other than instances")
                content = memoryview(data)[info.offset_data : info.offset_data + info.size]
                digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
                found.append(Member(Uid(name[1]), Uid(name[2]), digest, info.offset_data))
    except (tarfile.TarError, InvalidUid) as error:
        raise ValueError("no bundle") from error
    return found


# -- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """An instance's bytes in an object, a member's in a bundle or all of its own: where they are, and what they hash
    to."""

    offset_bytes: int
    size_bytes: int
    sha256: str

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store gave back of a whole object, and for which spans of it their SHA-256 is right."""

    size_bytes: int
    sha256: str
    md5: str
    held: frozenset[Span]


def pieces(
    chunks: Iterable[Chunk], offset_bytes: int, spans: Sequence[Span]
) -> Iterator[tuple[Span | None, memoryview]]:
    """The chunks of an object, which begin at ``offset_bytes`` of it, cut at the borders of the spans: each piece with
    its span, or with None for what is between them. ``spans`` are in order and do not overlap."""
    at, number = offset_bytes, 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            while number < len(spans) and spans[number].end_bytes <= at:
                number += 1
            span, end = None, at + len(rest)
            if number < len(spans):
                within = spans[number].offset_bytes <= at
                span, end = (spans[number], spans[number].end_bytes) if within else (None, spans[number].offset_bytes)
            piece, rest = rest[: end - at], rest[end - at :]
            at += len(piece)
            yield span, piece


def read_back(
    store: ObjectStore,
    key: str,
    version_id: str | None,
    spans: Iterable[Span],
    cancelled: Cancellation = never_cancelled,
) -> Reading:
    """Read a whole object out of the store, hash it, and each of these spans of it. Raises as `ObjectStore.read`, and
    Stopping."""
    whole, md5, size_bytes = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    in_order = sorted(set(spans), key=lambda span: span.offset_bytes)
    of_span = {span: hashlib.sha256() for span in in_order}
    came_in = dict.fromkeys(in_order, 0)
    for span, piece in pieces(until_cancelled(cancelled, store.read(key, version_id)), 0, in_order):
        whole.update(piece)
        md5.update(piece)
        size_bytes += len(piece)
        if span is not None:
            of_span[span].update(piece)
            came_in[span] += len(piece)
        if size_bytes > BUNDLE_LIMIT_BYTES:
            break  # no bundle, however long it goes on
    held = frozenset(s for s, d in of_span.items() if came_in[s] == s.size_bytes and d.hexdigest() == s.sha256)
    return Reading(size_bytes, whole.hexdigest(), md5.hexdigest(), held)
