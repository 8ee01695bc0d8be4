"""Whether all of a study is there, as far as its own instances tell, and DICOMDIRs that list it.

Without a DICOMDIR nothing proves that no series is missing, and of most series nothing proves that the last image is
not. So there are four answers: `complete` where each series has what it says it consists of, or all that a DICOMDIR
lists is there and the study has nothing else but documents, `gaps` where something is missing beyond
doubt, `no sign of a gap`, and `not known`: where an earlier version has recorded instances and not what they say, or
where there are signs that alone prove nothing. It is said to people; nothing is deleted or kept for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median_low
from typing import Any, NamedTuple

from dicomwatchd.study_signs import SeriesSigns

#: The flag of a study with gaps.
GAPS = "gaps"

#: So many slices of one orientation are a stack whose distances say something.
LEAST_SLICES = 6
#: So many are, where no instance numbers say that one is missing.
LEAST_SLICES_ALONE = 10
#: In which a hole is no wider than so many slices: a wider one is more likely the place between two stacks.
MOST_MISSING_ALONE = 3
#: Of the distances this share is the same: of slices, and of instance numbers, which are only a sign.
_REGULAR_SHARE = 0.8
_REGULAR_SHARE_OF_NUMBERS = 0.6
_TOLERANCE = 0.05
_TOLERANCE_UM = 20
#: Positions nearer than this are one: the same slice of another echo, phase or b-value.
_SAME_UM = 10

#: So many findings are on record of one study.
LIMIT_FINDINGS = 20

PET = "1.2.840.10008.5.1.4.1.1.128"
#: Structured reports and key objects, presentation states: they say nothing of what images there should be.
_DOCUMENTS = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.")


class Answer(StrEnum):
    COMPLETE = "complete"
    NO_SIGN = "no sign of a gap"
    GAPS = "gaps"
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that tells. ``code`` is one word of "dicomdir", "slices", "pet", "concatenation", "tiles", "references"
    (gaps and evidence), "numbers", "positions", "counted", "earlier-version", "too-many" (what alone proves nothing).
    ``text`` is a clause for people, without any value but numbers; ``missing`` is how many, 0 where that is not known.
    """

    code: str
    series_uid: str
    text: str
    missing: int = 0


@dataclass(frozen=True, slots=True)
class StudyCompleteness:
    """``gaps`` are what is missing beyond doubt, ``signs`` what alone proves nothing, ``evidence`` what proves that
    something is all there."""

    answer: Answer
    gaps: tuple[Finding, ...] = ()
    signs: tuple[Finding, ...] = ()
    evidence: tuple[Finding, ...] = ()

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "answer": str(self.answer),
            **{
                name: [{key: getattr(one, key) for key in Finding.__slots__} for one in getattr(self, name)]
                for name in ("gaps", "signs", "evidence")
            },
        }

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> StudyCompleteness:
        """Raises ValueError, KeyError, TypeError, AttributeError where it is none; keys of a newer program are passed
        over, and an answer of one is none that this one knows."""
        answer = raw["answer"]
        known = [one.value for one in Answer]
        return cls(
            Answer(answer) if answer in known else Answer.NOT_KNOWN,
            *(tuple(_finding(one) for one in raw.get(name, [])) for name in ("gaps", "signs", "evidence")),
        )


#: Of a study that an earlier version has recorded.
NOTHING_KNOWN = StudyCompleteness(Answer.NOT_KNOWN)


def _finding(raw: Mapping[str, Any]) -> Finding:
    values = raw["code"], raw["series_uid"], raw["text"], raw.get("missing", 0)
    if not all(isinstance(value, str) for value in values[:3]) or not isinstance(values[3], int):
        raise TypeError("no finding")
    return Finding(*values)


@dataclass(frozen=True, slots=True)
class SeriesContent:
    """What the archive holds of a series: different SOP Instance UIDs by the SOP class."""

    instances: Mapping[str, Collection[str]]

    @property
    def number(self) -> int:
        return sum(len(uids) for uids in self.instances.values())

    @property
    def is_of_documents(self) -> bool:
        return all(sop_class.startswith(_DOCUMENTS) for sop_class in self.instances)


class OfDicomdir(NamedTuple):
    """How many different images of the study a DICOMDIR lists, and how many of these are missing."""

    images: int
    missing: int


