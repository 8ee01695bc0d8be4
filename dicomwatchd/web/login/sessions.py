"""Sessions: in memory, so that a log-out and a restart end them, and known by the hash of their cookie.

They are this process' own: nothing of them is in the cookie but 256 random bits.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from dicomwatchd.access.tokens import sha256_of
from dicomwatchd.config.web import WebSessions
from dicomwatchd.ports import Clock
from dicomwatchd.web.login.log_outs import LogOut
from dicomwatchd.web.people import Person

_MOST = 10_000
_MOST_EACH = 20
#: So many log-outs by the provider are remembered, for log-ins that were under way when they came.
_MOST_LOG_OUTS = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the provider let in, and in which session of its own, where it says that."""

    sub: str
    sid: str | None = None

    def is_meant_by(self, out: LogOut) -> bool:
        if out.sub is not None and out.sub != self.sub:
            return False
        if out.sid is not None and self.sid is not None:
            return out.sid == self.sid
        return out.sub is not None  # of a person all those of which it cannot be told which they are


@dataclass(slots=True)
class Session:
    """``token_sha256`` is the hash of the token that it was begun with, if it was with one: it ends with that.
    ``subject``: whom the provider has let in, if it was there."""

    person: Person
    token_sha256: str | None
    subject: Subject | None
    began: float
    used: float


class Sessions:
    """Safe from many threads."""

    def __init__(self, settings: WebSessions, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        #: The one that was used last is at the end.
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._log_outs: deque[LogOut] = deque(maxlen=_MOST_LOG_OUTS)
        self._log_outs_ever = 0

    def begin(self, person: Person, token_sha256: str | None = None, subject: Subject | None = None) -> str:
        """A new one; returns what its cookie holds. Never one that a browser came with: whoever knows that beforehand
        would have this session, too."""
        value, now = secrets.token_urlsafe(32), self._clock.monotonic()
        with self._lock:
            theirs = [key for key, one in self._open.items() if one.person.name == person.name]
            for key in theirs[: max(0, len(theirs) - _MOST_EACH + 1)]:
                del self._open[key]
            while len(self._open) >= _MOST:
                self._open.popitem(last=False)
            self._open[sha256_of(value)] = Session(person, token_sha256, subject, now, now)
        return value

    def find(self, value: str) -> Session | None:
        """The session of a cookie, used now; None where it has ended."""
        key, now = sha256_of(value), self._clock.monotonic()
        with self._lock:
            found = self._open.get(key)
            if found is None:
                return None
            if now - found.used > self._settings.idle_seconds or now - found.began > self._settings.longest_seconds:
                del self._open[key]
                return None
            found.used = now
            self._open.move_to_end(key)
            return found

    def end(self, value: str) -> None:
        """Unknown ones have ended already."""
        with self._lock:
            self._open.pop(sha256_of(value), None)

    def log_outs(self) -> int:
        """How many log-outs the provider has told of: to be asked before a log-in there is brought to its end."""
        with self._lock:
            return self._log_outs_ever

    def was_logged_out(self, subject: Subject, since: int) -> bool:
        """Whether one came after ``since``, of `log_outs`, that ends what is only just beginning."""
        with self._lock:
            missed = self._log_outs_ever - since
            if missed > len(self._log_outs):
                return True  # nobody remembers whose they were
            return any(subject.is_meant_by(self._log_outs[-number]) for number in range(1, missed + 1))

    def end_all(self, out: LogOut) -> int:
        """Those that the provider has ended; returns how many there were."""
        with self._lock:
            ended = [key for key, one in self._open.items() if one.subject is not None and one.subject.is_meant_by(out)]
            for key in ended:
                del self._open[key]
            self._log_outs.append(out)
            self._log_outs_ever += 1
        return len(ended)
