"""Sending a study to a destination of the configuration, and what came of it: kept here as long as the process runs."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.fetch import FetchProgress
from dicomwatchd.fetch.destination import Channel
from dicomwatchd.fetch.report import FetchReport
from dicomwatchd.fetch.send import Confirmed, send_study
from dicomwatchd.model import Uid
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.web.pages.downloads import prepared
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import NOT_KEPT, Pages, of_role
from dicomwatchd.web.pages.studies import uid_of
from dicomwatchd.web.people import Role

MOST_AT_ONCE = 4
_KEPT = 1000
_THREADS = 4
LISTED = 100


@dataclass(slots=True)
class Sending:
    """``report`` is there once it has ended; ``trouble`` where it could not even begin."""

    owner: str
    study_uid: Uid
    to: str
    progress: FetchProgress | None = None
    report: FetchReport | None = None
    warnings: int = 0
    trouble: str = ""
    has_ended: threading.Event = field(default_factory=threading.Event)


class Sends:
    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Sending] = OrderedDict()

    async def send(self, request: Request) -> Response:
        person, study_uid = of_role(request, Role.READ), uid_of(request)
        if study_uid is None:
            return self._pages.problem(request, 404, "study.notfound")
        form = await request.form(max_files=0, max_fields=4)
        name = str(form.get("destination", ""))
        if name not in self._parts.destinations:
            return self._pages.problem(request, 404, "send.unknown")
        await run_in_threadpool(self._parts.audit.record, person, "send", study_uid)
        sending = Sending(person.name, study_uid, name)
        with self._lock:
            if sum(not one.has_ended.is_set() for one in self._kept.values()) >= MOST_AT_ONCE:
                return self._pages.problem(request, 503, "send.busy")
            key = secrets.token_urlsafe(12)
            self._kept[key] = sending
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._parts.threads.submit(self._run, sending)
        return RedirectResponse(f"/sends/{key}", 303)

    async def show(self, request: Request) -> Response:
        sending = self._of(request)
        if sending is None:
            return self._pages.problem(request, 404, "send.gone")
        return self._pages.page(request, "send.html", sending=sending, key=request.path_params["key"], listed=LISTED)

    async def state(self, request: Request) -> Response:
        sending = self._of(request)
        if sending is None:
            return JSONResponse({"ended": True}, headers=NOT_KEPT)
        at, t = sending.progress, self._pages.words(request)
        done, total = (0, 0) if at is None else (at.files_done, at.files_total)
        return JSONResponse(
            {
                "ended": sending.has_ended.is_set(),
                "done": done,
                "total": total,
                "text": t("send.running", to=sending.to, done=t.number(done), total=t.number(total)),
            },
            headers=NOT_KEPT,
        )

    def _of(self, request: Request) -> Sending | None:
        person = of_role(request, Role.READ)
        with self._lock:
            found = self._kept.get(request.path_params["key"])
        return found if found is not None and found.owner == person.name else None

    def _run(self, sending: Sending) -> None:
        parts, to = self._parts, self._parts.destinations[sending.to]

        def show(at: FetchProgress) -> None:
            sending.progress = at

        try:
            found, places, cold = prepared(parts, sending.study_uid)
            channel = Channel(to, ((item.sop_class_uid, item.transfer_syntax_uid) for item, _ in places))
            try:
                with Confirmed.opened(None, to) as confirmed:
                    sent = send_study(
                        parts.store,
                        found,
                        places,
                        channel,
                        confirmed,
                        parts.scratch,
                        cold=cold.instances,
                        threads=_THREADS,
                        progress=show,
                    )
            finally:
                channel.close()
            sending.warnings = sum(one.status not in ("", "0000") for one in sent.results)
            sending.report = sent.report
        except DicomwatchdError as error:
            parts.log.warning("web-send-failed", "a study could not be sent", **error_fields(error))
            sending.trouble = error.message
        finally:
            sending.has_ended.set()
