"""The commands that work on the archive itself, on the embedded archive: a folder and a SQLite file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.factory import open_catalogue, open_store
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import DirectorySettings, SqliteSettings
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity
from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import known_archive_id, open_queue
from dicomwatchd.study_signs import Concatenation, SeriesSigns
from tests import schemas
from tests.unit.memory_archive import OTHER_SERIES, PATIENT, SERIES, STUDY, MemoryStore, archive, content

HOSTILE_NAME = "Doe^\x1b[2JJane\n"


@dataclass
class Site:
    """A configuration and the embedded archive that it names."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def catalogue_file(self) -> Path:
        return self.folder / "catalogue.db"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def store(self) -> ObjectStore:
        return open_store(DirectorySettings(kind="directory", path=self.archive), connections=1)

    def catalogue(self) -> Catalogue:
        return open_catalogue(SqliteSettings(kind="sqlite", path=self.catalogue_file))

    def ctl(self, *arguments: str) -> Result:
        result = CliRunner().invoke(root, ["--config", str(self.config), *arguments])
        if "--json" in arguments:
            schemas.check_output(arguments, result.stdout, result.exit_code)
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self.ctl(*arguments, "--json")
        assert result.exit_code == code, result.output
        assert result.stderr == "", "an answer in JSON comes alone"
        return json.loads(result.stdout)

    def add(
        self,
        files: list[tuple[Uid, str, bytes]],
        *,
        study: Uid = STUDY,
        before: Manifest | None = None,
        attributes: DicomJson = PATIENT,
        record: bool = True,
        identities: Iterable[Identity] = (),
        signs: Mapping[Uid, SeriesSigns] | None = None,
    ) -> Manifest:
        """Archive files as the daemon would: objects, manifest, catalogue."""
        memory, store = MemoryStore(), self.store()
        identity = read_identity(store)
        assert identity is not None
        manifest = archive(
            memory,
            files,
            study=study,
            before=before,
            attributes=attributes,
            archive_id=identity.archive_id,
            identities=identities,
            signs=signs,
        )
        for key, versions in memory.versions.items():
            store.put(key, Buffer.of(versions[0]))
        if record:
            self.catalogue().put(manifest.record())
        return manifest

    def path_of(self, key: str) -> Path:
        return self.archive / key


@pytest.fixture
def bare(tmp_path: Path) -> Site:
    """A configuration, and nothing of the archive yet."""
    site = Site(tmp_path)
    site.state.mkdir()
    site.config.write_text(
        f"""
state_directory: {site.state}
inboxes:
  - {{name: ct1, path: {tmp_path}/not-there-yet}}
archive:
  store: {{kind: directory, path: {site.archive}}}
  catalogue: {{kind: sqlite, path: {site.catalogue_file}}}
"""
    )
    return site


@pytest.fixture
def site(bare: Site) -> Site:
    assert bare.ctl("archive", "init").exit_code == 0
    return bare


@pytest.fixture
def study(site: Site) -> Manifest:
    return site.add([(SERIES if n < 3 else OTHER_SERIES, f"1.2.{n}", content(n)) for n in range(5)])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, which is where fetch puts a study by default."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fetched(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


EXPECTED = {f"{SERIES if n < 3 else OTHER_SERIES}/1.2.{n}.dcm": content(n) for n in range(5)}


# --- identifiers and modes ----------------------------------------------------------------------------------


def test_fetch_takes_study_and_mode(site: Site, study: Manifest, elsewhere: Path) -> None:
    arguments = ["--config", str(site.config), "fetch", "-", "-o", "out", "--mode", "0640"]
    result = CliRunner().invoke(root, arguments, input=f"{STUDY}\n")
    assert result.exit_code == 0, result.output
    assert fetched(elsewhere / "out") == EXPECTED
    assert {oct(p.stat().st_mode & 0o777) for p in (elsewhere / "out").rglob("*") if p.is_file()} == {"0o640"}


@pytest.mark.parametrize("mode", ["0444", "0755", "0040", "4600", "640x", "-600", "06400", "rw"])
def test_a_mode_that_serves_nobody_is_refused(site: Site, study: Manifest, mode: str) -> None:
    result = site.ctl("fetch", STUDY, f"--mode={mode}")
    assert result.exit_code == 2 and not fetched(Path())


def test_search_reads_a_patient_from_standard_input_and_repeats_nothing(site: Site, study: Manifest) -> None:
    assert PATIENT["00100020"]["Value"] == ["CANARY-ID"]
    for option, given, count in (
        ("--patient", "CANARY-ID", 1),
        ("--patient", "CANARY", 0),
        ("--accession", "CANARY", 0),
    ):
        arguments = ["--config", str(site.config), "search", option, "-", "--json"]
        result = CliRunner().invoke(root, arguments, input=f"{given}\n")
        assert result.exit_code == 0 and len(json.loads(result.stdout)["studies"]) == count
        assert "CANARY" not in result.stderr


