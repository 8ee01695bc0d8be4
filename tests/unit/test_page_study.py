"""A study's page over an archive in memory: why the viewer does not show some of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from dicomwatchd.web.viewer import address
from tests.page import READ, Daemon, as_, page
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryCatalogue, instance
from tests.unit.test_series import Shelf, shelved


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelved(Maker().ct_series(tmp_path, slices=5, rows=16, columns=16))


def said(shelf: Shelf, folder: Path, language: str) -> str:
    """What the page has of images that are not shown; "" where nothing."""
    catalogue = MemoryCatalogue({shelf.study: shelf.manifest.record()})
    with page(folder, Daemon(runs=False), store=shelf.store, catalogue=catalogue, viewer=address) as client:
        answer: httpx.Response = client.get(f"/studies/{shelf.study}", headers=as_("anna", READ, language))
    assert answer.status_code == 200 and 'id="view"' in answer.text
    _, _, rest = answer.text.partition('id="left-out">')
    return rest.partition("</p>")[0]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "en",
            "Images that the viewer does not show: 1 (1 found again in the archive, of which nothing else is known).",
        ),
        (
            "de",
            "Bilder, die der Betrachter nicht zeigt: "
            "1 (1 im Archiv wiedergefunden, von denen sonst nichts bekannt ist).",
        ),
    ],
)
def test_an_image_that_was_found_again_is_neither_damaged_nor_in_several_versions(
    shelf: Shelf, tmp_path: Path, language: str, expected: str
) -> None:
    first, *rest = shelf.manifest.instances
    shelf.replaced(replace(first, repairs=("found-in-the-store",)), *rest)
    assert said(shelf, tmp_path, language) == expected


def test_each_reason_has_its_number(shelf: Shelf, tmp_path: Path) -> None:
    again, damaged, worse, several, sound = shelf.manifest.instances
    other = shelf.files[several.sop_instance_uid][:-2] + b"\1\2"
    twin = instance(shelf.series, several.sop_instance_uid, other, study=shelf.study)
    shelf.store.versions[twin.key] = [other]
    shelf.replaced(
        replace(again, repairs=("found-in-the-store",)),
        replace(damaged, damage="cut off"),
        replace(worse, damage="cut off"),
        several,
        twin,
        sound,
    )
    assert said(shelf, tmp_path, "en") == (
        "Images that the viewer does not show: 4 (1 archived in several versions that differ, 2 damaged, "
        "1 found again in the archive, of which nothing else is known)."
    )


def test_of_a_sound_study_nothing_is_said(shelf: Shelf, tmp_path: Path) -> None:
    assert said(shelf, tmp_path, "en") == ""
