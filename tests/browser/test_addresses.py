"""Nothing of a patient stands in an address that a browser asks for: proxies on the way log them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.people import logged_in
from tests.browser.viewer import Viewer
from tests.conftest import skip_unless_available
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess

#: In every text of the studies: name, Patient ID, accession number, descriptions, physicians.
MARKER = "CANARY^MARIA"
BIRTH_DATE = "19321123"
TOLD = ("canary", "maria", BIRTH_DATE, "1932-11-23", "23.11.1932")
ASK = "address => fetch(address).then(answer => answer.status)"
IS_DRAWN = "images => images.length && images.every(one => one.complete && one.naturalWidth > 1)"


@dataclass(frozen=True)
class Archived:
    """Two studies of one patient: ``opened`` has two series."""

    web: WebProcess
    opened: str
    other: str


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[Archived]:
    skip_unless_available("tools")
    site = Site(tmp_path_factory.mktemp("addresses"))
    site.init()
    maker = Maker(seed=200, patient=replace(Patient.marked(MARKER), birth_date=BIRTH_DATE))
    studies = [
        maker.ct_series(site.inbox / f"{number}", slices=3, rows=64, columns=64, study=study)[0].study_uid
        for number, study in enumerate((0, 0, 1))
    ]
    assert site.once() == 0 and site.left() == []
    web = WebProcess(site, viewer=str(viewer_folder))
    web.configure()
    web.start()
    yield Archived(web, studies[0], studies[2])
    web.close()
    site.close()


def naming(addresses: list[str]) -> list[str]:
    """Those that say something of the patient, whatever was encoded twice."""
    return [one for one in addresses if any(word in unquote_plus(unquote_plus(one)).casefold() for word in TOLD)]


def test_no_address_of_a_visit_names_the_patient(browser: Browser, archived: Archived) -> None:
    """From the search by name to the images. The viewer's panel has what was opened: for the patient's other studies it
    would have to ask by his Patient ID."""
    web = archived.web
    with logged_in(browser, web, "reader", "read") as someone:
        page = someone.page
        asked: list[str] = []
        someone.context.on("request", lambda request: asked.append(request.url))
        page.locator("#nav-search").click()
        page.locator("#name").fill(f"{MARKER[:8]}*")
        page.locator("#search-button").click()
        expect(page.locator(f"main a[href='/studies/{archived.other}']"), "he has another study").to_have_count(1)
        page.locator(f"main a[href='/studies/{archived.opened}']").click()
        page.locator("#view").click()
        viewer = Viewer(page, web.url)
        viewer.wait_until_open()
        viewer.confirm_use()

        # Studies are listed when what is asked about their patient was answered.
        panel = page.locator("[data-cy='studyBrowser-panel']")
        study, thumbnails = panel.locator("h3"), panel.locator("[data-cy='study-browser-thumbnail']")
        study.first.wait_for()
        assert naming(asked) == []
        expect(study).to_have_count(1)
        expect(study).to_contain_text("01-Jan-2024")
        study.get_by_role("button").click()
        expect(thumbnails).to_have_count(0)
        study.get_by_role("button").click()
        expect(thumbnails).to_have_count(2)
        viewer.wait_for(lambda: [] if thumbnails.locator("img").evaluate_all(IS_DRAWN) else ["no thumbnail"])
        thumbnails.last.dblclick()
        page.wait_for_load_state("networkidle")

        assert len(asked) > 30 and any("/dicom-web/studies?" in one for one in asked), asked
        assert naming([*asked, page.url]) == []
        expect(study).to_have_count(1)
        viewer.open(f"{archived.opened},{archived.other}")
        expect(study).to_have_count(2)
        assert naming([*asked, page.url]) == []
        assert page.evaluate(ASK, f"/dicom-web/studies?PatientName={MARKER}") == 200
        assert len(naming(asked)) == 1, "this test would notice"
