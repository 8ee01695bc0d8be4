"""Files that are kept because no read lease was to be had on them (``without_lease: keep``), and when they may go.

A program that opened a file long before can write to it at any time, and only a lease tells of it. So such a file
stays, archived as it is, until a lease is to be had: after the daemon was given CAP_LEASE, say. That is tried at each
start, and when the operator asks for the study again; never in a loop.
"""

from __future__ import annotations

from dicomwatchd.answering import Inboxes
from dicomwatchd.errors import SourceChanged, Transient, Unarchivable
from dicomwatchd.localfiles import WriterPresent, read_lease
from dicomwatchd.pipeline.deletion.port import Policy
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.ports import Map
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.rows import LocalFile, Source

REASON = "archived; kept because no read lease can be taken, so a program that has it open would not be noticed"
#: Kept files of a source that are tried at a start: leases come with a capability or a file system, for all alike.
SAMPLE = 100


def lease_on(source: Source, file: LocalFile, inboxes: Inboxes | None = None) -> bool | None:
    """Whether a read lease is to be had on this file now; None where that cannot be told, since the file is another
    one, cannot be opened, or is open for writing somewhere."""
    try:
        with Folders(inboxes) as folders, folders.opened(source, file) as (_, fd), read_lease(fd) as leased:
            return leased
    except (SourceChanged, Unarchivable, Transient, WriterPresent):
        return None


def among(files: list[LocalFile], run: Map, policy: Policy, inboxes: Inboxes) -> list[LocalFile]:
    """Those that need a lease and get none: found before they are put on record, so that a file that is kept for good
    leaves no trail of deletions that did not happen."""

    def look(file: LocalFile) -> tuple[LocalFile, bool | None]:
        return file, lease_on(policy.source(file), file, inboxes)

    return [file for file, leased in run(look, [file for file in files if policy.needs_lease(file)]) if leased is False]


def release_kept(deletions: Deletions, source: Source, rule: AfterArchive) -> int:
    """At start: let the files of a source that were kept for want of a lease fall due, if a lease is to be had by now,
    or none is asked for any more. Each is proven afresh before it goes, and kept again where its own lease is refused.
    Returns how many."""
    if not rule.delete and rule.keep_seconds is None:
        return 0
    if rule.needs_lease and not any(
        lease_on(source, f) for f in deletions.kept_without_lease(source.source_id, SAMPLE)
    ):
        return 0
    return deletions.release_kept(source.source_id)
