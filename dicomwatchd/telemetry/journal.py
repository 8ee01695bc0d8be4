"""The log: one entry per event, structured, into journald or as JSON lines on stderr.

The message of an entry is a constant of the program, or that of an error of our own. What varies goes into fields,
which telemetry.fields checks, and ``{name}`` in the message stands for a field's value.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TextIO

from dicomwatchd.ports import Clock, SystemClock, timestamp
from dicomwatchd.telemetry.fields import FieldValue, checked, checked_event, compose, named_in
from dicomwatchd.telemetry.figures import figures
from dicomwatchd.telemetry.origins import with_receivers

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
IDENTIFIER = "dicomwatchd"

#: syslog(3) priorities, which journald keeps
_PRIORITY: Mapping[Level, int] = {"ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``when`` is a Unix time; every value has passed telemetry.fields.checked(). ``named`` are the fields
    that the message says."""

    when: float
    level: Level
    event: str
    message: str
    fields: Mapping[str, FieldValue]
    named: frozenset[str] = frozenset()

    @property
    def priority(self) -> int:
        return _PRIORITY[self.level]


class Sink(Protocol):
    """Where entries go. write() raises OSError when that place is out of order."""

    def write(self, entry: Entry) -> None: ...


class JsonLines:
    """One JSON object a line. ``with_priority`` puts sd-daemon(3)'s ``<N>`` before it; journald takes it off."""

    def __init__(self, stream: TextIO, *, with_priority: bool = False) -> None:
        self._stream = stream
        self._with_priority = with_priority

    def write(self, entry: Entry) -> None:
        head = {
            "timestamp": timestamp(entry.when),
            "level": entry.level,
            "event": entry.event,
            "message": entry.message,
        }
        line = json.dumps(head | dict(entry.fields), ensure_ascii=True, allow_nan=False)
        prefix = f"<{entry.priority}>" if self._with_priority else ""
        try:
            self._stream.write(f"{prefix}{line}\n")
            self._stream.flush()
        except ValueError as error:  # the stream is closed
            raise OSError("the stream is closed") from error


class Journald:
    """Native entries with ``DICOMWATCHD_*`` fields. ``send`` is systemd.journal.sendv, of NAME=VALUE strings."""

    def __init__(self, send: Callable[..., object]) -> None:
        self._send = send

    def write(self, entry: Entry) -> None:
        fields = {"EVENT": entry.event, **{name.upper(): value for name, value in entry.fields.items()}}
        self._send(
            f"MESSAGE={entry.message} {figures(entry.fields, entry.named)}".rstrip(),
            f"PRIORITY={entry.priority}",
            f"SYSLOG_IDENTIFIER={IDENTIFIER}",
            *(f"DICOMWATCHD_{name}={_journald_value(value)}" for name, value in fields.items()),
        )


