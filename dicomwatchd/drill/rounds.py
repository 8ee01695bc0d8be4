"""When a drill is due, which study it takes, and what is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.drill.lot import Lot
from dicomwatchd.drill.scratch import Scratch, ScratchUnusable
from dicomwatchd.drill.trial import MANIFEST, Nothing, Trial
from dicomwatchd.errors import Fatal, Permanent, Stopping, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock, Log
from dicomwatchd.queue.drills import Drilled, Drills, Outcome
from dicomwatchd.telemetry.fields import error_fields

_DAY_SECONDS = 86400.0
#: How long after the start the first drill begins at the latest.
FIRST_SECONDS = 600.0
#: A study that has failed is tried again once a day: so it is told of until somebody has put it right, and no longer.
AGAIN_SECONDS = 86400.0
#: So many studies are looked at until one can be fetched; others were erased, lie in cold storage or are too large.
LOOKS = 8
#: While studies are being archived a drill waits so long between two pieces of 1 MiB at most.
GIVES_WAY_SECONDS = 0.1
_TURN_SECONDS = 1.0
_NO_LIMIT = 1 << 62


@dataclass(slots=True)
class Wanted:
    """A drill that somebody waits for. ``study`` is None where any will do. ``drilled`` is None after ``done`` where
    there was nothing to try."""

    study: Uid | None
    done: threading.Event = field(default_factory=threading.Event)
    drilled: Drilled | None = None
    #: The daemon stops first, or cannot write down what came of it.
    is_cut_off: bool = True
    #: Whoever has asked is gone.
    is_given_up: bool = False


class _GivenUp(Transient):
    """Nobody waits any more for a drill that was asked for."""

    code = "given-up"


class _Begun:
    """A drill that is under way, on record before its first byte comes: what it was to fetch counts for the day, and
    when it was for the next one's time, whatever becomes of it."""

    def __init__(self, drills: Drills, study: Uid) -> None:
        self._drills, self._study = drills, study
        self.drill_id: int | None = None

    def note(self, size_bytes: int) -> None:
        """Raises Transient, Fatal."""
        self.drill_id = self._drills.begin(self._study, size_bytes)

    def drop(self) -> None:
        """There was nothing to try. Raises Transient, Fatal."""
        if self.drill_id is not None:
            self._drills.drop(self.drill_id)


