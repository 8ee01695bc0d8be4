"""A damaged file that says whose it is: archived for what it is, and kept until a whole copy is archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomwatchd.archive.layout.manifest import DAMAGED_FORMAT, DAMAGED_INSTANCES, FORMAT, Manifest
from dicomwatchd.errors import BadManifest
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.deletion.vetoes.damaged import WholeCopies
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from dicomwatchd.queue.database.schema import open_writer
from dicomwatchd.queue.database.steps import STEPS
from dicomwatchd.queue.database.upgrade import OLD_FAULT
from dicomwatchd.upload_text import sentences
from tests.pieces import Pieces, at
from tests.unit.dicomfiles import data_set, encode
from tests.unit.uploading import Handed

STUDY = "1.2.3.4"


def content(number: int) -> bytes:
    return encode(
        data_set(
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.1",
            SOPInstanceUID=f"{STUDY}.1.{number}",
            InstanceNumber=number,
        )
    )


WHOLE = content(1)
CUT = WHOLE[:-7]
OTHER = content(2)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def put(pieces: Pieces, name: str, data: bytes) -> Path:
    path = pieces.inbox / name
    path.write_bytes(data)
    return path


def test_it_is_archived_as_damaged_and_kept(pieces: Pieces) -> None:
    cut, other = put(pieces, "IM1", CUT), put(pieces, "IM2", OTHER)
    pieces.run(3)
    assert pieces.left() == [cut] and not other.exists()
    pieces.require_nothing_lost(CUT, OTHER)
    assert pieces.states() == {"IM1": "kept:damaged"}
    manifest = pieces.manifest(STUDY)
    [damaged] = [item for item in manifest.instances if item.damage]
    assert damaged.sop_instance_uid == f"{STUDY}.1.1"
    assert damaged.damage.startswith("the file ends inside an element's value (from byte ")
    assert manifest.record().flags == (DAMAGED_INSTANCES,)
    assert pieces.log.events("kept-damaged") == [{"study_uid": STUDY, "files": 1}]
    shown = pieces.queue.reports.show(STUDY)
    assert shown is not None and shown["kept"][0]["reason"].startswith("archived; kept because it is damaged: ")


def test_a_whole_copy_supersedes_it_and_both_go(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    assert len(pieces.left()) == 1
    put(pieces, "IM1 again", WHOLE)
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE)
    manifest = pieces.manifest(STUDY)
    assert len(manifest.instances) == 2 and manifest.record().flags == ("sop-instance-uid-repeated",)


def test_both_in_one_shipment(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    put(pieces, "IM1 again", WHOLE)
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE)


def test_a_whole_copy_that_was_there_before(pieces: Pieces) -> None:
    put(pieces, "IM1", WHOLE)
    pieces.run()
    put(pieces, "IM1", CUT)
    pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE)


def test_another_damaged_copy_and_another_instance_supersede_nothing(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    put(pieces, "IM1 again", WHOLE[:-9])
    put(pieces, "IM2", OTHER)
    pieces.run(4)
    assert [path.name for path in pieces.left()] == ["IM1", "IM1 again"]


def test_what_cannot_be_told_supersedes_nothing(pieces: Pieces) -> None:
    """A private class owes nothing: one that was cut between two elements looks like a whole one."""
    private = data_set(
        SOPClassUID="1.3.12.2.1107.5.9.1", StudyInstanceUID=STUDY, SOPInstanceUID=f"{STUDY}.1.1", PixelData=None
    )
    put(pieces, "IM1", CUT)
    put(pieces, "raw", encode(private))
    pieces.run(4)
    assert [path.name for path in pieces.left()] == ["IM1"]
    [item] = [item for item in pieces.manifest(STUDY).instances if not item.damage]
    assert not item.is_whole and item.repairs[-1].startswith("completeness cannot be told: ")


def test_it_is_not_sent_while_its_study_arrives(pieces: Pieces) -> None:
    """A slow copy is a damaged file until it has come to its end."""
    path = put(pieces, "IM1", CUT)
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    pieces.ship()
    assert pieces.archived() == set()
    path.write_bytes(WHOLE)
    pieces.run()
    assert pieces.left() == [] and len(pieces.archived()) == 1


def test_it_is_kept_by_any_rule_and_over_restarts(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=60.0))
    put(pieces, "IM1", CUT)
    pieces.run(3)
    pieces.clock.advance(3600)
    pieces.restart()
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept:damaged"}
    put(pieces, "IM1 again", WHOLE)
    pieces.run(2)
    pieces.clock.advance(3600)
    pieces.run()
    assert pieces.left() == []
    pieces.close()


def test_a_manifest_with_damaged_instances_is_not_for_an_older_program(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    data = pieces.manifest(STUDY).to_bytes()
    assert DAMAGED_FORMAT.encode() in data and Manifest.from_bytes(data) == pieces.manifest(STUDY)
    with pytest.raises(BadManifest):
        Manifest.from_bytes(data.replace(DAMAGED_FORMAT.encode(), FORMAT.encode()))


def test_of_one_without_uids_the_studies_of_its_folder_say_so(pieces: Pieces) -> None:
    put(pieces, "IM1", OTHER)
    put(pieces, "IM9", WHOLE[:200])
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["IM9"]
    assert pieces.states() == {"IM9": "quarantined:truncated"}
    assert pieces.manifest(STUDY).flags == ("unreadable-file-beside",)


@pytest.mark.parametrize("delete", [False, True])
def test_an_upload_with_a_damaged_image_has_failed_for_that(pieces: Pieces, tmp_path: Path, delete: bool) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / "IM1").write_bytes(CUT)
    (folder / "IM2").write_bytes(OTHER)
    result = Handed(pieces, folder, delete=delete).go()
    assert (folder / "IM1").exists() and (folder / "IM2").exists() is not delete
    assert not result["complete"] and not result["deletable"] and result["failed_files"] == 1
    assert [one["name"] for one in result["failed"]] == ["IM1"]
    said = "\n".join(sentences(result, delete=delete))
    assert "IM1: archived; kept because it is damaged: the file ends inside" in said
    pieces.require_nothing_lost(OTHER, CUT)
    assert len(pieces.archived()) == 2


def test_what_is_no_data_set_at_all_is_no_unread_entry(pieces: Pieces, tmp_path: Path) -> None:
    """Its code was that of an entry that could not be looked at, for which nobody owes an account."""
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / "IM1").write_bytes(WHOLE[: WHOLE.index(b"\x08\0\x16\0")] + b"\x08\0\x16\0UI" + b"\xff" * 40)
    (folder / "IM2").write_bytes(OTHER)
    result = Handed(pieces, folder).go()
    assert [one["name"] for one in result["failed"]] == ["IM1"] and not result["complete"]


def test_a_state_of_an_earlier_version_tries_what_it_has_in_quarantine(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    with pieces.queue._database.write() as db:
        db.execute(
            "UPDATE files SET state = 'quarantined', code = 'unexpected-before', study_uid = NULL, receipt = NULL"
        )
    pieces.restart()
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept:damaged"}


# -- what counts as a whole copy --------------------------------------------------------------------------------------


def test_a_copy_whose_object_is_damaged_supersedes_nothing(pieces: Pieces) -> None:
    put(pieces, "IM1", WHOLE)
    put(pieces, "IM1 cut", CUT)
    pieces.run()
    manifest = pieces.manifest(STUDY)
    [whole] = [item for item in manifest.instances if not item.damage]
    [damaged] = [item for item in manifest.instances if item.damage]
    assert manifest.superseded_uids == {f"{STUDY}.1.1"}
    bad = replace(manifest, damaged_keys=(whole.key,))
    assert bad.superseded_uids == frozenset() and bad.unsuperseded == [damaged]
    assert DAMAGED_INSTANCES in bad.record().flags
    file = SimpleNamespace(header=SimpleNamespace(sop_instance_uid=f"{STUDY}.1.1", damage="x"), sha256=damaged.sha256)
    assert WholeCopies(bad).stays(file) and not WholeCopies(manifest).stays(file)  # type: ignore[arg-type]


def test_what_was_found_again_in_the_store_supersedes_nothing(pieces: Pieces) -> None:
    """Of what only a damaged manifest listed nobody knows whether it is whole: here it is another damaged copy."""
    put(pieces, "IM1", CUT)
    put(pieces, "IM1 again", WHOLE[:-9])
    pieces.run(3)
    for key, versions in pieces.memory.versions.items():
        if "/manifests/" in key:
            versions[-1] = b"{}"
    put(pieces, "IM2", OTHER)
    pieces.run(4)
    assert [path.name for path in pieces.left()] == ["IM1", "IM1 again"]
    put(pieces, "IM1 at last", WHOLE)
    pieces.run(4)
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE[:-9], WHOLE, OTHER)


def test_what_was_found_again_in_the_store_is_known_when_it_comes_once_more(pieces: Pieces) -> None:
    put(pieces, "IM1", WHOLE)
    pieces.run()
    for key, versions in pieces.memory.versions.items():
        if "/manifests/" in key:
            versions[-1] = b"{}"
    put(pieces, "IM1 cut", CUT)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["IM1 cut"], "whether the archive has it whole is not known"
    put(pieces, "IM1", WHOLE)
    pieces.run(3)
    assert pieces.left() == []
    [item] = [item for item in pieces.manifest(STUDY).instances if not item.damage]
    assert item.is_whole and item.original_path == "IM1"


def test_a_superseded_file_is_kept_for_as_long_as_its_inbox_says(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=86400.0))
    put(pieces, "IM1", CUT)
    pieces.run(3)
    put(pieces, "IM1 again", WHOLE)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["IM1", "IM1 again"]
    assert pieces.states() == {"IM1": "kept", "IM1 again": "kept"}
    pieces.clock.advance(86400.0)
    pieces.run(3)
    assert pieces.left() == []
    pieces.close()


def test_a_superseded_file_that_stays_by_its_rule_is_kept_for_that(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    put(pieces, "IM1", CUT)
    pieces.run(3)
    put(pieces, "IM1 again", WHOLE)
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept", "IM1 again": "kept"}
    pieces.close()


def test_it_is_completed_in_place(pieces: Pieces) -> None:
    path = put(pieces, "IM1", CUT)
    pieces.run(3)
    assert pieces.queue.reports.damaged(10) == [{"study_uid": STUDY, "files": 1}]
    path.write_bytes(WHOLE)
    pieces.run(3)
    assert pieces.left() == [] and pieces.queue.reports.damaged(10) == []
    pieces.require_nothing_lost(CUT, WHOLE)


def test_one_that_a_person_deletes_needs_nobody_any_more(pieces: Pieces) -> None:
    path = put(pieces, "IM1", CUT)
    pieces.run(3)
    path.unlink()
    pieces.run(2)
    assert pieces.queue.reports.damaged(10) == [] and pieces.states() == {}
    assert pieces.manifest(STUDY).record().flags == (DAMAGED_INSTANCES,)


def test_a_whole_copy_of_another_site_is_found_on_a_retry(pieces: Pieces, tmp_path: Path) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    put(other, "IM1", WHOLE)
    other.run()
    other.close()
    assert pieces.queue.claims.retry(STUDY)
    pieces.run(3)
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE)


def test_a_retry_does_not_shorten_what_its_inbox_says(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=86400.0))
    put(pieces, "IM1", CUT)
    pieces.run(2)
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    put(other, "IM1", WHOLE)
    other.run()
    other.close()
    assert pieces.queue.claims.retry(STUDY)
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept"}
    pieces.clock.advance(86400.0)
    pieces.run(3)
    assert pieces.left() == []
    pieces.close()


def test_a_retry_without_a_whole_copy_changes_nothing(pieces: Pieces) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    assert pieces.queue.claims.retry(STUDY)
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept:damaged"}


@pytest.mark.parametrize("code", ["truncated", "malformed"])
def test_what_an_earlier_version_has_in_quarantine_is_looked_at_once_more(tmp_path: Path, code: str) -> None:
    before = next(number for number, step in enumerate(STEPS) if "ADD COLUMN damage" in step.sql)
    database = open_writer(tmp_path, STEPS[:before])
    with database.write() as db:
        db.execute("INSERT INTO sources VALUES (1, 'ct1', x'2f696e626f78', 'inbox', 0, 0.0, NULL)")
        db.execute(
            "INSERT INTO files (source_id, dir, name, identity, size_bytes, state, seen_at, code)"
            " VALUES (1, x'', 'IM1', '1:1:1:1:1', 10, 'quarantined', 0.0, ?)",
            (code,),
        )
    database.close()
    database = open_writer(tmp_path)
    with database.read() as db:
        assert db.execute("SELECT code FROM files").fetchone()[0] == OLD_FAULT
    database.close()


def test_its_own_content_of_an_earlier_version_supersedes_nothing(pieces: Pieces) -> None:
    """That version took it for whole; this one finds it damaged."""
    put(pieces, "IM1", CUT)
    pieces.run()
    manifest = pieces.manifest(STUDY)
    [item] = manifest.instances
    taken_for_whole = WholeCopies(replace(manifest, instances=(replace(item, damage=""),)))
    assert not taken_for_whole.supersede(item.sop_instance_uid, item.sha256)
    assert taken_for_whole.supersede(item.sop_instance_uid, "0" * 64)


# -- together with a hold ---------------------------------------------------------------------------------------------


def of_patient(number: int, patient: str) -> bytes:
    return encode(
        data_set(
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.2",
            SOPInstanceUID=f"{STUDY}.2.{number}",
            PatientID=patient,
        )
    )


@pytest.mark.parametrize("first", ["released", "whole"])
def test_a_damaged_file_of_a_held_study_waits_for_both(pieces: Pieces, first: str) -> None:
    put(pieces, "IM1", CUT)
    put(pieces, "IM5", of_patient(5, "SOMEBODY ELSE"))
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept:damaged", "IM5": "kept:held"}
    if first == "released":
        pieces.queue.holds.release(Uid(STUDY), "seen", {"by": {"uid": 0}})
        pieces.run(3)
        assert pieces.states() == {"IM1": "kept:damaged"}
        put(pieces, "IM1 again", WHOLE)
    else:
        put(pieces, "IM1 again", WHOLE)
        pieces.run(3)
        assert set(pieces.states().values()) == {"kept:held"} and len(pieces.left()) == 3
        pieces.queue.holds.release(Uid(STUDY), "seen", {"by": {"uid": 0}})
    pieces.run(3)
    assert pieces.left() == []


def test_a_superseded_file_of_a_held_study_is_at_no_moment_deletable(pieces: Pieces, tmp_path: Path) -> None:
    """Between its release as damaged and its next shipment an upload may end."""
    put(pieces, "IM1", CUT)
    put(pieces, "IM5", of_patient(5, "SOMEBODY ELSE"))
    pieces.run(3)
    put(pieces, "IM1 again", WHOLE)
    pieces.settle()
    pieces.ship()
    assert pieces.states()["IM1"] == "kept:held"


# -- killed in between, in bundles, and elsewhere ---------------------------------------------------------------------


class Killed(BaseException):
    pass


def die() -> None:
    raise Killed


@pytest.mark.parametrize(("of", "step"), [("deletions", "keep"), ("shipments", "finish")])
@pytest.mark.parametrize("after", [False, True])
def test_a_daemon_killed_while_it_keeps_it_keeps_it(pieces: Pieces, of: str, step: str, after: bool) -> None:
    put(pieces, "IM1", CUT)
    pieces.settle()
    with at(getattr(pieces.context, of), step, die, after=after), pytest.raises(Killed):
        pieces.ship()
    pieces.restart()
    pieces.run(3)
    assert pieces.states() == {"IM1": "kept:damaged"}


@pytest.mark.parametrize("after", [False, True])
def test_a_daemon_killed_while_it_lets_it_go_lets_it_go(pieces: Pieces, after: bool) -> None:
    put(pieces, "IM1", CUT)
    pieces.run(3)
    put(pieces, "IM1 again", WHOLE)
    pieces.settle()
    with at(pieces.context.deletions, "release_damaged", die, after=after), pytest.raises(Killed):
        pieces.ship()
    pieces.restart()
    pieces.run(4)
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE)


def test_it_is_as_safe_in_a_bundle(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, bundling=Bundling(1 << 20, 1 << 20))
    put(pieces, "IM1", CUT)
    put(pieces, "IM2", OTHER)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["IM1"]
    assert any(item.is_in_bundle and item.damage for item in pieces.manifest(STUDY).instances)
    put(pieces, "IM1 again", WHOLE)
    pieces.run(4)
    assert pieces.left() == []
    pieces.require_nothing_lost(CUT, WHOLE, OTHER)
    pieces.close()


def test_it_moves_with_the_archive(pieces: Pieces) -> None:
    """The whole copy that another place has is none of this one."""
    put(pieces, "IM1", CUT)
    pieces.run(3)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE meta SET value = 'elsewhere' WHERE key = 'destination'")
    pieces.memory.versions.clear()
    pieces.restart()
    pieces.run(4)
    assert pieces.states() == {"IM1": "kept:damaged"}
    pieces.require_nothing_lost(CUT)
    assert [bool(item.damage) for item in pieces.manifest(STUDY).instances] == [True] and len(pieces.archived()) == 1
