"""Finished segments of the audit chain go to the archive, and no entry goes from here before the archive has it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import audit_segments
from dicomwatchd.archive.layout.audit_segments import SegmentKey
from dicomwatchd.archive.stores.port import Content, Receipt
from dicomwatchd.audit.sealing import REST_STEPS, SEGMENT_SECONDS
from dicomwatchd.errors import OutOfReach, Permanent, Stopping
from dicomwatchd.queue.audit import FIRST
from tests.pieces import at
from tests.unit.chains import Place, in_memory
from tests.unit.queues import STUDY
from tests.unit.states import restore

OTHER = "1.2.2"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as path:
        yield path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.bench.queue.close()


def proven(place: Place, study: str = STUDY) -> tuple[list[str], bool]:
    """(the outcome of each deletion on record, whether all of the record holds)."""
    said = place.prover.prove(study)
    holds = said["chain_holds"] and said["published"]["holds"] and said["archived"]["outcome"] == "whole"
    return [file["outcome"] for file in said["files"]], holds


# -- what happens ---------------------------------------------------------------------------------------------------


def test_finished_segments_go_and_the_rest_stays(place: Place) -> None:
    place.delete(5)
    place.seal()
    assert [keys.parse_audit_segment(key)[1:3] for key in place.segment_keys()] == [(1, 4), (5, 8)]  # type: ignore[index]
    assert place.here() == [9, 10]
    assert proven(place) == (["deleted"] * 5, True)
    assert place.outcome() == "fits"
    place.delete()
    place.seal()
    assert place.here() == []
    assert place.bench.queue.audit.check() == (None, 12)
    assert place.bench.queue.audit.head().sequence == 12
    assert proven(place) == (["deleted"] * 6, True)


def test_the_chain_goes_on_from_what_is_sealed_when_nothing_is_left_here(place: Place) -> None:
    place.delete(2)
    place.seal()
    assert place.here() == []
    before = place.bench.queue.audit.head()
    place.restart()
    assert place.bench.queue.audit.head() == before
    assert place.bench.queue.reports.progress() >= 4
    place.delete()
    assert place.here() == [5, 6]
    [entry] = place.bench.rows("SELECT entry FROM audit WHERE sequence = 5")
    assert json.loads(entry["entry"])["previous"] == before.sha256
    assert place.bench.queue.audit.broken_at() is None
    place.checkpoints.step()
    assert place.outcome() == "fits" and place.told() == []


def test_a_segment_can_be_checked_with_nothing_but_its_object(place: Place) -> None:
    """gunzip, and SHA-256 of each line."""
    place.delete(4)
    place.seal()
    previous, number = FIRST, 0
    for key in place.segment_keys():
        text = gzip.decompress(place.store.versions[key][-1])
        assert hashlib.sha256(text).hexdigest() in key
        header, *entries = text.decode("ascii").splitlines()
        assert json.loads(header)["previous"] == previous
        for entry in entries:
            number += 1
            body = json.loads(entry)
            assert (body["sequence"], body["previous"]) == (number, previous)
            previous = hashlib.sha256(entry.encode()).hexdigest()
        assert json.loads(header)["head"] == previous
    assert number == 8


def test_what_is_not_full_goes_when_it_is_old(place: Place) -> None:
    place.delete()
    place.seal()
    assert place.segment_keys() == []
    place.bench.clock.seconds += SEGMENT_SECONDS + 1
    place.seal()
    assert len(place.segment_keys()) == 1 and place.here() == []
    for _ in range(3):
        place.bench.clock.seconds += SEGMENT_SECONDS + 1
        place.seal()
    assert len(place.segment_keys()) == 1, "nothing new makes no segment"


def test_nothing_is_sealed_that_was_not_published(place: Place) -> None:
    place.delete(4)
    while place.sealing.step():
        pass
    assert place.segment_keys() == []
    place.checkpoints.step()
    place.delete(4)
    while place.sealing.step():
        pass
    assert place.here() == list(range(9, 17)), "what came after the audit checkpoint is here"


def test_a_deletion_whose_end_is_in_the_next_segment(place: Place) -> None:
    bench = place.bench
    claim = bench.claimed("IM1", "IM2", "IM3", "IM4")
    files = bench.authorise(claim)
    place.seal()
    assert place.here() == [] and len(place.segment_keys()) == 1
    bench.queue.deletions.purged(STUDY, files[:3], [(files[3], "changed")], [])
    bench.finish(claim)
    place.seal()
    assert place.here() == [] and len(place.segment_keys()) == 2
    assert proven(place) == (["deleted", "deleted", "deleted", "restored"], True)


def test_studies_are_found_in_their_segments_alone(place: Place) -> None:
    for study in (STUDY, OTHER, STUDY):
        place.delete(2, study)
    place.delete(1, "1.2.3")
    place.seal()
    place.store.reads.clear()
    assert proven(place, OTHER) == (["deleted", "deleted"], True)
    assert {key for key in place.store.reads if "segments" in key} == {place.segment_keys()[1]}
    assert proven(place, STUDY)[0] == ["deleted"] * 4
    assert proven(place, "1.2.3") == (["deleted"], True)
    assert proven(place, "1.2.9") == ([], True)


def test_what_is_sealed_says_nothing_of_a_patient(place: Place) -> None:
    place.delete(2)
    place.seal()
    [key] = place.segment_keys()
    assert b"P1" not in gzip.decompress(place.store.versions[key][-1]) and STUDY not in key


# -- never before the archive has it -----------------------------------------------------------------------------------


def damaged(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


@pytest.mark.parametrize(
    "change", [damaged, lambda data: data[:-9], lambda _: b"", lambda data: data + data, lambda data: data[:10]]
)
def test_a_segment_that_reads_back_otherwise_is_not_sealed(place: Place, change: Callable[[bytes], bytes]) -> None:
    """Whatever the store has made of it: the entries stay, and it is sent again under another key."""
    real = place.store.put

    def put(key: str, content: Content) -> Receipt:
        found = real(key, content)
        if "segments" in key:
            place.store.versions[key] = [change(place.store.versions[key][-1])]
        return found

    place.delete(2)
    place.checkpoints.step()
    place.store.put = put  # type: ignore[method-assign]
    for _ in range(3):
        place.sealing.step()
        place.restart()
        place.checkpoints.step()
    assert place.here() == [1, 2, 3, 4]
    assert proven(place)[0] == ["deleted"] * 2
    assert place.log.events("audit-unsealed")
    tried = len(place.segment_keys())
    assert tried == 3, "each under a key of its own"
    place.store.put = real  # type: ignore[method-assign]
    place.seal()
    assert place.here() == [] and len(place.segment_keys()) == 4
    assert proven(place) == (["deleted"] * 2, True), "the damaged ones are passed over"


def test_a_store_that_damages_everything_is_not_filled(place: Place) -> None:
    real = place.store.put

    def put(key: str, content: Content) -> Receipt:
        found = real(key, content)
        if found.created:
            place.store.versions[key] = [damaged(place.store.versions[key][-1])]
        return found

    place.delete(2)
    place.checkpoints.step()
    place.store.put = put  # type: ignore[method-assign]
    for _ in range(20 * REST_STEPS):
        place.sealing.step()
    assert len(place.segment_keys()) < 10 and place.here() == [1, 2, 3, 4]
    assert "cannot be sealed" in (place.sealing.problem or "")


def test_a_store_that_forgets_what_it_took(place: Place) -> None:
    place.delete(2)
    place.checkpoints.step()
    place.store.put = lambda key, content: Receipt(key, 1, content.digest.sha256, created=True)  # type: ignore[method-assign]
    place.sealing.step()
    assert place.here() == [1, 2, 3, 4] and place.bench.queue.audit.check() == (None, 4)
    assert place.sealing.problem is not None


def test_a_bit_that_changed_on_the_way_is_no_damage(place: Place) -> None:
    place.delete(2)
    place.checkpoints.step()
    place.store.tampering = lambda name, time, chunks: (
        iter([damaged(b"".join(chunks))]) if "segments" in name and time == 1 else chunks
    )
    while place.sealing.step():
        pass
    assert place.here() == [] and len(place.segment_keys()) == 1


def test_somebody_else_has_put_something_under_the_key(place: Place) -> None:
    """The key is known only from the content; whoever knows the content can be first."""
    place.delete(2)
    place.checkpoints.step()
    segment = place.bench.queue.segments.begin(4, entries=4, seconds=1e9)
    assert segment is not None
    header = audit_segments.Header(
        place.bench.queue.audit.head().chain_id, segment.first, segment.last, segment.previous, segment.head
    )
    packed = audit_segments.pack(header, place.bench.queue.segments.texts(segment))
    name = SegmentKey(header.chain_id, 1, 4, packed.sha256)
    place.store.versions[name.key] = [b"mine"]
    place.sealing.step()
    assert place.here() == [1, 2, 3, 4]
    for _ in range(REST_STEPS + 1):
        place.sealing.step()
    while place.sealing.step():
        pass
    assert place.here() == [] and proven(place)[1]


@pytest.mark.parametrize(
    "error",
    [Permanent("no right", code="s3-access-denied"), OutOfReach("away", endpoint="s3"), Stopping("stop")],
)
def test_a_store_that_does_not_take_it(place: Place, error: Exception) -> None:
    place.delete(2)
    place.checkpoints.step()
    with pytest.MonkeyPatch.context() as context:

        def refuse(_key: str, _content: Content) -> Receipt:
            raise error

        context.setattr(place.store, "put", refuse)
        for _ in range(3):
            place.sealing.step()
    assert place.here() == [1, 2, 3, 4]
    assert (place.sealing.problem is None) == isinstance(error, Stopping)
    assert len(place.log.events("audit-unsealed")) == (0 if isinstance(error, Stopping) else 1)
    for _ in range(REST_STEPS + 1):
        place.sealing.step()
    while place.sealing.step():
        pass
    assert place.here() == [] and place.sealing.problem is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET entry = entry || ' ' WHERE sequence = 3",
        "UPDATE audit SET hash = replace(hash, 'a', 'b') WHERE sequence = 3",
        "UPDATE audit SET study_uid = '1.2.9' WHERE sequence = 3",
        "UPDATE audit SET entry = '' WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 3",
    ],
)
def test_a_broken_chain_is_not_sealed(place: Place, change: str) -> None:
    """What is left of it is the evidence of what was done to it."""
    place.delete(4)
    place.checkpoints.step()
    place.bench.run(change)
    place.seal()
    left = [number for number in range(1, 9) if number != 3 or "DELETE" not in change]
    assert place.segment_keys() == [] and place.here() == left
    assert place.bench.queue.audit.broken_at() == 3
    assert "broken at entry 3" in (place.sealing.problem or "")
    said = place.prover.prove(STUDY)
    assert (said["chain_holds"], said["broken_at"]) == (False, 3)


def test_a_head_exchanged_while_its_segment_is_under_way(place: Place) -> None:
    place.delete(2)
    place.checkpoints.step()
    assert place.bench.queue.segments.begin(4, entries=4, seconds=1e9) is not None
    place.bench.run("UPDATE audit_segments SET head = replace(head, 'a', 'b')")
    place.seal()
    assert place.segment_keys() == [] and place.here() == [1, 2, 3, 4]


def test_a_chain_that_was_cut_goes_on_and_stays_cut(place: Place) -> None:
    """Archiving does not stand still, so what it writes must not grow for ever."""
    place.delete(4)
    place.checkpoints.step()
    place.cut_to(2)
    place.delete(3)
    for _ in range(3):
        place.restart()
        place.seal()
    assert place.here() == [] and place.outcome() in ("cut", "differs")
    place.delete(4)
    place.seal()
    assert place.here() == [] and place.bench.queue.audit.head().sequence == 16
    assert place.outcome() == "differs" or place.outcome() == "cut"
    assert len(place.told()) >= 1


# -- killed at every step ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What SIGKILL is to the thread."""


