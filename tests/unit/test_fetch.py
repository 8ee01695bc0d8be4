"""A fetched file has its name only with the recorded bytes, and nothing of the user's is touched."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import ArchiveRefused, Fatal, OutOfReach, Permanent, Transient
from dicomwatchd.fetch import Fetcher, FetchProgress, file_names, plan
from dicomwatchd.model import Uid
from tests.unit.memory_archive import (
    OTHER_SERIES,
    SERIES,
    STUDY,
    MemoryCatalogue,
    MemoryStore,
    archive,
    content,
    instance,
)


def fetcher(store: MemoryStore, threads: int = 4, **others: object) -> Fetcher:
    return Fetcher(store, threads=threads, sleep=lambda _seconds: None, **others)  # type: ignore[arg-type]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def study(store: MemoryStore) -> Manifest:
    """Five instances in two series."""
    return archive(store, [(SERIES if n < 3 else OTHER_SERIES, f"1.2.{n}", content(n, 1500 + n)) for n in range(5)])


# --- plan ---------------------------------------------------------------------------------------------------


def test_plan_takes_the_manifest_that_the_catalogue_records(store: MemoryStore, study: Manifest) -> None:
    notes: list[str] = []
    catalogue = MemoryCatalogue({STUDY: study.record()})
    assert plan(store, catalogue, STUDY, note=notes.append) == study
    assert notes == []


@pytest.mark.parametrize("fault", [OutOfReach("down", endpoint="x"), ArchiveRefused("no"), Permanent("denied")])
def test_plan_needs_no_catalogue(store: MemoryStore, study: Manifest, fault: Exception) -> None:
    notes: list[str] = []
    broken = MemoryCatalogue(fault=fault)  # type: ignore[arg-type]
    assert plan(store, broken, STUDY, note=notes.append) == study
    assert plan(store, MemoryCatalogue(), STUDY, note=notes.append) == study
    assert plan(store, None, STUDY, note=notes.append) == study
    assert len(notes) == 2 and "does not answer" in notes[0] and "does not know" in notes[1]


def test_plan_takes_the_newest_revision_when_the_catalogue_is_behind(store: MemoryStore, study: Manifest) -> None:
    notes: list[str] = []
    second = archive(store, [(SERIES, "1.2.9", content(9))], before=study)
    assert second.revision == 2
    assert plan(store, MemoryCatalogue({STUDY: study.record()}), STUDY, note=notes.append) == second
    assert "behind" in notes[0]


def test_plan_does_not_take_a_manifest_that_the_catalogue_contradicts(store: MemoryStore, study: Manifest) -> None:
    other = replace(study, created_by="somebody else")
    store.versions[study.key] = [other.to_bytes()]
    with pytest.raises(Permanent) as caught:
        plan(store, MemoryCatalogue({STUDY: study.record()}), STUDY)
    assert caught.value.code == "manifest-mismatch"
    assert plan(store, None, STUDY) == other


def test_plan_says_when_the_recorded_manifest_is_gone(store: MemoryStore, study: Manifest) -> None:
    second = archive(store, [(SERIES, "1.2.9", content(9))], before=study)
    del store.versions[second.key]
    with pytest.raises(Permanent) as caught:
        plan(store, MemoryCatalogue({STUDY: second.record()}), STUDY)
    assert caught.value.code == "manifest-missing"
    assert plan(store, None, STUDY) == study


def test_plan_of_an_unknown_study(store: MemoryStore) -> None:
    for catalogue in (None, MemoryCatalogue()):
        with pytest.raises(Permanent) as caught:
            plan(store, catalogue, STUDY)
        assert caught.value.code == "study-not-found"


def test_plan_refuses_a_manifest_under_a_foreign_key(store: MemoryStore, study: Manifest) -> None:
    elsewhere = Uid("1.2.3")
    store.versions[keys.manifest(elsewhere, 1)] = [study.to_bytes()]
    with pytest.raises(Permanent) as caught:
        plan(store, None, elsewhere)
    assert caught.value.code == "bad-manifest"


def test_a_store_that_is_down_is_said_and_not_taken_for_an_empty_one(store: MemoryStore) -> None:
    store.fault = OutOfReach("down", endpoint="x")
    with pytest.raises(OutOfReach):
        plan(store, MemoryCatalogue(), STUDY)


# --- names --------------------------------------------------------------------------------------------------


def test_names_are_told_apart_by_the_hash_where_contents_share_a_uid() -> None:
    items = [
        instance(SERIES, "1.2.1", b"one"),
        instance(SERIES, "1.2.1", b"two"),
        instance(SERIES, "1.2.2", b"one"),
        instance(OTHER_SERIES, "1.2.1", b"one"),
    ]
    digest = {data: hashlib.sha256(data).hexdigest()[:8] for data in (b"one", b"two")}
    assert [name for _, name in file_names(items)] == [
        f"1.2.1-{digest[b'one']}.dcm",
        f"1.2.1-{digest[b'two']}.dcm",
        "1.2.2.dcm",
        "1.2.1.dcm",
    ]


def test_names_stay_apart_when_even_the_first_digits_are_the_same() -> None:
    item = instance(SERIES, "1.2.1", b"one")
    twin = replace(item, sha256=item.sha256[:8] + "0" * 56)
    third = instance(SERIES, "1.2.1", b"three")
    names = [name for _, name in file_names([item, twin, third])]
    assert names[0] == f"1.2.1-{item.sha256}.dcm"
    assert names[1] == f"1.2.1-{twin.sha256}.dcm"
    assert names[2] == f"1.2.1-{third.sha256[:8]}.dcm"


# --- fetching -----------------------------------------------------------------------------------------------


def test_fetch_brings_every_byte_back(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    seen: list[FetchProgress] = []
    report = fetcher(store).fetch(study, tmp_path / "a" / "b", progress=seen.append)
    assert report.complete and (report.files, report.fetched, report.already_there) == (5, 5, 0)
    assert report.fetched_bytes == report.size_bytes == sum(1500 + n for n in range(5))
    assert files_below(tmp_path / "a" / "b") == {
        f"{SERIES if n < 3 else OTHER_SERIES}/1.2.{n}.dcm": content(n, 1500 + n) for n in range(5)
    }
    assert seen[-1] == FetchProgress(5, 5, report.size_bytes, report.size_bytes)


def test_fetch_of_one_series(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    report = fetcher(store).fetch(study, tmp_path, series={OTHER_SERIES})
    assert report.complete and report.files == 2
    assert {p.name for p in tmp_path.iterdir()} == {OTHER_SERIES}
    with pytest.raises(Permanent) as caught:
        fetcher(store).fetch(study, tmp_path, series={Uid("1.1")})
    assert caught.value.code == "series-not-found"


def test_a_second_fetch_brings_only_what_is_missing(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    fetcher(store).fetch(study, tmp_path)
    (tmp_path / SERIES / "1.2.1.dcm").unlink()
    store.reads.clear()
    report = fetcher(store).fetch(study, tmp_path)
    assert report.complete and (report.fetched, report.already_there) == (1, 4)
    assert store.reads == [study.instances[1].key]


def test_an_instance_in_two_series_is_there_twice(store: MemoryStore, tmp_path: Path) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", b"a"), (OTHER_SERIES, "1.2.1", b"b")])
    assert fetcher(store).fetch(manifest, tmp_path).complete
    assert files_below(tmp_path) == {f"{SERIES}/1.2.1.dcm": b"a", f"{OTHER_SERIES}/1.2.1.dcm": b"b"}


def test_two_contents_of_one_uid_are_both_there(store: MemoryStore, tmp_path: Path) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", b"a"), (SERIES, "1.2.1", b"b")])
    assert fetcher(store).fetch(manifest, tmp_path).complete
    assert sorted(files_below(tmp_path).values()) == [b"a", b"b"]


def test_an_empty_object_is_a_file(store: MemoryStore, tmp_path: Path) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", b"")])
    assert fetcher(store).fetch(manifest, tmp_path).complete
    assert files_below(tmp_path) == {f"{SERIES}/1.2.1.dcm": b""}


# --- bad objects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "has 1500 bytes instead of 1501"),
        (lambda data: data + b"x", "is longer than the recorded 1501"),
        (lambda data: b"x" + data[1:], "SHA-256"),
        (lambda data: b"", "has 0 bytes"),
        (None, "missing"),
    ],
)
def test_one_bad_object_is_reported_and_the_others_come(
    store: MemoryStore, study: Manifest, tmp_path: Path, damage: object, reason: str
) -> None:
    bad = study.instances[1]
    if callable(damage):
        store.versions[bad.key] = [damage(store.versions[bad.key][0])]
    else:
        del store.versions[bad.key]
    seen: list[FetchProgress] = []
    report = fetcher(store).fetch(study, tmp_path, progress=seen.append)
    assert not report.complete and report.fetched == 4 and report.stopped is None
    [failure] = report.failed
    assert (failure.sop_instance_uid, failure.series_uid) == ("1.2.1", SERIES)
    assert reason in failure.reason and failure.code == "bad-object"
    assert len(files_below(tmp_path)) == 4, "no name, and no temporary file either"
    assert seen[-1].bytes_done == report.fetched_bytes


def test_an_endless_object_is_given_up_when_it_is_too_long(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    def endless(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        while key == study.instances[0].key:
            yield bytes(1000)

    store.tampering = endless
    report = fetcher(store).fetch(study, tmp_path)
    assert report.fetched == 4 and len(report.failed) == 1


@pytest.mark.parametrize("what", ["hidden", "overwritten"])
def test_the_recorded_version_comes_from_under_what_is_current(store: MemoryStore, tmp_path: Path, what: str) -> None:
    """And it is said: a rule of the bucket may end that version."""
    manifest = archive(store, [(SERIES, "1.2.1", b"right")])
    [item] = manifest.instances
    manifest = replace(manifest, instances=(replace(item, version_id="0"),))
    if what == "hidden":
        store.mark_deleted(item.key)
    else:
        store.overwrite(item.key, b"wrong")
    report = fetcher(store).fetch(manifest, tmp_path)
    assert report.complete
    [said] = report.bad_objects
    assert said.code == what and what.removesuffix("den") in said.reason
    assert files_below(tmp_path) == {f"{SERIES}/1.2.1.dcm": b"right"}


@pytest.mark.parametrize("version_id", ["0", "7"])
def test_other_sources_stand_in_for_a_bad_object(store: MemoryStore, tmp_path: Path, version_id: str) -> None:
    """The recorded version is wrong or gone, and what is current is right; or a repaired key has the right bytes."""
    manifest = archive(store, [(SERIES, "1.2.1", b"right"), (SERIES, "1.2.2", b"right too")])
    first, second = manifest.instances
    manifest = replace(manifest, instances=(replace(first, version_id=version_id), second))
    store.versions[first.key] = [b"wrong", b"right"]
    store.versions[second.key] = [b"wrong"]
    store.versions[second.key.replace(".dcm", "-2.dcm")] = [b"wrong too"]
    store.versions[second.key.replace(".dcm", "-3.dcm")] = [b"right too"]
    report = fetcher(store).fetch(manifest, tmp_path)
    assert report.complete and report.fetched == 2
    assert [(f.sop_instance_uid, f.code) for f in report.bad_objects] == [("1.2.2", "bad-object")]
    assert files_below(tmp_path) == {f"{SERIES}/1.2.1.dcm": b"right", f"{SERIES}/1.2.2.dcm": b"right too"}


def test_a_read_that_breaks_off_is_begun_again(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    def breaking(_key: str, count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        if count < 3:
            raise Transient("the connection broke")
        yield from chunks

    store.tampering = breaking
    seen: list[FetchProgress] = []
    report = fetcher(store).fetch(study, tmp_path, progress=seen.append)
    assert report.complete
    assert seen[-1].bytes_done == seen[-1].bytes_total
    assert len(store.reads) == 15
    assert sorted(files_below(tmp_path).values()) == sorted(content(n, 1500 + n) for n in range(5))


def test_a_write_that_takes_only_a_part_is_gone_on_with(
    store: MemoryStore, study: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:700]))
    assert fetcher(store).fetch(study, tmp_path).complete
    assert sorted(files_below(tmp_path).values()) == sorted(content(n, 1500 + n) for n in range(5))


def test_other_contents_of_the_uid_are_not_tried_in_place_of_a_bad_object(store: MemoryStore, tmp_path: Path) -> None:
    manifest = archive(store, [(SERIES, "1.2.1", b"one"), (SERIES, "1.2.1", b"two")])
    bad, good = manifest.instances
    store.versions[bad.key] = [b"wrong"]
    assert len(fetcher(store, threads=1).fetch(manifest, tmp_path).failed) == 1
    assert store.reads == [bad.key, good.key]


def test_a_read_that_always_breaks_off_fails_that_file_alone(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    def breaking(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        if key == study.instances[0].key:
            raise Transient("the connection broke")
        yield from chunks

    store.tampering = breaking
    report = fetcher(store).fetch(study, tmp_path)
    assert report.fetched == 4 and report.stopped is None
    assert report.failed[0].reason == "the connection broke"


def test_a_store_out_of_reach_ends_the_fetch(store: MemoryStore, tmp_path: Path) -> None:
    study = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(10, 20)])

    def gone(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if key != study.instances[0].key:
            raise OutOfReach("the store does not answer", endpoint="s3")
        yield from chunks

    store.tampering = gone
    report = fetcher(store, threads=1).fetch(study, tmp_path)
    assert isinstance(report.stopped, OutOfReach)
    assert report.fetched == 1 and [f.code for f in report.failed] == 4 * ["out-of-reach"] + 5 * ["stopped"]
    assert len(store.reads) == 1 + 4 * 3, "the store is not asked again for each of the others"
    store.tampering = None
    assert fetcher(store).fetch(study, tmp_path).complete


def test_many_broken_objects_are_no_outage_as_long_as_others_come(store: MemoryStore, tmp_path: Path) -> None:
    study = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(10, 30)])
    broken = {item.key for item in study.instances[::2]}

    def breaking(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if key in broken:
            raise OutOfReach("the answer ended early", endpoint="s3")
        yield from chunks

    store.tampering = breaking
    report = fetcher(store, threads=1).fetch(study, tmp_path)
    assert report.stopped is None and report.fetched == 10 and len(report.failed) == 10


def test_one_object_that_the_store_cannot_read_is_not_taken_for_an_outage(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    """Such a store breaks the connection, as it does when it goes down."""

    def breaking(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if key == study.instances[0].key:
            raise OutOfReach("the answer ended early", endpoint="s3")
        yield from chunks

    store.tampering = breaking
    report = fetcher(store, threads=1).fetch(study, tmp_path)
    assert report.stopped is None and report.fetched == 4 and len(report.failed) == 1


def test_a_refused_archive_ends_the_fetch(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    store.fault = ArchiveRefused("not this one")
    with pytest.raises(Fatal):
        fetcher(store).fetch(study, tmp_path)
    assert files_below(tmp_path) == {}


# --- hostile and occupied targets ---------------------------------------------------------------------------


def test_what_has_the_name_already_is_not_touched(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    series = tmp_path / SERIES
    series.mkdir()
    (series / "1.2.0.dcm").write_bytes(content(0, 1500)[:-1] + b"!")
    (series / "1.2.1.dcm").mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(content(2, 1502))
    (series / "1.2.2.dcm").symlink_to(victim)
    report = fetcher(store).fetch(study, tmp_path)
    assert report.fetched == 2 and report.already_there == 0
    assert [f.code for f in report.failed] == 3 * ["target-occupied"]
    assert (series / "1.2.0.dcm").read_bytes() == content(0, 1500)[:-1] + b"!"
    assert (series / "1.2.1.dcm").is_dir()
    assert (series / "1.2.2.dcm").is_symlink() and victim.read_bytes() == content(2, 1502)


def test_a_fifo_under_the_name_does_not_hang_the_fetch(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    (tmp_path / SERIES).mkdir()
    os.mkfifo(tmp_path / SERIES / "1.2.0.dcm")
    assert [f.code for f in fetcher(store).fetch(study, tmp_path).failed] == ["target-occupied"]


def test_a_link_in_place_of_a_series_folder_is_not_followed(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    leftover = outside / f".dicomwatchctl-fetch-{'0' * 16}.part"
    leftover.write_bytes(b"not ours to remove")
    target = tmp_path / "target"
    target.mkdir()
    (target / SERIES).symlink_to(outside)
    report = fetcher(store).fetch(study, target)
    assert report.fetched == 2 and len(report.failed) == 3
    assert list(outside.iterdir()) == [leftover]


def test_the_target_folder_itself_may_be_a_link(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "disk")
    assert fetcher(store).fetch(study, tmp_path / "target").complete
    assert len(files_below(tmp_path / "disk")) == 5


def test_a_name_that_appears_meanwhile_is_not_overwritten(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    def intrude(key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        if key == study.instances[0].key:
            (tmp_path / SERIES / "1.2.0.dcm").write_bytes(b"somebody else's")

    store.tampering = intrude
    report = fetcher(store).fetch(study, tmp_path)
    assert [f.code for f in report.failed] == ["target-occupied"]
    assert (tmp_path / SERIES / "1.2.0.dcm").read_bytes() == b"somebody else's"
    assert len(files_below(tmp_path)) == 5


def test_a_file_in_place_of_the_target_folder(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Permanent) as caught:
        fetcher(store).fetch(study, tmp_path / "file")
    assert caught.value.path == str(tmp_path / "file")


def test_no_name_before_the_bytes_are_known_to_be_right(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    names: set[str] = set()

    def look(_key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            names.update(p.name for p in (tmp_path / SERIES).iterdir())
            yield chunk

    store.tampering = look
    assert fetcher(store, threads=1).fetch(study, tmp_path, series={SERIES}).complete
    temporary = {name for name in names if name.startswith(".dicomwatchctl-fetch-")}
    assert len(temporary) == 3 and names - temporary == {"1.2.0.dcm", "1.2.1.dcm"}


# --- interruption -------------------------------------------------------------------------------------------


def test_leftovers_go_and_foreign_hidden_files_stay(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    series = tmp_path / SERIES
    series.mkdir()
    (series / f".dicomwatchctl-fetch-{'a' * 16}.part").write_bytes(b"half")
    foreign = [f".dicomwatchctl-fetch-{'a' * 16}.part.bak", ".other.part", "notes.txt"]
    for name in foreign:
        (series / name).write_bytes(b"mine")
    assert fetcher(store).fetch(study, tmp_path).complete
    assert sorted(p.name for p in series.iterdir()) == sorted([*foreign, "1.2.0.dcm", "1.2.1.dcm", "1.2.2.dcm"])


def test_two_fetches_at_once_do_not_take_each_others_files_for_leftovers(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    halfway, go_on = threading.Event(), threading.Event()
    slow = replace(store, reads=[])

    def pause(_key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        halfway.set()
        assert go_on.wait(20)
        yield from chunks

    slow.tampering = pause
    reports = []
    other = threading.Thread(target=lambda: reports.append(fetcher(slow, threads=1).fetch(study, tmp_path)))
    other.start()
    assert halfway.wait(20)
    leftovers_before = [p for p in files_below(tmp_path) if ".part" in p]
    report = fetcher(store).fetch(study, tmp_path)
    leftovers_after = [p for p in files_below(tmp_path) if ".part" in p]
    go_on.set()
    other.join()
    assert report.complete and len(leftovers_before) == 1 and leftovers_after == leftovers_before
    # The slower one finds its first name taken by the very same bytes.
    assert reports[0].complete and (reports[0].fetched, reports[0].already_there) == (1, 4)
    assert len(files_below(tmp_path)) == 5


def test_an_interrupt_stops_all_threads_and_leaves_no_half_file(
    store: MemoryStore, study: Manifest, tmp_path: Path
) -> None:
    def interrupt(progress: FetchProgress) -> None:
        if progress.files_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetcher(store, threads=1).fetch(study, tmp_path, progress=interrupt)
    assert sorted(files_below(tmp_path)) == [f"{SERIES}/1.2.0.dcm", f"{SERIES}/1.2.1.dcm"]


@pytest.mark.parametrize("when", ["submitting", "waiting"])
def test_ctrl_c_in_the_main_thread_stops_the_others(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    study = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(50)])
    interrupted = threading.Event()

    def slow(_key: str, _count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        assert interrupted.wait(20)
        yield from chunks

    class Pool(ThreadPoolExecutor):
        """Ctrl-C comes while the last thread is started, or while the first one is waited for."""

        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(*args, **kwargs)
            if when == "waiting":
                future.result = interrupt  # type: ignore[method-assign, assignment]
            elif len(self._threads) == 3:
                interrupt()
            return future

        def shutdown(self, *args: Any, **kwargs: Any) -> None:
            interrupted.set()
            super().shutdown(*args, **kwargs)

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    store.tampering = slow
    with pytest.raises(KeyboardInterrupt):
        fetcher(store, threads=3, executor=Pool).fetch(study, tmp_path)
    assert len(store.reads) <= 3 and files_below(tmp_path) == {}


_KILLED = """
import itertools, os, sys, time
from pathlib import Path
from tests.unit.memory_archive import *
from dicomwatchd.fetch import Fetcher
store = MemoryStore()
manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(20)])
numbers = itertools.count(1)
def stuck(key, count, chunks):
    for chunk in chunks:
        yield chunk
        if next(numbers) > 23:
            os.write(1, b"stuck\\n")
            time.sleep(60)
