"""dicomwatchctl as a program: help, exit codes, start-up, and what may not reach a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import COMMANDS, DEFAULT_CONFIG, root
from dicomwatchd.cli.lazy import LazyGroup
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.config import loading
from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import (
    ArchiveRefused,
    ConfigError,
    DicomwatchdError,
    Misconfigured,
    NotInitialised,
    OutOfReach,
    StudyNotFound,
)
from tests import schemas

PROGRAM = Path(sys.executable).with_name("dicomwatchctl")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROGRAM), *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_and_every_exit_code() -> None:
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for name, entry in COMMANDS.items():
        assert f"  {name} " in done.stdout and entry.short_help in done.stdout
    for code, meaning in exits.MEANING.items():
        assert f"{code} " in done.stdout and meaning in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None and command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].short_help


def test_version() -> None:
    from dicomwatchd import __version__

    assert run("--version").stdout == f"dicomwatchctl, version {__version__}\n"


def test_default_configuration_is_the_daemons() -> None:
    assert DEFAULT_CONFIG == loading.DEFAULT_PATH


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys, atexit\n"
        "heavy = 'boto3 botocore pydicom pydantic yaml rich psutil watchdog sqlite3'.split()\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        "sys.argv = ['dicomwatchctl', '--help']\n"
        "from dicomwatchd.cli import main\n"
        "main()\n"
    )
    # Measuring coverage imports things of its own, and takes time.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - begun)
        assert done.stdout.endswith("HEAVY []\n"), done.stdout[-200:]
    assert min(times) < 1.0, times


def test_the_daemons_socket_is_known_without_pydantic() -> None:
    """Commands that only ask the daemon are quick."""
    code = "import sys; from dicomwatchd.config.text import named_socket; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("fetch",),
        ("fetch", "not-a-uid"),
        ("fetch", "1.2.3/../../etc"),
        ("fetch", "1.2.3", "--series", "x"),
        ("verify", "1..2"),
        ("search", "--date", "2026-13-01.."),
        ("search", "--date", "yesterday"),
        ("search", "--date", "20260202..20260101"),
        ("search", "--date", ".."),
        ("fetch", "1.2", "--bucket", "b", "--directory", "d"),
        ("fetch", "1.2", "--bucket", "bucket", "--table", "t123", "--catalogue-file", "f"),
        ("fetch", "1.2", "--table", "t123"),
        ("upload", "/does/not/exist"),
        ("--config", "/does/not/exist.yaml", "status"),
        ("--config", "/does/not/exist.yaml", "fetch", "1.2"),
        ("--config", "/does/not/exist.yaml", "archive", "init"),
        ("fetch", "1.2", "--bucket", "bucket", "--endpoint-url", "http://localhost:1"),
    ],
)
def test_wrong_usage_is_2_and_said_in_a_few_lines(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(root, list(arguments))
    assert result.exit_code == 2 and result.stdout == ""
    assert 0 < len(result.stderr.splitlines()) <= 5 and "Traceback" not in result.stderr


def test_an_option_is_named_and_not_a_place_in_a_file_that_is_not_there() -> None:
    result = CliRunner().invoke(root, ["fetch", "1.2", "--bucket", "bucket", "--endpoint-url", "http://localhost:1"])
    assert "--endpoint-url: " in result.stderr and "archive.store" not in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([("inboxes", "is missing")]), 2),
        (Misconfigured("no region"), 2),
        (NotInitialised("no bucket"), 3),
        (ArchiveRefused("another archive"), 3),
        (OutOfReach("down"), 3),
        (DaemonUnreachable("not running"), 4),
        (DaemonRefused("unknown", code="study-not-found"), 1),
        (DaemonRefused("down", code="out-of-reach"), 3),
        (StudyNotFound("no such study"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_documented_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: object) -> None:
        raise error

    monkeypatch.setattr(DEFAULT_CONFIG.__class__, "read_text", failing)
    result = CliRunner().invoke(root, ["status"])
    assert result.exit_code == code and result.stdout == ""
    assert code in exits.MEANING
    if isinstance(error, DicomwatchdError):
        first, *_ = result.stderr.splitlines()
        assert first.startswith("dicomwatchctl: ")


def test_a_hint_follows_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: object) -> None:
        raise NotInitialised("there is no bucket", hint="dicomwatchctl archive init")

    monkeypatch.setattr(DEFAULT_CONFIG.__class__, "read_text", failing)
    result = CliRunner().invoke(root, ["status"])
    assert result.stderr == "dicomwatchctl: there is no bucket\ndicomwatchctl archive init\n"


def test_a_bug_is_not_taken_for_an_expected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(DEFAULT_CONFIG.__class__, "read_text", failing)
    assert isinstance(CliRunner().invoke(root, ["status"]).exception, RuntimeError)


# --- what goes to the terminal ------------------------------------------------------------------------------


def test_ctrl_c_before_there_is_a_command() -> None:
    """All is imported then, which takes a moment; nobody is to see where."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'dicomwatchd.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from dicomwatchd.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (exits.INTERRUPTED, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["top", "config check"])
