"""The page with a real daemon and a real archive: what a radiologist does from the search to the last word of an
upload."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from dicomwatchd.access.record import AccessRecord, Wanted
from tests.page import Browser, files_of
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess
from tests.unit.test_send import storescp
from tests.unit.test_viewer_files import make as make_viewer

SECONDS = 120


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


@contextmanager
def page_of(site: Site, **settings: Any) -> Iterator[WebProcess]:
    web = WebProcess(site, **settings)
    web.start()
    try:
        yield web
        assert web.stop() == 0
        for said in ("anna", "otto", "MEIER", "meier", "IM000", str(site.root)):
            assert said not in web.log(), "no log names anybody, or a path"
    finally:
        web.close()


@contextmanager
def person(web: WebProcess, name: str, *roles: str, language: str = "en") -> Iterator[httpx.Client]:
    """A browser in which somebody has logged in: a session, and what browsers say of where a request comes from."""
    headers = {"Accept": "text/html", "Accept-Language": language, "Sec-Fetch-Site": "same-origin"}
    with web.client(headers=headers, follow_redirects=True) as client:
        assert client.get("/login").status_code == 200
        kept = web.site.root / f"{name}.token"  # a name has one
        if not kept.exists():
            kept.write_text(web.token(name, *roles))
        entered = client.post("/login", data={"token": kept.read_text(), "next": "/uploads"})
        assert entered.url.path == "/uploads"
        yield client


def text_of(html: str) -> str:
    """What somebody reads, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def staged(site: Site) -> list[Path]:
    try:
        return [
            path
            for path in (site.root / "web-state" / "uploads").rglob("*")
            if path.is_file() and "uploads.db" not in path.name
        ]
    except FileNotFoundError:
        return [site.root]  # it is just going


def ended(site: Site, browser: Browser, upload: str) -> str:
    site.wait_for(lambda: browser.state(upload)["ended"], SECONDS, "the upload to end")
    return browser.page(upload)


def test_a_disc_from_the_browser_ends_with_the_daemons_own_sentence(site: Site) -> None:
    maker, here = Maker(seed=4), site.root / "scanner"
    made = maker.mr_study(here / "MR", series=1, slices=3) + maker.ct_series(here / "CT", slices=4)
    maker.disc(site.root / "cdrom", made)
    (site.root / "cdrom" / "VIEWER" / "BIG.DAT").write_bytes(b"MZ" + bytes(9 << 20))  # more than one piece
    before = files_of(site.root / "cdrom")
    site.start()
    with page_of(site) as web, person(web, "anna", "upload", "read") as client:
        browser = Browser(client, {})
        upload = browser.whole(before)
        page = ended(site, browser, upload)
        assert 'id="verdict" role="status" class="good"' in page, text_of(page)
        assert (
            "All 7 files are verified in the archive. Of the 7 images of 2 studies on the disc's own list (DICOMDIR), 7"
            " are no longer in the folder, and already in the archive. The local copies were deleted." in text_of(page)
        ), text_of(page)
        assert files_of(site.root / "cdrom") == before
        assert {one.study_uid for one in made} == {s["study_uid"] for s in site.ctl_json("search")["studies"]}
        assert "all DICOM files were verified in the archive" in client.get("/uploads").text
        with person(web, "otto", "upload") as other:
            assert other.get(f"/uploads/{upload}").status_code == 404 and upload not in other.get("/uploads").text
    log = site.log_file.read_text()
    assert "AUTORUN" not in log and "anna" not in log
    assert site.stop() == 0


