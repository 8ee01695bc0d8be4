"""OHIF as a person uses it, and what is on its canvases."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

from tests.browser.chromium import PATIENCE_SECONDS
from tests.browser.phantoms import Grey, Phantom, Volume

Pixels = NDArray[np.uint8]

READY = """() => window.cornerstone?.getEnabledElements?.().some(one => one.viewport.getImageData?.())"""
SHOWN = """() => {
  const one = window.cornerstone.getEnabledElements()[0];
  const id = one?.viewport.getCurrentImageId?.();
  const image = id && window.cornerstone.cache.getImage(id);
  if (!image) return null;
  const canvas = one.viewport.canvas;
  const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { id, width: canvas.width, height: canvas.height, pixels: btoa(text),
           decoded: Array.from(image.voxelManager.getScalarData()) };
}"""

_MARKERS = """() => Object.fromEntries(['left', 'top', 'right', 'bottom'].map(side =>
  [side, document.querySelector(`.ViewportOrientationMarkers .${side}-mid`)?.textContent ?? '']))"""
# Where each point of a grid lies in the patient is asked of the viewport; what must be there, of the phantom.
_PLANES = """() => window.cornerstone.getEnabledElements().map(one => one.viewport).filter(
  viewport => viewport.type === 'orthographic').map(viewport => {
  const { canvas } = viewport;
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const places = [[100, 100], [101, 100], [100, 101]].map(place => viewport.canvasToWorld(place));
  const axes = [1, 2].map(at => places[at].map((one, axis) => one - places[0][axis]));
  const seen = [];
  for (let y = 4; y < canvas.height; y += 9)
    for (let x = 4; x < canvas.width; x += 9)
      seen.push([Array.from(viewport.canvasToWorld([x + 0.5, y + 0.5])),
                 Array.from(data.subarray((y * canvas.width + x) * 4, (y * canvas.width + x) * 4 + 4))]);
  return { name: viewport.id, axes, seen };
})"""


@dataclass(frozen=True)
class Plane:
    """``axes``: where one pixel to the right, and one down, leads in the patient (mm towards left, posterior, head).
    ``seen``: points of the canvas, where they lie in the patient, and their colour."""

    name: str
    axes: NDArray[np.float64]
    seen: list[tuple[tuple[float, ...], tuple[int, ...]]]

    def differences(self, volume: Volume) -> list[str]:
        problems, compared = [], 0
        for place, (red, green, blue, _) in self.seen:
            wanted = volume.grey(*place)
            if wanted is None:
                continue
            compared += 1
            if max(abs(one - wanted) for one in (red, green, blue)) > 1.5:
                problems.append(f"{self.name}: {red, green, blue} at {place}, must be {wanted:.1f}")
        return problems if compared >= 100 else [f"{self.name}: only {compared} points of the volume are seen"]


class Viewer:
    def __init__(self, page: Page, origin: str) -> None:
        self.page, self._origin = page, origin

    def open(self, study_uid: str, *, protocol: str = "") -> None:
        """As the page's link does; returns when the first image is there."""
        protocol = f"&hangingprotocolId={protocol}" if protocol else ""
        self.page.goto(f"{self._origin}/viewer?StudyInstanceUIDs={study_uid}{protocol}")
        self.wait_until_open()

    def wait_until_open(self) -> None:
        self.page.wait_for_function(READY, timeout=PATIENCE_SECONDS * 2000)  # much is compiled and drawn by then

    def confirm_use(self) -> None:
        """That it is for investigational use only is said to each person once."""
        self.page.get_by_text("for investigational use only").wait_for()
        self.page.get_by_role("button", name="Confirm and hide").click()

    def show(self, description: str) -> None:
        """By a double click on the series' thumbnail."""
        self.page.get_by_text(description, exact=True).first.dblclick()

    def shown(self, series_uid: str) -> tuple[Pixels, Grey] | None:
        """The canvas as (row, column, RGBA), and the decoded values, rescaled; None while another series is shown."""
        return _read(self.page.evaluate(SHOWN), series_uid)

    def differences(self, phantom: Phantom) -> list[str]:
        """What is other on the screen, and in the decoded values, than it must be."""
        return differences(phantom, self.page.evaluate(SHOWN))

    def markers(self) -> dict[str, str]:
        """The letters at the edges of the first viewport: "left", "top" and whatever else is marked."""
        found: dict[str, str] = self.page.evaluate(_MARKERS)
        return found

    def planes(self) -> list[Plane]:
        """The three planes of a multi-planar reconstruction, as far as they are drawn."""
        return [
            Plane(
                one["name"],
                np.array(one["axes"], np.float64),
                [(tuple(place), tuple(seen)) for place, seen in one["seen"]],
            )
            for one in self.page.evaluate(_PLANES)
        ]

    def wait_for(self, what: Callable[[], list[str]]) -> None:
        """Until there is nothing more to say of it. Raises AssertionError with what there was at last."""
        end = time.monotonic() + PATIENCE_SECONDS
        while problems := what():
            assert time.monotonic() < end, "\n".join(problems[:12])
            self.page.wait_for_timeout(100)


def differences(phantom: Phantom, found: dict[str, Any] | None) -> list[str]:
    """``found``: what SHOWN says in a page."""
    shown = _read(found, phantom.series_uid)
    if shown is None:
        return ["the series is not on the screen"]
    pixels, decoded = shown
    return [*_on_screen(phantom, pixels), *_decoded(phantom, decoded)]


def _read(found: dict[str, Any] | None, series_uid: str) -> tuple[Pixels, Grey] | None:
    if found is None or series_uid not in found["id"]:
        return None
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    return pixels.reshape(found["height"], found["width"], 4), np.array(found["decoded"], np.float64)


def _on_screen(phantom: Phantom, pixels: Pixels) -> list[str]:
    """An image is as large as its viewport lets it be, in the middle."""
    height, width = pixels.shape[:2]
    rows, columns = phantom.shown.shape[:2]
    scale = min(height / rows, width / columns)
    problems = []
    for row, column in phantom.places():
        x = width / 2 + (column + 0.5 - columns / 2) * scale
        y = height / 2 + (row + 0.5 - rows / 2) * scale
        seen = pixels[int(y), int(x), :3].astype(float)
        off = np.abs(seen - phantom.shown[row, column]).max()
        if off > phantom.tolerance:
            wanted = np.atleast_1d(phantom.shown[row, column]).round(2).tolist()
            problems.append(f"row {row}, column {column}: {seen.tolist()} on the screen, must be {wanted}")
    return problems


def _decoded(phantom: Phantom, decoded: Grey) -> list[str]:
    """Every pixel, those included that no screen shows sharply."""
    wanted = phantom.rescaled.ravel()
    if decoded.size * 3 == wanted.size * 4:
        decoded = decoded.reshape(-1, 4)[:, :3].ravel()
    if decoded.size != wanted.size:
        return [f"{decoded.size} values, must be {wanted.size}"]
    off = np.abs(decoded - wanted)
    if off.max() <= phantom.coding_error:
        return []
    return [f"{(off > phantom.coding_error).sum()} of {off.size} values differ, by up to {json.dumps(off.max())}"]
