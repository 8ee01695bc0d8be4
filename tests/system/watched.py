"""A site with figures at a port, and a real Prometheus that asks for them."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import alerts
from tests.servers import processes
from tests.servers.prometheus import Prometheus
from tests.synthetic import Maker
from tests.system.site import Site


def at_once(changed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Our rules, each without the time that it waits before it fires. ``changed``: what stands in an expression, and
    what stands there instead, as a lower threshold."""
    rules = [{key: value for key, value in rule.items() if key != "for"} for rule in alerts.rules()]
    for before, after in (changed or {}).items():
        [rule] = [one for one in rules if before in one["expr"]]
        rule["expr"] = rule["expr"].replace(before, after)
    return {"groups": [{"name": "dicomwatchd", "rules": rules}]}


class Watched(Site):
    """A site with figures, a receiver's port that somebody listens at, and Prometheus, which whoever wants it starts.
    ``rules``: see `at_once`; ``scrape_seconds``: how often it asks, and how long it waits."""

    def __init__(
        self,
        root: Path,
        archive: dict[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        inboxes: int = 1,
        rules: Mapping[str, str] | None = None,
        scrape_seconds: int = 1,
        **settings: Any,
    ) -> None:
        self.target = f"127.0.0.1:{processes.free_port()}"
        metrics = {"listen": self.target}
        super().__init__(root, archive, environment=environment, inboxes=inboxes, metrics=metrics, **settings)
        self.receiver = socket.create_server(("127.0.0.1", processes.free_port()))
        listen = f"127.0.0.1:{self.receiver.getsockname()[1]}"
        name = self.config["inboxes"][0]["name"]
        self.config["receivers"] = [{"name": "ct", "ae_title": "ARCHIVE", "inbox": name, "listen": listen}]
        self.write_config()
        self.prometheus = Prometheus(root / "prometheus", self.target, at_once(rules), scrape_seconds)

    def close(self) -> None:
        super().close()
        self.receiver.close()
        self.prometheus.close()

    def start(self) -> None:
        super().start()
        if "metrics" in self.config:
            self.wait_for(self.listens, 60, "the port to be there")

    def listens(self) -> bool:
        try:
            return "dicomwatchd_status_up 1" in self.figures()
        except OSError:
            return False

    def figures(self) -> str:
        with urllib.request.urlopen(f"http://{self.target}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def figure(self, name: str) -> float | None:
        found = re.search(rf"(?m)^{re.escape(name)} (\S+)$", self.figures())
        return None if found is None else float(found[1])


def archive(site: Watched, maker: Maker, slices: int = 3) -> str:
    made = maker.ct_series(site.inbox / "ct", slices=slices, rows=16, columns=16)
    site.wait_for(lambda: not any(one.path.exists() for one in made), 90, "a study to be archived")
    return made[0].study_uid