# --- archive init -------------------------------------------------------------------------------------------


def snapshot(site: Site) -> dict[str, tuple[int, bytes]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.read_bytes())
        for p in [*site.archive.rglob("*"), site.catalogue_file]
        if p.is_file()
    }


def test_init_creates_what_is_missing_and_a_second_run_changes_nothing(bare: Site) -> None:
    first = bare.ctl("archive", "init")
    assert first.exit_code == 0, first.output
    identity = read_identity(bare.store())
    assert identity is not None and bare.catalogue().identity() == identity.archive_id
    lines = first.stdout.splitlines()
    assert any(line.startswith("created") and "identity" in line for line in lines)
    assert lines[-1] == f"Archive {identity.archive_id} is ready."
    before = snapshot(bare)
    second = bare.ctl("archive", "init")
    assert second.exit_code == 0 and "created" not in second.stdout
    assert second.stdout.splitlines()[-1] == f"Archive {identity.archive_id} was already set up; nothing was changed."
    assert snapshot(bare) == before
    said = bare.json("archive", "init")
    assert said["archive_id"] == identity.archive_id and said["changed"] is False
    assert {step["outcome"] for step in said["steps"]} <= {"present", "not supported"}


def bind(site: Site, archive_id: str) -> None:
    queue = open_queue(site.state, SystemClock(), lambda _transition: None)
    queue.binding.bind(archive_id, "somewhere")
    queue.close()


def test_init_is_refused_where_the_state_knows_an_archive_and_the_place_is_empty(bare: Site) -> None:
    """An unmounted share must not become a new archive."""
    bind(bare, "0a0a0a0a-0000-4000-8000-000000000000")
    result = bare.ctl("archive", "init")
    assert result.exit_code == 3 and "--new-archive" in result.stderr and result.stdout == ""
    assert not bare.archive.exists() and not bare.catalogue_file.exists()


def test_init_is_refused_for_another_archive_than_the_state_knows(site: Site) -> None:
    bind(site, "0a0a0a0a-0000-4000-8000-000000000000")
    before = snapshot(site)
    assert site.ctl("archive", "init").exit_code == 3
    assert snapshot(site) == before
    meant = site.ctl("archive", "init", "--new-archive")
    assert meant.exit_code == 0, meant.output
    identity = read_identity(site.store())
    assert identity is not None and known_archive_id(site.state) == identity.archive_id
    assert site.ctl("archive", "init").exit_code == 0


def test_a_new_archive_is_not_taken_up_under_a_running_daemon(site: Site) -> None:
    bind(site, "0a0a0a0a-0000-4000-8000-000000000000")
    running = open_queue(site.state, SystemClock(), lambda _transition: None)
    try:
        result = site.ctl("archive", "init", "--new-archive")
        assert result.exit_code == 3 and "running" in result.stderr
        assert running.binding.archive_id() == "0a0a0a0a-0000-4000-8000-000000000000"
    finally:
        running.close()


def test_init_of_the_archive_that_the_state_knows(site: Site) -> None:
    identity = read_identity(site.store())
    assert identity is not None
    bind(site, identity.archive_id)
    assert site.ctl("archive", "init").exit_code == 0


def test_init_makes_no_new_archive_of_studies_that_belong_to_one(site: Site, study: Manifest) -> None:
    """A copy without archive.json, or a bucket in which it was deleted."""
    identity = read_identity(site.store())
    assert identity is not None
    (site.archive / "archive.json").unlink()
    site.catalogue_file.unlink()
    refused = site.ctl("archive", "init")
    assert refused.exit_code == 3 and refused.stdout == ""
    assert identity.archive_id in refused.stderr and "--restore-identity" in refused.stderr
    assert site.ctl("archive", "init", "--new-archive").exit_code == 3
    assert read_identity(site.store()) is None and not site.catalogue_file.exists()
    restored = site.ctl("archive", "init", "--restore-identity")
    assert restored.exit_code == 0 and f"Archive {identity.archive_id} is ready." in restored.stdout
    again = read_identity(site.store())
    assert again is not None and again.archive_id == identity.archive_id == site.catalogue().identity()
    assert site.ctl("catalogue", "rebuild").exit_code == 0
    assert site.ctl("fetch", STUDY).exit_code == 0


def test_an_identity_is_restored_for_the_archive_that_the_state_knows_only(site: Site, study: Manifest) -> None:
    bind(site, "0a0a0a0a-0000-4000-8000-000000000000")
    (site.archive / "archive.json").unlink()
    site.catalogue_file.unlink()
    assert site.ctl("archive", "init", "--restore-identity").exit_code == 3
    assert read_identity(site.store()) is None


