"""`dicomwatchctl prove` and `doctor`, with the real programs."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dicomwatchd.archive.factory import open_store
from dicomwatchd.archive.identity import require_identity
from dicomwatchd.audit.proving import Prover
from dicomwatchd.audit.sealing import Sealing
from dicomwatchd.config import loading
from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import open_queue
from tests.pieces import Log
from tests.synthetic import Maker
from tests.system.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, inbox={"settle_seconds": 0, "quiet_seconds": 0})
    site.init()
    yield site
    site.close()


def test_prove_shows_each_deletion_with_its_evidence(site: Site) -> None:
    made = Maker(seed=21).mr_study(site.inbox / "DOE^JANE", series=1, slices=3)
    study = made[0].study_uid
    assert site.once() == 0
    said = site.ctl_json("prove", study)
    assert said["chain_holds"] is True and len(said["files"]) == 3
    assert {file["proof"]["sha256"] for file in said["files"]} == {m.sha256 for m in made}
    for file in said["files"]:
        assert file["outcome"] == "deleted"
        assert file["authorised_at"] <= file["ended_at"]
        proof = file["proof"]
        assert proof["verified_by"] == "read-back" and proof["manifest_revision"] == proof["catalogue_revision"] == 1
        assert (site.root / "archive" / proof["key"]).is_file()
        assert "DOE" not in str(file)
    assert "is intact" in site.ctl("prove", study).stdout


def test_prove_notices_a_record_that_was_changed(site: Site) -> None:
    made = Maker(seed=22).mr_study(site.inbox, series=1, slices=3)
    assert site.once() == 0
    with sqlite3.connect(site.state / "state.db") as state:
        state.execute("UPDATE audit SET entry = replace(entry, 'deleted', 'restored') WHERE sequence = 5")
    state.close()
    broken = site.ctl("prove", made[0].study_uid, check=False)
    assert broken.returncode == 1 and "BROKEN at entry 5" in broken.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [('"kind"', '"kin"'), ('"sha256":"', '"manifest_key":"'), ('"at":1', '"at":1e999'), ('"file":', '"files":')],
)
def test_prove_says_so_of_an_entry_that_cannot_be_understood(site: Site, old: str, new: str) -> None:
    made = Maker(seed=22).mr_study(site.inbox, series=1, slices=3)
    assert site.once() == 0
    with sqlite3.connect(site.state / "state.db") as state:
        state.execute("UPDATE audit SET entry = replace(entry, ?, ?) WHERE sequence = 1", (old, new))
    state.close()
    for options in ((), ("--json",)):
        broken = site.ctl("prove", made[0].study_uid, *options, check=False)
        assert broken.returncode == 1 and "Traceback" not in broken.stderr, broken.stderr
        assert "BROKEN at entry 1" in broken.stdout or '"broken_at": 1' in broken.stdout


@pytest.mark.parametrize("left", [0, 3, 5])
def test_prove_misses_entries_that_were_cut_off(site: Site, left: int) -> None:
    made = Maker(seed=22).mr_study(site.inbox, series=1, slices=3)
    study = made[0].study_uid
    assert site.once() == 0
    whole = site.ctl("prove", study).stdout
    assert "it holds entry 6, which was published" in whole and "another chain" not in whole
    with sqlite3.connect(site.state / "state.db") as state:
        state.execute("DELETE FROM audit WHERE sequence > ?", (left,))
    state.close()
    cut = site.ctl("prove", study, check=False)
    assert cut.returncode == 1 and "NOT COMPLETE: entries are missing at its end: entry 6" in cut.stdout
    assert site.ctl("doctor", check=False).returncode == 1
    site.start()
    site.wait_for(lambda: bool(site.events("audit-cut")), 60, "the warning at the start")
    assert site.ctl("prove", study, check=False).returncode == 1
    assert "bad\taudit chain" in site.ctl("doctor", check=False).stdout
    assert any("entries are missing" in problem for problem in site.ctl_json("status")["problems"])
    later = Maker(seed=24).mr_study(site.inbox, series=1, slices=12)
    site.wait_until_empty()  # archiving goes on
    assert site.stop() == 0
    for each in (study, later[0].study_uid):
        assert site.ctl("prove", each, check=False).returncode == 1, "and the record stays incomplete"


def test_a_lost_state_is_no_alarm_and_is_seen(site: Site) -> None:
    for seed in (22, 23):
        made = Maker(seed=seed).mr_study(site.inbox, series=1, slices=3)
        assert site.once() == 0
        said = site.ctl("prove", made[0].study_uid).stdout
        for name in site.state.glob("state.db*"):
            name.unlink()
    assert "Checkpoint: it holds entry 6" in said
    assert "another chain, of another daemon or of a lost state" in said
    assert site.events("audit-cut") == []


def seal(site: Site) -> str:
    """What the daemon does a day later; returns the chain's id."""
    loaded = loading.load(site.config_file)
    queue = open_queue(site.state, SystemClock(), lambda _: None)
    store = open_store(loaded.archive.store, connections=2)
    archive_id = queue.binding.archive_id() or ""
    prover = Prover(queue.audit, queue.segments, store, archive_id)
    head = queue.audit.head()
    sealing = Sealing(
        queue.audit,
        queue.segments,
        store,
        lambda: head.sequence,
        prover.archived,
        Log(),
        require_archive=partial(require_identity, store, archive_id),
        entries=2,
        seconds=0.0,
    )
    while sealing.step():
        pass
    assert queue.audit.hash_at(2) is not None and queue.audit.hash_at(1) is None
    store.close()
    queue.close()
    return head.chain_id


