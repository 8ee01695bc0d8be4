"""What the archive has of a study already, for an image that a disc lists and that is not on the disc."""

from __future__ import annotations

from collections.abc import Collection

from dicomwatchd.answering import Inboxes
from dicomwatchd.archive.layout import lineage
from dicomwatchd.errors import DicomwatchdError, Permanent, Stopping
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Archive


class ArchivedInstances:
    """Asked on the thread of an upload's intake. What the archive cannot say now counts as not there: then an image is
    named as missing, and nothing is deleted for that or kept from being."""

    def __init__(self, archive: Archive, inboxes: Inboxes) -> None:
        self._archive, self._inboxes = archive, inboxes

    def of(self, study_uids: Collection[str]) -> set[str]:
        """The SOP Instance UIDs that the current manifests of these studies list, but for damaged copies."""
        found: set[str] = set()
        for study_uid in study_uids:
            self._inboxes.beat()
            with self._inboxes.elsewhere():
                found |= self._of_one(Uid(study_uid))
        return found

    def _of_one(self, study_uid: Uid) -> set[str]:
        try:
            try:
                record = self._archive.catalogue.get(study_uid)
            except Permanent:
                record = None
            manifest = lineage.current(self._archive.store, study_uid, record)
        except Stopping:
            raise
        except DicomwatchdError:
            return set()
        return (
            set() if manifest is None else {str(one.sop_instance_uid) for one in manifest.instances if not one.damage}
        )