def test_no_identity_is_restored_that_manifests_do_not_agree_on(site: Site, study: Manifest) -> None:
    other = MemoryStore()
    archive(
        other, [(SERIES, "1.2.9.1", content(9))], study=Uid("1.2.9"), archive_id="0a0a0a0a-0000-4000-8000-000000000000"
    )
    for key, versions in other.versions.items():
        site.store().put(key, Buffer.of(versions[0]))
    (site.archive / "archive.json").unlink()
    refused = site.ctl("archive", "init", "--restore-identity")
    assert refused.exit_code == 3 and "several archives" in refused.stderr
    assert read_identity(site.store()) is None


def test_no_identity_is_restored_where_no_manifest_names_one(bare: Site) -> None:
    bare.archive.mkdir()
    refused = bare.ctl("archive", "init", "--restore-identity")
    assert refused.exit_code == 3 and "no manifest" in refused.stderr
    assert list(bare.archive.iterdir()) == [] and not bare.catalogue_file.exists()


def test_init_of_a_lost_catalogue_says_what_is_still_to_be_done(site: Site, study: Manifest) -> None:
    assert "rebuild" not in site.ctl("archive", "init").stderr
    site.catalogue_file.unlink()
    result = site.ctl("archive", "init")
    assert result.exit_code == 0 and "dicomwatchctl catalogue rebuild" in result.stderr
    assert "rebuild" not in site.ctl("archive", "init").stderr


def test_init_of_a_lost_catalogue_of_an_empty_archive_says_nothing_more(site: Site) -> None:
    site.catalogue_file.unlink()
    assert site.ctl("archive", "init").stderr == ""


def test_init_is_refused_where_the_catalogue_belongs_to_an_archive_that_is_not_there(site: Site) -> None:
    shutil.rmtree(site.archive)
    result = site.ctl("archive", "init")
    assert result.exit_code == 3 and not site.archive.exists()
    assert site.ctl("archive", "init", "--new-archive").exit_code == 3 and not site.archive.exists()


def test_init_without_the_place_to_make_it_in(bare: Site) -> None:
    bare.config.write_text(bare.config.read_text().replace(str(bare.archive), f"{bare.folder}/mount/archive"))
    assert bare.ctl("archive", "init").exit_code == 3
    assert not (bare.folder / "mount").exists()


# --- fetch --------------------------------------------------------------------------------------------------


