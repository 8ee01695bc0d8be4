"""A batch of files of one folder on their last way: all are staged, then the store is asked whether their objects
are there all the same, and only then they go, one after the other.

That look is the last line against everything by which a local file can turn out to be the archive's own: whatever
mounts, links and gateways stand between the two paths, an object that went with its file is not there any more. Then
the files of the batch stand under their names again, and no other of the purge goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from dicomwatchd.archive.stores.port import Standing
from dicomwatchd.errors import DicomwatchdError, InboxNotResponding, Transient, Vanished
from dicomwatchd.pipeline.deletion.at_once import Turn
from dicomwatchd.pipeline.deletion.port import Evidence, Policy, Services, is_due
from dicomwatchd.pipeline.deletion.proof import Deleting, DeletionProof, Itself, Restored, delete_on_proof
from dicomwatchd.pipeline.deletion.staging.staged import StagingFolders
from dicomwatchd.pipeline.deletion.vetoes.own import in_own_tree
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.ports import stop_check
from dicomwatchd.queue.rows import LocalFile

#: Files of a folder that one worker deletes one after the other, and how large they may be together.
BATCH_FILES = 64
BATCH_BYTES = 16 * 1024 * 1024

ProvenFile = tuple[LocalFile, DeletionProof]
#: None: it is gone. A text: it turned out to be another file. Otherwise what has kept it.
Result = str | Exception | None


def batches(proofs: list[ProvenFile]) -> Iterator[list[ProvenFile]]:
    """Neighbours, to be deleted one after the other: opening their folders, and handing work to a thread, costs as
    much as deleting a small file. Their objects are neighbours, too: a listing of them meets few others."""
    ordered = sorted(proofs, key=lambda item: (item[0].source_id, item[0].dir, item[1].key))
    for _, group in groupby(ordered, key=lambda item: (item[0].source_id, item[0].dir)):
        batch: list[ProvenFile] = []
        size_bytes = 0
        for file, proof in group:
            if batch and (len(batch) >= BATCH_FILES or size_bytes + file.identity.size_bytes > BATCH_BYTES):
                yield batch
                batch, size_bytes = [], 0
            batch.append((file, proof))
            size_bytes += file.identity.size_bytes
        yield batch


@dataclass(slots=True)
class _Staged:
    file: LocalFile
    key: str
    deleting: Deleting
    stands: Standing


@dataclass(slots=True)
class DeletionBatch:
    """Files of one folder, each with its proof. ``turn`` is around what is done with the files themselves."""

    items: list[ProvenFile]
    policy: Policy
    evidence: Evidence
    services: Services
    turn: Turn = nullcontext
    _ended: list[tuple[LocalFile, Result]] = field(default_factory=list)
    _staged: list[_Staged] = field(default_factory=list)

    def delete(self) -> list[tuple[LocalFile, Result]]:
        """How each has ended. Raises InboxNotResponding, Transient."""
        first, _ = self.items[0]
        source_id, inboxes = first.source_id, self.services.inboxes
        with inboxes.at(source_id):
            if in_own_tree(self.policy.source(first), first.dir):
                return [(file, Itself()) for file, _ in self.items]
        folders, staging = Folders(inboxes), StagingFolders()
        try:
            with self.services.final_check.staging(), self.turn(), inboxes.at(source_id):
                for file, proof in self.items:
                    self._stage(folders, staging, file, proof)
            # Not at the inbox: it need not show a sign of life while the store is asked.
            why_not, gone = self._ask_store()
            with self.turn(), inboxes.at(source_id):
                missing = [one for one in self._staged if one.key in gone or one.stands is Standing.MISSING]
                if missing:
                    self.services.final_check.note(len(missing))
                if why_not is None and self.services.final_check.stops:
                    why_not = Restored()
                for one in list(self._staged):
                    self._go_on(one, why_not)
            if missing:
                self._tell_vanished_from_own(missing)
        finally:
            with inboxes.at(source_id, leaving=True):
                self._leave(folders, staging)
        return self._ended

    def _stage(self, folders: Folders, staging: StagingFolders, file: LocalFile, proof: DeletionProof) -> None:
        try:
            if self.services.final_check.stops:
                raise Restored
            self._require_wanted(file)
            deleting = self._begin(folders, staging, file, proof)
            stands = next(deleting)
        except StopIteration as end:
            self._ended.append((file, end.value))
        except InboxNotResponding:
            raise
        except Exception as error:  # noqa: BLE001  an outcome like another: how the others ended must not be forgotten
            self._ended.append((file, error))
        else:
            self._staged.append(_Staged(file, proof.key, deleting, stands))

    def _begin(self, folders: Folders, staging: StagingFolders, file: LocalFile, proof: DeletionProof) -> Deleting:
        return delete_on_proof(
            folders,
            staging,
            self.policy.pinned(file),
            file,
            proof,
            now=self.services.clock.now(),
            needs_lease=self.policy.needs_lease(file),
            standing=self.policy.standing(file),
            still_wanted=self._still_wanted,
            heartbeat=self.services.heartbeat,
            still_proven=partial(self._require_proven, file, proof),
        )

    def _still_wanted(self) -> None:
        """A sign of life. Raises Stopping, InboxNotResponding."""
        stop_check(self.services.cancelled, self.services.heartbeat, self.services.inboxes.beat)()

    def _require_wanted(self, file: LocalFile) -> None:
        """Asked again once the store was: raises where the file is to stay after all."""
        self._still_wanted()
        if not is_due(self.policy.due_at(file), self.services.clock.now()):
            raise Restored

    def _require_proven(self, file: LocalFile, proof: DeletionProof) -> None:
        self.services.require_not_erased()
        if not proof.is_fresh(self.services.clock.now()):
            again = self.evidence.prove_again(file)
            self.services.inboxes.beat()
            if again.same_bytes_as(proof):
                return
            raise Transient("the archive now holds something else for it", code="stale-evidence")

    def _gone(self, staged: list[_Staged]) -> set[str]:
        return self.services.final_check.gone({one.key: self.evidence.receipt(one.file) for one in staged})

    def _ask_store(self) -> tuple[Exception | None, set[str]]:
        """(why none may go, the keys of objects that are gone)."""
        if not self._staged:
            return None, set()
        try:
            return None, self._gone(self._staged)
        except Exception as error:  # noqa: BLE001  the outcome of each of them
            return error, set()

    def _go_on(self, one: _Staged, why_not: Exception | None) -> None:
        """Unlink it, or put it back."""
        result: Result
        try:
            if why_not is None:
                try:
                    self._require_wanted(one.file)
                except InboxNotResponding:
                    raise
                except Exception as error:  # noqa: BLE001  thrown into the deletion, which puts the file back
                    why_not = error
            if why_not is None:
                next(one.deleting)
            else:
                one.deleting.throw(why_not)
            result = RuntimeError("a deletion has failed twice")
        except StopIteration as end:
            result = end.value
        except InboxNotResponding:
            raise
        except Exception as error:  # noqa: BLE001  an outcome like another
            result = error
        self._staged = [other for other in self._staged if other is not one]
        self._ended.append((one.file, result))

    def _tell_vanished_from_own(self, missing: list[_Staged]) -> None:
        """Now that they stand under their names again: an object that is back went with its file, and is the file."""
        why_not, still_gone = None, set[str]()
        try:
            still_gone = self._gone(missing)
        except Exception as error:  # noqa: BLE001  the outcome of each of them
            why_not = error
        results = {
            one.file.file_id: why_not
            or (
                Vanished("an object was missing when its file was to be deleted") if one.key in still_gone else Itself()
            )
            for one in missing
        }
        self._ended = [
            (file, results.get(file.file_id, result) if isinstance(result, Restored) else result)
            for file, result in self._ended
        ]

    def _leave(self, folders: Folders, staging: StagingFolders) -> None:
        """Whatever is still staged is put back."""
        try:
            for one in self._staged:
                try:
                    one.deleting.close()
                except DicomwatchdError:
                    self.services.left_staged(one.file.source_id)
        finally:
            try:
                staging.__exit__(None, None, None)
            finally:
                folders.__exit__(None, None, None)
