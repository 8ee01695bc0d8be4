"""Studies whose objects the archive answers with an error for ever: they wait by themselves, and all others go on.

The real intake, queue and pipeline on a clock that is told; the archive is in memory and fails for some studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import Content, Receipt, StoredObject
from dicomwatchd.errors import CredentialsRefused, EncryptionKeyUnusable, OutOfReach, Throttled, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.backoff import ENDPOINT_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from tests.pieces import Pieces
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore

STORE, CATALOGUE = "s3 at test", "dynamodb at test"
ERRORS: dict[str, Callable[[str], Transient]] = {
    "500": lambda where: Transient("failed", code="server-error", endpoint=where),
    "403": lambda where: CredentialsRefused("failed", endpoint=where),
    "kms": lambda where: EncryptionKeyUnusable("failed", endpoint=where),
    "timeout": lambda where: OutOfReach("failed", endpoint=where),
    "throttled": lambda where: Throttled("failed", endpoint=where, retry_after_seconds=600),
}
STAGES = ("put", "verify", "manifest", "catalogue")
#: While all others fail, the next is tried when the endpoint's pause is over: of both ends of the line in turn.
TURN_SECONDS = ENDPOINT_PAUSE_SECONDS + 1.0


class Poisoned:
    """Which studies fail, where and how; what was asked for them."""

    def __init__(self) -> None:
        self.studies: set[str] = set()
        self.stage, self.error = "put", ERRORS["500"]
        self.down = False
        self.asked: list[tuple[str, str]] = []

    def meets(self, stage: str, study: str, where: str) -> None:
        if stage == self.stage and (self.down or study in self.studies):
            self.asked.append((stage, study))
            raise self.error(where)


class Store(MemoryStore):
    poisoned: Poisoned

    def put(self, key: str, content: Content) -> Receipt:
        self.poisoned.meets("manifest" if "/manifests/" in key else "put", key.split("/")[1], STORE)
        return super().put(key, content)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        if key.endswith(".dcm"):
            self.poisoned.meets("verify", key.split("/")[1], STORE)
        return super().head(key, version_id)

    def read(self, key: str, version_id: str | None = None, **options: Any) -> Iterator[Any]:
        if key.endswith(".dcm"):
            self.poisoned.meets("verify", key.split("/")[1], STORE)
        return super().read(key, version_id, **options)


class Catalogue(MemoryCatalogue):
    poisoned: Poisoned

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        self.poisoned.meets("catalogue", record.study_uid, CATALOGUE)
        super().put(record, instead_of=instead_of)


class World:
    def __init__(self, root: Path) -> None:
        self.poisoned = Poisoned()
        store, catalogue = Store(), Catalogue()
        store.poisoned = catalogue.poisoned = self.poisoned
        self.pieces = Pieces(root, store=store, catalogue=catalogue, quiet_seconds=1.0, settle_seconds=0.0)
        self._numbers = iter(range(1, 10_000))

    @property
    def clock(self) -> Any:
        return self.pieces.clock

    def drop(self, count: int, *, poisoned: bool = False) -> list[str]:
        """Studies of one file that are quiet now."""
        studies = []
        for _ in range(count):
            number = next(self._numbers)
            uid = Uid(f"1.2.{number}")
            (self.pieces.inbox / f"IM{number}").write_bytes(instance(uid, f"{uid}.1", f"{uid}.1.1", number))
            studies.append(str(uid))
        if poisoned:
            self.poisoned.studies |= set(studies)
        self.pieces.settle()
        return studies

    def waiting(self) -> set[str]:
        with self.pieces.queue._database.read() as db:
            return {row[0] for row in db.execute("SELECT study_uid FROM studies WHERE state != 'archived'")}

    def row(self, study: str) -> dict[str, Any]:
        with self.pieces.queue._database.read() as db:
            return dict(db.execute("SELECT * FROM studies WHERE study_uid = ?", (study,)).fetchone())

    def seconds_until(self, done: Callable[[], bool], at_most: float, step: float = 0.5) -> float:
        """How long it takes until this is so, on the world's clock."""
        passed = 0.0
        while True:
            self.pieces.ship()
            if done():
                return passed
            assert passed <= at_most, f"not within {at_most} s"
            self.clock.advance(step)
            passed += step

    def work(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            self.pieces.ship()
            self.clock.advance(step)

    def archived(self, studies: list[str]) -> Callable[[], bool]:
        return lambda: not self.waiting() & set(studies)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.pieces.close()


@pytest.mark.parametrize(
    ("stage", "error", "count"),
    [
        (stage, error, (1, 2, 8)[(row + column) % 3])
        for row, stage in enumerate(STAGES)
        for column, error in enumerate(sorted(ERRORS))
    ],
)
def test_a_healthy_study_goes_while_others_are_poisoned(world: World, stage: str, error: str, count: int) -> None:
    world.poisoned.stage, world.poisoned.error = stage, ERRORS[error]
    bad = world.drop(count, poisoned=True)
    good = world.drop(3)
    # A service that throttles asks all to wait, each time.
    each = 2 * TURN_SECONDS * (3 if error == "throttled" else 1)
    world.seconds_until(world.archived(good), each)
    world.work(600, step=2.0)
    later = world.drop(2)
    world.seconds_until(world.archived(later), each)
    assert world.waiting() == set(bad), "they are neither parked nor forgotten"
    assert not world.pieces.log.events("study-parked")
    world.poisoned.studies.clear()
    world.seconds_until(world.archived(bad), LONGEST_PAUSE_SECONDS + TURN_SECONDS, step=5.0)
    assert world.pieces.left() == []


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.long)])
def test_many_that_are_poisoned(world: World, count: int) -> None:
    bad = world.drop(count, poisoned=True)
    for _ in range(6):
        good = world.drop(2)
        world.seconds_until(world.archived(good), 2 * TURN_SECONDS)
        world.work(120, step=2.0)
    assert world.waiting() == set(bad)
    world.poisoned.studies.clear()
    world.seconds_until(world.archived(bad), LONGEST_PAUSE_SECONDS + TURN_SECONDS, step=5.0)


