"""`dicomwatchctl sites` on a catalogue's file: who is there, who is silent, and one that is forgotten."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.archive.catalogues.sites import FORGOTTEN, SiteRow
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.catalogues.sqlite.sites import SqliteSites
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.ports import timestamp
from dicomwatchd.sites.report import SiteReport
from tests import schemas
from tests.unit.test_sites import made


@pytest.fixture
def table(tmp_path: Path) -> SqliteSites:
    settings = SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db")
    SqliteCatalogue(settings).initialise("archive-1")
    return SqliteSites(settings)


def said(name: str, seconds_ago: float = 10.0, **more: object) -> SiteReport:
    return replace(made(name, timestamp(time.time() - seconds_ago)), **more)  # type: ignore[arg-type]


def put(table: SqliteSites, site: int, report: SiteReport) -> str:
    site_id = f"{site:x}" * 32
    assert table.write(SiteRow(site_id, 7, "r", report.to_text()), None)
    return site_id


def ctl(tmp_path: Path, *arguments: str) -> Result:
    place = ["--directory", str(tmp_path), "--catalogue-file", str(tmp_path / "catalogue.db")]
    result = CliRunner().invoke(root, ["sites", *arguments, *place])
    if "--json" in arguments:
        schemas.check("sites", json.loads(result.stdout))
    return result


def test_nobody_yet(table: SqliteSites, tmp_path: Path) -> None:
    result = ctl(tmp_path)
    assert result.exit_code == 0 and "No daemon has said anything yet." in result.stdout
    assert json.loads(ctl(tmp_path, "--json").stdout) == {"sites": [], "names_used_twice": [], "unreadable": 0}


def test_all_is_well_and_one_is_silent(table: SqliteSites, tmp_path: Path) -> None:
    put(table, 1, said("north", backlog_files=3, backlog_bytes=1_200_000, held=2, codes=("held",)))
    put(table, 2, said("south", -600.0))
    assert ctl(tmp_path).exit_code == 0
    put(table, 3, said("east", 7200.0))
    result = ctl(tmp_path)
    assert result.exit_code == 1
    assert "Problem: nothing has come of site east for 2 h" in result.stdout
    assert "The clock of site south is ahead of this machine's by " in result.stdout
    found = {one["name"]: one for one in json.loads(ctl(tmp_path, "--json").stdout)["sites"]}
    assert {name: one["state"] for name, one in found.items()} == {"north": "alive", "south": "alive", "east": "silent"}
    assert 590 < found["south"]["clock_ahead_seconds"] < 601 and found["south"]["seen_seconds"] == 0
    assert (found["north"]["held"], found["north"]["codes"]) == (2, ["held"])


def test_of_a_clock_that_is_far_ahead_nobody_can_tell(table: SqliteSites, tmp_path: Path) -> None:
    """It may have been dead for days, and would be called alive until its time has come here."""
    put(table, 1, said("north"))
    put(table, 2, said("south", -3 * 86400.0))
    result = ctl(tmp_path)
    assert result.exit_code == 1
    assert "Problem: whether site south is alive cannot be told from here: its clock was ahead" in result.stdout
    assert "by 3 d" in result.stdout and "The clock of site" not in result.stdout
    found = {one["name"]: one["state"] for one in json.loads(ctl(tmp_path, "--json").stdout)["sites"]}
    assert found == {"north": "alive", "south": "unknown"}
    put(table, 3, said("south"))
    assert json.loads(ctl(tmp_path, "--json").stdout)["names_used_twice"] == ["south"]


def test_two_of_one_name_and_two_of_one_state(table: SqliteSites, tmp_path: Path) -> None:
    put(table, 1, said("north", host="a"))
    put(table, 2, said("north", host="b"))
    result = ctl(tmp_path)
    assert result.exit_code == 1 and "several daemons are called north (hosts a, b): set site.name" in result.stdout
    assert json.loads(ctl(tmp_path, "--json").stdout)["names_used_twice"] == ["north"]
    for site in (1, 2):
        kept = table.row(f"{site:x}" * 32)
        assert kept is not None and table.write(replace(kept, beats=8, run=FORGOTTEN), kept.stamp)
    assert json.loads(ctl(tmp_path, "--json").stdout)["sites"] == []
    put(table, 3, said("south", host="c", twin="d"))
    assert ctl(tmp_path).exit_code == 1
    assert "two daemons work with the state of site south, on hosts c and d" in ctl(tmp_path).stdout


def test_what_strangers_put_there(table: SqliteSites, tmp_path: Path) -> None:
    table.write(SiteRow("e" * 32, 1, "r", '{"name": "\\u001b[31m", "at": "x"}'), None)
    table.write(SiteRow("f" * 32, 1, "r", "no JSON"), None)
    put(table, 1, said("north"))
    result = ctl(tmp_path)
    assert result.exit_code == 0 and "2 items in the catalogue cannot be read as a site" in result.stdout
    assert "\x1b" not in result.stdout


def test_one_that_is_out_of_service(table: SqliteSites, tmp_path: Path) -> None:
    old = put(table, 1, said("north", 9000.0))
    new = put(table, 2, said("north"))
    assert ctl(tmp_path, "forget", "north").exit_code == 0  # the silent one alone
    assert [one["site_id"] for one in json.loads(ctl(tmp_path, "--json").stdout)["sites"]] == [new]
    assert ctl(tmp_path, "forget", "north").exit_code == 0  # the only one: it comes back if it lives
    result = ctl(tmp_path, "forget", "north")
    assert result.exit_code == 1 and "there is no site north" in result.stderr
    kept = table.row(old)
    assert kept is not None and kept.is_forgotten and kept.beats == 8


def test_two_that_live_are_told_apart_by_their_ids(table: SqliteSites, tmp_path: Path) -> None:
    one, other = put(table, 1, said("north")), put(table, 2, said("north"))
    result = ctl(tmp_path, "forget", "north")
    assert result.exit_code == 2 and "give the ID of one" in result.stderr
    assert ctl(tmp_path, "forget", one[:8]).exit_code == 0
    assert [found["site_id"] for found in json.loads(ctl(tmp_path, "--json").stdout)["sites"]] == [other]


def test_one_that_is_heard_of_meanwhile_stays(
    table: SqliteSites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_id = put(table, 1, said("north", 9000.0))
    rows = SqliteSites.rows

    def and_then_it_writes(self: SqliteSites) -> list[SiteRow]:
        found = rows(self)
        assert table.write(SiteRow(site_id, 8, "r", said("north").to_text()), (7, "r"))
        return found

    monkeypatch.setattr(SqliteSites, "rows", and_then_it_writes)
    result = ctl(tmp_path, "forget", "north")
    assert result.exit_code == 1 and "has just been heard of again" in result.stderr
    kept = table.row(site_id)
    assert kept is not None and not kept.is_forgotten
