"""Log-outs at the provider: what a certified one sends here, and what anybody else could (OpenID Connect Back-Channel
Logout 1.0)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.conftest import skip_unless_available
from tests.servers.oidc import CLIENT, SECRET, OidcProvider, signing_key
from tests.system.oidc_browser import Browser, with_provider
from tests.system.web_process import WebProcess

EVENT = "http://schemas.openid.net/event/backchannel-logout"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebProcess, OidcProvider]]:
    skip_unless_available("oidc")
    root = tmp_path_factory.mktemp("log-out")
    with with_provider(root, roles={"read": ["radiology"]}, limits={"failed_logins": 5}) as both:
        yield both


@pytest.fixture
def browser(both: tuple[WebProcess, OidcProvider]) -> Iterator[Browser]:
    with Browser(both[0]) as browser:
        assert browser.log_in("mueller").status_code == 303
        assert browser.status() == 404
        yield browser


def sent(web: WebProcess, token: str, **others: str) -> httpx.Response:
    with web.client() as client:
        return client.post("/login/back-channel", data={"logout_token": token, **others})


def claims(provider: OidcProvider, **changed: Any) -> dict[str, Any]:
    """Of a logout token that counts; a value of None takes one out."""
    now = int(time.time())
    made = {
        "iss": provider.issuer,
        "aud": CLIENT,
        "sub": "mueller",
        "iat": now,
        "exp": now + 120,
        "jti": f"{time.monotonic_ns()}",
        "events": {EVENT: {}},
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(provider: OidcProvider, said: dict[str, Any], **header: Any) -> str:
    key = RSAKey.import_key(provider.keys[0])
    return jwt.encode({"alg": "RS256", "kid": provider.keys[0]["kid"], "typ": "logout+jwt", **header}, said, key)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_log_out_at_the_provider_ends_the_session_here(browser: Browser) -> None:
    """By the provider's own back channel; the log-out was begun in another place than ours."""
    left = browser.http.get(f"{browser.web.url}/login", params={"left": "1"}, headers={"Cookie": ""})
    end = re.search(r'href="([^"]+/session/end[^"]*)"', left.text)
    with Browser(browser.web) as other:
        assert other.log_in("mueller").status_code == 303  # the same person, in a session of its own at the provider
        if end is None:  # whoever is logged in is not shown the way out of the provider
            page = httpx.get(f"{browser.web.url}/login?left=1", headers={"Accept": "text/html"}, trust_env=False).text
            end = re.search(r'href="([^"]+/session/end[^"]*)"', page)
        assert end is not None
        browser.log_out_at_provider(end[1].replace("&amp;", "&"))
        wait_until(lambda: browser.status() == 401)
        assert other.status() == 404, "the provider has ended one of its two sessions"
    browser.web.wait_for("web-logout-by-provider")


def test_a_log_out_here_leads_to_the_provider_and_back(browser: Browser) -> None:
    left = browser.http.post(f"{browser.web.url}/logout", headers=OURS)
    page = browser.http.get(browser.web.url + left.headers["location"])
    end = re.search(r'href="([^"]+/session/end[^"]*)"', page.text)
    assert end is not None
    browser.log_out_at_provider(end[1].replace("&amp;", "&"))
    again = browser.to_provider()
    asked = browser.http.get(again.headers["location"])
    assert asked.is_redirect and "/interaction/" in asked.headers["location"], "the provider asks who it is once more"


def test_of_a_person_all_sessions_end_and_of_others_none(both: tuple[WebProcess, OidcProvider]) -> None:
    web, provider = both
    with Browser(web) as first, Browser(web) as second, Browser(web) as other:
        for browser, account in ((first, "mueller"), (second, "mueller"), (other, "meier")):
            assert browser.log_in(account).status_code == 303
        answer = sent(web, signed(provider, claims(provider)), state="of no use")
        assert (answer.status_code, answer.content) == (200, b"") and answer.headers["cache-control"] == "no-store"
        assert (first.status(), second.status(), other.status()) == (401, 401, 404)


def test_of_a_session_that_is_not_here_none_ends(both: tuple[WebProcess, OidcProvider], browser: Browser) -> None:
    web, provider = both
    assert sent(web, signed(provider, claims(provider, sid="of another browser"))).status_code == 200
    assert sent(web, signed(provider, claims(provider, sub="somebody"))).status_code == 200
    assert browser.status() == 404


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.example.org"},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"sub": None},
        {"sub": 7},
        {"iat": None},
        {"iat": "now"},
        {"iat": True},
        {"iat": 1},
        {"exp": 1},
        {"exp": "never"},
        {"jti": None},
        {"jti": ""},
        {"jti": ["x"]},
        {"events": None},
        {"events": {}},
        {"events": [EVENT]},
        {"events": {EVENT: True}},
        {"nonce": "x"},
        {"nonce": ""},
        {"sid": 7},
    ],
    ids=repr,
)
def test_what_does_not_hold_ends_nothing(
    both: tuple[WebProcess, OidcProvider], browser: Browser, changed: dict[str, Any]
) -> None:
    web, provider = both
    answer = sent(web, signed(provider, claims(provider, **changed)))
    assert (answer.status_code, answer.headers["cache-control"]) == (400, "no-store")
    assert browser.status() == 404


