"""The image of a disc, read and unpacked: every file with its bytes, and nothing outside of the folder, whatever is in
the image."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from dicomwatchd.cli.disc import iso9660, unpacking
from dicomwatchd.cli.disc.iso9660 import SECTOR_BYTES, Contents, DiscImage, NoDiscImage
from dicomwatchd.cli.disc.unpacking import unpacked
from dicomwatchd.errors import Permanent
from tests.discs import make_image

FILES = {
    "AUTORUN.INF": b"[autorun]\r\n",
    "DICOMDIR": b"a list" * 999,
    "README": b"",
    "DICOM/PAT1/IM000001": os.urandom(5000),
    "DICOM/PAT1/IM000002": os.urandom(2048),
    "VIEWER/VIEWER.EXE": os.urandom(1),
}


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    monkeypatch.setattr(unpacking, "SPARE_BYTES", 0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(folder_of(tmp_path / "disc", FILES), tmp_path / "disc.iso")


def unpack(image: Path, **how: Any) -> dict[str, bytes]:
    with unpacked(image, how.get("in_use", lambda _: False)) as disc:
        found = {
            path.relative_to(disc.folder).as_posix(): path.read_bytes()
            for path in disc.folder.rglob("*")
            if path.is_file()
        }
        for path in (disc.folder, *disc.folder.rglob("*")):
            assert not path.is_symlink() and path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
        assert disc.folder.parent.stat().st_mode & 0o777 == 0o700
    assert not disc.folder.parent.exists(), "it goes with the command"
    return found


@pytest.mark.parametrize("how", [{}, {"joliet": True}, {"rock_ridge": True}, {"joliet": True, "rock_ridge": True}])
def test_every_file_with_its_bytes(how: dict[str, bool], tmp_path: Path) -> None:
    image = make_image(folder_of(tmp_path / "disc", FILES), tmp_path / "disc.iso", **how)
    before = image.read_bytes()
    assert unpack(image) == FILES
    assert image.read_bytes() == before


def test_an_image_with_everything_that_a_cd_has_around_its_sectors(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    raw = tmp_path / "disc.bin"
    with raw.open("wb") as file:
        for at in range(0, len(data), SECTOR_BYTES):
            file.write(bytes(16) + data[at : at + SECTOR_BYTES] + bytes(288))
    assert unpack(raw) == FILES


def test_what_only_joliet_lists_is_there_too(tmp_path: Path) -> None:
    disc = pycdlib.PyCdlib()
    disc.new(joliet=3)
    place = folder_of(tmp_path / "disc", {"a": b"both", "b": b"one"})
    disc.add_file(str(place / "a"), "/A.;1", joliet_path="/a long name")
    disc.add_file(str(place / "b"), "/B.;1", joliet_path="/b long")
    disc.rm_hard_link(iso_path="/B.;1")
    disc.write(str(tmp_path / "disc.iso"))
    assert unpack(tmp_path / "disc.iso") == {"A": b"both", "b long": b"one"}


def test_links_are_left_out(tmp_path: Path) -> None:
    disc = pycdlib.PyCdlib()
    disc.new(rock_ridge="1.09")
    disc.add_symlink("/LINK.;1", rr_symlink_name="link", rr_path="../../etc/passwd")
    disc.write(str(tmp_path / "disc.iso"))
    assert unpack(tmp_path / "disc.iso") == {}
    with unpacked(tmp_path / "disc.iso", lambda _: False) as found:
        assert found.notes == ("links on the disc (1) were left out",)


def test_every_session_of_a_disc(image: Path, tmp_path: Path) -> None:
    """The second one is behind the first, and its blocks are counted from the beginning of the image."""
    other = make_image(folder_of(tmp_path / "later", {"LATER": b"later"}), tmp_path / "later.iso").read_bytes()
    first = image.read_bytes() + bytes(300 * SECTOR_BYTES)
    shifted = bytearray(other)
    shift = len(first) // SECTOR_BYTES
    root_at = 16 * SECTOR_BYTES + 156
    root = _u32(shifted, root_at + 2)
    _shift(shifted, root_at, shift)
    at = root * SECTOR_BYTES
    while shifted[at]:
        _shift(shifted, at, shift)
        at += shifted[at]
    image.write_bytes(first + shifted)
    assert unpack(image) == {name: content for name, content in FILES.items() if content} | {"LATER": b"later"}


def _u32(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _shift(data: bytearray, at: int, blocks: int) -> None:
    data[at + 2 : at + 6] = struct.pack("<L", _u32(data, at + 2) + blocks)


@pytest.mark.parametrize("content", [b"", b"text", bytes(100_000), os.urandom(100_000)])
def test_what_is_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(content)
    with pytest.raises(NoDiscImage, match="not the image of a disc"):
        unpack(tmp_path / "x.iso")


def test_udf_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(32768) + b"\0BEA01\x01" + bytes(4000))
    with pytest.raises(NoDiscImage, match="UDF") as refused:
        unpack(tmp_path / "x.iso")
    assert "mount it" in str(refused.value.hint)


def test_udf_beside_iso_9660(tmp_path: Path) -> None:
    image = make_image(folder_of(tmp_path / "disc", FILES), tmp_path / "disc.iso", udf=True)
    with unpacked(image, lambda _: False) as found:
        assert found.notes == ("the disc image has a UDF file system, too, which was not read",)
    bare = make_image(folder_of(tmp_path / "bare", {"README.TXT": b"see UDF"}), tmp_path / "bare.iso", udf=True)
    with pytest.raises(NoDiscImage, match="in UDF only"):
        unpack(bare)


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        (b"../../ETC/X", b".._.._ETC_X"),
        (b"..", b"_"),
        (b".", b"_"),
        (b"", b"_"),
        (b"A\0B;1", b"A_B"),
        (b"A.;1", b"A"),
        (b".dicomwatchd-archive", b"_.dicomwatchd-archive"),
        (b"X" * 250, b"X" * 200),
        (b"\x1b[2J", b"_[2J"),
    ],
)
def test_names_are_made_harmless(name: bytes, becomes: bytes) -> None:
    assert iso9660._harmless(name, is_joliet=False) == becomes
    assert iso9660._harmless("/Mü;1".encode("utf-16-be"), is_joliet=True) == "_Mü".encode()


def edited(image: Path, change: Callable[[bytearray, int], None]) -> Path:
    """``change`` gets the bytes, and where the root directory is in them."""
    data = bytearray(image.read_bytes())
    change(data, _u32(data, 16 * SECTOR_BYTES + 158) * SECTOR_BYTES)
    image.write_bytes(data)
    return image


def records(data: bytearray, at: int) -> list[int]:
    found = []
    while data[at]:
        found.append(at)
        at += data[at]
    return found


def named_record(data: bytearray, at: int, name: bytes) -> int:
    return next(record for record in records(data, at) if data[record + 33 : record + 33 + len(name)] == name)


def test_a_directory_in_itself_is_gone_into_once(image: Path) -> None:
    def loop(data: bytearray, root: int) -> None:
        record = named_record(data, root, b"DICOM")
        data[record + 2 : record + 6] = struct.pack("<L", root // SECTOR_BYTES)

    assert set(unpack(edited(image, loop))) == {name for name in FILES if not name.startswith("DICOM/")}


def test_a_path_out_of_the_folder_stays_in_it(image: Path, tmp_path: Path) -> None:
    def climb(data: bytearray, root: int) -> None:
        record = named_record(data, root, b"AUTORUN.INF")
        data[record + 33 : record + 44] = b"../../../XX"

    assert ".._.._.._XX" in unpack(edited(image, climb))
    assert not list(tmp_path.rglob("XX"))


def test_two_files_of_one_name(image: Path) -> None:
    def same(data: bytearray, root: int) -> None:
        record = named_record(data, root, b"AUTORUN.INF")
        data[record + 33 : record + 44] = b"README.;1\0\0"
        data[record + 32] = 9

    found = unpack(edited(image, same))
    assert {found["README"], found["README~2"]} == {FILES["README"], FILES["AUTORUN.INF"]}


def test_a_file_of_a_huge_size_is_only_as_long_as_the_image(image: Path) -> None:
    def huge(data: bytearray, root: int) -> None:
        record = named_record(data, root, b"DICOMDIR")
        data[record + 10 : record + 14] = b"\xff\xff\xff\xff"

    assert len(unpack(edited(image, huge))["DICOMDIR"]) < image.stat().st_size


def test_files_that_overlap_make_no_more_of_an_image_than_it_is(image: Path) -> None:
    """Each of these is nearly as long as the image, and none has the bytes of another one."""

    def overlap(data: bytearray, root: int) -> None:
        for number, record in enumerate(records(data, root)[2:]):
            if not data[record + 25] & 2:
                data[record + 2 : record + 6] = struct.pack("<L", number)
                data[record + 10 : record + 14] = b"\xff\xff\xff\x7f"

    with pytest.raises(NoDiscImage, match="far more content"):
        unpack(edited(image, overlap))


def test_an_image_that_is_cut_off_gives_files_that_are(image: Path) -> None:
    """Whoever reads them sees it: the daemon calls them truncated."""
    data = image.read_bytes()
    at = data.index(FILES["DICOM/PAT1/IM000001"])
    image.write_bytes(data[: at + 1000])
    assert unpack(image)["DICOM/PAT1/IM000001"] == FILES["DICOM/PAT1/IM000001"][:1000]
    with unpacked(image, lambda _: False) as found:
        assert "is cut off" in found.notes[0]


def test_a_directory_that_is_not_there(image: Path) -> None:
    image.write_bytes(image.read_bytes()[: 20 * SECTOR_BYTES])
    with pytest.raises(NoDiscImage, match="cut off"):
        unpack(image)


@pytest.mark.parametrize("limit", ["ENTRIES_LIMIT", "DEPTH_LIMIT", "DIRECTORIES_LIMIT_BYTES"])
def test_limits(limit: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iso9660, limit, 1)
    with pytest.raises(NoDiscImage):
        unpack(image)


def test_noise_in_an_image_is_refused_or_read_and_nothing_else(image: Path) -> None:
    chance, whole = random.Random(7), image.read_bytes()
    end = 30 * SECTOR_BYTES
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 30)):
            data[chance.randrange(16 * SECTOR_BYTES, end)] = chance.randrange(256)
        image.write_bytes(data)
        fd = os.open(image, os.O_RDONLY)
        try:
            found = DiscImage(fd).contents()
        except NoDiscImage:
            found = Contents()
        finally:
            os.close(fd)
        for entry in found.entries:
            assert entry.path and all(
                part not in (b"", b".", b"..") and b"/" not in part and b"\0" not in part for part in entry.path
            )


def test_bytes_that_stand_once_take_room_once(tmp_path: Path) -> None:
    disc = pycdlib.PyCdlib()
    disc.new()
    place = folder_of(tmp_path / "disc", {"a": os.urandom(5000)})
    disc.add_file(str(place / "a"), "/A.;1")
    disc.add_hard_link(iso_old_path="/A.;1", iso_new_path="/B.;1")
    disc.write(str(tmp_path / "disc.iso"))
    with unpacked(tmp_path / "disc.iso", lambda _: False) as found:
        assert (found.folder / "A").stat().st_ino == (found.folder / "B").stat().st_ino


def test_too_little_room(image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unpacking, "SPARE_BYTES", 2**60)
    with pytest.raises(Permanent, match="free space"):
        unpack(image)
    assert not list(unpacking.base_folder().iterdir())


def test_what_a_killed_command_has_left_goes_with_the_next(image: Path) -> None:
    with unpacked(image, lambda _: False) as running:
        left = running.folder.parent.with_name("disc-left")
        left.mkdir()
        (left / "lock").touch()
        (left / "disc").mkdir()
        assert unpack(image, in_use=lambda place: place == left) == FILES
        assert left.exists(), "the daemon is still at it"
        assert unpack(image) == FILES
        assert not left.exists() and (running.folder / "DICOMDIR").exists()


def test_a_folder_of_somebody_elses_is_not_used(image: Path, tmp_path: Path) -> None:
    unpacking.base_folder().symlink_to(tmp_path)
    with pytest.raises(Permanent, match="not yours"):
        unpack(image)
