"""Studies from the archive in OHIF: decoded values and grey values are those that the standard demands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Visitor, visitor
from tests.browser.phantoms import ENCODED, GREY, TURNED, Phantom, PhantomMaker, Volume
from tests.browser.viewer import Plane, Viewer
from tests.conftest import skip_unless_available
from tests.system.site import Site
from tests.system.web_process import WebProcess


class Archived:
    """Two studies of phantoms in a site's archive, by the daemon, and dicomwatchd-web before it."""

    def __init__(self, root: Path, viewer_folder: Path) -> None:
        self.site = Site(root)
        self.site.init()
        images = PhantomMaker(self.site.inbox / "images")
        self.study_uid = images.study_uid
        self.phantoms: dict[str, Phantom] = {name: make(images, name) for name, make in {**GREY, **ENCODED}.items()}
        self.phantoms |= {name: images.turned(name, row, column) for name, (row, column, *_) in TURNED.items()}
        cube = PhantomMaker(self.site.inbox / "cube", study=1, patient="PHANTOM^CUBE")
        self.cube_study_uid = cube.study_uid
        self.cube: Volume = cube.volume("Cube")
        assert self.site.once() == 0 and self.site.left() == []
        self.web = WebProcess(self.site, viewer=str(viewer_folder))
        self.web.configure()
        self.token = self.web.token("reader", "read")
        self.web.start()

    def log_in(self, someone: Visitor, path: str) -> None:
        """Whoever asks for a page is led to the log-in, and from there to what he wanted."""
        someone.page.goto(self.web.url + path)
        someone.page.get_by_label("token").fill(self.token)
        someone.page.get_by_role("button", name="token").click()
        someone.page.wait_for_url(self.web.url + path)


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[Archived]:
    skip_unless_available("tools")
    made = Archived(tmp_path_factory.mktemp("viewer"), viewer_folder)
    yield made
    made.web.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, archived: Archived) -> Iterator[tuple[Visitor, Viewer]]:
    with visitor(browser, archived.web.url) as someone:
        archived.log_in(someone, f"/viewer?StudyInstanceUIDs={archived.study_uid}")
        viewer = Viewer(someone.page, archived.web.url)
        viewer.wait_until_open()
        viewer.confirm_use()
        yield someone, viewer


@pytest.fixture
def viewer(opened: tuple[Visitor, Viewer]) -> Iterator[Viewer]:
    """The study of all phantoms; that nobody else is asked, and nothing forbidden, is checked after each."""
    yield opened[1]
    opened[0].check()


@pytest.mark.parametrize("name", [*GREY, *ENCODED])
def test_what_is_on_the_screen_is_what_must_be(name: str, archived: Archived, viewer: Viewer) -> None:
    viewer.show(name)
    viewer.wait_for(lambda: viewer.differences(archived.phantoms[name]))


@pytest.mark.parametrize("name", TURNED)
def test_the_edges_say_where_they_are_in_the_patient(name: str, archived: Archived, viewer: Viewer) -> None:
    viewer.show(name)
    viewer.wait_for(lambda: viewer.differences(archived.phantoms[name]))
    *_, left, top = TURNED[name]
    viewer.wait_for(lambda: [] if (seen := viewer.markers())["left"] == left and seen["top"] == top else [str(seen)])


def test_the_planes_through_a_volume_lie_where_they_must(browser: Browser, archived: Archived) -> None:
    with visitor(browser, archived.web.url) as someone:
        archived.log_in(someone, f"/viewer?StudyInstanceUIDs={archived.cube_study_uid}&hangingprotocolId=mpr")
        viewer = Viewer(someone.page, archived.web.url)
        viewer.confirm_use()
        viewer.wait_for(lambda: _wrong_planes(viewer.planes(), archived.cube))


#: Where a plane's right and its lower edge are in the patient: left, posterior, head.
_LEADS = {
    "mpr-axial": ([1, 0, 0], [0, 1, 0]),
    "mpr-sagittal": ([0, 1, 0], [0, 0, -1]),
    "mpr-coronal": ([1, 0, 0], [0, 0, -1]),
}


def _wrong_planes(planes: list[Plane], cube: Volume) -> list[str]:
    if {plane.name for plane in planes} != set(_LEADS):
        return [f"the planes are {[plane.name for plane in planes]}"]
    problems = []
    for plane in planes:
        leads = tuple((axis / abs(axis).max()).round(3).tolist() for axis in plane.axes)
        problems += [f"{plane.name} leads to {leads}"] if leads != _LEADS[plane.name] else []
        problems += plane.differences(cube)
    return problems


def test_two_at_once_see_each_his_own_study(browser: Browser, archived: Archived, viewer: Viewer) -> None:
    with visitor(browser, archived.web.url) as other:
        archived.log_in(other, f"/viewer?StudyInstanceUIDs={archived.cube_study_uid}")
        theirs = Viewer(other.page, archived.web.url)
        theirs.wait_until_open()
        viewer.show("RLE")
        viewer.wait_for(lambda: viewer.differences(archived.phantoms["RLE"]))
        theirs.wait_for(lambda: [] if theirs.shown(archived.cube.series_uid) else ["the cube is not on the screen"])
        assert theirs.shown(archived.phantoms["RLE"].series_uid) is None


def test_whoever_has_no_token_sees_no_image(browser: Browser, archived: Archived) -> None:
    with visitor(browser, archived.web.url) as stranger:
        stranger.page.goto(f"{archived.web.url}/viewer?StudyInstanceUIDs={archived.study_uid}")
        assert "/login" in stranger.page.url
        stranger.page.get_by_label("token").fill("not-a-token")
        stranger.page.get_by_role("button", name="token").click()
        stranger.page.get_by_role("alert").wait_for()
        assert "/viewer" not in stranger.page.url.split("?")[0]
        for path in ("/dicom-web/studies", f"/dicom-web/studies/{archived.study_uid}/metadata", "/app-config.js"):
            assert stranger.context.request.get(archived.web.url + path).status == 401
