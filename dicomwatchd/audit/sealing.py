"""Finished segments of the audit chain go to the archive, and their entries from here.

In this order, each step of which can be repeated after a crash: a segment is written down with its bounds; it is sent,
under a key that names its content; it is read back from the store, every byte, and its entries followed one by one from
the last segment's head to its own; that is written down; and only then its entries are deleted here, a few at a time.
The record of deletions is evidence: there is no moment at which the archive is not known to hold what is not here.

Nothing newer than the newest audit checkpoint is sealed (see audit.checkpoints), so that the chain is always known
here at the number that the head names."""

from __future__ import annotations

from collections.abc import Callable

from dicomwatchd.archive.layout import audit_segments
from dicomwatchd.archive.layout.audit_segments import BadSegment, Header, SegmentKey
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.audit.proving import Archived
from dicomwatchd.errors import DicomwatchdError, Stopping, Transient
from dicomwatchd.ports import Log
from dicomwatchd.queue.audit import Audit
from dicomwatchd.queue.segments import Segment, Segments
from dicomwatchd.telemetry.fields import error_fields

#: A segment is finished when it has so many entries, 3 MB of an object, or when its first is so old.
SEGMENT_ENTRIES = 20_000
SEGMENT_SECONDS = 86_400.0
#: So many entries are deleted in one transaction, about a megabyte.
CLEAR_ENTRIES = 1_000
#: A key that holds something else is passed over; a store in which so many do is in trouble.
_MOST_ATTEMPTS = 9
#: What has failed is tried again after so many steps for nothing: a minute, at the pace of pipeline.upkeep.
REST_STEPS = 12


class Sealing:
    """One thread calls `step`. ``covered`` tells up to which entry the chain is published, ``archived`` whether the
    archive holds what was sealed, ``in_trouble`` that it does not answer at the moment, so that it is left alone;
    ``require_archive`` raises where the store is another place than the archive."""

    def __init__(
        self,
        audit: Audit,
        segments: Segments,
        store: ObjectStore,
        covered: Callable[[], int],
        archived: Callable[[], Archived],
        log: Log,
        in_trouble: Callable[[], bool] = lambda: False,
        *,
        require_archive: Callable[[], None],
        entries: int = SEGMENT_ENTRIES,
        seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self._audit = audit
        self._segments = segments
        self._store = store
        self._covered = covered
        self._archived = archived
        self._log = log
        self._in_trouble = in_trouble
        self._require_archive = require_archive
        self._entries = entries
        self._seconds = seconds
        self._failing = ""
        self._rest = 0
        self._found: Archived | None = None

    @property
    def problem(self) -> str | None:
        """What a person has to know, in plain words."""
        if self._found is not None and not self._found.holds:
            return f"the audit chain in the archive has changed: {self._found.text}"
        return f"the audit chain cannot be sealed: {self._failing}" if self._failing else None

    def step(self) -> bool:
        """One piece of work; whether another one may be done at once. What fails is told and tried again."""
        if self._segments.clear(CLEAR_ENTRIES):
            return True
        if self._in_trouble():
            return False
        if self._rest:
            self._rest -= 1
            return False
        self._find_end()
        segment = self._segments.under_way() or self._segments.begin(
            self._covered(), entries=self._entries, seconds=self._seconds
        )
        if segment is None:
            return False
        try:
            self._seal(segment)
        except Stopping:
            return False
        except DicomwatchdError as error:
            if self._failing != error.message:
                self._log.warning(
                    "audit-unsealed",
                    "a segment of the audit chain cannot be sealed at the moment",
                    **error_fields(error),
                )
            self._failing, self._rest = error.message, REST_STEPS
            return False
        self._failing = ""
        return True

    def _find_end(self) -> None:
        """At the start: whether the archive still holds what was sealed."""
        if self._found is not None and self._found.unknown is None:
            return
        self._found = self._archived()
        if self._found.unknown:
            self._rest = REST_STEPS
        if not self._found.holds:
            self._log.error(
                "audit-segments",
                "segments of the audit chain in the archive are missing or changed; see dicomwatchctl prove",
                audit_chain=self._audit.head().chain_id,
                segments_count=len(self._found.problems),
            )

    def _seal(self, segment: Segment) -> None:
        chain_id = self._audit.head().chain_id
        broken_at = self._audit.broken_between(segment.first, segment.last, segment.previous)
        if broken_at is not None:
            raise BadSegment(f"it is broken at entry {broken_at}")
        header = Header(chain_id, segment.first, segment.last, segment.previous, segment.head)
        packed = audit_segments.pack(header, self._segments.texts(segment))
        name = SegmentKey(chain_id, segment.first, segment.last, packed.sha256, segment.attempt)
        self._store.put(name.key, Buffer.of(packed.data))
        stored = self._store.head(name.key)
        if stored is None:
            raise Transient("a segment that was just sent is not in the store", code="segment-missing")
        try:
            found, _ = audit_segments.read_checked(self._store, name)
        except BadSegment:
            if segment.attempt < _MOST_ATTEMPTS:
                self._segments.another_key(segment)
            raise
        if found != header:
            raise BadSegment("a segment that was just sent differs in the store")
        self._require_archive()
        self._segments.sealed(segment, sha256=packed.sha256, size_bytes=stored.size_bytes, studies=packed.studies)
        self._log.info(
            "audit-sealed",
            "a segment of the audit chain was sealed in the archive",
            audit_chain=chain_id,
            audit_sequence=segment.last,
            audit_sha256=segment.head,
            bytes=stored.size_bytes,
        )
