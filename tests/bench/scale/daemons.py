"""The real daemon with much on its hands: what an answer takes, what doing nothing costs, how fast studies get through.

The archive is the embedded one, on the same disk.
"""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.scale.files import Press, inbox_of
from tests.bench.scale.inboxes import know
from tests.bench.scale.rows import Row
from tests.bench.scale.states import FILES_A_STUDY, Costs, State, filled
from tests.system.site import Site

STATUS_GOAL_MS = 100.0
IDLE_GOAL_PERCENT = 0.2
DELAY_GOAL_SECONDS = 2.0
#: How long the whole command may take is told, and is no goal: it is the start of Python and its imports.
_ANSWERS, _COMMANDS = 30, 5


@contextmanager
def daemon(site: Site) -> Iterator[int]:
    """Its process id."""
    site.start()
    try:
        assert site.daemon is not None
        yield site.daemon.pid
        site.stop()
    finally:
        site.close()


# -- status -----------------------------------------------------------------------------------------------------------


def status(folder: Path, work: Path, files: int) -> list[Row]:
    """Every study waits for its next try, as after an outage, so the daemon leaves them alone."""
    site = Site(work / "status", log_level="INFO")
    site.init()
    shutil.rmtree(site.state)
    state = filled(folder, files, site.state)
    with state.queue._database.write() as db:
        db.execute("UPDATE studies SET not_before = ?", (time.time() + 3000,))
    state.close()
    with daemon(site):
        found = _ask(site.state / "control.sock")
        assert found["files"]["ready"] == files and found["studies"]["queued"] == files // FILES_A_STUDY
        answers = [_seconds(lambda: _ask(site.state / "control.sock")) * 1e3 for _ in range(_ANSWERS)]
        commands, bare = (
            [_seconds(lambda: site.ctl("status", *options)) * 1e3 for _ in range(_COMMANDS)]  # noqa: B023
            for options in ((), ("--socket", str(site.state / "control.sock")))
        )
    return [
        Row(
            f"{files:,} files queued",
            "status: the daemon's answer",
            statistics.median(answers),
            "ms",
            STATUS_GOAL_MS,
            {
                "max ms": max(answers),
                "dicomwatchctl status as a process, ms": statistics.median(commands),
                "with --socket, which reads no configuration, ms": statistics.median(bare),
            },
        )
    ]


def _ask(path: Path) -> Any:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b'{"command": "status"}\n')
        with connection.makefile("rb") as lines:
            reply = json.loads(lines.readline())
    assert reply["ok"]
    return reply["result"]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# -- doing nothing ----------------------------------------------------------------------------------------------------


