"""What a line of the log says beside its sentence; and that a speed is right or absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon.status import StatusReporter
from dicomwatchd.pipeline.shipment import Archive, Shipment
from dicomwatchd.telemetry.figures import figures
from dicomwatchd.telemetry.journal import Entry, Journal, Journald
from tests.pieces import ARCHIVE_ID, Pieces
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryStore

PUT_SECONDS = 2.0


class Slow(MemoryStore):
    """Each object takes its time."""

    pieces: Pieces

    def put(self, key: str, content: Content) -> Receipt:
        self.pieces.clock.advance(PUT_SECONDS)
        return super().put(key, content)


class Kept:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, entry: Entry) -> None:
        Journald(lambda *sent: self.lines.append(str(sent[0]).removeprefix("MESSAGE="))).write(entry)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    store = Slow()
    made = Pieces(tmp_path, store=store)
    store.pieces, made.memory = made, store
    yield made
    made.close()


def shipped(pieces: Pieces) -> tuple[Shipment, str]:
    """The next shipment, and the line that `journalctl` shows of it."""
    found: list[Shipment] = []
    pieces.dispatcher._on_shipped = found.append
    pieces.run()
    [shipment] = found
    sink, archive = Kept(), Archive(ARCHIVE_ID, pieces.store, pieces.catalogue)
    reporter = StatusReporter(cast(Config, None), archive, Journal(sink, strict=True), pieces.clock)
    reporter.shipped(shipment, pieces.queue.audit)
    return shipment, sink.lines[-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"study_uid": "1.2.3", "inbox": "ct1", "attempt": 2}, "(study 1.2.3, inbox ct1, attempt 2)"),
        ({"files": 1200, "failed_files": 3, "free_bytes": 12_345_678}, "(1,200 files, 3 failed files, free 12.3 MB)"),
        (
            {"pause_seconds": 1.25, "seconds": 3, "upload_mb_per_second": 1234.5},
            "(pause 1.2 s, 3.0 s, upload 1,234.5 MB/s)",
        ),
        (
            {"upload_seconds": 2, "upload_mb_per_second": 0.5, "purge_seconds": 1},
            "(upload 2.0 s at 0.5 MB/s, purge 1.0 s)",
        ),
        ({"once": True, "clean": False, "version": "1.0"}, "(once yes, version 1.0)"),
        ({"code": "x", "error": "y", "stack": ("a.py:1 f",), "audit_sequence": 5, "retries": 0}, ""),
    ],
)
def test_figures(fields: dict[str, Any], told: str) -> None:
    assert figures(fields) == told


def test_what_the_message_names_is_not_said_twice() -> None:
    sink = Kept()
    journal = Journal(sink, strict=True)
    journal.info("done", "{files} files of {inbox}", files=3, inbox="ct1", waiting=2)
    journal.info("done", "nothing more")
    assert sink.lines == ["3 files of ct1 (waiting 2)", "nothing more"]


def test_what_is_sent_while_a_study_arrives_has_its_time(pieces: Pieces) -> None:
    Maker(seed=3).ct_series(pieces.inbox, slices=3, rows=512, columns=512)
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    assert pieces.ship() == 0 and len(pieces.archived()) == 3
    shipment, line = shipped(pieces)
    assert 3 * PUT_SECONDS <= shipment.early.seconds < 3 * PUT_SECONDS + 20  # the clock goes on by itself, too
    seconds = shipment.stages.seconds()["upload"]
    assert seconds >= shipment.early.seconds
    assert (shipment.early.files, shipment.sent_files) == (3, 0)
    assert line.startswith(f"study {shipment.claim.study_uid} is archived: 3 files, 1.6 MB in ")
    assert (
        f"; 3 deleted here (inbox inbox1, 3 sent files, sent 1.6 MB, 3 early files, upload {seconds:.1f} s at 0."
        in line
    )
    assert "3 early files" in line
    [day] = pieces.queue.reports.stats(7)["days"]
    assert day["seconds"]["upload"] == pytest.approx(seconds, abs=0.01)
    in_all = sum(day["seconds"].values())
    assert in_all > seconds
    assert day["megabytes_per_second"] == pytest.approx(shipment.early.bytes / 1e6 / in_all, abs=0.051)


def test_nothing_is_told_of_a_speed_where_nothing_was_sent(pieces: Pieces) -> None:
    made = Maker(seed=3).ct_series(pieces.inbox, slices=2)
    again = [(one.path, one.path.read_bytes()) for one in made]
    pieces.run()
    for path, data in again:
        path.write_bytes(data)
    before = pieces.queue.reports.stats(7)["totals"]["megabytes_per_second"]
    shipment, line = shipped(pieces)
    assert shipment.sent_bytes == 0 and shipment.files == 2
    assert "MB/s" not in line.partition("verify")[0]
    assert pieces.queue.reports.stats(7)["totals"]["megabytes_per_second"] == before


def test_where_a_study_came_from(pieces: Pieces) -> None:
    Maker(seed=3).ct_series(pieces.inbox, slices=2, rows=16, columns=16)
    shipment, line = shipped(pieces)
    assert shipment.sources == {"inbox1"} and "(inbox inbox1, " in line
    shipment.sources = {"mr", "ct1"}
    sink, archive = Kept(), Archive(ARCHIVE_ID, pieces.store, pieces.catalogue)
    journal = Journal(sink, strict=True)
    journal.receivers = {"ct1": ("ct",)}
    StatusReporter(cast(Config, None), archive, journal, pieces.clock).shipped(shipment, pieces.queue.audit)
    assert "(sources ct1 mr, receiver ct, " in sink.lines[-1]
