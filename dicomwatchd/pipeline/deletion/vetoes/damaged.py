"""A damaged file is archived for what it is, and stays: until the archive has a whole copy of the same SOP Instance
nobody knows whether another one will ever come."""

from __future__ import annotations

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.rows import Claim, LocalFile


class WholeCopies:
    """The whole copies that a manifest lists, by SOP Instance; looked for when the first damaged file asks."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._contents: dict[Uid, set[str]] | None = None

    def supersede(self, file: LocalFile) -> bool:
        """Whether another content of this damaged file's instance is whole: its own may be on record as that, from an
        earlier version."""
        if self._contents is None:
            self._contents = {}
            for item in self._manifest.instances:
                if item.is_whole:
                    self._contents.setdefault(item.sop_instance_uid, set()).add(item.sha256)
        return bool(self._contents.get(file.header.sop_instance_uid, set()) - {file.sha256})

    def stays(self, file: LocalFile) -> bool:
        return bool(file.header.damage) and not self.supersede(file)


def reason(damage: str) -> str:
    return f"archived; kept because it is damaged: {damage}; send it again from its source"


def release(manifest: Manifest, claim: Claim, context: Context) -> None:
    """The damaged files that were kept, and are superseded by now, are due."""
    whole = WholeCopies(manifest)
    superseded = [file for file in context.deletions.kept_as_damaged(claim.study_uid) if whole.supersede(file)]
    if superseded:
        context.deletions.release_damaged(superseded)
