"""After a crash: bring back every file that was set aside and not deleted. Runs before anything else at start, and
when an inbox comes back."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.errors import InboxSilent
from dicomwatchd.localfiles import ASIDE, directory, make_directories, open_root
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.aside import ASIDE_NAME, Aside, put_back
from dicomwatchd.pipeline.purge import tidy
from dicomwatchd.ports import Log
from dicomwatchd.queue.deletions import Deletions, PendingDeletion
from dicomwatchd.queue.rows import Source, identity_of


@dataclass(frozen=True, slots=True)
class Recovered:
    """``root`` is (device, inode) of the folder that was looked through; None if it could not be opened."""

    restored: int
    left: int
    root: tuple[int, int] | None = None


def bring_back(source: Source, log: Log, alive: Callable[[], None] = lambda: None) -> Recovered:
    """Put everything that lies aside in this source back to where it came from.

    Goes by what lies on the disk alone, so it works with a lost state database too. Nothing is overwritten. ``alive``
    is called before each folder.
    """
    try:
        root_fd = open_root(source.path)
    except OSError as error:
        log.warning("recover-away", "the inbox cannot be opened", inbox=source.name, errno=error.errno)
        return Recovered(0, 0)
    search = _Search(log, source.name, alive)
    try:
        found = os.fstat(root_fd)
        search.below(root_fd)
    finally:
        os.close(root_fd)
    if search.restored:
        log.warning(
            "recover-restored",
            "files set aside before a crash are back in their inbox",
            inbox=source.name,
            files=search.restored,
        )
    return Recovered(search.restored, search.left, (found.st_dev, found.st_ino))


def conclude(deletions: Deletions, unavailable: set[int], inboxes: Inboxes | None = None) -> list[PendingDeletion]:
    """After `bring_back`: write down how each authorised deletion ended that a crash has left open. Those of sources
    that cannot be opened, or do not answer, are returned: they wait for their inbox."""
    pending = deletions.asides()
    left = conclude_these(deletions, [one for one in pending if one.source_id not in unavailable], inboxes)
    return [*left, *(one for one in pending if one.source_id in unavailable)]


def conclude_these(
    deletions: Deletions, pending: Iterable[PendingDeletion], inboxes: Inboxes | None = None
) -> list[PendingDeletion]:
    """Write down how these ended. Those of inboxes that do not answer are returned: nobody can tell yet."""
    inboxes = inboxes or AlwaysAnswering()
    left: list[PendingDeletion] = []
    places: dict[tuple[int, bytes, bytes], list[PendingDeletion]] = {}
    for one in pending:
        places.setdefault((one.source_id, one.source_path, one.dir), []).append(one)
    for (source_id, root, parent), these in places.items():
        try:
            place = inboxes.call(source_id, partial(_look, root, parent))
        except InboxSilent:
            left += these
            continue
        for one in these:
            deletions.concluded(one, *_ending(one, place))
    for source_id, root in dict.fromkeys((source_id, root) for source_id, root, _ in places):
        with suppress(InboxSilent):
            inboxes.call(source_id, partial(tidy, root, {d for _, other, d in places if other == root}))
    return left


@dataclass(frozen=True, slots=True)
class _Place:
    """What was found where a file was, and where it may lie aside, by inode; ``device`` is that of the directory, or of
    the nearest one above it that is still there."""

    device: int
    here: dict[int, FileIdentity]
    aside: dict[int, FileIdentity]


def _look(root: bytes, parent: bytes) -> _Place | None:
    """None where it cannot be looked at."""
    try:
        root_fd = open_root(root)
    except OSError:
        return None
    try:
        return _Place(
            _device(root_fd, parent),
            _files(root_fd, parent),
            _files(root_fd, ASIDE + b"/" + parent if parent else ASIDE),
        )
    except OSError:
        return None
    finally:
        os.close(root_fd)


def _ending(one: PendingDeletion, place: _Place | None) -> tuple[str, str]:
    """(kind of the audit entry, why). A file is known again by its inode: under its name another one may stand by now,
    and itself it may stand beside it."""
    if place is None:
        return "gone", "after a crash its folder cannot be looked at"
    was = identity_of(one.identity)
    found = place.here.get(was.inode) or place.aside.get(was.inode)
    if found is not None and found.same_but_ctime(was):
        where = "" if was.inode in place.here else "; it still lies aside"
        return "restored", "a crash came before the unlink" + where
    if found is not None and found.dev == was.dev:
        # Written to since, or another file that was given the inode of the one that was deleted.
        return "gone", "after a crash it cannot be told from another file"
    # An inbox that is not mounted holds no files either.
    if place.device == was.dev:
        return "deleted", "a crash came after the unlink"
    return "gone", "after a crash it is not there, and neither is its file system"


def _files(root_fd: int, parent: bytes) -> dict[int, FileIdentity]:
    """The regular files directly in a directory, by inode; none if there is no such directory. Raises OSError."""
    found: dict[int, FileIdentity] = {}
    try:
        with directory(root_fd, parent) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        identity = FileIdentity.of(entry.stat(follow_symlinks=False))
                        found[identity.inode] = identity
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


class _Search:
    """Looks through an inbox for what lies aside. What fails is counted and told; the rest goes on."""

    def __init__(self, log: Log, inbox: str, alive: Callable[[], None]) -> None:
        self._log, self._inbox, self._alive = log, inbox, alive
        self.restored = self.left = 0

    def below(self, root_fd: int) -> None:
        todo = [b""]
        while todo:
            parent = todo.pop()
            self._alive()
            with self._telling(), directory(root_fd, parent) as fd:
                for name, is_directory in _entries(fd):
                    if name == ASIDE and is_directory:
                        with self._telling():
                            self._empty_out(fd, b"")
                            _remove_empty(fd, ASIDE)
                    elif name.startswith(ASIDE_NAME) and not is_directory:
                        self._put_back(Aside(fd, name), fd, name.removeprefix(ASIDE_NAME))
                    elif is_directory:
                        todo.append(parent + b"/" + name if parent else name)

    def _empty_out(self, home_fd: int, relative: bytes) -> None:
        """Move the files of the private directory in ``home_fd``, and of those below it, back."""
        with directory(home_fd, ASIDE + b"/" + relative if relative else ASIDE) as aside_fd:
            for name, is_directory in _entries(aside_fd):
                if is_directory:
                    with self._telling():
                        self._empty_out(home_fd, relative + b"/" + name if relative else name)
                    continue
                with self._telling():
                    target_fd = make_directories(home_fd, relative.split(b"/") if relative else (), 0o770)
                    try:
                        self._put_back(Aside(aside_fd, name), target_fd, name)
                    finally:
                        os.close(target_fd)

    def _put_back(self, aside: Aside, directory_fd: int, name: bytes) -> None:
        with self._telling():
            put_back(aside, directory_fd, name)
            self.restored += 1

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # gone meanwhile, or something else by now
            self.left += 1
            self._log.error(
                "recover-failed",
                "a directory cannot be looked through, or a file set aside not be put back",
                inbox=self._inbox,
                errno=error.errno,
            )


def _entries(directory_fd: int) -> list[tuple[bytes, bool]]:
    with os.scandir(directory_fd) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def _remove_empty(parent_fd: int, name: bytes) -> None:
    """Remove a directory and those below it as far as they are empty."""
    with directory(parent_fd, name) as fd:
        with os.scandir(fd) as entries:
            below = [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for deeper in below:
            _remove_empty(fd, deeper)
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise


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
