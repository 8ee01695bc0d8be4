"""Everything below /dicom-web/."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.web.dicomweb import matching, negotiation, sending
from dicomwatchd.web.dicomweb.ahead import ReadAhead
from dicomwatchd.web.dicomweb.asked import METHODS, Archive, guarded
from dicomwatchd.web.dicomweb.matching import Search
from dicomwatchd.web.dicomweb.qido import Answer, Searcher
from dicomwatchd.web.dicomweb.reading import ArchiveReader
from dicomwatchd.web.dicomweb.room import LIMITS, Limits, Room
from dicomwatchd.web.dicomweb.sending import Work
from dicomwatchd.web.dicomweb.wado import Retrieval, warning
from dicomwatchd.web.ports import AccessAudit

PREFIX = "/dicom-web"
_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"


def routes(
    series: SeriesReader,
    catalogue: Catalogue,
    audit: AccessAudit,
    *,
    reading: Executor,
    pictures: Executor,
    random: Callable[[int], bytes],
    failed: Callable[[DicomwatchdError], None],
    base_url: str,
    limits: Limits = LIMITS,
) -> list[BaseRoute]:
    """All routes of DICOMweb. A middleware before them sets ``request.state.person``.

    The threads of ``reading`` are how many requests read the archive at once, those of ``pictures`` how many frames are
    decoded at once, a few hundred MiB each at most. ``random`` gives so many random bytes (`secrets.token_bytes`).
    ``failed`` is told of errors that are no fault of a request, the archive's own. ``base_url`` is where clients find
    `PREFIX`: "https://archive.example.org". ``limits``: how much is held for answers, and how long.
    """
    work = Work(reading, limits.pace)
    base_url = base_url.rstrip("/") + PREFIX
    reader = ArchiveReader(series)
    room = Room(limits.most, lambda: shutil.disk_usage(series.contents.directory).free, limits.wait_seconds)
    archive = Archive(reader, audit, work, room)
    ahead = ReadAhead(series.read_ahead, reading)
    retrieval = Retrieval(archive, ahead, pictures, random, base_url)
    searches = _Searches(Searcher(catalogue, reader), archive, ahead, base_url)
    handlers: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        (_INSTANCE + "/frames/{frames}", retrieval.frames),  # first, for it is asked for a thousand times as often
        ("/studies", searches.studies),
        ("/series", searches.series),
        ("/instances", searches.instances),
        (f"{_STUDY}/series", searches.series),
        (f"{_STUDY}/instances", searches.instances),
        (f"{_SERIES}/instances", searches.instances),
        (_STUDY, retrieval.files),
        (_SERIES, retrieval.files),
        (_INSTANCE, retrieval.files),
        (f"{_STUDY}/metadata", retrieval.metadata),
        (f"{_STUDY}/left-out", retrieval.left_out),
        (f"{_SERIES}/metadata", retrieval.metadata),
        (f"{_INSTANCE}/metadata", retrieval.metadata),
        (f"{_STUDY}/thumbnail", retrieval.thumbnail),
        (f"{_SERIES}/thumbnail", retrieval.thumbnail),
        (f"{_INSTANCE}/thumbnail", retrieval.thumbnail),
        (f"{_INSTANCE}/rendered", retrieval.rendered),
        (_INSTANCE + "/frames/{frames}/rendered", retrieval.rendered),
        (_INSTANCE + "/frames/{frames}/thumbnail", retrieval.thumbnail),
        (_INSTANCE + "/bulkdata/{path:path}", retrieval.bulk),
    ]
    return [Route(PREFIX + path, guarded(handler, failed), methods=[*METHODS]) for path, handler in handlers]


class _Searches:
    def __init__(self, searcher: Searcher, archive: Archive, ahead: ReadAhead, base_url: str) -> None:
        self._searcher, self._archive, self._ahead, self._base_url = searcher, archive, ahead, base_url

    async def studies(self, request: Request) -> Response:
        return await self._answer(request, self._searcher.studies)

    async def series(self, request: Request) -> Response:
        study = _uid(request, "study")
        return await self._answer(request, partial(self._searcher.series, study), looks_into_studies=True)

    async def instances(self, request: Request) -> Response:
        study, series = _uid(request, "study"), _uid(request, "series")
        return await self._answer(request, partial(self._searcher.instances, study, series), looks_into_studies=True)

    async def _answer(
        self,
        request: Request,
        search: Callable[[Search, Callable[[], bool]], Answer],
        *,
        looks_into_studies: bool = False,
    ) -> Response:
        accepted = negotiation.accepted(request.headers.get("accept"), request.query_params.get("accept"))
        media_type = negotiation.choose_json(accepted)
        asked = matching.parse(request.query_params.multi_items())
        study = _uid(request, "study")
        if study is not None:
            self._ahead.begin(study)
        found = await self._archive.work.call_while_wanted(request, partial(search, asked))
        # A list of studies is no look at any of them; what is within one is, in whichever study it was found.
        looked_into = {study} if study is not None else set()
        if looks_into_studies:
            looked_into |= {_study_of(one) for one in found.results}
        if looked_into:
            await self._archive.record_each(request, "search", sorted(looked_into))
        headers = {"Cache-Control": "private, no-cache"}
        if found.warnings:
            headers["Warning"] = ", ".join(map(warning, found.warnings))
        if not found.results:
            return Response(status_code=204, headers={**sending.SECURE, **headers})
        items = [_with_retrieve_url(one, self._base_url) for one in found.results]
        return await sending.json_answer(self._archive.work, request, items, media_type, headers)


def _uid(request: Request, name: str) -> Uid | None:
    value: Any = request.path_params.get(name)
    return None if value is None else Uid(value)


def _study_of(attributes: DicomJson) -> Uid:
    """Of a result, which names its study at every level (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""
    match attributes[matching.STUDY_INSTANCE_UID].get("Value"):
        case [str(study), *_]:
            return Uid(study)
    raise TypeError("a result without its study")


def _with_retrieve_url(attributes: DicomJson, base: str) -> DicomJson:
    """Retrieve URL (0008,1190): of the study, series or instance (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""
    url = base
    for part, tag in (
        ("studies", matching.STUDY_INSTANCE_UID),
        ("series", matching.SERIES_INSTANCE_UID),
        ("instances", matching.SOP_INSTANCE_UID),
    ):
        values = attributes.get(tag, {}).get("Value")
        if not isinstance(values, list):
            break
        url += f"/{part}/{values[0]}"
    return {**attributes, "00081190": {"vr": "UR", "Value": [url]}}
