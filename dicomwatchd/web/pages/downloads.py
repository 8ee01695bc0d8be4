"""A study as a ZIP file while it is read: every instance is compared with its SHA-256 before a byte of it goes out.

What cannot be had is missing in the file, as its pages for people say. Where the store ends it in the middle, the
connection is broken off: then no browser takes it for a whole file.
"""

from __future__ import annotations

import io
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.errors import DicomwatchdError, OutOfReach, StudyNotFound
from dicomwatchd.fetch import look_up
from dicomwatchd.fetch.cold import Cold, find
from dicomwatchd.fetch.handing import hand_out
from dicomwatchd.fetch.layouts import placed
from dicomwatchd.fetch.pages import INDEX, README, OnMedium, index_page, readme
from dicomwatchd.fetch.plan import Doubts, Found, Placed
from dicomwatchd.fetch.stream import Verified
from dicomwatchd.fetch.zipped import FOLDER, Unseekable, ZipWriter
from dicomwatchd.model import Uid
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import Pages, of_role
from dicomwatchd.web.pages.studies import uid_of
from dicomwatchd.web.people import Role
from dicomwatchd.web.streams import Ended

#: At once, of all people; each reads over so many connections.
MOST_AT_ONCE = 8
_THREADS = 4
_WAITING_PIECES, _PIECE_BYTES = 16, 256 << 10
#: A browser that takes nothing for so long is gone.
_STALLED_SECONDS = 120.0


class _Pipe(io.RawIOBase):
    """From the thread that writes to the one that sends, a few pieces long. Whoever writes to one that was closed gets
    BrokenPipeError."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING_PIECES)
        self._held = bytearray()
        self.is_given_up = False
        self.trouble: DicomwatchdError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(cast(bytes, data))
        self._held += piece
        if len(self._held) >= _PIECE_BYTES:
            self._put(bytes(self._held))
            self._held.clear()
        return len(piece)

    def end(self) -> None:
        if self._held:
            self._put(bytes(self._held))
        self._put(None)

    def _put(self, piece: bytes | None) -> None:
        waited = 0.0
        while not self.is_given_up:
            try:
                return self._pieces.put(piece, timeout=1.0)
            except queue.Full:
                waited += 1.0
                if waited >= _STALLED_SECONDS:
                    self.is_given_up = True
        raise BrokenPipeError

    def fail(self, error: DicomwatchdError) -> None:
        self.trouble = error
        self.is_given_up = True

    def __iter__(self) -> Iterator[bytes]:
        """Raises what the writer has failed with."""
        while True:
            try:
                piece = self._pieces.get(timeout=1.0)
            except queue.Empty:
                if self.trouble is not None:
                    raise self.trouble from None
                continue
            if piece is None:
                return
            yield piece


class Downloads:
    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages
        self._seats = threading.BoundedSemaphore(MOST_AT_ONCE)

    async def download(self, request: Request) -> Response:
        person, study_uid = of_role(request, Role.READ), uid_of(request)
        if study_uid is None:
            return self._pages.problem(request, 404, "study.notfound")
        await run_in_threadpool(self._parts.audit.record, person, "download", study_uid)
        if not self._seats.acquire(blocking=False):
            return self._pages.problem(request, 503, "busy")
        try:
            found, places, cold = await run_in_threadpool(prepared, self._parts, study_uid)
            if len(cold.instances) == len(places):
                self._seats.release()
                return self._pages.problem(request, 409, "download.cold")
        except StudyNotFound:
            self._seats.release()
            return self._pages.problem(request, 404, "study.notfound")
        except BaseException:  # whatever it was: the seat is free again
            self._seats.release()
            raise
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f'attachment; filename="study-{study_uid}.zip"',
            "Cache-Control": "no-store",
        }
        pipe = _Pipe()

        def ended() -> None:
            pipe.is_given_up = True
            self._seats.release()

        return Ended(self._pieces(pipe, found, places, cold), ended, headers)

    def _pieces(self, pipe: _Pipe, found: Found, places: list[Placed], cold: Cold) -> Iterator[bytes]:
        args = (pipe, found, places, cold)
        threading.Thread(target=self._write, args=args, name="page-zip", daemon=True).start()
        yield from pipe

    def _write(self, pipe: _Pipe, found: Found, places: list[Placed], cold: Cold) -> None:
        try:
            files = Counter[Uid]()
            with ZipWriter(cast(BinaryIO, Unseekable(cast(BinaryIO, pipe)))) as writer:

                def take(one: Verified) -> None:
                    item, path = one.placed
                    with one.spool.reading() as content:
                        writer.add(f"{FOLDER}/{path}", content, item.size_bytes, item.transfer_syntax_uid)
                    files[item.series_uid] += 1

                report = hand_out(
                    self._parts.store,
                    found,
                    places,
                    take,
                    self._parts.scratch,
                    cold=cold.instances,
                    threads=_THREADS,
                )
                if report.stopped is not None:
                    pipe.fail(report.stopped)
                    return
                if not report.fetched:
                    pipe.fail(OutOfReach("nothing of the study could be read"))
                    return
                medium = [OnMedium(found.manifest, files, report)]
                writer.add_text(INDEX, index_page(medium, has_dicomdir=False))
                writer.add_text(README, readme(medium, has_dicomdir=False))
                writer.finish()
            pipe.end()
        except BrokenPipeError:
            return  # nobody takes it any more
        except DicomwatchdError as error:
            self._parts.log.warning("web-download-broken", "a download was broken off", **error_fields(error))
            pipe.fail(error)


def prepared(parts: PageParts, study_uid: Uid) -> tuple[Found, list[Placed], Cold]:
    """What there is of a study, with places, and what of it cannot be read now. Revisions that are not in order are
    passed over: what any of them lists is brought. Raises StudyNotFound, Transient, Permanent, Fatal."""
    passed_over = Doubts(lambda _revision, _text: None, lambda _revision, _text: None)
    found = look_up(parts.store, parts.catalogue, study_uid, doubts=passed_over)
    places = placed("uid", found.manifest, found.manifest.instances)
    cold = find(parts.store, study_uid, [item for item, _ in places], found.elsewhere)
    return found, places, cold
