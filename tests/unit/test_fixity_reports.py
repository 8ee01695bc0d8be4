"""An S3 Inventory report and checksums of a batch job, against an archive: what they prove, what they do not cover, and
what is wrong with a report that is not what it should be."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity import checksums as sums
from dicomwatchd.archive.fixity import inventory as inventories
from dicomwatchd.archive.fixity import progress as kept
from dicomwatchd.archive.fixity.listed import Listed
from dicomwatchd.archive.fixity.progress import RunRecord, Totals
from dicomwatchd.archive.fixity.reports import InFolder, plain_key
from dicomwatchd.archive.fixity.seen import Seen, Source, Sum
from dicomwatchd.archive.fixity.sorting import Sorter
from dicomwatchd.errors import Fatal, Permanent
from tests import amazon_reports
from tests.amazon_reports import Row
from tests.unit.test_fixity import DAY, NOW, Shelf, first_key, interrupted, outcome, record

BUCKET = "radiology-archive"
PREFIX = "site-a/"
MADE = NOW - DAY


@dataclass
class Desk:
    """A shelf, and the reports that Amazon has made of it."""

    shelf: Shelf
    folder: Path
    prefix: str = PREFIX
    extra: list[Row] = field(default_factory=list)
    changed: dict[str, Any] = field(default_factory=dict)
    change_rows: Callable[[list[Row]], Iterable[Row]] = lambda rows: rows
    change_files: Callable[[dict[str, bytes]], None] = lambda _files: None
    tasks: list[list[str]] | None = None
    change_report: Callable[[dict[str, bytes]], None] = lambda _files: None

    def rows(self) -> list[Row]:
        rows = []
        for key, versions in sorted(self.shelf.store.versions.items()):
            seen = self.shelf.store.head(key)
            if seen is not None:
                one = Row(self.prefix + key, seen.size_bytes, seen.etag or "", version_id=f"v{len(versions)}")
                rows.append(one)
        return rows

    def inventory(self, rows: list[Row] | None = None) -> Source:
        found = list(self.change_rows(self.rows() if rows is None else rows))
        files = amazon_reports.inventory(BUCKET, [*found, *self.extra], MADE, **self.changed)
        self.change_files(files)
        path = amazon_reports.write(self.folder, files)
        place = InFolder(path.parent)
        made = inventories.Inventory(inventories.manifest(place, path.name, BUCKET), Sorter(self.folder, run_lines=3))
        made.load(place, self.prefix)
        return made

    def summed(self, source: Source) -> Source:
        tasks = self.tasks if self.tasks is not None else self.all_tasks()
        files = amazon_reports.completion(tasks)
        self.change_report(files)
        path = amazon_reports.write(self.folder, files)
        place = InFolder(path.parent)
        report = sums.manifest(place, path.name)
        found = sums.Checksums(Sorter(self.folder, run_lines=3))
        found.load(place, report, BUCKET, self.prefix)
        found.require_sums()
        return sums.Summed(source, found, report.sha256)

    def all_tasks(self) -> list[list[str]]:
        return [
            amazon_reports.task(BUCKET, row.key, hashlib.sha256(self._data(row)).hexdigest(), row.etag, row.version_id)
            for row in self.rows()
        ]

    def _data(self, row: Row) -> bytes:
        return self.shelf.store.versions[row.key.removeprefix(self.prefix)][-1]

    def run(self, source: Source | None = None, *, summed: bool = False, rows: list[Row] | None = None) -> RunRecord:
        source = source or self.inventory(rows)
        return self.shelf.run(self.summed(source) if summed else source)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "state").mkdir()
    shelf = Shelf(tmp_path / "state")
    for number in (1, 2, 3):
        shelf.add(number)
    shelf.store.versions["archive.json"] = [b"{}"]
    return shelf


@pytest.fixture
def desk(shelf: Shelf, tmp_path: Path) -> Desk:
    (tmp_path / "reports").mkdir()
    return Desk(shelf, tmp_path / "reports")


def restamped(shelf: Shelf, number: int, stored_at: str, *, of: int = 0) -> None:
    """As if one instance of a study had been stored at another time."""
    study = shelf.studies[number]
    items = list(study.instances)
    items[of] = replace(items[of], stored_at=stored_at)
    shelf.studies[number] = replace(study, instances=tuple(items))
    record(shelf, shelf.studies[number])


# -- what they prove --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_an_inventory_proves_by_size_and_etag_without_a_listing(desk: Desk, prefix: str) -> None:
    desk.prefix = prefix
    source = desk.inventory()
    listed: list[str] = []
    walk = desk.shelf.store.listing
    desk.shelf.store.listing = lambda *where: listed.append(where[0]) or walk(*where)  # type: ignore[func-returns-value,method-assign]
    done = desk.run(source)
    assert outcome(done.totals) == (3, 0, 0, 0) and dict(done.totals.studies_by) == {"etag": 3}
    assert listed == [keys.ERASED] and all(keys.parse_manifest(key) for key in desk.shelf.store.reads)


def test_checksums_prove_the_content(desk: Desk) -> None:
    done = desk.run(summed=True).totals
    assert dict(done.studies_by) == {"checksum": 3} and dict(done.objects_by) == {"checksum": 9}


def test_checksums_with_a_listing(desk: Desk) -> None:
    assert dict(desk.run(Listed(desk.shelf.store), summed=True).totals.studies_by) == {"checksum": 3}


def test_checksums_prove_what_was_encrypted_anew(desk: Desk) -> None:
    rows = [replace(row, etag="0" * 32) for row in desk.rows()]
    tasks = [task for task in desk.all_tasks() if ".dcm" in task[1]]
    desk.tasks = [[*task[:-1], task[-1].replace(json.loads(task[-1])["etag"], "0" * 32)] for task in tasks]
    assert outcome(desk.run(rows=rows, summed=True).totals) == (3, 0, 0, 0)


def test_a_study_is_proven_by_the_weakest_of_its_objects(desk: Desk) -> None:
    desk.tasks = [task for task in desk.all_tasks() if first_key(desk.shelf, 2) not in task[1]]
    done = desk.run(summed=True).totals
    assert dict(done.studies_by) == {"checksum": 2, "etag": 1} and done.objects_by["checksum"] == 8


# -- what they do not cover -------------------------------------------------------------------------------------------


def test_what_was_stored_since_is_not_covered(desk: Desk) -> None:
    """A study, and an instance of another one; nothing is asked of the store for them."""
    restamped(desk.shelf, 3, "2027-01-15T07:00:00.000Z")
    rows = [row for row in desk.rows() if first_key(desk.shelf, 3) not in row.key]
    desk.shelf.add(4)
    desk.shelf.catalogue.put(replace(desk.shelf.studies[4].record(), archived_at="2027-01-15T07:00:00.000Z"))
    walk = desk.shelf.store.listing
    desk.shelf.store.listing = lambda *where: walk(*where) if where[0] == keys.ERASED else pytest.fail("listed")  # type: ignore[method-assign]
    done = desk.run(rows=rows)
    assert outcome(done.totals) == (2, 2, 0, 0)
    assert desk.shelf.findings() == [("1.2.3", "newer", first_key(desk.shelf, 3)), ("1.2.4", "newer", "")]


def test_what_was_stored_since_and_is_in_it_is_covered(desk: Desk) -> None:
    """A clock that was ahead, or a list that was made for a while."""
    restamped(desk.shelf, 3, "2037-01-15T07:00:00.000Z")
    assert outcome(desk.run().totals) == (3, 0, 0, 0)


def test_a_new_revision_since_the_inventory_is_known_by_the_catalogue(desk: Desk) -> None:
    rows = desk.rows()
    later = desk.shelf.add(2, files=4)
    new = next(one for one in later.instances if one not in desk.shelf.studies[1].instances and "1.2.2.3" in one.key)
    number = later.instances.index(new)
    restamped(desk.shelf, 2, "2027-01-15T07:00:00.000Z", of=number)
    done = desk.run(rows=rows).totals
    assert outcome(done) == (2, 1, 0, 0) and done.objects == 10
    assert desk.shelf.findings() == [("1.2.2", "newer", new.key)]


def test_what_the_list_lacks_is_looked_for_in_the_store(desk: Desk) -> None:
    """It is consistent in the end, and not at once; or its filter leaves something out."""
    rows = [row for row in desk.rows() if "1.2.2" not in row.key or ".json" in row.key]
    done = desk.run(rows=rows).totals
    assert outcome(done) == (3, 0, 0, 0) and done.listed_again == 1
    rows = [row for row in desk.rows() if "/1.2.2/" not in row.key]
    done = desk.run(rows=rows).totals
    assert outcome(done) == (3, 0, 0, 0) and done.listed_again == 1


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_what_is_neither_in_the_list_nor_in_the_store_is_missing(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    del desk.shelf.store.versions[key]
    assert outcome(desk.run().totals) == (2, 0, 0, 1)
    assert desk.shelf.findings() == [("1.2.2", "missing", key)]


def test_a_delete_marker_over_an_object(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    rows = [one for row in desk.rows() for one in (row.marked() if row.key.endswith(key) else (row,))]
    desk.shelf.store.mark_deleted(key)
    source = desk.inventory(rows)
    assert outcome(desk.run(source).totals) == (2, 0, 0, 1)
    assert desk.shelf.findings() == [("1.2.2", "hidden", key)]
    assert isinstance(source, inventories.Inventory) and (source.counted.markers, source.counted.others) == (1, 1)
    desk.shelf.store.hidden.clear()
    assert outcome(desk.run(rows=rows).totals) == (3, 0, 0, 0), "it was taken away since"


def test_a_version_that_is_not_current_counts_for_nothing(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    right = next(row for row in desk.rows() if row.key.endswith(key))
    desk.shelf.store.overwrite(key, b"short")
    desk.extra = [replace(right, is_latest=False)]
    assert outcome(desk.run().totals) == (2, 0, 0, 1)
    assert desk.shelf.findings() == [("1.2.2", "size", key)]


def test_the_right_size_and_the_wrong_checksum(desk: Desk) -> None:
    """Where the ETag is as recorded: bits that have changed in the store."""
    key = first_key(desk.shelf, 2)
    desk.tasks = desk.all_tasks()
    wrong = next(task for task in desk.tasks if task[1].endswith(key))
    etag = json.loads(wrong[-1])["etag"]
    desk.tasks[desk.tasks.index(wrong)] = amazon_reports.task(BUCKET, PREFIX + key, "1" * 64, etag, wrong[2])
    done = desk.run(summed=True).totals
    assert outcome(done) == (2, 0, 0, 1) and desk.shelf.findings() == [("1.2.2", "content", key)]


def test_two_reports_that_differ(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    desk.tasks = desk.all_tasks()
    right = next(task for task in desk.tasks if task[1].endswith(key))
    desk.tasks.append(amazon_reports.task(BUCKET, PREFIX + key, "1" * 64, json.loads(right[-1])["etag"], right[2]))
    desk.run(summed=True)
    assert desk.shelf.findings() == [("1.2.2", "content", key)]


@pytest.mark.parametrize("other", ["etag", "version", "neither"])
def test_a_checksum_of_what_was_there_before_proves_nothing(desk: Desk, other: str) -> None:
    """And is no evidence against what is there now."""
    key = first_key(desk.shelf, 2)
    row = next(row for row in desk.rows() if row.key.endswith(key))
    etag = {"etag": "9" * 32, "version": row.etag, "neither": ""}[other]
    version = {"etag": "", "version": "v9", "neither": ""}[other]
    desk.tasks = [task for task in desk.all_tasks() if not task[1].endswith(key)]
    desk.tasks.append(amazon_reports.task(BUCKET, row.key, "1" * 64, etag, version))
    done = desk.run(summed=True).totals
    assert dict(done.studies_by) == {"checksum": 2, "etag": 1}


def test_a_failed_task_leaves_its_study_unproven(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    desk.tasks = [task for task in desk.all_tasks() if not task[1].endswith(key)]
    desk.tasks.append(amazon_reports.task(BUCKET, PREFIX + key, None, version_id="v1"))
    source = desk.summed(desk.inventory())
    assert outcome(desk.run(source).totals) == (2, 0, 1, 0)
    assert desk.shelf.findings() == [("1.2.2", "no-checksum", key)]
    desk.tasks.append(next(task for task in desk.all_tasks() if task[1].endswith(key)))
    assert outcome(desk.run(summed=True).totals) == (3, 0, 0, 0), "another task has done it"


def test_a_failed_task_of_another_version_says_nothing(desk: Desk) -> None:
    key = first_key(desk.shelf, 2)
    desk.tasks = [task for task in desk.all_tasks() if not task[1].endswith(key)]
    desk.tasks.append(amazon_reports.task(BUCKET, PREFIX + key, None, version_id="v9"))
    assert outcome(desk.run(summed=True).totals) == (3, 0, 0, 0)


def test_amazons_own_examples_of_tasks(desk: Desk) -> None:
    """Word for word, but for bucket, key and sum: failed tasks are no proper CSV there."""
    key = PREFIX + first_key(desk.shelf, 2)
    failed = (
        f'{BUCKET},{key},,failed,200,PermanentFailure,"error details: {{""failureMessage"":"Task 2845ca0d-38d9 Key not '
        'found", ""errorCode"": "404"}"\n'
    )
    good = desk.all_tasks()[4]
    message = good[-1].replace("==", "\\u003d\\u003d").replace('"', '""')
    succeeded = f'{BUCKET},{good[1]},,succeeded,200,,"{message}"\n'

    def changed(files: dict[str, bytes]) -> None:
        name, data = next((name, data) for name, data in files.items() if name.endswith(".csv"))
        more = data + failed.encode() + succeeded.encode()
        files[name] = more
        manifest = next(name for name in files if name.endswith("manifest.json"))
        files[manifest] = files[manifest].replace(amazon_reports.md5(data).encode(), amazon_reports.md5(more).encode())

    desk.tasks = [task for task in desk.all_tasks() if task[1] not in (key, good[1])]
    desk.change_report = changed
    source = desk.summed(desk.inventory())
    assert isinstance(source, sums.Summed)
    assert (source.checksums.counted.failed, source.checksums.counted.sums) == (1, 11)
    done = desk.run(source).totals
    assert outcome(done) == (2, 0, 1, 0)


def test_the_newest_manifest_is_damaged(desk: Desk) -> None:
    second = desk.shelf.add(2, files=4)
    desk.shelf.store.versions[second.key] = [b"{}"]
    assert outcome(desk.run().totals) == (2, 0, 0, 1)
    assert ("1.2.2", "manifest-damaged", second.key) in desk.shelf.findings()


def test_strange_keys(desk: Desk) -> None:
    """Encoded as Amazon does; none of them is taken for another one, or breaks a line."""
    for key in ("studies/1.2.1/a\tb\nc", "studies/1.2.1/%2e", "studies/ä", "studies/1.2.1/x y", "studies/1.2.1//x"):
        desk.extra.append(Row(PREFIX + key, 7, "e" * 32))
    desk.extra.append(Row("elsewhere/1.2.1/x", 7, "e" * 32))
    done = desk.run().totals
    assert outcome(done) == (3, 0, 0, 0) and (done.in_no_manifest, done.other_keys) == (4, 1)


def test_keys_are_decoded() -> None:
    assert plain_key("studies%2F1.2%2Fmanifests/00000001.json") == "studies/1.2/manifests/00000001.json"
    assert plain_key("studies/1.2/a+b%0A") == "studies/1.2/a%2Bb%0A"
    assert plain_key("%FF") == "%FF"
    assert plain_key("%252e") == "%252e"


def test_an_inventory_without_versions(desk: Desk) -> None:
    columns = [name for name in amazon_reports.COLUMNS if name not in ("VersionId", "IsLatest", "IsDeleteMarker")]
    desk.changed = {"columns": columns}
    assert dict(desk.run(summed=True).totals.studies_by) == {"checksum": 3}


def test_an_inventory_without_etags(desk: Desk) -> None:
    desk.changed = {"columns": [name for name in amazon_reports.COLUMNS if name != "ETag"]}
    assert dict(desk.run().totals.studies_by) == {"size": 3}


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_it_goes_on_with_the_same_inventory_and_not_with_another(desk: Desk) -> None:
    interrupted(desk.shelf, 2, KeyboardInterrupt(), desk.inventory())
    desk.shelf.store.reads.clear()
    done = desk.run()
    assert outcome(done.totals) == (3, 0, 0, 0) and done.resumed == 1 and len(desk.shelf.store.reads) == 1
    interrupted(desk.shelf, 2, KeyboardInterrupt(), desk.inventory())
    desk.extra = [Row(PREFIX + "studies/1.2.1/x", 1, "e" * 32)]
    assert desk.run().resumed == 0 and "another source" in desk.shelf.notes[-1]
    interrupted(desk.shelf, 2, KeyboardInterrupt(), desk.inventory())
    assert desk.run(Listed(desk.shelf.store)).resumed == 0


# -- reports that are not what they should be -------------------------------------------------------------------------


def _first(files: dict[str, bytes], ending: str) -> str:
    return next(name for name in files if name.endswith(ending))


def _rewritten(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    """In the manifest, whose own MD5 is right again."""

    def change(files: dict[str, bytes]) -> None:
        name = _first(files, "manifest.json")
        assert old.encode() in files[name]
        files[name] = files[name].replace(old.encode(), new.encode())
        if (checksum := name.replace(".json", ".checksum")) in files:
            files[checksum] = amazon_reports.md5(files[name]).encode()

    return change


def _data(change: Callable[[bytes], bytes], *, right_md5: bool = True, ending: str = ".csv.gz") -> Any:
    def changed(files: dict[str, bytes]) -> None:
        name = _first(files, ending)
        old = files[name]
        files[name] = change(old)
        if right_md5:
            _rewritten(amazon_reports.md5(old), amazon_reports.md5(files[name]))(files)
            if f'"size": {len(old)}' in files[_first(files, "manifest.json")].decode():
                _rewritten(f'"size": {len(old)}', f'"size": {len(files[name])}')(files)

    return changed


def _unzipped(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(change(gzip.decompress(data)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_data(lambda data: data[:-20], right_md5=False), "ends early"),
        (_data(lambda data: data[:-20]), "ends early"),
        (_data(lambda data: data[:30] + b"x" + data[31:]), "damaged"),
        (_data(lambda data: b"no gzip" + data), "damaged"),
        (_data(lambda data: gzip.compress(gzip.decompress(data), 0), right_md5=False), "another size"),
        (_rewritten('"MD5checksum": "', '"MD5checksum": "' + "0" * 32 + '", "was": "'), "another MD5"),
        (_rewritten(f'"sourceBucket": "{BUCKET}"', '"sourceBucket": "another"'), "is of bucket another"),
        (_data(_unzipped(lambda text: text.replace(BUCKET.encode(), b"another-one", 1))), "of another bucket"),
        (_data(_unzipped(lambda text: text.replace(b'"true"', b'"maybe"'))), "neither true nor false"),
        (_data(_unzipped(lambda text: text.replace(b'"STANDARD",', b"", 1))), "number of columns"),
        (_data(_unzipped(lambda text: text.replace(b'"STANDARD"', b'"' + b"x" * 200_000 + b'"', 1))), "is no"),
        (_data(_unzipped(lambda text: text.replace(b'"2500"', b'"-2"'))), "strange values"),
        (_data(_unzipped(lambda text: text.replace(b'"2500"', b'"many"'))), "cannot be read"),
        (_rewritten("Size, ", "Weight, "), "lacks columns: Size"),
        (_rewritten("IsLatest, ", "IsOldest, "), "lacks columns: IsLatest"),
        (_rewritten('"fileFormat": "CSV"', '"fileFormat": "ORC"'), "ORC format"),
        (_rewritten('"fileFormat": "CSV"', '"fileFormat": "Parquet"'), "Parquet format"),
        (_rewritten('"fileFormat": "CSV"', '"fileFormat": "XML"'), "not the manifest"),
        (_rewritten('"creationTimestamp": "', '"creationTimestamp": "-'), "not the manifest"),
        (_rewritten('"creationTimestamp": "', '"creationTimestamp": "1e400'), "not the manifest"),
        (_rewritten('"files": [', '"files": [7, '), "not the manifest"),
        (_rewritten("{", "[["), "not the manifest"),
        (_rewritten(".csv.gz", ".csv.gx"), "is missing"),
        (lambda files: files.update({_first(files, ".checksum"): b"0" * 32}), "another MD5 than manifest.checksum"),
    ],
)
def test_an_inventory_that_is_not_what_it_should_be(
    desk: Desk, change: Callable[[dict[str, bytes]], None], said: str
) -> None:
    desk.change_files = change
    with pytest.raises(Permanent, match=said) as refused:
        desk.run()
    assert refused.value.code == "bad-report"
    assert kept.read(desk.shelf.folder) is None, "nothing is said of any study"


def test_an_inventory_with_two_current_versions(desk: Desk) -> None:
    desk.extra = [desk.rows()[4]]
    with pytest.raises(Permanent, match="twice"):
        desk.run()
    assert kept.read(desk.shelf.folder) is None


def test_an_inventory_of_another_prefix(desk: Desk) -> None:
    source_rows = desk.rows()
    desk.prefix = "site-b/"
    with pytest.raises(Permanent, match="filter"):
        desk.run(rows=source_rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_data(lambda data: data[:-20], right_md5=False, ending=".csv"), "another (size|MD5)"),
        (_rewritten("Report_CSV_20180820", "Report_CSV_20300101"), "not that of a completion report"),
        (_rewritten("ResultMessage", "Message"), "lacks columns: ResultMessage"),
        (_data(lambda data: data.replace(BUCKET.encode(), b"another-one", 1), ending=".csv"), "of another bucket"),
        (_data(lambda data: data.replace(b'"succeeded"', b'"perhaps"', 1), ending=".csv"), "is none"),
        (_data(lambda data: data.replace(b'"200",', b""), ending=".csv"), "number of columns"),
        (_data(lambda data: data.replace(b"SHA256", b"CRC32"), ending=".csv"), "SHA-256 of a whole object"),
        (_data(lambda data: data.replace(b"FULL_OBJECT", b"COMPOSITE"), ending=".csv"), "SHA-256 of a whole object"),
        (_data(lambda data: data.replace(b"checksum_base64", b"checksum_base32"), ending=".csv"), None),
        (_data(lambda data: data.replace(b"checksum_hex", b"checksum_oct"), ending=".csv"), None),
        (_data(lambda data: data.replace(b'checksum_hex"": ""', b'checksum_hex"": ""00'), ending=".csv"), "SHA-256 of"),
        (_data(lambda data: data.replace(PREFIX.encode(), b"elsewhere/"), ending=".csv"), "a checksum of an object"),
        (_rewritten(".csv", ".tsv"), "is missing"),
    ],
)
def test_a_completion_report_that_is_not_what_it_should_be(
    desk: Desk, change: Callable[[dict[str, bytes]], None], said: str | None
) -> None:
    desk.change_report = change
    if said is None:
        assert dict(desk.run(summed=True).totals.studies_by) == {"checksum": 3}
        return
    with pytest.raises(Permanent, match=said) as refused:
        desk.run(summed=True)
    assert refused.value.code == "bad-report" and kept.read(desk.shelf.folder) is None


@pytest.mark.parametrize(
    "change",
    [
        _data(lambda _: gzip.compress(b"x" * 80_000_000)),
        lambda files: files.update({_first(files, "manifest.json"): b"[" + b"{}," * 3_000_000}),
    ],
    ids=["a row", "the manifest"],
)
def test_what_inflates_without_end_takes_no_memory(
    desk: Desk, change: Callable[[dict[str, bytes]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = amazon_reports.write

    def write(folder: Path, files: dict[str, bytes]) -> Path:
        path = written(folder, files)
        files.clear()
        tracemalloc.start()
        return path

    monkeypatch.setattr(amazon_reports, "write", write)
    desk.change_files = change
    try:
        with pytest.raises(Permanent, match=r"is none|larger than any"):
            desk.run()
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_file_of_a_report_is_nowhere_else(desk: Desk) -> None:
    """A manifest's keys name no other file of this machine."""
    (desk.folder / "secret.csv.gz").write_bytes(b"x")
    desk.change_files = _rewritten("studies-all/data/part-0.csv.gz", "../../../secret.csv.gz")
    with pytest.raises(Permanent, match="is missing"):
        desk.run()


