"""The commands that ask the daemon, against a stand-in that speaks the control protocol on a real socket."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.cli.app import root
from dicomwatchd.config.loading import parse
from dicomwatchd.config.text import named_socket, read_yaml
from dicomwatchd.control.client import ControlClient, DaemonRefused, DaemonUnreachable
from dicomwatchd.control.server import ControlServer, Limits
from dicomwatchd.daemon.commands import Progress
from dicomwatchd.errors import Permanent
from dicomwatchd.ports import SystemClock, timestamp
from dicomwatchd.queue import open_queue
from dicomwatchd.upload_text import all_verified, sentences
from tests import schemas
from tests.pieces import Log
from tests.unit.stand_in import StandIn

STUDY = "1.2.840.99999.1"


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    daemon = StandIn(tmp_path / "control.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def ctl(stand_in: StandIn) -> Callable[..., Result]:
    def run(command: str, *arguments: str) -> Result:
        return CliRunner().invoke(root, [command, *arguments, "--socket", str(stand_in.path)])

    return run


# --- the client ---------------------------------------------------------------------------------------------


def test_a_call_gets_progress_and_result(stand_in: StandIn) -> None:
    stand_in.answer({"progress": {"n": 1}}, {"progress": {"n": 2}}, {"ok": True, "result": [1]})
    seen: list[object] = []
    assert ControlClient(stand_in.path).call("x", on_progress=seen.append, limit=3) == [1]
    assert seen == [{"n": 1}, {"n": 2}]
    assert stand_in.requests == [{"command": "x", "limit": 3}]


def test_a_refusal_is_the_daemons_own_words(stand_in: StandIn) -> None:
    stand_in.answer({"ok": False, "error": {"code": "no-folder", "message": "no such folder", "hint": "look again"}})
    with pytest.raises(DaemonRefused) as caught:
        ControlClient(stand_in.path).call("x")
    assert (caught.value.code, caught.value.message, caught.value.hint) == ("no-folder", "no such folder", "look again")


@pytest.mark.parametrize("lines", [[], [b"not json\n"], [b"[]\n"], [b"{}\n"], [b'{"progress": {}}\n']])
def test_a_daemon_that_talks_nonsense_or_dies_is_no_answer(stand_in: StandIn, lines: list[bytes]) -> None:
    stand_in.lines = lines
    with pytest.raises(DaemonUnreachable):
        ControlClient(stand_in.path).call("x")


def test_a_silent_daemon_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(DaemonUnreachable, match="does not answer"):
            ControlClient(tmp_path / "s").call("x", answer_seconds=0.2)


def test_a_long_socket_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    daemon = StandIn(folder / "control.sock")
    try:
        daemon.result("there")
        assert len(str(daemon.path)) > 107
        assert ControlClient(daemon.path).call("x") == "there"
        with pytest.raises(DaemonUnreachable):
            ControlClient(folder / "other.sock").call("x")
        with pytest.raises(DaemonUnreachable):
            ControlClient(folder / "missing" / "other.sock").call("x")
    finally:
        daemon.close()


# --- no daemon ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["status"], ["queue"], ["quarantine"], ["stats"], ["retry", STUDY], ["upload", "."]]
)
def test_no_daemon_is_said_plainly(arguments: list[str], tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(stale))
    for path in (stale, tmp_path / "none.sock", tmp_path / "no" / "folder.sock"):
        result = CliRunner().invoke(root, [*arguments, "--socket", str(path)])
        assert result.exit_code == 4 and result.stdout == ""
        assert "the daemon is not running" in result.stderr


def test_a_refused_or_silent_daemon_is_not_taken_for_one_that_is_not_running(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state must not be read past a daemon that is there."""
    with pytest.raises(DaemonUnreachable) as caught:
        ControlClient(stand_in.path).call("x")
    assert caught.value.code == "daemon-silent"

    def refused(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ControlClient, "_connect", refused)
    with pytest.raises(DaemonUnreachable) as caught:
        ControlClient(stand_in.path).call("x")
    assert caught.value.code == "daemon-closed"


