"""`sites`: the daemons of one archive, as each says of itself in the catalogue; and one taken out of service."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.lazy import DefaultGroup
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_and_catalogue_options, settings
from dicomwatchd.cli.terminal import output, tables

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.sites import SiteRow, SiteTable
    from dicomwatchd.sites.report import SiteReport

_ALIVE, _SILENT, _UNKNOWN = "alive", "silent", "unknown"
#: A row is told apart from another of its name by so many digits of its id, at least.
_ID_DIGITS = 8

_COLUMNS = ("SITE", "LAST SEEN", "STATE", "BACKLOG", "OLDEST", "HELD", "PARKED", "ARCHIVED", "VERSION", "REASON", "ID")


@click.command()
@archive_and_catalogue_options
@output.json_option
@tables.wide_option
@click.pass_obj
def list_sites(invocation: Invocation, where: ArchiveOptions, as_json: bool) -> int:
    """List the daemons of this archive, and which of them are silent.

    Each daemon writes into the catalogue every few minutes (sites in the configuration) that it is alive, how much
    waits there, and what it has archived. Needs no daemon here, and the rights of whoever fetches. A site is silent if
    nothing has come of it for sites.silent_after (1 h without a configuration), by its own clock and this machine's.
    Of one whose clock was ahead by more than that it is unknown. The exit code is 1 if a site is silent or unknown, or
    two daemons share a name or a state.
    """
    silent_after = _silent_after(invocation, where)
    with closing(_table(invocation, where)) as table:
        rows = table.rows()
    now = time.time()
    sites, unreadable = _described(rows, now, silent_after)
    names = [one["name"] for one in sites if one["state"] != _SILENT]
    twice = sorted({name for name in names if names.count(name) > 1})
    is_amiss = twice or any(one["state"] != _ALIVE or one["twin_host"] for one in sites)
    code = exits.NO if is_amiss else exits.OK
    if as_json:
        output.document({"sites": sites, "names_used_twice": twice, "unreadable": unreadable})
        return code
    if not sites:
        output.say("No daemon has said anything yet.")
    else:
        tables.table(
            (
                "SITE",
                "LAST SEEN",
                "STATE",
                "BACKLOG",
                "OLDEST",
                "HELD",
                "PARKED",
                "ARCHIVED",
                "VERSION",
                "REASON",
                "ID",
            ),
            (
                (
                    one["name"],
                    one["last_seen_at"],
                    one["state"],
                    output.size(one["backlog_bytes"]) if one["backlog_files"] else "nothing",
                    output.duration(one["oldest_unarchived_seconds"]) if one["oldest_unarchived_seconds"] else "",
                    one["held"],
                    one["parked"],
                    output.size(one["archived_bytes"]),
                    one["version"],
                    " ".join(one["codes"]),
                    one["site_id"][:_ID_DIGITS],
                )
                for one in sites
            ),
            least=("ID", "ARCHIVED", "PARKED", "VERSION", "OLDEST"),
        )
    for one in sites:
        if one["state"] == _SILENT:
            output.say(
                f"Problem: nothing has come of site {one['name']} for {output.duration(one['seen_seconds'])}. Look"
                f" there (host {one['host'] or 'unknown'}); out of service: dicomwatchctl sites forget {one['name']}"
            )
        if one["twin_host"]:
            output.say(
                f"Problem: two daemons work with the state of site {one['name']}, on hosts {one['host'] or 'unknown'}"
                f" and {one['twin_host']}: stop one of them, and give it an empty state directory"
            )
        if one["state"] == _UNKNOWN:
            output.say(
                f"Problem: whether site {one['name']} is alive cannot be told from here: its clock was ahead of this"
                f" machine's by {output.duration(one['clock_ahead_seconds'])}. Look there (host"
                f" {one['host'] or 'unknown'}), and set it right"
            )
        elif one["clock_ahead_seconds"]:
            output.say(
                f"The clock of site {one['name']} is ahead of this machine's by"
                f" {output.duration(one['clock_ahead_seconds'])}"
            )
    for name in twice:
        hosts = ", ".join(sorted(one["host"] or "unknown" for one in sites if one["name"] == name))
        output.say(f"Problem: several daemons are called {name} (hosts {hosts}): set site.name")
    if unreadable:
        output.say(f"{output.count(unreadable, 'item')} in the catalogue cannot be read as a site")
    return code


@click.group(cls=DefaultGroup, default=list_sites)
def sites() -> None:
    """List the daemons of this archive, and which of them are silent."""


@sites.command()
@click.argument("name", metavar="NAME")
@archive_and_catalogue_options
@click.pass_obj
def forget(invocation: Invocation, name: str, where: ArchiveOptions) -> int:
    """Take a site out of the list that is out of service.

    NAME is its name or the ID that the list shows. Where several have the name, only those that are silent are
    forgotten. Nothing of its studies is changed. A daemon that still lives comes back with its next heartbeat. Needs
    the right to write heartbeats, which a daemon has.
    """
    silent_after = _silent_after(invocation, where)
    with closing(_table(invocation, where)) as table:
        found = _wanted(table, name, silent_after)
        if not found:
            output.note(f"there is no site {name}")
            return exits.NO
        for row in found:
            if not _forget(table, row):
                output.note(f"site {name} has just been heard of again, and stays")
                return exits.NO
    output.say(f"Site {output.clean(name)} is forgotten.")
    return exits.OK


def _table(invocation: Invocation, where: ArchiveOptions) -> SiteTable:
    from dicomwatchd.archive import factory

    _, catalogue = settings(invocation, where)
    if catalogue is None:
        raise click.UsageError("a catalogue is needed: --table, --catalogue-file or a configuration")
    return factory.open_sites(catalogue)


def _silent_after(invocation: Invocation, where: ArchiveOptions) -> float:
    from dicomwatchd.config import loading
    from dicomwatchd.config.sites import Sites

    configured = Sites() if where.given else loading.load(invocation.config_path).sites
    return configured.silent_after_seconds


def _described(rows: list[SiteRow], now: float, silent_after: float) -> tuple[list[dict[str, Any]], int]:
    """(the sites in the order of their names, how many rows are none)"""
    from dicomwatchd.sites.report import read

    found, unreadable = [], 0
    for row in rows:
        if row.is_forgotten:
            continue
        said = read(row.document)
        if said is None:
            unreadable += 1
        else:
            found.append(_description(row, said, now, silent_after))
    return sorted(found, key=lambda one: (one["name"], one["site_id"])), unreadable


def _description(row: SiteRow, said: SiteReport, now: float, silent_after: float) -> dict[str, Any]:
    from dicomwatchd.sites.lookout import age_by_clock, clock_ahead, is_silent

    age, ahead = age_by_clock(said, now), clock_ahead(said, now)
    far_ahead = bool(silent_after) and ahead > silent_after  # dead, it would be alive here until that time has come
    return {
        "name": said.name,
        "site_id": row.site_id,
        "host": said.host or None,
        "state": _UNKNOWN if far_ahead else _SILENT if is_silent(said, age, silent_after) else _ALIVE,
        "last_seen_at": said.at,
        "seen_seconds": round(age, 1),
        "clock_ahead_seconds": round(ahead, 1) if ahead else None,
        "heartbeat_seconds": said.every_seconds,
        "version": said.version or None,
        "started_at": said.started_at or None,
        "backlog_files": said.backlog_files,
        "backlog_bytes": said.backlog_bytes,
        "oldest_unarchived_seconds": said.oldest_unarchived_seconds,
        "held": said.held,
        "parked": said.parked,
        "quarantined_files": said.quarantined,
        "archived_studies": said.archived_studies,
        "archived_files": said.archived_files,
        "archived_bytes": said.archived_bytes,
        "last_archived_at": said.last_archived_at or None,
        "problems": said.problems,
        "codes": list(said.codes),
        "twin_host": said.twin or None,
    }


def _wanted(table: SiteTable, name: str, silent_after: float) -> list[SiteRow]:
    """Raises click.UsageError where nothing tells which of several is meant."""
    rows = {row.site_id: row for row in table.rows()}
    found, _ = _described(list(rows.values()), time.time(), silent_after)
    named = [one for one in found if one["name"] == name] or [
        one for one in found if len(name) >= _ID_DIGITS and one["site_id"].startswith(name)
    ]
    if len(named) > 1:
        named = [one for one in named if one["state"] == _SILENT]
        if not named:
            raise click.UsageError("several sites have this name, and none of them is silent: give the ID of one")
    return [rows[one["site_id"]] for one in named]


def _forget(table: SiteTable, row: SiteRow) -> bool:
    """Whether it was still the row that was looked at: a newer one is of a daemon that lives."""
    from dicomwatchd.archive.catalogues.sites import FORGOTTEN, SiteRow

    return table.write(SiteRow(row.site_id, row.beats + 1, FORGOTTEN, "{}"), row.stamp)
