"""Where the data plane sends its requests, beside where botocore sends its own."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.s3 import addressing, fast_path
from dicomwatchd.archive.stores.s3.data_plane import Address, S3DataPlane
from dicomwatchd.archive.stores.s3.store import _client_settings
from dicomwatchd.config.archive import S3Settings
from tests.servers.tls import Certificate, TlsTerminator, make_certificate
from tests.unit.test_data_plane import OK, Server, put

VIRTUAL, PATH = {"addressing_style": "virtual"}, {"addressing_style": "path"}
FIPS, DUAL_STACK = {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}
ACCOUNT = "123456789012"
VPCE = "https://bucket.vpce-1a2b3c4d-5e6f.s3.eu-central-1.vpce.amazonaws.com"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name, value in (("ACCESS_KEY_ID", "AKID"), ("SECRET_ACCESS_KEY", "secret"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)


def settings_of(**changes: Any) -> S3Settings:
    plain = str(changes.get("endpoint_url", "")).startswith("http:")
    return S3Settings.model_validate({"kind": "s3", "bucket": "hospital", **changes, "insecure_http": plain})


def client_of(settings: S3Settings, s3: Any = None) -> tuple[Any, Session]:
    session = aws.new_session()
    client = aws.build_client(
        "s3",
        session=session,
        region=settings.region,
        endpoint_url=settings.endpoint_url,
        ca_file=settings.ca_file,
        max_connections=1,
        s3=s3 or _client_settings(settings),
    )
    return client, session


def found(settings: S3Settings, s3: Any = None) -> Address | None:
    return addressing.find(*client_of(settings, s3), settings)


class _Seen(Exception):
    pass


def botocores(settings: S3Settings, s3: Any = None) -> tuple[str, str]:
    """The URL of a read of "a/b.dcm", and the scope of its signature, as botocore would send it."""
    client, _ = client_of(settings, s3)
    seen: list[Any] = []

    def see(request: Any, **_: object) -> None:
        seen.append(request)
        raise _Seen

    client.meta.events.register_first("before-send.s3.GetObject", see)
    with suppress(_Seen):
        client.get_object(Bucket=settings.bucket, Key="a/b.dcm")
    scope = seen[0].headers["Authorization"].decode().partition("Credential=AKID/")[2].partition(",")[0]
    return seen[0].url, scope.partition("/")[2]


@pytest.mark.parametrize(
    ("settings", "s3", "environment_too"),
    [
        ({"region": "eu-central-1"}, None, {}),
        ({"region": "us-east-1"}, None, {}),
        ({"region": "us-east-1"}, None, {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"}),
        ({"region": "cn-north-1"}, None, {}),
        ({"region": "us-gov-west-1"}, None, FIPS),
        ({"region": "us-west-2"}, None, FIPS | DUAL_STACK),
        ({"region": "eu-west-1"}, None, DUAL_STACK),
        ({"region": "eu-central-1", "bucket": "hos.pital"}, None, {}),
        ({"region": "eu-central-1"}, PATH, {}),
        ({"region": "eu-central-1", "bucket": f"arn:aws:s3:eu-west-1:{ACCOUNT}:accesspoint/archive"}, None, {}),
        ({"endpoint_url": VPCE}, None, {}),
        ({"endpoint_url": "https://s3.dualstack.eu-west-3.amazonaws.com"}, None, {}),
        ({"endpoint_url": "https://store.hospital.example"}, None, {}),
        ({"endpoint_url": "https://store.hospital.example:8443"}, VIRTUAL, {}),
        ({"endpoint_url": "https://store.hospital.example:443"}, None, {}),
        ({"endpoint_url": "http://127.0.0.1:7480", "region": "x"}, None, {}),
        ({"endpoint_url": "http://[::1]:7480", "region": "x"}, None, {}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if value else "-",
)
def test_the_address_and_the_region_are_botocores(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], s3: Any, environment_too: dict[str, str]
) -> None:
    for name, value in environment_too.items():
        monkeypatch.setenv(name, value)
    made = settings_of(**{**settings, "bucket": "hospital"}).model_copy(update=settings)
    address = found(made, s3)
    assert address is not None
    url, scope = botocores(made, s3)
    assert f"{address.origin}{address.base_path}/a/b.dcm" == url.replace(":443/", "/")
    assert scope == f"{address.region}/s3/aws4_request"


def test_amazons_usual_address_has_the_bucket_in_the_name() -> None:
    address = found(settings_of(region="eu-central-1"))
    assert address is not None
    assert (address.origin, address.base_path, address.region) == (
        "https://hospital.s3.eu-central-1.amazonaws.com", "", "eu-central-1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "bucket", ["hospital--use1-az4--x-s3", f"arn:aws:s3::{ACCOUNT}:accesspoint/mfzwi23gnjvgw.mrap", "a b"]
)
def test_what_botocore_alone_can_is_left_to_it(bucket: str) -> None:
    """S3 Express signs with keys of a session, an access point of many regions with Signature Version 4A; a name that
    is none gets botocore's own error."""
    settings = settings_of(region="us-east-1").model_copy(update={"bucket": bucket})
    assert found(settings) is None


