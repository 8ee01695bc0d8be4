"""What the page says and understands: both languages whole, dates as people type and read them."""

from __future__ import annotations

import re
from datetime import UTC, date
from pathlib import Path
from string import Formatter

import pytest

import dicomwatchd.web.pages as pages
from dicomwatchd.model import DicomJson
from dicomwatchd.series.standing import Standing
from dicomwatchd.web.languages import LANGUAGES, preferred
from dicomwatchd.web.pages import dates
from dicomwatchd.web.pages.attributes import person_name, texts
from dicomwatchd.web.pages.search import query_of
from dicomwatchd.web.pages.studies import LEFT_OUT
from dicomwatchd.web.pages.words import Words, load

HERE = Path(pages.__file__).parent
TODAY = date(2026, 12, 1)


def test_every_text_is_there_in_both_languages_with_the_same_values() -> None:
    table = load()
    assert set(table) == set(LANGUAGES) and table["en"].keys() == table["de"].keys()
    for name, english in table["en"].items():
        german = table["de"][name]
        assert english.strip() and german.strip(), name
        assert {one[1] for one in Formatter().parse(english)} == {one[1] for one in Formatter().parse(german)}, name


def test_what_is_said_is_in_the_table_and_what_is_in_the_table_is_said() -> None:
    code = "".join(path.read_text("utf-8") for path in [*HERE.rglob("*.py"), *HERE.rglob("*.html")])
    script = (HERE / "static" / "upload.js").read_text("utf-8")
    known = load()["en"].keys()
    made = ("complete.", "stage.", "grade.", "hold.", "upload.js.")
    said = set(re.findall(r"""\bt\(\s*["']([a-z0-9_. -]+)["']""", code)) - set(made)
    assert said <= known, said - known
    unsaid = {one for one in known if f'"{one}"' not in code and not one.startswith(made)}
    assert unsaid == set()
    assert {one.removeprefix("upload.js.") for one in known if one.startswith("upload.js.")} == set(
        re.findall(r'\bsay\("(\w+)"', script)
    )


def test_why_images_are_not_shown_is_said_as_in_the_viewer() -> None:
    script = (HERE.parent / "viewer" / "left-out.js").read_text("utf-8")
    reasons = set(Standing) - {Standing.SOUND}
    assert {*LEFT_OUT} == reasons
    for language, table in load().items():
        for reason in reasons:
            text = table[LEFT_OUT[reason]].replace("{number}", "${number}")
            assert f"{reason}: number => `{text}`," in script, (language, reason)


@pytest.mark.parametrize(
    ("header", "chosen", "language"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", None, "de"),
        ("en-GB,de;q=0.9", None, "en"),
        ("fr,de;q=0.5,en;q=0.4", None, "de"),
        ("de;q=0,en", None, "en"),
        ("fr", None, "en"),
        ("", None, "en"),
        ("de", "en", "en"),
        ("en", "xx", "en"),
        ("de;q=nan;q=, ;;,", None, "en"),
    ],
)
def test_the_language_is_the_one_that_is_asked_for(header: str, chosen: str | None, language: str) -> None:
    assert preferred(header, chosen) == language


@pytest.mark.parametrize(
    ("text", "language", "day"),
    [
        ("24.12.2025", "de", "20251224"),
        ("24.12.25", "de", "20251224"),
        ("4.1.25", "de", "20250104"),
        (" 24. 12. 2025 ", "de", "20251224"),
        ("24.12.", "de", "20261224"),
        ("24.12.47", "de", "19471224"),
        ("24122025", "de", "20251224"),
        ("241225", "de", "20251224"),
        ("20251224", "de", "20251224"),
        ("2025-12-24", "de", "20251224"),
        ("24/12/2025", "de", "20251224"),
        ("12/24/2025", "en", "20251224"),
        ("1/4/25", "en", "20250104"),
        ("24/12/2025", "en", "20251224"),
        ("24.12.2025", "en", "20251224"),
        ("2025-12-24", "en", "20251224"),
        ("20240229", "en", "20240229"),
        ("", "en", ""),
        ("  ", "de", ""),
    ],
)
def test_a_date_is_understood_as_it_is_typed(text: str, language: str, day: str) -> None:
    assert dates.typed(text, language, TODAY) == day


@pytest.mark.parametrize(
    "text", ["31.2.2025", "29.2.2025", "13/13/2025", "yesterday", "2025", "1.1.1", "1.1.025", "0.1.2025", "²"]
)
def test_what_is_no_date_is_none(text: str) -> None:
    with pytest.raises(dates.NoDate):
        dates.typed(text, "de", TODAY)


def test_dates_are_shown_as_they_are_written() -> None:
    assert dates.shown("20251224", "de") == "24.12.2025" and dates.shown("20251224", "en") == "2025-12-24"
    assert dates.shown("1925?", "de") == "1925?" and dates.shown("", "en") == ""
    assert dates.moment("2025-12-24T13:05:00.000Z", "de", UTC) == "24.12.2025, 13:05"
    assert dates.moment(None, "en") == "" and dates.moment("never", "en") == "never"


def test_numbers_are_written_in_the_language() -> None:
    german, english = (Words(language, {}) for language in ("de", "en"))
    assert (german.number(12345), english.number(12345)) == ("12.345", "12,345")
    assert (german.size(1234567), english.size(1234567)) == ("1,2 MB", "1.2 MB")


def test_what_was_typed_becomes_a_query() -> None:
    query, problems = query_of(
        {"name": " meier ", "born": "24.12.47", "from": "1.1.25", "modality": "ct", "incomplete": "1"}, "de", TODAY
    )
    assert query is not None and problems == {}
    assert (query.name, query.birth_date, query.date_from, query.date_to) == ("meier*", "19471224", "20250101", "")
    assert (query.modality, query.is_incomplete, query.patient_id) == ("CT", True, None)
    assert query_of({"born": "gestern", "from": "2.1.25", "to": "x"}, "de", TODAY) == (
        None,
        {"born": "search.bad.date", "to": "search.bad.date"},
    )
    assert query_of({"from": "2.1.25", "to": "1.1.25"}, "de", TODAY)[1] == {"from": "search.bad.order"}
    assert query_of({"name": "x" * 201}, "de", TODAY)[1] == {"name": "search.bad.long"}


def test_names_are_read_as_people_write_them() -> None:
    assert person_name("Doe^Jane^Q^Dr.^jr.") == "Doe, Jane Q (Dr. jr.)"
    assert person_name("Yamada^Tarou=山田^太郎") == "Yamada, Tarou = 山田, 太郎"
    assert person_name("") == "" and person_name("^^") == "" and person_name("Doe") == "Doe"
    name: DicomJson = {"00100010": {"vr": "PN", "Value": [{"Ideographic": "山田^太郎"}]}}
    assert texts(name, "00100010") == "=山田^太郎" and texts({}, "00100010") == ""
    assert texts({"00100010": {"Value": "odd"}}, "00100010") == ""