def test_their_pauses_grow_and_the_others_wait_for_nothing(world: World) -> None:
    [bad] = world.drop(1, poisoned=True)
    tries = []
    for _ in range(12):
        asked = len(world.poisoned.asked)
        good = world.drop(1)
        world.pieces.ship()
        assert world.archived(good)(), "at once"
        tries.append(len(world.poisoned.asked) - asked)
        world.work(60, step=2.0)
    assert sum(tries) <= 12 and world.row(bad)["blamed"] >= 4
    assert len(world.poisoned.asked) <= 14, "2, 4, 8 ... seconds and not every time that others pass"


def test_turns_and_pauses_outlive_a_restart(world: World) -> None:
    [bad] = world.drop(1, poisoned=True)
    for _ in range(8):
        world.drop(1)
        world.work(40, step=2.0)
    before = world.row(bad)
    assert before["blamed"] >= 3 and before["turn"] > 0 and before["not_before"] > world.clock.now() - 1000
    asked = len(world.poisoned.asked)
    world.pieces.restart()
    world.pieces.ship()
    assert {name: world.row(bad)[name] for name in ("blamed", "turn")} == {
        name: before[name] for name in ("blamed", "turn")
    } or len(world.poisoned.asked) == asked + 1
    for _ in range(4):
        world.pieces.restart()
        world.pieces.ship()
    assert len(world.poisoned.asked) <= asked + 1, "a restart is no reason to try it sooner"


# -- the endpoint is down ----------------------------------------------------------------------------------------------


def test_an_outage_makes_no_storm_and_takes_turns(world: World) -> None:
    world.poisoned.down = True
    studies = world.drop(10)
    world.work(600)
    asked = [study for _, study in world.poisoned.asked]
    assert len(asked) <= 2 + 6 + 600 / (ENDPOINT_PAUSE_SECONDS / 2), "one request at a time, seldom"
    assert sorted(asked[:10]) == sorted(studies), "each before any a second time"
    assert {world.row(study)["blamed"] for study in studies} == {0}


@pytest.mark.parametrize(("count", "hours"), [(1, 2), (10, 0.1), (10, 2)])
def test_after_an_outage_all_go_at_once(world: World, count: int, hours: float) -> None:
    world.poisoned.down = True
    studies = world.drop(count)
    world.work(hours * 3600, step=20.0)
    world.poisoned.down = False
    world.seconds_until(lambda: len(world.waiting()) < count, TURN_SECONDS)
    assert world.archived(studies)(), "with the first that is through, all others"


def test_after_an_outage_old_ones_go_first(world: World) -> None:
    world.poisoned.down = True
    old = world.drop(5)
    world.work(300)
    new = world.drop(2)
    world.poisoned.down = False
    shipped: list[str] = []
    world.pieces.dispatcher._on_shipped = lambda shipment: shipped.append(shipment.claim.study_uid)
    world.seconds_until(world.archived([*old, *new]), TURN_SECONDS)
    assert shipped[1:6] == old and shipped[0] in new, "the first was the trial: one that nobody has tried"


def test_new_files_do_not_bring_a_poisoned_study_before_the_others(world: World) -> None:
    [bad] = world.drop(1, poisoned=True)
    for number in range(6):
        world.drop(1)
        (world.pieces.inbox / f"MORE{number}").write_bytes(instance(Uid(bad), f"{bad}.1", f"{bad}.1.{number + 2}", 7))
        world.pieces.settle()
        world.work(40, step=2.0)
    assert world.row(bad)["blamed"] >= 2, "what it has done before is not forgotten"


def test_the_operators_word_forgives(world: World) -> None:
    [bad] = world.drop(1, poisoned=True)
    for _ in range(6):
        world.drop(1)
        world.work(40, step=2.0)
    world.poisoned.studies.clear()
    assert world.pieces.queue.claims.retry(bad)
    assert (world.row(bad)["blamed"], world.row(bad)["turn"]) == (0, 0)
    world.pieces.ship()
    assert world.archived([bad])()
