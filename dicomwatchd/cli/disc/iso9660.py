"""Reads the image of a CD or DVD (ECMA-119, ISO 9660) from an open file: which files are on it, and where.

The file comes from outside, so nothing in it is believed: directories are counted and gone into once each, lengths are
held against the file's, names are made harmless, and links (Rock Ridge) are left out. DICOM media have ISO 9660 names
(PS3.12 F), which are what a DICOMDIR lists; so these are used, and Joliet only for what stands nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dicomwatchd import markers
from dicomwatchd.errors import Permanent

SECTOR_BYTES = 2048
_FIRST_DESCRIPTOR = 16
_DESCRIPTORS_LIMIT = 64
#: Files and directories of one image, the bytes of all directories, and how deep they are.
ENTRIES_LIMIT = 200_000
DIRECTORIES_LIMIT_BYTES = 64 * 1024**2
DEPTH_LIMIT = 64
#: A CD has 99 tracks at most, and a session has one at least.
SESSIONS_LIMIT = 99
#: What all files come to, in sizes of the image: extents that overlap would make much out of little.
CONTENT_LIMIT = 2
#: Sectors behind the first session that are searched for others: a double-layered DVD has 4.2 million.
_SEARCHED_SECTORS = 5_000_000
_SEARCH_BYTES = 1024 * 1024
#: What the first descriptor of a session begins with.
_PRIMARY = b"\x01CD001\x01"
_NAME_LIMIT_BYTES = 200

#: How a sector stands in the file: bytes from one to the next, and where its 2,048 bytes begin. The second and third
#: are copies with everything that a CD has around them.
_FORMS = ((2048, 0), (2352, 16), (2352, 24))
_DIRECTORY, _ASSOCIATED, _MORE_TO_COME = 0x02, 0x04, 0x80
_JOLIET = (b"%/@", b"%/C", b"%/E")
_VERSION = re.compile(rb";[0-9]*\Z")
_HARMFUL = re.compile(rb"[\0-\x1f\x7f/]")

MOUNT_IT = (
    "mount it (udisksctl loop-setup -r -f FILE, then udisksctl mount -b /dev/loopN), and upload the mounted folder"
)


class NoDiscImage(Permanent):
    """The file is no image of a disc, or of none that can be read here."""

    code = "no-disc-image"


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file that stand one after the other, from a block of the image on."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the image. ``path`` is harmless, and no other file's."""

    path: tuple[bytes, ...]
    extents: tuple[Extent, ...]

    @property
    def size_bytes(self) -> int:
        return sum(extent.size_bytes for extent in self.extents)


@dataclass(slots=True)
class Contents:
    """``links`` are left out; ``sessions`` were found; ``has_udf``: there is another file system beside this one;
    ``is_cut_off``: the image ends before a file does, and what is there is all that there is of it."""

    entries: list[Entry] = field(default_factory=list)
    links: int = 0
    sessions: int = 1
    has_udf: bool = False
    is_cut_off: bool = False

    @property
    def unique_bytes(self) -> int:
        """What the files take if the same bytes are stored once."""
        return sum(
            sum(extent.size_bytes for extent in extents) for extents in {entry.extents for entry in self.entries}
        )


