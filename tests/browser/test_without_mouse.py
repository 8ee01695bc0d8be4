"""The whole way by the keyboard alone, with the focus to be seen at every step; and what a screen reader has to read:
names and roles in the accessibility tree, and what is announced while an upload goes on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.chromium import visitor
from tests.browser.keyboard import Keyboard
from tests.browser.people import hand_in, logged_in
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """A daemon at work, and dicomwatchd-web beside it."""
    site = Site(tmp_path_factory.mktemp("keys"))
    site.init()
    site.start()
    web = WebProcess(site)
    web.start()
    yield web
    web.close()
    site.close()


def test_from_the_log_in_to_the_log_out(browser: Browser, web: WebProcess, tmp_path: Path) -> None:
    made = Maker(seed=511, patient=Patient("TASTE^TINA")).ct_series(tmp_path / "cd", slices=2, rows=32, columns=32)
    token = web.token("tina", "read", "upload")
    with visitor(browser, web.url) as tina:
        page, keys = tina.page, Keyboard(tina.page)
        page.goto(f"{web.url}/upload")
        keys.type(page.locator("#token"), token)
        keys.press(page.get_by_role("button", name="token"))
        page.wait_for_url(f"{web.url}/upload")
        page.keyboard.press("Tab")
        expect(page.locator(".skip"), "the first stop leads past the menu").to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#content")).to_be_focused()
        keys.choosing(page.locator("#folder")).set_files(tmp_path / "cd")
        keys.press(page.locator("#start"))
        page.locator("#verdict").wait_for()
        assert "All 2 files are verified" in page.locator("#sentences").inner_text()
        keys.press(page.locator("#nav-search"))
        keys.type(page.locator("#name"), "taste*")
        page.keyboard.press("Enter")
        keys.press(page.get_by_role("link", name="TASTE, TINA"))
        with page.expect_download() as download:
            keys.press(page.locator("#download"))
        kept = tmp_path / "study.zip"
        download.value.save_as(kept)
        with zipfile.ZipFile(kept) as zipped:
            assert sum(name.startswith("DICOM/") for name in zipped.namelist()) == len(made)
        keys.press(page.locator("#log-out"))
        page.wait_for_url("**/login*")
        assert len(keys.passed) >= 20, "the focus was looked at on the way"


def test_a_mistake_is_led_to_and_told_at_its_field(browser: Browser, web: WebProcess) -> None:
    with logged_in(browser, web, "mika", "read", "upload") as mika:
        page, keys = mika.page, Keyboard(mika.page)
        page.goto(web.url)
        keys.type(page.locator("#born"), "nonsense")
        page.keyboard.press("Enter")
        keys.press(page.locator("#problems a"))
        field = page.get_by_role("textbox", name="Born")
        expect(field).to_be_focused()
        assert field.get_attribute("aria-invalid") == "true"
        described = (field.get_attribute("aria-describedby") or "").split()
        assert "This is no date" in page.locator(f"#{described[0]}").inner_text()
        for one in described:
            page.locator(f"#{one}").wait_for()


# -- what is read out -------------------------------------------------------------------------------------------------

_SEARCH: Final = """
- link "Skip to the content"
- banner:
  - navigation "Menu":
    - list:
      - listitem:
        - link "Search"
      - listitem:
        - link "Upload"
      - listitem:
        - link "My uploads"
  - form "Language":
    - button "English" [pressed]
    - button "Deutsch"
  - button "Log out"
- main:
  - heading "Find studies" [level=1]
  - search "Find studies":
    - textbox "Patient's name"
    - textbox "Patient ID"
    - textbox "Born"
    - textbox "Accession number"
    - textbox "Study date from"
    - textbox "to"
    - textbox "Modality"
    - textbox "Description"
    - checkbox "Only studies of which images are missing"
    - button "Search"
"""
_UPLOAD: Final = """
- main:
  - heading "Upload a folder or a disc" [level=1]
  - button "Folder or disc"
  - button "Or single files"
  - button "Upload"
  - status
  - alert
"""
_RESULT: Final = """
- main:
  - heading /Upload of/ [level=1]
  - status: Everything is verified in the archive.
  - region "What the archive says":
    - heading "What the archive says" [level=2]
    - paragraph: All 2 files are verified in the archive. The local copies were deleted.
