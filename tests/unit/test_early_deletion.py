"""A disk that is too full, and files that wait for their time: which of them go before it, and what never does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.errors import OutOfReach, Transient
from dicomwatchd.intake.folder import disk
from dicomwatchd.pipeline.deletion.early import CHECK_SECONDS, STAYS_FULL, Room
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces
from tests.synthetic import Made, Maker, Patient

WEEK = 7 * 86400.0
ROOM = Room(0.10, 0.30)
#: The disk of these tests holds so many files.
FILES = 20


class Small:
    """A disk of some files' size, and what else is on it."""

    def __init__(self, pieces: Pieces, size_bytes: int) -> None:
        self._pieces, self._size = pieces, size_bytes
        self.others = 0
        self.asked = 0

    def usage(self, _path: object) -> Any:
        self.asked += 1
        used = self.others + sum(path.lstat().st_size for path in self._pieces.left())
        return SimpleNamespace(total=FILES * self._size, free=max(0, FILES * self._size - used))

    def fill(self, files: float) -> None:
        self.others = round(files * self._size)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(
        tmp_path,
        inboxes=2,
        after_archive=AfterArchive(delete=False, keep_seconds=WEEK),
        room=ROOM,
        quiet_seconds=3600.0,
    )
    yield pieces
    pieces.close()


def drop(pieces: Pieces, seed: int, files: int = 2, *, inbox: int = 0, **how: Any) -> list[Made]:
    """A study that is archived, and whose files wait."""
    made = Maker(seed=seed, **how).ct_series(pieces.inboxes[inbox] / str(seed), slices=files, rows=16, columns=16)
    pieces.settle()
    pieces.ship()
    return made


@pytest.fixture
def small(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> Small:
    pieces.inbox.joinpath("measure").mkdir()
    [made] = Maker(seed=99).ct_series(pieces.root, slices=1, rows=16, columns=16)
    made_disk = Small(pieces, made.path.stat().st_size)
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=made_disk.usage))
    return made_disk


def breathe(pieces: Pieces, rounds: int = 1) -> None:
    """The threads in turn: the disks are asked for, looked at, acted on, and what is due is shipped."""
    for _ in range(rounds):
        pieces.clock.advance(CHECK_SECONDS + 0.1)
        pieces.parts.early.step()
        pieces.look()
        pieces.parts.early.step()
        pieces.ship()


def there(*studies: list[Made]) -> list[int]:
    return [sum(one.path.exists() for one in made) for made in studies]


def test_the_oldest_go_until_there_is_room_and_no_more(pieces: Pieces, small: Small) -> None:
    studies = [drop(pieces, seed) for seed in range(1, 6)]
    breathe(pieces, 3)
    assert there(*studies) == [2, 2, 2, 2, 2] and not pieces.log.events("disk-full")
    small.fill(9)  # and 10 are ours: a twentieth is free
    reads = len(pieces.memory.reads)
    breathe(pieces, 6)
    # Six of twenty free is the goal, at the least: five files have gone, the oldest.
    assert there(*studies) == [0, 0, 1, 2, 2]
    assert len(pieces.memory.reads) > reads, "each is proven again before it goes"
    assert [one["inbox"] for one in pieces.log.events("disk-full")] == ["inbox1", "inbox2"], "both are on it"
    assert sum(int(str(one["files"])) for one in pieces.log.events("due-early")) == 5
    assert pieces.parts.early.at_work == [] and pieces.log.events("disk-has-room")
    # It fills again, slowly: nothing goes while there is enough, and the others have their time.
    small.fill(11)
    breathe(pieces, 3)
    assert there(*studies) == [0, 0, 1, 2, 2]
    pieces.clock.advance(WEEK)
    pieces.run(2)
    assert pieces.left() == []


def test_without_marks_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=WEEK))
    made = drop(pieces, 1)
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(total=100, free=0)))
    breathe(pieces, 5)
    assert there(made) == [2]
    pieces.close()


# -- what never goes ---------------------------------------------------------------------------------------------------


def test_what_is_not_proven_stays_on_a_disk_without_a_free_byte(pieces: Pieces, small: Small) -> None:
    proven = drop(pieces, 1)
    lost = drop(pieces, 2)
    for key in [key for key in pieces.memory.versions if lost[0].sop_instance_uid in key]:
        del pieces.memory.versions[key]
    changed = drop(pieces, 3)
    data = changed[0].path.read_bytes()
    changed[0].path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    contents = [one.path.read_bytes() for one in (*proven, *lost, *changed)]
    arriving = Maker(seed=4).ct_series(pieces.inbox / "4", slices=2, rows=16, columns=16)
    pieces.inbox.joinpath("readme").write_text("no DICOM")
    pieces.scan()
    small.fill(FILES)
    breathe(pieces)
    breathe(pieces)
    assert there(proven, arriving) == [0, 2]
    assert changed[0].path.exists() and (pieces.inbox / "readme").exists()
    pieces.require_nothing_lost(*contents, *(one.path.read_bytes() for one in arriving))
    # What the archive has lost is sent again first, from the very file, and goes on fresh evidence, or stays.
    assert lost[0].path.exists() or lost[0].sha256 in pieces.archived()
    breathe(pieces, 10)
    pieces.require_nothing_lost(*contents)
    assert changed[0].path.exists() or changed[0].path.name not in pieces.states()


