"""The record of deletions as a whole: what is here of the audit chain and what of it is in the archive.

The chain's newest entries are in the state; older ones are finished segments in the archive (pipeline.sealing). The
state knows of each segment where it is and by its SHA-256 what it is, so a listing tells whether all are there, and one
that is read whether it is what it was. A chain whose state was lost is followed by the segments alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dicomwatchd.archive.layout import audit_checkpoints, audit_segments
from dicomwatchd.archive.layout.audit_segments import BadSegment, Header, SegmentKey
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.audit import checkpoints
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.queue.audit import FIRST, Audit, AuditEntry, archived_entry, deletions, erasures, releases
from dicomwatchd.queue.segments import Segment, Segments

_MOST_TOLD = 20
_CHAIN = re.compile(r"[0-9a-f]{32}")


@dataclass
class Archived:
    """What was found of a chain's segments. ``problems`` say in plain words which is missing, damaged or another one;
    ``unknown`` why nothing can be said of the archive now; ``elsewhere`` are segments of an archive that was
    exchanged for this one."""

    segments: int = 0
    entries: int = 0
    read: int = 0
    elsewhere: int = 0
    problems: list[str] = field(default_factory=list)
    unknown: str | None = None

    @property
    def holds(self) -> bool:
        return not self.problems

    @property
    def outcome(self) -> str:
        return "bad" if self.problems else "unknown" if self.unknown else "whole"

    @property
    def text(self) -> str:
        if self.problems:
            more = len(self.problems) - 3
            return "; ".join(self.problems[:3]) + (f"; and {more} more" if more > 0 else "")
        if self.unknown:
            return f"its part in the archive is unknown: {self.unknown}"
        if self.elsewhere:
            return f"{self.segments} segments are in the archive, {self.elsewhere} in the previous one"
        return f"{self.segments} segments, of {self.entries} entries, are in the archive"

    def as_dict(self) -> dict[str, Any]:
        return {
            "segments": self.segments,
            "entries": self.entries,
            "read": self.read,
            "elsewhere": self.elsewhere,
            "holds": self.holds,
            "outcome": self.outcome,
            "problems": self.problems[:_MOST_TOLD],
            "text": self.text,
        }


def archived(audit: Audit, segments: Segments, store: ObjectStore, archive_id: str, *, whole: bool = False) -> Archived:
    """Whether the archive holds the segments that this chain has there, by a listing; ``whole``: and reads each of
    them. Raises nothing of its own: what fails is "unknown"."""
    found = Archived()
    for _ in range(2):  # a segment may have been sealed while the store was listed
        found = Archived()
        try:
            _compare(audit, segments, store, archive_id, whole, found)
        except DicomwatchdError as error:
            found.unknown = error.message
        if found.holds:
            break
    return found


def _compare(
    audit: Audit, segments: Segments, store: ObjectStore, archive_id: str, whole: bool, found: Archived
) -> None:
    misfit = segments.misfit()
    if misfit is not None:
        found.problems.append(f"the list of segments is wrong from entry {misfit} on")
    chain_id, under_way = audit.head().chain_id, segments.under_way()
    stored = _Peekable(audit_segments.listed(store, chain_id))
    end = 0
    for segment in segments.all():
        found.entries += segment.last - segment.first + 1
        end = segment.last
        if segment.archive_id != archive_id:
            found.elsewhere += 1
            continue
        found.segments += 1
        _strays(stored, partial(_before, segment.first), found, under_way)
        name, is_there = _name(chain_id, segment), False
        while (seen := stored.next_if(partial(_before, segment.first + 1))) is not None:
            if seen[0] == name:
                is_there = True
                if seen[1] != segment.size_bytes:
                    found.problems.append(f"the segment of {name.text} has changed its size")
            elif not (seen[0].sha256 == name.sha256 and seen[0].last == name.last and seen[0].attempt < name.attempt):
                found.problems.append(f"there is another segment of {seen[0].text}, which is not the sealed one")
        if not is_there:
            found.problems.append(f"the segment of {name.text} is missing")
        elif whole:
            _read(store, name, segment, lambda _: False, found)
    _strays(stored, lambda _: True, found, under_way, end)


def _before(first: int, name: SegmentKey) -> bool:
    return name.first < first


def _strays(
    stored: _Peekable,
    which: Callable[[SegmentKey], bool],
    found: Archived,
    under_way: Segment | None,
    end: int | None = None,
) -> None:
    """Segments in the store that this chain has not sealed: another one, or more of it than is here. One that is just
    under way is neither."""
    while (seen := stored.next_if(which)) is not None:
        name = seen[0]
        if under_way is not None and (name.first, name.last) == (under_way.first, under_way.last):
            continue
        if end is not None and name.last > end:
            found.problems.append(f"local entries are missing: {name.text} were sealed in the archive")
        else:
            found.problems.append(f"there is a segment of {name.text} that was never sealed")


class _Peekable:
    def __init__(self, source: Iterator[tuple[SegmentKey, int]]) -> None:
        self._source = source
        self._next = next(source, None)

    def next_if(self, which: Callable[[SegmentKey], bool]) -> tuple[SegmentKey, int] | None:
        found = self._next
        if found is None or not which(found[0]):
            return None
        self._next = next(self._source, None)
        return found


def _name(chain_id: str, segment: Segment) -> SegmentKey:
    return SegmentKey(chain_id, segment.first, segment.last, segment.sha256 or FIRST, segment.attempt)


def _read(
    store: ObjectStore, name: SegmentKey, segment: Segment, wanted: Callable[[str], bool], found: Archived
) -> list[str]:
    try:
        header, texts = audit_segments.read_checked(store, name, wanted)
    except BadSegment as error:
        found.problems.append(error.message)
        return []
    found.read += 1
    if (header.previous, header.head) != (segment.previous, segment.head):
        found.problems.append(f"the segment of {name.text} does not fit between the others")
        return []
    return texts


def _of(study_uid: str) -> Callable[[str], bool]:
    """Whether an entry is the study's. The text is looked at first, for most are not."""

    def wanted(text: str) -> bool:
        return study_uid in text and json.loads(text).get("study_uid") == study_uid

    return wanted


