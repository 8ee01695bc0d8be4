"""Which folder each inbox is, where its files are looked at and where they are deleted: see `queue.bindings.roots`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dicomwatchd.intake.folder.mounts import root_of
from dicomwatchd.pipeline.deletion.proof import Exchanged
from dicomwatchd.ports import Log
from dicomwatchd.queue.bindings.roots import RootObservation, Roots
from dicomwatchd.queue.rows import Source


class Pinning:
    """``due`` is called when kept files fall due because an inbox is the folder again that it was."""

    def __init__(self, roots: Roots, log: Log, due: Callable[[], None]) -> None:
        self._roots = roots
        self._log = log
        self._due = due

    def see(self, source: Source, root_fd: int) -> None:
        """The folder of this source was opened. Raises OSError, Transient."""
        if source.kind != "inbox":
            return
        observation, due = self._roots.see(source.source_id, root_of(root_fd), partial(_holds_something, root_fd))
        if observation is RootObservation.EXCHANGED:
            self._log.error(
                "inbox-exchanged",
                "another folder is now at the inbox's path; its files are archived, but nothing there is deleted until"
                " you confirm the folder (dicomwatchctl inbox confirm)",
                inbox=source.name,
            )
        if due:
            self._due()

    def pinned(self, source: Source) -> Source:
        """The source, so that it opens as the confirmed folder alone."""
        if source.kind != "inbox":
            return source
        return replace(source, opening=partial(self._open, source))

    def is_exchanged(self, source: Source) -> bool:
        """Whether another folder was seen in its place when it was last looked at."""
        return self._roots.is_exchanged(source.source_id)

    def _open(self, source: Source) -> int:
        """Raises Exchanged, OSError, Transient."""
        root_fd = source.open()
        try:
            root = root_of(root_fd)
            if not self._roots.is_pinned(source.source_id, root):
                self.see(source, root_fd)  # nothing was in it, perhaps, whenever it was looked at
                if not self._roots.is_pinned(source.source_id, root):
                    raise Exchanged
        except BaseException:  # nobody else knows of the descriptor
            os.close(root_fd)
            raise
        return root_fd


def _holds_something(root_fd: int) -> bool:
    """Where that cannot be told, something may be in it."""
    try:
        with os.scandir(root_fd) as entries:
            return next(entries, None) is not None
    except OSError:
        return True
