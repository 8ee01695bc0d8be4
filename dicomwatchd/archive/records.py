"""What a catalogue has of a study and its series, and what it is asked by."""

from __future__ import annotations

from dataclasses import dataclass, field

from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order


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


@dataclass(frozen=True, slots=True)
class Query:
    """All given conditions must hold. Dates are "YYYYMMDD", both ends included, "" leaves that end open."""

    patient_id: str | None = None
    accession_number: str | None = None
    date_from: str = ""
    date_to: str = ""
    modality: str | None = None
