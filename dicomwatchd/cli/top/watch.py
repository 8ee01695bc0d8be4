"""`top` at work: somebody asks the daemon, somebody else waits for keys and draws."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicomwatchd.cli.terminal import glyphs, output
from dicomwatchd.cli.top import terminal
from dicomwatchd.cli.top.asking import DaemonTooOld
from dicomwatchd.cli.top.screen import Away, screen
from dicomwatchd.cli.top.seen import Seen
from dicomwatchd.control.client import DaemonClosed, DaemonNotRunning, DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import DicomwatchdError

#: The daemon is not asked more often.
EVERY_SECONDS = 1.0
#: After an answer that took a second there are so many without asking, up to the longest pause.
REST, LONGEST_PAUSE_SECONDS = 20.0, 30.0

Ask = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class News:
    """The newest answer, or why there is none."""

    said: dict[str, Any] | None = None
    error: DicomwatchdError | None = None


class Asking:
    """A thread that asks, again and again; whoever reads the news waits for nobody."""

    def __init__(self, ask: Ask, woken_fd: int) -> None:
        self._ask, self._woken_fd = ask, woken_fd
        self._lock = threading.Lock()
        self._news: News | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self._thread.start()

    def news(self) -> News | None:
        """What came since this was last called; None where nothing has."""
        with self._lock:
            found, self._news = self._news, None
            return found

    def end(self) -> None:
        """What is asked just now is not waited for."""
        with self._lock:
            self._ended.set()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            news = self._one()
            took = time.monotonic() - begun
            with self._lock:
                if self._ended.is_set():
                    return  # the pipe may be another file by now
                self._news = news
                with suppress(BlockingIOError):
                    os.write(self._woken_fd, b"n")
            pause = EVERY_SECONDS if news.error else min(REST * took, LONGEST_PAUSE_SECONDS)
            if self._ended.wait(max(EVERY_SECONDS - took, pause)):
                return

    def _one(self) -> News:
        try:
            return News(self._ask())
        except DicomwatchdError as error:
            return News(error=error)


def watch(ask: Ask) -> None:
    """Until somebody quits. Raises DicomwatchdError where asking again is of no use: no permission, a daemon that is
    too old."""
    from rich.console import Console

    # Without the size that the environment tells: it stays as it is when the terminal's changes.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    console = Console(highlight=False, markup=False, emoji=False, _environ=environment)
    how = glyphs.for_stream(sys.stdout)
    with terminal.waking() as (reading, writing):
        asking = Asking(ask, writing)
        try:
            watching = _Watching(asking)
            while True:
                with terminal.opened(console, reading) as display:
                    why = watching.run(display, how)
                if why != "suspend":
                    return
                _suspend()
        except KeyboardInterrupt:
            return
        finally:
            asking.end()


def _suspend() -> None:
    """As Ctrl-Z does it to a program that takes no notice of it, with whatever stands before it (sudo); returns when it
    goes on. By SIGSTOP: the kernel drops SIGTSTP where no shell would be there to let it go on."""
    os.killpg(0, signal.SIGSTOP)


class _Watching:
    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._seen = Seen()
        self._away: Away | None = None
        self._scrolled = 0

    def run(self, display: terminal.Screen, how: glyphs.Glyphs) -> str:
        """Draws until a key says how it ends: "quit" or "suspend"."""
        while True:
            self._take(self._asking.news())
            width, height = display.size
            shown = screen(self._seen, width, height, how, away=self._away, scrolled=self._scrolled)
            display.draw(shown.lines)
            key = display.wait(EVERY_SECONDS)
            if key in ("quit", "suspend"):
                return key
            step = {"up": -1, "down": 1, "page-up": -10, "page-down": 10}.get(key or "", 0)
            self._scrolled = max(0, min(shown.furthest, self._scrolled + step))

    def _take(self, news: News | None) -> None:
        if news is None:
            return
        if news.said is not None:
            self._seen.answer(news.said)
            self._away = None
            return
        assert news.error is not None  # noqa: S101  one of them is there
        text = _away(news.error)
        if self._away is None or self._away.text != text:
            self._away = Away(text, datetime.now().astimezone())


def _away(error: DicomwatchdError) -> str:
    """Raises the error where asking again is of no use."""
    match error:
        case DaemonClosed() | DaemonTooOld():
            raise error
        case DaemonNotRunning():
            return "THE DAEMON IS NOT RUNNING"
        case DaemonUnreachable():
            return "THE DAEMON DOES NOT ANSWER"
        case DaemonRefused():
            return f"The daemon cannot tell: {output.clean(error.message)}"
    raise error
