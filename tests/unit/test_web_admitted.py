"""Who gets past the layers around the rooms, one request at a time: tokens, sessions, a proxy's word, other sites'
pages, requests that are none, and whoever tries too often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.access.tokens import FILE_NAME, TokenFile, Tokens
from dicomwatchd.config.web import Web, WebProxy, WebRoles, WebSessions
from dicomwatchd.errors import ColdObject, StudyNotFound, Transient
from dicomwatchd.web import answers
from dicomwatchd.web.answers import Answers
from dicomwatchd.web.languages import LANGUAGES
from dicomwatchd.web.login import pages
from dicomwatchd.web.login import words as login_words
from dicomwatchd.web.login.admission import SESSION_COOKIE, Admission, Doors
from dicomwatchd.web.login.cookies import Cookie
from dicomwatchd.web.login.proxy import ProxysWord
from dicomwatchd.web.login.roles import known_by
from dicomwatchd.web.login.sessions import Sessions
from dicomwatchd.web.needs import accept_body, needs, person_of
from dicomwatchd.web.people import Role
from dicomwatchd.web.rates import Rate
from dicomwatchd.web.requests import Sound, hosts_of
from tests.asgi import Answer, asked
from tests.pieces import FakeClock, Log

ORIGIN = "http://127.0.0.1:8442"
PROXY, SECRET = "10.0.0.2", "between-the-proxy-and-us"
SOMEBODY = {"X-Remote-User": "müller", "X-Remote-Groups": "privacy, staff", "X-Proxy-Secret": SECRET}
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
OURS = {"Sec-Fetch-Site": "same-origin"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ROLES = WebRoles(read=("staff",), administrate=("privacy",))


async def who(request: Request) -> Response:
    person = person_of(request)
    return PlainTextResponse(f"{person.name}: {' '.join(sorted(person.roles))}")


@needs(Role.ADMINISTRATE)
async def privileged(_request: Request) -> Response:
    return PlainTextResponse("yes")


@needs(Role.UPLOAD)
def plain(_request: Request) -> Response:
    return PlainTextResponse("yes")


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def large_body(request: Request) -> Response:
    accept_body(request, 1 << 20)
    return await body(request)


async def fails(request: Request) -> Response:
    raise {
        "cold": ColdObject("of MEIER"),
        "there": StudyNotFound("1.2.3"),
        "later": Transient("of MEIER", retry_after_seconds=7),
        "bug": ZeroDivisionError("MEIER"),
    }[request.path_params["how"]]


async def cached(request: Request) -> Response:
    said = request.query_params.get("said")
    return PlainTextResponse("x", headers={} if said is None else {"Cache-Control": said})


class Half:
    """Begins an answer and fails."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ColdObject("x") if scope["path"].endswith("ours") else ZeroDivisionError


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise HTTPException(404)


@dataclass
class Place:
    """The layers of the web process around a few endpoints, with every way to log in but a provider."""

    folder: Path
    secure: bool = False
    limits: tuple[int, int] = (3, 1000)
    proxy_secret: str | None = SECRET
    has_tokens: bool = True
    clock: FakeClock = field(default_factory=FakeClock)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        self.web = Web.model_validate({"tokens": True, "state": str(self.folder)})
        self.sessions = Sessions(WebSessions(), self.clock)
        settings = WebProxy.model_validate(
            {"addresses": (PROXY, "10.9.0.0/16"), "groups_header": "X-Remote-Groups", "secret_file": "/secret"}
        )

        def known(name: str, groups: Sequence[str]) -> Any:
            return known_by(ROLES, name, groups)

        self.doors = Doors(
            origin=ORIGIN,
            sessions=self.sessions,
            cookie=Cookie(SESSION_COOKIE, secure=self.secure),
            tokens=Tokens(self.folder, self.clock.now, lambda _error: None) if self.has_tokens else None,
            proxy=ProxysWord(settings, self.proxy_secret, known),
            oidc=None,
            failures=Rate(self.limits[0], 300.0, self.clock),
            requests=Rate(self.limits[1], 60.0, self.clock),
            log=self.log,
        )
        routes = [
            Route("/who", who, methods=["GET", "POST"]),
            Route("/privileged", privileged),
            Route("/plain", plain),
            Route("/body", body, methods=["POST"]),
            Route("/large-body", large_body, methods=["POST"]),
            Route("/fails/{how}", fails),
            Route("/cached", cached),
            Route("/half/{whose}", Half()),
            *pages.routes(self.web, self.doors),
        ]
        app: ASGIApp = Admission(Router(routes, redirect_slashes=False, default=nothing), self.doors)
        app = Sound(app, hosts_of(ORIGIN, self.web.listen))
        self.app = Answers(app, self.log, self.clock, secure=self.secure)

    def token(self, name: str = "reader", *roles: str) -> str:
        return TokenFile(self.folder).add(name, roles or ("read",), self.clock.now(), None)

    def ask(self, target: str = "/who", method: str = "GET", **more: Any) -> Answer:
        return asked(self.app, target, method, **more)

    def bearer(self, text: str, target: str = "/who", method: str = "GET", **more: Any) -> Answer:
        return self.ask(target, method, headers={"Authorization": f"Bearer {text}"}, **more)

    def log_in(self, text: str, after: str = "/", **headers: str) -> Answer:
        said = f"token={text}&next={after}".encode()
        return self.ask("/login", "POST", headers={**OURS, **FORM, **headers}, body=said)

    def session(self, *roles: str) -> dict[str, str]:
        """The headers of a browser that has logged in."""
        made = self.log_in(self.token("browser", *roles))
        assert made.status == 303
        return {"Cookie": made.headers["set-cookie"].partition(";")[0]}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- nobody -----------------------------------------------------------------------------------------------------------


