"""What the command line says to who has mistyped something: the next step, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomwatchd.cli.app import root

STUDY = "1.2.840.99999.1"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean stats or status?"),
        (["quarantaine"], "Did you mean quarantine?"),
        (["zzz"], "No such command 'zzz'."),
        (["fetch"], "`dicomwatchctl search` finds a study's UID"),
        (["verify"], "`dicomwatchctl search` finds a study's UID"),
        (["status", "--config", "x"], "--config must come before the command: dicomwatchctl --config FILE COMMAND"),
        (["verify", STUDY, "--bucket", "abc", "--endpoint-url", "http://127.0.0.1:1"], "or add --insecure-http"),
        (["search", "--date", "yesterday"], "a date is YYYYMMDD or YYYY-MM-DD"),
    ],
)
def test_hints(arguments: list[str], hint: str) -> None:
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert ("Did you mean" in result.stderr) == ("Did you mean" in hint)


def test_a_wrong_path_is_named_at_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
state_directory: {tmp_path}
archive:
  store: {{kind: directory, path: {tmp_path}-archive}}
  catalogue: {{kind: sqlite, path: {tmp_path}-archive/catalogue.db}}
inboxes:
  - {{name: ct1, path: {tmp_path}-inbox/ct1}}
  - {{name: ct2, path: {tmp_path}-inbox/ct2, quite_seconds: 3}}
"""
    )
    said = CliRunner().invoke(root, ["--config", str(config), "config", "check"])
    assert said.exit_code == 2
    assert f"inboxes[0].path: is not a folder: no such file or folder ({tmp_path}-inbox/ct1)" in said.stderr
    assert "inboxes[1].quite_seconds: is not a known key; did you mean quiet_seconds?" in said.stderr
