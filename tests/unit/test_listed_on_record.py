"""What a DICOMDIR in an inbox lists is on record in the state, for as long as the DICOMDIR is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.queue import dicomdirs
from tests.pieces import Pieces
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def export(pieces: Pieces, *, studies: int = 1, slices: int = 3, folder: str = "CD") -> list[Made]:
    """What a medium of one patient has; the DICOMDIR last."""
    maker = Maker(seed=3)
    files = [
        one
        for number in range(studies)
        for one in maker.ct_series(
            pieces.root / f"made-{folder}-{number}".replace("/", "-"), slices=slices, study=number
        )
    ]
    return maker.media(pieces.inbox / folder, files)


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
