"""An inbox that does not answer, seen from the pipeline: its studies wait, and what was given up half-way is neither
forgotten nor gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from dicomwatchd.answering import AlwaysAnswering
from dicomwatchd.errors import InboxNotResponding
from dicomwatchd.model import StudyState
from dicomwatchd.pipeline.deletion import proof
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker


class Scripted(AlwaysAnswering):
    """``away`` are the sources that do not answer; ``on_beat`` is called at each sign of life."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.on_beat: Callable[[], None] = lambda: None

    def at(self, source_id: int, *, leaving: bool = False) -> AbstractContextManager[None]:
        if source_id in self.away and not leaving:
            raise InboxNotResponding("an inbox does not answer")
        return nullcontext()

    def beat(self) -> None:
        self.on_beat()

    def not_responding(self) -> dict[int, float]:
        return dict.fromkeys(self.away, 60.0)


@pytest.fixture
def inboxes() -> Scripted:
    return Scripted()


@pytest.fixture
def pieces(tmp_path: Path, inboxes: Scripted) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, inboxes=2, answering=inboxes)
    yield pieces
    pieces.close()


def study(pieces: Pieces, inbox: int, seed: int) -> list[Made]:
    made = Maker(seed=seed).ct_series(pieces.inboxes[inbox], slices=2, series=1, study=0, rows=16, columns=16)
    pieces.settle()
    return made


def test_its_studies_wait_and_the_others_go_on(pieces: Pieces, inboxes: Scripted) -> None:
    waits, goes = study(pieces, 0, 3), study(pieces, 1, 4)
    inboxes.away = {pieces.sources[0].source_id}
    assert pieces.ship() == 1
    assert pieces.archived() == {m.sha256 for m in goes}
    assert pieces.queue.claims.next_try_at() is None, "there is nothing to be tried"
    found = pieces.queue.reports.show(waits[0].study_uid)
    assert found is not None and found["state"] == StudyState.QUEUED and found["attempts"] == 0
    inboxes.away = set()
    assert pieces.ship() == 1 and pieces.left() == []


def test_one_that_falls_silent_in_the_midst_costs_no_attempt(pieces: Pieces, inboxes: Scripted) -> None:
    waits = study(pieces, 0, 3)

    def falls_silent() -> None:
        inboxes.away = {pieces.sources[0].source_id}

    with at(pieces.queue.shipments, "pages", falls_silent):
        pieces.ship()
    found = pieces.queue.reports.show(waits[0].study_uid)
    assert found is not None and (found["state"], found["code"]) == (StudyState.QUEUED, "inbox-not-responding")
    assert found["attempts"] == 0
    inboxes.away = set()
    assert pieces.ship() == 1 and pieces.left() == []


def test_nobody_waits_any_more_right_before_the_unlink(
    pieces: Pieces, inboxes: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(pieces, 0, 3)
    real = proof._differs
    given_up = [True]

    def differs(*arguments: object) -> str | None:
        why = real(*arguments)  # type: ignore[arg-type]
        if given_up[0]:
            inboxes.on_beat, inboxes.away = silent, {pieces.sources[0].source_id}
        return why

    monkeypatch.setattr(proof, "_differs", differs)
    pieces.ship()
    assert pieces.left() == sorted(m.path for m in made), "put back under its name"
    assert set(pieces.states().values()) == {"deleting"}, "how it ended is for the disk to say"
    with pieces.queue._database.read() as db:
        entries = [row["entry"] for row in db.execute("SELECT entry FROM audit")]
    assert not any('"untouched"' in entry or '"deleted"' in entry for entry in entries)
    given_up[0], inboxes.on_beat, inboxes.away = False, lambda: None, set()
    pieces.run()
    assert pieces.left() == [] and pieces.archived() == {m.sha256 for m in made}


def silent() -> None:
    raise InboxNotResponding("an inbox does not answer")


def test_given_up_at_every_sign_of_life_nothing_is_lost(tmp_path: Path) -> None:
    """The deletion of two files is given up at its first sign of life, its second, and so on till it comes through."""
    for stop_at in range(1, 40):
        inboxes = Scripted()
        pieces = Pieces(tmp_path / str(stop_at), answering=inboxes)
        made = study(pieces, 0, 3)
        calls = [0]

        def beat(calls: list[int] = calls, stop_at: int = stop_at) -> None:
            calls[0] += 1
            if calls[0] == stop_at:
                raise InboxNotResponding("an inbox does not answer")

        inboxes.on_beat = beat
        pieces.ship()
        pieces.require_nothing_lost(*(m.path.read_bytes() for m in made if m.path.exists()))
        inboxes.on_beat = lambda: None
        pieces.run()
        assert pieces.left() == [] and pieces.archived() == {m.sha256 for m in made}
        pieces.close()
        if calls[0] < stop_at:
            return
    raise AssertionError("it never came through")
