"""Deleting a shipment's local files: prove, put on record, stage and unlink, write down how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby

from dicomwatchd.answering import AlwaysAnswering, Inboxes
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.errors import InboxSilent, SourceChanged, Stopping, Transient, Unarchivable
from dicomwatchd.localfiles import directory
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.batch import DeletionBatch, Result
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.own import Stands, in_own_tree
from dicomwatchd.pipeline.deletion.proof import (
    Deleting,
    DeletionProof,
    Exchanged,
    Itself,
    LeaseRefused,
    NoRight,
    Restored,
    delete_on_proof,
    prove,
)
from dicomwatchd.pipeline.deletion.staging import LeftStaged, StagingFolders
from dicomwatchd.pipeline.deletion.tidying import tidy
from dicomwatchd.pipeline.deletion.unleased import lease_on
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.ports import Cancellation, Clock, Map, never_cancelled, stop_check
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.rows import Claim, LocalFile, Source

__all__ = ["Outcome", "delete", "prove"]


#: Files of a folder that one worker deletes one after the other, and how large they may be together.
BATCH_FILES = 64
BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """``kept`` are files that turned out to be other ones than was proven, with the reason: they are taken up anew.
    ``untouched`` are as they were, but for the ctime of one that was staged and put back; ``unleased``, too: they
    may go under a read lease only, and none was to be had. So are ``own``: they are the archive's objects; and
    ``not_theirs``: whoever has asked for the deletion may not delete them. ``exchanged`` stand in an inbox that is
    another folder by now."""

    deleted: list[LocalFile]
    kept: list[tuple[LocalFile, str]]
    untouched: list[LocalFile]
    unleased: list[LocalFile]
    own: list[LocalFile] = field(default_factory=list)
    not_theirs: list[LocalFile] = field(default_factory=list)
    exchanged: list[LocalFile] = field(default_factory=list)


def delete(
    files: list[LocalFile],
    claim: Claim,
    run: Map,
    *,
    prove: Callable[[LocalFile], DeletionProof],
    receipt: Callable[[LocalFile], Receipt],
    final_check: FinalCheck,
    source: Callable[[LocalFile], Source],
    deletions: Deletions,
    clock: Clock,
    left_staged: Callable[[int], None] = lambda _: None,
    needs_lease: Callable[[LocalFile], bool] = lambda _: False,
    standing: Stands | None = None,
    pinned: Callable[[Source], Source] = lambda source: source,
    heartbeat: Callable[[], None] = lambda: None,
    may_go: Callable[[LocalFile], bool] = lambda _: True,
    inboxes: Inboxes | None = None,
    cancelled: Cancellation = never_cancelled,
    prove_again: Callable[[LocalFile], DeletionProof] | None = None,
) -> Outcome:
    """Delete these files, each on its own proof. The record of all of them is durable before the first is touched,
    and how each ended is written down even when one of them fails. ``left_staged`` gets the id of a source in which a
    staged file could not be put back. Once files are staged ``final_check`` asks the store whether the object of each,
    by its ``receipt``, is there all the same; where one is not, all are put back and no more are deleted. A file that
    ``needs_lease`` is left out where none is to be had. ``standing`` says what a local file is to its object, where
    objects are files as well (see ObjectStore.standing). ``pinned`` is a source that opens as the confirmed folder
    alone (raises Exchanged). ``heartbeat`` is called by whoever works, before each file: saving what was written too
    late may take minutes. ``may_go`` is asked right before a file is touched, and before it goes: whoever asked for its
    deletion may have taken that back. How the deletions ended that were given up because their inbox does not answer is
    left open: the disk tells, when it can be asked. ``cancelled`` is asked while a file is compared, and nothing of it
    is done yet. ``prove_again`` asks the archive anew, in the thread that calls it, for a file whose comparison has
    taken longer than its proof holds. Raises NoProof, Transient (Vanished is one), ClaimLost, InboxSilent, Stopping."""
    inboxes = inboxes or AlwaysAnswering()
    outcome = Outcome([], [], [], _without_lease(files, run, source, needs_lease, inboxes))
    outcome.not_theirs.extend(_without_right(files, run, source, inboxes))
    if outcome.unleased or outcome.not_theirs:
        left_out = {file.file_id for file in (*outcome.unleased, *outcome.not_theirs)}
        files = [file for file in files if file.file_id not in left_out]
    proofs = [(file, prove(file)) for file in files]
    if not proofs:
        return outcome
    on_record = [(file, proof.for_audit() | _asked_by(source(file))) for file, proof in proofs]
    authorised = deletions.authorise(claim, on_record)
    proofs = [(file, proof) for file, proof in proofs if file.file_id in authorised]

    still_wanted = stop_check(cancelled, heartbeat, inboxes.beat)

    def still_proven(file: LocalFile, proof: DeletionProof) -> None:
        if not proof.is_fresh(clock.now()):
            again = (prove_again or prove)(file)
            inboxes.beat()
            if again.same_bytes_as(proof):
                return
            raise Transient("the archive holds it as something else by now", code="stale-evidence")

    def require_wanted(file: LocalFile) -> None:
        still_wanted()
        if not may_go(file):
            raise Restored

    def begin(folders: Folders, staging: StagingFolders, file: LocalFile, proof: DeletionProof) -> Deleting:
        return delete_on_proof(
            folders,
            staging,
            pinned(source(file)),
            file,
            proof,
            now=clock.now(),
            needs_lease=needs_lease(file),
            standing=None if standing is None else partial(standing, file),
            still_wanted=still_wanted,
            heartbeat=heartbeat,
            still_proven=partial(still_proven, file, proof),
        )

    def some(batch: list[tuple[LocalFile, DeletionProof]]) -> list[tuple[LocalFile, Result]]:
        first, _ = batch[0]
        with inboxes.at(first.source_id):
            if in_own_tree(source(first), first.dir):
                return [(file, Itself()) for file, _ in batch]
        left = partial(left_staged, first.source_id)
        return DeletionBatch(batch, begin, require_wanted, receipt, final_check, inboxes, left).delete()

    def as_it_is_now(file: LocalFile) -> LocalFile:
        try:
            return inboxes.call(file.source_id, lambda: _as_it_is_now(source(file), file))
        except InboxSilent:
            return file

    first_error: Exception | None = None
    unfinished = {file.file_id for file, _ in proofs}
    refused: list[LocalFile] = []  # by a lease that was to be had a moment before
    denied: list[LocalFile] = []  # by a right that was there a moment before
    elsewhere: list[LocalFile] = []
    try:
        for file, result in chain.from_iterable(run(some, _batches(proofs))):
            unfinished.discard(file.file_id)
            if result is None:
                outcome.deleted.append(file)
            elif isinstance(result, str):
                outcome.kept.append((file, result))
            elif isinstance(result, LeaseRefused):
                refused.append(file)
            elif isinstance(result, NoRight):
                denied.append(file)
            elif isinstance(result, Exchanged):
                elsewhere.append(file)
            elif isinstance(result, Itself):
                outcome.own.append(as_it_is_now(file))
            elif isinstance(result, Restored):
                outcome.untouched.append(as_it_is_now(file))
            else:
                first_error = first_error or result
                if isinstance(result, LeftStaged):
                    left_staged(file.source_id)
                outcome.untouched.append(as_it_is_now(file))
    except Stopping:
        raise
    except BaseException:
        # An inbox that does not answer, or an error that has ended a batch half-way: nobody knows yet how they ended.
        unfinished.clear()
        raise
    finally:
        outcome.untouched.extend(file for file, _ in proofs if file.file_id in unfinished)  # the daemon is stopping
        # Before the deletions are concluded: a crash in between is followed by a start that concludes, and tidies.
        _tidy_after(outcome, source, inboxes)
        stay = [*outcome.untouched, *refused, *denied, *elsewhere, *outcome.own]
        deletions.purged(claim.study_uid, outcome.deleted, outcome.kept, stay)
        outcome.unleased.extend(refused)
        outcome.not_theirs.extend(denied)
        outcome.exchanged.extend(elsewhere)
    if first_error is not None:
        raise first_error
    return outcome


def _batches(
    proofs: list[tuple[LocalFile, DeletionProof]],
) -> Iterator[list[tuple[LocalFile, DeletionProof]]]:
    """Neighbours, to be deleted one after the other: opening their folders, and handing work to a thread, costs as
    much as deleting a small file."""
    for _, group in groupby(proofs, key=lambda item: (item[0].source_id, item[0].dir)):
        batch: list[tuple[LocalFile, DeletionProof]] = []
        size_bytes = 0
        for file, proof in group:
            if batch and (len(batch) >= BATCH_FILES or size_bytes + file.identity.size_bytes > BATCH_BYTES):
                yield batch
                batch, size_bytes = [], 0
            batch.append((file, proof))
            size_bytes += file.identity.size_bytes
        yield batch


def _without_lease(
    files: list[LocalFile],
    run: Map,
    source: Callable[[LocalFile], Source],
    needs_lease: Callable[[LocalFile], bool],
    inboxes: Inboxes,
) -> list[LocalFile]:
    """Those that need a lease and get none: found before they are put on record, so that a file that is kept for good
    leaves no trail of deletions that did not happen."""

    def look(file: LocalFile) -> tuple[LocalFile, bool | None]:
        return file, lease_on(source(file), file, inboxes)

    return [file for file, leased in run(look, [file for file in files if needs_lease(file)]) if leased is False]


def _without_right(
    files: list[LocalFile], run: Map, source: Callable[[LocalFile], Source], inboxes: Inboxes
) -> list[LocalFile]:
    """Those that whoever has asked for it may not delete: found before they are put on record, like those without a
    lease. What cannot be looked at now is met again before it is touched."""

    def look(group: list[LocalFile]) -> list[LocalFile]:
        found, asker = source(group[0]), source(group[0]).asker
        barred: list[LocalFile] = []
        with Folders(inboxes) as folders:
            for file in group:
                with (
                    suppress(SourceChanged, Unarchivable, Transient),
                    folders.opened(found, file) as (directory_fd, fd),
                ):
                    if asker is not None and not asker.may_remove(directory_fd, os.fstat(fd)):
                        barred.append(file)
        return barred

    judged = [file for file in files if (asker := source(file).asker) is not None and asker.uid != 0]
    groups = [list(group) for _, group in groupby(judged, key=lambda file: (file.source_id, file.dir))]
    return [file for barred in run(look, groups) for file in barred]


def _asked_by(source: Source) -> dict[str, object]:
    return {} if source.asker is None else {"asked_by": source.asker.described()}


def _as_it_is_now(source: Source, file: LocalFile) -> LocalFile:
    """The file with the ctime that putting it back has given it. Nobody's change: the study need not arrive anew for
    it. Whatever else may have changed meanwhile shows when its content is next compared."""
    try:
        root_fd = source.open()
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


def _tidy_after(outcome: Outcome, source: Callable[[LocalFile], Source], inboxes: Inboxes) -> None:
    touched: dict[Source, set[bytes]] = {}
    for file in (*outcome.deleted, *(file for file, _ in outcome.kept), *outcome.untouched):
        touched.setdefault(source(file), set()).add(file.dir)
    for found, directories in touched.items():
        with suppress(InboxSilent):
            inboxes.call(found.source_id, partial(tidy, found, directories, inboxes.beat))
