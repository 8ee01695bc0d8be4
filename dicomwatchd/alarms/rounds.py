"""The rounds of the alarms' thread: what is amiss is compared with what is on record, and told when it begins or ends.

In the journal first, and then on record: who is killed in between says it once more, and nobody is left unsaid.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dicomwatchd.alarms.conditions import Condition
from dicomwatchd.alarms.hook import Hook, HookFailed, Interrupted, Why
from dicomwatchd.alarms.kinds import Found, Kind, is_known, read_on
from dicomwatchd.errors import Transient
from dicomwatchd.ports import Clock, Log, timestamp
from dicomwatchd.queue.alarms import AlarmsKept, KeptAlarm
from dicomwatchd.queue.hours import InboxHours

ROUND_SECONDS = 5.0
#: The hours of the inboxes are put down so often.
WRITE_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0
#: The command is told of so many at once, and not again before so many seconds have passed.
AT_ONCE = 100
REST_SECONDS = 10.0
#: Whether it could be run is looked at so often; where it could not be, after each rest.
_LOOK_SECONDS = 3600.0

_Key = tuple[str, str]
#: What of the configuration an alarm can be about: said in the journal as fields, too.
_NAMES = ("inbox", "receiver", "destination", "certificate")


class Alarms:
    """``run`` is the thread; everything else but `document` and `problems` is its. ``watched`` are the sources of the
    configured inboxes, and whether each can be seen now."""

    def __init__(
        self,
        kept: AlarmsKept,
        hours: InboxHours,
        conditions: Sequence[Condition],
        watched: Callable[[], Mapping[int, bool]],
        hook: Hook | None,
        clock: Clock,
        log: Log,
    ) -> None:
        self._kept, self._hours, self._conditions, self._watched = kept, hours, conditions, watched
        self._hook, self._clock, self._log = hook, clock, log
        self._comparing = threading.Lock()
        self._runs = False
        self._said: set[tuple[_Key, bool]] = set()
        self._seconds: Counter[int] = Counter()
        self._looked_at = clock.monotonic()
        self._write_at = self._looked_at + WRITE_SECONDS
        self._prune_at = self._looked_at + WRITE_SECONDS
        self._hook_at = self._look_at = self._looked_at
        self._problem: str | None = None
        self._cannot_be_run = False

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        self._check()
        self._runs = True

        def wait(seconds: float) -> bool:
            beat()
            return stopping.wait(seconds)

        while not wait(ROUND_SECONDS):
            self.step(wait)
        with suppress(Transient):  # what has come since is worth a write, and no more
            self._watch()
            self._hours.write(self._all_seconds())

    def step(self, wait: Callable[[float], bool]) -> None:
        """A round. A state that cannot be written is left for the next: whoever writes to it says so. ``wait``: see
        `Hook.run`. Raises Fatal."""
        try:
            self._watch()
            self._put_down()
            self._compare()
            self._tell(wait)
            self._check()
        except Transient:
            return

    def document(self) -> list[dict[str, Any]]:
        """What is open now, for `status`. Raises Fatal."""
        with suppress(Transient):
            if self._runs:  # whoever has put something right asks for the status, and not five seconds later
                self._compare()
        return [_document(one) for one in self._kept.open() if is_known(one.code)]

    @property
    def problems(self) -> list[str]:
        """That the command cannot be run, or has failed, for `status`; empty where it works, or there is none."""
        return [] if self._problem is None else [f"on_alarm: the command {self._problem}"]

    # -- the hours of the inboxes -------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now = self._clock.monotonic()
        passed, self._looked_at = now - self._looked_at, now
        for source_id, is_seen in self._watched().items():
            self._seconds[source_id] += int(is_seen) * round(passed)

    def _all_seconds(self) -> dict[int, float]:
        return {source_id: float(self._seconds[source_id]) for source_id in self._watched()}

    def _put_down(self) -> None:
        now = self._clock.monotonic()
        if now >= self._write_at:
            self._hours.write(self._all_seconds())
            self._seconds.clear()
            self._write_at = now + WRITE_SECONDS
        if now >= self._prune_at:
            self._hours.prune()
            self._kept.step()
            self._prune_at = now + _PRUNE_SECONDS

    # -- what is amiss ------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        with self._comparing:
            self._compare_now()

    def _compare_now(self) -> None:
        found: dict[_Key, Found] = {}
        unsure: set[tuple[str, str | None]] = set()
        for said in (said for condition in self._conditions for said in condition()):
            if isinstance(said, Found):
                found[said.kind.value, said.subject] = said
            else:
                unsure.add((said.kind.value, said.subject))
        kept = {(one.code, one.subject): one for one in self._kept.open()}
        for key, one in found.items():
            known = kept.get(key)
            if known is None:
                self._say_begun(key, one)
                self._kept.begin(*key, one.sentence)
                self._said.discard((key, True))
            elif known.sentence != one.sentence:
                self._kept.reword(known.alarm_id, one.sentence)
        for key, over in kept.items():
            if key not in found and key not in unsure and (key[0], None) not in unsure:
                self._say_ended(key, over)
                self._kept.end(over.alarm_id)
                self._said.discard((key, False))

    def _say_begun(self, key: _Key, one: Found) -> None:
        """Once, though the state that it is to be put down in should be full for hours."""
        if (key, True) not in self._said:
            self._said.add((key, True))
            names = {name: one.fields[name] for name in _NAMES if name in one.fields}
            self._log.warning("alarm-begun", "alarm: {sentence}", alarm=key[0], sentence=one.sentence, **names)

    def _say_ended(self, key: _Key, known: KeptAlarm) -> None:
        if (key, False) not in self._said:
            self._said.add((key, False))
            open_seconds = max(0.0, self._clock.now() - known.begun_at)
            self._log.info(
                "alarm-ended", "the alarm {alarm} is over", alarm=key[0], open_seconds=open_seconds, **_names(*key)
            )

    # -- who is told --------------------------------------------------------------------------------------------------

    def _tell(self, wait: Callable[[float], bool]) -> None:
        untold = self._kept.untold(AT_ONCE)
        if not untold:
            return
        if self._hook is None:  # who configures one later is not told of what was
            self._kept.told(untold)
            return
        if self._clock.monotonic() < self._hook_at:
            return
        try:
            self._hook.run("".join(_lines(untold)), wait)
            self._problem, self._cannot_be_run = None, False
        except Interrupted:
            return  # the next start tells it
        except HookFailed as error:
            self._failed(error)
            self._cannot_be_run = error.why in (Why.MISSING, Why.NOT_SAFE)
            self._look_at = self._clock.monotonic() + REST_SECONDS
        self._hook_at = self._clock.monotonic() + REST_SECONDS
        self._kept.told(untold)

    def _check(self) -> None:
        """Whether the command could be run: better said at the start, and now and then, than when it is wanted; and
        whoever has put it right is told so before the next alarm. What has run and failed is no matter of this."""
        now = self._clock.monotonic()
        if self._hook is None or now < self._look_at:
            return
        was, self._cannot_be_run = self._cannot_be_run, False
        try:
            self._hook.check()
            self._problem = None if was else self._problem
        except HookFailed as error:
            self._cannot_be_run = True
            self._problem = error.in_words
            if not was:
                self._failed(error)
        self._look_at = self._clock.monotonic() + (REST_SECONDS if self._cannot_be_run else _LOOK_SECONDS)

    def _failed(self, error: HookFailed) -> None:
        self._problem = error.in_words
        self._log.warning(
            "alarm-hook-failed",
            "the command of on_alarm has not done its work; alarms are in the journal and in status",
            reason=error.why.value,
            exit_status=error.status,
        )


def _names(code: str, subject: str) -> dict[str, str]:
    """Of what in the configuration an alarm is, as a field of the journal; empty where there is only one."""
    if code == Kind.INBOX_SILENT:
        return {"inbox": subject}
    whose, _, name = subject.partition(" ")
    if code == Kind.CERTIFICATE and not name:
        return {"certificate": whose}
    return {whose: name} if name and whose in _NAMES else {}


def _document(one: KeptAlarm) -> dict[str, Any]:
    return {
        "alarm": one.code,
        "inbox": one.subject if one.code == Kind.INBOX_SILENT else None,
        "subject": one.subject,
        "sentence": one.sentence,
        "begun_at": timestamp(one.begun_at),
        "read_on": read_on(one.code),
    }


def _lines(untold: Iterable[KeptAlarm]) -> Iterable[str]:
    """A line of JSON for each begin and each end."""
    for one in untold:
        said = _document(one)
        for event, ended_at in (("begun", None), ("ended", one.ended_at)):
            if (event == "begun" and one.told == 0) or ended_at is not None:
                ended = None if ended_at is None else timestamp(ended_at)
                yield json.dumps({"event": event, **said, "ended_at": ended}) + "\n"
