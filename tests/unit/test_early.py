"""Sending while a study arrives: what goes early, what does not, and that whoever has a claim is alone at the files."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.errors import ArchiveRefused, DicomwatchdError, ForeignManifest, OutOfReach, RequestRefused
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.sending.early import EarlySender
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.synthetic import Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def arriving(pieces: Pieces, slices: int = 3) -> tuple[Uid, list[Path]]:
    """A study whose files have settled and that is not quiet yet."""
    made = Maker(seed=3).ct_series(pieces.inbox, slices=slices, series=1, study=0, rows=16, columns=16)
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    assert set(pieces.states().values()) == {"ready"}
    return Uid(made[0].study_uid), [item.path for item in made]


def states(pieces: Pieces) -> list[str]:
    return sorted(pieces.states().values())


def test_complete_files_go_before_their_study_is_quiet_and_nothing_else_happens(pieces: Pieces) -> None:
    _, paths = arriving(pieces)
    assert pieces.ship() == 0, "no study is shipped"
    assert states(pieces) == ["stored"] * 3
    assert len(pieces.archived()) == 3
    assert all(path.exists() for path in paths), "sending is all that is done early"
    assert not [key for key in pieces.memory.versions if "manifests" in key]
    puts = len(pieces.memory.versions)
    pieces.run()
    assert pieces.left() == []
    assert len(pieces.memory.versions) == puts + 1, "the manifest is all that was left to send"


def test_a_file_that_changes_after_it_was_sent_is_sent_again_as_what_it_is(pieces: Pieces) -> None:
    study, paths = arriving(pieces)
    pieces.ship()
    old = paths[0].read_bytes()
    new = old[:-2] + b"\1\2"
    paths[0].write_bytes(new)
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(old, new)
    assert len(pieces.manifest(study).instances) == 3, "what was sent first is of no revision"


def test_a_file_that_is_taken_back_while_its_study_arrives_is_in_no_manifest(pieces: Pieces) -> None:
    study, paths = arriving(pieces)
    pieces.ship()
    paths[0].unlink()
    pieces.run()
    assert len(pieces.manifest(study).instances) == 2


def test_an_inbox_that_says_so_sends_nothing_early(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    pieces.context = replace(pieces.context, sends_early=lambda _: False)
    pieces.dispatcher._early = EarlySender(pieces.context, lambda: True, lambda *_: 0.0)
    arriving(pieces)
    pieces.ship()
    assert states(pieces) == ["ready"] * 3
    assert pieces.archived() == set()
    pieces.run()
    assert pieces.left() == []
    pieces.close()


def test_a_change_between_sending_and_its_commit_is_not_marked_as_sent(pieces: Pieces) -> None:
    _, paths = arriving(pieces)
    new = paths[1].read_bytes()[:-2] + b"\3\4"

    def replaced() -> None:
        paths[1].write_bytes(new)
        pieces.scan()
        pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
        pieces.look()

    with at(pieces.queue.shipments, "sent_early", replaced):
        pieces.ship()
    with pieces.queue._database.read() as db:
        [row] = db.execute("SELECT state, sha256 FROM files WHERE name = ?", (os.fsencode(paths[1].name),)).fetchall()
    assert row["state"] == "ready" or row["sha256"] == hashlib.sha256(new).hexdigest()
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(new)


def test_a_late_word_of_an_earlier_attempt_does_not_count(pieces: Pieces) -> None:
    """Verification may have found a file damaged meanwhile, which is then sent again under the next key."""
    arriving(pieces, 1)
    [file] = pieces.queue.shipments.ready_while_arriving(pieces.queue.shipments.arriving()[0], 0, 10)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET key_attempt = 2")
    pieces.queue.shipments.sent_early([(file, "0" * 64, "{}")])
    assert states(pieces) == ["ready"]
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET key_attempt = 1, state = 'kept'")
    pieces.queue.shipments.sent_early([(file, "0" * 64, "{}")])
    assert states(pieces) == ["kept"]


def arriving_studies(pieces: Pieces, count: int) -> list[Uid]:
    """Studies of one file each, settled and not quiet yet."""
    for study in range(1, count + 1):
        uid = Uid(f"1.2.{study}")
        (pieces.inbox / f"IM{study}").write_bytes(instance(uid, f"{uid}.1", f"{uid}.1.1", study))
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    return [Uid(f"1.2.{study}") for study in range(1, count + 1)]


def fails_for(pieces: Pieces, *studies: Uid) -> list[str]:
    """From now on the store has no answer for these studies' objects; the keys that were tried of them."""
    tried: list[str] = []
    real = pieces.memory.put

    def put(key: str, content: Any) -> Receipt:
        if any(f"/{study}/" in key for study in studies):
            tried.append(key)
            raise OutOfReach("the store is down", endpoint="s3 at test")
        return real(key, content)

    pieces.memory.put = put  # type: ignore[method-assign]
    return tried