def test_fetch(site: Site, study: Manifest, tmp_path: Path) -> None:
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.startswith(f"All 5 files of study {STUDY}, revision 1, are in {tmp_path}/out: 5 fetched (")
    assert result.stdout.endswith("every SHA-256 matches.\n")
    assert fetched(tmp_path / "out") == EXPECTED
    again = site.json("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert (again["complete"], again["fetched"], again["already_there"], again["files"]) == (True, 0, 5, 5)


def test_fetch_goes_to_a_folder_named_after_the_study(site: Site, study: Manifest, elsewhere: Path) -> None:
    assert site.ctl("fetch", STUDY).exit_code == 0
    assert fetched(elsewhere / STUDY) == EXPECTED


def test_fetch_of_a_series(site: Site, study: Manifest, tmp_path: Path) -> None:
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"), "--series", OTHER_SERIES)
    assert result.exit_code == 0 and len(fetched(tmp_path / "out")) == 2
    assert site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"), "--series", "1.1").exit_code == 1


def test_fetch_with_a_configuration_of_the_archive_alone(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.config.write_text(site.config.read_text().partition("archive:\n")[2].join(["archive:\n", ""]))
    assert "inboxes" not in site.config.read_text()
    assert site.ctl("fetch", STUDY, "-o", str(tmp_path / "out")).exit_code == 0
    assert fetched(tmp_path / "out") == EXPECTED


@pytest.mark.parametrize("with_catalogue", [True, False])
def test_fetch_with_options_alone(site: Site, study: Manifest, tmp_path: Path, with_catalogue: bool) -> None:
    site.config.unlink()
    catalogue = ["--catalogue-file", str(site.catalogue_file)] if with_catalogue else []
    arguments = ["fetch", STUDY, "-o", str(tmp_path / "out"), "--directory", str(site.archive), *catalogue]
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 0, result.output
    assert fetched(tmp_path / "out") == EXPECTED


@pytest.mark.parametrize("damage", ["gone", "garbage", "emptied"])
def test_fetch_without_the_catalogue(site: Site, study: Manifest, tmp_path: Path, damage: str) -> None:
    if damage == "gone":
        site.catalogue_file.unlink()
    elif damage == "garbage":
        site.catalogue_file.write_bytes(b"no database" * 1000)
    else:
        shutil.copy(site.catalogue_file, tmp_path / "copy")
        site.catalogue_file.unlink()
        identity = read_identity(site.store())
        assert identity is not None
        site.catalogue().initialise(identity.archive_id)
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "only the store is" in result.stderr
    assert fetched(tmp_path / "out") == EXPECTED
    assert "only the store is" in site.json("fetch", STUDY, "-o", str(tmp_path / "out"))["notes"][0]


def test_fetch_of_a_damaged_study(site: Site, study: Manifest, tmp_path: Path) -> None:
    bad = site.path_of(study.instances[0].key)
    bad.chmod(0o600)
    bad.write_bytes(bytes(study.instances[0].size_bytes))
    site.path_of(study.instances[1].key).unlink()
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "3 of 5 files" in result.stdout
    assert f"{SERIES}\t1.2.0\tthe stored object's SHA-256 is not the recorded one" in result.stdout
    assert f"{SERIES}\t1.2.1\tthe object is missing from the store" in result.stdout
    said = site.json("fetch", STUDY, "-o", str(tmp_path / "out2"), code=1)
    assert [failure["sop_instance_uid"] for failure in said["failed"]] == ["1.2.0", "1.2.1"]
    assert len(fetched(tmp_path / "out2")) == 3


def test_fetch_leaves_what_is_in_the_way(site: Site, study: Manifest, tmp_path: Path) -> None:
    mine = tmp_path / "out" / SERIES / "1.2.0.dcm"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"))
    assert result.exit_code == 1 and "a file with different content already has this name" in result.stdout
    assert mine.read_bytes() == b"mine"


def test_fetch_of_an_unknown_study(site: Site, study: Manifest, tmp_path: Path) -> None:
    result = site.ctl("fetch", "1.2.3", "-o", str(tmp_path / "out"))
    assert result.exit_code == 1 and "study 1.2.3 is not in the archive" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_not_there_is_not_an_empty_one(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.archive.rename(tmp_path / "moved")
    for replacement in (False, True):
        if replacement:
            site.archive.mkdir()  # the empty mount point
        for command in ("fetch", "verify", "show"):
            assert site.ctl(command, STUDY).exit_code == 3, command
        assert site.ctl("search").exit_code == 3
        assert site.ctl("catalogue", "rebuild").exit_code == 3


# --- verify -------------------------------------------------------------------------------------------------


def test_verify(site: Site, study: Manifest) -> None:
    result = site.ctl("verify", STUDY)
    assert result.exit_code == 0 and "The archive holds all 5 files" in result.stdout
    deep = site.ctl("verify", STUDY, "--deep")
    assert deep.exit_code == 0 and "every byte was read back" in deep.stdout
    said = site.json("verify", STUDY, "--deep")
    assert (said["holds"], said["instances"], said["held"], said["read_back"]) == (True, 5, 5, 5)


def test_verify_finds_what_is_missing_or_of_another_size(site: Site, study: Manifest) -> None:
    site.path_of(study.instances[1].key).unlink()
    other_size = site.path_of(study.instances[2].key)
    other_size.chmod(0o600)
    other_size.write_bytes(b"short")
    result = site.ctl("verify", STUDY)
    assert result.exit_code == 1
    assert "holds 3 of 5 files" in result.stdout
    assert f"{SERIES}\t1.2.1\tthe object is missing" in result.stdout
    assert f"{SERIES}\t1.2.2\tthe object's size differs from the recorded size" in result.stdout
    said = site.json("verify", STUDY, code=1)
    assert said["holds"] is False and [p["problem"] for p in said["problems"]] == ["missing", "size"]


def test_verify_deep_finds_a_flipped_bit(site: Site, study: Manifest) -> None:
    victim = site.path_of(study.instances[3].key)
    victim.chmod(0o600)
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    assert site.ctl("verify", STUDY).exit_code == 0, "a listing of names and sizes cannot know"
    deep = site.ctl("verify", STUDY, "--deep")
    assert deep.exit_code == 1 and "the object's bytes differ from the recorded ones" in deep.stdout


def test_verify_tells_of_objects_that_the_manifest_does_not_list(site: Site, study: Manifest) -> None:
    extra = site.path_of(study.instances[0].key).with_name("0" * 64 + ".dcm")
    extra.write_bytes(b"x")
    result = site.ctl("verify", STUDY)
    assert result.exit_code == 0 and "1 object that this revision does not list" in result.stderr
    assert site.json("verify", STUDY)["unrecorded"] == 1


def test_verify_of_an_unknown_study(site: Site) -> None:
    assert site.ctl("verify", "1.2.3").exit_code == 1


# --- search and show ----------------------------------------------------------------------------------------


def patient(patient_id: str, name: str, date: str, accession: str) -> DicomJson:
    return {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name, "Ideographic": "山田^太郎"}]},
        "00100020": {"vr": "LO", "Value": [patient_id]},
        "00080050": {"vr": "SH", "Value": [accession]},
        "00080020": {"vr": "DA", "Value": [date]},
    }


