"""What speaks for the guarantee: `prove` shows the record of deletions, `doctor` whether this place can keep it."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, client, socket_option
from dicomwatchd.cli.studies.access import UID
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER
from dicomwatchd.control.client import DaemonNotRunning
from dicomwatchd.model import Uid


@click.command()
@click.argument("study", metavar="STUDY", type=UID)
@click.option("--whole", is_flag=True, help="Read every segment of the audit chain in the archive.")
@click.option(
    "--chain",
    metavar="ID",
    type=IDENTIFIER,
    help="Use another audit chain, such as that of a lost state, from the archive alone.",
)
@socket_option
@output.json_option
@click.pass_obj
def prove(
    invocation: Invocation, study: Uid, whole: bool, chain: str | None, socket_path: Path | None, as_json: bool
) -> int:
    """Show which files of a study were deleted, and the evidence.

    Reads the daemon's audit chain. The local part is checked entry by entry and compared with the checkpoints
    published in the archive, which shows whether entries were cut off its end. Older entries are in the archive, in
    segments: those about the study are read and checked; of the others, only that they exist. The exit code is 1
    if the chain is broken or cut, if a segment is missing or was changed, or if no file of the study was deleted;
    3 if none of this is so but the archive does not answer.
    """
    options: dict[str, Any] = {"whole": True} if whole else {}
    if chain is not None:
        options["chain"] = chain
    seconds = 3600 if options else 300
    said: dict[str, Any] = ask(invocation, socket_path, "prove", answer_seconds=seconds, study_uid=study, **options)
    files: list[dict[str, Any]] = said["files"]
    published: dict[str, Any] = said["published"]
    archived: dict[str, Any] = said["archived"]
    code = exits.OK if said["chain_holds"] and files else exits.NO
    if not (published["holds"] and archived["holds"]):
        code = exits.NO
    elif said["chain_holds"] and "unknown" in (published["outcome"] if files else "", archived["outcome"]):
        code = exits.ARCHIVE
    if as_json:
        output.document(said)
        return code
    output.say(
        f"The audit chain of {output.count(said['chain_entries'], 'entry', 'entries')} is intact."
        if said["chain_holds"]
        else f"THE AUDIT CHAIN IS BROKEN at entry {said['broken_at']}: the record was changed after it was written."
    )
    _say_archived(archived)
    _say_published(published)
    if files:
        ended = Counter(file["outcome"] for file in files)
        told = ", ".join(f"{number:,} {outcome}" for outcome, number in ended.items())
        output.say(f"{output.count(len(files), 'file')} of study {study} on record: {told}.")
    else:
        output.say(f"No deleted file of study {study} is on record here.")
    for release in said["releases"]:
        by = release["released_by"]
        output.say(
            f"Released at {release['released_at']} by user {by['uid']} {by['login'] or ''}".rstrip()
            + f", audit entry {release['sequence']}: {release['because']}"
        )
    for erasure in said["erasures"]:
        by = erasure["erased_by"]
        output.say(
            f"Erased from the archive at {erasure['erased_at']} by user {by['uid']} {by['login'] or ''}".rstrip()
            + f", audit entry {erasure['sequence']}: {erasure['because']}"
        )
    for file in files:
        proof = defaultdict(str, file["proof"])  # an entry that somebody has changed may lack any of it
        output.say()
        output.pairs(
            [
                ("Object", output.clean(proof["key"])),
                ("Outcome", f"{file['outcome']}{' at ' + file['ended_at'] if file['ended_at'] else ''}"),
                ("Reason", file["why"]),
                ("Authorised", f"{file['authorised_at']}, audit entry {file['sequence']}"),
                ("Requested by", _asker(proof)),
                ("SHA-256", proof["sha256"]),
                ("Size", f"{proof['size_bytes']} bytes"),
                ("Bundle", _within(proof)),
                ("Verified", f"{proof['verified_by']} at {file['verified_at']}"),
                ("Stored in", output.clean(proof["destination"])),
                ("Version", proof["version_id"]),
                ("Manifest", f"{output.clean(proof['manifest_key'])}, SHA-256 {proof['manifest_sha256']}"),
                ("Catalogue", f"{output.clean(proof['catalogue'])}, revision {proof['catalogue_revision']}"),
            ]
        )
    return code


def _asker(proof: dict[str, Any]) -> str | None:
    """Whose upload it was, if it was one's."""
    found = proof.get("asked_by")
    if not isinstance(found, dict):
        return None
    return f"user {found.get('uid')} {output.clean(found.get('login'))}".rstrip()


def _within(proof: dict[str, Any]) -> str | None:
    """Where in the object the instance is, if that is a bundle."""
    if proof.get("offset_bytes") is None:
        return None
    return (
        f"from byte {proof['offset_bytes']} of the object's {proof['bundle_bytes']}, SHA-256 {proof['bundle_sha256']}"
    )


