"""The user of the web process may ask the daemon for what its pages need, over the real socket, and for no more."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from os import geteuid
from pathlib import Path

import pytest

from dicomwatchd.control.client import ControlClient, DaemonRefused
from dicomwatchd.control.limited import WEB_COMMANDS, limited
from dicomwatchd.control.server import Command, ControlServer
from tests.pieces import Log

#: All that a running daemon answers to (daemon.commands, and "top").
COMMANDS = (
    *("attention", "held", "inbox-list", "queue", "quarantine", "show", "stats", "prove", "upload-list"),
    *("upload-show", "status", "retry", "inbox-confirm", "release", "upload", "upload-folder", "upload-cancel"),
    *("drill", "doctor", "top"),
)
US = pwd.getpwuid(geteuid()).pw_name


def asked(tmp_path: Path, user: str) -> Iterator[ControlClient]:
    answers: dict[str, Command] = {name: lambda _request, _progress: "done" for name in COMMANDS}
    server = ControlServer(tmp_path / "control.sock", limited(answers, user), Log())
    server.start()
    yield ControlClient(tmp_path / "control.sock")
    server.stop()


@pytest.fixture
def as_the_web(tmp_path: Path) -> Iterator[ControlClient]:
    yield from asked(tmp_path, US)


@pytest.fixture
def as_another(tmp_path: Path) -> Iterator[ControlClient]:
    yield from asked(tmp_path, "somebody-else")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_web_process_gets_what_its_pages_need(as_the_web: ControlClient, command: str) -> None:
    if command in WEB_COMMANDS:
        assert as_the_web.call(command) == "done"
        return
    with pytest.raises(DaemonRefused, match="may not ask for that"):
        as_the_web.call(command)


def test_others_get_what_they_got(as_another: ControlClient) -> None:
    assert [as_another.call(command) for command in COMMANDS] == ["done"] * len(COMMANDS)


def test_what_it_may_is_what_it_asks_for() -> None:
    """No command is left to it that no page uses."""
    import dicomwatchd.web.pages as pages

    code = "".join(path.read_text() for path in Path(pages.__file__).parent.rglob("*.py"))
    assert all(f'"{command}"' in code for command in WEB_COMMANDS)
