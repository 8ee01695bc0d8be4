"""Durations of several sections: a whole number and a unit."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

_DURATION = re.compile(r"([0-9]{1,6})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _zero(value: object) -> object:
    return "0s" if value == 0 and not isinstance(value, bool) else value


def _is_duration(value: str) -> str:
    if not _DURATION.match(value):
        raise ValueError("must be a whole number and a unit (s, m, h, d), such as 5m or 1h, or 0")
    return value


Duration = Annotated[str, AfterValidator(_is_duration), BeforeValidator(_zero)]


def seconds(duration: str) -> int:
    match = _DURATION.match(duration)
    assert match is not None  # noqa: S101  the validator has seen to it
    return int(match[1]) * _SECONDS[match[2]]
