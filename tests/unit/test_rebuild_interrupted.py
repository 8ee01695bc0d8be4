"""A rebuild that is interrupted, throttled, or beside another one goes on where it was, and records nothing worse."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.repair import rebuild as module
from dicomwatchd.archive.repair.ahead import ahead
from dicomwatchd.archive.repair.patience import OwnTrouble, Patience
from dicomwatchd.archive.repair.progress import LONGEST_SECONDS, MOST_PROBLEMS, Binding, ProgressFile
from dicomwatchd.archive.repair.rebuild import Problem, Progress, RebuildReport, holds, rebuild
from dicomwatchd.archive.stores.port import Buffer, Chunk, StoredObject
from dicomwatchd.errors import OutOfReach, Permanent, RevisionConflict, Throttled, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore, common_prefixes
from tests.unit.test_rebuild import ARCHIVE_ID, manifests, stored

BINDING = Binding(ARCHIVE_ID, "memory|memory|tests|", "memory", "1")


class Catalogue(MemoryCatalogue):
    """As the real ones: conditional, and safe from many threads. Counts what is asked of it."""

    def __init__(self, *records: StudyRecord) -> None:
        super().__init__({one.study_uid: one for one in records}, ARCHIVE_ID)
        self.puts: list[tuple[Uid, int]] = []
        self.gets: list[Uid] = []
        self.ended = 0
        self._lock = threading.Lock()

    def get(self, study_uid: Uid) -> StudyRecord | None:
        self.gets.append(study_uid)
        return super().get(study_uid)

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        self._fail()
        with self._lock:
            there = self.records.get(record.study_uid)
            if (
                there is not None
                and there.revision >= record.revision
                and there.manifest_sha256 != (record.manifest_sha256)
            ):
                raise RevisionConflict("another revision is there")
            self.puts.append((record.study_uid, record.revision))
            self.records[record.study_uid] = record

    def completed(self) -> None:
        super().completed()
        self.ended += 1


def studies(count: int, revisions: int = 1) -> list[list[Manifest]]:
    return [manifests(f"1.2.{number}", revisions) for number in range(10, 10 + count)]


def store_of(found: list[list[Manifest]]) -> MemoryStore:
    return stored(*(one for study in found for one in study))


def expected(found: list[list[Manifest]]) -> dict[Uid, StudyRecord]:
    return {study[-1].study_uid: study[-1].record() for study in found}


def patient(attempts: int = 3, waited: list[float] | None = None) -> Patience:
    slept = waited if waited is not None else []
    return Patience(attempts, pause=lambda failures: 2.0**failures, sleep=slept.append)


def file_at(folder: Path, **options: Any) -> ProgressFile:
    return ProgressFile(folder / "catalogue-rebuild.json", BINDING, **{"every_seconds": 0, **options})


class Killed(BaseException):
    """Nothing of the program's own catches it, nor cleans up after it."""


# -- the walk ------------------------------------------------------------------------------------------------------


@dataclass
class Counting(MemoryStore):
    prefixes: list[tuple[str, str]] = field(default_factory=list)
    listings: list[str] = field(default_factory=list)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        self.prefixes.append((prefix, after))
        keys_below = sorted(key for key in self.versions if key.startswith(prefix))
        yield from common_prefixes(keys_below, prefix, after)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self.listings.append(prefix)
        yield from super().listing(prefix, after)


def test_of_each_study_the_manifests_are_listed_and_read_once_and_no_other_object_is_met() -> None:
    found = studies(5, revisions=3)
    store = Counting(store_of(found).versions)
    assert rebuild(store, Catalogue()) == RebuildReport(studies=5, recorded=5)
    assert store.prefixes == [("studies/", "")]
    assert store.listings == ["erased/", *(keys.manifests_prefix(study[0].study_uid) for study in found), "erased/"]
    assert sorted(store.reads) == sorted(one.key for study in found for one in study)


def test_a_study_without_a_manifest_is_none() -> None:
    """Its files were sent, and it is not archived yet."""
    store = store_of(studies(1))
    store.put("studies/1.9/series/1/2/x.dcm", Buffer.of(b"x"))
    store.put("studies/1.9/manifests/readme.txt", Buffer.of(b"x"))
    assert rebuild(store, Catalogue()) == RebuildReport(studies=1, recorded=1)


