"""A batch of files of one folder on their last way: all are staged, then the store is asked whether their objects
are there all the same, and only then they go, one after the other.

That look is the last line against everything by which a local file can turn out to be the archive's own: whatever
mounts, links and gateways stand between the two paths, an object that went with its file is not there any more. Then
the files of the batch stand under their names again, and no other of the purge goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicomwatchd.answering import Inboxes
from dicomwatchd.archive.stores.port import Receipt, Standing
from dicomwatchd.errors import DicomwatchdError, InboxSilent, Vanished
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.proof import Deleting, DeletionProof, Itself, Restored
from dicomwatchd.pipeline.deletion.staging import StagingFolders
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.queue.rows import LocalFile

#: None: it is gone. A text: it turned out to be another file. Otherwise what has kept it.
Result = str | Exception | None


@dataclass(slots=True)
class _Staged:
    file: LocalFile
    key: str
    deleting: Deleting
    stands: Standing


@dataclass(slots=True)
class DeletionBatch:
    """Files of one folder, each with its proof. ``begin`` begins a deletion; ``receipt`` is of the object that its
    proof names. ``may_go`` is asked again once the store was: it raises where a file is to stay after all.
    ``left_staged`` hears where a file could not be put back."""

    items: list[tuple[LocalFile, DeletionProof]]
    begin: Callable[[Folders, StagingFolders, LocalFile, DeletionProof], Deleting]
    may_go: Callable[[LocalFile], None]
    receipt: Callable[[LocalFile], Receipt]
    final_check: FinalCheck
    inboxes: Inboxes
    left_staged: Callable[[], None] = lambda: None
    _ended: list[tuple[LocalFile, Result]] = field(default_factory=list)
    _staged: list[_Staged] = field(default_factory=list)

    def delete(self) -> list[tuple[LocalFile, Result]]:
        """How each has ended. Raises InboxSilent."""
        source_id = self.items[0][0].source_id
        folders, staging = Folders(self.inboxes), StagingFolders()
        try:
            with self.inboxes.at(source_id):
                for file, proof in self.items:
                    self._stage(folders, staging, file, proof)
            # Not at the inbox: it need not show a sign of life while the store is asked.
            why_not, gone = self._ask_store()
            with self.inboxes.at(source_id):
                missing = [one for one in self._staged if one.key in gone or one.stands is Standing.MISSING]
                if missing:
                    self.final_check.note(len(missing))
                if why_not is None and self.final_check.stops:
                    why_not = Restored()
                for one in list(self._staged):
                    self._go_on(one, why_not)
            if missing:
                self._tell_vanished_from_own(missing)
        finally:
            with self.inboxes.at(source_id, leaving=True):
                self._leave(folders, staging)
        return self._ended

    def _stage(self, folders: Folders, staging: StagingFolders, file: LocalFile, proof: DeletionProof) -> None:
        try:
            if self.final_check.stops:
                raise Restored
            self.may_go(file)
            deleting = self.begin(folders, staging, file, proof)
            stands = next(deleting)
        except StopIteration as end:
            self._ended.append((file, end.value))
        except InboxSilent:
            raise
        except Exception as error:  # noqa: BLE001  an outcome like another: how the others ended must not be forgotten
            self._ended.append((file, error))
        else:
            self._staged.append(_Staged(file, proof.key, deleting, stands))

    def _ask_store(self) -> tuple[Exception | None, set[str]]:
        """(why none may go, the keys of objects that are gone)."""
        if not self._staged:
            return None, set()
        try:
            return None, self.final_check.gone({one.key: self.receipt(one.file) for one in self._staged})
        except Exception as error:  # noqa: BLE001  the outcome of each of them
            return error, set()

    def _go_on(self, one: _Staged, why_not: Exception | None) -> None:
        """Unlink it, or put it back."""
        result: Result
        try:
            if why_not is None:
                try:
                    self.may_go(one.file)
                except InboxSilent:
                    raise
                except Exception as error:  # noqa: BLE001  thrown into the deletion, which puts the file back
                    why_not = error
            if why_not is None:
                next(one.deleting)
            else:
                one.deleting.throw(why_not)
            result = RuntimeError("a deletion has stopped twice")
        except StopIteration as end:
            result = end.value
        except InboxSilent:
            raise
        except Exception as error:  # noqa: BLE001  an outcome like another
            result = error
        self._staged = [other for other in self._staged if other is not one]
        self._ended.append((one.file, result))

    def _tell_vanished_from_own(self, missing: list[_Staged]) -> None:
        """Now that they stand under their names again: an object that is back went with its file, and is the file."""
        why_not, still_gone = None, set[str]()
        try:
            still_gone = self.final_check.gone({one.key: self.receipt(one.file) for one in missing})
        except Exception as error:  # noqa: BLE001  the outcome of each of them
            why_not = error
        results = {
            one.file.file_id: why_not
            or (
                Vanished("an object was not there when its local file was to go") if one.key in still_gone else Itself()
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
                    self.left_staged()
        finally:
            try:
                staging.__exit__(None, None, None)
            finally:
                folders.__exit__(None, None, None)