@pytest.mark.parametrize(
    ("command", "key"), [(["queue"], "studies"), (["quarantine"], "files"), (["stats"], "days"), (["show", STUDY], "")]
)
def test_reading_commands_answer_from_the_state_while_the_daemon_is_down(
    command: list[str], key: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
state_directory: {tmp_path}
archive:
  store: {{kind: directory, path: {tmp_path}-archive}}
  catalogue: {{kind: sqlite, path: {tmp_path}-archive/catalogue.db}}
"""
    )
    arguments = ["--config", str(config), *command, "--json"]
    nothing = CliRunner().invoke(root, arguments)
    assert nothing.exit_code == (3 if command[0] == "show" else 4) and nothing.stdout == ""
    open_queue(tmp_path, SystemClock(), lambda _transition: None).close()
    answered = CliRunner().invoke(root, arguments)
    if command[0] == "show":
        assert answered.exit_code == 3, "neither state nor archive know the study, and the archive is not there"
    else:
        schemas.check_output(command, answered.stdout, answered.exit_code)
        assert answered.exit_code == 0 and json.loads(answered.stdout)[key] == []
        assert "the daemon is not running; this is its last saved state" in answered.stderr
    assert CliRunner().invoke(root, ["--config", str(config), "status"]).exit_code == 4


def test_the_socket_is_found_through_the_configuration(stand_in: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
state_directory: {tmp_path}
archive:
  store: {{kind: directory, path: {tmp_path}-archive}}
  catalogue: {{kind: sqlite, path: {tmp_path}-archive/catalogue.db}}
"""
    )
    stand_in.result({"version": "9", "pid": 1})
    result = CliRunner().invoke(root, ["--config", str(path), "status"])
    assert result.exit_code == 0, result.stderr
    assert "running, version 9, process 1" in result.stdout


def test_a_configuration_that_is_wrong_elsewhere_keeps_no_running_daemon_from_answering(
    stand_in: StandIn, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    stand_in.result({"version": "9", "pid": 1})
    path.write_text(f"control_socket: {stand_in.path}\nworkers: many\n")
    assert CliRunner().invoke(root, ["--config", str(path), "status"]).exit_code == 0
    path.write_text(f"control_socket: {tmp_path}/elsewhere.sock\nworkers: many\n")
    result = CliRunner().invoke(root, ["--config", str(path), "status"])
    assert result.exit_code == 2 and "archive: is missing\n" in result.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{}", "/var/lib/dicomwatchd/control.sock"),
        ("state_directory: /a/b", "/a/b/control.sock"),
        ("state_directory: /a/b\ncontrol_socket: /c.sock", "/c.sock"),
        ("state_directory: /a/b\ncontrol_socket: null", "/a/b/control.sock"),
        ("state_directory: a", None),
        ("state_directory: ''", None),
        ("state_directory: null", None),
        ("control_socket: c.sock", None),
        ("control_socket: [/c.sock]", None),
        ("[]", None),
        ("", None),
    ],
)
def test_the_socket_is_seen_where_the_configuration_has_it(text: str, named: str | None) -> None:
    assert named_socket(read_yaml(text)) == (named and Path(named))
    if named:
        archive = {
            "store": {"kind": "directory", "path": "/archive"},
            "catalogue": {"kind": "sqlite", "path": "/archive/c"},
        }
        assert parse({**read_yaml(text), "archive": archive}).socket_path == Path(named)


# --- the reports --------------------------------------------------------------------------------------------

STATUS = {
    "version": "0.1.0",
    "pid": 42,
    "started_at": "2026-01-31T12:00:00.000Z",
    "archive_id": "archive-1",
    "store": "s3|https://store|bucket|",
    "catalogue": "dynamodb|table",
    "capabilities": {"etag_is_content": True},
    "inboxes": [
        {
            "name": "ct1",
            "state": "open",
            "files_waiting": 3,
            "last_scan_at": "2026-01-31T12:00:00.000Z",
            "last_scan_seconds": 0.25,
        },
        {"name": "mr", "state": "unavailable", "files_waiting": 0, "last_scan_at": None, "last_scan_seconds": None},
    ],
    "studies": {"arriving": 1, "archived": 1200},
    "files": {"ready": 3},
    "bytes_waiting": 1_500_000,
    "oldest_waiting_seconds": 75.2,
    "workers": {"total": 16, "busy": 2},
    "backoff": {"s3": 30.0},
    "archive_verification": {
        "state": "interrupted",
        "started_at": "2026-01-31T11:00:00.000Z",
        "updated_at": "2026-01-31T12:00:00.000Z",
        "studies": 17,
        "last_complete": {
            "started_at": "2025-12-31T11:00:00.000Z",
            "finished_at": "2025-12-31T12:00:00.000Z",
            "studies": 1200,
            "proven": 1199,
            "not_covered": 0,
            "unproven": 0,
            "with_problems": 1,
        },
    },
    "alarms": [
        {
            "alarm": "inbox-silent",
            "inbox": "ct1",
            "subject": "ct1",
            "sentence": "nothing has come into inbox ct1",
            "begun_at": "2026-01-31T12:00:00.000Z",
            "read_on": "docs/operations.md#an-inbox-is-silent",
        }
    ],
    "problems": ["inbox mr is not there"],
}


