"""The catalogue rebuilt from a store: complete, exact, repeatable, and not stopped by one bad manifest."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.documents import LEFT_OUT
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.repair.rebuild import Problem, RebuildReport, rebuild
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import NotInitialised, OutOfReach, Permanent, RevisionConflict
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity
from tests.unit.memory_archive import MemoryStore

ARCHIVE_ID = "archive-1"


def manifests(uid: str, revisions: int, archive_id: str = ARCHIVE_ID) -> list[Manifest]:
    """Revisions 1 to ``revisions`` of a study; each adds a series' attributes."""
    current, made = empty(archive_id, Uid(uid)), []
    attributes: DicomJson = {"00100020": {"vr": "LO", "Value": [f"CANARY-{uid}"]}}
    for number in range(1, revisions + 1):
        series: dict[Uid, DicomJson] = {Uid(f"{uid}.{number}"): {"00080060": {"vr": "CS", "Value": ["MR"]}}}
        current = current.merged(
            [], attributes=attributes, series=series, flags=[], damaged_keys=[], created_at=f"t{number}", created_by="x"
        )
        made.append(current)
    return made


def stored(*found: Manifest) -> MemoryStore:
    store = MemoryStore()
    for manifest in found:
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
        for name in ("1.dcm", "2.dcm"):
            store.put(f"studies/{manifest.study_uid}/series/1.2/3.4/{name}", Buffer.of(b"pixels"))
    return store


