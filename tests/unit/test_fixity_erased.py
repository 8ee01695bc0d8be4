"""What a verification of the whole archive says of studies that were erased: nothing where all of it is gone, and what
is left where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.stores.port import StoredObject
from dicomwatchd.errors import Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp
from tests.unit.memory_archive import SERIES, archive, content
from tests.unit.test_fixity import ARCHIVE, DAY, NOW, Shelf, interrupted, outcome, shelf
from tests.unit.test_fixity_reports import MADE, Desk

__all__ = ["shelf"]

LEFT = "left-erased"
ERASED_AT = NOW - 3 * DAY


def put_on_record(shelf: Shelf, number: int, *, through: int = 101, at: float = ERASED_AT) -> Erasure:
    """As the first step of an erasure, and as what its end leaves."""
    study = Uid(f"1.2.{number}")
    nth = erasures.newest_number(shelf.store, study) + 1
    erasure = Erasure(ARCHIVE, study, nth, timestamp(at), "request 17/2026", 0, "root", through)
    shelf.store.versions[erasure.key] = [erasure.to_bytes()]
    return erasure


def of_study(shelf: Shelf, number: int) -> list[str]:
    return [key for key in sorted(shelf.store.versions) if key.startswith(keys.study_prefix(Uid(f"1.2.{number}")))]


def delete(shelf: Shelf, number: int) -> None:
    for key in of_study(shelf, number):
        del shelf.store.versions[key]


def archive_again(shelf: Shelf, number: int, files: int = 2) -> Manifest:
    study = Uid(f"1.2.{number}")
    before = replace(empty(ARCHIVE, study), revision=101)
    made = archive(
        shelf.store, [(SERIES, f"{study}.{n}", content(n)) for n in range(files)], study=study, before=before
    )
    made = replace(made, previous_sha256=None)
    shelf.store.versions[made.key] = [made.to_bytes()]
    shelf.catalogue.put(Manifest.from_bytes(made.to_bytes()).record())
    return made


def dated(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, at: dict[str, float]) -> None:
    """The store's listing says when each was put there, two days ago unless ``at`` says otherwise."""
    walk = shelf.store.listing

    def listing(*where: str) -> Iterator[StoredObject]:
        for one in walk(*where):
            yield replace(one, modified_at=at.get(one.key, NOW - 2 * DAY))

    monkeypatch.setattr(shelf.store, "listing", listing)


# -- an erasure that was interrupted ----------------------------------------------------------------------------------


