"""Who gets in at dicomwatchd-web, and who does not: the real process, attacked over sockets."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from dicomwatchd.access.record import FILE_NAME, AccessRecord
from dicomwatchd.model import Uid
from tests.servers.tls import make_certificate
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess, site_with_archive, web_behind_proxy

PAGE = {"Accept": "text/html"}
OURS = {"Sec-Fetch-Site": "same-origin"}
SECRET = "between-the-proxy-and-us"
SOMEBODY = {"X-Remote-User": "chief", "X-Remote-Groups": "privacy,staff", "X-Proxy-Secret": SECRET}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """With tokens alone."""
    web = WebProcess(site_with_archive(tmp_path_factory.mktemp("web")), limits={"failed_logins": 1000})
    web.start()
    yield web
    web.close()
    web.site.close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """Behind a proxy on this machine, at 127.0.0.2."""
    root = tmp_path_factory.mktemp("behind")
    web = web_behind_proxy(
        root,
        SECRET,
        roles={"read": ["staff"], "administrate": ["privacy"]},
        limits={"failed_logins": 3, "connections": 60, "connections_each": 40},
    )
    web.start()
    yield web
    web.close()
    web.site.close()


@pytest.fixture(scope="module")
def token(web: WebProcess) -> str:
    return web.token("reader", "read")


@contextmanager
def session(web: WebProcess, token: str) -> Iterator[httpx.Client]:
    """Of a browser that has logged in with the token."""
    with web.client(headers=OURS) as client:
        assert client.post("/login", data={"token": token}).status_code == 303
        assert client.get("/nowhere").status_code == 404
        yield client


def raw(web: WebProcess, request: bytes, seconds: float = 60) -> bytes:
    """All that is answered until the other side closes."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=seconds) as connection:
        found = b""
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
            while piece := connection.recv(65536):
                found += piece
        return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_nobody_gets_nothing_but_the_way_to_log_in(web: WebProcess) -> None:
    with web.client() as client:
        assert client.get("/dicom-web/studies").status_code == 401
        page = client.get("/some/page?x=1", headers=PAGE)
        assert page.status_code == 303 and page.headers["location"] == "/login?next=/some/page%3Fx%3D1"
        assert client.get("/access", headers={"Accept": "*/*"}).status_code == 401
        assert client.get("/login").status_code == 200
        assert client.get("/health").text == "ok\n"
        for path in ("/health/", "/login/x", "/Login", "/login/../access", "/login%2f..%2faccess", "//login"):
            assert client.get(path).status_code in (400, 401), path


def test_a_token_lets_its_holder_in_and_no_further_than_its_roles(web: WebProcess, token: str) -> None:
    with web.client(token) as client:
        assert client.get("/nowhere").status_code == 404
        assert client.get("/access").status_code == 403
    with web.client(web.token("chief", "administrate")) as client:
        assert client.get("/access").status_code == 200


@pytest.mark.parametrize(
    "said", ["Bearer", "Bearer dicomwatchd_forged", "Basic cmVhZGVyOnJlYWRlcg==", "x", "Bearer " + "x" * 8000]
)
def test_a_forged_token_lets_nobody_in(web: WebProcess, said: str) -> None:
    with web.client(headers={"Authorization": said}) as client:
        assert client.get("/nowhere").status_code == 401


def test_an_expired_token_lets_nobody_in(web: WebProcess) -> None:
    with web.client(web.token("expired", "read", expires_at=time.time() - 1)) as client:
        assert client.get("/nowhere").status_code == 401


def test_a_revoked_token_lets_nobody_in_and_ends_its_sessions(web: WebProcess) -> None:
    text = web.site.ctl("web", "token", "leaver", "--role", "read").stdout.strip()
    with session(web, text) as browser, web.client(text) as client:
        assert client.get("/nowhere").status_code == 404
        assert [one["name"] for one in web.site.ctl_json("web", "tokens")["tokens"] if one["name"] == "leaver"]
        web.site.ctl("web", "revoke", "leaver")
        assert client.get("/nowhere").status_code == 401
        assert browser.get("/nowhere").status_code == 401
    assert web.site.ctl("web", "revoke", "leaver", check=False).returncode == 1