def test_a_token_of_days_to_come_ends_nothing(both: tuple[WebProcess, OidcProvider], browser: Browser) -> None:
    web, provider = both
    later = int(time.time()) + 100_000
    assert sent(web, signed(provider, claims(provider, iat=later, exp=later + 120))).status_code == 400
    assert sent(web, signed(provider, claims(provider, iat=later))).status_code == 400
    assert browser.status() == 404


def test_a_token_counts_once(both: tuple[WebProcess, OidcProvider], browser: Browser) -> None:
    web, provider = both
    token = signed(provider, claims(provider))
    assert sent(web, token).status_code == 200
    assert browser.status() == 401
    assert browser.log_in("mueller").status_code == 303
    assert sent(web, token).status_code == 400
    assert browser.status() == 404


def test_no_other_signature_counts(both: tuple[WebProcess, OidcProvider], browser: Browser) -> None:
    web, provider = both
    said = claims(provider)
    other = signing_key("first")  # of somebody else, under the provider's own name for its key
    forged = jwt.encode({"alg": "RS256", "kid": "first"}, said, RSAKey.import_key(other))
    unknown = jwt.encode({"alg": "RS256", "kid": "x"}, said, RSAKey.import_key(other))
    shared = jwt.encode({"alg": "HS256", "kid": "first"}, said, OctKey.import_key(SECRET))
    whole = signed(provider, said)
    head, body, signature = whole.split(".")
    bare = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    tokens = [forged, unknown, shared, f"{bare}.{body}.", f"{bare}.{body}.{signature}", f"{head}.{body}.", f"{head}..x"]
    tokens += ["", "x", "a.b.c", "ä", whole + "x", "." * 100, "W1tb" * 4000 + ".x.y", "x" * 20000]
    tokens += [signed(provider, claims(provider), typ="at+jwt")]
    for token in tokens:
        assert sent(web, token).status_code == 400, token[:40]
    with web.client() as client:
        assert client.post("/login/back-channel").status_code == 400
        assert client.get("/login/back-channel").status_code == 405
        twice = {"logout_token": [whole, whole]}
        assert client.post("/login/back-channel", data=twice).status_code == 400
    assert browser.status() == 404
    assert sent(web, whole).status_code == 200, "none of them has kept the provider's own from counting"
    assert browser.status() == 401


def test_an_id_token_logs_nobody_out(both: tuple[WebProcess, OidcProvider], browser: Browser) -> None:
    web, provider = both
    said = claims(provider, events=None, jti=None, nonce="n")
    assert sent(web, signed(provider, said, typ="JWT")).status_code == 400
    assert browser.status() == 404


def test_a_new_key_of_the_provider_counts_at_once(both: tuple[WebProcess, OidcProvider]) -> None:
    web, provider = both
    old = provider.keys
    try:
        with Browser(web) as browser:
            assert browser.log_in("mueller").status_code == 303
            # No log-in comes with it that would fetch it. For such tokens that happens every 30 s at most.
            provider.keys = [signing_key("newer")]
            provider.restart()
            wait_until(lambda: sent(web, signed(provider, claims(provider))).status_code == 200, 120)
            assert browser.status() == 401
    finally:
        provider.keys = old
        provider.restart()


def test_whoever_sends_nonsense_does_not_lock_anybody_out(both: tuple[WebProcess, OidcProvider]) -> None:
    """A page anywhere can have the browsers of a whole house send it, and all have one address here."""
    web, _ = both
    with web.client(headers={"Accept": "text/html", "Sec-Fetch-Site": "cross-site"}) as client:
        for _ in range(12):
            assert client.post("/login/back-channel", data={"logout_token": "x"}).status_code == 400
            assert client.get("/login/callback", params={"state": "x", "code": "y"}).status_code == 401
    with Browser(web) as browser:
        assert browser.log_in("mueller").status_code == 303


def test_the_log_names_nobody(both: tuple[WebProcess, OidcProvider]) -> None:
    log = both[0].log()
    assert '"web-logout-by-provider"' in log
    for secret in ("mueller", "müller", "meier", "logout_token", EVENT):
        assert secret not in log
