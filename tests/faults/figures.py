"""Figures of a run for docs/reliability.md: one JSON file for each kind of test, in .test-report/."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPORT_DIRECTORY = Path(__file__).parents[2] / ".test-report"


@dataclass
class Figures:
    """``name`` is the file's; ``what`` is the row's text. ``lost`` are byte sequences that are neither in an inbox nor
    in the archive, ``wrong_deletes`` files deleted that the archive did not hold then, ``duplicates`` objects or
    revisions that should not be there, ``waiting_for_ever`` files, studies or jobs that come to no end."""

    name: str
    what: str
    tried: int = 0
    lost: int = 0
    wrong_deletes: int = 0
    duplicates: int = 0
    waiting_for_ever: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        REPORT_DIRECTORY.mkdir(exist_ok=True)
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        (REPORT_DIRECTORY / f"{self.name}.json").write_text(text + "\n")
