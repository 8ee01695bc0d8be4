"""Thousands of seeded worlds: nothing is lost, nothing is deleted that the store does not hold, and all arrives."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dicomwatchd.archive.proof import evidence, final_check
from dicomwatchd.archive.stores.port import ObjectStore, Receipt
from dicomwatchd.archive.stores.s3.expiry import ExpiryWatch
from dicomwatchd.audit.checkpoints import Checkpoints
from dicomwatchd.audit.sealing import Sealing
from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.intake import final_scan
from dicomwatchd.intake.final_scan import FinalScan
from dicomwatchd.intake.folder.mounts import Mounts
from dicomwatchd.pipeline import backoff, stages
from dicomwatchd.pipeline.deletion import batch, proof, purge
from dicomwatchd.pipeline.deletion.port import Evidence, Policy, Services
from dicomwatchd.pipeline.deletion.staging import private
from dicomwatchd.pipeline.deletion.vetoes.expiring import Expiring
from dicomwatchd.pipeline.shipment import Context, Shipment
from dicomwatchd.ports import Map
from dicomwatchd.queue.deletions import Deletions
from dicomwatchd.queue.rows import Claim, LocalFile, Proven, TrackedFile
from dicomwatchd.queue.segments import Segment
from dicomwatchd.queue.shipments import Shipments
from dicomwatchd.uploads import folders, job
from dicomwatchd.uploads.jobs import UploadJobs
from tests.faults.figures import Figures
from tests.simulation.chance import Trace, Violation
from tests.simulation.run import Result, simulate

ROOT = Path(__file__).parents[2]
SEEDS = 2000
MORE_SEEDS = 28_000
#: Of each of the two, so that several processors have something to do.
PARTS = 8


def run_all(seeds: range, name: str, **world: Any) -> None:
    results: list[Result] = []
    failures: dict[int, str] = {}
    for seed in seeds:
        try:
            results.append(simulate(seed, **world))
        except (Exception, Violation) as error:  # noqa: BLE001  each is told below, with how to see it again
            failures[seed] = f"{type(error).__name__}: {error}"
    lost = sum(
        "gone" in text or "did not arrive" in text or "changed that nobody" in text for text in failures.values()
    )
    Figures(
        name=name,
        what="seeded simulations of faults, kills and changes to files, in virtual time",
        tried=len(seeds),
        lost=lost,
        wrong_deletes=sum("deleted" in text for text in failures.values()),
        duplicates=sum(result.duplicates for result in results),
        waiting_for_ever=sum("come to an end" in text or "left is kept" in text for text in failures.values()),
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
            "rules": sum(result.rules for result in results),
            "sealed": sum(result.sealed for result in results),
            "parked_by_design": sum(result.parked for result in results),
        },
    ).write()
    lines = [f"python -m tests.simulation {seed} --trace    # {text[:200]}" for seed, text in failures.items()]
    assert not failures, f"{len(failures)} seeds fail:\n" + "\n".join(lines[:20])
    assert all(sum(getattr(r, what) for r in results) > len(seeds) / 10 for what in ("faults", "kills", "deleted"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(PARTS))
def test_seeds(number: int) -> None:
    run_all(range(SEEDS)[number::PARTS], f"simulation-{number}")


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", range(PARTS))
def test_more_seeds(number: int) -> None:
    run_all(range(SEEDS, SEEDS + MORE_SEEDS)[number::PARTS], f"simulation-long-{number}")


#: What no seed has by itself.
RARE: dict[str, dict[str, Any]] = {
    "busy": {"busy": True},
    "busy-hangs": {"busy": True, "hangs": True},
    "busy-two": {"busy": True, "daemons": 2},
    "expires": {"busy": True, "expires": True},
    "upkeep": {"busy": True, "upkeep": True},
    "all": {"busy": True, "upkeep": True, "expires": True, "uploads": True, "hangs": True},
}
RARE_SEEDS = range(5000, 5010)


@pytest.mark.parametrize("world", RARE)
def test_rare_worlds(world: str) -> None:
    run_all(RARE_SEEDS, f"simulation-rare-{world}", **RARE[world])


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("world", RARE)
def test_more_rare_worlds(world: str) -> None:
    run_all(range(6000, 8000), f"simulation-rare-long-{world}", **RARE[world])


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
    """Whatever was staged is deleted."""
    for name in ("_differs", "_disturbed"):
        monkeypatch.setattr(proof, name, lambda *_: None)
    monkeypatch.setattr(proof, "_undisturbed", lambda *_: True)


def _no_final_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is not asked again before files go: that line, behind the evidence, would hold in its place."""
    monkeypatch.setattr(final_check, "missing", lambda *_: set())


