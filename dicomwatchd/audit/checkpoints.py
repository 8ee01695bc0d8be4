"""Publishing the head of the audit chain in the archive, and comparing the chain with what was published of it.

A chain whose newest entries were cut off is whole in itself. But the archive, where nothing is overwritten, holds heads
of it: a chain that does not contain the newest of them, hash for hash, has lost entries. A head is only published by a
daemon whose chain contains the one before, so the newest stands for all.

Archiving does not hang on this: a chain that was cut is told of, loudly and for good, and no proof rests on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dicomwatchd.archive.layout import audit_checkpoints
from dicomwatchd.archive.layout.audit_checkpoints import AuditCheckpoint, BadCheckpoint
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Stopping
from dicomwatchd.ports import Clock, Log, timestamp
from dicomwatchd.queue.audit import Audit
from dicomwatchd.telemetry.fields import error_fields

#: So long after something new the head is published: what was deleted since can be cut off unnoticed.
PUBLISH_SECONDS = 60.0
_MOST_CHAINS = 100

Outcome = Literal["fits", "none", "cut", "differs", "unreadable", "unknown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``outcome``: "fits"; "none" was published yet; "cut", the chain ends before the ``published`` head; "differs",
    the entry of that number is another one; "unreadable", what is published is no head; "unknown", the archive does
    not answer (``reason``)."""

    outcome: Outcome
    published: AuditCheckpoint | None = None
    reason: str | None = None

    @property
    def is_bad(self) -> bool:
        return self.outcome in ("cut", "differs", "unreadable")

    @property
    def text(self) -> str:
        """In plain words."""
        p = self.published
        number, at = (p.sequence, p.published_at) if p else (0, "")
        return {
            "fits": f"it holds entry {number}, which was published in the archive at {at}",
            "none": "none of it has been published in the archive yet",
            "cut": f"entries are missing at its end: entry {number} was published in the archive at {at}",
            "differs": f"its entry {number} differs from the published one in the archive at {at}",
            "unreadable": "its checkpoint in the archive cannot be read",
            "unknown": f"its published checkpoint is unknown: {self.reason}",
        }[self.outcome]


def compare(audit: Audit, store: ObjectStore) -> Comparison:
    """Whether the chain holds what was published of it. Raises nothing of its own: what fails is "unknown"."""
    try:
        return _compared(audit, audit_checkpoints.newest(store, audit.head().chain_id))
    except BadCheckpoint as error:
        return Comparison("unreadable", reason=error.message)
    except DicomwatchdError as error:
        return Comparison("unknown", reason=error.message)


def _compared(audit: Audit, published: AuditCheckpoint | None) -> Comparison:
    if published is None:
        return Comparison("none")
    found = audit.hash_at(published.sequence)
    if found is None:
        return Comparison("cut", published)
    return Comparison("fits" if found == published.sha256 else "differs", published)


def report(audit: Audit, store: ObjectStore) -> dict[str, Any]:
    """The comparison for `prove`, with the other chains that the archive knows: of other daemons, or of a state of this
    one that was lost."""
    mine, compared = audit.head(), compare(audit, store)
    first: str | None = None
    others: list[dict[str, str]] = []
    if compared.outcome != "unknown":
        try:
            for chain in audit_checkpoints.chains(store):
                if chain.chain_id == mine.chain_id:
                    first = chain.published_at
                elif len(others) < _MOST_CHAINS:
                    others.append({"chain_id": chain.chain_id, "first_published_at": chain.published_at})
        except BadCheckpoint as error:
            compared = Comparison("unreadable", compared.published, error.message)
        except DicomwatchdError as error:
            compared = Comparison("unknown", compared.published, error.message)
    return {
        "chain_id": mine.chain_id,
        "first_published_at": first,
        "outcome": compared.outcome,
        "holds": not compared.is_bad,
        "text": compared.text,
        "head": compared.published and asdict(compared.published),
        "other_chains": others,
    }


