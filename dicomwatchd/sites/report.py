"""What a daemon says of itself to the others: figures and words of the program's own, as one small JSON document.

Holds no study, no patient and no path. It is read as a stranger's: whoever may write heartbeats may write anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dicomwatchd.config.sites import LONGEST_HEARTBEAT_SECONDS, SITE_NAME

#: An item that is no larger is written for the least there is to pay (1 KB), key and numbers included.
MOST_BYTES = 900
_MOST_CODES = 12
_MOST_NUMBER = 1 << 62

_NAME = re.compile(SITE_NAME)
_CODE = re.compile(r"[a-z0-9-]{1,32}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


@dataclass(frozen=True, slots=True)
class SiteReport:
    """Times are UTC, ISO 8601, with "Z". ``every_seconds`` is how often it is written; ``archived_studies`` counts a
    study once for each time that something of it was archived. ``twin`` is the name of the machine on which another
    daemon uses the same state, "" where none was noticed."""

    name: str
    host: str
    at: str
    every_seconds: int
    version: str
    started_at: str
    backlog_files: int
    backlog_bytes: int
    oldest_unarchived_seconds: int
    held: int
    parked: int
    quarantined: int
    archived_studies: int
    archived_files: int
    archived_bytes: int
    last_archived_at: str
    problems: int
    codes: tuple[str, ...]
    twin: str

    def to_text(self) -> str:
        """At most `MOST_BYTES`: codes are left out first."""
        codes = self.codes[:_MOST_CODES]
        while True:
            text = json.dumps({**asdict(self), "codes": codes}, separators=(",", ":"))
            if len(text) <= MOST_BYTES or not codes:
                return text
            codes = codes[:-1]


def plain_name(text: str) -> str:
    """A machine's name as a site may be called."""
    found = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("-_.")[:63]
    return found or "unnamed"


def read(text: str) -> SiteReport | None:
    """None for what no version of this program has written. What is missing, as from another version, is empty."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    found = {field.name: _value(field.name, raw.get(field.name)) for field in fields(SiteReport)}
    if not found["name"] or not found["at"]:
        return None
    return SiteReport(**found)


def _value(name: str, value: Any) -> Any:
    match name:
        case "codes":
            given = value if isinstance(value, list) else []
            return tuple(one for one in given[:_MOST_CODES] if isinstance(one, str) and _CODE.fullmatch(one))
        case "name" | "host" | "twin":
            return _text(_NAME, value)
        case "version":
            return _text(_VERSION, value)
        case "at" | "started_at" | "last_archived_at":
            return _text(_TIME, value)
        case _:
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_NUMBER
            most = LONGEST_HEARTBEAT_SECONDS if name == "every_seconds" else _MOST_NUMBER
            return min(int(value), most) if is_number else 0


def _text(pattern: re.Pattern[str], value: Any) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def codes_of(status: Mapping[str, Any]) -> tuple[str, ...]:
    """What is amiss, in words that tell nothing of whom it concerns, by the very document that `status` prints."""
    drill = status["restore_drill"]
    verified = (status["archive_verification"] or {}).get("last_complete") or {}
    amiss = {
        "archive-fails": status["backoff"],
        "parked": status["studies"].get("parked"),
        "held": status["studies_held"],
        "quarantine": status["files"].get("quarantined"),
        "inbox": any(one["state"] not in ("open", "starting") or one["unreadable"] for one in status["inboxes"]),
        "receiver": any(
            receiver["listening"] is False for one in status["inboxes"] for receiver in one.get("receivers", ())
        ),
        "disk": any(one["almost_full"] for one in status["disks"]),
        "record-of-deletions": status["audit"]["problems"],
        "store-overwrites": status["capabilities"].get("creates_only") is False,
        "restore-drill": drill["failed"],
        "archive-damaged": verified.get("with_problems"),
    }
    return tuple(code for code, value in amiss.items() if value)
