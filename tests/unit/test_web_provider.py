"""A provider of OpenID Connect that answers whatever it is told to, over a socket: what a wrong one, or somebody in
between, could say, and no log-in comes of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from dicomwatchd.config.web import Web, WebOidc, WebRoles
from dicomwatchd.errors import Transient
from dicomwatchd.web.answers import Answers
from dicomwatchd.web.login import pages
from dicomwatchd.web.login.admission import SESSION_COOKIE, Admission, Doors
from dicomwatchd.web.login.cookies import Cookie
from dicomwatchd.web.login.log_outs import EVENT, LogOut
from dicomwatchd.web.login.oidc import COOKIE, LoginRefused, Oidc
from dicomwatchd.web.login.provider import Provider
from dicomwatchd.web.login.sessions import Sessions
from dicomwatchd.web.login.signed import Signed
from dicomwatchd.web.rates import Rate
from tests.asgi import Answer, asked
from tests.pieces import FakeClock, Log
from tests.unit.test_web_admitted import who

CLIENT, SECRET = "dicomwatchd", "of-the-tests-and-of-nobody-else"
CALLBACK = "http://127.0.0.1:8442/login/callback"
PAGE = {"Accept": "text/html"}


class Liar:
    """On loopback. What it says of itself, of somebody, and in the token can be changed."""

    def __init__(self, keys: tuple[RSAKey, RSAKey]) -> None:
        self.key, self.other = keys
        self.kid = "one"
        self.described: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.signs_with: Any = self.key
        self.algorithm = "RS256"
        self.challenge = ""
        self.nonce = ""
        self.has_no_token = False
        self.status = 200
        #: What is answered at a path instead, and where nothing is, until it is let.
        self.instead: dict[str, Any] = {}
        self.held: dict[str, threading.Event] = {}
        self.asked: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(liar.answer(urlsplit(self.path).path, {}))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self._answer(liar.answer(urlsplit(self.path).path, {name: one[0] for name, one in form.items()}))

            def _answer(self, document: dict[str, Any]) -> None:
                path = urlsplit(self.path).path
                if path in liar.held:
                    liar.held[path].wait(60)
                data = json.dumps(liar.instead.get(path, document)).encode()
                self.send_response(400 if "error" in document else liar.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def answer(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/me",
                "end_session_endpoint": f"{self.issuer}/end",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
                **self.described,
            }
        if path == "/keys":
            return {"keys": [{**self.key.as_dict(private=False), "kid": self.kid}]}
        if path == "/me":
            return self.userinfo
        assert path == "/token"
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if form.get("code") != "the-code" or challenge.decode().rstrip("=") != self.challenge:
            return {"error": "invalid_grant"}
        token = {"access_token": "a", "token_type": "Bearer", "expires_in": 60}
        return token if self.has_no_token else {**token, "id_token": self.token()}

    def token(self) -> str:
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "sub": "somebody",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": self.nonce,
            "preferred_username": "müller",
            "groups": ["radiology"],
            **self.claims,
        }
        claims = {name: value for name, value in said.items() if value is not None}
        if self.algorithm == "none":
            parts = ({"alg": "none"}, claims)
            return ".".join(
                base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts
            ) + "."  # fmt: skip
        header = {"alg": self.algorithm, "kid": self.kid}
        return jwt.encode(header, claims, self.signs_with, algorithms=[self.algorithm])


@pytest.fixture(scope="module")
def keys() -> tuple[RSAKey, RSAKey]:
    def key() -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})

    return key(), key()


@pytest.fixture
def liar(keys: tuple[RSAKey, RSAKey]) -> Iterator[Liar]:
    liar = Liar(keys)
    yield liar
    liar.stop()


class Site:
    """The log-in at the provider, and one endpoint behind it."""

    def __init__(self, liar: Liar, folder: Path) -> None:
        self.liar, self.clock, self.log = liar, FakeClock(), Log()
        oidc = WebOidc.model_validate(
            {"issuer": liar.issuer, "client_id": CLIENT, "client_secret_file": folder / "secret"}
        )
        roles = WebRoles(read=("radiology",))
        web = Web.model_validate({"oidc": oidc, "roles": roles, "state": folder})
        self.provider = Provider(oidc, SECRET, CALLBACK, self.clock)
        self.doors = Doors(
            origin="http://127.0.0.1:8442",
            sessions=Sessions(web.sessions, self.clock),
            cookie=Cookie(SESSION_COOKIE, secure=False),
            tokens=None,
            proxy=None,
            oidc=Oidc(self.provider, Signed(b"k" * 32, self.clock), Cookie(COOKIE, secure=False), roles),
            failures=Rate(3, 300.0, self.clock),
            requests=Rate(1000, 60.0, self.clock),
            log=self.log,
        )
        app: ASGIApp = Router([Route("/who", who), *pages.routes(web, self.doors)])
        self.app = Answers(Admission(app, self.doors), self.log, self.clock, secure=False)

    def begin(self, after: str = "/who") -> tuple[dict[str, str], dict[str, str]]:
        """What went to the provider, and the cookie that the browser keeps meanwhile."""
        begun = asked(self.app, f"/login/oidc?next={after}", headers=PAGE)
        assert begun.status == 303, begun.text
        sent = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
        self.liar.challenge, self.liar.nonce = sent["code_challenge"], sent["nonce"]
        return sent, {"Cookie": begun.headers["set-cookie"].partition(";")[0]}

    def finish(self, cookie: dict[str, str], **answer: str) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in answer.items())
        return asked(self.app, f"/login/callback?{query}", headers={**PAGE, **cookie})

    def log_in(self, **answer: str) -> Answer:
        sent, cookie = self.begin()
        return self.finish(cookie, **{"code": "the-code", "state": sent["state"], **answer})

    def sessions(self) -> int:
        return len(self.doors.sessions._open)


@pytest.fixture
def site(liar: Liar, tmp_path: Path) -> Site:
    return Site(liar, tmp_path)


def cookies(answer: Answer) -> list[str]:
    return answer.headers.getlist("set-cookie")


def test_a_person_logs_in(site: Site) -> None:
    sent, cookie = site.begin()
    assert sent["response_type"] == "code" and sent["code_challenge_method"] == "S256" and sent["client_id"] == CLIENT
    assert "openid" in sent["scope"].split() and sent["redirect_uri"] == CALLBACK
    done = site.finish(cookie, code="the-code", state=sent["state"])
    assert done.status == 303 and done.headers["location"] == "/who"
    taken, given = cookies(done)
    assert taken.startswith('dicomwatchd-login="";') and "Max-Age=0" in taken
    assert given.startswith("dicomwatchd=") and "HttpOnly" in given and "SameSite=lax" in given
    assert asked(site.app, "/who", headers={"Cookie": given.partition(";")[0]}).text == "müller: read"
    assert site.sessions() == 1
    assert "müller" not in repr(site.log.entries) and "the-code" not in repr(site.log.entries)


def test_each_log_in_has_its_own_state_nonce_and_verifier(site: Site) -> None:
    seen = [site.begin()[0] for _ in range(2)]
    assert all(seen[0][one] != seen[1][one] and len(seen[0][one]) >= 16 for one in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "of-another-log-in"},
        {"nonce": None},
        {"iss": "https://login.example.org"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": ["another-client", "a-third"]},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"preferred_username": None},
        {"preferred_username": 7},
        {"preferred_username": "token:ct"},
        {"preferred_username": ""},
    ],
    ids=str,
)
def test_another_s_token_lets_nobody_in(site: Site, claims: dict[str, Any]) -> None:
    site.liar.claims = claims
    site.liar.userinfo = {"sub": "somebody"}
    assert site.log_in().status == 401
    assert site.sessions() == 0
    assert [one["reason"] for one in site.log.events("web-login-refused")] == ["oidc"]


def test_only_the_provider_s_own_key_signs(site: Site) -> None:
    site.liar.signs_with = site.liar.other
    assert site.log_in().status == 401
    site.liar.signs_with, site.liar.algorithm = OctKey.import_key(SECRET), "HS256"
    assert site.log_in().status == 401, "whoever has the client's secret is not the provider"
    site.liar.algorithm = "none"
    assert site.log_in().status == 401
    assert site.sessions() == 0


def test_without_a_token_nobody_is_let_in(site: Site) -> None:
    site.liar.has_no_token = True
    assert site.log_in().status == 401


@pytest.mark.parametrize(
    ("described", "answer"),
    [
        ({}, {"state": "x"}),
        ({}, {"iss": "https://other.example.org"}),
        ({"authorization_response_iss_parameter_supported": True}, {}),
        ({}, {"code": "another"}),
    ],
)
def test_a_changed_answer_lets_nobody_in(site: Site, described: dict[str, Any], answer: dict[str, str]) -> None:
    site.liar.described = described
    assert site.log_in(**answer).status == 401
    assert site.sessions() == 0


def test_who_was_refused_there_is_refused_here(site: Site) -> None:
    sent, cookie = site.begin()
    refused = site.finish(cookie, state=sent["state"], error="access_denied")
    assert refused.status == 401 and site.sessions() == 0
    assert cookies(refused)[0].startswith('dicomwatchd-login="";')
    assert "/token" not in site.liar.asked


def test_an_answer_counts_in_the_browser_that_began_and_for_ten_minutes(site: Site) -> None:
    sent, cookie = site.begin()
    answer = {"code": "the-code", "state": sent["state"]}
    assert site.finish({}, **answer).status == 401
    _, another = site.begin()
    assert site.finish(another, **answer).status == 401
    sent, cookie = site.begin()
    site.clock.advance(601)
    assert site.finish(cookie, code="the-code", state=sent["state"]).status == 401
    assert site.sessions() == 0


def test_the_code_is_of_use_to_who_has_begun_alone(site: Site) -> None:
    """PKCE: the provider has another challenge than that of this browser's verifier."""
    sent, cookie = site.begin()
    site.liar.challenge = "x" * 43
    assert site.finish(cookie, code="the-code", state=sent["state"]).status == 401


