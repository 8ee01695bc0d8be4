"""What is said of each study of an archive, and of all of them, by what is seen of the objects."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity import progress as kept
from dicomwatchd.archive.fixity.erased import Erased
from dicomwatchd.archive.fixity.listed import Listed
from dicomwatchd.archive.fixity.pace import Pace
from dicomwatchd.archive.fixity.progress import RunRecord, Totals
from dicomwatchd.archive.fixity.run import run
from dicomwatchd.archive.fixity.seen import Source
from dicomwatchd.archive.fixity.study import StudyVerifier
from dicomwatchd.archive.layout.exports import Export
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import StoredObject
from dicomwatchd.errors import CatalogueEntryDamaged, CredentialsRefused, Fatal, OutOfReach, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from tests.unit.memory_archive import SERIES, MemoryCatalogue, MemoryStore, archive, content

ARCHIVE = "archive-1"
DAY = 86400.0
NOW = 1_800_000_000.0


@dataclass
class Time:
    at: float = NOW
    ticks: Iterator[int] = field(default_factory=count)

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return next(self.ticks) * 10.0  # so that every study is committed


@dataclass
class Shelf:
    """An archive in memory, and what is said of it."""

    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    catalogue: MemoryCatalogue = field(default_factory=lambda: MemoryCatalogue(archive_id=ARCHIVE))
    time: Time = field(default_factory=Time)
    notes: list[str] = field(default_factory=list)
    studies: dict[int, Manifest] = field(default_factory=dict)
    hashing: bool = False
    archive_id: str = ARCHIVE

    def add(self, number: int, files: int = 3) -> Manifest:
        study = Uid(f"1.2.{number}")
        made = [(SERIES, f"{study}.{n}", content(1000 * number + n)) for n in range(files)]
        self.studies[number] = archive(self.store, made, study=study, before=self.studies.get(number))
        self.catalogue.put(self.studies[number].record())
        return self.studies[number]

    def record(self, source: Source) -> RunRecord:
        at = "2027-01-15T08:00:00.000Z"
        as_of = None if source.as_of is None else str(source.as_of)
        return RunRecord(self.archive_id, "memory", source.kind, source.identity, self.hashing, at, at, as_of=as_of)

    def verifier(self, as_of: float | None = None, **options: Any) -> StudyVerifier:
        known: dict[str, Any] = {"now": self.time.now(), "as_of": as_of, "erased": Erased.listed(self.store)}
        options = {**known, "hashing": self.hashing, **options}
        return StudyVerifier(self.store, self.catalogue, ARCHIVE, **options)

    def run(
        self,
        source: Source | None = None,
        restart: bool = False,
        shown: Callable[[Totals], None] = lambda _: None,
        map: Map = map,
    ) -> RunRecord:
        source = source or Listed(self.store)
        with kept.opened(
            self.folder, self.record(source), self.time, restart=restart, note=self.notes.append
        ) as progress:
            run(source, self.catalogue, self.verifier(source.as_of), progress, shown, map)
            return progress.run

    def findings(self) -> list[tuple[str, str, str]]:
        return [(study, one.kind, one.key) for study, one in kept.findings(self.folder)]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path)
    for number in (1, 2, 3):
        shelf.add(number)
    return shelf


def first_key(shelf: Shelf, number: int) -> str:
    return shelf.studies[number].instances[0].key


def outcome(totals: Totals) -> tuple[int, int, int, int]:
    return totals.proven, totals.not_covered, totals.unproven, totals.with_problems


# -- a walk of the listing ------------------------------------------------------------------------------------------


def test_all_is_there(shelf: Shelf) -> None:
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0) and done.studies == 3
    assert dict(done.studies_by) == {"etag": 3} and dict(done.objects_by) == {"etag": 9}
    assert (done.instances, done.objects, done.in_no_manifest, done.listed_again) == (9, 9, 0, 0)
    assert shelf.findings() == []


def test_no_instance_is_read(shelf: Shelf) -> None:
    shelf.store.versions[first_key(shelf, 2)] = [b"another size"]
    del shelf.store.versions[first_key(shelf, 3)]
    shelf.run()
    assert all(keys.parse_manifest(key) for key in shelf.store.reads)


@pytest.mark.parametrize(
    ("kind", "harm", "expected"),
    [
        ("missing", lambda store, key: store.versions.pop(key), (2, 0, 0, 1)),
        ("missing", lambda store, key: store.mark_deleted(key), (2, 0, 0, 1)),
        ("size", lambda store, key: store.overwrite(key, b"short"), (2, 0, 0, 1)),
        ("etag", lambda store, key: store.overwrite(key, bytes(2500)), (2, 0, 1, 0)),
    ],
)
def test_an_object_is_not_as_recorded(
    shelf: Shelf, kind: str, harm: Callable[[MemoryStore, str], None], expected: tuple[int, ...]
) -> None:
    key = first_key(shelf, 2)
    harm(shelf.store, key)
    done = shelf.run().totals
    assert outcome(done) == expected and done.listed_again == 1
    assert shelf.findings() == [("1.2.2", kind, key)]


def test_where_there_are_no_etags_presence_and_size_count(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shelf.store.listing
    monkeypatch.setattr(shelf.store, "listing", lambda *where: (replace(one, etag=None) for one in whole(*where)))
    assert dict(shelf.run().totals.studies_by) == {"size": 3}


def test_one_uid_that_another_begins_with_is_another_study(shelf: Shelf) -> None:
    for number in (10, 100, 11):
        shelf.add(number)
    done = shelf.run().totals
    assert outcome(done) == (6, 0, 0, 0)


def test_a_bundle_is_one_object(shelf: Shelf) -> None:
    study = shelf.studies[1]
    items = study.instances
    tar = b"".join(shelf.store.versions.pop(item.key)[0] for item in items)
    key = keys.bundle(study.study_uid, hashlib.sha256(tar).hexdigest())
    shelf.store.versions[key] = [tar]
    etag = hashlib.md5(tar, usedforsecurity=False).hexdigest()
    at, bundled = 0, []
    for item in items:
        bundled.append(replace(item, key=key, etag=etag, offset_bytes=at, object_bytes=len(tar)))
        at += item.size_bytes
    record(shelf, replace(study, instances=tuple(bundled)))
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0) and (done.objects, done.instances) == (7, 9)
    shelf.store.versions[key] = [tar[:-1]]
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.1", "size", key)]


def record(shelf: Shelf, changed: Manifest) -> None:
    shelf.store.versions[changed.key] = [changed.to_bytes()]
    shelf.catalogue.put(Manifest.from_bytes(changed.to_bytes()).record())


def test_a_dicomdir_that_is_archived_with_a_study(shelf: Shelf) -> None:
    data = content(5)
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.export(Uid("1.2.1"), sha256)
    etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    stored = ("DICOMDIR", "ct1", "2026-01-31T12:00:00.000Z", "etag-md5")
    shelf.store.versions[key] = [data]
    record(shelf, replace(shelf.studies[1], exports=(Export(key, sha256, len(data), etag, *stored),)))
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0) and (done.objects, done.in_no_manifest) == (10, 0)
    del shelf.store.versions[key]
    assert outcome(shelf.run().totals) == (2, 0, 0, 1) and shelf.findings() == [("1.2.1", "missing", key)]


def test_images_that_came_damaged_are_no_problem_of_the_archive(shelf: Shelf) -> None:
    study = shelf.studies[1]
    damaged = replace(study.instances[0], damage="it ends early")
    record(shelf, replace(study, instances=(damaged, *study.instances[1:])))
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0)
    assert (done.studies_with_damaged_instances, done.damaged_instances) == (1, 1)


# -- manifests and catalogue ----------------------------------------------------------------------------------------


def test_the_newest_manifest_is_damaged(shelf: Shelf) -> None:
    second = shelf.add(2, files=4)
    assert second.revision == 2
    shelf.store.versions[second.key] = [b"{}"]
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1)
    found = shelf.findings()
    assert ("1.2.2", "manifest-damaged", second.key) in found
    assert ("1.2.2", "manifest-missing", "") in found, "the one that the catalogue names counts no more"


@pytest.mark.parametrize("how", ["gone", "hidden"])
def test_the_manifest_is_lost(shelf: Shelf, how: str) -> None:
    key = shelf.studies[2].key
    if how == "gone":
        del shelf.store.versions[key]
    else:
        shelf.store.mark_deleted(key)
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.2", "manifest-missing", "")]
    assert done.in_no_manifest == 3


def test_all_of_a_study_that_the_catalogue_names_is_lost(shelf: Shelf) -> None:
    for key in [key for key in shelf.store.versions if key.startswith(keys.study_prefix(Uid("1.2.2")))]:
        del shelf.store.versions[key]
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and shelf.findings() == [("1.2.2", "manifest-missing", "")]


def test_the_catalogue_does_not_have_it(shelf: Shelf) -> None:
    del shelf.catalogue.records[Uid("1.2.2")]
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.2", "catalogue-missing", "")]


def test_the_catalogue_is_behind_or_names_another(shelf: Shelf) -> None:
    before = shelf.studies[2].record()
    shelf.add(2, files=4)
    shelf.catalogue.put(before)
    shelf.catalogue.put(replace(shelf.studies[3].record(), manifest_sha256="0" * 64))
    assert outcome(shelf.run().totals) == (1, 0, 0, 2)
    assert shelf.findings() == [("1.2.2", "catalogue-behind", ""), ("1.2.3", "catalogue-differs", "")]


def test_an_entry_of_the_catalogue_is_damaged(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    get, search = shelf.catalogue.get, shelf.catalogue.search

    def damaged(study: Uid) -> Any:
        if study == "1.2.2":
            raise CatalogueEntryDamaged("damaged")
        return get(study)

    def searched(query: Any) -> Iterator[Any]:
        yield next(search(query))
        raise CatalogueEntryDamaged("damaged")

    monkeypatch.setattr(shelf.catalogue, "get", damaged)
    monkeypatch.setattr(shelf.catalogue, "search", searched)
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.2", "catalogue-damaged", "")]

    def may_not() -> Iterator[Uid]:
        raise CredentialsRefused("Scan was refused", endpoint="memory")

    monkeypatch.setattr(shelf.catalogue, "study_uids", may_not)
    with pytest.raises(CatalogueEntryDamaged):
        shelf.run()


def test_a_manifest_of_another_archive(shelf: Shelf) -> None:
    record(shelf, replace(shelf.studies[2], archive_id="another"))
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert ("1.2.2", "manifest-unusable", shelf.studies[2].key) in shelf.findings()


def test_a_manifest_that_may_not_be_read_concerns_its_study_alone(shelf: Shelf) -> None:
    """As where the key that it is encrypted with was taken away."""

    def refused(key: str, _number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if key == shelf.studies[2].key:
            raise CredentialsRefused("GetObject was refused", endpoint="memory")
        yield from chunks

    shelf.store.tampering = refused
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert ("1.2.2", "manifest-unusable", shelf.studies[2].key) in shelf.findings()
    shelf.store.head = lambda *_: refused(shelf.studies[2].key, 0, iter(())).__next__()  # type: ignore[assignment,method-assign]
    with pytest.raises(CredentialsRefused):
        shelf.run()


def test_objects_and_manifests_that_come_while_it_runs(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing passes by: its pages are of several moments, and a bundle is listed before the manifests."""
    study, walk, done = shelf.studies[2], shelf.store.listing, [False]

    def listing(prefix: str, after: str = "") -> Iterator[StoredObject]:
        for one in walk(prefix, after):
            if one.key == study.key and not done[0]:
                done[0] = True
                _bundled(shelf, study)
            yield one

    monkeypatch.setattr(shelf.store, "listing", listing)
    totals = shelf.run().totals
    assert outcome(totals) == (3, 0, 0, 0) and (totals.listed_again, totals.instances) == (1, 10)


