"""The manual pages are true: every command, option and configuration key, and none that does not exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import root
from dicomwatchd.cli.lazy import DefaultGroup
from dicomwatchd.cli.studies.access import ArchiveOptions
from dicomwatchd.config.whole import Config

MAN = Path(__file__).parents[2] / "docs" / "man"
_OPTION = re.compile(r"(?<![\w-])--?[a-z](?:[a-z0-9-]*[a-z0-9])?(?![\w-])")
SHARED = {"--json", "--wide", "--socket", "--limit", "--days"}


def page(name: str) -> str:
    """The page's source with its hyphens as they are printed."""
    return (MAN / name).read_text(encoding="ascii").replace("\\-", "-")


def sections(text: str, macro: str) -> dict[str, str]:
    """Heading -> what follows it."""
    parts = re.split(rf'^\.{macro} "?(.*?)"?$', text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, DefaultGroup):
            yield path + name, command.default
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in [*parameter.opts, *parameter.secondary_opts]
    }


ARCHIVE = {"--" + name.replace("_", "-") for name in ArchiveOptions.__dataclass_fields__}


def archive_options(command: click.Command) -> set[str]:
    """Those that are described once for all commands; `setup` has some of the same names for what it writes down."""
    own = options_of(command)
    return own & ARCHIVE if "--bucket" in own else set()


def test_the_page_has_every_command_with_its_options_and_no_other() -> None:
    text = page("dicomwatchctl.1")
    described = {
        re.split(r" (?=\[|STUDY|FOLDER|ID|NAME|--)", heading)[0]: heading + body
        for heading, body in sections(sections(text, "SH")["COMMANDS"], "SS").items()
    }
    existing = dict(commands(root))
    assert list(described) == list(existing), "in the order of --help"
    for name, command in existing.items():
        own, of_archive = options_of(command), archive_options(command)
        assert set(_OPTION.findall(described[name].replace("|", " "))) == own - of_archive, name
        assert ("[archive options]" in described[name]) == bool(of_archive), name
        assert of_archive in (set(), ARCHIVE, ARCHIVE - {"--no-catalogue"}), name
        for argument in (p for p in command.params if isinstance(p, click.Argument)):
            assert f" {argument.metavar}" in described[name]


def test_the_shared_options_are_described() -> None:
    parts = sections(page("dicomwatchctl.1"), "SH")
    assert set(_OPTION.findall(parts["ARCHIVE OPTIONS"])) == ARCHIVE
    assert set(_OPTION.findall(parts["DAEMON OPTIONS"])) == {"--socket"}
    assert set(_OPTION.findall(parts["OPTIONS"])) == options_of(root) | {"-h", "--help"}


def test_options_of_one_command_are_explained_and_not_only_named() -> None:
    described = sections(sections(page("dicomwatchctl.1"), "SH")["COMMANDS"], "SS")
    for name, command in commands(root):
        body = next(
            body
            for heading, body in described.items()
            if re.split(r" (?=\[|STUDY|FOLDER|ID|NAME|--)", heading)[0] == name
        )
        for option in options_of(command) - archive_options(command) - SHARED:
            assert re.search(rf"^\.B\w* .*{re.escape(option)}\b", body, flags=re.MULTILINE), (name, option)


def test_exit_codes() -> None:
    described = sections(page("dicomwatchctl.1"), "SH")["EXIT STATUS"]
    found = re.findall(r"^\.B (\d+)\n(.*)$", described, flags=re.MULTILINE)
    assert {int(code): said.rstrip(".").lower() for code, said in found} == {
        code: meaning.lower() for code, meaning in exits.MEANING.items()
    }


def test_the_daemons_page_has_its_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dicomwatchd", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    existing = set(_OPTION.findall(done.stdout.partition("exit status")[0]))
    assert set(_OPTION.findall(sections(page("dicomwatchd.8"), "SH")["OPTIONS"])) == existing
    codes = set(re.findall(r"^  (\d+)  ", done.stdout, flags=re.MULTILINE))
    described = sections(page("dicomwatchd.8"), "SH")["EXIT STATUS"]
    assert set(re.findall(r"^\.B (\d+)$", described, flags=re.MULTILINE)) == codes and codes


def test_the_receiver_s_page_is_true() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dicomwatchd.receiver", "--help"], capture_output=True, text=True, check=True
    )
    described = sections(page("dicomwatchd-receive.8"), "SH")
    assert set(_OPTION.findall(described["OPTIONS"])) == set(_OPTION.findall(done.stdout.partition("exit status")[0]))
    codes = set(re.findall(r"^  (\d+)  ", done.stdout, flags=re.MULTILINE))
    assert set(re.findall(r"^\.B (\d+)$", described["EXIT STATUS"], flags=re.MULTILINE)) == codes and codes


