"""The pictures of docs/pictures that show the page and the viewer, behind scripts/pictures: the real programs and a
real browser, with a patient and images that are made up."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from tests.browser.cache import cached_viewer
from tests.browser.chromium import chromium, visitor
from tests.browser.phantoms import PhantomMaker, Values
from tests.browser.viewer import Viewer
from tests.system.site import Site
from tests.system.web_process import WebProcess

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
NAMES = ("page-upload.webp", "page-search.webp", "page-study.webp", "viewer.webp", "viewer-planes.webp")
WIDTH, HEIGHT = 1100, 760
_SIDE, _SLICES = 160, 120


def main() -> int:
    viewer_folder = cached_viewer()
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-pictures-") as folder:
        root = Path(folder)
        (root / "place").mkdir()
        site = Site(root / "place")
        web = WebProcess(site, viewer=str(viewer_folder))
        try:
            site.init()
            site.start()
            web.start()
            _visit(web, root)
            site.stop()
        finally:
            web.close()
            site.close()
    for name in NAMES:
        print(f"Written: {FOLDER / name}")
    return 0


def _visit(web: WebProcess, root: Path) -> None:
    maker = PhantomMaker(root / "CT", patient="MADE-UP^MARIA", description="Trunk")
    maker.slices("Thorax and abdomen", trunk(), (40, 450), 2.5)
    token = web.token("maria", "read", "upload")
    with chromium() as browser, visitor(browser, web.url, width=WIDTH, height=HEIGHT) as someone:
        page = someone.page
        page.goto(f"{web.url}/upload")
        page.get_by_label("token").fill(token)
        page.get_by_role("button", name="token").click()
        page.locator("#folder").set_input_files(root / "CT")
        page.locator("#start").click()
        page.locator("#verdict").wait_for()
        _keep(page, "page-upload.webp")
        page.locator("#nav-search").click()
        page.locator("#name").fill("made*")
        page.locator("#search-button").click()
        page.locator("#found").wait_for()
        _keep(page, "page-search.webp")
        page.get_by_role("link", name="MARIA").click()
        page.locator("#patient-name").wait_for()
        _keep(page, "page-study.webp")
        page.locator("#view").click()
        viewer = Viewer(page, web.url)
        viewer.wait_until_open()
        shown = "window.cornerstone.getEnabledElements()[0]?.viewport"
        page.wait_for_function(f"() => {shown}?.getImageIds?.().length > 45")
        page.evaluate(f"{shown}.setImageIdIndex(45)")
        page.get_by_text("for investigational use only").wait_for()
        page.wait_for_timeout(3000)
        _keep(page, "viewer.webp")
        viewer.confirm_use()
        viewer.open(maker.study_uid, protocol="mpr")
        viewer.wait_for(lambda: [] if len(viewer.planes()) == 3 else ["not three planes"])
        page.wait_for_timeout(10_000)
        _keep(page, "viewer-planes.webp")


def _keep(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(FOLDER / name, "WEBP", quality=80, method=6)


def trunk() -> Values:
    """Ellipsoids that look like a trunk from afar: by z, y and x, in Hounsfield units."""
    z, y, x = np.meshgrid(
        np.linspace(-1, 1, _SLICES), np.linspace(-1, 1, _SIDE), np.linspace(-1, 1, _SIDE), indexing="ij"
    )

    def within(cz: float, cy: float, cx: float, rz: float, ry: float, rx: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        return inside

    values = np.full(z.shape, -1000)
    for shape, hounsfield in (
        (within(0, 0, 0, 2.4, 0.62, 0.88), -90),
        (within(0, 0, 0, 2.4, 0.55, 0.80), 45),
        (within(0.5, -0.05, -0.38, 0.75, 0.40, 0.30), -820),
        (within(0.5, -0.05, 0.38, 0.75, 0.40, 0.30), -820),
        (within(0.3, -0.15, 0.12, 0.28, 0.24, 0.26), 130),
        (within(-0.45, -0.05, -0.35, 0.38, 0.40, 0.38), 75),
        (within(-0.55, 0.05, 0.48, 0.22, 0.24, 0.16), 95),
        (within(-0.75, 0.20, -0.30, 0.25, 0.14, 0.11), 160),
        (within(-0.75, 0.20, 0.30, 0.25, 0.14, 0.11), 160),
        (within(0, 0.12, 0.05, 3, 0.06, 0.06), 180),
    ):
        values[shape] = hounsfield
    discs = (np.abs((z * 9) % 1 - 0.5) < 0.36) & within(0, 0.33, 0, 3, 0.11, 0.14)
    values[discs] = 520
    values[within(0, 0.33, 0, 3, 0.11, 0.14) & ~discs] = 90
    values[within(0, 0.46, 0, 3, 0.045, 0.05)] = 20
    ribs = (np.abs((z * 7 + 0.8 * y) % 1 - 0.5) < 0.14) & (z > -0.2)
    values[ribs & within(0, 0, 0, 2.4, 0.55, 0.80) & ~within(0, 0, 0, 2.4, 0.50, 0.74)] = 600
    noise = np.random.default_rng(7).normal(0, 9, z.shape)
    return (values + noise).astype(np.int64)


if __name__ == "__main__":
    sys.exit(main())
