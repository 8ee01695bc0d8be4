"""Debian's Chromium without a screen: it may ask one origin, and a test that made it ask another fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    Route,
    expect,
    sync_playwright,
)

PATIENCE_SECONDS = 120
_ARGUMENTS = (
    *(
        "--no-sandbox",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
    ),
    # There is no graphics card: WebGL is worked out by the processor.
    *("--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """One browser, with a new profile. ``more`` are arguments of its own."""
    program = shutil.which("chromium")
    assert program is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=[*_ARGUMENTS, *more])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """One person at a browser of his own: cookies and storage are nobody else's. ``complaints`` are what the browser
    has to say of the pages: forbidden by the policy, scripts that failed, answers of 500 and above."""

    context: BrowserContext
    page: Page
    asked_elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self) -> None:
        """To be called when he leaves."""
        assert not self.asked_elsewhere, f"other hosts were asked: {self.asked_elsewhere}"
        assert not self.complaints, self.complaints


@contextmanager
def visitor(
    browser: Browser, origin: str, *, width: int = 1100, height: int = 800, locale: str = "en-GB"
) -> Iterator[Visitor]:
    """``origin`` is all that he may ask, such as http://127.0.0.1:20123. Checked when he leaves without an error."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale=locale, timezone_id="UTC")
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    context.set_default_navigation_timeout(PATIENCE_SECONDS * 1000)
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)  # which are not the context's
    someone = Visitor(context, context.new_page())

    def routed(route: Route, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob") or f"{parts.scheme}://{parts.netloc}" == origin:
            route.continue_()
        else:
            someone.asked_elsewhere.append(request.url)
            route.abort()

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            someone.complaints.append(message.text)

    def answered(answer: Response) -> None:
        if answer.status >= 500:
            someone.complaints.append(f"{answer.status} {answer.url}")

    context.route("**/*", routed)
    someone.page.on("console", said)
    someone.page.on("pageerror", lambda error: someone.complaints.append(str(error)))
    context.on("response", answered)
    try:
        yield someone
        someone.check()
    finally:
        context.close()