def _no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was sent counts as stored."""
    _no_final_scan(monkeypatch)

    def by_look(judge: object, receipt: Receipt, seen: object, asked_at: float) -> evidence.Verdict:
        return evidence.Verdict(receipt, True, "nothing", None, "", asked_at)

    monkeypatch.setattr(evidence._Verifier, "by_listing", by_look)
    monkeypatch.setattr(evidence._Verifier, "can_tell", lambda *_: True)


def _no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put on record before it goes."""
    monkeypatch.setattr(Deletions, "authorise", lambda _, claim, proofs: {file.file_id for file, _ in proofs})


def _no_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is staged after a crash stays there."""
    from dicomwatchd.pipeline.deletion.staging import recover

    monkeypatch.setattr(recover, "bring_back", lambda *_: recover.Recovered(0, 0))


def _no_second_look_at_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first revision is recorded for good: later ones never reach the catalogue."""
    real = stages.record

    def record(shipment: Shipment, context: Context) -> object:
        recorded = real(shipment, context)
        records = context.archive.catalogue.records  # type: ignore[attr-defined]
        records.pop(shipment.claim.study_uid, None)
        return replace(recorded, catalogue_revision=recorded.manifest.revision)

    monkeypatch.setattr(stages, "record", record)


def _dated_when_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence is as old as its commit."""
    _no_final_scan(monkeypatch)
    real = Shipments.verified

    def verified(shipments: Shipments, claim: Claim, held: Iterable[Proven]) -> None:
        real(shipments, claim, [one._replace(asked_at=shipments._clock.now()) for one in held])

    monkeypatch.setattr(Shipments, "verified", verified)


def _evidence_of_any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that was sent is asked for, whatever is current by now."""
    _no_final_scan(monkeypatch)

    class Pinned:
        def __init__(self, store: ObjectStore, receipt: Receipt) -> None:
            self._store, self._receipt = store, receipt

        def __getattr__(self, name: str) -> Any:
            return lambda key: getattr(self._store, name)(key, self._receipt.version_id)

    def pinned(name: str) -> None:
        real = getattr(evidence._Verifier, name)

        def call(judge: evidence._Verifier, first: Any, *rest: Any) -> Any:
            store, receipt = judge._store, first[0] if isinstance(first, tuple) else first
            judge._store = cast(ObjectStore, Pinned(store, receipt) if receipt.version_id else store)
            try:
                return real(judge, first, *rest)
            finally:
                judge._store = store

        monkeypatch.setattr(evidence._Verifier, name, call)

    pinned("by_head")
    pinned("_read_back_once")


def _any_folder_under_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that stands where another one was handed in counts as that one."""
    monkeypatch.setattr(folders.UploadFolders, "_from_the_held", lambda *_: None)
    monkeypatch.setattr(folders, "_if_same", lambda fd, _root: fd)


def _no_end_for_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that vanished is waited for."""
    monkeypatch.setattr(job, "GONE_SECONDS", float("inf"))


def _cancelled_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled upload is not let go of."""
    monkeypatch.setattr(UploadJobs, "cancel", lambda *_: {})


def _another_number_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file under another device number is another file."""
    monkeypatch.setattr(Mounts, "known_again", lambda *_: False)


def _an_endpoint_rests_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pause for all, growing up to a quarter of an hour, whoever has failed."""
    monkeypatch.setattr(backoff, "ENDPOINT_PAUSE_SECONDS", 900.0)


def _strangers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last look at a folder that was handed in names only what is on record."""
    real = final_scan._compare

    def compare(
        findings: final_scan.Findings, path: bytes, identity: str, known: TrackedFile | None, *rest: Any
    ) -> None:
        if known is not None:
            real(findings, path, identity, known, *rest)

    monkeypatch.setattr(final_scan, "_compare", compare)


def _no_look_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last look stays at the top of the folder."""
    real = FinalScan._one_directory
    monkeypatch.setattr(FinalScan, "_one_directory", lambda *arguments: real(*arguments) and [])
    monkeypatch.setattr(final_scan, "_is_of_a_file", lambda _: False)


def _nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is staged counts as what another daemon is at, also when that one is dead."""

    @contextlib.contextmanager
    def left_behind(_: int) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(private, "left_behind", left_behind)


def _given_up_and_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sign of life tells that the inbox fell silent, and that nobody waits any more."""
    monkeypatch.setattr(batch, "stop_check", lambda *_: lambda: None)


def _given_up_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """How deletions ended that were given up is written down without a look."""
    real = purge.delete

    def delete(
        files: list[LocalFile], claim: Claim, run: Map, policy: Policy, proving: Evidence, services: Services
    ) -> purge.Outcome:
        try:
            return real(files, claim, run, policy, proving, services)
        except InboxNotResponding:
            services.deletions.purged(claim.study_uid, [], [], files)
            raise

    monkeypatch.setattr(purge, "delete", delete)


def _deletes_what_will_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the store would end the archive's objects is all the same."""
    monkeypatch.setattr(Expiring, "stops_deleting", lambda _: None)


def _deaf_to_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the answers say of an object's end is not listened to, and the rules are rarely looked at."""
    monkeypatch.setattr(ExpiryWatch, "noted", lambda *_: None)


