"""What a catalogue has of a study and its series, and what it is asked by."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order
from dicomwatchd.study_completeness import StudyCompleteness


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    series_uid: Uid
    modality: str
    instances: int
    size_bytes: int
    attributes: DicomJson = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One study as the catalogue knows it, derived from one manifest revision and from nothing else.

    ``study_date`` is "YYYYMMDD" or "". ``archived_at`` is the manifest's creation time, UTC, ISO 8601 with "Z".
    ``patient_id``, ``accession_number`` are "" when the study has none.
    """

    study_uid: Uid
    revision: int
    manifest_key: str
    manifest_sha256: str
    archived_at: str
    instances: int
    size_bytes: int
    patient_id: str
    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    flags: tuple[str, ...]
    attributes: DicomJson
    series: tuple[SeriesRecord, ...]
    #: All that the study's files have named, and where it was made. None: an earlier version has recorded it, and only
    #: a rebuild tells.
    identities: tuple[Identity, ...] | None = None
    orders: tuple[Order, ...] | None = None
    institutions: tuple[str, ...] | None = None
    #: Whether all of the study is there; None: nothing is known of it.
    completeness: StudyCompleteness | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """All given conditions must hold. Dates are "YYYYMMDD", both ends included, "" leaves that end open.

    ``patient_id`` (with its ``issuer``), ``name`` and ``birth_date`` are conditions on one patient that the study's
    files name, whichever of them; ``accession_number`` on any of its orders. ``name``, ``description`` and
    ``institution`` are patterns: ``*`` stands for any characters, ``?`` for one (PS3.4 C.2.2.2.4), case does not count;
    one without either stands for the whole text or its first words. A name's component groups are compared one by one.

    ``is_incomplete`` asks for studies with gaps. ``archived_from`` is UTC, ISO 8601, or the beginning of it. ``before``
    is the `place` of a study: those after it, in the order of answers, are wanted.
    """

    patient_id: str | None = None
    accession_number: str | None = None
    date_from: str = ""
    date_to: str = ""
    modality: str | None = None
    issuer: str | None = None
    name: str | None = None
    birth_date: str | None = None
    description: str | None = None
    institution: str | None = None
    archived_from: str = ""
    before: str | None = None
    is_incomplete: bool = False

    @property
    def is_of_patient(self) -> bool:
        """Whether it asks for what only some records tell of every patient."""
        return not (self.patient_id is None and self.name is None and self.birth_date is None)


#: In place of a date that a study does not have; sorts below all digits.
NO_DATE = "-"


def place(record: StudyRecord) -> str:
    """Where a study stands in every answer, those with greater ones before it: newest study date first."""
    return f"{record.study_date or NO_DATE}#{record.study_uid}"
