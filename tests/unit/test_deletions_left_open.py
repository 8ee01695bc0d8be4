"""Deletions whose end could not be written down, and the next shipment of their study: while nobody can look how they
ended it waits, but not for a folder that is not there any more. Nothing stays open for ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.proof import final_check
from dicomwatchd.errors import StateUnavailable, Transient
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline.deletion.staging import recover
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def test_a_folder_that_cannot_be_looked_at_for_a_moment(pieces: Pieces) -> None:
    made = left_open(pieces)
    with at(recover, "_private_in", fails(errno.EMFILE)):
        pieces.ship()
    found = pieces.queue.reports.show(made.study_uid)
    assert found is not None and (found["state"], found["code"]) == (StudyState.QUEUED, "inbox-unreadable")
    assert found["attempts"] == 2, "no inbox has to answer for it to be claimed again: it has its pause"
    assert pieces.log.events("study-delayed")[-1]["pause_seconds"] > 0  # type: ignore[operator]
    assert pieces.states() == {made.path.name: "deleting"}
    pieces.clock.advance(4000)
    pieces.run()
    assert kinds(pieces, made)[:2] == ["authorised", "restored"]
    assert pieces.left() == [] and pieces.states() == {} and pieces.archived() == {made.sha256}


def test_what_was_written_down_is_looked_at_anew_all_the_same(pieces: Pieces) -> None:
    """Of two folders one cannot be looked at."""
    made = left_open(pieces, "A", "B")
    rescanned: list[bytes] = []
    object.__setattr__(pieces.context, "rescan", lambda _, directory: rescanned.append(directory))
    with at(recover, "_private_in", fails(errno.EIO)):
        pieces.ship()
    assert len(rescanned) == 1 and len(pieces.queue.deletions.pending()) == 1
    assert kinds(pieces, made) == ["authorised", "authorised", "restored"]


def test_an_inbox_that_is_gone_is_not_waited_for(pieces: Pieces, tmp_path: Path) -> None:
    """It is asked for what is open in it when it is there again, though its own looks may not have missed it."""
    made = left_open(pieces)
    pieces.inbox.rename(tmp_path / "elsewhere")
    pieces.ship()
    assert state(pieces, made) == StudyState.ARCHIVED
    assert pieces.states() == {made.path.name: "deleting"}
    (tmp_path / "elsewhere").rename(pieces.inbox)
    pieces.run()
    assert kinds(pieces, made)[:2] == ["authorised", "restored"]
    assert pieces.left() == [] and pieces.states() == {}


def test_a_folder_that_is_no_inbox_any_more_is_not_waited_for(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken out of the configuration, and then away from the daemon's user."""
    made = left_open(pieces)
    pieces.close()
    pieces.inboxes = [tmp_path / "another"]
    pieces.inbox.mkdir()
    monkeypatch.setattr(recover, "_private_in", refuses)
    pieces.start()
    pieces.clock.advance(4000)
    pieces.ship()
    assert state(pieces, made) == StudyState.ARCHIVED


def left_open(pieces: Pieces, *folders: str) -> Made:
    """A study with one file in each folder, put back in the midst of its deletion, which nobody could write down."""
    maker = Maker(seed=3)
    for number, folder in enumerate(folders or ("A",), start=1):
        [made] = maker.ct_series(pieces.inbox / folder, slices=1, series=number, study=0, rows=16, columns=16)
    pieces.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_check, "missing", unanswered)
        patch.setattr(type(pieces.queue.deletions), "purged", cannot_write)
        pieces.ship()
    assert set(pieces.states().values()) == {"deleting"} and made.path.exists()
    pieces.clock.advance(4000)
    return made


def unanswered(*_: object, **__: object) -> None:
    raise Transient("no answer", code="x")


def cannot_write(*_: object) -> None:
    raise StateUnavailable("full", code="state-full", endpoint="state")


def refuses(*_: object) -> list[bytes]:
    raise PermissionError(errno.EACCES, "not yours")


def fails(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def kinds(pieces: Pieces, made: Made) -> list[object]:
    return [entry.body["kind"] for entry in pieces.queue.audit.of_study(made.study_uid)]


def state(pieces: Pieces, made: Made) -> object:
    found = pieces.queue.reports.show(made.study_uid)
    return None if found is None else found["state"]
