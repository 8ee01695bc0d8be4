"""Searches (QIDO-RS, PS3.18 section 10.6): what the catalogue finds by its indexes, looked through for the rest.

Every answer is bounded, in results and in what is looked at for it; one that was cut says so (Warning 299).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.documents import orders, searched_identities
from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord
from dicomwatchd.errors import StudyNotFound
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order, two_patients
from dicomwatchd.series.standing import Standing
from dicomwatchd.web.dicomweb import matching
from dicomwatchd.web.dicomweb.errors import TooMuch
from dicomwatchd.web.dicomweb.matching import Condition, Search
from dicomwatchd.web.dicomweb.reading import ArchiveReader, Header
from dicomwatchd.web.dicomweb.standing import HeldInstance, HeldStudy

#: The most results of one answer (PS3.18 section 8.3.4.4.1: maxResults).
MOST_STUDIES = 1000
MOST_SERIES = 1000
MOST_INSTANCES = 5000
#: How many studies of the catalogue are looked at for one answer, where no index leads to what is asked for; and how
#: many for series, or for instances, of whatever study.
_LOOKED_AT = 20_000
_LOOKED_INTO_FOR_SERIES = 500
_LOOKED_INTO_FOR_INSTANCES = 20
_FARTHEST_OFFSET = _LOOKED_AT

_OF_PATIENT = frozenset(
    {matching.PATIENT_NAME, matching.PATIENT_ID, matching.ISSUER, matching.BIRTH_DATE, matching.SEX}
)
#: Number of Study Related Series, and Instances.
_COUNTS = frozenset({"00201206", "00201208"})
_OF_ORDER = frozenset({matching.ACCESSION_NUMBER, matching.STUDY_ID})
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_RETRIEVE_URL = "00081190"
#: PS3.18 table 10.6.3-5, beside what identifies the instance.
_OF_EVERY_INSTANCE = frozenset(
    {
        "00080005",
        matching.SOP_CLASS_UID,
        matching.SOP_INSTANCE_UID,
        "00080056",
        "00080201",
        matching.STUDY_INSTANCE_UID,
        matching.SERIES_INSTANCE_UID,
        "00200013",
        "00280008",
        "00280010",
        "00280011",
        "00280100",
    }
)

SEVERAL_PATIENTS = "A study whose files name two patients is listed, and its instances are not handed out."
UNSOUND_LEFT_OUT = "Damaged or conflicting instances are left out."
#: Of instances that are sound as far as the manifest says: they are in no count of what is left out.
UNREADABLE_LEFT_OUT = "Instances whose headers cannot be read are left out."
CUT = "There are additional results that can be requested."
NOT_ALL_LOOKED_AT = "Not all studies were looked at: ask for less, by date, patient or accession number."
_NOT_ON_RECORD = "An attribute that is asked for is not on record at this level: everything matched it."

T = TypeVar("T")


@dataclass
class Answer:
    """``results`` are DICOM JSON, without URLs. ``warnings``: sentences for the Warning header."""

    results: list[DicomJson]
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


class Searcher:
    """``stopped`` in each call says that nobody waits for the answer any more. Calls take as long as the archive takes:
    they are for threads. Raises Refused, InvalidUid, StudyNotFound, and what catalogue and reader raise."""

    def __init__(self, catalogue: Catalogue, reader: ArchiveReader) -> None:
        self._catalogue, self._reader = catalogue, reader

    def studies(self, search: Search, stopped: Callable[[], bool]) -> Answer:
        answer = Answer([], list(search.warnings))
        search = _known(_of_studies(search), answer, _STUDY_LEVEL)
        found = self._matching_studies(search, answer, stopped, _LOOKED_AT)
        for record, attributes in _page(found, search, MOST_STUDIES, answer):
            if _names_two_patients(record):
                answer.warn(SEVERAL_PATIENTS)
            if stopped():
                break
            answer.results.append(matching.as_sent(self._with_counts(record, attributes)))
        return answer

    def series(self, study_uid: Uid | None, search: Search, stopped: Callable[[], bool]) -> Answer:
        answer = Answer([], list(search.warnings))
        search = _known(search, answer, _STUDY_LEVEL | _SERIES_LEVEL)
        found = self._matching_series(study_uid, search, answer, stopped)
        for _, attributes in _page(found, search, MOST_SERIES, answer):
            answer.results.append(matching.as_sent(attributes))
        return answer

    def instances(
        self, study_uid: Uid | None, series_uid: Uid | None, search: Search, stopped: Callable[[], bool]
    ) -> Answer:
        answer = Answer([], list(search.warnings))
        found = self._matching_instances(study_uid, series_uid, search, answer, stopped)
        for attributes in _page(found, search, MOST_INSTANCES, answer):
            answer.results.append(matching.as_sent(attributes))
        return answer

    # -- studies ------------------------------------------------------------------------------------------------------

    def _matching_studies(
        self, search: Search, answer: Answer, stopped: Callable[[], bool], most: int
    ) -> Iterator[tuple[StudyRecord, DicomJson]]:
        conditions = [one for one in search.conditions if one.tag in _STUDY_LEVEL]
        for number, record in enumerate(self._candidates(search)):
            if stopped():
                return
            if number == most:
                answer.warn(NOT_ALL_LOOKED_AT)
                return
            attributes = self._as_asked(record, conditions)
            if attributes is not None:
                yield record, attributes

    def _as_asked(self, record: StudyRecord, conditions: Iterable[Condition]) -> DicomJson | None:
        """As the function; numbers of series and instances are counted only for whoever asks for them."""
        conditions = list(conditions)
        of_counts = [one for one in conditions if one.tag in _COUNTS]
        attributes = as_asked(record, [one for one in conditions if one.tag not in _COUNTS])
        if attributes is None or not of_counts:
            return attributes
        return attributes if matching.all_match(of_counts, self._with_counts(record, attributes)) else None

    def _candidates(self, search: Search) -> Iterator[StudyRecord]:
        uids = search.uids(matching.STUDY_INSTANCE_UID)
        if uids is None:
            yield from self._catalogue.search(query_of(search.conditions))
            return
        for uid in uids:
            record = self._catalogue.get(uid)
            if record is not None:
                yield record

    def _with_counts(self, record: StudyRecord, attributes: DicomJson) -> DicomJson:
        known = record if record.series else self._catalogue.get(record.study_uid) or record
        return {
            **attributes,
            "00201206": {"vr": "IS", "Value": [len(known.series)]},
            "00201208": {"vr": "IS", "Value": [record.instances]},
        }

    # -- series -------------------------------------------------------------------------------------------------------

    def _matching_series(
        self, study_uid: Uid | None, search: Search, answer: Answer, stopped: Callable[[], bool]
    ) -> Iterator[tuple[StudyRecord, DicomJson]]:
        conditions = [one for one in search.conditions if one.tag not in _STUDY_LEVEL]
        for record, of_study in self._studies_of(study_uid, search, answer, stopped, _LOOKED_INTO_FOR_SERIES):
            if _names_two_patients(record):
                answer.warn(SEVERAL_PATIENTS)
            for one in record.series:
                attributes = of_series(record.study_uid, one)
                if matching.all_match(conditions, attributes):
                    yield record, attributes if study_uid is not None else {**of_study, **attributes}

    def _studies_of(
        self, study_uid: Uid | None, search: Search, answer: Answer, stopped: Callable[[], bool], most: int
    ) -> Iterator[tuple[StudyRecord, DicomJson]]:
        """With their series; of one study where it is named."""
        conditions = [one for one in search.conditions if one.tag in _STUDY_LEVEL]
        if study_uid is not None:
            record = self._catalogue.get(study_uid)
            if record is None:
                # The reader knows whether it was erased.
                self._reader.study(study_uid)
                raise StudyNotFound("the study is not in the catalogue")
            attributes = self._as_asked(record, conditions)
            if attributes is not None:
                yield record, attributes
            return
        for record, attributes in self._matching_studies(search, answer, stopped, most):
            known = record if record.series else self._catalogue.get(record.study_uid)
            if known is not None:
                yield known, attributes

    # -- instances ----------------------------------------------------------------------------------------------------

    def _matching_instances(
        self,
        study_uid: Uid | None,
        series_uid: Uid | None,
        search: Search,
        answer: Answer,
        stopped: Callable[[], bool],
    ) -> Iterator[DicomJson]:
        of_series_level = [one for one in search.conditions if one.tag in _SERIES_LEVEL and one.tag not in _STUDY_LEVEL]
        conditions = [one for one in search.conditions if one.tag not in _STUDY_LEVEL and one.tag not in _SERIES_LEVEL]
        most = _LOOKED_INTO_FOR_INSTANCES
        for record, of_study in self._studies_of(study_uid, search, answer, stopped, most):
            if _names_two_patients(record):
                answer.warn(SEVERAL_PATIENTS)
                continue
            wanted = {
                one.series_uid
                for one in record.series
                if series_uid in (None, one.series_uid)
                and matching.all_match(of_series_level, of_series(record.study_uid, one))
            }
            study = self._reader.study(record.study_uid)
            instances = self._of_study(study, wanted, search, answer)
            for series in dict.fromkeys(one.series_uid for one in instances):
                if stopped():
                    return
                of_series_alone = [one for one in instances if one.series_uid == series]
                headers, without = self._reader.headers(study, of_series_alone)
                if without:
                    answer.warn(UNREADABLE_LEFT_OUT)
                for header in headers:
                    if matching.all_match(conditions, header.attributes):
                        yield _of_instance(header, study_uid, search, of_study)

    def _of_study(self, study: HeldStudy, wanted: Iterable[Uid], search: Search, answer: Answer) -> list[HeldInstance]:
        wanted = frozenset(wanted)
        uids, classes = search.uids(matching.SOP_INSTANCE_UID), search.uids(matching.SOP_CLASS_UID)
        found = [
            one
            for one in study.instances
            if one.series_uid in wanted
            and (uids is None or one.sop_instance_uid in uids)
            and (classes is None or one.sop_class_uid in classes)
        ]
        sound = [one for one in found if one.standing is Standing.SOUND]
        if len(sound) < len(found):
            answer.warn(UNSOUND_LEFT_OUT)
        return sound


#: What is on record of a study, and of a series (`intake.dicom.attributes`), and what is added to it.
_STUDY_LEVEL = frozenset(
    {
        *("00080005", "00080056", "00080020", "00080030", "00080050", "00080090", "00080201", "00081030", "00081048"),
        *("00081060", "00081080", "00100010", "00100020", "00100021", "00100030", "00100032", "00100040", "00101000"),
        *("00101001", "00101010", "00101020", "00101030", "00102160", "00102201", "00102297", "0020000D", "00200010"),
        *("00380010", "00080061", "00201206", "00201208"),
    }
)
_SERIES_LEVEL = frozenset(
    {
        *("00080021", "00080031", "00080060", "00080070", "00080080", "00081010", "0008103E", "00081040", "00081050"),
        *("00081070", "00081090", "00180015", "00181000", "00181030", "00185100", "0020000E", "00200011", "00200060"),
        *("00400244", "00400245", "00400253", "00400254", "00201209"),
    }
)


def query_of(conditions: Iterable[Condition]) -> Query:
    """What the catalogue can look for of it: never less than what matches."""
    by_tag = {one.path[0]: one for one in conditions if len(one.path) == 1}

    def exact(tag: str) -> str | None:
        one = by_tag.get(tag)
        return None if one is None or one.has_wildcard or len(one.values) != 1 else one.values[0]

    def pattern(tag: str) -> str | None:
        one = by_tag.get(tag)
        return None if one is None or len(one.values) != 1 or "=" in one.values[0] else one.values[0]

    first, last = matching.range_of(by_tag[matching.STUDY_DATE]) if matching.STUDY_DATE in by_tag else ("", "")
    birth = exact(matching.BIRTH_DATE)
    modality = exact(matching.MODALITIES_IN_STUDY) or exact(matching.MODALITY)
    return Query(
        patient_id=exact(matching.PATIENT_ID),
        accession_number=exact(matching.ACCESSION_NUMBER),
        date_from=first,
        date_to=last,
        modality=modality and modality.upper(),
        name=pattern(matching.PATIENT_NAME),
        birth_date=birth if birth is not None and birth.isdecimal() else None,
        description=pattern(matching.DESCRIPTION),
    )


def as_asked(record: StudyRecord, conditions: Iterable[Condition]) -> DicomJson | None:
    """A study's attributes; of the patients and orders that its files name, those that were asked for. None where it
    does not match."""
    conditions = list(conditions)
    of_patient = [one for one in conditions if one.tag in _OF_PATIENT]
    of_order = [one for one in conditions if one.tag in _OF_ORDER]
    rest = [one for one in conditions if one.tag not in _OF_PATIENT and one.tag not in _OF_ORDER]
    patient = _first((_patient(one) for one in searched_identities(record)), of_patient)
    order = _first((_order(one) for one in orders(record) or (Order(),)), of_order)
    if patient is None or order is None:
        return None
    attributes: DicomJson = {
        **{tag: value for tag, value in record.attributes.items() if tag not in _OF_PATIENT and tag not in _OF_ORDER},
        **patient,
        **order,
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        matching.MODALITIES_IN_STUDY: {"vr": "CS", "Value": list(record.modalities)},
        matching.STUDY_INSTANCE_UID: {"vr": "UI", "Value": [record.study_uid]},
    }
    for tag, vr in (("00080020", "DA"), ("00080030", "TM"), ("00080090", "PN")):
        attributes.setdefault(tag, {"vr": vr})
    return attributes if matching.all_match(rest, attributes) else None


def of_series(study_uid: Uid, record: SeriesRecord) -> DicomJson:
    found: DicomJson = {
        **record.attributes,
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        matching.STUDY_INSTANCE_UID: {"vr": "UI", "Value": [study_uid]},
        matching.SERIES_INSTANCE_UID: {"vr": "UI", "Value": [record.series_uid]},
        "00201209": {"vr": "IS", "Value": [record.instances]},
    }
    found.setdefault(matching.MODALITY, {"vr": "CS", **({"Value": [record.modality]} if record.modality else {})})
    found.setdefault("00200011", {"vr": "IS"})
    return found


def _of_instance(header: Header, study_uid: Uid | None, search: Search, of_study: DicomJson) -> DicomJson:
    instance, attributes = header.instance, header.attributes
    tags = _OF_EVERY_INSTANCE | search.included | {one.tag for one in search.conditions}
    chosen = {
        tag: element
        for tag, element in attributes.items()
        if (search.includes_all or tag in tags) and tag not in header.bulk
    }
    found: DicomJson = {
        **chosen,
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        matching.SOP_CLASS_UID: {"vr": "UI", "Value": [instance.sop_class_uid]},
        matching.SOP_INSTANCE_UID: {"vr": "UI", "Value": [instance.sop_instance_uid]},
        matching.SERIES_INSTANCE_UID: {"vr": "UI", "Value": [instance.series_uid]},
        matching.STUDY_INSTANCE_UID: of_study[matching.STUDY_INSTANCE_UID],
    }
    return found if study_uid is not None else {**of_study, **found}


def _patient(one: Identity) -> DicomJson:
    name = {group: text for group, text in zip(_GROUPS, one.name_groups, strict=False) if text}
    return {
        matching.PATIENT_NAME: {"vr": "PN", "Value": [name]} if name else {"vr": "PN"},
        matching.PATIENT_ID: _text("LO", one.patient_id),
        matching.ISSUER: _text("LO", one.issuer),
        matching.BIRTH_DATE: _text("DA", one.birth_date),
        matching.SEX: _text("CS", one.sex),
    }


def _order(one: Order) -> DicomJson:
    return {
        matching.ACCESSION_NUMBER: _text("SH", one.accession_number),
        matching.STUDY_ID: _text("SH", one.study_id),
    }


def _text(vr: str, value: str) -> dict[str, object]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _first(said: Iterable[DicomJson], conditions: list[Condition]) -> DicomJson | None:
    return next((one for one in said if matching.all_match(conditions, one)), None)


def _names_two_patients(record: StudyRecord) -> bool:
    return two_patients(record.identities or ()) is not None


def _known(search: Search, answer: Answer, tags: Collection[str]) -> Search:
    """Without conditions on what is not on record at this level, as of a C-FIND's unsupported keys; and it is said."""
    kept = tuple(one for one in search.conditions if one.tag in tags)
    if len(kept) < len(search.conditions):
        answer.warn(_NOT_ON_RECORD)
    return replace(search, conditions=kept)


def _of_studies(search: Search) -> Search:
    """Modality, which is a series', means one of a study's (0008,0061) to whoever looks for studies."""
    return replace(
        search,
        conditions=tuple(
            replace(one, path=(matching.MODALITIES_IN_STUDY,)) if one.path == (matching.MODALITY,) else one
            for one in search.conditions
        ),
    )


def _page(found: Iterator[T], search: Search, most: int, answer: Answer) -> Iterator[T]:
    """PS3.18 section 8.3.4.4.1. How many results remain is not counted: that would take as long as showing them."""
    if search.offset > _FARTHEST_OFFSET:
        raise TooMuch("the offset is beyond what a search goes through", hint="ask for less, by date or patient")
    limit = most if search.limit is None else min(search.limit, most)
    yield from islice(found, search.offset, search.offset + limit)
    if next(found, None) is not None:
        answer.warn(CUT)
