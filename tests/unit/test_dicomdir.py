"""A DICOMDIR comes from whoever has made the disc: what it lists is read, and whatever else is in it costs little."""

from __future__ import annotations

import io
import random
import struct
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet

from dicomwatchd.errors import SourceChanged, Unarchivable
from dicomwatchd.intake.dicom import dicomdir
from dicomwatchd.intake.dicom.dicomdir import Directory, Listed, read_dicomdir
from tests.synthetic import Maker

_SOP_CLASS = b"1.2.840.10008.1.3.10\0"
_EXPLICIT = b"1.2.840.10008.1.2.1\0"


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"SQ", b"OB"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def item(*elements: bytes, undefined: bool = False) -> bytes:
    body = b"".join(elements)
    if undefined:
        return struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + body + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body


def image(number: int, *, path: bytes | None = None, in_use: int = 0xFFFF, following: int = 0) -> bytes:
    return item(
        element(4, 0x1400, b"UL", struct.pack("<L", following)),
        element(4, 0x1410, b"US", struct.pack("<H", in_use)),
        element(4, 0x1420, b"UL", struct.pack("<L", following)),
        element(4, 0x1430, b"CS", b"IMAGE "),
        element(4, 0x1500, b"CS", path or b"DICOM\\IM%06d" % number),
        element(4, 0x1511, b"UI", b"1.2.3.%d" % number),
    )


def study(number: int) -> bytes:
    return item(element(4, 0x1430, b"CS", b"STUDY "), element(0x20, 0xD, b"UI", b"1.2.%d" % number))


def table(*records: bytes, undefined: bool = False) -> bytes:
    body = b"".join(records)
    meta = element(2, 2, b"UI", _SOP_CLASS[:-1]) + element(2, 0x10, b"UI", _EXPLICIT[:-1])
    head = bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<L", len(meta))) + meta
    head += element(4, 0x1130, b"CS", b"DISC") + element(4, 0x1200, b"UL", struct.pack("<L", 400))
    if undefined:
        sequence = struct.pack("<HH2sHL", 4, 0x1220, b"SQ", 0, 0xFFFFFFFF) + body
        return head + sequence + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return head + element(4, 0x1220, b"SQ", body)


def read(content: bytes, tmp_path: Path) -> Directory:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_dicomdir(file.fileno(), len(content))


@pytest.mark.parametrize("undefined", [False, True])
def test_what_it_lists(undefined: bool, tmp_path: Path) -> None:
    found = read(table(study(1), image(1), image(2), study(2), image(3), undefined=undefined), tmp_path)
    assert found.images == [
        Listed(b"DICOM/IM%06d" % n, f"1.2.3.{n}", study_uid)
        for n, study_uid in ((1, "1.2.1"), (2, "1.2.1"), (3, "1.2.2"))
    ]
    assert found.by_study() == {"1.2.1": ["1.2.3.1", "1.2.3.2"], "1.2.2": ["1.2.3.3"]}
    assert found.studies == {"1.2.1", "1.2.2"}


def test_as_pydicom_writes_and_reads_it(tmp_path: Path) -> None:
    maker = Maker(seed=3)
    files = maker.mr_study(tmp_path / "MR", series=2, slices=3) + maker.ct_series(tmp_path / "CT", slices=2)
    *made, listing = maker.media(tmp_path / "cd", files)
    with listing.path.open("rb") as file:
        found = read_dicomdir(file.fileno(), listing.size_bytes)
    assert {(one.path.decode(), one.sop_instance_uid) for one in found.images} == {
        (str(one.path.relative_to(tmp_path / "cd")), one.sop_instance_uid) for one in made
    }
    assert found.studies == {one.study_uid for one in made}
    assert {(one.sop_instance_uid, one.study_uid) for one in found.images} == {
        (one.sop_instance_uid, one.study_uid) for one in made
    }


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "DICOMDIR-reordered", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "DICOMDIR-nooffset"]
)
def test_others_programs_lists(name: str) -> None:
    path = get_testdata_file(f"dicomdirtests/{name}")
    if path is None:
        pytest.skip("pydicom does not bring it along")
    with Path(str(path)).open("rb") as file:
        content = file.read()
        try:
            found = read_dicomdir(file.fileno(), len(content))
        except Unarchivable:
            assert name.endswith(("nooffset", "bigEnd")), "one has a record longer than the file, one is big endian"
            return
    data = pydicom.dcmread(io.BytesIO(content))
    records = [one for one in data.DirectoryRecordSequence if "ReferencedFileID" in one]
    assert len(found.images) == len(records) > 0
    assert {one.sop_instance_uid for one in found.images} == {
        str(one.ReferencedSOPInstanceUIDInFile) for one in records
    }
    by_study: dict[str, list[str]] = {}
    for one in FileSet(str(path)):
        by_study.setdefault(str(one.StudyInstanceUID), []).append(str(one.SOPInstanceUID))
    assert found.by_study() == {uid: sorted(uids) for uid, uids in by_study.items()}


