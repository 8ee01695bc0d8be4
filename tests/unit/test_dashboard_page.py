"""docs/dashboard.md is about the dashboard as it is, each of its queries has an answer there, and it names nobody."""

from __future__ import annotations

import re

import pytest

from tests import alerts, dashboard_page
from tests.dashboard_page import Answered
from tests.synthetic import Patient

TEXT = dashboard_page.PAGE.read_text()
#: A line of a table, but its two first ones: panel, query, answer.
ROWS = re.findall(r"(?m)^\| \*\*(.+?)\*\*(?:: .*?)? \| (`.+?) \| (.+) \|$", TEXT)


def test_it_has_the_panels_of_the_dashboard_in_their_order_with_their_queries() -> None:
    panels = alerts.panels()
    assert [title for title, _, _ in ROWS] == [panel.title for panel in panels], "run scripts/pictures dashboard"
    for (title, queries, _), panel in zip(ROWS, panels, strict=True):
        assert queries == "<br>".join(dashboard_page.code(query) for _, query in panel.queries), title
        assert dashboard_page.title(panel) in TEXT, title
    assert re.findall(r"(?m)^## (.+)$", TEXT) == list(dict.fromkeys(panel.row for panel in panels))


def test_every_query_has_an_answer_with_the_panel_s_unit_and_its_legend_filled_in() -> None:
    units = {"s": r"\d s|\d min|\d h", "bytes": r" [kMGT]?B", "Bps": "B/s", "ops": " a second", "percentunit": "%"}
    for panel, (title, _, answer) in zip(alerts.panels(), ROWS, strict=True):
        lines = [line for line in answer.split("<br>") if not line.startswith("and ")]
        assert len(lines) >= len(panel.queries) and "{{" not in answer and "NaN" not in answer, title
        assert all(re.search(units.get(panel.unit, r"[\d.]+"), line) for line in lines), (title, lines)
        assert len(set(lines)) == len(lines), f"{title}: legends that do not tell daemons apart"


def test_it_says_what_it_is_made_of_and_names_nobody() -> None:
    assert dashboard_page.HEAD.format(seconds=dashboard_page.SECONDS) in TEXT
    patient = Patient()
    for word in (patient.name, patient.patient_id, "DOE", "ROE", "127.0.0.1", "/tmp"):
        assert word not in TEXT
    assert "dashboard.md" in (alerts.ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.03125, "s", "0.0312 s"),
        (93784, "s", "1 d 2 h"),
        (365500, "Bps", "365.5 kB/s"),
        (10.84, "ops", "10.8 a second"),
        (0.234, "percentunit", "23%"),
        (94.68, "none", "94.7"),
        (2, "none", "2"),
    ],
)
def test_an_answer_is_said_as_the_panel_s_unit_has_it(value: float, unit: str, text: str) -> None:
    assert dashboard_page.said(value, unit) == text


def test_a_table_is_not_broken_by_a_query() -> None:
    panel = alerts.Panel("Row", "Title", "What.", "none", (("", 'a{job="dicomwatchd",instance=~".*",b=~"x|y"}'),))
    page = dashboard_page.page([Answered(panel, ("7",))])
    assert '| **Title**: What. | `a{b=~"x\\|y"}` | 7 |' in page
    with pytest.raises(ValueError, match="unit"):
        dashboard_page.said(1, "furlong")
