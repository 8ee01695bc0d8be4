"""What somebody who reads images does, from the log-in to the picture: with the real programs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import visitor
from tests.browser.people import hand_in, logged_in, verdict_of
from tests.browser.phantoms import GREY, Phantom, PhantomMaker
from tests.browser.viewer import Viewer
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[WebProcess]:
    """A daemon at work, and dicomwatchd-web beside it."""
    site = Site(tmp_path_factory.mktemp("visit"))
    site.init()
    site.start()
    web = WebProcess(site, viewer=str(viewer_folder))
    web.start()
    yield web
    web.close()
    site.close()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_handed_in_found_and_looked_at(browser: Browser, place: WebProcess, tmp_path: Path) -> None:
    maker = PhantomMaker(tmp_path / "export", patient="BROWSER^BRIGITTE")
    phantoms: list[Phantom] = [GREY[name](maker, name) for name in ("CT window", "Monochrome 1")]
    before = contents(tmp_path / "export")
    with logged_in(browser, place, "brigitte", "read", "upload") as someone:
        hand_in(someone, tmp_path / "export")
        said = verdict_of(someone)
        assert said.startswith("Everything is verified in the archive.") and "All 2 files are verified" in said, said
        assert contents(tmp_path / "export") == before, "what was handed in is only read"
        page = someone.page
        page.locator("#nav-search").click()
        page.locator("#name").fill("browser*")
        page.locator("#search-button").click()
        page.get_by_role("link", name="BROWSER, BRIGITTE").click()
        assert "BRIGITTE" in page.locator("#patient-name").inner_text()
        page.locator("#view").click()
        viewer = Viewer(page, place.url)
        viewer.wait_until_open()
        viewer.confirm_use()
        for phantom in phantoms:
            viewer.show(phantom.name)
            viewer.wait_for(lambda one=phantom: viewer.differences(one))  # type: ignore[misc]
        page.get_by_role("link", name="Studies").click()
        page.locator("#search").wait_for()
        page.locator("#log-out").click()
        page.wait_for_url("**/login*")
        page.goto(f"{place.url}/viewer?StudyInstanceUIDs={maker.study_uid}")
        assert "/login" in page.url, "who has logged out sees nothing more"


def test_a_session_that_ends_in_the_viewer_leads_back_to_the_log_in(
    browser: Browser, place: WebProcess, tmp_path: Path
) -> None:
    maker = Maker(seed=180, patient=Patient(name="SESSION^S", patient_id="session"))
    made = maker.ct_series(tmp_path / "a", slices=3, rows=64, columns=64)
    maker.ct_series(tmp_path / "b", slices=12, rows=64, columns=64, study=0)
    with logged_in(browser, place, "session", "read", "upload") as someone:
        hand_in(someone, tmp_path)
        assert "All 15 files are verified" in verdict_of(someone)
        viewer = Viewer(someone.page, place.url)
        viewer.open(made[0].study_uid)
        viewer.confirm_use()
        out = someone.context.request.post(f"{place.url}/logout", headers={"Origin": place.url}, max_redirects=0)
        assert out.status == 303
        viewer.show("CT series 2")
        someone.page.wait_for_url(lambda url: "/login" in url)
        assert "viewer" in someone.page.url, "and from there to the study again"


def test_two_hand_in_at_once_and_each_is_told_of_his_own(browser: Browser, place: WebProcess, tmp_path: Path) -> None:
    for number, name in enumerate(("anna", "otto")):
        Maker(seed=170 + number, patient=Patient(name=f"{name.upper()}^A", patient_id=name)).ct_series(
            tmp_path / name, slices=3 + number, rows=64, columns=64
        )
    with (
        logged_in(browser, place, "anna", "read", "upload") as anna,
        logged_in(browser, place, "otto", "upload") as otto,
    ):
        hand_in(anna, tmp_path / "anna")
        hand_in(otto, tmp_path / "otto")
        assert "All 3 files are verified" in verdict_of(anna)
        assert "All 4 files are verified" in verdict_of(otto)
        for one in (anna, otto):
            one.page.locator("#nav-uploads").click()
            one.page.wait_for_url("**/uploads")
            assert one.page.locator("main a[href^='/uploads/']").count() == 1, "nobody sees the other's"


def test_whoever_may_only_hand_in_sees_no_study(browser: Browser, place: WebProcess, tmp_path: Path) -> None:
    with logged_in(browser, place, "porter", "upload") as porter:
        assert porter.page.locator("#nav-search").count() == 0
        for path in ("/viewer?StudyInstanceUIDs=1.2.3", "/studies/1.2.3", "/dicom-web/studies"):
            assert porter.context.request.get(place.url + path).status == 403, path


def test_a_wrong_token_opens_nothing(browser: Browser, place: WebProcess) -> None:
    with visitor(browser, place.url) as stranger:
        stranger.page.goto(place.url)
        stranger.page.get_by_label("token").fill("dwt_not-a-token")
        stranger.page.get_by_role("button", name="token").click()
        stranger.page.get_by_role("alert").wait_for()
        for path in ("/", "/upload", "/viewer", "/found/1"):
            stranger.page.goto(place.url + path)
            assert "/login" in stranger.page.url, path
