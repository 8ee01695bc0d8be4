"""What stands in the configuration under ``site`` and ``sites``: what this daemon is called among those of its archive,
and when another one counts as silent."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from dicomwatchd.config.basics import Model
from dicomwatchd.config.durations import Duration, seconds

#: As an inbox's: it is in logs, figures and the catalogue.
SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
#: So many heartbeats may fail to come before a site counts as silent: one that is late is no alarm.
LEAST_HEARTBEATS = 3
LONGEST_HEARTBEAT_SECONDS = 86400


def _is_name(value: str) -> str:
    if not re.fullmatch(SITE_NAME, value):
        raise ValueError("must be a short name of letters, digits, '_', '.' and '-', starting with a letter or digit")
    return value


class Site(Model):
    """What this daemon is called. Must not hold patient data."""

    name: Annotated[str, AfterValidator(_is_name)] | None = Field(
        default=None, description="Short name for the other sites and for figures; default: the name of the machine"
    )


class Sites(Model):
    """The daemons of one archive tell each other, in the catalogue, that they are alive, and how they are."""

    heartbeat: Duration = Field(default="5m", description="How often this daemon writes its own item; 0: never")
    silent_after: Duration = Field(
        default="1h", description="Another site of which nothing came for this long is a problem here; 0: never"
    )

    @model_validator(mode="after")
    def _waits_for_some(self) -> Sites:
        if self.heartbeat_seconds > LONGEST_HEARTBEAT_SECONDS:
            raise ValueError("must have a heartbeat of at most 1d")
        if self.silent_after_seconds and self.silent_after_seconds < LEAST_HEARTBEATS * self.heartbeat_seconds:
            raise ValueError(f"must have a silent_after of at least {LEAST_HEARTBEATS} times heartbeat, or 0")
        return self

    @property
    def heartbeat_seconds(self) -> int:
        return seconds(self.heartbeat)

    @property
    def silent_after_seconds(self) -> int:
        return seconds(self.silent_after)
