"""What the parts of the web process expect of each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from dicomwatchd.model import Uid
from dicomwatchd.web.people import Person


class AccessAudit(Protocol):
    """The record of who has looked at which study. Safe to use from many threads."""

    def record(self, person: Person, action: str, study_uid: Uid) -> None:
        """To be called before anything of the study is handed out. ``action`` is a plain word ("metadata", "frames",
        "file", "rendered", "page", "download", "send"). Raises Transient or Fatal where it cannot be written: then
        nothing may be handed out."""
        ...

    def record_each(self, person: Person, action: str, study_uids: Iterable[Uid]) -> None:
        """The same of several studies at once, in this order: all of them are on record when it returns, or none is and
        it raises."""
        ...