"""
_FOUND: Final = """
- main:
  - heading "Studies found" [level=1]
  - status: 1 to 1
  - table:
    - rowgroup:
      - row:
        - columnheader "Patient"
        - columnheader "Born"
        - columnheader "Patient ID"
        - columnheader "Study date"
        - columnheader "Modality"
        - columnheader "Description"
        - columnheader "Accession number"
        - columnheader "Files"
        - columnheader "Complete?"
    - rowgroup:
      - row:
        - rowheader "LESER, LEA":
          - link "LESER, LEA"
        - cell /1970-01-01/
"""
_STUDY: Final = """
- main:
  - heading "Study" [level=1]
  - region "Patient"
  - region "What you can do":
    - heading "What you can do" [level=2]
    - button /Download as ZIP/
  - region "Is it complete?"
  - region "Where it is"
  - region "Held"
  - region "Proof":
    - paragraph:
      - link "Show the record of deletions"
  - region "Series":
    - table:
      - rowgroup
      - rowgroup:
        - row:
          - rowheader "1"
"""


def test_names_and_roles_are_in_the_accessibility_tree(browser: Browser, web: WebProcess, tmp_path: Path) -> None:
    """At the desk and on a phone, where tables are stacked and stay tables."""
    Maker(seed=513, patient=Patient("LESER^LEA")).ct_series(tmp_path, slices=2, rows=32, columns=32)
    with logged_in(browser, web, "lea", "read", "upload") as lea:
        page = lea.page
        tree = expect(page.locator("body"))
        tree.to_match_aria_snapshot(_UPLOAD)
        hand_in(lea, tmp_path)
        tree.to_match_aria_snapshot(_RESULT)
        page.locator("#nav-search").click()
        tree.to_match_aria_snapshot(_SEARCH)
        page.locator("#name").fill("leser")
        page.locator("#search-button").click()
        for width in (1280, 320):
            page.set_viewport_size({"width": width, "height": 800})
            tree.to_match_aria_snapshot(_FOUND)
        page.get_by_role("link", name="LESER, LEA").click()
        tree.to_match_aria_snapshot(_STUDY)


_LISTEN: Final = """
window.announced = [];
document.addEventListener('DOMContentLoaded', () => {
  for (const one of document.querySelectorAll('[role=status], [role=alert], [aria-live]')) {
    new MutationObserver(() => {
      if (one.textContent.trim()) window.tell(`${one.getAttribute('role')}: ${one.textContent.trim()}`);
    }).observe(one, { childList: true, characterData: true, subtree: true });
  }
});
"""


def listening(page: Page) -> list[str]:
    """What live regions say from now on, whatever page is open: a change of theirs, as a screen reader reads it. What
    stands in them when a page opens is not read out by them."""
    heard: list[str] = []
    page.expose_function("tell", lambda text: heard.append(text))
    page.add_init_script(_LISTEN)
    return heard


def test_progress_and_the_end_of_an_upload_are_announced(browser: Browser, web: WebProcess, tmp_path: Path) -> None:
    Maker(seed=512, patient=Patient("LAUT^LEO")).ct_series(tmp_path, slices=4, rows=64, columns=64)
    with logged_in(browser, web, "leo", "upload") as leo:
        page = leo.page
        heard = listening(page)
        page.reload()
        cut_off: list[str] = []

        def four_times_cut_off(route: Route) -> None:
            if len(cut_off) < 4:
                cut_off.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        # It is tried again after 1, 3, 5 and 7 seconds: longer than what is between two sentences.
        page.route("**/uploads/*/files/4?*", four_times_cut_off)
        hand_in(leo, tmp_path)
        page.get_by_role("progressbar", name="Progress of the upload").wait_for()
        page.locator("#verdict").wait_for()
        assert any(one.startswith("status: Looking at your files") for one in heard), heard
        assert any("of 4 files sent" in one and one.startswith("status:") for one in heard), heard
        assert any(one.startswith("alert: The connection is interrupted") for one in heard), heard
        assert any(one.startswith("status: All files are sent.") for one in heard), heard
        expect(page.locator("#verdict")).to_be_focused()
        assert page.title().startswith("Upload of")
        assert page.locator("#verdict").inner_text() == "Everything is verified in the archive."
        assert page.locator("#left").inner_text().startswith("Nothing of this upload is left")
        assert page.locator("#clear").count() == 0
