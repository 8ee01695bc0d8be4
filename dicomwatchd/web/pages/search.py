"""Searching: what was typed becomes a query, which stays here under a random word, for names do not belong in an
address."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomwatchd.archive.documents import patient_ids
from dicomwatchd.archive.records import Query, StudyRecord, place
from dicomwatchd.ports import Clock
from dicomwatchd.study_completeness import NOTHING_KNOWN
from dicomwatchd.web.pages import dates
from dicomwatchd.web.pages.attributes import name_of, texts
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import Pages, of_role
from dicomwatchd.web.people import Person, Role

PAGE_STUDIES = 50
_FIELDS = ("name", "id", "born", "accession", "from", "to", "modality", "description", "incomplete")
_LONGEST = 200
_KEPT_SEARCHES, _KEPT_SECONDS = 2000, 3600.0
_MOST_PAGES = 200


@dataclass(slots=True)
class Search:
    """One person's. ``places``: where each page begins (`records.place`), None for the first."""

    owner: str
    fields: dict[str, str]
    query: Query
    begun: float
    places: list[str | None] = field(default_factory=lambda: [None])


class Searches:
    """The last ones, by random words. Safe to be used from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._kept: OrderedDict[str, Search] = OrderedDict()

    def keep(self, search: Search) -> str:
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = search
            while len(self._kept) > _KEPT_SEARCHES:
                self._kept.popitem(last=False)
        return key

    def of(self, key: str, person: Person) -> Search | None:
        with self._lock:
            found = self._kept.get(key)
        if found is None or found.owner != person.name or self._clock.monotonic() - found.begun > _KEPT_SECONDS:
            return None
        return found


def query_of(given: Mapping[str, str], language: str, today: date) -> tuple[Query | None, dict[str, str]]:
    """What was typed, as a query; or, by field, the name of the sentence that says what is wrong with it."""
    problems = {name: "search.bad.long" for name in _FIELDS if len(given.get(name, "")) > _LONGEST}
    days = {}
    for name in ("born", "from", "to"):
        try:
            days[name] = dates.typed(given.get(name, ""), language, today)
        except dates.NoDate:
            problems.setdefault(name, "search.bad.date")
    if not problems and days["from"] and days["to"] and days["from"] > days["to"]:
        problems["from"] = "search.bad.order"
    if problems:
        return None, problems

    def text(name: str) -> str | None:
        return given.get(name, "").strip() or None

    modality = text("modality")
    return Query(
        patient_id=text("id"),
        name=_beginning(text("name")),
        birth_date=days["born"] or None,
        accession_number=text("accession"),
        date_from=days["from"],
        date_to=days["to"],
        modality=modality and modality.upper(),
        description=text("description"),
        is_incomplete=bool(given.get("incomplete")),
    ), {}


def _beginning(name: str | None) -> str | None:
    """A name, or the beginning of one, with wildcards or without: whatever it goes on with is found."""
    return name if name is None else name.rstrip("*") + "*"


@dataclass(frozen=True, slots=True)
class Line:
    """A study of the answer, as it is shown."""

    record: StudyRecord
    name: str
    born: str
    description: str
    others: int
    answer: str


def _line(record: StudyRecord) -> Line:
    ids = [one for one in patient_ids(record) if one and one != record.patient_id]
    answer = (record.completeness or NOTHING_KNOWN).answer
    return Line(
        record,
        name_of(record.attributes),
        texts(record.attributes, "00100030"),
        texts(record.attributes, "00081030"),
        len(ids),
        answer.name.lower() if answer.name != "NO_SIGN" else "no_sign",
    )


class SearchPages:
    def __init__(self, parts: PageParts, pages: Pages, searches: Searches) -> None:
        self._parts, self._pages, self._searches = parts, pages, searches

    async def form(self, request: Request) -> Response:
        person = getattr(request.state, "person", None)
        if isinstance(person, Person) and not person.may(Role.READ):
            for role, place_of_theirs in ((Role.UPLOAD, "/uploads"), (Role.ADMINISTRATE, "/access")):
                if person.may(role):
                    return RedirectResponse(place_of_theirs, 303)
        of_role(request, Role.READ)
        return self._form(request, {}, {})

    def _form(self, request: Request, fields: Mapping[str, str], problems: Mapping[str, str]) -> Response:
        return self._pages.page(
            request, "search.html", 422 if problems else 200, fields=dict(fields), problems=dict(problems)
        )

    async def search(self, request: Request) -> Response:
        person = of_role(request, Role.READ)
        form = await request.form(max_files=0, max_fields=20)
        fields = {name: str(form.get(name, "")) for name in _FIELDS}
        query, problems = query_of(fields, self._pages.words(request).language, self._parts.today())
        if query is None:
            return self._form(request, fields, problems)
        key = self._searches.keep(Search(person.name, fields, query, self._parts.clock.monotonic()))
        return RedirectResponse(f"/found/{key}", 303)

    async def change(self, request: Request) -> Response:
        """The form again, as it was filled in."""
        found = self._searches.of(request.path_params["key"], of_role(request, Role.READ))
        return self._form(request, {} if found is None else found.fields, {})

    async def found(self, request: Request) -> Response:
        key, number = request.path_params["key"], int(request.path_params.get("number", 1))
        search = self._searches.of(key, of_role(request, Role.READ))
        if search is None or not 1 <= number <= len(search.places):
            return self._pages.problem(request, 404, "found.gone")
        records, remarks = await run_in_threadpool(self._page, search, number)
        if len(records) > PAGE_STUDIES and number == len(search.places) < _MOST_PAGES:
            search.places.append(place(records[PAGE_STUDIES - 1]))
        first = (number - 1) * PAGE_STUDIES + 1
        shown = records[:PAGE_STUDIES]
        return self._pages.page(
            request,
            "found.html",
            lines=[_line(record) for record in shown],
            key=key,
            number=number,
            first=first,
            last=first + len(shown) - 1,
            has_more=len(records) > PAGE_STUDIES and number < len(search.places),
            remarks=remarks,
        )

    def _page(self, search: Search, number: int) -> tuple[list[StudyRecord], tuple[str, ...]]:
        """One more than is shown tells that there is more."""
        catalogue = self._parts.catalogue
        query = replace(search.query, before=search.places[number - 1])
        remarks = catalogue.shortcomings(query) if number == 1 else ()
        return list(islice(catalogue.search(query), PAGE_STUDIES + 1)), remarks
