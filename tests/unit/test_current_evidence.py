"""Evidence is dated when the store was asked, and is what anybody else would be served: attacks on the whole way from
the look to the unlink."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import filebytes
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import Capabilities, Chunk, StoredObject
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import proof
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from tests.pieces import FakeClock, Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

STUDY = Uid("1.2.1")
DATA = [instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 5)]
ETAG = Capabilities(etag_is_content=True)


@dataclass
class WatchedStore(MemoryStore):
    """Knows when it was last asked about each key; ``slow`` makes an answer come late: what it says is as old then."""

    clock: FakeClock = field(default_factory=FakeClock)
    asked: dict[str, float] = field(default_factory=dict)
    slow: Callable[[str, str], float] = lambda _operation, _key: 0.0

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self._look("head", key)
        seen = super().head(key, version_id)
        self.clock.advance(self.slow("head", key))
        return seen

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        began = self.clock.now()
        for seen in list(super().listing(prefix, after)):
            self.asked[seen.key] = began
            yield seen
        self.clock.advance(self.slow("listing", prefix))

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        began = self.clock.now()
        for seen in list(super().current_versions(prefix)):
            if seen is not None:
                self.asked[seen.key] = began
            yield seen
        self.clock.advance(self.slow("listing", prefix))

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
        self._look("read", key)
        yield from super().read(
            key, version_id, offset_bytes=offset_bytes, length_bytes=length_bytes, buffer=buffer, checksum=checksum
        )
        self.clock.advance(self.slow("read", key))

    def _look(self, operation: str, key: str) -> None:
        self.asked[key] = self.clock.now()


@dataclass
class WatchedCatalogue(MemoryCatalogue):
    clock: FakeClock = field(default_factory=FakeClock)
    asked_at: float = 0.0
    slow: Callable[[], float] = lambda: 0.0

    def get(self, study_uid: Uid) -> StudyRecord | None:
        self.asked_at = self.clock.now()
        found = super().get(study_uid)
        self.clock.advance(self.slow())
        return found


class Bench:
    """The daemon's parts over a store that tells when it was asked. Whenever a file is about to be unlinked, what was
    asked about its object, the newest manifest and the catalogue must be young."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capabilities: Capabilities, versioned: bool
    ) -> None:
        clock = FakeClock()
        self.store = WatchedStore(clock=clock, capabilities=capabilities, versioned=versioned)
        self.catalogue = WatchedCatalogue(clock=clock)
        self.pieces = Pieces(root, store=self.store, catalogue=self.catalogue, clock=clock)
        self.pieces.memory = self.store
        self.ages: list[float] = []
        real = proof._unlink_if_same

        def watched(*arguments: object) -> proof.Deleting:
            found = arguments[4]
            assert isinstance(found, proof.DeletionProof)
            oldest = min(self.store.asked[found.key], self.store.asked[found.manifest_key], self.catalogue.asked_at)
            self.ages.append(clock.now() - oldest)
            return (yield from real(*arguments))  # type: ignore[arg-type]

        monkeypatch.setattr(proof, "_unlink_if_same", watched)

    def write(self, count: int = len(DATA)) -> None:
        for number, data in enumerate(DATA[:count], 1):
            (self.pieces.inbox / f"IM{number}").write_bytes(data)

    def once(self, operation: str, key_part: str, seconds: float) -> list[str]:
        """The next answer to this operation on such a key comes so many seconds late; lists what it was."""
        done: list[str] = []

        def slow(asked: str, key: str) -> float:
            if done or asked != operation or key_part not in key:
                return 0.0
            done.append(key)
            return seconds

        self.store.slow = slow
        return done

    @property
    def state(self) -> str | None:
        shown = self.pieces.queue.reports.show(STUDY)
        return None if shown is None else str(shown["state"])

    def keys(self, part: str = ".dcm") -> list[str]:
        return sorted(key for key in self.store.versions if part in key)


WAYS = {
    "read-back": (Capabilities(), False),
    "etag": (ETAG, False),
    "read-back-versions": (Capabilities(), True),
    "etag-versions": (ETAG, True),
}


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch, *WAYS[request.param])
    yield bench
    bench.pieces.close()


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch, Capabilities(), versioned=True)
    yield bench
    bench.pieces.close()


# -- A2: dated when it was asked --------------------------------------------------------------------------------------


