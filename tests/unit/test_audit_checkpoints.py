"""Entries cut off the end of the audit chain are missed, because heads of it were published in the archive."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import audit_checkpoints
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.audit import checkpoints
from dicomwatchd.audit.checkpoints import Checkpoints
from dicomwatchd.errors import OutOfReach, RequestRefused, Stopping
from dicomwatchd.queue import audit, open_queue
from dicomwatchd.queue.audit import FIRST
from dicomwatchd.queue.database.steps import TABLES
from tests.unit.chains import Place
from tests.unit.queues import STUDY, Bench


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.bench.queue.close()


# -- publishing -----------------------------------------------------------------------------------------------------


def test_nothing_is_published_before_anything_was_deleted(place: Place) -> None:
    place.checkpoints.step()
    assert place.store.versions == {}
    assert place.outcome() == "none" and place.checkpoints.problem is None


def test_the_head_is_published_when_it_has_moved(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    place.checkpoints.step()
    assert place.heads() == [2]
    place.delete(3)
    place.checkpoints.step()
    assert place.heads() == [2, 8]
    assert place.outcome() == "fits" and place.told() == []
    head = place.bench.queue.audit.head()
    found = audit_checkpoints.newest(place.store, head.chain_id)
    assert found is not None and (found.sequence, found.sha256) == (8, head.sha256)


def ticked(place: Place, seconds: int) -> None:
    """The thread's rounds, for so long."""
    for _ in range(seconds):
        place.checkpoints.tick()
        place.bench.clock.seconds += 1


def test_a_deletion_is_published_within_a_minute_and_a_burst_once(place: Place) -> None:
    ticked(place, 1)
    place.delete(3)
    ticked(place, 59)
    assert place.heads() == []
    place.delete()
    ticked(place, 2)
    assert place.heads() == [8], "all that there was"
    ticked(place, 3600)
    assert place.heads() == [8], "an hour of nothing costs nothing"
    place.delete()
    ticked(place, 62)
    assert place.heads() == [8, 10]


def test_no_more_than_one_a_minute(place: Place) -> None:
    begun = place.bench.clock.seconds
    while place.bench.clock.seconds < begun + 1200:
        place.delete()  # a minute passes
        ticked(place, 5)
    minutes = (place.bench.clock.seconds - begun) / 60
    assert minutes / 3 < len(place.heads()) <= minutes + 1


def test_what_could_not_be_published_is_tried_a_minute_later(place: Place) -> None:
    ticked(place, 1)
    place.delete()
    place.store.fault = OutOfReach("the store does not answer", endpoint="s3")
    ticked(place, 70)
    assert place.heads() == []
    place.store.fault = None
    ticked(place, 62)
    assert place.heads() == [2]


def test_a_start_compares_at_once(place: Place) -> None:
    place.delete(2)
    place.checkpoints.step()
    place.cut_to(1)
    place.restart()
    place.checkpoints.tick()
    assert len(place.told()) == 1


