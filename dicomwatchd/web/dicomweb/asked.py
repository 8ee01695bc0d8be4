"""What every request goes through: who asks, whether they may, and that it is on record before anything goes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid
from dicomwatchd.series.grouping import Held
from dicomwatchd.series.standing import Standing
from dicomwatchd.web.dicomweb import errors
from dicomwatchd.web.dicomweb.errors import NotFound, Unsound
from dicomwatchd.web.dicomweb.reading import ArchiveReader
from dicomwatchd.web.dicomweb.room import Place, Room
from dicomwatchd.web.dicomweb.sending import SECURE, Work
from dicomwatchd.web.dicomweb.standing import HeldInstance, HeldStudy
from dicomwatchd.web.needs import needs, person_of
from dicomwatchd.web.people import Role
from dicomwatchd.web.ports import AccessAudit

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
METHODS = ("GET", "HEAD", "OPTIONS")

#: Why an instance is not handed out, by its standing.
_WHY = {
    Standing.DAMAGED: ("damaged-instance", "the instance was damaged before it was archived"),
    Standing.UNKNOWN: ("unknown-instance", "nothing is known of the instance but its UID: it was found in the store"),
    Standing.CONFLICTING: ("conflicting-instance", "several versions of the instance are archived"),
}


def guarded(handler: Handler, failed: Callable[[DicomwatchdError], None]) -> Handler:
    """For somebody with Role.READ; with the program's errors as HTTP's. ``failed`` is told of those that are no fault
    of the request."""

    @needs(Role.READ)
    async def answer(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": ", ".join(METHODS), **SECURE})
        try:
            return await handler(request)
        except DicomwatchdError as error:
            if errors.status_of(error) >= 500:
                failed(error)
            return errors.answer(error)

    answer.__name__ = f"dicomweb_{handler.__name__}"  # what the log calls it
    return answer


class Archive:
    """The archive as one request sees it: what it names is there and sound, and the access is on record."""

    def __init__(self, reader: ArchiveReader, audit: AccessAudit, work: Work, room: Room) -> None:
        self.reader, self.work, self._room = reader, work, room
        self._audit = audit

    async def study(self, request: Request) -> HeldStudy:
        """Raises InvalidUid, StudyNotFound, StudyErased."""
        study_uid = Uid(request.path_params["study"])
        known = self.reader.study_at_hand(study_uid)
        return known if known is not None else await self.work.call(self.reader.study, study_uid)

    def recorded(
        self, request: Request, action: str, study_uid: Uid, chunks: Callable[[], Iterator[bytes]]
    ) -> Generator[bytes, None, None]:
        """The chunks, once it is on record that somebody gets them; nothing is asked for before."""
        self._audit.record(person_of(request), action, study_uid)
        yield from chunks()

    async def place(self, request: Request, held: Held) -> Place:
        """To be given back when what is ``held`` for an answer has been taken. Raises NoRoom."""
        return await self._room.take(person_of(request).name, held)

    async def record(self, request: Request, action: str, study_uid: Uid) -> None:
        await self.work.call(self._audit.record, person_of(request), action, study_uid)

    async def record_each(self, request: Request, action: str, study_uids: Iterable[Uid]) -> None:
        await self.work.call(self._audit.record_each, person_of(request), action, study_uids)


def chosen(study: HeldStudy, series: str | None, sop_instance: str | None) -> tuple[HeldInstance, ...]:
    """The instances that a path names. Raises InvalidUid, NotFound."""
    series_uid = None if series is None else Uid(series)
    sop_instance_uid = None if sop_instance is None else Uid(sop_instance)
    if series_uid is not None and sop_instance_uid is not None:  # as each frame is asked for
        named = study.by_name.get((series_uid, sop_instance_uid))
        found: tuple[HeldInstance, ...] = () if named is None else (named,)
    else:
        found = tuple(one for one in study.instances if series_uid in (None, one.series_uid))
    if not found:
        raise NotFound("the study has no such series" if sop_instance is None else "the series has no such instance")
    return found


def require_one_patient(study: HeldStudy) -> None:
    """Raises Unsound."""
    if study.names_two_patients:
        raise Unsound(
            "the files of this study name two patients: it is not shown as if it were one's",
            code="two-patients",
            hint="whoever runs the archive sees the names with `dicomwatchctl show`",
        )


def sound(study: HeldStudy, named: Sequence[HeldInstance]) -> list[HeldInstance]:
    """Those that may be shown. Raises Unsound where none may."""
    require_one_patient(study)
    found = [one for one in named if one.standing is Standing.SOUND]
    if not found:
        code, why = _WHY[named[0].standing]
        raise Unsound(why, code=code, hint="its bytes are in the archive: `dicomwatchctl fetch` brings them")
    return found
