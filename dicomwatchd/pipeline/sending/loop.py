"""The one upload loop: batches go to the workers, what is stored is committed, what was met is reported.

A quiet study's shipment (`quiet`) and what is sent while a study arrives (`early`) differ in what they do with the
outcomes, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

from dicomwatchd.errors import DicomwatchdError, Fatal
from dicomwatchd.pipeline.sending import bundling
from dicomwatchd.pipeline.sending.batches import UploadBatch
from dicomwatchd.pipeline.sending.instances import Outcome, concerns_all, send_each
from dicomwatchd.pipeline.shipment import Context, ObjectLocation
from dicomwatchd.ports import Map
from dicomwatchd.queue.rows import LocalFile

#: Files whose receipts are committed together.
COMMIT_EVERY = 64

#: What the queue keeps of a file that was stored: the SHA-256 of its bytes, and where it is (`ObjectLocation.to_text`).
Stored: TypeAlias = tuple[LocalFile, str, str]


class Results(Protocol):
    """What becomes of the outcomes. All of it is called by the thread that runs the loop."""

    def stored(self, file: LocalFile, location: ObjectLocation) -> None:
        """The store holds the file, as far as it says; `commit` follows."""
        ...

    def commit(self, files: Sequence[Stored]) -> None:
        """Write down that these are stored. Raises Transient (the state), ClaimLost."""
        ...

    def failed(self, file: LocalFile, error: Exception) -> None:
        """The file was not sent."""
        ...


def send(batch: UploadBatch, context: Context) -> list[Outcome]:
    """Send a batch; an outcome for each of its files. An error is an outcome like another here: the other files of the
    page go on, and what they have reached is committed."""
    try:
        context.erased.require_none(batch.files[0].header.study_uid)
    except DicomwatchdError as error:
        return [(file, error) for file in batch.files]
    if batch.there is not None:
        return bundling.take_over(batch.files, batch.there, context)
    if batch.is_bundle and len(batch.files) > 1:
        return bundling.send_bundle(batch.files, context)
    return send_each(batch.files, context)


def upload(
    batches: Iterable[UploadBatch],
    run: Map,
    results: Results,
    send_batch: Callable[[UploadBatch], Sequence[tuple[LocalFile, ObjectLocation | Exception]]],
    goes_on: Callable[[], bool] = lambda: True,
) -> DicomwatchdError | None:
    """Send all of it, as far as it ``goes_on``. Returns what a file has met that all others would meet, too: from that
    moment on no more batches are sent. A Fatal one goes before others. Raises what ``results`` and ``send_batch``
    raise; what was stored before is committed even so."""
    met: list[DicomwatchdError] = []

    def work(batch: UploadBatch) -> Sequence[tuple[LocalFile, ObjectLocation | Exception]]:
        if met or not goes_on():
            return []
        outcomes = send_batch(batch)
        # At once, by the worker itself: what is next must not meet it too.
        met.extend(error for _, error in outcomes if isinstance(error, DicomwatchdError) and concerns_all(error))
        return outcomes

    uncommitted: list[Stored] = []
    try:
        for file, outcome in chain.from_iterable(run(work, batches)):
            if isinstance(outcome, ObjectLocation):
                uncommitted.append((file, outcome.sha256, outcome.to_text()))
                results.stored(file, outcome)
                if len(uncommitted) >= COMMIT_EVERY:
                    results.commit(uncommitted)
                    uncommitted = []
            else:
                results.failed(file, outcome)
    finally:
        if uncommitted:
            results.commit(uncommitted)
    return next((error for error in met if isinstance(error, Fatal)), met[0] if met else None)
