"""What the archive does not hand out of a study: whoever opens it is told before he sees an image of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.chromium import Visitor, visitor
from tests.browser.viewer import Viewer
from tests.conftest import skip_unless_available
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.web_process import WebProcess

BOX = "#dicomwatchd-left-out"
LEFT_OUT, METADATA = "**/left-out", "**/metadata"
FAILED = {
    "en": "A series of this study cannot be shown.",
    "de": "Eine Serie dieser Studie kann nicht gezeigt werden.",
}
WHERE = """selector => { const at = document.querySelector(selector).getBoundingClientRect();
  const covered = [...document.querySelectorAll('canvas')].map(one => one.getBoundingClientRect()).filter(
    one => one.left < at.right && at.left < one.right && one.top < at.bottom && at.top < one.bottom);
  return covered.length; }"""

#: As the viewer asks for a series: the status.
ASK = """([study, series, givesUp]) => new Promise(done => {
  const asking = new XMLHttpRequest();
  asking.open('GET', `/dicom-web/studies/${study}/series/${series}/metadata`);
  asking.responseType = 'json';
  asking.onloadend = () => done(asking.status);
  asking.send();
  if (givesUp) asking.abort();
})"""


class Archived:
    """Studies of which one image is damaged, one there is in two versions, one is damaged and of another the archive
    has other bytes now, whose files name two patients; and a sound one."""

    def __init__(self, root: Path, viewer_folder: Path) -> None:
        self.site = Site(root)
        self.site.init()
        maker = Maker(seed=190, patient=Patient("LEFT^OUT", "left-out"))
        made = {
            name: maker.ct_series(self.site.inbox / name, slices=4, rows=64, columns=64, study=number)
            for number, name in enumerate(("damaged", "versions", "sound", "altered"))
        }
        for name in ("damaged", "altered"):
            first = made[name][0].path
            first.write_bytes(first.read_bytes()[:-8])
        pixels = made["altered"][3].path.read_bytes()[-64:]
        one = made["versions"][0].path
        (one.parent / "again").write_bytes(one.read_bytes()[:-8] + bytes(8))
        for number, patient in enumerate((Patient(), Patient("ROE^JOHN", "P2", "19510213", "M")), 1):
            made["patients"] = Maker(seed=191, patient=patient).ct_series(
                self.site.inbox / f"two{number}", slices=2, study=0, series=number, rows=16, columns=16
            )
        assert self.site.once() in (0, 1)
        stored = [path for path in (root / "archive").rglob("*") if path.is_file() and pixels in path.read_bytes()]
        assert len(stored) == 1
        stored[0].chmod(0o600)
        stored[0].write_bytes(stored[0].read_bytes().replace(pixels, bytes(64)))
        self.study_uids = {name: files[0].study_uid for name, files in made.items()}
        self.web = WebProcess(self.site, viewer=str(viewer_folder))
        self.web.configure()
        self.token = self.web.token("reader", "read")
        self.web.start()


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[Archived]:
    skip_unless_available("tools")
    made = Archived(tmp_path_factory.mktemp("left-out"), viewer_folder)
    yield made
    made.web.close()
    made.site.close()


@contextmanager
def logged_in(browser: Browser, archived: Archived, language: str = "en") -> Iterator[Visitor]:
    with visitor(browser, archived.web.url, locale=language) as someone:
        someone.page.goto(archived.web.url)
        someone.page.get_by_label("token").fill(archived.token)
        someone.page.get_by_role("button", name="token").click()
        someone.page.wait_for_url(f"{archived.web.url}/")
        yield someone


SAID = {
    ("damaged", "en"): "Left out of this study: 1 of 4 images (1 damaged).",
    ("damaged", "de"): "Von dieser Studie nicht gezeigt: 1 von 4 Bildern (1 beschädigt).",
    ("versions", "en"): "Left out of this study: 1 of 4 images (1 archived in several versions that differ).",
    ("versions", "de"): "Von dieser Studie nicht gezeigt: 1 von 4 Bildern "
    "(1 in mehreren Fassungen archiviert, die sich unterscheiden).",
}


@pytest.mark.parametrize(("name", "language"), SAID)
def test_it_is_said_before_the_first_image(browser: Browser, archived: Archived, name: str, language: str) -> None:
    study = archived.study_uids[name]
    with logged_in(browser, archived, language) as someone:
        page = someone.page
        told: list[str] = []

        def late(route: Route) -> None:
            """The archive takes its time."""
            page.wait_for_timeout(1500)
            route.continue_()

        page.route(LEFT_OUT, late)
        page.on("request", lambda asked: told.append("images") if asked.url.endswith("/metadata") else None)
        page.on("response", lambda got: told.append("left out") if got.url.endswith("/left-out") else None)
        viewer = Viewer(page, archived.web.url)
        viewer.open(study)
        assert told[:2] == ["left out", "images"] and told.count("left out") == 1, told
        box = page.locator(BOX)
        expect(box).to_contain_text(SAID[name, language])
        assert box.get_attribute("role") == "alert" and box.get_attribute("lang") == language
        # Put aside it does not go, nor does it lie over an image.
        box.get_by_role("button", name="Understood" if language == "en" else "Verstanden").click()
        mark = box.get_by_role("button", name="Not all images" if language == "en" else "Nicht alle Bilder")
        expect(mark).to_be_visible()
        viewer.wait_until_open()
        viewer.wait_for(lambda: [] if page.evaluate(WHERE, BOX) == 0 else ["it lies over an image"])
        mark.click()
        expect(box).to_contain_text(SAID[name, language])
        box.get_by_role("link").click()
        page.wait_for_url(f"{archived.web.url}/studies/{study}")
        expect(page.locator("#left-out")).to_contain_text(SAID[name, language].partition("(")[2].rstrip("."))


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "The files of this study name two patients"), ("de", "Die Dateien dieser Studie nennen zwei Patienten")],
)
def test_of_a_study_of_two_patients_it_is_said_why_there_is_none(
    browser: Browser, archived: Archived, language: str, said: str
) -> None:
    study = archived.study_uids["patients"]
    with logged_in(browser, archived, language) as someone:
        someone.page.goto(f"{archived.web.url}/viewer?StudyInstanceUIDs={study}")
        expect(someone.page.locator(BOX)).to_contain_text(said)
        someone.page.goto(f"{archived.web.url}/studies/{study}")
        expect(someone.page.locator("#left-out")).to_be_visible()


def test_nothing_is_said_of_a_sound_one(browser: Browser, archived: Archived) -> None:
    study = archived.study_uids["sound"]
    with logged_in(browser, archived) as someone:
        viewer = Viewer(someone.page, archived.web.url)
        viewer.open(study)
        assert someone.page.locator(BOX).count() == 0
        someone.page.goto(f"{archived.web.url}/studies/{study}")
        someone.page.locator("#view").wait_for()
        assert someone.page.locator("#left-out").count() == 0


def test_of_several_studies_each_has_its_sentence(browser: Browser, archived: Archived) -> None:
    both = ",".join(archived.study_uids[name] for name in ("damaged", "versions"))
    with logged_in(browser, archived) as someone:
        Viewer(someone.page, archived.web.url).open(both)
        for name in ("damaged", "versions"):
            expect(someone.page.locator(BOX)).to_contain_text(SAID[name, "en"])


def test_an_archive_that_does_not_say_it_is_no_sound_study(browser: Browser, archived: Archived) -> None:
    with logged_in(browser, archived) as someone:
        asked: list[str] = []

        def refused(route: Route) -> None:
            asked.append(route.request.url)
            route.abort()

        someone.page.route(LEFT_OUT, refused)
        Viewer(someone.page, archived.web.url).open(archived.study_uids["sound"])
        expect(someone.page.locator(BOX)).to_contain_text("Whether all images are shown is not known")
        assert len(asked) == 2, "it is asked once more"


def test_what_cannot_be_read_is_said_beside_what_is_left_out(browser: Browser, archived: Archived) -> None:
    """It is not in the count, which was said before."""
    with logged_in(browser, archived) as someone:
        Viewer(someone.page, archived.web.url).open(archived.study_uids["altered"])
        box = someone.page.locator(BOX)
        expect(box).to_contain_text(SAID["damaged", "en"])
        expect(box).to_contain_text("Images of a series are left out: they cannot be read")
        assert FAILED["en"] not in box.inner_text()


def _not_now(route: Route) -> None:
    route.fulfill(status=503, json={"error": "cold-storage"})


def _unreadable(route: Route) -> None:
    route.fulfill(status=409, json={"error": "unreadable-instance"})


def _damaged(route: Route) -> None:
    route.fulfill(status=409, json={"error": "damaged-instance"})


def _broken(route: Route) -> None:
    route.abort("connectionreset")


@pytest.mark.parametrize(("answer", "language"), [(_not_now, "de"), (_unreadable, "en"), (_broken, "en")])
def test_a_series_that_is_not_to_be_had_is_said_beside_what_is_left_out(
    browser: Browser, archived: Archived, answer: Callable[[Route], None], language: str
) -> None:
    with logged_in(browser, archived, language) as someone:
        someone.page.route(METADATA, answer)
        someone.page.goto(f"{archived.web.url}/viewer?StudyInstanceUIDs={archived.study_uids['damaged']}")
        box = someone.page.locator(BOX)
        expect(box).to_contain_text(SAID["damaged", language])
        expect(box).to_contain_text(FAILED[language])
        someone.complaints.clear()  # that it was answered 503, and what the viewer makes of that


def test_what_is_in_the_count_or_not_asked_any_more_is_no_failure(browser: Browser, archived: Archived) -> None:
    """A series of which nothing is sound; what the viewer gives up by itself."""
    study = archived.study_uids["damaged"]
    with logged_in(browser, archived) as someone:
        page = someone.page
        Viewer(page, archived.web.url).open(study)
        expect(page.locator(BOX)).to_contain_text(SAID["damaged", "en"])
        page.route("**/series/1.1/metadata", _damaged)
        page.route("**/series/1.2/metadata", _unreadable)
        for gives_up, expected in ((False, 409), (True, 0)):
            assert page.evaluate(ASK, [study, "1.1", gives_up]) == expected
        assert FAILED["en"] not in page.locator(BOX).inner_text()
        assert page.evaluate(ASK, [study, "1.2", False]) == 409
        expect(page.locator(BOX)).to_contain_text(FAILED["en"])