def test_offsets_that_go_round_in_circles_are_not_followed(tmp_path: Path) -> None:
    """Each record says that it is the next, and below, itself."""
    found = read(table(*(image(number, following=400) for number in range(50))), tmp_path)
    assert len(found.images) == 50


def linked(*records: tuple[bytes, int, int, int | None]) -> bytes:
    """A list of records with offsets: each is its kind, the numbers (from 1) of the record that follows on its level
    and of the first below it, 0 for none, and the number of its image or study. All of them are equally long."""

    def made(kind: bytes, following: int, lower: int, number: int | None) -> bytes:
        uid = b"" if number is None else b"1.2.%06d" % number
        return item(
            element(4, 0x1400, b"UL", struct.pack("<L", following)),
            element(4, 0x1410, b"US", b"\xff\xff"),
            element(4, 0x1420, b"UL", struct.pack("<L", lower)),
            element(4, 0x1430, b"CS", kind.ljust(16)),
            element(4, 0x1500, b"CS", b"        " if number is None or kind == b"STUDY" else b"IM%06d" % number),
            element(0x20, 0xD, b"UI", uid) if kind == b"STUDY" else element(4, 0x1511, b"UI", uid.ljust(10)),
        )

    start, each = len(table()), len(made(b"IMAGE", 0, 0, 1))

    def offset(at: int) -> int:
        return start + (at - 1) * each if at else 0

    return table(*(made(kind, offset(after), offset(below), number) for kind, after, below, number in records))


def test_offsets_tell_whose_an_image_is_where_the_records_stand_in_another_order(tmp_path: Path) -> None:
    """Level by level, as some programs write them: the studies, then the series, then the images."""
    content = linked(
        (b"PATIENT", 0, 2, None),
        (b"STUDY", 3, 4, 1),
        (b"STUDY", 0, 5, 2),
        (b"SERIES", 0, 6, None),
        (b"SERIES", 0, 7, None),
        (b"IMAGE", 8, 0, 11),
        (b"IMAGE", 0, 0, 21),
        (b"IMAGE", 0, 0, 12),
    )
    assert read(content, tmp_path).by_study() == {
        "1.2.000001": ["1.2.000011", "1.2.000012"],
        "1.2.000002": ["1.2.000021"],
    }


def test_what_no_offset_leads_to_is_of_no_study_unless_there_is_one_only(tmp_path: Path) -> None:
    rest = [(b"SERIES", 0, 3, None), (b"IMAGE", 0, 0, 11), (b"IMAGE", 0, 0, 12)]
    content = linked((b"STUDY", 0, 2, 1), *rest, (b"HANGING PROTOCOL", 0, 0, 90))
    assert read(content, tmp_path).by_study() == {"1.2.000001": ["1.2.000011", "1.2.000012"]}
    content = linked((b"STUDY", 0, 2, 1), *rest, (b"STUDY", 0, 0, 2))
    found = read(content, tmp_path)
    assert found.by_study() == {"1.2.000001": ["1.2.000011"]}
    assert len(found.images) == 2, "it is listed all the same"


def test_circles_and_claims_of_several_studies_end(tmp_path: Path) -> None:
    """Each series is its own successor, and two studies lay claim to one series: the first has it."""
    content = linked(
        (b"STUDY", 1, 3, 1),
        (b"STUDY", 1, 3, 2),
        (b"SERIES", 3, 4, None),
        (b"IMAGE", 4, 3, 11),
    )
    assert read(content, tmp_path).by_study() == {"1.2.000001": ["1.2.000011"]}


def test_a_chain_of_many_records_is_followed_in_little_time(tmp_path: Path) -> None:
    number = 20_000
    images = [(b"IMAGE", at + 3 if at < number else 0, 0, at) for at in range(1, number + 1)]
    content = linked((b"STUDY", 0, 2, 1), (b"SERIES", 0, 3, None), *images)
    began = time.monotonic()
    assert len(read(content, tmp_path).by_study()["1.2.000001"]) == number
    assert time.monotonic() - began < 10


