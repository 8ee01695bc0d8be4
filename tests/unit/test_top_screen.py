"""What `top` makes of the daemon's answers: rates, progress, and a screen of any size."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from dicomwatchd.cli.terminal import glyphs
from dicomwatchd.cli.top import terminal
from dicomwatchd.cli.top.screen import Away, plain, screen
from dicomwatchd.cli.top.seen import Seen

UID = "1.2.840.99999.20261130.1234567890.1"


def study(state: str, uid: str = UID, *, ready: int = 0, stored: int = 0, deleting: int = 0, **more: Any) -> Any:
    return {
        "study_uid": uid,
        "state": state,
        "inbox": "ct1",
        "files": {"ready": ready, "stored": stored, "deleting": deleting},
        "verified": None,
        "attempts": 0,
        "not_before": None,
        "quiet_at": None,
        "waits_since": "2026-01-31T11:58:00.000Z",
        "code": None,
        "reason": None,
        "bytes": 1000,
        **more,
    }


def answer(
    *studies: Any, at: float = 0.0, sent: int = 0, started: str = "2026-01-31T09:00:00.000Z", **status: Any
) -> Any:
    return {
        "taken_at": "2026-01-31T12:00:00.000Z",
        "clock_seconds": at,
        "sent_files": sent,
        "sent_bytes": sent * 500_000,
        "archived_shipments": sent // 100,
        "files_taken_up": sent * 2,
        "studies": list(studies),
        "last_archived": [
            {
                "study_uid": "1.2.3",
                "inbox": "mr1",
                "finished_at": "2026-01-31T11:59:30.000Z",
                "seconds": 4.0,
                "files": 412,
                "bytes": 210_000_000,
            }
        ],
        "status": {
            "version": "0.1.0",
            "pid": 42,
            "started_at": started,
            "archive_id": "b7a3",
            "workers": {"busy": 4, "total": 16},
            "studies": {"uploading": 1, "arriving": 2, "archived": 1204},
            "files": {"ready": 300, "stored": 12, "kept": 4},
            "bytes_waiting": 150_000_000,
            "oldest_unarchived_seconds": 93.0,
            "inboxes": [
                {
                    "name": "ct1",
                    "kind": "inbox",
                    "state": "open",
                    "files_waiting": 312,
                    "last_scan_at": "2026-01-31T11:59:55.000Z",
                    "receivers": [{"name": "ct", "listening": False}],
                },
                {
                    "name": "mr1",
                    "kind": "inbox",
                    "state": "not-responding",
                    "files_waiting": 0,
                    "last_scan_at": None,
                    "receivers": [],
                },
            ],
            "backoff": {"s3": 12.0},
            "problems": ["inbox mr1 has not answered for 75 s"],
            "bandwidth": {"bytes_per_second": 10_000_000, "rule": "default"},
            **status,
        },
    }


def page(seen: Seen, width: int = 80, height: int | None = 24, **more: Any) -> str:
    return "\n".join(plain(screen(seen, width, height, glyphs.BLOCKS, **more).lines))


# --- rates and progress ----------------------------------------------------------------------------------------------


def test_a_rate_takes_two_answers_and_is_of_the_last_seconds() -> None:
    seen = Seen()
    seen.answer(answer(at=100.0, sent=1000))
    assert seen.rates() == (None, None, None, None)
    for second in range(1, 21):
        seen.answer(answer(at=100.0 + second, sent=1000 + 10 * second))
    for second in range(21, 31):
        seen.answer(answer(at=100.0 + second, sent=1200 + 100 * (second - 20)))
    rates = seen.rates()
    assert rates.sent_files == pytest.approx(100.0) and rates.sent_bytes == pytest.approx(50e6)
    assert rates.taken_up_files == pytest.approx(200.0)
    assert rates.archived_per_minute == pytest.approx(12 / 30 * 60), "of a minute, as far as it goes"


def test_another_daemon_has_no_rate_from_the_one_before() -> None:
    seen = Seen()
    seen.answer(answer(at=100.0, sent=5000))
    seen.answer(answer(at=101.0, sent=5010))
    seen.answer(answer(at=102.0, sent=3, started="2026-01-31T11:59:59.000Z"))
    assert seen.rates() == (None, None, None, None)
    seen.answer(answer(at=103.0, sent=13, started="2026-01-31T11:59:59.000Z"))
    assert seen.rates().sent_files == pytest.approx(10.0)


def test_the_same_answer_again_changes_no_rate() -> None:
    """The daemon takes one a second, whoever asks."""
    seen = Seen()
    for at, sent in ((1.0, 0), (2.0, 10), (2.0, 10), (2.0, 10)):
        seen.answer(answer(at=at, sent=sent))
    assert seen.rates().sent_files == pytest.approx(10.0)


def test_progress_through_the_stages() -> None:
    """Files that are gone have no row any more; how many there were is known from before."""
    seen = Seen()
    found = []
    for one in (
        study("uploading", ready=100),
        study("uploading", ready=60, stored=40),
        study("verifying", stored=100, verified=70),
        study("recording", stored=100),
        study("purging", stored=20, deleting=5),
        study("purging"),
    ):
        seen.answer(answer(one))
        progress = seen.progress(one)
        found.append((progress.done, progress.total))
    assert found == [(0, 100), (40, 100), (70, 100), (None, None), (75, 100), (100, 100)]
    seen.answer(answer())
    seen.answer(answer(late := study("purging", stored=20)))
    assert (seen.progress(late).done, seen.progress(late).total) == (0, 20), "it was not seen before"


def test_more_than_all_is_all() -> None:
    """What another second has counted, of an answer that is put together from several."""
    seen = Seen()
    seen.answer(answer(study("verifying", stored=4, verified=5)))
    assert seen.progress(seen.said["studies"][0]).share == 1.0


# --- the screen ------------------------------------------------------------------------------------------------------


def filled() -> Seen:
    seen = Seen()
    for at in (1.0, 2.0):
        seen.answer(
            answer(
                study("uploading", ready=150, stored=150),
                study("recording", "1.2.4", stored=12),
                study("arriving", "1.2.5", ready=7, quiet_at="2026-01-31T12:00:20.000Z"),
                study("queued", "1.2.6", ready=7, not_before="2026-01-31T12:01:00.000Z", attempts=2),
                study("queued", "1.2.7", ready=7),
                study("parked", "1.2.8", ready=7, reason="evil \x1b]0;x\x07 reason"),
                at=at,
                sent=int(at * 100),
            )
        )
    return seen


def test_what_a_usual_terminal_shows() -> None:
    text = page(filled())
    for word in (
        "dicomwatchd 0.1.0   running for 3 h",
        "Sending 50.0 MB/s, 100 files/s   Arriving 200 files/s   Archived 60 studies/min",
        "Workers 4 of 16 busy ",
        "Waiting 312 files, 150.0 MB, oldest 1 min 33 s",
        "Studies 1 uploading, 2 arriving, 1,204 archived",
        "not-responding",
        "s3: failing; next attempt in 12 s",
        "50%",
        "150/300",
        "manifest and",
        "quiet in 20 s",
        "retry in 1 min",
        "waits for its",
        "ARCHIVED LAST",
        "412 files, 210.0 MB in 4.0 s",
        "q quit",
    ):
        assert word in text, f"{word}:\n{text}"
    assert "\x1b" not in text and "\x07" not in text


def test_a_wide_terminal_shows_whole_uids_and_the_inbox() -> None:
    text = page(filled(), 180, 50)
    assert UID in text and "retry in 1 min" in text and "manifest and catalogue" in text
    assert "receivers: ct, not listening" in text and "evil \ufffd]0;x\ufffd reason" in text
    assert "studies/min   Limit 10.0 MB/s" in text
    assert "Problem: inbox mr1 has not answered for 75 s" in text


@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 100, 132, 200])
@pytest.mark.parametrize("height", [1, 5, 10, 24, 25, 60])
@pytest.mark.parametrize("how", [glyphs.BLOCKS, glyphs.ASCII])
def test_it_fits_any_terminal(width: int, height: int, how: glyphs.Glyphs) -> None:
    away = Away("THE DAEMON IS NOT RUNNING", datetime(2026, 1, 31, tzinfo=UTC))
    many = Seen()
    many.answer(
        answer(
            *(study("uploading", f"1.2.{number}", ready=5, stored=5) for number in range(200)),
            problems=[f"problem {number}" for number in range(30)],
            inboxes=[
                {"name": f"inbox{number}", "kind": "inbox", "state": "open", "files_waiting": number}
                for number in range(40)
            ],
        )
    )
    for seen in (Seen(), filled(), many):
        for gone in (None, away):
            lines = screen(seen, width, height, how, away=gone, scrolled=7).lines
            assert len(lines) == height
            for line in plain(lines):
                assert len(line) <= width
                assert not how.is_ascii or line.isascii()


def test_a_usual_terminal_has_room_for_studies_whatever_is_amiss() -> None:
    seen = Seen()
    problems = [f"problem {number}" for number in range(30)]
    inboxes = [
        {"name": f"inbox{n}", "kind": "inbox", "state": "open" if n != 33 else "unavailable", "files_waiting": n}
        for n in range(40)
    ]
    studies = [study("uploading", f"1.2.{number}", ready=5, stored=5) for number in range(200)]
    seen.answer(answer(*studies, problems=problems, inboxes=inboxes))
    text = page(seen)
    assert sum(line.startswith("1.2.") for line in text.splitlines()) >= 3
    assert "inbox33" in text, "what is in trouble comes first"
    assert "see dicomwatchctl status" in text


def test_scrolling_ends_at_the_last_study() -> None:
    seen = Seen()
    seen.answer(answer(*(study("queued", f"1.2.{number}", ready=5) for number in range(60))))
    first = screen(seen, 80, 24, glyphs.BLOCKS)
    last = screen(seen, 80, 24, glyphs.BLOCKS, scrolled=10_000)
    assert "1.2.0 " in "\n".join(plain(first.lines)) and "1.2.59 " in "\n".join(plain(last.lines))
    assert 0 < first.furthest < 60 and first.furthest == last.furthest


def test_a_daemon_that_is_away_is_said_before_all_else() -> None:
    away = Away("THE DAEMON IS NOT RUNNING", datetime(2026, 1, 31, 14, 3, 12, tzinfo=UTC))
    before = page(Seen(), away=away)
    assert before.startswith("THE DAEMON IS NOT RUNNING since 14:03:12; trying again")
    text = page(filled(), away=away)
    assert text.startswith("THE DAEMON IS NOT RUNNING since 14:03:12; trying again   figures of ")
    assert "150/300" in text, "what was seen last stays"


@pytest.mark.parametrize("height", [24, None])
def test_nothing_that_a_daemon_says_steers_the_terminal(height: int | None) -> None:
    """`--socket` may name that of anybody."""
    evil = "\x1b]0;x\x07\x9b2J\r\n\u202e"

    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoilt(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [spoilt(inner, key) for inner in value]
        is_text = isinstance(value, str) and not key.endswith(("_at", "_since"))
        return f"{value}{evil}" if is_text else value

    seen = Seen()
    seen.answer(spoilt(answer(study("parked", ready=4), study("uploading"), study("queued", "1.2.3"))))
    for width in (40, 80, 200):
        lines = plain(screen(seen, width, height, glyphs.BLOCKS).lines)
        assert all(line.isprintable() for line in lines), lines
        assert "\ufffd" in "".join(lines)


def test_a_terminal_that_does_not_know_its_size_has_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A serial line, or a container's: 0 columns and 0 lines."""
    ours, theirs = os.openpty()
    with open(theirs, "w") as stdout, open(ours, "rb", closefd=True):
        monkeypatch.setattr(sys, "stdout", stdout)
        display = terminal.Screen(Console(file=stdout), theirs, theirs)
        assert os.get_terminal_size(theirs) == (0, 0) and display.size == (80, 24)
        for size, expected in (((7, 132), (132, 7)), ((1, 1), (1, 1)), ((0, 100), (100, 24)), ((50, 0), (80, 50))):
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            assert display.size == expected


def test_a_terminal_that_is_gone_ends_it() -> None:
    ours, theirs = os.openpty()
    reading, writing = os.pipe()
    os.close(ours)
    try:
        assert terminal.Screen(Console(), theirs, reading).wait(60) == "quit"
    finally:
        for fd in (theirs, reading, writing):
            os.close(fd)


def test_keys_come_by_a_descriptor_of_any_number() -> None:
    """As where whoever started it has left it many that are open."""
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, 1024)
    woken, waking = os.pipe()
    try:
        screen = terminal.Screen(Console(), high, woken)
        assert screen.wait(0) is None
        os.write(writing, b"q")
        assert screen.wait(60) == "quit"
    finally:
        for fd in (reading, writing, high, woken, waking):
            os.close(fd)
