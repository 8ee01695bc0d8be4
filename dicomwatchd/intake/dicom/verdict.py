"""Whole, damaged, or it cannot be told: what is said of a data set, and by what it is carried.

The reader of headers (`header.read_header`) hands a verdict out in one of two ways. A file that is whole, or of which
it cannot be told, gives a `Header` whose ``verdict`` says so. A damaged one raises `Damaged`, which carries the
verdict and, where the UIDs of study, series, instance and SOP class could be read before the damage, the `Header` as
far as it goes: enough to archive the file under the right study.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dicomwatchd.errors import Unarchivable

if TYPE_CHECKING:
    from dicomwatchd.intake.dicom.header import Header


class Completeness(StrEnum):
    """WHOLE: every length adds up, and the content that the SOP class calls for is there, or something stands at the
    end that only a finished file has. DAMAGED: something is provably missing or wrong. CANNOT_TELL: every length adds
    up, and a cut between two elements would not show, since the class has nothing that must stand late."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is plain English without any value of the file, "" for WHOLE. ``offset_bytes`` is the byte of the file
    at which the damage begins, always at an element of the data set itself and not of an item: before it stand whole
    elements. None when it is not known (positions within a deflated data set are not the file's)."""

    completeness: Completeness
    reason: str = ""
    offset_bytes: int | None = None

    @property
    def text(self) -> str:
        """The reason, and where."""
        return self.reason if self.offset_bytes is None else f"{self.reason} (from byte {self.offset_bytes})"


WHOLE = Verdict(Completeness.WHOLE)


class DamageFound(Exception):
    """Raised where damage shows, and caught by `structure.walk`, which knows at which element it is. ``code`` is that
    of the Unarchivable in the end: "truncated", or "malformed" for bytes that are there and are no data set."""

    def __init__(self, reason: str, code: str = "truncated") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Damaged(Unarchivable):
    """The file is DICOM, and something of it is missing or wrong: ``verdict`` says what and where.

    ``header`` is what can be read before that, when the UIDs that the archive goes by are among it: the file can be
    archived as what is left of this instance. None when nobody knows whose it is. The code is "truncated", or
    "malformed" where the bytes are there and are no data set.
    """

    def __init__(self, verdict: Verdict, header: Header | None = None, *, code: str = "truncated") -> None:
        super().__init__(verdict.reason, code=code, hint="send the file again from its source")
        self.verdict = verdict
        self.header = header
