"""What a deletion goes by, and what it works with: the rules that hold for a file, the evidence that the archive has
it, and a few services. `policy` and `evidence` are both protocols for a shipment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dicomwatchd.answering import Inboxes
from dicomwatchd.archive.stores.port import Receipt, Standing
from dicomwatchd.pipeline.deletion.final_check import FinalCheck
from dicomwatchd.pipeline.deletion.proof import DeletionProof
from dicomwatchd.ports import Cancellation, Clock
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.rows import LocalFile, Source

#: What a file is to its object, by a fresh look at both (see ObjectStore.standing).
Stands = Callable[[os.stat_result], Standing]


class Policy(Protocol):
    """What holds for a local file at the moment of the question. All raise Transient where its source has ended."""

    def source(self, file: LocalFile) -> Source:
        """Where it is."""
        ...

    def pinned(self, file: LocalFile) -> Source:
        """The same, which opens as the confirmed folder alone: opening it raises Exchanged where that is another."""
        ...

    def due_at(self, file: LocalFile) -> float | None:
        """When it may go: now or earlier, later, or never (None). Asked right before a file is touched, and before it
        goes: whoever asked for its deletion may have taken that back."""
        ...

    def needs_lease(self, file: LocalFile) -> bool:
        """Whether it stays where no read lease is to be had on it."""
        ...

    def standing(self, file: LocalFile) -> Stands | None:
        """None where objects are no files."""
        ...


def is_due(due_at: float | None, now: float) -> bool:
    return due_at is not None and due_at <= now


class Evidence(Protocol):
    """That the archive has these files."""

    def receipt(self, file: LocalFile) -> Receipt:
        """Of the object that its proof names."""
        ...

    def prove(self, file: LocalFile) -> DeletionProof:
        """On what was asked for already. Raises NoProof, Transient."""
        ...

    def prove_again(self, file: LocalFile) -> DeletionProof:
        """Asks the archive anew, in the thread that calls it, for a file whose comparison has taken longer than its
        proof holds. Raises NoProof, Transient."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """``final_check`` is asked once files are staged. ``cancelled`` is asked while a file is compared, and nothing of
    it is done yet; ``heartbeat`` is called by whoever works, before each file: saving what was written too late may
    take minutes. ``left_staged`` gets the id of a source in which a staged file could not be put back."""

    deletions: Deletions
    clock: Clock
    inboxes: Inboxes
    final_check: FinalCheck
    cancelled: Cancellation
    heartbeat: Callable[[], None]
    left_staged: Callable[[int], None]
    #: Asked right before each unlink: raises StudyErased, and Transient where the study was erased since the shipment
    #: began, and released. See `pipeline.erased` for how old its word may be.
    require_not_erased: Callable[[], None]
