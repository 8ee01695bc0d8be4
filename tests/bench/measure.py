"""Runs one command to its end and measures it: wall time, CPU time and peak memory, its children included."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

_SAMPLE_SECONDS = 0.02
#: Between two looks whether a daemon has done its work: what the looks cost is no daemon's.
_WAIT_SECONDS = 0.01
_LOOK_FOR_CHILDREN_EVERY = 10


class RunFailed(RuntimeError):
    """The command has failed, or has not done its work; the message ends with what it wrote."""


@dataclass(frozen=True, slots=True)
class Measured:
    """``cpu_seconds`` is user + system of the process and of the children it waited for (wait4). ``peak_rss_bytes``
    is the sum of the high-water marks (VmHWM) of all processes of the tree, looked at every 20 ms. ``requests``, where
    they were measured: of each operation how many, and the CPU seconds that all of them took."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    requests: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    timeout_seconds: float = 900,
    folder: Path | None = None,
) -> Measured:
    """``folder`` is where it is started. Raises RunFailed unless the command ends with status 0 in time."""
    begun = time.perf_counter()
    process = _started(command, env, log, folder)
    memory = PeakMemory(process.pid)
    killer = threading.Timer(timeout_seconds, process.kill)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    killer.cancel()
    peak = memory.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = log.read_text(errors="replace")[-3000:]
        raise RunFailed(f"{Path(command[0]).name} ended with {process.returncode} after {wall:.1f} s:\n{tail}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak)


def _started(command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path | None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=folder,
        )


@dataclass(slots=True)
class Found:
    """What was measured, once its context has been left."""

    _measured: Measured | None = None

    @property
    def measured(self) -> Measured:
        assert self._measured is not None
        return self._measured


class Daemon:
    """A process that goes on, measured over a part of its life. To be left as a context, which ends it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        timeout_seconds: float = 900,
        folder: Path | None = None,
    ) -> None:
        self._log, self._timeout_seconds = log, timeout_seconds
        self._process = _started(command, env, log, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Raises RunFailed where it takes too long, or the process ends."""
        end = time.perf_counter() + self._timeout_seconds
        while not is_so():
            if self._process.poll() is not None or time.perf_counter() > end:
                tail = self._log.read_text(errors="replace")[-3000:]
                raise RunFailed(f"a daemon has ended, or takes too long:\n{tail}")
            time.sleep(_WAIT_SECONDS)

    @contextmanager
    def measured(self) -> Iterator[Found]:
        """Wall time and CPU time of what happens within, and the greatest memory since the start."""
        found, process = Found(), psutil.Process(self._process.pid)
        memory = PeakMemory(self._process.pid)
        before, begun = process.cpu_times(), time.perf_counter()
        yield found
        wall, after = time.perf_counter() - begun, process.cpu_times()
        cpu = after.user + after.system - before.user - before.system
        found._measured = Measured(wall, cpu, memory.stop())


class PeakMemory:
    """Watches a process tree from a thread. The kernel's own maximum (ru_maxrss) will not do: it begins with the
    memory of whoever started the process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._stopping.set()
        self._thread.join()
        return sum(self._peaks.values())

    def _watch(self) -> None:
        pids = [self._pid]
        count = 0
        while not self._stopping.wait(_SAMPLE_SECONDS):
            if count % _LOOK_FOR_CHILDREN_EVERY == 0:
                pids = _tree(self._pid)
            count += 1
            for pid in pids:
                if (peak := _high_water_bytes(pid)) is not None:
                    self._peaks[pid] = peak


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    found += map(int, file.read().split())
        except OSError:
            continue
    return found


def _high_water_bytes(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None
