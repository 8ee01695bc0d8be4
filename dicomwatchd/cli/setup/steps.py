"""Steps as data, and how they are taken: each command is printed as a person could type it, then run, then its result.

A step says itself whether what it is for is there already, so a second run goes on where the first has stopped.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Command:
    """What is run, and the same as text for a shell. There is no secret in it."""

    argv: tuple[str, ...]
    shown: str

    @classmethod
    def of(cls, *argv: str) -> Command:
        return cls(argv, shlex.join(argv))

    @classmethod
    def shell(cls, text: str) -> Command:
        return cls(("/bin/sh", "-c", text), text)


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command: its exit code and what it has printed; ``stderr`` is "" if that went to the terminal."""

    code: int
    stdout: str = ""
    stderr: str = ""


#: Runs a command; ``live``: what it says on stderr goes straight to the terminal. Raises nothing.
Run = Callable[[Command, bool], Ran]


class Outcome(StrEnum):
    DONE = "done"  # something was changed
    ALREADY = "already"  # it was right
    CHECKED = "checked"  # looked at, which changes nothing
    FAILED = "failed"
    LEFT = "left"  # not reached, for one before it has failed
    PLANNED = "planned"  # with --dry-run: would be run


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of a step's result. ``document``: what its command has printed as JSON, if it is wanted later."""

    outcome: Outcome
    detail: str = ""
    document: Any = None


def done(_ran: Ran) -> Told:
    return Told(Outcome.DONE)


def no() -> None:
    """Of a step that is to be taken in any case."""


@dataclass(frozen=True, slots=True)
class Step:
    """``already`` says in words what is there, or None; ``understand`` what a command that ended with 0 has done;
    ``hint`` what to do where it failed. ``act`` is run in place of the command, and does what that says."""

    key: str
    title: str
    command: Command
    hint: str = ""
    already: Callable[[], str | None] = no
    understand: Callable[[Ran], Told] = done
    needs: tuple[str, ...] = ()
    live: bool = False
    act: Callable[[], Ran] | None = None


@dataclass(slots=True)
class Taken:
    """A step with what came of it; ``code`` is the exit code of a command that failed."""

    step: Step
    told: Told
    code: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "step": self.step.key,
            "title": self.step.title,
            "command": self.step.command.shown,
            "needs": list(self.step.needs),
            "outcome": self.told.outcome.value,
            "detail": self.told.detail,
        }


@dataclass(slots=True)
class Report:
    taken: list[Taken] = field(default_factory=list)

    @property
    def failed(self) -> Taken | None:
        return next((one for one in self.taken if one.told.outcome is Outcome.FAILED), None)

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return any(one.told.outcome in (Outcome.DONE, Outcome.PLANNED) for one in self.taken)

    def of(self, key: str) -> Told | None:
        return next((one.told for one in self.taken if one.step.key == key), None)


def take(
    steps: Sequence[Step], run: Run, tell: Callable[[str], None], report: Report, *, dry_run: bool = False
) -> Report:
    """Take the steps one after the other, up to the first that fails; those behind it are noted as left."""
    for number, step in enumerate(steps, start=1):
        if report.failed is not None:
            report.taken.append(Taken(step, Told(Outcome.LEFT)))
            continue
        tell("")
        tell(f"[{number}/{len(steps)}] {step.title}")
        there = step.already()
        if there is not None:
            report.taken.append(Taken(step, Told(Outcome.ALREADY, there)))
            tell(f"  already right: {there}")
            continue
        for line in _typed(step.command.shown):
            tell(line)
        if dry_run:
            needed = f" (needs {' and '.join(step.needs)})" if step.needs else ""
            report.taken.append(Taken(step, Told(Outcome.PLANNED)))
            tell(f"  not run: --dry-run{needed}")
            continue
        ran = step.act() if step.act is not None else run(step.command, step.live)
        told = step.understand(ran) if ran.code == 0 else _failure(ran)
        report.taken.append(Taken(step, told, ran.code))
        for line in _result(told, ran):
            tell(f"  {line}")
    return report


def _typed(shown: str) -> list[str]:
    """The command as it stands in a terminal; a here-document's lines are not indented, so that they can be copied."""
    first, *more = shown.splitlines()
    return [f"  $ {first}", *more]


def _result(told: Told, ran: Ran) -> Iterable[str]:
    if told.outcome is Outcome.FAILED:
        yield f"failed: {told.detail}"
        answer = "" if told.document is not None else ran.stdout
        said = [line for line in (*answer.splitlines(), *ran.stderr.splitlines()) if line.strip()]
        yield from (f"  {line}" for line in said[-_SAID_LINES:] if line != told.detail)
    else:
        yield f"{told.outcome}{f': {told.detail}' if told.detail else ''}"


_SAID_LINES = 12


def _failure(ran: Ran) -> Told:
    """With what the command has printed as JSON all the same."""
    document = None
    with suppress(ValueError):
        document = json.loads(ran.stdout)
    reason = document.get("reason") if isinstance(document, dict) else None
    return Told(Outcome.FAILED, reason or _last_words(ran) or f"ended with {ran.code}", document)


def _last_words(ran: Ran) -> str:
    """What a program says of its failure: the first line on stderr, where ours say what is wrong."""
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    return lines[0].removeprefix("dicomwatchctl: ") if lines else ""


def run(command: Command, live: bool = False) -> Ran:
    """As `Run`, with nothing to read on stdin."""
    try:
        found = subprocess.run(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if live else subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        return Ran(127, "", f"{command.argv[0]}: {error.strerror}")
    return Ran(found.returncode, found.stdout, found.stderr or "")
