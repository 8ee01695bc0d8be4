"""The application: the rooms' routes, and around them what every request passes, outermost first: the answer's headers
and the log (`answers`), whether the request is sound (`requests`), who asks (`login.admission`), the room."""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.access.record import AccessRecord
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web import dicomweb, pages, viewer
from dicomwatchd.web.answers import Answers
from dicomwatchd.web.languages import language_of
from dicomwatchd.web.login import pages as login_pages
from dicomwatchd.web.login.admission import Admission, Doors
from dicomwatchd.web.parts import Parts
from dicomwatchd.web.requests import Sound, hosts_of


def assemble(parts: Parts, doors: Doors, record: AccessRecord, stack: ExitStack) -> ASGIApp:
    """What uvicorn serves, until ``stack`` is closed. Raises Misconfigured, StateFailed."""
    web, viewing = parts.web, _viewer(parts)
    routes: list[BaseRoute] = [
        Route("/health", _health, methods=["GET"]),
        *login_pages.routes(web, doors),
        *_dicomweb(parts),
        *_pages(parts, record, stack, has_viewer=bool(viewing)),
        *viewing,
    ]
    app: ASGIApp = Router(routes, redirect_slashes=False, default=_nothing)
    app = Admission(app, doors)
    app = Sound(app, hosts_of(web.origin, web.listen))
    return Answers(app, parts.log, parts.clock, secure=web.origin.startswith("https:"))


def _dicomweb(parts: Parts) -> list[BaseRoute]:
    def failed(error: DicomwatchdError) -> None:
        parts.log.warning("web-refused", "a request could not be answered", **error_fields(error))

    return dicomweb.routes(
        parts.series,
        parts.catalogue,
        parts.audit,
        reading=parts.threads,
        pictures=parts.pictures,
        random=secrets.token_bytes,
        failed=failed,
        base_url=parts.web.origin,
    )


def _pages(parts: Parts, record: AccessRecord, stack: ExitStack, *, has_viewer: bool) -> list[BaseRoute]:
    return stack.enter_context(pages.opened(pages.parts_of(parts, record, has_viewer=has_viewer)))


def _viewer(parts: Parts) -> list[BaseRoute]:
    folder = viewer.folder_of(parts.web.viewer)
    return [] if folder is None else viewer.routes(folder, language_of)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise HTTPException(404)


async def _health(_request: Request) -> Response:
    """For whoever watches over the service: it answers, and says nothing."""
    return PlainTextResponse("ok\n")
