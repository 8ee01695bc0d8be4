"""Small files by the batch: how many go together, and that each has its own end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.errors import DicomwatchdError, Fatal, OutOfReach, SourceChanged, Transient
from dicomwatchd.model import FileIdentity, FileState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import batch as deleting
from dicomwatchd.pipeline.sending import loop
from dicomwatchd.pipeline.sending.batches import BATCH_FILES, BatchPlan, UploadBatch
from dicomwatchd.pipeline.sending.instances import concerns_all
from dicomwatchd.pipeline.shipment import ObjectLocation
from dicomwatchd.queue.rows import LocalFile
from tests.pieces import Pieces
from tests.simulation.tiny import instance

STUDY = Uid("1.2.1")


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """Eight files of one study in two folders, settled, queued."""
    pieces = Pieces(tmp_path)
    for number in range(8):
        folder = pieces.inbox / f"S{number % 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"IM{number}").write_bytes(instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number))
    pieces.settle()
    yield pieces
    pieces.close()


def claimed(pieces: Pieces) -> list[LocalFile]:
    claim = pieces.queue.claims.claim()
    assert claim is not None
    [page] = pieces.queue.shipments.pages(claim, FileState.READY, 100)
    return page


@pytest.mark.parametrize(
    ("files", "at_once", "sizes"),
    [
        (0, 1, []),
        (1, 1, [1]),
        (8, 1, [4, 2, 1, 1]),
        (8, 2, [2, 1, 1, 1, 1, 1, 1]),
        (8, 4, [1] * 8),
        (8, 1000, [1] * 8),
        (100, 4, [4] * 18 + [3, 3, 2, 2, 2, 2] + [1] * 14),
    ],
)
def test_a_batch_is_as_large_as_leaves_enough_for_all(
    files: int, at_once: int, sizes: list[int], pieces: Pieces
) -> None:
    some = claimed(pieces)
    many = [replace(some[number % 8], file_id=number) for number in range(files)]
    batches = list(BatchPlan(at_once=lambda: at_once).batches(many))
    assert [len(batch.files) for batch in batches] == sizes
    assert max(sizes, default=0) <= BATCH_FILES
    assert [file.file_id for batch in batches for file in batch.files] == list(range(files))


@pytest.mark.parametrize(
    "error", [OutOfReach("away", endpoint="s3"), Fatal("refused"), SourceChanged("x"), Transient("x")]
)
def test_what_all_would_meet_is_met_once(
    error: DicomwatchdError, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = claimed(pieces)[:4]
    real, calls = pieces.memory.put, [0]

    def put(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(pieces.memory, "put", put)
    outcomes = loop.send(UploadBatch(files), pieces.context)
    assert [file for file, _ in outcomes] == files
    hopeless = concerns_all(error)
    assert hopeless is (isinstance(error, Fatal) or error.__class__ is OutOfReach)
    assert calls[0] == (2 if hopeless else 4)
    kinds = [ObjectLocation, type(error), *([type(error)] * 2 if hopeless else [ObjectLocation] * 2)]
    assert [type(outcome) for _, outcome in outcomes] == kinds


def test_each_file_of_a_batch_has_the_receipt_of_its_own_bytes(pieces: Pieces) -> None:
    files = claimed(pieces)
    for file, outcome in loop.send(UploadBatch(files), pieces.context):
        assert isinstance(outcome, ObjectLocation)
        data = (pieces.inbox / file.dir.decode() / file.name.decode()).read_bytes()
        assert outcome.sha256 == outcome.receipt.sha256 == hashlib.sha256(data).hexdigest()
        assert file.header.sop_instance_uid in outcome.receipt.key


def test_a_batch_to_be_deleted_is_of_one_folder_and_not_too_large(pieces: Pieces) -> None:
    def sized(number: int, folder: bytes, size_bytes: int) -> tuple[LocalFile, Any]:
        identity = FileIdentity(1, number, size_bytes, 1, 1)
        return replace(some, file_id=number, dir=folder, identity=identity), SimpleNamespace(key=f"{number:04}")

    some = claimed(pieces)[0]
    small, large = 1000, deleting.BATCH_BYTES
    proofs = [sized(number, b"A", small) for number in range(deleting.BATCH_FILES + 1)]
    proofs += [sized(number, b"B", size) for number, size in enumerate((small, large, small, small), start=1000)]
    shuffled: list[Any] = [*proofs[1::2], *proofs[::2]]  # a folder is read in any order
    batches = [[file.file_id for file, _ in batch] for batch in deleting.batches(shuffled)]
    assert batches == [list(range(deleting.BATCH_FILES)), [deleting.BATCH_FILES], [1000], [1001], [1002, 1003]]


def test_all_of_it(pieces: Pieces) -> None:
    pieces.ship()
    assert pieces.left() == [] and len(pieces.archived()) == 8


def test_whoever_deletes_a_batch_shows_that_he_is_alive(pieces: Pieces) -> None:
    claim = pieces.queue.claims.claim()
    assert claim is not None
    signs: list[int] = []
    context = replace(pieces.context, heartbeat=lambda: signs.append(len(pieces.left())))
    stages.ship(claim, map, context)
    assert [*dict.fromkeys(signs)][:8] == [8, 7, 6, 5, 4, 3, 2, 1], "before each file"
