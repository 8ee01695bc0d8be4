"""What is written down after a crash of a deletion that was under way: what the disk shows, and no more."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.localfiles import STAGING_NAME
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.staging import recover
from dicomwatchd.queue.rows import Arrival
from tests.pieces import Log, Pieces
from tests.synthetic import Maker
from tests.unit.queues import STUDY, Bench
from tests.unit.test_deletion_races import crash

Change = Callable[[Path], object]


def _replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"another file")
    other.rename(file)


def _aside(file: Path) -> None:
    place = file.parent.parent / os.fsdecode(STAGING_NAME) / "A"
    place.mkdir(parents=True)
    file.rename(place / file.name)


def _beside(file: Path) -> None:
    file.rename(file.with_name("IM1.restored-1"))
    file.write_bytes(b"a new one")


def _written_to(file: Path) -> None:
    file.write_bytes(b"longer than it was before")


def _folder_gone(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()


def _root_moved(file: Path) -> None:
    """And another one, with a folder of that name in it, stands in its place."""
    inbox = file.parent.parent
    inbox.rename(inbox.parent / "elsewhere")
    file.parent.mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda file: None, "restored"),
        (lambda file: file.touch(exist_ok=True), "gone"),  # another time: perhaps another file
        (lambda file: file.unlink(), "deleted"),
        (_replaced, "deleted"),
        (_aside, "restored"),
        (_beside, "restored"),
        (_written_to, "gone"),
        (_folder_gone, "deleted"),  # tidied away: nothing tells that from a folder that was moved away
        (_root_moved, "gone"),
    ],
    ids=["there", "touched", "unlinked", "replaced", "staged", "beside", "written-to", "folder-gone", "root-moved"],
)
def test_how_it_ended(tmp_path: Path, change: Change, kind: str) -> None:
    bench, file = authorised(tmp_path)
    change(file)
    assert recover.conclude(bench.queue.deletions, set()) == []
    entries = [entry.body for entry in bench.queue.audit.of_study(STUDY)]
    assert [entry["kind"] for entry in entries] == ["authorised", kind]
    assert bench.queue.deletions.pending() == []
    assert bench.rows("SELECT * FROM files") == []  # found again by the next look, if it is there
    bench.queue.close()


def test_another_file_system_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount point whose share is not mounted holds no files either: that is no sign of a deletion."""
    bench, file = authorised(tmp_path)
    file.unlink()
    monkeypatch.setattr(recover, "_device", lambda root_fd, parent: 12345)
    recover.conclude(bench.queue.deletions, set())
    assert [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)] == ["authorised", "gone"]
    bench.queue.close()


def test_an_inbox_that_is_not_there_waits(tmp_path: Path) -> None:
    bench, file = authorised(tmp_path)
    (pending,) = recover.conclude(bench.queue.deletions, {bench.source.source_id})
    assert len(bench.queue.deletions.pending()) == 1
    file.unlink()
    recover.conclude_these(bench.queue.deletions, [pending])
    assert [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)] == ["authorised", "deleted"]
    bench.queue.close()


def test_an_inbox_that_has_gone_meanwhile(tmp_path: Path) -> None:
    bench, file = authorised(tmp_path)
    file.parent.parent.rename(tmp_path / "elsewhere")
    recover.conclude(bench.queue.deletions, set())
    assert [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)] == ["authorised"]
    (tmp_path / "elsewhere").rename(file.parent.parent)
    recover.conclude(bench.queue.deletions, set())
    assert [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)] == ["authorised", "restored"]
    bench.queue.close()


def test_another_folder_in_the_place_of_the_inbox_after_a_crash(tmp_path: Path) -> None:
    """On the same file system, with a folder of the same name in it: the file is where the inbox was moved to."""
    pieces = Pieces(tmp_path)
    made = Maker(seed=3).ct_series(pieces.inbox / "DOE", slices=1, rows=16, columns=16)
    pieces.settle()
    crash(pieces)
    pieces.close()
    pieces.inbox.rename(tmp_path / "moved")
    (pieces.inbox / "DOE").mkdir(parents=True)
    pieces.start()
    entries = pieces.queue.audit.of_study(made[0].study_uid)
    assert [entry.body["kind"] for entry in entries] == ["authorised", "gone"]
    assert entries[-1].body["why"] == "after a crash it is missing, and the inbox is another folder"
    pieces.close()


def test_what_a_shipment_is_at(tmp_path: Path) -> None:
    """The same file under whatever name, for as long as the study is claimed."""
    bench, file = authorised(tmp_path)
    deletions, source_id = bench.queue.deletions, bench.source.source_id
    file.rename(file.with_name("elsewhere"))
    found = FileIdentity.of(file.with_name("elsewhere").stat())
    assert deletions.is_at(source_id, found) and not deletions.is_at(source_id + 1, found)
    assert not deletions.is_at(source_id, replace(found, inode=found.inode + 1))
    assert not deletions.is_at(source_id, replace(found, size_bytes=1)), "written to: it is another one"
    bench.queue.claims.recover()
    assert deletions.pending() and not deletions.is_at(source_id, found), "after a restart nobody is at it"
    bench.queue.close()


def authorised(tmp_path: Path) -> tuple[Bench, Path]:
    """A file whose deletion is on record, and nothing more has happened."""
    state, inbox = tmp_path / "state", tmp_path / "inbox"
    state.mkdir()
    file = inbox / "A" / "IM1"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"the bytes")
    bench = Bench(state)
    bench.source = bench.queue.arrivals.add_source("ct2", os.fsencode(inbox), "inbox")
    recover.recover_inbox(bench.source, bench.queue.deletions, Log())
    arrival = bench.arrival("IM1")
    assert arrival.header is not None
    there = Arrival(
        b"A", b"IM1", FileIdentity.of(file.stat()), arrival.state, header=arrival.header, study_attributes={}
    )
    bench.queue.arrivals.add(bench.source.source_id, [there], 0)
    bench.wait_until_quiet()
    bench.authorise(bench.claim())
    return bench, file