def _number(text: str, sequence: int) -> bool:
    """Whether an entry has this number."""
    return f'"sequence":{sequence}' in text and bool(json.loads(text).get("sequence") == sequence)


def chain_id(given: str) -> str:
    """Raises Permanent for what names no chain."""
    if not _CHAIN.fullmatch(given):
        raise Permanent("a chain ID has 32 lower-case hexadecimal digits", code="bad-chain")
    return given


class Prover:
    """What `prove` answers."""

    def __init__(self, audit: Audit, segments: Segments, store: ObjectStore, archive_id: str) -> None:
        self._audit = audit
        self._segments = segments
        self._store = store
        self._archive_id = archive_id

    def check(self) -> tuple[int | None, int]:
        """As `Audit.check`."""
        return self._audit.check()

    def compare(self) -> checkpoints.Comparison:
        """Whether the chain holds what was published of it."""
        return checkpoints.compare(self._audit, self._store)

    def archived(self, *, whole: bool = False) -> Archived:
        """Whether the archive holds its segments; see `archived`."""
        return archived(self._audit, self._segments, self._store, self._archive_id, whole=whole)

    def prove(self, study_uid: str, *, whole: bool = False) -> dict[str, Any]:
        """The record of a study's deletions by this state's chain, with whether the chain holds: what is here of it,
        each segment that speaks of the study or, if ``whole``, every segment, and that the others are there."""
        found = self.archived(whole=whole)
        chain_id = self._audit.head().chain_id
        while True:
            mine = self._segments.of_study(study_uid)
            entries = self._archived_entries(chain_id, mine, study_uid, found)
            said = self._audit.proofs(study_uid, entries)
            if self._segments.of_study(study_uid) == mine:
                break  # else a segment was sealed meanwhile, and its entries are no longer here
        return {
            **said,
            "published": checkpoints.report(self._audit, self._store),
            "archived": found.as_dict(),
        }

    def _archived_entries(
        self, chain_id: str, mine: list[Segment], study_uid: str, found: Archived
    ) -> list[AuditEntry]:
        entries: list[AuditEntry] = []
        for segment in mine:
            if segment.archive_id != self._archive_id:
                found.problems.append(
                    f"entries {segment.first} to {segment.last} are in the previous archive, {segment.archive_id}"
                )
                continue
            try:
                texts = _read(self._store, _name(chain_id, segment), segment, _of(study_uid), found)
            except DicomwatchdError as error:
                found.unknown = error.message
                continue
            entries += [archived_entry(text) for text in texts]
        return entries

    def prove_by_archive(self, study_uid: str, chain_id: str) -> dict[str, Any]:
        """The same of a chain whose state is not here, another daemon's or one that was lost, by its segments in the
        archive alone, each of which is read. Raises Transient, Permanent when the archive does not answer."""
        found, walk, entries = Archived(), _Chain(), []
        newest = audit_checkpoints.newest(self._store, chain_id)
        published, of_study = newest.sequence if newest else 0, _of(study_uid)

        def wanted(text: str) -> bool:
            return of_study(text) or _number(text, published)

        for name, _size in audit_segments.listed(self._store, chain_id):
            try:
                header, texts = audit_segments.read_checked(self._store, name, wanted)
            except BadSegment as error:
                found.problems.append(error.message)
                continue
            found.read += 1
            if walk.take(header, name, found):
                entries += [archived_entry(text) for text in texts if of_study(text)]
                if newest is not None and any(
                    _number(text, published) and hashlib.sha256(text.encode("ascii")).hexdigest() != newest.sha256
                    for text in texts
                ):
                    found.problems.append(f"entry {published} differs from the published one")
        if published < walk.end:  # no daemon seals what it has not published: it may have done both meanwhile
            newest = audit_checkpoints.newest(self._store, chain_id)
            published = newest.sequence if newest else 0
        if 0 < published < walk.end:
            found.problems.append(f"entries {published + 1} to {walk.end} were never published")
        elif not published and walk.end:
            found.problems.append(f"its head was never published, though {walk.end} entries were sealed")
        broken = not found.holds
        return {
            "study_uid": study_uid,
            "files": deletions(entries),
            "releases": releases(entries),
            "erasures": erasures(entries),
            "chain_holds": not broken,
            "broken_at": walk.end + 1 if broken else None,
            "chain_entries": walk.end,
            "published": {
                "chain_id": chain_id,
                "first_published_at": None,
                "outcome": "fits" if walk.end else "none",
                "holds": not broken,
                "text": walk.text(published or walk.end),
                "head": None,
                "other_chains": [],
            },
            "archived": found.as_dict(),
        }


class _Chain:
    """Follows segments that come in their order."""

    def __init__(self) -> None:
        self.end, self.head = 0, FIRST

    def take(self, header: Header, name: SegmentKey, found: Archived) -> bool:
        """Whether this is the next one, or the next that there is."""
        if header.first <= self.end:
            if (header.last, header.head) != (self.end, self.head):
                found.problems.append(f"there is another segment of {name.text}")
            return False
        if header.first > self.end + 1:
            found.problems.append(f"entries {self.end + 1} to {header.first - 1} are missing")
        elif header.previous != self.head:
            found.problems.append(f"the segment of {name.text} does not follow the one before it")
        found.segments += 1
        found.entries += header.last - header.first + 1
        self.end, self.head = header.last, header.head
        return True

    def text(self, published: int) -> str:
        if published <= self.end:
            return f"its {self.end} entries are in the archive"
        return (
            f"its first {self.end} entries are in the archive; entries {self.end + 1} to {published} were published,"
            " but were only in the state when it was lost, or are in the state of another daemon"
        )