def test_records_that_are_not_in_use_are_not_listed(tmp_path: Path) -> None:
    assert len(read(table(image(1), image(2, in_use=0)), tmp_path).images) == 1


@pytest.mark.parametrize("path", [b"..\\..\\etc\\passwd", b"A\\..\\B", b".", b"\\\\", b"A\\B\0C", b"A\\" * 40 + b"B"])
def test_a_file_id_that_leads_elsewhere_is_none(path: bytes, tmp_path: Path) -> None:
    assert read(table(image(1, path=path), image(2)), tmp_path).images == [Listed(b"DICOM/IM000002", "1.2.3.2")]


def test_slashes_and_spaces_in_a_file_id(tmp_path: Path) -> None:
    [found] = read(table(image(1, path=b"DICOM/A \\IM1 ")), tmp_path).images
    assert found.path == b"DICOM/A/IM1"


@pytest.mark.parametrize("uid", [b"1.2.3.x", b"../../x", b"1" * 70, b""])
def test_a_uid_that_is_none(uid: bytes, tmp_path: Path) -> None:
    [found] = read(table(item(element(4, 0x1500, b"CS", b"A"), element(4, 0x1511, b"UI", uid))), tmp_path).images
    assert found == Listed(b"A", "")


def test_a_million_records(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unarchivable, match="too many records"):
        read(table(struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_000_000), tmp_path)
    assert time.monotonic() - began < 10


def test_too_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomdir, "LIMIT_IMAGES", 3)
    with pytest.raises(Unarchivable, match="too many files"):
        read(table(*(image(number) for number in range(4))), tmp_path)


def test_a_record_of_millions_of_elements(tmp_path: Path) -> None:
    with pytest.raises(Unarchivable, match="too many data elements"):
        read(table(item(element(8, 8, b"CS", b"") * 1_000_000)), tmp_path)


def test_too_large_a_file(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    path.touch()
    with path.open("rb") as file, pytest.raises(Unarchivable, match="too large"):
        read_dicomdir(file.fileno(), dicomdir.LIMIT_BYTES + 1)


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 5, 0xFFFFFFFF])
def test_lengths_that_are_not_true(length: int, tmp_path: Path) -> None:
    """Of a record, of the whole list, and of an element in a record."""
    content = table(study(1), image(1))
    for at in (content.index(b"SQ\0\0") + 4, content.index(b"\xfe\xff\x00\xe0") + 4):
        changed = content[:at] + struct.pack("<L", length) + content[at + 4 :]
        with pytest.raises(Unarchivable):
            read(changed, tmp_path)


def test_deeply_nested_sequences(tmp_path: Path) -> None:
    one = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    deep = one * 5000
    with pytest.raises(Unarchivable):
        read(table(item(deep, undefined=True), undefined=True), tmp_path)


def test_noise_is_refused_or_read_and_says_nothing_of_what_is_in_it(tmp_path: Path) -> None:
    chance, whole = random.Random(5), table(study(1), *(image(number) for number in range(20)))
    for _ in range(400):
        content = bytearray(whole[: chance.randint(1, len(whole))])
        for _ in range(chance.randint(0, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        found, refused = _read_or_refused(bytes(content), tmp_path)
        assert "IM0" not in refused and "1.2.3" not in refused
        assert len(found.images) <= 21 and "IM0" not in repr(found)
        assert all(b".." not in one.path.split(b"/") for one in found.images)


def _read_or_refused(content: bytes, tmp_path: Path) -> tuple[Directory, str]:
    try:
        return read(content, tmp_path), ""
    except (Unarchivable, SourceChanged) as refused:
        return Directory(), str(refused)


def test_a_list_of_many_images_is_read_in_little_time(tmp_path: Path) -> None:
    content = table(*(image(number) for number in range(20_000)))
    began = time.monotonic()
    assert len(read(content, tmp_path).images) == 20_000
    assert time.monotonic() - began < 10


def test_the_test_lists_are_lists(tmp_path: Path) -> None:
    """What this file makes, pydicom reads."""
    (tmp_path / "DICOMDIR").write_bytes(table(study(1), image(1)))
    assert len(pydicom.dcmread(tmp_path / "DICOMDIR").DirectoryRecordSequence) == 2
