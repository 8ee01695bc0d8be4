"""Deleting a shipment's local files: prove, put on record, stage and unlink, write down how it ended."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from dicomwatchd.errors import InboxNotResponding, Stopping
from dicomwatchd.localfiles import directory
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.at_once import Turn, turns_at
from dicomwatchd.pipeline.deletion.batch import DeletionBatch, ProvenFile, Result, batches
from dicomwatchd.pipeline.deletion.port import Evidence, Policy, Services
from dicomwatchd.pipeline.deletion.proof import Exchanged, Itself, LeaseRefused, NoRight, Restored
from dicomwatchd.pipeline.deletion.staging.staged import LeftStaged
from dicomwatchd.pipeline.deletion.staging.tidying import tidy
from dicomwatchd.pipeline.deletion.vetoes import unleased, without_right
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import Claim, LocalFile, Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """``changed`` are files that turned out to be other ones than was proven, with the reason: they are taken up anew.
    ``untouched`` are as they were, but for the ctime of one that was staged and put back; ``unleased``, too: they
    may go under a read lease only, and none was to be had. So are ``own``: they are the archive's objects; and
    ``not_theirs``: whoever has asked for the deletion may not delete them. ``exchanged`` stand in an inbox that is
    another folder by now."""

    deleted: list[LocalFile] = field(default_factory=list)
    changed: list[tuple[LocalFile, str]] = field(default_factory=list)
    untouched: list[LocalFile] = field(default_factory=list)
    unleased: list[LocalFile] = field(default_factory=list)
    own: list[LocalFile] = field(default_factory=list)
    not_theirs: list[LocalFile] = field(default_factory=list)
    exchanged: list[LocalFile] = field(default_factory=list)


def delete(
    files: list[LocalFile], claim: Claim, run: Map, policy: Policy, evidence: Evidence, services: Services
) -> Outcome:
    """Delete these files, each on its own proof. The record of all of them is durable before the first is touched,
    and how each ended is written down even when one of them fails. Once files are staged the store is asked whether
    the object of each is there all the same; where one is not, all are put back and no more are deleted. A file that
    needs a lease is left out where none is to be had. How the deletions ended that were given up because their inbox
    does not answer is left open: the disk tells, when it can be asked. Raises NoProof, Transient (Vanished is one),
    ClaimLost, InboxNotResponding, Stopping."""
    no_lease = unleased.among(files, run, policy, services.inboxes)
    no_right = without_right.among(files, run, policy, services.inboxes)
    left_out = {file.file_id for file in (*no_lease, *no_right)}
    proofs = [(file, evidence.prove(file)) for file in files if file.file_id not in left_out]
    if not proofs:
        return Outcome(unleased=no_lease, not_theirs=no_right)
    on_record = [(file, proof.for_audit() | _asked_by(policy.source(file))) for file, proof in proofs]
    authorised = services.deletions.authorise(claim, on_record)
    proofs = [(file, proof) for file, proof in proofs if file.file_id in authorised]
    outcome = _delete_authorised(proofs, claim, run, policy, evidence, services)
    return replace(outcome, unleased=[*no_lease, *outcome.unleased], not_theirs=[*no_right, *outcome.not_theirs])


def _delete_authorised(
    proofs: list[ProvenFile], claim: Claim, run: Map, policy: Policy, evidence: Evidence, services: Services
) -> Outcome:
    """A lease, or a right, that a file is left for here was to be had a moment before."""
    turns: dict[int, Turn] = {}

    def delete_batch(batch: list[ProvenFile]) -> list[tuple[LocalFile, Result]]:
        return DeletionBatch(batch, policy, evidence, services, turns[batch[0][0].source_id]).delete()

    outcome = Outcome()
    first_error: Exception | None = None
    unfinished = {file.file_id for file, _ in proofs}
    try:
        sizes_bytes: dict[Source, list[int]] = {}
        for file, _ in proofs:
            sizes_bytes.setdefault(policy.source(file), []).append(file.identity.size_bytes)
        for source, sizes in sizes_bytes.items():
            turns[source.source_id] = turns_at(source, sizes, services.inboxes, services.heartbeat)
        for file, result in chain.from_iterable(run(delete_batch, batches(proofs))):
            unfinished.discard(file.file_id)
            match result:
                case None:
                    outcome.deleted.append(file)
                case str():
                    outcome.changed.append((file, result))
                case LeaseRefused():
                    outcome.unleased.append(file)
                case NoRight():
                    outcome.not_theirs.append(file)
                case Exchanged():
                    outcome.exchanged.append(file)
                case Itself():
                    outcome.own.append(_as_it_is_now(file, policy, services))
                case Restored():
                    outcome.untouched.append(_as_it_is_now(file, policy, services))
                case error:
                    first_error = first_error or error
                    if isinstance(error, LeftStaged):
                        services.left_staged(file.source_id)
                    outcome.untouched.append(_as_it_is_now(file, policy, services))
    except Stopping:
        raise
    except BaseException:
        # An inbox that does not answer, or an error that has ended a batch half-way: nobody knows yet how they ended.
        unfinished.clear()
        raise
    finally:
        outcome.untouched.extend(file for file, _ in proofs if file.file_id in unfinished)  # the daemon is stopping
        # Before the deletions are concluded: a crash in between is followed by a start that concludes, and tidies.
        _tidy_after(outcome, policy, services)
        stay = [*outcome.untouched, *outcome.unleased, *outcome.not_theirs, *outcome.exchanged, *outcome.own]
        services.deletions.purged(claim.study_uid, outcome.deleted, outcome.changed, stay)
    if first_error is not None:
        raise first_error
    return outcome


def _asked_by(source: Source) -> dict[str, object]:
    return {} if source.asker is None else {"asked_by": source.asker.described()}


def _as_it_is_now(file: LocalFile, policy: Policy, services: Services) -> LocalFile:
    """The file with the ctime that putting it back has given it. Nobody's change: the study need not arrive anew for
    it. Whatever else may have changed meanwhile shows when its content is next compared."""

    def look() -> LocalFile:
        try:
            root_fd = policy.source(file).open()
        except OSError:
            return file
        try:
            with directory(root_fd, file.dir) as directory_fd:
                found = FileIdentity.of(os.stat(file.name, dir_fd=directory_fd, follow_symlinks=False))
        except OSError:
            return file
        finally:
            os.close(root_fd)
        return replace(file, identity=found) if found.same_but_ctime(file.identity) else file

    try:
        return services.inboxes.call(file.source_id, look)
    except InboxNotResponding:
        return file


def _tidy_after(outcome: Outcome, policy: Policy, services: Services) -> None:
    touched: dict[Source, set[bytes]] = {}
    for file in (*outcome.deleted, *(file for file, _ in outcome.changed), *outcome.untouched):
        touched.setdefault(policy.source(file), set()).add(file.dir)
    for found, directories in touched.items():
        with suppress(InboxNotResponding):
            services.inboxes.call(found.source_id, partial(tidy, found, directories, services.inboxes.beat))
