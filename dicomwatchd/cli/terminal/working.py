"""A line on stderr, where that is a terminal, for a command that is at work for longer than a second and has said
nothing yet, and shows no bar: so that nobody takes it for one that hangs. Whatever is said takes its place."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

#: A command that is done sooner shows nothing.
AFTER_SECONDS = 1.0
_EVERY_SECONDS = 1.0
_KEY = "dicomwatchd.cli.terminal.working"


class Working:
    """From its making to `end`. ``what`` is what is going on."""

    def __init__(self, what: str, after_seconds: float = AFTER_SECONDS) -> None:
        self._what, self._after_seconds = what, after_seconds
        self._ended = threading.Event()
        self._shown = 0
        self._thread = threading.Thread(target=self._run, name="working", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Nothing is shown from here on, and nothing is left of what was."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self._write("")

    def _run(self) -> None:
        begun = time.monotonic()
        if self._ended.wait(self._after_seconds):
            return
        while True:
            self._write(f"{self._what}: at work for {time.monotonic() - begun:.0f} s")
            if self._ended.wait(_EVERY_SECONDS):
                return

    def _write(self, text: str) -> None:
        """Over what was shown: with blanks, which every terminal has."""
        text = text[: max(0, shutil.get_terminal_size().columns - 1)]
        if text or self._shown:
            with suppress(OSError, ValueError):  # a terminal that is gone is no reason to fail
                sys.stderr.write(f"\r{text:<{self._shown}}" + ("" if text else "\r"))
                sys.stderr.flush()
            self._shown = len(text)


@contextmanager
def shown(context: click.Context, what: str) -> Iterator[None]:
    """While this lasts, or until something is said by a command of this context."""
    if not sys.stderr.isatty():
        yield
        return
    working = context.meta[_KEY] = Working(what)
    try:
        yield
    finally:
        working.end()


def end() -> None:
    """Something is about to be said, or shown in another way."""
    context = click.get_current_context(silent=True)
    if context is not None and (working := context.meta.get(_KEY)) is not None:
        working.end()