# -- putting into order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_lines", [1, 7, 1000])
def test_lines_are_put_into_order(tmp_path: Path, run_lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.archive.fixity.sorting._MOST_FILES", 5)
    lines = [b"%d" % (n * 7919 % 500) for n in range(500)]
    sorter = Sorter(tmp_path, run_lines)
    for line in lines:
        sorter.add(line)
    assert list(sorter.sorted()) == list(sorter.sorted()) == sorted(lines)
    assert list(tmp_path.iterdir()) == [], "no name is left, however it ends"
    sorter.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="cannot be written"):
        Sorter(tmp_path / "not-there", run_lines=1).add(b"line")


def test_sums_meet_their_objects() -> None:
    objects = [Seen(key, 1) for key in ("b", "c", "e")]
    one, two = Sum("1", None, None), Sum("2", None, None)
    found = sums.joined(objects, [("a", one), ("b", one), ("b", two), ("d", one), ("e", two), ("f", one)])
    assert [(seen.key, seen.sums) for seen in found] == [("b", (one, two)), ("c", ()), ("e", (two,))]


def test_totals_are_read_again() -> None:
    totals = Totals(studies=3)
    totals.studies_by["etag"] += 3
    assert Totals.of(json.loads(json.dumps(totals.document()))) == totals
    assert Totals.of({"studies": 1, "of a later version": 2}) == Totals(studies=1)
