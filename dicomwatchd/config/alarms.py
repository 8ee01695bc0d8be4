"""What the configuration says of alarms: when something is one, and which command is run then."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dicomwatchd.config.basics import Model, Number, Switch, WholeNumber

_MOST_HOURS = 10_000


class Alarms(Model):
    """From when on something is told as an alarm; 0: never."""

    silent_inbox: Switch = Field(
        default=True, description="Whether an inbox is told of that is silent far beyond its own rhythm"
    )
    oldest_file_hours: Number = Field(
        default=24, ge=0, le=_MOST_HOURS, description="A study has had files that are not archived for this long"
    )
    hold_hours: Number = Field(default=72, ge=0, le=_MOST_HOURS, description="A study has been held for this long")
    restore_drill: Switch = Field(default=True, description="Whether a restore drill that has failed is told of")
    clock_seconds: Number = Field(
        default=60, ge=0, le=86400, description="The clock differs this much from that of the archive's service"
    )
    certificate_days: WholeNumber = Field(default=21, ge=0, le=3650, description="A certificate ends within this time")
    credentials_hours: Number = Field(
        default=1, ge=0, le=_MOST_HOURS, description="The archive's credentials end within this time"
    )


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", one) for one in value):
        raise ValueError("must not hold control characters")
    if not value[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program: it is run without a shell and without PATH")
    return value


OnAlarm = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_command)]


def cross_checks(data: dict[Any, Any], path: Path) -> Iterator[tuple[str, str]]:
    """(place in the file, what is wrong) of a configuration that was read from ``path``. What `on_alarm` says is run as
    the daemon's user, so nobody may write it who may not become that user anyway."""
    if data.get("on_alarm") is None:
        return
    try:
        found = path.stat()
    except OSError:
        return  # who cannot look at it has not read it
    if (why := others_may_write(found, os.geteuid())) is not None:
        yield (
            "on_alarm",
            f"is refused, because this file {why}: whoever may write to it could run programs as the daemon",
        )


def others_may_write(found: os.stat_result, uid: int) -> str | None:
    """In words, why somebody beside root and user ``uid`` may exchange what was ``found``; None where nobody may. In a
    sticky folder nobody exchanges what is another's."""
    if found.st_uid not in (0, uid):
        return "belongs to another user"
    is_sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & 0o022 and not is_sticky:
        return "can be written to by its group or by others"
    return None
