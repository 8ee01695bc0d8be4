"""A provider of the log-in that takes connections and never answers: nobody else waits for it, and nobody can have
requests pile up towards it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.servers.oidc import CLIENT, SECRET
from tests.system.web_process import WebProcess, site_with_archive

ANONYMOUS = 200
AT_ONCE = 40
#: Of ours, until it gives an attempt up, and until it makes another one.
GIVEN_UP_SECONDS, REST_SECONDS = 4.0, 5.0


class Silent:
    """Counts who is connected."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listening.getsockname()[1]
        self.connections, self.open, self.most = 0, 0, 0
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self.connections, self.open = self.connections + 1, self.open + 1
                self.most = max(self.most, self.open)
            threading.Thread(target=self._hold, args=(connection,), daemon=True).start()

    def _hold(self, connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    pass
            except OSError:
                pass
        with self._lock:
            self.open -= 1


def told(web: WebProcess, port: int) -> None:
    secret = web.site.root / "secret"
    secret.write_text(SECRET)
    oidc = {"issuer": f"http://127.0.0.1:{port}", "client_id": CLIENT, "client_secret_file": str(secret)}
    web.settings |= {"oidc": oidc, "roles": {"read": ["*"]}}


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[WebProcess, Silent]]:
    web, provider = WebProcess(site_with_archive(tmp_path)), Silent()
    told(web, provider.port)
    try:
        web.start()
        yield web, provider
    finally:
        web.close()
        provider.close()
        web.site.close()


def asked(web: WebProcess, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    with web.client(headers={"Accept": "text/html"}) as client:
        return client.get(path), time.monotonic() - began


def test_the_log_in_page_never_asks_the_provider(both: tuple[WebProcess, Silent]) -> None:
    web, provider = both
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda _: asked(web, "/login?left=1")[0], range(ANONYMOUS)))
    assert {one.status_code for one in answers} == {200} and provider.connections == 0


def test_two_hundred_who_want_in_are_one_attempt_at_a_time(both: tuple[WebProcess, Silent]) -> None:
    web, provider = both
    token, began = web.token("reader", "read"), time.monotonic()
    others: list[float] = []
    with ThreadPoolExecutor(AT_ONCE) as threads, web.client(token) as reader:
        waiting = [threads.submit(asked, web, "/login/oidc?next=/found") for _ in range(ANONYMOUS)]
        while not all(one.done() for one in waiting) or not others:
            at = time.monotonic()
            assert reader.get("/dicom-web/studies").status_code == 204  # it is empty
            others.append(time.monotonic() - at)
            time.sleep(0.01)
        answers = [one.result() for one in waiting]
    took = time.monotonic() - began
    for answer, _ in answers:
        assert answer.status_code == 503 and "does not answer as it should" in answer.text
        assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert provider.most == 1 and provider.connections <= 1 + took / REST_SECONDS
    # Those who came first have waited for the attempt, and a few could; all others were told at once.
    assert sum(seconds > GIVEN_UP_SECONDS - 0.5 for _, seconds in answers) <= 16 + AT_ONCE
    assert median(others) < GIVEN_UP_SECONDS / 2 and len(others) > 5, (median(others), len(others))
    waited = [seconds for _, seconds in answers]
    print(f"{provider.connections} connections to the provider in {took:.1f} s; median {median(waited) * 1000:.0f} ms,")
    print(f"longest {max(waited):.1f} s; a token's requests meanwhile: median {median(others) * 1000:.0f} ms")


def test_logout_tokens_and_callbacks_are_one_attempt_too(both: tuple[WebProcess, Silent]) -> None:
    web, provider = both

    def sent(_number: int) -> int:
        with web.client() as client:
            return client.post("/login/back-channel", data={"logout_token": "eyJhbGciOiJSUzI1NiJ9.e30.x"}).status_code

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert set(threads.map(sent, range(ANONYMOUS))) == {503}
        assert {one.status_code for one, _ in threads.map(lambda _: asked(web, "/login/callback"), range(9))} == {401}
    assert provider.most == 1


@pytest.mark.parametrize(
    "endpoint",
    ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"],
)
def test_no_endpoint_of_the_provider_is_used_in_the_clear(tmp_path: Path, endpoint: str) -> None:
    class Description(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
            said = {"issuer": issuer, **{name: f"{issuer}/{name}" for name in names}, **changed}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            pass

    changed: dict[str, str] = {}
    provider, web = ThreadingHTTPServer(("127.0.0.1", 0), Description), WebProcess(site_with_archive(tmp_path))
    serving = threading.Thread(target=provider.serve_forever, daemon=True)
    serving.start()
    told(web, provider.server_port)
    try:
        web.start()
        changed[endpoint] = f"http://login.example.org/{endpoint}"
        assert asked(web, "/login/oidc")[0].status_code == 500
        assert "the provider's endpoints are not to be reached by https" in web.log()
        changed.clear()
        end = time.monotonic() + 60
        while asked(web, "/login/oidc")[0].status_code != 303:
            assert time.monotonic() < end, "this test would not notice"
            time.sleep(0.2)
    finally:
        web.close()
        provider.shutdown()
        provider.server_close()
        web.site.close()
