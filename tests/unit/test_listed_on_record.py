"""What a DICOMDIR in an inbox lists is on record: in the state for as long as the DICOMDIR is there, and in the
manifest for good, as evidence of whether the study is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.layout import listed as layout
from dicomwatchd.archive.layout.listed import missing_uids
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import BadManifest
from dicomwatchd.model import Uid
from dicomwatchd.queue import dicomdirs
from dicomwatchd.study_completeness import OfDicomdir, SeriesContent, judged
from tests.discs import export
from tests.pieces import Pieces
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def test_one_that_an_earlier_version_has_passed_over_is_looked_at_again(pieces: Pieces) -> None:
    export(pieces)
    pieces.run(3)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET code = 'dicomdir-before' WHERE code = 'dicomdir'")
    pieces.settle()
    assert pieces.states() == {"DICOMDIR": "ignored:dicomdir"}


def on_record(pieces: Pieces) -> dict[str, list[str]]:
    """By study, what all DICOMDIRs list, each separately."""
    with pieces.queue._database.read() as db:
        rows = db.execute("SELECT study_uid, images, uids FROM listed ORDER BY study_uid, list_id").fetchall()
        counted = db.execute("SELECT COALESCE(SUM(images), 0) FROM listed_counts").fetchone()[0]
    assert counted == sum(row["images"] for row in rows)
    found: dict[str, list[str]] = {}
    for row in rows:
        assert row["images"] == len(row["uids"].split())
        found.setdefault(row["study_uid"], []).append(row["uids"])
    return found


def listed(made: list[Made]) -> dict[str, list[str]]:
    by_study: dict[str, list[str]] = {}
    for one in made[:-1]:
        by_study.setdefault(one.study_uid, []).append(one.sop_instance_uid)
    return {study: [" ".join(sorted(uids))] for study, uids in by_study.items()}


def test_what_it_lists_by_study(pieces: Pieces) -> None:
    made = export(pieces, studies=2)
    pieces.settle()
    assert on_record(pieces) == listed(made)
    [one] = pieces.queue.dicomdirs.of_study(made[0].study_uid)
    assert one.uids == set(listed(made)[made[0].study_uid][0].split()) and one.lacking is None
    assert one.sha256 == made[-1].sha256


def test_it_goes_with_the_dicomdir_and_a_changed_one_is_read_again(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.settle()
    other = export(pieces, slices=5, folder="CD2")
    (pieces.inbox / "CD" / "DICOMDIR").write_bytes(other[-1].path.read_bytes())
    pieces.settle()
    assert on_record(pieces) == {made[0].study_uid: listed(other)[made[0].study_uid] * 2}
    (pieces.inbox / "CD" / "DICOMDIR").unlink()
    pieces.settle()
    assert on_record(pieces) == listed(other)
    (pieces.inbox / "CD2" / "DICOMDIR").unlink()
    pieces.settle()
    assert on_record(pieces) == {}


def test_it_speaks_for_its_folder_and_what_is_below(pieces: Pieces) -> None:
    made = export(pieces, folder="A/CD")
    study = made[0].study_uid
    pieces.settle()
    assert len(pieces.queue.dicomdirs.of_study(study)) == 1
    for folder, speaks in (("A", 2), ("A/CD/PT000000/ST000000", 2), ("B", 1), ("A/C", 1)):
        place = pieces.inbox / folder
        place.mkdir(exist_ok=True)
        (place / "DICOMDIR").write_bytes(made[-1].path.read_bytes())
        pieces.settle()
        assert len(pieces.queue.dicomdirs.of_study(study)) == speaks, folder
        (place / "DICOMDIR").unlink()
        pieces.settle()


def test_one_that_cannot_be_read_lists_nothing_and_says_so(pieces: Pieces) -> None:
    made = export(pieces)
    content = made[-1].path.read_bytes()
    made[-1].path.write_bytes(content[: len(content) // 2])
    pieces.settle()
    assert on_record(pieces) == {} and pieces.states()["DICOMDIR"] == "ignored:dicomdir"
    with pieces.queue._database.read() as db:
        [reason] = db.execute("SELECT reason FROM files WHERE code = 'dicomdir'").fetchone()
    assert reason.endswith("what it lists cannot be read: it is cut off")


def test_of_one_source_no_more_is_on_record_than_a_limit(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomdirs, "LIMIT_IMAGES_OF_SOURCE", 5)
    made = export(pieces)
    pieces.settle()
    other = export(pieces, folder="CD2")
    pieces.settle()
    assert on_record(pieces) == listed(made)
    made[-1].path.unlink()
    other[-1].path.touch()
    pieces.settle()
    assert on_record(pieces) == listed(other), "there is room again"


def test_a_study_that_is_pruned_takes_its_list_along(pieces: Pieces) -> None:
    export(pieces)
    pieces.run()
    assert on_record(pieces)
    pieces.clock.advance(31 * 86400)
    while pieces.queue.pruning.step():
        pass
    assert on_record(pieces) == {} and pieces.states() == {"DICOMDIR": "ignored:dicomdir"}


def test_what_is_archived_is_put_down_and_holds_for_this_archive(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.settle()
    study, lists = made[0].study_uid, pieces.queue.dicomdirs
    lists.archived(study, [made[0].sop_instance_uid, "1.2.3"])
    [one] = lists.of_study(study)
    assert one.missing({made[1].sop_instance_uid}) == {made[2].sop_instance_uid}
    pieces.queue.binding.bind("another", "elsewhere")
    [one] = lists.of_study(study)
    assert one.lacking is None and one.missing(()) == one.uids


def signs_of(pieces: Pieces, made: list[Made]) -> tuple[str, list[tuple[str, int]], list[str]]:
    found = pieces.manifest(made[0].study_uid).completeness
    assert found is not None
    record = pieces.catalogue.get(Uid(made[0].study_uid))
    assert record is not None and record.completeness == found
    assert ("gaps" in record.flags) == bool(found.gaps)
    return (
        str(found.answer),
        [(one.code, one.missing) for one in found.gaps],
        [one.text for one in found.evidence],
    )


def test_a_list_that_is_whole_proves_the_study_complete(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    assert signs_of(pieces, made) == ("complete", [], ["a DICOMDIR lists 3 images, and nothing of it is missing"])
    manifest = pieces.manifest(made[0].study_uid)
    assert manifest.listed == {made[-1].sha256: {"images": 3, "missing": "", "more": 0}}
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_what_is_missing_is_a_gap_until_it_has_come(pieces: Pieces) -> None:
    """By whatever way it comes, and when the DICOMDIR is gone."""
    made = export(pieces)
    content = made[1].path.read_bytes()
    made[1].path.unlink()
    pieces.run()
    answer, gaps, _ = signs_of(pieces, made)
    assert (answer, gaps) == ("gaps", [("dicomdir", 1)])
    assert missing_uids(pieces.manifest(made[0].study_uid).listed) == [made[1].sop_instance_uid]
    made[-1].path.unlink()
    (pieces.inbox / "LATE").write_bytes(content)
    pieces.run()
    assert signs_of(pieces, made)[:2] == ("complete", [])
    assert pieces.manifest(made[0].study_uid).revision == 2


def test_a_list_of_a_part_says_nothing_of_the_rest(pieces: Pieces) -> None:
    made = export(pieces)
    for number, one in enumerate(Maker(seed=3).ct_series(pieces.root / "more", slices=3, first=4)):
        shutil.copy(one.path, made[0].path.parent / f"MORE{number}")
    pieces.run()
    answer, gaps, evidence = signs_of(pieces, made)
    assert (answer, gaps) == ("no sign of a gap", [])
    assert evidence == ["a DICOMDIR lists 3 images, and nothing of it is missing"]


def test_of_very_many_missing_the_first_are_named_and_the_others_counted(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LIMIT_MISSING", 1)
    made = export(pieces, slices=4)
    contents = {one.path: one.path.read_bytes() for one in made[1:-1]}
    for path in contents:
        path.unlink()
    pieces.run()
    assert signs_of(pieces, made)[1] == [("dicomdir", 3)]
    [one] = pieces.manifest(made[0].study_uid).listed.values()
    assert (len(one["missing"].split()), one["more"]) == (1, 2)
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pieces.run()
    assert signs_of(pieces, made)[:2] == ("complete", []), "the DICOMDIR is still there, and names all of them"


def test_a_program_that_does_not_know_of_lists_loses_the_list_and_nothing_else(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    raw = json.loads(pieces.manifest(made[0].study_uid).to_bytes())
    del raw["listed"], raw["completeness"]
    old = Manifest.from_bytes(json.dumps(raw).encode())
    assert old.listed == {} and len(old.instances) == 3
    told: dict[str, Any] = {"attributes": {}, "series": {}, "flags": (), "damaged_keys": ()}
    again = old.merged([], created_at="t", created_by="c", listed={"a" * 64: {"1.2.3"}}, **told)
    assert again.completeness is not None and [one.code for one in again.completeness.gaps] == ["dicomdir"]


@pytest.mark.parametrize(
    "listed",
    [
        [],
        {"x": {"images": 1, "missing": "", "more": 0}},
        {"a" * 64: {"images": 0, "missing": "", "more": 0}},
        {"a" * 64: {"images": 1, "missing": "1.2 1.3", "more": 0}},
        {"a" * 64: {"images": 1, "missing": "../..", "more": 0}},
        {"a" * 64: {"images": 1, "missing": "", "more": -1}},
        {"a" * 64: {"images": 1, "missing": ""}},
        {"a" * 64: {"images": True, "missing": "", "more": 0}},
        {f"{number:064}": {"images": 1, "missing": "", "more": 0} for number in range(33)},
    ],
)
def test_what_is_no_list_is_no_manifest(pieces: Pieces, listed: object) -> None:
    made = export(pieces)
    pieces.run()
    raw = json.loads(pieces.manifest(made[0].study_uid).to_bytes())
    raw["listed"] = listed
    with pytest.raises(BadManifest):
        Manifest.from_bytes(json.dumps(raw).encode())


def test_keys_of_a_newer_program_are_passed_over(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    raw = json.loads(pieces.manifest(made[0].study_uid).to_bytes())
    for one in raw["listed"].values():
        one["newer"] = 1
    assert Manifest.from_bytes(json.dumps(raw).encode()).listed == pieces.manifest(made[0].study_uid).listed


def one_series(number: int, sop_class: str = "1.2.840.10008.5.1.4.1.1.2") -> SeriesContent:
    return SeriesContent({sop_class: [f"1.2.{at}" for at in range(number)]})


@pytest.mark.parametrize(
    ("listed", "answer"),
    [
        ([], "not known"),
        ([OfDicomdir(5, 0)], "complete"),
        ([OfDicomdir(6, 0)], "complete"),
        ([OfDicomdir(4, 0)], "not known"),
        ([OfDicomdir(5, 1)], "gaps"),
        ([OfDicomdir(5, 0), OfDicomdir(9, 4)], "gaps"),
        ([OfDicomdir(5, 0), OfDicomdir(2, 0)], "complete"),
    ],
)
def test_a_dicomdir_outweighs_signs_and_a_report_is_no_image(listed: list[OfDicomdir], answer: str) -> None:
    """Of one series an earlier version has recorded an instance, and the other is a report that came later."""
    content = {"1.1": one_series(5), "1.2": one_series(1, "1.2.840.10008.5.1.4.1.1.88.11")}
    assert judged(content, {}, listed).answer == answer