def test_a_restart_goes_on(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    place.restart()
    place.checkpoints.step()
    place.delete()
    place.checkpoints.step()
    assert place.heads() == [2, 4] and place.told() == []


def test_what_is_published_says_nothing_of_a_patient(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    for key, versions in place.store.versions.items():
        assert STUDY not in key and STUDY.encode() not in versions[-1]


# -- cutting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", range(8))
def test_entries_cut_off_the_end_are_missed(place: Place, left: int) -> None:
    place.delete(4)
    place.checkpoints.step()
    place.cut_to(left)
    assert place.bench.queue.audit.broken_at() is None, "the chain alone cannot tell"
    assert place.outcome() == "cut"
    place.checkpoints.step()
    assert [entry["audit_published"] for entry in place.told()] == [8]
    assert "entry 8" in (place.checkpoints.problem or "")
    place.checkpoints.step()
    assert len(place.told()) == 1, "not at each step"
    place.restart()
    place.checkpoints.step()
    assert len(place.told()) == 2, "told at each start"


@pytest.mark.parametrize("running", [True, False])
def test_a_chain_that_has_grown_again_is_not_the_one_that_was_published(place: Place, running: bool) -> None:
    place.delete(4)
    place.checkpoints.step()
    place.cut_to(4)
    place.delete(5)
    if not running:
        place.restart()
    place.checkpoints.step()
    assert place.outcome() == "differs"
    assert place.heads() == [8], "a newer head would cover what is missing"
    place.delete(5)
    for _ in range(3):
        place.checkpoints.step()
        place.restart()
    assert place.heads() == [8] and place.outcome() == "differs"


def test_of_two_heads_of_one_number_the_store_keeps_the_first_and_says_so(place: Place) -> None:
    """Two machines on copies of one state may publish in the same moment, each after it has looked."""
    place.delete()
    place.checkpoints.step()
    [sequence] = place.heads()
    first = audit_checkpoints.newest(place.store, place.bench.queue.audit.head().chain_id)
    assert first is not None and first.sequence == sequence
    assert audit_checkpoints.publish(place.store, replace(first, sha256="b" * 64)) == first


def test_the_newest_entry_exchanged(place: Place) -> None:
    """The chain alone cannot tell that either."""
    place.delete()
    place.checkpoints.step()
    place.cut_to(1)
    with place.bench.queue._database.write() as db:
        audit.append(db, STUDY, [{"kind": "restored", "file": 1, "at": 0.0}])
    assert place.bench.queue.audit.broken_at() is None
    assert place.outcome() == "differs"


def test_what_came_after_the_newest_head_is_not_missed(place: Place) -> None:
    """As the documentation says."""
    place.delete(2)
    place.checkpoints.step()
    place.delete()
    place.cut_to(4)
    assert place.outcome() == "fits"


def test_a_restored_backup_is_a_chain_that_was_cut(place: Place, tmp_path: Path) -> None:
    place.delete()
    with sqlite3.connect(tmp_path / "backup.db") as backup:
        place.bench.queue._database._connection.backup(backup)
    backup.close()
    place.delete()
    place.checkpoints.step()
    other = tmp_path / "restored"
    other.mkdir()
    (tmp_path / "backup.db").rename(other / "state.db")
    queue = open_queue(other, place.bench.clock, lambda _: None)
    assert checkpoints.compare(queue.audit, place.store).outcome == "cut"
    queue.close()


# -- other chains ---------------------------------------------------------------------------------------------------


def test_a_lost_state_is_no_alarm_and_is_seen(place: Place, tmp_path: Path) -> None:
    place.delete()
    place.checkpoints.step()
    old = place.bench.queue.audit.head().chain_id
    place.bench.queue.close()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    place.bench = Bench(fresh)
    place.begin()
    place.checkpoints.step()
    assert place.told() == [] and place.checkpoints.problem is None
    said = checkpoints.report(place.bench.queue.audit, place.store)
    assert said["outcome"] == "none" and said["holds"] and said["first_published_at"] is None
    assert [chain["chain_id"] for chain in said["other_chains"]] == [old]
    place.delete()
    place.checkpoints.step()
    said = checkpoints.report(place.bench.queue.audit, place.store)
    assert said["outcome"] == "fits" and said["first_published_at"] is not None
    assert said["chain_id"] != old and len(said["other_chains"]) == 1


def test_two_daemons_do_not_mind_each_other(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    other.store = place.store
    other.begin()
    for here in (place, other, place, other):
        here.delete()
        here.checkpoints.step()
    assert place.outcome() == other.outcome() == "fits"
    assert place.told() == other.told() == []
    place.cut_to(1)
    assert (place.outcome(), other.outcome()) == ("cut", "fits")
    other.bench.queue.close()


@pytest.mark.parametrize("further", [1, 2, 3])
def test_a_state_that_two_machines_run_on_is_told(place: Place, tmp_path: Path, further: int) -> None:
    """A copy goes on with the same chain, less far, as far, or farther; of one number the store keeps one head."""
    place.delete()
    place.checkpoints.step()
    copy = tmp_path / "copy"
    copy.mkdir()
    with sqlite3.connect(copy / "state.db") as to:
        place.bench.queue._database._connection.backup(to)
    to.close()
    other = Place(copy)
    other.store = place.store
    other.begin()
    other.checkpoints.step()
    place.delete(2)
    other.bench.clock.seconds += 5
    other.delete(further)
    place.checkpoints.step()
    other.checkpoints.step()
    assert place.told() == [] and len(other.told()) == 1
    other.delete(5)
    other.checkpoints.step()
    assert place.heads() == [2, 6], "what one of them has published is not covered by the other"
    place.delete()
    place.checkpoints.step()
    assert place.heads() == [2, 6, 8] and place.told() == []
    other.bench.queue.close()


# -- an archive that is not well ------------------------------------------------------------------------------------


def test_an_archive_out_of_reach_is_no_alarm(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    place.store.fault = OutOfReach("the store does not answer", endpoint="s3")
    assert place.outcome() == "unknown"
    said = checkpoints.report(place.bench.queue.audit, place.store)
    assert (said["outcome"], said["holds"], "does not answer" in said["text"]) == ("unknown", True, True)
    place.restart()
    for _ in range(3):
        place.checkpoints.step()
    assert len(place.log.events("audit-unpublished")) == 1, "once, not at each step"
    assert "cannot be published" in (place.checkpoints.problem or "")
    place.store.fault = None
    place.delete()
    place.checkpoints.step()
    assert place.checkpoints.problem is None and place.heads() == [2, 4] and place.told() == []


def test_nothing_is_tried_while_the_archive_is_in_trouble(place: Place) -> None:
    place.delete()
    queue, clock = place.bench.queue, place.bench.clock
    place.checkpoints = Checkpoints(
        queue.audit, place.store, clock, place.log, lambda: True, require_archive=lambda: None
    )
    place.checkpoints.step()
    assert place.store.versions == {}


@pytest.mark.parametrize("error", [RequestRefused("no right to create it"), Stopping("draining")])
def test_a_store_that_takes_no_head(place: Place, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to create objects there, say: told, and archiving goes on."""

    def refuse(_key: str, _content: Content) -> Receipt:
        raise error

    place.delete()
    with monkeypatch.context() as context:
        context.setattr(place.store, "put", refuse)
        place.checkpoints.step()
    assert (place.checkpoints.problem is None) == isinstance(error, Stopping)
    place.checkpoints.step()
    assert place.heads() == [2] and place.checkpoints.problem is None


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b'{"format": "dicomwatchd-audit-head/1"}'])
def test_a_head_that_is_none_is_bad(place: Place, data: bytes) -> None:
    place.delete()
    place.checkpoints.step()
    chain_id = place.bench.queue.audit.head().chain_id
    place.store.versions[keys.audit_checkpoint(chain_id, 2)] = [data]
    assert place.outcome() == "unreadable"
    place.restart()
    place.checkpoints.step()
    assert len(place.told()) == 1


def test_a_head_under_another_number(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    chain_id = place.bench.queue.audit.head().chain_id
    head = place.store.versions.pop(keys.audit_checkpoint(chain_id, 2))
    place.store.versions[keys.audit_checkpoint(chain_id, 9)] = head
    assert place.outcome() == "unreadable"


def test_a_bit_that_changed_on_the_way_is_no_alarm(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    key = keys.audit_checkpoint(place.bench.queue.audit.head().chain_id, 2)
    before = place.store.reads.count(key)
    place.store.tampering = lambda name, time, chunks: (
        iter([b"".join(chunks).replace(b"a", b"b")]) if (name, time) == (key, before + 1) else chunks
    )
    assert place.outcome() == "unknown"
    assert place.outcome() == "fits"


def test_other_things_below_the_heads_are_passed_over(place: Place) -> None:
    place.delete()
    place.checkpoints.step()
    prefix = keys.audit_checkpoints_prefix(place.bench.queue.audit.head().chain_id)
    for name in ("0", "00000000/x.json", "00000000/000000000000", "00000000/999999999997.json"):
        place.store.versions[prefix + name] = [b"x"]
    place.store.versions["audit/chains/x"] = [b"x"]
    assert checkpoints.report(place.bench.queue.audit, place.store)["outcome"] == "fits"


# -- the chain's id -------------------------------------------------------------------------------------------------


def test_each_state_has_its_own_and_keeps_it(place: Place, tmp_path: Path) -> None:
    first = place.bench.queue.audit.head()
    assert (first.sequence, first.sha256) == (0, FIRST)
    place.restart()
    assert place.bench.queue.audit.head() == first
    other = tmp_path / "other"
    other.mkdir()
    queue = open_queue(other, place.bench.clock, lambda _: None)
    assert queue.audit.head().chain_id != first.chain_id
    queue.close()


def test_a_state_from_before_gets_one(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as old:
        old.executescript(f"BEGIN; {TABLES} PRAGMA user_version = 1; COMMIT;")
    old.close()
    place = Place(tmp_path)
    place.delete()
    place.checkpoints.step()
    assert place.outcome() == "fits"
    place.bench.queue.close()


def test_the_newest_head_is_the_first_that_is_listed() -> None:
    chain = "0123456789abcdef" * 2
    numbers = [1, 2, 9, 10, 99, 9999, 10_000, 10_001, 123_456_789, keys.HIGHEST_SEQUENCE - 1]
    made = [keys.audit_checkpoint(chain, number) for number in numbers]
    assert sorted(made, reverse=True) == made
    assert [keys.parse_audit_checkpoint(key) for key in made] == numbers
    for bad in ("../x", "0123", chain.upper(), chain + "0"):
        with pytest.raises(ValueError, match="named by"):
            keys.audit_checkpoint(bad, 1)
    for number in (0, -1, keys.HIGHEST_SEQUENCE + 1):
        with pytest.raises(ValueError, match="numbered"):
            keys.audit_checkpoint(chain, number)