@pytest.fixture
def catalogue(tmp_path: Path) -> SqliteCatalogue:
    made = SqliteCatalogue(SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    made.initialise(ARCHIVE_ID)
    return made


def test_the_highest_revision_of_every_study_is_recorded(catalogue: SqliteCatalogue) -> None:
    """Also where one study's UID begins with another's, and with more studies than one batch."""
    studies = [manifests(f"1.2{suffix}", count) for suffix, count in (("", 3), (".3", 1), ("3", 12), (".30.1", 2))]
    studies += [manifests(f"1.9.{number}", 1) for number in range(600)]
    store = stored(*(manifest for study in studies for manifest in study))
    seen: list[RebuildReport] = []
    report = rebuild(store, catalogue, progress=seen.append)
    assert report == RebuildReport(studies=604, recorded=604)
    assert seen[-1] == report and len(seen) == 604
    for study in studies:
        assert catalogue.get(study[-1].study_uid) == study[-1].record()
    assert len(list(catalogue.study_uids())) == 604


def test_a_second_run_writes_nothing(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    store = stored(*manifests("1.2", 2), *manifests("1.3", 1))
    rebuild(store, catalogue)
    before = (tmp_path / "catalogue.db").read_bytes()
    assert rebuild(store, catalogue) == RebuildReport(studies=2, unchanged=2)
    assert (tmp_path / "catalogue.db").read_bytes() == before


def test_with_many_threads(catalogue: SqliteCatalogue) -> None:
    store = stored(*(manifest for number in range(40) for manifest in manifests(f"1.2.{number}", 2)))
    with ThreadPoolExecutor(8) as pool:
        report = rebuild(store, catalogue, map=pool.map)
    assert report == RebuildReport(studies=40, recorded=40)


def test_an_older_entry_is_replaced_and_a_newer_one_stays(catalogue: SqliteCatalogue) -> None:
    old, new = manifests("1.2", 3), manifests("1.3", 3)
    catalogue.put(old[0].record())
    catalogue.put(new[2].record())
    report = rebuild(stored(*old, *new[:2]), catalogue)
    assert report == RebuildReport(studies=2, recorded=1, unchanged=1)
    assert catalogue.get(Uid("1.2")) == old[2].record()
    assert catalogue.get(Uid("1.3")) == new[2].record()


def test_an_entry_that_differs_from_its_manifest_is_put_right(catalogue: SqliteCatalogue) -> None:
    (manifest,) = manifests("1.2", 1)
    catalogue.put(replace(manifest.record(), patient_id="SOMEBODY ELSE", series=()))
    assert rebuild(stored(manifest), catalogue) == RebuildReport(studies=1, recorded=1)
    assert catalogue.get(Uid("1.2")) == manifest.record()


def test_an_entry_shortened_by_the_catalogue_counts_as_there(catalogue: SqliteCatalogue) -> None:
    (manifest,) = manifests("1.2", 1)
    catalogue.put(replace(manifest.record(), attributes={}, flags=(LEFT_OUT,)))
    assert rebuild(stored(manifest), catalogue) == RebuildReport(studies=1, unchanged=1)


def test_a_bad_manifest_is_reported_and_the_rest_goes_on(catalogue: SqliteCatalogue) -> None:
    good, partly, bad = manifests("1.1", 1), manifests("1.2", 3), manifests("1.3", 1)
    store = stored(*good, *partly, *bad)
    store.versions[partly[2].key] = [b"{}"]
    store.versions[partly[1].key] = [partly[1].to_bytes().replace(ARCHIVE_ID.encode(), b"archive-2")]
    store.versions[bad[0].key] = [good[0].to_bytes()]
    report = rebuild(store, catalogue)
    assert report == RebuildReport(
        studies=3,
        recorded=2,
        problems=(
            Problem(Uid("1.2"), 3, "a manifest in the store cannot be read"),
            Problem(Uid("1.2"), 2, "a manifest belongs to another archive"),
            Problem(Uid("1.3"), 1, "a manifest in the store does not match its key"),
        ),
    )
    assert report.unusable == 1
    assert catalogue.get(Uid("1.2")) == partly[0].record()
    assert catalogue.get(Uid("1.3")) is None
    assert "CANARY" not in json.dumps([problem.reason for problem in report.problems])


def test_other_objects_in_the_store_are_passed_by(catalogue: SqliteCatalogue) -> None:
    store = stored(*manifests("1.2", 1))
    for key in (
        "archive.json",
        "studies/../manifests/00000001.json",
        "studies/1.2/manifests/00000000.json",
        "studies/1.2/manifests/00000002.json.tmp",
        "studies/1.4/series/1/2/x.dcm",
        "elsewhere/studies/1.5/manifests/00000001.json",
    ):
        store.put(key, Buffer.of(b"x"))
    assert rebuild(store, catalogue) == RebuildReport(studies=1, recorded=1)


def test_another_manifest_of_the_same_revision_is_a_problem_and_no_agreement(catalogue: SqliteCatalogue) -> None:
    (manifest,) = manifests("1.2", 1)
    other = replace(manifest, created_by="another daemon")
    catalogue.put(other.record())
    report = rebuild(stored(manifest), catalogue)
    assert report == RebuildReport(
        studies=1, problems=(Problem(Uid("1.2"), 1, "the catalogue names another manifest of this revision"),)
    )
    assert catalogue.get(Uid("1.2")) == other.record()


class Racing(SqliteCatalogue):
    """Between the rebuild's read and its write, a daemon records revision 2."""

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        super().put(replace(record, revision=record.revision + 1, manifest_sha256="d" * 64))
        super().put(record, instead_of=instead_of)


def test_a_revision_that_a_daemon_records_meanwhile_stays(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    racing = Racing(SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    (manifest,) = manifests("1.2", 1)
    with pytest.raises(RevisionConflict):
        Racing(SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db")).put(manifests("1.1", 1)[0].record())
    assert rebuild(stored(manifest), racing) == RebuildReport(studies=1, unchanged=1)
    there = catalogue.get(Uid("1.2"))
    assert there is not None and there.revision == 2


class Refusing(SqliteCatalogue):
    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        raise Permanent("the catalogue refuses it")


def test_what_the_catalogue_refuses_is_not_replaced_by_an_older_revision(
    catalogue: SqliteCatalogue, tmp_path: Path
) -> None:
    refusing = Refusing(SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    report = rebuild(stored(*manifests("1.2", 3)), refusing)
    assert report == RebuildReport(studies=1, problems=(Problem(Uid("1.2"), 3, "the catalogue refuses it"),))


def test_a_store_out_of_reach_is_no_empty_archive(catalogue: SqliteCatalogue) -> None:
    store = stored(*manifests("1.2", 1))
    store.fault = OutOfReach("down")
    with pytest.raises(OutOfReach):
        rebuild(store, catalogue)


def test_a_store_that_goes_away_half_way_stops_it_and_a_second_run_ends_it(catalogue: SqliteCatalogue) -> None:
    studies = [manifests(f"1.2.{number}", 1)[0] for number in range(5)]
    store = stored(*studies)

    def go_away(report: RebuildReport) -> None:
        if report.studies == 2:
            store.fault = OutOfReach("down")

    with pytest.raises(OutOfReach):
        rebuild(store, catalogue, progress=go_away)
    store.fault = None
    assert rebuild(store, catalogue) == RebuildReport(studies=5, recorded=3, unchanged=2)


def test_a_catalogue_without_identity_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    path.touch()
    absent = SqliteCatalogue(SqliteSettings(kind="sqlite", path=path))
    with pytest.raises(NotInitialised):
        rebuild(stored(*manifests("1.2", 1)), absent)
    assert path.read_bytes() == b""


def test_the_listing_is_asked_for_studies_only(catalogue: SqliteCatalogue) -> None:
    store = stored(*manifests("1.2", 4))
    rebuild(store, catalogue)
    assert set(store.reads) == {keys.manifest(Uid("1.2"), revision) for revision in (1, 2, 3, 4)}
    store.reads.clear()
    rebuild(store, catalogue)  # and again: the record may be a thief's
    assert set(store.reads) == {keys.manifest(Uid("1.2"), revision) for revision in (1, 2, 3, 4)}


def without_names(record: StudyRecord) -> StudyRecord:
    """As an earlier version recorded it."""
    return replace(record, identities=None, orders=None, institutions=None)


def test_what_an_earlier_version_recorded_is_found_by_all_that_it_names(catalogue: SqliteCatalogue) -> None:
    [first] = manifests("1.2", 1)
    named = replace(first, identities=(Identity("P1"), Identity("P2", name="Smith^John")))
    store = stored(named)
    catalogue.put(without_names(named.record()))
    assert list(catalogue.search(Query(patient_id="P2"))) == []
    assert rebuild(store, catalogue) == RebuildReport(studies=1, recorded=1)
    assert [one.study_uid for one in catalogue.search(Query(patient_id="P2", name="smith*"))] == ["1.2"]
    assert catalogue.shortcomings(Query(name="x")) == ()
    assert rebuild(store, catalogue) == RebuildReport(studies=1, unchanged=1)


def test_entries_that_no_manifest_bears_out_are_indexed_as_they_are(catalogue: SqliteCatalogue) -> None:
    """Of a revision that the store has lost, and of a study whose manifests are all damaged."""
    older, newer = manifests("1.2", 2)
    [bad] = manifests("1.3", 1)
    store = stored(older, bad)
    store.versions[bad.key] = [b"damaged"]
    for record in (newer.record(), bad.record()):
        catalogue.put(without_names(record))
    with closing(sqlite3.connect(catalogue._path)) as database, database:
        database.execute("INSERT OR IGNORE INTO unindexed SELECT study_uid FROM studies")
    assert catalogue.shortcomings(Query(name="x")) != ()
    report = rebuild(store, catalogue)
    assert (report.unchanged, report.unusable) == (1, 1)
    assert catalogue.shortcomings(Query(name="x")) == ()
    assert [one.revision for one in catalogue.search(Query(patient_id="CANARY-1.2"))] == [2]


def test_a_rebuild_that_came_to_its_end_says_so(tmp_path: Path) -> None:
    class Counting(SqliteCatalogue):
        ended = 0

        def completed(self) -> None:
            self.ended += 1

    made = Counting(SqliteSettings(kind="sqlite", path=tmp_path / "counting.db"))
    made.initialise(ARCHIVE_ID)
    store = stored(*manifests("1.2", 1))
    rebuild(store, made)
    assert made.ended == 1
    store.fault = OutOfReach("gone", endpoint="store")
    with pytest.raises(OutOfReach):
        rebuild(store, made)
    assert made.ended == 1
