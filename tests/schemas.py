"""The JSON Schemas of what `dicomwatchctl` prints with --json (docs/schema), and the check of an output against it.

Whoever runs a command with --json in a test has its output checked here, so that a key, a type or a value which its
schema does not have fails that test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click

from dicomwatchd.cli.app import root
from dicomwatchd.cli.lazy import DefaultGroup

FOLDER = Path(__file__).parents[1] / "docs" / "schema"
#: Which schemas an output was checked against in this process, and the keys that had a value in it, not null.
checked: dict[str, set[str]] = {}


def commands(group: click.Group = root, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command, below whatever groups, with the name of its schema."""
    context = click.Context(group)
    if isinstance(group, DefaultGroup):
        yield "-".join(path), group.default
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield "-".join((*path, name)), command


def with_json() -> set[str]:
    """The names of the schemas that there have to be."""
    return {name for name, command in commands() if any("--json" in parameter.opts for parameter in command.params)}


def name_of(arguments: Sequence[str]) -> str:
    """The schema of a command line, which begins with the command."""
    names = set(dict(commands()))
    if (of_two := "-".join(arguments[:2])) in names:
        return of_two
    assert arguments[0] in names, f"{arguments}: no command"
    return arguments[0]


@cache
def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def check(name: str, document: Any) -> None:
    """Raises AssertionError with all that the schema does not allow."""
    from jsonschema import Draft202012Validator  # the benchmarks import this module, and have no need of it

    errors = Draft202012Validator(schema(name)).iter_errors(document)
    found = [f"{error.json_path}: {error.message}" for error in errors]
    assert not found, f"docs/schema/{name}.json does not describe this answer:\n" + "\n".join(found)
    checked.setdefault(name, set()).update(_with_values(document))


def check_output(arguments: Sequence[str], stdout: str, code: int) -> None:
    """Of a run with --json, ``arguments`` from the command on: one document, as its schema has it, or none at all where
    the command has failed. A command line that cannot be used names no command perhaps."""
    if stdout:
        check(name_of(arguments), json.loads(stdout))
    else:
        assert code, f"{arguments} has succeeded without an answer"


def keys(name: str) -> set[str]:
    """Every key that a schema describes, as "studies.state": in an object, in its list of studies."""
    whole = schema(name)

    def below(part: dict[str, Any], path: str) -> Iterator[str]:
        if "$ref" in part:
            yield from below(whole["$defs"][part["$ref"].removeprefix("#/$defs/")], path)
        for one in part.get("anyOf", []):
            yield from below(one, path)
        if "items" in part:
            yield from below(part["items"], path)
        for key, described in part.get("properties", {}).items():
            yield path + key
            yield from below(described, f"{path}{key}.")

    return set(below(whole, ""))


def _with_values(document: Any, path: str = "") -> Iterator[str]:
    if isinstance(document, list):
        for one in document:
            yield from _with_values(one, path)
    elif isinstance(document, dict):
        for key, value in document.items():
            if value is not None:
                yield path + key
                yield from _with_values(value, f"{path}{key}.")
