"""The audit chain: whatever is changed, taken out or put in is told, and by its number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.queue.audit import FIRST
from tests.unit.queues import STUDY, Bench

ENTRIES = 6


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Three deletions authorised and done: six entries."""
    bench = Bench(tmp_path)
    claim = bench.claimed("IM1", "IM2", "IM3")
    bench.queue.deletions.purged(STUDY, bench.authorise(claim), [], [])
    bench.finish(claim)
    yield bench
    bench.queue.close()


def test_an_empty_chain_holds(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.queue.audit.broken_at() is None
    bench.queue.close()


def test_the_chain_can_be_checked_with_nothing_but_the_entries(bench: Bench) -> None:
    previous = FIRST
    rows = bench.rows("SELECT * FROM audit ORDER BY sequence")
    assert len(rows) == ENTRIES
    for number, row in enumerate(rows, 1):
        body = json.loads(row["entry"])
        assert (body["sequence"], body["previous"], body["study_uid"]) == (number, previous, STUDY)
        previous = hashlib.sha256(row["entry"].encode("ascii")).hexdigest()
        assert row["hash"] == previous
    assert bench.queue.audit.broken_at() is None


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
@pytest.mark.parametrize("rehashed", [False, True])
def test_a_changed_entry(bench: Bench, number: int, rehashed: bool) -> None:
    """With its own hash made to fit, the next entry gives it away; the last one has none, and nothing can."""
    (row,) = bench.rows("SELECT entry FROM audit WHERE sequence = ?", number)
    forged = row["entry"].replace('"at":', '"at":1')
    bench.run("UPDATE audit SET entry = ? WHERE sequence = ?", forged, number)
    if rehashed:
        digest = hashlib.sha256(forged.encode()).hexdigest()
        bench.run("UPDATE audit SET hash = ? WHERE sequence = ?", digest, number)
    expected = number if not rehashed else number + 1 if number < ENTRIES else None
    assert bench.queue.audit.broken_at() == expected


@pytest.mark.parametrize("number", range(1, ENTRIES))
def test_an_entry_taken_out(bench: Bench, number: int) -> None:
    bench.run("DELETE FROM audit WHERE sequence = ?", number)
    assert bench.queue.audit.broken_at() == number


def test_an_entry_taken_out_and_the_others_moved_up(bench: Bench) -> None:
    bench.run("DELETE FROM audit WHERE sequence = 3")
    for number in range(4, ENTRIES + 1):
        bench.run("UPDATE audit SET sequence = ? WHERE sequence = ?", number - 1, number)
    assert bench.queue.audit.broken_at() == 3


def test_numbers_that_do_not_begin_with_one(bench: Bench) -> None:
    bench.run("UPDATE audit SET sequence = sequence + 100")
    assert bench.queue.audit.broken_at() == 1


def test_an_entry_hidden_under_another_study(bench: Bench) -> None:
    bench.run("UPDATE audit SET study_uid = '1.2.9' WHERE sequence = 4")
    assert bench.queue.audit.broken_at() == 4


def test_two_entries_swapped(bench: Bench) -> None:
    bench.run("UPDATE audit SET sequence = -1 WHERE sequence = 2")
    bench.run("UPDATE audit SET sequence = 2 WHERE sequence = 3")
    bench.run("UPDATE audit SET sequence = 3 WHERE sequence = -1")
    assert bench.queue.audit.broken_at() == 2


def test_an_entry_put_in(bench: Bench) -> None:
    entry = json.dumps({"kind": "authorised", "sequence": ENTRIES + 1, "previous": FIRST})
    digest = hashlib.sha256(entry.encode()).hexdigest()
    bench.run("INSERT INTO audit VALUES (?, ?, ?, ?)", ENTRIES + 1, STUDY, entry, digest)
    assert bench.queue.audit.broken_at() == ENTRIES + 1


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "null", "{}", '{"sequence": 2}', "\u00e9"])
def test_an_entry_that_is_none(bench: Bench, text: str) -> None:
    """A damaged entry is told like a forged one; it must not end the check."""
    bench.run("UPDATE audit SET entry = ? WHERE sequence = 2", text)
    assert bench.queue.audit.broken_at() == 2
    proofs = bench.queue.audit.proofs(STUDY)
    assert (proofs["chain_holds"], proofs["broken_at"]) == (False, 2)


def test_it_goes_on_where_it_was_after_a_restart(bench: Bench) -> None:
    bench.reopen()
    claim = bench.claimed("IM4")
    bench.queue.deletions.purged(STUDY, [], [(bench.authorise(claim)[0], "changed")], [])
    assert bench.queue.audit.broken_at() is None
    assert len(bench.queue.audit.of_study(STUDY)) == ENTRIES + 2


def test_more_than_a_page(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    claim = bench.claimed(*(f"IM{number}" for number in range(1300)))
    bench.authorise(claim)
    assert len(bench.queue.audit.of_study(STUDY)) == 1300
    assert bench.queue.audit.broken_at() is None
    bench.run("UPDATE audit SET entry = entry || ' ' WHERE sequence = 1200")
    assert bench.queue.audit.broken_at() == 1200
    bench.queue.close()
