"""The record of access, for whoever administrates: who has looked at which study, and when.

What is searched for is sent in the request's body: neither a name nor a study's UID is in an address of this page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.access.record import AccessRecord, Wanted
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp
from dicomwatchd.web.forms import fields
from dicomwatchd.web.pages import dates
from dicomwatchd.web.pages.rendering import Pages, of_role
from dicomwatchd.web.people import Role

PAGE_ENTRIES = 200
_FIELDS = ("person", "study", "from", "to")


class AccessPages:
    """``/access``: GET shows the newest, POST searches."""

    def __init__(self, pages: Pages, record: AccessRecord, today: Callable[[], date]) -> None:
        self._pages, self._record, self._today = pages, record, today

    async def access(self, request: Request) -> Response:
        of_role(request, Role.ADMINISTRATE)
        form = await fields(request) if request.method == "POST" else {}
        given = {name: form.get(name, "") for name in _FIELDS}
        wanted, problems = self._wanted(given, self._pages.words(request).language)
        before = form.get("before", "")[:18]
        if before and not (before.isascii() and before.isdecimal()):
            raise HTTPException(400)
        entries = []
        if not problems:
            entries = await run_in_threadpool(
                self._record.search,
                wanted,
                before_sequence=int(before) if before else None,
                limit=PAGE_ENTRIES + 1,
            )
        return self._pages.page(
            request,
            "access.html",
            400 if problems else 200,
            fields=given,
            problems=problems,
            entries=[(timestamp(one.at), one) for one in entries[:PAGE_ENTRIES]],
            has_more=len(entries) > PAGE_ENTRIES,
        )

    def _wanted(self, given: Mapping[str, str], language: str) -> tuple[Wanted, dict[str, str]]:
        """What is searched for; or, by field, the name of the sentence that says what is wrong with it."""
        problems: dict[str, str] = {}
        ends: dict[str, float | None] = {}
        for name, days in (("from", 0), ("to", 1)):
            try:
                ends[name] = _begin_of(dates.typed(given[name], language, self._today()), days)
            except (dates.NoDate, OverflowError):  # the day after the last one that there is
                problems[name] = "search.bad.date"
        study = None
        try:
            study = Uid(given["study"]) if given["study"] else None
        except InvalidUid:
            problems["study"] = "access.bad.uid"
        return Wanted(given["person"] or None, study, ends.get("from"), ends.get("to")), problems


def _begin_of(day: str, days_later: int) -> float | None:
    """Of a day "YYYYMMDD" by this machine's clock, in seconds since the epoch; None for ""."""
    return (datetime.strptime(day, "%Y%m%d") + timedelta(days_later)).astimezone().timestamp() if day else None
