"""What the programs promise at their edges: exit statuses, uploads of folders, answers with and without the daemon."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomwatchd import doctor
from dicomwatchd.config import loading
from tests.synthetic import Made, Maker
from tests.system.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, inbox={"settle_seconds": 0, "quiet_seconds": 0})
    yield site
    site.close()


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- exit statuses of the daemon ------------------------------------------------------------------------------------


def test_once_with_nothing_to_do_is_done(site: Site) -> None:
    site.init()
    assert site.once() == 0


def test_once_says_1_for_junk_and_leaves_it(site: Site) -> None:
    site.init()
    maker = Maker(seed=1)
    junk = maker.junk(site.inbox / "junk")
    maker.mr_study(site.inbox / "MR", series=1, slices=3)
    assert site.once() == 1
    assert {path.name for path in site.left()} == {made.path.name for made in junk}
    files = site.ctl_json("quarantine")["files"]
    assert len(files) == len(junk) and all(file["reason"] for file in files)


def test_a_dicomdir_is_no_fault(site: Site) -> None:
    site.init()
    maker = Maker(seed=2)
    made = maker.mr_study(site.root / "staging", series=1, slices=3)
    maker.media(site.inbox, made)
    assert site.once() == 0
    assert [path.name for path in site.left()] == ["DICOMDIR"]


def test_bad_configuration_is_2_with_every_problem_and_starts_nothing(site: Site) -> None:
    site.config["inboxes"][0]["quiet_seconds"] = -1
    site.config["inboxes"][0]["paht"] = "x"
    site.config["archive"]["catalogue"]["kind"] = "oracle"
    site.config["inboxes"].append({"name": "gone", "path": str(site.root / "gone")})
    site.write_config()
    assert site.once() == 2
    said = site.log_tail()
    assert "inboxes[0].quiet_seconds: must be >= 0" in said
    assert "inboxes[0].paht: is not a known key" in said
    assert "inboxes[1].path: is not a folder" in said
    assert "archive.catalogue" in said
    assert not (site.state / "state.db").exists()


def test_missing_inbox_is_2(site: Site) -> None:
    site.init()
    site.inbox.rmdir()
    assert site.once() == 2
    assert "inboxes[0].path: is not a folder" in site.log_tail()


def test_an_archive_that_is_not_initialised_is_3_and_names_the_command(site: Site) -> None:
    made = Maker(seed=3).mr_study(site.inbox, series=1, slices=2)
    assert site.once() == 3
    [refused] = site.events("refused")
    assert "dicomwatchctl archive init" in refused["hint"]
    assert len(site.left()) == len(made)


def test_an_unmounted_archive_folder_does_not_pass_for_an_empty_one(site: Site) -> None:
    site.init()
    assert site.once() == 0
    Maker(seed=4).mr_study(site.inbox, series=1, slices=2)
    shutil.move(site.root / "archive", site.root / "elsewhere")
    (site.root / "archive").mkdir()
    assert site.once() == 3
    assert len(site.left()) == 2
    assert site.ctl("archive", "init", check=False).returncode == 3, "the state knows another archive"


def test_another_archive_is_refused_until_that_is_said_to_be_meant(site: Site) -> None:
    site.init()
    Maker(seed=5).mr_study(site.inbox, series=1, slices=2)
    assert site.once() == 0
    shutil.move(site.root / "archive", site.root / "elsewhere")
    (site.root / "archive").mkdir()
    site.ctl("archive", "init", "--new-archive")
    made = Maker(seed=6).mr_study(site.inbox, series=1, slices=2)
    assert site.once() == 0
    assert site.ctl("verify", made[0].study_uid, "--deep").returncode == 0


def test_giving_up_without_progress_is_1(site: Site) -> None:
    site.config["inboxes"][0]["quiet_seconds"] = 3600
    site.write_config()
    site.init()
    Maker(seed=7).mr_study(site.inbox, series=1, slices=2)
    began = time.monotonic()
    assert site.once("--give-up-after", "2") == 1
    assert time.monotonic() - began < 60
    assert len(site.left()) == 2


def test_an_unreachable_store_is_3(site: Site) -> None:
    site.config["archive"]["store"] = {
        "kind": "s3",
        "bucket": "nowhere",
        "endpoint_url": "https://127.0.0.1:1",
        "region": "us-east-1",
    }
    site.write_config()
    site.environment |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    assert site.once() == 3


def test_a_second_daemon_on_the_same_state_is_refused(site: Site) -> None:
    site.init()
    site.start()
    assert site.once() == 4
    assert site.stop() == 0


# -- after_archive ----------------------------------------------------------------------------------------------------


def test_kept_files_stay_and_are_not_shipped_again(site: Site) -> None:
    site.config["inboxes"][0]["after_archive"] = "keep"
    site.write_config()
    site.init()
    Maker(seed=8).mr_study(site.inbox, series=1, slices=4)
    before = tree(site.inbox)
    assert site.once() == 0
    assert site.once() == 0
    assert tree(site.inbox) == before
    assert len(site.events("study-archived")) == 1


def test_kept_files_go_to_another_archive_too(site: Site) -> None:
    site.config["inboxes"][0]["after_archive"] = "keep"
    site.write_config()
    site.init()
    made = Maker(seed=6).mr_study(site.inbox / "MR", series=1, slices=3)
    assert site.once() == 0
    new = site.root / "new-archive"
    new.mkdir()
    site.config["archive"] = {
        "store": {"kind": "directory", "path": str(new)},
        "catalogue": {"kind": "sqlite", "path": str(new / "catalogue.db")},
    }
    site.write_config()
    site.ctl("archive", "init", "--new-archive")
    before = tree(site.inbox)
    assert site.once() == 0
    assert [entry["files"] for entry in site.events("kept-sent-again")] == [3]
    assert {made_.sha256 for made_ in made} <= set(tree(new).values())
    assert tree(site.inbox) == before
    assert site.ctl("verify", made[0].study_uid, "--deep").returncode == 0
    assert site.once() == 0
    assert len(site.events("kept-sent-again")) == 1


def test_files_kept_for_want_of_a_lease_are_told_of_and_go_once_there_is_one(site: Site) -> None:
    """Here the daemon owns the files: what it could not do before is put into its state."""
    site.config["inboxes"][0] |= {"after_archive": "keep", "without_lease": "keep"}
    site.write_config()
    site.init()
    study = Maker(seed=6).mr_study(site.inbox / "MR", series=1, slices=3)[0].study_uid
    assert site.once() == 0
    with sqlite3.connect(site.state / "state.db") as state:
        state.execute("UPDATE files SET code = 'no-lease', reason = 'because'")
    state.close()
    assert "3: because" in site.ctl("show", study).stdout
    site.start()
    assert "inbox1: 3 archived files kept, because no read lease" in site.ctl("status").stdout
    assert site.stop() == 0
    site.config["inboxes"][0]["after_archive"] = "delete"
    site.write_config()
    site.start()
    site.wait_until_empty(30)
    proven = site.ctl_json("prove", study)["files"]
    assert [file["outcome"] for file in proven] == ["deleted"] * 3
    assert site.ctl("retry", study, check=False).returncode == 1


def test_the_doctor_says_what_follows_without_a_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none(_fd: int) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(doctor, "read_lease", none)
    for rule, said in (("delete", "comparing its content"), ("keep", "an archived file stays here")):
        site.config["inboxes"][0]["without_lease"] = rule
        site.write_config()
        inbox = loading.load(site.config_file).inboxes[0]
        findings = [f for f in doctor._inbox(inbox) if f.subject.endswith("read leases")]
        assert [(f.outcome, said in f.detail) for f in findings] == [("note", True)]


def test_kept_files_of_an_inbox_that_is_none_any_more_are_told_of(site: Site) -> None:
    other = site.root / "other"
    other.mkdir()
    site.config["inboxes"][0]["after_archive"] = "keep"
    site.config["inboxes"].append({**site.config["inboxes"][0], "name": "other", "path": str(other)})
    site.write_config()
    site.init()
    Maker(seed=7).mr_study(other, series=1, slices=3)
    assert site.once() == 0
    boxes = site.config["inboxes"]
    site.config["inboxes"] = boxes[:1]
    (site.root / "archive").rename(site.root / "moved")
    site.config["archive"]["store"]["path"] = str(site.root / "moved")
    site.config["archive"]["catalogue"]["path"] = str(site.root / "moved" / "catalogue.db")
    site.write_config()
    site.start()
    [problem] = site.ctl_json("status")["problems"]
    assert problem.startswith("3 kept files of other")
    site.stop()
    site.config["inboxes"] = boxes
    site.write_config()
    assert site.once() == 0
    site.start()
    assert site.ctl_json("status")["problems"] == []
    site.stop()
    assert len(list(other.iterdir())) == 3


def test_files_kept_for_a_while_are_deleted_when_their_time_has_come(site: Site) -> None:
    site.config["inboxes"][0]["after_archive"] = {"delete_after": "3s"}
    site.write_config()
    site.init()
    made = Maker(seed=9).mr_study(site.inbox, series=1, slices=4)
    site.start()
    site.wait_for(lambda: bool(site.events("study-archived")), 60, "the study to be archived")
    assert len(site.left()) == 4
    site.wait_until_empty(20)
    assert site.ctl("verify", made[0].study_uid).returncode == 0


# -- upload -----------------------------------------------------------------------------------------------------------


def test_an_uploaded_folder_is_left_as_it_is(site: Site) -> None:
    site.init()
    medium, maker = site.root / "cdrom", Maker(seed=10)
    made = maker.mr_study(site.root / "staging", series=2, slices=3)
    maker.media(medium, made)
    before = tree(medium)
    for path in (medium, *medium.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    site.start()
    said = site.ctl("upload", str(medium))
    assert said.returncode == 0
    assert "6" in said.stdout and "verified" in said.stdout
    assert tree(medium) == before
    site.ctl("fetch", made[0].study_uid, "-o", str(site.root / "out"))
    assert sorted(tree(site.root / "out").values()) == sorted(m.sha256 for m in made)
    assert site.stop() == 0


def test_an_upload_with_junk_says_so_and_is_not_a_success(site: Site) -> None:
    site.init()
    folder, maker = site.root / "stick", Maker(seed=11)
    maker.mr_study(folder / "MR", series=1, slices=3)
    junk: list[Made] = maker.junk(folder / "junk")
    site.start()
    said = site.ctl("upload", str(folder), "--delete", check=False)
    assert said.returncode == 1
    for made in junk:
        is_failure = made.path.suffix == ".dcm"  # the others may be anybody's, and are left alone
        assert (made.path.name in said.stdout + said.stderr) == is_failure
    assert "2 other files are not DICOM" in said.stdout
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {made.path.name for made in junk}


def test_an_upload_survives_a_restart_of_the_daemon(site: Site) -> None:
    site.init()
    folder = site.root / "export"
    made = Maker(seed=12).ct_series(folder, slices=40)
    site.start()
    handed_over = site.ctl("upload", str(folder), "--delete", "--no-wait", check=False)
    assert handed_over.returncode == 1, "not all of them are verified yet"
    site.stop()
    site.start()
    # A staging folder may be gone before it is listed, which is no error to os.walk().
    site.wait_for(lambda: not any(names for _, _, names in os.walk(folder)), 90, "the upload to be finished")
    site.ctl("fetch", made[0].study_uid, "-o", str(site.root / "out"))
    assert sorted(tree(site.root / "out").values()) == sorted(m.sha256 for m in made)


@pytest.mark.parametrize("where", ["inbox1", "archive", "state", "."])
def test_an_upload_must_not_overlap_what_is_the_daemons(site: Site, where: str) -> None:
    site.init()
    site.start()
    said = site.ctl("upload", str(site.root / where), check=False)
    assert said.returncode not in (0, 4)
    assert "overlaps" in said.stderr


# -- reading -----------------------------------------------------------------------------------------------------------


def test_reports_with_and_without_the_daemon(site: Site) -> None:
    site.init()
    made = Maker(seed=13).mr_study(site.inbox, series=1, slices=4)
    assert site.once() == 0
    assert site.ctl("status", check=False).returncode == 4
    cold = [site.ctl_json("stats"), site.ctl_json("queue"), site.ctl_json("quarantine")]
    site.start()
    warm = [site.ctl_json("stats"), site.ctl_json("queue"), site.ctl_json("quarantine")]
    assert cold == warm
    [day] = warm[0]["days"]
    assert (day["inbox"], day["studies"], day["files"]) == ("inbox1", 1, 4)
    assert day["bytes"] == sum(m.size_bytes for m in made) and set(day["seconds"]) == {
        "upload",
        "verify",
        "record",
        "purge",
    }
    status = site.ctl_json("status")
    assert status["studies"] == {"archived": 1} and status["inboxes"][0]["state"] == "open"


def test_sighup_takes_a_good_configuration_and_keeps_the_old_one_over_a_bad_one(site: Site) -> None:
    site.init()
    site.start()
    assert site.daemon is not None
    second = site.root / "inbox2"
    second.mkdir()
    site.config["inboxes"].append({**site.config["inboxes"][0], "name": "inbox2", "path": str(second)})
    site.write_config()
    since = site.ctl_json("status")["started_at"]
    os.kill(site.daemon.pid, 1)
    site.wait_for(lambda: bool(site.events("reloaded")), 60, "the reload")
    assert site.ctl_json("status")["started_at"] == since
    site.inboxes.append(second)
    Maker(seed=14).mr_study(second, series=1, slices=2)
    site.wait_until_empty(20)
    site.config_file.write_text("workers: 0\n")
    os.kill(site.daemon.pid, 1)
    site.wait_for(lambda: bool(site.events("reload-refused")), 60, "the refusal")
    Maker(seed=15).mr_study(second, series=1, slices=2)
    site.wait_until_empty(20)
    assert site.stop() == 0
