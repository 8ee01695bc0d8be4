"""Every safeguard is missed when it is taken out: each mutant of the program is killed by the tests named beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.faults.figures import Figures
from tests.mutants.mutations import MUTATIONS, Mutation
from tests.mutants.run import ROOT, mutated


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_still_applies(mutation: Mutation) -> None:
    assert mutated(mutation)
    for test in mutation.tests:
        assert (ROOT / test.partition("::")[0]).exists(), "a test that is named is not there"


def test_the_names_differ() -> None:
    assert not [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1]


@pytest.mark.timeout(4800)  # beside other workers it has less than a processor
def test_every_mutant_is_killed() -> None:
    """In a process of its own, which must not have loaded the program."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.run", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert list(killed) == [mutation.name for mutation in MUTATIONS]
    survivors = [name for name, dead in killed.items() if not dead]
    Figures(
        name="mutants",
        what="safeguards removed from the program, one at a time",
        tried=len(killed),
        details={"killed": len(killed) - len(survivors), "survivors": survivors},
    ).write()
    assert not survivors, "no test misses these; run: python -m tests.mutants.run NAME"
