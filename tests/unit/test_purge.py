"""The order of a deletion: proven, on record, staged, compared, gone, written down; and what becomes of it when one
of these steps fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.errors import StateUnavailable, Stopping, Transient
from dicomwatchd.model import FileState, StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import batch, evidence, proof
from dicomwatchd.pipeline.deletion.proof import delete_on_proof
from dicomwatchd.pipeline.deletion.staging import staged as staging
from dicomwatchd.pipeline.deletion.staging import tidying
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.rows import Claim, Source
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryCatalogue

T = TypeVar("T")
R = TypeVar("R")
STUDY = Uid("1.2.1")
FILES = {f"IM{number}": instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 6)}


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    """Five files of one study, settled, queued."""
    pieces = Pieces(tmp_path)
    folder = pieces.inbox / "A"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    pieces.settle()
    yield pieces
    pieces.close()


def kinds(pieces: Pieces) -> list[str]:
    return [entry.body["kind"] for entry in pieces.queue.audit.of_study(STUDY)]


def state(pieces: Pieces) -> str:
    return str((pieces.queue.reports.show(STUDY) or {})["state"])


def test_all_are_on_record_before_the_first_is_touched(pieces: Pieces) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        assert len(pieces.left()) == 5
        # As another process would see it: what is committed, not what is about to be.
        with pieces.queue._database.read() as db:
            assert not db.in_transaction
        seen.append(kinds(pieces))
        assert set(pieces.states().values()) == {FileState.DELETING}

    with at(batch, "delete_on_proof", look):
        pieces.ship()
    assert seen == [["authorised"] * 5]
    assert kinds(pieces) == ["authorised"] * 5 + ["deleted"] * 5
    assert pieces.left() == []
    assert pieces.queue.audit.broken_at() is None


def test_what_cannot_be_put_on_record_is_not_touched(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StateUnavailable(
            "the state database cannot be written at the moment", code="state-full", endpoint="state"
        )

    with monkeypatch.context() as context:
        context.setattr(type(pieces.queue.deletions), "authorise", fail)
        pieces.ship()
    assert len(pieces.left()) == 5
    assert kinds(pieces) == []
    assert state(pieces) == StudyState.QUEUED
    pieces.run()
    assert pieces.left() == []


def test_nothing_goes_when_one_of_them_cannot_be_proven(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = proof.prove

    def prove(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            named["catalogue_revision"] = 0
        return real(*arguments, **named)

    with monkeypatch.context() as context:
        context.setattr(proof, "prove", prove)
        pieces.ship()
    assert len(pieces.left()) == 5
    assert kinds(pieces) == []
    assert state(pieces) == StudyState.PARKED


def test_what_the_intake_has_found_changed_is_not_touched(pieces: Pieces) -> None:
    """Between proof and record: the queue knows another file under the name by then, and this one has no say."""

    def change() -> None:
        with pieces.queue._database.write() as db:
            db.execute("UPDATE files SET identity = '1:1:1:1:1' WHERE name = ?", (b"IM3",))

    with at(proof, "prove", change):
        pieces.ship()
    assert [path.name for path in pieces.left()] == ["IM3"]
    assert kinds(pieces).count("authorised") == 4
    pieces.run()
    assert pieces.left() == []


@pytest.mark.parametrize("error", [Transient("no"), OSError(5, "no"), ValueError("no")], ids=["ours", "os", "a-fault"])
def test_one_that_fails_does_not_hide_how_the_others_ended(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = delete_on_proof

    def fail_for_one(folders: Any, places: Any, source: Any, file: Any, proof: Any, **named: Any) -> Any:
        if file.name == b"IM3":
            raise error
        return real(folders, places, source, file, proof, **named)

    with monkeypatch.context() as context:
        context.setattr(batch, "delete_on_proof", fail_for_one)
        pieces.ship()
    assert [path.name for path in pieces.left()] == ["IM3"]
    assert sorted(kinds(pieces)) == ["authorised"] * 5 + ["deleted"] * 4 + ["untouched"]
    assert pieces.states() == {"IM3": FileState.STORED}
    pieces.run()
    assert pieces.left() == []


def test_a_stop_half_way(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not begun is as it was; what is done is on record."""
    monkeypatch.setattr(batch, "BATCH_FILES", 1)

    def two(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        for number, item in enumerate(items):
            if function.__name__ == "delete_batch" and number == 2:
                raise Stopping("the daemon is stopping")
            yield function(item)

    claim = pieces.queue.claims.claim()
    assert claim is not None
    with pytest.raises(Stopping):
        stages.ship(claim, two, pieces.context)
    pieces.queue.claims.release(claim, not_before=0, attempts=0, code="stopping", reason="")
    assert len(pieces.left()) == 3
    assert sorted(kinds(pieces)) == ["authorised"] * 5 + ["deleted"] * 2 + ["untouched"] * 3
    assert set(pieces.states().values()) == {FileState.STORED}
    assert state(pieces) == StudyState.QUEUED


def test_a_kept_file_is_taken_up_as_what_it_now_is(pieces: Pieces) -> None:
    changed = instance(STUDY, "1.2.1.1", "1.2.1.1.1", 99)
    path = pieces.inbox / "A" / "IM1"
    with at(batch, "delete_on_proof", lambda: path.write_bytes(changed)):
        pieces.ship()
    assert path.read_bytes() == changed
    assert "restored" in kinds(pieces)
    pieces.run_and_release()
    assert pieces.left() == []
    pieces.require_nothing_lost(changed, *FILES.values())
    assert pieces.manifest(STUDY).flags == ("sop-instance-uid-repeated",)


def test_an_end_that_cannot_be_written_down_is_written_down_by_the_next_shipment(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StateUnavailable(
            "the state database cannot be written at the moment", code="state-full", endpoint="state"
        )

    with monkeypatch.context() as context:
        context.setattr(type(pieces.queue.deletions), "purged", fail)
        pieces.ship()
    assert pieces.left() == []
    assert kinds(pieces) == ["authorised"] * 5
    pieces.run()
    assert kinds(pieces) == ["authorised"] * 5 + ["deleted"] * 5
    assert pieces.queue.reports.unfinished()["moving"] == 0


def test_a_claim_that_cannot_be_given_back_is_given_back_later(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StateUnavailable(
            "the state database cannot be written at the moment", code="state-full", endpoint="state"
        )

    with monkeypatch.context() as context:
        context.setattr(stages, "upload", fail)
        context.setattr(type(pieces.queue.claims), "release", fail)
        pieces.ship()
    assert state(pieces) == StudyState.UPLOADING
    pieces.run()
    assert pieces.left() == []


# -- before it ------------------------------------------------------------------------------------------------------


@dataclass
class ForgetfulCatalogue(MemoryCatalogue):
    """Says yes to every record, and returns what it likes."""

    returns: str = "nothing"

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        if self.returns == "the truth":
            super().put(record, instead_of=instead_of)

    def get(self, study_uid: Uid) -> StudyRecord | None:
        return super().get(study_uid)


@pytest.mark.parametrize("older", [False, True])
def test_nothing_goes_before_the_catalogue_returns_what_was_recorded(tmp_path: Path, older: bool) -> None:
    catalogue = ForgetfulCatalogue(returns="the truth")
    pieces = Pieces(tmp_path, catalogue=catalogue)
    data = list(FILES.values())
    if older:
        (pieces.inbox / "IM1").write_bytes(data[0])
        pieces.run()
    catalogue.returns = "nothing"
    (pieces.inbox / "IM2").write_bytes(data[1])
    pieces.run(rounds=2)
    assert len(pieces.left()) == 1
    assert kinds(pieces).count("authorised") == int(older)
    assert not pieces.log.events("study-parked"), "it is the catalogue's trouble, and no want of a proof"
    catalogue.returns = "the truth"
    pieces.run()
    assert pieces.left() == []
    pieces.close()


def test_evidence_of_an_earlier_claim_is_not_enough(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified under one claim, which then fails; by the next one the object is gone."""

    def fail(*_: object) -> None:
        raise Transient("no")

    with monkeypatch.context() as context:
        context.setattr(stages, "record", fail)
        pieces.ship()
    for key in list(pieces.memory.versions):
        del pieces.memory.versions[key]
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(*FILES.values())


def test_what_is_kept_is_not_deleted(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    for name, data in FILES.items():
        (pieces.inbox / name).write_bytes(data)
    pieces.run()
    assert len(pieces.left()) == 5
    assert kinds(pieces) == []
    assert set(pieces.states().values()) == {FileState.KEPT}
    pieces.close()


# -- tidying --------------------------------------------------------------------------------------------------------


def test_tidy_removes_what_is_empty_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("A/B/C", "A/D", "E/F"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "A" / "D" / "IM1").write_bytes(b"x")
    tidying.tidy(Source(1, "inbox1", os.fsencode(tmp_path), "inbox", False), [b"A/B/C", b"A/D", b"nowhere", b""])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == ["A", "A/D", "A/D/IM1", "E", "E/F"]


def test_tidy_follows_no_link(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    (elsewhere / "B").mkdir(parents=True)
    (inbox / "A").symlink_to(elsewhere)
    tidying.tidy(Source(1, "inbox1", os.fsencode(inbox), "inbox", False), [b"A/B", b"A"])
    assert (elsewhere / "B").is_dir()
    assert (inbox / "A").is_symlink()


def test_tidy_of_an_inbox_that_is_away(tmp_path: Path) -> None:
    tidying.tidy(Source(1, "inbox1", os.fsencode(tmp_path / "nowhere"), "inbox", False), [b"A"])


def test_a_batch_that_breaks_off_hides_no_deletion(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are gone, and then the private directory does not close: what became of them is told by the disk, and
    never that they were left as they were."""

    def fail(self: staging.StagingFolders, *error: object) -> None:
        real(self, *error)
        raise OSError(5, "no")

    real = staging.StagingFolders.__exit__
    with monkeypatch.context() as context:
        context.setattr(staging.StagingFolders, "__exit__", fail)
        pieces.ship()
    assert pieces.left() == []
    assert "untouched" not in kinds(pieces)
    pieces.run()
    assert kinds(pieces) == ["authorised"] * 5 + ["deleted"] * 5
    assert state(pieces) == StudyState.ARCHIVED


def test_large_files_go_on_record_a_few_at_a_time(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is on record is compared while its proof is fresh, at a slow share, too."""
    sizes = [file.stat().st_size for file in pieces.inbox.rglob("*") if file.is_file()]
    monkeypatch.setattr(evidence, "PAGE_BYTES", 2 * max(sizes))
    together: list[int] = []
    real = pieces.queue.deletions.authorise

    def authorise(claim: Claim, proofs: Any) -> set[int]:
        together.append(len(proofs))
        return real(claim, proofs)

    monkeypatch.setattr(pieces.queue.deletions, "authorise", authorise)
    pieces.run()
    assert pieces.left() == [] and len(sizes) > 2
    assert together == [2] * (len(sizes) // 2) + [1] * (len(sizes) % 2)
