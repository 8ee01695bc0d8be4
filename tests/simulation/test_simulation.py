"""Thousands of seeded worlds: nothing is lost, nothing is deleted that the store does not hold, and all arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive import evidence
from dicomwatchd.archive.store import Receipt
from dicomwatchd.pipeline import proof, stages
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.queue.deletions import Deletions
from tests.faults.figures import Figures
from tests.simulation.chance import Trace, Violation
from tests.simulation.run import Result, simulate

ROOT = Path(__file__).parents[2]
SEEDS = range(2000)
MORE_SEEDS = range(2000, 30_000)


def run_all(seeds: range, name: str) -> None:
    results: list[Result] = []
    failures: dict[int, str] = {}
    for seed in seeds:
        try:
            results.append(simulate(seed))
        except (Exception, Violation) as error:  # noqa: BLE001  each is told below, with how to see it again
            failures[seed] = f"{type(error).__name__}: {error}"
    lost = sum(
        "gone" in text or "did not arrive" in text or "changed that nobody" in text for text in failures.values()
    )
    Figures(
        name=name,
        what="seeded worlds of faults, kills and file actors, on virtual time",
        tried=len(seeds),
        lost=lost,
        wrong_deletes=sum("deleted" in text for text in failures.values()),
        duplicates=sum(result.duplicates for result in results),
        details={
            "failed": sorted(failures),
            "calls": sum(result.hooks for result in results),
            "faults": sum(result.faults for result in results),
            "kills": sum(result.kills for result in results),
            "starts": sum(result.starts for result in results),
            "instances": sum(result.written for result in results),
            "deletions": sum(result.deleted for result in results),
            "uploads": sum(result.uploads for result in results),
            "meddled": sum(result.meddled for result in results),
            "remounts": sum(result.remounts for result in results),
            "parked_by_design": sum(result.parked for result in results),
        },
    ).write()
    lines = [f"python -m tests.simulation {seed} --trace    # {text[:200]}" for seed, text in failures.items()]
    assert not failures, f"{len(failures)} seeds fail:\n" + "\n".join(lines[:20])
    assert all(sum(getattr(r, what) for r in results) > len(seeds) / 10 for what in ("faults", "kills", "deleted"))


@pytest.mark.timeout(900)
def test_seeds() -> None:
    run_all(SEEDS, "simulation")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_more_seeds() -> None:
    run_all(MORE_SEEDS, "simulation-long")


# -- a seed is a whole story ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 42, 99, 196, 1605])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second = Trace(keep=True), Trace(keep=True)
    assert simulate(seed, first) == simulate(seed, second)
    assert first.lines == second.lines
    assert len(first.lines) > 100
    # And in another process, with another order of sets and other inode numbers.
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", str(seed), "--trace"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[:-1] == first.lines


def test_other_seeds_give_other_traces() -> None:
    assert len({simulate(seed).digest for seed in range(20)}) == 20


# -- the simulation would notice ------------------------------------------------------------------------------------


def _no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was set aside is deleted."""
    monkeypatch.setattr(proof, "_differs", lambda *_: None)
    monkeypatch.setattr(proof, "_undisturbed", lambda *_: True)


def _no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was sent counts as stored."""

    def by_look(judge: object, receipt: Receipt, seen: object, asked_at: float) -> evidence.Verdict:
        return evidence.Verdict(receipt, True, "nothing", None, "", asked_at)

    monkeypatch.setattr(evidence._Judge, "by_look", by_look)
    monkeypatch.setattr(evidence._Judge, "can_tell", lambda *_: True)


def _no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put on record before it goes."""
    monkeypatch.setattr(Deletions, "authorise", lambda _, claim, proofs: {file.file_id for file, _ in proofs})


def _no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies aside after a crash stays there."""
    from dicomwatchd.pipeline import recover

    monkeypatch.setattr(recover, "bring_back", lambda source, log: recover.Recovered(0, 0))


def _no_second_look_at_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first revision is recorded for good: later ones never reach the catalogue."""
    real = stages.record

    def record(shipment: Shipment, context: Context) -> object:
        recorded = real(shipment, context)
        records = context.archive.catalogue.records  # type: ignore[attr-defined]
        records.pop(shipment.claim.study_uid, None)
        return replace(recorded, catalogue_revision=recorded.manifest.revision)

    monkeypatch.setattr(stages, "record", record)


@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        (_no_comparison, "delet"),
        (_no_evidence, "does not hold"),
        (_no_record, "without its deletion being on record"),
        (_no_recovery, "a file that is left"),
        (_no_second_look_at_the_catalogue, "the catalogue is not"),
    ],
    ids=["compare", "evidence", "record", "recovery", "catalogue"],
)
def test_it_notices(sabotage: Callable[[pytest.MonkeyPatch], None], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    assert said in noticed(400)


def noticed(seeds: int) -> str:
    for seed in range(seeds):
        try:
            simulate(seed)
        except Violation as violation:
            return str(violation)
    return "nothing"
