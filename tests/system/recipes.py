"""The recipes of docs/disaster.md, taken from the page and run: its commands, and what it says that they print.

A block to be run stands under ``<!-- ci:disaster NAME -->``, or ``NAME, OTHER``, or with ``, exits 1`` behind; what it
prints, if that is told, in the block of text after it, where ``…`` stands for anything. The commands are those that an
administrator types as root. Here `systemctl`, `journalctl` and `findmnt` are small stand-ins for a machine with
one daemon; `dicomwatchctl`, `aws`, `jq` and `sqlite3` are the real ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.system.site import CTL, PYTHON, Site

PAGE = Path(__file__).parents[2] / "docs" / "disaster.md"
_BLOCK = re.compile(
    r"^(?P<indent> *)(?:\d+\. )?<!-- ci:disaster (?P<names>[a-z, ]+?)(?:, exits (?P<code>\d))? -->\n"
    r" *```sh\n(?P<commands>.*?)^ *```\n(?:\n? *```text\n(?P<said>.*?)^ *```\n)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    names: tuple[str, ...]
    commands: str
    said: tuple[str, ...]
    code: int


def steps(text: str | None = None) -> list[Step]:
    return [
        Step(
            tuple(found["names"].split(", ")),
            textwrap.dedent(found["commands"]),
            tuple(line for line in textwrap.dedent(found["said"] or "").splitlines() if line),
            int(found["code"] or 0),
        )
        for found in _BLOCK.finditer(PAGE.read_text() if text is None else text)
    ]


def recipe(name: str) -> list[Step]:
    found = [step for step in steps() if name in step.names]
    assert found, f"docs/disaster.md has no commands of {name}"
    return found


_SYSTEMCTL = """\
#!/bin/bash
# One service, whose process is the daemon; readiness is that it answers.
running() { [ -s "$HOST/pid" ] && grep -qv ') Z ' "/proc/$(cat "$HOST/pid")/stat" 2> /dev/null; }
stop() { if running; then kill "$(cat "$HOST/pid")"; while running; do sleep 0.05; done; fi; rm -f "$HOST/pid"; }
start() {
    running && return
    "$HOST_PYTHON" -m dicomwatchd --config "$HOST/config.yaml" < /dev/null >> "$HOST/daemon.log" 2>&1 &
    echo $! > "$HOST/pid"
    disown
    for _ in $(seq 600); do
        running || { echo "Job for dicomwatchd.service failed." >&2; exit 1; }
        dicomwatchctl status > /dev/null 2>&1 && return
        sleep 0.1
    done
    exit 1
}
case "$1 $2" in
    "start dicomwatchd" | "enable --now") start ;;
    "stop dicomwatchd" | "disable --now") stop ;;
    "restart dicomwatchd") stop; start ;;
    *) echo "systemctl $*: not known here" >&2; exit 2 ;;
esac
"""
_JOURNALCTL = """\
#!/bin/bash
# Entries as journald has them: the fields of the daemon's own lines under its names.
exec jq -c 'with_entries(.key |= "DICOMWATCHD_" + ascii_upcase)' "$HOST/daemon.log"
"""
_CTL = """\
#!/bin/bash
exec "$HOST_CTL" --config "$HOST/config.yaml" "$@"
"""
_FINDMNT = """\
#!/bin/bash
echo "TARGET SOURCE FSTYPE OPTIONS"
"""


class Host:
    """A machine with one daemon below the site's root, on which a person types commands."""

    def __init__(self, site: Site, environment: Mapping[str, str] | None = None) -> None:
        self.site = site
        programs = site.root / "bin"
        programs.mkdir()
        for name, text in (
            ("systemctl", _SYSTEMCTL),
            ("journalctl", _JOURNALCTL),
            ("dicomwatchctl", _CTL),
            ("findmnt", _FINDMNT),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.folder = site.root / "shell"
        self.folder.mkdir()
        self.environment = {
            **site.environment,
            **(environment or {}),
            "HOST": str(site.root),
            "HOST_PYTHON": PYTHON,
            "HOST_CTL": CTL,
            "PATH": os.pathsep.join([str(programs), str(Path(PYTHON).parent), site.environment["PATH"]]),
        }
        self.placed = {
            "/var/lib/dicomwatchd": str(site.state),
            "/etc/dicomwatchd": str(site.root),
            "/srv/dicom/inbox": str(site.inbox),
        }

    def follow(self, step: Step) -> str:
        """Run the commands of a step, and compare what they print; returns that."""
        commands = step.commands
        for said, here in self.placed.items():
            commands = commands.replace(said, here)
        done = subprocess.run(
            ["bash", "-uc", commands],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        printed = done.stdout + done.stderr
        told = f"{commands}\n--- gave {done.returncode}:\n{printed}\n--- the daemon:\n{self.site.log_tail(6)}"
        assert done.returncode == step.code, told
        for line in step.said:
            pattern = ".*".join(re.sub(r"(?:\\ )+", r"[ \t]+", re.escape(part)) for part in line.split("…"))
            assert re.search(f"^ *{pattern}", printed, re.MULTILINE), f"the page says {line!r}:\n{told}"
        return printed

    def type(self, commands: str, code: int = 0) -> str:
        """Commands that are not on the page."""
        return self.follow(Step((), commands, (), code))

    def start(self) -> None:
        self.type("systemctl start dicomwatchd")

    def kill(self) -> None:
        """As a power failure."""
        pid = self.site.root / "pid"
        if not pid.exists():
            return
        number = int(pid.read_text())
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        end = time.monotonic() + 10
        while _is_running(number):
            assert time.monotonic() < end
            time.sleep(0.02)
        pid.unlink()


def _is_running(number: int) -> bool:
    """A process that nobody has waited for is not running any more."""
    try:
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False