def test_studies_are_worked_on_in_parallel_and_one_that_takes_long_holds_nobody_up() -> None:
    found = studies(40)
    slow = found[0][0].key
    others = threading.Semaphore(0)

    class Slow(MemoryStore):
        def read(self, key: str, version_id: str | None = None, **part: Any) -> Iterator[Chunk]:
            if key == slow:
                for _ in range(len(found) - 1):
                    assert others.acquire(timeout=20)
            yield from super().read(key, version_id, **part)
            if key != slow:
                others.release()

    with ThreadPoolExecutor(4) as pool:
        report = rebuild(Slow(store_of(found).versions), Catalogue(), map=ahead(pool, 64))
    assert report == RebuildReport(studies=40, recorded=40)


def test_ahead_is_ordered_bounded_and_leaves_off() -> None:
    began: list[int] = []
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        began.append(number)
        if number == 20:
            raise OutOfReach("gone")
        return number

    with ThreadPoolExecutor(3) as pool:
        results = ahead(pool, 10)(work, items())
        assert [next(results) for _ in range(20)] == list(range(20))
        assert len(taken) <= 30
        with pytest.raises(OutOfReach):
            next(results)
    assert len(began) <= 30
    with ThreadPoolExecutor(3) as pool:
        assert list(ahead(pool, 10)(str, [])) == []


# -- interrupted and continued -------------------------------------------------------------------------------------


