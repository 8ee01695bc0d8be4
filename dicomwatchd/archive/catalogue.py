"""The catalogue port: which studies the archive holds, findable by UID, patient, accession number and date.

The catalogue holds nothing that the manifests in the store do not: it can be emptied and rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from dicomwatchd.archive.store import InitStep
from dicomwatchd.model import DicomJson, Uid


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


@dataclass(frozen=True, slots=True)
class Query:
    """All given conditions must hold. Dates are "YYYYMMDD", both ends included, "" leaves that end open."""

    patient_id: str | None = None
    accession_number: str | None = None
    date_from: str = ""
    date_to: str = ""
    modality: str | None = None


class Catalogue(Protocol):
    """Safe to use from many threads. Raises Transient, Permanent, Fatal; never a foreign exception.

    Only `check` and `identity` say NotInitialised. A catalogue that is gone while the daemon runs is an outage like
    another (OutOfReach): an unmounted share must not end the daemon.
    """

    @property
    def name(self) -> str:
        """Which catalogue this is, for proofs and messages: kind, endpoint and table, or the file."""
        ...

    def get(self, study_uid: Uid) -> StudyRecord | None:
        """A strongly consistent read of one study with all of its series."""
        ...

    def put(self, record: StudyRecord) -> None:
        """Record a revision, if it is newer than what is there, or the very same one (idempotent).

        A reader sees either the old or the new revision of the study item. Raises RevisionConflict when a newer
        revision, or another manifest of the same revision, is recorded already.
        """
        ...

    def search(self, query: Query) -> Iterator[StudyRecord]:
        """Matching studies, newest study date first, without their series' attributes being complete: ``series``
        may be empty. An empty query gives all studies."""
        ...

    def study_uids(self) -> Iterator[Uid]:
        """Every study's UID, in no order."""
        ...

    def identity(self) -> str | None:
        """The archive id this catalogue belongs to; None when none was written yet."""
        ...

    def check(self) -> None:
        """Whether it is there and usable. Raises NotInitialised, ArchiveRefused or OutOfReach."""
        ...

    def initialise(self, archive_id: str) -> list[InitStep]:
        """Create what is missing, write the identity once; a second run changes nothing. Raises ArchiveRefused
        when the catalogue belongs to another archive already."""
        ...

    def close(self) -> None: ...
