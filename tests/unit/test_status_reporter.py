"""What the status says of an inbox that is not as it should be."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.daemon.status import StatusReporter
from dicomwatchd.errors import StateUnavailable
from tests.pieces import Pieces
from tests.unit.uploading import unlistable


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def status(
    pieces: Pieces, silent: dict[str, float] | None = None, receivers: Sequence[Receiver] = ()
) -> tuple[dict[str, Any], list[str]]:
    """(what it says of the inbox, the problems)"""
    found = said(pieces, receivers=receivers, silent=silent or {})
    [inbox] = found["inboxes"]
    return inbox, [problem for problem in found["problems"] if problem.startswith(("inbox ", "receiver "))]


def said(pieces: Pieces, *, receivers: Any = (), record: Any = (), **more: Any) -> dict[str, Any]:
    config: Any = SimpleNamespace(
        disk_free_warn_share=0.0, state_directory=pieces.state, receivers=receivers, restore_drill=RestoreDrill()
    )
    pool: Any = SimpleNamespace(size=1, busy=0)
    journal: Any = pieces.log
    return StatusReporter(config, pieces.context.archive, journal, pieces.clock).status(
        [{"name": "inbox1"}],
        intakes=pieces.intakes,
        pool=pool,
        dispatcher=pieces.dispatcher,
        record=record,
        queue=pieces.queue,
        **{"silent": {}, **more},
    )


def test_a_folder_that_cannot_be_listed(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    (pieces.inbox / "DOE").mkdir()
    with unlistable(monkeypatch, b"DOE"):
        pieces.scan()
    inbox, [problem] = status(pieces)
    assert (inbox["state"], inbox["unreadable"]) == ("open", 1)
    assert problem.startswith("inbox inbox1: unreadable entries: 1;") and "DOE" not in problem
    pieces.scan()
    inbox, problems = status(pieces)
    assert (inbox["unreadable"], problems) == (0, [])


def test_an_inbox_that_does_not_answer(pieces: Pieces) -> None:
    pieces.scan()
    inbox, [problem] = status(pieces, {"inbox1": 42.0})
    assert (inbox["state"], inbox["not_responding_seconds"]) == ("not-responding", 42.0)
    assert problem == "inbox inbox1 has not answered for 42 s"
    assert status(pieces)[0]["state"] == "open"


def test_who_puts_objects_into_it(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two receivers of this inbox, of which one is not at work, and one of another."""
    pieces.scan()
    assert status(pieces)[0]["receivers"] == []
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as gone:
        ports = [one.getsockname()[1] for one in (there, gone)]
        gone.close()
        given = [("ct", "inbox1", ports[0]), ("mr", "inbox1", ports[1]), ("us", "inbox2", ports[0])]
        receivers = [
            Receiver.model_validate({"name": n, "ae_title": "ARCHIVE", "inbox": box, "listen": f"127.0.0.1:{port}"})
            for n, box, port in given
        ]
        inbox, [problem] = status(pieces, receivers=receivers)
        assert [(one["name"], one["listening"]) for one in inbox["receivers"]] == [("ct", True), ("mr", False)]
        assert inbox["receivers"][0] == {
            "name": "ct",
            "ae_title": "ARCHIVE",
            "listen": f"127.0.0.1:{ports[0]}",
            "listening": True,
        }
        assert problem.startswith(f"receiver mr: nobody listens at 127.0.0.1:{ports[1]}")
        monkeypatch.setattr("dicomwatchd.unit.receivers._TABLES", (Path("/nowhere"),))
        inbox, problems = status(pieces, receivers=receivers)
        assert [one["listening"] for one in inbox["receivers"]] == [None, None] and problems == []


def test_a_disk_that_stays_full_is_no_problem_of_the_record_of_deletions(pieces: Pieces) -> None:
    found = said(pieces, full_disks=["the disk of inbox1 is too full"])
    assert found["audit"]["problems"] == 0
    assert "the disk of inbox1 is too full" in found["problems"]
    assert said(pieces, record=["it was cut", None])["audit"]["problems"] == 1


def test_a_state_that_cannot_be_written(pieces: Pieces) -> None:
    """Nothing arrives then, so all the other figures look as if nothing were wrong."""
    database = pieces.queue._database
    database._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(pieces.state / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = said(pieces)["problems"]
    for _ in range(2):
        with pytest.raises(StateUnavailable), database.write():
            pass
        [problem] = [one for one in said(pieces)["problems"] if one not in before]
        assert problem.startswith("the state database cannot be written at the moment, so nothing new is archived")
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(ValueError, match="ours"), database.write():
        raise ValueError("ours")
    assert said(pieces)["problems"] != before, "nothing was written since"
    with database.write():
        pass
    assert said(pieces)["problems"] == before


@pytest.mark.parametrize("is_failure_last", [False, True])
def test_a_state_that_two_write_at_once(pieces: Pieces, is_failure_last: bool) -> None:
    """The other comes in between one's change and its end: it was the last, and its word counts."""
    database, uses = pieces.queue._database, list[None]()

    def change(fails: bool) -> None:
        with suppress(StateUnavailable), database.write():
            if fails:
                raise StateUnavailable("the disk with the daemon's state is full", code="state-full")

    @contextmanager
    def around() -> Iterator[None]:
        uses.append(None)
        is_first = len(uses) == 1
        try:
            yield
        finally:
            if is_first:
                change(is_failure_last)

    database.around = around
    change(not is_failure_last)
    assert len(uses) == 2 and (database.unwritten is not None) is is_failure_last
