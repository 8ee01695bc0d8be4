"""Asks the archive what it has of studies that wait for what a DICOMDIR lists: it may have been archived before."""

from __future__ import annotations

from collections.abc import Callable

from dicomwatchd.archive.layout import lineage
from dicomwatchd.errors import DicomwatchdError, Permanent, Stopping
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Archive
from dicomwatchd.queue.dicomdirs import Dicomdirs


class AskingForListed:
    """One thread calls `step`. What the archive cannot say now is asked again; the study does not wait any longer for
    it than for what is missing."""

    def __init__(self, dicomdirs: Dicomdirs, archive: Archive, in_trouble: Callable[[], bool]) -> None:
        self._dicomdirs, self._archive, self._in_trouble = dicomdirs, archive, in_trouble
        self._last = ""

    def step(self) -> bool:
        """Asks for one study; whether there may be more at once. Raises Transient where the state fails, Stopping."""
        study_uid = self._dicomdirs.unasked(self._last)
        self._last = study_uid or ""
        if study_uid is None or self._in_trouble():
            return False
        try:
            try:
                record = self._archive.catalogue.get(Uid(study_uid))
            except Permanent:
                record = None
            manifest = lineage.current(self._archive.store, Uid(study_uid), record)
        except Stopping:
            raise
        except DicomwatchdError:
            return True
        # A damaged copy is there, too: another one is not what is waited for.
        found = [] if manifest is None else manifest.sop_instance_uids()
        self._dicomdirs.archived(study_uid, found)
        return True
