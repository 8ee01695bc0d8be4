"""After a crash: bring back every file that was staged and not deleted. Runs before anything else at start, and
when an inbox comes back."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from types import MappingProxyType

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.intake.scan import MAX_DEPTH
from dicomwatchd.localfiles import directory, is_our_own, make_directories
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.staging import private
from dicomwatchd.pipeline.deletion.staging.staged import STAGED_PREFIX, StagedFile, move_back, original_name
from dicomwatchd.pipeline.deletion.staging.tidying import tidy
from dicomwatchd.ports import Log
from dicomwatchd.queue.deletions import Deletions, PendingDeletion
from dicomwatchd.queue.rows import Source, identity_of

#: How long one search may take: nothing else begins before those of the start are over.
SEARCH_SECONDS = 10.0
#: Of what fails in one search, so many are told.
MOST_TOLD = 20
#: A folder is not there any more, which may be for good; of what else fails with one it is to be hoped that it passes.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class Recovered:
    """``left`` could not be brought back, or not be looked into; ``owned`` private directories somebody is still at.
    ``root`` is (device, inode) of the folder that was looked through; None if it could not be opened. ``is_searched``:
    the search has come to its end in time."""

    restored: int
    left: int
    owned: int = 0
    root: tuple[int, int] | None = None
    is_searched: bool = True

    @property
    def is_through(self) -> bool:
        """Nothing is staged there any more."""
        return self.root is not None and self.is_searched and not self.left and not self.owned


@dataclass(frozen=True, slots=True)
class StillOpen:
    """Deletions of which nobody can tell yet how they ended: ``silent`` are those of inboxes that do not answer,
    ``unread`` those whose folder cannot be looked at now, ``away`` those whose inbox is not there."""

    silent: list[PendingDeletion] = field(default_factory=list)
    unread: list[PendingDeletion] = field(default_factory=list)
    away: list[PendingDeletion] = field(default_factory=list)

    @property
    def all(self) -> list[PendingDeletion]:
        return [*self.silent, *self.unread, *self.away]


def bring_back(
    source: Source,
    log: Log,
    heartbeat: Callable[[], None] = lambda: None,
    is_at_it: Callable[[FileIdentity], bool] = lambda _: False,
    only: Iterable[bytes] | None = None,
) -> Recovered:
    """Put everything that is staged in this source, or in these directories of it, back to where it came from.

    Goes by what lies on the disk alone, so it works with a lost state database too. Nothing is overwritten.
    ``heartbeat`` is called before each folder. ``is_at_it``: this daemon itself is at such a file now, and no lock need
    tell so. It takes SEARCH_SECONDS at most: an inbox may hold more folders than anybody can wait for, and whoever may
    write to it can make as many. The private directories at its top come first, and what else there is the intake's
    whole looks find."""
    try:
        root_fd = source.open()
    except OSError as error:
        log.warning("recover-unavailable", "the inbox cannot be opened", inbox=source.name, errno=error.errno)
        return Recovered(0, 0)
    search = _Search(log, source.name, heartbeat, is_at_it)
    try:
        found = os.fstat(root_fd)
        search.through(root_fd, only)
    finally:
        os.close(root_fd)
    if not search.is_searched:
        log.warning(
            "recover-unfinished",
            "the inbox is too large to be searched for staged files at once; the search continues in the background",
            inbox=source.name,
        )
    if search.restored:
        log.warning(
            "recover-restored",
            "files staged before a crash were put back in their inbox",
            inbox=source.name,
            files=search.restored,
        )
    root = (found.st_dev, found.st_ino)
    return Recovered(search.restored, search.left, search.owned, root, search.is_searched)


def conclude(
    deletions: Deletions,
    unavailable: set[int],
    inboxes: Inboxes | None = None,
    sources: Mapping[int, Source] = MappingProxyType({}),
) -> list[PendingDeletion]:
    """After `bring_back`: write down how each authorised deletion ended that a crash has left open. Those of sources
    that cannot be opened, or do not answer, are returned: they wait for their inbox."""
    pending = deletions.pending()
    left = conclude_these(deletions, [one for one in pending if one.source_id not in unavailable], inboxes, sources)
    return [*left.all, *(one for one in pending if one.source_id in unavailable)]


def recover_inbox(
    source: Source,
    deletions: Deletions,
    log: Log,
    inboxes: Inboxes | None = None,
    only: Iterable[bytes] | None = None,
) -> Recovered:
    """An inbox has come back, or something is staged in it: bring that back, and write down how the deletions ended
    that nobody is at any more."""
    inboxes = inboxes or AlwaysAnswering()
    recovered = bring_back(source, log, inboxes.beat, partial(deletions.is_at, source.source_id), only)
    if recovered.root is not None:
        pending = deletions.pending(unclaimed_of=source.source_id)
        conclude_these(deletions, pending, sources={source.source_id: source})
        know_root(deletions, source, recovered)
    return recovered


def know_root(deletions: Deletions, source: Source, recovered: Recovered) -> None:
    """From here on the files of this inbox are those of this folder; what is still open is of the one before."""
    if recovered.root is not None and source.kind != "upload":
        deletions.know_root(source.source_id, recovered.root[1])


def conclude_these(
    deletions: Deletions,
    pending: Iterable[PendingDeletion],
    inboxes: Inboxes | None = None,
    sources: Mapping[int, Source] = MappingProxyType({}),
) -> StillOpen:
    """Write down how these ended; ``sources`` are those that are known, by their ids. Returns those of which nobody can
    tell."""
    inboxes = inboxes or AlwaysAnswering()
    left = StillOpen()
    by_folder: dict[tuple[Source, bytes], list[PendingDeletion]] = {}
    for one in pending:
        by_folder.setdefault((sources.get(one.source_id, one.source), one.dir), []).append(one)
    for (source, parent), these in by_folder.items():
        try:
            place = inboxes.call(source.source_id, partial(_scan, source, parent, inboxes.beat))
        except InboxNotResponding:
            left.silent.extend(these)
            continue
        except _Away:
            left.away.extend(these)
            continue
        if place is None:
            left.unread.extend(these)
            continue
        known_root = deletions.known_root(source.source_id)
        for one in these:
            deletions.concluded(one, *_ending(one, place, known_root))
    for source in dict.fromkeys(source for source, _ in by_folder):
        with suppress(InboxNotResponding):
            directories = {d for other, d in by_folder if other == source}
            inboxes.call(source.source_id, partial(tidy, source, directories, inboxes.beat))
    return left


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found where a file was, and where it may be staged, by inode; ``device`` is that of the directory, or
    of the nearest one above it that is still there; ``root`` is the inode of the source's own folder."""

    root: int
    device: int
    here: dict[int, FileIdentity]
    staged: dict[int, FileIdentity]


