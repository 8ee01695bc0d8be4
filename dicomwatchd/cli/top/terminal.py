"""The terminal that `top` has for itself: the alternate screen, keys one by one, its size when it changes; and all of
it given back whatever ends it, but for SIGKILL."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from dicomwatchd.cli.top.screen import Line

if TYPE_CHECKING:
    from rich.console import Console

#: What the keys of a terminal send that mean more than a letter.
_KEYS = {b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[5~": "page-up"} | {
    b"\x1b[6~": "page-down",
    b" ": "page-down",
    b"k": "up",
    b"j": "down",
    b"q": "quit",
    b"Q": "quit",
    b"\x03": "quit",
    b"\x04": "quit",
    b"\x0c": "redraw",
}
_USUAL = (80, 24)
#: A signal that ends a program, which is to give the terminal back first.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_usable() -> bool:
    """Whether keys can be read and the cursor can be moved here: not into a pipe, not on a dumb terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


class Ended(SystemExit):
    """By a signal; the exit code is the shell's for it."""


class Screen:
    """Between `opened` and its end."""

    def __init__(self, console: Console, stdin_fd: int, woken_fd: int) -> None:
        self._console = console
        self._stdin_fd, self._woken_fd = stdin_fd, woken_fd
        self._is_suspended = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now; the usual ones where the terminal does not know (0), as on a serial
        line."""
        found = os.get_terminal_size(sys.stdout.fileno())
        return found.columns or _USUAL[0], found.lines or _USUAL[1]

    def draw(self, lines: Iterable[Line]) -> None:
        """As many lines as there are, none too wide."""
        from rich.text import Text

        width, height = self.size
        text = Text("\n", no_wrap=True, overflow="crop", end="").join(Text.assemble(*line) for line in lines)
        self._console.update_screen(text, options=self._console.options.update(width=width, height=height))

    def wait(self, seconds: float) -> str | None:
        """The next key within this time; None where none came: then the size may be another one, there is news, or the
        time is over."""
        # Not select(), which cannot be asked about a descriptor above 1,023, and a caller may have left us many.
        poll = select.poll()
        for fd in (self._stdin_fd, self._woken_fd):
            poll.register(fd, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)}
        if self._woken_fd in readable:
            with suppress(BlockingIOError):
                os.read(self._woken_fd, 4096)
            if self._is_suspended:
                self._is_suspended = False
                return "suspend"
        if self._stdin_fd not in readable:
            return None
        typed = b""
        with suppress(OSError):  # as EIO, where nobody holds its other end any more
            typed = os.read(self._stdin_fd, 64)
        if not typed:
            return "quit"  # the terminal is gone
        if typed in _KEYS:
            return _KEYS[typed]
        # Several at once, over a slow line: the last that means something, but an end is an end.
        meant = [_KEYS[key] for at in range(len(typed)) if (key := typed[at : at + 1]) in _KEYS]
        return "quit" if "quit" in meant else (meant or [""])[-1]

    def suspend(self, _number: int, _frame: FrameType | None) -> None:
        self._is_suspended = True


@contextmanager
def opened(console: Console, woken_fd: int) -> Iterator[Screen]:
    """The terminal, from here on `top`'s. ``woken_fd`` is one end of a pipe to which a byte is written when there is
    news; signals are told there, too. Raises Ended for a signal that ends a program."""
    stdin_fd = sys.stdin.fileno()
    screen = Screen(console, stdin_fd, woken_fd)
    with ExitStack() as stack:
        for number in _ENDING:
            stack.callback(signal.signal, number, signal.signal(number, _end))
        stack.callback(signal.signal, signal.SIGTSTP, signal.signal(signal.SIGTSTP, screen.suspend))
        stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, lambda *_: None))
        before = termios.tcgetattr(stdin_fd)
        stack.callback(termios.tcsetattr, stdin_fd, termios.TCSAFLUSH, before)
        tty.setcbreak(stdin_fd)
        stack.enter_context(console.screen(hide_cursor=True))
        yield screen


def _end(number: int, _frame: FrameType | None) -> None:
    raise Ended(128 + number)


@contextmanager
def waking() -> Iterator[tuple[int, int]]:
    """A pipe, its reading end first, that signals are written to as well: what waits at it looks up at once."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading, writing
        finally:
            signal.set_wakeup_fd(before)
    finally:
        os.close(reading)
        os.close(writing)
