"""`archive verify` on the embedded archive: what is printed, and with which exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity.progress import RunRecord, Totals
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.cli.studies import verify_archive
from dicomwatchd.errors import CredentialsRefused
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock, timestamp
from tests.unit.memory_archive import SERIES, content
from tests.unit.test_cli_archive import Site, bare, site

__all__ = ["bare", "site"]

PACE = ("--pace", "100000")


@pytest.fixture
def filled(site: Site) -> Site:
    for number in range(3):
        study = Uid(f"1.2.{number}")
        site.add([(SERIES, f"{study}.{n}", content(100 * number + n)) for n in range(2)], study=study)
    return site


def test_it_says_what_is_proven_and_by_what(filled: Site) -> None:
    result = filled.ctl("archive", "verify", *PACE)
    assert result.exit_code == 0, result.output
    assert "3 of 3 studies proven (3 by presence and size), 0 not covered, 0 not proven, 0 with" in result.stdout
    result = filled.ctl("archive", "verify", "--hash", *PACE)
    assert "3 of 3 studies proven (3 by reading and hashing every file)" in result.stdout


def test_it_says_what_is_missing(filled: Site) -> None:
    key = next((filled.archive / "studies" / "1.2.1").rglob("*.dcm"))
    key.unlink()
    found = filled.json("archive", "verify", *PACE, code=1)
    assert not found["holds"] and found["run"]["studies"]["with_problems"] == 1
    assert found["findings"] == [
        {
            "study_uid": "1.2.1",
            "kind": "missing",
            "key": str(key.relative_to(filled.archive)),
            "reason": "the object is missing",
        }
    ]
    assert "the object is missing" in filled.ctl("archive", "verify", *PACE).stdout


def test_a_flipped_bit_takes_hashing(filled: Site) -> None:
    path = next((filled.archive / "studies" / "1.2.1").rglob("*.dcm"))
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert filled.json("archive", "verify", *PACE)["holds"]
    assert filled.json("archive", "verify", "--hash", *PACE, code=1)["findings"][0]["kind"] == "content"


def test_status(filled: Site) -> None:
    assert "has not been verified" in filled.ctl("archive", "verify", "--status").stdout
    assert filled.json("archive", "verify", "--status", code=1)["state"] == "none"
    done = filled.json("archive", "verify", *PACE)
    said = filled.json("archive", "verify", "--status")
    assert (said["state"], said["run"], said["last_complete"]) == ("finished", done["run"], done["run"])
    assert "3 of 3 studies proven" in filled.ctl("archive", "verify", "--status").stdout


def test_both_verifications_give_the_same_grace(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what no manifest lists yet: it is one figure."""
    sent = filled.archive / keys.instance(Uid("1.2.1"), SERIES, Uid("1.2.1.9"), "9" * 64)
    sent.parent.mkdir(parents=True)
    sent.write_bytes(b"x")
    where = ("--directory", str(filled.archive), "--catalogue-file", str(filled.catalogue_file))
    for grace, told in ((86400.0, 0), (-60.0, 1)):
        monkeypatch.setattr("dicomwatchd.archive.proof.verification.ON_ITS_WAY_SECONDS", grace)
        assert len(filled.json("verify", "1.2.1", *where, code=told)["stray"]) == told
        unlisted = filled.json("archive", "verify", *PACE)["run"]["not_in_any_manifest"]
        assert (unlisted["objects"], unlisted["on_their_way"]) == (told, 1 - told)


def put_on_record(filled: Site, study: str) -> None:
    """As an erasure that was interrupted right after its first step."""
    store = filled.store()
    identity = read_identity(store)
    assert identity is not None
    erased_at = timestamp(SystemClock().now() + 60)
    erasure = Erasure(identity.archive_id, Uid(study), 1, erased_at, "request 17/2026", 0, "root", 101)
    assert erasures.create(store, erasure)


