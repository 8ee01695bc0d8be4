"""Tables on terminals of 80 and 120 columns, and into a pipe: nothing is torn, what matters most is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.cli.app import root
from dicomwatchd.cli.terminal import tables
from tests.unit.stand_in import StandIn

STUDY = "2.25.100968640846110253715033657817116617"
WHEN = "2026-11-29T14:05:06.789Z"
REASON = "the store does not keep what it is sent, even after several attempts; look at the store, then retry the study"
ANSWERS: dict[str, Any] = {
    "queue": [
        {
            "study_uid": STUDY,
            "state": "parked",
            "files": 1234,
            "bytes": 215_000_000,
            "inboxes": ["ct1", "ct2"],
            "attempts": 3,
            "not_before": WHEN,
            "reason": REASON,
        }
    ],
    "quarantine": [{"since": WHEN, "inbox": "ct1", "reason": REASON, "path": "/srv/dicom/ct1/2026/11/29/A/IM000001"}],
    "stats": {
        "days": [
            {
                "day": "2026-11-29",
                "inbox": "ct1",
                "shipments": 1234,
                "studies": 1200,
                "files": 412_345,
                "bytes": 215_000_000_000,
                "megabytes_per_second": 123.4,
                "seconds": {"upload": 12345.678, "verify": 345.6, "record": 123.4, "purge": 2345.6},
            }
        ],
        "totals": {},
    },
    "status": {
        "version": "0.1.0",
        "pid": 42,
        "store": "s3|https://rgw.example:7480|images|ct",
        "catalogue": "dynamodb|aws:eu-central-1|dicom",
        "inboxes": [
            {"name": "ct1", "state": "open", "files_waiting": 3, "last_scan_at": WHEN, "last_scan_seconds": 0.25}
        ],
    },
    "upload list": {
        "upload_id": "upload-0123456789ab",
        "outcome": "finished",
        "files": 412,
        "verified": 412,
        "deleted": 0,
        "failed_files": 0,
        "started_at": WHEN,
        "ended_at": WHEN,
        "path": "/home/radiology/exports/2026-11-29",
    },
}
ANSWERS["upload list"] = [ANSWERS["upload list"]]


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    daemon = StandIn(tmp_path / "control.sock")
    yield daemon
    daemon.close()


def asked(stand_in: StandIn, command: str, *options: str) -> Result:
    stand_in.result(ANSWERS[command])
    result = CliRunner().invoke(root, [*command.split(), *options, "--socket", str(stand_in.path)])
    assert result.exit_code == 0, result.output
    return result


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(tables, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ANSWERS)
def test_it_fits_and_nothing_is_torn(
    command: str, columns: int, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, columns)
    said = asked(stand_in, command).stdout
    assert max(len(line.rstrip()) for line in said.splitlines()) <= columns, said
    for whole in {
        "queue": [tables.short(STUDY), "parked", "2026-11-29 14:05"],
        "quarantine": ["2026-11-29 14:05", "ct1"],
        "stats": ["2026-11-29", "1200", "412345", "215.0 GB", "123.4"],
        "status": ["2026-11-29 14:05", "open"],
        "upload list": ["upload-0123456789ab", "finished", "412"],
    }[command]:
        assert any(whole in line or (columns > 80 and STUDY in line) for line in said.splitlines()), said


@pytest.mark.parametrize("command", ANSWERS)
def test_wide_and_pipes_have_all_of_it(command: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = asked(stand_in, command)
    terminal(monkeypatch, 80)
    narrow, wide = asked(stand_in, command), asked(stand_in, command, "--wide")
    assert asked(stand_in, command, "--json").exit_code == 0
    headings = next(line for line in piped.stdout.splitlines() if "\t" in line).split("\t")
    assert all(heading in wide.stdout for heading in headings)
    assert wide.stderr == ""
    if command == "queue":
        assert STUDY in piped.stdout and STUDY in wide.stdout and REASON in piped.stdout
        assert STUDY not in narrow.stdout and "--wide to see everything" in narrow.stderr


def test_the_status_says_in_words_where_the_archive_is(stand_in: StandIn) -> None:
    said = asked(stand_in, "status").stdout
    assert "bucket images at https://rgw.example:7480, below ct\n" in said
    assert "table dicom at Amazon (eu-central-1)\n" in said
    other = {**ANSWERS["status"], "store": "directory|file|/srv/a|b|", "catalogue": "sqlite|/srv/c.db"}
    stand_in.result(other)
    said = CliRunner().invoke(root, ["status", "--socket", str(stand_in.path)]).stdout
    assert "folder /srv/a|b\n" in said and "file /srv/c.db\n" in said


def test_both_ends_of_a_uid_stay() -> None:
    assert tables.short("1.2.3") == "1.2.3"
    assert tables.short(STUDY) == "2.25.10096\u20267817116617"
    assert len(tables.short("1." * 31 + "1")) == 21


def test_what_is_left_out_goes_in_its_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, shown in ((26, "ABC"), (22, "AC"), (10, "A")):
        terminal(monkeypatch, columns)
        tables.table(("A", "B", "C"), [("a" * 8, "b" * 6, "c" * 8)], least=("B", "C"))
        heading = capsys.readouterr().out.splitlines()[0]
        assert "".join(heading.split()) == shown
