"""The one upload loop: what is committed, what is sent no more, and which error counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pytest

from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.errors import Fatal, SourceChanged, Transient
from dicomwatchd.model import FileIdentity, InstanceHeader, Uid
from dicomwatchd.pipeline.sending import loop
from dicomwatchd.pipeline.sending.batches import UploadBatch
from dicomwatchd.pipeline.sending.loop import COMMIT_EVERY, Stored
from dicomwatchd.pipeline.shipment import ObjectLocation
from dicomwatchd.queue.rows import LocalFile

T = TypeVar("T")
R = TypeVar("R")
DOWN = Transient("the endpoint is down", endpoint="s3")
HEADER = InstanceHeader(Uid("1.2"), Uid("1.2.1"), Uid("1.2.1.1"), "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")


def file_of(number: int) -> LocalFile:
    return LocalFile(number, 1, b"A", b"IM%d" % number, FileIdentity(1, number, 10, 20, 30), HEADER, 1, *[None] * 5)


def location(number: int) -> ObjectLocation:
    return ObjectLocation.whole(Receipt(f"key/{number}", 10, "ab" * 32, True))


class Kept:
    """Results that keep everything, and may fail to commit."""

    def __init__(self, fails: Callable[[], None] = lambda: None) -> None:
        self.sent: list[int] = []
        self.committed: list[list[int]] = []
        self.errors: list[tuple[int, Exception]] = []
        self._fails = fails

    def stored(self, file: LocalFile, location: ObjectLocation) -> None:
        self.sent.append(file.file_id)

    def commit(self, files: Sequence[Stored]) -> None:
        self._fails()
        self.committed.append([file.file_id for file, *_ in files])

    def failed(self, file: LocalFile, error: Exception) -> None:
        self.errors.append((file.file_id, error))


def in_order(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
    return map(function, items)


def outcomes(met: dict[int, Exception]) -> Callable[[UploadBatch], list[tuple[LocalFile, ObjectLocation | Exception]]]:
    return lambda batch: [(file, met.get(file.file_id) or location(file.file_id)) for file in batch.files]


def batches(*numbers: int) -> list[UploadBatch]:
    return [UploadBatch([file_of(number)]) for number in numbers]


def test_what_is_stored_is_committed_some_at_a_time_and_at_the_end() -> None:
    kept = Kept()
    numbers = range(1, COMMIT_EVERY + 6)
    assert loop.upload(batches(*numbers), in_order, kept, outcomes({})) is None
    assert kept.committed == [list(numbers[:COMMIT_EVERY]), list(numbers[COMMIT_EVERY:])]
    assert kept.sent == list(numbers) and not kept.errors


def test_once_all_would_meet_the_same_no_more_is_sent() -> None:
    kept = Kept()
    assert loop.upload(batches(1, 2, 3, 4), in_order, kept, outcomes({2: DOWN})) is DOWN
    assert kept.committed == [[1]] and kept.errors == [(2, DOWN)]


def test_what_concerns_one_file_stops_no_other() -> None:
    kept, changed = Kept(), SourceChanged("it has changed")
    assert loop.upload(batches(1, 2, 3), in_order, kept, outcomes({2: changed})) is None
    assert kept.committed == [[1, 3]] and kept.errors == [(2, changed)]


def test_a_fatal_error_goes_before_what_came_earlier() -> None:
    """Both are of one batch: one worker met them before anybody could be stopped."""
    refused = Fatal("the archive refuses")
    kept = Kept()
    both = [UploadBatch([file_of(1), file_of(2)])]
    assert loop.upload(both, in_order, kept, outcomes({1: DOWN, 2: refused})) is refused


def test_what_was_stored_is_committed_even_if_something_is_raised() -> None:
    def send(batch: UploadBatch) -> list[tuple[LocalFile, ObjectLocation | Exception]]:
        if batch.files[0].file_id == 3:
            raise RuntimeError("a fault")
        return [(file, location(file.file_id)) for file in batch.files]

    kept = Kept()
    with pytest.raises(RuntimeError, match="a fault"):
        loop.upload(batches(1, 2, 3), in_order, kept, send)
    assert kept.committed == [[1, 2]]


def test_where_it_does_not_go_on_nothing_more_is_sent() -> None:
    kept = Kept()
    left = iter([True, False, False])
    assert loop.upload(batches(1, 2, 3), in_order, kept, outcomes({}), lambda: next(left)) is None
    assert kept.committed == [[1]] and not kept.errors
