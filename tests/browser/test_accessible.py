"""Whoever sees little, hears the page read out, or has no mouse: WCAG 2.1 A and AA by axe-core on every page, in both
languages, light and dark, wide and narrow; what the accessibility tree has; and the whole way by the keyboard alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.axe import Axe
from tests.browser.chromium import Visitor, visitor
from tests.browser.people import hand_in, logged_in, verdict_of
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess

#: In CSS pixels: that of a desk, and the one to which a page must fit without scrolling sideways (WCAG 1.4.10), which
#: is also what is left of 1280 at a zoom of 400 %.
WIDTHS = (1280, 320)
SECONDS = 120


@dataclass
class Place:
    """A daemon and the web process, with studies of every sort that pages tell of; ``token`` may do all."""

    site: Site
    web: WebProcess
    token: str
    #: Study Instance UIDs.
    sound: str = ""
    held: str = ""
    erased: str = ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    site = Site(tmp_path_factory.mktemp("accessible"))
    site.config["destinations"] = [{"name": "workstation", "ae_title": "NOBODY", "address": "127.0.0.1:9"}]
    site.write_config()
    site.init()
    maker, staging = Maker(seed=501, patient=Patient("MEIER^ROSA")), site.root / "made"
    sound = maker.mr_study(staging / "sound", series=2, slices=3, rows=32)
    held = maker.ct_series(staging / "held", slices=6, rows=32, columns=32)
    held[3].path.unlink()  # a gap
    other = held[0].path.read_bytes()[:-8] + bytes(8)
    held[1].path.write_bytes(held[1].path.read_bytes()[:-8])  # cut off
    (staging / "held" / "again").write_bytes(other)
    erased = maker.ct_series(staging / "erased", slices=1, rows=16, columns=16)
    for folder in staging.iterdir():
        shutil.copytree(folder, site.inbox / folder.name)
    assert site.once() in (0, 1)
    site.ctl(
        "archive", "erase", erased[0].study_uid, "--because", "asked for", "--no-wait", "--yes", erased[0].study_uid
    )
    site.start()
    web = WebProcess(site)
    web.start()
    token = web.token("anna", "read", "upload", "administrate")
    yield Place(site, web, token, sound[0].study_uid, held[0].study_uid, erased[0].study_uid)
    web.close()
    site.close()


@pytest.fixture(scope="module")
def axe() -> Axe:
    return Axe()


@pytest.fixture(params=["en-GB", "de-DE"])
def anna(request: pytest.FixtureRequest, browser: Browser, place: Place) -> Iterator[Visitor]:
    with logged_in(browser, place.web, "anna", token=place.token, locale=request.param) as someone:
        yield someone


def judged(axe: Axe, someone: Visitor, name: str) -> list[str]:
    """What is wrong with the page that is open, in each way in which it is looked at."""
    page, problems = someone.page, []
    page.wait_for_load_state()  # an element may be there before the style sheet is
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            problems += [f"{name}, {width} wide, {scheme}: {one}" for one in axe.violations(page)]
        across = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if across > 0:
            problems.append(f"{name}, {width} wide: {across} pixels lie outside")
    return problems


#: Each page by what a person does to come there, from any other.
_PAGES: dict[str, Callable[[Visitor, Place], object]] = {
    "the search": lambda one, place: one.page.goto(f"{place.web.url}/"),
    "a search that has mistakes": lambda one, place: searched(one, place, born="nonsense", **{"from": "x"}),
    "what was found": lambda one, place: searched(one, place),
    "nothing was found": lambda one, place: searched(one, place, name="nobody"),
    "a study": lambda one, place: one.page.goto(f"{place.web.url}/studies/{place.sound}"),
    "a study that is held, damaged and has gaps": lambda one, place: one.page.goto(
        f"{place.web.url}/studies/{place.held}"
    ),
    "a study that was erased": lambda one, place: one.page.goto(f"{place.web.url}/studies/{place.erased}"),
    "a study that is not there": lambda one, place: one.page.goto(f"{place.web.url}/studies/1.2.3"),
    "a proof": lambda one, place: one.page.goto(f"{place.web.url}/studies/{place.sound}/proof"),
    "a study that could not be sent": lambda one, place: sent_in_vain(one, place),
    "uploading": lambda one, place: one.page.goto(f"{place.web.url}/upload"),
    "the record of access": lambda one, place: one.page.goto(f"{place.web.url}/access"),
}


def searched(someone: Visitor, place: Place, **fields: str) -> None:
    someone.page.goto(f"{place.web.url}/")
    for name, value in fields.items():
        someone.page.locator(f"#{name}").fill(value)
    someone.page.locator("#search-button").click()
    someone.page.locator("#found-count, #nothing-found, #problems").wait_for()


def sent_in_vain(someone: Visitor, place: Place) -> None:
    someone.page.goto(f"{place.web.url}/studies/{place.sound}")
    someone.page.locator("#send").click()
    someone.page.locator("#send-result").wait_for()


def test_the_pages_break_no_rule(place: Place, axe: Axe, anna: Visitor) -> None:
    problems = []
    for name, go in _PAGES.items():
        go(anna, place)
        problems += judged(axe, anna, name)
    assert not problems, "\n".join(problems)


def test_the_pages_of_an_upload_break_no_rule(place: Place, axe: Axe, anna: Visitor, tmp_path: Path) -> None:
    page, problems = anna.page, []

    def judge(name: str) -> None:
        problems.extend(judged(axe, anna, name))

    Maker(seed=502).ct_series(tmp_path / "sound", slices=3, rows=32, columns=32)
    Maker(seed=503).ct_series(tmp_path / "bad", slices=2, rows=32, columns=32)
    cut = tmp_path / "bad" / "IM0001"
    cut.write_bytes(cut.read_bytes()[:-8])
    page.goto(f"{place.web.url}/uploads")
    judge("uploads")
    page.goto(f"{place.web.url}/upload")
    page.locator("#start").click()
    page.get_by_role("alert").filter(has_text=".").wait_for()
    judge("an upload of nothing")
    hand_in(anna, tmp_path / "sound")
    verdict_of(anna)
    judge("an upload that is whole")
    page.goto(f"{place.web.url}/upload")
    hand_in(anna, tmp_path / "bad")
    verdict_of(anna)
    judge("an upload of which something failed")
    page.locator("#clear").click()
    page.wait_for_url("**/uploads")
    judge("uploads, with some")
    # One that stops in the middle, and one that the daemon does not take.
    page.goto(f"{place.web.url}/upload")
    page.route("**/uploads/*/files/*", lambda route: route.abort())
    hand_in(anna, tmp_path / "sound")
    page.get_by_role("alert").filter(has_text=".").wait_for()
    judge("an upload without a connection")
    address = page.url
    page.unroute("**/uploads/*/files/*")
    page.locator("#stop").click()
    page.locator("#start").wait_for()
    page.goto(address)
    judge("an upload that is not finished")
    place.site.stop()
    hand_in(anna, tmp_path / "sound")
    page.locator("#state-text").wait_for()
    judge("an upload that waits for the daemon")
    place.site.start()
    verdict_of(anna)
    assert not problems, "\n".join(problems)


def test_the_pages_before_the_log_in_break_no_rule(browser: Browser, place: Place, axe: Axe) -> None:
    with visitor(browser, place.web.url) as stranger:
        page = stranger.page
        page.goto(place.web.url)
        problems = judged(axe, stranger, "the log-in")
        page.locator("#token").fill("dwt_not-a-token")
        page.locator("#token").press("Enter")
        page.get_by_role("alert").wait_for()
        problems += judged(axe, stranger, "a log-in that was refused")
    assert not problems, "\n".join(problems)
