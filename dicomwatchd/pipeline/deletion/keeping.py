"""What stays of a shipment's files, and why: each is kept with its reason, and the log tells of it."""

from __future__ import annotations

from dicomwatchd.model import Uid
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.fresh import Recorded
from dicomwatchd.pipeline.deletion.port import Policy, is_due
from dicomwatchd.pipeline.deletion.purge import Outcome
from dicomwatchd.pipeline.deletion.vetoes import expiring, held, own, unleased, versions, without_right
from dicomwatchd.pipeline.deletion.vetoes.damaged import WholeCopies, reason
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.queue.holds import OTHER_VERSIONS, REASONS, TWO_PATIENTS
from dicomwatchd.queue.rows import DAMAGED, EXCHANGED, EXPIRING, HELD, NO_LEASE, NO_RIGHT, OWN_OBJECT, LocalFile

#: When a file is tried again that has looked like the archive's own object.
OWN_AGAIN_SECONDS = 86400.0


def keep_what_stays(
    files: list[LocalFile], policy: Policy, recorded: Recorded, shipment: Shipment, context: Context
) -> list[LocalFile]:
    """What can be told of files before any is proven; ``recorded`` says what the archive has of their study. Returns
    the others, which are to be deleted now."""
    whole = WholeCopies(recorded.manifest)
    to_delete: list[LocalFile] = []
    to_keep: dict[float | None, list[LocalFile]] = {}
    objects = own.among(files, shipment.run, policy, context.inboxes)
    _keep_own(objects, shipment, context)
    left_out = {file.file_id for file in objects}
    damaged = [file for file in files if file.file_id not in left_out and whole.stays(file)]
    _keep_damaged(damaged, shipment, context)
    left_out |= {file.file_id for file in damaged}
    for file in files:
        if file.file_id in left_out:
            continue
        due_at = policy.due_at(file)
        if is_due(due_at, context.clock.now()):
            to_delete.append(file)
        else:
            to_keep.setdefault(due_at, []).append(file)
    instances = versions.held_instances(recorded.manifest, context)
    if held.is_held(recorded, context):
        # What stays for good by its rule says so, too: whoever uploaded the folder must not take it for deletable.
        _keep_held([*to_delete, *to_keep.pop(None, [])], shipment, context, TWO_PATIENTS)
        to_delete = []
    elif instances:
        concerned, to_delete = _parted(to_delete, instances)
        concerned_for_good, for_good = _parted(to_keep.pop(None, []), instances)
        _keep_held([*concerned, *concerned_for_good], shipment, context, OTHER_VERSIONS)
        if for_good:
            to_keep[None] = for_good
    if to_delete and context.stops_deleting() is not None:
        _keep_expiring(to_delete, shipment, context)
        to_delete = []
    inboxes = {file.source_id: policy.source(file) for file in to_delete}
    exchanged = {source_id for source_id, source in inboxes.items() if context.is_exchanged(source)}
    elsewhere = [file for file in to_delete if file.source_id in exchanged]
    if elsewhere:
        _keep_exchanged(elsewhere, shipment, context)
        to_delete = [file for file in to_delete if file.source_id not in exchanged]
    for due_at, kept in to_keep.items():
        shipment.kept_files += context.deletions.keep(shipment.claim, kept, due_at)
    return to_delete


def keep_refused(outcome: Outcome, shipment: Shipment, context: Context) -> None:
    """What the deletion itself has left where it is."""
    _keep_own(outcome.own, shipment, context, may_be_own=True)
    _keep_unleased(outcome.unleased, shipment, context)
    _keep_not_theirs(outcome.not_theirs, shipment, context)
    _keep_exchanged(outcome.exchanged, shipment, context)


def log_changed(outcome: Outcome, shipment: Shipment, context: Context) -> None:
    """Files that are taken up anew as what they are now."""
    if outcome.changed:
        context.log.warning(
            "study-kept",
            "local files changed after they were archived; they are kept and scanned again",
            study_uid=shipment.claim.study_uid,
            files=len(outcome.changed),
        )


