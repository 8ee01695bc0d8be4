"""Staging a file before it may be deleted, putting it back, and saving what was written to it too late.

A file that is staged keeps its content and its file system and loses nothing but its name, which stays legible from
where it lies: below a private directory at the top of the inbox, which mirrors the inbox's folders, or, where that
cannot be, beside its old place. So a crash at any moment is put right by looking at the disk alone (see recover).

Several daemons may be at one inbox. Every private name is random, so none takes another's; and who loses a file from
under its hands, because another has brought it back, finds nothing to delete under the private name, and says so.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dicomwatchd.errors import SourceChanged, Transient
from dicomwatchd.filebytes import CHUNK_BYTES, read_exactly, sha256_of
from dicomwatchd.localfiles import (
    RESTORED,
    STAGING_NAME,
    KeptOpen,
    NoStrictRename,
    WriterPresent,
    identity,
    make_directories,
    read_lease,
    rename_noreplace,
    rename_to_private,
)
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.staging.private import MODE, Private, make
from dicomwatchd.queue.rows import Source

#: A file staged without a directory of its own: this before its name.
STAGED_PREFIX = STAGING_NAME + b"-"
NAME_BYTES = 255

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRIES = 5
_SAVE_SECONDS = 300.0
_SAVE_PAUSE_SECONDS = 0.1


class LeftStaged(Transient):
    """A file that was staged cannot be put back now. It is whole, and is put back when its inbox is next recovered."""

    code = "left-staged"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """Where a file that was staged lies: ``name`` in the open directory ``fd``."""

    fd: int
    name: bytes


class StagingArea:
    """The private directories of one purge, one at the top of each inbox, made when the first file is staged and
    shared by all who work on it. To be closed once nobody does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Source, Private] = {}
        self._given_up: list[Private] = []

    def close(self) -> None:
        with self._lock:
            made = [*self._made.values(), *self._given_up]
            self._made, self._given_up = {}, []
        for private in made:
            private.release()

    def directory(self, source: Source, parent: bytes) -> int:
        """A descriptor, the caller's own, of the private directory for files of ``parent`` below ``source``. Raises
        OSError."""
        with self._lock:
            private = self._made.get(source)
            if private is None:
                root_fd = source.open()
                try:
                    private = self._made[source] = make(root_fd)
                finally:
                    os.close(root_fd)
        return make_directories(private.fd, parent.split(b"/") if parent else (), MODE)

    def give_up(self, source: Source) -> None:
        """That of ``source`` is not there any more, or does not work: the next one to ask gets another. Descriptors of
        it may be in use, so it stays open until the end."""
        with self._lock:
            if (private := self._made.pop(source, None)) is not None:
                self._given_up.append(private)


class StagingFolders(KeptOpen):
    """Where the files of one folder after the other are staged. Every place stays open until the end, for files may
    lie in it: the number of one that was closed could be another directory's by the time they go. To be left as a
    context. Without a ``staging`` it has one of its own."""

    def __init__(self, staging: StagingArea | None = None) -> None:
        super().__init__()
        self._own = None if staging is not None else StagingArea()
        self._staging = staging or self._own or StagingArea()
        self._beside: dict[tuple[Source, bytes], Private] = {}
        self._given_up: list[Private] = []
        self._left: list[int] = []

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        left, self._left = self._left, []
        for fd in (*left, *self._taken()):
            os.close(fd)
        for private in (*self._beside.values(), *self._given_up):
            private.release()
        self._beside, self._given_up = {}, []
        if self._own is not None:
            self._own.close()

    def private(self, source: Source, parent: bytes) -> int:
        """A descriptor, this object's own, of the private directory for files of ``parent`` below ``source``; it is
        made if it is not there. Raises OSError."""
        return self.keep((source, parent), lambda: self._staging.directory(source, parent))

    def beside(self, source: Source, parent: bytes, directory_fd: int) -> int:
        """As `private`, in the files' own directory, open as ``directory_fd``: for what is mounted below the inbox."""
        if (source, parent) not in self._beside:
            self._beside[source, parent] = make(directory_fd)
        return self._beside[source, parent].fd

    def forget(self) -> None:
        self._left += self._taken()

    def give_up(self, source: Source, parent: bytes) -> None:
        self.forget()
        self._staging.give_up(source)
        if (private := self._beside.pop((source, parent), None)) is not None:
            self._given_up.append(private)


@contextmanager
def stage_file(
    staging: StagingFolders, source: Source, parent: bytes, name: bytes, directory_fd: int
) -> Iterator[StagedFile]:
    """Rename ``name`` in the open directory ``directory_fd``, which is ``parent`` below ``source``, out of everybody's
    way. Whatever stands under the name at that moment is what is moved.

    Raises SourceChanged when nothing does, FileExistsError when its staging place is taken, OSError.
    """
    yield _moved(staging, source, parent, name, directory_fd)


