"""Dates as people write them, in the order of their language, and as DICOM has them (DA: "YYYYMMDD")."""

from __future__ import annotations

import re
from datetime import date, datetime, tzinfo

_PARTS = re.compile(r"\s*([0-9]{1,4})\s*[./ -]\s*([0-9]{1,2})\s*[./ -]\s*([0-9]{2,4})?\s*\.?\s*\Z")
_DIGITS = re.compile(r"\s*([0-9]{8}|[0-9]{6})\s*\Z")


class NoDate(ValueError):
    """What was typed is no day."""


def typed(text: str, language: str, today: date) -> str:
    """What a person has typed as "YYYYMMDD"; "" of nothing. The day comes first, but in English between slashes, where
    the month does; a year of two digits is the last one that is not after this year, and no year is this one. Raises
    NoDate."""
    if not text.strip():
        return ""
    if digits := _DIGITS.match(text):
        whole = digits[1]
        if len(whole) == 8:
            if whole[:2] in ("19", "20") and _is_day(int(whole[:4]), int(whole[4:6]), int(whole[6:])):
                return whole
            first, second, year = int(whole[:2]), int(whole[2:4]), whole[4:]
        else:
            first, second, year = int(whole[:2]), int(whole[2:4]), whole[4:]
        return _day(first, second, year, language, today, is_american=False)
    found = _PARTS.match(text)
    if found is None:
        raise NoDate
    one, two, three = found.groups()
    if len(one) == 4:  # 2025-12-24
        if three is None or len(three) > 2:
            raise NoDate
        return _checked(int(one), int(two), int(three))
    if len(one) == 3:
        raise NoDate
    return _day(int(one), int(two), three, language, today, is_american=language == "en" and "/" in text)


def _day(first: int, second: int, year: str | None, language: str, today: date, *, is_american: bool) -> str:
    del language  # which only decides what a slash means
    day, month = (second, first) if is_american else (first, second)
    if is_american and month > 12:  # 24/12/2025 can only mean one day
        day, month = month, day
    if year is None:
        return _checked(today.year, month, day)
    if len(year) == 3:
        raise NoDate
    number = int(year)
    if len(year) == 2:
        number += today.year // 100 * 100
        number -= 100 if number > today.year else 0
    return _checked(number, month, day)


def _checked(year: int, month: int, day: int) -> str:
    if not _is_day(year, month, day) or year < 1800:
        raise NoDate
    return f"{year:04}{month:02}{day:02}"


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def shown(value: str, language: str) -> str:
    """ "20251224" as 24.12.2025 or 2025-12-24; anything else as it is."""
    if len(value) != 8 or not (value.isascii() and value.isdecimal()):
        return value
    if language == "de":
        return f"{value[6:]}.{value[4:6]}.{value[:4]}"
    return f"{value[:4]}-{value[4:6]}-{value[6:]}"


def moment(value: str | float | None, language: str, zone: tzinfo | None = None) -> str:
    """A time in UTC, ISO 8601 or seconds since the epoch, by this machine's clock: 24.12.2025, 14:05. "" of none."""
    if value is None or value == "":
        return ""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value).astimezone(zone)
        else:
            at = datetime.fromtimestamp(value).astimezone(zone)
    except (ValueError, OverflowError):
        return str(value)
    return f"{shown(at.strftime('%Y%m%d'), language)}, {at:%H:%M}"