def test_a_store_that_cannot_be_asked(pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drop(pieces, 1)
    small.fill(FILES)

    def away(*_: object, **__: object) -> object:
        raise OutOfReach("away", endpoint="store")

    for name in ("head", "read", "listing", "put"):
        monkeypatch.setattr(pieces.memory, name, away)
    breathe(pieces, 5)
    assert there(made) == [2]


def test_keep_is_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=WEEK), room=ROOM)
    small = Small(pieces, 1000)
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=small.usage))
    made = drop(pieces, 1)
    small.fill(FILES)
    pieces.after_archive = AfterArchive(delete=False)
    breathe(pieces, 5)
    assert there(made) == [2]
    # Also where the rule comes between the two steps: they are due, and stay.
    pieces.after_archive = AfterArchive(delete=False, keep_seconds=WEEK)
    monkeypatch.setattr(pieces, "ship", lambda: 0)
    breathe(pieces, 2)
    assert pieces.log.events("due-early")
    pieces.after_archive = AfterArchive(delete=False)
    monkeypatch.undo()
    pieces.run(2)
    assert there(made) == [2] and set(pieces.states().values()) == {"kept"}
    pieces.close()


def test_what_is_held_stays_held_and_what_may_not_go_is_not_even_asked_for(pieces: Pieces, small: Small) -> None:
    jane, john = Patient("DOE^JANE", "P1"), Patient("ROE^JOHN", "P2", "19510213", "M")
    both = [
        *Maker(seed=47, patient=jane).ct_series(pieces.inbox / "a", slices=2, study=0, series=1, rows=16, columns=16),
        *Maker(seed=47, patient=john).ct_series(pieces.inbox / "b", slices=2, study=0, series=2, rows=16, columns=16),
    ]
    pieces.run(3)
    assert pieces.queue.holds.count() == 1
    small.fill(FILES)
    breathe(pieces, 5)
    assert all(one.path.exists() for one in both)
    assert set(pieces.states().values()) == {"kept"} and not pieces.log.events("due-early")


def test_while_the_store_would_end_the_objects_nothing_is_let_go(pieces: Pieces, small: Small) -> None:
    made = drop(pieces, 1)
    pieces.memory.expires = "a rule would expire them"
    small.fill(FILES)
    breathe(pieces, 5)
    assert there(made) == [2]
    assert set(pieces.states().values()) == {"kept"}, "they wait for their time, and for no other reason"
    pieces.memory.expires = None
    breathe(pieces, 5)
    assert there(made) == [0]