store.tampering = stuck
Fetcher(store, threads=3).fetch(manifest, Path(sys.argv[1]))
"""


def test_a_killed_fetch_is_resumed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = files_below(tmp_path)
    done = {name: data for name, data in left.items() if name.endswith(".dcm")}
    assert any(name.endswith(".part") for name in left) and 0 < len(done) < 20
    expected = {f"{SERIES}/1.2.{n}.dcm": content(n) for n in range(20)}
    assert done.items() <= expected.items(), "whatever has a name is whole"

    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(20)])
    report = fetcher(store).fetch(manifest, tmp_path)
    assert report.complete and report.already_there == len(done)
    assert files_below(tmp_path) == expected


# --- the disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("SKIPPED: mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_nothing_half_is_left(store: MemoryStore, tiny_disk: Path) -> None:
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n, 40_000)) for n in range(20)])
    report = fetcher(store, threads=2).fetch(manifest, tiny_disk)
    assert report.stopped is not None and report.stopped.code == "disk-full"
    assert 0 < report.fetched < 7 and report.fetched + len(report.failed) == 20
    found = files_below(tiny_disk)
    assert len(found) == report.fetched and all(len(data) == 40_000 for data in found.values())
    subprocess.run(["mount", "-o", "remount,size=2m", str(tiny_disk)], check=True)
    again = fetcher(store, threads=2).fetch(manifest, tiny_disk)
    assert again.complete and again.already_there == report.fetched


def test_a_failed_flush_costs_the_file_its_name(
    store: MemoryStore, study: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    report_or_error: object
    try:
        report_or_error = fetcher(store).fetch(study, tmp_path)
    except Permanent as error:
        report_or_error = error
    assert files_below(tmp_path) == {}
    assert isinstance(report_or_error, Permanent) and report_or_error.code == "target-failed"


def test_memory_is_a_chunk_and_not_a_file(tmp_path: Path) -> None:
    """256 MiB through a process that may use little more than its start-up memory."""
    code = """
