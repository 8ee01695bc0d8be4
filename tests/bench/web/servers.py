"""Who hands out the study: dicomwatchd-web from a folder, from a bucket far away, and Orthanc."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.data import DataSet
from tests.bench.measure import RunFailed
from tests.servers import processes
from tests.servers.ceph import CephRgw
from tests.servers.orthanc import Orthanc
from tests.system.site import Site
from tests.system.web_process import WebProcess

_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """``dicomweb`` is the address of its DICOMweb; ``headers`` let in whoever is no browser; ``pages`` is where the
    viewer's own files come from, with the token for the log-in there."""

    name: str
    dicomweb: str
    headers: dict[str, str]
    pid: int
    pages: str
    token: str

    @property
    def cpu_seconds(self) -> float:
        after = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after[11]) + int(after[12])) / _TICKS

    @property
    def rss_bytes(self) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def archived(site: Site, sets: list[DataSet]) -> None:
    """With series objects, as by default where there is a web section. Raises RunFailed."""
    site.config["series_objects"] = "as-sent"
    site.write_config()
    for number, data in enumerate(sets):
        data.link_into(site.inbox / str(number))
    site.init()
    if site.once() != 0 or site.left():
        raise RunFailed(f"the studies cannot be archived:\n{site.log_tail()}")


@contextmanager
def ours(name: str, site: Site, viewer: Path) -> Iterator[Server]:
    web = WebProcess(site, viewer=str(viewer), limits={"requests_each_minute": 1_000_000})
    web.configure()
    token = web.token("bench", "read")
    web.start()
    try:
        assert web.process is not None
        bearer = {"Authorization": f"Bearer {token}"}
        yield Server(name, f"{web.url}/dicom-web", bearer, web.process.pid, web.url, token)
    finally:
        web.close()


@contextmanager
def from_a_folder(root: Path, sets: list[DataSet], viewer: Path) -> Iterator[Server]:
    site = Site(root, log_level="INFO", workers=32)
    archived(site, sets)
    with ours("dicomwatchd-web, a folder", site, viewer) as server:
        yield server


@contextmanager
def from_a_bucket(servers: Path, root: Path, sets: list[DataSet], viewer: Path, milliseconds: int) -> Iterator[Server]:
    """Archived near by, and read so much further away; the catalogue is on this machine."""
    with ExitStack() as stack:
        gateway = stack.enter_context(CephRgw(servers))
        bucket = "viewed"
        gateway.client().create_bucket(Bucket=bucket)
        site = Site(
            root,
            {
                "store": {
                    "kind": "s3",
                    "bucket": bucket,
                    "region": gateway.region,
                    "endpoint_url": gateway.http_endpoint,
                    "insecure_http": True,
                },
                "catalogue": {"kind": "sqlite", "path": str(root / "catalogue.db")},
            },
            environment=gateway.env(),
            log_level="INFO",
            workers=32,
        )
        archived(site, sets)
        port = processes.free_port()
        target = gateway.http_endpoint.rpartition(":")[2]
        proxy = root / "proxy"
        proxy.mkdir()
        command = [sys.executable, "-m", "tests.bench.proxy", str(port), target, str(milliseconds)]
        processes.spawn(proxy, "proxy", command, detached=False, cwd=Path(__file__).parents[3])
        stack.callback(processes.end, proxy, "proxy", grace_seconds=0)
        processes.wait_for_listener(proxy, "proxy", port, 20)
        site.config["archive"]["store"]["endpoint_url"] = f"http://127.0.0.1:{port}"
        site.write_config()
        yield stack.enter_context(ours(f"dicomwatchd-web, a bucket {milliseconds} ms away", site, viewer))


@contextmanager
def orthanc(root: Path, sets: list[DataSet], pages: Server) -> Iterator[Server]:
    """As Debian has it; it has had time to take studies for complete, and to keep their metadata. No password, for the
    network is this program's own; the viewer's files come from ``pages``."""
    settings: dict[str, Any] = {
        "Plugins": [_PLUGIN],
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "StableAge": 1,
        "HttpRequestTimeout": 120,
    }
    with Orthanc(root, {}, **settings) as server:
        for data in sets:
            for path in sorted(data.folder.rglob("*")):
                if path.is_file():
                    server.post("/instances", path.read_bytes())
        end = time.monotonic() + 60
        while not all(server.get(f"/studies/{one}")["IsStable"] for one in server.get("/studies")):
            if time.monotonic() > end:
                raise RunFailed("Orthanc takes no study for complete")
            time.sleep(0.2)
        time.sleep(5)
        address = f"http://127.0.0.1:{server.http_port}/dicom-web"
        yield Server("Orthanc with DICOMweb", address, {}, server.pid, pages.pages, pages.token)
