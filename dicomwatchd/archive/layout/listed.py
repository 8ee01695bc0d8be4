"""What a manifest has of the DICOMDIRs that list images of its study, by the SHA-256 of each: how many it lists, and
which of them no revision has so far. A program that knows nothing of this leaves it out of its next revision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dicomwatchd.archive.layout import checked
from dicomwatchd.model import Uid
from dicomwatchd.study_completeness import OfDicomdir

#: {"images": how many, "missing": SOP Instance UIDs with a space between, "more": how many more are missing}
ListedDocument = dict[str, dict[str, Any]]

#: Of one study so many DICOMDIRs are on record, those that were first.
LIMIT_DICOMDIRS = 32
#: Of one DICOMDIR so many missing images are named.
LIMIT_MISSING = 1000
_MOST_IMAGES = 2**31


def next_listed(
    recorded: ListedDocument, added: Mapping[str, Collection[str]], present: Collection[str]
) -> ListedDocument:
    """Of a revision that lists the SOP Instances ``present``. ``added`` are the SOP Instance UIDs by DICOMDIR, as they
    are known here: what is on record may name no more than the first."""
    found: ListedDocument = {}
    for sha256, one in recorded.items():
        if sha256 not in added:
            missing = [uid for uid in one["missing"].split() if uid not in present]
            found[sha256] = {"images": one["images"], "missing": " ".join(missing), "more": one["more"]}
    for sha256, uids in sorted(added.items()):
        if sha256 not in recorded and len(found) >= LIMIT_DICOMDIRS:
            continue
        missing = sorted(uid for uid in uids if uid not in present)
        more = max(0, len(missing) - LIMIT_MISSING)
        found[sha256] = {"images": len(uids), "missing": " ".join(missing[:LIMIT_MISSING]), "more": more}
    return dict(sorted(found.items()))


def of_raw(raw: object) -> ListedDocument:
    """From a manifest's JSON; keys of a newer program are passed over. Raises ValueError, TypeError, KeyError."""
    if not isinstance(raw, dict) or len(raw) > LIMIT_DICOMDIRS:
        raise TypeError("no lists")
    found: ListedDocument = {}
    for sha256, one in raw.items():
        checked.digest(sha256)
        uids = [Uid(uid) for uid in checked.text(one["missing"]).split(" ")] if one["missing"] else []
        images = checked.number(one["images"], 1, _MOST_IMAGES)
        more = checked.number(one["more"], 0, _MOST_IMAGES)
        if len(uids) > LIMIT_MISSING or len(uids) + more > images:
            raise ValueError("more images are missing than are listed")
        found[sha256] = {"images": images, "missing": one["missing"], "more": more}
    return found


def verdicts(listed: ListedDocument) -> list[OfDicomdir]:
    return [OfDicomdir(one["images"], len(one["missing"].split()) + one["more"]) for one in listed.values()]


def missing_uids(listed: ListedDocument) -> list[str]:
    """Those that are named, each once, ascending."""
    return sorted({uid for one in listed.values() for uid in one["missing"].split()})
