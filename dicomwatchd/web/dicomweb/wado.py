"""Retrieval (WADO-RS, PS3.18 section 10.4): files, metadata, frames and bulk data as stored, and pictures of frames."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicomwatchd.fetch.spool import MEMORY_BYTES as SMALL_FILE_BYTES
from dicomwatchd.intake.dicom.opening import DEFLATED
from dicomwatchd.series.grouping import Held, held_for_file
from dicomwatchd.web.dicomweb import multipart, negotiation, rendered, sending
from dicomwatchd.web.dicomweb.ahead import ReadAhead
from dicomwatchd.web.dicomweb.asked import Archive, chosen, require_one_patient, sound
from dicomwatchd.web.dicomweb.errors import NotAcceptable, NotFound, NotRenderable, Refused, TooMuch
from dicomwatchd.web.dicomweb.negotiation import Chosen, Range
from dicomwatchd.web.dicomweb.qido import UNREADABLE_LEFT_OUT, UNSOUND_LEFT_OUT
from dicomwatchd.web.dicomweb.reading import Header, with_urls
from dicomwatchd.web.dicomweb.sending import Work
from dicomwatchd.web.dicomweb.standing import HeldInstance, HeldStudy, left_out

#: Whose frames are in memory, decoded or waiting for it.
_PICTURES_AT_ONCE = 4
#: Frames of one request.
MOST_FRAMES = 1000
#: Bulk data paths: tags, with the numbers of items between them.
#: A lookup table has 65536 entries of 16 bits at most.
_LUT_BYTES = 1 << 18
_BULK_PATH = re.compile(r"[0-9A-Fa-f]{8}(?:/[0-9]{1,6}/[0-9A-Fa-f]{8}){0,15}\Z")
_PIXEL_DATA = "7FE00010"

#: What is named by its content does not change; but it may be erased, or turn out to be one of several versions: so a
#: browser keeps it for a day and not for good, and nobody else does.
_UNCHANGING = "private, max-age=86400, immutable"
#: What tells which instances there are is asked for again each time, and may be the same (ETag).
_CHANGING = "private, no-cache"


class Retrieval:
    """The handlers. ``pictures`` are the threads that decode; ``random`` gives so many random bytes."""

    def __init__(
        self,
        archive: Archive,
        ahead: ReadAhead,
        pictures: Executor,
        random: Callable[[int], bytes],
        base_url: str,
    ) -> None:
        self._archive, self._work, self._reader = archive, archive.work, archive.reader
        self._ahead = ahead
        self._pictures, self._random, self._base_url = Work(pictures), random, base_url
        self._places = asyncio.Semaphore(_PICTURES_AT_ONCE)

    # -- files --------------------------------------------------------------------------------------------------------

    async def files(self, request: Request) -> Response:
        """A study, series or instance as Part 10 files."""
        ranges = _ranges(request)
        study, named, found = await self._named(request)
        is_instance = "instance" in request.path_params
        syntaxes = {one.transfer_syntax_uid for one in found}
        choice = negotiation.choose_stored(ranges, [negotiation.DICOM], syntaxes, may_be_single=is_instance)
        etag = _etag("file", choice.media_type, choice.is_multipart, *(one.sha256 for one in found))
        headers = {"ETag": etag, "Cache-Control": _UNCHANGING if is_instance else _CHANGING}
        status = 200
        if len(found) < len(named):
            headers["Warning"] = warning(UNSOUND_LEFT_OUT)
            status = 206  # PS3.18 table 10.4.3-2
        if request.method == "HEAD":
            return self._head(found, choice, headers)
        if sending.is_fresh(request, etag):
            return await self._unchanged(request, "file", study, headers)
        # Files follow one another: of all of them the largest is what lies here at once.
        place = await self._archive.place(request, held_for_file(max(one.size_bytes for one in found)))
        if not choice.is_multipart:
            headers["Content-Length"] = str(found[0].size_bytes)
            file = self._archive.recorded(request, "file", study.study_uid, partial(self._reader.file, study, found[0]))
            return await sending.streamed(self._work, place.until_taken(file), headers, negotiation.DICOM)
        mark = multipart.boundary(self._random(16))
        heads = [_of_file(one) for one in found]
        headers["Content-Length"] = str(
            multipart.length(mark, zip(heads, (one.size_bytes for one in found), strict=True))
        )
        parts = (multipart.Part(head, self._reader.file(study, one)) for head, one in zip(heads, found, strict=True))
        content_type = multipart.content_type(choice.media_type, mark)
        body = self._archive.recorded(request, "file", study.study_uid, lambda: multipart.body(mark, parts))
        return await sending.streamed(self._work, place.until_taken(body), headers, content_type, status)

    def _head(self, found: Sequence[HeldInstance], choice: Chosen, headers: dict[str, str]) -> Response:
        if choice.is_multipart:
            content_type = multipart.content_type(choice.media_type, "none")
            return Response(headers={**sending.SECURE, **headers, "Content-Type": content_type})
        headers["Content-Length"] = str(found[0].size_bytes)
        return Response(headers={**sending.SECURE, **headers, "Content-Type": choice.media_type})

    # -- metadata -----------------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        media_type = negotiation.choose_json(_ranges(request))
        study, named, found = await self._named(request)
        etag = _etag("metadata", study.version, *(one.sha256 for one in found), self._base_url)
        headers = {"ETag": f"W/{etag}", "Cache-Control": _CHANGING}
        if sending.is_fresh(request, etag):
            return await self._unchanged(request, "metadata", study, headers)
        await self._archive.record(request, "metadata", study.study_uid)
        shown, without = await self._work.call(self._reader.headers, study, found)
        if not shown:
            raise next(iter(without.values()))
        warnings = [UNSOUND_LEFT_OUT] if len(found) < len(named) else []
        if without:
            del headers["ETag"]  # the bytes may come back
            warnings.append(UNREADABLE_LEFT_OUT)
        if warnings:
            headers["Warning"] = ", ".join(map(warning, warnings))
        base = self._base_url
        items = (with_urls(one, f"{base}{path_of(study, one.instance)}/bulkdata/") for one in shown)
        return await sending.json_answer(self._work, request, items, media_type, headers)

    async def left_out(self, request: Request) -> Response:
        """No resource of PS3.18: what a viewer is not shown of a study, so that it can say so before it shows the
        rest."""
        negotiation.choose(_ranges(request), [negotiation.JSON])
        study = await self._archive.study(request)
        self._ahead.begin(study.study_uid)  # while the viewer itself still starts
        await self._archive.record(request, "metadata", study.study_uid)
        found = {
            "instances": len(study.instances),
            "left_out": left_out(study.instances),
            "two_patients": study.names_two_patients,
        }
        return JSONResponse(found, headers={**sending.SECURE, "Cache-Control": _CHANGING})

    # -- frames and bulk data -----------------------------------------------------------------------------------------

    async def frames(self, request: Request) -> Response:
        ranges = _ranges(request)
        numbers = _frame_numbers(request.path_params["frames"])
        study, _, [instance] = await self._named(request)
        choice = self._choice_of_frames(ranges, instance, may_be_single=len(numbers) == 1)
        etag = _etag("frames", choice.media_type, choice.is_multipart, instance.sha256, *numbers)
        headers = {"ETag": etag, "Cache-Control": _UNCHANGING}
        if request.method == "HEAD":
            return Response(headers={**sending.SECURE, **headers, "Content-Type": choice.media_type})
        if sending.is_fresh(request, etag):
            return await self._unchanged(request, "frames", study, headers)

        def values() -> Iterator[multipart.Value]:
            return map(multipart.cut, self._reader.frames(study, instance, numbers))

        held = await self._held(study, instance, numbers)
        return await self._in_parts(request, "frames", study, values, choice, instance, headers, held)

    async def _held(self, study: HeldStudy, instance: HeldInstance, numbers: Sequence[int] | None) -> Held:
        """For frames of an instance, None are all. What is small is not looked at more closely."""
        if instance.size_bytes <= SMALL_FILE_BYTES and instance.transfer_syntax_uid not in DEFLATED:
            return held_for_file(instance.size_bytes)
        return await self._work.call(self._reader.held, study, instance, numbers)

    def _choice_of_frames(self, ranges: Sequence[Range], instance: HeldInstance, *, may_be_single: bool) -> Chosen:
        own = negotiation.media_type_of_frames(instance.transfer_syntax_uid)
        types = [own] if own == negotiation.OCTETS else [own, negotiation.OCTETS]
        return negotiation.choose_stored(ranges, types, [instance.transfer_syntax_uid], may_be_single=may_be_single)

    async def _in_parts(
        self,
        request: Request,
        action: str,
        study: HeldStudy,
        values: Callable[[], Iterator[multipart.Value]],
        choice: Chosen,
        instance: HeldInstance,
        headers: dict[str, str],
        held: Held,
    ) -> Response:
        """All of it in one stretch of a thread where it is short, as most frames are."""
        syntax = instance.transfer_syntax_uid
        of_part = f"{choice.media_type}; transfer-syntax={syntax}"
        mark = multipart.boundary(self._random(16))

        def body() -> Iterator[bytes]:
            if not choice.is_multipart:
                return multipart.alone(values())
            return multipart.body(mark, (multipart.Part({"Content-Type": of_part}, one) for one in values()))

        content_type = multipart.content_type(choice.media_type, mark, syntax) if choice.is_multipart else of_part
        place = await self._archive.place(request, held)
        recorded = self._archive.recorded(request, action, study.study_uid, body)
        return await sending.streamed(self._work, place.until_taken(recorded), headers, content_type)

    async def _unchanged(self, request: Request, action: str, study: HeldStudy, headers: dict[str, str]) -> Response:
        """The client has it, and is about to show it: that counts."""
        await self._archive.record(request, action, study.study_uid)
        return Response(status_code=304, headers={**sending.SECURE, **headers})

    async def bulk(self, request: Request) -> Response:
        ranges = _ranges(request)
        path = request.path_params["path"].upper()
        if not _BULK_PATH.match(path):
            raise NotFound("the instance has no such element")
        study, _, [instance] = await self._named(request)
        is_pixels = path == _PIXEL_DATA
        if is_pixels:
            is_one_value = negotiation.is_native(instance.transfer_syntax_uid)
            choice = self._choice_of_frames(ranges, instance, may_be_single=is_one_value)
        else:
            choice = negotiation.choose_stored(ranges, [negotiation.OCTETS], [], may_be_single=True)
        etag = _etag("bulk", choice.media_type, choice.is_multipart, instance.sha256, path)
        headers = {"ETag": etag, "Cache-Control": _UNCHANGING}
        if request.method == "HEAD":
            return Response(headers={**sending.SECURE, **headers, "Content-Type": choice.media_type})
        if sending.is_fresh(request, etag):
            return await self._unchanged(request, "bulkdata", study, headers)

        def values() -> Iterator[multipart.Value]:
            if is_pixels:
                return self._all_pixels(study, instance)
            return iter([self._value(study, instance, path)])

        is_by_frames = is_pixels and not negotiation.is_native(instance.transfer_syntax_uid)
        held = await self._held(study, instance, None) if is_by_frames else held_for_file(instance.size_bytes)
        return await self._in_parts(request, "bulkdata", study, values, choice, instance, headers, held)

    def _value(self, study: HeldStudy, instance: HeldInstance, place: str) -> multipart.Value:
        _, chunks = self._reader.bulk(study, instance, place)
        return chunks

    def _all_pixels(self, study: HeldStudy, instance: HeldInstance) -> Iterator[multipart.Value]:
        """Frame by frame where they are compressed; native ones, which are one value, as one."""
        if negotiation.is_native(instance.transfer_syntax_uid):
            return iter([self._value(study, instance, _PIXEL_DATA)])
        count = self._reader.frame_count(study, instance)
        return map(multipart.cut, self._reader.frames(study, instance, range(1, count + 1)))

    # -- pictures -----------------------------------------------------------------------------------------------------

    async def rendered(self, request: Request) -> Response:
        return await self._picture(request, is_thumbnail=False)

    async def thumbnail(self, request: Request) -> Response:
        return await self._picture(request, is_thumbnail=True)

    async def _picture(self, request: Request, *, is_thumbnail: bool) -> Response:
        choice = negotiation.choose(_ranges(request), (rendered.JPEG, rendered.PNG))
        asked = rendered.wanted(request.query_params, choice.media_type, is_thumbnail=is_thumbnail)
        study, _, found = await self._named(request)
        given = request.path_params.get("frames")
        numbers = [0] if given is None else _frame_numbers(given)
        if len(numbers) > 1:
            raise NotAcceptable("pictures of several frames are to be had one by one")
        instance = found[len(found) // 2]
        etag = _etag("picture", instance.sha256, *numbers, repr(asked))
        is_one = "instance" in request.path_params
        headers = {"ETag": etag, "Cache-Control": _UNCHANGING if is_one else _CHANGING}
        ignored = [name for name in ("annotation", "iccprofile") if request.query_params.get(name)]
        if ignored and not is_thumbnail:
            headers["Warning"] = warning("The following parameters are not supported: " + ", ".join(ignored) + ".")
        if sending.is_fresh(request, etag):
            return await self._unchanged(request, "rendered", study, headers)
        await self._archive.record(request, "rendered", study.study_uid)
        async with self._places:
            header, frame, number = await self._work.call(self._frame_of, study, instance, numbers[0])
            data = await self._pictures.call(
                rendered.picture,
                frame,
                number,
                with_urls(header, ""),
                instance.transfer_syntax_uid,
                partial(self._small_value, study, instance),
                asked,
            )
        return Response(data, headers={**sending.SECURE, **headers}, media_type=choice.media_type)

    def _frame_of(self, study: HeldStudy, instance: HeldInstance, number: int) -> tuple[Header, bytes, int]:
        """A frame with what describes it. ``number`` 0: the one that stands for all, which is the first."""
        header = self._reader.header(study, instance)
        if self._reader.frame_count(study, instance) == 0:
            raise NotRenderable("the instance has no frames that can be shown")
        number = number or 1
        if self._reader.frame_size_bytes(study, instance, number) > rendered.MOST_FRAME_BYTES:
            raise NotRenderable("the image is too large, or of a form that is not shown")
        [frame] = map(b"".join, self._reader.frames(study, instance, [number]))
        return header, frame, number

    def _small_value(self, study: HeldStudy, instance: HeldInstance, place: str) -> bytes:
        size_bytes, chunks = self._reader.bulk(study, instance, place)
        if size_bytes > _LUT_BYTES:
            raise NotRenderable("a lookup table is too large")
        return b"".join(chunks)

    # -- what a request names -----------------------------------------------------------------------------------------

    async def _named(self, request: Request) -> tuple[HeldStudy, tuple[HeldInstance, ...], list[HeldInstance]]:
        """The study, what the path names of it, and what may be shown of that."""
        study = await self._archive.study(request)
        require_one_patient(study)
        named = chosen(study, request.path_params.get("series"), request.path_params.get("instance"))
        return study, named, sound(study, named)


def path_of(study: HeldStudy, instance: HeldInstance) -> str:
    return f"/studies/{study.study_uid}/series/{instance.series_uid}/instances/{instance.sop_instance_uid}"


def warning(text: str) -> str:
    """A value of the Warning header, as PS3.18 has it (section 8.3.4 and others)."""
    return f'299 dicomwatchd: "{text}"'


def _ranges(request: Request) -> list[Range]:
    return negotiation.accepted(request.headers.get("accept"), request.query_params.get("accept"))


def _frame_numbers(text: str) -> list[int]:
    """Raises Refused, TooMuch."""
    parts = text.split(",")
    if len(parts) > MOST_FRAMES:
        raise TooMuch(f"at most {MOST_FRAMES} frames are sent in one answer")
    if not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        raise Refused("frames are a list of numbers, from 1, with commas")
    numbers = [int(part) for part in parts]
    if 0 in numbers:
        raise Refused("frames are counted from 1")
    return numbers


def _of_file(instance: HeldInstance) -> dict[str, str]:
    return {"Content-Type": f"{negotiation.DICOM}; transfer-syntax={instance.transfer_syntax_uid}"}


def _etag(*parts: object) -> str:
    """Of everything that the bytes of an answer follow from."""
    return '"' + hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32] + '"'
