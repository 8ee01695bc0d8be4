"""What studies are looked for by on the command line: kinds of values, and the place that a list goes on from."""

from __future__ import annotations

import re
from datetime import date as Date
from typing import Any

import click

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid


class DateRangeType(click.ParamType):  # type: ignore[type-arg]
    """FROM..TO, either end open, or one day; YYYYMMDD or YYYY-MM-DD. Also as DICOM writes it, FROM-TO with YYYYMMDD
    (PS3.4 C.2.2.2.5). Gives ("YYYYMMDD" or "", the same)."""

    name = "dates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        if re.fullmatch(r"[0-9]{8}-[0-9]{8}|[0-9]{8}-|-[0-9]{8}", text):
            text = text.replace("-", "..")
        first, dots, last = text.partition("..")
        begin = day(self, first, param, ctx)
        end = day(self, last, param, ctx) if dots else begin
        if not begin and not end:
            self.fail("give at least one end of FROM..TO", param, ctx)
        if begin and end and begin > end:
            self.fail("FROM is after TO", param, ctx)
        return begin, end


class DayType(click.ParamType):  # type: ignore[type-arg]
    """One day, as "YYYYMMDD"."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = day(self, str(value), param, ctx)
        if not found:
            self.fail("a date is YYYYMMDD or YYYY-MM-DD", param, ctx)
        return found


class MomentType(click.ParamType):  # type: ignore[type-arg]
    """A day, or a time of one, UTC. Gives the beginning of an ISO 8601 time, for comparison with such."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        date, _, time = str(value).strip().partition("T")
        found = day(self, date, param, ctx)
        if not found or (time and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?Z?", time) is None):
            self.fail("a time is YYYY-MM-DD or YYYY-MM-DDTHH:MM, UTC", param, ctx)
        return f"{found[:4]}-{found[4:6]}-{found[6:]}" + (f"T{time.removesuffix('Z')}" if time else "")


class PlaceType(click.ParamType):  # type: ignore[type-arg]
    """Where a list ended, as it was said there."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        date, _, uid = str(value).partition("#")
        try:
            Uid(uid)
        except DicomwatchdError:
            date = ""
        if re.fullmatch(r"[0-9]{8}|-", date) is None:
            self.fail("not a PLACE that an earlier list printed", param, ctx)
        return str(value)


def day(
    kind: click.ParamType,  # type: ignore[type-arg]
    text: str,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> str:
    match = re.fullmatch(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})", text.strip())
    if text.strip() and match is None:
        kind.fail("a date is YYYYMMDD or YYYY-MM-DD", param, ctx)
    if match is None:
        return ""
    year, _, month, of_month = match.groups()
    try:
        Date(int(year), int(month), int(of_month))
    except ValueError:
        kind.fail(f"there is no such day as {year}-{month}-{of_month}", param, ctx)
    return year + month + of_month