class _Away(Exception):
    """The folder is not there any more."""


def _scan(source: Source, parent: bytes, heartbeat: Callable[[], None]) -> _Found | None:
    """None where it cannot be looked at now. Raises _Away."""
    try:
        root_fd = source.open()
    except OSError as error:
        _unless_away(error)
        return None
    try:
        staged: dict[int, FileIdentity] = {}
        for private in _private_in(root_fd, b""):
            staged |= _files(root_fd, private + b"/" + parent if parent else private, heartbeat)
        for private in _private_in(root_fd, parent) if parent else ():
            staged |= _files(root_fd, parent + b"/" + private, heartbeat)
        here = _files(root_fd, parent, heartbeat)
        return _Found(os.fstat(root_fd).st_ino, _device(root_fd, parent), here, staged)
    except OSError as error:
        _unless_away(error)
        return None
    finally:
        os.close(root_fd)


def _unless_away(error: OSError) -> None:
    if error.errno in _NOT_THERE:
        raise _Away from error


def _private_in(root_fd: int, parent: bytes) -> list[bytes]:
    """The names of our own private directories in a directory; none if that is not there. Raises OSError."""
    try:
        with directory(root_fd, parent) as fd:
            found = [name for name, is_directory in private.entries(fd) if is_directory and private.is_private(name)]
            return [name for name in found if _is_ours(fd, name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_ours(fd: int, name: bytes) -> bool:
    try:
        return is_our_own(fd, os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _ending(one: PendingDeletion, place: _Found, known_root: int | None) -> tuple[str, str]:
    """(kind of the audit entry, why). A file is known again by its inode: under its name another one may stand by now,
    and itself it may stand beside it. That it is nowhere tells of its deletion only in the folder where it was: that
    may have been moved away with it."""
    was = identity_of(one.identity)
    found = place.here.get(was.inode) or place.staged.get(was.inode)
    if found is not None and found.same_but_ctime(was):
        where = "" if was.inode in place.here else "; it is still staged"
        return "restored", "the daemon crashed before the deletion" + where
    if found is not None and found.dev == was.dev:
        # Written to since, or another file that was given the inode of the one that was deleted.
        return "gone", "after a crash it cannot be distinguished from another file"
    if known_root not in (None, place.root):
        return "gone", "after a crash it is missing, and the inbox is another folder"
    # An inbox that is not mounted holds no files either.
    if place.device == was.dev:
        return "deleted", "the daemon crashed after the deletion"
    return "gone", "after a crash it is missing, and so is its file system"


def _files(root_fd: int, parent: bytes, heartbeat: Callable[[], None]) -> dict[int, FileIdentity]:
    """The regular files directly in a directory, by inode; none if there is no such directory. Raises OSError."""
    found: dict[int, FileIdentity] = {}
    try:
        with directory(root_fd, parent) as fd, os.scandir(fd) as entries:
            for entry in entries:
                heartbeat()
                if entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        identity = FileIdentity.of(entry.stat(follow_symlinks=False))
                        found[identity.inode] = identity
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


class _OutOfTime(Exception):
    """The search has taken as long as it may."""


class _Search:
    """Looks through an inbox for what is staged. What fails is counted and told; the rest goes on. Whoever may write
    to the inbox may have built anything here, so nothing is recursive, nothing deeper than a scan goes is touched,
    another user's private directory is none, and it ends in time.
    """

    def __init__(
        self, log: Log, inbox: str, heartbeat: Callable[[], None], is_at_it: Callable[[FileIdentity], bool]
    ) -> None:
        self._log, self._inbox, self._shows_life, self._is_at_it = log, inbox, heartbeat, is_at_it
        self._until = time.monotonic() + SEARCH_SECONDS
        self.restored = self.left = self.owned = 0
        self.is_searched = True

    def _heartbeat(self) -> None:
        self._shows_life()
        if time.monotonic() > self._until:
            raise _OutOfTime

    def through(self, root_fd: int, only: Iterable[bytes] | None) -> None:
        """The whole of it, or these directories."""
        todo = [b""] if only is None else list(only)
        try:
            while todo:
                deeper = self._in(root_fd, parent := todo.pop())
                if only is None and parent.count(b"/") < MAX_DEPTH:
                    todo += [parent + b"/" + name if parent else name for name in deeper]
        except _OutOfTime:
            self.is_searched = False

    def _in(self, root_fd: int, parent: bytes) -> list[bytes]:
        """Bring back what is staged in one directory; returns the names of the others in it."""
        self._heartbeat()
        deeper: list[bytes] = []
        with self._reporting_failures(), directory(root_fd, parent) as fd:
            for name, is_directory in private.entries(fd, self._failed):
                if is_directory and private.is_private(name):
                    with self._reporting_failures():
                        self._empty_out(fd, name)
                elif is_directory:
                    deeper.append(name)
                elif name.startswith(STAGED_PREFIX):
                    self._heartbeat()
                    self._move_back(StagedFile(fd, name), fd, original_name(name))
        return deeper

    def _empty_out(self, home_fd: int, name: bytes) -> None:
        """Move the files of a private directory in ``home_fd``, and of those below it, back, unless somebody is at
        them; remove what is empty then."""
        if not _is_ours(home_fd, name):
            return
        with directory(home_fd, name) as private_fd, private.left_behind(private_fd) as is_left:
            if not private.is_taken_back(private_fd):
                return  # exchanged this moment
            if not is_left:
                self.owned += 1
                return
            owned = self.owned
            for relative in chain([b""], (relative for relative, _ in private.below(private_fd, self._failed))):
                self._heartbeat()
                with self._reporting_failures(), directory(private_fd, relative) as staged_fd:
                    for file, is_directory in private.entries(staged_fd, self._failed):
                        if is_directory or (file == private.LOCK and not relative):
                            continue
                        self._heartbeat()
                        with self._reporting_failures():
                            target_fd = make_directories(home_fd, relative.split(b"/") if relative else (), 0o770)
                            try:
                                self._move_back(StagedFile(staged_fd, file), target_fd, file)
                            finally:
                                os.close(target_fd)
            if self.owned == owned:
                private.remove_empty(home_fd, name, private_fd)

    def _move_back(self, staged: StagedFile, directory_fd: int, name: bytes) -> None:
        with self._reporting_failures():
            if self._is_at_it(FileIdentity.of(os.stat(staged.name, dir_fd=staged.fd, follow_symlinks=False))):
                self.owned += 1
                return
            move_back(staged, directory_fd, name)
            self.restored += 1

    @contextmanager
    def _reporting_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return  # gone meanwhile, or something else by now
        self.left += 1
        if self.left <= MOST_TOLD:
            self._log.error(
                "recover-failed",
                "a directory cannot be searched, or a staged file cannot be put back",
                inbox=self._inbox,
                errno=error.errno,
            )


def _device(root_fd: int, parent: bytes) -> int:
    """The device of a directory, or of the nearest one above it that is still there."""
    while True:
        try:
            with directory(root_fd, parent) as fd:
                return os.fstat(fd).st_dev
        except OSError:
            if not parent:
                raise
            parent = parent.rpartition(b"/")[0]