import resource, sys, tracemalloc
from pathlib import Path
from dataclasses import replace
import hashlib
from tests.unit.memory_archive import *
from dicomwatchd.fetch import Fetcher
piece, pieces = bytes(1 << 20), 64
store = MemoryStore()
manifest = archive(store, [(SERIES, f"1.2.{n}", b"x") for n in range(4)])
digest = hashlib.sha256()
for _ in range(pieces): digest.update(piece)
sha = digest.hexdigest()
manifest = replace(manifest, instances=tuple(
    replace(i, sha256=sha, size_bytes=pieces << 20, object_bytes=pieces << 20) for i in manifest.instances))
def big(key, count, chunks):
    for _ in range(pieces): yield bytes(1 << 20)
store.tampering = big
tracemalloc.start()
report = Fetcher(store, threads=4).fetch(manifest, Path(sys.argv[1]))
assert report.complete, report
print(tracemalloc.get_traced_memory()[1])
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 16 << 20, (done.stdout, time.monotonic() - begun)


# --- who else may read it -----------------------------------------------------------------------------------


def modes_below(folder: Path) -> dict[str, str]:
    """Of the folder, "", and of all in it; without the names that depend on the study."""
    found = {"": folder, "series": folder / SERIES, "file": folder / SERIES / "1.2.0.dcm"}
    return {name: oct(path.stat().st_mode & 0o7777) for name, path in found.items()}


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_fetched_is_its_readers_alone(store: MemoryStore, study: Manifest, tmp_path: Path, umask: int) -> None:
    assert fetcher(store).fetch(study, tmp_path / "a" / "out").complete
    assert modes_below(tmp_path / "a" / "out") == {"": "0o700", "series": "0o700", "file": "0o600"}


