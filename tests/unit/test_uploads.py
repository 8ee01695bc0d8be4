"""Every folder that is handed in comes to an end: by itself, by somebody's word, or because it has vanished; and holds
nothing up afterwards."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.errors import Permanent, Stopping, Transient
from dicomwatchd.intake.final_scan import UNASKED
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import batch
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.sending import loop
from dicomwatchd.queue.uploads import KEPT_SECONDS
from dicomwatchd.upload_text import sentences
from dicomwatchd.uploads.job import GONE_SECONDS, ROUNDS
from dicomwatchd.uploads.jobs import PRUNE_SECONDS
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.uploading import FILES, STUDY, Handed, named, put


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    put(folder)
    return folder


def state(pieces: Pieces) -> str | None:
    shown = pieces.queue.reports.show(STUDY)
    return None if shown is None else str(shown["state"])


def require_no_trace(pieces: Pieces, handed: Handed) -> None:
    """Nothing lists the upload's source, and no study waits for it."""
    with pieces.queue._database.read() as db:
        for table in ("sources", "files", "arrivals", "upload_results"):
            rows = db.execute(f"SELECT COUNT(*) FROM {table} WHERE source_id = ?", (handed.source_id,)).fetchone()
            assert rows[0] == 0, table
        assert not db.execute("SELECT 1 FROM arrivals").fetchone()
    assert handed.source_id not in pieces.parts.sources.by_id
    assert handed.source_id not in pieces.parts.uploads.sources()
    assert [one["name"] for one in pieces.queue.reports.status()["inboxes"]] == ["inbox1"]
    assert len(pieces.parts.sources.every_intake()) == 1
    assert not pieces.parts.uploads._jobs


# -- C11: a study is held only by files that are there, or archived ---------------------------------------------------


def test_a_study_does_not_wait_for_an_upload_that_has_ended(pieces: Pieces, folder: Path) -> None:
    """A file vanishes, which makes its study arrive anew, and nothing of it is left to wait for."""
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    for path in (folder / "A").iterdir():
        path.unlink()
    handed.go()
    assert state(pieces) is None
    require_no_trace(pieces, handed)


def test_a_study_of_an_inbox_too_goes_on_when_the_upload_ends(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    put(pieces.inbox, {"A/IM7": instance(STUDY, "1.2.1.1", "1.2.1.1.7", 7)})
    pieces.scan()
    pieces.clock.advance(3)
    pieces.look()
    assert state(pieces) == StudyState.ARRIVING
    handed.go(ship=False)
    pieces.clock.advance(20)
    pieces.run()
    assert state(pieces) == StudyState.ARCHIVED and len(pieces.archived()) == 7


@pytest.mark.parametrize("rest", [False, True])
def test_a_study_that_arrives_when_the_upload_is_cancelled(rest: bool, pieces: Pieces, folder: Path) -> None:
    if rest:
        put(pieces.inbox, {"A/IM7": instance(STUDY, "1.2.1.1", "1.2.1.1.7", 7)})
        pieces.scan()
        pieces.clock.advance(3)
        pieces.look()
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["files"] == 6, ship=False)
    assert state(pieces) == StudyState.ARRIVING
    assert pieces.parts.uploads.cancel(handed.name)["outcome"] == "cancelled"
    pieces.clock.advance(20)
    pieces.run()
    assert state(pieces) == (StudyState.ARCHIVED if rest else None)
    assert len(pieces.archived()) == (1 if rest else 0)
    require_no_trace(pieces, handed)


def test_a_study_that_an_older_program_has_left_arriving_is_let_go_at_the_start(pieces: Pieces) -> None:
    put(pieces.inbox)
    pieces.scan()
    pieces.clock.advance(3)
    pieces.look()
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM arrivals")
    assert state(pieces) == StudyState.ARRIVING
    pieces.restart()
    assert state(pieces) == StudyState.QUEUED


# -- cancelling -------------------------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[:1] != "."}