@pytest.fixture
def studies(site: Site) -> Site:
    for number, (patient_id, date) in enumerate([("A", "20260101"), ("A", "20260131"), ("B", "20260215")], 1):
        site.add(
            [(Uid(f"1.9.{number}.1"), f"1.9.{number}.1.1", content(number))],
            study=Uid(f"1.9.{number}"),
            attributes=patient(patient_id, HOSTILE_NAME, date, f"ACC{number}"),
        )
    return site


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["1.9.3", "1.9.2", "1.9.1"]),
        (["--patient", "A"], ["1.9.2", "1.9.1"]),
        (["--accession", "ACC3"], ["1.9.3"]),
        (["--date", "2026-01-31.."], ["1.9.3", "1.9.2"]),
        (["--date", "..20260131"], ["1.9.2", "1.9.1"]),
        (["--date", "20260102..2026-02-14"], ["1.9.2"]),
        (["--date", "20260131"], ["1.9.2"]),
        (["--modality", "ct", "--patient", "B"], ["1.9.3"]),
        (["--modality", "MR"], []),
        (["--patient", "Z"], []),
    ],
)
def test_search(studies: Site, arguments: list[str], found: list[str]) -> None:
    said = studies.json("search", *arguments)
    assert [item["study_uid"] for item in said["studies"]] == found and said["truncated"] is False
    lines = studies.ctl("search", *arguments).stdout.splitlines()
    assert [line.split("\t")[-1] for line in lines[1:]] == found or lines == ["No study matches."]