def die() -> None:
    raise Killed


def killable(place: Place) -> dict[str, tuple[Any, str]]:
    return {
        "begin": (place.bench.queue.segments, "begin"),
        "put": (place.store, "put"),
        "read": (place.store, "read"),
        "head": (place.store, "head"),
        "sealed": (place.bench.queue.segments, "sealed"),
        "another_key": (place.bench.queue.segments, "another_key"),
        "clear": (place.bench.queue.segments, "clear"),
    }


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("when", [1, 2, 3])
@pytest.mark.parametrize("point", ["begin", "put", "read", "head", "sealed", "clear"])
def test_killed(tmp_path: Path, point: str, when: int, after: bool) -> None:
    """At each call, before and after it; each time the chain is whole, wherever its parts are, and it goes on."""
    place = Place(tmp_path)
    place.delete(5)
    place.checkpoints.step()
    target, name = killable(place)[point]
    try:
        with at(target, name, die, when=when, after=after):
            while place.sealing.step():
                pass
    except Killed:
        pass
    place.restart()
    assert place.bench.queue.audit.check() == (None, 10)
    assert proven(place) == (["deleted"] * 5, True)
    place.seal()
    assert place.here() == [9, 10] and len(place.segment_keys()) == 2
    assert proven(place) == (["deleted"] * 5, True)
    place.bench.queue.close()