def _say_archived(archived: dict[str, Any]) -> None:
    if not archived["holds"]:
        output.say("THE AUDIT CHAIN IN THE ARCHIVE IS NOT INTACT:")
        for problem in archived["problems"]:
            output.say(f"  {output.clean(problem)}")
    elif archived["segments"] or archived["elsewhere"] or archived["outcome"] == "unknown":
        text = output.clean(archived["text"])
        read = f"; {archived['read']:,} of them were read" if archived["segments"] or archived["elsewhere"] else ""
        output.say(f"{text[:1].upper()}{text[1:]}{read}.")


def _say_published(published: dict[str, Any]) -> None:
    text = output.clean(published["text"])
    output.say(f"Checkpoint: {text}." if published["holds"] else f"THE AUDIT CHAIN IS NOT COMPLETE: {text}.")
    since = published["first_published_at"]
    output.say(f"Chain {published['chain_id']}" + (f", first published at {since}." if since else "."))
    for other in published["other_chains"]:
        output.say(
            output.clean(
                f"The archive also holds another chain, of another daemon or of a lost state: {other['chain_id']},"
                f" first published at {other['first_published_at']}."
            )
        )


@click.command()
@socket_option
@output.json_option
@click.pass_obj
def doctor(invocation: Invocation, socket_path: Path | None, as_json: bool) -> int:
    """Check that everything works.

    Tests the store and what it enforces, how bucket, role and table protect the archive, the catalogue, the inboxes and
    their disks. The running daemon runs the tests, with its own rights; if it is not running, this command runs them
    with yours. Destinations of fetch --send are tried by this command. "unknown" could not be tested, and is no pass.
    The exit code is 1 if something has to be fixed.
    """
    connection = client(invocation, socket_path)
    try:
        said: list[dict[str, Any]] = connection.call("doctor", answer_seconds=300)
        findings = [{"fix": None, "essential": False, **one} for one in said]  # of an earlier version, perhaps
    except DaemonNotRunning:
        if socket_path is not None:
            raise
        output.note("the daemon is not running; these checks ran with your rights")
        findings = _from_here(invocation)
    findings += _destinations(invocation)
    if as_json:
        output.document({"findings": findings})
    else:
        tables.table(
            ("", "WHAT", "FINDING"),
            ((f["outcome"], output.clean(f["subject"]), output.clean(_told(f))) for f in findings),
        )
    return exits.NO if any(f["outcome"] == "bad" for f in findings) else exits.OK


def _told(finding: dict[str, Any]) -> str:
    fix = f". To fix it: {finding['fix']}" if finding["fix"] else ""
    keeps = ". Until then no local file is deleted" if finding["essential"] else ""
    return f"{finding['detail']}{fix}{keeps}"


def _destinations(invocation: Invocation) -> list[dict[str, Any]]:
    """From where this command runs, whoever runs the rest: the daemon never talks to them."""
    from dataclasses import asdict

    from dicomwatchd.config import loading
    from dicomwatchd.errors import ConfigError
    from dicomwatchd.findings import Finding

    try:
        destinations = loading.load(invocation.config_path).destinations
    except ConfigError:
        return []  # not this user's to read, or told by the rest
    if not destinations:
        return []
    from dicomwatchd.fetch.destination import of_settings
    from dicomwatchd.fetch.reachable import look, own_files

    found = list[tuple[str, str, str]]()
    for one in destinations:
        subject, to = f"destination {one.name}", of_settings(one)
        found.append((subject, *look(to)))
        found += ((f"{subject}: {what}", outcome, text) for what, outcome, text in own_files(to))
    return [asdict(Finding(*one)) for one in found]


def _from_here(invocation: Invocation) -> list[dict[str, Any]]:
    from contextlib import suppress
    from dataclasses import asdict

    from dicomwatchd.archive.factory import open_catalogue, open_store
    from dicomwatchd.audit.proving import Prover
    from dicomwatchd.config import loading
    from dicomwatchd.doctor import audit_chain, examine
    from dicomwatchd.errors import Fatal
    from dicomwatchd.ports import SystemClock
    from dicomwatchd.queue import open_queue_to_read
    from dicomwatchd.unit import drop_in

    loaded = loading.load(invocation.config_path)
    store = open_store(loaded.archive.store, connections=2)
    try:
        catalogue = open_catalogue(loaded.archive.catalogue)
        try:
            findings = examine(loaded, store, catalogue, allowed=drop_in.allowed_here(invocation.config_path))
            with suppress(OSError, Fatal):  # the state may be the daemon's alone to read
                if (queue := open_queue_to_read(loaded.state_directory, SystemClock())) is not None:
                    archive_id = queue.binding.archive_id() or ""
                    findings.append(audit_chain(Prover(queue.audit, queue.segments, store, archive_id)))
                    queue.close()
            return [asdict(finding) for finding in findings]
        finally:
            catalogue.close()
    finally:
        store.close()