@pytest.mark.parametrize("after", ["//evil.example.org", "https://evil.example.org", "/logout"])
def test_nobody_is_sent_elsewhere(site: Site, after: str) -> None:
    sent, cookie = site.begin(after)
    assert site.finish(cookie, code="the-code", state=sent["state"]).headers["location"] == "/"


def test_the_groups_make_the_roles(site: Site) -> None:
    site.liar.claims = {"groups": ["visitors"]}
    guest = site.log_in()
    assert guest.status == 403 and "no right" in guest.text and site.sessions() == 0
    site.liar.claims = {"groups": "radiology"}
    assert site.log_in().status == 303


def test_what_is_said_elsewhere_is_said_of_the_same_person(site: Site) -> None:
    """With an access token that lasts a minute, as the shortest do."""
    site.liar.claims = {"groups": None}
    site.liar.userinfo = {"sub": "another", "groups": ["radiology"]}
    assert site.log_in().status == 401
    site.liar.userinfo = {"sub": "somebody", "groups": ["radiology"], "preferred_username": "another"}
    done = site.log_in()
    assert done.status == 303
    assert asked(site.app, "/who", headers={"Cookie": cookies(done)[1].partition(";")[0]}).text == "müller: read"


def test_a_new_log_in_ends_the_session_that_came(site: Site) -> None:
    done = site.log_in()
    old = cookies(done)[1].partition(";")[0]
    sent, cookie = site.begin()
    both = {"Cookie": f"{old}; {cookie['Cookie']}"}
    assert site.finish(both, code="the-code", state=sent["state"]).status == 303
    assert asked(site.app, "/who", headers={"Cookie": old}).status == 401