def test_killed_while_entries_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.audit.sealing.CLEAR_ENTRIES", 1)
    place.delete(4)
    place.checkpoints.step()
    seen = set()
    for _ in range(20):
        place.sealing.step()
        seen.add(tuple(place.here()))
        place.restart()
        assert place.bench.queue.audit.check() == (None, 8)
        assert proven(place) == (["deleted"] * 4, True)
        place.checkpoints.step()
    assert place.here() == [] and len(seen) == 9, "one by one"


def test_what_is_sealed_and_still_here_is_told_once(place: Place) -> None:
    place.delete(2)
    place.checkpoints.step()
    place.sealing.step()
    assert place.here() == [1, 2, 3, 4] and len(place.segment_keys()) == 1
    assert place.bench.queue.audit.of_study(STUDY) == []
    assert proven(place) == (["deleted"] * 2, True)
    place.bench.run("UPDATE audit SET entry = ''")
    assert proven(place) == (["deleted"] * 2, True), "what is here of it is no longer asked"


def test_a_crash_and_new_entries_make_the_same_object(place: Place) -> None:
    """The bounds are written down first: what came meanwhile does not make another object of the same entries."""
    place.delete(2)
    place.checkpoints.step()
    with pytest.raises(Killed), at(place.store, "head", die):
        place.sealing.step()
    place.restart()
    place.delete(6)
    place.seal()
    assert len(place.segment_keys()) == 4 and place.here() == []