@pytest.mark.parametrize(
    ("module", "function", "when", "delete"),
    [
        *(
            (*place, delete)
            for delete in (False, True)
            for place in ((loop, "send", 1), (stages, "verify", 1), (stages, "record", 1), (stages, "purge", 1))
        ),
        (proof_module, "prove", 1, True),
        (batch, "delete_on_proof", 1, True),
        (batch, "delete_on_proof", 3, True),
    ],
)
def test_cancelled_in_the_midst_of_a_shipment(
    module: Any, function: str, when: int, delete: bool, pieces: Pieces, folder: Path
) -> None:
    """From then on nothing is deleted, but for the one file that is in hand; and what is archived stays so."""
    handed = Handed(pieces, folder, delete=delete)
    left: dict[str, bytes] = {}

    def cancel() -> None:
        pieces.parts.uploads.cancel(handed.name)
        left.update({path.rpartition("A/")[1] + path.rpartition("A/")[2]: data for path, data in tree(folder).items()})

    with at(module, function, cancel, when=when):
        result = handed.go()
    assert (result["outcome"], result["deletable"]) == ("cancelled", False)
    assert left and len(set(left) - set(tree(folder))) <= (1 if function == "delete_on_proof" else 0)
    assert result["deleted"] == len(FILES) - len(tree(folder))
    pieces.require_nothing_lost(*(data for name, data in FILES.items() if name not in tree(folder)))
    pieces.clock.advance(1000)
    pieces.run()
    assert state(pieces) in (None, StudyState.ARCHIVED)
    assert "cancelled" in sentences(result, delete=delete)[0]
    require_no_trace(pieces, handed)
    again = Handed(pieces, folder).go()
    assert again["verified"] == len(tree(folder)) and (again["deletable"] or not tree(folder))
    assert len(pieces.archived()) == 6


