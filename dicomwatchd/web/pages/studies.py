"""The page of one study, and the record of what was deleted of it here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.archive.documents import accession_numbers, identities
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid
from dicomwatchd.series.standing import Standing
from dicomwatchd.study_completeness import NOTHING_KNOWN, Answer
from dicomwatchd.web.pages.attributes import name_of, person_name, texts
from dicomwatchd.web.pages.facts import LISTED, Facts, gather
from dicomwatchd.web.pages.parts import PageParts
from dicomwatchd.web.pages.rendering import Pages, of_role
from dicomwatchd.web.people import Role

_ANSWERS = {
    Answer.COMPLETE: "complete.by_series",
    Answer.NO_SIGN: "complete.no_sign.long",
    Answer.GAPS: "complete.gaps.long",
    Answer.NOT_KNOWN: "complete.not_known.long",
}
#: Why the viewer does not show an image, in the words of its own notice (`web/viewer/left-out.js`).
LEFT_OUT = {
    Standing.DAMAGED: "study.left_out.damaged",
    Standing.CONFLICTING: "study.left_out.conflicting",
    Standing.UNKNOWN: "study.left_out.unknown",
}
_PROOF_SECONDS = 300.0


def uid_of(request: Request) -> Uid | None:
    """The study that the address names; None where that is no UID."""
    try:
        return Uid(request.path_params["study"])
    except InvalidUid:
        return None


class StudyPages:
    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages

    async def study(self, request: Request) -> Response:
        person, study_uid = of_role(request, Role.READ), uid_of(request)
        if study_uid is None:
            return self._pages.problem(request, 404, "study.notfound")
        await run_in_threadpool(self._parts.audit.record, person, "page", study_uid)
        facts = await run_in_threadpool(gather, self._parts, study_uid)
        if not facts.is_known:
            return self._pages.problem(request, 404, "study.notfound")
        view = self._parts.viewer
        return self._pages.page(
            request,
            "study.html",
            facts=facts,
            record=facts.record,
            destinations=sorted(self._parts.destinations),
            viewer=view(study_uid) if view is not None and facts.record is not None else "",
            listed=LISTED,
            left_out=[(LEFT_OUT[Standing(one)], number) for one, number in facts.left_out.items()],
            **_of_record(facts.record),
            **_of_local(facts),
        )

    async def proof(self, request: Request) -> Response:
        person, study_uid = of_role(request, Role.READ), uid_of(request)
        if study_uid is None:
            return self._pages.problem(request, 404, "study.notfound")
        await run_in_threadpool(self._parts.audit.record, person, "page", study_uid)

        def ask() -> dict[str, Any]:
            found: dict[str, Any] = self._parts.daemon.call("prove", answer_seconds=_PROOF_SECONDS, study_uid=study_uid)
            return found

        try:
            said = await run_in_threadpool(ask)
        except (DaemonUnreachable, DaemonRefused) as error:
            return self._pages.problem(request, 503, "proof.unreachable", why=error.message)
        files = said["files"]
        holds = said["chain_holds"] and said["published"]["holds"] and said["archived"]["holds"]
        return self._pages.page(
            request,
            "proof.html",
            study_uid=study_uid,
            said=said,
            holds=holds,
            files=files[:LISTED],
            number=len(files),
            outcomes=Counter(str(one["outcome"]) for one in files),
        )


def _of_record(record: StudyRecord | None) -> dict[str, Any]:
    if record is None:
        return {"name": "", "patient": {}, "others": [], "accessions": "", "answer": "", "reasons": [], "series": []}
    found = record.completeness or NOTHING_KNOWN
    answer = _ANSWERS[found.answer]
    if found.answer is Answer.COMPLETE and "dicomdir" in {one.code for one in found.evidence}:
        answer = "complete.by_list"
    numbers = {str(one.series_uid): texts(one.attributes, "00200011") for one in record.series}
    return {
        "name": name_of(record.attributes),
        "patient": {
            "born": texts(record.attributes, "00100030"),
            "sex": texts(record.attributes, "00100040"),
            "description": texts(record.attributes, "00081030"),
        },
        "others": [(person_name(one.name), one.patient_id, one.birth_date) for one in identities(record)[1:]],
        "accessions": ", ".join(number for number in accession_numbers(record) if number),
        "answer": answer,
        "reasons": [
            (numbers.get(one.series_uid, ""), one.text) for one in (*found.gaps, *found.signs, *found.evidence)
        ],
        "series": [
            {
                "number": numbers[str(one.series_uid)],
                "description": texts(one.attributes, "0008103E"),
                "modality": one.modality,
                "files": one.instances,
                "size_bytes": one.size_bytes,
            }
            for one in record.series
        ],
    }


def _held(patient: Mapping[str, object]) -> tuple[str, str, str]:
    """Name, ID with who has given it, birth date: of a patient whom a held study names."""
    name, number, issuer, born = (str(patient.get(one) or "") for one in ("name", "patient_id", "issuer", "birth_date"))
    return person_name(name), f"{number} ({issuer})" if number and issuer else number, born


def _of_local(facts: Facts) -> dict[str, Any]:
    local = facts.local or {}
    return {
        "local_files": sorted((local.get("files") or {}).items()),
        "local_reason": local.get("reason") or "",
        "local_kept": local.get("kept") or [],
        "cold": [one for one in facts.storage if one.is_cold],
        "holds": [(hold, [_held(one) for one in hold.get("patients") or []]) for hold in facts.holds],
    }