def test_who_fails_too_often_waits(site: Site) -> None:
    """And nobody does by coming without a log-in that was begun: any page can have its browsers do so."""
    assert {site.finish({}, code="x", state="x").status for _ in range(9)} == {401}
    sent, cookie = site.begin()
    assert [site.log_in(code="x").status for _ in range(3)] == [401] * 3
    assert site.finish(cookie, code="the-code", state=sent["state"]).status == 429
    assert asked(site.app, "/login/oidc", headers=PAGE).status == 429


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://login.example.org"},
        {"token_endpoint": "http://login.example.org/token"},
        {"jwks_uri": "http://login.example.org/keys"},
        {"authorization_endpoint": "http://login.example.org/auth"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "http://login.example.org/me"},
    ],
    ids=str,
)
def test_a_provider_that_is_another_or_unencrypted_is_not_asked(site: Site, described: dict[str, Any]) -> None:
    site.liar.described = described
    answer = asked(site.app, "/login/oidc", headers=PAGE)
    assert answer.status == 500 and "location" not in answer.headers


def test_its_description_is_read_again_after_an_hour(site: Site) -> None:
    for _ in range(2):
        site.begin()
    assert len(site.liar.asked) == 1
    site.clock.advance(3601)
    site.begin()
    assert len(site.liar.asked) == 2


def test_the_way_out_leads_to_the_provider_and_nowhere_else(site: Site) -> None:
    assert "/end" not in asked(site.app, "/login?left=1", headers=PAGE).text and not site.liar.asked, "it asks nobody"
    site.begin()
    page = asked(site.app, "/login?left=1", headers=PAGE)
    assert f'href="{site.liar.issuer}/end?client_id={CLIENT}&amp;post_logout_redirect_uri=' in page.text
    site.clock.advance(3601)
    site.liar.described = {"end_session_endpoint": "javascript:alert(1)"}
    site.begin()
    assert "javascript" not in asked(site.app, "/login?left=1", headers=PAGE).text


