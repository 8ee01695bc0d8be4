"""A patient's CD or stick: what is no image is left alone, and the medium's own list (DICOMDIR) says what is
missing."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.errors import Permanent
from dicomwatchd.intake import listed
from dicomwatchd.intake.dicom import other
from dicomwatchd.intake.final_scan import UNOPENED
from dicomwatchd.intake.listed import DAMAGED, MISSING
from dicomwatchd.upload_text import all_verified, as_of_now, sentences
from tests import schemas
from tests.pieces import Pieces
from tests.synthetic import Made, Maker
from tests.unit.uploading import Handed, named

OTHERS = 11
NOISE = random.Random(1).randbytes(3000)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path / "site")
    yield pieces
    pieces.close()


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Made]]:
    """Two studies, as a CD has them; the DICOMDIR last."""
    maker, root = Maker(seed=20), tmp_path_factory.mktemp("pressed")
    files = maker.mr_study(root / "MR", series=2, slices=2) + maker.ct_series(root / "CT", slices=3)
    return root / "cd", maker.disc(root / "cd", files)


@pytest.fixture
def made(tmp_path: Path, pressed: tuple[Path, list[Made]]) -> list[Made]:
    master, files = pressed
    shutil.copytree(master, tmp_path / "cd")
    return [replace(one, path=tmp_path / "cd" / one.path.relative_to(master)) for one in files]


@pytest.fixture
def disc(tmp_path: Path, made: list[Made]) -> Path:
    return tmp_path / "cd"


def go(pieces: Pieces, folder: Path, *, delete: bool = False) -> dict[str, Any]:
    result = Handed(pieces, folder, delete=delete).go()
    schemas.check("upload", json.loads(json.dumps(result)))
    return result


def said(result: dict[str, Any], *, delete: bool = False) -> str:
    return "\n".join(sentences(result, delete=delete))


def test_a_patients_cd_is_archived_and_what_is_no_image_is_left_alone(pieces: Pieces, disc: Path) -> None:
    before = {path: path.read_bytes() for path in disc.rglob("*") if path.is_file()}
    result = go(pieces, disc)
    assert all_verified(result) and result["complete"] and result["images_deletable"]
    assert not result["deletable"], "the folder holds more than the archive does"
    assert (result["verified"], result["not_dicom"], result["ignored"]) == (7, OTHERS, OTHERS + 1)
    assert result["dicomdir"] == {
        "files": 1,
        "unreadable": 0,
        "images": 7,
        "studies": 2,
        "archived": 7,
        "archived_before": 0,
        "missing": 0,
    }
    text = said(result)
    assert "All 7 images of 2 studies are verified in the archive, as the disc's own list (DICOMDIR) has them." in text
    assert "11 other files are not DICOM" in text and "they are not in the archive" in text
    assert "the local copies of the archived files may now be deleted" in text
    assert {path: path.read_bytes() for path in disc.rglob("*") if path.is_file()} == before
    later = as_of_now({**result, "ended_at": "2026-01-01T00:00:00.000Z"})
    assert not later["images_deletable"] and "may now" not in said(later)


def test_the_list_of_the_disc_is_archived_with_its_studies(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    result = go(pieces, disc, delete=True)
    assert result["studies"]["complete"] == 2, "its list proves it"
    for study in {one.study_uid for one in made[:-1]}:
        [one] = pieces.manifest(study).exports
        assert (one.sha256, one.original_path, one.inbox) == (made[-1].sha256, "DICOMDIR", "upload")
        assert b"".join(pieces.store.read(one.key)) == (disc / "DICOMDIR").read_bytes()
    assert "The DICOMDIR, which only lists the other files, is still there." in said(result, delete=True)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs

    def of_a_cd(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[8] |= os.ST_RDONLY
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "fstatvfs", of_a_cd)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_medium_is_called_one_and_nothing_is_tried_on_it(pieces: Pieces, disc: Path) -> None:
    result = go(pieces, disc)
    assert all_verified(result) and result["read_only"]
    assert "The medium is read-only: nothing on it was changed or deleted. It is no longer needed" in said(result)
    with pytest.raises(Permanent, match="read-only, so nothing on it can be deleted") as refused:
        Handed(pieces, disc, delete=True)
    assert "omit --delete" in str(refused.value.hint)


def test_what_is_no_image_is_never_deleted(pieces: Pieces, disc: Path) -> None:
    result = go(pieces, disc, delete=True)
    assert all_verified(result) and result["deleted"] == 7
    left = [path for path in disc.rglob("*") if path.is_file()]
    assert len(left) == OTHERS + 1 and disc / "DICOMDIR" in left
    assert result["dicomdir"]["archived"] == result["dicomdir"]["archived_before"] == 7, "the archive was asked"
    assert "left alone" in said(result, delete=True)


def test_an_image_that_is_listed_and_not_there_is_named(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    gone = made[2].path
    gone.unlink()
    result = go(pieces, disc)
    assert not all_verified(result) and not result["complete"] and not result["images_deletable"]
    assert named(result) == {str(gone.relative_to(disc)): MISSING}
    assert (result["dicomdir"]["missing"], result["dicomdir"]["archived"], result["failed_files"]) == (1, 6, 1)
    assert "Of the 7 images of 2 studies on the disc's own list (DICOMDIR), 1 is missing" in said(result)
    log = json.dumps(list(pieces.log.entries), default=str)
    assert gone.name not in log and "PT000000" not in log


def test_an_image_that_was_archived_before_is_not_missing(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    assert go(pieces, disc)["complete"]
    made[2].path.unlink()
    result = go(pieces, disc)
    assert all_verified(result) and result["dicomdir"]["archived_before"] == 1
    assert "All 6 files are verified in the archive. Of the 7 images" in said(result)
    assert "1 is no longer in the folder, and already in the archive" in said(result)


def test_an_archive_that_cannot_say_counts_as_not_having_it(
    pieces: Pieces, disc: Path, made: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomwatchd.archive.layout import lineage
    from dicomwatchd.errors import Transient

    def fails(*_: object, **__: object) -> Any:
        raise Transient("no")

    assert go(pieces, disc)["complete"]
    made[2].path.unlink()
    monkeypatch.setattr(lineage, "current", fails)
    assert go(pieces, disc)["dicomdir"]["missing"] == 1


@pytest.mark.parametrize(
    "content",
    [b"", bytes(100), bytes(5000), NOISE, b"\xff\xd8\xff" + bytes(3000), b"x"],
    ids=["empty", "short", "zeros", "noise", "picture", "text"],
)
def test_a_damaged_image_is_never_left_alone(content: bytes, pieces: Pieces, disc: Path, made: list[Made]) -> None:
    """Whatever has become of it, a listed file that is no DICOM is a failure."""
    made[1].path.write_bytes(content)
    result = go(pieces, disc)
    assert not all_verified(result) and list(named(result)) == [str(made[1].path.relative_to(disc))]
    assert result["dicomdir"]["archived"] == 6 and result["dicomdir"]["missing"] == 0


def test_a_listed_picture_is_called_damaged(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    made[1].path.write_bytes(b"\xff\xd8\xff" + bytes(3000))
    assert set(named(go(pieces, disc)).values()) == {DAMAGED}


def test_a_truncated_image_is_a_failure_and_named_once(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    made[1].path.write_bytes(made[1].path.read_bytes()[:-10])
    result = go(pieces, disc)
    assert result["failed_files"] == 1 and len(named(result)) == 1
    assert (result["dicomdir"]["archived"], result["dicomdir"]["missing"]) == (6, 0)
    made[1].path.unlink()
    result = go(pieces, disc)
    assert result["dicomdir"]["missing"] == 1, "the archive has it damaged only"


@pytest.mark.parametrize("how", ["lower", "version", "dots", "elsewhere"])
def test_names_as_other_systems_show_them(how: str, pieces: Pieces, disc: Path, made: list[Made]) -> None:
    """By their UIDs the images are found wherever they are; by their paths, what is damaged."""
    ways: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "version": lambda name: name + ";1",
        "dots": lambda name: name + ".",
        "elsewhere": lambda name: "OTHER" + name,
    }
    renamed = ways[how]
    for one in made[:-1]:
        one.path.rename(one.path.with_name(renamed(one.path.name)))
    damaged = made[0].path.with_name(renamed(made[0].path.name))
    result = go(pieces, disc)
    assert all_verified(result) and result["dicomdir"]["archived"] == 7
    damaged.write_bytes(b"\xff\xd8\xff" + bytes(3000))
    assert go(pieces, disc)["complete"], "it was archived before"
    assert listed._plain(b"A/im1.;1") == b"A/IM1"


def test_several_lists_in_a_tree(pieces: Pieces, disc: Path, made: list[Made], tmp_path: Path) -> None:
    """What two of them list is one image; file IDs go from the list's own folder."""
    shutil.copytree(disc, tmp_path / "stick" / "CD1")
    shutil.copytree(disc, tmp_path / "stick" / "CD2")
    for one in made[:3]:
        (tmp_path / "stick" / "CD1" / one.path.relative_to(disc)).unlink()
    result = go(pieces, tmp_path / "stick")
    assert all_verified(result)
    assert (result["dicomdir"]["files"], result["dicomdir"]["images"], result["dicomdir"]["missing"]) == (2, 7, 0)
    assert "among them the 7 images" in said(result) and "All 11 files" in said(result)


