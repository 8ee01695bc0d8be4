"""The record of deletions as a whole: what is in the state, and what was sealed and is in the archive."""

from __future__ import annotations

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import audit_checkpoints, audit_segments
from dicomwatchd.archive.layout.audit_segments import BadSegment, SegmentKey
from dicomwatchd.audit import checkpoints, proving
from dicomwatchd.queue import Queue
from dicomwatchd.queue.audit import AuditEntry, archived_entry
from tests.simulation.archive import ARCHIVE_ID, Shelf
from tests.simulation.chance import Violation


def entries(queue: Queue, shelf: Shelf) -> list[AuditEntry]:
    """All there are, in their order."""
    with queue._database.read() as db:
        here = [archived_entry(row[0]) for row in db.execute("SELECT entry FROM audit ORDER BY sequence").fetchall()]
    first = here[0].sequence if here else 1 << 62
    return [*(entry for entry in _sealed(queue, shelf) if entry.sequence < first), *here]


def _sealed(queue: Queue, shelf: Shelf) -> list[AuditEntry]:
    chain_id = queue.audit.head().chain_id
    found: list[AuditEntry] = []
    for segment in queue.segments.all():
        name = SegmentKey(chain_id, segment.first, segment.last, segment.sha256 or "", segment.attempt)
        try:
            _, texts = audit_segments.read_checked(shelf, name, lambda _: True)
        except BadSegment as error:
            raise Violation(f"a part of the record of deletions is lost: {error.message}") from error
        found += map(archived_entry, texts)
    return found


def require_published(queue: Queue, shelf: Shelf) -> None:
    """Nothing is sealed that no audit checkpoint covers."""
    sealed = max((segment.last for segment in queue.segments.all()), default=0)
    if sealed and sealed > _published(queue, shelf):
        raise Violation("a part of the record of deletions was sealed that was never published")


def require_whole(queue: Queue, shelf: Shelf) -> None:
    """Anybody who asks finds the record whole, here and in the archive."""
    found = proving.archived(queue.audit, queue.segments, shelf, ARCHIVE_ID, whole=True)
    if found.outcome != "whole":
        raise Violation(f"the record of deletions in the archive is not whole: {found.text}")
    compared = checkpoints.compare(queue.audit, shelf)
    if compared.outcome != ("fits" if queue.audit.head().sequence else "none"):
        raise Violation(f"the record of deletions is not what was published: {compared.text}")
    if queue.audit.head().sequence != _published(queue, shelf):
        raise Violation("the end of the record of deletions was not published")


def _published(queue: Queue, shelf: Shelf) -> int:
    prefix = keys.audit_checkpoints_prefix(queue.audit.head().chain_id)
    newest = next((key for key in sorted(shelf.objects) if key.startswith(prefix)), None)
    return 0 if newest is None else audit_checkpoints._load(shelf, newest).sequence
