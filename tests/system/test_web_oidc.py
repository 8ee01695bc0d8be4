"""The log-in by OpenID Connect, against a certified provider over sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.conftest import skip_unless_available
from tests.servers.oidc import SECRET, OidcProvider, signing_key
from tests.system.oidc_browser import Browser, with_provider
from tests.system.web_process import WebProcess


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebProcess, OidcProvider]]:
    skip_unless_available("oidc")
    root = tmp_path_factory.mktemp("oidc")
    with with_provider(
        root, roles={"read": ["radiology"], "administrate": ["privacy"]}, limits={"failed_logins": 1000}
    ) as both:
        yield both


@pytest.fixture
def browser(both: tuple[WebProcess, OidcProvider]) -> Iterator[Browser]:
    browser = Browser(both[0])
    yield browser
    browser.close()


def test_a_person_of_the_directory_logs_in_and_out(browser: Browser) -> None:
    assert browser.status() == 401
    response = browser.log_in("mueller", "/viewer?study=1.2.3")
    assert response.status_code == 303 and response.headers["location"] == "/viewer?study=1.2.3"
    assert browser.status() == 404

    left = browser.http.post(f"{browser.web.url}/logout", headers={"Sec-Fetch-Site": "same-origin"})
    assert left.status_code == 303 and browser.status() == 401
    page = browser.http.get(browser.web.url + left.headers["location"])
    end = re.search(r'href="([^"]+/session/end[^"]*)"', page.text)
    assert end is not None
    assert browser.http.get(end[1].replace("&amp;", "&")).status_code == 200


def test_what_goes_to_the_provider_has_state_nonce_and_pkce(both: tuple[WebProcess, OidcProvider]) -> None:
    seen = []
    for _ in range(2):
        browser = Browser(both[0])
        sent = parse_qs(urlsplit(browser.to_provider().headers["location"]).query)
        browser.close()
        assert sent["response_type"] == ["code"] and sent["code_challenge_method"] == ["S256"]
        seen.append((sent["state"][0], sent["nonce"][0], sent["code_challenge"][0]))
    assert all(one != other and len(one) >= 16 for one, other in zip(*seen, strict=True))


def test_the_groups_make_the_roles(browser: Browser) -> None:
    response = browser.log_in("guest")
    assert response.status_code == 403 and "no right" in response.text
    assert browser.status() == 401


@pytest.mark.parametrize("account", ["nameless", "sly"])
def test_a_name_that_is_none_lets_nobody_in(browser: Browser, account: str) -> None:
    assert browser.log_in(account).status_code == 401
    assert browser.status() == 401


def test_a_callback_counts_only_in_the_browser_that_began(both: tuple[WebProcess, OidcProvider]) -> None:
    attacker, victim = Browser(both[0]), Browser(both[0])
    try:
        stolen = attacker.callback("mueller")
        assert victim.http.get(stolen).status_code == 401  # log-in CSRF: no cookie of its own
        victim.to_provider()
        assert victim.http.get(stolen).status_code == 401  # nor with that of another log-in
        assert victim.status() == 401
    finally:
        attacker.close()
        victim.close()


def test_a_callback_counts_once(browser: Browser) -> None:
    where = browser.callback("mueller")
    assert browser.http.get(where).status_code == 303
    browser.http.post(f"{browser.web.url}/logout", headers={"Sec-Fetch-Site": "same-origin"})
    assert browser.http.get(where).status_code == 401


def test_two_log_ins_of_one_browser_both_end_well(browser: Browser) -> None:
    """Of two tabs, in either order; what another site begins or sends meanwhile takes neither away."""
    first = browser.callback("mueller", "/one")
    second = browser.callback("mueller", "/two")
    assert browser.http.get(f"{browser.web.url}/login/callback", params={"state": "x"}).status_code == 401
    for where, after in ((second, "/two"), (first, "/one")):
        answer = browser.http.get(where)
        assert (answer.status_code, answer.headers.get("location")) == (303, after)
        assert browser.status() == 404
    assert "dicomwatchd-login" not in browser.http.cookies


def test_a_browser_keeps_the_newest_of_many_log_ins(browser: Browser) -> None:
    for number in range(9):
        browser.to_provider("/" + "x" * 1900 + str(number))
        assert len(browser.http.cookies["dicomwatchd-login"]) < 4000
    assert browser.log_in("mueller", "/" + '"' * 1900).headers["location"] == "/"


def test_what_is_said_twice_lets_nobody_in(browser: Browser) -> None:
    where = browser.callback("mueller")
    assert browser.http.get(where + "&code=x").status_code == 401
    assert browser.status() == 401


@pytest.mark.parametrize("change", ["state", "code", "iss", "no iss", "error"])
def test_a_changed_callback_lets_nobody_in(browser: Browser, change: str) -> None:
    where = urlsplit(browser.callback("mueller"))
    query = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert set(query) == {"code", "state", "iss"}
    match change:
        case "no iss":
            del query["iss"]
        case "error":
            query = {"error": "access_denied", "state": query["state"], "iss": query["iss"]}
        case _:
            query[change] = "x" + query[change][1:] if change != "iss" else "https://other.example.org"
    assert browser.http.get(where._replace(query=urlencode(query)).geturl()).status_code == 401
    assert browser.status() == 401


def test_the_cookie_of_a_log_in_cannot_be_written_by_anybody(browser: Browser) -> None:
    where = browser.callback("mueller")
    value = browser.http.cookies["dicomwatchd-login"]
    for forged in ("", "x", value[:-1] + ("0" if value[-1] != "0" else "1"), "e30." + value.partition(".")[2]):
        browser.http.cookies.set("dicomwatchd-login", forged, domain="127.0.0.1", path="/")
        with httpx.Client(trust_env=False, timeout=60) as other:
            assert other.get(where, headers={"Cookie": f"dicomwatchd-login={forged}"}).status_code == 401


def test_new_keys_are_fetched_and_old_codes_are_refused(both: tuple[WebProcess, OidcProvider]) -> None:
    web, provider = both
    first = Browser(web)
    try:
        assert first.log_in("mueller").status_code == 303
        before = Browser(web)
        where = before.callback("mueller")
        provider.keys = [signing_key("second")]
        provider.restart()
        assert before.http.get(where).status_code == 401  # the provider has forgotten the code
        before.close()
        later = Browser(web)
        assert later.log_in("mueller").status_code == 303
        assert later.status() == 404
        later.close()
    finally:
        first.close()


def test_a_provider_that_is_gone_is_said_and_comes_back(both: tuple[WebProcess, OidcProvider]) -> None:
    web, provider = both
    browser = Browser(web)
    where = browser.callback("mueller")
    provider.stop()
    try:
        assert browser.http.get(where).status_code == 503
    finally:
        provider.start()
    assert browser.log_in("mueller").status_code == 303
    browser.close()


@pytest.mark.parametrize(
    "after", ["//evil.example.org/", "https://evil.example.org/", "/\\evil.example.org", "/logout", "javascript:x"]
)
def test_nobody_is_sent_elsewhere_after_the_log_in(browser: Browser, after: str) -> None:
    assert browser.log_in("mueller", after).headers["location"] == "/"


def test_the_log_names_nobody(both: tuple[WebProcess, OidcProvider]) -> None:
    log = both[0].log()
    assert '"web-login"' in log and '"web-login-refused"' in log
    for secret in (SECRET, "mueller", "müller", json.dumps("müller")[1:-1], "radiology", "code=", "state="):
        assert secret not in log
