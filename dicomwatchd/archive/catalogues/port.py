"""The catalogue port: which studies the archive holds, findable by UID, patient, accession number and date.

The catalogue holds nothing that the manifests in the store do not: it can be emptied and rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.model import Uid

#: Of `Catalogue.shortcomings`.
OLD_RECORDS = (
    "some studies were recorded by an earlier version: they are searched one by one, and found by their first"
    " patient and order only; `dicomwatchctl catalogue rebuild` changes that"
)
#: The same, of what studies are searched by since a later version.
OLD_MODALITIES = (
    "some studies were recorded by an earlier version: for a modality all studies of the given dates are read;"
    " `dicomwatchctl catalogue rebuild` changes that"
)
#: Of a query that an index does not serve.
NO_INDEX = "no index serves an institution or a description alone: all studies of the given dates are read"


class Catalogue(Protocol):
    """Safe to use from many threads. Raises Transient, Permanent, Fatal; never a foreign exception.

    Only `check` and `identity` say NotInitialised. A catalogue that is gone while the daemon runs is an outage like
    another (OutOfReach): an unmounted share must not end the daemon.
    """

    @property
    def name(self) -> str:
        """Which catalogue this is, for proofs and messages: kind, endpoint and table, or kind and file, with "|"
        between them. Known without asking it; raises nothing."""
        ...

    def get(self, study_uid: Uid) -> StudyRecord | None:
        """A strongly consistent read of one study with all of its series; None where it has no such study.
        ``study_uid`` is the Study Instance UID (0020,000D). DynamoDB: GetItem and BatchGetItem, ConsistentRead."""
        ...

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        """Record a revision, if it is newer than what is there, or the very same one (idempotent). ``instead_of`` is
        the SHA-256 of the manifest that the study's entry has to name until then, where any other would not be older
        but passed over.

        A reader sees either the old or the new revision of the study item. Raises RevisionConflict when a newer
        revision, or another manifest of the same revision, is recorded already, or another one than ``instead_of``, or
        none. Attributes that are too much for the catalogue are left out, which the record's flags say from then on;
        everything else is exact. DynamoDB: PutItem of each series, then of the study with a ConditionExpression.
        """
        ...

    def search(self, query: Query) -> Iterator[StudyRecord]:
        """Matching studies, newest study date first, without their series' attributes being complete: ``series``
        may be empty. An empty query gives all studies.

        What each condition means: see `Query`. A study without a date is in no range of dates.
        A study that was put a moment ago may be missing. Memory holds pages, not the answer. DynamoDB: Query of
        indexes.
        """
        ...

    def shortcomings(self, query: Query) -> tuple[str, ...]:
        """What an answer to this query does not cover, or costs more than it should, for want of an index or of entries
        that this version made: sentences for whoever asks. DynamoDB: DescribeTable and GetItem, once."""
        ...

    def completed(self) -> None:
        """Every study was recorded by this version of the program, as `catalogue rebuild` does: searches may rely on
        its indexes. DynamoDB: PutItem."""
        ...

    def is_completed(self) -> bool:
        """Whether that is known. Where it is not, a study that is recorded as it should be may still have to be `put`
        again to be found by all that it is searched by. DynamoDB: GetItem."""
        ...

    def study_uids(self) -> Iterator[Uid]:
        """Every study's UID (0020,000D), once, in no order, streamed. DynamoDB: Scan, ConsistentRead."""
        ...

    def identity(self) -> str | None:
        """The archive id (`archive.identity`) this catalogue belongs to; None when none was written yet. Raises
        NotInitialised when there is no table or file. DynamoDB: GetItem, ConsistentRead."""
        ...

    def check(self) -> None:
        """Whether it is there and usable. Raises NotInitialised where `initialise` would help, ArchiveRefused or
        OutOfReach. DynamoDB: DescribeTable and GetItem."""
        ...

    def initialise(self, archive_id: str) -> list[InitStep]:
        """Create what is missing, write the identity once; a second run changes nothing. Raises ArchiveRefused
        when the catalogue belongs to another archive already.

        Each step is named each time, with what came of it. DynamoDB: CreateTable, UpdateTable (indexes, deletion
        protection), UpdateContinuousBackups (point-in-time recovery), PutItem.
        """
        ...

    def close(self) -> None:
        """Give back connections; the catalogue is not used any more. Raises nothing."""
        ...
