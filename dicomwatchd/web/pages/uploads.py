"""Uploads through the page: what a browser announces, sends piece by piece, and is told.

Names of files are in bodies, and never in an address; a file is asked for by the number that it got. Whose an upload is
is looked at in every request: of another person's there is nothing to see, not even that it is there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from datetime import datetime
from typing import Any, NoReturn, TypeGuard

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dicomwatchd.upload_text import all_verified, as_of_now, sentences
from dicomwatchd.web.needs import accept_body
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import NOT_KEPT, Pages, of_role
from dicomwatchd.web.pages.staging.book import Announced, Book, FileRow, FileState, NotOpen, Stage, Sums, UploadRow
from dicomwatchd.web.pages.staging.custody import Custody, Rounds
from dicomwatchd.web.pages.staging.room import AnotherOffset, NoRoom, NotAsAnnounced, Room
from dicomwatchd.web.people import Role

LISTED = 100
_UPLOAD_ID = re.compile(r"[0-9a-f]{20}")
_SHA256 = re.compile(r"(?:pieces-)?[0-9a-f]{64}")
_LATEST_MS = 1 << 53
#: Of one list of files.
_LIST_BYTES = 2 << 20


class Uploads:
    def __init__(
        self, parts: PageParts, pages: Pages, book: Book, room: Room, custody: Custody, rounds: Rounds
    ) -> None:
        self._parts, self._pages = parts, pages
        self._book, self._room, self._custody, self._rounds = book, room, custody, rounds

    # -- pages --------------------------------------------------------------------------------------------------------

    async def new(self, request: Request) -> Response:
        of_role(request, Role.UPLOAD)
        return self._pages.page(request, "upload.html", row=None, limits=self._parts.limits, js=self._js(request))

    async def overview(self, request: Request) -> Response:
        person = of_role(request, Role.UPLOAD)

        def lines() -> list[dict[str, Any]]:
            rows = self._book.uploads_of(person.name, LISTED)
            return [{"row": row, "sums": self._sums(row), "verdict": _verdict(row)} for row in rows]

        return self._pages.page(request, "uploads.html", lines=await run_in_threadpool(lines))

    async def show(self, request: Request) -> Response:
        row = await self._own(request)
        state = await run_in_threadpool(self._custody.state, row)
        sums = await run_in_threadpool(self._sums, state.row)
        limits, row = self._parts.limits, state.row
        if row.stage is Stage.OPEN:
            return self._pages.page(
                request,
                "upload.html",
                row=row,
                sums=sums,
                expires_at=row.touched_at + limits.open_seconds,
                limits=limits,
                js=self._js(request),
            )
        ended = as_of_now(row.result) if row.stage is Stage.ENDED and row.result is not None else None
        said = None if ended is None else sentences(ended, delete=True)
        return self._pages.page(
            request,
            "upload_state.html",
            row=row,
            state=state,
            sums=sums,
            sentences=said,
            result=ended,
            verdict=_verdict(row),
            ended_at=_ended_at(row),
            expires_at=row.touched_at + limits.ended_seconds,
        )

    async def drop(self, request: Request) -> Response:
        row = await self._own(request)
        await run_in_threadpool(self._custody.drop, row)
        self._rounds.wake()
        return RedirectResponse("/uploads", 303)

    # -- what the script asks -----------------------------------------------------------------------------------------

    async def state(self, request: Request) -> Response:
        state = await run_in_threadpool(self._custody.state, await self._own(request))
        t, said, row = self._pages.words(request), state.said or {}, state.row
        done, total = int(said.get("files_done") or 0), int(said.get("files_total") or 0)
        text = t("upload.working", done=t.number(done), total=t.number(total), verified=t.number(_of(said, "verified")))
        if row.stage is Stage.WHOLE:
            sums = await run_in_threadpool(self._sums, row)
            text = t("upload.whole", files=t.number(sums.files), size=t.size(sums.size_bytes))
        if state.trouble:
            text = t("upload.trouble", why=state.trouble)
        ended = row.stage in (Stage.ENDED, Stage.DROPPED)
        return _json({"ended": ended, "stage": str(row.stage), "done": done, "total": total, "text": text})

    async def begin(self, request: Request) -> Response:
        person = of_role(request, Role.UPLOAD)

        def make() -> str:
            mine = [row for row in self._book.in_stages(Stage.OPEN) if row.owner == person.name]
            if len(mine) >= self._parts.limits.open_of_one:
                self._refuse(request, 409, "refused.open", number=len(mine))
            upload_id = secrets.token_hex(10)
            self._room.make(upload_id)
            self._book.begin(upload_id, person.name, self._parts.clock.now())
            return upload_id

        upload_id = await run_in_threadpool(make)
        self._parts.log.info("web-upload-begun", "an upload through the page was begun")
        return _json({"upload": upload_id, "page": f"/uploads/{upload_id}"}, 201)

    async def announce(self, request: Request) -> Response:
        """Files that are to come: where each stands, in their order."""
        row = await self._own(request)
        announced = self._announced(request, await _body(request, _LIST_BYTES))

        def add() -> list[dict[str, Any]]:
            self._require_open(request, row)
            self._require_room(request, row, announced)
            try:
                files = self._book.announce(row.upload_id, announced, self._parts.clock.now())
            except NotOpen:
                self._refuse(request, 410, "refused.closed")
            return [self._described(row, one) for one in files]

        return _json({"files": await run_in_threadpool(add)})

    async def piece(self, request: Request) -> Response:
        """A piece of a file, from ``offset`` on (query). Content-Digest (RFC 9530), where it is sent, is compared
        before anything is written. The answer says how far the file is, and whether it is all there and flushed."""
        row = await self._own(request)
        number = request.path_params["number"]
        file = await run_in_threadpool(self._book.file, row.upload_id, number)
        if file is None or file.state is FileState.LEFT:
            raise HTTPException(404)
        try:
            offset = int(request.query_params.get("offset", ""))
        except ValueError:
            raise HTTPException(400) from None
        body = await _body(request, self._parts.limits.piece_bytes)
        if offset < 0 or offset + len(body) > file.size_bytes:
            raise HTTPException(400)
        if not _is_what_it_says(request.headers.get("content-digest", ""), body):
            return _json({"error": "digest"}, 422)

        def put() -> Response:
            self._require_open(request, row)
            if file.state is not FileState.COMING:
                return _json({"there": True, "offset": file.size_bytes})
            if self._room.free_bytes() < self._parts.limits.free_bytes:
                return _json({"error": "full"}, 507)
            at = self._room.append(row.upload_id, number, offset, body)
            if at == file.size_bytes:
                self._room.finish(row.upload_id, number, file.place, file.size_bytes, file.sha256)
                self._book.is_there(row.upload_id, number, self._parts.clock.now())
            return _json({"there": at == file.size_bytes, "offset": at})

        try:
            return await run_in_threadpool(put)
        except AnotherOffset as error:
            return _json({"error": "offset", "offset": error.offset}, 409)
        except NotAsAnnounced:
            return _json({"error": "again", "offset": 0}, 409)
        except NoRoom:
            return _json({"error": "full"}, 507)

    async def finish(self, request: Request) -> Response:
        """Everything was announced and sent: ``files`` is how many the browser has chosen, and the upload has."""
        row = await self._own(request)
        said = _parsed(await _body(request, 1024))
        if not isinstance(said, dict) or not isinstance(said.get("files"), int):
            raise HTTPException(400)

        def close() -> None:
            try:
                amiss = self._book.close_if_whole(row.upload_id, max(said["files"], 1), self._parts.clock.now())
            except NotOpen:
                self._require_open(request, row)
                return
            if amiss is not None and amiss.lacking:
                self._refuse(request, 409, "refused.missing", number=amiss.lacking)
            if amiss is not None:
                self._refuse(request, 409, "refused.others", number=amiss.others)

        now = await run_in_threadpool(self._book.upload, row.upload_id)
        if now is not None and now.stage in (Stage.OPEN, Stage.DROPPED):
            await run_in_threadpool(close)
            self._rounds.wake()
        return _json({"page": f"/uploads/{row.upload_id}"})

    # -- details ------------------------------------------------------------------------------------------------------

    async def _own(self, request: Request) -> UploadRow:
        """Raises HTTPException where there is none of this person's."""
        person, upload_id = of_role(request, Role.UPLOAD), request.path_params["upload"]
        if _UPLOAD_ID.fullmatch(upload_id):
            row = await run_in_threadpool(self._book.upload, upload_id)
            if row is not None and row.owner == person.name:
                return row
        raise HTTPException(404)

    def _sums(self, row: UploadRow) -> Sums:
        if row.removed_at is not None and row.result is not None:
            files = int(row.result.get("files") or 0)
            return Sums(files, int(row.result.get("bytes_total") or 0), files, 0)
        return self._book.sums(row.upload_id)

    def _announced(self, request: Request, body: bytes) -> list[Announced]:
        said, limits = _parsed(body), self._parts.limits
        given = said.get("files") if isinstance(said, dict) else None
        if not isinstance(given, list) or not 0 < len(given) <= limits.listed_at_once:
            raise HTTPException(400)
        found = []
        for one in given:
            if not isinstance(one, dict):
                raise HTTPException(400)
            path, size, sha256, modified = (one.get(name) for name in ("path", "size", "sha256", "modified"))
            if not (
                isinstance(path, str)
                and 0 < len(path) <= limits.path_characters
                and _is_text(path)
                and isinstance(sha256, str)
                and (not sha256 or _SHA256.fullmatch(sha256))
                and _is_number(modified)
                and _is_number(size)
            ):
                raise HTTPException(400)
            if size > limits.file_bytes:
                self._refuse(request, 413, "refused.size")
            found.append(Announced(path, size, sha256, modified))
        return found

    def _require_open(self, request: Request, row: UploadRow) -> None:
        now = self._book.upload(row.upload_id)
        if now is None or now.stage is not Stage.OPEN:
            self._refuse(request, 410, "refused.closed")

    def _require_room(self, request: Request, row: UploadRow, files: list[Announced]) -> None:
        """Before anything of it is sent. What is announced twice counts twice."""
        limits, size = self._parts.limits, sum(one.size_bytes for one in files)
        if self._book.sums(row.upload_id).files + len(files) > limits.files + limits.listed_at_once:
            self._refuse(request, 413, "refused.files", number=limits.files)
        promised = self._book.promised_bytes()
        if promised + size > limits.bytes_in_all:
            self._refuse(request, 507, "refused.quota")

    def _described(self, row: UploadRow, file: FileRow) -> dict[str, Any]:
        if file.state is FileState.COMING:
            return {"number": file.number, "there": False, "offset": self._room.size(row.upload_id, file.number)}
        return {"number": file.number, "there": True, "offset": file.size_bytes}

    def _refuse(self, request: Request, status: int, name: str, **values: int) -> NoReturn:
        """Raises HTTPException with a sentence for whoever reads."""
        t = self._pages.words(request)
        raise Refused(status, t(name, **{key: t.number(value) for key, value in values.items()}))

    def _js(self, request: Request) -> str:
        """The texts that the script says."""
        t = self._pages.words(request)
        return json.dumps({name: t.raw(f"upload.js.{name}") for name in _SAID_BY_SCRIPT})