class RestoreDrills:
    """`run` is the thread. ``busy`` tells whether studies are being archived, ``in_trouble`` that the archive does not
    answer at the moment, so that it is left alone."""

    def __init__(
        self,
        drills: Drills,
        store: ObjectStore,
        archive_id: str,
        trial: Trial,
        scratch: Scratch,
        plan: RestoreDrill,
        clock: Clock,
        random: Random,
        log: Log,
        *,
        busy: Callable[[], bool] = lambda: False,
        in_trouble: Callable[[], bool] = lambda: False,
    ) -> None:
        self._drills, self._store, self._trial, self._scratch = drills, store, trial, scratch
        self._archive_id = archive_id
        self.plan = plan
        self._clock, self._random, self._log = clock, random, log
        self._busy, self._in_trouble = busy, in_trouble
        self._stopping = threading.Event()
        self._beat: Callable[[], None] = lambda: None
        self._wanted: list[Wanted] = []
        self._lock = threading.Lock()
        self._due: float | None = None
        self._runs = False
        self._current: Wanted | None = None
        self._was_again = False

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop: in the midst of a drill too, whose copies are then gone."""
        self._stopping, self._beat, self._runs = stopping, beat, True
        try:
            with suppress(Transient):  # the state's disk is full: whoever writes to it next says so
                self._drills.belong_to(self._archive_id)
            self.clear()
            while not stopping.is_set():
                beat()
                self.step()
                stopping.wait(_TURN_SECONDS)
        finally:
            with self._lock:
                self._runs = False
                for one in self._wanted:
                    one.done.set()

    def want(self, study: Uid | None) -> Wanted:
        """Somebody asks for a drill; it begins as soon as the thread has none under way. Raises Permanent."""
        wanted = Wanted(study)
        with self._lock:
            if not self._runs or self._stopping.is_set():
                raise Permanent("the daemon makes no restore drills just now", code="no-drills")
            self._wanted.append(wanted)
        return wanted

    def give_up(self, wanted: Wanted) -> None:
        """Whoever has asked is gone: what has begun is ended, what waits for its turn does not begin."""
        with self._lock:
            wanted.is_given_up = True
            self._wanted = [one for one in self._wanted if one is not wanted]

    def clear(self) -> None:
        """What a run that was killed has left."""
        try:
            removed = self._scratch.clear()
        except ScratchUnusable as error:
            self._log.warning(
                "restore-drill-scratch", "what restore drills have left cannot be removed", **error_fields(error)
            )
            return
        if removed:
            self._log.info(
                "restore-drill-scratch", "the copies of a restore drill that was cut off are removed", studies=removed
            )

    def step(self) -> None:
        """A drill that somebody waits for, or one that is due. Raises Stopping, Fatal."""
        with self._lock:
            wanted = self._current = self._wanted.pop(0) if self._wanted else None
        try:
            if wanted is not None:
                try:  # whatever was fetched today: a person has asked
                    wanted.drilled = self._turn(wanted.study, _NO_LIMIT)
                    wanted.is_cut_off = False
                finally:
                    wanted.done.set()
            elif self.plan.studies_per_day and self._is_due() and not self._in_trouble():
                self._due = self._clock.now() + self._pause()
                self._scheduled()
        except (Transient, Permanent):
            return  # as above
        except (Stopping, Fatal):
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours in a drill is no reason to archive nothing any more
            self._log.error("restore-drill-fault", "a restore drill was ended by a fault", **error_fields(error))
        finally:
            self._current = None

    # -- which study --------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        now, longest = self._clock.now(), 1.5 * _DAY_SECONDS / self.plan.studies_per_day
        if self._due is None:
            last = self._drills.figures().last_at
            soon = now + self._random.random() * min(FIRST_SECONDS, longest)
            self._due = soon if last is None else max(soon, last + self._pause())
        self._due = min(self._due, now + longest)  # a clock that was set back
        return now >= self._due

    def _pause(self) -> float:
        return (0.5 + self._random.random()) * _DAY_SECONDS / self.plan.studies_per_day

    def _scheduled(self) -> None:
        left = self.plan.bytes_per_day - self._drills.fetched_bytes(self._clock.now() - _DAY_SECONDS)
        if left > 0:
            # In turn: where many have failed, and nobody can put them right, something is to be known of the others.
            again = None if self._was_again else self._drills.due_again(self._clock.now() - AGAIN_SECONDS)
            self._was_again = again is not None
            self._turn(again, left)

    def _turn(self, study: Uid | None, left: int) -> Drilled | None:
        """This study, or any: then some are looked at until one was fetched, or could not be for a reason that is not
        its own. None where there was nothing to try."""
        drilled: Drilled | None = None
        for _ in range(LOOKS if study is None else 1):
            chosen = study or self._draw()
            if isinstance(chosen, Drilled):
                return self._told(chosen)
            if chosen is None:
                break
            begun = _Begun(self._drills, chosen)
            tried = self._trial.of(chosen, left, self._sign, self._sleep, begun.note)
            if tried is Nothing.ABSENT and self._drills.has_failed(chosen):
                tried = Drilled(chosen, Outcome.FAILED, MANIFEST)  # it was there, and nobody has erased it
            if isinstance(tried, Nothing):
                begun.drop()
                if tried is Nothing.ERASED:
                    self._drills.forget(chosen)
                continue
            drilled = self._told(tried, begun)
            if drilled.outcome not in (Outcome.COLD, Outcome.TOO_LARGE):
                break
            left -= drilled.size_bytes  # of one that turned out to be cold in the midst of it
        return drilled

    def _draw(self) -> Uid | Drilled | None:
        """A study at random; why not, where the store cannot be listed; None where it lists none. Raises Stopping."""
        lot = Lot(self._drills.lot())
        try:
            lot.walk(self._store, self._random, self._sign)
            return lot.draw(self._random)
        except (Transient, Permanent, Fatal) as error:
            return Drilled("", Outcome.NOT_DONE, error.code)
        finally:
            self._drills.keep_lot(lot.to_text())

    # -- what is told -------------------------------------------------------------------------------------------------

    def _told(self, drilled: Drilled, begun: _Begun | None = None) -> Drilled:
        """Put on record, in the place of what was when it began, and into the journal. Raises Transient, Fatal."""
        self._drills.record(drilled, None if begun is None else begun.drill_id)
        study = drilled.study_uid or None
        if not drilled.is_compared:
            self._log.info(
                "restore-drill-left-out",
                "a restore drill was not done",
                study_uid=study,
                reason=drilled.outcome.value,
                code=drilled.code or None,
            )
            return drilled
        figures = self._drills.figures()
        told = {
            "study_uid": study,
            "revision": drilled.revision or None,
            "instances": drilled.instances,
            "equal_count": drilled.equal,
            "bytes": drilled.size_bytes,
            "seconds": drilled.seconds,
            "all_count": figures.instances,
            "all_equal_count": figures.equal,
        }
        if drilled.outcome is Outcome.EQUAL:
            self._log.info(
                "restore-drill",
                "study {study_uid} came back: {equal_count:,} of {instances:,} instances are equal; in the last 30 days"
                " {all_equal_count:,} of {all_count:,} instances came back equal",
                **told,
            )
        else:
            self._log.error(
                "restore-drill-failed",
                "study {study_uid} did not come back as it is recorded: {equal_count:,} of {instances:,} instances are"
                " equal",
                code=drilled.code,
                failed_instances=drilled.instances - drilled.equal,
                **told,
            )
        return drilled

    def _sign(self) -> None:
        """Between two pieces: alive, and out of the way of the studies that are being archived. Raises Stopping."""
        self._beat()
        if self._busy():
            self._stopping.wait(GIVES_WAY_SECONDS)
        if self._stopping.is_set():
            raise Stopping("the daemon stops in the midst of a restore drill")
        if self._current is not None and self._current.is_given_up:
            raise _GivenUp("nobody waits for this restore drill any more")

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)
        self._sign()