def test_the_web_process_s_page_is_true() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dicomwatchd.web.process", "--help"], capture_output=True, text=True, check=True
    )
    described = sections(page("dicomwatchd-web.8"), "SH")
    assert set(_OPTION.findall(described["OPTIONS"])) == set(_OPTION.findall(done.stdout.partition("exit status")[0]))
    codes = set(re.findall(r"^  (\d+)  ", done.stdout, flags=re.MULTILINE))
    assert set(re.findall(r"^\.B (\d+)$", described["EXIT STATUS"], flags=re.MULTILINE)) == codes and codes


def keys_of(*models: str) -> set[str]:
    schema: dict[str, Any] = Config.model_json_schema()
    found = [schema if name == "Config" else schema["$defs"][name] for name in models]
    return {key for model in found for key in model["properties"]}


@pytest.mark.parametrize(
    ("section", "models"),
    [
        ("TOP LEVEL", ["Config"]),
        ("INBOXES", ["Inbox"]),
        ("RECEIVERS", ["Receiver"]),
        ("ALLOW", ["AllowedPeer"]),
        ("TLS", ["ReceiverTls"]),
        ("COMMITMENT", ["Commitment"]),
        ("RESTORE DRILL", ["RestoreDrill"]),
        ("SITE", ["Site"]),
        ("SITES", ["Sites"]),
        ("ALARMS", ["Alarms"]),
        ("STORE", ["S3Settings", "DirectorySettings"]),
        ("TAG", ["ObjectTag"]),
        ("ENCRYPTION", ["Encryption"]),
        ("LAYOUT", ["InstanceLayout", "BundledLayout"]),
        ("CATALOGUE", ["DynamoDBSettings", "SqliteSettings"]),
        ("DESTINATIONS", ["Destination"]),
        ("TLS OF A DESTINATION", ["DestinationTls"]),
        ("METRICS", ["Metrics"]),
        ("WEB", ["Web"]),
        ("TLS OF WEB", ["WebTls"]),
        ("PROXY OF WEB", ["WebProxy"]),
        ("OIDC OF WEB", ["WebOidc"]),
        ("ROLES OF WEB", ["WebRoles"]),
        ("SESSIONS OF WEB", ["WebSessions"]),
        ("LIMITS OF WEB", ["WebLimits"]),
    ],
)
def test_the_configuration_page_has_every_key(section: str, models: list[str]) -> None:
    described = sections(page("dicomwatchd.yaml.5"), "SH")[section]
    listed = re.findall(r"^\.TP\n\.B (\S+)$", described, flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) and set(listed) == keys_of(*models)


def test_every_part_of_the_configuration_has_its_section() -> None:
    covered = {
        "Inbox",
        "Receiver",
        "AllowedPeer",
        "ReceiverTls",
        "Commitment",
        "RestoreDrill",
        "Site",
        "Sites",
        "Alarms",
        "S3Settings",
        "DirectorySettings",
        "ObjectTag",
        "Encryption",
        "InstanceLayout",
        "BundledLayout",
        "DynamoDBSettings",
        "SqliteSettings",
        "Archive",
        "DeleteAfter",
        "Destination",
        "DestinationTls",
        "ExpiryAfter",
        "Metrics",
        "Web",
        "WebTls",
        "WebProxy",
        "WebOidc",
        "WebRoles",
        "WebSessions",
        "WebLimits",
    }
    assert set(Config.model_json_schema()["$defs"]) == covered
    assert "delete_after" in page("dicomwatchd.yaml.5")


def test_defaults_are_those_of_the_program() -> None:
    schema = Config.model_json_schema()
    parts = sections(page("dicomwatchd.yaml.5"), "SH")
    for section, model in (
        ("TOP LEVEL", schema),
        ("INBOXES", schema["$defs"]["Inbox"]),
        ("ALARMS", schema["$defs"]["Alarms"]),
    ):
        numbers = {
            key: value["default"]
            for key, value in model["properties"].items()
            if isinstance(value.get("default"), int | float)
        }
        assert len(numbers) >= 2
        for key, default in numbers.items():
            entry = parts[section].partition(f".B {key}\n")[2].partition(".TP")[0]
            said = str(default).lower() if isinstance(default, bool) else f"{default:.12g}"
            assert f"Default: {said}." in entry, key


@pytest.mark.parametrize("name", ["dicomwatchctl.1", "dicomwatchd.8", "dicomwatchd.yaml.5"])
def test_the_pages_are_well_formed(name: str) -> None:
    assert page(name).isascii()
    if shutil.which("groff") is None:
        pytest.skip("SKIPPED: groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", str(MAN / name)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