@pytest.mark.parametrize(
    ("mode", "folders", "files"),
    [(0o640, "0o750", "0o640"), (0o644, "0o755", "0o644"), (0o660, "0o770", "0o660"), (0o600, "0o700", "0o600")],
)
def test_others_may_read_it_where_that_is_said(
    store: MemoryStore, study: Manifest, tmp_path: Path, umask: int, mode: int, folders: str, files: str
) -> None:
    assert fetcher(store).fetch(study, tmp_path / "out", mode=mode).complete
    assert modes_below(tmp_path / "out") == {"": folders, "series": folders, "file": files}


def test_nobody_else_reads_a_file_before_it_is_whole(study: Manifest, tmp_path: Path) -> None:
    """Its bytes come in under a private name, with a private mode, whatever it is to have in the end."""
    seen: list[str] = []

    class Looking(MemoryStore):
        def read(self, key: str, version_id: str | None = None, **part: Any) -> Iterator[Any]:
            for chunk in super().read(key, version_id, **part):
                seen.extend(oct(path.stat().st_mode & 0o7777) for path in tmp_path.rglob(".dicomwatchctl-fetch-*"))
                yield chunk

    store = Looking()
    again = archive(store, [(SERIES if n < 3 else OTHER_SERIES, f"1.2.{n}", content(n, 1500 + n)) for n in range(5)])
    assert fetcher(store, threads=1).fetch(again, tmp_path / "out", mode=0o644).complete
    assert seen and set(seen) == {"0o600"}


def test_what_was_there_keeps_its_mode(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / SERIES).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / SERIES).chmod(0o775)
    there = folder / SERIES / "1.2.0.dcm"
    there.write_bytes(content(0, 1500))
    there.chmod(0o444)
    assert fetcher(store).fetch(study, folder, mode=0o640).already_there == 1
    assert modes_below(folder) == {"": "0o755", "series": "0o775", "file": "0o444"}
    assert oct((folder / SERIES / "1.2.1.dcm").stat().st_mode & 0o7777) == "0o640"
