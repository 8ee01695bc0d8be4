"""The start, in its order: the archive is the known one, what is staged comes back, what a crash has left open is
concluded, what was stopped or kept goes on. An inbox that did not answer then has its turn when it comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dicomwatchd import __version__
from dicomwatchd.answering import Inboxes
from dicomwatchd.daemon.opening import bind, is_bound
from dicomwatchd.daemon.sources import Sources
from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.pipeline.deletion.staging import recover
from dicomwatchd.pipeline.deletion.staging.recover import Recovered
from dicomwatchd.pipeline.deletion.vetoes import unleased
from dicomwatchd.pipeline.shipment import Archive
from dicomwatchd.ports import Log
from dicomwatchd.queue import Queue
from dicomwatchd.queue.rows import LEFT, Source
from dicomwatchd.uploads.folders import UploadFolders


class Startup:
    """`recover` comes before any part is built, `send_kept_again` and `release_kept` once the intakes are.
    ``heartbeat``: the start goes on, and takes its time."""

    def __init__(
        self,
        archive: Archive,
        queue: Queue,
        sources: Sources,
        inboxes: Inboxes,
        upload_folders: UploadFolders,
        heartbeat: Callable[[], None],
        log: Log,
        probed: Callable[[], None] = lambda: None,
    ) -> None:
        """``probed`` waits until the archive's store is known, and raises where it may not be used."""
        self._archive = archive
        self._queue = queue
        self._sources = sources
        self._inboxes = inboxes
        self._folders = upload_folders
        self._heartbeat = heartbeat
        self._log = log
        self._probed = probed
        #: (device, inode) of each source's folder in which nothing is staged any more; None where nobody could look.
        self.roots: dict[int, tuple[int, int] | None] = {}
        #: Those that were too large to be searched in time.
        self.unsearched: set[int] = set()
        self._unreleased: set[int] = set()  # inboxes that did not answer

    # -- before any part is built -----------------------------------------------------------------------------------

    def recover(self) -> None:
        """Raises Fatal, Transient, ArchiveRefused."""
        if not is_bound(self._queue, self._archive) and self._queue.binding.archive_id() is not None:
            # What is known of another place has to be given up before anything goes by it; and nothing is given up for
            # a place that may not be used.
            self.bind()
        self._know_sources()
        left = self._bring_back()
        unavailable = {source_id for source_id, recovered in left.items() if recovered.root is None}
        recover.conclude(self._queue.deletions, unavailable, self._inboxes, self._sources.by_id)
        for source_id, recovered in left.items():
            recover.know_root(self._queue.deletions, self._sources.by_id[source_id], recovered)
        self._dismiss({source_id for source_id, recovered in left.items() if recovered.is_through}, unavailable)
        self._queue.claims.recover()
        self._retry_after_upgrade()

    def bind(self) -> None:
        """From here on the state speaks of this archive, whose store was probed. Raises ArchiveRefused, Transient."""
        self._probed()
        bind(self._queue, self._archive, self._log)

    def _know_sources(self) -> None:
        arrivals, sources = self._queue.arrivals, self._sources
        sources.inboxes = [
            arrivals.add_source(inbox.name, os.fsencode(inbox.path), "inbox") for inbox in sources.plan.inboxes
        ]
        sources.by_id = {source.source_id: source for source in arrivals.sources()}
        for upload in self._queue.uploads.open():
            sources.by_id[upload.source.source_id] = self._folders.attached(upload).source
        for source in sources.by_id.values():
            self._inboxes.know(source.source_id, source.name)

    def _bring_back(self) -> dict[int, Recovered]:
        """What is staged, in all sources that may be touched; by their ids, how that went."""

        def heartbeat() -> None:
            self._inboxes.beat()
            self._heartbeat()

        # All at once: each one that does not answer takes its time.
        asked = {
            source_id: self._inboxes.begin(source_id, partial(recover.bring_back, source, self._log, heartbeat))
            for source_id, source in self._sources.by_id.items()
            if _may_be_touched(source)
        }
        left: dict[int, Recovered] = {}
        for source_id, answer in asked.items():
            try:
                left[source_id] = answer()
            except InboxNotResponding:
                left[source_id] = Recovered(0, 0)
            self.roots[source_id] = left[source_id].root
            if not left[source_id].is_searched:
                self.unsearched.add(source_id)
        return left

    def _dismiss(self, scanned: set[int], unavailable: set[int]) -> None:
        """Of an inbox that has another path by now, the former one is of no more interest once nothing is staged, or
        once nobody has seen it for long: most often it is not there any more because it was moved."""
        for source_id in scanned | unavailable:
            if self._sources.by_id[source_id].kind == LEFT and self._queue.arrivals.dismiss(
                source_id, unseen=source_id in unavailable
            ):
                del self._sources.by_id[source_id]

    def _retry_after_upgrade(self) -> None:
        retried = self._queue.upgrade.taken_over_by(__version__)
        if retried.studies or retried.files:
            self._log.info(
                "retried-after-upgrade",
                "studies and files that a fault in another version of the program had stopped are tried again",
                studies=retried.studies,
                files=retried.files,
                version=__version__,
            )

    # -- once the intakes are built ---------------------------------------------------------------------------------

    def send_kept_again(self, active: list[int]) -> None:
        """What is kept in these sources and was archived at another place. Raises Transient."""
        files, studies = self._queue.binding.send_kept_again(active)
        if files:
            self._log.warning(
                "kept-sent-again",
                "kept files were archived at another location; they are now sent to this one",
                files=files,
                studies=studies,
            )

    def release_kept(self, see: Callable[[Source, int], None]) -> None:
        """What was kept in the inboxes for want of a lease, and may go by now. ``see`` gets each one's open folder
        before. Raises Transient."""
        for source in self._sources.inboxes:
            try:
                self._inboxes.call(source.source_id, partial(self._release_first, source, see))
            except InboxNotResponding:
                self._unreleased.add(source.source_id)

    def _release_first(self, source: Source, see: Callable[[Source, int], None]) -> None:
        with suppress(OSError):
            root_fd = source.open()
            try:
                see(source, root_fd)
            finally:
                os.close(root_fd)
        self._release(source)

    def _release(self, source: Source) -> None:
        unleased.release_kept(self._queue.deletions, source, self._sources.after_archive(source))

    # -- later ------------------------------------------------------------------------------------------------------

    def recover_inbox(self, source: Source, only: set[bytes] | None) -> bool:
        """An inbox has come back, or something is staged in these directories: bring that back, and conclude what
        waited for it. Whether all of it was searched."""
        if not _may_be_touched(source):
            return True
        recovered = recover.recover_inbox(source, self._queue.deletions, self._log, self._inboxes, only)
        if source.source_id in self._unreleased:
            self._unreleased.discard(source.source_id)
            self._release(source)
        return recovered.is_searched

    def forget(self, source: Source) -> None:
        """An upload is over: its folder is nobody's concern any more."""
        self.roots.pop(source.source_id, None)


def _may_be_touched(source: Source) -> bool:
    """A folder that was handed in without --delete is left as it is, whatever lies in it."""
    return source.kind != "upload" or source.delete_local