def log_vanished(final_check: FinalCheck, shipment: Shipment, context: Context) -> None:
    if final_check.stops:
        context.log.error(
            "deletion-stopped",
            "objects were missing when their local files were to be deleted; the files were put back, and no more are"
            " deleted",
            study_uid=shipment.claim.study_uid,
            files=final_check.vanished,
        )


def _keep_own(files: list[LocalFile], shipment: Shipment, context: Context, *, may_be_own: bool = False) -> None:
    """``may_be_own``: the store has shown no object while the file was staged. That may have been a mistake of the
    store's, and is tried again; inode and device, where objects are files, make none."""
    if not files:
        return
    due_at = context.clock.now() + OWN_AGAIN_SECONDS if may_be_own else None
    _keep(files, OWN_OBJECT, own.REASON, shipment, context, due_at)
    context.log.error(
        "kept-own-object",
        "local files are the archive's own objects under another path; they are kept",
        study_uid=shipment.claim.study_uid,
        files=len(files),
    )


def _keep_damaged(files: list[LocalFile], shipment: Shipment, context: Context) -> None:
    """They fall due when a whole copy is archived."""
    by_damage: dict[str, list[LocalFile]] = {}
    for file in files:
        by_damage.setdefault(file.header.damage, []).append(file)
    for damage, alike in by_damage.items():
        _keep(alike, DAMAGED, reason(damage), shipment, context)
    if files:
        context.log.warning(
            "kept-damaged",
            "damaged files are archived as damaged and kept, until a whole copy of each is archived",
            study_uid=shipment.claim.study_uid,
            files=len(files),
        )


def _parted(files: list[LocalFile], instances: frozenset[Uid]) -> tuple[list[LocalFile], list[LocalFile]]:
    """The files of these instances, and the others."""
    concerned = [file for file in files if file.header.sop_instance_uid in instances]
    return concerned, [file for file in files if file.header.sop_instance_uid not in instances]


def _keep_held(files: list[LocalFile], shipment: Shipment, context: Context, hold: str) -> None:
    """They fall due again when somebody releases the study: see `held` and `versions`, which log the hold."""
    if files:
        _keep(files, HELD, REASONS[hold], shipment, context)


def _keep_expiring(files: list[LocalFile], shipment: Shipment, context: Context) -> None:
    """They fall due again as soon as nothing speaks against it: see `expiring`, which also tells of it."""
    _keep(files, EXPIRING, expiring.REASON, shipment, context)


def _keep_exchanged(files: list[LocalFile], shipment: Shipment, context: Context) -> None:
    """They fall due again when the inbox is the folder that it was, or the other one is confirmed: see `pinning`,
    which logs it."""
    if files:
        reason = "archived; kept because the inbox is not the confirmed folder: see dicomwatchctl inbox confirm"
        _keep(files, EXCHANGED, reason, shipment, context)


def _keep_unleased(files: list[LocalFile], shipment: Shipment, context: Context) -> None:
    if not files:
        return
    _keep(files, NO_LEASE, unleased.REASON, shipment, context)
    context.log.warning(
        "kept-without-lease",
        "no read lease can be taken on local files; they are archived and kept",
        study_uid=shipment.claim.study_uid,
        files=len(files),
    )


def _keep_not_theirs(files: list[LocalFile], shipment: Shipment, context: Context) -> None:
    if not files:
        return
    _keep(files, NO_RIGHT, without_right.REASON, shipment, context)
    context.log.warning(
        "kept-without-right",
        "the user who started an upload may not delete some of its files; they are archived and kept",
        study_uid=shipment.claim.study_uid,
        files=len(files),
    )


def _keep(
    files: list[LocalFile],
    code: str,
    reason: str,
    shipment: Shipment,
    context: Context,
    due_at: float | None = None,
) -> None:
    """For good, or until ``due_at``, as far as this shipment can tell, and for a reason that is told of each file."""
    shipment.kept_files += context.deletions.keep(shipment.claim, files, due_at, code=code, reason=reason)
