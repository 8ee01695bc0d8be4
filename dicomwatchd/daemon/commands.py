"""What the daemon answers at its control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from dicomwatchd import upload_result
from dicomwatchd.audit.proving import Prover, chain_id
from dicomwatchd.control.peer import NO_SUCH_COMMAND, BadRequest, Request
from dicomwatchd.control.server import Command, text, whole
from dicomwatchd.daemon import drill_report
from dicomwatchd.drill.rounds import RestoreDrills
from dicomwatchd.errors import Permanent
from dicomwatchd.findings import Finding
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp
from dicomwatchd.queue import Queue
from dicomwatchd.queue.holds import ERASED, OTHER_VERSIONS, TWO_PATIENTS, Hold
from dicomwatchd.queue.uploads import LISTED, Upload
from dicomwatchd.rights import Asker
from dicomwatchd.uploads.jobs import UploadJobs, no_such_upload

Progress = Callable[[dict[str, Any]], None]

#: Why a study is held, by the code of its hold.
HOLD_REASONS = {
    TWO_PATIENTS: "its files name two patients, or too many to tell",
    OTHER_VERSIONS: "the archive has several versions of some of its images",
    ERASED: "it was erased from the archive",
}
#: So many instances of a study are named that have several versions.
LISTED_INSTANCES = 100
BECAUSE_CHARACTERS = 1000


def _study_uid(request: Mapping[str, Any]) -> Uid:
    """Raises BadRequest, InvalidUid."""
    return Uid(text(request, "study_uid"))


def _may_end(asker: Asker, upload: Upload) -> bool:
    return asker.runs_the_daemon or (upload.asker is not None and upload.asker.uid == asker.uid)


def _operator(request: Mapping[str, Any], what: str, command: str) -> Asker:
    """Whoever may ``what``: it lets the daemon delete with its own rights. Raises BadRequest, Permanent."""
    if not isinstance(request, Request):
        raise BadRequest(f"you can {what} only over the control socket")
    asker = request.asker()
    if not asker.runs_the_daemon:
        raise Permanent(
            f"only root or the daemon's own user may {what}", code="not-yours", hint=f"sudo dicomwatchctl {command}"
        )
    return asker


def _waits(one: Mapping[str, str]) -> bool:
    """Whether it is an instance with a version that no release was given for."""
    return "data_sets" in one and not set(one["data_sets"].split()) <= set(one.get("released", "").split())


def _hold_document(hold: Hold) -> dict[str, Any]:
    """Names patients."""
    instances = [one for one in hold.found if hold.code == OTHER_VERSIONS and _waits(one)]
    beyond = sum(int(one.get("waiting", 0)) for one in hold.found if "all" in one)
    return {
        "study_uid": hold.study_uid,
        "code": hold.code,
        "reason": HOLD_REASONS[hold.code],
        "held_at": timestamp(hold.held_at),
        "files": hold.files,
        "patients": hold.found if hold.code == TWO_PATIENTS else [],
        "instances": [
            {
                "sop_instance_uid": one["sop_instance_uid"],
                "grade": one["grade"],
                "versions": len(one["data_sets"].split()),
            }
            for one in instances[:LISTED_INSTANCES]
        ],
        "instances_total": max(len(instances), beyond),
        "erasure": _erasure_document(hold) if hold.code == ERASED else None,
        "shown": hold.shown,
    }


def _erasure_document(hold: Hold) -> dict[str, Any]:
    """What the archive has on record of it; the reason is a person's text."""
    [found] = hold.found
    return {"number": int(found["number"]), "erased_at": found["erased_at"], "because": found["because"]}


