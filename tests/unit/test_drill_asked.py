"""A drill that a person asks for, and those of the daemon as it is put together."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.control import peer as control_peer
from dicomwatchd.control.peer import BadRequest, Descriptors, Request
from dicomwatchd.daemon.commands import commands
from dicomwatchd.errors import InvalidUid, Permanent
from dicomwatchd.rights import Asker
from tests import schemas
from tests.pieces import Pieces
from tests.synthetic import Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


@pytest.fixture
def running(pieces: Pieces) -> Iterator[threading.Event]:
    """The thread of the drills, which the supervisor has otherwise."""
    stopping = threading.Event()
    thread = threading.Thread(target=pieces.parts.drills.run, args=(stopping, lambda: None))
    thread.start()
    yield stopping
    stopping.set()
    thread.join(20)


def ask(pieces: Pieces, monkeypatch: pytest.MonkeyPatch, uid: int, **arguments: object) -> Any:
    parts = pieces.parts
    drill = commands(pieces.queue, lambda _: {}, list, parts.uploads, lambda: None, parts.prover, drills=parts.drills)[
        "drill"
    ]
    monkeypatch.setattr(control_peer, "asker_of", lambda _: Asker(uid, uid))
    with socket.socket(socket.AF_UNIX) as connection:
        return drill(Request(arguments, connection, Descriptors(connection)), lambda _: None)


def test_of_a_study_that_was_just_archived(
    pieces: Pieces, running: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Maker(seed=3).ct_series(pieces.inbox, slices=3, rows=16, columns=16)
    pieces.run()
    said = ask(pieces, monkeypatch, os.geteuid(), study_uid=made[0].study_uid)
    assert (said["outcome"], said["instances"], said["instances_equal"]) == ("equal", 3, 3)
    schemas.check("drill", said)
    [key] = [key for key in pieces.memory.versions if made[0].sop_instance_uid in key]
    pieces.memory.versions[key] = [b"other"]
    said = ask(pieces, monkeypatch, os.geteuid())
    assert (said["outcome"], said["code"], said["instances_equal"]) == ("failed", "differs", 2)
    assert "verify --deep" in said["problem"]
    schemas.check("drill", said)
    assert pieces.fatal is None and not running.is_set()


def test_who_may_ask(pieces: Pieces, running: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched is paid for, and takes room."""
    with pytest.raises(Permanent) as refused:
        ask(pieces, monkeypatch, 61002, study_uid="1.2.3")
    assert refused.value.code == "not-yours"
    with pytest.raises(InvalidUid):
        ask(pieces, monkeypatch, os.geteuid(), study_uid="../1.2.3")
    assert pieces.queue.drills.figures().last_at is None and not running.is_set()
    said = ask(pieces, monkeypatch, os.geteuid(), study_uid="1.2.3")
    assert said["outcome"] == "nothing"
    schemas.check("drill", said)


def test_nobody_waits_for_ever(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run that makes no drills, and over the protocol's other ways."""
    with pytest.raises(Permanent):
        ask(pieces, monkeypatch, os.geteuid(), study_uid="1.2.3")
    parts = pieces.parts
    with pytest.raises(BadRequest):
        commands(pieces.queue, lambda _: {}, list, parts.uploads, lambda: None, parts.prover)["drill"](
            {}, lambda _: None
        )
