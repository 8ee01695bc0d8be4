"""The fault proxy itself: honest when nothing is asked of it, and each of its faults is what it says."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Match, Rule
from tests.servers.tls import Certificate, make_certificate

BODY = b"0123456789" * 50


class Echo(BaseHTTPRequestHandler):
    """Answers with what it got: the request's headers, and the body's SHA-256 as ETag."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("x-amz-server-side-encryption", "aws:kms")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    do_GET = do_PUT = do_POST = do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    server = HTTPServer(("127.0.0.1", 0), Echo)
    server.seen = []  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def proxy(server: Any, certificate: Certificate) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", certificate=certificate) as proxy:
        yield proxy


def connection(proxy: FaultProxy, certificate: Certificate) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=certificate.ca_file)
    return http.client.HTTPSConnection(proxy.endpoint.removeprefix("https://"), context=context, timeout=60)


def ask(proxy: FaultProxy, certificate: Certificate, method: str = "PUT", path: str = "/b/k%20y?x=1") -> Any:
    channel = connection(proxy, certificate)
    try:
        channel.request(method, path, body=BODY if method in ("PUT", "POST") else None, headers={"X-Any": "Thing"})
        response = channel.getresponse()
        return response, response.read()
    finally:
        channel.close()


def test_what_goes_through_is_what_was_sent(proxy: FaultProxy, server: Any, certificate: Certificate) -> None:
    response, body = ask(proxy, certificate)
    assert (response.status, body) == (200, BODY)
    method, path, headers, sent = server.seen[0]
    assert (method, path, sent) == ("PUT", "/b/k%20y?x=1", BODY)
    assert headers["Host"] == proxy.endpoint.removeprefix("https://"), "signatures are over the name that clients use"
    assert headers["X-Any"] == "Thing"
    [request] = proxy.requests()
    assert (request.path, request.query, request.size_bytes) == ("/b/k y", {"x": "1"}, len(BODY))
    assert request.status == request.server_status == 200 and request.committed
    assert request.body_sha256 == request.sent_sha256 == hashlib.sha256(BODY).hexdigest()


def test_the_nth_matching_request_is_struck_and_no_other(
    proxy: FaultProxy, server: Any, certificate: Certificate
) -> None:
    rule = Rule(Fault.ERROR_500, Match(method="GET", path="^/b/"), nth=2, times=2)
    proxy.set([rule])
    statuses = [ask(proxy, certificate, method, "/b/k")[0].status for method in ("GET", "PUT", "GET", "GET", "GET")]
    assert statuses == [200, 200, 500, 500, 200] and rule.hits == 2
    assert len(server.seen) == 3


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.CUT_RESPONSE, Fault.CUT_REQUEST])
def test_broken_connections(proxy: FaultProxy, server: Any, certificate: Certificate, fault: Fault) -> None:
    with proxy.during(Rule(fault)), pytest.raises((OSError, http.client.HTTPException)):
        ask(proxy, certificate)
    committed = fault in (Fault.RESET_AFTER, Fault.CUT_RESPONSE)
    whole = [seen[3] for seen in server.seen if len(seen[3]) == len(BODY)]
    assert whole == ([BODY] if committed else [])
    assert proxy.requests()[0].committed is committed
    assert ask(proxy, certificate)[1] == BODY


def test_one_byte_is_another_one(proxy: FaultProxy, server: Any, certificate: Certificate) -> None:
    with proxy.during(Rule(Fault.CORRUPT_REQUEST)):
        ask(proxy, certificate)
    with proxy.during(Rule(Fault.CORRUPT_RESPONSE)):
        _, came = ask(proxy, certificate)
    for spoilt in (server.seen[0][3], came):
        assert len(spoilt) == len(BODY) and sum(a != b for a, b in zip(spoilt, BODY, strict=True)) == 1
    assert proxy.requests()[0].sent_sha256 != proxy.requests()[0].body_sha256


