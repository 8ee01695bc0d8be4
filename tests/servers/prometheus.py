"""The real Prometheus (Debian's package) on loopback, which scrapes its targets and evaluates rules every second."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from tests.servers import processes

_START_SECONDS = 60.0


def skip_unless_installed() -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; scripts/setup-test-machine installs it")


class Prometheus:
    """From `__enter__` to `close`. ``directory`` must be new or empty. ``target``: HOST:PORT of /metrics, as the job
    ``dicomwatchd``, or several by the names that their instances get. ``rules``: rule groups, as in a file of rules."""

    def __init__(
        self, directory: Path, target: str | Mapping[str, str], rules: dict[str, Any], scrape_seconds: int = 1
    ) -> None:
        named = {target: target} if isinstance(target, str) else target
        targets = [{"targets": [one], "labels": {"instance": name}} for name, one in named.items()]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        (directory / "rules.yml").write_text(yaml.safe_dump(rules))
        (directory / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": f"{scrape_seconds}s",
                        "scrape_timeout": f"{scrape_seconds}s",
                        "evaluation_interval": "1s",
                    },
                    "rule_files": [str(directory / "rules.yml")],
                    "scrape_configs": [{"job_name": "dicomwatchd", "static_configs": targets}],
                }
            )
        )
        self._url = f"http://127.0.0.1:{processes.free_port()}"

    def __enter__(self) -> Self:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        try:
            self.wait_for(self._is_ready, _START_SECONDS, "Prometheus to be ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    # -- what it says -------------------------------------------------------------------------------------------------

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector that it is now: labels in ``metric``, and ``value``."""
        data = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert data["resultType"] == "vector", expression
        return list(data["result"])

    def range(self, expression: str, begin: float, end: float, step_seconds: float) -> list[dict[str, Any]]:
        """What it was from ``begin`` to ``end`` (seconds since the epoch): labels in ``metric``, and ``values``."""
        asked = {"query": expression, "start": begin, "end": end, "step": step_seconds}
        data = self._get(f"/api/v1/query_range?{urllib.parse.urlencode(asked)}")
        assert data["resultType"] == "matrix", expression
        return list(data["result"])

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]
            for alert in self._get("/api/v1/alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def ever_fired(self, name: str) -> bool:
        """Within the last hour."""
        alerts = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
        return bool(self.query(f"count_over_time({alerts}[1h])"))

    def wait_until_firing(self, *names: str, seconds: float = 60) -> None:
        self.wait_for(lambda: set(names) <= self.firing(), seconds, f"{', '.join(names)} to fire")

    def wait_until_over(self, *names: str, seconds: float = 60) -> None:
        self.wait_for(lambda: not set(names) & self.firing(), seconds, f"{', '.join(names)} to end")

    def wait_for_rounds(self, rounds: int = 3, seconds: float = 60) -> None:
        """Until the target was scraped, and the rules evaluated, so often from now on."""
        before, evaluated = self._scrapes(), self._evaluations()
        self.wait_for(
            lambda: self._scrapes() >= before + rounds and self._evaluations() >= evaluated + rounds,
            seconds,
            f"{rounds} rounds",
        )

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self._process is None or self._process.poll() is not None:
                raise AssertionError(f"Prometheus has ended: {(self._directory / 'log').read_text()[-2000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain for {what}; firing: {sorted(self.firing())}")
            time.sleep(0.2)

    def _scrapes(self) -> float:
        found = self.query('count_over_time(up{job="dicomwatchd"}[1h])')
        return float(found[0]["value"][1]) if found else 0.0

    def _evaluations(self) -> float:
        groups = self._get("/api/v1/rules")["groups"]
        last = groups[0]["lastEvaluation"]
        if last != getattr(self, "_last_evaluation", None):
            self._last_evaluation, self._evaluated = last, getattr(self, "_evaluated", 0) + 1
        return float(self._evaluated)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]
