"""The name of the store, or of the catalogue, resolves no more for a while: the real daemon, and the C library's own
resolver, which reads a hosts file that the test writes and finds no name server.

The programs see that file in place of /etc/hosts in a mount namespace of their own, which takes no root.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.figures import Figures
from tests.faults.proxy import FaultProxy
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import make_certificate
from tests.system.test_outages import FILES, OUTAGE_SECONDS, Place

STORE, CATALOGUE = "store.hospital.test", "catalogue.hospital.test"
#: $0 is the hosts file, $1 that of the name server; what follows becomes the program.
IN_A_PLACE_OF_ITS_OWN = (
    'mount --bind "$0" /etc/hosts && mount --bind "$1" "$(realpath /etc/resolv.conf)" && shift && exec "$@"'
)

figures = Figures("outages-names", "the name of the store or of the catalogue cannot be resolved for a while")


class Names:
    """The hosts file and the resolver's configuration. Nothing listens where the name server should be."""

    def __init__(self, root: Path) -> None:
        self._hosts, self._resolver = root / "hosts", root / "resolv.conf"
        self._resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.are(STORE, CATALOGUE)
        self.launcher = (
            "unshare", "--map-root-user", "--mount",
            "sh", "-c", IN_A_PLACE_OF_ITS_OWN, str(self._hosts), str(self._resolver),
        )  # fmt: skip

    def are(self, *names: str) -> None:
        """Only these resolve from now on. Written in place: it is this very file that the programs see."""
        self._hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))

    def require_namespaces(self) -> None:
        ask = "import socket; socket.getaddrinfo('localhost', 1); socket.getaddrinfo('" + STORE + "', 1)"
        done = subprocess.run([*self.launcher, "python3", "-c", ask], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mount namespace of one's own on this machine: {done.stderr.strip()[-120:]}")


@pytest.fixture
def names(tmp_path: Path) -> Names:
    names = Names(tmp_path)
    names.require_namespaces()
    return names


@pytest.fixture
def place(tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, names: Names) -> Iterator[Place]:
    certificate = make_certificate(tmp_path / "tls", STORE, CATALOGUE)
    with (
        FaultProxy(rgw.http_endpoint, certificate=certificate) as store,
        FaultProxy(dynamodb.http_endpoint, certificate=certificate) as catalogue,
    ):
        place = Place(tmp_path, rgw, store, catalogue, bucket)
        place.figures = figures
        for part, proxy, name in (("store", store, STORE), ("catalogue", catalogue, CATALOGUE)):
            settings = place.site.config["archive"][part]
            settings["endpoint_url"] = proxy.endpoint.replace("localhost", name)
            settings["ca_file"] = str(certificate.ca_file)
        place.site.write_config()
        place.site.launcher = names.launcher
        place.site.init()
        place.site.start()
        store.forget()
        yield place
        place.site.close()
    if figures.tried >= 3:  # else only some of the tests were run
        figures.write()


def break_connections(proxy: FaultProxy) -> None:
    """Those that were open would go on without any name."""
    proxy.stop()
    proxy.start()


@pytest.mark.parametrize("lost", [STORE, CATALOGUE])
def test_a_name_is_lost_and_comes_back(place: Place, names: Names, lost: str) -> None:
    proxy, kept = (place.store, CATALOGUE) if lost == STORE else (place.catalogue, STORE)
    names.are(kept)
    break_connections(proxy)
    before = len(proxy.requests())
    place.drop(4)
    place.wait_for_delay(0)
    time.sleep(OUTAGE_SECONDS)
    assert len(proxy.requests()) == before, "the name is not resolved, so nothing can have come"
    assert len(place.site.left()) == 4 * FILES
    [(endpoint, _)] = place.site.ctl_json("status")["backoff"].items()
    assert lost in endpoint
    assert {delay["code"] for delay in place.delays()} == {"out-of-reach"}
    tries = place.delays()
    # All four may have been on their way when it began; then one study asks, and the others wait for its word.
    pauses = {delay["pause_seconds"] for delay in tries}
    assert len(tries) <= 4 + len(pauses)

    # A new configuration is looked at while the name is away: it is refused, and the old one goes on.
    daemon = place.site.daemon
    assert daemon is not None
    daemon.send_signal(signal.SIGHUP)
    place.site.wait_for(lambda: bool(place.site.events("reload-refused")), 60, "the reload to be refused")
    assert place.site.events("reloaded") == []

    names.are(STORE, CATALOGUE)
    figures.details[f"{lost} lost"] = {"tries during the outage": len(tries), "files waiting": 4 * FILES}
    place.check()
    assert place.site.stop() == 0


def test_a_start_without_names(place: Place, names: Names) -> None:
    """The daemon does not start, says why, and is started again later, by systemd or by hand."""
    assert place.site.stop() == 0
    place.drop(1)
    for kept in ((CATALOGUE,), (STORE,), ()):
        names.are(*kept)
        assert place.site.once() == 3
        refused = place.site.events("refused")[-1]
        assert refused["code"] == "out-of-reach"
    assert len(place.site.left()) == FILES
    result = place.site.ctl("verify", place.made[0][0].study_uid, check=False)
    assert result.returncode == 3
    names.are(STORE, CATALOGUE)
    assert place.site.once() == 0
    place.site.start()
    place.check()