def test_search_and_the_study(site: Site) -> None:
    made = Maker(seed=3, patient=Patient.marked("MEIER^ROSA")).ct_series(site.inbox, slices=5)
    assert site.once() == 0
    site.start()
    study = made[0].study_uid
    with page_of(site) as web:
        with person(web, "anna", "read", language="de") as client:
            none = client.post("/search", data={"name": "meyer"})
            assert "Keine Untersuchung passt dazu." in text_of(none.text)
            found = client.post("/search", data={"name": "meier", "born": "1.1.1970"})
            assert found.status_code == 200 and f"/studies/{study}" in found.text and "MEIER, ROSA" in found.text
            assert "meier" not in str(found.url).lower() and looked(web) == []
            for beginning in ("mei", "meier, r", "m*er"):
                found = client.post("/search", data={"name": beginning})
                assert f"/studies/{study}" in found.text, f"the beginning is enough: {beginning}"
            assert f"/studies/{study}" not in client.post("/search", data={"name": "eier"}).text
        with person(web, "anna", "read") as client:
            page = client.get(f"/studies/{study}")
            assert page.status_code == 200 and looked(web) == [("token:anna", "page", study)]
            assert "5 files" in text_of(page.text) and "It is not held." in text_of(page.text)
            proof = client.get(f"/studies/{study}/proof")
            assert "5 files of this study are on record" in text_of(proof.text)
            zipped = client.post(f"/studies/{study}/download")
            assert zipped.status_code == 200 and looked(web)[0] == ("token:anna", "download", study)
            with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
                assert archive.testzip() is None
                files = [archive.read(name) for name in archive.namelist() if name.startswith("DICOM/")]
            assert sorted(map(len, files)) == sorted(one.size_bytes for one in made)
            assert client.get("/studies/1.2.3.4").status_code == 404
            assert client.post("/search", data={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        with person(web, "otto", "upload") as client:
            assert client.get(f"/studies/{study}").status_code == 403
        with person(web, "berta", "read") as client:
            for way in (found.url.path, f"{found.url.path}/change"):
                assert "MEIER" not in client.get(way).text.upper(), "what another has searched for"
    assert site.stop() == 0


def test_a_study_of_two_patients_is_not_offered_to_be_viewed(site: Site) -> None:
    """A viewer would write one name over the images of both; each of them is named, as people write names and dates."""
    for number, patient in enumerate((Patient(), Patient("ROE^JOHN", "P2", "19510213", "M")), 1):
        folder = site.inbox / f"two{number}"
        made = Maker(seed=6, patient=patient).ct_series(folder, slices=2, study=0, series=number, rows=16, columns=16)
    site.start()
    site.wait_for(lambda: bool(site.ctl_json("attention", check=False)["held"]), SECONDS, "the study to be held")
    study = made[0].study_uid
    with page_of(site, viewer=str(make_viewer(site.root / "viewer"))) as web:
        for language, sentence, born in (
            ("en", "The viewer shows none of these images", "1951-02-13"),
            ("de", "Der Betrachter zeigt keines dieser Bilder", "13.02.1951"),
        ):
            with person(web, "anna", "read", language=language) as client:
                page = client.get(f"/studies/{study}").text
                assert sentence in text_of(page) and 'id="view"' not in page
                assert f"ROE, JOHN, P2 (GH), {born}" in text_of(page)
                assert client.get("/dicom-web/studies", headers={"Accept": "*/*"}).status_code == 200
    assert site.stop() == 0


def looked(web: WebProcess) -> list[tuple[str, str, str]]:
    """Who has looked at what, the newest first."""
    record = AccessRecord(web.state, writing=False)
    try:
        return [(one.person, one.action, one.study_uid) for one in record.search(Wanted())]
    finally:
        record.close()


def test_an_upload_goes_on_over_a_restart_of_either_process(site: Site) -> None:
    folder = site.root / "stick"
    Maker(seed=1).mr_study(folder, series=1, slices=6)
    files = files_of(folder)
    with page_of(site) as web, person(web, "anna", "upload") as client:  # and no daemon at all
        browser = Browser(client, {})
        upload = browser.begin()
        browser.send(upload, dict(list(files.items())[:3]))
        assert browser.finish(upload, len(files)).status_code == 409
        assert "3 of 3 files have arrived" in text_of(browser.page(upload))
    with page_of(site) as web, person(web, "anna", "upload") as client:
        browser = Browser(client, {})
        assert browser.send(upload, files) == 3, "what was there is not sent again"
        assert browser.finish(upload, len(files)).status_code == 200
        site.wait_for(lambda: "not running" in browser.state(upload)["text"], SECONDS, "the page to tell")
        site.start()
        site.wait_for(lambda: browser.state(upload)["stage"] != "whole", SECONDS, "it to be handed in")
    assert site.stop() == 0
    site.start()
    with page_of(site) as web, person(web, "anna", "upload") as client:
        page = ended(site, Browser(client, {}), upload)
        assert "All 6 files are verified in the archive. The local copies were deleted." in text_of(page)
        site.wait_for(lambda: staged(site) == [], SECONDS, "what was archived to be gone")
    assert site.stop() == 0


def test_what_a_study_says_is_text_and_no_page_runs_it(site: Site) -> None:
    """Of every attribute that is shown, and of what was searched for."""
    hostile = "<b>\"x'&{{7}}"
    made = Maker(seed=9, patient=Patient.marked(hostile)).ct_series(site.inbox, slices=2)
    assert site.once() == 0
    with page_of(site) as web, person(web, "anna", "read") as client:
        found = client.post("/search", data={"name": "<b>*"})
        assert "&lt;b&gt;&#34;x&#39;&amp;{{7}}" in found.text
        study = client.get(f"/studies/{made[0].study_uid}")
        assert study.text.count("&lt;b&gt;") >= 4, "name, ID, accession, descriptions"
        wrong = client.post("/search", data={"name": '"><script>x', "born": "<script>y"})
        assert wrong.status_code == 422 and "&lt;script&gt;y" in wrong.text
        for page in (found, study, wrong):
            assert "<b>" not in page.text and "<script>" not in page.text
            assert "script-src 'self'" in page.headers["content-security-policy"]
            assert "unsafe-inline" not in page.headers["content-security-policy"]
        for elsewhere in ("1.2.3/../../x", "%3Cscript%3E", "1.2.3'--", "9" * 65, "1..2"):
            assert client.get(f"/studies/{elsewhere}").status_code in (400, 404)


def test_a_study_is_sent_to_a_destination_and_the_result_is_shown(site: Site) -> None:
    made = Maker(seed=5).ct_series(site.inbox, slices=4)
    assert site.once() == 0
    received = site.root / "received"
    with storescp(received) as (running, to):
        site.config["destinations"] = [
            {"name": "workstation", "ae_title": to.called_ae_title, "address": f"127.0.0.1:{to.port}"},
        ]
        with page_of(site) as web, person(web, "anna", "read") as client:
            study = f"/studies/{made[0].study_uid}"
            assert "<option>workstation</option>" in client.get(study).text
            page = client.post(f"{study}/send", data={"destination": "workstation"})
            assert page.url.path.startswith("/sends/") and looked(web)[0][1] == "send"
            site.wait_for(lambda: client.get(f"{page.url}/state").json()["ended"], SECONDS, "the study to be sent")
            assert "workstation has confirmed all 4 files" in text_of(client.get(page.url).text)
            assert len(list(received.iterdir())) == 4
            with person(web, "otto", "read") as other:
                assert other.get(page.url).status_code == 404
            running.kill()
            running.wait()
            assert client.post(f"{study}/send", data={"destination": "elsewhere"}).status_code == 404
