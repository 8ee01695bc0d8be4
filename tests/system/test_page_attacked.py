"""Uploads through the page while processes are killed, of a study that was erased, and of a daemon that knows nothing
of them: what is called safe is in the archive, and what is not is not called so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.page import Browser, files_of
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.test_page import SECONDS, ended, page_of, person, staged, text_of
from tests.system.web_process import WebProcess


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


def killed(web: WebProcess) -> None:
    web.stop(signal.SIGKILL)
    web.start()


def test_killed_while_it_comes_while_it_is_handed_in_and_while_it_is_archived(site: Site) -> None:
    made = Maker(seed=7).mr_study(site.root / "stick", series=2, slices=8)
    files = files_of(site.root / "stick")
    names = list(files)
    site.start()
    with page_of(site) as web:
        with person(web, "anna", "upload") as client:
            upload = Browser(client, {}).begin()
        for number in range(0, len(names), 4):
            with person(web, "anna", "upload") as client:
                browser, lot = Browser(client, {}, 20_000), {name: files[name] for name in names[number : number + 4]}
                [first, *_] = browser.announce(upload, lot)
                browser.put(upload, first["number"], 0, lot[names[number]][:1000])
                killed(web)
            with person(web, "anna", "upload") as client:
                Browser(client, {}, 20_000).send(upload, lot)
        with person(web, "anna", "upload") as client:
            assert Browser(client, {}).finish(upload, len(files)).status_code == 200
            killed(web)
        site.stop(signal.SIGKILL)
        site.start()
        killed(web)
        with person(web, "anna", "upload") as client:
            page = ended(site, Browser(client, {}), upload)
            assert 'class="good"' in page and "All 16 files are verified in the archive." in text_of(page), text_of(
                page
            )
            assert len(site.ctl_json("upload", "list")["uploads"]) == 1, "handed in once"
    study = made[0].study_uid
    assert site.ctl("verify", study, "--deep").returncode == 0
    site.ctl("fetch", study, "-o", str(site.root / "back"))
    assert sorted(files.values()) == sorted(
        path.read_bytes() for path in (site.root / "back").rglob("*") if path.is_file() and b"DICM" in path.read_bytes()
    )
    assert site.stop() == 0


def test_a_study_that_was_erased_is_not_called_safe_and_can_be_thrown_away(site: Site) -> None:
    made = Maker(seed=8, patient=Patient.marked("MEIER^ROSA")).ct_series(site.root / "stick", slices=2)
    study, files = made[0].study_uid, files_of(site.root / "stick")
    for path, data in files.items():
        (site.inbox / path).parent.mkdir(parents=True, exist_ok=True)
        (site.inbox / path).write_bytes(data)
    assert site.once() == 0
    site.ctl("archive", "erase", study, "--because", "asked for", "--no-wait", "--yes", study)
    site.start()
    with page_of(site) as web, person(web, "anna", "upload") as client:
        browser = Browser(client, {})
        upload = browser.whole(files)
        page = ended(site, browser, upload)
        assert 'class="bad"' in page and "Everything is verified" not in page, text_of(page)
        assert len(staged(site)) == 2, "nothing of it was archived, and nothing was deleted"
        assert client.post(f"/uploads/{upload}/drop").status_code == 200
        site.wait_for(lambda: staged(site) == [], SECONDS, "what is left to be thrown away")
        assert 'class="bad"' in browser.page(upload)
    assert site.stop() == 0


def test_a_daemon_that_never_had_it_makes_nothing_safe(site: Site) -> None:
    """Its state was lost while it had the upload; the archive is the same."""
    Maker(seed=9).ct_series(site.root / "stick", slices=2)
    files = files_of(site.root / "stick")
    with page_of(site) as web, person(web, "anna", "upload") as client:
        browser = Browser(client, {})
        site.start()
        upload = browser.whole(files)
        site.wait_for(lambda: browser.state(upload)["stage"] != "whole", SECONDS, "it to be handed in")
        site.stop(signal.SIGKILL)
        for path in site.state.iterdir():
            if path.is_file():
                path.unlink()
        site.start()
        site.wait_for(lambda: _is_in_trouble(client, upload), SECONDS, "the page to tell")
    assert site.stop() == 0


def _is_in_trouble(client: httpx.Client, upload: str) -> bool:
    page = client.get(f"/uploads/{upload}").text
    return "no such upload" in page and 'class="good"' not in page
