"""What can be said of a study, and of its objects: the words of a verification of the whole archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dicomwatchd.model import Uid

#: Of one study so many findings are kept; all are counted.
MOST_FINDINGS = 100


class Outcome(StrEnum):
    """Of a study. PROVEN: all of it is there as it is on record. NOT_COVERED: what is missing came after the source was
    made. UNPROVEN: nothing is known to be wrong, and something could not be told. PROBLEM: something is wrong."""

    PROVEN = "proven"
    NOT_COVERED = "not-covered"
    UNPROVEN = "unproven"
    PROBLEM = "problem"


class Proof(StrEnum):
    """By what an object is proven. SIZE: it is there, with its size. ETAG: the store gives it the ETag, too, that it
    had when its bytes were proven. CHECKSUM: a report has the SHA-256 of its bytes. HASH: they were read and hashed."""

    SIZE = "size"
    ETAG = "etag"
    CHECKSUM = "checksum"
    HASH = "hash"


WEAKEST_FIRST = tuple(Proof)


@dataclass(frozen=True, slots=True)
class Kind:
    outcome: Outcome
    reason: str


#: What can be found of a study or one of its objects. The sentences may be logged.
KINDS = {
    "missing": Kind(Outcome.PROBLEM, "the object is missing"),
    "hidden": Kind(Outcome.PROBLEM, "the object is hidden by a delete marker"),
    "size": Kind(Outcome.PROBLEM, "the object's size differs from the recorded size"),
    "content": Kind(Outcome.PROBLEM, "the SHA-256 of the object differs from the recorded one"),
    "unreadable": Kind(Outcome.PROBLEM, "the store cannot read the object back"),
    "manifest-missing": Kind(Outcome.PROBLEM, "the catalogue names a manifest that the store does not hold"),
    "manifest-damaged": Kind(Outcome.PROBLEM, "a manifest is damaged"),
    "manifest-unusable": Kind(Outcome.PROBLEM, "a manifest cannot be used"),
    "manifests-disagree": Kind(Outcome.PROBLEM, "a manifest does not continue the others"),
    "catalogue-missing": Kind(Outcome.PROBLEM, "the catalogue does not have the study"),
    "catalogue-behind": Kind(Outcome.PROBLEM, "the catalogue has an older revision than the newest manifest"),
    "catalogue-differs": Kind(Outcome.PROBLEM, "the catalogue names another manifest of this revision"),
    "catalogue-damaged": Kind(Outcome.PROBLEM, "the study's entry in the catalogue is damaged"),
    "left-erased": Kind(Outcome.PROBLEM, "the study was erased, and this is still there"),
    "etag": Kind(
        Outcome.UNPROVEN, "the object has another ETag than recorded: it was copied, encrypted anew, or replaced"
    ),
    "no-checksum": Kind(Outcome.UNPROVEN, "the report has no SHA-256 of the object: its task has failed"),
    "cold": Kind(Outcome.UNPROVEN, "the object is in cold storage and cannot be read"),
    "unknown": Kind(Outcome.UNPROVEN, "the store does not tell"),
    "too-many": Kind(Outcome.UNPROVEN, "the study has more objects than are gone through"),
    "newer": Kind(Outcome.NOT_COVERED, "stored after the inventory was made"),
}
_WORST_FIRST = (Outcome.PROBLEM, Outcome.UNPROVEN, Outcome.NOT_COVERED)


@dataclass(frozen=True, slots=True)
class Finding:
    """``kind`` is one of `KINDS`; ``key`` is "" where it is no object's. ``reason`` may be logged."""

    kind: str
    key: str
    reason: str


@dataclass(slots=True)
class Findings:
    """Of one study. All are counted, by kind; as many as there is room for are kept."""

    kept: list[Finding] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, key: str = "", reason: str = "") -> None:
        self.count[kind] += 1
        if len(self.kept) < MOST_FINDINGS:
            self.kept.append(Finding(kind, key, reason or KINDS[kind].reason))

    @property
    def outcome(self) -> Outcome:
        found = {KINDS[kind].outcome for kind in self.count}
        return next((one for one in _WORST_FIRST if one in found), Outcome.PROVEN)


@dataclass(frozen=True, slots=True)
class StudyVerdict:
    """``objects`` are those that its manifests list; by what they are proven says ``proofs``, and ``proof`` the weakest
    of them, where the study is proven. ``in_no_manifest`` objects (of so many bytes) are listed by none, and have been
    there for more than a day; ``on_their_way`` are younger, ``copies`` hold what is listed at another place, or were
    damaged and replaced; ``derived`` are series objects, with which nothing is lost. ``revision`` is 0 where there is
    no manifest to go by. ``listed_again``: by a listing, after what was seen at first did not agree."""

    study_uid: Uid
    revision: int
    outcome: Outcome
    proof: Proof | None
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    objects: int
    proofs: Mapping[str, int]
    instances: int
    size_bytes: int
    damaged_instances: int
    in_catalogue: bool
    in_no_manifest: int = 0
    in_no_manifest_bytes: int = 0
    on_their_way: int = 0
    copies: int = 0
    derived: int = 0
    listed_again: bool = False

    @property
    def is_named(self) -> bool:
        """Whether a manifest or the catalogue names the study at all."""
        return self.in_catalogue or self.revision > 0 or bool(self.findings)
