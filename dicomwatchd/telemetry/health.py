"""What the service manager is told: ready, reloading, status, stopping, and the watchdog's ping.

systemd's notification protocol is in sd_notify(3); the ping is sent only while every worker shows signs of life.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Collection, Mapping

import sdnotify

from dicomwatchd.ports import Clock, SystemClock
from dicomwatchd.telemetry.fields import checked, compose

#: What a start that is at work asks for, each time.
EXTEND_SECONDS = 30.0


class Heartbeats:
    """The threads that must show signs of life, and when each last did. Safe to be called from any thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._limits: dict[str, float] = {}
        #: Threads whose silence somebody else watches over, as while they wait for an inbox.
        self.excused: Callable[[], Collection[str]] = tuple

    def register(self, name: str, limit_seconds: float) -> None:
        """From now on ``name`` has to beat at least every ``limit_seconds``; this is its first beat."""
        with self._lock:
            self._limits[name] = limit_seconds
            self._last[name] = self._clock.monotonic()

    def unregister(self, name: str) -> None:
        """``name`` has ended as it should. Unknown names are no fault."""
        with self._lock:
            self._limits.pop(name, None)
            self._last.pop(name, None)

    def beat(self, name: str) -> None:
        """``name`` is alive. Without a registration it does nothing: a worker may beat once more after it was let
        go, and under a misspelt name the right one goes stale, which is noticed."""
        with self._lock:
            if name in self._limits:
                self._last[name] = self._clock.monotonic()

    def stale(self, now: float | None = None) -> list[str]:
        """The names that have been silent for longer than their limit, sorted."""
        with self._lock:
            at = self._clock.monotonic() if now is None else now
            late = sorted(name for name, limit in self._limits.items() if at - self._last[name] > limit)
        excused = self.excused() if late else ()
        return [name for name in late if name not in excused]


class ServiceManager:
    """Tells systemd how the daemon is; does nothing where there is no NOTIFY_SOCKET.

    ``send`` takes one datagram. ``watchdog_seconds`` is the longest time between two pings that systemd bears,
    None where it expects none.
    """

    def __init__(
        self,
        send: Callable[[str], object] | None = None,
        *,
        watchdog_seconds: float | None = None,
        clock: Clock | None = None,
        strict: bool = False,
    ) -> None:
        self._send = send or (lambda _state: None)
        self.watchdog_seconds = watchdog_seconds
        self._clock = clock or SystemClock()
        self._strict = strict
        self._next_extension = -math.inf

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ServiceManager:
        """As systemd started this process (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        if not environ.get("NOTIFY_SOCKET"):
            return cls()
        watchdog = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(
            sdnotify.SystemdNotifier().notify,
            watchdog_seconds=int(watchdog) / 1e6 if mine and watchdog.isdecimal() and int(watchdog) > 0 else None,
        )

    @property
    def ping_interval_seconds(self) -> float | None:
        """How often ping() should be called: a third of what systemd bears."""
        return None if self.watchdog_seconds is None else self.watchdog_seconds / 3

    def ready(self) -> None:
        """The daemon does its work (again): after the start and after each reload, whether it took the new
        configuration or kept the old one."""
        self._send("READY=1")

    def extend(self) -> None:
        """The start, or a reload, goes on: it may take so much longer from now on. Costs little to call often."""
        now = self._clock.monotonic()
        if now >= self._next_extension:
            self._next_extension = now + EXTEND_SECONDS / 6
            self._send(f"EXTEND_TIMEOUT_USEC={int(EXTEND_SECONDS * 1e6)}")

    def reloading(self) -> None:
        """A reload has begun. Type=notify-reload wants the time in the same datagram, and ready() after it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, message: str, **fields: object) -> None:
        """One line for `systemctl status`; as in the journal a constant message, ``{name}`` for checked fields."""
        accepted = checked(fields, strict=self._strict)
        self._send(f"STATUS={compose(message, accepted, strict=self._strict)}")

    def ping(self, heartbeats: Heartbeats) -> list[str]:
        """WATCHDOG=1, unless a heartbeat is stale; returns the stale ones. After silence systemd restarts us."""
        stale = heartbeats.stale()
        if not stale:
            self._send("WATCHDOG=1")
        return stale