def test_status(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    stand_in.result(STATUS)
    result = ctl("status")
    assert result.exit_code == 0 and result.stderr == ""
    for text in (
        "running, version 0.1.0, process 42",
        "2 of 16 busy",
        "1 arriving, 1,200 archived",
        "1.5 MB",
        "waiting for 1 min 15 s",
        "ct1\topen\t3\t2026-01-31T12:00:00.000Z\t0.25 s",
        "mr\tunavailable\t0\tnot yet\t",
        "1,199 of 1,200 studies proven, 1 with something missing or wrong, by 2025-12-31T12:00:00.000Z",
        "interrupted at 17 studies by 2026-01-31T12:00:00.000Z",
        "s3: failing; next attempt in 30 s",
        "Alarm since 2026-01-31T12:00:00.000Z: nothing has come into inbox ct1; see docs/operations.md#an-inbox-",
        "Problem: inbox mr is not there",
    ):
        assert text in result.stdout
    assert stand_in.requests == [{"command": "status"}]
    assert json.loads(ctl("status", "--json").stdout) == STATUS


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, 0),
        ({"problems": [], "backoff": {}, "studies": {"archived": 3, "queued": 1}}, 0),
        ({"problems": ["inbox mr cannot be opened"]}, 1),
        ({"alarms": [{"alarm": "clock"}], "problems": []}, 1),
        ({"backoff": {"s3": 30.0}}, 1),
        ({"studies": {"archived": 3, "parked": 1}}, 1),
    ],
)
def test_status_for_a_monitoring_system(
    stand_in: StandIn, ctl: Callable[..., Result], said: dict[str, object], code: int
) -> None:
    stand_in.result(said)
    assert ctl("status", "--check").exit_code == code == ctl("status", "--check", "--json").exit_code
    assert ctl("status").exit_code == 0


