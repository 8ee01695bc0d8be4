"""`archive erase` on the embedded archive, and the steps of an erasure on an archive in memory."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.erasing import erasure as erasing
from dicomwatchd.archive.erasing.port import UnfinishedUpload
from dicomwatchd.archive.factory import open_catalogue
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import BadErasure, Erasure
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.cli.studies import erase as erase_command
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import CredentialsRefused, OutOfReach, Permanent, StudyErased, StudyNotFound, Transient
from dicomwatchd.fetch import look_up
from dicomwatchd.model import Uid
from dicomwatchd.telemetry.fields import error_fields
from tests.pieces import FakeClock
from tests.synthetic import Maker
from tests.unit.erasing import BECAUSE, WHO, MemoryEraser, erased, eraser
from tests.unit.memory_archive import SERIES, STUDY, MemoryCatalogue, MemoryStore, archive, content
from tests.unit.test_cli_archive import Site, bare, site, study

__all__ = ["bare", "site", "study"]

#: The study's UID is the beginning of this one.
NEIGHBOUR = Uid(f"{STUDY}1")
ID = "archive-1"
ERASE = ("archive", "erase", STUDY, "--because", BECAUSE, "--yes", STUDY, "--no-wait")


@pytest.fixture
def neighbour(site: Site) -> Manifest:
    return site.add([(SERIES, f"1.2.{n}", content(n)) for n in range(2)], study=NEIGHBOUR)


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- the command, on the embedded archive ---------------------------------------------------------------------------


def test_a_study_goes_with_all_that_is_of_it(site: Site, study: Manifest, neighbour: Manifest) -> None:
    before = [path for path in below(site.archive) if NEIGHBOUR in path]
    result = site.ctl(*ERASE)
    assert result.exit_code == 0, result.output
    assert "a last listing has found nothing of it" in result.output
    assert [path for path in below(site.archive / "studies") if not path.startswith(NEIGHBOUR)] == []
    assert [path for path in below(site.archive) if NEIGHBOUR in path] == before
    assert site.catalogue().get(STUDY) is None and site.catalogue().get(NEIGHBOUR) is not None
    assert b"Canary" in site.catalogue_file.read_bytes(), "the neighbour's"
    assert site.ctl("verify", NEIGHBOUR, "--deep").exit_code == 0


def test_the_last_patient_is_not_in_the_catalogue_s_file_any_more(site: Site, study: Manifest) -> None:
    assert b"Canary" in site.catalogue_file.read_bytes() and b"CANARY-ID" in site.catalogue_file.read_bytes()
    assert site.ctl(*ERASE).exit_code == 0
    assert b"canary" not in site.catalogue_file.read_bytes().lower()


def test_the_answer_in_json(site: Site, study: Manifest) -> None:
    tried = site.json("archive", "erase", STUDY, "--dry-run")
    assert tried["dry_run"] and tried["erasure"] is None and tried["complete"] is None
    assert tried["found"]["objects"] == 6 and tried["found"]["instances"] == 5 and tried["found"]["manifests"] == 1
    assert tried["found"]["bytes"] > 5 * 2500 and tried["found"]["catalogue_entries"] > 1
    assert site.store().head(study.key) is not None, "nothing was changed"
    assert erasures.newest(site.store(), STUDY) is None
    done = site.json(*ERASE)
    assert done["complete"] and done["deleted"] == 6 and done["left"]["versions"] == 0 and done["refusals"] == []
    assert done["records_deleted"] == tried["found"]["catalogue_entries"]
    assert done["erasure"]["because"] == BECAUSE and done["erasure"]["erased_by"]["uid"] == os.getuid()
    again = site.json(*ERASE)
    assert again["complete"] and again["deleted"] == 0 and again["erasure"] == done["erasure"]


def test_the_other_studies_of_its_medium_are_named(
    site: Site, study: Manifest, neighbour: Manifest, tmp_path: Path
) -> None:
    maker, store = Maker(seed=3), site.store()
    files = [one for n in range(2) for one in maker.ct_series(tmp_path / f"made-{n}", slices=1, study=n)]
    dicomdir = maker.media(tmp_path / "medium", files)[-1]
    first, other = [Uid(one.study_uid) for one in files]
    for one in (first, other):
        store.put(keys.export(one, dicomdir.sha256), Buffer.of(dicomdir.path.read_bytes()))
    found = site.json("archive", "erase", first, "--dry-run")
    assert found["same_medium"] == [other] and found["found"]["dicomdirs"] == 1
    assert f"  {other}" in site.ctl("archive", "erase", first, "--dry-run").output
    assert site.json("archive", "erase", STUDY, "--dry-run")["same_medium"] == []


def test_nothing_is_erased_without_a_word(site: Site, study: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (
        ("archive", "erase", STUDY, "--because", BECAUSE),
        ("archive", "erase", STUDY, "--because", BECAUSE, "--yes", NEIGHBOUR),
        ("archive", "erase", STUDY, "--yes", STUDY),
        ("archive", "erase", STUDY, "--because", " ", "--yes", STUDY),
        ("archive", "erase", STUDY, "--because", "x" * 1001, "--yes", STUDY),
    ):
        assert site.ctl(*arguments).exit_code == 2, arguments
    monkeypatch.setattr(erase_command, "_may_be_asked", lambda: True)
    for typed in ("", "y", "yes", NEIGHBOUR):
        monkeypatch.setattr("click.prompt", lambda *_, typed=typed, **__: typed)
        assert site.ctl("archive", "erase", STUDY, "--because", BECAUSE, "--no-wait").exit_code == 1
    assert site.ctl("verify", STUDY, "--deep").exit_code == 0
    monkeypatch.setattr("click.prompt", lambda *_, **__: f"{STUDY}\n")
    assert site.ctl("archive", "erase", STUDY, "--because", BECAUSE, "--no-wait").exit_code == 0


def test_whoever_asks_for_it_learns_that_it_was_erased(site: Site, study: Manifest) -> None:
    site.ctl(*ERASE)
    [record] = site.json("archive", "erased")["erased"]
    for command in (("fetch", STUDY), ("verify", STUDY), ("show", STUDY), ("fetch", STUDY, "--no-catalogue")):
        result = site.ctl(*command)
        assert result.exit_code == 1, result.output
        assert f"was erased from the archive at {record['erased_at']}" in result.stderr
        assert BECAUSE in result.stderr
    assert STUDY in site.ctl("archive", "erased").output
    assert site.json("archive", "erased", STUDY)["erased"] == [record]
    assert site.json("archive", "erased", NEIGHBOUR, code=1)["erased"] == []


def test_one_that_was_broken_off_before_its_last_word_goes_on(
    site: Site, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken_off:
        broken_off.setattr(erasures, "put_end", no_answer)
        assert site.ctl(*ERASE).exit_code != 0
    assert site.ctl(*ERASE).exit_code == 0
    assert site.json("archive", "erased")["erased"][0]["number"] == 2
    assert site.ctl(*ERASE).exit_code == 0
    assert site.json("archive", "erased")["erased"][0]["number"] == 2, "this one has ended"


def no_answer(*_: object) -> str:
    raise OutOfReach("no answer")


def test_what_the_archive_never_had_cannot_be_erased(site: Site, neighbour: Manifest) -> None:
    result = site.ctl(*ERASE)
    assert result.exit_code == 1 and "holds nothing of study" in result.stderr
    assert site.json("archive", "erased", code=1)["erased"] == []


def test_a_rebuild_does_not_bring_it_back(site: Site, study: Manifest, neighbour: Manifest) -> None:
    """Not even from a manifest that somebody has put back since."""
    store = site.store()
    assert site.ctl(*ERASE).exit_code == 0
    store.put(study.key, Buffer.of(study.to_bytes()))
    found = site.json("catalogue", "rebuild")
    assert (found["studies"], found["erased"]) == (1, 1)
    assert site.catalogue().get(STUDY) is None
    assert site.ctl("fetch", STUDY).exit_code == 1
    assert site.ctl(*ERASE).exit_code == 0, "and the next run takes it"
    assert site.json("catalogue", "rebuild")["erased"] == 0


def test_what_else_lies_in_the_study_s_folder_goes_and_links_are_not_followed(
    site: Site, study: Manifest, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    folder = site.archive / "studies" / STUDY
    (folder / "link").symlink_to(outside)
    (folder / "series" / "file").symlink_to(outside / "kept")
    (folder / "bundles").mkdir()
    (folder / "bundles" / ".dicomwatchd-tmp-1234").write_bytes(b"half an object of a daemon that was killed")
    (folder / "a b\xe4\udcff").write_bytes(b"a name that no key has")
    assert site.ctl(*ERASE).exit_code == 0
    assert not folder.exists() and (outside / "kept").read_bytes() == b"kept"


def test_what_root_has_put_there_is_the_daemon_s_to_read(
    site: Site, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a daemon of another user could not look whether anything was erased, and would archive nothing any more."""
    given: dict[bytes, tuple[int, int]] = {}

    def chown(name: bytes, uid: int, gid: int, *, dir_fd: int, follow_symlinks: bool) -> None:
        assert not follow_symlinks and os.stat(name, dir_fd=dir_fd)
        given[name] = uid, gid

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_USER", "alice")
    assert site.ctl(*ERASE).exit_code == 0
    owner = site.archive.stat()
    assert given == dict.fromkeys(
        [b"erased", STUDY.encode(), b"00000001.json", b"00000001.ended.json"], (owner.st_uid, owner.st_gid)
    )
    assert site.json("archive", "erased")["erased"][0]["erased_by"] == {"uid": 1234, "login": "alice"}