def test_nobody_gets_nothing_but_the_way_to_log_in(place: Place) -> None:
    assert place.ask().status == 401 and place.ask("/nowhere").status == 401
    assert place.ask().headers["www-authenticate"] == "Bearer"
    page = place.ask("/who?x=1", headers=PAGE)
    assert page.status == 303 and page.headers["location"] == "/login?next=/who%3Fx%3D1"
    assert place.ask("/who", headers={**PAGE, "Sec-Fetch-Mode": "cors"}).status == 401, "a script is told, and not sent"
    assert place.ask("/login").status == 200 and place.ask("/login/style.css").status == 200
    assert place.ask("/login/x").status == 401


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_its_holder_s_with_its_roles(place: Place) -> None:
    text = place.token("ct", "read", "upload")
    assert place.bearer(text).text == "token:ct: read upload"
    assert place.bearer(text, "/plain").status == 200
    assert place.bearer(text, "/privileged").status == 403
    assert place.bearer(place.token("chief", "administrate"), "/privileged").text == "yes"
    assert place.bearer(place.token("guest", "read"), "/plain").status == 403


@pytest.mark.parametrize("wrong", ["", "x", "dicomwatchd_", "{right}x"])
def test_another_token_lets_nobody_in(place: Place, wrong: str) -> None:
    text = wrong.replace("{right}", place.token())
    answer = place.bearer(text)
    assert answer.status == 401 and "invalid_token" in answer.headers["www-authenticate"]


def test_a_wrong_token_is_not_replaced_by_the_session_beside_it(place: Place) -> None:
    session = place.session()
    assert place.ask(headers=session).status == 200
    assert place.ask(headers={**session, "Authorization": "Bearer x"}).status == 401


def test_the_form_of_a_token_is_there_only_where_tokens_are(tmp_path: Path) -> None:
    place = Place(tmp_path, has_tokens=False)
    text = place.token()
    assert place.log_in(text).status == 404
    assert place.bearer(text).status == 401


# -- who fails, or asks, too often ------------------------------------------------------------------------------------


def test_who_fails_too_often_waits(place: Place) -> None:
    assert [place.bearer("x").status for _ in range(5)] == [401, 401, 401, 429, 429]
    late = place.log_in("x")
    assert late.status == 429 and 0 < int(late.headers["retry-after"]) <= 300
    assert place.bearer("x", peer="10.1.1.1").status == 401, "another address"
    assert place.bearer(place.token()).status == 200, "a right one cannot be guessed, and is not held up"
    place.clock.advance(301)
    assert [place.bearer("x").status for _ in range(4)] == [401, 401, 401, 429]


def test_the_form_counts_who_fails(place: Place) -> None:
    assert [place.log_in("x").status for _ in range(4)] == [401, 401, 401, 429]
    refused = place.log.events("web-login-refused")
    assert [one["reason"] for one in refused] == ["token"] * 3
    assert all(set(one) == {"reason", "peer"} for one in refused)


def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    place = Place(tmp_path, limits=(3, 5))
    text = place.token()
    assert [place.bearer(text).status for _ in range(7)] == [200] * 5 + [429] * 2
    assert place.bearer(text, peer="10.1.1.1").status == 429, "it is the person who is counted"
    assert place.bearer(place.token("other")).status == 200
    assert [place.ask("/login").status for _ in range(6)] == [200] * 5 + [429]
    assert place.ask("/login", peer="10.1.1.1").status == 200
    place.clock.advance(61)
    assert place.bearer(text).status == 200


