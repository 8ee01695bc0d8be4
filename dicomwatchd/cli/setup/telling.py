"""What is said at the end of a run: in sentences for a person, and as one document."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from dicomwatchd.cli.setup import plan
from dicomwatchd.cli.setup.answers import DELETE, KEEP
from dicomwatchd.cli.setup.machine import Machine
from dicomwatchd.cli.setup.plan import Ways
from dicomwatchd.cli.setup.steps import Outcome, Report, Taken
from dicomwatchd.config.whole import Config

_RIGHT = (Outcome.DONE, Outcome.ALREADY, Outcome.CHECKED)


def sentences(
    report: Report, settings: Config, machine: Machine, ways: Ways, given: Mapping[str, str], *, deletes: bool
) -> Iterator[str]:
    """``deletes``: it was asked for, and was not there at the beginning."""
    if report.failed is not None:
        yield from _stopped(report, report.failed)
        yield f"To go on: {again(machine, ways, given, deletes=deletes)}"
    elif ways.dry_run:
        yield "Nothing was done: --dry-run."
    else:
        yield "All is set up." if report.changed else "All was set up already; nothing was changed."
        yield from _what_now(report, settings, machine, ways)


def _stopped(report: Report, failed: Taken) -> Iterator[str]:
    right = [one.step.title for one in report.taken if one.told.outcome in _RIGHT]
    yield f"Stopped at: {failed.step.title}."
    yield f"Right by now: {'; '.join(right) if right else 'nothing'}."
    if failed.step.hint:
        yield f"What to do: {failed.step.hint}."


def again(machine: Machine, ways: Ways, given: Mapping[str, str], *, deletes: bool) -> str:
    """The command that goes on from here; what was answered is in the configuration by now, or asked once more."""
    words = [*machine.ctl, "setup", *(["--yes"] if ways.confirmed else [])]
    if os.path.lexists(machine.config_path):
        words += ["--after-archiving", DELETE] if deletes else []
    else:
        words += [word for key, value in given.items() for word in _option(key, value)]
    switches = {
        "--no-service": not ways.service,
        "--no-start": not ways.start,
        "--no-test-study": ways.start and not ways.test_study,
        "--no-acl": not ways.acl,
    }
    return shlex.join([*words, *(name for name, is_on in switches.items() if is_on)])


def _option(key: str, value: str) -> list[str]:
    name = f"--{key.replace('_', '-')}"
    return [name] if key == "insecure_http" else [name, value]


def _what_now(report: Report, settings: Config, machine: Machine, ways: Ways) -> Iterator[str]:
    if not ways.service:
        yield f"To start the daemon: {shlex.join(machine.daemon_command)}"
    elif not ways.start:
        yield "To start it: systemctl enable --now dicomwatchd"
    test = report.of(plan.TEST_STUDY)
    if test is not None and test.document is not None:
        yield f"The test study stays in the archive. To take it out: {test.document['to_erase']}"
        if test.document["local_file"] != "deleted":
            yield f"Its local file was kept: rm {shlex.quote(test.document['file'])}"
    is_deleting = report.of(plan.AFTER_ARCHIVING) is not None
    if not is_deleting and any(box.after_archive == KEEP for box in settings.inboxes):
        yield (
            f"Files stay in the inbox (after_archive: {KEEP}), which fills its disk. Once you trust the archive:"
            f" after_archive: {DELETE} in {machine.config_path}, then reload the daemon."
        )
    yield f"See how it is: {shlex.join((*machine.ctl, 'status'))}, {shlex.join((*machine.ctl, 'doctor'))}"


def document(machine: Machine, ways: Ways, report: Report, differences: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    """As docs/schema/setup.json has it."""
    failed, test = report.failed, report.of(plan.TEST_STUDY)
    return {
        "config": str(machine.config_path),
        "ok": failed is None and not differences,
        "changed": report.changed,
        "dry_run": ways.dry_run,
        "differences": [
            {"where": where, "is": shown(is_there), "asked_for": shown(asked)} for where, is_there, asked in differences
        ],
        "steps": [one.document() for one in report.taken],
        "what_to_do": failed.step.hint if failed is not None else None,
        "test_study": test.document if test is not None else None,
    }


def shown(value: Any) -> str:
    """A value of the configuration."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
