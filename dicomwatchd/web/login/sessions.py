"""Sessions: in memory, so that a log-out and a restart end them, and known by the hash of their cookie.

They are this process' own: nothing of them is in the cookie but 256 random bits.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from dicomwatchd.access.tokens import sha256_of
from dicomwatchd.config.web import WebSessions
from dicomwatchd.ports import Clock
from dicomwatchd.web.people import Person

_MOST = 10_000
_MOST_EACH = 20


@dataclass(slots=True)
class Session:
    """``token_sha256`` is the hash of the token that it was begun with, if it was with one: it ends with that."""

    person: Person
    token_sha256: str | None
    began: float
    used: float


class Sessions:
    """Safe from many threads."""

    def __init__(self, settings: WebSessions, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        #: The one that was used last is at the end.
        self._open: OrderedDict[str, Session] = OrderedDict()

    def begin(self, person: Person, token_sha256: str | None = None) -> str:
        """A new one; returns what its cookie holds. Never one that a browser came with: whoever knows that beforehand
        would have this session, too."""
        value, now = secrets.token_urlsafe(32), self._clock.monotonic()
        with self._lock:
            theirs = [key for key, one in self._open.items() if one.person.name == person.name]
            for key in theirs[: max(0, len(theirs) - _MOST_EACH + 1)]:
                del self._open[key]
            while len(self._open) >= _MOST:
                self._open.popitem(last=False)
            self._open[sha256_of(value)] = Session(person, token_sha256, now, now)
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
