"""After a crash: bring back every file that was set aside and not deleted. Runs before anything else at start."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from dicomwatchd.localfiles import ASIDE, directory, make_directory, open_root
from dicomwatchd.pipeline.proof import put_back
from dicomwatchd.pipeline.purge import tidy
from dicomwatchd.ports import Log
from dicomwatchd.queue.rows import Source
from dicomwatchd.queue.shipments import Shipments


@dataclass(frozen=True, slots=True)
class Recovered:
    restored: int
    left: int


def bring_back(source: Source, log: Log) -> Recovered:
    """Put everything below the private directories of this source back to where it came from.

    Goes by what lies on the disk alone, so it works with a lost state database too. Nothing is overwritten.
    """
    restored = left = 0
    try:
        root_fd = open_root(source.path)
    except OSError as error:
        log.warning("recover-away", "the inbox cannot be opened", inbox=source.name, errno=error.errno)
        return Recovered(0, 0)
    try:
        for parent in _homes(root_fd):
            with directory(root_fd, parent) as home_fd:
                done, failed = _empty_out(home_fd, ASIDE, b"", log, source.name)
                restored, left = restored + done, left + failed
                _remove_empty(home_fd, ASIDE)
    finally:
        os.close(root_fd)
    if restored:
        log.warning(
            "recover-restored",
            "files set aside before a crash are back in their inbox",
            inbox=source.name,
            files=restored,
        )
    return Recovered(restored, left)


def conclude(shipments: Shipments, unavailable: set[int]) -> None:
    """After `bring_back`: write down how each authorised deletion ended. Sources that cannot be opened wait."""
    emptied: dict[bytes, set[bytes]] = {}
    for aside in shipments.asides():
        if aside.source_id in unavailable:
            continue
        emptied.setdefault(aside.source_path, set()).add(aside.dir)
        there = _exists(aside.source_path, aside.dir, aside.name)
        shipments.concluded(
            aside,
            "restored" if there else "deleted",
            "a crash came before the unlink" if there else "a crash came after the unlink",
        )
    for root, directories in emptied.items():
        tidy(root, directories)


def _homes(root_fd: int) -> list[bytes]:
    """The directories that have a private directory in them: the inbox itself, and mounts below it."""
    found, todo = [], [b""]
    while todo:
        parent = todo.pop()
        try:
            with directory(root_fd, parent) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    if name == ASIDE:
                        found.append(parent)
                    else:
                        todo.append(parent + b"/" + name if parent else name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP):
                continue
            raise
    return found


def _empty_out(home_fd: int, top: bytes, relative: bytes, log: Log, inbox: str) -> tuple[int, int]:
    """Move the files of one private directory, and of those below it, back; (moved, left)."""
    restored = left = 0
    below = top + b"/" + relative if relative else top
    with directory(home_fd, below) as aside_fd:
        with os.scandir(aside_fd) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            deeper = relative + b"/" + name if relative else name
            if is_directory:
                done, failed = _empty_out(home_fd, top, deeper, log, inbox)
                restored, left = restored + done, left + failed
                continue
            target_fd = _open_or_make(home_fd, relative)
            try:
                put_back(aside_fd, target_fd, name)
                restored += 1
            except OSError as error:
                left += 1
                log.error("recover-failed", "a file set aside cannot be put back", inbox=inbox, errno=error.errno)
            finally:
                os.close(target_fd)
    return restored, left


def _open_or_make(home_fd: int, relative: bytes) -> int:
    fd = os.dup(home_fd)
    for part in relative.split(b"/") if relative else ():
        try:
            deeper = make_directory(fd, part, 0o770)
        finally:
            os.close(fd)
        fd = deeper
    return fd


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


def _exists(root: bytes, parent: bytes, name: bytes) -> bool:
    try:
        root_fd = open_root(root)
    except OSError:
        return True
    try:
        with directory(root_fd, parent) as fd:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    finally:
        os.close(root_fd)
    return True
