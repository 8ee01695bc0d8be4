"""A real systemd as PID 1, with journald, in namespaces over a throw-away overlay of this machine's root.

Inside, everything on the machine's root file system is there to be read and changed, and no change outlives
down(). /tmp and /run are fresh, other file systems of the machine are not there, and the network has only a
loopback of its own: servers outside cannot be reached. Needs root. Resource limits of units (MemoryMax=,
CPUQuota=) hold only where the machine gives out those controllers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.servers import processes
from tests.servers.processes import ServerError

_SCRIPT: Final = Path(__file__).with_name("systemd-lab.sh")
_NAMESPACES: Final = ("--pid", "--mount", "--cgroup", "--ipc", "--uts", "--net")


class SystemdLab:
    """The lab. `directory` must be new or empty; down() removes it.

    `prepare` is called before systemd starts, with the lab's root as a path of this process: put unit files,
    users and programs there. Its writes stay in the lab. The lab ends with the thread that called up().
    ``lower`` is the root that the lab is laid over, if not the machine's; it must hold systemd.
    """

    def __init__(
        self,
        directory: Path,
        *,
        prepare: Callable[[Path], None] | None = None,
        timeout_seconds: float = 30,
        lower: Path = Path("/"),
    ) -> None:
        self.directory = directory.resolve()
        self.state = "down"
        """What `systemctl is-system-running` said at the end of up(): running, or degraded when a unit failed."""
        self._prepare = prepare
        self._lower = lower.resolve()
        self._timeout_seconds = timeout_seconds
        self._cgroup: Path | None = None

    @property
    def root(self) -> Path:
        """The lab's root directory as seen from here; absolute symbolic links below it lead astray."""
        pid = processes.running_pid(self.directory, "init")
        if pid is None:
            raise ServerError("the systemd lab is not up")
        return Path(f"/proc/{pid}/root")

    def pids(self) -> dict[str, int]:
        """The lab's outermost process and its PID 1, while they live."""
        return processes.running_pids(self.directory)

    def up(self) -> Self:
        """Boots in about half a second; raises ServerError, with everything taken down again, when that fails."""
        processes.claim_directory(self.directory)
        try:
            self._boot()
        except BaseException:
            self.down()
            raise
        return self

    def sh(
        self,
        *command: str,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` inside as root; with `check`, a non-zero end raises ServerError with what it said.

        It runs beside systemd's units, not in a cgroup of the lab; for that use `systemd-run --wait --pipe
        ...`.
        """
        pid = self._booted_pid()
        if pid is None:
            raise ServerError("the systemd lab is not up")
        enter = ["nsenter", "--target", str(pid), *_NAMESPACES, "--root", "--wdns=/"]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]
        clean += ["SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"]
        done = subprocess.run([*enter, *clean, *command], capture_output=True, text=True, input=input, timeout=timeout)
        if check and done.returncode != 0:
            raise ServerError(
                f"in the lab: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def down(self) -> None:
        """Powers off and clears away: no process, mount or cgroup stays. May be called more than once."""
        if self.state != "down" and "init" in self.pids():
            with contextlib.suppress(ServerError, subprocess.TimeoutExpired):
                self.sh("systemctl", "poweroff", check=False, timeout=10)
            self._wait_for_end(10)
        self.state = "down"
        # unshare takes the whole pid namespace along
        processes.end(self.directory, "unshare", grace_seconds=0)
        self._wait_for_end(10)
        (self.directory / "init.pid").unlink(missing_ok=True)
        try:
            self._remove_cgroup()
        finally:
            processes.remove_directory(self.directory)

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    def _boot(self) -> None:
        work, staged = self.directory / "work", self.directory / "staged"
        work.mkdir()
        hierarchy = cgroup2_mount()
        if hierarchy is None:
            raise ServerError("no cgroup2 hierarchy is mounted")
        self._cgroup = hierarchy / f"dicomwatchd-lab-{os.getpid()}-{time.monotonic_ns()}"
        self._cgroup.mkdir()
        # into the cgroup first: the new cgroup namespace takes it as its root
        enter_cgroup = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._cgroup)]
        unshare = ["unshare", "--fork", "--kill-child", *_NAMESPACES, "bash", str(_SCRIPT)]
        unshare += [str(work), str(staged), str(self._lower)]
        start, go = os.pipe()
        try:
            unshare_pid = processes.spawn(
                self.directory, "unshare", [*enter_cgroup, *unshare], detached=False, stdin=start
            )
            os.close(start)
            self._wait(staged.exists, "its root to be set up")
            children = Path(f"/proc/{unshare_pid}/task/{unshare_pid}/children").read_text().split()
            processes.record_pid(self.directory, "init", int(children[0]))
            if self._prepare is not None:
                self._prepare(self.root / work.relative_to("/") / "root")
            os.write(go, b"go\n")
            self._wait(self._has_booted, "systemd to come up")
        finally:
            os.close(go)

    def _has_booted(self) -> bool:
        if self._booted_pid() is None:
            return False
        self.state = self.sh("systemctl", "is-system-running", check=False).stdout.strip() or "booting"
        return self.state in ("running", "degraded")

    def _booted_pid(self) -> int | None:
        """The lab's PID 1 once it is systemd. While it is still the script, its root is the machine's own."""
        pid = processes.running_pid(self.directory, "init")
        if pid is None or Path(f"/proc/{pid}/comm").read_text().strip() != "systemd":
            return None
        return pid

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not condition():
            dead = processes.running_pid(self.directory, "unshare") is None
            if dead or time.monotonic() > deadline:
                log = processes.log_tail(self.directory, "unshare", 40)
                raise ServerError(f"the systemd lab {'ended' if dead else 'hangs'} waiting for {what}:\n{log}")
            time.sleep(0.02)

    def _wait_for_end(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _remove_cgroup(self) -> None:
        """Innermost first; a cgroup stays busy for a moment after its last process has gone."""
        for _ in range(100):
            if self._cgroup is None or not self._cgroup.exists():
                self._cgroup = None
                return
            for path, _directories, _files in os.walk(self._cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
            time.sleep(0.02)
        raise ServerError(f"{self._cgroup} cannot be removed")


def cgroup2_mount() -> Path | None:
    """Where the unified cgroup hierarchy is mounted, if anywhere."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None
