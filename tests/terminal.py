"""A terminal for tests: runs a program in a pseudo-terminal and keeps the screen as a person would see it.

Understands what rich's alternate screen sends: cursor positions, colours (dropped), the alternate screen, the cursor's
showing. Anything else is a failure of the test, so that nothing is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")
_SEEN_SECONDS = 60.0
#: A pseudo-terminal hands on a frame in pieces: so long after the last of them it counts as drawn.
_DRAWN_SECONDS = 0.05
_DRAWING_SECONDS = 2.0


class Terminal:
    """From its making to `close`. ``columns`` and ``lines`` are its size until `resize`."""

    def __init__(
        self,
        program: Sequence[str | Path],
        *,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.columns, self.lines = columns, lines
        self.is_alternate = self.is_cursor_hidden = False
        #: What was written outside of the alternate screen.
        self.outside = ""
        self.raw = b""
        self.code: int | None = None
        self._cells: list[list[str]] = []
        self._row = self._column = 0
        self._written_at = 0.0
        self._lock = threading.Lock()
        self._clear()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                _set_size(0, columns, lines)
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs have it ignored
                os.execvpe(str(program[0]), [str(one) for one in program], {**os.environ, **(environment or {})})
            finally:
                os._exit(127)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    # -- what a person does ---------------------------------------------------------------------------------------

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        with self._lock:
            self.columns, self.lines = columns, lines
            self._clear()
        _set_size(self._fd, columns, lines)  # the kernel tells the program by SIGWINCH

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap()
        self._thread.join(5)
        os.close(self._fd)

    # -- what a person sees ---------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The screen once nothing is being drawn on it."""
        end = time.monotonic() + _DRAWING_SECONDS
        while (now := time.monotonic()) < min(end, self._written_at + _DRAWN_SECONDS):
            time.sleep(max(0.0, min(end, self._written_at + _DRAWN_SECONDS) - now))
        with self._lock:
            return "\n".join("".join(row).rstrip() for row in self._cells)

    def row(self, word: str) -> str:
        """The first line with this word; "" without."""
        return next((line for line in self.text.splitlines() if word in line), "")

    def wait_for(self, condition: Callable[[], object], seconds: float = _SEEN_SECONDS, what: str = "") -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what or 'it'}:\n{self.text}\n{self.outside}"
            time.sleep(0.02)

    def wait_for_text(self, *words: str, seconds: float = _SEEN_SECONDS) -> None:
        self.wait_for(lambda: all(word in self.text for word in words), seconds, f"{words}")

    def wait_for_end(self, seconds: float = 60.0) -> int:
        """The exit code; of one that a signal has ended, negative."""
        end = time.monotonic() + seconds
        while self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
                break
            assert time.monotonic() < end, f"still there:\n{self.text}"
            time.sleep(0.02)
        self._thread.join(5)
        return self.code

    @property
    def modes(self) -> tuple[bool, bool]:
        """Whether the terminal shows what is typed, and waits for whole lines: as it was before, both."""
        local = termios.tcgetattr(self._fd)[3]
        return bool(local & termios.ECHO), bool(local & termios.ICANON)

    # -- the screen -----------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)

    def _clear(self) -> None:
        self._cells = [[" "] * self.columns for _ in range(self.lines)]

    def _read(self) -> None:
        left = ""
        while True:
            try:
                data = os.read(self._fd, 65536)
            except OSError as error:
                if error.errno != errno.EIO:  # the last one has closed it
                    raise
                return
            if not data:
                return
            self.raw += data
            self._written_at = time.monotonic()
            with self._lock:
                left = self._take(left + data.decode("utf-8", "replace"))

    def _take(self, text: str) -> str:
        """Returns what is the beginning of a sequence."""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
                continue
            match = _SEQUENCE.match(text, at)
            if match is None:
                if len(text) - at > 20:
                    raise AssertionError(f"unknown sequence {text[at : at + 20]!r}")
                return text[at:]
            self._obey(*match.groups())
            at = match.end()
        return ""

    def _put(self, character: str) -> None:
        if not self.is_alternate:
            self.outside += character
        elif character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
        elif self._row < self.lines and self._column < self.columns:
            self._cells[self._row][self._column] = character
            self._column += 1

    def _obey(self, private: str, numbers: str, letter: str) -> None:
        if private and letter in "hl":
            is_on = letter == "h"
            if numbers == "1049":
                self.is_alternate = is_on
            elif numbers == "25":
                self.is_cursor_hidden = not is_on
            else:
                raise AssertionError(f"unknown mode {numbers}")
        elif letter == "H":
            row, _, column = numbers.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif letter == "J":
            self._clear()
        elif letter not in "mK":
            raise AssertionError(f"unknown sequence {private}{numbers}{letter}")


def _set_size(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
