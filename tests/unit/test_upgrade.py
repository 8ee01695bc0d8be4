"""What an earlier version of the program has failed at is tried again by another one: once, by itself."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomwatchd import __version__
from dicomwatchd.daemon import startup
from dicomwatchd.intake import take
from dicomwatchd.model import StudyState
from dicomwatchd.queue.database.schema import DATABASE
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.synthetic import Maker
from tests.system.site import Site
from tests.unit.queues import STUDY, Bench

OLDER = "0.0.9"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def park(bench: Bench, code: str) -> None:
    bench.queue.claims.park(bench.claimed(), code=code, reason="why")


# -- the state -------------------------------------------------------------------------------------------------------


def first_ever(bench: Bench) -> None:
    """A state that was written before any version stood in it."""
    bench.run("DELETE FROM meta WHERE key = 'program'")


def an_older(bench: Bench) -> None:
    bench.queue.upgrade.taken_over_by(OLDER)


@pytest.mark.parametrize("written_by", [first_ever, an_older])
def test_a_study_that_a_fault_has_parked(bench: Bench, written_by: Callable[[Bench], None]) -> None:
    written_by(bench)
    park(bench, "unexpected")
    bench.reopen()
    retried = bench.queue.upgrade.taken_over_by("0.1.0")
    assert (retried.studies, retried.files) == (1, 0)
    assert bench.state() is StudyState.QUEUED
    bench.queue.claims.park(bench.claim(), code="unexpected", reason="still")
    for _ in range(2):
        bench.reopen()
        assert bench.queue.upgrade.taken_over_by("0.1.0").studies == 0, "once for each version"
    assert bench.state() is StudyState.PARKED
    assert bench.queue.upgrade.taken_over_by("0.2.0").studies == 1


@pytest.mark.parametrize("code", ["bad-key", "foreign-manifest", "store-unreliable"])
def test_a_study_that_was_parked_for_another_reason_stays(bench: Bench, code: str) -> None:
    park(bench, code)
    bench.reopen()
    assert bench.queue.upgrade.taken_over_by("0.1.0").studies == 0
    assert bench.state() is StudyState.PARKED


def test_a_study_that_arrives_again_is_left_alone(bench: Bench) -> None:
    park(bench, "unexpected")
    bench.add("IM2")
    assert bench.queue.upgrade.taken_over_by("0.1.0").studies == 0
    assert bench.state(STUDY) is StudyState.ARRIVING


# -- the files -------------------------------------------------------------------------------------------------------


def faulty(*_: object, **__: object) -> object:
    raise RecursionError("DOE^JANE")


def upgraded(pieces: Pieces, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start is that of another version of the program."""
    monkeypatch.setattr(startup, "__version__", version)
    pieces.restart()


def test_a_file_that_a_fault_has_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(instance("1.2.1", "1.2.1.1", "1.2.1.1.1", 1))
    (pieces.inbox / "junk").write_bytes(b"no DICOM")
    pieces.queue.upgrade.taken_over_by(OLDER)
    with monkeypatch.context() as patch:
        patch.setattr(take, "read_header", faulty)
        pieces.run(2)
        assert pieces.states()["IM1"] == "quarantined:unexpected"
        upgraded(pieces, "0.1.0", monkeypatch)
        assert pieces.log.events("retried-after-upgrade")[-1]["files"] == 2
        before = pieces.queue.reports.quarantine(10)
        assert len(before) == 2, "they stand in the report until they were looked at"
        pieces.run(3)
        assert pieces.states()["IM1"] == "quarantined:unexpected", "the new version has the fault as well"
        faults = len(pieces.log.events("intake-fault"))
        pieces.run(3)
        assert len(pieces.log.events("intake-fault")) == faults, "once, not at every look"
    upgraded(pieces, "0.2.0", monkeypatch)
    assert pieces.log.events("retried-after-upgrade")[-1]["files"] == 2
    pieces.run()
    assert [path.name for path in pieces.left()] == ["junk"]
    assert pieces.states()["junk"].startswith("quarantined:")
    pieces.close()


def test_what_became_unreadable_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path)
    (pieces.inbox / "IM1").write_bytes(instance("1.2.1", "1.2.1.1", "1.2.1.1.1", 1))
    with monkeypatch.context() as patch:
        patch.setattr(take, "read_header", faulty)
        pieces.run(2)
    pieces.queue.upgrade.taken_over_by("0.2.0")

    def barred(*_: object, **__: object) -> object:
        raise PermissionError(13, os.strerror(13))

    with monkeypatch.context() as patch:
        patch.setattr(take, "read_header", barred)
        pieces.run(2)
    assert pieces.states() == {"IM1": "quarantined:no-access"}
    pieces.close()


# -- the daemon ------------------------------------------------------------------------------------------------------


def test_the_daemon_does_so_at_its_start(tmp_path: Path) -> None:
    """A state as version 0.0.9 would have left it: a study parked and a file in quarantine, both for a fault."""
    site = Site(tmp_path)
    site.init()
    maker = Maker(seed=3)
    first = maker.ct_series(site.inbox / "a", slices=2, rows=16, columns=16)[0].study_uid
    second = maker.ct_series(site.inbox / "b", slices=1, rows=16, columns=16)[0].study_uid
    site.config["inboxes"][0]["after_archive"] = "keep"
    site.write_config()
    assert site.once() == 0
    with sqlite3.connect(site.state / DATABASE) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'program'", (OLDER,))
        db.execute("UPDATE studies SET state = 'parked', code = 'unexpected' WHERE study_uid = ?", (first,))
        db.execute("UPDATE files SET state = 'stored' WHERE study_uid = ?", (first,))
        db.execute(
            "UPDATE files SET state = 'quarantined', code = 'unexpected', study_uid = NULL WHERE study_uid = ?",
            (second,),
        )
    db.close()
    assert site.once() == 0, site.log_tail()
    [entry] = site.events("retried-after-upgrade")
    assert (entry["studies"], entry["files"], entry["version"]) == (1, 1, __version__)
    assert site.ctl_json("queue")["studies"] == []
    assert json.loads(site.ctl("quarantine", "--json").stdout)["files"] == []
    assert site.once() == 0
    assert len(site.events("retried-after-upgrade")) == 1
