"""A handful of files of one folder on their last way: all are set aside, then the store is asked whether their objects
are there all the same, and only then they go, one after the other.

That look is the last line against everything by which a local file can turn out to be the archive's own: whatever
mounts, links and gateways stand between the two paths, an object that went with its file is not there any more. Then
the files of the handful stand under their names again, and no other of the purge goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dicomwatchd.answering import Inboxes
from dicomwatchd.archive.proof import still_there
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, Standing
from dicomwatchd.errors import DicomwatchdError, InboxSilent, Stopping, Vanished
from dicomwatchd.pipeline.deletion.aside import Places
from dicomwatchd.pipeline.deletion.proof import Deleting, DeletionProof, Itself, PutBack
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.ports import Sign, unwatched
from dicomwatchd.queue.rows import LocalFile

#: None: it is gone. A text: it turned out to be another file. Otherwise what has kept it.
Result = str | Exception | None
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _Look:
    wanted: dict[str, Receipt] = field(default_factory=dict)
    is_over: bool = False
    gone: set[str] = field(default_factory=set)
    error: BaseException | None = None


class Sight:
    """The last looks of one purge. One look serves all who have set their files aside before it has begun: who comes
    while one is under way waits for its end, and the next is for all who came meanwhile. So a page costs a request or
    two, however many work on it."""

    def __init__(self, store: ObjectStore, sign: Sign = unwatched) -> None:
        self._store = store
        self._sign = sign
        self._condition = threading.Condition()
        self._gathering = _Look()
        self._is_looking = False
        #: Of how many files the object was not there: nothing more goes.
        self.vanished = 0

    @property
    def stops(self) -> bool:
        return self.vanished > 0

    def gone(self, wanted: Mapping[str, Receipt]) -> set[str]:
        """Those of these keys whose objects the store does not show as what they were. Raises Transient, Stopping."""
        with self._condition:
            look = self._gathering
            look.wanted.update(wanted)
            while self._is_looking and not look.is_over:
                self._condition.wait(_LOOK_SECONDS)
                if self._sign():
                    raise Stopping("stopped while the store was asked")
            if not look.is_over:
                self._is_looking, self._gathering = True, _Look()
        if not look.is_over:
            self._ask(look)
        if look.error is not None:
            raise look.error
        return look.gone & wanted.keys()

    def _ask(self, look: _Look) -> None:
        try:
            look.gone = still_there.not_there(self._store, look.wanted, self._sign)
        except BaseException as error:  # noqa: BLE001  all who wait for this look raise it
            look.error = error
        finally:
            with self._condition:
                look.is_over, self._is_looking = True, False
                self._condition.notify_all()

    def note(self, files: int) -> None:
        with self._condition:
            self.vanished += files


@dataclass(slots=True)
class _Staged:
    file: LocalFile
    key: str
    deleting: Deleting
    stands: Standing


@dataclass(slots=True)
class Handful:
    """Files of one folder, each with its proof. ``begin`` begins a deletion; ``receipt`` is of the object that its
    proof names. ``may_go`` is asked again once the store was: it raises where a file is to stay after all.
    ``left_aside`` hears where a file could not be put back."""

    items: list[tuple[LocalFile, DeletionProof]]
    begin: Callable[[Folders, Places, LocalFile, DeletionProof], Deleting]
    may_go: Callable[[LocalFile], None]
    receipt: Callable[[LocalFile], Receipt]
    sight: Sight
    inboxes: Inboxes
    left_aside: Callable[[], None] = lambda: None
    _ended: list[tuple[LocalFile, Result]] = field(default_factory=list)
    _staged: list[_Staged] = field(default_factory=list)

    def delete(self) -> list[tuple[LocalFile, Result]]:
        """How each has ended. Raises InboxSilent."""
        source_id = self.items[0][0].source_id
        folders, places = Folders(self.inboxes), Places()
        try:
            with self.inboxes.at(source_id):
                for file, proof in self.items:
                    self._set_aside(folders, places, file, proof)
            # Not at the inbox: it need not show a sign of life while the store is asked.
            why_not, gone = self._look()
            with self.inboxes.at(source_id):
                missing = [one for one in self._staged if one.key in gone or one.stands is Standing.MISSING]
                if missing:
                    self.sight.note(len(missing))
                if why_not is None and self.sight.stops:
                    why_not = PutBack()
                for one in list(self._staged):
                    self._go_on(one, why_not)
            if missing:
                self._tell_apart(missing)
        finally:
            with self.inboxes.at(source_id, leaving=True):
                self._leave(folders, places)
        return self._ended

    def _set_aside(self, folders: Folders, places: Places, file: LocalFile, proof: DeletionProof) -> None:
        try:
            if self.sight.stops:
                raise PutBack
            self.may_go(file)
            deleting = self.begin(folders, places, file, proof)
            stands = next(deleting)
        except StopIteration as end:
            self._ended.append((file, end.value))
        except InboxSilent:
            raise
        except Exception as error:  # noqa: BLE001  an outcome like another: how the others ended must not be forgotten
            self._ended.append((file, error))
        else:
            self._staged.append(_Staged(file, proof.key, deleting, stands))

    def _look(self) -> tuple[Exception | None, set[str]]:
        """(why none may go, the keys of objects that are gone)."""
        if not self._staged:
            return None, set()
        try:
            return None, self.sight.gone({one.key: self.receipt(one.file) for one in self._staged})
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

    def _tell_apart(self, missing: list[_Staged]) -> None:
        """Now that they stand under their names again: an object that is back went with its file, and is the file."""
        why_not, still_gone = None, set[str]()
        try:
            still_gone = self.sight.gone({one.key: self.receipt(one.file) for one in missing})
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
            (file, results.get(file.file_id, result) if isinstance(result, PutBack) else result)
            for file, result in self._ended
        ]

    def _leave(self, folders: Folders, places: Places) -> None:
        """Whatever is still aside is put back."""
        try:
            for one in self._staged:
                try:
                    one.deleting.close()
                except DicomwatchdError:
                    self.left_aside()
        finally:
            try:
                places.__exit__(None, None, None)
            finally:
                folders.__exit__(None, None, None)
