"""Connections, certificates and secrets of the web process, without its port."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.config import loading
from dicomwatchd.config.web import WebTls
from dicomwatchd.errors import Misconfigured
from dicomwatchd.web import tls
from dicomwatchd.web.process import Process
from dicomwatchd.web.serving import Places
from tests.pieces import FakeClock, Log
from tests.servers.tls import make_certificate

ARCHIVE = {"store": {"kind": "directory", "path": "/a"}, "catalogue": {"kind": "sqlite", "path": "/a/c.db"}}


# -- places -----------------------------------------------------------------------------------------------------------


def test_there_are_so_many_places_and_no_address_has_all_of_them() -> None:
    places = Places(6, 3, lambda address: address == "10.0.0.2", only_the_proxy=False)
    assert [places.take("a") for _ in range(4)] == [True] * 3 + [False]
    assert [places.take("10.0.0.2") for _ in range(4)] == [True] * 3 + [False], "of the proxy as many as there are"
    places.leave("a")
    assert places.take("b") and not places.take("a")
    for address in ("a", "a", "b"):
        places.leave(address)
    assert places.taken.total() == 3 and set(places.taken) == {"10.0.0.2"}, "nothing stays of who has gone"


def test_where_only_the_proxy_may_connect_nobody_else_does() -> None:
    places = Places(6, 3, lambda address: address == "10.0.0.2", only_the_proxy=True)
    assert places.take("10.0.0.2") and not places.take("127.0.0.1")


# -- TLS --------------------------------------------------------------------------------------------------------------


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The client's side of a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    other = server.wrap_bio(to_server, to_client, server_side=True)
    left = [one, other]
    for _ in range(10):
        for side in left[:]:
            try:
                side.do_handshake()
                left.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not left
    return one


def test_tls_is_of_today_and_speaks_http_1_1(tmp_path: Path) -> None:
    made = make_certificate(tmp_path / "one")
    context = tls.server_context(WebTls(certificate_file=made.cert_file, key_file=made.key_file))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [one["name"] for one in context.get_ciphers()]
    assert names and all(
        name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "POLY1305" in name) for name in names
    )
    client = ssl.create_default_context(cafile=str(made.ca_file))
    client.set_alpn_protocols(["h2", "http/1.1"])
    done = shaken(context, client)
    assert done.version() == "TLSv1.3" and done.selected_alpn_protocol() == "http/1.1"

    other = make_certificate(tmp_path / "other")
    with pytest.raises(Misconfigured):
        tls.load(context, WebTls(certificate_file=tmp_path / "none", key_file=made.key_file))
    shaken(context, client)  # the old one stays
    tls.load(context, WebTls(certificate_file=other.cert_file, key_file=other.key_file))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(context, client)
    shaken(context, ssl.create_default_context(cafile=str(other.ca_file)))


# -- secrets, and the ways to log in ----------------------------------------------------------------------------------


def process(folder: Path, **settings: Any) -> Process:
    read = loading.parse({"archive": ARCHIVE, "web": {"state": str(folder), **settings}})
    assert read.web is not None
    log: Any = Log()
    return Process(read, read.web, log, FakeClock())


def test_cookies_are_for_https_alone_where_browsers_come_by_that(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("between-the-provider-and-us")
    oidc = {"issuer": "https://login.example.org", "client_id": "x", "client_secret_file": str(secret)}
    for url, prefix in (("https://images.example.org", "__Host-"), ("http://127.0.0.1:8442", "")):
        web: dict[str, Any] = {"oidc": oidc, "roles": {"read": ["x"]}, "public_url": url}
        doors = process(tmp_path, **web)._doors()
        assert doors.cookie.name == f"{prefix}dicomwatchd"
        assert doors.oidc is not None and doors.oidc.cookie.name == f"{prefix}dicomwatchd-login"
        assert doors.tokens is None and doors.proxy is None and doors.origin == url


def test_there_are_the_ways_in_that_the_configuration_has(tmp_path: Path) -> None:
    doors = process(tmp_path, tokens=True)._doors()
    assert doors.tokens is not None and doors.proxy is None and doors.oidc is None


@pytest.mark.parametrize("content", [None, "", "short", " " * 40, "\xff" * 20])
def test_a_secret_that_is_none_lets_nothing_begin(tmp_path: Path, content: str | None) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content.encode("latin-1"))
    proxy = {"addresses": ["127.0.0.1"], "secret_file": str(secret)}
    with pytest.raises(Misconfigured):
        process(tmp_path, proxy=proxy, roles={"read": ["x"]}, public_url="https://images.example.org")._doors()


def test_the_proxys_secret_is_asked_for(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("between-the-proxy-and-us\n")
    proxy = {"addresses": ["10.0.0.2"], "secret_file": str(secret)}
    doors = process(tmp_path, proxy=proxy, roles={"read": ["*"]}, public_url="https://images.example.org")._doors()
    assert doors.proxy is not None

    def person(*headers: tuple[bytes, bytes]) -> object:
        assert doors.proxy is not None
        return doors.proxy.person({"client": ("10.0.0.2", 1), "headers": [(b"x-remote-user", b"meier"), *headers]})

    assert person() is None
    assert person((b"x-proxy-secret", b"between-the-proxy-and-us")) is not None
