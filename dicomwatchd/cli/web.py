"""`dicomwatchctl web`: the tokens of dicomwatchd-web, and its record of who has looked at what."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.cli.terminal.identifiers import UID
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp

if TYPE_CHECKING:
    from dicomwatchd.config.web import Web

#: As access.tokens.ROLES; importing that for --help is not worth it.
_ROLES = ("read", "upload", "administrate")
_DEFAULT_DAYS = 90
_LONGEST_DAYS = 3660


@click.group()
def web() -> None:
    """Manage who may use the page, and see who has."""


@web.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    "roles",
    metavar="ROLE",
    type=click.Choice(_ROLES),
    multiple=True,
    required=True,
    help="What its holder may do: read, upload, administrate. May be given several times.",
)
@click.option(
    "--expires",
    metavar="WHEN",
    default=f"{_DEFAULT_DAYS}d",
    show_default=True,
    help="When it ends: a number of days such as 30d, a date such as 2027-01-31, or never.",
)
@click.pass_obj
def token(invocation: Invocation, name: str, roles: tuple[str, ...], expires: str) -> None:
    """Make a token, and print it: it cannot be shown again.

    Only its hash is stored. Whoever has it may do what its roles say, in the name token:NAME, which is what the record
    of access calls him. It counts at once, without a restart. Run it as root, or as the web process' user.
    """
    from dicomwatchd.access.tokens import TokenFile

    now = time.time()
    text = TokenFile(_settings(invocation).state).add(name, roles, now, _end(expires, now))
    output.note("keep it like a password; it is not shown again")
    click.echo(text)


@web.command()
@output.json_option
@tables.wide_option
@click.pass_obj
def tokens(invocation: Invocation, as_json: bool) -> None:
    """List the tokens, without what lets anybody in."""
    from dicomwatchd.access.tokens import TokenFile

    now = time.time()
    found: list[dict[str, Any]] = [
        {
            "name": one.name,
            "roles": list(one.roles),
            "made_at": timestamp(one.made_at),
            "expires_at": None if one.expires_at is None else timestamp(one.expires_at),
            "expired": not one.holds_at(now),
        }
        for one in TokenFile(_settings(invocation).state).read()
    ]
    if as_json:
        output.document({"tokens": found})
        return
    if not found:
        output.say("There are no tokens.")
        return
    tables.table(
        ("TOKEN", "ROLES", "MADE", "EXPIRES"),
        (
            (
                one["name"],
                " ".join(one["roles"]),
                one["made_at"],
                "expired" if one["expired"] else one["expires_at"] or "never",
            )
            for one in found
        ),
        least=("MADE",),
    )


@web.command()
@click.argument("name", metavar="NAME")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> int:
    """Revoke a token: it lets nobody in any more, and ends the sessions that were begun with it.

    It counts at once, without a restart.
    """
    from dicomwatchd.access.tokens import TokenFile

    if not TokenFile(_settings(invocation).state).revoke(name):
        output.note(f"there is no token {name}")
        return exits.NO
    output.say(f"Token {name} is revoked.")
    return exits.OK


@web.command()
@click.option("--person", metavar="NAME", help="What this person, or token:NAME, has looked at.")
@click.option("--study", metavar="UID", type=UID, help="Who has looked at this study.")
@click.option("--from", "since", metavar="TIME", help="Since this date or time, such as 2026-01-31 (UTC).")
@click.option("--to", "until", metavar="TIME", help="Until this date, or before this time (UTC).")
@click.option("--check", is_flag=True, help="Check the whole chain, entry by entry.")
@output.limit_option("entries, the newest first")
@output.json_option
@tables.wide_option
@click.pass_obj
def audit(
    invocation: Invocation,
    person: str | None,
    study: Uid | None,
    since: str | None,
    until: str | None,
    check: bool,
    limit: int,
    as_json: bool,
) -> int:
    """Show who has looked at which study, and when.

    Views of the same study by the same person within 10 minutes are one entry. Entries are never removed, and each
    holds the hash of the one before it; --check finds the first that does not fit, and the exit code is 1 then. That
    the newest ones were cut off shows the journal, which has the newest entry's number and hash each hour (event
    web-access-head). Run it as root, or as the web process' user.
    """
    from dicomwatchd.access.record import AccessRecord, Wanted

    record = AccessRecord(_settings(invocation).state, writing=False)
    wanted = Wanted(person, study, _moment(since, "--from"), _moment(until, "--to", end_of_day=True))
    found = record.search(wanted, limit=limit + 1)
    more, found = len(found) > limit, found[:limit]
    checked = record.check() if check else None
    code = exits.NO if checked is not None and checked.broken_at is not None else exits.OK
    if as_json:
        entries = [
            {
                "sequence": one.sequence,
                "at": timestamp(one.at),
                "person": one.person,
                "action": one.action,
                "study_uid": one.study_uid,
            }
            for one in found
        ]
        chain = checked and {
            "holds": checked.broken_at is None,
            "broken_at": checked.broken_at,
            "entries": checked.entries,
            "head": checked.head,
        }
        output.document({"entries": entries, "more": more, "chain": chain})
        return code
    if found:
        tables.table(
            ("TIME", "PERSON", "ACTION", "STUDY", "ENTRY"),
            ((timestamp(one.at), one.person, one.action, one.study_uid, one.sequence) for one in found),
            least=("ENTRY",),
        )
    else:
        output.say("Nobody has." if person or study or since or until else "Nobody has looked at anything yet.")
    if more:
        output.note("there are more; --limit shows more of them")
    if checked is not None and checked.broken_at is None:
        output.say(f"The chain holds: {output.count(checked.entries, 'entry', 'entries')}, head {checked.head}")
    elif checked is not None:
        output.say(f"Problem: the chain is broken at entry {checked.broken_at}: it was changed, or one before is gone")
    return code


def _settings(invocation: Invocation) -> Web:
    """Raises ConfigError."""
    from dicomwatchd.config import loading
    from dicomwatchd.errors import ConfigError

    found = loading.load(invocation.config_path).web
    if found is None:
        raise ConfigError([("web", "is missing")], source=str(invocation.config_path))
    return found


def _end(text: str, now: float) -> float | None:
    """Raises click.UsageError."""
    if text == "never":
        return None
    if (days := re.fullmatch(r"([0-9]{1,4})d", text)) and 0 < int(days[1]) <= _LONGEST_DAYS:
        return now + int(days[1]) * 86400
    end = _moment(text, "--expires", end_of_day=True) if not days else None
    if end is None or end <= now:
        raise click.UsageError("--expires must be a number of days such as 30d, a date to come, or never")
    return end


def _moment(text: str | None, option: str, *, end_of_day: bool = False) -> float | None:
    """Raises click.UsageError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{option} must be a date or a time, such as 2026-01-31 or 2026-01-31T12:00") from None
    moment = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return moment + 86400 if end_of_day and re.fullmatch(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", text) else moment