class DiscImage:
    """``beat`` is called again and again while it is read."""

    def __init__(self, fd: int, beat: Callable[[], None] = lambda: None) -> None:
        """Raises NoDiscImage, OSError."""
        self._fd, self._beat = fd, beat
        self.size_bytes = os.fstat(fd).st_size
        self._stride, self._start = self._form()
        self._sectors = (self.size_bytes - self._start + self._stride - 1) // self._stride
        #: Of the sectors' contents; without what a copy has around them.
        self.disc_bytes = self.size_bytes if self._stride == SECTOR_BYTES else self._sectors * SECTOR_BYTES

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disc; fewer where the image ends."""
        if self._stride == SECTOR_BYTES:
            return self._pread(offset, length)
        pieces = []
        while length > 0:
            sector, within = divmod(offset, SECTOR_BYTES)
            wanted = min(length, SECTOR_BYTES - within)
            piece = self._pread(sector * self._stride + self._start + within, wanted)
            pieces.append(piece)
            if len(piece) < wanted:
                break
            offset, length = offset + wanted, length - wanted
        return b"".join(pieces)

    def contents(self) -> Contents:
        """Every file. Raises NoDiscImage beyond the limits, OSError."""
        found = Contents()
        reader = _Reader(self, found, self._beat)
        volumes, found.has_udf = self._volumes(_FIRST_DESCRIPTOR)
        if not volumes:
            raise NoDiscImage("the disc image has no table of contents: damaged?", hint="make it again from the disc")
        for position in self._later_sessions(volumes[0]):
            later, _ = self._volumes(position)
            if later and reader.is_absolute(later[0]):
                volumes = [later[0], *volumes, *later[1:]]  # the newest first, which has most of the others' files
                found.sessions += 1
            if found.sessions >= SESSIONS_LIMIT:
                break
        for volume in sorted(volumes, key=lambda one: one.is_joliet):
            reader.read(volume)
        if found.unique_bytes > CONTENT_LIMIT * self.size_bytes:
            raise NoDiscImage("the disc image declares far more content than it has bytes: damaged, or forged")
        return found

    def _form(self) -> tuple[int, int]:
        is_udf = False
        for stride, start in _FORMS:
            mark = self._pread(_FIRST_DESCRIPTOR * stride + start + 1, 5)
            if mark == b"CD001":
                return stride, start
            is_udf = is_udf or mark == b"BEA01"
        if is_udf:
            raise NoDiscImage("the disc image has a UDF file system only, which is not read here", hint=MOUNT_IT)
        raise NoDiscImage(
            "this file is not the image of a disc (ISO 9660)", hint="upload takes a folder, or the image of a CD or DVD"
        )

    def _volumes(self, first_sector: int) -> tuple[list[_Volume], bool]:
        """The primary volume and a Joliet one, and whether there is UDF, as the descriptors have it."""
        volumes, has_udf = list[_Volume](), False
        for sector in range(first_sector, first_sector + _DESCRIPTORS_LIMIT):
            block = self.read(sector * SECTOR_BYTES, SECTOR_BYTES)
            mark = block[1:6]
            if mark in (b"NSR02", b"NSR03"):
                has_udf = True
            if len(block) < SECTOR_BYTES or mark not in (b"CD001", b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2"):
                break
            is_joliet = block[0] == 2 and block[88:91] in _JOLIET
            if mark == b"CD001" and (is_joliet or (block[0] == 1 and not volumes)):
                volumes.append(_Volume.of(block, is_joliet=is_joliet))
        return [volume for volume in volumes if volume.block_bytes in (512, 1024, 2048)], has_udf

    def _later_sessions(self, first: _Volume) -> Iterator[int]:
        """Where descriptors stand behind the first volume: each session has its own, and the last ones list all."""
        begin = max(_FIRST_DESCRIPTOR + 1, first.blocks * first.block_bytes // SECTOR_BYTES)
        at = begin * self._stride + self._start
        end = min(self.size_bytes, at + _SEARCHED_SECTORS * self._stride)
        while (at := self._behind_a_hole(at, end)) < end:
            piece, found = self._pread(at, _SEARCH_BYTES + len(_PRIMARY) - 1), -1
            while (found := piece.find(_PRIMARY, found + 1)) >= 0:
                sector, within = divmod(at + found - self._start, self._stride)
                if not within:
                    yield sector
            at += _SEARCH_BYTES

    def _behind_a_hole(self, at: int, end: int) -> int:
        """The place at ``at``, or the first one behind it where anything was written to the file."""
        try:
            return max(at, os.lseek(self._fd, at, os.SEEK_DATA))
        except OSError as error:
            return end if error.errno == errno.ENXIO else at  # not every file system tells

    def _pread(self, offset: int, length: int) -> bytes:
        self._beat()
        return os.pread(self._fd, length, offset)


@dataclass(frozen=True, slots=True)
class _Volume:
    block_bytes: int
    blocks: int
    root: int
    root_bytes: int
    is_joliet: bool

    @classmethod
    def of(cls, block: bytes, *, is_joliet: bool) -> _Volume:
        return cls(_u16(block, 128), _u32(block, 80), _u32(block, 158), _u32(block, 166), is_joliet)


class _Reader:
    def __init__(self, image: DiscImage, found: Contents, beat: Callable[[], None]) -> None:
        self._image, self._found, self._beat = image, found, beat
        self._count = self._directory_bytes = 0
        self._extents: set[tuple[Extent, ...]] = set()
        self._taken: set[tuple[bytes, ...]] = set()

    def is_absolute(self, volume: _Volume) -> bool:
        """Whether its blocks are counted from the beginning of the image: its root begins with an entry of itself."""
        head = self._image.read(volume.root * volume.block_bytes, 34)
        return len(head) == 34 and head[32:34] == b"\x01\0" and _u32(head, 2) == volume.root

    def read(self, volume: _Volume) -> None:
        """Add the files of a volume that no other one before it has had."""
        is_first = not self._found.entries
        entered: set[int] = set()
        todo: list[tuple[tuple[bytes, ...], int, int]] = [((), volume.root, volume.root_bytes)]
        while todo:
            path, block, size_bytes = todo.pop()
            if block in entered:
                continue  # a directory that stands in itself, or in two others
            entered.add(block)
            if len(path) > DEPTH_LIMIT:
                raise NoDiscImage(f"the disc image has folders that are more than {DEPTH_LIMIT} deep")
            for name, child, child_bytes, extents in self._directory(volume, block, size_bytes):
                if extents is None:
                    todo.append(((*path, self._free(path, name)), child, child_bytes))
                elif is_first or (extents not in self._extents and any(extent.size_bytes for extent in extents)):
                    self._found.entries.append(Entry((*path, self._free(path, name)), extents))
                    self._extents.add(extents)

    def _directory(
        self, volume: _Volume, block: int, size_bytes: int
    ) -> Iterator[tuple[bytes, int, int, tuple[Extent, ...] | None]]:
        """(name, block, size, extents) of each entry; no extents for a directory."""
        self._directory_bytes += size_bytes
        if self._directory_bytes > DIRECTORIES_LIMIT_BYTES:
            raise NoDiscImage("the folders of the disc image are larger than any real ones: damaged, or forged")
        raw = self._image.read(block * volume.block_bytes, size_bytes)
        if len(raw) < size_bytes:
            raise NoDiscImage("the disc image is cut off: a part of its folders is missing", hint="make it again")
        at, before = 0, list[Extent]()
        while at < len(raw):
            length = raw[at]
            if length == 0:  # no entry goes over the end of a sector
                at = (at // SECTOR_BYTES + 1) * SECTOR_BYTES
                continue
            record, at = raw[at : at + length], at + length
            if len(record) < 34 or len(record) < 33 + record[32]:
                raise NoDiscImage("the disc image has a damaged folder", hint="make it again from the disc")
            raw_name, flags = record[33 : 33 + record[32]], record[25]
            if raw_name in (b"\0", b"\1") or flags & _ASSOCIATED:
                continue
            self._count += 1
            if self._count > ENTRIES_LIMIT:
                raise NoDiscImage(f"the disc image has more than {ENTRIES_LIMIT:,} files and folders")
            name = _harmless(raw_name, is_joliet=volume.is_joliet)
            child, child_bytes = _u32(record, 2) + record[1], _u32(record, 10)
            if flags & _DIRECTORY:
                yield name, child, child_bytes, None
                continue
            if _is_link(record):
                self._found.links += 1
                continue
            if record[26] or record[27]:
                raise NoDiscImage("the disc image has interleaved files, which are not read here", hint=MOUNT_IT)
            before.append(self._there(Extent(child * volume.block_bytes, child_bytes)))
            if flags & _MORE_TO_COME:
                continue
            yield name, child, child_bytes, tuple(before)
            before = []

    def _there(self, extent: Extent) -> Extent:
        """The part of it that is in the image."""
        size_bytes = max(0, min(extent.size_bytes, self._image.disc_bytes - extent.offset))
        self._found.is_cut_off = self._found.is_cut_off or size_bytes < extent.size_bytes
        return Extent(extent.offset, size_bytes)

    def _free(self, path: tuple[bytes, ...], name: bytes) -> bytes:
        """The name, or one like it where another entry of that folder has it already. Another volume's folder of the
        same name is another one."""
        free, number = name, 1
        while (*path, free) in self._taken:
            number += 1
            free = b"%s~%d" % (name, number)
        self._taken.add((*path, free))
        return free


def _harmless(raw: bytes, *, is_joliet: bool) -> bytes:
    """A name that is one below its folder, whatever it was."""
    if is_joliet:
        raw = raw.decode("utf-16-be", "replace").encode("utf-8", "replace")
    name = _HARMFUL.sub(b"_", _VERSION.sub(b"", raw)).rstrip(b".")[:_NAME_LIMIT_BYTES]
    if not name:  # which "." and ".." have become, too
        return b"_"
    return b"_" + name if name.startswith(markers.OWN) else name


def _is_link(record: bytes) -> bool:
    """Whether Rock Ridge calls it a symbolic link, or a folder that stands elsewhere."""
    at = 33 + record[32] + (record[32] + 1) % 2
    while at + 4 <= len(record) and record[at + 2] >= 4:
        if record[at : at + 2] in (b"SL", b"CL"):
            return True
        at += record[at + 2]
    return False


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
