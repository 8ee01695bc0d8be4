"""What an alarm can be of, and what is found to be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dicomwatchd.telemetry.fields import OwnText, own_sentence


class Kind(StrEnum):
    """The code of an alarm: in journal, status, figures, and what the command of `on_alarm` is told."""

    INBOX_SILENT = "inbox-silent"
    OLDEST_FILE = "oldest-file"
    HOLD = "hold"
    RESTORE_DRILL = "restore-drill"
    CLOCK = "clock"
    CERTIFICATE = "certificate"
    CREDENTIALS = "credentials"


#: Where each is explained, with what to do about it.
_PAGES: Mapping[Kind, str] = {
    Kind.INBOX_SILENT: "an-inbox-is-silent",
    Kind.OLDEST_FILE: "files-wait-too-long",
    Kind.HOLD: "a-study-is-held-for-long",
    Kind.RESTORE_DRILL: "a-restore-drill-has-failed",
    Kind.CLOCK: "the-clock-is-wrong",
    Kind.CERTIFICATE: "a-certificate-ends",
    Kind.CREDENTIALS: "credentials-end",
}


def is_known(code: str) -> bool:
    """Another version, whose state this is, may have others."""
    return code in _PAGES


def read_on(code: str) -> str:
    """The section of the operations guide; of a code that only another version knows the one about all alarms."""
    return f"docs/operations.md#{_PAGES[Kind(code)] if is_known(code) else 'alarms'}"


@dataclass(frozen=True, slots=True)
class Found:
    """Something that is amiss now. ``subject`` says of what, by names of the configuration ("": there is only one): two
    with the same kind and subject are one alarm. ``template`` is a constant, filled with ``fields`` of the log's allow
    list and nothing else, so neither a patient's name nor a path can get in."""

    kind: Kind
    subject: str
    template: str
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> OwnText:
        return own_sentence(self.template, self.fields)


@dataclass(frozen=True, slots=True)
class Unsure:
    """Whether this is amiss cannot be told at the moment: an alarm that is open stays open, and none begins. None: of
    all of its kind."""

    kind: Kind
    subject: str | None = None
