"""The commands about the daemon's work: status, queue, quarantine, retry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import drill, exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, client, socket_option
from dicomwatchd.cli.studies.access import UID
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.control.client import ControlClient, DaemonRefused
from dicomwatchd.model import Uid

#: So many parked studies are asked for at once: no long list (`control.server.Limits`).
_AT_ONCE = 1000


@click.command()
@socket_option
@output.json_option
@tables.wide_option
@click.option("--check", is_flag=True, help="Exit with 1 if something needs attention.")
@click.pass_obj
def status(invocation: Invocation, socket_path: Path | None, as_json: bool, check: bool) -> int:
    """Show the state of the daemon.

    Shows whether it runs, what is waiting and for how long, where the archive is, and what needs attention. The exit
    code is 4 if the daemon is not running. With --check it is 1 if there is an alarm or a problem, a service is
    failing, or a study is parked.
    """
    said: dict[str, Any] = client(invocation, socket_path).call("status")
    parked = (said.get("studies") or {}).get("parked")
    code = exits.NO if check and (any(map(said.get, ("alarms", "problems", "backoff"))) or parked) else exits.OK
    if as_json:
        output.document(said)
        return code
    workers = said.get("workers") or {}
    waiting = said.get("bytes_waiting") or 0
    oldest = said.get("oldest_waiting_seconds")
    output.pairs(
        [
            ("Daemon", f"running, version {said.get('version')}, process {said.get('pid')}"),
            ("Since", said.get("started_at")),
            ("Archive", said.get("archive_id")),
            ("Store", _place(said.get("store"))),
            ("Catalogue", _place(said.get("catalogue"))),
            ("Workers", f"{workers.get('busy', 0)} of {workers.get('total', 0)} busy"),
            ("Studies", _counts(said.get("studies"))),
            ("Files", _counts(said.get("files"))),
            ("Waiting", output.size(waiting) if waiting else "nothing"),
            ("Oldest", None if oldest is None else f"waiting for {output.duration(oldest)}"),
            ("Sending", _limit(said.get("bandwidth"))),
            ("Verified", _verified(said.get("archive_verification"))),
            ("Restore drills", drill.line(said.get("restore_drill"))),
        ]
    )
    inboxes = said.get("inboxes") or []
    if inboxes:
        output.say()
        has_receivers = any(inbox.get("receivers") for inbox in inboxes)
        tables.table(
            ("INBOX", *(("RECEIVERS",) if has_receivers else ()), "STATE", "FILES WAITING", "LAST SCAN", "SCAN TOOK"),
            (
                (
                    inbox.get("name"),
                    *((_receivers(inbox.get("receivers")),) if has_receivers else ()),
                    inbox.get("state"),
                    inbox.get("files_waiting"),
                    inbox.get("last_scan_at") or "not yet",
                    _seconds(inbox.get("last_scan_seconds")),
                )
                for inbox in inboxes
            ),
            least=("SCAN TOOK",),
        )
    for endpoint, seconds in (said.get("backoff") or {}).items():
        output.say(output.clean(f"{endpoint}: failing; next attempt in {output.duration(seconds)}"))
    for inbox, count in (said.get("kept_without_lease") or {}).items():
        output.say(
            output.clean(
                f"{inbox}: {output.count(count, 'archived file')} kept, because no read lease can be taken on them"
                " (without_lease: keep)"
            )
        )
    if number := said.get("studies_waiting_for_listed"):
        waits = "study waits" if number == 1 else "studies wait"
        output.say(f"{number:,} {waits} for images that a DICOMDIR lists (max_wait_seconds): see dicomwatchctl queue")
    for inbox in said.get("deleting_early") or []:
        output.say(output.clean(f"{inbox}: the disk is too full; archived files are deleted before their time"))
    if number := said.get("commitments_open"):
        output.say(f"{output.count(number, 'request')} for storage commitment: not reported to the modality yet")
    for alarm in said.get("alarms") or []:
        since, page = alarm.get("begun_at"), alarm.get("read_on")
        output.say(output.clean(f"Alarm since {since}: {alarm.get('sentence')}; see {page}"))
    for text in said.get("problems") or []:
        output.say(output.clean(f"Problem: {text}"))
    return code


@click.command()
@output.limit_option("lines")
@socket_option
@output.json_option
@tables.wide_option
@click.pass_obj
def queue(invocation: Invocation, limit: int, socket_path: Path | None, as_json: bool) -> None:
    """List the studies that are not archived yet.

    Studies being archived come first, then those that have waited longest. A parked study needs attention: the reason
    says why, and `retry` tries it again.
    """
    studies: list[dict[str, Any]] = ask(invocation, socket_path, "queue", limit=limit)
    output.note_limit("studies", studies, limit)
    if as_json:
        output.document({"studies": studies})
        return
    if not studies:
        output.say("Nothing is waiting.")
        return
    tables.table(
        ("STUDY", "STATE", "FILES", "SIZE", "INBOX", "TRIES", "NOT BEFORE", "REASON"),
        (
            (
                study.get("study_uid"),
                study.get("state"),
                study.get("files"),
                output.size(study.get("bytes") or 0),
                " ".join(study.get("inboxes") or []),
                study.get("attempts"),
                study.get("not_before") or (study.get("quiet_at") if study.get("state") == "arriving" else None),
                study.get("reason") or _waiting(study.get("waits_for_listed")),
            )
            for study in studies
        ),
        least=("TRIES", "INBOX", "SIZE", "FILES"),
    )


def _waiting(wait: dict[str, Any] | None) -> str | None:
    if not wait:
        return None
    images = output.count(wait.get("missing") or 0, "image")
    return f"waits until {wait.get('until')} for {images} that a DICOMDIR lists"


@click.command()
@output.limit_option("lines")
@socket_option
@output.json_option
@tables.wide_option
@click.pass_obj
def quarantine(invocation: Invocation, limit: int, socket_path: Path | None, as_json: bool) -> None:
    """List files that cannot be archived.

    They stay where they are. A file is checked again when it changes; remove files that do not belong in the inbox.
    """
    files: list[dict[str, Any]] = ask(invocation, socket_path, "quarantine", limit=limit)
    output.note_limit("files", files, limit)
    if as_json:
        output.document({"files": files})
        return
    if not files:
        output.say("Nothing is in quarantine.")
        return
    tables.table(
        ("SINCE", "INBOX", "REASON", "PATH"),
        ((file.get("since"), file.get("inbox"), file.get("reason"), file.get("path")) for file in files),
    )


@click.command()
@click.argument("study", metavar="STUDY", type=UID, required=False)
@click.option("--all", "all_parked", is_flag=True, help="Try all parked studies again.")
@socket_option
@click.pass_context
def retry(context: click.Context, study: Uid | None, all_parked: bool, socket_path: Path | None) -> None:
    """Try a parked study again.

    STUDY is a Study Instance UID. A study that waits for its next attempt is tried at once, and files that were kept
    because no read lease could be taken, or because they are damaged, are tried again. Fix the cause before: what is
    tried again in vain is parked again.
    """
    if (study is None) is not all_parked:
        if study is None:
            raise click.MissingParameter(ctx=context, param=context.command.params[0])
        raise click.UsageError("give STUDY or --all, and not both")
    connection = client(context.obj, socket_path)
    if study is not None:
        connection.call("retry", study_uid=study)
        output.say(f"Study {study} will be tried again.")
    else:
        _retry_all(connection)


def _retry_all(connection: ControlClient) -> None:
    """Each once, though it should be parked again meanwhile. Raises DaemonRefused where none can be."""
    refusals = list[DaemonRefused]()
    count = 0
    try:
        for uid in _parked(connection):
            try:
                connection.call("retry", study_uid=uid)
                count += 1
            except DaemonRefused as error:  # it may have gone its way since
                refusals.append(error)
    except BaseException:  # whatever ends it: what was done is done
        if count:
            _say_retried(count, refusals)
        raise
    if refusals and not count:
        raise refusals[0]
    _say_retried(count, refusals)


def _parked(connection: ControlClient) -> Iterator[str]:
    """Each once, in lists as short as will do: the daemon makes one long list at a time, and others wait for theirs."""
    given = set[str]()
    limit = _AT_ONCE
    while True:
        listed = [one["study_uid"] for one in connection.call("attention", limit=limit)["parked"]]
        left = [uid for uid in listed if uid not in given]
        given.update(left)
        yield from left
        if len(listed) < limit:
            return
        if not left:  # they were parked again, and others come after them
            limit += _AT_ONCE


def _say_retried(count: int, refusals: list[DaemonRefused]) -> None:
    if refusals:
        output.note(f"{output.count(len(refusals), 'study', 'studies')} could not be: {refusals[0].message}")
    studies = output.count(count, "parked study", "parked studies")
    output.say(f"{studies} will be tried again." if count else "No study is parked.")


def _place(text: str | None) -> str:
    """ "s3|https://rgw.example|images|ct" -> "bucket images at https://rgw.example, below ct"."""
    match (text or "").split("|"):
        case ["s3", endpoint, bucket, prefix]:
            return f"bucket {bucket} at {_endpoint(endpoint)}" + (f", below {prefix}" if prefix else "")
        case ["dynamodb", endpoint, table]:
            return f"table {table} at {_endpoint(endpoint)}"
        case ["directory", _, *path, _]:
            return f"folder {'|'.join(path)}"
        case ["sqlite", *path]:
            return f"file {'|'.join(path)}"
    return text or ""


def _endpoint(name: str) -> str:
    return f"Amazon ({name.removeprefix('aws:')})" if name.startswith("aws:") else name


def _limit(bandwidth: dict[str, Any] | None) -> str | None:
    """In this machine's local time, as the configuration is."""
    if not bandwidth:
        return None
    said = f"{_rate(bandwidth)} ({bandwidth.get('rule')})"
    if not (change := bandwidth.get("next_change")):
        return said
    at = datetime.fromisoformat(change["at"]).astimezone()
    return f"{said}; from {at:%a %H:%M} on {_rate(change)}"


def _rate(limit: dict[str, Any]) -> str:
    at_most = limit.get("bytes_per_second")
    return "unlimited" if at_most is None else f"at most {output.size(at_most)}/s"


def _verified(said: dict[str, Any] | None) -> str | None:
    """Of the whole archive (`archive verify`)."""
    if not said:
        return None
    parts = []
    if done := said.get("last_complete"):
        parts.append(
            f"{done.get('proven', 0):,} of {output.count(done.get('studies', 0), 'study', 'studies')} proven, "
            f"{done.get('with_problems', 0):,} with something missing or wrong, by {done.get('finished_at')}"
        )
    if said.get("state") != "finished":
        parts.append(f"{said.get('state')} at {said.get('studies', 0):,} studies by {said.get('updated_at')}")
    return "; ".join(parts)


def _counts(counts: dict[str, int] | None) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in (counts or {}).items()) or "none"


def _receivers(receivers: list[dict[str, Any]] | None) -> str:
    return ", ".join(
        f"{one.get('name')} ({one.get('ae_title')}{': not listening' if one.get('listening') is False else ''})"
        for one in receivers or ()
    )


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