def test_the_client_lists_as_before_afterwards() -> None:
    server = Server([b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<ListBucketResult />"])
    settings = settings_of(endpoint_url=f"http://127.0.0.1:{server.port}", region="x")
    client, session = client_of(settings)
    assert addressing.find(client, session, settings) is not None
    assert server.requests == []
    assert client.list_objects_v2(Bucket="hospital")["ResponseMetadata"]["HTTPStatusCode"] == 200
    client.close()
    server.close()


# --- proxies


@pytest.mark.parametrize(
    ("endpoint_url", "variables"),
    [
        (None, {"HTTPS_PROXY": "http://proxy.example:3128"}),
        (None, {"https_proxy": "proxy.example:3128"}),
        (None, {"HTTP_PROXY": "http://proxy.example:3128"}),
        (None, {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": ".amazonaws.com"}),
        (None, {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "hospital.s3.eu-central-1.amazonaws.com"}),
        (None, {"ALL_PROXY": "http://proxy.example:3128"}),
        ("http://10.0.0.1:7480", {"http_proxy": "http://u%40x:p%3Aq@proxy.example:3128"}),
        ("http://10.0.0.1:7480", {"http_proxy": "http://proxy.example:3128", "no_proxy": "10.0.0.1"}),
    ],
)
def test_a_proxy_is_used_where_botocore_uses_it(
    monkeypatch: pytest.MonkeyPatch, endpoint_url: str | None, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = settings_of(region="eu-central-1", **({"endpoint_url": endpoint_url} if endpoint_url else {}))
    address = found(settings)
    assert address is not None
    client, _ = client_of(settings)
    chosen = client._endpoint.http_session._proxy_config.proxy_url_for(address.origin)
    assert address.route.proxy == (chosen or "")


@pytest.mark.parametrize("proxy", ["https://proxy.example:3128", "socks5://proxy.example:1080"])
def test_other_proxies_are_left_to_botocore(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert found(settings_of(region="eu-central-1")) is None


class Proxy:
    """A proxy on loopback: CONNECT to a port of this machine whatever the name, and requests in full to it."""

    def __init__(self, to: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\nX-Of: proxy\r\n\r\n") -> None:
        self._to, self._answer = to, answer
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                threading.Thread(target=self._one, args=(accepted,), daemon=True).start()

    def _one(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as onward:
            received = b""
            while b"\r\n\r\n" not in received and (more := accepted.recv(65536)):
                received += more
            self.heads.append(received.partition(b"\r\n\r\n")[0])
            if received.startswith(b"CONNECT "):
                accepted.sendall(self._answer)
            else:
                onward.sendall(received)
            back = threading.Thread(target=_pump, args=(onward, accepted), daemon=True)
            back.start()
            _pump(accepted, onward)
            back.join()

    def close(self) -> None:
        self._socket.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def data_plane_of(settings: S3Settings) -> Iterator[S3DataPlane]:
    client, session = client_of(settings)
    made = fast_path.connect(client, session, settings)
    assert made is not None
    yield made
    made.close()
    client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "*.s3.eu-central-1.amazonaws.com")


@contextmanager
def under_tls(certificate: Certificate, *answers: bytes) -> Iterator[tuple[Server, int]]:
    server = Server(list(answers))
    with TlsTerminator(server.port, certificate.cert_file, certificate.key_file) as front:
        yield server, front.port
    server.close()


def test_amazon_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """What the proxy says to CONNECT is no part of the answer, and it gets the proxy's password and nothing else."""
    with under_tls(certificate, OK, OK) as (server, port):
        proxy = Proxy(port)
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass%20word@127.0.0.1:{proxy.port}")
        with data_plane_of(settings_of(region="eu-central-1", ca_file=certificate.ca_file)) as made:
            first = put(made)
            assert first is not None and "x-of" not in first.headers
            assert put(made) is not None
        proxy.close()
    [head] = proxy.heads
    assert head.startswith(b"CONNECT hospital.s3.eu-central-1.amazonaws.com:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:pass word") in head
    assert b"AKID" not in head and b"if-none-match" not in head.lower()
    assert all(request.startswith(b"PUT /a/b%21c.dcm HTTP/1.1\r\n") for request in server.requests)
    assert all(
        b"\r\nhost: hospital.s3.eu-central-1.amazonaws.com\r\n" in request.lower() for request in server.requests
    )
    assert all(b"proxy-authorization" not in request.lower() for request in server.requests)


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    refusal = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"  # not TLS
    for answer in (
        refusal,
        b"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://a/\r\n\r\n",
    ):
        with under_tls(certificate, OK) as (server, port):
            proxy = Proxy(port, answer)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            with data_plane_of(settings_of(region="eu-central-1", ca_file=certificate.ca_file)) as made:
                assert put(made) is None
            proxy.close()
        assert server.requests == []


def test_plain_http_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([OK])
    proxy = Proxy(server.port)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    with data_plane_of(settings_of(region="x", endpoint_url="http://store.example:7480")) as made:
        assert put(made) is not None
    assert server.requests[0].startswith(b"PUT http://store.example:7480/hospital/a/b%21c.dcm HTTP/1.1\r\n")
    assert b"\r\nhost: store.example:7480\r\n" in server.requests[0].lower()
    proxy.close()
    server.close()


# --- trust


@pytest.mark.parametrize("how", ["ca_file", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "a folder"])
def test_a_private_authority_is_trusted_by_any_of_its_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate, how: str
) -> None:
    more = {}
    if how == "ca_file":
        more = {"ca_file": certificate.ca_file}
    elif how == "a folder":
        shutil.copy(certificate.ca_file, tmp_path)
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path))
    else:
        monkeypatch.setenv(how, str(certificate.ca_file))
    with (
        under_tls(certificate, OK) as (_, port),
        data_plane_of(settings_of(region="x", endpoint_url=f"https://localhost:{port}", **more)) as made,
    ):
        assert put(made) is not None


@pytest.mark.parametrize("kind", ["nobody", "another authority", "another name"])
def test_whom_botocore_would_not_trust_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate, kind: str
) -> None:
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE"):  # libcurl's and OpenSSL's own
        monkeypatch.setenv(name, str(certificate.ca_file))
    ca_file = certificate.ca_file
    if kind == "another authority":
        ca_file = make_certificate(tmp_path).ca_file
    with under_tls(certificate, OK) as (server, port):
        host, proxy = "localhost", None
        if kind == "another name":
            host, proxy = "elsewhere.example", Proxy(port)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        more = {} if kind == "nobody" else {"ca_file": ca_file}
        with data_plane_of(settings_of(region="x", endpoint_url=f"https://{host}:{port}", **more)) as made:
            assert put(made) is None
        if proxy is not None:
            assert proxy.heads
            proxy.close()
    assert server.requests == []


# --- credentials


def test_renewed_credentials_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([OK, OK])
    settings = settings_of(region="x", endpoint_url=f"http://127.0.0.1:{server.port}")
    client, session = client_of(settings)
    session.set_credentials("FIRST", "secret", "first-token")
    made = fast_path.connect(client, session, settings)
    assert made is not None
    assert put(made) is not None
    held: Any = session.get_credentials()
    held.access_key, held.secret_key, held.token = "SECOND", "other", "second-token"
    assert put(made) is not None
    for request, name, token in zip(server.requests, (b"FIRST", b"SECOND"), (b"first", b"second"), strict=True):
        assert b"Credential=%s/" % name in request
        assert b"\r\nx-amz-security-token: %s-token\r\n" % token in request
        assert b"x-amz-security-token" in request.partition(b"SignedHeaders=")[2].partition(b",")[0]
    made.close()
    client.close()
    server.close()