def test_two_tokens_in_one_request_are_refused(web: WebProcess, token: str) -> None:
    for two in ((token, "x"), ("x", token), (token, token)):
        with web.client(headers={}) as client:
            answer = client.get("/nowhere", headers=[("Authorization", f"Bearer {one}") for one in two])
            assert answer.status_code == 400


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_log_in_makes_a_new_session_and_ends_the_one_that_came(web: WebProcess, token: str) -> None:
    """Fixation: the cookie that somebody has put into the browser is worth nothing."""
    with web.client(headers=OURS) as client:
        client.cookies.set("dicomwatchd", "planted", domain="127.0.0.1", path="/")
        answer = client.post("/login", data={"token": token})
        first = answer.cookies["dicomwatchd"]
        assert first != "planted" and len(first) > 40
        with web.client(headers={**OURS, "Cookie": f"dicomwatchd={first}"}) as other:
            assert other.get("/nowhere").status_code == 404
            second = other.post("/login", data={"token": token}).cookies["dicomwatchd"]
            assert second != first
            assert other.get("/nowhere").status_code == 401, "the first has ended"
        with web.client(headers={"Cookie": "dicomwatchd=planted"}) as attacker:
            assert attacker.get("/nowhere").status_code == 401


def test_two_cookies_of_one_name_are_refused(web: WebProcess, token: str) -> None:
    with session(web, token) as client:
        value = client.cookies["dicomwatchd"]
    for pair in (f"dicomwatchd={value}; dicomwatchd=x", f"dicomwatchd=x; dicomwatchd={value}"):
        with web.client(headers={"Cookie": pair}) as other:
            assert other.get("/nowhere").status_code == 400


def test_the_cookie_is_closed_to_scripts_and_other_sites(web: WebProcess, behind: WebProcess, token: str) -> None:
    with web.client(headers=OURS) as client:
        flags = client.post("/login", data={"token": token}).headers["set-cookie"].lower()
        assert "httponly" in flags and "samesite=lax" in flags and "path=/" in flags and "domain" not in flags
    with behind.client(headers={**OURS, "Host": "images.example.org"}) as client:
        flags = client.post("/login", data={"token": behind.token("cookie", "read")}).headers["set-cookie"]
        assert flags.startswith("__Host-dicomwatchd=") and "Secure" in flags


def test_a_log_out_ends_the_session_itself(web: WebProcess, token: str) -> None:
    with session(web, token) as client:
        value = client.cookies["dicomwatchd"]
        answer = client.post("/logout")
        assert answer.status_code == 303 and '"cache"' in answer.headers["clear-site-data"]
    with web.client(headers={"Cookie": f"dicomwatchd={value}"}) as client:
        assert client.get("/nowhere").status_code == 401


# -- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.org"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{ours}"},
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "{ours}.evil.example.org"},
        {},
    ],
)
def test_another_site_does_nothing_in_somebody_s_name(web: WebProcess, token: str, headers: dict[str, str]) -> None:
    with session(web, token) as client:
        del client.headers["Sec-Fetch-Site"]
        theirs = {name: value.replace("{ours}", web.url) for name, value in headers.items()}
        for path in ("/logout", "/login", "/access", "/nowhere"):
            assert client.post(path, headers=theirs).status_code == 403, path
        assert client.get("/nowhere").status_code == 404, "still logged in"
        assert client.post("/nowhere", headers={"Origin": web.url}).status_code == 404


def test_a_token_in_a_header_needs_no_page_of_ours(web: WebProcess, token: str) -> None:
    with web.client(token) as client:
        assert client.post("/nowhere").status_code == 404


