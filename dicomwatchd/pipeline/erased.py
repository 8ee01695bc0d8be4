"""A study that was erased from the archive is not archived again by itself, and none of its local files is deleted.

Whoever is about to send something of a study, to record it, or to delete a local file of it, asks here first. The word
of the store holds for `LOOK_SECONDS`. Who erases waits four times as long between the record of the erasure and the
first deletion (`archive.erasing.erasure.SETTLE_SECONDS`): so a local file that is deleted on an older look is one whose
object is there at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Permanent, StateUnavailable, Stopping, StudyErased, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue.erasures import ErasuresNoted
from dicomwatchd.queue.holds import ERASED, Found, Holds

#: So long a look for the record is good for, counted from before it was asked for.
LOOK_SECONDS = 30.0
#: Between two rounds for what was erased meanwhile.
NOTING_SECONDS = 900.0
#: Looks that are remembered.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Look:
    """By either clock, before the store was asked; and what it says, once it has answered."""

    now: float
    monotonic: float
    found: Future[Erasure | None] = field(default_factory=Future)
    thread: int = field(default_factory=threading.get_ident)

    @property
    def is_to_be_had(self) -> bool:
        """Of what is being found out it is, too, but for the thread that does that: nobody waits for himself."""
        return self.found.done() or self.thread != threading.get_ident()


class ErasedStudies:
    """Safe to use from many threads."""

    def __init__(
        self,
        store: ObjectStore,
        holds: Holds,
        noted: ErasuresNoted,
        clock: Clock,
        log: Log,
        in_trouble: Callable[[], bool] = lambda: False,
        *,
        require_archive: Callable[[], None],
    ) -> None:
        """``in_trouble`` tells that the store does not answer at the moment, so that `step` leaves it alone;
        ``require_archive`` raises where the store is another place than the archive."""
        self._store, self._holds, self._noted, self._clock, self._log = store, holds, noted, clock, log
        self._in_trouble, self._require_archive = in_trouble, require_archive
        self._next_round = clock.monotonic()
        self._lock = threading.Lock()
        self._looks: dict[Uid, _Look] = {}
        #: Keys of erasures that have ended, which is for good.
        self._ended: set[str] = set()

    def require_none(self, study: Uid) -> int:
        """The revision up to which manifests of the study were erased, all of them before somebody released it here; 0
        where it never was. Raises StudyErased where the study was erased and not released since: then that is on record
        here, and the study is held; Transient, also while it is still being erased; Permanent."""
        erasure = self._newest(study)
        if erasure is None:
            return 0
        self._note(erasure)
        held, is_new = self._hold(erasure)
        if is_new:
            self._log.warning(
                "study-erased",
                "a study of which there are files here was erased from the archive; they are neither archived nor"
                " deleted until somebody releases the study (dicomwatchctl attention)",
                study_uid=study,
            )
        if held:
            raise StudyErased("the study was erased from the archive; its local files are kept")
        self._require_ended(erasure)
        return erasure.through_revision

    def require_none_since(self, study: Uid, through_revision: int) -> None:
        """As `require_none`; and that the newest erasure is still the one of which that has said ``through_revision``.
        What was seen of the archive before a later one may be gone, whoever has released the study since. Raises
        Transient for that, too."""
        if self.require_none(study) != through_revision:
            raise Transient(
                "the study was erased from the archive, and released here, while it was being archived; it is archived"
                " again from the beginning",
                code="erased-meanwhile",
            )

    def _require_ended(self, erasure: Erasure) -> None:
        """Whoever erases deletes all that is there of the study, what is archived anew among it. Raises Transient."""
        if erasure.key in self._ended:
            return
        if not erasures.has_ended(self._store, erasure, self._clock.now()):
            raise Transient(
                "the study is just being erased from the archive; what is here of it waits until that has ended",
                code="being-erased",
                hint="where archive erase was broken off run it again, or wait for a day",
            )
        if len(self._ended) >= _REMEMBERED:
            self._ended.clear()
        self._ended.add(erasure.key)

    def step(self) -> bool:
        """Every so often: note what was erased since, of studies that were ever here, also where no file of them comes
        any more; and let go what the state says of them. Whether there is more to do at once. Raises Transient where
        the state fails, Stopping. One thread calls it."""
        if self._clock.monotonic() < self._next_round or self._in_trouble():
            return False
        self._next_round = self._clock.monotonic() + NOTING_SECONDS
        try:
            for study, number in self._noted.concerning(list(erasures.numbers(self._store))):
                with suppress(Permanent):  # one that is damaged hides no other; whoever has files of it is told
                    erasure = erasures.load(self._store, study, number)
                    self._require_archive()
                    self._note(erasure)
                    if ERASED in self._holds.codes(study):
                        self._hold(erasure)  # for this one by now, which is what a person is to see
        except (Stopping, StateUnavailable):
            raise
        except DicomwatchdError:
            pass  # what does not answer now is asked in the next round; nothing is archived or deleted meanwhile
        while self._noted.forget():
            pass
        return False

    def _hold(self, erasure: Erasure) -> tuple[bool, bool]:
        """As `Holds.hold`."""
        return self._holds.hold(
            erasure.study_uid, ERASED, _found(erasure), lambda released: _number(released) >= erasure.number
        )

    def _note(self, erasure: Erasure) -> None:
        said = erasure.document()
        self._noted.note(
            erasure.study_uid, erasure.number, {name: said[name] for name in ("erased_at", "because", "erased_by")}
        )

    def _newest(self, study: Uid) -> Erasure | None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        with self._lock:
            last = self._looks.get(study)
            # A machine that was asleep has not counted that on the one clock; and the other may have been set.
            is_young = last is not None and _is_young(last.now, now) and _is_young(last.monotonic, monotonic)
            is_there = last is not None and is_young and last.is_to_be_had
            if last is None or not is_there:
                if len(self._looks) >= _REMEMBERED:
                    self._looks.clear()
                last = self._looks[study] = _Look(now, monotonic)
        if is_there:  # or is being found out: a study's workers begin all at once, and one of them looks for all
            return last.found.result()
        try:
            found = erasures.newest(self._store, study)
            if found is not None:
                self._require_archive()  # what it says is put on record here, and holds the study
        except BaseException as error:
            with self._lock:
                if self._looks.get(study) is last:
                    del self._looks[study]
            last.found.set_exception(error)
            raise
        last.found.set_result(found)
        return found


def _is_young(asked_at: float, now: float) -> bool:
    return 0 <= now - asked_at <= LOOK_SECONDS


def _found(erasure: Erasure) -> Found:
    """For whoever looks at what is held: the reason is text of a person's, and nothing of it is logged."""
    return [{"number": str(erasure.number), "erased_at": erasure.erased_at, "because": erasure.because}]


def _number(found: Found) -> int:
    return max((int(one.get("number", 0)) for one in found), default=0)