def test_a_commit_long_after_the_look_is_no_fresh_evidence(plain: Bench) -> None:
    """The first look of the page is 1000 s old when the page is committed: it is looked at again before the unlink."""
    plain.write()
    plain.pieces.settle()
    slowed = plain.once("read", "1.2.1.1.2/", 1000.0)
    plain.pieces.ship()
    assert slowed
    assert plain.pieces.left() == []
    assert len(plain.ages) == len(DATA) and max(plain.ages) <= LIFETIME_SECONDS
    assert plain.state == StudyState.ARCHIVED


def test_a_look_again_that_takes_too_long_is_cut_into_smaller_ones(plain: Bench) -> None:
    """Each reading takes 400 s: the page's evidence is never young as a whole. Whatever is young goes, the rest is
    looked at again; nothing parks, and it ends."""
    plain.write()
    plain.pieces.settle()
    plain.store.slow = lambda operation, key: 400.0 if operation == "read" and ".dcm" in key else 0.0
    plain.pieces.run()
    assert plain.pieces.left() == []
    assert len(plain.ages) == len(DATA) and max(plain.ages) <= LIFETIME_SECONDS


def test_an_object_that_takes_too_long_by_itself_stays_and_is_tried_again(plain: Bench) -> None:
    plain.write(1)
    plain.pieces.settle()
    plain.store.slow = lambda operation, key: 1000.0 if operation == "read" and ".dcm" in key else 0.0
    plain.pieces.ship()
    assert len(plain.pieces.left()) == 1 and plain.ages == []
    assert plain.state == StudyState.QUEUED
    plain.store.slow = lambda _operation, _key: 0.0
    plain.pieces.run()
    assert plain.pieces.left() == [] and max(plain.ages) <= LIFETIME_SECONDS


def test_a_manifest_and_a_catalogue_read_long_ago_are_read_again(plain: Bench) -> None:
    """Between the manifest's reading and the purge lie 1000 s: what the catalogue takes."""
    plain.write()
    plain.pieces.settle()
    waits = [1000.0, 0.0, 0.0, 0.0]
    plain.catalogue.slow = lambda: waits.pop(0) if waits else 0.0
    plain.pieces.ship()
    assert len(waits) < 3
    assert plain.pieces.left() == [] and max(plain.ages) <= LIFETIME_SECONDS


def test_a_manifest_that_took_long_to_read_is_as_old_as_its_request(plain: Bench) -> None:
    plain.write()
    plain.pieces.settle()
    slowed = plain.once("read", "/manifests/", 1000.0)
    plain.pieces.ship()
    assert slowed
    assert plain.pieces.left() == [] and max(plain.ages) <= LIFETIME_SECONDS


def _slow_comparison(plain: Bench, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None] = lambda: None) -> None:
    """The first file is compared for longer than a proof holds, while something happens to the archive."""
    real, waits = filebytes.sha256_of, [LIFETIME_SECONDS + 1]

    def slow(fd: int, size_bytes: int, *rest: Any) -> str:
        if waits:
            plain.pieces.clock.advance(waits.pop())
            act()
        return real(fd, size_bytes, *rest)

    monkeypatch.setattr(proof, "sha256_of", slow)


