"""The catalogue port: which studies the archive holds, findable by UID, patient, accession number and date.

The catalogue holds nothing that the manifests in the store do not: it can be emptied and rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.model import Uid


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