def test_its_trouble_is_said(site: Site) -> None:
    site.liar.status = 500
    assert asked(site.app, "/login/oidc", headers=PAGE).status == 503
    site.liar.status = 200
    assert asked(site.app, "/login/oidc", headers=PAGE).status == 503 and len(site.liar.asked) == 1, "it has a rest"
    site.clock.advance(5)
    sent, cookie = site.begin()
    site.liar.stop()
    assert site.finish(cookie, code="the-code", state=sent["state"]).status == 503
    assert len(site.log.events("web-refused")) == 3


def test_two_tabs_log_in(site: Site) -> None:
    first, cookie = site.begin("/one")
    challenge, nonce = site.liar.challenge, site.liar.nonce
    begun = asked(site.app, "/login/oidc?next=/two", headers={**PAGE, **cookie})
    site.liar.challenge, site.liar.nonce = challenge, nonce
    both = {"Cookie": begun.headers["set-cookie"].partition(";")[0]}
    done = site.finish(both, code="the-code", state=first["state"])
    assert (done.status, done.headers["location"]) == (303, "/one")
    assert not cookies(done)[0].startswith('dicomwatchd-login="";'), "the other's goes on"


def logout_token(site: Site, **changed: Any) -> str:
    now = int(site.clock.now())
    said = {
        "iss": site.liar.issuer,
        "aud": CLIENT,
        "sub": "somebody",
        "iat": now,
        "exp": now + 120,
        "jti": "one",
        "events": {EVENT: {}},
        **changed,
    }
    claims = {name: value for name, value in said.items() if value is not None}
    header = {"alg": site.liar.algorithm, "kid": site.liar.kid, "typ": changed.get("typ", "logout+jwt")}
    return jwt.encode(header, claims, site.liar.signs_with, algorithms=[site.liar.algorithm])


def junk(site: Site) -> str:
    """What anybody can make of a token: with a key that the provider does not have."""
    _, *rest = logout_token(site).split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"unknown"}').decode().rstrip("=")
    return ".".join((header, *rest))


def told(site: Site, token: str) -> int:
    body = f"logout_token={token}".encode()
    return asked(site.app, "/login/back-channel", method="POST", body=body).status


def test_the_provider_logs_somebody_out(site: Site) -> None:
    value = {"Cookie": cookies(site.log_in())[1].partition(";")[0]}
    assert told(site, logout_token(site, sub="another")) == 200
    assert asked(site.app, "/who", headers=value).status == 200
    assert told(site, logout_token(site, jti="two")) == 200
    assert asked(site.app, "/who", headers=value).status == 401
    assert site.log.events("web-logout-by-provider") == [{"session_count": 0}, {"session_count": 1}]


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://login.example.org"},
        {"aud": "another-client"},
        {"sub": None},
        {"iat": None},
        {"iat": 1_700_000_000},
        {"iat": 4_000_000_000},
        {"exp": 1_700_000_000},
        {"jti": None},
        {"events": None},
        {"events": {EVENT: None}},
        {"nonce": "x"},
        {"typ": "at+jwt"},
    ],
    ids=str,
)
def test_no_other_token_of_the_provider_logs_anybody_out(site: Site, changed: dict[str, Any]) -> None:
    site.log_in()
    assert told(site, logout_token(site, **changed)) == 400
    assert site.sessions() == 1 and site.log.events("web-login-refused")[0]["reason"] == "log-out"


def test_a_logout_token_counts_once_and_by_the_provider_s_key_alone(site: Site) -> None:
    site.log_in()
    token = logout_token(site, sub="another")
    assert [told(site, token) for _ in range(2)] == [200, 400]
    site.liar.signs_with = site.liar.other
    assert told(site, logout_token(site)) == 400
    site.liar.signs_with, site.liar.algorithm = OctKey.import_key(SECRET), "HS256"
    assert told(site, logout_token(site)) == 400
    assert site.sessions() == 1


def test_keys_that_nobody_knows_are_asked_for_now_and_then(site: Site) -> None:
    site.log_in()
    before = len(site.liar.asked)
    assert [told(site, junk(site)) for _ in range(5)] == [400] * 5 and len(site.liar.asked) == before + 1
    site.clock.advance(31)
    assert told(site, junk(site)) == 400 and len(site.liar.asked) == before + 2


def together(site: Site, *tokens: str) -> list[LogOut | BaseException]:
    """What becomes of log-outs that all come before the provider has answered anything."""

    async def all_of_them() -> list[LogOut | BaseException]:
        told = (site.provider.logged_out(one) for one in tokens)
        return await asyncio.gather(*told, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(all_of_them(), 120))