def test_search_says_when_it_shows_only_the_first(studies: Site) -> None:
    result = studies.ctl("search", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3 and "use a larger --limit" in result.stderr
    assert studies.json("search", "--limit", "2")["truncated"] is True
    assert len(studies.json("search", "--limit", "0")["studies"]) == 3
    assert studies.json("search", "--limit", "3")["truncated"] is False


@pytest.mark.parametrize("command", [["search"], ["show", "1.9.1"]])
def test_a_hostile_name_does_not_reach_the_terminal(studies: Site, command: list[str]) -> None:
    result = studies.ctl(*command)
    assert "\x1b" not in result.stdout and "Doe^\ufffd[2JJane\ufffd = 山田^太郎" in result.stdout
    raw = studies.ctl(*command, "--json").stdout
    assert "\x1b" not in raw and raw.isascii()


def test_search_needs_a_catalogue(site: Site) -> None:
    result = CliRunner().invoke(root, ["search", "--directory", str(site.archive)])
    assert result.exit_code == 2 and "--catalogue-file" in result.stderr
    site.catalogue_file.unlink()
    assert site.ctl("search").exit_code == 3


def test_show(site: Site, study: Manifest) -> None:
    result = site.ctl("show", STUDY)
    assert result.exit_code == 0, result.output
    assert "Canary^Name" in result.stdout and "2026-01-31" in result.stdout and OTHER_SERIES in result.stdout
    assert "the daemon is not running" in result.stderr
    said = site.json("show", STUDY)
    assert said["archive"]["patient_id"] == "CANARY-ID" and said["local"] is None
    assert [series["instances"] for series in said["archive"]["series"]] == [3, 2]
    assert site.ctl("show", "1.2.3").exit_code == 1


def test_only_search_and_show_print_patient_attributes(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.path_of(study.instances[0].key).unlink()
    for command in (
        ["fetch", STUDY, "-o", str(tmp_path / "out")],
        ["fetch", STUDY, "-o", str(tmp_path / "out"), "--json"],
        ["fetch", STUDY, "-o", str(tmp_path / "other"), "--mode", "0640"],
        ["verify", STUDY, "--deep"],
        ["verify", STUDY, "--deep", "--json"],
        ["catalogue", "rebuild"],
        ["archive", "init"],
    ):
        assert "canary" not in site.ctl(*command).output.lower(), command


# --- catalogue rebuild --------------------------------------------------------------------------------------


def test_rebuild_gives_an_equal_catalogue(studies: Site) -> None:
    def records() -> list[str]:
        catalogue = studies.catalogue()
        return sorted(map(str, (catalogue.get(uid) for uid in catalogue.study_uids())))

    before = records()
    assert len(before) == 3
    identity = read_identity(studies.store())
    assert identity is not None
    studies.catalogue_file.unlink()
    studies.catalogue().initialise(identity.archive_id)
    assert records() == []
    result = studies.ctl("catalogue", "rebuild")
    assert result.exit_code == 0
    assert result.stdout == "3 studies in the store: 3 recorded, 0 already in the catalogue, 0 not usable.\n"
    assert records() == before
    again = studies.json("catalogue", "rebuild")
    assert (again["studies"], again["recorded"], again["unchanged"]) == (3, 0, 3)


def test_rebuild_reports_a_manifest_it_cannot_use(site: Site, study: Manifest) -> None:
    path = site.path_of(study.key)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    result = site.ctl("catalogue", "rebuild")
    assert result.exit_code == 1 and f"{STUDY}\t1\ta manifest in the store cannot be read" in result.stdout


def interrupted_after(studies: Site, count: int) -> None:
    """As a kill does: without an end."""
    code = f"""
import os, sys
from dicomwatchd.archive.repair import progress
from dicomwatchd.cli.app import root
kept, progress._EVERY_SECONDS, done = progress.ProgressFile.keep, 0, []
def keep(self, found):
    self._every_seconds = 0
    kept(self, found)
    done.append(1)
    if len(done) == {count}:
        os._exit(9)
progress.ProgressFile.keep = keep
root.main(["--config", {str(studies.config)!r}, "catalogue", "rebuild"])
"""
    here = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 9, ended.stderr


def test_a_killed_rebuild_is_continued_and_says_so(studies: Site) -> None:
    interrupted_after(studies, 2)
    kept = studies.state / "catalogue-rebuild.json"
    assert kept.stat().st_mode & 0o777 == 0o600 and "canary" not in kept.read_text().lower()
    result = studies.ctl("catalogue", "rebuild")
    assert result.exit_code == 0 and "continued after 2 studies" in result.stderr
    assert result.stdout == "3 studies in the store: 0 recorded, 3 already in the catalogue, 0 not usable.\n"
    assert not kept.exists()
    again = studies.json("catalogue", "rebuild")
    assert (again["resumed"], again["unchanged"], again["notes"]) == (False, 3, [])


def test_a_rebuild_begins_anew_where_it_has_to(studies: Site) -> None:
    interrupted_after(studies, 2)
    assert studies.json("catalogue", "rebuild", "--from-start")["resumed"] is False
    interrupted_after(studies, 2)
    identity = read_identity(studies.store())
    assert identity is not None
    studies.catalogue_file.unlink()
    studies.catalogue().initialise(identity.archive_id)
    answer = studies.json("catalogue", "rebuild")
    assert (answer["resumed"], answer["recorded"]) == (False, 3)
    assert "not the one that it wrote" in answer["notes"][0]


def test_where_a_rebuild_keeps_how_far_it_has_come(studies: Site, tmp_path: Path) -> None:
    """In a folder that is named, under a name of its own: it replaces and removes that file."""
    interrupted_after(studies, 1)
    kept, patients = tmp_path / "kept", tmp_path / "patient.dcm"
    kept.mkdir()
    patients.write_bytes(b"the only copy")
    (studies.state / "catalogue-rebuild.json").rename(kept / "catalogue-rebuild.json")
    assert studies.ctl("catalogue", "rebuild", "--state-directory", str(patients)).exit_code == 2
    assert patients.read_bytes() == b"the only copy"
    assert studies.json("catalogue", "rebuild", "--state-directory", str(kept))["resumed"] is True
    assert list(kept.iterdir()) == []
    shutil.rmtree(studies.state)
    assert studies.json("catalogue", "rebuild")["notes"] == []


def test_a_folder_that_may_not_be_written_is_said(site: Site, study: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = site.ctl("fetch", STUDY, "-o", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert os.strerror(20) in result.stderr


# --- search by what several studies share, and fetch of what it finds ------------------------------------------


@pytest.fixture
def hospital(site: Site) -> Site:
    """Three studies: of Doe, of Smith, and one whose files name both."""
    doe: DicomJson = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Ideographic": "山田^太郎"}]},
        "00100020": {"vr": "LO", "Value": ["A"]},
        "00100021": {"vr": "LO", "Value": ["CLINIC"]},
        "00100030": {"vr": "DA", "Value": ["19700131"]},
        "00080050": {"vr": "SH", "Value": ["ACC1"]},
        "00081030": {"vr": "LO", "Value": ["MR Head native"]},
    }
    smith: DicomJson = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Smith^John"}]},
        "00100020": {"vr": "LO", "Value": ["B"]},
        "00100030": {"vr": "DA", "Value": ["19800101"]},
    }
    for number, (attributes, date) in enumerate([(doe, "20260101"), (smith, "20260131"), (doe, "20260215")], 1):
        site.add(
            [(Uid(f"1.9.{number}.1"), f"1.9.{number}.1.1", content(number))],
            study=Uid(f"1.9.{number}"),
            attributes={**attributes, "00080020": {"vr": "DA", "Value": [date]}},
            identities=[Identity.of(doe), Identity.of(smith)] if number == 3 else [],
        )
    return site


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--patient", "B"], ["1.9.3", "1.9.2"]),
        (["--patient", "A", "--issuer", "clinic"], ["1.9.3", "1.9.1"]),
        (["--patient", "A", "--issuer", "OTHER"], []),
        (["--name", "doe"], ["1.9.3", "1.9.1"]),
        (["--name", "DOE^J*"], ["1.9.3", "1.9.1"]),
        (["--name", "doe, jane"], ["1.9.3", "1.9.1"]),
        (["--name", "*jo?n"], ["1.9.3", "1.9.2"]),
        (["--name", "山田*"], ["1.9.3", "1.9.1"]),
        (["--name", "do"], []),
        (["--name", "smith", "--patient", "A"], []),
        (["--born", "1980-01-01", "--name", "smith*"], ["1.9.3", "1.9.2"]),
        (["--born", "1970-01-31", "--name", "smith*"], []),
        (["--born", "19700131", "--date", "20260101-20260102"], ["1.9.1"]),
        (["--description", "mr head"], ["1.9.3", "1.9.1"]),
        (["--description", "*NATIVE"], ["1.9.3", "1.9.1"]),
        (["--archived-since", "2000-01-01T00:00Z", "--patient", "A"], ["1.9.3", "1.9.1"]),
        (["--archived-since", "2999-01-01"], []),
        (["--institution", "*"], []),
        (["--after", "20260215#1.9.3"], ["1.9.2", "1.9.1"]),
        (["--after", "20260215#1.9.3", "--name", "doe"], ["1.9.1"]),
    ],
)
def test_search_by_what_studies_share(hospital: Site, arguments: list[str], found: list[str]) -> None:
    said = hospital.json("search", *arguments)
    assert [item["study_uid"] for item in said["studies"]] == found
    assert said["notes"] == [] and said["next"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--born", "1970"),
        ("--archived-since", "yesterday"),
        ("--archived-since", "2026-01-01T25:00"),
        ("--after", "1.9.3"),
        ("--after", "20260215#x"),
        ("--date", "20260201-20260101"),
    ],
)
def test_what_search_cannot_go_by(hospital: Site, arguments: tuple[str, ...]) -> None:
    assert hospital.ctl("search", *arguments).exit_code == 2