@pytest.mark.parametrize("damage", ["cut", "cut early", "zeros", "text", "empty", "noise"])
def test_a_list_that_cannot_be_read_is_said_and_fails_no_image(damage: str, pieces: Pieces, disc: Path) -> None:
    table = disc / "DICOMDIR"
    whole = table.read_bytes()
    table.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "cut early": whole[:140],
            "zeros": whole[:1000] + bytes(len(whole) - 1000),
            "text": b"no list",
            "empty": b"",
            "noise": NOISE,
        }[damage]
    )
    result = go(pieces, disc)
    assert all_verified(result) and result["dicomdir"]["unreadable"] == 1
    assert "The DICOMDIR could not be read, so it was not checked whether an image is missing" in said(result)
    assert "All 7 files are verified" in said(result)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("STUDY.ZIP", b"PK\x03\x04"),
        ("a.tgz", b"\x1f\x8b"),
        ("DISC.ISO", bytes(32769) + b"CD001"),
        ("x", b"7z\xbc\xaf\x27\x1c"),
    ],
    ids=["zip", "gzip", "iso", "7z"],
)
def test_what_may_hold_images_is_named(name: str, head: bytes, pieces: Pieces, disc: Path) -> None:
    """On a disc whose own list is archived in full it is said; without such a list it is a failure."""
    (disc / "VIEWER" / name).write_bytes(head + bytes(3000))
    result = go(pieces, disc)
    assert all_verified(result) and result["not_opened"] == [f"VIEWER/{name}"]
    assert f"VIEWER/{name}" in said(result)
    (disc / "DICOMDIR").unlink()
    result = go(pieces, disc)
    assert not all_verified(result) and named(result) == {f"VIEWER/{name}": UNOPENED}


