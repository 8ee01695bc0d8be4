"""Whose turn it is: who was tried goes behind, who is known to be failing has a line of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.queue.claims import BLAMED_OFTEN, First
from dicomwatchd.queue.rows import Claim
from tests.unit.queues import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


def fail(bench: Bench, claim: Claim, **how: Any) -> None:
    bench.queue.claims.release(
        claim, **{"not_before": 0.0, "code": "down", "reason": "", "attempts": claim.attempts + 1, **how}
    )


def queued(bench: Bench, *studies: str) -> None:
    for study in studies:
        bench.add("IM" + study, study=study)
        bench.wait_until_quiet(study)


def test_who_was_tried_goes_behind_those_who_were_not(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2", "1.2.3")
    seen = []
    for _ in range(7):
        claim = bench.claim()
        seen.append(claim.study_uid[-1])
        fail(bench, claim)
    assert "".join(seen) == "1231231"
    queued(bench, "1.2.4")
    assert bench.claim().study_uid == "1.2.4"


def test_an_attempt_that_does_not_count_keeps_its_turn(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2")
    fail(bench, bench.claim(), attempts=0)
    assert bench.claim().study_uid == "1.2.1"


def test_two_that_fail_together_are_behind_the_others(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2", "1.2.3", "1.2.4")
    claims = [bench.claim(), bench.claim()]
    for claim in claims:
        fail(bench, claim)
    assert [bench.claim().study_uid[-1] for _ in range(4)] == ["3", "4", "1", "2"]


def test_who_comes_first_if_somebody_says_so(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.5")
    fail(bench, bench.claim())
    claims = bench.queue.claims
    firsts = (First.NEWEST, First.TRIED, First.UNTRIED, First.TRIED, First.NEWEST)
    found = [claims.claim(first=first) for first in firsts]
    assert [claim.study_uid[-1] for claim in found if claim] == ["5", "1", "2", "3", "4"]


def test_those_known_to_be_ill_are_in_a_line_of_their_own(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2")
    fail(bench, bench.claim(), blamed=BLAMED_OFTEN - 1)
    fail(bench, bench.claim(), blamed=BLAMED_OFTEN, not_before=bench.clock.now() + 50)
    claims = bench.queue.claims
    assert claims.claim(often_blamed=True) is None
    assert claims.next_try_at(True) == bench.clock.now() + 50 and claims.next_try_at(False) == 0
    assert bench.claim().blamed == BLAMED_OFTEN - 1
    assert claims.claim() is None and claims.next_try_at(False) is None
    bench.clock.seconds += 50
    found = claims.claim(often_blamed=True)
    assert found is not None and found.blamed == BLAMED_OFTEN
    bench.record(found)
    bench.finish(found)
    assert bench.rows("SELECT blamed, turn, endpoint FROM studies WHERE study_uid = '1.2.2'")[0][:3] == (0, 0, None)


def test_a_change_of_its_files_does_not_make_an_ill_study_a_new_one(bench: Bench) -> None:
    queued(bench, "1.2.1")
    fail(bench, bench.claim(), blamed=BLAMED_OFTEN, endpoint="s3")
    bench.add("more", study="1.2.1")
    bench.wait_until_quiet("1.2.1")
    assert bench.queue.claims.claim() is None
    assert bench.queue.claims.claim(often_blamed=True) is not None


def test_an_endpoint_that_is_back_takes_nothing_from_those_that_are_ill_themselves(bench: Bench) -> None:
    queued(bench, "1.2.1", "1.2.2", "1.2.3")
    later = bench.clock.now() + 1000
    fail(bench, bench.claim(), endpoint="s3", not_before=later)
    fail(bench, bench.claim(), not_before=later)
    fail(bench, bench.claim(), blamed=BLAMED_OFTEN, not_before=later)
    bench.queue.claims.endpoints_back()
    assert [tuple(row) for row in bench.rows("SELECT not_before, turn, attempts FROM studies ORDER BY study_uid")] == [
        (0, 0, 0),
        (later, 2, 1),
        (later, 3, 1),
    ]


def test_the_operators_word_makes_it_a_new_one(bench: Bench) -> None:
    queued(bench, "1.2.1")
    fail(bench, bench.claim(), blamed=BLAMED_OFTEN, endpoint="s3")
    assert bench.queue.claims.retry("1.2.1")
    row = bench.rows("SELECT blamed, turn, attempts, endpoint FROM studies")[0]
    assert tuple(row) == (0, 0, 0, None)
