"""A key that was found damaged and holds the right bytes again: no study waits for ever for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Capabilities, Chunk, Content, Receipt
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline.deletion import proof
from dicomwatchd.pipeline.deletion.proof import NoProof
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore

STUDY, SERIES, SOP = Uid("1.2.1"), Uid("1.2.1.1"), Uid("1.2.1.1.1")
DATA = instance(STUDY, SERIES, SOP, 1)
OTHER = instance(STUDY, SERIES, "1.2.1.1.2", 2)
KEY = keys.instance(STUDY, SERIES, SOP, hashlib.sha256(DATA).hexdigest())
SECOND = keys.instance(STUDY, SERIES, SOP, hashlib.sha256(DATA).hexdigest(), 2)


@dataclass
class WaveringStore(MemoryStore):
    """At these keys every reading but the first ``good`` ones gives other bytes; what HEAD says is right."""

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(etag_is_content=True))
    wavers: dict[str, int] = field(default_factory=dict)

    def read(
        self,
        key: str,
        version_id: str | None = None,
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,
    ) -> Iterator[Chunk]:
        chunks = super().read(
            key, version_id, offset_bytes=offset_bytes, length_bytes=length_bytes, buffer=buffer, checksum=checksum
        )
        if key in self.wavers:
            self.wavers[key] -= 1
            if self.wavers[key] < 0:
                return iter([b"other bytes"])
        return chunks

    def put(self, key: str, content: Content) -> Receipt:
        md5 = hashlib.md5(content.read(0, content.digest.size_bytes), usedforsecurity=False)
        return replace(super().put(key, content), expected_etag=md5.hexdigest())


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, store=WaveringStore())
    assert isinstance(pieces.store, MemoryStore)
    pieces.memory = pieces.store
    yield pieces
    pieces.close()


def store(pieces: Pieces) -> WaveringStore:
    assert isinstance(pieces.store, WaveringStore)
    return pieces.store


def drop(pieces: Pieces, *names: str) -> None:
    """A modality sends the study (once more)."""
    for name in names:
        (pieces.inbox / f"{name}-1").write_bytes(DATA)
        (pieces.inbox / f"{name}-2").write_bytes(OTHER)


def first_keys(pieces: Pieces) -> list[str]:
    return [key for key in store(pieces).versions if "/manifests/" not in key and "-2." not in key]


def damaged_once(pieces: Pieces) -> dict[str, bytes]:
    """The study is archived under second keys, for the first ones were damaged; returns what these should hold."""
    drop(pieces, "A")
    pieces.run()
    right = {key: store(pieces).versions[key][-1] for key in first_keys(pieces)}
    for key in right:
        store(pieces).versions[key] = [b"damaged"]
    drop(pieces, "B")
    pieces.run()
    assert pieces.left() == [] and pieces.manifest(STUDY).damaged_keys == tuple(sorted(right))
    assert not {item.key for item in pieces.manifest(STUDY).instances} & set(right)
    return right


def state(pieces: Pieces) -> tuple[str, str | None]:
    shown = pieces.queue.reports.show(STUDY)
    assert shown is not None
    return shown["state"], shown["code"]


def test_a_study_goes_on_once_its_damaged_key_has_healed(pieces: Pieces) -> None:
    for key, data in damaged_once(pieces).items():
        store(pieces).versions[key] = [data]
    drop(pieces, "C")
    pieces.run()
    assert pieces.left() == []
    assert state(pieces)[0] == StudyState.ARCHIVED
    assert pieces.log.events("study-parked") == []
    manifest = pieces.manifest(STUDY)
    assert manifest.damaged_keys == ()
    assert {store(pieces).versions[item.key][-1] for item in manifest.instances} == {DATA, OTHER}
    drop(pieces, "D")  # and it is well from then on
    pieces.run()
    assert pieces.left() == [] and pieces.manifest(STUDY) == manifest
    assert len(pieces.log.events("keys-healed")) == 1


@pytest.mark.parametrize("good", range(4))
def test_a_key_that_gives_other_bytes_now_and_then_is_not_believed(pieces: Pieces, good: int) -> None:
    """HEAD says that all is well; one of the readings says that it is not. The study goes on with the next free key."""
    for key, data in damaged_once(pieces).items():
        store(pieces).versions[key] = [data]
    store(pieces).wavers[KEY] = good
    drop(pieces, "C")
    pieces.run()
    assert pieces.left() == []
    manifest = pieces.manifest(STUDY)
    (item,) = [item for item in manifest.instances if item.sop_instance_uid == SOP]
    assert (item.key == KEY) is (good >= 2)
    assert (KEY in manifest.damaged_keys) is (good < 2)


def test_a_state_that_was_lost_knows_no_damaged_keys_and_the_manifest_does(pieces: Pieces) -> None:
    for key, data in damaged_once(pieces).items():
        store(pieces).versions[key] = [data]
    pieces.close()
    for file in pieces.state.iterdir():
        file.unlink()
    pieces.start()
    drop(pieces, "C")
    pieces.run()
    assert pieces.left() == [] and pieces.manifest(STUDY).damaged_keys == ()


# -- what was parked for want of a proof ------------------------------------------------------------------------------


def parked(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A study for which a clause of the proof does not hold; returns when it was tried, as it grows."""
    tried: list[float] = []

    def refuse(*_: object, **__: object) -> None:
        tried.append(pieces.clock.now())
        raise NoProof("the manifest does not list it")

    monkeypatch.setattr(proof, "prove", refuse)
    drop(pieces, "A")
    pieces.settle()
    pieces.ship()
    pieces.clock.advance(2)
    pieces.ship()
    assert state(pieces) == (StudyState.PARKED, "no-proof")
    return tried


@pytest.mark.parametrize("restart", [False, True])
def test_it_is_tried_again_after_pauses_that_grow_also_over_restarts(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    tried = parked(pieces, monkeypatch)
    for _ in range(300):
        pieces.clock.advance(60)
        if restart and len(tried) % 2:
            pieces.restart()
        pieces.ship()
        assert state(pieces) == (StudyState.PARKED, "no-proof")
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert all(later > earlier - 65 for earlier, later in pairwise(pauses))
    assert pauses[0] < 190 and 3600 <= pauses[-1] < 3730
    monkeypatch.undo()
    pieces.clock.advance(3600)
    pieces.ship()
    assert pieces.left() == [] and state(pieces)[0] == StudyState.ARCHIVED


def test_the_upkeep_looks_for_it(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the daemon nobody else does."""
    parked(pieces, monkeypatch)
    pieces.clock.advance(3600)
    pieces.parts.upkeep.step()
    assert state(pieces)[0] == StudyState.QUEUED


def test_what_is_parked_for_another_reason_waits_for_a_person(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    parked(pieces, monkeypatch)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE studies SET code = 'store-unreliable'")
    monkeypatch.undo()
    pieces.clock.advance(10 * 86400)
    pieces.ship()
    assert state(pieces) == (StudyState.PARKED, "store-unreliable")


def test_a_clock_that_was_set_back_does_not_keep_it_waiting(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    parked(pieces, monkeypatch)
    monkeypatch.undo()
    pieces.clock.advance(-10 * 86400)
    pieces.ship()
    assert pieces.left() == []