def judged(
    content: Mapping[str, SeriesContent], signs: Mapping[str, SeriesSigns], listed: Sequence[OfDicomdir] = ()
) -> StudyCompleteness:
    """Of all of a study's series; ``signs`` has those of which what every instance says is on record."""
    findings = _Findings()
    is_listed = _dicomdirs(content, listed, findings)
    present = {uid for one in content.values() for uids in one.instances.values() for uid in uids}
    is_known = True
    proven = of_documents = 0
    for uid, one in sorted(content.items()):
        said = signs.get(uid)
        if said is None:
            is_known = False
            findings.sign("earlier-version", uid, "was recorded by a version that did not note what its images say")
            continue
        proven += _judge_series(uid, one, said, present, findings)
        of_documents += one.is_of_documents
    counted = max((one.in_study for one in signs.values()), default=0)
    if counted > len(present) and is_known:
        missing = counted - len(present)
        findings.sign("counted", "", f"the sender has counted {_instances(counted)} in the study", missing)
    answer = Answer.NO_SIGN
    if findings.gaps:
        answer = Answer.GAPS
    elif is_listed:
        answer = Answer.COMPLETE
    elif findings.signs or not is_known:
        answer = Answer.NOT_KNOWN
    elif proven and proven + of_documents == len(content):
        answer = Answer.COMPLETE
    return StudyCompleteness(
        answer,
        tuple(findings.gaps[:LIMIT_FINDINGS]),
        tuple(findings.signs[:LIMIT_FINDINGS]),
        tuple(findings.evidence[:LIMIT_FINDINGS]),
    )


def _dicomdirs(content: Mapping[str, SeriesContent], listed: Sequence[OfDicomdir], findings: _Findings) -> bool:
    """Whether a DICOMDIR proves that the study is complete: one that lists fewer images than there are says nothing of
    the others."""
    images = {
        uid
        for of_series in content.values()
        for sop_class, uids in of_series.instances.items()
        if not sop_class.startswith(_DOCUMENTS)
        for uid in uids
    }
    for one in sorted(set(listed)):
        if one.missing:
            text = f"{one.missing} of {_images(one.images)} that a DICOMDIR lists {_are(one.missing)} missing"
            findings.gap("dicomdir", "", text, one.missing)
        else:
            findings.proof("dicomdir", "", f"a DICOMDIR lists {_images(one.images)}, and nothing of it is missing")
    return any(not one.missing and one.images >= len(images) for one in listed)


def _images(number: int) -> str:
    return "one image" if number == 1 else f"{number} images"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


class _Findings:
    def __init__(self) -> None:
        self.gaps: list[Finding] = []
        self.signs: list[Finding] = []
        self.evidence: list[Finding] = []

    def gap(self, code: str, series_uid: str, text: str, missing: int = 0) -> None:
        self.gaps.append(Finding(code, series_uid, text, missing))

    def sign(self, code: str, series_uid: str, text: str, missing: int = 0) -> None:
        self.signs.append(Finding(code, series_uid, text, missing))

    def proof(self, code: str, series_uid: str, text: str) -> None:
        self.evidence.append(Finding(code, series_uid, text))


def _judge_series(
    uid: str, content: SeriesContent, said: SeriesSigns, present: Collection[str], findings: _Findings
) -> bool:
    """Whether it is proven that the series is whole."""
    proven = _pet(uid, content, said, findings)
    in_wholes = _concatenations(uid, said, findings) + _tiles(uid, content, said, findings)
    proven = proven or 0 < in_wholes == content.number
    missing = [one for one in said.references if one not in present]
    if missing:
        findings.gap(
            "references", uid, f"refers to {_instances(len(missing))} of the study that are not there", len(missing)
        )
    for kind in sorted(said.too_many):
        findings.sign("too-many", uid, f"has more {kind} than are kept, so they are not compared")
    if not proven:
        # What a PET series lacks is counted already, slices in its middle as well.
        is_counted = "pet" in {one.code for one in findings_of(findings.gaps, uid)}
        found_gap = not is_counted and _slices(uid, content, said, findings)
        if not found_gap and not findings_of(findings.gaps, uid):
            _numbers(uid, content, said, findings)
    return proven


def findings_of(findings: Iterable[Finding], series_uid: str) -> list[Finding]:
    return [one for one in findings if one.series_uid == series_uid]


def _pet(uid: str, content: SeriesContent, said: SeriesSigns, findings: _Findings) -> bool:
    there = len(content.instances.get(PET, ()))
    if not said.slices or not there:
        return False
    if there < said.slices:
        missing = said.slices - there
        findings.gap(
            "pet", uid, f"{_missing(missing)}: it has {there} of {said.slices} images of a PET series", missing
        )
    # More than are said: some scanners count the slices of one bed position, and it proves nothing.
    if there != said.slices or there != content.number:
        return False
    findings.proof("pet", uid, f"all {said.slices} images that the PET series is said to have")
    return True


def _concatenations(uid: str, said: SeriesSigns, findings: _Findings) -> int:
    """How many instances are in whole ones."""
    in_wholes = 0
    for one in said.concatenations.values():
        last = one.total or max(one.frames)
        there = len([number for number in one.frames if 1 <= number <= last])
        frames = sum(one.frames.values())
        if there < last:
            findings.gap("concatenation", uid, f"a concatenation has {there} of {last} parts", last - there)
        elif one.tiles and frames < one.tiles:
            findings.gap("tiles", uid, f"an image has {frames} of {one.tiles} tiles", one.tiles - frames)
        elif one.total or one.tiles:
            in_wholes += there
            findings.proof("concatenation", uid, f"all {last} parts of a concatenation")
    return in_wholes