_SAID_BY_SCRIPT = (
    *("none", "empty", "listing", "sending", "waiting", "full", "unreadable", "refused", "login", "finishing"),
    *("stopped", "same"),
)


class Refused(HTTPException):
    """``detail`` is a sentence in the language of whoever asks."""


def _json(value: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(value, status, headers=NOT_KEPT)


async def _body(request: Request, most_bytes: int) -> bytes:
    """Raises HTTPException where it is more, whatever its length was said to be."""
    accept_body(request, most_bytes)
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most_bytes:
            raise HTTPException(413, headers={"Connection": "close"})
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LATEST_MS


def _is_what_it_says(content_digest: str, body: bytes) -> bool:
    """RFC 9530: sha-256=:BASE64:"""
    found = re.fullmatch(r"sha-256=:([A-Za-z0-9+/=]{44}):", content_digest.strip())
    if not content_digest:
        return True
    if found is None:
        return False
    try:
        return base64.b64decode(found[1], validate=True) == hashlib.sha256(body).digest()
    except binascii.Error:
        return False


def _verdict(row: UploadRow) -> str:
    """What stands beside the upload in a word: "good" is said of what the daemon says it of alone, "held" where it says
    so and keeps something nevertheless."""
    if row.stage is not Stage.ENDED or row.result is None:
        return str(row.stage)
    if not all_verified(row.result):
        return "bad"
    return "held" if row.result.get("held") else "good"


def _ended_at(row: UploadRow) -> float:
    """Seconds since the epoch: when what the daemon says of it was so."""
    try:
        return datetime.fromisoformat(str((row.result or {})["ended_at"])).timestamp()
    except (KeyError, ValueError):
        return row.created_at


def _of(said: dict[str, Any], name: str) -> int:
    return int(said.get(name) or 0)
