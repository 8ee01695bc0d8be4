"""The same way in Debian's Firefox: from the log-in by a folder that is handed in to the right pixels in the viewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.browser.firefox import Firefox
from tests.browser.firefox_process import firefox
from tests.browser.phantoms import ENCODED, GREY, Phantom, PhantomMaker
from tests.browser.viewer import READY, SHOWN, differences
from tests.conftest import skip_unless_available
from tests.servers.processes import free_port
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess

#: Without a decoder, and with those that make functions of text in a worker. (JPEG-LS is not made with every Python.)
LOOKED_AT = ("CT window", "Monochrome 1", "JPEG 2000 lossless", "JPEG-LS lossless")
pytestmark = pytest.mark.long
LEFT_OUT = "#dicomwatchd-left-out"
#: Which image of the series is on the screen.
PLACE = "() => window.cornerstone.getEnabledElements()[0].viewport.getCurrentImageIdIndex()"


class Place:
    """A daemon at work, and dicomwatchd-web beside it. Of a study in the archive one image of four is damaged."""

    def __init__(self, root: Path, viewer_folder: Path) -> None:
        self.site = Site(root)
        self.site.init()
        maker = Maker(seed=195, patient=Patient("LEFT^OUT", "left-out"))
        made = maker.ct_series(self.site.inbox / "damaged", slices=4, rows=64, columns=64)
        made[0].path.write_bytes(made[0].path.read_bytes()[:-8])
        self.damaged = made[0].study_uid
        assert self.site.once() in (0, 1)
        self.site.start()
        self.web = WebProcess(self.site, viewer=str(viewer_folder))
        self.web.start()

    def log_in(self, someone: Firefox, path: str, name: str, *roles: str) -> None:
        someone.go(path)
        someone.wait_for_address("/login")
        someone.type("#token", self.web.token(name, *roles), enter=True)
        someone.wait_for_address(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[Place]:
    skip_unless_available("firefox")
    skip_unless_available("tools")
    made = Place(tmp_path_factory.mktemp("firefox"), viewer_folder)
    yield made
    made.web.close()
    made.site.close()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(place: Place, downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with firefox(tmp_path_factory.mktemp("person"), place.web.url, downloads) as started:
        yield started


@pytest.fixture
def someone(browser: Firefox) -> Iterator[Firefox]:
    """Nobody yet. That nothing was forbidden, no script failed and nobody else was asked is checked when he leaves."""
    browser.forget()
    browser.noted()
    yield browser
    assert browser.noted() == ([], [])


def sees(someone: Firefox, phantom: Phantom) -> None:
    someone.double_click(f'//*[text()="{phantom.name}"]')

    def wrong() -> list[str]:
        return differences(phantom, someone.evaluate(SHOWN))

    someone.wait_for(lambda: not wrong(), wrong)


def whole(downloads: Path) -> bool:
    """Whether one ZIP file is there. Firefox makes an empty one first, and renames another to it once it has all."""
    there = list(downloads.iterdir())
    return [one.suffix for one in there] == [".zip"] and there[0].stat().st_size > 0


def open_viewer(someone: Firefox) -> None:
    """He is on the way there; returns when the first image is there."""
    someone.wait_for_address("/viewer")
    someone.wait_for(lambda: someone.evaluate(READY))
    someone.click('//button[normalize-space()="Confirm and hide"]')


def test_a_folder_is_handed_in_found_fetched_and_looked_at(
    someone: Firefox, place: Place, downloads: Path, tmp_path: Path
) -> None:
    maker = PhantomMaker(tmp_path / "export", patient="BROWSER^BRIGITTE")
    makers = {**GREY, **ENCODED}
    phantoms = [makers[name](maker, name) for name in LOOKED_AT if name in makers]
    place.log_in(someone, "/upload", "brigitte", "read", "upload")
    someone.choose_folder("label[for=folder]", tmp_path / "export")
    someone.click("#start")
    said = f"{someone.text('#verdict')} {someone.text('#sentences')}"
    assert said.startswith("Everything is verified in the archive."), said
    assert f"All {len(phantoms)} files are verified" in said, said
    someone.click("#nav-search")
    someone.type("#name", "browser*")
    someone.click("#search-button")
    someone.click('//a[normalize-space()="BROWSER, BRIGITTE"]')
    assert "BRIGITTE" in someone.text("#patient-name")
    someone.click("#download")
    someone.wait_for(lambda: whole(downloads))
    with ZipFile(next(downloads.iterdir())) as kept:
        fetched = {kept.read(name) for name in kept.namelist()}
    assert {phantom.path.read_bytes() for phantom in phantoms} <= fetched
    someone.click("#view")
    open_viewer(someone)
    for phantom in phantoms:
        sees(someone, phantom)
    someone.click('a[title="All studies"]')
    someone.click("#log-out")
    someone.wait_for_address("/login")
    someone.go(f"/viewer?StudyInstanceUIDs={maker.study_uid}")
    assert someone.address.startswith("/login"), "who has logged out sees nothing more"


def test_what_is_left_out_is_said_and_the_others_are_turned_over(someone: Firefox, place: Place) -> None:
    place.log_in(someone, f"/viewer?StudyInstanceUIDs={place.damaged}", "reader", "read")
    assert "Left out of this study: 1 of 4 images (1 damaged)." in someone.text(LEFT_OUT)
    someone.click(f"{LEFT_OUT} button")
    open_viewer(someone)
    assert someone.evaluate(PLACE) == 0

    def at_the_last() -> bool:
        someone.turn_wheel(".cornerstone-canvas")
        return bool(someone.evaluate(PLACE) == 2)

    someone.wait_for(at_the_last)


def test_this_file_would_notice(browser: Firefox) -> None:
    """What the policy forbids, a script that fails, and another host that is asked."""
    elsewhere = f"http://127.0.0.1:{free_port()}/"
    browser.go("/login")
    browser.noted()
    browser.evaluate("(address) => { new window.Image().src = address; }", elsewhere)
    browser.evaluate("() => window.reportError(new window.Error('a script that fails'))")
    browser.evaluate("(address) => { window.location.href = address; }", elsewhere)
    complaints: list[str] = []
    asked: list[str] = []

    def told() -> bool:
        for one, more in zip((complaints, asked), browser.noted(), strict=True):
            one.extend(more)
        return len(complaints) >= 2 and bool(asked)

    browser.wait_for(told, lambda: [complaints, asked])
    assert asked == [elsewhere] and len(complaints) == 2
    assert any("img-src" in one for one in complaints) and any("a script that fails" in one for one in complaints)
