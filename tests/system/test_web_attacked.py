"""Every route of the web process, enumerated from the program itself, against nobody, whoever has no role, and whoever
has another one; other sites; requests that two programs read in two ways; what is handed out without a record."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute, Mount, Route

from dicomwatchd.access.record import AccessRecord, Wanted
from dicomwatchd.config import loading
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock
from dicomwatchd.telemetry.journal import open_journal
from dicomwatchd.web.app import assemble
from dicomwatchd.web.login.admission import OPEN
from dicomwatchd.web.people import Role
from dicomwatchd.web.process import Process
from tests.synthetic import Made, Maker
from tests.system.web_process import WebProcess, site_with_archive

#: Of everybody who has logged in: style sheets, scripts, and which language somebody reads.
ANYBODY = ("/language", "/app-config.js", "/page-static")
#: A list of studies is a look at none.
LIST = "/dicom-web/studies"
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Attacked:
    process: WebProcess
    made: list[Made]
    routes: list[tuple[str, str]]
    tokens: dict[str, str]

    def path(self, route: str, **others: str) -> str:
        """To something that is there, where the route names an instance."""
        one = self.made[0]
        known = {
            "study": one.study_uid,
            "series": one.series_uid,
            "instance": one.sop_instance_uid,
            "frames": "1",
            "number": "1",
            "path": "7FE00010",
        }
        return re.sub(r"{(\w+)(?::\w+)?}", lambda match: {**known, **others}.get(match[1], "x"), route)

    def unsafe(self) -> list[tuple[str, str]]:
        return [(method, route) for method, route in self.routes if method in UNSAFE]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    site = site_with_archive(tmp_path_factory.mktemp("attacked"))
    made = Maker(seed=71).ct_series(site.inbox / "ct", slices=2, rows=16, columns=16)
    assert site.once() == 0
    process = WebProcess(site)
    process.configure()
    routes = routes_of(site.config_file, process.state)
    process.start()
    tokens = {"": process.token("nothing"), **{role.value: process.token(role.value, role.value) for role in Role}}
    yield Attacked(process, made, routes, tokens)
    process.close()
    site.close()


def routes_of(config_file: Path, state: Path) -> list[tuple[str, str]]:
    """(method, path) of all that the program has, as it is put together."""
    loaded = loading.load(config_file)
    assert loaded.web is not None
    with ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        program: Any = Process(loaded, loaded.web, open_journal(nowhere), SystemClock())
        record = stack.enter_context(closing(AccessRecord(state, writing=True)))
        layer: Any = assemble(program._parts(stack, record), program._doors(), record, stack)
        while not hasattr(layer, "routes"):
            layer = layer._app
        return [one for route in layer.routes for one in _methods(route)]


def _methods(route: BaseRoute) -> list[tuple[str, str]]:
    match route:
        case Mount():
            return [("GET", route.path)]
        case Route():
            return [(method, route.path) for method in sorted(route.methods or ())]
    raise AssertionError(f"a route of a kind that nobody has looked at: {route!r}")


def needed(route: str) -> Role | None:
    """None: whoever has logged in. A route that is new has to be put somewhere here."""
    if route in ANYBODY:
        return None
    for role, heads in {
        Role.ADMINISTRATE: ("/access",),
        Role.UPLOAD: ("/upload", "/uploads"),
        Role.READ: ("/dicom-web", "/viewer", "/search", "/found", "/studies", "/sends"),
    }.items():
        if route == "/" or route.split("{")[0].rstrip("/").startswith(heads):
            return Role.READ if route == "/" else role
    raise AssertionError(f"a route of which nobody has said who may ask it: {route}")


def test_each_route_is_for_its_role_alone(web: Attacked) -> None:
    asked = 0
    for method, route in web.routes:
        if route in OPEN:
            continue
        role, path = needed(route), web.path(route)
        with web.process.client(headers={"Origin": web.process.url}) as nobody:
            assert nobody.request(method, path).status_code == 401, (method, route)
        for held, token in web.tokens.items():
            with web.process.client(token) as client:
                status = client.request(method, path).status_code
            asked += 1
            if role is None or held == role:
                assert status not in (401, 403, 405), (method, route, held)
            elif route == "/" and held in (Role.UPLOAD, Role.ADMINISTRATE):
                assert status == 303  # to what he may do
            else:
                assert status == 403, (method, route, held)
    assert asked > 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://elsewhere.example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "Same-Origin, same-origin"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
        {"Referer": "OWN"},
        {"Origin": "OWN.elsewhere.example.org"},
        {"X-Forwarded-Host": "127.0.0.1", "Origin": "https://127.0.0.1"},
    ],
    ids=repr,
)
def test_no_other_site_has_a_browser_do_anything(web: Attacked, headers: dict[str, str]) -> None:
    said = {name: value.replace("OWN", web.process.url) for name, value in headers.items()}
    with web.process.client() as client:
        form = {"token": web.tokens["upload"]}
        assert client.post("/login", data=form, headers={"Origin": web.process.url}).status_code == 303
        unsafe = web.unsafe()
        assert len(unsafe) > 8
        for method, route in unsafe:
            answer = client.request(method, web.path(route), headers=said)
            assert answer.status_code == 403, (method, route)
        assert client.get("/uploads").status_code == 200  # nobody has logged him out


def spoken(web: Attacked, request: str) -> bytes:
    """What comes back until the other end closes."""
    with socket.create_connection(("127.0.0.1", web.process.port), 60) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


@pytest.mark.parametrize(
    "target",
    [
        "//dicom-web/studies",
        "/dicom-web//studies",
        "/dicom-web/studies/",
        "/dicom-web/./studies",
        "/health/../dicom-web/studies",
        "/health/%2e%2e/dicom-web/studies",
        "/health/%2e%2e%2fdicom-web/studies",
        "/health%2f..%2fdicom-web%2fstudies",
        "/health/%252e%252e/dicom-web/studies",
        "/health/..;/dicom-web/studies",
        "/login;/../dicom-web/studies",
        "/login/style.css/../../dicom-web/studies",
        "/health\\..\\dicom-web\\studies",
        "/dicom-web/studies;/health",
        "/dicom-web/studies%00/health",
        "/dicom-web/studies%3f/health",
        "/DICOM-WEB/studies",
        "http://127.0.0.1/dicom-web/studies",
        "HTTP://health/dicom-web/studies",
        "*",
        "dicom-web/studies",
        "/health/",
        "/page-static/../../../../../../etc/passwd",
        "/page-static/%2e%2e/%2e%2e/routing.py",
        "/viewer/../access",
        "/dicom-web/studies#/health",
        "/%64icom-web/studies",
        "/dicom-web/studies?x=/health",
        "/dicom%2Dweb/studies",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
def test_no_spelling_of_a_path_goes_past_the_log_in(web: Attacked, target: str, method: str) -> None:
    host = f"127.0.0.1:{web.process.port}"
    answer = spoken(web, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    assert status in (0, 400, 401, 404, 405, 421), answer
    assert web.made[0].study_uid.encode() not in answer and b"root:" not in answer


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "X-Original-URL: /health",
        "X-Rewrite-URL: /health\r\nX-HTTP-Method-Override: GET",
        "X-Remote-User: admin\r\nX-Remote-Groups: *",
        "X_Remote_User: admin",
        "X-Forwarded-User: admin\r\nX-Forwarded-For: 127.0.0.1",
        "Cookie: dicomwatchd=",
        "Cookie: dicomwatchd=x; dicomwatchd=y",
        "Cookie: dicomwatchd=x\r\nCookie: dicomwatchd=y",
        "Authorization : Bearer x",
        "Authorization:\tBearer",
        "Accept: " + "a/b," * 3000,
        "Accept: " + "a" * (1 << 20),
    ],
    ids=lambda lines: lines[:24],
)
def test_no_header_goes_past_the_log_in(web: Attacked, lines: str) -> None:
    host = f"127.0.0.1:{web.process.port}"
    try:
        answer = spoken(web, f"GET /dicom-web/studies HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n\r\n")
    except OSError:
        return  # closed while we were still speaking
    assert int(answer[9:12]) in (400, 401, 429), answer[:200]
    assert web.made[0].study_uid.encode() not in answer


def test_nothing_of_a_study_is_handed_out_without_a_record(web: Attacked) -> None:
    """By whichever route, and whatever else the request says."""
    study = web.made[0].study_uid
    handed_out = 0
    with closing(AccessRecord(web.process.state, writing=False)) as record:
        asked = [
            (method, web.path(route)) for method, route in web.routes if route.startswith(("/dicom-web", "/studies"))
        ]
        asked += [
            ("GET", f"/dicom-web/{what}?StudyInstanceUID={study}&includefield=all") for what in ("series", "instances")
        ]
        asked.append(("GET", f"/dicom-web/instances?SOPInstanceUID={web.made[0].sop_instance_uid}"))
        for number, (method, path) in enumerate(asked):
            if path == LIST or method not in ("GET", "POST"):
                continue
            name = f"looks-{number}"
            with web.process.client(web.process.token(name, "read")) as client:
                answer = client.request(method, path)
            if answer.status_code == 200 and answer.content:
                handed_out += 1
                looks = record.search(Wanted(person=f"token:{name}"))
                assert {one.study_uid for one in looks} == {Uid(study)}, (method, path)
    assert handed_out >= 18
