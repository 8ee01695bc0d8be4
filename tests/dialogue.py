"""A program at a terminal of its own (a pty), and a person who reads what it says and types."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self


class AtTheTerminal:
    """The program runs while this is a context; at its end it is killed if it still does."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.said = ""
        self._command, self._environment = command, {**environment, "TERM": "dumb", "COLUMNS": "200"}
        self._read_up_to = 0

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=self._environment,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def reads(self, text: str, seconds: float = 30) -> str:
        """Wait until the program says this, after what was read before; returns what came up to its end."""
        deadline = time.monotonic() + seconds
        while (at := self.said.find(text, self._read_up_to)) < 0:
            left = deadline - time.monotonic()
            assert left > 0 and self._more(left), f"it never said {text!r}:\n{self.said}"
        begun, self._read_up_to = self._read_up_to, at + len(text)
        return self.said[begun : self._read_up_to]

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode() + b"\n")

    def answers(self, question: str, *texts: str) -> None:
        """To a question, each text when it is asked."""
        for text in texts:
            self.reads(question)
            self.reads("]: ")
            self.types(text)

    def ends(self, seconds: float = 60) -> int:
        """Its exit code."""
        deadline = time.monotonic() + seconds
        while self._more(max(deadline - time.monotonic(), 0.01)):
            assert time.monotonic() < deadline, f"it does not end:\n{self.said}"
        return self._process.wait(60)

    def _more(self, seconds: float) -> bool:
        """Whether anything more has come in time; at the program's end the terminal is gone (EIO)."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:
            return False
        self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace")).replace("\r\n", "\n")
        return bool(data)