def _kept_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept because of a rule is not let go when the rule is gone."""
    monkeypatch.setattr(Deletions, "release_expiring", lambda _: 0)


def _sealed_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the record of deletions counts as archived, and goes here, before the archive has it."""

    def seal(sealing: Sealing, segment: Segment) -> None:
        sealing._segments.sealed(segment, sha256="0" * 64, size_bytes=1, studies=[])

    monkeypatch.setattr(Sealing, "_seal", seal)


def _never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record's head is taken for published."""
    monkeypatch.setattr(Checkpoints, "tick", lambda _: None)


#: Worlds that are full of what a defence is against: about one in 20, or more, shows that it is missing.
NOTHING_ELSE = {
    "daemons": 1,
    "uploads": False,
    "meddles": False,
    "remounts": False,
    "hangs": False,
    "poisoned": False,
    "slow_seconds": 0.0,
    "months": False,
    "jumps": False,
    "transient_rate": 0.0,
    "damage_rate": 0.0,
    "kill_rate": 0.0,
}
UPLOADS = {"uploads": True, "steps": 30, "kill_rate": 0.0, "transient_rate": 0.0}
MEDDLES = {"meddles": True, "versions": True, "keep_seconds": (100.0, 100.0), "steps": 30, "damage_rate": 0.0}
BUSY = {"busy": True, "keep_seconds": (0.0, 0.0), "quiet_seconds": 0.0, "transient_rate": 0.0, "kill_rate": 0.0}
LATE = {**BUSY, **NOTHING_ELSE, "uploads": True, "small_uploads": True, "actor_rate": 0.0}
TWO = {**BUSY, "daemons": 2, "strict_rename": False, "actor_rate": 0.0, "kill_rate": 0.03}
HANGS = {**BUSY, **NOTHING_ELSE, "hangs": True, "actor_rate": 0.2}
CHANGES = {**NOTHING_ELSE, "keep_seconds": (0.0, 0.0), "quiet_seconds": 0.0, "leases": True, "actor_rate": 0.2}
EXPIRES = {"expires": True, "may_read_rules": False, "keep_seconds": (0.0, 0.0), "kill_rate": 0.0}
UPKEEP = {"upkeep": True, "keep_seconds": (0.0, 0.0), "steps": 30}
RESTARTS = {**BUSY, "daemons": 1, "actor_rate": 0.0, "kill_rate": 0.03}
#: Each object is asked for by a request of its own, and one or two answers are as old as evidence may be.
SLOW = {
    **BUSY,
    **NOTHING_ELSE,
    "slow_seconds": 1000.0,
    "studies": 1,
    "steps": 40,
    "etag_is_content": True,
    "versions": False,
    "bundling": None,
    "actor_rate": 0.0,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("sabotage", "said", "world"),
    [
        (_no_comparison, "delet", CHANGES),
        (_no_evidence, "does not hold|on evidence|did not arrive", {}),
        (_no_record, "without its deletion being on record", {}),
        (_no_recovery, "a file that is left", RESTARTS),
        (_no_second_look_at_the_catalogue, "the catalogue is not", {}),
        (_dated_when_committed, "too old", SLOW),
        (_evidence_of_any_version, "not the current one|is deleted", MEDDLES),
        (_any_folder_under_the_path, "nobody has asked for", UPLOADS),
        (_no_end_for_what_is_gone, "does not come to an end", UPLOADS),
        (_cancelled_in_vain, "nobody has asked for", UPLOADS),
        (_another_number_another_file, "read again", {"remounts": True}),
        (_an_endpoint_rests_for_long, "a healthy study waits", {"poisoned": True}),
        (_strangers_are_passed_over, "said to be archived that is not", LATE),
        (_no_look_below, "said to be archived that is not", LATE),
        (_nothing_is_left_behind, "a file that is left", TWO),
        (_given_up_and_it_goes_on, "by work that was given up", HANGS),
        (_given_up_is_untouched, "on record|authorised", HANGS),
        (_deletes_what_will_not_stay, "that it ends the archive's objects", EXPIRES),
        (_deaf_to_answers, "that it ends the archive's objects", EXPIRES),
        (_kept_for_good, "a file that is left is kept", EXPIRES),
        (_sealed_unsent, "record of deletions", UPKEEP),
        (_never_published, "not what was published|never published", UPKEEP),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ",
)
def test_it_notices(
    sabotage: Callable[[pytest.MonkeyPatch], None],
    said: str,
    world: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sabotage(monkeypatch)
    assert any(re.search(said, violation) for violation in violations(range(400), world))


def violations(seeds: Iterable[int], world: dict[str, Any]) -> Iterator[str]:
    """Of the worlds, in their order; one may show another consequence of the same sabotage first."""
    for seed in seeds:
        try:
            simulate(seed, **world)
        except Violation as violation:
            yield str(violation)
