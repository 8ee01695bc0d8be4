"""Who comes to the page: logged in by a token of his own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.chromium import Visitor, visitor
from tests.system.web_process import WebProcess


@contextmanager
def logged_in(
    browser: Browser, web: WebProcess, name: str, *roles: str, token: str = "", locale: str = "en-GB"
) -> Iterator[Visitor]:
    """``token`` is his, if he has one already. Of whoever may not upload, the first page says so."""
    token = token or web.token(name, *roles)
    with visitor(browser, web.url, locale=locale) as someone:
        someone.page.goto(f"{web.url}/upload")
        assert "/login" in someone.page.url, "whoever is nobody is led to the log-in"
        someone.page.locator("#token").fill(token)
        someone.page.locator("#token").press("Enter")
        someone.page.wait_for_url(f"{web.url}/upload")
        yield someone


def hand_in(someone: Visitor, folder: Path) -> None:
    """The folder is chosen as a whole, as by the browser's own dialogue."""
    someone.page.locator("#folder").set_input_files(folder)
    someone.page.locator("#start").click()


def verdict_of(someone: Visitor) -> str:
    verdict = someone.page.locator("#verdict")
    verdict.wait_for()
    return f"{verdict.inner_text()} {someone.page.locator('#sentences').inner_text()}"
