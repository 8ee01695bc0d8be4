"""`drill`: a restore drill at once; and the line that `status` has of the last 30 days."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import client, socket_option
from dicomwatchd.cli.studies.access import UID
from dicomwatchd.cli.terminal import output
from dicomwatchd.model import Uid

#: Why a study was not compared, by the outcome.
_WHY = {
    "cold": "it is in cold storage, and restoring it would be charged for",
    "too-large": "it is larger than a drill may fetch",
    "no-room": "there is too little free space in the state directory",
    "not-done": "the archive could not be read",
}
#: The same, of several.
_LEFT_OUT = {
    "cold": "in cold storage",
    "too-large": "too large",
    "no-room": "without room for the copy",
    "not-done": "while the archive could not be read",
}


def line(said: dict[str, Any] | None) -> str | None:
    """What `status` says; None where no drills are made and none were."""
    if not said or not (said["studies_per_day"] or any(said["studies"].values())):
        return None
    studies = said["studies"]
    compared = studies["equal"] + studies["failed"]
    if compared:
        text = (
            f"{said['instances_equal']:,} of {output.count(said['instances'], 'instance')} came back equal in the last"
            f" {said['days']} days ({output.count(compared, 'study', 'studies')}"
            + (f", {studies['failed']:,} of them not as recorded" if studies["failed"] else "")
            + ")"
        )
    else:
        text = f"no study was fetched in the last {said['days']} days"
    left = [f"{studies[outcome]:,} {why}" for outcome, why in _LEFT_OUT.items() if studies[outcome]]
    return text + (f"; not done: {', '.join(left)}" if left else "")


@click.command()
@click.argument("study", metavar="[STUDY]", type=UID, required=False)
@socket_option
@output.json_option
@click.pass_obj
def drill(invocation: Invocation, study: Uid | None, socket_path: Path | None, as_json: bool) -> int:
    """Fetch a study for trial, and compare it with its manifest.

    The running daemon fetches STUDY, or one that it chooses at random, into a private folder in its state directory,
    compares every SHA-256 with the study's manifest, and deletes the copy. The result counts in status like those of
    the drills that the daemon makes by itself (restore_drill in the configuration). The exit code is 1 if not
    everything came back equal, or the study was not compared. Only root and the daemon's own user may do this.
    """
    arguments: dict[str, Any] = {} if study is None else {"study_uid": study}
    said: dict[str, Any] = client(invocation, socket_path).call("drill", **arguments)
    code = exits.OK if said["outcome"] == "equal" else exits.NO
    if as_json:
        output.document(said)
        return code
    uid = output.clean(said["study_uid"] or "")
    if said["outcome"] == "equal":
        output.say(
            f"Study {uid}, revision {said['revision']}, came back: {said['instances_equal']:,} of"
            f" {output.count(said['instances'], 'instance')} equal ({output.size(said['bytes'])} in"
            f" {output.duration(said['seconds'])})."
        )
    elif said["outcome"] == "failed":
        output.say(output.clean(f"Study {uid}: {said['problem']}."))
    elif said["outcome"] == "nothing":
        output.say("Nothing to compare: the study was erased or is not archived, or the archive is empty.")
    else:
        why = _WHY.get(said["outcome"], "it was not done")
        code_text = f" ({output.clean(said['code'])})" if said["code"] else ""
        output.say(f"{f'Study {uid} was' if uid else 'No study was'} not compared: {why}{code_text}.")
    return code
