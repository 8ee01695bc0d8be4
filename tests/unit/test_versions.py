"""Several contents under one SOP Instance UID are all archived; files of what is not the same data set are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomwatchd.archive.layout.manifest import CONFLICTING_INSTANCES, CORRECTED_INSTANCES, Manifest
from dicomwatchd.archive.layout.variants import Grade
from dicomwatchd.cli.studies.versions import OtherVersions
from dicomwatchd.daemon.commands import _hold_document
from dicomwatchd.errors import (
    ArchiveRefused,
    BadManifest,
    CredentialsRefused,
    DicomwatchdError,
    EncryptionKeyUnusable,
    Permanent,
)
from dicomwatchd.model import DataSetDigest, Uid
from dicomwatchd.pipeline.deletion import evidence
from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from dicomwatchd.pipeline.deletion.vetoes import versions
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from dicomwatchd.upload_text import sentences
from tests.pieces import Pieces, at
from tests.unit.dicomfiles import IMPLICIT, data_set, encode
from tests.unit.uploading import Handed

STUDY = Uid("1.2.3.4")
BY: dict[str, object] = {"by": {"uid": 0}}
PIXELS = bytes(range(1, 129))


def content(number: int = 1, *, syntax: str = "1.2.840.10008.1.2.1", preamble: bool = True, **changes: object) -> bytes:
    uids = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "InstanceNumber": number,
    }
    return encode(data_set(**{**uids, **changes}), syntax, preamble=preamble)


FIRST = content()
REWRITTEN = content(syntax=IMPLICIT)
EDITED = content(StudyDescription="Abdomen")
OTHER_PIXELS = content(PixelData=PIXELS[::-1])


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def put(pieces: Pieces, name: str, data: bytes) -> Path:
    path = pieces.inbox / name
    path.write_bytes(data)
    return path


def grades(pieces: Pieces) -> list[Grade]:
    return [one.grade for one in pieces.manifest(STUDY).variants]


def test_another_encoding_of_the_same_data_set_leaves_the_inbox(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    pieces.run()
    for name, data in (("B", REWRITTEN), ("C", b"II*\0" + FIRST[4:])):
        put(pieces, name, data)
        pieces.run()
    assert pieces.left() == []
    pieces.require_nothing_lost(FIRST, REWRITTEN)
    assert grades(pieces) == [Grade.SAME_DATA_SET]
    assert pieces.queue.holds.count() == 0
    manifest = pieces.manifest(STUDY)
    assert len({one.data_set_sha256 for one in manifest.data_sets.values()}) == 1 and len(manifest.data_sets) == 3
    assert not {CORRECTED_INSTANCES, CONFLICTING_INSTANCES} & {*manifest.record().flags}


@pytest.mark.parametrize(
    ("later", "grade", "flag"),
    [(EDITED, Grade.CORRECTION, CORRECTED_INSTANCES), (OTHER_PIXELS, Grade.CONFLICT, CONFLICTING_INSTANCES)],
)
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("bundled", [True, False])
def test_another_version_is_archived_and_kept(
    tmp_path: Path, later: bytes, grade: Grade, flag: str, at_once: bool, bundled: bool
) -> None:
    pieces = Pieces(tmp_path, bundling=Bundling(1 << 20, 8 << 20) if bundled else None)
    put(pieces, "A", FIRST)
    put(pieces, "other", content(2))
    if not at_once:
        pieces.run()
        assert pieces.left() == []
    put(pieces, "B", later)
    pieces.run(3)
    pieces.require_nothing_lost(FIRST, later, content(2))
    assert grades(pieces) == [grade]
    assert flag in pieces.manifest(STUDY).record().flags
    assert [path.name for path in pieces.left()] == (["A", "B"] if at_once else ["B"]), "the other instance is gone"
    assert set(pieces.states().values()) == {"kept:held"}
    [hold] = pieces.queue.holds.open(10)
    assert (hold.code, hold.files) == ("other-versions", 2 if at_once else 1)
    assert [one["grade"] for one in hold.found] == [grade.value]
    assert pieces.log.events("versions-held") == [{"study_uid": STUDY, "instances": 1}]
    assert pieces.queue.holds.release(STUDY, "compared", BY) == hold.files
    pieces.run(3)
    assert pieces.left() == [] and pieces.queue.holds.count() == 0
    pieces.close()


def test_a_release_holds_for_what_was_shown(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", EDITED)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    assert pieces.left() == []
    put(pieces, "B again", EDITED)
    put(pieces, "rewritten", REWRITTEN)
    pieces.run(3)
    assert pieces.left() == [], "these versions were looked at"
    put(pieces, "C", OTHER_PIXELS)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["C"]
    [hold] = pieces.queue.holds.open(10)
    assert len(hold.found[0]["data_sets"].split()) == 3
    assert len(pieces.log.events("versions-held")) == 2


def test_what_was_released_stays_released_while_another_instance_is_held(pieces: Pieces) -> None:
    """And whoever is asked to look sees what is new, not all that was looked at before."""
    for number in (1, 2):
        put(pieces, f"{number}A", content(number))
        put(pieces, f"{number}B", content(number, PatientComments="x"))
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    assert pieces.left() == []
    put(pieces, "3A", content(3))
    put(pieces, "3B", content(3, PatientComments="x"))
    pieces.run(3)
    for _ in range(2):
        put(pieces, "1A", content(1))
        pieces.run(3)
        assert pieces.states() == {"3A": "kept:held", "3B": "kept:held"}
        shown = _hold_document(*pieces.queue.holds.open(10))
        assert [one["sop_instance_uid"] for one in shown["instances"]] == [f"{STUDY}.1.3"]
        assert shown["instances_total"] == 1
    pieces.queue.holds.release(STUDY, "compared", BY)
    put(pieces, "1C", content(1, PatientComments="y"))
    put(pieces, "3A again", content(3))
    pieces.run(3)
    assert "1C" in {path.name for path in pieces.left()}
    shown = _hold_document(*pieces.queue.holds.open(10))
    assert f"{STUDY}.1.1" in [one["sop_instance_uid"] for one in shown["instances"]]
    assert pieces.states() == {"1C": "kept:held"} and shown["instances_total"] == 1


def test_what_has_come_since_it_was_shown_is_not_released(pieces: Pieces) -> None:
    """Somebody compares for an hour, and meanwhile another version comes."""
    put(pieces, "A", FIRST)
    put(pieces, "B", EDITED)
    pieces.run(3)
    [looked_at] = pieces.queue.holds.open(10)
    put(pieces, "C", OTHER_PIXELS)
    pieces.run(3)
    with pytest.raises(Permanent, match="something else by now"):
        pieces.queue.holds.release(STUDY, "compared", BY, looked_at.shown)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["A", "B", "C"]
    [looked_at] = pieces.queue.holds.open(10)
    put(pieces, "patient", content(2, PatientID="P2", PatientName="ROE^JOHN"))
    pieces.run(3)
    with pytest.raises(Permanent, match="something else by now"):
        pieces.queue.holds.release(STUDY, "compared", BY, looked_at.shown)
    [one, other] = pieces.queue.holds.open(10)
    assert one.shown == other.shown, "both are released at once"
    assert pieces.queue.holds.release(STUDY, "compared", BY, one.shown) == 4
    pieces.run(3)
    assert pieces.left() == []


def test_another_instance_is_another_matter(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", EDITED)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    for name, data in (("2A", content(2)), ("2B", content(2, PatientComments="x")), ("1B", EDITED)):
        put(pieces, name, data)
    pieces.run(3)
    assert sorted(path.name for path in pieces.left()) == ["2A", "2B"]


def test_a_version_that_another_site_has_archived(pieces: Pieces, tmp_path: Path) -> None:
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    put(other, "A", FIRST)
    other.run()
    other.close()
    put(pieces, "B", OTHER_PIXELS)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["B"]


def _archive_elsewhere(pieces: Pieces, root: Path, data: bytes) -> None:
    other = Pieces(root, store=pieces.memory, catalogue=pieces.catalogue, clock=pieces.clock)
    put(other, "there", data)
    other.run(3)
    assert [path.name for path in other.left()] == ["there"]
    other.close()


def test_a_version_that_another_site_archives_before_the_catalogue_is_read(pieces: Pieces, tmp_path: Path) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "other", content(2))
    pieces.settle()
    with at(pieces.catalogue, "put", lambda: _archive_elsewhere(pieces, tmp_path / "other", EDITED), after=True):
        pieces.ship()
    assert pieces.states() == {"A": "kept:held"}


def test_a_version_that_another_site_archives_during_a_long_deletion(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "PAGE", 1)
    for number in (1, 2):
        put(pieces, f"{number}", content(number))
    pieces.settle()

    left: list[str] = []

    def elsewhere() -> None:
        left.extend(path.name for path in pieces.left())
        _archive_elsewhere(pieces, tmp_path / "other", content(int(left[0]), PatientComments="x"))
        pieces.clock.advance(LIFETIME_SECONDS)

    with at(pieces.context.deletions, "purged", elsewhere, after=True):
        pieces.ship()
    pieces.run(3)
    assert len(left) == 1 and pieces.states() == {left[0]: "kept:held"}


def test_one_whose_archived_version_cannot_be_read_is_kept(pieces: Pieces) -> None:
    """Nobody can tell what it is to the other."""
    put(pieces, "A", FIRST)
    pieces.run()
    [first] = pieces.manifest(STUDY).instances
    pieces.memory.overwrite(first.key, b"something else")
    put(pieces, "B", REWRITTEN)
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["B"]
    assert grades(pieces) == [Grade.CONFLICT]


@pytest.mark.parametrize("refusal", [ArchiveRefused, CredentialsRefused, EncryptionKeyUnusable])
def test_one_whose_archived_version_the_store_does_not_give_is_kept(
    pieces: Pieces, refusal: type[DicomwatchdError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted with a key of its own, or another account's: no trouble with the whole archive, which stopped the
    daemon at each start."""
    put(pieces, "A", FIRST)
    pieces.run()
    [first] = pieces.manifest(STUDY).instances
    read = pieces.memory.read

    def refusing(key: str, *what: Any, **how: Any) -> Iterator[Any]:
        if key == first.key:
            raise refusal("no")
        yield from read(key, *what, **how)

    monkeypatch.setattr(pieces.memory, "read", refusing)
    put(pieces, "B", REWRITTEN)
    put(pieces, "other", content(2))
    pieces.run(3)
    assert pieces.fatal is None
    assert pieces.states() == {"B": "kept:held"} and grades(pieces) == [Grade.CONFLICT]


