"""``-`` in the place of an identifier reads it from standard input, so that it is not in the process's arguments."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from dicomwatchd.cli.app import COMMANDS, root
from dicomwatchd.cli.terminal.identifiers import IDENTIFIER, UID, IdentifierType


@click.command()
@click.argument("study", type=UID)
@click.option("--patient", type=IDENTIFIER)
@click.option("--series", type=UID, multiple=True)
def asked(study: str, patient: str | None, series: tuple[str, ...]) -> None:
    click.echo(repr((study, patient, series)))


def ask(*arguments: str, given: str | bytes = "") -> Result:
    return CliRunner().invoke(asked, list(arguments), input=given)


@pytest.mark.parametrize(
    ("arguments", "given", "answer"),
    [
        (["-"], "1.2.3\n", "('1.2.3', None, ())"),
        (["-"], "1.2.3", "('1.2.3', None, ())"),
        (["-"], "1.2.3\r\n9.9\n", "('1.2.3', None, ())"),
        (["1.2", "--patient", "-"], " 47 11 \n", "('1.2', ' 47 11 ', ())"),
        (["1.2", "--patient", "-"], "-\n", "('1.2', '-', ())"),
        (["1.2", "--patient", "-"], "Ärztin^ß\n", "('1.2', 'Ärztin^ß', ())"),
        (["1.2", "--series", "3.4", "--series", "-"], "5.6\n", "('1.2', None, ('3.4', '5.6'))"),
        (["1.2", "--patient", "x" * 2000], "", f"('1.2', '{'x' * 2000}', ())"),
        (["1.2"], "9.9\n", "('1.2', None, ())"),
    ],
)
def test_one_line_of_standard_input_is_the_identifier(arguments: list[str], given: str, answer: str) -> None:
    result = ask(*arguments, given=given)
    assert (result.exit_code, result.stdout.strip()) == (0, answer)


@pytest.mark.parametrize(
    ("arguments", "given", "why"),
    [
        (["-"], "", "standard input is empty"),
        (["-"], "\n1.2.3\n", "standard input is empty"),
        (["-"], "DOE^JANE\n", "contains something other"),
        (["-", "--patient", "-"], "1.2\n4711\n", "only one option can read standard input"),
        (["1.2", "--series", "-", "--series", "-"], "3.4\n5.6\n", "only one option can read standard input"),
        (["1.2", "--patient", "-"], "x" * 1025 + "\n", "too long"),
        (["1.2", "--patient", "-"], b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_what_is_no_identifier_is_a_usage_error_that_does_not_repeat_it(
    arguments: list[str], given: str | bytes, why: str
) -> None:
    result = ask(*arguments, given=given)
    assert result.exit_code == 2 and why in result.stderr
    assert "DOE" not in result.output and "4711" not in result.output and "xxx" not in result.output


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]
    return found


#: What names a study, series, patient, examination, chain or upload. The others are numbers, places, words of a choice.
NAMES = {"study", "series", "patient", "accession", "chain", "upload_id"}


def test_every_command_reads_its_identifiers_so() -> None:
    seen = set()
    for path, command in commands(root):
        for parameter in command.params:
            if parameter.name in NAMES:
                assert isinstance(parameter.type, IdentifierType), (path, parameter.name)
                seen.add(parameter.name)
    assert seen == NAMES
    assert {path[0] for path, _ in commands(root)} == set(COMMANDS)


def test_the_rule_is_in_the_manual() -> None:
    from tests.mutants.run import ROOT

    page = (ROOT / "docs" / "man" / "dicomwatchctl.1").read_text()
    assert "standard input" in page and "identifier" in page
