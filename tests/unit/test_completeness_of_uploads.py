"""What an upload says at its end of whether its studies are complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.upload_text import sentences
from tests import schemas
from tests.pieces import Pieces
from tests.unit.dicomfiles import data_set, encode
from tests.unit.uploading import Handed, put

MISSING = "one slice is missing between slices at equal distances"


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cd"
    folder.mkdir()
    return folder


def series(study: str, without: int = 0) -> dict[str, bytes]:
    return {
        f"{study}/IM{number}": encode(
            data_set(
                StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.1",
                SOPInstanceUID=f"{study}.1.{number}",
                InstanceNumber=str(number),
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[0, 0, 3 * number],
            )
        )
        for number in range(1, 11)
        if number != without
    }


def check(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    schemas.check_output(("upload", "x", "--json"), text, 0)
    schemas.check_output(("upload", "show", "x", "--json"), text, 0)


@pytest.mark.parametrize("delete", [False, True])
def test_what_is_missing_is_named_and_nothing_hangs_on_it(delete: bool, pieces: Pieces, folder: Path) -> None:
    put(folder, {**series("1.2.1"), **series("1.2.2", without=4)})
    result = Handed(pieces, folder, delete=delete).go()
    check(result)
    assert result["complete"] and result["deletable"]
    assert result["deleted"] == (19 if delete else 0)
    assert result["studies"] == {
        "complete": 0,
        "no_sign_of_a_gap": 1,
        "gaps": 1,
        "not_known": 0,
        "with_gaps": [{"study_uid": "1.2.2", "missing": [MISSING]}],
    }
    said = sentences(result, delete=delete)
    assert any(line.startswith("Images of 1 of the 2 studies are missing") for line in said)
    assert f"  1.2.2: {MISSING}" in said
    with pieces.queue.uploads._database.read() as db:
        assert db.execute("SELECT * FROM upload_studies").fetchall() == [], "no longer than the upload runs"


def test_no_sign_of_a_gap(pieces: Pieces, folder: Path) -> None:
    put(folder, series("1.2.1"))
    result = Handed(pieces, folder).go()
    check(result)
    assert "There is no sign that images of the study are missing." in sentences(result, delete=False)


def test_what_is_missing_in_the_folder_and_not_in_the_archive(pieces: Pieces, folder: Path) -> None:
    put(folder, series("1.2.1"))
    Handed(pieces, folder).go()
    (folder / "1.2.1" / "IM4").unlink()
    result = Handed(pieces, folder).go()
    assert result["studies"]["no_sign_of_a_gap"] == 1


@pytest.mark.parametrize(
    ("studies", "said"),
    [
        (None, []),
        ({"complete": 1}, ["Every series of the study has all the images that it says it consists of."]),
        ({"complete": 2, "no_sign_of_a_gap": 1}, ["There is no sign that images of the 3 studies are missing."]),
        (
            {"not_known": 1},
            ["It is not known whether images of the study are missing; dicomwatchctl show STUDY says why."],
        ),
        (
            {"not_known": 2, "complete": 1},
            ["It is not known whether images of 2 of the 3 studies are missing; dicomwatchctl show STUDY says why."],
        ),
        (
            {"gaps": 7, "with_gaps": [{"study_uid": f"1.{n}", "missing": ["a", "b"]} for n in range(7)]},
            [
                "Images of the 7 studies are missing in the archive, and were not in the folder. Ask whoever made the"
                " folder or disc for them:",
                *(f"  1.{n}: a; b" for n in range(5)),
                "  ... and 2 more; --json lists up to 100",
            ],
        ),
    ],
)
def test_sentences(studies: dict[str, Any] | None, said: list[str]) -> None:
    result: dict[str, Any] = {
        "done": True,
        "complete": True,
        "outcome": "finished",
        "files": 3,
        "verified": 3,
        "ignored": 0,
        "failed": [],
        "failed_files": 0,
        "studies": studies,
    }
    assert sentences(result, delete=False)[1:] == said


def test_of_a_folder_of_which_something_failed_only_gaps_are_told() -> None:
    failed = [{"name": "IM1", "reason": "damaged"}]
    result: dict[str, Any] = {"done": True, "outcome": "finished", "files": 3, "verified": 2, "failed": failed}
    for studies in ({"complete": 1}, {"no_sign_of_a_gap": 1}, {"not_known": 1}):
        assert not any("study" in line for line in sentences({**result, "studies": studies}, delete=False))
    gaps = {"gaps": 1, "with_gaps": [{"study_uid": "1.2", "missing": ["one slice is missing"]}]}
    said = sentences({**result, "studies": gaps}, delete=False)
    assert "Images of the study are missing in the archive. Ask whoever made the folder or disc for them:" in said
