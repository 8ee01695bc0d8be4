"""The tables in the README and in docs/performance.md: those of the last whole run, whose figures lie beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench import document, report

#: Of a whole run, as the tables show it.
FIGURES = Path("docs") / "bench.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PAGES: Mapping[Path, Callable[[Mapping[str, Any]], str]] = {
    Path("README.md"): report.markdown,
    Path("docs") / "performance.md": report.goals,
}


def between_markers(page: Path) -> str:
    """Raises ValueError where the markers are not there, once each and in order."""
    return _parts(page)[1]


def write(root: Path, figures: Path) -> None:
    """Puts the ``figures`` of a whole run, and the tables made of them, into the project at ``root``. Raises ValueError
    as `between_markers`, and then nothing was written."""
    found = json.loads(figures.read_text())
    made = {}
    for page, table in PAGES.items():
        before, _, after = _parts(root / page)
        made[page] = f"{before}{BEGIN}\n{table(found)}\n{END}{after}"
    document.write_json(root / FIGURES, found)
    for page, text in made.items():
        (root / page).write_text(text)


def _parts(page: Path) -> tuple[str, str, str]:
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    within, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{page.name} has no {BEGIN} ... {END}, or more than one")
    return before, within.strip("\n"), after
