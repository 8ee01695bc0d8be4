"""dicomwatchd-web as a process, beside a site's archive."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from dicomwatchd.access.tokens import TokenFile
from tests.servers.processes import free_port
from tests.system.site import PYTHON, Site


class WebProcess:
    """``dicomwatchd-web`` for a site whose archive has been set up (`Site.init`). Settings are those of ``web``."""

    program: tuple[str, ...] = (PYTHON, "-m", "dicomwatchd.web.process")

    def __init__(self, site: Site, **settings: Any) -> None:
        self.site, self.port = site, free_port()
        self.state = site.root / "web-state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.log_file = site.root / "web.log"
        self.settings: dict[str, Any] = {"tokens": True, **settings}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.settings.get('tls') else 'http'}://127.0.0.1:{self.port}"

    def configure(self, **changed: Any) -> None:
        own = {"listen": f"127.0.0.1:{self.port}", "state": str(self.state)}
        self.settings = {**own, **self.settings, **changed}
        self.site.config["web"] = self.settings
        self.site.write_config()

    def token(self, name: str, *roles: str, expires_at: float | None = None) -> str:
        """The text of a new token."""
        return TokenFile(self.state).add(name, roles, time.time(), expires_at)

    def start(self, seconds: float = 60) -> None:
        self.configure()
        with self.log_file.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [*self.program, "--config", str(self.site.config_file)],
                env=self.site.environment,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + seconds
        while b'"web-started"' not in self.log_file.read_bytes()[before:]:
            assert self.process.poll() is None, self.log_tail()
            assert time.monotonic() < end, f"the web process does not start: {self.log_tail()}"
            time.sleep(0.02)

    def wait_for(self, event: str, seconds: float = 60) -> None:
        """Until it has said so."""
        end = time.monotonic() + seconds
        while f'"{event}"' not in self.log():
            assert time.monotonic() < end, f"waited in vain for {event}: {self.log_tail()}"
            time.sleep(0.02)

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """Follows no redirects; to be closed."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return httpx.Client(
            base_url=self.url,
            headers={**headers, **options.pop("headers", {})},
            trust_env=False,
            **{"timeout": 60, **options},
        )

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait(60)

    def log(self) -> str:
        return self.log_file.read_text()

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log().splitlines()[-lines:])


def site_with_archive(root: Path) -> Site:
    """Its archive is set up, and empty."""
    site = Site(root)
    site.init()
    return site


def web_behind_proxy(root: Path, secret: str, **settings: Any) -> WebProcess:
    """Of https://images.example.org, whose proxy is at 127.0.0.2 and tells user, groups and ``secret``. Not started."""
    (root / "secret").write_text(secret)
    proxy = {"addresses": ["127.0.0.2"], "groups_header": "X-Remote-Groups", "secret_file": str(root / "secret")}
    return WebProcess(site_with_archive(root), public_url="https://images.example.org", proxy=proxy, **settings)
