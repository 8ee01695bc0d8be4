"""Texts of files, of people and of addresses that want to be a script, to turn or hide what stands beside them, or that
are too long: in every attribute that a page or the viewer shows, stored and reflected. A real browser says whether
anything ran, and whether its policy had to forbid it."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Dialog, Page

from tests.browser.chromium import PATIENCE_SECONDS, Visitor
from tests.browser.people import hand_in, logged_in, verdict_of
from tests.browser.viewer import Viewer
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess
from tests.unit.dicomfiles import data_set, encode

#: As long as the shortest of the attributes (SH) may be, and without what Patient.marked cannot have in a path.
MARKER: Final = "<svg onload=x()>"
#: In what has room for it.
SCRIPTS: Final = (
    "<script>x()</script>",
    "<img src=y onerror=x()>",
    "\"'><svg onload=x()>",
    "'-x()-'",
    "javascript:x()",
    "{{x()}}${x()}",
    "</title><svg onload=x()>",
    "&lt;svg onload=x()&gt;",
)
#: What people may not see: overrides and isolates of the direction, zero widths, a line separator.
UNSEEN: Final = "\u202e\u2066\u200b\u2028\u200f"
_MADE_OF_TEXT: Final = "[onload], [onerror], main script, main svg, main img, main iframe, a[href^='javascript']"


class Study:
    """A study of one slice whose texts are given as bytes, whatever its character set is said to be."""

    def __init__(self, number: int, charset: str | list[str] | None, **texts: bytes) -> None:
        self.study_uid = f"1.2.826.0.1.16.{number}"
        placeholders = {name: chr(0x41 + at) * len(text) for at, (name, text) in enumerate(texts.items())}
        uids = {
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": f"{self.study_uid}.1",
            "SOPInstanceUID": f"{self.study_uid}.1.1",
        }
        with warnings.catch_warnings(action="ignore"):  # too long, no such character set: that is the point
            content = encode(
                data_set(SpecificCharacterSet=charset, **{**uids, "PatientID": f"P{number}", **placeholders})
            )
        for name, text in texts.items():
            if text:
                assert content.count(placeholders[name].encode()) == 1
                content = content.replace(placeholders[name].encode(), text)
        self.content = content


def _script(number: int, text: str) -> Study:
    even = (text + " " * (len(text) % 2)).encode()
    names = ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription", "PatientSex")
    return Study(number, "ISO_IR 192", **{name: even + b" " * 2 * at for at, name in enumerate(names)})


_JIS: Final = b"\x1b$B"
HOSTILE: Final = {
    **{f"script {number}": _script(number, text) for number, text in enumerate(SCRIPTS)},
    "unseen": Study(20, "ISO_IR 192", PatientName=f"UNSEEN^{UNSEEN}A ".encode(), StudyDescription=UNSEEN.encode()),
    "long": Study(21, "ISO_IR 192", PatientName=b"LONG" + b"G" * 6000, StudyDescription=b"W" * 6002),
    "empty": Study(
        22, None, PatientName=b"", PatientID=b"", StudyDescription=b"", StudyDate=b"", AccessionNumber=b"", Modality=b""
    ),
    "of Windows": Study(
        23, "ISO_IR 100", PatientName="“SMART”^€™".encode("cp1252") + b"  ", StudyDescription=b"\x80\x9b"
    ),
    "Japanese": Study(
        24,
        ["", "ISO 2022 IR 87"],
        PatientName=b"YAMADA^TAROU=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    # In two bytes each these are characters; whoever forgets the escape reads "<svg onload=x()>".
    "an escape that nothing ends": Study(
        25,
        ["", "ISO 2022 IR 87"],
        PatientName=_JIS + b"<svg onload=x()> ",
        StudyDescription=b"<svg onload=x()>" + _JIS + b" ",
    ),
    "no such character set": Study(26, "ISO_IR <svg onload=x()>", PatientName=b"<svg onload=x()>"),
    "UTF-7": Study(27, "ISO_IR 192", PatientName=b"+ADw-svg onload+AD0-x()+AD4-"),
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[WebProcess]:
    site = Site(tmp_path_factory.mktemp("hostile"))
    site.init()
    for number, study in enumerate(HOSTILE.values()):
        (site.inbox / f"{number}.dcm").write_bytes(study.content)
    for number, patient in enumerate((Patient.marked(MARKER), Patient(SCRIPTS[0], SCRIPTS[1], "19510213", "M")), 1):
        maker = Maker(seed=521, patient=patient)  # two patients in one study, which is held
        made = maker.ct_series(site.root / f"two{number}", slices=2, study=0, series=number, rows=64, columns=64)
        shutil.copytree(site.root / f"two{number}", site.inbox / f"two{number}")
    other = made[0].path.read_bytes()[:-8] + bytes(8)
    (site.inbox / "two2" / "again").write_bytes(other)
    looked_at = Maker(seed=523, patient=Patient.marked(MARKER))
    looked_at.ct_series(site.inbox / "looked at", slices=2, study=0, rows=64, columns=64)
    assert site.once() in (0, 1)
    gone = HOSTILE["UTF-7"].study_uid
    site.ctl("archive", "erase", gone, "--because", SCRIPTS[2], "--no-wait", "--yes", gone)
    site.start()
    web = WebProcess(site, viewer=str(viewer_folder))
    web.start()
    yield web
    web.close()
    site.close()


HELD: Final = Maker(seed=521).study_uid(0)
LOOKED_AT: Final = Maker(seed=523).study_uid(0)


@contextmanager
def watched(browser: Browser, web: WebProcess, name: str, *roles: str) -> Iterator[tuple[Visitor, list[str]]]:
    """A person, and what has run of what was only to be read; nothing may have, and nothing have been forbidden."""
    with logged_in(browser, web, name, *roles) as someone:
        ran: list[str] = []
        someone.page.expose_function("x", lambda *_: ran.append(someone.page.url))

        def asked(dialog: Dialog) -> None:
            ran.append(dialog.message)
            dialog.dismiss()

        someone.page.on("dialog", asked)
        yield someone, ran
        someone.page.wait_for_timeout(300)
        assert not ran, ran


def text_only(page: Page) -> None:
    """Nothing in the page was made of a text."""
    page.wait_for_load_state()  # an element may be there before the rest of the page, and the style sheet, is
    assert page.locator(_MADE_OF_TEXT).count() == 0, page.content()
    shown = page.locator("body").inner_text()
    assert not set(UNSEEN) & set(shown) and not set(UNSEEN) & set(page.title())
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_this_file_would_notice_a_script(browser: Browser, web: WebProcess) -> None:
    with logged_in(browser, web, "control", "read", "upload") as someone:
        someone.page.locator("main").evaluate(f"main => main.innerHTML = {SCRIPTS[1]!r}")
        someone.page.wait_for_function("() => document.querySelector('main img')?.complete")
        assert someone.page.locator(_MADE_OF_TEXT).count() == 1
        end = time.monotonic() + PATIENCE_SECONDS
        while not someone.complaints and time.monotonic() < end:
            someone.page.wait_for_timeout(50)
        assert "Content Security Policy" in someone.complaints[0], "and its policy is a second wall"
        someone.complaints.clear()


@pytest.mark.parametrize("width", [1280, 320])
def test_what_is_stored_is_text_on_every_page(browser: Browser, web: WebProcess, width: int) -> None:
    with watched(browser, web, f"stored{width}", "read", "upload", "administrate") as (someone, _):
        page = someone.page
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(web.url)
        page.locator("#search-button").click()
        page.locator("#found").wait_for()
        text_only(page)
        assert page.locator("#found tbody tr").count() == len(HOSTILE) + 1, "all but the erased one, and two"
        assert page.get_by_role("link", name=MARKER.replace("=", " = ")).count() >= 1, "a name's groups are set apart"
        assert page.get_by_role("link", name="山田").count() == 1
        for study_uid in [*(one.study_uid for one in HOSTILE.values()), HELD]:
            for path in (f"/studies/{study_uid}", f"/studies/{study_uid}/proof"):
                page.goto(web.url + path)
                page.locator("main h1").wait_for()
                text_only(page)
        page.goto(f"{web.url}/studies/{HELD}")
        said = page.locator("main").inner_text()
        assert MARKER in said and SCRIPTS[1] in said, "both patients"
        assert page.locator("#versions").count() == 1 and page.locator(".hold").count() >= 1
        page.goto(f"{web.url}/studies/{HOSTILE['UTF-7'].study_uid}")
        assert SCRIPTS[2] in page.locator("main").inner_text(), "why it was erased"
        page.goto(f"{web.url}/access")
        text_only(page)


def test_names_of_files_are_text(browser: Browser, web: WebProcess, tmp_path: Path) -> None:
    made = Maker(seed=522).ct_series(tmp_path / "cd", slices=2, rows=16, columns=16)
    for number, (one, name) in enumerate(zip(made, (SCRIPTS[1], f"{UNSEEN}.dcm"), strict=True)):
        cut_off = one.path.read_bytes()[: -8 - number]
        one.path.unlink()
        (tmp_path / "cd" / name).write_bytes(cut_off)
    with watched(browser, web, "files", "upload") as (someone, _):
        hand_in(someone, tmp_path / "cd")
        said = verdict_of(someone)
        assert "Not everything is in the archive." in said and SCRIPTS[1] in said, said
        assert SCRIPTS[1] in someone.page.locator("#failed").inner_text()
        text_only(someone.page)


def test_what_is_reflected_is_text(browser: Browser, web: WebProcess) -> None:
    with watched(browser, web, "mirror", "read", "upload", "administrate") as (someone, _):
        page = someone.page
        for text in SCRIPTS:
            page.goto(web.url)
            for name in ("name", "id", "born", "accession", "from", "to", "modality", "description"):
                page.locator(f"#{name}").fill(text)
            page.locator("#search-button").click()
            page.locator("#problems").wait_for()
            text_only(page)
            assert page.locator("#name").input_value() == text, "as it was typed"
            page.goto(f"{web.url}/access")
            for name in ("person", "study"):
                page.locator(f"input[name={name}]").fill(text)
            page.get_by_role("button", name="Search").click()
            page.get_by_role("alert").wait_for()
            text_only(page)
            inside = quote(text, safe="")
            for path in (
                "/studies/",
                "/found/",
                "/uploads/",
                "/sends/",
                "/login?next=",
                "/",
                "/upload?",
                "/page-static/",
            ):
                page.goto(web.url + path + inside)
                text_only(page)


def test_the_viewer_shows_it_as_text(browser: Browser, web: WebProcess) -> None:
    with watched(browser, web, "looks", "read", "upload") as (someone, ran):
        viewer = Viewer(someone.page, web.url)
        viewer.open(LOOKED_AT)
        viewer.confirm_use()
        someone.page.get_by_text(MARKER).first.wait_for()
        assert someone.page.locator("[onload], [onerror]").count() == 0
        inside = quote(SCRIPTS[1], safe="")
        for path in (
            f"/viewer?StudyInstanceUIDs={inside}",
            f"/viewer?StudyInstanceUIDs={LOOKED_AT}&hangingprotocolId={inside}",
        ):
            someone.page.goto(web.url + path)
            someone.page.wait_for_load_state("networkidle")
            assert someone.page.locator("[onload], [onerror]").count() == 0
        assert not ran