def test_no_other_site_reads_or_frames_anything(web: WebProcess, token: str) -> None:
    with web.client(token) as client:
        for path in ("/login", "/nowhere", "/health"):
            answer = client.get(path, headers={**PAGE, "Origin": "https://evil.example.org"})
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.org",
        "127.0.0.1:1",
        "127.0.0.2",
        "127.0.0.1:{port}.evil.example.org",
        "",
        "127.0.0.1:{port}@evil",
        "a b",
    ],
)
def test_another_host_s_name_is_refused(web: WebProcess, token: str, host: str) -> None:
    """DNS rebinding; and no link is ever made of what Host says."""
    name = host.replace("{port}", str(web.port))
    answer = raw(web, f"GET /login HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) in (400, 421)
    with web.client(token) as client:
        said = client.get("/nowhere", headers={"X-Forwarded-Host": "evil.example.org", **PAGE})
        assert "evil" not in said.text + str(said.headers)


@pytest.mark.parametrize(
    "after", ["//evil.example.org", "https://evil.example.org", "/\\evil.example.org", "/%0d%0aX: y", "\r\nX: y"]
)
def test_nobody_is_sent_elsewhere_after_the_log_in(web: WebProcess, token: str, after: str) -> None:
    with web.client(headers=OURS) as client:
        answer = client.post("/login", data={"token": token, "next": after})
        assert answer.headers["location"] in ("/", "/%0d%0aX:%20y") and "x" not in answer.headers
        page = client.get("/login", params={"next": '"><script>alert(1)</script>'})
        assert page.status_code == 303, "somebody who has logged in goes on"
    with web.client() as client:
        page = client.get("/login", params={"next": '/"><script>alert(1)</script>'})
        assert "<script" not in page.text


# -- the proxy's word -------------------------------------------------------------------------------------------------


def from_proxy(web: WebProcess) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    return httpx.Client(
        base_url=web.url, transport=transport, timeout=60, headers={"Host": "images.example.org"}, trust_env=False
    )


def test_the_proxy_is_believed(behind: WebProcess) -> None:
    with from_proxy(behind) as client:
        assert client.get("/access", headers=SOMEBODY).status_code == 200
        assert client.get("/access", headers={**SOMEBODY, "X-Remote-Groups": "staff"}).status_code == 403
        assert client.get("/access", headers={**SOMEBODY, "X-Remote-User": ""}).status_code == 401


def test_nobody_else_is(behind: WebProcess) -> None:
    with behind.client(headers={"Host": "images.example.org"}) as client:
        assert client.get("/access", headers=SOMEBODY).status_code == 401
        assert client.get("/access", headers={**SOMEBODY, "X-Forwarded-For": "127.0.0.2"}).status_code == 401
    for secret in ("", "x", SECRET + "x", SECRET[:-1]):
        with from_proxy(behind) as client:
            assert client.get("/access", headers={**SOMEBODY, "X-Proxy-Secret": secret}).status_code == 401


@pytest.mark.parametrize("header", ["X-Remote-User", "X-Remote-Groups", "X-Proxy-Secret"])
def test_what_is_said_twice_is_refused(behind: WebProcess, header: str) -> None:
    with from_proxy(behind) as client:
        headers = [*SOMEBODY.items(), (header, SOMEBODY[header])]
        assert client.get("/access", headers=headers).status_code == 400


@pytest.mark.parametrize("name", ["token:reader", "a\tb", "x" * 200])
def test_a_name_that_is_none_is_nobody(behind: WebProcess, name: str) -> None:
    with from_proxy(behind) as client:
        assert client.get("/access", headers={**SOMEBODY, "X-Remote-User": name}).status_code in (400, 401)


def test_a_header_with_another_spelling_is_another_header(behind: WebProcess) -> None:
    with from_proxy(behind) as client:
        spelt = {"X_Remote_User": "chief", "X-Remote-Groups": "privacy", "X-Proxy-Secret": SECRET}
        assert client.get("/access", headers=spelt).status_code == 401


def test_another_site_does_nothing_in_the_name_of_whom_the_proxy_names(behind: WebProcess) -> None:
    with from_proxy(behind) as client:
        assert client.post("/access", headers={**SOMEBODY, "Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert client.post("/access", headers={**SOMEBODY, **OURS}).status_code == 200
        assert "strict-transport-security" in client.get("/login").headers


def test_who_fails_too_often_waits_and_others_do_not(behind: WebProcess) -> None:
    """Each by the address that the proxy has added last: what a client writes there itself counts for nothing."""
    with from_proxy(behind) as client:
        client.headers.update({"X-Proxy-Secret": SECRET, "Authorization": "Bearer x"})
        seen = [
            client.get("/nowhere", headers={"X-Forwarded-For": f"10.0.0.{number}, 10.1.2.3"}).status_code
            for number in range(6)
        ]
        assert seen == [401, 401, 401, 429, 429, 429]
        late = client.get("/nowhere", headers={"X-Forwarded-For": "10.1.2.3"})
        assert late.status_code == 429 and 0 < int(late.headers["retry-after"]) <= 300
        assert client.get("/nowhere", headers={"X-Forwarded-For": "10.1.2.4"}).status_code == 401
        right = f"Bearer {behind.token('neighbour', 'read')}"
        found = client.get("/nowhere", headers={"X-Forwarded-For": "10.1.2.3", "Authorization": right})
        assert found.status_code == 404, "who has a right token is not held up by who has not, behind one address"


def test_a_password_that_the_proxy_has_asked_for_is_no_token(behind: WebProcess) -> None:
    """HTTP Basic at the proxy, which hands the header on."""
    basic = {"Authorization": "Basic bXVlbGxlcjpzZWNyZXQ="}
    with from_proxy(behind) as client:
        assert client.get("/nowhere", headers={**SOMEBODY, **basic}).status_code == 404
        assert client.post("/access", headers={**SOMEBODY, **basic, "Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert client.get("/nowhere", headers=basic).status_code == 401


def test_without_tls_nobody_but_the_proxy_comes_over_the_network(tmp_path: Path) -> None:
    web = WebProcess(
        site_with_archive(tmp_path),
        public_url="https://images.example.org",
        proxy={"addresses": ["127.0.0.2/32"], "secret_file": str(tmp_path / "secret")},
        roles={"read": ["*"]},
    )
    (tmp_path / "secret").write_text(SECRET)
    web.settings["listen"] = f"0.0.0.0:{web.port}"
    try:
        web.start()
        with from_proxy(web) as client:
            assert client.get("/login").status_code == 200
        assert raw(web, b"GET /health HTTP/1.1\r\nHost: images.example.org\r\n\r\n") == b""
    finally:
        web.close()
        web.site.close()


# -- TLS --------------------------------------------------------------------------------------------------------------


def shown(web: WebProcess) -> bytes:
    """The certificate, as a client gets it that trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", web.port), timeout=60) as plain,
        context.wrap_socket(plain) as connection,
    ):
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
        return connection.getpeercert(binary_form=True) or b""


def test_tls_of_its_own_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path / "first"), make_certificate(tmp_path / "second")
    web = WebProcess(site_with_archive(tmp_path))
    web.settings["tls"] = {"certificate_file": str(first.cert_file), "key_file": str(first.key_file)}
    try:
        web.start()
        with httpx.Client(
            base_url=f"https://127.0.0.1:{web.port}",
            verify=ssl.create_default_context(cafile=str(first.ca_file)),
            trust_env=False,
            timeout=60,
            headers=OURS,
        ) as client:
            answer = client.post("/login", data={"token": web.token("reader", "read")})
            assert answer.headers["set-cookie"].startswith("__Host-dicomwatchd=")
            assert client.get("/nowhere").status_code == 404
            assert raw(web, b"GET /health HTTP/1.1\r\n\r\n") == b"", "not in the clear"
            assert web.process is not None
            before = shown(web)
            first.cert_file.write_text("broken")
            web.process.send_signal(signal.SIGHUP)
            web.wait_for("web-reload-refused")
            assert shown(web) == before
            first.cert_file.write_bytes(second.cert_file.read_bytes())
            first.key_file.write_bytes(second.key_file.read_bytes())
            web.process.send_signal(signal.SIGHUP)
            web.wait_for("web-reloaded")
            assert shown(web) not in (before, b"")
            assert client.get("/nowhere").status_code == 404, "the session goes on"
    finally:
        web.close()
        web.site.close()


# -- requests that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5, 5, 6\r\n",
        b" folded: x\r\n",
        b"X: a\x00b\r\n",
        b"Host: evil.example.org\r\n",
    ],
)
def test_what_two_programs_would_read_in_two_ways_is_refused(web: WebProcess, head: bytes) -> None:
    """Request smuggling: one answer, and the connection is closed."""
    hidden = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % web.port
    request = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n0\r\n\r\n%s" % (web.port, head, hidden)
    answer = raw(web, request)
    assert b"ok\n" not in answer and answer.count(b"HTTP/1.1 ") <= 1, answer
    assert not answer or 400 <= status(answer) < 500


@pytest.mark.parametrize(
    ("request_line", "codes"),
    [
        (b"GET /../../etc/passwd HTTP/1.1", {400}),
        (b"GET /dicom-web/../../etc/passwd HTTP/1.1", {400}),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", {400}),
        (b"GET /..%2f..%2fetc%2fpasswd HTTP/1.1", {400}),
        (b"GET /..%5c..%5cetc HTTP/1.1", {400}),
        (b"GET /login%00.css HTTP/1.1", {400}),
        (b"GET http://127.0.0.1/login HTTP/1.1", {400}),
        (b"GET //evil.example.org/ HTTP/1.1", {400}),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1", {414}),
        (b"GET /?" + b"x" * 9000 + b" HTTP/1.1", {414}),
        (b"TRACE / HTTP/1.1", {405}),
        (b"CONNECT evil.example.org:443 HTTP/1.1", {400, 405}),
        (b"GET  /login HTTP/1.1", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00", {400}),
        (b"GET /login HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x", {200}),
    ],
)
def test_a_path_leads_nowhere_but_to_a_room(web: WebProcess, request_line: bytes, codes: set[int]) -> None:
    request = request_line + b"\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % web.port
    answer = raw(web, request)
    assert status(answer) in codes, answer[:300]
    assert b"root:" not in answer and b"Traceback" not in answer


def test_huge_headers_and_bodies_are_refused_early(web: WebProcess, token: str) -> None:
    huge = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % web.port + b"X: " + b"x" * 10_000_000
    answer = raw(web, huge)
    assert not answer or status(answer) in (400, 431)
    many = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % web.port + b"X: y\r\n" * 100_000 + b"\r\n"
    answer = raw(web, many)
    assert not answer or status(answer) in (400, 431)
    with web.client(headers=OURS) as client, suppress(httpx.TransportError):  # closed in the middle of it
        assert client.post("/login", content=b"token=" + b"x" * 50_000_000).status_code == 413
    with web.client(token) as client:
        assert client.get("/nowhere").status_code == 404


def test_a_form_of_a_thousand_fields_is_refused(web: WebProcess) -> None:
    with web.client(headers=OURS) as client:
        assert client.post("/login", content="&".join(f"a{number}=b" for number in range(1000))).status_code == 400


# -- many, and slow ---------------------------------------------------------------------------------------------------


def answers(web: WebProcess) -> bool:
    with web.client() as client:
        return client.get("/health", headers={"Host": f"127.0.0.1:{web.port}"}).status_code == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /login HTTP/1.1\r\nX: ",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 60000\r\n\r\n",
    ],
)
def test_who_drips_is_cut_off(web: WebProcess, begun: bytes) -> None:
    """A byte each second would do for ever, if each began the time anew."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
        connection.sendall(begun % web.port if b"%d" in begun else begun)
        began = time.monotonic()
        connection.settimeout(1)
        while time.monotonic() - began < 120:
            try:
                connection.sendall(b"x")
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 5 < time.monotonic() - began < 100


def test_one_address_does_not_take_all_places(behind: WebProcess) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", behind.port), timeout=30))
        with from_proxy(behind) as client:
            assert client.get("/health").status_code == 200
        end = time.monotonic() + 60
        for _ in range(200):  # those of 127.0.0.1 are over its share: closed unheard
            try:
                assert answers(behind) is False or time.monotonic() < end
            except httpx.TransportError:
                break
        else:
            raise AssertionError("127.0.0.1 has more than its share")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if answers(behind):
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the places are not given back")


def test_who_asks_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    """Each person has his own share, whatever the address; what is refused reads nothing of the archive."""
    web = WebProcess(site_with_archive(tmp_path), limits={"requests_each_minute": 60})
    web.start()
    try:
        with web.client(web.token("hasty", "read")) as hasty, web.client(web.token("other", "read")) as other:
            seen = [hasty.get("/dicom-web/studies").status_code for _ in range(70)]
            assert set(seen[:60]) == {204} and set(seen[60:]) == {429}
            late = hasty.get("/dicom-web/studies")
            assert late.status_code == 429 and 0 < int(late.headers["retry-after"]) <= 60
            assert other.get("/dicom-web/studies").status_code == 204
    finally:
        web.close()


# -- the record of access ---------------------------------------------------------------------------------------------


def test_the_record_is_searched_by_command_and_page(web: WebProcess) -> None:
    with closing(AccessRecord(web.state, writing=True)) as record:
        record.append(time.time(), "müller <b>", "frames", Uid("1.2.840.1"))
        record.append(time.time(), "token:reader", "download", Uid("1.2.840.2"))
    found = web.site.ctl_json("web", "audit", "--check")
    assert [one["person"] for one in found["entries"]] == ["token:reader", "müller <b>"]
    assert found["chain"]["holds"] and found["chain"]["entries"] == 2
    for options, number in (
        (("--person", "token:reader"), 1),
        (("--study", "1.2.840.1"), 1),
        (("--from", "2020-01-01", "--to", "2020-12-31"), 0),
        (("--from", "2020-01-01"), 2),
        (("--limit", "1"), 1),
    ):
        assert len(web.site.ctl_json("web", "audit", *options)["entries"]) == number, options
    assert "müller" in web.site.ctl("web", "audit").stdout

    with session(web, web.token("officer", "administrate")) as client:
        page = client.get("/access")
        assert "müller &lt;b&gt;" in page.text and "<b>" not in page.text
        found_by_study = client.post("/access", data={"study": "1.2.840.2"})
        assert "token:reader" in found_by_study.text and "müller" not in found_by_study.text
        assert client.post("/access", data={"study": "x"}).status_code == 400
        assert client.post("/access", data={"from": "yesterday"}).status_code == 400
        german = {"Accept-Language": "de"}
        assert "token:reader" in client.post("/access", data={"from": "1.1.2020"}, headers=german).text
        assert "Kein Eintrag passt" in client.post("/access", data={"to": "1.1.2020"}, headers=german).text
        # Whoever has this role alone is led here, and sees no other place.
        arrived = client.get("/", headers={"Accept": "text/html"})
        assert (arrived.status_code, arrived.headers["Location"]) == (303, "/access")
        assert 'id="nav-access"' in page.text and "nav-search" not in page.text and "nav-upload" not in page.text

    with closing(sqlite3.connect(web.state / FILE_NAME)) as db, db:
        db.execute("UPDATE access SET person = 'x' WHERE sequence = 1")
    broken = web.site.ctl("web", "audit", "--check", "--json", check=False)
    assert broken.returncode == 1 and json.loads(broken.stdout)["chain"]["broken_at"] == 1


def test_what_is_not_on_record_is_not_handed_out(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.init()
    [made, *_] = Maker(3, Patient.marked("CANARY^JANE")).ct_series(site.inbox, slices=2, rows=16, columns=16)
    assert site.once() == 0
    web = WebProcess(site)
    path = f"/dicom-web/studies/{made.study_uid}/series/{made.series_uid}"
    try:
        web.start()
        with web.client(web.token("reader", "read")) as client:
            for _ in range(3):
                assert client.get(f"{path}/metadata").status_code == 200
            seen = site.ctl_json("web", "audit", "--study", made.study_uid)["entries"]
            assert [one["person"] for one in seen] == ["token:reader"]
            with closing(sqlite3.connect(web.state / FILE_NAME)) as db:
                db.executescript("CREATE TRIGGER full BEFORE INSERT ON access BEGIN SELECT RAISE(ABORT, 'full'); END;")
            for what in ("", f"/instances/{made.sop_instance_uid}", f"/instances/{made.sop_instance_uid}/frames/1"):
                answer = client.get(path + what)
                assert answer.status_code >= 500 and b"CANARY" not in answer.content, what
        with web.client(web.token("another", "read")) as client:
            assert client.get(f"{path}/metadata").status_code >= 500
        with web.client(web.token("clerk", "upload")) as client:
            assert client.get(f"{path}/metadata").status_code == 403
        assert made.study_uid not in web.log() and "CANARY" not in web.log()
    finally:
        web.close()
        site.close()


def test_what_is_in_the_state_is_nobody_else_s(web: WebProcess) -> None:
    for file in web.state.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name


# -- the process ------------------------------------------------------------------------------------------------------


def test_no_web_no_start(tmp_path: Path) -> None:
    web = WebProcess(site_with_archive(tmp_path))
    web.settings["tokens"] = False
    with pytest.raises(AssertionError, match=r"must have a way to log in"):
        web.start()
    web.close()


def test_it_ends_when_it_is_told_while_somebody_is_connected(tmp_path: Path) -> None:
    web = WebProcess(site_with_archive(tmp_path))
    web.start()
    try:
        with socket.create_connection(("127.0.0.1", web.port)):
            assert web.stop() == 0
        assert '"web-stopped"' in web.log()
    finally:
        web.close()
        web.site.close()


def test_no_line_of_the_log_says_who_or_what(web: WebProcess, behind: WebProcess, token: str) -> None:
    """Last, so that all of the above is in it."""
    with session(web, token) as client:
        client.get("/dicom-web/studies/1.2.840.99/series?PatientName=SECRETPATIENT", headers={"Referer": "SECRETREF"})
    for process, host in (web, f"127.0.0.1:{web.port}"), (behind, "images.example.org"):
        with process.client("dicomwatchd_forged", headers={"Host": host}) as client:
            assert client.get("/nowhere").status_code in (401, 429)
        with process.client(headers={"Host": host, **OURS}) as client:
            assert client.post("/login", data={"token": "SECRETTOKEN"}).status_code in (401, 429)
        log = process.log()
        entries = [json.loads(line) for line in log.splitlines()]
        assert {"web-started", "web-request", "web-login-refused"} <= {entry["event"] for entry in entries}
        assert not [entry for entry in entries if entry["event"] in ("web-failed", "crash")]
        assert not [entry for entry in entries if entry["event"] == "library" and entry["level"] != "DEBUG"]
        for secret in ("1.2.840", "SECRET", "PatientName", "müller", "m\\u00fcller", "chief", "dicomwatchd_", SECRET):
            assert secret not in log, secret
        assert not re.search(r"cookie|token=|next=|passwd|evil", log, re.IGNORECASE)
        assert str(process.state) not in log