@dataclass
class Fuse:
    """Ends the process, as it were, at the so-manieth step."""

    at: int
    steps: int = 0

    def __call__(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


class KilledStore(MemoryStore):
    fuse: Callable[[], None] = staticmethod(lambda: None)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        for one in super().common_prefixes(prefix, after):
            self.fuse()
            yield one

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self.fuse()
        yield from super().listing(prefix, after)

    def read(self, key: str, version_id: str | None = None, **part: Any) -> Iterator[Chunk]:
        self.fuse()
        yield from super().read(key, version_id, **part)


class KilledCatalogue(Catalogue):
    fuse: Callable[[], None] = staticmethod(lambda: None)

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        self.fuse()
        super().put(record, instead_of=instead_of)
        self.fuse()


def run(store: MemoryStore, catalogue: Catalogue, kept: ProgressFile, **how: Any) -> tuple[RebuildReport, bool]:
    """As the command does, with what it was continued from."""
    begin, _ = kept.load()
    if begin is not None and not holds(catalogue, begin):
        begin = None
    report = rebuild(store, catalogue, begin=begin, keep=kept.keep, **how)
    kept.ended()
    return report, begin is not None


def test_killed_at_each_step_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at each call of the file system that the progress file makes."""
    found = studies(4, revisions=2)
    before = found[1][0].record()
    at, ended = 0, False
    while not ended:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        fuse = Fuse(at)
        store, catalogue = KilledStore(store_of(found).versions), KilledCatalogue(before)
        with monkeypatch.context() as patched:
            store.fuse = catalogue.fuse = fuse
            for name in ("rename", "fsync", "write"):
                patched.setattr(os, name, _fused(fuse, getattr(os, name)))
            try:
                run(store, catalogue, file_at(folder))
                ended = True
            except Killed:
                pass
        store.fuse = catalogue.fuse = lambda: None
        first = list(catalogue.puts)
        report, _ = run(store, catalogue, file_at(folder))
        assert catalogue.records == expected(found), at
        assert (report.studies, report.unusable, report.problems) == (4, 0, ()), at
        assert len(catalogue.puts) <= 4 + (len(first) < 4), "at most the one that was interrupted is written again"
        assert catalogue.ended >= 1
        assert not (folder / "catalogue-rebuild.json").exists()
    assert at > 40


def _fused(fuse: Fuse, call: Callable[..., Any]) -> Callable[..., Any]:
    def fused(*arguments: Any, **how: Any) -> Any:
        fuse()
        return call(*arguments, **how)

    return fused


def test_what_was_done_is_not_read_again(tmp_path: Path) -> None:
    found = studies(10)
    store, catalogue = store_of(found), Catalogue()

    def stop(report: RebuildReport) -> None:
        if report.studies == 6:
            raise Killed

    with pytest.raises(Killed):
        rebuild(store, catalogue, keep=file_at(tmp_path).keep, progress=stop)
    store.reads.clear()
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued and report == RebuildReport(studies=10, recorded=10)
    assert store.reads == [study[0].key for study in found[6:]]


def test_problems_are_named_whenever_they_were_met(tmp_path: Path) -> None:
    found = studies(6)
    store, catalogue = store_of(found), Catalogue()
    for number in (1, 4):
        store.versions[found[number][0].key] = [b"damaged"]

    def stop(report: RebuildReport) -> None:
        if report.studies == 3:
            raise Killed

    with pytest.raises(Killed):
        rebuild(store, catalogue, keep=file_at(tmp_path).keep, progress=stop)
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued
    assert [one.study_uid for one in report.problems] == ["1.2.11", "1.2.14"]
    assert (report.studies, report.recorded, report.unusable) == (6, 4, 2)


def test_studies_that_a_daemon_brings_in_between(tmp_path: Path) -> None:
    """Behind where it was interrupted they are found, before it their daemon has recorded them; and a later revision
    of one that is done stays."""
    found = studies(6, revisions=2)
    store, catalogue = store_of([study[:1] for study in found]), Catalogue()

    def stop(report: RebuildReport) -> None:
        if report.studies == 3:
            raise Killed

    with pytest.raises(Killed):
        rebuild(store, catalogue, keep=file_at(tmp_path).keep, progress=stop)
    ahead_of_it, behind = manifests("1.2.9", 1), manifests("1.1.5", 1)
    for manifest in (*ahead_of_it, *behind, found[0][1], found[5][1]):
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
    catalogue.put(behind[0].record())  # its daemon
    catalogue.put(found[0][1].record())
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued and report.studies == 7 and not report.problems
    assert catalogue.records == {
        **expected([study[:1] for study in found]),
        **expected([ahead_of_it, behind, found[0], found[5]]),
    }


def test_two_at_once(tmp_path: Path) -> None:
    """They share one progress file, and a daemon records meanwhile."""
    found = studies(60, revisions=3)
    store, catalogue = store_of(found), Catalogue(*(study[0].record() for study in found[::7]))
    reports: list[RebuildReport] = []

    def one() -> None:
        with ThreadPoolExecutor(4) as pool:
            reports.append(run(store, catalogue, file_at(tmp_path), map=ahead(pool, 16), patience=patient())[0])

    def daemon() -> None:
        for study in found[::5]:
            catalogue.put(study[2].record())

    threads = [threading.Thread(target=work) for work in (one, one, daemon)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reports) == 2 and all(not one.problems for one in reports)
    assert catalogue.records == expected(found)
    assert not list(tmp_path.iterdir())


# -- trouble ----------------------------------------------------------------------------------------------------------


class Throttling(MemoryStore):
    """Two requests in twenty are refused, one after the other, as by a service that wants fewer."""

    asked = 0

    def _fail(self) -> None:
        self.asked += 1
        if self.asked % 20 in (7, 8):
            raise Throttled("ListObjectsV2 failed: SlowDown", endpoint="s3", retry_after_seconds=None)


def test_a_throttling_store_is_asked_again_after_growing_pauses() -> None:
    found = studies(5)
    store, catalogue, waited = Throttling(store_of(found).versions), Catalogue(), list[float]()
    assert rebuild(store, catalogue, patience=patient(30, waited)) == RebuildReport(studies=5, recorded=5)
    assert catalogue.records == expected(found) and catalogue.ended == 1
    assert {1.0, 2.0} <= set(waited)


def test_a_throttling_catalogue_is_asked_again() -> None:
    class Refusing(Catalogue):
        def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
            if len(self.gets) % 3:
                raise Throttled("ProvisionedThroughputExceededException", endpoint="dynamodb")
            super().put(record, instead_of=instead_of)

    found = studies(5)
    catalogue = Refusing()
    with ThreadPoolExecutor(3) as pool:
        report = rebuild(store_of(found), catalogue, patience=patient(20), map=ahead(pool, 8))
    assert report == RebuildReport(studies=5, recorded=5) and catalogue.records == expected(found)


class Poisoned(MemoryStore):
    """Of one study's manifests every request ends in the service's own error."""

    poison: str = ""
    error: Exception = OutOfReach("GetObject failed: 500", endpoint="s3")

    def read(self, key: str, version_id: str | None = None, **part: Any) -> Iterator[Chunk]:
        if self.poison and key.startswith(self.poison):
            raise self.error
        yield from super().read(key, version_id, **part)


@pytest.mark.parametrize(
    "error",
    [
        OutOfReach("GetObject failed: 500", endpoint="s3"),
        Transient("two reads of a manifest differ", code="damaged-on-the-way"),
        RuntimeError("a fault of ours"),
    ],
)
@pytest.mark.parametrize("threads", [1, 4])
def test_one_study_that_never_comes_through_stops_no_other(tmp_path: Path, error: Exception, threads: int) -> None:
    """It is tried again at the end, named then, and the catalogue does not count as complete. The next run begins with
    it."""
    found = studies(8)
    store, catalogue = Poisoned(store_of(found).versions), Catalogue()
    store.poison, store.error = keys.study_prefix(Uid("1.2.12")), error
    with ThreadPoolExecutor(threads) as pool:
        report, _ = run(store, catalogue, file_at(tmp_path), map=ahead(pool, 4 * threads), patience=patient())
    assert [(one.study_uid, one.revision) for one in report.problems] == [("1.2.12", 0)]
    assert "a fault of ours" not in report.problems[0].reason
    assert (report.studies, report.recorded, report.unusable) == (8, 7, 1)
    assert catalogue.ended == 0
    store.poison = ""
    store.reads.clear()
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued and report == RebuildReport(studies=8, recorded=8)
    assert store.reads == [found[2][0].key]
    assert catalogue.ended == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [1, 4])
def test_a_store_that_is_down_for_long_ends_it_and_nothing_is_lost(tmp_path: Path, threads: int) -> None:
    found = studies(30)
    store, catalogue = store_of(found), Catalogue()

    def go_down(report: RebuildReport) -> None:
        if report.studies == 10:
            store.fault = OutOfReach("connection refused", endpoint="s3")

    with ThreadPoolExecutor(threads) as pool, pytest.raises(OutOfReach):
        run(store, catalogue, file_at(tmp_path), map=ahead(pool, 8), patience=patient(), progress=go_down)
    assert catalogue.ended == 0
    store.fault = None
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued and report == replace(report, studies=30, problems=()) and report.unusable == 0
    assert catalogue.records == expected(found) and catalogue.ended == 1


def test_too_many_studies_that_cannot_be_examined_are_no_matter_of_single_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNRESOLVED", 3)
    store, catalogue = Poisoned(store_of(studies(8)).versions), Catalogue()
    store.poison, store.error = "studies/", Transient("damaged", code="damaged-on-the-way")
    with pytest.raises(Transient, match="more than 3 studies"):
        run(store, catalogue, file_at(tmp_path))
    store.poison = ""
    report, continued = run(store, catalogue, file_at(tmp_path))
    assert continued and report == RebuildReport(studies=8, recorded=8)


def test_an_entry_that_the_catalogue_does_not_take_is_not_counted_as_searchable() -> None:
    """An entry of an earlier version that stays as it is has to be indexed again; if that fails the catalogue is not
    complete."""

    class Refusing(Catalogue):
        def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
            raise Permanent("the catalogue refuses it")

    [study] = studies(1)
    store = store_of([study])
    store.versions[study[0].key] = [b"damaged"]
    catalogue = Refusing(replace(study[0].record(), identities=None))
    report = rebuild(store, catalogue)
    assert report.problems == (Problem(Uid("1.2.10"), 0, "the catalogue refuses it"),) and catalogue.ended == 0


def test_patience_tells_a_place_that_is_down_from_one_study() -> None:
    down = OutOfReach("down", endpoint="s3")

    def failing() -> None:
        raise down

    of_one = patient(2)
    with pytest.raises(OwnTrouble):
        of_one.of_study(Uid("1.1"), failing)
    with pytest.raises(OutOfReach):
        of_one.of_study(Uid("1.2"), failing)
    of_one.of_study(Uid("1.3"), lambda: None)
    with pytest.raises(OwnTrouble):
        of_one.of_study(Uid("1.2"), failing)
    with pytest.raises(OutOfReach):
        patient(3).of_all(failing)
    waited: list[float] = []
    answers = iter([down, down, None])

    def third_time() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "done"

    assert patient(3, waited).of_all(third_time) == "done" and waited == [1.0, 2.0]


# -- the progress file ------------------------------------------------------------------------------------------------

PROGRESS = Progress(
    "studies/1.2.3/",
    RebuildReport(7, 4, 2, (Problem(Uid("1.2.2"), 3, "a manifest in the store cannot be read"),), 5),
    (Uid("1.2.1"),),
    (Uid("1.2.0"), 2),
)


def written(folder: Path, progress: Progress = PROGRESS, **options: Any) -> Path:
    kept = file_at(folder, **options)
    kept.keep(progress)
    return folder / "catalogue-rebuild.json"


def test_the_file_is_its_owners_and_replaced_as_a_whole(tmp_path: Path) -> None:
    os.umask(os.umask(0))
    path = written(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert file_at(tmp_path).load() == (PROGRESS, None)
    first = path.stat().st_ino
    written(tmp_path, replace(PROGRESS, after="studies/1.3/"))
    assert path.stat().st_ino != first


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("x")
    (tmp_path / "catalogue-rebuild.json").symlink_to(target)
    assert file_at(tmp_path).load()[0] is None
    written(tmp_path)
    assert target.read_text() == "x" and file_at(tmp_path).load()[0] == PROGRESS


def test_it_is_written_every_few_seconds_and_at_the_end(tmp_path: Path) -> None:
    clock = [0.0]
    kept = file_at(tmp_path, every_seconds=2.0, monotonic=lambda: clock[0])
    path = tmp_path / "catalogue-rebuild.json"
    for seconds in range(5):
        clock[0] = float(seconds)
        kept.keep(replace(PROGRESS, after=f"studies/1.{seconds}/"))
        assert path.exists() is (seconds >= 2)
    clock[0] = 4.5
    kept.keep(replace(PROGRESS, after="studies/1.9/"))
    assert json.loads(path.read_text())["progress"]["after"] == "studies/1.4/"
    kept.write()
    assert json.loads(path.read_text())["progress"]["after"] == "studies/1.9/"
    assert "1.2.2" in path.read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"archive_id": "another"}, "another archive"),
        ({"store": "s3|aws:eu|another|"}, "another archive"),
        ({"catalogue": "dynamodb|aws:eu|another"}, "another archive"),
        ({"version": "2"}, "another version"),
    ],
)
def test_a_progress_of_something_else_does_not_count(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    path = written(tmp_path)
    found, why = ProgressFile(path, replace(BINDING, **change)).load()
    assert found is None and why is not None and reason in why


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\x00" * 100,
        b'{"format": "dicomwatchd-rebuild/1"}',
        b"[" * 100_000,
        b" " * (5 * 1024 * 1024),
    ],
)
def test_a_damaged_one_counts_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "catalogue-rebuild.json").write_bytes(data)
    found, why = file_at(tmp_path).load()
    assert found is None and why == "it is damaged"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("after", "studies/1.2"),
        ("after", "archive.json/"),
        ("after", 3),
        ("studies", -1),
        ("studies", "7"),
        ("recorded", True),
        ("problems", [{"study_uid": "../x", "revision": 1, "reason": "x"}]),
        ("problems", [{"study_uid": "1.2", "revision": 1, "reason": 1}]),
        ("problems", [{"study_uid": "1.2", "revision": 1, "reason": ""}] * (MOST_PROBLEMS + 1)),
        ("unresolved", ["not a UID"]),
        ("unresolved", ["1.2"] * 1001),
        ("witness", ["1.2"]),
        ("witness", [1, 2]),
    ],
)
def test_each_part_of_it_is_checked(tmp_path: Path, field: str, value: object) -> None:
    path = written(tmp_path)
    raw = json.loads(path.read_text())
    raw["progress"][field] = value
    path.write_text(json.dumps(raw))
    assert file_at(tmp_path).load() == (None, "it is damaged")


def test_an_old_one_does_not_count(tmp_path: Path) -> None:
    written(tmp_path, now=lambda: 1000.0)
    assert file_at(tmp_path, now=lambda: 1000.0 + LONGEST_SECONDS - 1).load()[0] == PROGRESS
    assert file_at(tmp_path, now=lambda: 1000.0 + LONGEST_SECONDS + 1).load() == (None, "it is too old")
    assert file_at(tmp_path, now=lambda: 900.0).load() == (None, "it is too old")


def test_a_catalogue_that_was_made_anew_or_restored_is_not_gone_on_with() -> None:
    older, newer = manifests("1.2.0", 2)
    assert holds(Catalogue(newer.record()), PROGRESS)
    assert not holds(Catalogue(older.record()), PROGRESS)
    assert not holds(Catalogue(), PROGRESS)
    assert holds(Catalogue(), replace(PROGRESS, witness=None))


def test_a_folder_that_may_not_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    kept = file_at(tmp_path / "absent", unwritten=said.append)
    found = studies(3)
    report, _ = run(store_of(found), Catalogue(), kept)
    assert report == RebuildReport(studies=3, recorded=3)
    assert len(said) == 1 and not kept.is_kept


def test_of_very_many_problems_the_number_is_kept(tmp_path: Path) -> None:
    many = tuple(Problem(Uid(f"1.2.{number}"), 1, "x") for number in range(MOST_PROBLEMS + 10))
    written(tmp_path, Progress("studies/1.3/", RebuildReport(5, problems=many, unnamed_problems=2)))
    found, _ = file_at(tmp_path).load()
    assert found is not None
    assert (len(found.report.problems), found.report.unnamed_problems) == (MOST_PROBLEMS, 12)
    assert found.report.has_problems


def test_the_map_is_one_of_the_ports() -> None:
    with ThreadPoolExecutor(1) as pool:
        mapped: Map = ahead(pool, 2)
        assert list(mapped(str, range(5))) == list("01234")