def test_as_many_addresses_as_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.web.rates._MOST_KEYS", 3)
    rate = Rate(1, 60.0, FakeClock())
    for key in "abcd":
        rate.count(key)
    assert [rate.wait_seconds(key) > 0 for key in "abcd"] == [False, True, True, True]


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(tmp_path: Path) -> None:
    for secure, name in ((False, "dicomwatchd"), (True, "__Host-dicomwatchd")):
        folder = tmp_path / name
        folder.mkdir()
        place = Place(folder, secure=secure)
        made = place.log_in(place.token())
        given, *flags = (one.strip() for one in made.headers["set-cookie"].split(";"))
        assert given.startswith(f"{name}=") and len(given) > 40
        assert {one.lower() for one in flags} == {
            "httponly", "path=/", "samesite=lax", f"max-age={place.web.sessions.longest_seconds}",
            *(["secure"] if secure else []),
        }  # fmt: skip


def test_a_log_in_makes_a_new_session_and_ends_the_one_that_came(place: Place) -> None:
    text = place.token()
    first = {"Cookie": place.log_in(text).headers["set-cookie"].partition(";")[0]}
    made = place.log_in(text, **first)
    assert made.headers["set-cookie"].partition(";")[0] != first["Cookie"]
    assert place.ask(headers=first).status == 401
    planted = {"Cookie": "dicomwatchd=planted"}
    assert place.log_in(text, **planted).status == 303
    assert place.ask(headers=planted).status == 401


def test_a_session_ends_with_its_token(place: Place) -> None:
    session = place.session("read")
    assert place.ask(headers=session).text == "token:browser: read"
    TokenFile(place.folder).revoke("browser")
    assert place.ask(headers=session).status == 401


def test_a_session_has_the_roles_that_its_token_has_now(place: Place) -> None:
    session = place.session("read", "administrate")
    assert place.ask(headers=session).text == "token:browser: administrate read"
    file = place.folder / FILE_NAME
    document = json.loads(file.read_text())
    document["tokens"][0]["roles"] = ["read"]
    file.write_text(json.dumps(document))
    assert place.ask(headers=session).text == "token:browser: read"


def test_a_log_out_ends_the_session_and_what_the_browser_keeps(place: Place) -> None:
    session = place.session()
    left = place.ask("/logout", "POST", headers={**session, **OURS})
    assert left.status == 303 and left.headers["location"] == "/login?left=1"
    assert "cache" in left.headers["clear-site-data"] and "max-age=0" in left.headers["set-cookie"].lower()
    assert place.ask(headers=session).status == 401
    assert place.ask("/logout", headers=session).status == 405, "a link is no log-out"


def test_two_cookies_are_none(place: Place) -> None:
    session = place.session()
    assert place.ask(headers={"Cookie": f"{session['Cookie']}; {session['Cookie']}"}).status == 400
    two = [("Cookie", session["Cookie"]), ("Cookie", "dicomwatchd=planted")]
    assert place.ask(headers=two).status == 400
    assert place.ask(headers={"Cookie": f"x=y; {session['Cookie']}"}).status == 200


def test_what_the_form_sends_twice_or_too_much_of_is_refused(place: Place) -> None:
    for said in (b"token=a&token=b", b"&".join(b"a%d=1" % number for number in range(20)), b"token=\xff"):
        assert place.ask("/login", "POST", headers={**OURS, **FORM}, body=said).status == 400


def test_nobody_is_sent_elsewhere(place: Place) -> None:
    text = place.token()
    assert place.log_in(text, "/viewer").headers["location"] == "/viewer"
    assert place.log_in(text, "//evil.example.org").headers["location"] == "/"
    session = place.session()
    gone = place.ask("/login?next=//evil.example.org", headers=session)
    assert gone.status == 303 and gone.headers["location"] == "/"


def test_what_is_shown_of_a_wrong_address_is_text(place: Place) -> None:
    page = place.ask("/login?next=/%22%3E%3Cscript%3E")
    assert page.status == 200 and "<script>" not in page.text and 'value="/&quot;&gt;&lt;script&gt;"' in page.text


