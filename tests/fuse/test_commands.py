"""No command waits for an inbox that does not answer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import resolved_paths
from tests.fuse.mounted import Mounted
from tests.system.site import Site

#: Far more than any of them takes, far less than for ever.
PATIENCE = 60.0
STUDY = "1.2.3"


@pytest.fixture
def site(share: Mounted, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.config["inboxes"].append({"name": "share", "path": str(share.path), "watch": "poll"})
    site.write_config()
    site.init()
    yield site
    site.close()


COMMANDS: dict[tuple[str, ...], int] = {
    ("config", "check"): 0,
    ("archive", "init"): 0,
    ("verify", STUDY): 1,
    ("fetch", STUDY): 1,
    ("search",): 0,
    ("show", STUDY): 1,
    ("status",): 4,
    ("catalogue", "rebuild"): 0,
}


def test_a_hung_inbox_holds_up_no_command(site: Site, share: Mounted) -> None:
    share.hang()
    for command, status in COMMANDS.items():
        done = site.ctl(*command, check=False, timeout=PATIENCE)
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        if command == ("config", "check"):
            assert "inboxes[1].path: its file system does not answer" in done.stderr
    done = site.ctl("upload", str(share.path), check=False, timeout=PATIENCE)
    assert done.returncode != 0 and "does not answer" in done.stderr


def test_where_paths_lead_and_what_does_not_say(share: Mounted, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    share.hang()
    names = ["link/../folder", "file", "none", "share/DOE^JOHN/../x"]
    found = resolved_paths.resolve([tmp_path / name for name in names], 1.0)
    assert [(place.real.name, place.is_folder) for place in found.values()] == [
        ("folder", True),
        ("file", False),
        ("none", False),
        ("x", None),
    ]


def test_no_path_is_on_a_command_line(share: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    real = subprocess.Popen

    def popen(command: object, **named: Any) -> Any:
        started.append(command)
        return real(command, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    resolved_paths.resolve([tmp_path / "DOE^JOHN"])
    assert started and "DOE" not in str(started)