@pytest.mark.parametrize(
    ("name", "content", "is_failure"),  # of 2,000 and 64 zeros, of nothing, of noise ...
    [
        ("IM9", bytes(2000), True),
        ("IM9", b"", True),
        ("IM9", bytes(64), True),
        ("1.2.840.1", NOISE, True),
        ("a.dcm", b"text", True),
        ("a.DCM;1", b"", True),
        ("a.MR", bytes(2000), True),
        ("IM9", b"\xff" * 2000, True),
        ("IM9", b"U" * 2000, True),
        ("IM9", b"\x30\x82" + NOISE, True),
        ("a.xyz", b"DICM" + bytes(2000), True),
        ("a.xyz", bytes(256) + b"DICM" + bytes(2000), True),
        ("DONE", b"", False),
        ("modules", b"\xda\xda\xfe\xca" + bytes(2000), False),
        (".DS_Store", NOISE, False),
        ("viewer.dat", bytes(2000), False),
        ("LICENSE", b"You may ...", False),
        ("UTF16", "Fuer den Arzt".encode("utf-16"), False),
        ("IndexerVolumeGuid", "{76}".encode("utf-16-le"), False),
    ],
)
def test_what_is_taken_for_no_image_without_a_list(
    name: str, content: bytes, is_failure: bool, pieces: Pieces, disc: Path
) -> None:
    (disc / "DICOMDIR").unlink()
    (disc / name).write_bytes(content)
    result = go(pieces, disc)
    assert all_verified(result) != is_failure
    assert list(named(result)) == ([name] if is_failure else [])
    assert result["dicomdir"] is None


def test_an_image_without_a_preamble_is_archived(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    made[0].path.write_bytes(made[0].path.read_bytes()[132:])
    result = go(pieces, disc)
    assert all_verified(result) and result["verified"] == 7


def test_a_list_with_other_uids_than_its_files(pieces: Pieces, disc: Path, made: list[Made]) -> None:
    """As from a program that makes images anonymous and leaves the list as it was: each file is there."""
    table = disc / "DICOMDIR"
    content = table.read_bytes()
    for one in made[:-1]:
        old = one.sop_instance_uid.encode()
        content = content.replace(old, old[:-1] + (b"7" if old[-1:] != b"7" else b"8"))
    table.write_bytes(content)
    result = go(pieces, disc)
    assert all_verified(result) and result["dicomdir"]["archived"] == result["dicomdir"]["images"]


def test_an_inbox_still_holds_junk_in_quarantine(pieces: Pieces) -> None:
    (pieces.inbox / "README.TXT").write_text("no DICOM")
    pieces.scan()
    pieces.clock.advance(3)
    pieces.look()
    assert pieces.states() == {"README.TXT": "quarantined:not-dicom"}


def test_the_readme_shows_what_is_said() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = text.partition("<!-- disc -->\n```\n")[2].partition("```")[0]
    whole, short = (part.partition("\n")[2].strip() for part in block.split("$ dicomwatchctl upload")[1:])
    files = {"files": 444, "verified": 412, "ignored": 32, "not_dicom": 31, "not_opened": [], "done": True}
    tables = {"files": 1, "unreadable": 0, "images": 412, "studies": 2, "archived": 412, "missing": 0}
    good = {**files, "complete": True, "images_deletable": True, "read_only": True, "dicomdir": tables}
    good["studies"] = {"complete": 2}
    assert said(good) == whole
    failed = [
        {"name": "DICOM/IM000007", "reason": other._DAMAGED},
        {"name": "DICOM/IM000008", "reason": MISSING},
    ]
    bad = {**files, "verified": 411, "failed": failed, "dicomdir": {**tables, "images": 413, "missing": 1}}
    assert said(bad) == short
