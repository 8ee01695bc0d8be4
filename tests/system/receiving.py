"""A receiver as a process, beside a site's daemon."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.dcmtk import dcmtk
from tests.system.site import PYTHON, Site


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Receiving:
    """`dicomwatchd-receive` for a site's first inbox. Settings are those of one entry of ``receivers``."""

    program: tuple[str, ...] = (PYTHON, "-m", "dicomwatchd.receiver")

    def __init__(self, site: Site, **settings: Any) -> None:
        self.site, self.port = site, free_port()
        self.settings = {"name": "ct", "ae_title": "ARCHIVE", "inbox": site.inbox.name, **settings}
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, **changed: Any) -> None:
        self.settings = {"listen": f"127.0.0.1:{self.port}", **self.settings, **changed}
        self.site.config["receivers"] = [self.settings]
        self.site.write_config()

    def start(self) -> None:
        with self.site.log_file.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [*self.program, "--config", str(self.site.config_file)],
                env=self.site.environment,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while b"receiver-started" not in self.site.log_file.read_bytes()[before:]:
            assert self.process.poll() is None, self.site.log_tail()
            assert time.monotonic() < end, "the receiver does not start"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait(60)

    @property
    def rss_bytes(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def processor_seconds(self) -> float:
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def peer(self, program: str, *options: str, files: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
        """A program of DCMTK's against this receiver."""
        return subprocess.run(
            [dcmtk(program), "-aec", "ARCHIVE", *options, "127.0.0.1", str(self.port), *map(str, files)],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def stored(self) -> list[Path]:
        return sorted(self.site.inbox.glob("*.dcm"))
