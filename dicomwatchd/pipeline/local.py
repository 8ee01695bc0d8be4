"""Reading a shipment's local files: the bytes that are hashed are the bytes that are sent."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive.stores.port import Buffer, Content
from dicomwatchd.errors import SourceChanged, Transient, Unarchivable
from dicomwatchd.filebytes import fill, read_exactly, sha256_in_pieces, sha256_of
from dicomwatchd.localfiles import KeptOpen, NotRegular, identity, open_directory, regular_file
from dicomwatchd.model import Digest, FileIdentity, Pieces
from dicomwatchd.ports import Cancellation, never_cancelled, stop_check
from dicomwatchd.queue.rows import LocalFile, Source


class KnownFile(Protocol):
    """A file of a source, as it is on record."""

    @property
    def source_id(self) -> int:
        """Which source it is in."""
        ...

    @property
    def dir(self) -> bytes:
        """Below the source."""
        ...

    @property
    def name(self) -> bytes:
        """In its folder."""
        ...

    @property
    def identity(self) -> FileIdentity:
        """What it was when it was read."""
        ...


def require(fd: int, expected: FileIdentity) -> None:
    if identity(fd) != expected:
        raise SourceChanged("the file has changed since it was read")


def _in_one_piece(_: int) -> None:
    return None


@contextmanager
def content_of(
    folders: Folders,
    source: Source,
    file: KnownFile,
    in_memory_up_to: int,
    cancelled: Cancellation = never_cancelled,
    piece_bytes: Callable[[int], int | None] = _in_one_piece,
) -> Iterator[Content]:
    """The file's content with its digest; on leaving, the file is still what it was, or SourceChanged is raised.

    A small file is read once, and that buffer is hashed and sent. A large one is hashed here and read again while
    it is sent; the store compares the digest of what it sends with this one, or, where ``piece_bytes`` says so of its
    size (`ObjectStore.piece_bytes`), those of its pieces, which come out of the same reading. Raises Stopping as well.
    """
    inboxes = folders.inboxes
    heartbeat = stop_check(cancelled, inboxes.beat)
    with folders.opened(source, file) as (_, fd):
        size = file.identity.size_bytes
        if size <= in_memory_up_to:
            with inboxes.at(source.source_id), _translated():
                data = read_exactly(fd, 0, size, heartbeat)
                require(fd, file.identity)
            yield Buffer.of(data)
        else:
            with inboxes.at(source.source_id), _translated():
                digest = _digest_of(fd, size, piece_bytes(size), heartbeat)
                require(fd, file.identity)
            yield _OpenFile(fd, digest, source.source_id, inboxes, heartbeat)
        with inboxes.at(source.source_id):
            require(fd, file.identity)


def _digest_of(fd: int, size_bytes: int, piece_bytes: int | None, heartbeat: Callable[[], None]) -> Digest:
    if piece_bytes is None:
        return Digest(sha256_of(fd, size_bytes, heartbeat), size_bytes)
    sha256, sha256s = sha256_in_pieces(fd, size_bytes, piece_bytes, heartbeat)
    return Digest(sha256, size_bytes, Pieces(piece_bytes, sha256s))


def by_folder(files: Iterable[LocalFile]) -> list[list[LocalFile]]:
    """Neighbours together, as far as they follow one another: for whoever opens their folder once."""
    return [list(group) for _, group in groupby(files, key=lambda file: (file.source_id, file.dir))]


class Folders(KeptOpen):
    """Opens files of the queue one after the other. The directory of the last one stays open: most often the next is in
    it too, and a file's identity says whether it is still the one that was meant. To be left as a context.

    Raises SourceChanged when a file is gone or another one, Unarchivable when it may not be read, InboxNotResponding
    when its inbox does not answer, Transient otherwise."""

    def __init__(self, inboxes: Inboxes | None = None) -> None:
        super().__init__()
        self.inboxes: Inboxes = inboxes or AlwaysAnswering()

    @contextmanager
    def opened(self, source: Source, file: KnownFile) -> Iterator[tuple[int, int]]:
        """(directory descriptor, file descriptor) of a file that is what it was."""
        stack = ExitStack()
        try:
            with self.inboxes.at(source.source_id), _translated():
                directory_fd = self._directory(source, file)
                fd = stack.enter_context(regular_file(directory_fd, file.name))
                require(fd, file.identity)
            yield directory_fd, fd
        finally:
            with self.inboxes.at(source.source_id, leaving=True):  # to close a file is a question, too
                stack.close()

    def read(
        self, source: Source, file: LocalFile, buffer: memoryview, cancelled: Cancellation = never_cancelled
    ) -> None:
        """Fill ``buffer``, which is as long as the file, from the descriptor that was checked before and after."""
        with (
            self.inboxes.at(source.source_id),
            _translated(),
            regular_file(self._directory(source, file), file.name) as fd,
        ):
            require(fd, file.identity)
            heartbeat = stop_check(cancelled, self.inboxes.beat)
            fill(fd, 0, buffer, heartbeat)
            heartbeat()
            require(fd, file.identity)

    def require_unchanged(self, source: Source, file: LocalFile) -> None:
        """The name stands for the same file as before, and that is what it was."""
        with self.inboxes.at(source.source_id), _translated():
            found = os.stat(file.name, dir_fd=self._directory(source, file), follow_symlinks=False)
        if FileIdentity.of(found) != file.identity:
            raise SourceChanged("the file has changed since it was read")

    def _directory(self, source: Source, file: KnownFile) -> int:
        """Raises OSError."""

        def opening() -> int:
            root_fd = source.open()
            try:
                return open_directory(root_fd, file.dir, source.guard)
            finally:
                os.close(root_fd)

        return self.keep((source, file.dir), opening)


@dataclass(frozen=True, slots=True)
class _OpenFile:
    fd: int
    digest: Digest
    source_id: int
    inboxes: Inboxes
    heartbeat: Callable[[], None]

    def read(self, offset: int, length: int) -> bytes:
        with self.inboxes.at(self.source_id), _translated():
            return read_exactly(self.fd, offset, length, self.heartbeat)

    def fill(self, offset: int, buffer: memoryview) -> None:
        with self.inboxes.at(self.source_id), _translated():
            fill(self.fd, offset, buffer, self.heartbeat)
            self.heartbeat()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NotRegular as error:
        raise SourceChanged("the name now refers to something else") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
            raise SourceChanged("the file is no longer at its path") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Unarchivable(
                "the daemon may not read it; check the file's owner and permissions", code="no-access"
            ) from error
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        raise Transient(f"a local file cannot be read at the moment ({name})", code=f"local-{name}") from error
