"""The command of `on_alarm`: run without a shell, told on standard input, and gone when its time is over.

It is code that runs as the daemon's user, so neither it nor a folder on the way to it may be anybody else's to write.
It gets nothing of the daemon: no variables, no descriptors, no output that anybody would read. A thread of its own does
all that asks the command's file system for something, or waits for its end: the share that it is on may not answer.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from dicomwatchd.alarms.aside import Aside, Away, Work
from dicomwatchd.config.alarms import others_may_write

DEADLINE_SECONDS = 30.0
_LOOK_SECONDS = 0.1
#: How much longer than that it is waited for until its end has been seen, or its file system has answered.
_GRACE_SECONDS = 5.0
_NO_ANSWER = "it, or the file system that it is on, does not answer"
_MOST_LINKS = 40
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
#: Of its own, below those of the service that it shares. See LimitCORE= of the unit for why that is 1.
_LIMITS = ((resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_CPU, 60), (resource.RLIMIT_CORE, 1))


class Why(StrEnum):
    """Why nobody may count on it that the command has done what it is for."""

    MISSING = "missing"
    NOT_SAFE = "not-safe"
    NOT_STARTED = "not-started"
    FAILED = "failed"
    TOO_LATE = "too-late"


class HookFailed(Exception):
    """``detail`` for people: it says what is to be changed, and may name folders on the way to the command."""

    def __init__(self, why: Why, detail: str = "", status: int | None = None) -> None:
        super().__init__(why.value)
        self.why, self.detail, self.status = why, detail, status

    @property
    def in_words(self) -> str:
        """What is to be said of the command, after "the command"."""
        match self.why:
            case Why.FAILED if self.status is not None and self.status < 0:
                return f"was ended by signal {-self.status}"
            case Why.FAILED:
                return f"has failed with exit status {self.status}"
            case Why.TOO_LATE if not self.detail:
                return f"was not done within {DEADLINE_SECONDS:.0f} s, and was ended"
            case _:
                return f"cannot be run: {self.detail or self.why.value}"


class Interrupted(Exception):
    """The daemon stops, and the command with it."""


class Hook:
    """One at a time, by the thread that calls it."""

    def __init__(self, command: Sequence[str], monotonic: Callable[[], float], deadline_seconds: float) -> None:
        self._command = tuple(command)
        self._monotonic = monotonic
        self._deadline_seconds = deadline_seconds
        self._aside = Aside("on-alarm")

    def check(self) -> str:
        """The program that is to be run, with every link followed. Raises HookFailed."""
        with _translated():
            return self._aside.within(_GRACE_SECONDS, self._program)

    def run(self, text: str, wait: Callable[[float], bool]) -> None:
        """``text`` is its standard input. ``wait`` waits for so many seconds, and says whether to leave off. When this
        returns the command's process group is gone, or killed and in the kernel's hands. Raises HookFailed,
        Interrupted."""
        leave = threading.Event()
        with _translated():
            begun = self._aside.begin(lambda: self._run(text, leave))
        self._wait_for(begun, leave, wait)
        with _translated():
            begun.take()

    def _wait_for(self, begun: Work[None], leave: threading.Event, wait: Callable[[float], bool]) -> None:
        until = self._monotonic() + self._deadline_seconds + _GRACE_SECONDS
        while not begun.done.is_set():
            if wait(_LOOK_SECONDS):
                leave.set()
                if not begun.done.wait(_GRACE_SECONDS):
                    raise Interrupted
                return
            if self._monotonic() >= until:
                leave.set()
                raise HookFailed(Why.TOO_LATE, _NO_ANSWER)

    # -- the thread of its own ----------------------------------------------------------------------------------------

    def _program(self) -> str:
        program = _trusted(self._command[0], os.geteuid())
        # Here, and not while it is started: that holds up all threads of this process.
        with suppress(OSError), open(program, "rb") as file:
            file.read(1)
        return program

    def _run(self, text: str, leave: threading.Event) -> None:
        """Raises HookFailed, Interrupted, OSError."""
        until = self._monotonic() + self._deadline_seconds
        program = self._program()
        if leave.is_set():
            raise Interrupted
        with open(os.memfd_create("alarm"), "w+b") as given:  # whoever does not read it holds nobody up
            given.write(text.encode())
            given.seek(0)
            process = subprocess.Popen(
                [self._command[0], *self._command[1:]],
                executable=program,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        _limit(process.pid)
        status = self._status(process, until, leave)
        if status:
            raise HookFailed(Why.FAILED, status=status)

    def _status(self, process: subprocess.Popen[bytes], until: float, leave: threading.Event) -> int:
        try:
            while not _has_ended(process.pid):
                if self._monotonic() >= until:
                    raise HookFailed(Why.TOO_LATE)
                if leave.wait(_LOOK_SECONDS) and not _has_ended(process.pid):
                    raise Interrupted
        finally:
            # Before its leader is waited for: until then nobody else's group can have that number.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        return status


@contextmanager
def _translated() -> Iterator[None]:
    """The daemon goes on whatever becomes of a command for alarms, and whatever the system has none left of."""
    try:
        yield
    except Away as error:
        raise HookFailed(Why.TOO_LATE, _NO_ANSWER) from error
    except OSError as error:
        raise HookFailed(Why.NOT_STARTED, os.strerror(error.errno or 0)) from error


def _has_ended(pid: int) -> bool:
    """Without taking its number off the table."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _limit(pid: int) -> None:
    """It is in the daemon's cgroup: where memory is short it goes first."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    for which, most in _LIMITS:
        with suppress(OSError, ValueError):
            resource.prlimit(pid, which, (most, most))


def _trusted(command: str, uid: int) -> str:
    """Every folder on the way is looked at, and every link: whoever may exchange one of them decides what is run.
    Raises HookFailed."""
    at, links = "/", 0
    todo = [part for part in command.split("/") if part]
    _require_trusted("/", uid)
    while todo:
        part = todo.pop(0)
        if part == ".":
            continue
        if part == "..":
            at = os.path.dirname(at)  # noqa: PTH120  what is not there yet is no path
            continue
        here = os.path.join(at, part)  # noqa: PTH118
        found = _require_trusted(here, uid)
        if not stat.S_ISLNK(found.st_mode):
            at = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise HookFailed(Why.MISSING, f"{command}: too many links")
        try:
            target = os.readlink(here)  # noqa: PTH115
        except OSError as error:  # it is no link any more, or its share has lost it
            raise HookFailed(Why.MISSING, f"{here}: {os.strerror(error.errno or 0)}") from error
        at = "/" if target.startswith("/") else at
        todo = [one for one in target.split("/") if one] + todo
    if not os.path.isfile(at) or not os.access(at, os.X_OK):  # noqa: PTH113
        raise HookFailed(Why.MISSING, f"{command} is no program that the daemon's user may run")
    return at


def _require_trusted(path: str, uid: int) -> os.stat_result:
    try:
        found = os.lstat(path)
    except OSError as error:
        raise HookFailed(Why.MISSING, f"{path}: {os.strerror(error.errno or 0)}") from error
    is_own_link = stat.S_ISLNK(found.st_mode) and found.st_uid in (0, uid)  # whose mode says nothing
    if not is_own_link and (why := others_may_write(found, uid)) is not None:
        raise HookFailed(Why.NOT_SAFE, f"{path} {why}")
    return found
