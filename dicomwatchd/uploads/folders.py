"""The folders that were handed in, as open descriptors: what is done in one is done from its descriptor, never by a
path.

A descriptor is a folder for as long as it is open, whatever is renamed, linked or mounted meanwhile, and it leads into
homes that the daemon's sandbox hides. It does not outlive the process, so a copy of each is left with the service
manager (sd_notify(3), FDSTORE) where there is one. Where there is none, the folder is looked for under the path that it
had, and is taken for the same only by its inode, its birth and its file system; anything else there is left alone.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from dicomwatchd.intake.folder.mounts import root_of
from dicomwatchd.localfiles import open_root, opened_again
from dicomwatchd.queue.rows import Root
from dicomwatchd.queue.uploads import Upload


class Keeper(Protocol):
    """Keeps copies of descriptors beyond the end of the process."""

    def keep(self, name: str, fd: int) -> None: ...

    def forget(self, name: str) -> None: ...


class NoKeeper:
    def keep(self, name: str, fd: int) -> None: ...

    def forget(self, name: str) -> None: ...


class UploadFolders:
    """By the names of their uploads. Lives as long as the process, over reloads. Safe to be called from any thread."""

    def __init__(self, keeper: Keeper | None = None, kept: Mapping[str, int] | None = None) -> None:
        """``kept`` are the descriptors that an earlier process has left with the keeper; they are this object's own."""
        self._keeper: Keeper = keeper or NoKeeper()
        self._lock = threading.Lock()
        #: The uploads that are not over. What is found again for another, by a thread that had begun to look, would be
        #: held for as long as the process lives, and no medium with it on could be taken out.
        self._current: set[str] = set()
        self._held: dict[str, int] = {}
        #: Left by an earlier process, and not compared yet with what is on record.
        self._kept: dict[str, int] = dict(kept or {})

    def attached(self, upload: Upload) -> Upload:
        """The upload with a source that can be opened until it is let go."""
        with self._lock:
            self._current.add(upload.source.name)
        opening = partial(self._open, upload.source.name, upload.source.path, upload.root)
        return replace(upload, source=replace(upload.source, opening=opening, asker=upload.asker))

    def hold(self, name: str, fd: int) -> None:
        """Keep a copy of this descriptor for as long as the upload lasts."""
        with self._lock:
            self._current.add(name)
            self._hold(name, fd)

    def let_go(self, name: str) -> None:
        """The upload is over: from now on nothing opens its folder, not even what began to before."""
        with self._lock:
            self._current.discard(name)
            self._release(name)

    def let_go_but(self, names: Collection[str]) -> None:
        """What an earlier process has left of uploads that are no more."""
        with self._lock:
            others = [name for name in (*self._kept, *self._held) if name not in names]
        for name in others:
            self.let_go(name)

    def _hold(self, name: str, fd: int) -> None:
        """Called under the lock, as `_release` is: the keeper is to hear of both in their order."""
        if name in self._held:
            os.close(self._held[name])
        self._held[name] = os.dup(fd)
        self._keeper.keep(name, fd)

    def _release(self, name: str) -> None:
        for fds in (self._held, self._kept):
            if name in fds:
                os.close(fds.pop(name))
        self._keeper.forget(name)

    def _open(self, name: str, path: bytes, root: Root | None) -> int:
        """Raises OSError, ESTALE where only another folder is to be had, or the upload is over."""
        if root is None:
            raise OSError(errno.ESTALE, "it is unknown which folder it was")
        if (fd := self._from_the_held(name)) is not None:
            return fd
        return self._found_again(name, path, root)

    def _from_the_held(self, name: str) -> int | None:
        with self._lock:
            held = self._held.get(name)
            copy = None if held is None else os.dup(held)  # which asks no file system
        if copy is None:
            return None
        try:
            return _opened_again(copy)
        except OSError:
            return None  # perhaps it is mounted again
        finally:
            os.close(copy)

    def _found_again(self, name: str, path: bytes, root: Root) -> int:
        if (fd := self._from_the_kept(name, root)) is not None:
            return fd
        fd = _if_same(open_root(path), root)
        if fd is None:
            raise OSError(errno.ESTALE, "another folder")
        with self._lock:
            if name in self._current:
                self._release(name)
                self._hold(name, fd)
                return fd
        os.close(fd)
        raise OSError(errno.ESTALE, "the upload is over")

    def _from_the_kept(self, name: str, root: Root) -> int | None:
        """What cannot be looked at now is kept on: into a home no other way may lead."""
        with self._lock:
            kept = self._kept.get(name)
            copy = None if kept is None else os.dup(kept)
        if copy is None:
            return None
        try:
            fd = _if_same(_opened_again(copy), root)
        except OSError:
            fd = None
        finally:
            os.close(copy)
        if fd is not None:
            with self._lock:  # the keeper has its copy: given another one at each start it would soon be full
                if name in self._kept:
                    if name in self._held:
                        os.close(self._held[name])
                    self._held[name] = self._kept.pop(name)
        return fd


def _opened_again(fd: int) -> int:
    """A descriptor of the same folder with a place of its own in the listing. Raises OSError, ENOENT where the folder
    was removed."""
    again = opened_again(fd)
    if os.fstat(again).st_nlink == 0:
        os.close(again)
        raise FileNotFoundError(errno.ENOENT, "the folder was removed")
    return again


def _if_same(fd: int, root: Root) -> int | None:
    """The descriptor, if it is of this folder; otherwise it is closed."""
    same = False
    with suppress(OSError):
        same = root_of(fd).is_same(root)
    if not same:
        os.close(fd)
        return None
    return fd
