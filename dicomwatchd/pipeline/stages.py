"""The story of a shipment: upload, verify, record, purge. Start reading here.

A shipment takes what is there of one study, under a claim. Each stage works on the files a page at a time, commits
what it has reached, and can be repeated: after an error or a restart the story is told again from the top, and what
is done already costs little. Nothing is deleted before the last stage, and there only on a DeletionProof.
"""

from __future__ import annotations

from dicomwatchd.archive.identity import require_identity
from dicomwatchd.archive.proof.evidence import Method
from dicomwatchd.errors import (
    ColdObject,
    InboxNotResponding,
    Permanent,
    RevisionConflict,
    StoreUnreliable,
    StudyErased,
    Transient,
    Vanished,
)
from dicomwatchd.model import FileState, StudyEvent
from dicomwatchd.pipeline.deletion import evidence, fresh, keeping
from dicomwatchd.pipeline.deletion import purge as purging
from dicomwatchd.pipeline.deletion.fresh import Recorded
from dicomwatchd.pipeline.deletion.policy import ShipmentPolicy, services_of
from dicomwatchd.pipeline.deletion.staging import recover
from dicomwatchd.pipeline.deletion.vetoes import damaged
from dicomwatchd.pipeline.revision import next_manifest, revision_nobody_can_read
from dicomwatchd.pipeline.sending import quiet
from dicomwatchd.pipeline.shipment import NOTHING, Context, Sent, Shipment, examined, proven
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import Claim, LocalFile, Proven
from dicomwatchd.telemetry.metrics import StageClock

#: A page of verification is one listing of its series, which lists the same objects again for the series' next page.
VERIFY_PAGE = 5000
#: How often a shipment sends bytes again that the store turned out not to hold before it gives up.
MAX_MISMATCHES = 3
#: How often it tries for the next free revision while others record the same study.
MAX_CONFLICTS = 20


def ship(claim: Claim, run: Map, context: Context, early: Sent = NOTHING) -> Shipment:
    """Bring one claimed study to its end; ``early`` was sent of it while it arrived. Raises ClaimLost, SourceChanged
    (both: the study is arriving again), Transient, Permanent, Fatal, Stopping; whoever called decides what becomes of
    the study then."""
    shipment = Shipment(claim, run, StageClock(context.clock), context.clock.now(), retries=claim.attempts, early=early)
    shipment.stages.add("upload", early.seconds)
    away = _conclude_the_last_one(claim, context)
    try:
        shipment.erased_through = context.erased.require_none(claim.study_uid)
        recorded = _archive(shipment, context)
    except Permanent:
        # It parks the study, and nothing moves it after that: no other place shall have said so.
        require_identity(context.archive.store, context.archive.archive_id, refusal_tells=False)
        raise
    context.shipments.finish(
        claim,
        {
            "source": ",".join(sorted(shipment.sources)),
            "revision": recorded.manifest.revision,
            "started_at": shipment.started_at,
            "files": shipment.files,
            "bytes": shipment.bytes,
            "sent_bytes": early.bytes + shipment.sent_bytes,
            "retries": shipment.retries,
            "stages": {name: {"seconds": round(s, 3)} for name, s in shipment.stages.seconds().items()},
        },
    )
    for source_id in away:
        context.left_staged(source_id)  # not before: what is open under a claim is its shipment's
    if recorded.manifest.revision:
        context.finished(recorded.manifest)
    return shipment


def _archive(shipment: Shipment, context: Context) -> Recorded:
    """The stages, one after the other."""
    try:
        with shipment.stages.stage("upload"):
            upload(shipment, context)
        with shipment.stages.stage("verify"):
            verify(shipment, context)
        with context.turns.turn() as shipment.admit:
            with shipment.stages.stage("record"):
                recorded = record(shipment, context)
            with shipment.stages.stage("purge"):
                purge(shipment, recorded, context)
    except StudyErased:
        _tell_of_what_was_sent(shipment, context)
        raise
    return recorded


def _tell_of_what_was_sent(shipment: Shipment, context: Context) -> None:
    """Whoever erases waits for what is on its way; but nobody knows whether it was for long enough."""
    if shipment.sent_files or shipment.early.files or shipment.files:
        context.log.warning(
            "sent-while-erased",
            "parts of a study were sent while it was erased from the archive; dicomwatchctl verify says whether"
            " anything of it is left there",
            study_uid=shipment.claim.study_uid,
        )


def _conclude_the_last_one(claim: Claim, context: Context) -> set[int]:
    """How the deletions of an earlier shipment ended may not have got on record, if the state could not be written:
    the disk still tells. Nobody else is at these files, since nobody else has the claim. Returns the ids of the sources
    where some stay open that are not waited for: those that are away, until they are back, and those that nobody looks
    after any more."""
    pending = context.deletions.pending(claim.study_uid)
    if not pending:
        return set()
    left = recover.conclude_these(context.deletions, pending, context.inboxes, context.sources())
    still_open = {one.file_id for one in left.all}
    for one in pending:
        if one.file_id not in still_open:
            context.rescan(one.source_id, one.dir)
    if left.silent:
        raise InboxNotResponding("an inbox does not answer")
    if any(context.is_scanned(one.source_id) for one in left.unread):
        # Not at their names, nor at what comes under them, would the intake look while they are open.
        raise Transient(
            "an inbox cannot be read at the moment, and nobody can tell how deletions in it ended",
            code="inbox-unreadable",
            hint="see to the folder's permissions and its disk; the study is tried again by itself",
        )
    return {one.source_id for one in left.all}


# -- upload ---------------------------------------------------------------------------------------------------------