def test_an_erasure_that_was_interrupted(filled: Site) -> None:
    put_on_record(filled, "1.2.1")
    found = filled.json("archive", "verify", *PACE, code=1)
    assert not found["holds"] and found["run"]["left_erased"] == 1
    assert found["run"]["studies"] == {"total": 3, "proven": 2, "not_covered": 0, "unproven": 0, "with_problems": 1}
    assert {(one["study_uid"], one["kind"]) for one in found["findings"]} == {("1.2.1", "left-erased")}
    assert len(found["findings"]) == 4 and found["run"]["findings"] == {"left-erased": 4}
    for said in (filled.ctl("archive", "verify", *PACE, "--hash"), filled.ctl("archive", "verify", "--status")):
        assert said.exit_code == 1
        assert "Of 1 study that was erased something is still there." in said.stdout
        assert "dicomwatchctl archive erase STUDY" in said.stdout and "request 17" not in said.output
    assert filled.json("archive", "verify", "--status", code=1)["run"]["left_erased"] == 1


def test_who_may_not_list_erasures_is_told(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_store: Any) -> Any:
        raise CredentialsRefused("no")

    monkeypatch.setattr("dicomwatchd.archive.layout.erasures.numbers", refused)
    found = filled.json("archive", "verify", *PACE)
    assert found["holds"] and "may not list what was erased" in json.dumps(found["notes"])


def test_ctrl_c(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_shown: Any, totals: Totals) -> None:
        if totals.studies == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(verify_archive, "_show", stop)
        patched.setattr("dicomwatchd.archive.fixity.progress._COMMIT_SECONDS", 0.0)
        result = filled.ctl("archive", "verify", *PACE)
    assert result.exit_code == 130 and "goes on where it was" in result.stderr
    said = filled.json("archive", "verify", "--status", code=1)
    assert (said["state"], said["run"]["studies"]["total"]) == ("interrupted", 2)
    found = filled.json("archive", "verify", *PACE)
    assert (found["run"]["studies"]["proven"], found["run"]["resumed"]) == (3, 1)


def test_without_a_configuration(filled: Site, tmp_path: Path) -> None:
    where = ("--directory", str(filled.archive), "--catalogue-file", str(filled.catalogue_file))
    result = filled.ctl("archive", "verify", *PACE, *where)
    assert result.exit_code == 0 and "no progress is kept" in result.stderr
    kept = tmp_path / "kept"
    kept.mkdir()
    found = filled.json("archive", "verify", *PACE, *where, "--state-directory", str(kept))
    assert found["notes"] == [] and len(list(kept.iterdir())) == 2
    assert filled.ctl("archive", "verify", "--status", *where).exit_code == 2
    found = filled.json("archive", "verify", *PACE, *where[:2], "--no-catalogue")
    assert "without a catalogue" in json.dumps(found["notes"])


def test_a_catalogue_of_another_archive(filled: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    other.config.write_text(filled.config.read_text().replace(str(tmp_path), str(other.folder)))
    other.state.mkdir()
    assert other.ctl("archive", "init").exit_code == 0
    where = ("--directory", str(filled.archive), "--catalogue-file", str(other.catalogue_file))
    result = filled.ctl("archive", "verify", *where)
    assert result.exit_code == 3 and "another archive" in result.stderr


def test_hashing_is_not_downloading(filled: Site) -> None:
    result = filled.ctl("archive", "verify", "--hash", "--bucket", "my-bucket", "--region", "us-east-1")
    assert result.exit_code == 2 and "download" in result.stderr


@pytest.mark.parametrize("option", ["--inventory", "--checksums"])
def test_a_folder_has_no_reports(filled: Site, option: str) -> None:
    result = filled.ctl("archive", "verify", option, "manifest.json")
    assert result.exit_code == 2 and "--hash reads the files here" in result.stderr


def test_an_inventory_that_covers_nothing_proves_nothing() -> None:
    run = RunRecord("a", "d", "inventory", "i", False, "t", "t", finished_at="t")
    assert verify_archive._holds(run), "an empty archive"
    assert not verify_archive._holds(replace(run, totals=Totals(studies=2, not_covered=2)))
    assert verify_archive._holds(replace(run, totals=Totals(studies=2, not_covered=1, proven=1)))
    assert not verify_archive._holds(replace(run, finished_at=None))


def test_no_name_of_a_patient_is_kept(filled: Site) -> None:
    next((filled.archive / "studies" / "1.2.1").rglob("*.dcm")).unlink()
    said = filled.ctl("archive", "verify", *PACE)
    kept = b"".join(path.read_bytes() for path in filled.state.iterdir())
    for text in (said.output.encode(), kept):
        assert b"CANARY" not in text and b"Canary" not in text
