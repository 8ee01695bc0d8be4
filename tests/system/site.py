"""A site for system tests: inboxes, state and a configuration, with the real programs run on it as processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests import schemas

PYTHON = sys.executable
CTL = str(Path(PYTHON).with_name("dicomwatchctl"))


def embedded_archive(root: Path) -> dict[str, Any]:
    return {
        "store": {"kind": "directory", "path": str(root / "archive")},
        "catalogue": {"kind": "sqlite", "path": str(root / "archive" / "catalogue.db")},
    }


class Site:
    """Everything below ``root``. ``log`` collects what every daemon run wrote."""

    def __init__(
        self,
        root: Path,
        archive: dict[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        inboxes: int = 1,
        **settings: Any,
    ) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.inboxes = [root / f"inbox{number}" for number in range(1, inboxes + 1)]
        for inbox in self.inboxes:
            inbox.mkdir(exist_ok=True)
        if archive is None:
            archive = embedded_archive(root)
            (root / "archive").mkdir(exist_ok=True)
        inbox_settings = settings.pop("inbox", {})
        self.config: dict[str, Any] = {
            "state_directory": str(self.state),
            "workers": 8,
            "scan_interval_seconds": 2,
            "log_level": "DEBUG",
            "inboxes": [
                {
                    "name": inbox.name,
                    "path": str(inbox),
                    "settle_seconds": 0.2,
                    "quiet_seconds": 0.5,
                    **inbox_settings,
                }
                for inbox in self.inboxes
            ],
            "archive": archive,
            **settings,
        }
        self.config_file = root / "config.yaml"
        self.write_config()
        self.environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        self.log_file = root / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None

    @property
    def inbox(self) -> Path:
        return self.inboxes[0]

    ctl_program = CTL
    daemon_program: tuple[str, ...] = (PYTHON, "-m", "dicomwatchd")
    #: What the programs are started with: a command that becomes the program named after it.
    launcher: tuple[str, ...] = ()

    def write_config(self) -> None:
        self.config_file.write_text(yaml.safe_dump(self.config))

    # -- the programs ---------------------------------------------------------------------------------------------

    def init(self) -> None:
        self.ctl("archive", "init")

    def ctl(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """An answer in JSON is checked against its schema (docs/schema)."""
        result = subprocess.run(
            [*self.launcher, CTL, "--config", str(self.config_file), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if "--json" in arguments:
            schemas.check_output(arguments, result.stdout, result.returncode)
        if check and result.returncode:
            raise AssertionError(f"dicomwatchctl {arguments} gave {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def ctl_json(self, *arguments: str, check: bool = True) -> Any:
        return json.loads(self.ctl(*arguments, "--json", check=check).stdout)

    def once(self, *arguments: str, timeout: float = 240) -> int:
        with self.log_file.open("ab") as log:
            return subprocess.run(
                [*self.launcher, *self.daemon_program, "--config", str(self.config_file), "--once", *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                timeout=timeout,
            ).returncode

    def start(self) -> None:
        self.launch()
        self.wait_for((self.state / "control.sock").exists, 240, "the daemon to be ready")

    def launch(self) -> None:
        """Without waiting for it."""
        with self.log_file.open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.launcher, *self.daemon_program, "--config", str(self.config_file)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def reload(self, event: str = "reloaded", *, seconds: float = 60) -> None:
        """Until the daemon says what has come of it: meanwhile it answers nobody."""
        assert self.daemon is not None
        before = len(self.events(event))
        self.daemon.send_signal(signal.SIGHUP)
        self.wait_for(lambda: len(self.events(event)) > before, seconds, event)

    def reconfigure(self, *, seconds: float = 60) -> None:
        """``config`` as it is now is what the daemon goes by."""
        self.write_config()
        self.reload(seconds=seconds)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        code = self.daemon.wait(timeout)
        self.daemon = None
        return code

    def close(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()

    def change_the_state(self, sql: str, *values: object) -> None:
        """While the daemon is stopped, or does not write it just now."""
        with closing(sqlite3.connect(self.state / "state.db", timeout=30)) as db, db:
            assert db.execute(sql, values).rowcount > 0, sql

    # -- what can be seen ---------------------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self.daemon is not None and self.daemon.poll() is not None:
                raise AssertionError(f"the daemon has ended with {self.daemon.returncode}:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain for {what}:\n{self.log_tail()}")
            time.sleep(0.05)

    def left(self) -> list[Path]:
        """The files that are still below the inboxes, private directories included."""
        while True:
            try:
                return sorted(path for inbox in self.inboxes for path in inbox.rglob("*") if not path.is_dir())
            except FileNotFoundError:
                continue  # a folder that the daemon tidied away in the middle of the look

    def wait_until_empty(self, seconds: float = 60) -> None:
        self.wait_for(lambda: not self.left(), seconds, "the inboxes to be empty")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        found = []
        for line in self.log_file.read_text().splitlines():
            entry = json.loads(line)
            if name is None or entry["event"] == name:
                found.append(entry)
        return found

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log_file.read_text().splitlines()[-lines:]) if self.log_file.exists() else ""
