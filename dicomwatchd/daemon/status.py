"""What the running daemon says of itself: to the journal, and to whoever asks for its status."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicomwatchd import __version__, doctor
from dicomwatchd.archive.fixity import progress
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon import drill_report
from dicomwatchd.errors import Fatal, Permanent, Transient
from dicomwatchd.intake.inbox import InboxIntake
from dicomwatchd.pipeline.dispatch import Dispatcher
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.pipeline.shipment import Archive, Shipment
from dicomwatchd.ports import Clock, DiskUsage, timestamp
from dicomwatchd.queue import Queue
from dicomwatchd.queue.audit import Audit
from dicomwatchd.queue.rows import Transition
from dicomwatchd.telemetry.journal import Journal
from dicomwatchd.telemetry.metrics import ProcessUsage, process_usage
from dicomwatchd.unit import receivers

DISK_CHECK_SECONDS = 60.0


class StatusReporter:
    """Says no patient attribute, and no path of a file."""

    def __init__(
        self, config: Config, archive: Archive, journal: Journal, clock: Clock, started_at: float | None = None
    ) -> None:
        """``started_at`` is when the daemon was started (seconds since the epoch), whatever was reloaded since; None:
        now."""
        self._config, self._archive, self._journal, self._clock = config, archive, journal, clock
        self._started_at = clock.now() if started_at is None else started_at
        self._begun_at = clock.monotonic()
        self._usage: ProcessUsage = process_usage()
        self._next_disk_check = 0.0
        self._low_disks: dict[str, float] = {}
        self._state_disk: DiskUsage | None = None

    def changed(self, transition: Transition) -> None:
        self._journal.debug(
            "study-state",
            "the study's state has changed",
            study_uid=transition.study_uid,
            old_state=transition.old.value,
            study_event=transition.event.value,
            new_state=transition.new.value,
        )

    def shipped(self, shipment: Shipment, audit: Audit) -> None:
        early, seconds = shipment.early, shipment.stages.seconds()
        sent_bytes = early.bytes + shipment.sent_bytes
        # Of bytes that really went through; a check of the store's own checksum has no speed.
        moved = {"upload": sent_bytes, "verify": shipment.read_back_bytes, "purge": shipment.deleted_bytes}
        total = self._clock.now() - shipment.started_at + early.seconds
        usage = process_usage()
        cpu, self._usage = usage.cpu_seconds - self._usage.cpu_seconds, usage
        self._journal.info(
            "study-archived",
            "study {study_uid} is archived: {files:,} files, {bytes:mb} in {seconds:.1f} s; {deleted:,} deleted here",
            study_uid=shipment.claim.study_uid,
            **_came_from(shipment.sources),
            files=shipment.files,
            bytes=shipment.bytes,
            sent_files=early.files + shipment.sent_files,
            sent_bytes=sent_bytes,
            early_files=early.files or None,
            deleted=shipment.deleted_files,
            kept=shipment.kept_files,
            retries=shipment.retries,
            seconds=total,
            process_cpu_seconds=cpu,
            **{f"{name}_seconds": value for name, value in seconds.items()},
            **{
                f"{name}_mb_per_second": size_bytes / 1e6 / seconds[name]
                for name, size_bytes in moved.items()
                if size_bytes and seconds.get(name, 0.0) > 0.001
            },
            **_audit_head(audit),
            **({"rss_bytes": usage.rss_bytes} if usage.rss_bytes is not None else {}),
        )

    def check_disks(self, of_inboxes: Mapping[str, DiskUsage]) -> None:
        """Say early when a disk fills. ``of_inboxes`` is what each inbox's own thread has last seen."""
        if self._clock.monotonic() < self._next_disk_check:
            return
        self._next_disk_check = self._clock.monotonic() + DISK_CHECK_SECONDS
        low = {}
        found = dict(of_inboxes)
        with suppress(OSError):
            found["state"] = shutil.disk_usage(self._config.state_directory)
        for name, usage in found.items():
            share = doctor.free_share(usage)
            if share >= self._config.disk_free_warn_share:
                continue
            low[name] = share
            if name not in self._low_disks:
                self._journal.warning("disk-low", "a disk is almost full", inbox=name, free_bytes=usage.free)
        self._low_disks, self._state_disk = low, found.get("state")

    def status(
        self,
        inboxes: list[dict[str, Any]],
        *,
        intakes: Iterable[InboxIntake],
        pool: Pool,
        dispatcher: Dispatcher,
        record: Iterable[str | None],
        queue: Queue,
        silent: Mapping[str, float],
        commitments_open: int = 0,
        full_disks: Iterable[str] = (),
        sites: Iterable[str] = (),
        is_reload_refused: bool = False,
    ) -> dict[str, Any]:
        """What only the running daemon knows; ``inboxes`` is what the queue says of them, ``record`` what is wrong with
        the record of deletions, ``silent`` for how many seconds an inbox has not answered, by its name,
        ``commitments_open`` how many requests of modalities are not reported yet, ``full_disks`` what is to be said of
        disks on which no more can be deleted early, ``sites`` of the other daemons of the archive,
        ``is_reload_refused`` that the configuration in use is older than the file."""
        store, catalogue = self._archive.store, self._archive.catalogue
        capabilities = store.capabilities
        runs_for_seconds = self._clock.monotonic() - self._begun_at
        intakes_by_name = {intake.source.name: intake for intake in intakes}
        disks = {**{name: intake.disk for name, intake in intakes_by_name.items()}, "state": self._state_disk}
        at_work = receivers.listening() if self._config.receivers else None
        receivers_of = receivers.by_inbox(self._config)
        held, wrong = queue.holds.count(), [problem for problem in record if problem]
        return {
            "inboxes": [
                {
                    **inbox,
                    "state": _state(intake := intakes_by_name.get(inbox["name"]), inbox["name"] in silent),
                    "not_responding_seconds": round(silent[inbox["name"]], 1) if inbox["name"] in silent else None,
                    "last_scan_seconds": intake and intake.last_scan_seconds,
                    "unreadable": intake.unreadable if intake else 0,
                    "receivers": [
                        {
                            "name": receiver.name,
                            "ae_title": receiver.ae_title,
                            "listen": receiver.listen,
                            "listening": None if at_work is None else receiver.address in at_work,
                        }
                        for receiver in receivers_of.get(inbox["name"], ())
                    ],
                }
                for inbox in inboxes
            ],
            "commitments_open": commitments_open,
            "studies_held": held,
            "disks": [
                {
                    "name": name,
                    "free_bytes": usage.free,
                    "size_bytes": usage.total,
                    "almost_full": doctor.free_share(usage) < self._config.disk_free_warn_share,
                }
                for name, usage in disks.items()
                if usage is not None
            ],
            "audit": {"entries": queue.audit.head().sequence, "problems": len(wrong)},
            "version": __version__,
            "pid": os.getpid(),
            "started_at": timestamp(self._started_at),
            "archive_id": self._archive.archive_id,
            "store": str(store.destination),
            "catalogue": catalogue.name,
            "capabilities": {
                "etag_is_content": capabilities.etag_is_content,
                "checksum_on_head": capabilities.checksum_on_head,
                "checksum_of_parts": capabilities.checksum_of_parts,
                "etag_follows_content": capabilities.etag_follows_content,
                "etag_follows_parts": capabilities.etag_follows_parts,
                "lists_versions": capabilities.lists_versions,
                "creates_only": capabilities.creates_only,
                **capabilities.details,
            },
            "workers": {"total": pool.size, "busy": pool.busy},
            "backoff": dispatcher.backoff.remaining(),
            "archive_verification": _verification(self._config.state_directory),
            "restore_drill": drill_report.document(queue.drills, self._config.restore_drill),
            "problems": [f"inbox {name} has not answered for {seconds:.0f} s" for name, seconds in silent.items()]
            + (
                [
                    "the last reload was refused, and the configuration from before it is in use; a restart would take"
                    " the file as it is: see dicomwatchctl config check, and reload-refused in the journal, then reload"
                ]
                if is_reload_refused
                else []
            )
            + (
                [
                    f"{queue.unwritten}, so nothing new is archived or deleted: is that disk full, or a quota, or does"
                    " another program, such as a backup, hold state.db?"
                ]
                if queue.unwritten
                else []
            )
            + [
                f"inbox {intake.source.name} cannot be opened"
                for intake in intakes_by_name.values()
                if not intake.available
            ]
            + [
                f"inbox {intake.source.name}: unreadable entries: {intake.unreadable};"
                " dicomwatchctl quarantine lists them"
                for intake in intakes_by_name.values()
                if intake.unreadable
            ]
            + [
                f"inbox {intake.source.name} holds {intake.own_trees} folders that belong to an archive or to the"
                " daemon; they are ignored, and dicomwatchctl quarantine lists them"
                for intake in intakes_by_name.values()
                if intake.own_trees
            ]
            + (
                [f"studies held: {held}; archived, and none of their files is deleted: see dicomwatchctl attention"]
                if held
                else []
            )
            + [
                f"inbox {pin.name} {doctor.EXCHANGED}{pin.name}"
                for pin in queue.roots.pins()
                if pin.exchanged_at is not None and pin.name in intakes_by_name
            ]
            + [
                f"inbox {intake.source.name} is still being searched for files that a crash left staged"
                for intake in intakes_by_name.values()
                if intake.unsearched
            ]
            + [
                f"{name} is no longer an inbox, but files may still be staged in its folder: give the daemon access to"
                " it, then reload"
                for name in queue.reports.former_places()
                if name not in intakes_by_name
            ]
            + [
                f"{count} files of {name} are the archive's own objects under another path; they are kept"
                for name, count in queue.reports.own_objects().items()
            ]
            + [
                f"receiver {receiver.name}: {receivers.NOBODY.format(receiver.listen)}"
                for receiver in self._config.receivers
                if at_work is not None and receiver.address not in at_work
            ]
            + [f"the disk of {name} is almost full: {share:.0%} free" for name, share in self._low_disks.items()]
            + ([] if capabilities.creates_only else [doctor.OVERWRITES])
            + [
                f"{count} kept files of {name}, which is no longer an inbox, are archived only at another location"
                for name, count in queue.reports.kept_elsewhere().items()
            ]
            + list(filter(None, (store.expiry.unaccepted, store.expiry.unprotected)))
            + [*wrong, *full_disks, *sites]
            + [*drill_report.problems(queue.drills, self._config.restore_drill, self._clock.now(), runs_for_seconds)],
            "verification": doctor.verification(capabilities),
        }


