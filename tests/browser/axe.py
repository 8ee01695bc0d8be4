"""axe-core, out of the npm registry by its hash: which of WCAG's rules a page breaks, as far as a program can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from tests.servers import npm

_SOURCE: Final = Path(__file__).with_name("axe")
_FILES: Final = ("package.json", "package-lock.json")
#: WCAG 2.1, levels A and AA. (The two of WCAG 2.0 have no number in their tags.)
_TAGS: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
_RUN: Final = "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})"


class Axe:
    def __init__(self) -> None:
        self._script = (npm.fetched("axe", _SOURCE, _FILES, "3 MB") / "node_modules/axe-core/axe.min.js").read_text()

    def violations(self, page: Page) -> list[str]:
        """One line for each element that breaks a rule."""
        if not page.evaluate("() => 'axe' in window"):
            page.evaluate(f"() => {{ {self._script} }}")
        found: dict[str, Any] = page.evaluate(_RUN, list(_TAGS))
        assert len(found["passes"]) >= 5, "a page without anything to judge"
        return [
            f"{rule['id']}: {node['html'][:200]} ({' '.join(node['failureSummary'].split())})"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]
