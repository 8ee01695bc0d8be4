"""What a check of `dicomwatchctl doctor` has found, in plain words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """``outcome``: "good", "note" (works, and costs or lacks something), "unknown" (could not be asked: neither a pass
    nor a failure) or "bad" (has to be mended). ``fix`` says what to do, with a command where there is one. No text has
    a key of an object, a path of a file, or a patient's attribute.

    ``essential``: as long as it is bad the daemon archives, and deletes no local file.
    """

    subject: str
    outcome: str
    detail: str
    fix: str | None = None
    essential: bool = False
