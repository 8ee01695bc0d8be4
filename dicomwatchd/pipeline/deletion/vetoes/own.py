"""Local files that are the archive itself, seen under another path: such a file is no copy, and never goes.

Looked for before anything is decided about a page of files, and, since a mount, a link or a moved folder may come at
any time, once more when one of them is to go.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dicomwatchd import markers
from dicomwatchd.answering import Inboxes
from dicomwatchd.archive.stores.port import Standing
from dicomwatchd.errors import SourceChanged, Transient, Unarchivable
from dicomwatchd.pipeline.deletion.port import Policy, Stands
from dicomwatchd.pipeline.local import Folders, by_folder
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import LocalFile, Source

REASON = "it is the archive's own object under another path (a mount, a link, a moved folder); it is kept"


def among(files: list[LocalFile], run: Map, policy: Policy, inboxes: Inboxes) -> list[LocalFile]:
    """Those that are no copies of what the archive holds but the archive itself: by the mark of the tree that they lie
    in, or because the object is this very file."""

    def look(group: list[LocalFile]) -> list[LocalFile]:
        first = policy.source(group[0])
        with inboxes.at(first.source_id):
            if in_own_tree(first, group[0].dir):
                return group
            return [f for f in group if _is_object(first, f, policy.standing(f), inboxes.beat)]

    return [file for found in run(look, by_folder(files)) for file in found]


def _is_object(source: Source, file: LocalFile, standing: Stands | None, heartbeat: Callable[[], None]) -> bool:
    if standing is None:
        return False
    heartbeat()  # to open a page of files takes a slow share longer than an inbox may be silent
    try:
        with Folders() as folders, folders.opened(source, file) as (_, fd):
            return standing(os.fstat(fd)) is Standing.ITSELF
    except (SourceChanged, Unarchivable, Transient):
        return False  # whatever it is, it is met again before it is touched


def in_own_tree(source: Source, relative: bytes) -> bool:
    """Whether a directory below a source lies in an archive, or in a state, by the marks on the way to it."""
    try:
        root_fd = source.open()
    except OSError:
        return False
    try:
        with markers.unmarked_directory(root_fd, relative):
            return markers.is_below(root_fd)
    except markers.Marked:
        return True
    except OSError:
        return False
    finally:
        os.close(root_fd)