def test_search_goes_on_where_a_list_ended(hospital: Site) -> None:
    first = hospital.json("search", "--limit", "2")
    assert first["next"] == "20260131#1.9.2"
    assert "--after '20260131#1.9.2'" in hospital.ctl("search", "--limit", "2").stderr
    rest = hospital.json("search", "--limit", "2", "--after", first["next"])
    assert [one["study_uid"] for one in rest["studies"]] == ["1.9.1"] and rest["next"] is None
    assert len(hospital.json("search", "--limit", "1", "--all")["studies"]) == 3


def test_every_patient_of_a_study_is_shown(hospital: Site) -> None:
    rows = [line.split("\t") for line in hospital.ctl("search").stdout.splitlines()]
    assert [row[1] for row in rows[1:]] == ["A +1", "B", "A"]
    both = hospital.json("search", "--limit", "1")["studies"][0]
    assert [one["name"] for one in both["patients"]] == ["Doe^Jane=山田^太郎", "Smith^John"]
    assert "B, Smith^John, 1980-01-01" in hospital.ctl("show", "1.9.3").stdout
    assert hospital.json("show", "1.9.3")["archive"]["patients"] == both["patients"]


def test_what_is_missing_of_a_study(hospital: Site) -> None:
    series = Uid("1.9.4.1")
    lacking = SeriesSigns(concatenations={"1.9.5": Concatenation(3, 0, {1: 0, 3: 0})})
    for study, signs in ((Uid("1.9.4"), lacking), (Uid("1.9.5"), SeriesSigns())):
        hospital.add([(series, "1.9.4.1.1", content(9))], study=study, signs={series: signs})
    said = hospital.json("search", "--incomplete")
    [found] = said["studies"]
    assert (found["study_uid"], found["flags"], said["notes"]) == ("1.9.4", ["gaps"], [])
    assert found["completeness"] == {
        "answer": "gaps",
        "gaps": [
            {
                "code": "concatenation",
                "series_uid": series,
                "text": "a concatenation has 2 of 3 parts",
                "missing": 1,
            }
        ],
        "signs": [],
        "evidence": [],
    }
    assert hospital.json("show", "1.9.4")["archive"]["completeness"] == found["completeness"]
    shown = hospital.ctl("show", "1.9.4").stdout
    assert "no, something is missing" in shown and f"series {series}: a concatenation has 2 of 3 parts" in shown
    assert "no sign of a gap" in hospital.ctl("show", "1.9.5").stdout
    shown = hospital.ctl("show", "1.9.1").stdout
    assert "not known" in shown and "an earlier version archived the study" in shown
    assert hospital.json("show", "1.9.1")["archive"]["completeness"]["answer"] == "not known"