def upload(shipment: Shipment, context: Context) -> None:
    """Send every file that was not sent yet: read once, hash that buffer, create the object under the key that its
    hash names; or several small ones as one object, where the layout is the bundled one. What is there already is not
    sent again."""
    quiet.send_all(shipment, context)
    context.shipments.advance(shipment.claim, StudyEvent.STORED)


# -- verify ---------------------------------------------------------------------------------------------------------


def verify(shipment: Shipment, context: Context) -> None:
    """Read the store's own view of every object afresh. One that is missing is sent again; one that holds other bytes
    is sent again under the next free key, and is never overwritten."""
    claim, shipments = shipment.claim, context.shipments
    for _ in range(MAX_MISMATCHES):
        missing, damaged = _examine_all(shipment, context)
        if not missing and not damaged:
            shipments.advance(claim, StudyEvent.VERIFIED)
            return
        context.log.error(
            "study-mismatch",
            "the store lacks objects that were sent; they are sent again",
            study_uid=claim.study_uid,
            missing_files=len(missing),
            damaged_files=len(damaged),
        )
        shipment.retries += 1
        shipments.send_again(claim, missing, damaged)
        upload(shipment, context)
    raise StoreUnreliable("the store does not keep what it is sent, even after several attempts")


def _examine_all(shipment: Shipment, context: Context) -> tuple[list[LocalFile], dict[LocalFile, str]]:
    """Files whose object is missing, and files whose key holds other bytes, with that key."""
    missing: list[LocalFile] = []
    damaged: dict[LocalFile, str] = {}
    unreadable = cold = 0
    for page in context.shipments.pages(shipment.claim, FileState.STORED, VERIFY_PAGE):
        held: list[Proven] = []
        for files, verdict in examined(page, shipment, context):
            if verdict.holds:
                if verdict.verified_by == Method.READ_BACK:
                    shipment.read_back_bytes += verdict.receipt.size_bytes
                shipment.verified_files[verdict.verified_by] += len(files)
                held += proven(files, verdict)
            elif verdict.problem == "missing":
                missing += files
            elif verdict.problem == "unreadable":
                unreadable += 1
            elif verdict.problem == "cold":
                cold += 1
            else:
                damaged |= dict.fromkeys(files, verdict.receipt.key)
        context.shipments.verified(shipment.claim, held)
    if cold:
        raise Transient(
            "an object of the study is in cold storage, and only its bytes could prove it",
            code=ColdObject.code,
            hint="restore it (dicomwatchctl fetch STUDY --restore); the study is tried again by itself",
        )
    if unreadable:
        raise Transient("the store cannot read back an object that it holds", code="unreadable-object")
    return missing, damaged


# -- record ---------------------------------------------------------------------------------------------------------


def record(shipment: Shipment, context: Context) -> Recorded:
    """Put the next manifest revision into the store, create-only, then move the catalogue to it. Whoever records the
    same study meanwhile keeps what is his: the loser reads again, merges, and takes the next revision.

    Returns the manifest as the store holds it, and the revision the catalogue was read to have; revision 0, which is
    none, for a study of which nothing was ever archived and nothing is left.
    """
    claim, archive = shipment.claim, context.archive
    above = 0
    for _ in range(MAX_CONFLICTS):
        context.erased.require_none_since(claim.study_uid, shipment.erased_through)
        asked_at = context.clock.now()
        made = next_manifest(shipment, context, above)
        if made is None:
            continue
        manifest = made.manifest
        # Asked after its objects were verified and its manifest was stored: all of that was here then.
        require_identity(archive.store, archive.archive_id)
        if not manifest.revision:
            context.shipments.recorded(claim, 0)
            return Recorded(manifest, 0, asked_at)
        try:
            archive.catalogue.put(manifest.record(), instead_of=made.instead_of)
        except RevisionConflict:
            above = revision_nobody_can_read(manifest, context)
            continue
        recorded = archive.catalogue.get(claim.study_uid)
        if recorded is None or recorded.revision < manifest.revision:
            raise Transient("the catalogue does not return what was recorded", code="catalogue-behind")
        if fresh.has_other_versions(recorded, manifest):
            continue
        # Where that took long the study may have been erased before it was recorded.
        context.erased.require_none_since(claim.study_uid, shipment.erased_through)
        context.shipments.recorded(claim, manifest.revision, manifest.completeness, manifest.sop_instance_uids)
        return Recorded(manifest, recorded.revision, asked_at, recorded.identities or ())
    raise Transient("other daemons keep recording this study", code="revision-conflict")


# -- purge ----------------------------------------------------------------------------------------------------------


def purge(shipment: Shipment, recorded: Recorded, context: Context) -> None:
    """Delete the local files that may go, each on its own proof, and keep those that shall stay."""
    policy, services = ShipmentPolicy(context), services_of(shipment, context)
    damaged.release(recorded.manifest, shipment.claim, policy, context)
    touched: dict[int, set[bytes]] = {}
    for files, of_these in evidence.pages(shipment, recorded, context):
        to_delete = keeping.keep_what_stays(files, policy, of_these.recorded, shipment, context)
        try:
            outcome = purging.delete(to_delete, shipment.claim, shipment.run, policy, of_these, services)
        finally:
            keeping.log_vanished(services.final_check, shipment, context)
        keeping.keep_refused(outcome, shipment, context)
        if services.final_check.stops:
            raise Vanished("archived objects disappeared with their local files, and are back together with them")
        shipment.deleted_files += len(outcome.deleted)
        shipment.deleted_bytes += sum(file.identity.size_bytes for file in outcome.deleted)
        for file in (*outcome.deleted, *(f for f, _ in outcome.changed)):
            touched.setdefault(file.source_id, set()).add(file.dir)
        keeping.log_changed(outcome, shipment, context)
    for source_id, directories in touched.items():
        for directory in sorted(directories):
            context.rescan(source_id, directory)
