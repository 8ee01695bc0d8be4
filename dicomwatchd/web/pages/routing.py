"""Which address of the page is answered by what, and what is said where something cannot be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dicomwatchd.errors import DicomwatchdError, StateFailed, StudyNotFound, Transient
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.pages.access import AccessPages
from dicomwatchd.web.pages.downloads import Downloads
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import NOT_KEPT, Pages, choose_language
from dicomwatchd.web.pages.search import Searches, SearchPages
from dicomwatchd.web.pages.sends import Sends
from dicomwatchd.web.pages.staging.book import Book
from dicomwatchd.web.pages.staging.custody import Custody, Rounds
from dicomwatchd.web.pages.staging.room import Room
from dicomwatchd.web.pages.studies import StudyPages
from dicomwatchd.web.pages.uploads import Refused, Uploads
from dicomwatchd.web.pages.words import load
from dicomwatchd.web.people import Person

_Endpoint = Callable[[Request], Awaitable[Response]]


@contextmanager
def opened(parts: PageParts) -> Iterator[list[BaseRoute]]:
    """The page's routes; uploads are handed to the daemon and followed for as long as this lasts. Requests have whoever
    asks in ``state.person``. Raises StateFailed."""
    try:
        if not parts.staging.is_dir():  # else whoever has made it has said who may be there
            parts.staging.mkdir(mode=0o770)
    except OSError as error:
        raise StateFailed("the folder for uploads cannot be made", code="staging", path=str(parts.staging)) from error
    with closing(Book(parts.staging / "uploads.db")) as book:
        room = Room(parts.staging)
        custody = Custody(book, room, parts.daemon, parts.limits, parts.log, parts.clock)
        rounds = Rounds(custody)
        pages = Pages(load(), parts.log_out)
        rounds.start()
        try:
            yield _routes(parts, pages, Uploads(parts, pages, book, room, custody, rounds))
        finally:
            rounds.stop()


def _routes(parts: PageParts, pages: Pages, uploads: Uploads) -> list[BaseRoute]:
    search, studies = SearchPages(parts, pages, Searches(parts.clock)), StudyPages(parts, pages)
    downloads, sends = Downloads(parts, pages), Sends(parts, pages)
    page, script = _Telling(parts, pages).page, _Telling(parts, pages).script
    access: list[BaseRoute] = []
    if parts.record is not None:
        searched = page(AccessPages(pages, parts.record, parts.today).access)
        access.append(Route("/access", searched, methods=["GET", "POST"]))
    return [
        *access,
        Route("/", page(search.form)),
        Route("/language", page(choose_language), methods=["POST"]),
        Route("/search", page(search.search), methods=["POST"]),
        Route("/found/{key}", page(search.found)),
        Route("/found/{key}/change", page(search.change)),
        Route("/found/{key}/{number:int}", page(search.found)),
        Route("/studies/{study}", page(studies.study)),
        Route("/studies/{study}/proof", page(studies.proof)),
        Route("/studies/{study}/download", page(downloads.download), methods=["POST"]),
        Route("/studies/{study}/send", page(sends.send), methods=["POST"]),
        Route("/sends/{key}", page(sends.show)),
        Route("/sends/{key}/state", script(sends.state)),
        Route("/upload", page(uploads.new)),
        Route("/uploads", page(uploads.overview), methods=["GET"]),
        Route("/uploads", script(uploads.begin), methods=["POST"]),
        Route("/uploads/{upload}", page(uploads.show)),
        Route("/uploads/{upload}/state", script(uploads.state)),
        Route("/uploads/{upload}/drop", page(uploads.drop), methods=["POST"]),
        Route("/uploads/{upload}/files", script(uploads.announce), methods=["POST"]),
        Route("/uploads/{upload}/files/{number:int}", script(uploads.piece), methods=["PUT"]),
        Route("/uploads/{upload}/finish", script(uploads.finish), methods=["POST"]),
        Mount("/page-static", StaticFiles(directory=str(resources.files(__package__).joinpath("static")))),
    ]


class _Telling:
    """What a person, or the script, is told where an answer cannot be had."""

    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages

    def page(self, endpoint: _Endpoint) -> _Endpoint:
        @wraps(endpoint)
        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except HTTPException as error:
                if error.status_code not in _SENTENCES or not isinstance(
                    getattr(request.state, "person", None), Person
                ):
                    raise
                return self._pages.problem(request, error.status_code, _SENTENCES[error.status_code])
            except StudyNotFound:
                return self._pages.problem(request, 404, "study.notfound")
            except Transient as error:
                self._say(error)
                return self._pages.problem(request, 503, "error.unavailable")
            except DicomwatchdError as error:
                self._say(error)
                return self._pages.problem(request, 500, "error.archive", why=error.message)

        return answer

    def script(self, endpoint: _Endpoint) -> _Endpoint:
        @wraps(endpoint)
        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Refused as error:
                return _json({"error": "refused", "message": error.detail}, error.status_code)
            except HTTPException as error:
                return _json({"error": "http"}, error.status_code)
            except DicomwatchdError as error:
                self._say(error)
                status = 503 if isinstance(error, Transient) else 500
                return _json({"error": "unavailable", "message": error.message}, status)

        return answer

    def _say(self, error: DicomwatchdError) -> None:
        self._parts.log.warning("web-refused", "a request could not be answered", **error_fields(error))


_SENTENCES = {403: "error.forbidden", 404: "error.notfound"}


def _json(value: dict[str, str], status: int) -> JSONResponse:
    return JSONResponse(value, status, headers=NOT_KEPT)
