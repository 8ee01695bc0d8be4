"""A program that never leaves its files alone: replaces, rewrites in place with size and time kept, appends, truncates,
through descriptors opened long before and through memory maps; and keeps book of every version that it completed.

    python -m tests.system.racing_writer FOLDER TEMPLATE BOOK SEED TRIALS

So many versions at least, and on until its standard input is closed. The book has a line for each event, written by one
write(2) right after it:

    P <sha256>    a version was completed under a name of the folder, or in a file that had one when the writing began
    Q <sha256>    the same, but the file had no name any more right after: the write may have come after the deletion
    S <sha256>    this program itself is about to destroy, or has just destroyed, this content, which was in the folder

Every version is a whole DICOM file that no other version equals. What is to be found afterwards, in the folder or in
the archive, is P without S. A version is only booked as destroyed when it was seen: in place, it is read through the
very descriptor that then writes; a replacement swaps the two files (RENAME_EXCHANGE) and looks at what it got.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import random
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

NAMES = 5
#: What the template holds where a version puts its own digits.
UNIQUE = b"7777777777"
_NOREPLACE, _EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _is_enough() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def versioned(template: bytes, number: int) -> bytes:
    """One version: its SOP Instance UID and its pixels are its own, forty versions share a study."""
    study, instance = template.count(UNIQUE + b"1"), template.count(UNIQUE + b"2")
    assert study == 1 and instance == 2, "the template's UIDs are not as they should be"
    data = template.replace(UNIQUE + b"1", b"%010d1" % (1_000_000_000 + number // 40))
    data = data.replace(UNIQUE + b"2", b"%010d2" % (1_000_000_000 + number))
    return data[:-16] + b"%016d" % number


#: Data Set Trailing Padding (FFFC,FFFC): a file stays a whole one when it is appended.
_PADDING = b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0padding!"


class Writer:
    def __init__(self, folder: Path, template: bytes, book: Path, seed: int) -> None:
        self._folder, self._template = folder, template
        self._book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._random = random.Random(seed)
        self._number = 0
        self._held: dict[str, int] = {}
        self._acts: list[tuple[int, Callable[[Path], None]]] = [
            (30, self._replace),
            (15, self._create),
            (15, self._rewrite),
            (8, self._rewrite_mapped),
            (8, self._append),
            (8, self._copy_over),
            (8, self._open_for_later),
            (20, self._write_held),
        ]

    def run(self, trials: int) -> None:
        while self._number < trials or not _is_enough():
            path = self._folder / f"IM{self._random.randrange(NAMES):04d}"
            act = self._random.choices([a for _, a in self._acts], [w for w, _ in self._acts])[0]
            try:
                act(path)
            except FileNotFoundError:
                pass  # the daemon was faster
            except OSError as error:
                if error.errno != errno.ETXTBSY:
                    raise
            time.sleep(self._random.choice((0, 0, 0.0005, 0.002, 0.005)))
        for fd in self._held.values():
            os.close(fd)

    # -- acts ---------------------------------------------------------------------------------------------------------

    def _replace(self, path: Path) -> None:
        part = self._folder / ".part"
        data = self._version()
        part.write_bytes(data)
        while True:
            try:
                _rename(part, path, _NOREPLACE)
            except FileExistsError:
                try:
                    _rename(part, path, _EXCHANGE)
                except FileNotFoundError:
                    continue
                self._note("P", data)
                self._note("S", part.read_bytes())
                part.unlink()
                return
            else:
                self._note("P", data)
                return

    def _create(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        data = self._version()
        half = len(data) // 2
        os.write(fd, data[:half])
        time.sleep(self._random.choice((0, 0.001)))
        os.write(fd, data[half:])
        self._completed(fd, data)
        os.close(fd)

    def _rewrite(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR)
        self._write_in_place(fd)
        os.close(fd)

    def _write_in_place(self, fd: int) -> None:
        if os.fstat(fd).st_nlink == 0:
            return
        stat = os.fstat(fd)
        old = os.pread(fd, stat.st_size, 0)
        data = self._version()
        if len(old) > len(data):
            data += old[len(data) :]
        self._note("S", old)
        os.pwrite(fd, data, 0)
        os.utime(fd, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self._completed(fd, data)

    def _rewrite_mapped(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR)
        stat = os.fstat(fd)
        data = self._version()
        if stat.st_nlink == 0 or stat.st_size != len(data):
            os.close(fd)
            return
        with mmap.mmap(fd, len(data)) as memory:
            old = bytes(memory)
            self._note("S", old)
            time.sleep(self._random.choice((0, 0.001)))
            memory[:] = data
            os.utime(fd, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            self._completed(fd, data)
            os.close(fd)
            time.sleep(self._random.choice((0, 0.001)))

    def _append(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        old = os.pread(fd, 1 << 24, 0)
        if os.fstat(fd).st_nlink and _PADDING not in old and len(old) >= len(self._template):
            self._number += 1
            self._note("S", old)
            os.write(fd, _PADDING)
            self._completed(fd, old + _PADDING)
        os.close(fd)

    def _copy_over(self, path: Path) -> None:
        """As cp does: truncated while it is opened."""
        with path.open("rb") as file:
            old = file.read()
            was = os.fstat(file.fileno()).st_ino
        data = self._version()
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        if os.fstat(fd).st_ino == was:
            self._note("S", old)
        os.write(fd, data)
        self._completed(fd, data)
        os.close(fd)

    def _open_for_later(self, path: Path) -> None:
        if path.name not in self._held:
            self._held[path.name] = os.open(path, os.O_RDWR)

    def _write_held(self, path: Path) -> None:
        if path.name in self._held:
            fd = self._held.pop(path.name)
            self._write_in_place(fd)
            os.close(fd)

    # -- the book -----------------------------------------------------------------------------------------------------

    def _version(self) -> bytes:
        self._number += 1
        return versioned(self._template, self._number)

    def _completed(self, fd: int, data: bytes) -> None:
        self._note("P" if os.fstat(fd).st_nlink else "Q", data)

    def _note(self, what: str, data: bytes) -> None:
        os.write(self._book, f"{what} {hashlib.sha256(data).hexdigest()}\n".encode())


def _rename(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    folder, template, book, seed, trials = sys.argv[1:]
    Writer(Path(folder), Path(template).read_bytes(), Path(book), int(seed)).run(int(trials))
