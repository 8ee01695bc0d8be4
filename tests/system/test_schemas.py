"""Every command that has --json, run on a real daemon, in good days and bad: each answer is as docs/schema has it,
and each key that is described there is printed. `Site.ctl` checks the answers of all system tests in the same way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
import yaml

from dicomwatchd.access.record import FILE_NAME, AccessRecord
from dicomwatchd.model import Uid
from tests import amazon_reports, schemas
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Maker, Patient
from tests.system.site import Site
from tests.system.test_damaged_manifest import Shelf
from tests.system.test_journey_s3 import archive_of

#: Keys that only an archive on S3, with versions, gives a value to.
_ON_S3 = {
    "status": {
        f"capabilities.{key}"
        for key in (
            *("ETag is the MD5", "ETag of parts is composed of MD5s", "HEAD gives the SHA-256", "encryption"),
            *("HEAD gives the SHA-256 of parts", "ETag follows the content", "answers with the SHA-256"),
            *("body altered after signing", "part altered after signing", "ETag of parts follows them"),
            *("first content kept", "listed after write", "read after write"),
            *("second conditional multipart", "second conditional put", "wrong Content-MD5"),
            *("wrong Content-MD5 of a part", "wrong ETag of a part", "wrong SHA-256 checksum"),
        )
    },
    "fetch": {f"bad_objects.{key}" for key in ("sop_instance_uid", "series_uid", "reason", "code")},
    "prove": {"files.proof.version_id"},
    "doctor": {"findings.fix"},
    "archive-verify": {
        f"{run}.{key}"
        for run in ("run", "last_complete")
        for key in (
            "as_of",
            *("reports.inventory_objects", "reports.other_versions", "reports.delete_markers"),
            *("reports.checksums", "reports.failed_tasks", "reports.other_checksums"),
        )
    },
}
_SITES = "several sites: tests/system/test_sites.py"
_DICOMDIR = "tests/system/test_dicomdir.py"
_SENT = (
    "to",
    "attempts",
    *(f"results.{key}" for key in ("sop_instance_uid", "series_uid", "status", "code", "reason", "earlier")),
)
_ERASING = "tests/system/test_erasing.py"
_ERASURE = ("number", "erased_at", "because", "erased_by", "erased_by.uid", "erased_by.login")


def _named(of: str, *keys: str) -> tuple[str, ...]:
    return (of, *(f"{of}.{key}" for key in keys))


#: Keys that no run here gives a value to, and why.
_NOT_HERE = {
    "status": {
        **{
            f"capabilities.{key}": "Amazon: tests/conformance/test_amazon_store.py"
            for key in ("wrong SHA-256 checksum of a part", "S3 Bucket Key", "lists versions")
        },
        **{
            f"capabilities.{key}": "Amazon: tests/conformance/test_amazon_cold.py"
            for key in ("storage class of instances", "tag of instances")
        },
        "inboxes.not_responding_seconds": "an inbox that hangs: tests/fuse/test_hung.py",
        **dict.fromkeys(
            _named(
                "sites.others",
                *("name", "host", "seen_seconds", "silent", "backlog_files", "oldest_unarchived_seconds", "problems"),
            )[1:],
            _SITES,
        ),
        **dict.fromkeys(
            _named("alarms", "alarm", "inbox", "subject", "sentence", "begun_at", "read_on"),
            "tests/system/test_alarms.py",
        ),
        **{f"studies.{state}": "over too soon" for state in ("uploading", "verifying", "recording", "purging")},
        **{f"files.{state}": "over too soon" for state in ("stored", "deleting")},
    },
    "sites": {"sites.clock_ahead_seconds": "tests/unit/test_cli_sites.py", "sites.twin_host": _SITES},
    "queue": dict.fromkeys(_named("studies.waits_for_listed", "missing", "until"), _DICOMDIR),
    "top": {f"studies.{key}": "over too soon: tests/system/test_top.py" for key in ("verified", "bytes")},
    "verify": dict.fromkeys(_named("dicomdir_problems", "key", "problem", "reason")[1:], _DICOMDIR),
    "show": {
        **dict.fromkeys(
            _named("local.listed", "dicomdirs", "images", "missing", "missing_uids", "waits_until"), _DICOMDIR
        ),
        "archive.storage.storage_class": "tests/unit/test_fetch_cold.py",
        **{f"local.files.{state}": "over too soon" for state in ("stored", "deleting")},
        **{f"local.files.{state}": "no file of a study" for state in ("quarantined", "ignored")},
        **{f"local.unreadable.{key}": "a damaged disk: tests/fuse/test_entries.py" for key in ("name", "reason")},
    },
    "search": {"studies.storage.storage_class": "tests/unit/test_fetch_cold.py"},
    "attention": {
        **{f"parked.{key}": "tests/unit/test_holds.py" for key in ("study_uid", "code", "reason")},
        **dict.fromkeys(_named("held.erasure", "number", "erased_at", "because"), _ERASING),
    },
    "fetch": {
        **dict.fromkeys(_named("dicomdirs", "name", "sha256", "reason"), _DICOMDIR),
        **dict.fromkeys(_named("studies.dicomdirs", "name", "sha256", "reason"), _DICOMDIR),
        **dict.fromkeys(
            (*_named("sent", *_SENT), "sent.results", *_named("studies.sent", *_SENT), "studies.sent.results"),
            "a DICOM peer: tests/unit/test_send.py",
        ),
        **dict.fromkeys(
            _named("studies.dicomdir", "listed", "invented_values", "without_file_meta", "reason"), "as of one study"
        ),
        **dict.fromkeys(_named("studies.zip", "file", "bytes"), "one file of all studies"),
        **dict.fromkeys(_named("studies.iso", "file", "bytes"), "one file of all studies"),
        **dict.fromkeys(("stopped", "studies.stopped"), "a disk that fills up, or a store that goes away meanwhile"),
        **{f"studies.{key}": "as of one study, on S3" for key in _ON_S3["fetch"]},
    },
    "prove": {
        "files.why": "a file that changes while it is deleted",
        **dict.fromkeys(_named("erasures", *_ERASURE, "sequence", "noted_at"), _ERASING),
    },
    "archive-erase": dict.fromkeys(
        ("same_medium", *_named("refusals", "key", "version_id", "code")), "tests/unit/test_erasing_s3.py"
    ),
    **{
        name: {"expires": "a rule of S3", "disc_image": "the image of a disc: tests/unit/test_disc_image.py"}
        for name in ("upload", "upload-show", "upload-cancel")
    },
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, inboxes=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # in a receiver's place
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
        inbox = site.config["inboxes"][0]["name"]
        site.config["receivers"] = [{"name": "ct", "ae_title": "ARCHIVE", "inbox": inbox, "listen": listen}]
        site.config["sites"] = {"heartbeat": "1s", "silent_after": "5m"}
        site.config["bandwidth"] = {"default": "500MB/s", "00:00-12:00": "400MB/s"}
        site.write_config()
        yield site
    site.close()


def answers(site: Site, *command: str, code: int = 0) -> None:
    """Run it; the site checks what it prints."""
    result = site.ctl(*command, "--json", check=False)
    # One text, of which pytest shows all.
    assert result.returncode == code, f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}"


def test_every_command_answers_as_its_schema_says_and_no_key_is_never_printed(site: Site) -> None:
    schemas.checked.clear()
    _before_the_archive_is_there(site)
    study = _archive_one(site)
    _read_the_archive(site, study)
    _hand_folders_in(site)
    _exchange_an_inbox(site)
    _take_the_archive_away(site)
    _damage_the_archive(site, study)
    _change_the_record(site, study)
    _erase_one(site, study)
    _set_another_up(site)
    _look_at_the_page(site)
    assert set(schemas.checked) == schemas.with_json(), "commands whose answer was never checked"
    for name, seen in schemas.checked.items():
        elsewhere = {*_NOT_HERE.get(name, {}), *_ON_S3.get(name, ())}
        assert elsewhere <= schemas.keys(name), f"{name}: keys that there are not"
        assert schemas.keys(name) - seen <= elsewhere, f"{name}: keys that were never printed with a value"


def _before_the_archive_is_there(site: Site) -> None:
    """A command that fails prints no answer, which the site checks too."""
    right = site.config_file.read_text()
    site.config_file.write_text(right + "surprise: 1\n")
    answers(site, "config", "check", code=2)
    answers(site, "search", code=2)
    site.config_file.write_text(right)
    answers(site, "config", "check")
    for command, code in (
        (("status",), 4),
        (("queue",), 4),
        (("doctor",), 1),
        (("search",), 3),
        (("fetch", "1.2.3"), 3),
        (("show", "1.2.3"), 3),
        (("show", "1.2.x"), 2),
    ):
        answers(site, *command, code=code)
    answers(site, "archive", "init")
    answers(site, "archive", "init")


def _archive_one(site: Site) -> str:
    """In the bundled layout, so that objects of both kinds are there: the second revision is of one file alone."""
    site.config["archive"]["layout"] = {"kind": "bundled"}
    site.config["inboxes"][1] |= {"quiet_seconds": 3600}
    site.write_config()
    maker = Maker(seed=41)
    (site.inbox / "readme").write_text("no DICOM")
    made = maker.ct_series(site.inbox / "ct", slices=5, rows=16, columns=16, series=1, study=0)
    maker.media(site.inbox / "cd", maker.ct_series(site.inbox / "cd", slices=1, rows=16, columns=16))
    maker.ct_series(site.inboxes[1] / "slow", slices=2, rows=16, columns=16)
    site.start()
    site.wait_for(lambda: not any(one.path.exists() for one in made), 90, "the study to be archived")
    [late] = maker.ct_series(site.inbox / "ct", slices=1, first=6, rows=16, columns=16, series=1, study=0)
    # Before it is noticed the study is archived, too.
    site.wait_for(lambda: not late.path.exists(), 90, "its second revision")
    site.wait_for(lambda: site.ctl_json("status")["studies"].get("archived") == 2, 90, "the studies to be archived")
    for command in (("status",), ("queue",), ("quarantine",), ("inbox", "list"), ("doctor",)):
        answers(site, *command)
    for command in (("stats",), ("stats", "--plots"), ("top",)):
        answers(site, *command)
    site.wait_for(lambda: any(one["last_archived_at"] for one in site.ctl_json("sites")["sites"]), 60, "a heartbeat")
    _hold_and_release(site)
    _compare_and_release(site)
    _find_gaps(site)
    return made[0].study_uid


def _until_printed(site: Site, command: str, *keys: str) -> None:
    """With a value."""

    def are_printed() -> bool:
        answers(site, command)
        return set(keys) <= schemas.checked[command]

    site.wait_for(are_printed, 90, f"{command} to print {', '.join(keys)}")


def _at_once(site: Site, folder: Path) -> Path:
    """What was made elsewhere is in the inbox all at once: on a busy machine a study is archived between two files that
    are written one after the other."""
    return folder.rename(site.inbox / folder.name)


def _set_another_up(site: Site) -> None:
    other = Site(site.root / "another")
    config = yaml.safe_load(other.config_file.read_text())
    other.config_file.unlink()
    options = (
        *("setup", "--yes", "--no-service", "--state-directory", str(other.state)),
        *("--inbox", str(other.inbox), "--store", config["archive"]["store"]["path"]),
    )
    answers(other, *options, "--dry-run")
    answers(other, *options, "--quiet-seconds", "60", "--deadline", "1", code=1)
    answers(other, *options, "--quiet-seconds", "1", code=1)  # the configuration says 60
    other.config_file.write_text(other.config_file.read_text().replace("quiet_seconds: 60", "quiet_seconds: 1"))
    answers(other, *options)
    other.start()
    try:
        answers(other, "setup", "test-study")
        other.config_file.write_text(other.config_file.read_text().replace("quiet_seconds: 1", "quiet_seconds: 60"))
        other.reload()
        answers(other, "setup", "test-study", "--deadline", "1", code=1)
        assert other.stop() == 0
    finally:
        other.close()


def _look_at_the_page(site: Site) -> None:
    state = site.root / "web"
    state.mkdir(mode=0o700)
    site.config["web"] = {"tokens": True, "state": str(state)}
    site.write_config()
    site.ctl("web", "token", "desk", "--role", "read", "--role", "upload", "--expires", "30d")
    answers(site, "web", "tokens")
    with closing(AccessRecord(state, writing=True)) as record:
        for number in range(3):
            record.append(time.time(), "token:desk", "frames", Uid(f"1.2.{number}"))
    answers(site, "web", "audit")
    answers(site, "web", "audit", "--check", "--limit", "1")
    with closing(sqlite3.connect(state / FILE_NAME)) as db, db:
        db.execute("DELETE FROM access WHERE sequence = 2")
    answers(site, "web", "audit", "--check", code=1)


def _hold_and_release(site: Site) -> None:
    """A study that names two patients."""
    for number, patient in enumerate((Patient("DOE^JANE", "P1"), Patient("ROE^JOHN", "P2", "19510213", "M")), start=1):
        made = Maker(seed=47, patient=patient).ct_series(
            site.root / "two" / str(number), slices=1, study=0, series=number, rows=16, columns=16
        )
    study, here = made[0].study_uid, _at_once(site, site.root / "two")
    cut = Maker(seed=48).ct_series(site.root / "made", slices=1, rows=16, columns=16)[0].path
    (site.inbox / "cut").write_bytes(cut.read_bytes()[:-8])
    site.wait_for(
        lambda: all(site.ctl_json("attention", check=False)[kind] for kind in ("held", "damaged")),
        90,
        "a study to be held, and a damaged file to be kept",
    )
    answers(site, "attention", code=1)
    answers(site, "status")
    answers(site, "show", study)
    answers(site, "show", site.ctl_json("attention", check=False)["damaged"][0]["study_uid"])
    answers(site, "search")
    found = site.ctl_json("search", "--held", "--patient", "P2")
    assert [one["study_uid"] for one in found["studies"]] == [study] and found["notes"] == []
    assert "P2" in site.ctl("attention", check=False).stdout
    said = site.ctl("release", study, "--because", "registered twice").stdout
    assert "2 kept files will be verified again" in said
    assert site.ctl_json("search", "--held")["studies"] == []
    site.wait_for(lambda: not list(here.rglob("IM*")), 90, "its files to be deleted")
    answers(site, "prove", study)
    assert "registered twice" in site.ctl("prove", study).stdout
    assert not any(word in site.log_file.read_text() for word in ("P2", "ROE", "registered twice"))


def _compare_and_release(site: Site) -> None:
    """An image that comes again with other pixels, and one that comes again in another file."""
    first, second = Maker(seed=49).ct_series(site.root / "versions", slices=2, study=0, rows=16, columns=16)
    study = first.study_uid
    data, other = first.path.read_bytes(), second.path.read_bytes()
    files = {
        "1": data,
        "1 with other pixels": data[:-8] + bytes(8),
        "2": other,
        "2 with another preamble": b"II*\0" + other[4:],
    }
    (site.root / "compared").mkdir()
    for name, content in files.items():
        (site.root / "compared" / name).write_bytes(content)
    here = _at_once(site, site.root / "compared")
    site.wait_for(lambda: site.ctl_json("attention", check=False)["held"], 90, "a study to be held")
    site.wait_for(lambda: not (here / "2 with another preamble").exists(), 90, "the others to be deleted")
    answers(site, "attention", code=1)
    [held] = site.ctl_json("attention", check=False)["held"]
    assert (held["code"], held["files"], held["instances_total"]) == ("other-versions", 2, 1)
    said = site.ctl("attention", check=False).stdout
    assert first.sop_instance_uid in said and "other pixels" in said and second.sop_instance_uid not in said
    answers(site, "show", study)
    flags = site.ctl_json("show", study)["archive"]["flags"]
    assert flags == ["conflicting-instances", "sop-instance-uid-repeated"]
    site.ctl("release", study, "--because", "compared")
    site.wait_for(lambda: not (here / "1").exists(), 90, "its files to be deleted")
    site.ctl("fetch", study, "-o", str(site.root / "versions-fetched"))
    fetched = sorted(path.read_bytes() for path in (site.root / "versions-fetched").rglob("*.dcm"))
    assert fetched == sorted(files.values())


def _find_gaps(site: Site) -> None:
    """A study with a series that lacks a slice, one that lacks an instance number, and one that is whole."""
    maker, folder = Maker(seed=50), site.root / "gaps"
    made = [
        maker.ct_series(folder / str(number), slices=slices, study=0, series=number, rows=16, columns=16)
        for number, slices in enumerate((10, 5, 1), start=1)
    ]
    made[0][4].path.unlink()
    made[1][2].path.unlink()
    whole = pydicom.dcmread(made[2][0].path)
    whole.ConcatenationUID, whole.InConcatenationNumber, whole.InConcatenationTotalNumber = "1.2.3", 1, 1
    whole.save_as(made[2][0].path)
    study = made[0][0].study_uid
    _at_once(site, folder)
    site.wait_for(lambda: site.ctl_json("search", "--incomplete")["studies"], 90, "the study to be archived")
    found = site.ctl_json("show", study)["archive"]["completeness"]
    assert [[one["code"] for one in found[kind]] for kind in ("gaps", "signs", "evidence")] == [
        ["slices"],
        ["numbers"],
        ["concatenation"],
    ]


def _read_the_archive(site: Site, study: str) -> None:
    patient = site.ctl_json("search", "--limit", "1")["studies"][0]["patient_id"]
    answers(site, "fetch", "--patient", patient, "--all", "-o", str(site.root / "all"))
    answers(site, "fetch", "--patient", patient, "--all", "-o", str(site.root / "readable"), "--layout", "readable")
    answers(site, "fetch", study, "-o", str(site.root / "original"), "--layout", "original")
    answers(site, "fetch", study, "-o", str(site.root / "medium"), "--dicomdir")
    answers(site, "fetch", study, "--zip", str(site.root / "study.zip"))
    answers(site, "fetch", study, "--iso", str(site.root / "study.iso"))
    answers(site, "fetch", "--patient", patient, "--all", "--iso", str(site.root / "patient.iso"))
    answers(site, "fetch", "--patient", patient, "--all", "--zip", str(site.root / "patient.zip"), "--dicomdir")
    answers(site, "fetch", "--patient", patient, "--all", "--series", "1.2.3", "-o", str(site.root / "none"), code=1)
    answers(site, "fetch", "--patient", patient, code=2)
    answers(site, "search")
    answers(site, "search", "--limit", "1")
    answers(site, "search", "--storage")
    answers(site, "search", "--patient", "nobody")
    answers(site, "show", study)
    answers(site, "show", "1.2.3", code=1)
    answers(site, "verify", study)
    answers(site, "verify", study, "--deep")
    answers(site, "verify", "1.2.3", code=1)
    answers(site, "fetch", study, "-o", str(site.root / "out"))
    answers(site, "fetch", study, "-o", str(site.root / "out"))
    answers(site, "fetch", study, "--series", "1.2.3", code=1)
    answers(site, "prove", study)
    answers(site, "prove", study, "--whole")
    answers(site, "prove", "1.2.3", code=1)
    answers(site, "prove", study, "--chain", "x", code=1)
    answers(site, "drill")
    answers(site, "drill", study)
    answers(site, "drill", "1.2.3", code=1)
    answers(site, "catalogue", "rebuild")
    answers(site, "archive", "cost")
    answers(site, "archive", "index", "--study", study)
    answers(site, "archive", "index", "--study", "1.2.3", code=1)
    answers(site, "archive", "verify", "--status", code=1)
    answers(site, "archive", "verify", "--pace", "10000")
    answers(site, "archive", "verify", "--hash", "--pace", "10000")
    answers(site, "archive", "verify", "--status")
    answers(site, "status")


def _hand_folders_in(site: Site) -> None:
    maker = Maker(seed=42)
    made = maker.ct_series(site.root / "stick", slices=2, rows=16, columns=16)
    maker.media(site.root / "stick", made)
    (site.root / "stick" / "odd").symlink_to("/nowhere")
    answers(site, "upload", "list")
    ended = site.ctl_json("upload", str(site.root / "stick"), "--delete", check=False)["upload_id"]
    answers(site, "upload", "show", ended, code=1)
    answers(site, "upload", "cancel", ended, code=1)
    maker.ct_series(site.root / "lacking", slices=10, rows=16, columns=16)[4].path.unlink()
    ended = site.ctl_json("upload", str(site.root / "lacking"))["upload_id"]
    answers(site, "upload", "show", ended)
    answers(site, "upload", "cancel", ended, code=1)
    answers(site, "prove", made[0].study_uid)
    answers(site, "upload", str(site.root / "none"), code=2)
    # One that is under way for as long as it is asked for: its bytes alone take minutes.
    maker.ct_series(site.root / "large", slices=100, rows=256, columns=256)
    bandwidth = site.config["bandwidth"]
    site.config["bandwidth"] = {"default": "64kB/s"}
    site.reconfigure()
    handed = site.ctl_json("upload", str(site.root / "large"), "--no-wait", check=False)
    answers(site, "upload", "list")
    answers(site, "upload", "show", handed["upload_id"], code=1)
    answers(site, "upload", "cancel", handed["upload_id"])
    answers(site, "upload", "list")
    site.config["bandwidth"] = bandwidth
    site.reconfigure()
    answers(site, "upload", "show", "upload-0", code=1)
    answers(site, "upload", "cancel", "upload-0", code=1)


def _exchange_an_inbox(site: Site) -> None:
    site.inbox.rename(site.root / "was-inbox")
    site.inbox.mkdir()
    [made] = Maker(seed=43).ct_series(site.inbox / "new", slices=1, rows=16, columns=16)

    def is_kept() -> bool:
        if not site.events("inbox-exchanged"):
            return False
        found = site.ctl("show", made.study_uid, "--json", check=False)
        return bool(found.stdout and ((json.loads(found.stdout)["local"] or {}).get("kept")))

    site.wait_for(is_kept, 90, "the new folder's file to be archived and kept")
    answers(site, "inbox", "list")
    answers(site, "status")


def _take_the_archive_away(site: Site) -> None:
    """What waits for it has a time, and a reason."""
    (site.root / "archive").rename(site.root / "archive-away")
    made = Maker(seed=44).ct_series(site.inbox / "waits", slices=1, rows=16, columns=16)
    study = made[0].study_uid
    site.wait_for(
        lambda: any(one["not_before"] for one in site.ctl_json("queue")["studies"]), 90, "the study to wait for its try"
    )
    # Not in the midst of a try, where it does not wait.
    _until_printed(site, "status", "studies.queued", "oldest_waiting_seconds")
    _until_printed(site, "top", *(f"studies.{key}" for key in ("not_before", "code", "reason")))
    answers(site, "show", study)
    answers(site, "search", code=3)
    answers(site, "verify", study, code=3)
    answers(site, "prove", study, code=3)
    answers(site, "doctor", code=1)
    (site.root / "archive-away").rename(site.root / "archive")
    # Its own pause doubles with each attempt, and it has failed for as long as these commands took.
    site.ctl("retry", study, check=False)
    # To its end: the archive has it while it is still looked at once more, and what is missing then is sent anew.
    site.wait_for(
        lambda: any(one["study_uid"] == study for one in site.events("study-archived")), 120, "it to be archived"
    )
    # Something that is no folder stands where its objects would go.
    bad = Maker(seed=45).ct_series(site.root / "parked", slices=1, rows=16, columns=16)
    (site.root / "archive" / "studies" / bad[0].study_uid).write_text("in the way")
    shutil.copytree(site.root / "parked", site.inbox / "parked")
    [broken] = (site.root / "archive" / "studies" / study).rglob("*.dcm")
    broken.rename(site.root / "broken")
    answers(site, "drill", study, code=1)
    site.wait_for(
        lambda: "parked" in {one["state"] for one in site.ctl_json("queue")["studies"]}, 90, "a study to be parked"
    )
    answers(site, "status")
    answers(site, "show", bad[0].study_uid, code=1)
    assert site.stop() == 0


def _damage_the_archive(site: Site, study: str) -> None:
    folder = site.root / "archive" / "studies" / study
    objects = list(folder.rglob("*.dcm"))
    shutil.rmtree(folder / "index")
    away = site.root / "away"
    stray = objects[0].with_name("stray")
    stray.write_bytes(b"of no manifest")
    os.utime(stray, (0, 0))
    answers(site, "verify", study, code=1)
    objects[0].rename(away)
    answers(site, "verify", study, code=1)
    answers(site, "archive", "index", "--study", study, code=1)
    answers(site, "archive", "verify", "--pace", "10000", code=1)
    answers(site, "fetch", study, "-o", str(site.root / "some"), code=1)
    patient = site.ctl_json("show", study)["archive"]["patient_id"]
    answers(site, "fetch", "--patient", patient, "--all", "-o", str(site.root / "some-of-all"), code=1)
    away.rename(objects[0])
    manifest = max((folder / "manifests").iterdir())
    manifest.write_bytes(manifest.read_bytes()[:-9])
    for command in (("verify", study), ("show", study), ("fetch", study, "-o", str(site.root / "less"))):
        answers(site, *command, code=1)
    answers(site, "catalogue", "rebuild", code=1)


def _change_the_record(site: Site, study: str) -> None:
    """An entry is changed; then the archive knows two chains, for the state is another one."""
    with sqlite3.connect(site.state / "state.db") as db:
        db.execute("UPDATE audit SET hash = ? WHERE sequence = 2", ("0" * 64,))
    db.close()
    answers(site, "prove", study, code=1)
    answers(site, "doctor", code=1)
    for name in ("new-state", "new-inbox"):
        (site.root / name).mkdir()
    site.config["state_directory"] = str(site.root / "new-state")
    site.config["inboxes"] = [{**site.config["inboxes"][0], "path": str(site.root / "new-inbox")}]
    site.write_config()
    [made] = Maker(seed=46).ct_series(site.root / "new-inbox", slices=1, rows=16, columns=16)
    assert site.once() == 0
    answers(site, "prove", made.study_uid)
    answers(site, "archive", "init")


def test_what_an_archive_on_s3_has_more_is_described_too(
    tmp_path: Path, rgw: CephRgw, dynamodb: DynamoDBLocal, bucket: str, table_name: str
) -> None:
    site = Site(tmp_path, archive_of(rgw, dynamodb, bucket, table_name), environment=rgw.env())
    site.environment.pop("AWS_CA_BUNDLE", None)
    schemas.checked.clear()
    answers(site, "archive", "init")
    # Which `archive init` leaves off where they do not go together with create-only; the doctor says so of them.
    rgw.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    shelf = Shelf(site, rgw, bucket)
    [made] = Maker(seed=47).ct_series(site.inbox, slices=1, rows=16, columns=16)
    site.start()
    try:
        site.wait_until_empty()
        answers(site, "doctor", code=1)
        for command in ("status",), ("stats",), ("search",), ("catalogue", "rebuild"):
            answers(site, *command)
        for command in ("show",), ("verify",), ("prove",):
            answers(site, *command, made.study_uid)
        answers(site, "archive", "verify")
        inventory, checksums = _reports(tmp_path, rgw, bucket)
        answers(site, "archive", "verify", "--inventory", str(inventory), "--checksums", str(checksums))
        shelf.damage(site.ctl_json("prove", made.study_uid)["files"][0]["proof"]["key"], b"other bytes")
        answers(site, "verify", made.study_uid, code=1)
        answers(site, "fetch", made.study_uid, "-o", str(site.root / "out"))
        assert site.stop() == 0
    finally:
        site.close()
    for name, keys in _ON_S3.items():
        assert keys <= schemas.checked[name], name


def _reports(folder: Path, rgw: CephRgw, bucket: str) -> tuple[Path, Path]:
    """An inventory and the checksums of a bucket, as Amazon would make them."""
    client = rgw.client()
    rows, tasks = [], []
    for one in client.list_object_versions(Bucket=bucket)["Versions"]:
        etag = one["ETag"].strip('"')
        rows.append(amazon_reports.Row(one["Key"], one["Size"], etag, one["VersionId"], one["IsLatest"]))
        data = client.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Body"].read()
        sha256 = hashlib.sha256(data).hexdigest()
        tasks.append(amazon_reports.task(bucket, one["Key"], sha256, etag, one["VersionId"]))
    return (
        amazon_reports.write(folder / "inventory", amazon_reports.inventory(bucket, rows, time.time() + 3600)),
        amazon_reports.write(folder / "checksums", amazon_reports.completion(tasks)),
    )


def _erase_one(site: Site, study: str) -> None:
    because = ("--because", "request 17/2026")
    answers(site, "archive", "erase", study, *because, "--dry-run")
    answers(site, "archive", "erase", study, *because, "--yes", study, "--no-wait")
    answers(site, "archive", "erased")
    answers(site, "show", study, code=1)
