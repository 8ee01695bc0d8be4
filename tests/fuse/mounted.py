"""A folder mounted through tests.fuse.server, which does as it is told, and is never left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def skip_unless_mountable() -> None:
    lacks = []
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacks.append("/dev/fuse is not to be opened")
    if shutil.which("fusermount3") is None:
        lacks.append("fusermount3 is not installed")
    if importlib.util.find_spec("mfusepy") is None:
        lacks.append("mfusepy is not installed")
    if lacks:
        pytest.skip(f"FUSE cannot run on this machine: {'; '.join(lacks)}")


class Mounted:
    """``path`` shows what is in ``backing``. What is written into ``backing`` is what another machine writes on the
    share: no event tells of it."""

    def __init__(self, root: Path, name: str = "share") -> None:
        self.path, self.backing = root / name, root / f"{name}.backing"
        self._name = f"server:/{name}"
        self._orders_file = root / f"{name}.json"
        self._log_file = root / f"{name}.log"
        for folder in (self.path, self.backing):
            folder.mkdir(exist_ok=True)
        self._orders: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: Path | None = None
        self.order()
        self.mount()

    def mount(self) -> None:
        below = os.stat(self.path).st_dev
        with self._log_file.open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.fuse.server"),
                    *(str(self.backing), str(self.path), str(self._orders_file), self._name),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while (device := os.stat(self.path).st_dev) == below:
            if self._server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the file system was not mounted: {self._log_file.read_text()[-2000:]}")
            time.sleep(0.02)
        self._connection = _CONNECTIONS / str(os.minor(device))

    def unmount(self) -> None:
        """Whatever is under way on it comes to its end with an error."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._connection is not None and (abort := self._connection / "abort").exists():
            abort.write_text("1")
        subprocess.run(["fusermount3", "-uz", str(self.path)], check=False, capture_output=True)
        server.send_signal(signal.SIGCONT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    # -- what it shall do ---------------------------------------------------------------------------------------------

    def order(self, **orders: Any) -> None:
        """In force from now on, in place of those before."""
        self._orders = orders
        written = self._orders_file.with_suffix(".new")
        written.write_text(json.dumps(orders))
        written.replace(self._orders_file)

    def hang(self, asking: subprocess.Popen[bytes] | None = None) -> None:
        """As a share that is mounted hard, and whose server is away: whoever asks it waits, and can be killed.

        A request that the server has taken up cannot be given up by who asks (fs/fuse/dev.c, request_wait_answer),
        which no network file system does to a process. So ``asking`` is held up until none is under way.
        """
        assert self._server is not None
        pid = self._server.pid
        if asking is not None:
            asking.send_signal(signal.SIGSTOP)
        try:
            if asking is not None:
                # The signal arrives a moment later: until then a thread of it may still ask. One that waits for an
                # answer stops once it has it.
                stopped = asking.pid
                _wait(lambda: _all_stopped(stopped), "answer who is to stop")
            _wait(lambda: self._idle(), "come to rest")
            self._server.send_signal(signal.SIGSTOP)
            _wait(lambda: _all_stopped(pid), "stop")
        finally:
            if asking is not None:
                asking.send_signal(signal.SIGCONT)

    def _idle(self) -> bool:
        """Whether all threads of the server but its first wait for a request."""
        assert self._server is not None
        first = str(self._server.pid)
        workers = [task for task in Path(f"/proc/{first}/task").iterdir() if task.name != first]
        return bool(workers) and all((task / "wchan").read_text() == "fuse_dev_do_read" for task in workers)

    def answer(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)
        self.order()


def _all_stopped(pid: int) -> bool:
    """All threads of a process: they stop a moment after the signal."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the server of the file system does not {what}")
        time.sleep(0.005)
