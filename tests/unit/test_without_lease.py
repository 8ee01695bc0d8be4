"""``without_lease: keep``: a file on which no read lease is to be had is archived and stays, whatever a program that
has it open does; it goes once a lease is to be had, on a fresh proof."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomwatchd.errors import Transient
from dicomwatchd.localfiles import STAGING_NAME, read_lease
from dicomwatchd.model import FileState, StudyState
from dicomwatchd.pipeline.deletion import batch as batch_module
from dicomwatchd.pipeline.deletion import keeping as keeping_module
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.deletion.vetoes import unleased as unleased_module
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.pipeline.shipment import AfterArchive
from tests.pieces import Pieces, at
from tests.synthetic import Maker
from tests.unit.test_deletion_races import no_leases, one_file, other_version

KEPT = f"{FileState.KEPT}:no-lease"
DAY = 86400.0


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=True, needs_lease=True))
    yield pieces
    pieces.close()


def kinds(pieces: Pieces) -> list[str]:
    return [str(entry.body["kind"]) for entry, _ in pieces.queue.audit._all()]


def study_of(pieces: Pieces) -> str:
    with pieces.queue._database.read() as db:
        return str(db.execute("SELECT study_uid FROM studies").fetchone()[0])


def deeds(pieces: Pieces) -> int:
    """Grows with every shipment."""
    with pieces.queue._database.read() as db:
        return int(db.execute("SELECT COUNT(*) FROM transitions").fetchone()[0])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- it stays -------------------------------------------------------------------------------------------------------


def test_a_writer_with_a_descriptor_from_before_loses_nothing(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes after the shipment has ended: where the file is deleted without a lease, into nothing."""
    no_leases(monkeypatch)
    path, old = one_file(pieces)
    new = other_version(old)
    fd = os.open(path, os.O_RDWR)
    pieces.run()
    assert pieces.states() == {path.name: KEPT}
    assert path.read_bytes() == old and sha256(old) in pieces.archived()
    os.pwrite(fd, new, 0)
    os.close(fd)
    assert path.read_bytes() == new
    pieces.run_and_release()
    assert {sha256(old), sha256(new)} <= pieces.archived()
    assert path.read_bytes() == new and pieces.states() == {path.name: KEPT}
    assert kinds(pieces) == ["hold-released"], "a deletion that did not happen is on record"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (keeping_module, "_keep_unleased"),
        (unleased_module, "lease_on"),
        (proof_module, "prove"),
        (batch_module, "delete_on_proof"),
        (Folders, "opened"),
        (proof_module, "read_lease"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("refused", ["always", "at the deletion alone"])
def test_a_writer_at_every_step(
    module: object, name: str, refused: str, pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = one_file(pieces)
    pieces.settle()
    fd = os.open(path, os.O_RDWR)
    no_leases(monkeypatch)
    if refused != "always":
        monkeypatch.setattr(unleased_module, "read_lease", leased)
    new = other_version(old)
    # It is opened to be sent, to see whether a lease is to be had, and to be deleted.
    when = 1 if name != "opened" else 2 if refused == "always" else 3
    with at(module, name, lambda: os.pwrite(fd, new, 0), when=when):
        pieces.ship()
    os.pwrite(fd, new, 0)
    os.close(fd)
    assert path.read_bytes() == new
    assert not [p for p in (pieces.inbox / os.fsdecode(STAGING_NAME)).rglob("*") if p.is_file()]
    pieces.run()
    assert path.read_bytes() == new and sha256(new) in pieces.archived()
    assert "deleted" not in kinds(pieces)


@contextmanager
def leased(_fd: int) -> Iterator[bool]:
    yield True


def test_a_lease_that_was_to_be_had_a_moment_before(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look before the record says yes; what counts is the lease at the deletion itself."""
    no_leases(monkeypatch)
    monkeypatch.setattr(unleased_module, "read_lease", leased)
    path, _ = one_file(pieces)
    pieces.run()
    assert pieces.states() == {path.name: KEPT} and path.exists()
    assert kinds(pieces) == ["authorised", "untouched"]
    assert pieces.queue.audit.broken_at() is None


def test_files_with_a_lease_go_and_the_others_stay(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Maker(seed=5).ct_series(pieces.inbox / "CT", slices=6, rows=8, columns=8)
    theirs = {made[1].path.stat().st_ino, made[4].path.stat().st_ino}
    real = read_lease

    @contextmanager
    def some(fd: int) -> Iterator[bool]:
        if os.fstat(fd).st_ino in theirs:
            yield False
            return
        with real(fd) as held:
            yield held

    for module in (unleased_module, proof_module):
        monkeypatch.setattr(module, "read_lease", some)
    pieces.run()
    assert [path.name for path in pieces.left()] == sorted(m.path.name for m in (made[1], made[4]))
    assert set(pieces.states().values()) == {KEPT}
    assert {m.sha256 for m in made} <= pieces.archived()


def test_one_that_cannot_be_deleted_does_not_hide_the_others(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them have no lease and one of the others fails: all are where they were, and it goes on later."""
    made = Maker(seed=6).ct_series(pieces.inbox / "CT", slices=4, rows=8, columns=8)
    theirs = {made[0].path.stat().st_ino, made[1].path.stat().st_ino}

    @contextmanager
    def some(fd: int) -> Iterator[bool]:
        yield os.fstat(fd).st_ino not in theirs

    for module in (unleased_module, proof_module):
        monkeypatch.setattr(module, "read_lease", some)
    monkeypatch.setattr(proof_module, "lease_held", lambda _fd: True)
    pieces.settle()

    def fail() -> None:
        raise Transient("a file cannot be staged (eio)", code="local-eio")

    with at(batch_module, "delete_on_proof", fail):
        pieces.ship()
    assert set(pieces.states().values()) == {FileState.STORED}
    pieces.run()
    pieces.clock.advance(DAY)
    pieces.run()
    assert sorted(pieces.states().values()) == [KEPT, KEPT]


# -- no loop --------------------------------------------------------------------------------------------------------


def test_nothing_is_tried_again_by_itself(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    no_leases(monkeypatch)
    path, _ = one_file(pieces)
    pieces.run()
    before = deeds(pieces), len(pieces.memory.reads)
    assert pieces.queue.claims.next_try_at() is None
    for _ in range(5):
        pieces.clock.advance(30 * DAY)
        pieces.run(2)
    pieces.restart()
    pieces.run()
    assert (deeds(pieces), len(pieces.memory.reads)) == before
    assert pieces.states() == {path.name: KEPT}


def test_a_sample_is_looked_at_and_no_more(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    no_leases(monkeypatch)
    monkeypatch.setattr(unleased_module, "SAMPLE", 3)
    Maker(seed=5).ct_series(pieces.inbox / "CT", slices=6, rows=8, columns=8)
    pieces.run()
    with at(Folders, "opened", lambda: None) as calls:
        pieces.restart()
    assert calls == [3]


# -- it goes --------------------------------------------------------------------------------------------------------


def test_a_later_lease_lets_it_go_on_a_fresh_proof(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        no_leases(context)
        one_file(pieces)
        pieces.run()
    pieces.clock.advance(DAY)
    pieces.restart()
    reads = len(pieces.memory.reads)
    pieces.run()
    assert pieces.left() == [] and pieces.states() == {}
    assert len(pieces.memory.reads) > reads, "it was not proven again"
    [authorised, deleted] = [entry.body for entry, _ in pieces.queue.audit._all()]
    assert (authorised["kind"], deleted["kind"]) == ("authorised", "deleted")
    assert authorised["verified_at"] > pieces.clock.now() - 3600


def test_what_the_archive_has_lost_meanwhile_is_sent_again_first(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        no_leases(context)
        _, data = one_file(pieces)
        pieces.run()
    pieces.memory.versions.clear()
    pieces.restart()
    pieces.run()
    pieces.require_nothing_lost(data)
    assert pieces.left() == []


def test_a_writer_that_is_still_there_when_leases_come(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        no_leases(context)
        path, old = one_file(pieces)
        fd = os.open(path, os.O_RDWR)
        pieces.run()
    pieces.restart()
    pieces.run(3)
    new = other_version(old)
    os.pwrite(fd, new, 0)
    assert path.read_bytes() == new
    os.close(fd)
    pieces.run()
    assert {sha256(old), sha256(new)} <= pieces.archived()


def test_the_rule_may_change(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    no_leases(monkeypatch)
    path, _ = one_file(pieces)
    pieces.run()
    pieces.after_archive = AfterArchive(delete=False, needs_lease=True)
    pieces.restart()
    pieces.run()
    assert pieces.states() == {path.name: KEPT}, "kept by another rule, which says for good"
    pieces.after_archive = AfterArchive(delete=True)
    pieces.restart()
    pieces.run()
    assert pieces.left() == []


def test_files_that_were_kept_for_a_while_need_a_lease_too(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces.after_archive = AfterArchive(delete=False, keep_seconds=DAY, needs_lease=True)
    with monkeypatch.context() as context:
        no_leases(context)
        path, _ = one_file(pieces)
        pieces.run()
        assert pieces.states() == {path.name: FileState.KEPT}
        pieces.clock.advance(2 * DAY)
        pieces.run()
        assert pieces.states() == {path.name: KEPT}
    pieces.restart()
    pieces.run()
    assert pieces.left() == []


def test_the_operator_asks_again(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        no_leases(context)
        path, _ = one_file(pieces)
        pieces.run()
        study = study_of(pieces)
        assert pieces.queue.claims.retry(study)
        pieces.run()
        assert pieces.states() == {path.name: KEPT} and path.exists()
    assert pieces.queue.claims.retry(study)
    pieces.run()
    assert pieces.left() == []
    assert not pieces.queue.claims.retry(study)


# -- it is told -----------------------------------------------------------------------------------------------------


def test_it_is_told(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    no_leases(monkeypatch)
    one_file(pieces)
    pieces.run()
    assert pieces.queue.reports.status()["kept_without_lease"] == {"inbox1": 1}
    shown = pieces.queue.reports.show(study_of(pieces))
    assert shown is not None and shown["state"] == StudyState.ARCHIVED
    assert shown["kept"] == [{"code": "no-lease", "reason": unleased_module.REASON, "files": 1}]
    assert [fields["files"] for fields in pieces.log.events("kept-without-lease")] == [1]
    assert pieces.queue.reports.quarantine(10) == []
    assert pieces.queue.reports.unfinished()["quarantined"] == 0
