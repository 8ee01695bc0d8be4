"""The pictures of the documentation are there, are what the program shows today, and name no patient and no other
host."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from dicomwatchd.cli.terminal import glyphs
from dicomwatchd.cli.top.screen import plain, screen
from dicomwatchd.cli.top.seen import Seen
from tests import pictures
from tests.browser import pictures as seen_in_a_browser
from tests.synthetic import Patient
from tests.unit.test_top_screen import answer, study

DOCS = Path(__file__).parents[2] / "docs"
#: What every picture of `top` has, and every one of `stats`: their headings.
WORDS = {
    "top.svg": (
        "dicomwatchd",
        "Sending",
        "Workers",
        "Studies",
        "INBOX",
        "STUDY",
        "PROGRESS",
        "ARCHIVED LAST",
        "q quit",
    ),
    "dashboard.svg": ("Files waiting, by inbox", "Alarms open, by kind", "Since a site was heard of"),
    "stats.svg": ("Archived; each column is", "From a study's first file to the archive", "Size of shipments"),
}


def text_of(svg: str) -> str:
    found = re.findall(r"<text[^>]*>(.*?)</text>", svg, flags=re.DOTALL)
    return unescape(" ".join(found)).replace("\xa0", " ")


def test_each_picture_is_shown_somewhere() -> None:
    names = [*pictures.NAMES, *seen_in_a_browser.NAMES]
    assert sorted(path.name for path in pictures.FOLDER.iterdir()) == sorted(names)
    pages = "".join(path.read_text() for path in DOCS.glob("*.md"))
    assert all(f"(pictures/{name})" in pages for name in names)
    assert all(path.stat().st_size < 100_000 for path in pictures.FOLDER.iterdir())


@pytest.mark.parametrize("name", pictures.NAMES)
def test_a_picture_has_what_the_program_shows_and_nobodys_name(name: str) -> None:
    svg = (pictures.FOLDER / name).read_text()
    text = text_of(svg)
    for word in WORDS[name]:
        assert word in text, f"{word} is not in docs/pictures/{name}: run scripts/pictures"
    patient = Patient()
    for word in (patient.name, patient.name.partition("^")[0], patient.patient_id, "/tmp", "/home", "/work"):
        assert word not in svg
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"(?i)<script|<image|@import|url\((?!#)", svg)


def test_the_headings_are_those_of_today() -> None:
    """So that a picture which is behind is noticed."""
    seen = Seen()
    for at in (1.0, 2.0):
        seen.answer(answer(study("uploading", ready=5, stored=5), at=at, sent=int(at)))
    shown = "\n".join(plain(screen(seen, pictures.WIDTH, pictures.HEIGHT, glyphs.BLOCKS).lines))
    assert all(word in shown for word in WORDS["top.svg"])
    drawn = pictures.picture("dicomwatchctl top", screen(seen, pictures.WIDTH, pictures.HEIGHT, glyphs.BLOCKS).lines)
    assert all(word in text_of(drawn) for word in WORDS["top.svg"])