@pytest.mark.parametrize("what", ["the description is old", "the key is new"])
def test_log_outs_that_come_together_all_count(site: Site, what: str) -> None:
    site.log_in()
    if what == "the key is new":
        site.liar.kid = "two"
    else:
        site.clock.advance(3601)
    site.liar.asked.clear()
    tokens = [logout_token(site, sub=f"person {number}", jti=str(number)) for number in range(40)]
    tokens[7:7] = [junk(site)]
    outs = together(site, *tokens)
    assert isinstance(outs.pop(7), LoginRefused)
    assert outs == [LogOut(f"person {number}", None) for number in range(40)]
    assert site.liar.asked.count("/keys") == 1


@pytest.mark.parametrize("answer", [{"error": "trouble"}, {"keys": []}, {"keys": "none"}, {"keys": [7]}, [], "", 7])
@pytest.mark.parametrize("known", [False, True])
def test_no_log_out_is_refused_for_keys_that_could_not_be_fetched(site: Site, answer: object, known: bool) -> None:
    """A provider sends one that was refused (400) never again. After a rest it is asked anew, by whoever comes."""
    if known:
        site.log_in()
        site.liar.kid = "two"
    site.liar.instead["/keys"] = answer
    before = site.liar.asked.count("/keys")
    outs = together(site, *(logout_token(site, jti=str(number)) for number in range(20)), junk(site))
    assert [type(one) for one in outs] == [Transient] * 21
    assert [told(site, one) for one in (junk(site), logout_token(site))] == [503] * 2
    assert site.liar.asked.count("/keys") == before + 1
    del site.liar.instead["/keys"]
    site.clock.advance(6)
    assert told(site, logout_token(site)) == 200
    assert site.liar.asked.count("/keys") == before + 2


def test_keys_that_could_not_be_read_keep_nobody_out(site: Site) -> None:
    """Whoever sends a token that is none has them fetched, and must not have people refused by it."""
    site.begin()
    site.liar.instead["/keys"] = {"keys": "none"}
    assert told(site, junk(site)) == 503
    del site.liar.instead["/keys"]
    assert site.log_in().status == 303


def test_log_ins_and_log_outs_do_not_wait_in_each_other_s_place(site: Site) -> None:
    """So many log-ins wait for the description, and are of anybody; and so are log-outs."""
    path = "/.well-known/openid-configuration"
    site.liar.held[path] = threading.Event()
    false, true = junk(site), logout_token(site)

    async def test() -> None:
        outs = [asyncio.create_task(site.provider.logged_out(false)) for _ in range(200)]
        await seen(site, path)
        ins = [asyncio.create_task(site.provider.begin()) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(Transient):
            await site.provider.begin()
        out = asyncio.create_task(site.provider.logged_out(true))
        await asyncio.sleep(0)
        site.liar.held[path].set()
        assert len(await asyncio.gather(*ins)) == 16
        assert {type(one) for one in await asyncio.gather(*outs, return_exceptions=True)} == {LoginRefused}
        assert await out == LogOut("somebody", None)

    asyncio.run(asyncio.wait_for(test(), 120))
    assert site.liar.asked == [path, "/keys"]


def test_log_ins_under_way_take_no_keys_from_a_log_out(site: Site) -> None:
    site.liar.held["/token"] = threading.Event()

    async def test() -> None:
        begun = await site.provider.begin()
        ins = [asyncio.create_task(site.provider.finish(begun, {"code": "the-code"})) for _ in range(8)]
        await seen(site, "/token", 8)
        with pytest.raises(Transient):
            await site.provider.finish(begun, {"code": "the-code"})
        site.clock.advance(3601)
        assert await site.provider.logged_out(logout_token(site)) == LogOut("somebody", None)
        site.liar.held["/token"].set()
        await asyncio.gather(*ins, return_exceptions=True)

    asyncio.run(asyncio.wait_for(test(), 120))


async def seen(site: Site, path: str, times: int = 1) -> None:
    async with asyncio.timeout(60):
        while site.liar.asked.count(path) < times:
            await asyncio.sleep(0.01)


def test_a_log_out_that_comes_while_the_code_is_exchanged_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Provider.finish

    async def meanwhile(self: Provider, *given: Any) -> Any:
        known = await finish(self, *given)
        site.doors.sessions.end_all(LogOut("somebody", None))
        return known

    monkeypatch.setattr(Provider, "finish", meanwhile)
    assert site.log_in().status == 401 and site.sessions() == 0