def test_prove_reads_what_is_sealed_in_the_archive(site: Site) -> None:
    made = Maker(seed=25).mr_study(site.inbox, series=1, slices=3)
    study = made[0].study_uid
    assert site.once() == 0
    before = site.ctl_json("prove", study)
    chain = seal(site)
    said = site.ctl_json("prove", study, "--whole")
    assert said["files"] == before["files"] and said["chain_holds"] and said["published"]["holds"]
    assert (said["archived"]["segments"], said["archived"]["outcome"]) == (3, "whole")
    assert "3 segments, of 6 entries, are in the archive" in site.ctl("prove", study).stdout
    assert "good\taudit chain" in site.ctl("doctor", check=False).stdout
    site.start()
    assert site.ctl_json("prove", study)["files"] == before["files"], "the running daemon reads them, too"
    assert site.stop() == 0
    for name in site.state.glob("state.db*"):
        name.unlink()
    assert site.once() == 0
    assert site.ctl("prove", study, check=False).returncode == 1, "the new chain knows nothing of it"
    old = site.ctl("prove", study, "--chain", chain)
    assert old.stdout.count("deleted at") == 3 and "its 6 entries are in the archive" in old.stdout
    assert site.ctl("prove", study, "--chain", "x", check=False).returncode != 0


def test_a_segment_that_is_missing_is_named(site: Site) -> None:
    made = Maker(seed=26).mr_study(site.inbox, series=1, slices=3)
    assert site.once() == 0
    seal(site)
    [second] = site.root.joinpath("archive").rglob(f"{3:012d}-*.jsonl.gz")
    second.unlink()
    said = site.ctl("prove", made[0].study_uid, check=False)
    assert said.returncode == 1 and "the segment of entries 3 to 4 is missing" in said.stdout
    assert "bad\taudit chain" in site.ctl("doctor", check=False).stdout
    site.start()
    site.wait_for(lambda: bool(site.events("audit-segments")), 90, "the alarm at the start")
    assert any("3 to 4 is missing" in problem for problem in site.ctl_json("status")["problems"])
    assert site.stop() == 0


def test_the_journal_holds_the_head_of_each_shipment(site: Site) -> None:
    Maker(seed=22).mr_study(site.inbox, series=1, slices=3)
    assert site.once() == 0
    [entry] = site.events("study-archived")
    with sqlite3.connect(site.state / "state.db") as state:
        assert state.execute("SELECT hash FROM audit WHERE sequence = 6").fetchone()[0] == entry["audit_sha256"]
        assert state.execute("SELECT value FROM meta WHERE key = 'audit_chain'").fetchone()[0] == entry["audit_chain"]
    state.close()
    assert entry["audit_sequence"] == 6


def test_prove_when_the_archive_gives_no_answer_is_3(site: Site) -> None:
    made = Maker(seed=22).mr_study(site.inbox, series=1, slices=3)
    assert site.once() == 0
    (site.root / "archive").rename(site.root / "unmounted")
    said = site.ctl("prove", made[0].study_uid, check=False)
    assert said.returncode == 3 and "is unknown" in said.stdout and "is intact" in said.stdout


def test_prove_of_a_study_that_nothing_was_deleted_of_is_a_no(site: Site) -> None:
    assert site.once() == 0
    assert site.ctl("prove", "1.2.3", check=False).returncode == 1


def test_the_doctor_finds_a_sound_site_sound_and_leaves_nothing_behind(site: Site) -> None:
    cold = site.ctl_json("doctor")["findings"]
    site.start()
    warm = site.ctl_json("doctor")["findings"]
    for findings in (cold, warm):
        assert {f["outcome"] for f in findings if f["subject"].startswith(("store", "catalogue", "inbox"))} == {"good"}
        assert any("read leases" in f["subject"] for f in findings)
    assert list(site.inbox.iterdir()) == []
    assert site.stop() == 0


def test_the_doctor_finds_what_is_wrong(site: Site) -> None:
    site.config["disk_free_warn"] = "100%"
    site.write_config()
    (site.root / "archive" / "archive.json").unlink()
    site.inbox.rmdir()
    sick = site.ctl("doctor", check=False)
    assert sick.returncode == 1
    for subject in ("store", "catalogue", "inbox inbox1", "disk of state"):
        assert any(line.startswith("bad") and subject in line for line in sick.stdout.splitlines()), subject


def test_a_disk_that_fills_is_announced(site: Site) -> None:
    site.config["disk_free_warn"] = "100%"
    site.write_config()
    site.start()
    site.wait_for(lambda: bool(site.events("disk-low")), 60, "the announcement")
    assert any("almost full" in problem for problem in site.ctl_json("status")["problems"])


def test_a_changed_destination_makes_every_old_word_worthless(site: Site) -> None:
    """The same archive by name, at another place that does not hold the objects: what is due for deletion is sent
    there first."""
    site.config["inboxes"][0]["after_archive"] = {"delete_after": "4s"}
    site.write_config()
    made = Maker(seed=23).mr_study(site.inbox, series=1, slices=3)
    site.start()
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived")
    assert site.stop() == 0
    assert len(site.left()) == 3
    moved = site.root / "moved"
    moved.mkdir()
    shutil.copy(site.root / "archive" / "archive.json", moved)
    for name in site.root.joinpath("archive").glob(".*"):
        if name.is_file():
            shutil.copy(name, moved)
    site.config["archive"]["store"]["path"] = str(moved)
    site.write_config()
    site.start()
    site.wait_until_empty(30)
    assert site.stop() == 0
    assert site.events("archive-moved")
    held = {hashlib.sha256(path.read_bytes()).hexdigest() for path in moved.rglob("*.dcm")}
    assert held == {m.sha256 for m in made}, "deleted here only once the new place held it"
