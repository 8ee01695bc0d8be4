"""What is said of an upload while it runs, and once it has ended: to whoever handed the folder in, never to a log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from dicomwatchd.intake.final_scan import Findings
from dicomwatchd.intake.listed import Tables
from dicomwatchd.localfiles import printable
from dicomwatchd.ports import timestamp
from dicomwatchd.queue.uploads import LISTED, Named, Upload, UploadedStudies, UploadProgress, UploadRecord
from dicomwatchd.study_completeness import Answer

#: How an upload ends.
FINISHED, CANCELLED, GONE = "finished", "cancelled", "vanished"


def of_running(upload: Upload, progress: UploadProgress, failed: list[Named], phase: str) -> dict[str, Any]:
    """How far it is. Nothing in it lets anybody delete anything."""
    return _describe(upload, progress, failed, progress.failed, phase)


def of_ended(
    upload: Upload,
    progress: UploadProgress,
    failed: list[Named],
    outcome: str,
    findings: Findings | None,
    now: float,
    expires: str | None = None,
    studies: UploadedStudies | None = None,
) -> dict[str, Any]:
    """Its result. ``complete`` is the word that a person may delete on: the final scan has met everything below the
    folder, each DICOM file of it is on record as archived, and so is each image that a DICOMDIR in it lists; it is
    never said of an upload that was broken off, nor while the archive ``expires``: why no local file may be deleted.
    The folder as a whole is ``deletable`` if nothing else is in it. Nothing is while a study of it is held."""
    named = [*failed, *(findings.named if findings is not None else ())]
    count = progress.failed + (findings.odd if findings is not None else 0)
    complete = (
        outcome == FINISHED
        and expires is None
        and findings is not None
        and findings.accounted_for
        and not count
        and progress.verified == findings.archived + progress.deleted
        and progress.ignored == findings.ignored
        and progress.verified + progress.ignored == progress.files
        and progress.verified > 0
    )
    is_deletable = complete and not progress.held
    seen = findings or Findings()
    return {
        **_describe(upload, progress, named, count, outcome),
        "done": True,
        "outcome": outcome,
        "complete": complete,
        "deletable": is_deletable and not seen.not_dicom,
        "images_deletable": is_deletable,
        "expires": expires,
        "ended_at": timestamp(now),
        "not_dicom": seen.not_dicom,
        "not_opened": [printable(path) for path in seen.not_opened],
        "read_only": seen.read_only,
        "dicomdir": _dicomdir(seen.tables),
        **({} if studies is None else {"studies": _studies(studies)}),
    }


def summary(known: UploadRecord, progress: UploadProgress | None) -> dict[str, Any]:
    """A line of the list. ``progress`` is that of an upload that has not ended."""
    upload = known.upload
    if known.result is not None:
        figures = {name: known.result[name] for name in ("outcome", "files", "verified", "deleted", "failed_files")}
        deletable = known.result["deletable"]
    else:
        figures = {"outcome": None, "files": 0, "verified": 0, "deleted": 0, "failed_files": 0}
        if progress is not None:
            figures |= {
                "files": progress.files,
                "verified": progress.verified,
                "deleted": progress.deleted,
                "failed_files": progress.failed,
            }
        deletable = False
    return {
        "upload_id": upload.source.name,
        "path": os.fsdecode(upload.source.path),
        "delete": upload.source.delete_local,
        "asked_by": _asked_by(upload),
        "state": upload.stage,
        "started_at": timestamp(upload.started_at),
        "ended_at": None if known.ended_at is None else timestamp(known.ended_at),
        **figures,
        "deletable": deletable,
    }


def _asked_by(upload: Upload) -> dict[str, Any] | None:
    return None if upload.asker is None else upload.asker.described()


def _dicomdir(tables: Tables) -> dict[str, int] | None:
    if not tables.files:
        return None
    return {
        "files": tables.files,
        "unreadable": tables.unread,
        "images": tables.images,
        "studies": tables.studies,
        "archived": tables.archived,
        "archived_before": tables.from_before,
        "missing": tables.missing,
    }


def _studies(found: UploadedStudies) -> dict[str, Any]:
    return {
        **{str(answer).replace(" ", "_"): found.answers.get(answer, 0) for answer in Answer},
        "with_gaps": [{"study_uid": study_uid, "missing": texts} for study_uid, texts in found.gaps],
    }


def _describe(
    upload: Upload, progress: UploadProgress, named: Iterable[Named], count: int, phase: str
) -> dict[str, Any]:
    return {
        "upload_id": upload.source.name,
        "path": os.fsdecode(upload.source.path),
        "delete": upload.source.delete_local,
        "asked_by": _asked_by(upload),
        "started_at": timestamp(upload.started_at),
        "ended_at": None,
        "done": False,
        "outcome": None,
        "phase": phase,
        "files": progress.files,
        "files_total": progress.files,
        "files_done": progress.verified + progress.failed + progress.ignored,
        "bytes_total": progress.size_bytes,
        "bytes_done": progress.verified_size_bytes,
        "verified": progress.verified,
        "ignored": progress.ignored,
        "deleted": progress.deleted,
        "not_yours": progress.no_right,
        "held": progress.held,
        "complete": False,
        "deletable": False,
        "failed": [{"name": printable(name), "reason": reason} for name, reason in list(named)[:LISTED]],
        "failed_files": count,
    }
