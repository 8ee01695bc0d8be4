"""Setting a file aside before it may be deleted, putting it back, and saving what was written to it too late.

A file that is set aside keeps its content and its file system and loses nothing but its name, which stays legible from
where it lies: below the private directory at the top of the inbox, which mirrors the inbox's folders, or, where that
cannot be, beside its old place. So a crash at any moment is put right by looking at the disk alone (see recover).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dicomwatchd.errors import SourceChanged, Transient
from dicomwatchd.localfiles import (
    ASIDE,
    RESTORED,
    KeptOpen,
    NoStrictRename,
    WriterPresent,
    identity,
    make_directories,
    open_root,
    read_lease,
    rename_noreplace,
    rename_to_private,
)
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.local import CHUNK_BYTES, read_exactly, sha256_of

#: A file set aside without a directory of its own: this before its name.
ASIDE_NAME = ASIDE + b"-"
NAME_BYTES = 255
PRIVATE_MODE = 0o700

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRIES = 5
_SAVE_SECONDS = 300.0
_SAVE_PAUSE_SECONDS = 0.1


class LeftAside(Transient):
    """A file that was set aside cannot be put back now. It is whole, and is put back when its inbox is next mended."""

    code = "left-aside"


@dataclass(frozen=True, slots=True)
class Aside:
    """Where a file that was set aside lies: ``name`` in the open directory ``fd``."""

    fd: int
    name: bytes


class Places(KeptOpen):
    """The private directories that files of one folder after the other are set aside in. That of the last one stays
    open; to be left as a context."""

    def private(self, root: bytes, parent: bytes) -> int:
        """A descriptor, this object's own, of the private directory for files of ``parent`` below ``root``; it is made
        if it is not there. Raises OSError."""

        def opening() -> int:
            root_fd = open_root(root)
            try:
                return make_directories(root_fd, [ASIDE, *(parent.split(b"/") if parent else ())], PRIVATE_MODE)
            finally:
                os.close(root_fd)

        return self.keep((root, parent), opening)


@contextmanager
def set_aside(places: Places, root: bytes, parent: bytes, name: bytes, directory_fd: int) -> Iterator[Aside]:
    """Rename ``name`` in the open directory ``directory_fd``, which is ``parent`` below ``root``, out of everybody's
    way. Whatever stands under the name at that moment is what is moved.

    Raises SourceChanged when nothing does, FileExistsError when its place aside is taken, OSError.
    """
    with ExitStack() as stack:
        yield _moved(places, root, parent, name, directory_fd, stack)


def _moved(places: Places, root: bytes, parent: bytes, name: bytes, directory_fd: int, stack: ExitStack) -> Aside:
    for _ in range(_TRIES):
        try:
            try:
                return _moved_into(places.private(root, parent), name, directory_fd)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # Another file system is mounted at or above the file's directory.
                beside_fd = make_directories(directory_fd, [ASIDE], PRIVATE_MODE)
                stack.callback(os.close, beside_fd)
                return _moved_into(beside_fd, name, directory_fd)
        except FileNotFoundError:
            # Either the file is gone, or another shipment has just tidied the private directory away.
            places.forget()
            if not _is_there(directory_fd, name):
                raise SourceChanged("the file is not where it was") from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # A full disk takes no directory, and only deleting makes room. A new name in the old one it takes.
            short = name[-(NAME_BYTES - len(ASIDE_NAME)) :]
            rename_to_private(directory_fd, name, directory_fd, ASIDE_NAME + short)
            return Aside(directory_fd, ASIDE_NAME + short)
    raise Transient("the private directory does not stay", code="local-enoent")


def _moved_into(private_fd: int, name: bytes, directory_fd: int) -> Aside:
    rename_to_private(directory_fd, name, private_fd, name)
    return Aside(private_fd, name)


def _is_there(directory_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# -- back -----------------------------------------------------------------------------------------------------------


def give_back(aside: Aside, directory_fd: int, name: bytes) -> None:
    """`put_back`, tried again where it fails. Nothing is done where nothing lies aside. Raises LeftAside."""
    for attempt in range(_TRIES):
        try:
            put_back(aside, directory_fd, name)
        except FileNotFoundError:
            if not _is_there(aside.fd, aside.name):
                return
        except OSError:
            pass
        else:
            return
        time.sleep(0.01 * 2**attempt)
    raise LeftAside("a file that was set aside cannot be put back")


def put_back(aside: Aside, directory_fd: int, name: bytes) -> bytes:
    """Move what lies aside to ``name``, or beside it where that name is taken; returns the name it has now.
    Overwrites nothing. Raises OSError."""
    number = 0
    while True:
        candidate = beside(name, number) if number else name
        try:
            rename_noreplace(aside.fd, aside.name, directory_fd, candidate)
        except FileExistsError:
            number += 1
        except NoStrictRename:
            # Neither a strict rename nor hard links are known here: a name that nobody else can have thought of.
            candidate = beside(name, secrets.randbits(48))
            os.rename(aside.name, candidate, src_dir_fd=aside.fd, dst_dir_fd=directory_fd)
            return candidate
        else:
            return candidate


def beside(name: bytes, number: int) -> bytes:
    """Another name for a file whose own is taken: IM1.dcm becomes IM1.restored-1.dcm. It matches the globs that the
    first name matched (see RESTORED), is at most 255 bytes long, and no character in it is cut in two."""
    name = re.sub(RESTORED, b"", name)
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > 16:
        stem, dot, extension = name, b"", b""
    tail = b".restored-%d" % number + dot + extension
    short = stem[: NAME_BYTES - len(tail)]
    if short != stem and stem.decode("utf-8", "ignore").encode() == stem:
        short = short.decode("utf-8", "ignore").encode()
    return short + tail


# -- too late -------------------------------------------------------------------------------------------------------


def save(
    fd: int, sha256: str, root: bytes, directory_fd: int, name: bytes, alive: Callable[[], None] = lambda: None
) -> bool:
    """A program was found at the file ``fd`` right after it had lost its last name: wait for that program, then put
    what it has written under the old name, as a new file. False when it has written nothing: the content is still
    that of ``sha256``. Raises OSError, LeftAside. ``alive`` shows that the work goes on.
    """
    end = time.monotonic() + _SAVE_SECONDS
    with ExitStack() as stack:
        copy: tuple[int, Aside] | None = None
        seen = None
        while True:
            alive()
            late = time.monotonic() > end
            with _lease_or_none(fd) as leased:
                before = identity(fd)
                # Without a lease, quiet for a moment is all that can be known.
                if leased or late or (leased is not None and before == seen):
                    if sha256_of(fd, before.size_bytes, alive) == sha256:
                        return False
                    copy = copy or stack.enter_context(_copy_place(root, directory_fd, name))
                    _copy(fd, before, copy[0], alive)
                    if late or identity(fd) == before:
                        give_back(copy[1], copy[1].fd, name)
                        return True
                seen = before
            time.sleep(_SAVE_PAUSE_SECONDS)


@contextmanager
def _lease_or_none(fd: int) -> Iterator[bool | None]:
    """`read_lease`, with None for a writer that is there."""
    with ExitStack() as stack:
        try:
            leased: bool | None = stack.enter_context(read_lease(fd))
        except WriterPresent:
            leased = None
        yield leased


@contextmanager
def _copy_place(root: bytes, directory_fd: int, name: bytes) -> Iterator[tuple[int, Aside]]:
    """A new file with a private name beside the old one's place, or at the top of the inbox if that place is gone."""
    private = ASIDE_NAME + b"%x-" % secrets.randbits(48) + name
    private = private[:NAME_BYTES]
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as stack:
        place_fd = os.dup(directory_fd)
        stack.callback(lambda: os.close(place_fd))
        try:
            fd = os.open(private, flags, 0o600, dir_fd=place_fd)
        except FileNotFoundError:
            os.close(place_fd)
            place_fd = open_root(root)
            fd = os.open(private, flags, 0o600, dir_fd=place_fd)
        stack.callback(os.close, fd)
        yield fd, Aside(place_fd, private)


def _copy(fd: int, source: FileIdentity, to_fd: int, alive: Callable[[], None]) -> None:
    os.ftruncate(to_fd, 0)
    for start in range(0, source.size_bytes, CHUNK_BYTES):
        alive()
        data, offset = read_exactly(fd, start, min(CHUNK_BYTES, source.size_bytes - start)), start
        while data:
            written = os.pwrite(to_fd, data, offset)
            data, offset = data[written:], offset + written
    os.fchmod(to_fd, os.fstat(fd).st_mode & 0o777)
    os.utime(to_fd, ns=(source.mtime_ns, source.mtime_ns))
    os.fsync(to_fd)