def test_cancelled_twice_and_after_its_end(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    first = pieces.parts.uploads.cancel(handed.name)
    assert first["done"] and first["outcome"] == "cancelled"
    assert pieces.parts.uploads.cancel(handed.name) == first
    other = Handed(pieces, folder)
    result = other.go()
    assert pieces.parts.uploads.cancel(other.name) == result and result["outcome"] == "finished"
    with pytest.raises(Permanent, match="no such upload"):
        pieces.parts.uploads.cancel("upload-000000000000")


def test_a_cancel_is_not_forgotten_over_a_crash(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder, delete=True)
    handed.go(lambda now: now["files"] == 6, ship=False)

    def crash(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), at(pieces.queue.uploads, "end", crash):
        pieces.parts.uploads.cancel(handed.name)
    pieces.restart()
    assert handed.now["phase"] == "cancelling"
    handed.second()
    assert handed.now["outcome"] == "cancelled" and tree(folder) == FILES
    require_no_trace(pieces, handed)


def test_a_parked_study_of_a_cancelled_upload_is_not_held(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Handed(pieces, folder)

    def refuse(*_: object) -> Any:
        raise Permanent("no", code="refused-for-good")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "verify", refuse)
        result = handed.go(lambda now: now["failed_files"] == 6)
        assert "parked" in next(iter(named(result).values()))
        assert state(pieces) == StudyState.PARKED
        pieces.parts.uploads.cancel(handed.name)
    assert state(pieces) is None
    require_no_trace(pieces, handed)


def test_an_upload_of_a_parked_study_ends_and_names_it(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Handed(pieces, folder)

    def refuse(*_: object) -> Any:
        raise Permanent("no", code="refused-for-good")

    monkeypatch.setattr(stages, "verify", refuse)
    result = handed.go()
    assert set(named(result)) == set(FILES) and not result["deletable"]
    require_no_trace(pieces, handed)


# -- folders that vanish ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("how", ["removed", "made anew", "exchanged over a restart", "a file instead over a restart"])
def test_a_folder_that_vanished_ends_its_upload(how: str, delete: bool, pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder, delete=delete)
    handed.go(lambda now: now["files"] == 6, ship=False)
    if how.endswith("restart"):
        pieces.close()
        folder.rename(folder.with_name("gone"))
    else:
        shutil.rmtree(folder)
    if how.startswith(("made", "exchanged")):
        put(folder, {"A/OTHER": instance("1.2.9", "1.2.9.1", "1.2.9.1.1", 1)})
    elif how.startswith("a file"):
        folder.write_bytes(b"")
    if how.endswith("restart"):
        pieces.start()
    began = pieces.clock.monotonic()
    handed.go(lambda now: now["phase"] == "waiting for the folder")
    result = handed.go(seconds=20)
    assert GONE_SECONDS <= pieces.clock.monotonic() - began < GONE_SECONDS * 2
    assert (result["outcome"], result["deletable"], result["deleted"]) == ("vanished", False, 0)
    assert "disappeared" in sentences(result, delete=delete)[0]
    if result["verified"] < 6:
        assert "disappeared before it was archived" in named(result)["A/IM1"]
    assert state(pieces) in (None, StudyState.ARCHIVED)
    require_no_trace(pieces, handed)
    if how.startswith(("made", "exchanged")):
        assert tree(folder) and pieces.queue.reports.show(Uid("1.2.9")) is None, "nobody has handed that one in"


def test_a_folder_that_is_made_anew_and_given_the_same_inode_is_another_one(pieces: Pieces, folder: Path) -> None:
    """As ext4 and others do at once: what stands there then was handed in by nobody."""
    handed = Handed(pieces, folder, delete=True)
    handed.go(lambda now: now["files"] == 6, ship=False)
    inode = folder.stat().st_ino
    pieces.close()
    pieces.parts.uploads._folders.let_go(handed.name)
    shutil.rmtree(folder)
    for number in range(200):
        folder.mkdir()
        if folder.stat().st_ino == inode:
            break
        folder.rename(folder.with_name(f"no{number}"))
    else:
        pytest.skip("this file system gives no inode again so soon")
    put(folder, {"A/OTHER": instance("1.2.9", "1.2.9.1", "1.2.9.1.1", 1)})
    pieces.start()
    result = handed.go(seconds=20)
    assert result["outcome"] == "vanished" and (folder / "A/OTHER").exists()
    assert pieces.queue.reports.show(Uid("1.2.9")) is None


@pytest.mark.parametrize("delete", [False, True])
def test_a_folder_that_comes_back_in_time_is_gone_on_with(delete: bool, pieces: Pieces, folder: Path) -> None:
    """A stick that was not put in again yet when the daemon started."""
    handed = Handed(pieces, folder, delete=delete)
    handed.go(lambda now: now["files"] == 6, ship=False)
    pieces.close()
    folder.rename(folder.with_name("gone"))
    folder.mkdir()  # where it was mounted
    pieces.start()
    for _ in range(20):
        handed.second(seconds=10)
    folder.rmdir()
    folder.with_name("gone").rename(folder)
    result = handed.go(seconds=30)
    assert result["verified"] == 6 and result["complete"] and result["outcome"] == "finished"


@pytest.mark.parametrize("delete", [False, True])
def test_a_folder_that_is_moved_while_it_is_archived_is_still_the_one(
    delete: bool, pieces: Pieces, folder: Path
) -> None:
    """And what stands under its path then is not, nor is it called deletable."""
    handed = Handed(pieces, folder, delete=delete)
    handed.go(lambda now: now["files"] == 6, ship=False)
    folder.rename(folder.with_name("moved"))
    put(folder, {"A/OTHER": instance("1.2.9", "1.2.9.1", "1.2.9.1.1", 1)})
    result = handed.go()
    assert (result["verified"], result["deletable"]) == (6, False)
    assert "is no longer at this path" in named(result)[""]
    assert bool(tree(folder.with_name("moved"))) is not delete
    assert set(tree(folder)) == {"A/OTHER"} and pieces.queue.reports.show(Uid("1.2.9")) is None


def test_another_folder_in_its_place_is_another_upload(pieces: Pieces, folder: Path) -> None:
    """The next CD in the same drive."""
    first = Handed(pieces, folder)
    first.go(lambda now: now["files"] == 6, ship=False)
    folder.rename(folder.with_name("gone"))
    put(folder, {"A/OTHER": instance("1.2.9", "1.2.9.1", "1.2.9.1.1", 1)})
    second = Handed(pieces, folder)
    assert second.name != first.name and not first.now["done"], "whoever uses the path of another one's ends nothing"
    assert second.go()["verified"] == 1
    assert first.go()["verified"] == 6


def test_a_deletion_that_was_cut_off_in_a_folder_that_is_gone(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder, delete=True)

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with pytest.raises(Crash), at(pieces.queue.deletions, "purged", crash):
        handed.go()
    folder.rename(folder.with_name("gone"))
    pieces.restart()
    result = handed.go(rounds=200, seconds=20)
    assert result["outcome"] == "vanished" and not result["deletable"]
    assert any("it is unknown" in reason for reason in named(result).values())
    require_no_trace(pieces, handed)


def test_a_comparison_that_takes_long_is_not_cut_off_by_a_cancellation(pieces: Pieces, folder: Path) -> None:
    """Somebody is at the file: that ends as it ends, and is on record once."""
    handed = Handed(pieces, folder, delete=True)

    def cancel() -> None:
        pieces.parts.uploads.cancel(handed.name)
        for _ in range(4):
            pieces.clock.advance(GONE_SECONDS / 2)
            pieces.parts.uploads.tick()

    with at(proof_module, "_differs", cancel):
        result = handed.go()
    kinds: dict[int, list[str]] = {}
    for entry in pieces.queue.audit.of_study(STUDY):
        kinds.setdefault(entry.body["file"], []).append(entry.body["kind"])
    assert kinds and all(len(ends) == 2 and "gone" not in ends for ends in kinds.values()), kinds
    assert result["outcome"] == "cancelled" and not any("it is unknown" in why for why in named(result).values())
    require_no_trace(pieces, handed)


# -- the same folder once more ----------------------------------------------------------------------------------------


def test_the_same_command_again_follows_the_upload_that_runs(pieces: Pieces, folder: Path, tmp_path: Path) -> None:
    handed = Handed(pieces, folder)
    assert Handed(pieces, folder).name == handed.name
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert Handed(pieces, link).name == handed.name
    with pytest.raises(Permanent, match="without --delete") as refused:
        Handed(pieces, folder, delete=True)
    assert handed.name in str(refused.value.hint)
    pieces.restart()
    assert Handed(pieces, folder).name == handed.name
    handed.go()
    assert Handed(pieces, folder).name != handed.name


def test_the_same_folder_without_delete_is_not_taken_for_the_one_with(pieces: Pieces, folder: Path) -> None:
    Handed(pieces, folder, delete=True)
    with pytest.raises(Permanent, match="with --delete"):
        Handed(pieces, folder)


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_results_are_kept_for_thirty_days(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    result = handed.go()
    pieces.clock.advance(KEPT_SECONDS - 100)
    pieces.restart()
    pieces.parts.uploads.tick()
    assert handed.now == result
    assert [known.result for known in pieces.queue.uploads.all(10)] == [result]
    pieces.clock.advance(PRUNE_SECONDS + 200)
    pieces.parts.uploads.tick()
    with pytest.raises(Permanent, match="no such upload"):
        _ = handed.now
    assert pieces.queue.uploads.all(10) == []


def test_the_oldest_of_too_many_results_go(pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomwatchd.queue import uploads

    monkeypatch.setattr(uploads, "KEPT_RESULTS", 2)
    names = []
    for _ in range(3):
        names.append(Handed(pieces, folder).name)
        pieces.parts.uploads.cancel(names[-1])
        pieces.clock.advance(1)
    assert pieces.queue.uploads.prune() == 1
    assert [known.upload.source.name for known in pieces.queue.uploads.all(10)] == names[:0:-1]


def test_the_desk_keeps_nothing_of_uploads_that_have_ended(pieces: Pieces, folder: Path) -> None:
    for _ in range(3):
        handed = Handed(pieces, folder)
        handed.go()
        require_no_trace(pieces, handed)


def test_whoever_waits_is_told_that_the_daemon_stops(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    pieces.parts.uploads.close()
    with pytest.raises(Stopping) as told:
        _ = handed.now
    assert "same command again" in str(told.value.hint)


def test_a_folder_handed_in_without_delete_is_not_tidied(pieces: Pieces, folder: Path) -> None:
    """What a daemon has left staged in it, years ago and elsewhere perhaps, is not moved about."""
    staged = folder / ".dicomwatchd-aside"
    staged.mkdir()
    (staged / "IM9").write_bytes(b"x")
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["files"] == 6)
    pieces.restart()
    handed.go()
    assert (staged / "IM9").exists()


def test_a_state_that_cannot_be_written_delays_the_end(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Handed(pieces, folder)
    calls = []

    def full(*_: object, **__: object) -> Any:
        calls.append(1)
        raise Transient("the disk with the daemon's state is full", endpoint="state")

    with monkeypatch.context() as patch:
        patch.setattr(pieces.queue.uploads, "end", full)
        with pytest.raises(AssertionError, match="does not get there"):
            handed.go(rounds=20)
    assert calls and handed.go()["deletable"]


@pytest.mark.parametrize("column", ["root", "asker"])
def test_an_upload_of_an_older_state_is_broken_off(column: str, pieces: Pieces, folder: Path) -> None:
    """Which folder it was, or who has asked for it, is not on record: it may be handed in again."""
    handed = Handed(pieces, folder, delete=True)
    handed.go(lambda now: now["files"] == 6, ship=False)
    with pieces.queue._database.write() as db:
        db.execute(f"UPDATE uploads SET {column} = NULL")
    pieces.restart()
    result = handed.go()
    assert (result["outcome"], result["deleted"]) == ("cancelled", 0) and tree(folder) == FILES
    require_no_trace(pieces, handed)
    assert Handed(pieces, folder).go()["deletable"]


def test_a_folder_on_a_file_system_that_gives_errors_is_away(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Handed(pieces, folder)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("dicomwatchd.uploads.folders._opened_again", broken)
        patch.setattr("dicomwatchd.uploads.folders.open_root", broken)
        assert handed.go(seconds=30)["outcome"] == "vanished"
    shutil.rmtree(folder)


# -- what was archived long before its end ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "hidden", "damaged"])
def test_what_was_archived_days_before_the_end_is_looked_at_once_more(how: str, pieces: Pieces, folder: Path) -> None:
    """The word that lets a person delete is no older than an unlink's proof: other studies may have taken days."""
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    pieces.clock.advance(3 * 86400)
    key = next(key for key in pieces.memory.versions if key.endswith(".dcm"))
    if how == "gone":
        del pieces.memory.versions[key]
    elif how == "hidden":
        pieces.memory.mark_deleted(key)
    else:
        pieces.memory.overwrite(key, b"other bytes")
    assert handed.go()["deletable"]
    served = {b"".join(pieces.store.read(item.key)) for item in pieces.manifest(STUDY).instances}
    assert served == {path.read_bytes() for path in folder.rglob("IM*")}


def test_what_was_archived_a_moment_ago_is_not_asked_for_again(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    with at(pieces.memory, "read", lambda: None) as read:
        handed.go(lambda now: now["verified"] == 6)
        before = read[0]
        assert handed.go()["deletable"]
    assert read[0] == before


def test_a_store_too_slow_for_young_evidence_is_not_asked_for_ever(
    pieces: Pieces, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomwatchd.uploads.job.LIFETIME_SECONDS", 0.5)
    doubted: list[int] = []
    real = pieces.queue.uploads.doubt

    def doubt(source_id: int, asked_before: float) -> int:
        doubted.append(real(source_id, asked_before))
        return doubted[-1]

    monkeypatch.setattr(pieces.queue.uploads, "doubt", doubt)
    assert Handed(pieces, folder).go()["deletable"]
    assert len([files for files in doubted if files]) == ROUNDS


def come_late(pieces: Pieces, how: str) -> None:
    """The study is not at rest: others have brought a file of it, which is not archived yet, or cannot be."""
    put(pieces.inboxes[0], {"LATE": instance(STUDY, "1.2.1.1", "1.2.1.1.99", 99)})
    pieces.settle()
    if how == "parked":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces.memory, "put", not_taken)
            pieces.ship()
    assert state(pieces) == how


def not_taken(*_: object) -> None:
    raise Permanent("the store does not take it", code="of-no-use")


@pytest.mark.parametrize("how", ["queued", "parked"])
def test_nothing_is_said_of_a_study_that_cannot_be_asked_for_once_more(how: str, pieces: Pieces, folder: Path) -> None:
    """Its object has gone since; the upload ends all the same, and names what it cannot vouch for."""
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    pieces.clock.advance(3 * 86400)
    pieces.memory.mark_deleted(next(key for key in pieces.memory.versions if key.endswith(".dcm")))
    come_late(pieces, how)
    result = handed.go(ship=False, seconds=30)
    assert not result["complete"]
    assert named(result) == dict.fromkeys(FILES, UNASKED)
    assert result["failed_files"] == 6


def test_a_study_that_comes_to_rest_meanwhile_is_asked_for_once_more(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["verified"] == 6)
    pieces.clock.advance(3 * 86400)
    key = next(key for key in pieces.memory.versions if key.endswith(".dcm"))
    pieces.memory.mark_deleted(key)
    come_late(pieces, "queued")
    for _ in range(5):
        handed.second(ship=False)
    assert not handed.now["done"]
    assert handed.go()["deletable"]
    assert key not in pieces.memory.hidden


def test_evidence_that_grows_old_while_the_folder_is_looked_at_is_young_enough(pieces: Pieces, folder: Path) -> None:
    handed = Handed(pieces, folder)
    handed.go(lambda now: now["phase"] == "checking")
    with at(pieces.queue.uploads, "failed", lambda: pieces.clock.advance(3600)):
        assert handed.go()["deletable"]
