"""`top` in a terminal, on a real daemon at work: what it shows, how it ends, and that the terminal is as it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dicomwatchd.control.client import ControlClient
from tests.synthetic import Maker, Patient
from tests.system.site import CTL, Site
from tests.terminal import Terminal

#: So many bytes are sent in a second, so that a study is on its way for a while.
SLOWLY = "3MB/s"
MARKER = "CANARY^JANE"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, bandwidth={"default": SLOWLY}, workers=4)
    site.init()
    yield site
    site.close()


def watching(site: Site, *arguments: str, **more: Any) -> Terminal:
    environment = {"TERM": "xterm-256color", "COLUMNS": "33", "LINES": "11", **more.pop("environment", {})}
    return Terminal([CTL, "--config", site.config_file, "top", *arguments], environment=environment, **more)


@pytest.fixture
def terminal(site: Site) -> Iterator[Terminal]:
    site.start()
    terminal = watching(site)
    yield terminal
    terminal.close()


def test_a_study_is_followed_to_the_archive(site: Site, terminal: Terminal) -> None:
    """By its stage and its progress, which grows; then it is among those archived last."""
    terminal.wait_for_text("dicomwatchd", "No study is on its way.", "inbox1")
    assert terminal.is_alternate and terminal.is_cursor_hidden and terminal.modes == (False, False)
    made = Maker(seed=61, patient=Patient.marked(MARKER)).ct_series(site.inbox / MARKER, slices=60)
    uid = made[0].study_uid
    short = uid[:10]
    shares: list[int] = []
    stages: set[str] = set()

    def followed() -> bool:
        row = next((line for line in terminal.text.splitlines() if line.startswith(short) and "ago" not in line), "")
        if match := re.search(r"(arriving|queued|uploading|verifying|recording|purging)", row):
            stages.add(match[1])
        if (match := re.search(r"(\d+)/(\d+)", row)) and "uploading" in row:
            shares.append(int(match[1]))
            assert int(match[2]) == len(made)
        return "ARCHIVED LAST" in terminal.text

    terminal.wait_for(followed, 90, "the study to be archived")
    assert {"arriving", "uploading"} & stages, stages
    sent_while_it_was_seen = shares or [0]
    assert sent_while_it_was_seen == sorted(sent_while_it_was_seen)

    def is_named_as_archived() -> bool:
        line = terminal.text.partition("ARCHIVED LAST")[2]
        return short in line and f"{len(made)} files" in line

    terminal.wait_for(is_named_as_archived, 60, "its line among those archived last")
    terminal.wait_for_text("1 archived")
    assert not site.left()
    everything = terminal.raw.decode()
    for word in (MARKER, "JANE", str(site.inbox)):
        assert word not in everything
    terminal.type("q")
    assert terminal.wait_for_end() == 0
    assert (terminal.is_alternate, terminal.is_cursor_hidden, terminal.modes) == (False, False, (True, True))
    assert "Traceback" not in terminal.outside


def test_a_rate_is_seen_while_something_is_sent(site: Site, terminal: Terminal) -> None:
    terminal.wait_for_text("No study is on its way.")
    Maker(seed=62).ct_series(site.inbox, slices=60)
    terminal.wait_for(lambda: re.search(r"Sending [1-9][\d.]* [kM]B/s, [1-9]", terminal.text), 60, "a rate")
    terminal.resize(120, 30)
    terminal.wait_for_text("Limit 3.0 MB/s")


@pytest.mark.parametrize("size", [(132, 50), (40, 12), (80, 24)])
def test_another_size_is_taken_at_once(site: Site, terminal: Terminal, size: tuple[int, int]) -> None:
    """Whatever the environment says: what it says stays as it was when the terminal changes."""
    terminal.wait_for_text("dicomwatchd", "q quit")
    terminal.resize(*size)
    begun = time.monotonic()
    terminal.wait_for(lambda: terminal.text.splitlines()[-1].startswith("q quit"), 60, "the last line")
    assert time.monotonic() - begun < 30
    assert terminal.text.startswith("dicomwatchd ")


def test_a_daemon_that_goes_is_missed_and_found_again(site: Site, terminal: Terminal) -> None:
    terminal.wait_for_text("running for")
    site.stop(signal.SIGKILL)
    terminal.wait_for_text("THE DAEMON IS NOT RUNNING since", "inbox1")
    site.start()
    terminal.wait_for(lambda: "NOT RUNNING" not in terminal.text and "running for" in terminal.text)
    assert site.daemon is not None
    site.daemon.send_signal(signal.SIGSTOP)
    try:
        terminal.wait_for_text("THE DAEMON DOES NOT ANSWER", seconds=60)
        begun = time.monotonic()
        terminal.type("q")  # while it is waited for an answer
        assert terminal.wait_for_end() == 0 and time.monotonic() - begun < 9.5, "its answer may take ten seconds"
    finally:
        site.daemon.send_signal(signal.SIGCONT)


def test_it_waits_for_a_daemon_that_is_not_there_yet(site: Site) -> None:
    terminal = watching(site)
    try:
        terminal.wait_for_text("THE DAEMON IS NOT RUNNING since")
        site.start()
        terminal.wait_for_text("running for", "inbox1")
        terminal.type("\x03")
        assert terminal.wait_for_end() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_is_given_back_whatever_ends_it(terminal: Terminal, number: signal.Signals) -> None:
    terminal.wait_for_text("running for")
    terminal.signal(number)
    assert terminal.wait_for_end() == (0 if number is signal.SIGINT else 128 + number)
    assert (terminal.is_alternate, terminal.is_cursor_hidden, terminal.modes) == (False, False, (True, True))


def test_the_terminal_is_given_back_by_a_crash(site: Site) -> None:
    site.start()
    code = (
        "from dicomwatchd.cli.top import watch\n"
        "shown = watch.screen\n"
        "def crash(seen, *args, **more):\n"
        "    if seen.said: raise ZeroDivisionError('a bug')\n"
        "    return shown(seen, *args, **more)\n"
        "watch.screen = crash\n"
        "from dicomwatchd.cli.app import root\n"
        f"root.main(['--config', {str(site.config_file)!r}, 'top'])\n"
    )
    terminal = Terminal([sys.executable, "-c", code], environment={"TERM": "xterm"})
    try:
        assert terminal.wait_for_end(30) == 1
        assert (terminal.is_alternate, terminal.is_cursor_hidden, terminal.modes) == (False, False, (True, True))
        assert "ZeroDivisionError: a bug" in terminal.outside, "where a person can read it"
    finally:
        terminal.close()


def test_it_can_be_put_aside_and_taken_up_again(site: Site, terminal: Terminal) -> None:
    terminal.wait_for_text("running for")
    process = psutil.Process(terminal.pid)
    terminal.signal(signal.SIGTSTP)
    terminal.wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    terminal.wait_for(lambda: not terminal.is_alternate)  # what it wrote before it stopped is read by a thread
    assert terminal.modes == (True, True)
    terminal.signal(signal.SIGCONT)
    terminal.wait_for(lambda: terminal.is_alternate and "running for" in terminal.text)
    assert terminal.modes == (False, False)
    terminal.type("q")
    assert terminal.wait_for_end() == 0


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": ""}], ids=["a dumb terminal", "nobody knows which terminal"]
)
def test_a_terminal_that_cannot_do_more_gets_one_page(site: Site, environment: dict[str, str]) -> None:
    site.start()
    terminal = watching(site, environment=environment)
    try:
        assert terminal.wait_for_end(30) == 0
        assert "\x1b" not in terminal.raw.decode() and "INBOX" in terminal.outside
    finally:
        terminal.close()


def test_a_pipe_gets_one_page_with_whole_uids_and_a_document(site: Site) -> None:
    site.start()
    made = Maker(seed=63).ct_series(site.inbox, slices=60)
    uid = made[0].study_uid

    def studies() -> list[dict[str, Any]]:
        return [one for one in site.ctl_json("top")["studies"] if one["state"] == "uploading"]

    site.wait_for(lambda: any(one["study_uid"] == uid for one in site.ctl_json("top")["studies"]), 60, "the study")
    text = site.ctl("top", "--once").stdout
    assert uid in text and "\x1b" not in text and "INBOX" in text
    site.wait_until_empty(90)
    assert {"taken_at", "studies", "last_archived"} <= site.ctl_json("top").keys() and studies() == []
    assert site.ctl_json("top")["last_archived"][0]["study_uid"] == uid


def test_without_utf_8_everything_is_ascii(site: Site) -> None:
    site.start()
    Maker(seed=64).ct_series(site.inbox, slices=60)
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    terminal = watching(site, environment=environment)
    try:
        terminal.wait_for_text("running for", "up/down scroll")
        terminal.wait_for(lambda: re.search(r"#+\.* +\d+%", terminal.text) or "ARCHIVED LAST" in terminal.text, 60)
        terminal.type("q")
        assert terminal.wait_for_end() == 0
        assert terminal.raw.isascii()
    finally:
        terminal.close()


def test_it_is_there_within_a_second(site: Site) -> None:
    """On a machine that does nothing else; here the fastest of a few, with room for one that does."""
    site.start()
    times = []
    for _ in range(3):
        begun = time.monotonic()
        terminal = watching(site)
        try:
            terminal.wait_for_text("running for")
            times.append(time.monotonic() - begun)
        finally:
            terminal.close()
    assert min(times) < 2.0, times


def test_who_may_not_ask_for_the_status_is_told_so(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("SKIPPED: only root can become somebody else")
    site.start()
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dicomwatchd.control.client import ControlClient, DaemonClosed\n"
        "from dicomwatchd.cli.top.asking import ask\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: ask(ControlClient(Path(sys.argv[1])))\n"
        "except DaemonClosed: print('closed')\n"
    )
    site.state.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(site.state / "control.sock")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "closed\n", done.stderr


def test_it_costs_the_daemon_little(site: Site) -> None:
    """Somebody who watches for five seconds costs less than a tenth of a core, whatever else the machine does; what
    was measured is in docs/performance.md."""
    site.start()
    assert site.daemon is not None
    process = psutil.Process(site.daemon.pid)

    def used(seconds: float) -> float:
        before = process.cpu_times()
        time.sleep(seconds)
        after = process.cpu_times()
        return (after.user + after.system - before.user - before.system) / seconds

    terminal = watching(site)
    try:
        terminal.wait_for_text("running for")
        assert used(5.0) < 0.1
    finally:
        terminal.close()
    begun = time.monotonic()
    answers = [json.dumps(ControlClient(site.state / "control.sock").call("top")) for _ in range(20)]
    assert len(set(answers)) <= 2 + time.monotonic() - begun, "taken once a second, however often it is asked for"