def _came_from(sources: Collection[str]) -> dict[str, Any]:
    """The inbox, or upload, of a shipment's files; ``sources`` where they came from several."""
    return {"inbox": next(iter(sources))} if len(sources) == 1 else {"sources": sorted(sources)}


def _verification(state_directory: Path) -> dict[str, Any] | None:
    """How far the verification of the whole archive is, and what the last one has found; None where there was none, or
    its progress cannot be read just now."""
    try:
        kept = progress.read(state_directory, patience_seconds=0.2)
    except (Transient, Fatal, Permanent):
        return None
    if kept is None:
        return None
    done = kept.last_complete
    return {
        "state": kept.state,
        "started_at": kept.run.started_at,
        "updated_at": kept.run.updated_at,
        "studies": kept.run.totals.studies,
        "last_complete": done
        and {
            "started_at": done.started_at,
            "finished_at": done.finished_at,
            "studies": done.totals.studies,
            "proven": done.totals.proven,
            "not_covered": done.totals.not_covered,
            "unproven": done.totals.unproven,
            "with_problems": done.totals.with_problems,
        },
    }


def _state(intake: InboxIntake | None, is_silent: bool) -> str:
    if is_silent:
        return "not-responding"
    if intake is None:
        return "open"
    return "unavailable" if not intake.available else "open" if intake.was_open else "starting"


def _audit_head(audit: Audit) -> dict[str, Any]:
    """Outside the state, and wherever the journal is sent to: which entries the audit chain had at this time."""
    with suppress(Transient):
        head = audit.head()
        return {"audit_chain": head.chain_id, "audit_sequence": head.sequence, "audit_sha256": head.sha256}
    return {}
