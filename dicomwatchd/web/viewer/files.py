"""The viewer's files over HTTP: those of the listing and no others, as they lie there compressed, and its pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from dicomwatchd.model import Uid
from dicomwatchd.web.needs import needs
from dicomwatchd.web.people import Role
from dicomwatchd.web.viewer import policy
from dicomwatchd.web.viewer.installed import InstalledFile, installed

PAGES: Final = "/viewer"
"""Where studies are opened: /viewer?StudyInstanceUIDs=UID, and what the viewer makes of it (`/viewer/dicomweb`)."""
#: One after the other in the one script of ours that the package's page asks for.
_SETTINGS: Final = tuple(Path(__file__).with_name(name) for name in ("left-out.js", "app-config.js"))
#: The build puts a hash of their content into these names.
_HASHED: Final = re.compile(r"(?:.*\.)?[0-9a-f]{16}\.[a-z0-9]+")
_FOREVER: Final = "private, max-age=31536000, immutable"
_ASK: Final = "no-cache"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webapp": "application/manifest+json",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}


def address(study_uid: Uid) -> str:
    """Where a study is opened, as a path of this origin."""
    return f"{PAGES}?StudyInstanceUIDs={study_uid}"


def routes(folder: Path, language_of: Callable[[Request], str]) -> list[BaseRoute]:
    """For an application at the root of its origin, as the viewer's build wants it. `/` is not among them: that is
    the page's. Who asks is in the request's state (`needs`); ``language_of`` says what he reads ("en", "de"). Raises
    Misconfigured where scripts/viewer has not made ``folder``."""
    files = {f"/{file.name}": _served(folder, file) for file in installed(folder)}
    page = files.pop("/index.html")
    settings = "\n".join(path.read_text("utf-8") for path in _SETTINGS)

    async def viewer_settings(request: Request) -> Response:
        headers = {
            "Cache-Control": _ASK,
            "Content-Security-Policy": policy.of_script(),
            "Vary": "Accept-Language, Cookie",
            **_EVERYWHERE,
        }
        language = json.dumps(language_of(request))
        return Response(
            f"window.dicomwatchdLanguage = {language};\n{settings}", headers=headers, media_type=_TYPES[".js"]
        )

    @needs(Role.READ)
    async def viewer(request: Request) -> Response:
        if request.url.path == PAGES and not request.url.query:
            return RedirectResponse("/", 303)  # without a study it would stay black
        return page.answer(request.headers)

    return [
        Route("/app-config.js", viewer_settings),
        Route(PAGES, viewer),
        Route(f"{PAGES}/{{rest:path}}", viewer),
        _Files(files),
    ]


_EVERYWHERE: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True, slots=True)
class _Served:
    path: Path
    etag: str
    compressed: bool
    media_type: str
    headers: Mapping[str, str]

    def answer(self, asked: Headers) -> Response:
        compressed = self.compressed and _takes_gzip(asked.get("accept-encoding", ""))
        headers = dict(self.headers)
        headers["ETag"] = f'"{self.etag}{"-gz" if compressed else ""}"'
        if self.compressed:
            headers["Vary"] = "Accept-Encoding"
        if headers["ETag"] in (one.strip() for one in asked.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        if compressed:
            headers["Content-Encoding"] = "gzip"
            return FileResponse(
                self.path.with_name(self.path.name + ".gz"), headers=headers, media_type=self.media_type
            )
        return FileResponse(self.path, headers=headers, media_type=self.media_type)


class _Files(BaseRoute):
    """One look into a table in place of a pattern for each file: DICOMweb's routes may stand behind it."""

    def __init__(self, files: Mapping[str, _Served]) -> None:
        self._files = files

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in self._files:
            return Match.FULL, {"endpoint": viewer_file}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await viewer_file(self._files[scope["path"]], scope, receive, send)


async def viewer_file(file: _Served, scope: Scope, receive: Receive, send: Send) -> None:
    """What the log calls it by."""
    await file.answer(Headers(scope=scope))(scope, receive, send)


def _served(folder: Path, file: InstalledFile) -> _Served:
    name = PurePosixPath(file.name)
    for_ever = _HASHED.fullmatch(name.name) and not file.corrected
    headers = {"Cache-Control": _FOREVER if for_ever else _ASK, **_EVERYWHERE}
    if name.suffix == ".html":
        headers["Content-Security-Policy"] = policy.of_page((folder / file.name).read_bytes())
    elif name.suffix == ".js":
        headers["Content-Security-Policy"] = policy.of_script()
    media_type = _TYPES.get(name.suffix, "application/octet-stream")
    return _Served(folder / file.name, file.sha256[:32], file.compressed, media_type, headers)


def _takes_gzip(accepted: str) -> bool:
    """Whether Accept-Encoding names gzip (RFC 9110, 12.5.3), with a weight that is not 0."""
    for one in accepted.split(","):
        coding, _, weight = one.partition(";")
        if coding.strip().lower() in ("gzip", "x-gzip", "*"):
            return re.fullmatch(r"\s*q\s*=\s*0(?:\.0{0,3})?\s*", weight) is None
    return False
