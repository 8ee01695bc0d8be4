"""A damaged file is archived for what it is, and stays: until the archive has a whole copy of the same SOP Instance
nobody knows whether another one will ever come."""

from __future__ import annotations

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.pipeline.deletion.port import Policy
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.queue.rows import Claim, LocalFile


class WholeCopies:
    """The whole copies that a manifest lists, by SOP Instance; looked for when the first damaged file asks."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._contents: dict[str, set[str]] | None = None

    def supersede(self, sop_instance_uid: str, sha256: str | None) -> bool:
        """Whether another content of this damaged file's instance is whole: its own may be on record as that, from an
        earlier version."""
        if self._contents is None:
            self._contents = {}
            for item in self._manifest.whole:
                self._contents.setdefault(item.sop_instance_uid, set()).add(item.sha256)
        return bool(self._contents.get(sop_instance_uid, set()) - {sha256})

    def stays(self, file: LocalFile) -> bool:
        return bool(file.header.damage) and not self.supersede(file.header.sop_instance_uid, file.sha256)


def reason(damage: str) -> str:
    return f"archived; kept because it is damaged: {damage}; send it again from its source"


def release(manifest: Manifest, claim: Claim, policy: Policy, context: Context) -> None:
    """The damaged files that were kept, and are superseded by now, go by their rules. Raises Transient."""
    whole = WholeCopies(manifest)
    for files in context.deletions.kept_as_damaged(claim.study_uid, whole.supersede):
        # What stays by its rule is due as well: it is verified once more, and kept for that.
        context.deletions.release_damaged(claim, [(file, policy.due_at(file) or 0.0) for file in files])