def test_standard_streams_that_the_caller_has_closed(arguments: str, closed: str, tmp_path: Path) -> None:
    """As by a script that wants the exit code alone: it is the same, and nothing ends in a fault."""
    command = f"{PROGRAM} --config {tmp_path}/none.yaml {arguments}"
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (exits.USAGE, ""), done.stderr
    assert "Traceback" not in done.stderr
    if "2>" not in closed:
        assert "none.yaml: 1 problem" in done.stderr
    version = ["sh", "-c", f"{PROGRAM} --version {closed}"]
    done = subprocess.run(version, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (exits.OK, False)


@pytest.mark.parametrize("asked", ["schema", "check"])  # a document, and a sentence
def test_a_full_disk_under_the_answer_is_said_in_a_line(config_file: Path, asked: str) -> None:
    program = [sys.executable, "-c", "from dicomwatchd.cli import main; main()"]
    command = [*program, "--config", str(config_file), "config", asked]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "the answer cannot be written whole: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_that_steers_a_terminal_gets_through() -> None:
    hostile = "a\x1b[31mred\x07\r\nb\x9b2J\u202ec\u2028d\udc80e\x7f\t"
    cleaned = output.clean(hostile)
    assert cleaned == "a\ufffd[31mred\ufffd\ufffd\ufffdb\ufffd2J\ufffdc\ufffdd\ufffde\ufffd\ufffd"
    cleaned.encode("utf-8")
    assert output.clean("Müller^Jürgen 山田^太郎 [bold]x[/bold]") == "Müller^Jürgen 山田^太郎 [bold]x[/bold]"


def test_no_control_and_no_format_character_of_unicode_gets_through() -> None:
    """All of them: also U+061C, U+200B, soft hyphens, tags, lone surrogates; and every letter stays."""
    for number in range(0x110000):
        character = chr(number)
        category = unicodedata.category(character)
        shown = output.clean(f"a{character}b")
        assert shown == ("a\ufffdb" if category in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn") else f"a{character}b"), number
    for named in "\u061c\u200b\u200e\u202e\u2066\u2028\ufeff\u00ad\U000e0041\x1b\x9b\x7f\udc80":
        assert output.clean(named) == "\ufffd"
    assert output.clean("Mü\u0308ller\u00a0山田 \U0001f600") == "Mü\u0308ller\u00a0山田 \U0001f600"


@pytest.mark.parametrize("say", [output.say, output.note, lambda text: output.pairs([("a", text)])])
def test_whatever_says_a_line_cleans_it(say: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    say("x\x1b[2J\u200b\u061c\U000e0041y")
    said = capsys.readouterr()
    assert "x\ufffd[2J\ufffd\ufffd\ufffdy\n" in said.out + said.err


def test_a_json_answer_is_printable_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "x\x1b\x7f\x9b\u200b\u202e\U000e0041\udc80é"
    output.document({"name": hostile, hostile: 1})
    said = capsys.readouterr().out
    assert all(" " <= character <= "~" or character == "\n" for character in said)
    assert json.loads(said) == {"name": hostile, hostile: 1}


def test_tables_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tables.table(("A", "B"), [("x\ty", None), (1, "[red]z[/red]")])
    assert capsys.readouterr().out == "A\tB\nx\ufffdy\t\n1\t[red]z[/red]\n"


def test_tables_on_a_terminal_show_text_as_it_is() -> None:
    """Through a pseudo-terminal, which is what rich takes for one."""
    import pty

    code = (
        "from dicomwatchd.cli.terminal import tables;"
        "tables.table(('A','B'), [('[red]z[/red]', 'e\\x1b[31mvil :smile:')])"
    )
    shown = b""

    def keep(fd: int) -> bytes:
        nonlocal shown
        import os

        data = os.read(fd, 1024)
        shown += data
        return data

    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    while True:
        try:
            if not keep(fd):
                break
        except OSError:
            break
    os.waitpid(pid, 0)
    os.close(fd)
    assert b"[red]z[/red]" in shown and b"e\xef\xbf\xbd[31mvil :smile:" in shown


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (output.size, 0, "0 B"),
        (output.size, 999, "999 B"),
        (output.size, 1234567, "1.2 MB"),
        (output.size, 5e12, "5.0 TB"),
        (output.duration, 0.4, "0 s"),
        (output.duration, 61, "1 min 1 s"),
        (output.duration, 93784, "1 d 2 h"),
    ],
)
def test_figures_for_people(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text


# --- config -------------------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    for name in ("inbox", "state"):
        (tmp_path / name).mkdir()
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
state_directory: {tmp_path}/state
inboxes:
  - {{name: ct1, path: {tmp_path}/inbox}}
archive:
  store: {{kind: directory, path: {tmp_path}/archive}}
  catalogue: {{kind: sqlite, path: {tmp_path}/archive/catalogue.db}}
"""
    )
    return path


def test_config_check_of_a_good_file(config_file: Path) -> None:
    result = CliRunner().invoke(root, ["--config", str(config_file), "config", "check"])
    assert result.exit_code == 0 and result.stdout == f"{config_file} is valid.\n" and result.stderr == ""


def test_config_check_names_every_problem_on_its_own_line(config_file: Path, tmp_path: Path) -> None:
    text = config_file.read_text().replace(f"path: {tmp_path}/inbox", f"path: {tmp_path}/inbox, quiet_seconds: -1")
    config_file.write_text(text + "surprise: 1\n")
    result = CliRunner().invoke(root, ["--config", str(config_file), "config", "check"])
    assert result.exit_code == 2 and result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"dicomwatchctl: {config_file}: 2 problems"
    assert sorted(lines[1:]) == ["inboxes[0].quiet_seconds: must be >= 0", "surprise: is not a known key"]

    as_json = CliRunner().invoke(root, ["--config", str(config_file), "config", "check", "--json"])
    assert as_json.exit_code == 2 and as_json.stderr == ""
    found = json.loads(as_json.stdout)
    schemas.check("config-check", found)
    assert found["ok"] is False
    assert {"where": "inboxes[0].quiet_seconds", "reason": "must be >= 0"} in found["problems"]


def test_config_check_looks_for_the_folders(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").rmdir()
    result = CliRunner().invoke(root, ["--config", str(config_file), "config", "check"])
    assert result.exit_code == 2 and "inboxes[0].path: " in result.stderr


def test_config_schema_is_a_json_schema() -> None:
    result = CliRunner().invoke(root, ["config", "schema"])
    assert result.exit_code == 0
    assert {"archive", "inboxes", "workers"} <= json.loads(result.stdout)["properties"].keys()


def test_every_command_that_reads_answers_in_json() -> None:
    reading = {"status", "queue", "show", "quarantine", "stats", "fetch", "verify", "search"}
    context = click.Context(root)
    for name in reading:
        command = root.get_command(context, name)
        assert command is not None and any("--json" in p.opts for p in command.params), name
    assert isinstance(root, LazyGroup)
