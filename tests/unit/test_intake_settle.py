"""When a file counts as complete: a function of what was seen and of the clock."""

from __future__ import annotations

from dicomwatchd.intake.settle import Settling
from dicomwatchd.model import FileIdentity
from dicomwatchd.queue.rows import identity_text

PATH = (b"DOE", b"IM1")
NOW = 1_800_000_000.0


def seen(size_bytes: int = 10, *, changed_at: float = NOW, inode: int = 1) -> str:
    return identity_text(FileIdentity(1, inode, size_bytes, int(changed_at * 1e9), int(changed_at * 1e9)))


def test_a_file_that_has_long_been_there_needs_no_second_look() -> None:
    settling = Settling(2, trust_ctime=True)
    assert settling.settled(PATH, seen(changed_at=NOW - 2), now=NOW, monotonic=0)
    assert not settling


def test_a_young_file_waits_for_its_time_by_the_clock_that_nobody_sets() -> None:
    settling = Settling(2, trust_ctime=True)
    assert not settling.settled(PATH, seen(), now=NOW, monotonic=100)
    assert settling.next_due() == 102
    assert settling.due_directories(101.9) == set()
    assert settling.due_directories(102) == {b"DOE"}
    assert not settling.settled(PATH, seen(), now=NOW + 86400, monotonic=101.9), "the wall clock may have been set"
    assert settling.settled(PATH, seen(), now=NOW - 86400, monotonic=102)


def test_every_kind_of_change_starts_the_time_anew() -> None:
    settling = Settling(2, trust_ctime=True)
    changes = [
        seen(),
        seen(11),
        seen(11, inode=2),
        identity_text(FileIdentity(1, 2, 11, 5, int(NOW * 1e9))),
        seen(11, changed_at=7),
    ]
    for number, identity in enumerate(changes):
        assert not settling.settled(PATH, identity, now=NOW, monotonic=100 + number * 1.9)
    assert settling.settled(PATH, changes[-1], now=NOW, monotonic=100 + 4 * 1.9 + 2)


def test_a_change_that_lies_in_the_future_is_no_reason_to_wait_for_it() -> None:
    settling = Settling(2, trust_ctime=True)
    future = seen(changed_at=NOW + 86400)
    assert not settling.settled(PATH, future, now=NOW, monotonic=0)
    assert settling.settled(PATH, future, now=NOW, monotonic=2)


def test_a_share_s_ctime_is_not_believed() -> None:
    settling = Settling(2, trust_ctime=False)
    old = seen(changed_at=NOW - 86400)
    assert not settling.settled(PATH, old, now=NOW, monotonic=0)
    assert not settling.settled(PATH, old, now=NOW, monotonic=1)
    assert settling.settled(PATH, old, now=NOW, monotonic=2)


def test_a_changed_file_is_not_believed_by_its_ctime_while_it_is_watched() -> None:
    settling = Settling(2, trust_ctime=True)
    assert not settling.settled(PATH, seen(), now=NOW, monotonic=0)
    assert not settling.settled(PATH, seen(11, changed_at=NOW - 100), now=NOW, monotonic=1)


def test_without_settling_every_file_is_ripe() -> None:
    assert Settling(0, trust_ctime=False).settled(PATH, seen(), now=NOW, monotonic=0)


def test_a_writer_is_waited_for() -> None:
    settling = Settling(2, trust_ctime=True)
    settling.wait(PATH, seen(), monotonic=100)
    assert settling.next_due() == 102
    assert settling.settled(PATH, seen(), now=NOW, monotonic=102), "then the file is tried again"
    settling.wait(PATH, seen(), monotonic=102)
    assert settling.next_due() == 104


def test_what_is_gone_is_forgotten() -> None:
    settling = Settling(2, trust_ctime=True)
    for name in (b"A", b"B"):
        settling.settled((b"DOE", name), seen(), now=NOW, monotonic=0)
    settling.settled((b"OTHER", b"A"), seen(), now=NOW, monotonic=0)
    settling.retain(b"DOE", {b"B"})
    assert len(settling) == 2
    settling.done((b"DOE", b"B"))
    settling.done((b"DOE", b"B"))
    settling.done((b"OTHER", b"A"))
    assert not settling and settling.next_due() is None


def test_a_file_that_never_settles_holds_its_neighbours_only_for_a_while() -> None:
    settling = Settling(2, trust_ctime=True)
    for second in range(0, 700, 10):
        settling.settled(PATH, seen(second, changed_at=NOW + second), now=NOW + second, monotonic=second)
    assert settling.unsettled_in({b"DOE"}, 599, younger_than_seconds=600)
    assert not settling.unsettled_in({b"DOE"}, 600, younger_than_seconds=600)
    assert not settling.unsettled_in({b"OTHER"}, 1, younger_than_seconds=600)


def test_memory_has_a_limit_and_says_so() -> None:
    settling = Settling(2, trust_ctime=True, limit=3)
    for number in range(5):
        assert not settling.settled((b"DOE", b"%d" % number), seen(), now=NOW, monotonic=0)
    assert len(settling) == 3
    overflowed = [settling.overflowed]
    settling.begin_scan()
    assert [*overflowed, settling.overflowed] == [True, False], "what is not remembered must not be taken for nothing"
    assert settling.settled((b"DOE", b"4"), seen(), now=NOW + 2, monotonic=2), "it is found ripe by a later look"


def test_a_directory_is_due_until_it_was_looked_at() -> None:
    settling = Settling(2, trust_ctime=True)
    for number in range(3):
        settling.settled((b"%d" % number, b"IM1"), seen(), now=NOW, monotonic=number)
    assert settling.due_directories(3.5) == {b"0", b"1"}
    assert settling.due_directories(3.5) == {b"0", b"1"}
    settling.done((b"0", b"IM1"))
    settling.settled((b"1", b"IM1"), seen(11), now=NOW, monotonic=3.5)
    assert settling.due_directories(3.5) == set()
    assert settling.next_due() == 4
    assert settling.due_directories(5.5) == {b"1", b"2"}
    assert (settling.watches(b"0"), settling.watches(b"1")) == (False, True)


def test_a_file_that_never_rests_leaves_no_trail_in_memory() -> None:
    settling = Settling(2, trust_ctime=True)
    for change in range(20_000):
        settling.settled(PATH, seen(change), now=NOW, monotonic=change / 100)
    assert len(settling) == 1
    assert len(settling._dues) < 2000
    assert settling.next_due() == 19_999 / 100 + 2