def idle(folder: Path, work: Path, files: int, seconds: float) -> list[Row]:
    """All files are archived and kept, and events are watched for; the next scan is far away."""
    inbox = inbox_of(folder, files // FILES_A_STUDY, FILES_A_STUDY)
    site = Site(work / "idle", inbox={"after_archive": "keep", "path": str(inbox)}, scan_interval_seconds=3600)
    site.config |= {"workers": 16, "log_level": "INFO"}
    site.config["inboxes"][0] |= {"settle_seconds": 2, "quiet_seconds": 60}
    site.write_config()
    site.init()
    state = State(site.state, inbox, "inbox1")
    know(state, inbox, quiet_seconds=0)
    costs = Costs()
    for _ in range(files // FILES_A_STUDY):
        state.ship(costs, keep=True)
    state.close()
    with daemon(site) as pid:
        socket_path = site.state / "control.sock"
        site.wait_for(lambda: _ask(socket_path)["inboxes"][0]["last_scan_at"] is not None, 120, "the first scan")
        time.sleep(5)  # and the one for the watcher
        counts = _ask(socket_path)
        assert counts["files"] == {"kept": files}, "it has work to do"
        rates = []
        for _ in range(3):
            before, begun = cpu_seconds(pid), time.monotonic()
            time.sleep(seconds / 3)
            rates.append((cpu_seconds(pid) - before) / (time.monotonic() - begun) * 100)
        whole = counts["inboxes"][0]["last_scan_seconds"]
    return [
        Row(
            f"{files:,} files known and kept",
            "idle daemon, between two scans",
            statistics.median(rates),
            "% of a core",
            IDLE_GOAL_PERCENT,
            {"min": min(rates), "max": max(rates), "seconds watched": seconds, "a scan takes, s": whole},
        )
    ]


def cpu_seconds(pid: int) -> float:
    """Of all its threads, those that have ended among them, to the nanosecond: its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


# -- arriving ---------------------------------------------------------------------------------------------------------


def arriving(
    work: Path, *, seconds: float, files_a_second: int = 50, settle_seconds: float, quiet_seconds: float = 10.0
) -> list[Row]:
    """Five modalities send at once, each one study after the other, none ending with another; from a study's last slice
    to its end."""
    site = Site(work / f"arriving-{settle_seconds}", scan_interval_seconds=60)
    site.config |= {"workers": 16, "log_level": "INFO"}
    site.config["inboxes"][0] |= {"settle_seconds": settle_seconds, "quiet_seconds": quiet_seconds}
    site.write_config()
    site.init()
    last: dict[str, float] = {}
    ended = threading.Event()
    answers: list[float] = []

    def ask_now_and_then() -> None:
        while not ended.wait(2):
            answers.append(_seconds(lambda: _ask(site.state / "control.sock")) * 1e3)

    with daemon(site) as pid:
        asking = threading.Thread(target=ask_now_and_then)
        asking.start()
        try:
            begun = time.monotonic()
            files = _send(site.inbox, seconds, files_a_second, last)
            took = time.monotonic() - begun
            site.wait_until_empty(quiet_seconds + 120)
        finally:
            ended.set()
            asking.join()
        site.wait_for(lambda: _ask(site.state / "control.sock")["studies"] == {"archived": len(last)}, 60, "the end")
        cpu = cpu_seconds(pid)
    delays = sorted(_ends(site)[uid] - at - quiet_seconds for uid, at in last.items())
    case = f"{files / took:.0f} files/s arriving for {took:.0f} s"
    return [
        Row(
            case,
            f"last slice to archived, above the quiet time of {quiet_seconds:g} s, settling {settle_seconds:g} s: 95 %",
            delays[int(len(delays) * 0.95)],
            "s",
            DELAY_GOAL_SECONDS,
            {"median": statistics.median(delays), "max": delays[-1], "studies": len(delays), "files": files},
        ),
        Row(
            case,
            "status meanwhile: the daemon's answer",
            statistics.median(answers),
            "ms",
            STATUS_GOAL_MS,
            {"max ms": max(answers), "CPU of the daemon, % of a core": cpu / (took + quiet_seconds) * 100},
        ),
    ]


def _send(inbox: Path, seconds: float, files_a_second: int, last: dict[str, float]) -> int:
    press, modalities = Press(), 5
    total = int(seconds * files_a_second) // (modalities * FILES_A_STUDY) * modalities * FILES_A_STUDY
    begun = time.monotonic()
    for count in range(total):
        lap, modality = divmod(count, modalities)
        sent = lap + modality * FILES_A_STUDY // modalities
        study, number = sent // FILES_A_STUDY * modalities + modality, sent % FILES_A_STUDY
        folder = inbox / f"MOD{modality}" / f"ST{study:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        content = press.instance(study, number)
        time.sleep(max(0.0, begun + count / files_a_second - time.monotonic()))
        (folder / f"IM{number:04d}").write_bytes(content)
        last[press.study_uid(study)] = time.time()
    return total


def _ends(site: Site) -> dict[str, float]:
    with sqlite3.connect(f"file:{site.state / 'state.db'}?mode=ro", uri=True) as db:
        return dict(db.execute("SELECT study_uid, MAX(finished_at) FROM shipments GROUP BY study_uid"))