def test_studies_that_all_fail_begin_the_pause_that_all_share(pieces: Pieces) -> None:
    studies = arriving_studies(pieces, 5)
    real = pieces.memory.put
    calls = fails_for(pieces, *studies)
    pieces.ship()
    assert pieces.dispatcher.backoff.pause() > 0
    assert len(calls) == 2, "two different ones say that it is the store"
    pieces.ship()
    assert len(calls) == 2, "nothing more is tried during the pause"
    assert states(pieces) == ["ready"] * 5
    pieces.memory.put = real  # type: ignore[method-assign]
    pieces.clock.advance(1000)
    pieces.run()
    assert pieces.left() == []


def test_one_study_that_fails_stops_no_other(pieces: Pieces) -> None:
    studies = arriving_studies(pieces, 5)
    calls = fails_for(pieces, studies[0])
    pieces.ship()
    assert states(pieces) == ["ready"] + ["stored"] * 4
    assert pieces.dispatcher.backoff.pause() == 0 and len(calls) == 1
    pieces.ship()
    assert len(calls) == 1, "it is left alone for a while"
    for round_ in range(2, 7):
        pieces.clock.advance(2.0**round_)
        pieces.dispatcher._early.round(map)
        assert pieces.dispatcher.backoff.pause() == 0, "no pause that others share"
    assert len(calls) == 6


def test_what_is_sent_early_speaks_for_the_endpoint(pieces: Pieces) -> None:
    """Two studies fail, but another one is sent something in between: it is them."""
    studies = arriving_studies(pieces, 3)
    calls = fails_for(pieces, studies[0], studies[2])
    pieces.ship()
    assert states(pieces) == ["ready", "ready", "stored"]
    assert len(calls) == 2 and not pieces.dispatcher.backoff.in_trouble


def test_a_refused_archive_ends_the_daemon_early_too(pieces: Pieces) -> None:
    arriving(pieces)

    def refuse(key: str, content: Any) -> Receipt:
        raise ArchiveRefused("not encrypted")

    pieces.memory.put = refuse  # type: ignore[method-assign]
    pieces.ship()
    assert isinstance(pieces.fatal, ArchiveRefused)
    assert states(pieces) == ["ready"] * 3


@pytest.mark.parametrize("error", [RequestRefused("refused"), RuntimeError("a fault")])
def test_what_one_file_meets_is_left_to_its_shipment(pieces: Pieces, error: Exception) -> None:
    arriving(pieces)
    tried: list[str] = []
    real = pieces.memory.put

    def put(key: str, content: Any) -> Receipt:
        if not tried or key == tried[0]:
            tried.append(key)
            raise error
        return real(key, content)

    pieces.memory.put = put  # type: ignore[method-assign]
    for _ in range(3):
        pieces.ship()
    assert states(pieces) == ["ready", "stored", "stored"]
    assert len(tried) == 1, "it is not tried again and again"
    assert pieces.fatal is None


def test_a_claim_waits_until_nothing_of_its_study_is_being_sent(pieces: Pieces) -> None:
    study, _ = arriving(pieces, 5)
    sending, go_on, left = threading.Event(), threading.Event(), threading.Event()
    real = pieces.memory.put
    keys = []

    def slow(key: str, content: Any) -> Receipt:
        keys.append(key)
        sending.set()
        assert go_on.wait(60)
        return real(key, content)

    pieces.memory.put = slow  # type: ignore[method-assign]
    early = EarlySender(pieces.context, lambda: True, lambda *_: 0.0)
    rounds = threading.Thread(target=lambda: early.round(map))
    rounds.start()
    assert sending.wait(60)
    early.leave(Uid("1.2.3"))  # another study's claim waits for nothing

    def claimed() -> None:
        early.leave(study)
        left.set()

    claim = threading.Thread(target=claimed)
    claim.start()
    assert not left.wait(0.1)
    go_on.set()
    assert left.wait(60)
    rounds.join()
    claim.join()
    assert len(keys) < 5, "the rest of the study is left to the claim"
    assert states(pieces).count("stored") == len(keys), "what was sent is on record before the claim goes on"


def test_the_daemons_thread_sends_early_when_files_arrive(pieces: Pieces) -> None:
    arriving(pieces)
    pieces.dispatcher._news.clear()  # the arrival itself was told already
    stopping = threading.Event()
    thread = threading.Thread(target=pieces.dispatcher.run, args=(stopping, lambda: None))
    thread.start()
    time.sleep(0.05)
    assert states(pieces) == ["ready"] * 3, "it is told, it does not look"
    pieces.dispatcher.arrived()
    end = time.monotonic() + 60
    while states(pieces) != ["stored"] * 3 and time.monotonic() < end:
        time.sleep(0.01)
    stopping.set()
    pieces.dispatcher.wake()
    thread.join(60)
    assert states(pieces) == ["stored"] * 3


@pytest.mark.parametrize("error", [ForeignManifest("no manifest of ours"), OutOfReach("gone")])
def test_what_a_study_meets_is_left_to_its_shipment(
    pieces: Pieces, error: DicomwatchdError, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving(pieces)

    def refuse(*_: object) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("dicomwatchd.pipeline.sending.batches.plan", refuse)
        assert pieces.dispatcher._early.round(map) == 0
    assert states(pieces) == ["ready"] * 3
    pieces.run()
    assert pieces.left() == []
