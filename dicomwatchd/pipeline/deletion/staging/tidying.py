"""The folders that a purge has left empty go, too."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from dicomwatchd.localfiles import directory
from dicomwatchd.queue.rows import Source
from dicomwatchd.rights import Asker


def tidy(source: Source, directories: Iterable[bytes], heartbeat: Callable[[], None] = lambda: None) -> None:
    """Remove the directories that a purge has left empty, upwards, never the source itself. A directory that is
    not empty, not ours to remove, or not that of whoever asked, stays. ``heartbeat`` is called before each."""
    try:
        root_fd = source.open()
    except OSError:
        return
    try:
        for start in sorted(directories, key=lambda d: (d.count(b"/"), d), reverse=True):
            heartbeat()
            _remove_upwards(root_fd, start, source.asker)
    finally:
        os.close(root_fd)


def _remove_upwards(root_fd: int, path: bytes, asker: Asker | None) -> None:
    while path:
        parent, _, name = path.rpartition(b"/")
        try:
            with directory(root_fd, parent) as fd:
                if asker is not None and not asker.may_remove(fd, os.stat(name, dir_fd=fd, follow_symlinks=False)):
                    return
                os.rmdir(name, dir_fd=fd)
        except OSError as error:
            if error.errno == errno.ENOENT:
                path = parent
                continue
            return
        path = parent
