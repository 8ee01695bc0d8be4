"""What the parts of the web process expect of each other."""

from __future__ import annotations

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