def test_all_that_is_left_is_named_and_no_ordinary_study(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and done.left_erased == 1
    assert sorted(shelf.findings()) == sorted(
        [("1.2.2", LEFT, key) for key in of_study(shelf, 2)] + [("1.2.2", LEFT, "")]
    ), "instances, the manifest, and the catalogue's entry"
    assert (done.objects, done.instances, done.in_no_manifest) == (6, 6, 0)


def test_what_is_left_is_no_damage(shelf: Shelf) -> None:
    """Its catalogue's record goes first, and of its objects some are gone."""
    put_on_record(shelf, 2)
    del shelf.catalogue.records[Uid("1.2.2")]
    instances = [key for key in of_study(shelf, 2) if keys.parse_instance(key)]
    del shelf.store.versions[instances[0]]
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert {kind for _, kind, _ in shelf.findings()} == {LEFT} and len(shelf.findings()) == 3


def test_its_manifests_are_not_read(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    shelf.store.versions[shelf.studies[2].key] = [b"damaged"]
    shelf.run()
    assert shelf.studies[2].key not in shelf.store.reads
    assert {kind for _, kind, _ in shelf.findings()} == {LEFT}


def test_instances_alone_are_left(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    del shelf.catalogue.records[Uid("1.2.2")]
    del shelf.store.versions[shelf.studies[2].key]
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and done.in_no_manifest == 0
    assert [kind for _, kind, _ in shelf.findings()] == [LEFT] * 3


def test_the_catalogue_alone_names_it(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    delete(shelf, 2)
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and shelf.findings() == [("1.2.2", LEFT, "")]


def test_the_catalogue_entry_is_damaged(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomwatchd.errors import CatalogueEntryDamaged

    put_on_record(shelf, 2)
    delete(shelf, 2)
    get = shelf.catalogue.get

    def damaged(study: Uid) -> Any:
        if study == "1.2.2":
            raise CatalogueEntryDamaged("damaged")
        return get(study)

    monkeypatch.setattr(shelf.catalogue, "get", damaged)
    shelf.run()
    assert ("1.2.2", LEFT, "") in shelf.findings()


def test_all_of_it_is_gone(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    delete(shelf, 2)
    del shelf.catalogue.records[Uid("1.2.2")]
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 0) and done.studies == 2 and done.left_erased == 0
    assert shelf.findings() == []


def test_hashing_reads_nothing_of_it(shelf: Shelf) -> None:
    shelf.hashing = True
    put_on_record(shelf, 2)
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and dict(done.studies_by) == {"hash": 2}
    assert not set(of_study(shelf, 2)) & set(shelf.store.reads)


# -- archived again ---------------------------------------------------------------------------------------------------


def test_archived_again_it_is_as_any_other(shelf: Shelf) -> None:
    put_on_record(shelf, 2)
    delete(shelf, 2)
    made = archive_again(shelf, 2)
    assert made.revision == 102
    done = shelf.run().totals
    assert outcome(done) == (3, 0, 0, 0) and (done.objects, done.left_erased) == (8, 0)
    del shelf.store.versions[made.instances[0].key]
    assert outcome(shelf.run().totals) == (2, 0, 0, 1)
    assert shelf.findings() == [("1.2.2", "missing", made.instances[0].key)]


def test_archived_again_beside_what_was_left(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasing the study once more would erase what somebody has released: that is said."""
    put_on_record(shelf, 2)
    before = of_study(shelf, 2)
    archive_again(shelf, 2)
    later = keys.instance(Uid("1.2.2"), SERIES, Uid("1.2.2.88"), "8" * 64)
    shelf.store.versions[later] = [b"12345"]
    dated(shelf, monkeypatch, dict.fromkeys(before, ERASED_AT - DAY))
    done = shelf.run().totals
    assert outcome(done) == (2, 0, 0, 1) and done.in_no_manifest == 1
    from dicomwatchd.archive.fixity import progress as kept

    found = [one for _, one in kept.findings(shelf.folder)]
    assert {one.key for one in found} == set(before) and {one.kind for one in found} == {LEFT}
    assert all("archived again" in one.reason for one in found)


@pytest.mark.parametrize(
    ("stored_at", "is_left"), [(ERASED_AT - 1, True), (NOW - DAY - 1, True), (NOW - DAY + 1, False)]
)
def test_what_somebody_has_released_is_on_its_way(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, stored_at: float, is_left: bool
) -> None:
    put_on_record(shelf, 2)
    delete(shelf, 2)
    del shelf.catalogue.records[Uid("1.2.2")]
    sent = keys.instance(Uid("1.2.2"), SERIES, Uid("1.2.2.88"), "8" * 64)
    shelf.store.versions[sent] = [b"12345"]
    dated(shelf, monkeypatch, {sent: stored_at})
    done = shelf.run().totals
    assert shelf.findings() == ([("1.2.2", LEFT, sent)] if is_left else [])
    assert (done.on_their_way, done.in_no_manifest) == (0 if is_left else 1, 0)


def test_just_erased_what_was_just_stored_is_left(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_record(shelf, 2, at=NOW - 600)
    dated(shelf, monkeypatch, dict.fromkeys(of_study(shelf, 2), NOW - 3600))
    shelf.run()
    assert len(shelf.findings()) == 5 and {kind for _, kind, _ in shelf.findings()} == {LEFT}


# -- by an inventory --------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(shelf: Shelf, tmp_path: Path) -> Desk:
    folder = tmp_path / "reports"
    folder.mkdir()
    return Desk(shelf, folder)


def test_an_inventory_that_is_older_than_the_erasure(desk: Desk) -> None:
    rows = desk.rows()
    put_on_record(desk.shelf, 2)
    delete(desk.shelf, 2)
    del desk.shelf.catalogue.records[Uid("1.2.2")]
    done = desk.shelf.run(desk.inventory(rows)).totals
    assert outcome(done) == (2, 0, 0, 0) and desk.shelf.findings() == []


def test_an_inventory_shows_what_is_left(desk: Desk) -> None:
    put_on_record(desk.shelf, 2)
    done = desk.shelf.run(desk.summed(desk.inventory())).totals
    assert outcome(done) == (2, 0, 0, 1) and dict(done.studies_by) == {"checksum": 2}
    assert {(study, kind) for study, kind, _ in desk.shelf.findings()} == {("1.2.2", LEFT)}
    assert len(desk.shelf.findings()) == 5


def test_a_record_of_the_catalogue_is_not_called_newer_than_the_inventory(desk: Desk) -> None:
    rows = [row for row in desk.rows() if "/1.2.2/" not in row.key]
    put_on_record(desk.shelf, 2)
    delete(desk.shelf, 2)
    there = desk.shelf.catalogue.records[Uid("1.2.2")]
    desk.shelf.catalogue.put(replace(there, archived_at=timestamp(NOW)))
    desk.shelf.run(desk.inventory(rows))
    assert desk.shelf.findings() == [("1.2.2", LEFT, "")]


@pytest.mark.parametrize(("at", "is_left"), [(MADE - DAY, True), (MADE + 1, False)])
def test_what_is_under_a_delete_marker_has_its_versions_still(desk: Desk, at: float, is_left: bool) -> None:
    """No listing shows that, and an inventory from before the erasure says nothing of it."""
    key = of_study(desk.shelf, 2)[0]
    hidden = next(row for row in desk.rows() if row.key.endswith(key)).marked()
    delete(desk.shelf, 2)
    del desk.shelf.catalogue.records[Uid("1.2.2")]
    rows = [row for row in desk.rows() if "/1.2.2/" not in row.key]
    put_on_record(desk.shelf, 2, at=at)
    done = desk.shelf.run(desk.inventory([*rows, *hidden])).totals
    assert desk.shelf.findings() == ([("1.2.2", LEFT, key)] if is_left else [])
    assert outcome(done) == (2, 0, 0, int(is_left))


# -- while it runs, and afterwards ------------------------------------------------------------------------------------


def test_it_is_erased_while_the_run_passes_by(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen a moment ago is gone: that is no loss."""
    monkeypatch.setattr("dicomwatchd.archive.fixity.run._BATCH_STUDIES", 1)

    def erase(_totals: Any) -> None:
        if not erasures.newest_number(shelf.store, Uid("1.2.2")):
            put_on_record(shelf, 2, at=NOW)
            delete(shelf, 2)
            del shelf.catalogue.records[Uid("1.2.2")]

    done = shelf.run(shown=erase).totals
    assert outcome(done) == (2, 0, 0, 0) and shelf.findings() == []


def test_it_is_being_erased_while_the_run_passes_by(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.archive.fixity.run._BATCH_STUDIES", 1)

    def erase(_totals: Any) -> None:
        if not erasures.newest_number(shelf.store, Uid("1.2.2")):
            put_on_record(shelf, 2, at=NOW)
            del shelf.store.versions[shelf.studies[2].instances[0].key]

    shelf.run(shown=erase)
    assert len(shelf.findings()) == 4 and {kind for _, kind, _ in shelf.findings()} == {LEFT}


def test_a_run_that_goes_on_knows_what_was_erased_meanwhile(shelf: Shelf) -> None:
    interrupted(shelf, 1, KeyboardInterrupt())
    put_on_record(shelf, 2)
    done = shelf.run()
    assert done.resumed == 1 and outcome(done.totals) == (2, 0, 0, 1) and done.totals.left_erased == 1
    assert len(shelf.findings()) == 5 and {kind for _, kind, _ in shelf.findings()} == {LEFT}


def test_the_progress_of_an_earlier_version_is_read(shelf: Shelf) -> None:
    from dicomwatchd.archive.fixity.progress import Totals

    said = Totals(studies=3).document()
    del said["left_erased"]
    assert Totals.of(said).left_erased == 0


@pytest.mark.parametrize("data", [b"no record", None])
def test_a_record_that_cannot_be_read_proves_nothing(shelf: Shelf, data: bytes | None) -> None:
    erasure = put_on_record(shelf, 2)
    if data is not None:
        shelf.store.versions[erasure.key] = [data]
    else:
        whole = shelf.store.tampering

        def broken(key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
            if key == erasure.key:
                raise Transient("two reads differ")
            yield from chunks if whole is None else whole(key, count, chunks)

        shelf.store.tampering = broken
    assert outcome(shelf.run().totals) == (2, 0, 1, 0)
    assert [(study, kind) for study, kind, _ in shelf.findings()] == [("1.2.2", "unknown")]


def test_without_erasures_nothing_more_is_asked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    walk = shelf.store.listing

    def listing(prefix: str, after: str = "") -> Iterator[StoredObject]:
        asked[prefix] += 1
        return walk(prefix, after)

    monkeypatch.setattr(shelf.store, "listing", listing)
    shelf.run()
    assert asked == {keys.STUDIES: 1, keys.ERASED: 1}
    assert len(shelf.store.reads) == 3 and not shelf.store.heads
    put_on_record(shelf, 4)  # of a study that is gone
    asked.clear()
    shelf.store.reads.clear()
    shelf.run()
    assert asked == {keys.STUDIES: 1, keys.ERASED: 1} and len(shelf.store.reads) == 3