def reading(queue: Queue, prover: Prover, receivers: Mapping[str, Sequence[str]]) -> dict[str, Command]:
    """What can be answered whether the daemon runs or not. ``receivers``: those of each inbox, as they are configured
    now; which of them a file came through is not on record."""

    def list_queue(request: Mapping[str, Any], _progress: Progress) -> Any:
        return queue.reports.queue(whole(request, "limit", 100))

    def quarantine(request: Mapping[str, Any], _progress: Progress) -> Any:
        return queue.reports.quarantine(whole(request, "limit", 100))

    def attention(request: Mapping[str, Any], _progress: Progress) -> Any:
        """Names patients: for whoever asks, and for no log."""
        limit = whole(request, "limit", 100)
        return {
            "held": [_hold_document(hold) for hold in queue.holds.open(limit)],
            "damaged": queue.reports.damaged(limit),
            "parked": queue.reports.parked(limit),
            "quarantined_files": queue.reports.status()["files"].get("quarantined", 0),
        }

    def held(request: Mapping[str, Any], _progress: Progress) -> Any:
        return queue.holds.uids(whole(request, "limit", 1000))

    def show(request: Mapping[str, Any], _progress: Progress) -> Any:
        return queue.reports.show(_study_uid(request))

    def stats(request: Mapping[str, Any], _progress: Progress) -> Any:
        said = queue.reports.stats(whole(request, "days", 7))
        for day in said["days"]:
            of_inboxes = (receivers.get(inbox, ()) for inbox in day["inbox"].split(","))
            day["receivers"] = list(dict.fromkeys(name for names in of_inboxes for name in names))
        if request.get("history") is True:
            said["history"] = queue.history.of(whole(request, "days", 7))
        return said

    def prove(request: Mapping[str, Any], _progress: Progress) -> Any:
        study_uid = _study_uid(request)
        if "chain" in request:
            return prover.prove_by_archive(study_uid, chain_id(text(request, "chain")))
        return prover.prove(study_uid, whole=request.get("whole") is True)

    def upload_list(request: Mapping[str, Any], _progress: Progress) -> Any:
        return [
            upload_result.summary(known, None if known.result else queue.uploads.progress(known.source_id))
            for known in queue.uploads.all(whole(request, "limit", 100))
        ]

    def upload_show(request: Mapping[str, Any], _progress: Progress) -> Any:
        known = queue.uploads.known(text(request, "upload_id"))
        if known is None:
            raise no_such_upload()
        if known.result is not None:
            return known.result
        progress, failed = queue.uploads.progress(known.source_id), queue.uploads.failed(known.source_id, LISTED)
        return upload_result.of_running(known.upload, progress, failed, "waiting for the daemon")

    def inbox_list(_request: Mapping[str, Any], _progress: Progress) -> Any:
        return [
            {
                "name": pin.name,
                "folder": "not seen yet" if not pin.is_seen else "exchanged" if pin.exchanged_at else "confirmed",
                "exchanged_at": None if pin.exchanged_at is None else timestamp(pin.exchanged_at),
            }
            for pin in queue.roots.pins()
        ]

    return {
        "attention": attention,
        "held": held,
        "inbox-list": inbox_list,
        "queue": list_queue,
        "quarantine": quarantine,
        "show": show,
        "stats": stats,
        "prove": prove,
        "upload-list": upload_list,
        "upload-show": upload_show,
    }