def test_status_of_a_daemon_that_says_little(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    stand_in.result({})
    assert ctl("status").exit_code == 0


def test_queue(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    row = {
        "study_uid": STUDY,
        "state": "parked",
        "files": 3,
        "bytes": 1500,
        "inboxes": ["ct1", "mr"],
        "attempts": 4,
        "not_before": None,
        "reason": "evil \x1b]0;title\x07 reason",
        "quiet_at": None,
        "claimed": False,
    }
    stand_in.result([row])
    result = ctl("queue", "--limit", "7")
    assert f"{STUDY}\tparked\t3\t1.5 kB\tct1 mr\t4\t\tevil \ufffd]0;title\ufffd reason" in result.stdout
    assert stand_in.requests == [{"command": "queue", "limit": 7}]
    assert "may be more" not in result.stderr
    assert json.loads(ctl("queue", "--json").stdout) == {"studies": [row]}
    cut = ctl("queue", "--limit", "1")
    assert cut.stderr == "dicomwatchctl: at most 1 studies are shown, and there may be more: --limit N\n"
    stand_in.result([])
    assert ctl("queue").stdout == "Nothing is waiting.\n"


def test_quarantine_shows_the_path(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    row = {
        "inbox": "ct1",
        "path": "/srv/ct1/DOE^J/\udcff\n.txt",
        "reason": "no DICOM file",
        "code": "not-dicom",
        "since": "2026-01-31T12:00:00.000Z",
    }
    stand_in.result([row])
    assert "no DICOM file\t/srv/ct1/DOE^J/\ufffd\ufffd.txt" in ctl("quarantine").stdout
    assert json.loads(ctl("quarantine", "--json").stdout) == {"files": [row]}
    stand_in.result([])
    assert ctl("quarantine").stdout == "Nothing is in quarantine.\n"


def test_retry(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    stand_in.result({})
    result = ctl("retry", STUDY)
    assert result.exit_code == 0 and result.stdout == f"Study {STUDY} will be tried again.\n"
    assert stand_in.requests == [{"command": "retry", "study_uid": STUDY}]
    stand_in.answer({"ok": False, "error": {"code": "study-not-found", "message": "no such study", "hint": None}})
    refused = ctl("retry", STUDY)
    assert refused.exit_code == 1 and refused.stderr == "dicomwatchctl: no such study\n"


def test_retry_of_all_that_is_parked(tmp_path: Path) -> None:
    """Each once, whatever becomes of it: one is parked again at once, one has gone its way meanwhile."""
    parked, asked = {f"{STUDY}.{number}" for number in range(1500)}, list[str]()
    again, gone = f"{STUDY}.7", f"{STUDY}.8"

    def attention(request: Mapping[str, Any], _progress: Progress) -> Any:
        return {"held": [], "damaged": [], "parked": [{"study_uid": uid} for uid in sorted(parked)[: request["limit"]]]}

    def retried(request: Mapping[str, Any], _progress: Progress) -> Any:
        asked.append(request["study_uid"])
        if request["study_uid"] != again:
            parked.remove(request["study_uid"])
        if request["study_uid"] == gone:
            raise Permanent("the study is not parked and not waiting for an attempt")
        return {}

    server = ControlServer(tmp_path / "s", {"attention": attention, "retry": retried}, Log())
    server.start()
    try:
        done = CliRunner().invoke(root, ["retry", "--all", "--socket", str(tmp_path / "s")])
        assert (done.exit_code, done.stdout) == (0, "1,499 parked studies will be tried again.\n")
        assert done.stderr == (
            "dicomwatchctl: 1 study could not be: the study is not parked and not waiting for an attempt\n"
        )
        assert len(asked) == len(set(asked)) == 1500 and parked == {again}
        parked.clear()
        none = CliRunner().invoke(root, ["retry", "--all", "--socket", str(tmp_path / "s")])
        assert (none.exit_code, none.stdout) == (0, "No study is parked.\n")
        parked.add(gone)
        refused = CliRunner().invoke(root, ["retry", "--all", "--socket", str(tmp_path / "s")])
        assert (refused.exit_code, refused.stdout) == (1, "") and "is not parked" in refused.stderr
    finally:
        server.stop()
    both = CliRunner().invoke(root, ["retry", STUDY, "--all"])
    assert both.exit_code == 2 and "not both" in both.stderr
    assert "Missing argument 'STUDY'" in CliRunner().invoke(root, ["retry"]).stderr


class Parked:
    """A daemon's control socket: what is parked, and stays so where ``again`` says it. ``limits`` were asked for, and
    above ``most`` somebody else is being answered."""

    def __init__(self, count: int, again: Callable[[str], bool] = lambda _: False, most: int = 10**6) -> None:
        self.parked = [f"{STUDY}.{number:04}" for number in range(count)]
        self.again, self.most = again, most
        self.limits, self.tried = list[int](), list[str]()

    def attention(self, request: Mapping[str, Any], _progress: Progress) -> Any:
        self.limits.append(request["limit"])
        if request["limit"] > self.most:
            raise Permanent("the daemon is already answering another long list", code="too-many-connections")
        return {"held": [], "damaged": [], "parked": [{"study_uid": uid} for uid in self.parked[: request["limit"]]]}

    def retry(self, request: Mapping[str, Any], _progress: Progress) -> Any:
        self.tried.append(request["study_uid"])
        if not self.again(request["study_uid"]):
            self.parked.remove(request["study_uid"])
        return {}

    def asked(self, folder: Path) -> Result:
        server = ControlServer(folder / "s", {"attention": self.attention, "retry": self.retry}, Log())
        server.start()
        try:
            return CliRunner().invoke(root, ["retry", "--all", "--socket", str(folder / "s")])
        finally:
            server.stop()


@pytest.mark.parametrize(("count", "limits"), [(3, [1000]), (999, [1000]), (1000, [1000] * 2), (2500, [1000] * 3)])
def test_retry_of_all_asks_for_no_long_list(tmp_path: Path, count: int, limits: list[int]) -> None:
    """Which is one of the daemon's seats, and somebody else may have it."""
    site = Parked(count)
    done = site.asked(tmp_path)
    assert (done.exit_code, done.stdout) == (0, f"{count:,} parked studies will be tried again.\n")
    assert site.limits == limits and max(limits) <= Limits().long_lines and not site.parked


def test_retry_of_all_where_many_are_parked_again_at_once(tmp_path: Path) -> None:
    """Only then is a longer list asked for: what has not been tried yet comes after them."""
    site = Parked(1500, again=lambda uid: uid < f"{STUDY}.1200")
    done = site.asked(tmp_path)
    assert (done.exit_code, done.stdout) == (0, "1,500 parked studies will be tried again.\n")
    assert site.limits == [1000, 1000, 2000] and len(site.tried) == len(set(site.tried)) == 1500


def test_retry_of_all_says_what_was_done_whatever_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = Parked(1500, again=lambda _: True, most=1000).asked(tmp_path)
    assert (crowded.exit_code, crowded.stdout) == (1, "1,000 parked studies will be tried again.\n")
    assert "another long list" in crowded.stderr
    real, calls = ControlClient.call, list[str]()

    def gone(self: ControlClient, command: str, **arguments: Any) -> Any:
        calls.append(command)
        if len(calls) > 4:
            raise DaemonUnreachable("the daemon closed the connection before it answered")
        return real(self, command, **arguments)

    monkeypatch.setattr(ControlClient, "call", gone)
    site = Parked(9)
    ended = site.asked(tmp_path)
    assert (ended.exit_code, ended.stdout) == (4, "3 parked studies will be tried again.\n")
    assert len(site.tried) == 3 and "closed the connection" in ended.stderr
    nothing = site.asked(tmp_path)
    assert (nothing.exit_code, nothing.stdout) == (4, ""), "nothing is known of what is parked"


def test_stats(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    day = {
        "day": "2026-01-31",
        "inbox": "ct1",
        "shipments": 2,
        "studies": 1,
        "files": 400,
        "bytes": 2_000_000,
        "seconds": {"upload": 1.5, "verify": 0.5},
        "megabytes_per_second": 1.0,
    }
    said = {"days": [day], "totals": {**day, "day": None, "inbox": None}}
    stand_in.result(said)
    result = ctl("stats", "--days", "30")
    lines = result.stdout.splitlines()
    assert lines[0] == "DAY\tINBOX\tSHIPMENTS\tSTUDIES\tFILES\tSIZE\tMB/S\tUPLOAD S\tVERIFY S"
    assert lines[1] == "2026-01-31\tct1\t2\t1\t400\t2.0 MB\t1.0\t1.5\t0.5"
    assert stand_in.requests == [{"command": "stats", "days": 30}]
    assert json.loads(ctl("stats", "--json").stdout) == said
    stand_in.result({"days": [], "totals": {}})
    assert ctl("stats").stdout == "Nothing was archived in the last 7 days.\n"


# --- upload -------------------------------------------------------------------------------------------------


def outcome(**others: object) -> dict[str, Any]:
    return {
        "files": 3,
        "verified": 3,
        "ignored": 0,
        "failed": [],
        "deleted": 0,
        "complete": True,
        "deletable": True,
        "upload_id": "upload-1",
        "done": True,
        **others,
    }


def test_upload_hands_over_the_folder_itself_and_ends_with_a_sentence(
    stand_in: StandIn, ctl: Callable[..., Result], tmp_path: Path
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/CD\xff"))
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    progress = {"files_total": 3, "files_done": 1, "bytes_total": 30, "bytes_done": 10, "phase": "uploading"}
    stand_in.answer({"progress": progress}, {"ok": True, "result": outcome()})
    result = ctl("upload", str(tmp_path / "link"))
    assert result.exit_code == 0
    assert result.stdout == (
        "All 3 files are verified in the archive. The folder was not changed; the local copies may now be deleted.\n"
    )
    assert stand_in.requests == [{"command": "upload-folder", "delete": False, "wait": True}]
    assert stand_in.handed == [[os.fsencode(folder)]]


def test_a_folder_that_is_exchanged_meanwhile_is_not_called_deletable(
    stand_in: StandIn, ctl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "CD"
    folder.mkdir()
    stand_in.result(outcome())
    real = ControlClient.call

    def meanwhile(client: ControlClient, command: str, **arguments: Any) -> Any:
        result = real(client, command, **arguments)
        folder.rename(tmp_path / "other")
        folder.mkdir()
        return result

    monkeypatch.setattr(ControlClient, "call", meanwhile)
    result = ctl("upload", str(folder))
    assert result.exit_code == 1 and "may now" not in result.stdout
    assert "another folder is now at this path" in result.stderr


def test_a_daemon_that_knows_no_descriptors(stand_in: StandIn, ctl: Callable[..., Result], tmp_path: Path) -> None:
    stand_in.answer({"ok": False, "error": {"code": "bad-request", "message": "no such command", "hint": None}})
    result = ctl("upload", str(tmp_path))
    assert result.exit_code == 1 and "is newer than the running daemon" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("seconds", "holds"), [(0, True), (800, True), (1000, False), (20 * 86400, False), (-1000, False)]
)
def test_what_was_deletable_days_ago_is_not_called_so_today(
    stand_in: StandIn, ctl: Callable[..., Result], seconds: int, holds: bool
) -> None:
    """Files may have come to the folder since, and objects may have gone from the archive."""
    ended_at = timestamp(time.time() - seconds)
    stand_in.result(outcome(ended_at=ended_at))
    said = ctl("upload", "show", "upload-1")
    assert ("may now be deleted" in said.stdout) == holds
    assert (f"This was the state at {ended_at}, when the upload ended" in said.stdout) != holds
    assert json.loads(ctl("upload", "show", "upload-1", "--json").stdout)["deletable"] == holds
    stand_in.result([outcome(ended_at=ended_at, outcome="finished", state="ended")])
    assert json.loads(ctl("upload", "list", "--json").stdout)["uploads"][0]["deletable"] == holds


def test_upload_options(stand_in: StandIn, ctl: Callable[..., Result], tmp_path: Path) -> None:
    stand_in.result(outcome(deleted=3, deletable=False))
    result = ctl("upload", str(tmp_path), "--delete", "--wait")
    assert result.stdout == "All 3 files are verified in the archive. The local copies were deleted.\n"
    stand_in.result(outcome(done=False, verified=0, deletable=False))
    handed_over = ctl("upload", str(tmp_path), "--no-wait")
    assert handed_over.exit_code == 1 and "Do not delete anything yet" in handed_over.stdout
    assert [(r["delete"], r["wait"]) for r in stand_in.requests] == [(True, True), (False, False)]
    stand_in.result(outcome())
    assert json.loads(ctl("upload", str(tmp_path), "--json").stdout) == outcome()


@pytest.mark.parametrize(
    ("result", "delete", "code", "said", "unsaid"),
    [
        (outcome(files=1, verified=1), False, 0, "The one file is verified", "All"),
        (outcome(files=4, ignored=1), False, 0, "All 3 files are verified", "4"),
        (outcome(files=4, ignored=1), False, 0, "DICOMDIR", "4"),
        (outcome(deletable=False), False, 0, "The folder was not changed.", "may now"),
        # What is not DICOM, and what the medium's own list says.
        (outcome(files=5, ignored=2, not_dicom=2, deletable=False), False, 0, "2 other files are not DICOM", "may now"),
        (
            outcome(files=5, ignored=2, not_dicom=2, deletable=False, images_deletable=True),
            False,
            0,
            "the local copies of the archived files may now be deleted.\n2 other files",
            "the local copies may",
        ),
        (outcome(dicomdir={"images": 4, "studies": 1, "missing": 1}), False, 1, "1 is missing", "may now"),
        (
            outcome(dicomdir={"files": 2, "unreadable": 1}),
            False,
            0,
            "1 of the 2 DICOMDIRs could not be read",
            "The DICOMDIR",
        ),
        (
            outcome(dicomdir={"images": 2, "studies": 1}),
            False,
            0,
            "All 3 files are verified in the archive, among",
            "missing",
        ),
        (outcome(read_only=True, images_deletable=True), False, 0, "The medium is read-only", "may now"),
        (outcome(not_dicom=1, not_opened=["A\x1b.ZIP"], files=4, ignored=1), False, 0, "in it: A\ufffd.ZIP.", "\x1b"),
        (outcome(deleted=2), True, 0, "2 of the local copies were deleted; the others are still there", "may now"),
        (
            outcome(verified=2, failed=[{"name": "a\x1b/b", "reason": "no DICOM file"}]),
            False,
            1,
            "2 of 3 files are verified in the archive.\nNot archived, damaged, or changed since:\n"
            "  a\ufffd/b: no DICOM file\n"
            "No local copy was deleted.",
            "may now",
        ),
        (
            outcome(verified=2, deleted=2, failed=[{"name": "a", "reason": "x"}]),
            True,
            1,
            "2 local copies of verified files were deleted",
            "may now",
        ),
        (outcome(files=0, verified=0), False, 1, "no file that can be archived", "may now"),
        (outcome(files=1, verified=0, ignored=1), False, 1, "no file that can be archived", "may now"),
        (
            outcome(failed=[{"name": "sub", "reason": "may not be listed"}], failed_files=1, complete=False),
            False,
            1,
            "3 of 3 files are verified in the archive.\nNot archived, damaged, or changed since:\n"
            "  sub: may not be listed\nNo local copy was deleted.\nDo not delete",
            "may now",
        ),
        (
            outcome(outcome="cancelled", complete=False, verified=2),
            True,
            1,
            "The upload was cancelled. 2 of",
            "may now",
        ),
        (outcome(outcome="vanished", complete=False), True, 1, "The folder disappeared", "may now"),
        (outcome(outcome="vanished", complete=False, files=0), True, 1, "The folder disappeared", "may now"),
        (outcome(done=False, phase="cancelling"), True, 1, "is being cancelled", "may now"),
        (outcome(done=False, phase="waiting for the folder"), True, 1, "within 10 minutes", "may now"),
        # A daemon that contradicts itself is not believed, nor an older one that has seen only what it could read.
        (outcome(complete=None), False, 1, "Do not delete", "may now"),
        (outcome(complete="yes"), False, 1, "Do not delete", "may now"),
        (outcome(failed_files=1), False, 1, "Do not delete", "may now"),
        (outcome(verified=2), False, 1, "Do not delete", "may now"),
        (outcome(failed=[{"name": "a", "reason": "x"}]), False, 1, "Do not delete", "may now"),
        (outcome(done=False), False, 1, "Do not delete", "may now"),
        ({}, False, 1, "Do not delete", "may now"),
    ],
)
def test_only_a_wholly_verified_folder_is_called_deletable(
    result: dict[str, Any], delete: bool, code: int, said: str, unsaid: str
) -> None:
    text = "\n".join(sentences(result, delete=delete))
    assert all_verified(result) == (code == 0)
    assert said in text and unsaid not in text


def test_many_failures_are_cut_short() -> None:
    failed = [{"name": f"IM{n}", "reason": "x"} for n in range(50)]
    lines = sentences(outcome(files=50, verified=0, failed=failed), delete=False)
    assert "  ... and 30 more; --json lists all of them" in lines and len(lines) < 30


def test_show_gives_what_is_here_even_without_the_archive(stand_in: StandIn, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
state_directory: {tmp_path}
archive:
  store: {{kind: directory, path: {tmp_path}-not-there}}
  catalogue: {{kind: sqlite, path: {tmp_path}-not-there/catalogue.db}}
"""
    )
    stand_in.result(
        {
            "study_uid": STUDY,
            "state": "parked",
            "reason": "why",
            "revision": 0,
            "files": {"ready": 2},
            "history": [{"at": "2026-01-31T12:00:00.000Z", "old": "queued", "event": "claimed", "new": "uploading"}],
            "last_shipment": None,
        }
    )
    result = CliRunner().invoke(root, ["--config", str(config), "show", STUDY])
    assert result.exit_code == 0, result.output
    assert "parked" in result.stdout and "2 ready" in result.stdout
    assert "queued\tclaimed\tuploading" in result.stdout
    assert "the archive does not answer" in result.stderr


def test_show_gives_what_is_here_of_a_study_whose_manifests_cannot_be_read(stand_in: StandIn, tmp_path: Path) -> None:
    """It is parked for that, and here is where it is said."""
    config = tmp_path / "config.yaml"
    archive = tmp_path / "archive"
    config.write_text(
        f"""
state_directory: {tmp_path}
inboxes: []
archive:
  store: {{kind: directory, path: {archive}}}
  catalogue: {{kind: sqlite, path: {tmp_path}/catalogue.db}}
"""
    )
    archive.mkdir()
    made = CliRunner().invoke(root, ["--config", str(config), "archive", "init"])
    assert made.exit_code == 0, made.output
    folder = archive / "studies" / STUDY
    folder.mkdir(parents=True)
    (folder / "manifests").write_text("no folder")
    stand_in.result(
        {
            "study_uid": STUDY,
            "state": "parked",
            "reason": "why",
            "revision": 0,
            "files": {"ready": 2},
            "history": [],
            "last_shipment": None,
        }
    )
    result = CliRunner().invoke(root, ["--config", str(config), "show", STUDY])
    assert result.exit_code == 1, result.output
    assert "parked" in result.stdout and "why" in result.stdout
    assert "the archive does not answer" in result.stderr