def _tiles(uid: str, content: SeriesContent, said: SeriesSigns, findings: _Findings) -> int:
    whole = 0
    there = {one for uids in content.instances.values() for one in uids}
    for sop_instance_uid, (tiles, frames) in sorted(said.tiled.items()):
        if frames < tiles:
            findings.gap("tiles", uid, f"an image has {frames} of {tiles} tiles", tiles - frames)
        elif sop_instance_uid in there:
            whole += 1
    if whole:
        findings.proof("tiles", uid, f"all tiles of {'one image' if whole == 1 else f'{whole} images'}")
    return whole


def _slices(uid: str, content: SeriesContent, said: SeriesSigns, findings: _Findings) -> bool:
    """Holes between slices at equal distances. Where instance numbers are to be had, they decide whether a hole is one:
    two stacks in a series, and a distance left out on purpose, are numbered through, or the second has a number of its
    own to begin with."""
    by_number = _holes_in_numbers(said.numbers)
    is_numbered = len(said.numbers) == content.number
    stacks = [_merged(positions) for positions in said.positions.values()]
    places = sum(map(len, stacks))
    missing = wide = 0
    for stack in stacks:
        if len(stack) < LEAST_SLICES:
            continue
        holes = _holes(stack, _TOLERANCE_UM, _REGULAR_SHARE)
        if not holes:
            continue
        if not said.numbers:
            if len(stack) >= LEAST_SLICES_ALONE and max(holes) <= MOST_MISSING_ALONE:
                missing += sum(holes)
            else:
                wide += sum(holes)
        elif by_number:
            confirmed = _confirmed(holes, by_number, len(said.numbers), places)
            missing, wide = missing + confirmed, wide + sum(holes) - confirmed
        elif not is_numbered:
            wide += sum(holes)
    if missing:
        findings.gap("slices", uid, f"{_missing(missing, 'slice')} between slices at equal distances", missing)
    if wide:
        text = f"between slices at equal distances there is room for {wide} more; that alone proves nothing"
        findings.sign("positions", uid, text, wide)
    return bool(missing)


def _confirmed(holes: list[int], by_number: list[int], images: int, places: int) -> int:
    """How many of the slices that there is room for the instance numbers lack as well: as many in all for each image of
    a place, or as many in one hole as in the other, once for each image or for all of them together. Where places have
    different numbers of images, at least as many."""
    each, rest = divmod(images, places) if images > places else (1, 0)
    if rest:
        return sum(holes) if sum(by_number) >= sum(holes) else 0
    if sum(by_number) == each * sum(holes):
        return sum(holes)
    lacking = Counter(by_number)
    return sum(hole for hole in holes if _takes(lacking, hole, each))


def _takes(lacking: Counter[int], hole: int, each: int) -> bool:
    """Whether a hole is among those that the numbers lack; takes it out of them."""
    for size, times in ((hole, each), (hole * each, 1)):
        if lacking[size] >= times:
            lacking[size] -= times
            return True
    return False


def _numbers(uid: str, content: SeriesContent, said: SeriesSigns, findings: _Findings) -> None:
    if missing := sum(_holes_in_numbers(said.numbers)):
        text = f"{_missing(missing, 'instance number')}; that alone proves nothing"
        findings.sign("numbers", uid, text, missing)
    if said.in_series > content.number:
        counted = said.in_series - content.number
        findings.sign("counted", uid, f"the sender has counted {_instances(said.in_series)} in the series", counted)


def _merged(positions: Iterable[int]) -> list[int]:
    merged: list[int] = []
    for position in sorted(positions):
        if not merged or position - merged[-1] > _SAME_UM:
            merged.append(position)
    return merged


def _holes_in_numbers(numbers: Iterable[int]) -> list[int]:
    return _holes(sorted(numbers), 0, _REGULAR_SHARE_OF_NUMBERS)


def _holes(ascending: list[int], tolerance: int, regular_share: float) -> list[int]:
    """How many are missing at each place between numbers that are otherwise at equal distances; [] where none is, or
    the distances are not equal but for holes."""
    distances = [later - earlier for earlier, later in pairwise(ascending)]
    if len(distances) < 2:
        return []
    step = median_low(distances)
    slack = max(tolerance, int(step * _TOLERANCE)) if tolerance else 0
    holes = []
    for distance in distances:
        steps = round(distance / step)
        # Each of the slices that are missing may have been off by as much.
        if steps < 1 or abs(distance - steps * step) > slack * (1 if steps == 1 else 2):
            return []
        if steps > 1:
            holes.append(steps - 1)
    if len(distances) - len(holes) < regular_share * len(distances):
        return []
    return holes


def _missing(number: int, what: str = "image") -> str:
    return f"one {what} is missing" if number == 1 else f"{number} {what}s are missing"


def _instances(number: int) -> str:
    return "one instance" if number == 1 else f"{number} instances"