def commands(
    queue: Queue,
    live_status: Callable[[list[dict[str, Any]]], dict[str, Any]],
    examine: Callable[[], list[Finding]],
    uploads: UploadJobs,
    wake: Callable[[], None],
    prover: Prover,
    receivers: Mapping[str, Sequence[str]] = MappingProxyType({}),
    drills: RestoreDrills | None = None,
) -> dict[str, Command]:
    """``live_status`` adds to what the queue says of the inboxes what only the running daemon knows, ``examine`` is
    what its doctor finds; the rest comes from the queue. ``receivers``: see `reading`."""

    def status(_request: Mapping[str, Any], _progress: Progress) -> Any:
        reported = queue.reports.status()
        return {**reported, **live_status(reported["inboxes"])}

    def retry(request: Mapping[str, Any], _progress: Progress) -> Any:
        study_uid = _study_uid(request)
        if not queue.claims.retry(study_uid):
            raise Permanent("the study is not parked and not waiting for an attempt", code="nothing-to-retry")
        wake()
        return {"study_uid": study_uid, "state": "queued"}

    def inbox_confirm(request: Mapping[str, Any], _progress: Progress) -> Any:
        """As much as to write the inbox's path into the configuration: the daemon deletes there with its own rights."""
        name = text(request, "name")
        by = _operator(request, "confirm an inbox", f"inbox confirm {name}")
        due = queue.roots.confirm(name, by.described())
        wake()
        return {"inbox": name, "files": due}

    def release(request: Mapping[str, Any], _progress: Progress) -> Any:
        """Lets the daemon delete: whoever may confirm an inbox may do this."""
        study_uid, because = _study_uid(request), text(request, "because").strip()
        if not because or len(because) > BECAUSE_CHARACTERS:
            raise BadRequest(f"the reason for a release must have 1 to {BECAUSE_CHARACTERS} characters")
        by = _operator(request, "release a study", f"release {study_uid} --because TEXT")
        shown = text(request, "shown") if "shown" in request else None
        was_erased = ERASED in queue.holds.codes(study_uid)
        due = queue.holds.release(study_uid, because, by.described(), shown)
        wake()
        return {"study_uid": study_uid, "files": due, "was_erased": was_erased}

    def upload(_request: Mapping[str, Any], _progress: Progress) -> Any:
        raise Permanent(
            "this dicomwatchctl is older than the running daemon and cannot upload folders to it",
            code="client-too-old",
            hint="use the dicomwatchctl that was installed with the daemon",
        )

    def upload_folder(request: Mapping[str, Any], progress: Progress) -> Any:
        if not isinstance(request, Request):
            raise BadRequest("a folder can be uploaded only over the control socket")
        folder_fd = request.take_descriptor()
        try:
            name = uploads.start(folder_fd, request.asker(), delete=request.get("delete") is True)
        finally:
            os.close(folder_fd)
        if request.get("wait") is not True:
            return uploads.progress(name)
        while not (now := uploads.progress(name))["done"]:
            progress(now)
            time.sleep(0.3)
        return now

    def upload_show(request: Mapping[str, Any], _progress: Progress) -> Any:
        return uploads.progress(text(request, "upload_id"))

    def upload_cancel(request: Mapping[str, Any], _progress: Progress) -> Any:
        name = text(request, "upload_id")
        if not isinstance(request, Request):
            raise BadRequest("an upload can be cancelled only over the control socket")
        asker, known = request.asker(), queue.uploads.known(name)
        if known is not None and known.result is None and not _may_end(asker, known.upload):
            raise Permanent(
                "the upload belongs to another user",
                code="not-yours",
                hint=f"the user who started it may cancel it, or run: sudo dicomwatchctl upload cancel {name}",
            )
        return uploads.cancel(name)

    def drill(request: Mapping[str, Any], progress: Progress) -> Any:
        """What is fetched is paid for, and nobody gets to see it."""
        study_uid = _study_uid(request) if "study_uid" in request else None
        _operator(request, "start a restore drill", "drill")
        if drills is None:
            raise BadRequest(NO_SUCH_COMMAND)
        wanted = drills.want(study_uid)
        try:
            while not wanted.done.wait(0.3):
                progress({})
        except BaseException:  # whoever has asked is gone, and what is fetched is paid for
            drills.give_up(wanted)
            raise
        if wanted.is_cut_off:
            raise Permanent("the drill was cut off: the daemon stops, or its state cannot be written", code="no-drills")
        return drill_report.answer(wanted.drilled)

    def doctor(_request: Mapping[str, Any], _progress: Progress) -> Any:
        return [asdict(finding) for finding in examine()]

    return {
        **reading(queue, prover, receivers),
        "status": status,
        "retry": retry,
        "inbox-confirm": inbox_confirm,
        "release": release,
        "upload": upload,
        "upload-folder": upload_folder,
        "upload-show": upload_show,
        "upload-cancel": upload_cancel,
        "drill": drill,
        "doctor": doctor,
    }
