"""Child processes of the test servers: started, found again by another process, and stopped, never anyone else's.

A server process is known by a file `<name>.pid` in its server's directory that holds its pid and its kernel
start time. A pid alone may meanwhile belong to a stranger; with the start time it cannot.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.workers import worker

MARKER: Final = ".dicomwatchd-test-server"
"""Lies in every directory that a test server made for itself; a directory without it is never removed."""

_handed_out: set[int] = set()
_children: dict[int, subprocess.Popen[bytes]] = {}


class ServerError(RuntimeError):
    """A test server did not start, stop or answer; the message carries the tail of its log."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on, never the same twice in this process.

    Taken from below the range of outgoing connections, so that no client's socket sits on it when its server
    comes back after a simulated outage; and from this worker's share of it, for the same reason.
    """
    number, of = worker()
    for _ in range(1000):
        port = random.randrange(20000 + number, 32000, of)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise ServerError("no free loopback port between 20000 and 32000")


def claim_directory(directory: Path) -> Path:
    """Makes `directory` (new or empty) a server's own and returns its absolute path."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ServerError(f"{directory} is not empty")
    (directory / MARKER).touch()
    return directory


def remove_directory(directory: Path) -> None:
    """Removes what `claim_directory` made; does nothing to any other directory."""
    if (directory / MARKER).exists():
        shutil.rmtree(directory, ignore_errors=True)


def spawn(
    directory: Path,
    name: str,
    command: Sequence[str],
    *,
    detached: bool,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> int:
    """Starts `command` in a session of its own, output to `<name>.log`, and returns its pid.

    Unless `detached`, the kernel kills it as soon as the thread that called this ends, so a test run that is
    itself killed leaves nothing behind. Start servers from a thread that lives as long as they should.
    """
    # the shell sees a parent that has died before the kernel was told to watch it
    only_while_parent_lives = ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    tie = [] if detached else ["setpriv", "--pdeathsig", "KILL", *only_while_parent_lives]
    with (directory / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [*tie, *command],
            stdin=stdin,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd or directory,
            env=env,
            start_new_session=True,
        )
    _children[child.pid] = child
    record_pid(directory, name, child.pid)
    return child.pid


def record_pid(directory: Path, name: str, pid: int) -> None:
    """Writes the pid file of a process started elsewhere."""
    (directory / f"{name}.pid").write_text(f"{pid} {_start_time(pid)}\n")


def running_pid(directory: Path, name: str) -> int | None:
    """The pid of process `name`, or None when it has ended (or was never started)."""
    try:
        pid_text, started = (directory / f"{name}.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    pid = int(pid_text)
    if pid in _children and _children[pid].poll() is not None:
        return None
    return pid if _start_time(pid) == started else None


def running_pids(directory: Path) -> dict[str, int]:
    """All processes of the server in `directory` that are alive, by name."""
    pids = {path.stem: running_pid(directory, path.stem) for path in sorted(directory.glob("*.pid"))}
    return {name: pid for name, pid in pids.items() if pid is not None}


def end(directory: Path, name: str, *, grace_seconds: float) -> None:
    """Stops process `name` and waits for its end: SIGTERM, and SIGKILL after `grace_seconds` (0: at once)."""
    if grace_seconds > 0 and _signal(directory, name, signal.SIGTERM):
        _wait_until(lambda: running_pid(directory, name) is None, grace_seconds)
    if _signal(directory, name, signal.SIGKILL) and not _wait_until(lambda: running_pid(directory, name) is None, 20):
        raise ServerError(f"{name} (pid {running_pid(directory, name)}) outlives SIGKILL")
    (directory / f"{name}.pid").unlink(missing_ok=True)


def wait_for_http(directory: Path, names: Sequence[str], port: int, timeout_seconds: float) -> None:
    """Returns once something speaks HTTP on the loopback `port`; raises as soon as one of `names` has died."""
    _wait_for(directory, names, port, timeout_seconds, lambda: _answer_to_http(port) == b"HTTP/")


def wait_for_listener(directory: Path, name: str, port: int, timeout_seconds: float) -> None:
    """As `wait_for_http`, for a server that merely has to accept connections."""
    _wait_for(directory, [name], port, timeout_seconds, lambda: _answer_to_http(port) is not None)


def _wait_for(
    directory: Path, names: Sequence[str], port: int, timeout_seconds: float, ready: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        for name in names:
            if running_pid(directory, name) is None:
                raise ServerError(f"{name} ended while starting:\n{log_tail(directory, name)}")
        if time.monotonic() > deadline:
            logs = "\n".join(log_tail(directory, name) for name in names)
            raise ServerError(f"port {port} does not answer after {timeout_seconds:.0f} s:\n{logs}")
        time.sleep(0.05)


def log_tail(directory: Path, name: str, lines: int = 20) -> str:
    """The last lines of a process's log, headed by its name."""
    path = directory / f"{name}.log"
    text = path.read_text(errors="replace") if path.exists() else ""
    return f"--- {path.name}\n" + "\n".join(text.splitlines()[-lines:])


def _answer_to_http(port: int) -> bytes | None:
    """The first bytes that the loopback `port` says to a plain HTTP request; None when nobody listens."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=2)
    except OSError:
        return None
    with connection:
        try:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.recv(5)
        except OSError:
            return b""


def _start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of `pid`; None when there is no such process or only its zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else after_name[19]


def _signal(directory: Path, name: str, number: signal.Signals) -> bool:
    """Sends a signal to process `name`; False when it has ended. A pidfd pins it between look and kill."""
    pid = running_pid(directory, name)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if running_pid(directory, name) != pid:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