# -- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "lets"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": ORIGIN}, True),
        ({"Origin": f"{ORIGIN}.evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_another_site_does_nothing_in_somebody_s_name(place: Place, headers: dict[str, str], lets: bool) -> None:
    session = place.session()
    assert place.ask(method="POST", headers={**session, **headers}).status == (200 if lets else 403)
    assert place.ask(headers={**session, **headers}).status == 200
    assert place.ask(method="POST", headers={**SOMEBODY, **headers}, peer=PROXY).status == (200 if lets else 403)


def test_a_token_in_a_header_needs_no_page_of_ours(place: Place) -> None:
    assert place.bearer(place.token(), method="POST").status == 200


def test_headers_keep_other_sites_and_caches_out(tmp_path: Path) -> None:
    for secure in (False, True):
        folder = tmp_path / str(secure)
        folder.mkdir()
        place = Place(folder, secure=secure)
        text = place.token()
        for answer in (place.ask("/login"), place.bearer(text), place.bearer(text, "/nowhere"), place.ask()):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
            assert "base-uri 'none'" in policy and "form-action 'self'" in policy
            assert answer.headers["x-frame-options"] == "DENY" and answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["cache-control"] == "no-store"
            assert ("strict-transport-security" in answer.headers) == secure


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (None, "no-store"),
        ("public, max-age=9", "no-store"),
        ("private, s-maxage=9", "no-store"),
        ("private, max-age=9", "private, max-age=9"),
    ],
)
def test_no_cache_that_others_share(place: Place, said: str | None, sent: str) -> None:
    answer = place.bearer(place.token(), "/cached" if said is None else f"/cached?said={said.replace(' ', '%20')}")
    assert answer.headers["cache-control"] == sent


# -- a reverse proxy's word -------------------------------------------------------------------------------------------


def test_the_proxy_is_believed_and_nobody_else(place: Place) -> None:
    assert place.ask(headers=SOMEBODY, peer=PROXY).text == "müller: administrate read"
    assert place.ask(headers=SOMEBODY, peer="10.9.1.1").status == 200
    assert place.ask(headers=SOMEBODY, peer="::ffff:10.0.0.2").status == 200
    assert place.ask(headers=SOMEBODY, peer="10.0.0.3").status == 401
    assert place.ask(headers={**SOMEBODY, "X-Proxy-Secret": "another-one"}, peer=PROXY).status == 401
    assert place.ask(headers={"X-Remote-User": "müller"}, peer=PROXY).status == 401
    assert place.ask(headers={**SOMEBODY, "X-Remote-User": "token:ct"}, peer=PROXY).status == 401


def test_without_a_secret_its_address_tells(tmp_path: Path) -> None:
    place = Place(tmp_path, proxy_secret=None)
    assert place.ask(headers={"X-Remote-User": "müller"}, peer=PROXY).text == "müller: "
    assert place.ask(headers={"X-Remote-User": "müller"}, peer="10.0.0.3").status == 401


@pytest.mark.parametrize("header", ["X-Remote-User", "X-Remote-Groups", "X-Proxy-Secret"])
def test_what_the_proxy_says_twice_is_refused(place: Place, header: str) -> None:
    assert place.ask(headers=[*SOMEBODY.items(), (header, SOMEBODY[header])], peer=PROXY).status == 400


def test_behind_the_proxy_each_address_is_counted_for_itself(place: Place) -> None:
    """By what the proxy has added last: what a client writes there itself counts for nothing."""

    def tried(forwarded: str, peer: str = PROXY) -> int:
        headers = {"X-Proxy-Secret": SECRET, "Authorization": "Bearer x", "X-Forwarded-For": forwarded}
        return place.ask(headers=headers, peer=peer).status

    assert [tried(f"192.0.2.{number}, 192.0.2.99") for number in range(4)] == [401, 401, 401, 429]
    assert tried("192.0.2.99") == 429 and tried("192.0.2.1") == 401
    assert [tried(f"192.0.2.{number}", "10.0.0.3") for number in range(4)] == [401, 401, 401, 429], "no proxy's word"


# -- requests that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8442", 200),
        ("localhost:8442", 200),
        ("127.0.0.1", 200),
        ("evil.example.org", 421),
        ("127.0.0.1:8443", 421),
        ("", 421),
    ],
)
def test_another_host_s_name_is_refused(place: Place, host: str, status: int) -> None:
    assert place.ask("/login", headers={"Host": host}).status == status


def test_the_name_is_the_public_one() -> None:
    assert hosts_of("https://images.example.org", "10.0.0.1:8442") == {
        "images.example.org", "images.example.org:443", "10.0.0.1:8442"
    }  # fmt: skip
    assert "[::1]:8442" in hosts_of("http://[::1]:8442", "[::1]:8442")


