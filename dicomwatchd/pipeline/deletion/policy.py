"""Which rules hold for a shipment's local files, as things are now."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dicomwatchd.archive.stores.port import Standing
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.port import Services, Stands
from dicomwatchd.pipeline.shipment import Context, Shipment, location_of, path_of, source_of
from dicomwatchd.queue.rows import LocalFile, Source


@dataclass(frozen=True, slots=True)
class ShipmentPolicy:
    """The `Policy` of a shipment's files: nothing is remembered, each answer is of the moment."""

    context: Context

    def source(self, file: LocalFile) -> Source:
        return source_of(file, self.context)

    def pinned(self, file: LocalFile) -> Source:
        return self.context.pinned(self.source(file))

    def due_at(self, file: LocalFile) -> float | None:
        """The rule of today counts, not the one under which the file was kept: it may say by now that nothing is to be
        deleted."""
        rule = self.context.after_archive(self.source(file))
        if rule.delete:
            return 0.0
        if rule.keep_seconds is None:
            return None
        due_at = self.context.deletions.due_before(file) if file.due_at is None else file.due_at
        return self.context.clock.now() + rule.keep_seconds if due_at is None else due_at

    def needs_lease(self, file: LocalFile) -> bool:
        return self.context.after_archive(self.source(file)).needs_lease

    def standing(self, file: LocalFile) -> Stands | None:
        store = self.context.archive.store
        if not store.capabilities.objects_are_files:
            return None

        def stands(found: os.stat_result) -> Standing:
            with self.context.inboxes.elsewhere():  # it is the archive that may hang
                return store.standing(location_of(file).receipt.key, path_of(file), found)

        return stands


def services_of(shipment: Shipment, context: Context) -> Services:
    """Those of one purge."""
    return Services(
        deletions=context.deletions,
        clock=context.clock,
        inboxes=context.inboxes,
        final_check=FinalCheck(context.archive.store, context.cancelled),
        cancelled=context.cancelled,
        heartbeat=context.heartbeat,
        left_staged=context.left_staged,
        require_not_erased=lambda: context.erased.require_none_since(shipment.claim.study_uid, shipment.erased_through),
    )