def test_a_study_s_folder_that_is_a_link_is_left_alone(site: Site, study: Manifest, tmp_path: Path) -> None:
    folder = site.archive / "studies" / STUDY
    moved = tmp_path / "moved"
    folder.rename(moved)
    folder.symlink_to(moved)
    result = site.ctl(*ERASE)
    assert result.exit_code == 1 and len(below(moved)) > 6, result.output


def test_a_folder_that_cannot_be_read_does_not_pass_for_empty(
    site: Site, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(path: Any, *arguments: Any, **named: Any) -> int:
        if path in (b"series", "series"):
            raise PermissionError(errno.EACCES, "refused")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refusing)
    assert site.ctl(*ERASE).exit_code == 3
    monkeypatch.undo()
    assert len(below(site.archive / "studies" / STUDY / "series")) > 5
    assert erasures.newest(site.store(), STUDY) is None


def test_a_share_that_is_not_mounted_is_no_empty_archive(site: Site, study: Manifest) -> None:
    site.ctl(*ERASE)
    site.archive.rename(site.archive.with_name("away"))
    site.archive.mkdir()
    result = site.ctl(*ERASE)
    assert result.exit_code == 3, "it must not be told that nothing is left"


def test_store_and_catalogue_of_two_archives(site: Site, study: Manifest, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    open_catalogue(SqliteSettings(kind="sqlite", path=other)).initialise("another archive")
    result = site.ctl(*ERASE, "--directory", str(site.archive), "--catalogue-file", str(other))
    assert result.exit_code == 1 and "another archive" in result.stderr
    assert site.ctl("verify", STUDY).exit_code == 0


# -- the steps --------------------------------------------------------------------------------------------------------


class Site2:
    """An archive in memory with one study of five instances in two revisions, and its neighbour."""

    def __init__(self) -> None:
        self.store, self.catalogue = MemoryStore(versioned=True), MemoryCatalogue(archive_id=ID)
        first = archive(self.store, [(SERIES, f"1.2.{n}", content(n)) for n in range(5)])
        self.manifest = archive(self.store, [(SERIES, "1.2.9", content(9))], before=first)
        self.neighbour = archive(self.store, [(SERIES, "1.2.1", content(1))], study=NEIGHBOUR)
        self.catalogue.put(self.manifest.record())
        self.catalogue.put(self.neighbour.record())

    def of_study(self) -> list[str]:
        return [key for key in self.store.versions if key.startswith(keys.study_prefix(STUDY))]

    def erase(self, **options: Any) -> erasing.Report:
        return erased(self.store, self.catalogue, STUDY, ID, **options)


@pytest.fixture
def memory() -> Site2:
    return Site2()


def test_all_versions_and_delete_markers_go(memory: Site2) -> None:
    [some, other, *_] = [key for key in memory.of_study() if key.endswith(".dcm")]
    memory.store.overwrite(some, b"damaged")
    memory.store.mark_deleted(other)
    report = memory.erase()
    assert (report.found.versions, report.found.delete_markers, report.found.objects) == (9, 1, 8)
    assert report.is_complete and memory.of_study() == []
    assert [key for key in memory.store.versions if key.startswith("studies/")] == [
        item.key for item in memory.neighbour.instances
    ][:0] + sorted(
        [memory.neighbour.key, *(item.key for item in memory.neighbour.instances)], key=[*memory.store.versions].index
    )
    record = erasures.newest(memory.store, STUDY)
    assert record == report.erasure and record is not None
    assert record.through_revision >= 2 and "Canary" not in record.to_bytes().decode()


def test_the_record_comes_first_and_nothing_goes_before_daemons_have_had_time(memory: Site2) -> None:
    clock = FakeClock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        assert erasures.newest(memory.store, STUDY) is not None, "the record comes first"
        assert len(memory.of_study()) == 8 and STUDY in memory.catalogue.records, "and nothing is gone yet"
        slept.append(seconds)
        clock.advance(seconds)

    report = memory.erase(settle_seconds=120.0, sleep=sleep, monotonic=lambda: clock.ahead)
    assert sum(slept) == 120.0 and report.is_complete


def test_the_wait_is_longer_than_a_daemon_goes_by_its_last_look() -> None:
    from dicomwatchd.pipeline.erased import LOOK_SECONDS

    assert 3 * LOOK_SECONDS <= erasing.SETTLE_SECONDS - LOOK_SECONDS


@pytest.mark.parametrize("until", [4102444800.0, None])
def test_what_is_locked_is_refused_before_anything_happens(memory: Site2, until: float | None) -> None:
    before = dict(memory.store.versions)
    objects = MemoryEraser(memory.store, locks={memory.of_study()[2]: until})
    with pytest.raises(Permanent, match="2100-01-01T00:00:00.000Z" if until else "legal hold") as refused:
        memory.erase(objects=objects)
    assert refused.value.code == "object-locked"
    assert memory.store.versions == before and STUDY in memory.catalogue.records


def test_an_upload_in_progress_is_refused_and_one_that_was_given_up_goes(memory: Site2) -> None:
    key = keys.instance(STUDY, SERIES, Uid("1.2.77"), "0" * 64)
    clock = FakeClock()
    objects = MemoryEraser(memory.store, uploads=[UnfinishedUpload(key, "u1", clock.now() - 60)])
    with pytest.raises(Permanent) as refused:
        memory.erase(objects=objects)
    assert refused.value.code == "being-sent" and erasures.newest(memory.store, STUDY) is None
    objects.uploads = [UnfinishedUpload(key, "u1", clock.now() - 3600), UnfinishedUpload(key, "u2")]
    other = UnfinishedUpload(keys.instance(NEIGHBOUR, SERIES, Uid("1.2.77"), "0" * 64), "u3")
    objects.uploads.append(other)
    report = memory.erase(objects=objects)
    assert report.aborted == 2 and report.is_complete and objects.uploads == [other]


def test_a_refusal_in_the_midst_is_told_and_the_next_run_goes_on(memory: Site2) -> None:
    kept = memory.of_study()[3]
    objects = MemoryEraser(memory.store, refuses={kept: "AccessDenied"})
    report = memory.erase(objects=objects)
    assert not report.is_complete and report.refused == 1 and report.left.versions == 1
    assert [(one.key, one.code) for one in report.refusals] == [(kept, "AccessDenied")]
    assert memory.of_study() == [kept]
    with pytest.raises(StudyErased):
        look_up(memory.store, memory.catalogue, STUDY)
    assert memory.erase().is_complete and memory.of_study() == []


@pytest.mark.parametrize("step", range(1, 12))
def test_an_interruption_at_each_step_is_finished_by_the_next_run(
    memory: Site2, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or refused, at any request: never is there half a study that counts."""
    calls = 0
    objects = MemoryEraser(memory.store)

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                raise CredentialsRefused("DeleteObjects failed: AccessDenied (403)")
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(erasing, "PAGE", 3)
    made = eraser(memory.store, memory.catalogue, ID, objects=objects)
    for target, name in (
        (objects, "erase"),
        (memory.store, "put"),
        (made.records, "erase"),
        (objects, "unfinished"),
        (memory.store, "listing"),
    ):
        monkeypatch.setattr(target, name, failing(getattr(target, name)))
    try:
        made.erase(STUDY, BECAUSE, WHO)
    except Transient:
        monkeypatch.undo()
        record = erasures.newest(memory.store, STUDY)
        if record is None:
            assert len(memory.of_study()) == 8, "without the record nothing is gone"
        else:
            with pytest.raises(StudyErased):
                look_up(memory.store, memory.catalogue, STUDY)
            rebuild(memory.store, memory.catalogue)
            made_again = memory.catalogue.get(STUDY)
            assert made_again is None or made_again.revision <= record.through_revision
            with pytest.raises(StudyErased):
                look_up(memory.store, memory.catalogue, STUDY)
        if not eraser(memory.store, memory.catalogue, ID).survey(STUDY).is_empty:
            assert memory.erase().is_complete
    monkeypatch.undo()
    assert memory.of_study() == [] and memory.catalogue.get(STUDY) is None
    assert memory.catalogue.get(NEIGHBOUR) is not None
    with pytest.raises(StudyErased):
        look_up(memory.store, memory.catalogue, STUDY)


def test_what_comes_while_it_goes_goes_too(memory: Site2) -> None:
    """A daemon that was on its way: an object, and a manifest and a record of the next revision."""
    late = iter(range(3))

    def arrives() -> None:
        if (n := next(late, None)) is not None:
            manifest = archive(memory.store, [(SERIES, f"1.2.5{n}", content(50 + n))], before=memory.manifest)
            memory.catalogue.put(manifest.record())

    report = memory.erase(objects=MemoryEraser(memory.store, before=arrives))
    assert report.is_complete and memory.of_study() == [] and memory.catalogue.get(STUDY) is None


def test_what_comes_without_an_end_is_not_called_erased(memory: Site2) -> None:
    numbers = iter(range(1000))

    def arrives() -> None:
        n = next(numbers)
        memory.store.versions[keys.instance(STUDY, SERIES, Uid(f"1.2.6{n}"), "1" * 64)] = [b"late"]

    report = memory.erase(objects=MemoryEraser(memory.store, before=arrives))
    assert not report.is_complete and report.left.versions


def test_a_manifest_that_comes_too_late_does_not_count(memory: Site2) -> None:
    memory.erase()
    late = archive(memory.store, [(SERIES, "1.2.10", content(10))], before=memory.manifest)
    memory.catalogue.put(late.record())
    with pytest.raises(StudyErased):
        look_up(memory.store, memory.catalogue, STUDY)
    memory.catalogue.records.clear()
    report = rebuild(memory.store, memory.catalogue)
    assert report.erased == 1 and memory.catalogue.get(STUDY) is None
    assert not memory.erase().left.versions
    assert erasures.newest_number(memory.store, STUDY) == 2, "each run that has found something has a record of its own"


def test_an_erasure_during_a_rebuild_is_reported(memory: Site2, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest was read when it was still there, and is recorded when it is not any more."""
    memory.catalogue.records.clear()
    real, at = memory.catalogue.put, iter([True])

    def put(record: StudyRecord) -> None:
        if record.study_uid == STUDY and next(at, False):
            memory.erase()
        real(record)

    monkeypatch.setattr(memory.catalogue, "put", put)
    report = rebuild(memory.store, memory.catalogue)
    [problem] = report.problems
    assert problem.study_uid == STUDY and "erased meanwhile" in problem.reason
    assert memory.erase().records == 1


def test_an_erasure_while_a_rebuild_reads_the_manifests_ends_nothing(
    memory: Site2, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.catalogue.records.clear()
    real, at = memory.store.read, iter([True])

    def read(key: str, version_id: str | None = None, **part: Any) -> Any:
        if keys.parse_manifest(key) == (STUDY, 2) and next(at, False):
            memory.erase()
        return real(key, version_id, **part)

    monkeypatch.setattr(memory.store, "read", read)
    report = rebuild(memory.store, memory.catalogue)
    assert (report.studies, report.erased, report.recorded, report.problems) == (1, 1, 1, ())
    assert memory.catalogue.get(STUDY) is None


def test_two_who_erase_at_once_have_a_record_each(memory: Site2) -> None:
    real = memory.store.put

    def put(key: str, body: Any) -> Any:
        memory.store.put = real  # type: ignore[method-assign]
        other = Erasure(ID, STUDY, 1, "2026-01-31T12:00:00.000Z", "another", 1, "other", 102)
        real(other.key, Buffer.of(other.to_bytes()))
        return real(key, body)

    memory.store.put = put  # type: ignore[method-assign, assignment]
    report = memory.erase()
    assert report.erasure.number == 2 and report.erasure.because == BECAUSE
    first = erasures.load(memory.store, STUDY, 1)
    assert first.because == "another" and report.erasure.through_revision > first.through_revision


def test_a_study_of_which_only_delete_markers_are_left(memory: Site2) -> None:
    for key in memory.of_study():
        memory.store.versions[key] = []
        memory.store.hidden.add(key)
    memory.catalogue.records.pop(STUDY)
    report = memory.erase()
    assert report.found.delete_markers == 8 and report.is_complete and memory.of_study() == []


def test_nothing_at_all(memory: Site2) -> None:
    with pytest.raises(StudyNotFound) as error:
        erased(memory.store, memory.catalogue, Uid("1.2.840.99999"), ID)
    assert not isinstance(error.value, StudyErased)
    assert len(memory.of_study()) == 8


# -- the record -------------------------------------------------------------------------------------------------------


def test_the_record_is_read_as_it_was_written(memory: Site2) -> None:
    record = Erasure(ID, STUDY, 3, "2026-01-31T12:00:00.000Z", 'a "reason" with \u00e4 \u202e', 0, "root", 107)
    assert Erasure.from_bytes(record.to_bytes()) == record
    raw = {**json.loads(record.to_bytes()), "added_later": 1}
    assert Erasure.from_bytes(json.dumps(raw).encode()) == record


@pytest.mark.parametrize(
    "change",
    [
        {"format": "dicomwatchd-erasure/2"},
        {"number": 0},
        {"number": True},
        {"study_uid": "../../1.2"},
        {"through_revision": -1},
        {"through_revision": 10**9},
        {"because": 7},
        {"erased_by": None},
        {"archive_id": None},
        {"erased_at": "CANARY"},
        {"erased_at": "2026-01-31T12:00:00.000Z\n"},
        {"erased_at": ""},
        {"erased_at": "1" * 41},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    record = Erasure(ID, STUDY, 3, "2026-01-31T12:00:00.000Z", "because", 0, "root", 107)
    with pytest.raises(BadErasure):
        Erasure.from_bytes(json.dumps({**json.loads(record.to_bytes()), **change}).encode())


def test_the_reason_is_in_no_log() -> None:
    error = Erasure(ID, STUDY, 1, "2026-01-31T12:00:00.000Z", "CANARY", 0, "root", 107).error()
    assert error.because == "CANARY"
    assert error.hint is None and "CANARY" not in str(error) and "CANARY" not in str(error_fields(error))


def test_a_record_that_cannot_be_read_still_speaks_for_itself(memory: Site2) -> None:
    """Nobody may take the study for one that was never erased."""
    memory.store.versions[keys.erasure(STUDY, 1)] = [b"{"]
    with pytest.raises(BadErasure):
        look_up(memory.store, memory.catalogue, STUDY)
    assert look_up(memory.store, memory.catalogue, NEIGHBOUR).manifest == memory.neighbour


def test_a_record_under_another_study_s_key_is_none(memory: Site2) -> None:
    record = Erasure(ID, NEIGHBOUR, 1, "2026-01-31T12:00:00.000Z", "because", 0, "root", 107)
    memory.store.versions[keys.erasure(STUDY, 1)] = [record.to_bytes()]
    with pytest.raises(BadErasure):
        erasures.newest(memory.store, STUDY)
    assert [*erasures.numbers(memory.store)] == [(STUDY, 1)]
    assert erasures.newest_number(memory.store, NEIGHBOUR) == 0


def test_keys_of_records() -> None:
    assert keys.erasure(STUDY, 1) == f"erased/{STUDY}/00000001.json"
    assert keys.parse_erasure(keys.erasure(STUDY, 99_999_999)) == (STUDY, 99_999_999)
    for key in ("erased/1.2/00000000.json", "erased/1.2/1.json", "erased/1..2/00000001.json", "erased/x/00000001.json"):
        assert keys.parse_erasure(key) is None
    for number in (0, 100_000_000):
        with pytest.raises(ValueError, match="numbered"):
            keys.erasure(STUDY, number)


def test_verify_says_what_came_back(site: Site, study: Manifest) -> None:
    site.ctl(*ERASE)
    assert "again" not in site.ctl("verify", STUDY).stderr
    item = study.instances[0]
    site.store().put(item.key, Buffer.of(content(0)))
    result = site.ctl("verify", STUDY)
    assert result.exit_code == 1 and "1 object or record is in" in result.stderr and "erase" in result.stderr
    site.catalogue().put(study.record())
    assert "2 objects and records are in" in site.ctl("verify", STUDY).stderr
    assert site.ctl("verify", STUDY, "--no-catalogue").exit_code == 1
    assert site.ctl(*ERASE).exit_code == 0
    assert "again" not in site.ctl("verify", STUDY).stderr


def test_a_reader_who_may_not_list_the_records_reads_on(memory: Site2) -> None:
    """As with a policy of one's own from before there were any; a daemon that cannot tell sends nothing."""
    real, notes = memory.store.listing, list[str]()

    def listing(prefix: str, after: str = "") -> Any:
        if prefix.startswith(keys.ERASED):
            raise CredentialsRefused("ListObjectsV2 failed: AccessDenied (403)")
        return real(prefix, after)

    memory.store.listing = listing  # type: ignore[method-assign]
    assert look_up(memory.store, memory.catalogue, STUDY, note=notes.append).manifest == memory.manifest
    assert len(notes) == 1 and "whether this study was" in notes[0]


def test_somebody_at_a_terminal_is_told_of_the_wait(
    site: Site, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "SETTLE_SECONDS", 0.2)
    result = site.ctl("archive", "erase", STUDY, "--because", BECAUSE, "--yes", STUDY)
    assert result.exit_code == 0 and "nothing is deleted for two minutes" in result.stderr, result.output
    assert "Not reached" in result.output and "Deleted: 6 versions" in result.output


def test_no_table_of_the_catalogue_s_file_has_a_row_of_it(site: Site, study: Manifest, neighbour: Manifest) -> None:
    """Nor one that a later version adds."""
    with closing(sqlite3.connect(site.catalogue_file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        before = {name: [*map(str, database.execute(f"SELECT * FROM {name}"))] for name in tables}
    assert any(f"'{STUDY}'" in row for rows in before.values() for row in rows)
    assert site.ctl(*ERASE).exit_code == 0
    with closing(sqlite3.connect(site.catalogue_file)) as database:
        after = {name: [*map(str, database.execute(f"SELECT * FROM {name}"))] for name in tables}
    assert after == {name: [row for row in rows if f"'{STUDY}'" not in row] for name, rows in before.items()}
