"""What the page says, in German and in English: one table, every text in both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources

from dicomwatchd.web.languages import LANGUAGES


def load() -> dict[str, dict[str, str]]:
    """By language, then by name."""
    text = resources.files(__package__).joinpath("texts.json").read_text("utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
    return {language: {name: texts[language] for name, texts in table.items()} for language in LANGUAGES}


class Words:
    """The texts of one language. ``{name}`` in a text stands for a value."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, name: str, /, **values: object) -> str:
        return self._texts[name].format(**values)

    def raw(self, name: str) -> str:
        """With its ``{name}``s as they are."""
        return self._texts[name]

    def number(self, value: int) -> str:
        text = f"{value:,}"
        return text.replace(",", ".") if self.language == "de" else text

    def size(self, size_bytes: float) -> str:
        """1234567 -> "1.2 MB", "1,2 MB" (powers of ten)."""
        for unit in ("B", "kB", "MB", "GB"):
            if size_bytes < 1000:
                return self._decimal(f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}")
            size_bytes /= 1000
        return self._decimal(f"{size_bytes:.1f} TB")

    def _decimal(self, text: str) -> str:
        return text.replace(".", ",") if self.language == "de" else text