class Checkpoints:
    """Compares at the start and before each publication; publishes the head every now and then. `step` may be called
    from several threads."""

    def __init__(
        self,
        audit: Audit,
        store: ObjectStore,
        clock: Clock,
        log: Log,
        in_trouble: Callable[[], bool] = lambda: False,
        *,
        require_archive: Callable[[], None],
    ) -> None:
        """``in_trouble`` tells that the archive does not answer at the moment, so that it is left alone;
        ``require_archive`` raises where the store is another place than the archive."""
        self._audit = audit
        self._store = store
        self._clock = clock
        self._log = log
        self._in_trouble = in_trouble
        self._require_archive = require_archive
        self._lock = threading.Lock()
        self._has_read = False
        self._due_at: float | None = None
        self._try_at = clock.monotonic()
        self._published: AuditCheckpoint | None = None
        self._failing = ""
        self.finding: Comparison | None = None

    @property
    def published(self) -> int:
        """The number of the newest entry that is known to be published; 0 while none is."""
        return self._published.sequence if self._published else 0

    @property
    def covered(self) -> int:
        """Up to this entry the chain may be put into the archive: what was published of it. A chain that was cut is
        not published any more, and goes there as far as it goes; 0 before it was looked at."""
        if not self._has_read:
            return 0
        return self._audit.head().sequence if self.is_bad else self.published

    @property
    def problem(self) -> str | None:
        """What a person has to know, in plain words."""
        if self.finding is not None and self.finding.is_bad:
            return f"the audit chain has changed: {self.finding.text}"
        return f"the head of the audit chain cannot be published: {self._failing}" if self._failing else None

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        while not stopping.is_set():
            beat()
            self.tick()
            stopping.wait(1.0)

    def tick(self) -> None:
        """To be called every second or so: a step at once, and then one whenever the chain's newest deletion is not
        published after its time. So an hour without a deletion costs no head, and a burst of them costs one."""
        now = self._clock.monotonic()
        if self._due_at is None and self._audit.head().sequence > self.published:
            self._due_at = now + PUBLISH_SECONDS
        if (self._has_read or now < self._try_at) and not (self._due_at is not None and now >= self._due_at):
            return
        self._due_at, self._try_at = None, now + PUBLISH_SECONDS
        self.step()

    def step(self) -> None:
        """Compare, and publish the head if it has moved since. What fails is told and tried again at the next step."""
        if self._in_trouble():
            return
        with self._lock:
            try:
                self._step()
                self._failing = ""
            except Stopping:
                pass  # the next run publishes it
            except DicomwatchdError as error:
                if self._failing != error.message:
                    self._log.warning(
                        "audit-unpublished",
                        "the head of the audit chain cannot be published at the moment",
                        **error_fields(error),
                    )
                self._failing = error.message

    def _step(self) -> None:
        try:
            self._publish()
        except BadCheckpoint as error:
            self._require_archive()
            self._found(Comparison("unreadable", reason=error.message))

    def _publish(self) -> None:
        head = self._audit.head()
        if not self._has_read or head.sequence > self.published:
            # Another machine may go on with a copy of this state: what it has published is looked at before each head.
            newest = audit_checkpoints.newest(self._store, head.chain_id)
            if newest is not None and newest.sequence >= self.published and newest != self._published:
                self._require_archive()
                self._published = newest
            self._has_read = True
        self._found(_compared(self._audit, self._published))
        # A chain that was cut is not covered by a newer head of what is left of it.
        if self.is_bad or head.sequence <= self.published:
            return
        wanted = AuditCheckpoint(head.chain_id, head.sequence, head.sha256, timestamp(self._clock.now()))
        published = audit_checkpoints.publish(self._store, wanted)
        # Segments are sealed up to what counts as published: the archive must not have less.
        self._require_archive()
        self._published = published
        self._found(_compared(self._audit, self._published))

    @property
    def is_bad(self) -> bool:
        return self.finding is not None and self.finding.is_bad

    def _found(self, finding: Comparison) -> None:
        if self.is_bad:
            return
        self.finding = finding
        if finding.is_bad:
            head, published = self._audit.head(), finding.published
            self._log.error(
                "audit-cut",
                "the audit chain does not match its published checkpoint; the record of deletions is incomplete",
                audit_chain=head.chain_id,
                audit_sequence=head.sequence,
                audit_published=published and published.sequence,
            )
