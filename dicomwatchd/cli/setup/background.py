"""A daemon that setup starts itself, where there is no service, for as long as its test study takes."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from dicomwatchd.cli.setup.steps import Command, Ran
from dicomwatchd.control.client import ControlClient, DaemonUnreachable

#: How long its start may take, and its end: it finishes the file that it is at.
_START_SECONDS, _STOP_SECONDS = 120.0, 90.0
_POLL_SECONDS = 0.1
_LOG_LINES = 5


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A lost connection, or the end of the machine, ends what is within like an exception: what was started in it is
    stopped first. Raises SystemExit with the shell's exit code for it."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with ExitStack() as stack:
        for number in (signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                stack.callback(signal.signal, number, signal.signal(number, end))
        yield


class Background:
    """``command`` is the daemon's, in the words of a shell; it writes its log to ``log``. ``stop`` may be called more
    than once."""

    def __init__(
        self,
        command: tuple[str, ...],
        log: Path,
        socket_path: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = log
        self._text = f"{shlex.join(command)} 2>> {shlex.quote(str(log))}"
        self._socket_path = socket_path
        self._sleep, self._monotonic = sleep, monotonic
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> Command:
        return Command(("/bin/sh", "-c", f"exec {self._text}"), f"{self._text} &")

    @property
    def is_ours(self) -> bool:
        return self._process is not None

    def running(self) -> str | None:
        """Whether a daemon with this configuration runs already, in words."""
        return "a daemon runs already" if self._answers() else None

    def start(self) -> Ran:
        """Returns when it is ready, or has ended, or takes too long."""
        self._process = subprocess.Popen(
            self.command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for setup, which stops it in its own way
        )
        deadline = self._monotonic() + _START_SECONDS
        while self._process.poll() is None:
            if self._answers():
                return Ran(0)
            if self._monotonic() > deadline:
                self.stop()
                return Ran(1, self._last_lines(), f"it was not ready within {_START_SECONDS:.0f} s")
            self._sleep(_POLL_SECONDS)
        code, self._process = self._process.returncode, None
        return Ran(code or 1, self._last_lines(), f"it has ended with {code}")

    def stop(self) -> Ran:
        """Returns when it has ended. Killed after a while: its state survives that."""
        process, self._process = self._process, None
        if process is None:
            return Ran(0)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return Ran(1, "", f"it did not end within {_STOP_SECONDS:.0f} s, and was killed")
        return Ran(0)

    def _answers(self) -> bool:
        try:
            ControlClient(self._socket_path, connect_seconds=1.0).call("status", answer_seconds=10.0)
        except DaemonUnreachable:
            return False
        return True

    def _last_lines(self) -> str:
        with suppress(OSError):
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])
        return ""
