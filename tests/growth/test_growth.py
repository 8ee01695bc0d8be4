"""The state grows with what is here and with a short row for each study, not with what was deleted: a few days in the
default run, a year (`python -m tests.growth`) among the long ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.audit import sealing
from dicomwatchd.queue.database import pruning
from tests.faults.figures import Figures
from tests.growth.year import DAY_SECONDS, Day, Hospital

#: What may be left of a study for good, in bytes: its row, and in which segment its deletions are.
PER_STUDY_BYTES = 900


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days in place of thirty, 200 entries in place of 20,000."""
    monkeypatch.setattr(pruning, "KEEP_SECONDS", 2 * DAY_SECONDS)
    monkeypatch.setattr(sealing, "CLEAR_ENTRIES", 100)
    defaults = sealing.Sealing.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "entries", 200)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory, where that is to be had: it is not the commits that are measured."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="growth-", dir=memory) as path:
        yield Path(path)


@pytest.fixture
def hospital(place: Path, scaled: None) -> Iterator[Hospital]:
    hospital = Hospital(place, studies=20, files=8)
    yield hospital
    hospital.close()


def used(day: Day) -> int:
    return day.state_bytes - day.free_bytes


def test_the_state_levels_off(hospital: Hospital) -> None:
    days = [hospital.live() for _ in range(12)]
    settled, last = days[5], days[-1]
    grown = used(last) - used(settled)
    studies = last.studies - settled.studies
    assert grown < studies * PER_STUDY_BYTES, "bytes for each study"
    assert last.audit_entries_here < 2 * 20 * 8 + 200, "about a day's"
    assert last.segments >= 12 * 20 * 8 * 2 // 200 - 3
    assert last.heads < 12 * 20 + 1, "no more than the moments at which something was deleted"
    rows = hospital.rows()
    assert rows["studies"] == 12 * 20 and rows["files"] == 0
    assert rows["transitions"] < 4 * 20 * 6 and rows["shipments"] < 4 * 20 and rows["series"] < 4 * 20 * 3
    assert hospital.log.entries == [], "nothing was amiss"
    said = hospital.queue.reports.stats(30)
    assert said["totals"]["shipments"] == said["totals"]["studies"] == 240, "what was pruned is still counted"
    assert hospital.queue.reports.status()["studies"] == {"archived": 240}


def test_every_deletion_is_still_proven(hospital: Hospital) -> None:
    for _ in range(4):
        hospital.live()
        hospital.close()
        hospital.open()
    for number in (0, 1, 25, 50, 79):
        said = hospital.parts.prover.prove(hospital.study(number))
        assert [file["outcome"] for file in said["files"]] == ["deleted"] * 8
        assert said["chain_holds"] and said["published"]["holds"] and said["archived"]["outcome"] == "whole"
    whole = hospital.parts.prover.prove(hospital.study(0), whole=True)
    assert whole["archived"]["holds"] and whole["chain_entries"] == 4 * 20 * 8 * 2
    assert whole["archived"]["read"] >= whole["archived"]["segments"] >= 5


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_a_year(place: Path) -> None:
    """1,000 studies of 20 files a day, with the times and sizes of a hospital."""
    hospital = Hospital(place, studies=1000, files=20)
    days = [hospital.live() for _ in range(365)]
    settled, last = days[34], days[-1]
    per_study = (used(last) - used(settled)) / (last.studies - settled.studies)
    assert per_study < PER_STUDY_BYTES
    assert last.audit_entries_here < 60_000
    assert last.rss_bytes < settled.rss_bytes + 20e6
    said = hospital.parts.prover.prove(hospital.study(0))
    assert len(said["files"]) == 20 and said["archived"]["holds"] and said["chain_holds"]
    assert hospital.log.entries == []
    Figures(
        name="growth-year",
        what="a year of 1,000 studies of 20 files a day, in virtual time",
        tried=last.studies,
        details={"last day": last.as_json(), "bytes for each study": round(per_study)},
    ).write()
    hospital.close()