def test_of_an_object_no_more_is_read_than_is_recorded(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has put terabytes in its place."""
    put(pieces, "A", FIRST)
    pieces.run()
    [first] = pieces.manifest(STUDY).instances
    read, taken = pieces.memory.read, 0

    def counting(key: str, *what: Any, **how: Any) -> Iterator[Any]:
        nonlocal taken
        for chunk in read(key, *what, **how):
            taken += len(chunk) if key == first.key else 0
            yield chunk

    monkeypatch.setattr(pieces.memory, "read", counting)
    pieces.memory.overwrite(first.key, EDITED + bytes(1 << 20))
    put(pieces, "B", REWRITTEN)
    pieces.run(3)
    assert pieces.states() == {"B": "kept:held"} and grades(pieces) == [Grade.CONFLICT]
    assert 0 < taken <= 4 * len(FIRST)


def test_an_object_with_other_bytes_speaks_for_nothing(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    pieces.run()
    [first] = pieces.manifest(STUDY).instances
    other = content(StudyDescription="Belly")
    assert len(other) == len(FIRST), "so much is read back"
    pieces.memory.overwrite(first.key, other)
    put(pieces, "B", content(StudyDescription="Belly", syntax=IMPLICIT))
    pieces.run(3)
    assert [path.name for path in pieces.left()] == ["B"] and grades(pieces) == [Grade.CONFLICT]


def test_two_that_nobody_can_read_are_not_the_same(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", EDITED)
    pieces.run(3)
    manifest = pieces.manifest(STUDY)
    nothing = DataSetDigest("", "")
    for data_sets in ({}, {item.sha256: nothing for item in manifest.instances}):
        [one] = replace(manifest, data_sets=data_sets).variants
        assert one.grade is Grade.CONFLICT and one.data_sets == one.sha256s


def test_a_manifest_of_an_earlier_version_is_compared_when_the_study_comes_again(pieces: Pieces) -> None:
    manifest = Manifest.from_bytes(_without_digests(pieces))
    assert manifest.variants[0].grade is Grade.CONFLICT and not manifest.data_sets
    put(pieces, "A again", FIRST)
    pieces.run(3)
    assert grades(pieces) == [Grade.SAME_DATA_SET] and pieces.left() == []
    assert pieces.manifest(STUDY).revision == 2


def _without_digests(pieces: Pieces) -> bytes:
    put(pieces, "A", FIRST)
    put(pieces, "B", REWRITTEN)
    pieces.run(3)
    manifest = pieces.manifest(STUDY)
    old = replace(manifest, data_sets={})
    pieces.memory.versions[manifest.key] = [old.to_bytes()]
    pieces.catalogue.put(old.record())
    return old.to_bytes()


def test_what_is_kept_by_its_rule_says_that_it_is_held(tmp_path: Path) -> None:
    """Whoever uploaded the folder must not take it for deletable."""
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    put(pieces, "A", FIRST)
    put(pieces, "other", content(2))
    pieces.run(3)
    assert pieces.states() == {"A": "kept", "other": "kept"}
    put(pieces, "B", EDITED)
    pieces.run(3)
    assert pieces.states() == {"A": "kept:held", "B": "kept:held", "other": "kept"}
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    assert pieces.states() == {"A": "kept", "B": "kept", "other": "kept"}
    pieces.close()


def test_damaged_copies_are_no_versions(pieces: Pieces) -> None:
    put(pieces, "cut", FIRST[:-7])
    put(pieces, "A", FIRST)
    pieces.run(3)
    assert pieces.left() == [] and grades(pieces) == []


@pytest.mark.parametrize("delete", [True, False])
def test_a_damaged_file_of_another_instance_is_not_held(tmp_path: Path, delete: bool) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=delete))
    for name, data in (("A", FIRST), ("B", EDITED), ("cut", content(2)[:-7])):
        put(pieces, name, data)
    pieces.run(3)
    assert pieces.states() == {"A": "kept:held", "B": "kept:held", "cut": "kept:damaged"}
    put(pieces, "whole", content(2))
    pieces.run(3)
    left = {} if delete else {"cut": "kept", "whole": "kept"}
    assert pieces.states() == {"A": "kept:held", "B": "kept:held", **left}
    pieces.close()


def test_a_damaged_file_of_an_instance_with_several_versions_is_held(pieces: Pieces) -> None:
    put(pieces, "cut", FIRST[:-7])
    pieces.run(3)
    assert pieces.states() == {"cut": "kept:damaged"}
    put(pieces, "A", FIRST)
    put(pieces, "B", EDITED)
    pieces.run(3)
    assert pieces.states() == {"A": "kept:held", "B": "kept:held", "cut": "kept:held"}
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    assert pieces.left() == []


def test_two_patients_and_two_versions_are_both_told(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", content(PatientID="P2", PatientName="ROE^JOHN"))
    pieces.run(3)
    assert {hold.code for hold in pieces.queue.holds.open(10)} == {"two-patients", "other-versions"}
    assert pieces.queue.holds.count() == 1
    assert pieces.queue.holds.release(STUDY, "compared", BY) == 2
    pieces.run(3)
    assert pieces.left() == []
    with pytest.raises(Permanent):
        pieces.queue.holds.release(STUDY, "again", BY)


def test_more_instances_than_are_named_are_held_all_the_same(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LIMIT", 2)
    for number in range(1, 5):
        put(pieces, f"A{number}", content(number))
        put(pieces, f"B{number}", content(number, PatientComments="x"))
    pieces.run(3)
    assert len(pieces.left()) == 8
    [hold] = pieces.queue.holds.open(10)
    assert len(hold.found) == 3 and _hold_document(hold)["instances_total"] == 4
    pieces.queue.holds.release(STUDY, "compared", BY)
    pieces.run(3)
    assert pieces.left() == []
    put(pieces, "A5", content(5))
    put(pieces, "B5", content(5, PatientComments="x"))
    pieces.run(3)
    assert sorted(path.name for path in pieces.left()) == ["A5", "B5"]


def test_objects_without_pixels_are_corrected_by_a_conflict(pieces: Pieces) -> None:
    """Nothing tells which part of a report is its content."""

    def report(text: str) -> bytes:
        item = Dataset()
        item.ValueType, item.TextValue = "TEXT", text
        return content(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None, Rows=None, Columns=None, ContentSequence=[item]
        )

    put(pieces, "A", report("nothing found"))
    put(pieces, "B", report("something found"))
    pieces.run(3)
    assert len(pieces.left()) == 2 and grades(pieces) == [Grade.CONFLICT]


def test_digests_are_kept_by_every_revision_and_read_back_once(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", REWRITTEN)
    pieces.run(3)
    before = pieces.manifest(STUDY).data_sets
    with at(pieces.context.archive.store, "read", lambda: pytest.fail("read back again")):
        put(pieces, "other", content(2))
        pieces.settle()
    pieces.run(3)
    assert pieces.manifest(STUDY).revision == 2 and pieces.manifest(STUDY).data_sets == before


def test_a_manifest_with_other_digests_is_none(pieces: Pieces) -> None:
    put(pieces, "A", FIRST)
    put(pieces, "B", REWRITTEN)
    pieces.run(3)
    manifest = pieces.manifest(STUDY)
    for digest in (DataSetDigest("f", ""), DataSetDigest("", "F" * 64)):
        bad = replace(manifest, data_sets={"0" * 64: digest})
        with pytest.raises(BadManifest):
            Manifest.from_bytes(bad.to_bytes())
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("delete", [True, False])
def test_an_upload_says_that_they_are_held(pieces: Pieces, tmp_path: Path, delete: bool) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    for name, data in (("A", FIRST), ("B", EDITED), ("other", content(2))):
        (folder / name).write_bytes(data)
    result = Handed(pieces, folder, delete=delete).go()
    assert not result["deletable"] and result["held"] == 2
    assert sorted(path.name for path in folder.iterdir()) == (["A", "B"] if delete else ["A", "B", "other"])
    assert "attention" in "\n".join(sentences(result, delete=delete))


def test_show_names_the_instances_with_several_versions(pieces: Pieces) -> None:
    for name, data in (("A", FIRST), ("B", EDITED), ("2A", content(2)), ("2B", content(2, syntax=IMPLICIT))):
        put(pieces, name, data)
    pieces.run(3)
    found = OtherVersions.of(pieces.manifest(STUDY))
    assert found.document() == {
        "instances": [{"sop_instance_uid": f"{STUDY}.1.1", "grade": "correction", "versions": 2}],
        "number": 1,
        "same_data_set": 1,
    }
    assert list(found.rows()) == [
        ("Versions", "1 instance has several versions:"),
        ("", f"{STUDY}.1.1: 2, other attributes, the same pixels"),
    ]