def _bundled(shelf: Shelf, study: Manifest) -> None:
    """A further revision, with an instance in a bundle."""
    data = content(77)
    key = keys.bundle(study.study_uid, hashlib.sha256(data).hexdigest())
    item = replace(
        study.instances[0],
        sop_instance_uid=Uid("1.2.2.77"),
        key=key,
        sha256=hashlib.sha256(data).hexdigest(),
        etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    shelf.store.versions[key] = [data]
    merged = study.merged(
        [item],
        attributes=study.attributes,
        series=study.series,
        flags=(),
        damaged_keys=(),
        created_at="2026-01-31T12:00:00.000Z",
        created_by="tests",
    )
    record(shelf, merged)


# -- what no manifest lists -------------------------------------------------------------------------------------------


def test_what_no_manifest_lists_is_counted(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    study = shelf.studies[1]
    other = keys.instance(study.study_uid, SERIES, Uid("1.2.1.99"), "9" * 64)
    young = keys.instance(study.study_uid, SERIES, Uid("1.2.1.98"), "8" * 64)
    copy = keys.instance(study.study_uid, SERIES, study.instances[0].sop_instance_uid, study.instances[0].sha256, 2)
    alone = keys.instance(Uid("1.9"), SERIES, Uid("1.9.1"), "7" * 64)
    strange = ["studies/readme", "studies/not-a-uid/x", "studies/1.2.1/notes.txt", "studies/01.2/x"]
    for key in (other, young, copy, alone, *strange):
        shelf.store.versions[key] = [b"12345"]
    walk = shelf.store.listing

    def dated(*where: str) -> Iterator[StoredObject]:
        for one in walk(*where):
            yield replace(one, modified_at=NOW - (10 if one.key == young else 2 * DAY))

    monkeypatch.setattr(shelf.store, "listing", dated)
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0) and done.studies == 3
    assert (done.in_no_manifest, done.in_no_manifest_bytes) == (4, 20)
    assert (done.on_their_way, done.copies, done.other_keys) == (1, 1, 2)


def test_more_objects_before_the_manifests_than_are_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.archive.fixity.study._MOST_BEFORE_MANIFESTS", 3)
    for n in range(5):
        shelf.store.versions[keys.bundle(Uid("1.2.2"), f"{n:064}")] = [b"x"]
    assert outcome(shelf.run().totals) == (2, 0, 1, 0)
    assert shelf.findings() == [("1.2.2", "too-many", "")]


# -- hashing ----------------------------------------------------------------------------------------------------------


def test_hashing_finds_a_flipped_bit(shelf: Shelf) -> None:
    shelf.hashing = True
    assert dict(shelf.run().totals.studies_by) == {"hash": 3}
    key = first_key(shelf, 2)
    data = shelf.store.versions[key][0]
    shelf.store.versions[key] = [bytes([data[0] ^ 1]) + data[1:]]
    shelf.catalogue.put(shelf.studies[2].record())
    whole = shelf.store.head(key)
    assert whole is not None
    item = replace(shelf.studies[2].instances[0], etag=whole.etag)  # as where a store keeps none
    record(shelf, replace(shelf.studies[2], instances=(item, *shelf.studies[2].instances[1:])))
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.2", "content", key)]


# -- interruptions ----------------------------------------------------------------------------------------------------


def interrupted(
    shelf: Shelf, after_studies: int, error: BaseException, source: Source | None = None, map: Map = map
) -> None:
    def stop(totals: Totals) -> None:
        if totals.studies == after_studies:
            raise error

    with pytest.raises(type(error)):
        shelf.run(source, shown=stop, map=map)


@pytest.mark.parametrize("kept_objects", [1, 5, 20_000])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_studies_side_by_side(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, batch: int, kept_objects: int) -> None:
    """In whatever parts, large ones alone; the figures are the same, and nothing is passed over after a stop."""
    monkeypatch.setattr("dicomwatchd.archive.fixity.run._BATCH_STUDIES", batch)
    monkeypatch.setattr("dicomwatchd.archive.fixity.run._KEPT_OBJECTS", kept_objects)
    for number in range(4, 12):
        shelf.add(number, files=number)
    for name in ("1.2.1x", "a", "1.2.10/x", "zz/x", "zz/y"):
        shelf.store.versions[f"studies/{name}"] = [b"x"]
    with ThreadPoolExecutor(4) as pool:
        for stopped_after in (3, 7, 10):
            interrupted(shelf, stopped_after, KeyboardInterrupt(), map=pool.map)
        done = shelf.run(map=pool.map)
    assert outcome(done.totals) == (11, 0, 0, 0) and done.resumed == 3
    assert (done.totals.other_keys, done.totals.in_no_manifest) == (4, 1)
    assert done.totals.instances == 9 + sum(range(4, 12))


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 4])
def test_it_goes_on_where_it_was(shelf: Shelf, stopped_after: int) -> None:
    shelf.catalogue.put(replace(shelf.studies[1].record(), study_uid=Uid("1.7")))  # in the catalogue alone
    del shelf.store.versions[first_key(shelf, 1)]
    interrupted(shelf, stopped_after, KeyboardInterrupt())
    shelf.store.reads.clear()
    done = shelf.run()
    assert outcome(done.totals) == (2, 0, 0, 2) and (done.totals.studies, done.resumed) == (4, 1)
    assert sorted(shelf.findings()) == [("1.2.1", "missing", first_key(shelf, 1)), ("1.7", "manifest-missing", "")]
    walked = {keys.parse_manifest(key) for key in shelf.store.reads}
    assert len(walked) == max(0, 3 - stopped_after), "what was done is not done again"
    assert len(shelf.notes) == 1 and "going on" in shelf.notes[0]
    assert outcome(shelf.run().totals) == (2, 0, 0, 2), "a finished one begins anew"