def test_a_comparison_that_takes_longer_than_the_proof_holds(plain: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file on a slow share: the archive is asked once more before the unlink, so that the file goes after all,
    and on evidence that is young."""
    plain.write(1)
    plain.pieces.settle()
    asked: list[float] = []
    real = os.unlink

    def unlink(name: bytes, **rest: Any) -> None:
        if name == b"IM1":
            keys = [key for key in plain.store.asked if ".dcm" in key or "/manifests/" in key]
            asked.extend(plain.pieces.clock.now() - plain.store.asked[key] for key in keys)
            asked.append(plain.pieces.clock.now() - plain.catalogue.asked_at)
        real(name, **rest)

    monkeypatch.setattr(os, "unlink", unlink)
    _slow_comparison(plain, monkeypatch)
    plain.pieces.ship()
    assert plain.pieces.left() == []
    assert len(asked) == 3 and max(asked) <= LIFETIME_SECONDS


@pytest.mark.parametrize("what", ["object", "manifest", "catalogue"])
def test_what_is_lost_during_a_long_comparison(plain: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    plain.write(1)
    plain.pieces.settle()

    def lose() -> None:
        if what == "catalogue":
            plain.catalogue.records.clear()
        else:
            plain.store.mark_deleted(plain.keys(".dcm" if what == "object" else "/manifests/")[0])

    _slow_comparison(plain, monkeypatch, lose)
    plain.pieces.ship()
    assert len(plain.pieces.left()) == 1
    assert plain.state == StudyState.QUEUED
    plain.pieces.run()
    assert plain.pieces.left() == [] and plain.state == StudyState.ARCHIVED


@pytest.mark.parametrize("what", ["damaged", "exchanged", "gone", "catalogue"])
def test_what_was_recorded_and_is_no_more_deletes_nothing(plain: Bench, what: str) -> None:
    """Looked at again before the purge, the archive does not have what it was seen to have."""
    plain.write()
    plain.pieces.settle()

    def spoil() -> float:
        plain.catalogue.slow = lambda: 0.0
        (key,) = plain.keys("/manifests/")
        if what == "damaged":
            plain.store.overwrite(key, b"damaged")
        elif what == "exchanged":
            other = replace(plain.pieces.manifest(STUDY), created_by="somebody else")
            plain.store.overwrite(key, other.to_bytes())
        elif what == "gone":
            plain.store.mark_deleted(key)
        else:
            plain.catalogue.records.clear()
        return 1000.0

    plain.catalogue.slow = spoil
    plain.pieces.ship()
    assert len(plain.pieces.left()) == len(DATA) and plain.ages == []
    assert plain.state == StudyState.QUEUED
    plain.pieces.run()
    assert plain.pieces.left() == [] and max(plain.ages) <= LIFETIME_SECONDS
    assert plain.catalogue.records[STUDY] == plain.pieces.manifest(STUDY).record()


def test_a_clock_that_goes_back_makes_nothing_younger(plain: Bench) -> None:
    """It is set back by a second between the verification and the purge: of what was asked before nobody knows the
    age any more."""
    plain.write()
    plain.pieces.settle()
    looks: list[int] = []

    def set_back() -> None:
        plain.pieces.clock.advance(-5.0)
        looks.append(len(plain.store.reads))

    with at(stages, "purge", set_back):
        plain.pieces.ship()
    assert plain.pieces.left() == []
    again = plain.store.reads[looks[0] :]
    assert set(plain.keys()) <= set(again), "every object was read again after the clock was set"
    assert any("/manifests/" in key for key in again)


# -- A3: what is current --------------------------------------------------------------------------------------------


def hide(bench: Bench, key: str) -> None:
    bench.store.mark_deleted(key)


def other_bytes(bench: Bench, key: str) -> None:
    bench.store.overwrite(key, b"somebody else's")


def same_bytes(bench: Bench, key: str) -> None:
    bench.store.overwrite(key, bench.store.versions[key][-1])


def served(bench: Bench, key: str) -> bytes | None:
    """What a plain GET gives."""
    return None if key in bench.store.hidden else bench.store.versions[key][-1]


ATTACKS = [hide, other_bytes, same_bytes]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("stage", ["verify", "purge"])
def test_what_is_not_served_any_more_is_no_proof(
    bench: Bench, attack: Callable[[Bench, str], None], stage: str
) -> None:
    """Whatever was done to an object before it was looked at, each file that goes is served from the key that the
    manifest names, and the proof names the version that is current."""
    bench.write()
    bench.pieces.settle()
    late = stage == "purge"  # then evidence must be asked for again: it has grown old

    def act() -> None:
        for key in bench.keys()[:2]:
            attack(bench, key)
        if late:
            bench.pieces.clock.advance(LIFETIME_SECONDS)

    with at(stages, stage, act):
        bench.pieces.ship()
    bench.pieces.run()
    assert bench.pieces.left() == []
    assert bench.state == StudyState.ARCHIVED
    listed = bench.pieces.manifest(STUDY).instances
    assert sorted(served(bench, item.key) or b"" for item in listed) == sorted(DATA)
    for proven in proofs(bench):
        assert served(bench, proven["key"]) is not None
        if bench.store.versioned:
            current = str(len(bench.store.versions[proven["key"]]) - 1)
            assert proven["version_id"] == current
            if not (late and attack is same_bytes):  # the manifest was there already, and is as right as it was
                assert [i.version_id for i in listed if i.key == proven["key"]] == [current]
    assert max(bench.ages) <= LIFETIME_SECONDS


def proofs(bench: Bench) -> list[dict[str, Any]]:
    with bench.pieces.queue._database.read() as db:
        rows = db.execute("SELECT entry FROM audit ORDER BY sequence").fetchall()
    return [entry for row in rows if (entry := json.loads(row["entry"]))["kind"] == "authorised"]