def test_an_exchanged_inbox_is_not_emptied(pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drop(pieces, 1)
    monkeypatch.setattr(type(pieces.queue.roots), "is_exchanged", lambda *_: True)
    small.fill(FILES)
    breathe(pieces, 5)
    assert there(made) == [2] and not pieces.log.events("due-early")


# -- disks that are full of something else ----------------------------------------------------------------------------


def test_a_disk_that_others_fill_is_said_to_stay_full(pieces: Pieces, small: Small) -> None:
    studies = [drop(pieces, 1), drop(pieces, 2)]
    arriving = Maker(seed=3).ct_series(pieces.inbox / "3", slices=2, rows=16, columns=16)
    small.fill(FILES)
    breathe(pieces, 8)
    assert there(*studies) == [0, 0], "what is proven goes"
    assert there(arriving) == [2], "what is not archived stays"
    assert [one["inbox"] for one in pieces.log.events("disk-stays-full")] == ["inbox1", "inbox2"], "told once"
    assert pieces.parts.early.problems == [STAYS_FULL.format("inbox1"), STAYS_FULL.format("inbox2")]
    assert pieces.parts.early.at_work == ["inbox1", "inbox2"]
    small.fill(0)
    breathe(pieces, 2)
    assert (pieces.parts.early.problems, pieces.parts.early.at_work) == ([], [])


def test_a_picture_of_a_disk_is_acted_on_once(pieces: Pieces, small: Small) -> None:
    """An inbox that does not answer any more: what it said last is no reason for a second deletion."""
    studies = [drop(pieces, seed) for seed in range(1, 6)]
    small.fill(9)
    breathe(pieces, 2)
    before, asked = there(*studies), small.asked
    assert sum(before) == 5
    for _ in range(20):
        pieces.clock.advance(CHECK_SECONDS + 0.1)
        pieces.parts.early.step()
        pieces.ship()
    assert there(*studies) == before
    assert small.asked == asked, "nobody but the inbox's own thread asks its file system"


def test_a_step_asks_no_file_system(pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(pieces, 1)
    small.fill(FILES)
    breathe(pieces, 1)

    def hangs(*_: object, **__: object) -> object:
        raise AssertionError("it would wait for ever")

    for module, name in ((os, "statvfs"), (os, "stat"), (os, "open"), (os, "fstatvfs"), (shutil, "disk_usage")):
        monkeypatch.setattr(module, name, hangs)
    for _ in range(3):
        pieces.clock.advance(CHECK_SECONDS + 0.1)
        pieces.parts.early.step()


def test_two_inboxes_on_one_disk_are_emptied_together(pieces: Pieces, small: Small) -> None:
    studies = [drop(pieces, seed, inbox=seed % 2) for seed in range(1, 6)]
    small.fill(9)
    breathe(pieces, 6)
    assert there(*studies) == [0, 0, 1, 2, 2], "the oldest of both, and no more than for one"


def test_a_restart_in_the_middle_empties_no_more(pieces: Pieces, small: Small) -> None:
    studies = [drop(pieces, seed) for seed in range(1, 6)]
    small.fill(9)
    pieces.clock.advance(CHECK_SECONDS + 0.1)
    for _ in range(3):  # they are due, and not yet deleted
        pieces.parts.early.step()
        pieces.look()
        pieces.clock.advance(CHECK_SECONDS + 0.1)
    pieces.parts.early.step()
    assert len(pieces.log.events("due-early")) == 1
    pieces.restart()
    for _ in range(3):
        pieces.parts.early.step()
        pieces.look()
        pieces.clock.advance(CHECK_SECONDS + 0.1)
    breathe(pieces, 4)
    assert there(*studies) == [0, 0, 1, 2, 2]


def test_what_goes_early_is_on_record_like_all_others(pieces: Pieces, small: Small) -> None:
    made = drop(pieces, 1)
    small.fill(FILES)
    breathe(pieces, 3)
    assert there(made) == [0]
    with pieces.queue._database.read() as db:
        bodies = [row["entry"] for row in db.execute("SELECT entry FROM audit").fetchall()]
    for one in made:
        assert sum('"authorised"' in body and one.sha256 in body for body in bodies) == 1
        assert sum('"deleted"' in body and one.sha256 in body for body in bodies) == 1


def test_the_clock_is_set(pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days back or forth: only the proof decides what goes, and no more goes than for the room."""
    studies = [drop(pieces, seed) for seed in range(1, 6)]
    small.fill(9)
    true = pieces.clock.now
    for jump in (-30 * 86400.0, 5 * 86400.0):
        monkeypatch.setattr(pieces.clock, "now", lambda jump=jump: true() + jump)
        breathe(pieces, 4)
        assert there(*studies) == [0, 0, 1, 2, 2]


# -- what fails for ever -----------------------------------------------------------------------------------------------


def test_a_study_that_fails_again_and_again_is_not_waited_for(
    pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files count as on their way, and never go: the disk would stay full for as long as that one study fails."""
    studies = [drop(pieces, seed) for seed in range(1, 6)]
    stuck = studies[0][0].study_uid
    for name in ("head", "read", "listing"):
        real = getattr(pieces.memory, name)

        def fails(key: str, *arguments: Any, real: Any = real, **more: Any) -> Any:
            if stuck in key:
                raise Transient("the store cannot read it back", code="unreadable-object")
            return real(key, *arguments, **more)

        monkeypatch.setattr(pieces.memory, name, fails)
    contents = [one.path.read_bytes() for made in studies for one in made]
    small.fill(9)
    breathe(pieces, 40)
    assert there(*studies) == [2, 0, 0, 1, 2], "five files have gone, of those that could"
    assert pieces.parts.early.at_work == []
    monkeypatch.undo()
    pieces.require_nothing_lost(*contents)


def test_what_only_met_an_outage_is_waited_for(pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all would be let go while nothing can be deleted, and go together when that is over."""
    studies = [drop(pieces, seed) for seed in range(1, 6)]

    def away(*_: object, **__: object) -> object:
        raise OutOfReach("away", endpoint="store")

    for name in ("head", "read", "listing", "put"):
        monkeypatch.setattr(pieces.memory, name, away)
    small.fill(9)
    breathe(pieces, 30)
    assert there(*studies) == [2, 2, 2, 2, 2]
    # A restart in the midst of it knows nothing of the outage until it meets it.
    due = sum(int(str(one["files"])) for one in pieces.log.events("due-early"))
    pieces.restart()
    for _ in range(4):
        pieces.clock.advance(CHECK_SECONDS + 0.1)
        pieces.parts.early.step()
        pieces.look()
        pieces.parts.early.step()
    assert sum(int(str(one["files"])) for one in pieces.log.events("due-early")) == due
    monkeypatch.undo()
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=small.usage))
    breathe(pieces, 10)
    assert there(*studies) == [0, 0, 1, 2, 2]


def test_the_upkeep_may_wait_for_the_store_and_room_is_made(
    pieces: Pieces, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends to the archive, at a limit after all that waits already; a full disk cannot wait for that."""
    made = drop(pieces, 1)
    small.fill(FILES)

    def waits() -> bool:
        raise AssertionError("it would wait for its share of the line for hours")

    monkeypatch.setattr(pieces.parts.upkeep, "_pieces", [waits])
    for _ in range(6):
        pieces.clock.advance(CHECK_SECONDS + 0.1)
        pieces.parts.room.step()
        pieces.look()
        pieces.parts.room.step()
        pieces.ship()
    assert there(made) == [0]
