"""Receivers as sources: the journal names them beside their inbox, stats and status beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import Result

from dicomwatchd.audit.proving import Prover
from dicomwatchd.daemon.commands import reading
from dicomwatchd.telemetry.journal import Entry, Journal
from tests.pieces import Pieces
from tests.unit.stand_in import StandIn
from tests.unit.test_cli_daemon import ctl, stand_in

__all__ = ["ctl", "stand_in"]  # fixtures

RECEIVERS = {"ct1": ("ct",), "many": ("us", "xa"), "both": ("ct", "us")}


class Kept:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({"inbox": "ct1"}, {"receiver": "ct"}),
        ({"inbox": "many"}, {"receivers": ("us", "xa")}),
        ({"inbox": "other"}, {}),
        ({"inbox": None}, {}),
        ({"files": 3}, {}),
        ({"sources": ["ct1", "other"]}, {"receiver": "ct"}),
        ({"sources": ["both", "ct1", "many"]}, {"receivers": ("ct", "us", "xa")}),
    ],
)
def test_an_entry_about_an_inbox_names_its_receivers(given: dict[str, Any], added: dict[str, Any]) -> None:
    kept = Kept()
    log = Journal(kept, level="DEBUG", strict=True)
    log.receivers = RECEIVERS
    for say in (log.debug, log.info, log.warning, log.error):
        say("something", "a message", study_uid="1.2.3", **given, waiting=1)
    assert [entry.level for entry in kept.entries] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    for entry in kept.entries:
        fields = dict(entry.fields)
        assert {name: fields.pop(name, None) for name in added} == added
        assert "receiver" not in fields and "receivers" not in fields
        assert (entry.event, entry.message) == ("something", "a message")
        assert (fields["study_uid"], fields["waiting"]) == ("1.2.3", 1)


def test_they_stand_behind_the_inbox_as_people_read_it() -> None:
    kept = Kept()
    log = Journal(kept, strict=True)
    log.receivers = RECEIVERS
    log.info("x", "y", study_uid="1.2", inbox="ct1", files=3)
    assert list(kept.entries[0].fields) == ["study_uid", "inbox", "receiver", "files"]


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def test_stats_know_the_receivers_of_an_inbox(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [{"day": "2027-01-01", "inbox": inbox} for inbox in ("ct1", "ct1,many", "other", "both,ct1")]
    monkeypatch.setattr(pieces.queue.reports, "stats", lambda _days: {"days": days, "totals": {}})
    said = reading(pieces.queue, cast(Prover, None), RECEIVERS)["stats"]({}, lambda _: None)
    assert [day["receivers"] for day in said["days"]] == [["ct"], ["ct", "us", "xa"], [], ["ct", "us"]]


def test_the_tables_name_them_where_there_are_any(stand_in: StandIn, ctl: Callable[..., Result]) -> None:
    listens = {"name": "ct", "ae_title": "ARCHIVE", "listen": "127.0.0.1:104", "listening": True}
    inboxes: list[dict[str, Any]] = [
        {"name": "ct1", "state": "open", "files_waiting": 0, "receivers": [listens]},
        {"name": "mr", "state": "open", "receivers": [listens, {**listens, "name": "us", "listening": False}]},
        {"name": "cr", "state": "open", "receivers": []},
    ]
    stand_in.result({"inboxes": inboxes})
    cells = [line.split("\t")[:3] for line in ctl("status").stdout.splitlines()]
    assert [one for one in cells if one[0] in ("INBOX", "ct1", "mr", "cr")] == [
        ["INBOX", "RECEIVERS", "STATE"],
        ["ct1", "ct (ARCHIVE)", "open"],
        ["mr", "ct (ARCHIVE), us (ARCHIVE: not listening)", "open"],
        ["cr", "", "open"],
    ]
    day = {"day": "2027-01-01", "inbox": "ct1", "receivers": ["ct", "us"], "shipments": 2}
    stand_in.result({"days": [day, {**day, "inbox": "cr", "receivers": []}], "totals": {"shipments": 4}})
    assert [line.split("\t")[:4] for line in ctl("stats").stdout.splitlines()] == [
        ["DAY", "INBOX", "RECEIVERS", "SHIPMENTS"],
        ["2027-01-01", "ct1", "ct us", "2"],
        ["2027-01-01", "cr", "", "2"],
        ["all", "", "", "4"],
    ]