def _moved(staging: StagingFolders, source: Source, parent: bytes, name: bytes, directory_fd: int) -> StagedFile:
    for _ in range(_TRIES):
        try:
            try:
                return _moved_into(staging.private(source, parent), name, directory_fd)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # Another file system is mounted at or above the file's directory.
                return _moved_into(staging.beside(source, parent, directory_fd), name, directory_fd)
        except (FileNotFoundError, NotADirectoryError):
            # Either the file is gone, or somebody has taken the private directory for one that a crash has left.
            staging.give_up(source, parent)
            if not _exists(directory_fd, name):
                raise SourceChanged("the file is no longer at its path") from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # A full disk takes no directory, and only deleting makes room. A new name in the old one it takes.
            private = private_name(name)
            rename_to_private(directory_fd, name, directory_fd, private)
            return StagedFile(directory_fd, private)
    raise Transient("the private directory keeps disappearing", code="local-enoent")


def _moved_into(private_fd: int, name: bytes, directory_fd: int) -> StagedFile:
    rename_to_private(directory_fd, name, private_fd, name)
    return StagedFile(private_fd, name)


def private_name(name: bytes) -> bytes:
    """A name for a file that is staged without a directory of its own, which nobody else can have thought of."""
    prefix = STAGED_PREFIX + b"~" + secrets.token_hex(8).encode("ascii") + b"~"
    return prefix + name[-(NAME_BYTES - len(prefix)) :]


def original_name(private: bytes) -> bytes:
    """What a file staged so was called; of the first release, too, which had no random digits."""
    return re.sub(rb"\A~[0-9a-f]{16}~", b"", private.removeprefix(STAGED_PREFIX))


def _exists(directory_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# -- back -----------------------------------------------------------------------------------------------------------


def restore(staged: StagedFile, directory_fd: int, name: bytes) -> None:
    """`move_back`, tried again where it fails. Nothing is done where nothing is staged. Raises LeftStaged."""
    for attempt in range(_TRIES):
        try:
            move_back(staged, directory_fd, name)
        except FileNotFoundError:
            if not _exists(staged.fd, staged.name):
                return
        except OSError:
            pass
        else:
            return
        time.sleep(0.01 * 2**attempt)
    raise LeftStaged("a staged file cannot be put back")


def move_back(staged: StagedFile, directory_fd: int, name: bytes) -> bytes:
    """Move what is staged to ``name``, or beside it where that name is taken; returns the name it has now.
    Overwrites nothing. Raises OSError."""
    number = 0
    while True:
        candidate = beside(name, number) if number else name
        try:
            rename_noreplace(staged.fd, staged.name, directory_fd, candidate)
        except FileExistsError:
            number += 1
        except NoStrictRename:
            # Neither a strict rename nor hard links are known here: a name that nobody else can have thought of.
            candidate = beside(name, secrets.randbits(48))
            os.rename(staged.name, candidate, src_dir_fd=staged.fd, dst_dir_fd=directory_fd)
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


def save_late_writes(
    fd: int, sha256: str, source: Source, directory_fd: int, name: bytes, heartbeat: Callable[[], None] = lambda: None
) -> bool:
    """A program was found at the file ``fd`` right after it had lost its last name: wait for that program, then put
    what it has written under the old name, as a new file. False when it has written nothing: the content is still
    that of ``sha256``. Raises OSError, LeftStaged. ``heartbeat`` shows that the work goes on.
    """
    end = time.monotonic() + _SAVE_SECONDS
    with ExitStack() as stack:
        copy: tuple[int, StagedFile] | None = None
        seen = None
        while True:
            heartbeat()
            late = time.monotonic() > end
            with _lease_or_none(fd) as leased:
                before = identity(fd)
                # Without a lease, quiet for a moment is all that can be known.
                if leased or late or (leased is not None and before == seen):
                    if sha256_of(fd, before.size_bytes, heartbeat) == sha256:
                        return False
                    try:
                        copy = copy or stack.enter_context(_new_copy(source, directory_fd, name))
                        _copy(fd, before, copy[0], heartbeat)
                    except OSError as error:
                        # A full disk: what is deleted beside this file, by this program or another, makes room.
                        if late or error.errno not in _FULL:
                            raise
                    else:
                        if late or identity(fd) == before:
                            restore(copy[1], copy[1].fd, name)
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
def _new_copy(source: Source, directory_fd: int, name: bytes) -> Iterator[tuple[int, StagedFile]]:
    """A new file with a private name beside the old one's place, or at the top of the inbox if that place is gone."""
    private = private_name(name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as stack:
        copy_fd = os.dup(directory_fd)
        stack.callback(os.close, copy_fd)
        try:
            fd = os.open(private, flags, 0o600, dir_fd=copy_fd)
        except FileNotFoundError:
            copy_fd = source.open()
            stack.callback(os.close, copy_fd)
            fd = os.open(private, flags, 0o600, dir_fd=copy_fd)
        stack.callback(os.close, fd)
        yield fd, StagedFile(copy_fd, private)


def _copy(fd: int, source: FileIdentity, to_fd: int, heartbeat: Callable[[], None]) -> None:
    os.ftruncate(to_fd, 0)
    for start in range(0, source.size_bytes, CHUNK_BYTES):
        heartbeat()
        data, offset = read_exactly(fd, start, min(CHUNK_BYTES, source.size_bytes - start)), start
        while data:
            written = os.pwrite(to_fd, data, offset)
            data, offset = data[written:], offset + written
    os.fchmod(to_fd, os.fstat(fd).st_mode & 0o777)
    os.utime(to_fd, ns=(source.mtime_ns, source.mtime_ns))
    os.fsync(to_fd)
