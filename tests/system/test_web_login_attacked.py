"""The log-in once more: what proxies and browsers say in other ways than they should, and what becomes of a session
when what it stands on changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import httpx
import pytest

from dicomwatchd.access.tokens import FILE_NAME
from tests.system.web_process import WebProcess, site_with_archive, web_behind_proxy

SECRET = "of-the-proxy-and-of-nobody-else-ü"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """It listens on both families at once, so that its proxy, at 127.0.0.2, comes from ::ffff:127.0.0.2."""
    root = tmp_path_factory.mktemp("behind")
    web = web_behind_proxy(
        root,
        SECRET,
        roles={"read": ["Ärzte"], "administrate": ["Ärzte"]},
        limits={"failed_logins": 3},
    )
    web.settings["listen"] = f"[::]:{web.port}"
    web.start()
    yield web
    web.close()
    web.site.close()


def from_address(web: WebProcess, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    headers = {"Host": "images.example.org"}
    return httpx.Client(base_url=web.url, transport=transport, timeout=60, headers=headers, trust_env=False)


def says(user: str, groups: str, how: str = "utf-8") -> dict[bytes, bytes]:
    said = {"X-Remote-User": user, "X-Remote-Groups": groups}
    octets = {name.encode(): value.encode(how) for name, value in said.items()}
    return {**octets, b"X-Proxy-Secret": SECRET.encode()}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("user", ["müller", "Groß", "Łukasz", "Σωκράτης", "山田太郎"])
def test_whom_the_proxy_names_in_utf_8_is_let_in(behind: WebProcess, user: str, form: Literal["NFC", "NFD"]) -> None:
    with from_address(behind, "127.0.0.2") as client:
        said = says(normalize(form, user), normalize(form, "Personal, Ärzte"))
        assert client.get("/access", headers=said).status_code == 200


def test_so_is_whom_it_names_in_latin_1(behind: WebProcess) -> None:
    with from_address(behind, "127.0.0.2") as client:
        assert client.get("/access", headers=says("Groß", "Ärzte", "latin-1")).status_code == 200


@pytest.mark.parametrize("user", ["ｔoken:reader", "Token:reader", "token：reader", "a\u200bb", "a\u202eb", "\ufeffa"])
def test_nobody_looks_like_somebody_else(behind: WebProcess, user: str) -> None:
    with from_address(behind, "127.0.0.2") as client:
        assert client.get("/access", headers=says(user, "Ärzte")).status_code == 401


def test_no_other_address_is_the_proxy_s_in_either_family(behind: WebProcess) -> None:
    # Without TLS only the proxy may connect, and these are not it.
    for address in ("127.0.0.1", "127.0.0.3"):
        with from_address(behind, address) as client, pytest.raises(httpx.TransportError):
            client.get("/access", headers=says("müller", "Ärzte"))
    transport = httpx.HTTPTransport(local_address="::1")
    with httpx.Client(base_url=f"http://[::1]:{behind.port}", transport=transport, timeout=60, trust_env=False) as six:
        said = {b"Host": b"images.example.org", **says("müller", "Ärzte")}
        with pytest.raises(httpx.TransportError):
            six.get("/access", headers=said)


def test_what_a_proxy_says_of_host_and_scheme_leads_nowhere(behind: WebProcess) -> None:
    with from_address(behind, "127.0.0.2") as client:
        said = {"X-Forwarded-Host": "evil.example.org", "X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "//evil"}
        said |= {"Forwarded": "host=evil.example.org;proto=http", "Accept": "text/html"}
        answer = client.get("/found", headers=said)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/found")
        form = {"token": behind.token("forwarded", "read")}
        logged_in = client.post("/login", data=form, headers={**said, **OURS})
        assert logged_in.headers["location"] == "/" and logged_in.headers["set-cookie"].startswith("__Host-")
        assert "Secure" in logged_in.headers["set-cookie"]


def test_a_forwarded_address_with_a_port_is_an_address(behind: WebProcess) -> None:
    """Otherwise all who come through the proxy would be one, and wait for each other's wrong tokens."""
    with from_address(behind, "127.0.0.2") as client:
        client.headers.update({b"X-Proxy-Secret": SECRET.encode(), b"Authorization": b"Bearer x"})

        def tried(forwarded: str) -> int:
            return client.get("/nowhere", headers={"X-Forwarded-For": forwarded}).status_code

        assert [tried(f"10.1.2.3:{port}") for port in range(4000, 4005)] == [401, 401, 401, 429, 429]
        assert tried("::ffff:10.1.2.3") == 429 and tried("10.1.2.3") == 429
        assert tried("10.1.2.4:4000") == 401 and tried("[2001:db8::1]:4000") == 401


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebProcess]:
    web = WebProcess(site_with_archive(tmp_path), limits={"failed_logins": 1000})
    web.start()
    yield web
    web.close()
    web.site.close()


def logged_in(web: WebProcess, token: str) -> httpx.Client:
    client = web.client(headers=OURS)
    assert client.post("/login", data={"token": token}).status_code == 303
    return client


def test_a_session_has_the_roles_that_its_token_has_now(web: WebProcess) -> None:
    with closing(logged_in(web, web.token("chief", "read", "administrate"))) as client:
        assert client.get("/access").status_code == 200
        for roles, code in ((["read"], 403), (["administrate"], 200), ([], 403)):
            file = web.state / FILE_NAME
            document = json.loads(file.read_text())
            document["tokens"][0]["roles"] = roles
            made = file.with_suffix(".new")
            made.write_text(json.dumps(document))
            made.chmod(0o600)
            made.rename(file)
            assert client.get("/access").status_code == code, roles


def test_a_restart_ends_all_sessions_and_what_is_left_of_them_harms_nothing(web: WebProcess) -> None:
    token = web.token("reader", "read")
    with closing(logged_in(web, token)) as client:
        assert web.stop() == 0
        web.start()
        assert client.get("/nowhere").status_code == 401
        assert client.post("/logout").status_code == 303
        assert client.post("/login", data={"token": token}).status_code == 303
        assert client.get("/nowhere").status_code == 404
        assert web.stop(signal.SIGKILL) == -signal.SIGKILL
        web.start()
        assert client.get("/nowhere").status_code == 401


def test_log_ins_at_once_are_sessions_of_their_own(web: WebProcess) -> None:
    token = web.token("reader", "read")
    with ThreadPoolExecutor(8) as threads:
        clients = list(threads.map(lambda _: logged_in(web, token), range(8)))
    try:
        assert len({one.cookies["dicomwatchd"] for one in clients}) == 8
        assert clients[0].post("/logout").status_code == 303
        assert [one.get("/nowhere").status_code for one in clients] == [401] + [404] * 7
    finally:
        for one in clients:
            one.close()


def test_one_browser_that_logs_in_twice_at_once_has_one_session_that_counts(web: WebProcess) -> None:
    token = web.token("reader", "read")
    with web.client(headers=OURS) as client, ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda _: client.post("/login", data={"token": token}).status_code, range(8)))
        assert codes == [303] * 8 and client.get("/nowhere").status_code == 404
        assert client.post("/logout").status_code == 303 and client.get("/nowhere").status_code == 401