# -- the chain of the released program ---------------------------------------------------------------------------------


def test_a_released_state_is_sealed_bit_by_bit(tmp_path: Path) -> None:
    restore(4, tmp_path)
    place = Place(tmp_path, entries=3)
    place.prover = type(place.prover)(place.bench.queue.audit, place.bench.queue.segments, place.store, "archive-1")
    before = place.prover.prove("1.2.1")["files"]
    [chain] = place.bench.rows("SELECT value FROM meta WHERE key = 'audit_chain'")
    place.checkpoints.step()
    steps = 0
    while place.sealing.step():
        steps += 1
        assert len(place.segment_keys()) <= steps, "one at a time"
    assert place.here() == [7] and len(place.segment_keys()) == 2
    assert all(chain["value"] in key for key in place.segment_keys())
    said = place.prover.prove("1.2.1")
    assert said["files"] == before and said["archived"]["outcome"] == "whole"
    place.bench.queue.close()


def test_an_exchanged_archive_is_told_and_no_alarm(place: Place) -> None:
    """The segments are in the one before."""
    place.bench.queue.binding.bind("archive-1", "place")
    place.prover = type(place.prover)(place.bench.queue.audit, place.bench.queue.segments, place.store, "archive-1")
    place.delete(2)
    place.seal()
    assert proven(place)[1]
    place.bench.queue.binding.bind("archive-2", "elsewhere")
    place.store.versions.clear()
    place.prover = type(place.prover)(place.bench.queue.audit, place.bench.queue.segments, place.store, "archive-2")
    found = place.prover.archived()
    assert found.holds and found.elsewhere == 1 and "the previous one" in found.text
    said = place.prover.prove(STUDY)
    assert not said["archived"]["holds"] and "archive-1" in said["archived"]["text"]


def test_nothing_goes_of_a_segment_that_is_only_under_way(place: Place) -> None:
    """While entries of the one before it, which is sealed, are still here."""
    queue = place.bench.queue
    place.delete(4)
    first = queue.segments.begin(8, entries=4, seconds=0.0)
    assert first is not None
    queue.segments.sealed(first, sha256="0" * 64, size_bytes=1, studies=[])
    assert queue.segments.begin(8, entries=4, seconds=0.0) is not None
    assert queue.segments.clear(100) == 4
    assert place.here() == [5, 6, 7, 8]