@pytest.mark.parametrize("name", ["Host", "Authorization", "Origin", "Sec-Fetch-Site", "Content-Type"])
def test_what_is_said_twice_is_refused(place: Place, name: str) -> None:
    value = "127.0.0.1:8442" if name == "Host" else "same-origin"
    headers = [("Host", "127.0.0.1:8442")] * (name != "Host") + [(name, value)] * 2
    answer = place.ask("/login", headers=headers)
    assert answer.status == 400 and answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/login/../who", 400),
        ("/login/./style.css", 400),
        ("//login", 400),
        ("/login%2fstyle.css", 400),
        ("/login%5cx", 400),
        ("/login%00", 400),
        ("/login\\x", 400),
        ("/login%0a", 400),
        ("/" + "x" * 8200, 414),
        ("/login?" + "x" * 8200, 414),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_refused(place: Place, target: str, status: int) -> None:
    assert place.ask(target).status == status


def test_methods_and_lengths_that_are_none(place: Place) -> None:
    text = place.token()
    assert place.bearer(text, "/nowhere", "TRACE").status == 405
    both = {"Authorization": f"Bearer {text}", "Content-Length": "1", "Transfer-Encoding": "chunked"}
    assert place.ask("/body", "POST", headers=both, body=b"x").status == 400


def test_a_body_has_the_bytes_that_its_endpoint_takes(place: Place) -> None:
    text = place.token()
    assert place.bearer(text, "/body", "POST", body=bytes(64 << 10)).text == str(64 << 10)
    assert place.bearer(text, "/body", "POST", body=bytes((64 << 10) + 1)).status == 413
    assert place.bearer(text, "/large-body", "POST", body=bytes(1 << 20)).text == str(1 << 20)
    assert place.bearer(text, "/large-body", "POST", body=bytes((1 << 20) + 1)).status == 413


# -- what is said, and what is logged ---------------------------------------------------------------------------------


def test_errors_say_what_their_status_says(place: Place) -> None:
    text = place.token()
    found = {how: place.bearer(text, f"/fails/{how}") for how in ("cold", "there", "later", "bug")}
    assert [one.status for one in found.values()] == [409, 404, 503, 500]
    assert found["later"].headers["retry-after"] == "7"
    assert not any("MEIER" in one.text or "1.2.3" in one.text for one in found.values())


@pytest.mark.parametrize(("wish", "language"), [({"Accept-Language": "de-CH,en;q=0.5"}, "de"), ({}, "en")])
def test_people_are_told_in_their_language(place: Place, wish: dict[str, str], language: str) -> None:
    """Before they have logged in, too; programs in English."""
    page = place.ask("/login", headers=wish)
    assert f'<html lang="{language}">' in page.text and page.headers["content-language"] == language
    assert login_words.WORDS[language]["enter"] in page.text
    wrong = place.ask("/login", "POST", headers=OURS | FORM | wish, body=b"token=x")
    assert wrong.status == 401 and login_words.WORDS[language]["bad-token"] in wrong.text
    held = {"Authorization": f"Bearer {place.token()}", **wish}
    missing = place.ask("/nothing", headers=held | PAGE)
    assert missing.status == 404 and f'<html lang="{language}">' in missing.text
    assert ("Hier ist nichts." in missing.text) == (language == "de")
    assert "There is nothing here." in place.ask("/nothing", headers=held).text


def test_every_sentence_is_there_in_both_languages() -> None:
    english, german = (login_words.WORDS[one] for one in LANGUAGES)
    assert english.keys() == german.keys()
    assert all(german.values()) and not ({*english.values()} - {"Token"}) & {*german.values()}
    assert answers._WORDS["en"].keys() <= answers._WORDS["de"].keys()


@pytest.mark.parametrize("whose", ["ours", "another"])
def test_an_answer_that_cannot_be_ended_is_torn(place: Place, whose: str) -> None:
    answer = place.bearer(place.token(), f"/half/{whose}")
    assert answer.body == b"half" and answer.torn is not None


def test_the_log_says_neither_who_nor_what(place: Place) -> None:
    text = place.token("meier")
    place.bearer(text, "/who?PatientName=MEIER")
    place.bearer(text, "/studies/1.2.3")
    place.bearer(text, "/fails/bug")
    place.log_in(text, "/viewer?MEIER")
    place.ask("/login", "POST", headers={**FORM, "Sec-Fetch-Site": "cross-site", "Origin": "https://meier.example"})
    place.bearer(text, "/who/1.2.3", method="MEIER")
    said = repr(place.log.entries).lower()
    assert "meier" not in said and "1.2.3" not in said and text.lower() not in said
    requests = place.log.events("web-request")
    assert len(requests) == 6
    assert {one["route"] for one in requests} == {"who", "none", "fails", "login"}
    assert requests[-1]["http_method"] == "OTHER" and requests[0]["http_status"] == 200
    assert all(isinstance(one["bytes"], int) and one["peer"] == "127.0.0.1" for one in requests)
