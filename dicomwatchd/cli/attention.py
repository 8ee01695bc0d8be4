"""What waits for a person's decision: `attention` lists it, `release` decides about a study that is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.control_access import ask, client, socket_option
from dicomwatchd.cli.studies.access import UID
from dicomwatchd.cli.studies.versions import DIFFERENCES
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.model import Uid

_PATIENT = (
    ("PATIENT ID", "patient_id"),
    ("ISSUER", "issuer"),
    ("NAME", "name"),
    ("BORN", "birth_date"),
    ("SEX", "sex"),
)
#: So many images of a study are listed that have several versions; --json has more.
_LISTED = 20


@click.command()
@output.limit_option("studies of each kind")
@socket_option
@output.json_option
@tables.wide_option
@click.pass_obj
def attention(invocation: Invocation, limit: int, socket_path: Path | None, as_json: bool) -> int:
    """List what needs a person's decision.

    Held studies are archived, and their files are not deleted until you release them: the files of such a study name
    two patients, or more than 64, and these are shown; or the archive has several versions of some of its images, and
    only the files of these images are kept; or the study was erased from the archive, and there are files of it here,
    which are not archived again either. Damaged files are archived as damaged and kept. Parked studies
    could not be archived. Files in quarantine are counted. The exit code is 1 if there is anything. The answer names
    patients."""
    said: dict[str, Any] = ask(invocation, socket_path, "attention", limit=limit)
    held, damaged, parked, quarantined = said["held"], said["damaged"], said["parked"], said["quarantined_files"]
    code = exits.NO if held or damaged or parked or quarantined else exits.OK
    for kind, studies in (("held", held), ("damaged", damaged), ("parked", parked)):
        output.note_limit(f"{kind} studies", studies, limit)
    if as_json:
        output.document(said)
        return code
    for study in held:
        _print_held(study)
    for study in damaged:
        files = output.count(study["files"], "damaged file is", "damaged files are")
        output.say(
            output.clean(
                f"Study {study['study_uid']}: {files} archived as damaged and kept. Send them again from their source;"
                f" dicomwatchctl show {study['study_uid']} gives the reasons."
            )
        )
    for study in parked:
        output.say(
            output.clean(
                f"Study {study['study_uid']} is parked: {study['reason'] or study['code']}. Try it again:"
                f" dicomwatchctl retry {study['study_uid']}"
            )
        )
    if len(parked) > 1:
        output.say("Try all parked studies again: dicomwatchctl retry --all")
    if quarantined:
        output.say(
            f"{output.count(quarantined, 'file')} in quarantine cannot be archived:"
            " dicomwatchctl quarantine lists them."
        )
    if code == exits.OK:
        output.say("Nothing needs attention.")
    return code


def _print_held(study: dict[str, Any]) -> None:
    uid = output.clean(study["study_uid"])
    output.say(f"Study {uid} has been held since {study['held_at']}: {study['reason']}.")
    files = output.count(study["files"], "local file is", "local files are")
    if (erasure := study["erasure"]) is not None:
        output.say(
            f"It was erased at {output.clean(erasure['erased_at'])}, and {files} here, neither archived again nor"
            f" deleted. The reason given: {output.clean(erasure['because'])}"
        )
        what = "Remove these files by your own rules; or, to archive the study again:"
        output.say(f"{what} sudo dicomwatchctl release {uid} --shown {output.clean(study['shown'])} --because TEXT")
        output.say()
        return
    if study["patients"]:
        output.say(f"It is archived, and {files} kept. The patients:")
        tables.table(
            [title for title, _ in _PATIENT],
            ([patient.get(key) for _, key in _PATIENT] for patient in study["patients"]),
            least=("SEX", "ISSUER"),
        )
        what = "Find out whose images they are"
    else:
        instances, total = study["instances"][:_LISTED], study["instances_total"]
        output.say(f"All versions are archived, and {files} kept. The images:")
        tables.table(
            ("SOP INSTANCE", "VERSIONS", "DIFFERENCE"),
            ((one["sop_instance_uid"], one["versions"], DIFFERENCES.get(one["grade"])) for one in instances),
            least=("VERSIONS",),
        )
        if total > len(instances):
            output.say(f"and {total - len(instances):,} more")
        what = f"Compare the versions (dicomwatchctl fetch {uid} returns all of them)"
    output.say(f"{what}, then: sudo dicomwatchctl release {uid} --shown {output.clean(study['shown'])} --because TEXT")
    output.say()


@click.command()
@click.argument("study", metavar="STUDY", type=UID)
@click.option("--because", metavar="TEXT", required=True, help="Why, for the audit chain; do not name the patient.")
@click.option("--shown", metavar="CODE", help="As attention prints it: if the study is held for more by now, fail.")
@socket_option
@click.pass_obj
def release(invocation: Invocation, study: Uid, because: str, shown: str | None, socket_path: Path | None) -> None:
    """Release a held study.

    Its local files are verified again and deleted, or kept, as their inbox is configured; those of a study that was
    erased from the archive are archived again. The audit chain records who
    released it and why. With --shown the release holds for the patients and versions that attention has shown, and
    fails if others have come since; without it, for all that the study is held for by now. If another one comes later,
    the study is held again. Only root and the daemon's own user may do this.
    """
    looked_at: dict[str, Any] = {} if shown is None else {"shown": shown}
    said: dict[str, Any] = client(invocation, socket_path).call(
        "release", study_uid=study, because=because, **looked_at
    )
    if said.get("was_erased"):
        output.say(
            f"Study {study} is released; {output.count(said['files'], 'local file')} of it will be archived again, and"
            " deleted or kept as configured."
        )
        return
    output.say(
        f"Study {study} is released; {output.count(said['files'], 'kept file')} will be verified again and deleted or"
        " kept as configured."
    )