def test_fetch_of_the_one_study_of_an_accession_number(hospital: Site, elsewhere: Path) -> None:
    assert hospital.ctl("fetch", "--accession", "ACC1", "--study-date", "..20260131").exit_code == 0
    assert set(fetched(Path("1.9.1"))) == {"1.9.1.1/1.9.1.1.1.dcm"}
    assert hospital.ctl("fetch", "--accession", "NONE").exit_code == 1
    said = hospital.json("fetch", "--patient", "B", "--study-date", "20260131", "-o", "out")
    assert said["matching"] == 1 and said["complete"] and said["studies"][0]["directory"] == "out"


def test_fetch_of_several_studies_asks(hospital: Site, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["--patient", "A"], ["--patient", "A", "--json"]):
        refused = hospital.ctl("fetch", *arguments)
        assert refused.exit_code == 2 and "2 studies match" in refused.stderr and "--all" in refused.stderr
        assert not list(elsewhere.iterdir())
    monkeypatch.setattr("dicomwatchd.cli.studies.fetch._may_be_asked", lambda: True)
    arguments = ["--config", str(hospital.config), "fetch", "--patient", "A", "-o", "out"]
    no = CliRunner().invoke(root, arguments, input="n\n")
    assert no.exit_code == 1 and "1.9.1" in no.stdout and "nothing was fetched" in no.stderr
    assert "Doe" not in no.output and not list(elsewhere.iterdir())
    yes = CliRunner().invoke(root, arguments, input="y\n")
    assert yes.exit_code == 0, yes.output
    assert set(fetched(Path("out"))) == {"1.9.1/1.9.1.1/1.9.1.1.1.dcm", "1.9.3/1.9.3.1/1.9.3.1.1.dcm"}


def test_fetch_of_all_that_match_goes_on_past_one_that_is_damaged(hospital: Site, elsewhere: Path) -> None:
    manifest = hospital.path_of("studies/1.9.3/manifests/00000001.json")
    manifest.chmod(0o600)
    manifest.write_bytes(b"damaged")
    said = hospital.json("fetch", "--patient", "A", "--all", code=1)
    assert said["matching"] == 2 and not said["complete"]
    assert [one["study_uid"] for one in said["studies"]] == ["1.9.1"]
    assert [one["study_uid"] for one in said["failed_studies"]] == ["1.9.3"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["1.9.1", "--patient", "A"],
        ["1.9.1", "--all"],
        ["--study-date", "20260101"],
        ["--issuer", "X"],
        ["--all"],
        [],
    ],
)
def test_fetch_is_told_one_way_which_study(hospital: Site, arguments: list[str], elsewhere: Path) -> None:
    assert hospital.ctl("fetch", *arguments).exit_code == 2
    assert not list(elsewhere.iterdir())


# --- layouts


def test_fetch_in_a_layout_that_people_can_read(site: Site, study: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    answer = site.json("fetch", STUDY, "-o", str(folder), "--layout", "readable")
    assert answer["complete"] and answer["layout"] == "readable"
    series = "Canary Name (CANARY-ID)/20260131-CT/CT"
    assert {name.rpartition("/")[0].rpartition("-")[0] for name in fetched(folder)} == {series}
    assert sorted(fetched(folder).values()) == sorted(content(n) for n in range(5))
    again = site.json("fetch", STUDY, "-o", str(folder), "--layout", "readable")
    assert (again["fetched"], again["already_there"]) == (0, 5)


def test_fetch_as_below_the_inbox(site: Site, tmp_path: Path) -> None:
    site.add([(SERIES, "1.2.1", content(1))])
    assert site.ctl("fetch", STUDY, "-o", str(tmp_path / "out"), "--layout", "original").exit_code == 0
    assert fetched(tmp_path / "out") == {"CANARY^PATH/IM1": content(1)}


def test_several_studies_in_a_layout_that_people_can_read_do_not_mix(site: Site, tmp_path: Path) -> None:
    other = Uid("1.2.840.99999.2")
    site.add([(SERIES, "1.2.1", content(1))])
    site.add([(SERIES, "1.2.1", content(2))], study=other)
    found = {}
    for layout in ("readable", "original"):
        folder = tmp_path / layout
        answer = site.json("fetch", "--patient", "CANARY-ID", "--all", "-o", str(folder), "--layout", layout)
        assert answer["complete"] and all(one["layout"] == layout for one in answer["studies"])
        found[layout] = fetched(folder)
    assert set(found["original"]) == {f"{STUDY}/CANARY^PATH/IM1", f"{other}/CANARY^PATH/IM1"}
    assert len({name.rpartition("/")[0] for name in found["readable"]}) == 2
    assert {name.split("/")[0] for name in found["readable"]} == {"Canary Name (CANARY-ID)"}


def test_without_a_layout_the_answer_is_as_it_was(site: Site, study: Manifest) -> None:
    assert "layout" not in site.json("fetch", STUDY, "-o", "out")
