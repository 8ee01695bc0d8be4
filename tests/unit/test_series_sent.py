"""Series objects that the daemon writes: the same as are derived from the archive, and never in the way of anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.config.loading import parse
from dicomwatchd.config.web import Web
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.errors import CredentialsRefused, OutOfReach
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Bundling
from dicomwatchd.ports import Clock
from dicomwatchd.series import objects
from dicomwatchd.series import sent as module
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.series.sent import Allowance, SentSeries
from dicomwatchd.telemetry.journal import Journal, JsonLines
from tests.pieces import Pieces
from tests.synthetic import Made, Maker
from tests.unit.memory_archive import MemoryStore

BUNDLED = Bundling(below_bytes=1 << 20, size_bytes=8 << 20)


def written(pieces: Pieces) -> list[str]:
    return [key for key in pieces.memory.versions if keys.parse_series_index(key)]


def work(pieces: Pieces) -> SentSeries:
    """All that waits is written."""
    series = pieces.parts.series
    assert series is not None
    while series.step():
        pass
    return series


def check(pieces: Pieces, made: list[Made], *, stored: bool = True) -> None:
    """What the store has of each series is what is derived from the files."""
    for study, series in {(one.study_uid, one.series_uid) for one in made}:
        found = SeriesReader(pieces.store).series(study, series)
        assert found.is_stored is stored
        anew = SeriesReader(pieces.store, stored=False).series(study, series)
        assert [one.entry for one in found.instances] == [one.entry for one in anew.instances]
        assert len(found.instances) == len({one.sop_instance_uid for one in made if one.series_uid == series})


@pytest.mark.parametrize("bundling", [None, BUNDLED], ids=["instances", "bundled"])
def test_they_are_written_once_a_study_is_archived(tmp_path: Path, bundling: Bundling | None) -> None:
    pieces = Pieces(tmp_path, bundling=bundling, series_objects="as-sent")
    made = Maker().mr_study(pieces.inbox, series=2, slices=3)
    made += Maker(2).us_multiframe(pieces.inbox / "us") + Maker(3).structured_report(pieces.inbox / "sr")
    pieces.run()
    assert pieces.left() == [] and written(pieces) == [], "not before nothing waits any more"
    pieces.memory.reads.clear()
    series = work(pieces)
    assert (series.looked_at, series.not_looked_at, series.written, series.given_up) == (8, 0, 4, 0)
    assert pieces.memory.reads == [], "nothing is read back"
    assert len(written(pieces)) == 4
    check(pieces, made)


def test_off_there_are_none(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    Maker().mr_study(pieces.inbox, series=1, slices=2)
    pieces.run()
    assert pieces.parts.series is None and written(pieces) == []


def test_late_slices_are_added_to_what_is_there(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, series_objects="as-sent")
    maker = Maker()
    made = maker.ct_series(pieces.inbox, slices=3, rows=32, columns=32)
    pieces.run()
    work(pieces)
    made += maker.ct_series(pieces.inbox / "late", slices=2, first=4, study=0, series=1, rows=32, columns=32)
    pieces.run()
    pieces.memory.reads.clear()
    work(pieces)
    assert [key for key in pieces.memory.reads if keys.holds_instances(key)] == []
    assert len(written(pieces)) == 2
    check(pieces, made)


def test_after_a_restart_whoever_reads_derives_it(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, series_objects="as-sent")
    made = Maker().ct_series(pieces.inbox, slices=3, rows=32, columns=32)
    pieces.run()
    pieces.restart()
    work(pieces)
    assert written(pieces) == []
    check(pieces, made, stored=False)


@pytest.mark.parametrize(("setting", "number"), [("as-sent", 0), ("complete", 1)])
def test_what_was_not_looked_at(tmp_path: Path, setting: Any, number: int) -> None:
    """A file that is too large to be sent from memory."""
    pieces = Pieces(tmp_path, series_objects=setting)
    pieces.memory.single_put_bytes = 1000
    made = Maker().ct_series(pieces.inbox, slices=3, rows=32, columns=32)
    pieces.run()
    assert pieces.left() == []
    series = work(pieces)
    assert series.given_up == 1 and len(written(pieces)) == number
    check(pieces, made, stored=bool(number))


def test_what_lies_in_bundles_is_read_together(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, bundling=BUNDLED)
    made = Maker().mr_study(pieces.inbox, series=2, slices=4)
    pieces.run()
    [bundle] = [key for key in pieces.memory.versions if keys.is_bundle(key)]
    for series in {one.series_uid for one in made}:
        pieces.memory.reads.clear()
        found = SeriesReader(pieces.store).series(made[0].study_uid, series)
        assert len(found.instances) == 4 and all(one.trouble is None for one in found.instances)
        assert pieces.memory.reads.count(bundle) in (1, 2), "one for all, or one on each side of the other series"
        for one in found.instances:
            assert len(list(map(b"".join, SeriesReader(pieces.store).contents.frames(one, [1])))) == 1
    item = found.instances[1].item
    data = bytearray(pieces.memory.versions[bundle][0])
    data[item.offset_bytes + item.size_bytes - 1] ^= 1
    pieces.memory.versions[bundle] = [bytes(data)]
    damaged = SeriesReader(pieces.store).series(made[0].study_uid, item.series_uid)
    assert [one.trouble is None for one in damaged.instances] == [True, False, True, True]
    assert [one.entry for one in damaged.instances if one.entry] == [
        one.entry for one in found.instances if one.item is not item
    ]


# --- never in the way ------------------------------------------------------------------------------------------------


def test_whatever_goes_wrong_with_it_the_study_is_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "extract", broken)
    pieces = Pieces(tmp_path, series_objects="as-sent")
    Maker().ct_series(pieces.inbox, slices=3, rows=32, columns=32)
    pieces.run()
    assert pieces.left() == []
    assert work(pieces).given_up == 1 and written(pieces) == []


@pytest.mark.parametrize("error", [OutOfReach("down", endpoint="x"), CredentialsRefused("no")])
def test_a_store_that_takes_none_of_them_has_the_study_all_the_same(tmp_path: Path, error: Exception) -> None:
    class Refusing(MemoryStore):
        def put(self, key: str, content: Content) -> Receipt:
            if keys.parse_series_index(key):
                raise error
            return super().put(key, content)

    store = Refusing()
    pieces = Pieces(tmp_path, store=store, series_objects="as-sent")
    Maker().mr_study(pieces.inbox, series=2, slices=2)
    pieces.run()
    assert pieces.left() == []
    work(pieces)
    assert [one["code"] for one in pieces.log.events("series-object-unwritten")] == [error.code]  # type: ignore[attr-defined]
    assert pieces.fatal is None


def test_a_fault_in_the_program_ends_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path, series_objects="as-sent")
    Maker().ct_series(pieces.inbox, slices=2, rows=32, columns=32)
    pieces.run()

    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("CANARY")

    monkeypatch.setattr(objects, "write", broken)
    work(pieces)
    [told] = pieces.log.events("series-object-unwritten")
    assert told == {"code": "fault"}


def test_nothing_is_written_of_a_study_that_was_erased(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, series_objects="as-sent")
    made = Maker().ct_series(pieces.inbox, slices=2, rows=32, columns=32)
    pieces.run()
    study = Uid(made[0].study_uid)
    erasures.create(pieces.store, Erasure("a", study, 1, "2027-01-01T00:00:00.000Z", "CANARY", 0, "root", 101))
    work(pieces)
    assert written(pieces) == []
    stream = StringIO()
    for event, message, fields in pieces.log.entries:
        Journal(JsonLines(stream), strict=True).info(event, message, **fields)
    assert '"study-erased"' in stream.getvalue() and "CANARY" not in stream.getvalue()


def looking(made: list[Made], series: SentSeries, times: int = 1) -> None:
    from dicomwatchd.model import InstanceHeader

    for number in range(times):
        for one in made:
            header = InstanceHeader(
                Uid(f"{one.study_uid[:40]}.{number}"), Uid(one.series_uid), Uid(one.sop_instance_uid), "1.2", "1.2.1"
            )
            series.look(header, one.sha256, one.path.read_bytes())


@pytest.fixture
def made(tmp_path: Path) -> list[Made]:
    return Maker().ct_series(tmp_path, slices=4, rows=32, columns=32)


@dataclass
class Still:
    """A clock that goes on when it is told to."""

    at: float = 0.0

    def now(self) -> float:
        return self.at

    monotonic = now


def sent(clock: Clock | None = None, cpu: Callable[[], float] = lambda: 0.0, **others: Any) -> SentSeries:
    return SentSeries(MemoryStore(), clock or Still(), Any, reads_back=False, cpu_seconds=cpu, **others)  # type: ignore[arg-type]


def test_memory_does_not_grow_with_studies_on_their_way(made: list[Made]) -> None:
    series = sent(kept_bytes=200_000)
    looking(made, series, times=60)
    assert series._kept_bytes <= 200_000 and series.given_up > 0
    held = sum(one.size_bytes for study in series._kept.values() for one in study.values())
    assert held == series._kept_bytes
    newest = list(series._kept.values())[-1]
    assert [one.is_given_up for one in newest.values()] == [False], "the oldest go first"


def test_nor_with_their_names(made: list[Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SERIES_KNOWN", 10)
    series = sent()
    looking(made, series, times=30)
    assert len(series._kept) == series._series_known == 10
    first = made[0]
    for number in range(30):  # of one study
        looking([replace(first, series_uid=f"1.2.{number}")], series)
    assert series._series_known == 10


def test_no_more_cpu_is_taken_than_allowed(made: list[Made]) -> None:
    clock = Still()
    spent: Iterator[float] = iter(range(10_000))
    series = sent(clock, lambda: float(next(spent)), allowance=Allowance(clock, share=0.5, ahead_seconds=3.0))
    looking(made, series)
    assert series.looked_at == 3 and series.given_up == 1, "each takes a second"
    looking(made[:1], series, times=2)
    assert series.looked_at == 3
    clock.at += 60
    looking(made[:1], series, times=4)
    assert series.looked_at == 5


def test_a_study_that_is_finished_is_kept_no_longer(made: list[Made], tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "daemon", series_objects="as-sent")
    Maker(9).mr_study(pieces.inbox, series=2, slices=2)
    pieces.run()
    series = work(pieces)
    assert series._kept == {} and series._kept_bytes == 0


def test_its_thread_ends_when_it_is_told_to(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, series_objects="as-sent")
    made = Maker().mr_study(pieces.inbox, series=2, slices=2)
    pieces.run()
    series = pieces.parts.series
    assert series is not None
    stopping, beats = threading.Event(), []
    thread = threading.Thread(target=series.run, args=(stopping, lambda: beats.append(1)))
    thread.start()
    for _ in range(1200):
        if len(written(pieces)) == 2:
            break
        stopping.wait(0.1)
    stopping.set()
    thread.join(60)
    assert not thread.is_alive() and beats
    check(pieces, made)


# --- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "has_web", "wanted"),
    [(None, False, "off"), (None, True, "as-sent"), ("off", True, "off"), ("complete", False, "complete")],
)
def test_they_are_written_where_somebody_reads_them(
    tmp_path: Path, said: str | None, has_web: bool, wanted: str
) -> None:
    raw: dict[str, Any] = {
        "archive": {
            "store": {"kind": "directory", "path": str(tmp_path / "a")},
            "catalogue": {"kind": "sqlite", "path": str(tmp_path / "c.db")},
        },
        **({} if said is None else {"series_objects": said}),
    }
    config = parse(raw)
    if has_web:
        config = config.model_copy(update={"web": Web.model_construct()})
    assert plan_of(config).series_objects == wanted
