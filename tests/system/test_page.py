"""The page with a real daemon and a real archive: what a radiologist does from the search to the last word of an
upload."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest

from dicomwatchd import config as configuration
from dicomwatchd.archive import factory
from dicomwatchd.control.client import ControlClient
from dicomwatchd.ports import SystemClock
from dicomwatchd.web.pages import PageParts
from tests.page import READ, UPLOAD, Browser, Recorded, as_, files_of, served
from tests.pieces import Log
from tests.synthetic import Made, Maker, Patient
from tests.system.site import Site

SECONDS = 120


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


@contextmanager
def page_of(site: Site, audit: Recorded | None = None) -> Iterator[httpx.Client]:
    loaded = configuration.load(site.config_file)
    with (
        factory.opened(loaded.archive.store, loaded.archive.catalogue, connections=8) as (store, catalogue),
        ThreadPoolExecutor(2) as threads,
    ):
        assert catalogue is not None
        parts = PageParts(
            store=store,
            catalogue=catalogue,
            audit=audit or Recorded(),
            daemon=ControlClient(loaded.socket_path),
            destinations={},
            staging=site.root / "staging",
            scratch=site.root,
            threads=threads,
            clock=SystemClock(),
            log=Log(),
            viewer=lambda uid: f"/viewer/?StudyInstanceUIDs={uid}",
        )
        with served(parts) as client:
            yield client


def text_of(html: str) -> str:
    """What somebody reads, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def staged(site: Site) -> list[Path]:
    try:
        return [path for path in (site.root / "staging").rglob("*") if path.is_file() and "uploads.db" not in path.name]
    except FileNotFoundError:
        return [site.root]  # it is just going


def ended(site: Site, browser: Browser, upload: str) -> str:
    site.wait_for(lambda: browser.state(upload)["ended"], SECONDS, "the upload to end")
    return browser.page(upload)


def test_a_disc_from_the_browser_ends_with_the_daemons_own_sentence(site: Site) -> None:
    maker, here = Maker(seed=4), site.root / "scanner"
    made = maker.mr_study(here / "MR", series=1, slices=3) + maker.ct_series(here / "CT", slices=4)
    maker.disc(site.root / "cdrom", made)
    before = files_of(site.root / "cdrom")
    site.start()
    with page_of(site) as client:
        browser = Browser(client, as_("anna"))
        upload = browser.whole(before)
        page = ended(site, browser, upload)
        assert 'id="verdict" role="status" class="good"' in page, text_of(page)
        assert (
            "All 7 files are verified in the archive. Of the 7 images of 2 studies on the disc's own list (DICOMDIR), 7"
            " are no longer in the folder, and already in the archive. The local copies were deleted." in text_of(page)
        ), text_of(page)
        assert files_of(site.root / "cdrom") == before
        assert {one.study_uid for one in made} == {s["study_uid"] for s in site.ctl_json("search")["studies"]}
        listed = client.get("/uploads", headers=as_("anna")).text
        assert "everything is verified in the archive" in listed
    log = site.log_file.read_text()
    assert "AUTORUN" not in log and "anna" not in log
    assert site.stop() == 0


def test_search_and_the_study(site: Site) -> None:
    made = Maker(seed=3, patient=Patient.marked("MEIER^ROSA")).ct_series(site.inbox, slices=5)
    assert site.once() == 0
    site.start()
    audit, study = Recorded(), made[0].study_uid
    with page_of(site, audit) as client:
        found = client.post("/search", data={"name": "meier"}, headers=as_("anna", READ))
        assert found.status_code == 200 and f"/studies/{study}" in found.text and "MEIER" in found.text
        assert "meier" not in str(found.url).lower() and audit.entries == []
        none = client.post("/search", data={"name": "meyer"}, headers=as_("anna", READ, "de"))
        assert "Keine Untersuchung passt dazu." in text_of(none.text)
        page = client.get(f"/studies/{study}", headers=as_("anna", READ))
        assert page.status_code == 200 and audit.entries == [("anna", "page", study)]
        said = text_of(page.text)
        assert "5 files" in said and "It is not held." in said
        assert f'href="/viewer/?StudyInstanceUIDs={study}"' in page.text
        proof = client.get(f"/studies/{study}/proof", headers=as_("anna", READ))
        assert "5 files of this study are on record" in text_of(proof.text)
        zipped = client.post(f"/studies/{study}/download", headers=as_("anna", READ))
        assert zipped.status_code == 200 and audit.entries[-1] == ("anna", "download", study)
        with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
            assert archive.testzip() is None
            assert len([name for name in archive.namelist() if name.startswith("DICOM/")]) == 5
        assert client.get("/studies/1.2.3.4", headers=as_("anna", READ)).status_code == 404
        assert client.get(f"/studies/{study}", headers=as_("otto", UPLOAD)).status_code == 403
    assert site.stop() == 0


def test_an_upload_goes_on_over_a_restart_of_either_process(site: Site) -> None:
    folder = site.root / "stick"
    made: list[Made] = Maker(seed=1).mr_study(folder, series=1, slices=6)
    files = files_of(folder)
    anna = as_("anna")
    with page_of(site) as client:  # and no daemon at all
        browser = Browser(client, anna)
        upload = browser.begin()
        browser.send(upload, dict(list(files.items())[:3]))
        assert browser.finish(upload, len(files)).status_code == 409
        assert "3 of 3 files have arrived" in text_of(browser.page(upload))
    with page_of(site) as client:
        browser = Browser(client, anna)
        assert browser.send(upload, files) == 3, "what was there is not sent again"
        assert browser.finish(upload, len(files)).status_code == 200
        site.wait_for(lambda: "not running" in browser.state(upload)["text"], SECONDS, "the page to tell")
        site.start()
        site.wait_for(lambda: browser.state(upload)["stage"] != "whole", SECONDS, "it to be handed in")
    assert site.stop() == 0
    site.start()
    with page_of(site) as client:
        browser = Browser(client, anna)
        page = ended(site, browser, upload)
        assert "All 6 files are verified in the archive. The local copies were deleted." in text_of(page)
        site.wait_for(lambda: staged(site) == [], SECONDS, "what was archived to be gone")
    assert len(made) == 6 and site.stop() == 0