def _journald_value(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\n".join(value) if isinstance(value, tuple) else str(value)


class _Repeats:
    """How often the same thing may be said: ``limit`` times in ``window_seconds``, then it is counted only."""

    _MOST_KEYS = 1000

    def __init__(self, limit: int, window_seconds: float) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._seen: OrderedDict[object, tuple[float, int]] = OrderedDict()  # oldest window first

    def admit(self, key: object, now: float) -> int | None:
        """None: do not say it. A number: say it, and that so many before it were held back."""
        since, count = self._seen.get(key, (now, 0))
        if now - since < self._window_seconds:
            self._remember(key, since, count + 1)
            return 0 if count < self._limit else None
        self._seen.pop(key, None)
        self._remember(key, now, 1)
        return max(0, count - self._limit)

    def _remember(self, key: object, since: float, count: int) -> None:
        self._seen[key] = (since, count)
        if len(self._seen) > self._MOST_KEYS:
            self._seen.popitem(last=False)


class Journal:
    """The log of the daemon; handed to whoever has to say something. Safe to be called from any thread.

    ``event`` and ``message`` are constants at the place of the call (``message`` may be an own error's message;
    better to pass ``**error_fields(error)``, which adds it by itself).
    ``strict``, for tests, raises ValueError on a field that does not belong in a log; without it the field is
    dropped and counted. ``never`` is a last net: texts (the inboxes' paths) that must not be in any entry; one that
    holds them loses its message and strings.
    The same thing is said ``repeat_limit`` times in ``repeat_seconds``, and any one event ``event_limit`` times in
    30 seconds (journald takes 10,000 lines of a service in that time and drops the rest); the next entry after
    that says in ``suppressed`` how many were left out.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        level: Level = "INFO",
        strict: bool = False,
        never: Iterable[str] = (),
        repeat_limit: int = 10,
        repeat_seconds: float = 60,
        event_limit: int = 3000,
        clock: Clock | None = None,
    ) -> None:
        self.level: Level = level
        #: Of each inbox, by names: said by every entry that names the inbox.
        self.receivers: Mapping[str, Sequence[str]] = {}
        self._sink = sink
        self._strict = strict
        self._never: tuple[str, ...] = ()
        self.set_never(never)
        self._clock = clock or SystemClock()
        self._repeats = _Repeats(repeat_limit, repeat_seconds)
        self._events = _Repeats(event_limit, 30)
        # Re-entrant: an object dropped in here may end in sys.unraisablehook, which logs.
        self._lock = threading.RLock()

    def set_never(self, texts: Iterable[str]) -> None:
        """Replace the texts of the last net; very short ones would match anything and are left out."""
        self._never = tuple(text for text in texts if len(text) > 3)

    def debug(self, event: str, message: str, **fields: object) -> None:
        self._log("DEBUG", event, message, fields)

    def info(self, event: str, message: str, **fields: object) -> None:
        self._log("INFO", event, message, fields)

    def warning(self, event: str, message: str, **fields: object) -> None:
        self._log("WARNING", event, message, fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        self._log("ERROR", event, message, fields)

    def _log(self, level: Level, event: str, template: str, given: Mapping[str, object]) -> None:
        # Checked before the level is looked at: a test at INFO finds a bad DEBUG call too.
        fields = checked(with_receivers(given, self.receivers), strict=self._strict)
        event = checked_event(event, strict=self._strict)
        message = compose(template, fields, strict=self._strict)
        if "error" in fields and "{error}" not in template:
            message = f"{message}: {fields['error']}" + (f" ({fields['hint']})" if "hint" in fields else "")
        if _PRIORITY[level] > _PRIORITY[self.level]:
            return
        if any(text in part for text in self._never for part in _strings(message, fields)):
            if self._strict:
                raise ValueError("a log entry contained text that must never be logged")
            message = "the text of this entry was withheld"
            fields = {name: value for name, value in fields.items() if isinstance(value, int | float)}
        with self._lock:
            now = self._clock.monotonic()
            same = self._repeats.admit((event, level, *_words(fields)), now)
            if same is None:
                return
            flood = self._events.admit(event, now)
            if flood is None:
                return
            if same or flood:
                fields["suppressed"] = max(same, flood)
            entry = Entry(self._clock.now(), level, event, message, fields, named_in(template))
            try:
                self._sink.write(entry)
            except OSError:
                # There is nowhere left to say it, and a log that fails stops nothing.
                return


def _strings(message: str, fields: Mapping[str, FieldValue]) -> Iterable[str]:
    yield message
    for value in fields.values():
        if isinstance(value, tuple):
            yield from value
        elif isinstance(value, str):
            yield value


def _words(fields: Mapping[str, FieldValue]) -> Iterable[tuple[str, FieldValue]]:
    """What makes two entries the same: their words, not their figures."""
    return [(name, value) for name, value in fields.items() if isinstance(value, str | tuple)]


def open_journal(
    stream: TextIO,
    *,
    level: Level = "INFO",
    strict: bool = False,
    never: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Journal:
    """The journal that fits how this process was started.

    Native entries when ``stream`` is connected to journald (systemd.exec(5), $JOURNAL_STREAM) and systemd-python
    is there, JSON lines on ``stream`` otherwise: whoever redirects stderr wants the log where it goes.
    """
    sink: Sink = JsonLines(stream)
    if goes_to_journald(stream, environ):
        try:
            from systemd.journal import sendv
        except ImportError:
            sink = JsonLines(stream, with_priority=True)
        else:
            sink = Journald(sendv)
    return Journal(sink, level=level, strict=strict, never=never)


def goes_to_journald(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is the one that systemd connected to the journal."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