def test_answers_are_falsified(proxy: FaultProxy, certificate: Certificate) -> None:
    with proxy.during(Rule(Fault.NO_ENCRYPTION_ECHO)):
        assert ask(proxy, certificate)[0].getheader("x-amz-server-side-encryption") is None
    assert ask(proxy, certificate)[0].getheader("x-amz-server-side-encryption") == "aws:kms"
    with proxy.during(Rule(Fault.WRONG_SIZE)):
        assert ask(proxy, certificate, "HEAD")[0].getheader("Content-Length") == str(len(BODY) + 1)
    with proxy.during(Rule(Fault.WRONG_ETAG)):
        assert ask(proxy, certificate, "HEAD")[0].getheader("ETag") == '"0123456789abcdef0123456789abcdef"'


def test_stopped_it_is_an_outage(proxy: FaultProxy, server: Any, certificate: Certificate) -> None:
    kept = connection(proxy, certificate)
    kept.request("GET", "/b/k")
    assert kept.getresponse().read() == BODY
    proxy.stop()
    kept.auto_open = 0
    with pytest.raises((OSError, http.client.HTTPException)):
        _ask_again(kept)
    with pytest.raises(ConnectionRefusedError):
        ask(proxy, certificate)
    assert len(server.seen) == 1
    proxy.start()
    assert ask(proxy, certificate, "GET")[1] == BODY


def _ask_again(kept: http.client.HTTPSConnection) -> None:
    kept.request("GET", "/b/k")
    kept.getresponse()


def test_strict_it_refuses_a_wrong_checksum_and_returns_a_right_one(server: Any, tmp_path: Path) -> None:
    with FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", strict=True) as proxy:
        channel = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=60)
        right = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
        for given, status in (("A" * 43 + "=", 400), (right, 200)):
            channel.request("PUT", "/b/k", body=BODY, headers={"x-amz-checksum-sha256": given})
            response = channel.getresponse()
            text = response.read()
            assert response.status == status
            assert (b"BadDigest" in text) is (status == 400)
        channel.request("HEAD", "/b/k", headers={"x-amz-checksum-mode": "ENABLED"})
        response = channel.getresponse()
        response.read()
        assert response.getheader("x-amz-checksum-sha256") == right
        channel.close()
    assert len(server.seen) == 2


def test_a_rule_for_one_study(proxy: FaultProxy, certificate: Certificate) -> None:
    """By the prefix of its keys, and by the key of its item in the table."""
    rule = Rule(Fault.ERROR_500, Match(study="1.2.3"), times=100)
    with proxy.during(rule):
        for path, status in (
            ("/b/dicom/studies/1.2.3/manifests/1.json", 500),
            ("/b/studies/1.2.3/1.2.3.1/x.dcm", 500),
            ("/b?list-type=2&prefix=studies%2F1.2.3%2F", 500),
            ("/b/studies/1.2.34/1.2.3.1/x.dcm", 200),
            ("/b/studies/1.2/1.2.3/x.dcm", 200),
            ("/b/audit/heads/1.2.3", 200),
        ):
            assert ask(proxy, certificate, "GET", path)[0].status == status, path
        for uid, status in (("1.2.3", 400), ("1.2.34", 200)):
            channel = connection(proxy, certificate)
            body = json.dumps({"TableName": "t", "Item": {"pk": {"S": f"STUDY#{uid}"}, "sk": {"S": "STUDY"}}})
            rule.fault = Fault.REFUSED
            channel.request("POST", "/", body=body, headers={"X-Amz-Target": "DynamoDB_20120810.PutItem"})
            assert channel.getresponse().status == status
            channel.close()
    assert rule.hits == 4
    assert [request.study for request in proxy.requests()].count("1.2.3") == 4


def test_what_is_held_goes_on_when_its_rule_is_taken_away(proxy: FaultProxy, certificate: Certificate) -> None:
    proxy.set([Rule(Fault.DELAY, seconds=3600)])
    answers: list[Any] = []
    asking = Thread(target=lambda: answers.append(ask(proxy, certificate)), daemon=True)
    asking.start()
    end = monotonic() + 60
    while not proxy.requests():
        assert monotonic() < end
        sleep(0.01)
    asking.join(0.5)
    assert asking.is_alive() and [request.fault for request in proxy.requests()] == [Fault.DELAY]
    proxy.clear()
    asking.join(60)
    assert [response.status for response, _ in answers] == [200]