def test_it_is_stopped_between_two_steps(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written down and what is counted always agree: nothing is counted twice, and nothing is passed over."""
    add, reached = kept.Progress.add, kept.Progress.reached
    for step in range(1, 7):
        count = [0]

        def stopping(what: Callable[..., None], *arguments: Any, at: int = step, count: list[int] = count) -> None:
            what(*arguments)
            count[0] += 1
            if count[0] == at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(kept.Progress, "add", lambda *arguments: stopping(add, *arguments))
            patched.setattr(kept.Progress, "reached", lambda *arguments: stopping(reached, *arguments))
            with pytest.raises(KeyboardInterrupt):
                shelf.run()
        done = shelf.run()
        assert (done.totals.studies, done.totals.objects, done.resumed) == (3, 9, 1)


def test_the_progress_cannot_be_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Any, _verdict: Any) -> None:
        with kept._translated(shelf.folder):
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(kept.Progress, "add", full)
        with pytest.raises(Transient) as failed:
            shelf.run()
    assert failed.value.code == "verification-state"
    assert outcome(shelf.run().totals) == (3, 0, 0, 0)


def test_the_store_goes_away(shelf: Shelf) -> None:
    interrupted(shelf, 2, KeyboardInterrupt())
    shelf.store.fault = OutOfReach("gone", endpoint="memory")
    with pytest.raises(OutOfReach):
        shelf.run()
    shelf.store.fault = None
    assert outcome(shelf.run().totals) == (3, 0, 0, 0)


def test_what_was_found_before_is_not_lost_by_a_restart_of_another_archive(shelf: Shelf) -> None:
    interrupted(shelf, 2, KeyboardInterrupt())
    shelf.archive_id = "archive-2"
    shelf.run()
    assert "another archive" in shelf.notes[0]


def test_another_source_or_restart_begins_anew(shelf: Shelf) -> None:
    interrupted(shelf, 2, KeyboardInterrupt())
    done = shelf.run(Listed(shelf.store, identity="another"))
    assert "another source" in shelf.notes[0] and done.resumed == 0 and done.totals.studies == 3
    interrupted(shelf, 2, KeyboardInterrupt())
    shelf.notes.clear()
    assert shelf.run(restart=True).resumed == 0 and shelf.notes == []


def test_two_runs_at_once(shelf: Shelf) -> None:
    def second(_totals: Totals) -> None:
        found = kept.read(shelf.folder)
        assert found is not None and found.is_running
        with pytest.raises(Fatal) as refused:
            shelf.run()
        assert refused.value.code == "verification-running"

    shelf.run(shown=second)
    found = kept.read(shelf.folder)
    assert found is not None and not found.is_running and found.run.finished_at is not None


def test_it_is_told_how_far_an_interrupted_one_is(shelf: Shelf) -> None:
    assert kept.read(shelf.folder) is None
    shelf.run()
    interrupted(shelf, 2, KeyboardInterrupt())
    found = kept.read(shelf.folder)
    assert found is not None and not found.is_running
    assert found.run.finished_at is None and found.run.totals.studies == 2
    assert found.last_complete is not None and found.last_complete.totals.studies == 3


def test_the_clock_goes_back_in_between(shelf: Shelf) -> None:
    interrupted(shelf, 2, KeyboardInterrupt())
    shelf.time.at -= 400 * DAY
    assert outcome(shelf.run().totals) == (3, 0, 0, 0)


def test_what_was_kept_is_damaged(shelf: Shelf) -> None:
    interrupted(shelf, 2, KeyboardInterrupt())
    (shelf.folder / kept.FILE).write_bytes(b"garbage" * 1000)
    assert outcome(shelf.run().totals) == (3, 0, 0, 0)
    assert "cannot be read" in shelf.notes[0]


def test_the_progress_is_nobody_elses(shelf: Shelf) -> None:
    shelf.run()
    assert {path.stat().st_mode & 0o777 for path in shelf.folder.iterdir()} == {0o600}


def test_a_link_in_place_of_the_progress_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    (shelf.folder / kept.FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Fatal):
        shelf.run()
    assert not (tmp_path / "elsewhere").exists()


# -- pace ------------------------------------------------------------------------------------------------------------


def test_no_more_requests_than_so_many_a_second(shelf: Shelf) -> None:
    slept: list[float] = []
    at = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        at[0] += seconds

    pace = Pace(4, lambda: at[0], sleep)
    store, catalogue = pace.store(shelf.store), pace.catalogue(shelf.catalogue)
    list(store.listing("studies/"))
    for key in list(shelf.store.versions)[:5]:
        store.head(key)
        list(store.read(key))
    for uid in catalogue.study_uids():
        catalogue.get(uid)
    assert pace.requests == 1 + 10 + 1 + 3
    assert at[0] == pytest.approx((pace.requests - 1) / 4)


def test_progress_counts_findings_beyond_those_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_FINDINGS", 2)
    for item in shelf.studies[1].instances:
        del shelf.store.versions[item.key]
    done = shelf.run().totals
    assert done.findings["missing"] == 3 and len(shelf.findings()) == 2
