"""What stands in an inbox may cost only so much: each attack is held in quarantine with a reason, whole files beside it
are archived, and what is unusual and whole is taken."""

from __future__ import annotations

import errno
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd import model
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom import opening, reading
from dicomwatchd.intake.dicom.opening import elements_allowed, inflated_allowed
from dicomwatchd.intake.dicom.sizes import HOLES_FROM_BYTES, PIECES_LIMIT, Sizes
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.pipeline import revision, turns
from dicomwatchd.queue import shipments
from tests.pieces import Pieces
from tests.synthetic import Maker
from tests.unit.dicomfiles import DEFLATED, INSTANCE, SEQUENCE_END, data_set, element, encode, header, item, read

MIB = 1024**2
PIXELS = element(0x7FE00010, b"OW", bytes(128))
EMPTY = element(0x00291010, b"LO", b"")


def tiny_elements(count: int) -> bytes:
    return encode(data_set(PixelData=None)) + EMPTY * count + PIXELS


def deflated(*rest: bytes, bulk: bytes = b"", times: int = 0) -> bytes:
    """A slice whose deflated data set goes on with these explicit bytes, the last of them after so much bulk."""
    content = encode(data_set(PixelData=None), DEFLATED)
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = [deflate.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))]
    body += [deflate.compress(piece) for piece in rest[:-1]]
    body.append(deflate.flush(zlib.Z_FULL_FLUSH))
    again = deflate.compress(bulk) + deflate.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return b"".join((content[:start], *body, again * times, deflate.compress(rest[-1]), deflate.flush()))


def refusal(content: bytes) -> Unarchivable:
    with pytest.raises(Unarchivable) as caught:
        read(content)
    return caught.value


# --- elements


def test_a_small_deflated_file_of_millions_of_elements() -> None:
    """Before: 94 KB took 7 s, a thousand of them held an inbox for two hours."""
    content = deflated(PIXELS, bulk=EMPTY * 131_072, times=61)
    assert len(content) < 120_000
    began = time.thread_time()
    refused = refusal(content)
    assert refused.code == "too-many-elements"
    assert "too many data elements for its size" in refused.message
    assert time.thread_time() - began < 2


def test_a_large_file_of_nothing_but_elements() -> None:
    """Before: 160 MB took 28 s. Here a tenth of it."""
    content = tiny_elements(2_000_000)
    assert refusal(content).code == "too-many-elements"


def test_elements_in_nested_items_count() -> None:
    one = item(EMPTY * 10, undefined=True)
    start = struct.pack("<HH2sHL", 0x0029, 0x1020, b"SQ", 0, 0xFFFFFFFF)
    base = encode(data_set(PixelData=None))
    assert header(base + start + one * 10_000 + SEQUENCE_END + PIXELS).instance.study_uid
    assert refusal(deflated(start, SEQUENCE_END + PIXELS, bulk=one * 3000, times=20)).code == "too-many-elements"


def test_a_real_image_with_two_megabytes_of_tiny_elements_is_taken() -> None:
    assert header(tiny_elements(2 * MIB // 8)).instance.sop_instance_uid == INSTANCE


@pytest.mark.parametrize(
    ("what", "elements", "size_bytes", "is_deflated"),
    [
        ("an enhanced image of 30,000 frames with 35 elements each, of 64 x 64", 1_050_000, 245_000_000, False),
        ("a sparse whole slide of 350,000 tiles with 18 elements each, of 5 KB", 6_300_000, 1_750_000_000, False),
        ("a report of a million elements of 16 bytes", 1_000_000, 16_000_000, False),
        ("a segmentation of 20,000 frames with 40 elements each, deflated 20 : 1", 800_000, 2_600_000, True),
    ],
)
def test_real_objects_stay_below(what: str, elements: int, size_bytes: int, is_deflated: bool) -> None:
    assert elements < elements_allowed(size_bytes, is_deflated=is_deflated), what


def test_nobody_is_allowed_more_than_the_most() -> None:
    assert elements_allowed(1 << 50, is_deflated=False) == opening.ELEMENTS_LIMIT
    assert elements_allowed(1 << 50, is_deflated=True) == opening.ELEMENTS_LIMIT


# --- inflation


def test_a_bomb_of_zeros() -> None:
    value = struct.pack("<HH2sHL", 0x0029, 0x1010, b"OB", 0, 400 * MIB)
    content = deflated(value, PIXELS, bulk=bytes(MIB), times=400)
    assert len(content) < 450_000
    began = time.thread_time()
    refused = refusal(content)
    assert refused.code == "inflated-too-large"
    assert time.thread_time() - began < 2


def test_an_empty_mask_that_deflates_a_thousandfold_is_taken() -> None:
    content = deflated(element(0x7FE00010, b"OW", bytes(60 * MIB)))
    assert 60 * MIB / len(content) > 900
    assert header(content).instance.transfer_syntax_uid == DEFLATED


def test_what_is_inflated_follows_from_what_is_there() -> None:
    assert inflated_allowed(1_600_000) > 524_000_000, "a label map of 1,000 slices, deflated 330 : 1"
    assert inflated_allowed(1 << 40) == reading.INFLATED_LIMIT_BYTES


# --- size on the disk


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path, settle_seconds=0.0)
    yield pieces
    pieces.close()


def held(pieces: Pieces) -> dict[str, tuple[str, str]]:
    return {Path(one["path"]).name: (one["code"], one["reason"]) for one in pieces.queue.reports.quarantine(100)}


def image(pixel_bytes: int) -> bytes:
    """All of a large image but its pixels."""
    rows = pixel_bytes // 2048
    start = encode(data_set(PixelData=None, Rows=1024, Columns=rows, BitsAllocated=16, NumberOfFrames="1"))
    return start + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 1024 * rows * 2)


def sparse_image(path: Path, pixel_bytes: int, stored: int = 0) -> None:
    head = image(pixel_bytes)
    with path.open("wb") as file:
        file.write(head)
        file.write(os.urandom(stored))
        file.truncate(len(head) + pixel_bytes // 2048 * 2048)


def test_an_image_that_is_a_hole_is_held_and_the_others_are_archived(pieces: Pieces) -> None:
    """Before: it passed the header, and all of it was hashed and sent."""
    sparse_image(pieces.inbox / "hole", 64 * MIB, stored=MIB)
    [made] = Maker(seed=3).ct_series(pieces.inbox, slices=1, first=1, series=1, study=0, rows=16, columns=16)
    pieces.run()
    code, reason = held(pieces)["hole"]
    assert code == "sparse"
    assert "cp --sparse=never" in reason
    assert "sparse_files: take" in reason
    assert pieces.archived() == {made.sha256}
    assert (pieces.inbox / "hole").stat().st_size > 64 * MIB, "it is where it was"


def test_it_is_taken_when_somebody_says_so(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, settle_seconds=0.0)
    sparse_image(pieces.inbox / "hole", HOLES_FROM_BYTES)
    pieces.run()
    assert held(pieces)["hole"][0] == "sparse"
    pieces.close()
    pieces.sizes = Sizes(takes_sparse=True)
    pieces.start()
    pieces.run()
    assert not held(pieces)
    assert len(pieces.archived()) == 1
    pieces.close()


def test_a_file_above_the_limit_is_held_until_that_is_raised(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, settle_seconds=0.0, sizes=Sizes(max_file_bytes=MIB))
    [made] = Maker(seed=3).ct_series(pieces.inbox, slices=1, first=1, series=1, study=0, rows=1024, columns=1024)
    pieces.run()
    ((code, reason),) = held(pieces).values()
    assert code == "too-large"
    assert f"max_file_bytes in the configuration, {MIB}" in reason
    assert not pieces.archived()
    pieces.close()
    pieces.sizes = Sizes()
    pieces.start()
    pieces.run()
    assert not held(pieces)
    assert pieces.archived() == {made.sha256}
    pieces.close()


def is_held(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        Sizes().require(fd)
    except Unarchivable:
        return True
    else:
        return False
    finally:
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0, "whoever reads on begins at the beginning"
        os.close(fd)


def test_who_has_reserved_the_room_has_paid_for_it(tmp_path: Path) -> None:
    """posix_fallocate: all blocks are taken, and the file system calls them a hole until something is in them."""
    path = tmp_path / "reserved"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, HOLES_FROM_BYTES)
    except OSError as error:
        pytest.skip(f"no room can be reserved here: {os.strerror(error.errno or 0)}")
    finally:
        os.close(fd)
    assert not is_held(path)


def test_small_files_and_files_with_a_share_on_the_disk_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sparse_image(path, HOLES_FROM_BYTES - MIB)
    assert not is_held(path)
    sparse_image(path, HOLES_FROM_BYTES, stored=8 * MIB)
    assert not is_held(path)
    sparse_image(path, HOLES_FROM_BYTES, stored=4 * MIB)
    assert is_held(path)


def test_on_a_file_system_that_compresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """btrfs and ZFS take few blocks for a whole file; all of it is data to them."""
    path = tmp_path / "file"
    sparse_image(path, HOLES_FROM_BYTES)
    size = path.stat().st_size

    def all_data(_fd: int, at: int, whence: int) -> int:
        return size if whence == os.SEEK_HOLE else at if whence == os.SEEK_DATA else 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", all_data)
        fd = os.open(path, os.O_RDONLY)
        Sizes().require(fd)
        os.close(fd)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_where_holes_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "file"
    sparse_image(path, HOLES_FROM_BYTES)

    def untold(_fd: int, _at: int, whence: int) -> int:
        if whence != os.SEEK_SET:
            raise OSError(number, os.strerror(number))
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", untold)
        fd = os.open(path, os.O_RDONLY)
        Sizes().require(fd)
        os.close(fd)


def test_a_file_of_very_many_holes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for number in range(PIECES_LIMIT + 10):
            file.seek(number * 65536)
            file.write(b"x")
        file.truncate(1 << 34)
    assert is_held(path)


# --- what goes on record


def attributes_of(**values: object) -> dict[str, dict[str, object]]:
    found = header(encode(data_set(**values)))
    return {**found.series_attributes, **found.study_attributes}


def test_text_is_cut_at_the_length_of_its_vr() -> None:
    found = attributes_of(
        StudyDescription="d" * 4000, PatientName="=".join("abc"[i] * 1000 for i in range(3)), AccessionNumber="a" * 900
    )
    assert found["00081030"]["Value"] == ["d" * 64]
    assert found["00100010"]["Value"] == [{"Alphabetic": "a" * 64, "Ideographic": "b" * 64, "Phonetic": "c" * 64}]
    assert found["00080050"]["Value"] == ["a" * 64]
    assert header(encode(data_set(PatientID="p" * 900))).patient_id == "p" * 64


def test_a_number_or_a_date_that_cannot_be_one_is_left_out_not_cut() -> None:
    raw = encode(data_set(PixelData=None)) + element(0x00101030, b"DS", b"1" * 900) + PIXELS
    assert header(raw).study_attributes["00101030"] == {"vr": "DS"}


def test_what_is_within_its_length_is_on_record_as_it_is() -> None:
    found = attributes_of(
        StudyDescription="d" * 64, AccessionNumber="LONGER-THAN-16-CHARACTERS", PatientWeight="7.1234567890123"
    )
    assert found["00081030"]["Value"] == ["d" * 64]
    assert found["00080050"]["Value"] == ["LONGER-THAN-16-CHARACTERS"]
    assert found["00101030"]["Value"] == ["7.1234567890123"]
    assert not header(encode(data_set())).has_long_attributes
    assert header(encode(data_set(StudyDescription="d" * 65))).has_long_attributes


def test_values_are_counted() -> None:
    found = attributes_of(OtherPatientIDs=[f"P{number}" for number in range(500)])
    assert len(found["00101000"]["Value"]) == 64  # type: ignore[arg-type]


def test_crafted_files_do_not_fill_a_manifest(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: 1,200 files, each a series of its own with 22 values of 4,096 bytes, made a manifest of 621 MB."""
    long = "\u00e9" * 4000
    count = 60
    for number in range(count):
        data = data_set(
            SeriesInstanceUID=f"1.2.3.4.1.{number}",
            SOPInstanceUID=f"1.2.3.4.1.{number}.1",
            SpecificCharacterSet="ISO_IR 100",
            **dict.fromkeys(
                ("SeriesDescription", "ProtocolName", "Manufacturer", "InstitutionName", "StationName"), long
            ),
        )
        (pieces.inbox / f"IM{number:04}").write_bytes(encode(data))
    monkeypatch.setattr(model, "SERIES_ATTRIBUTES_LIMIT_BYTES", 50_000)
    monkeypatch.setattr(shipments, "SERIES_ATTRIBUTES_LIMIT_BYTES", 50_000)
    monkeypatch.setattr(revision, "SERIES_ATTRIBUTES_LIMIT_BYTES", 50_000)
    pieces.run()
    manifest = pieces.manifest("1.2.3.4.1")
    assert len(manifest.instances) == count
    assert "series-attributes-limited" in manifest.flags
    assert len(manifest.to_bytes()) < 50_000 + count * 1500
    assert all(series["00080060"]["Value"] == ["CT"] for series in manifest.series.values())
    assert sum(len(series) > 1 for series in manifest.series.values()) > 10
    assert manifest.instances[0].repairs == ("attributes: longer than their VR allows, shortened in the record",)
    # Another revision adds no more than is left.
    for number in range(count, 2 * count):
        data = data_set(
            SeriesInstanceUID=f"1.2.3.4.1.{number}", SOPInstanceUID=f"1.2.3.4.1.{number}.1", SeriesDescription="x" * 64
        )
        (pieces.inbox / f"IM{number:04}").write_bytes(encode(data))
    pieces.run()
    second = pieces.manifest("1.2.3.4.1")
    assert len(second.instances) == 2 * count
    assert len(second.to_bytes()) < 50_000 + 2 * count * 1500
    assert not held(pieces)


def series_of(number: int, count: int) -> dict[Uid, DicomJson]:
    one: DicomJson = {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "0008103E": {"vr": "LO", "Value": ["d" * 64]},
    }
    return {Uid(f"1.2.3.4.1.{number}.{index}"): one for index in range(1, count + 1)}


def test_a_shipment_has_no_more_attributes_in_memory(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """All series of a study's files are as many as somebody likes: they are read one after the other."""
    for number in range(10):
        data = data_set(SeriesInstanceUID=f"1.2.3.4.1.{number}", SOPInstanceUID=f"1.2.3.4.1.{number}.1")
        (pieces.inbox / f"IM{number:04}").write_bytes(encode(data))
    for _ in range(3):
        pieces.look()
        pieces.clock.advance(20)
    pieces.look()
    claim = pieces.queue.claims.claim()
    assert claim is not None
    assert all(len(series) > 1 for series in pieces.queue.shipments.facts(claim).series.values())
    assert pieces.queue.shipments.facts(claim).flags == ()
    monkeypatch.setattr(shipments, "SERIES_ATTRIBUTES_LIMIT_BYTES", 500)
    facts = pieces.queue.shipments.facts(claim)
    assert len(facts.series) == 10
    assert 1 <= sum(len(series) > 1 for series in facts.series.values()) < 10
    assert "series-attributes-limited" in facts.flags


def test_a_revision_adds_no_more_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 6000
    monkeypatch.setattr(revision, "SERIES_ATTRIBUTES_LIMIT_BYTES", limit)
    there = replace(empty("a" * 36, Uid("1.2.3.4.1")), series=series_of(1, 30))
    assert revision._within_limit(there, revision._Added({}, series_of(2, 1), (), (), (), ())).flags == ()
    added = revision._within_limit(there, revision._Added({}, {**series_of(1, 30), **series_of(2, 60)}, (), (), (), ()))
    assert added.flags == ("series-attributes-limited",)
    assert {uid: added.series[uid] for uid in there.series} == there.series, "what is on record stays as it is"
    full = [uid for uid, series in added.series.items() if len(series) > 1]
    assert 30 < len(full) < 90
    assert sum(len(json.dumps(added.series[uid], separators=(",", ":"))) for uid in full) <= limit
    assert all(series["00080060"]["Value"] == ["CT"] for series in added.series.values())


def test_a_study_of_more_instances_than_a_manifest_lists_is_parked_and_nothing_is_deleted(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "MANIFEST_LIMIT_BYTES", 2000)
    maker = Maker(seed=3)
    made = maker.ct_series(pieces.inbox / "A", slices=8, first=1, series=1, study=0, rows=16, columns=16)
    [other] = maker.ct_series(pieces.inbox / "B", slices=1, first=1, series=1, study=1, rows=16, columns=16)
    pieces.run()
    shown = pieces.queue.reports.show(made[0].study_uid)
    assert shown is not None
    assert (shown["state"], shown["code"]) == ("parked", "manifest-too-large")
    assert all(one.path.exists() for one in made)
    assert not other.path.exists(), "the other study has gone its way"


def test_large_studies_take_turns_and_small_ones_do_not_wait(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LARGE_BYTES", 2000)
    maker = Maker(seed=3)
    large = maker.ct_series(pieces.inbox / "A", slices=8, first=1, series=1, study=0, rows=16, columns=16)
    [small] = maker.ct_series(pieces.inbox / "B", slices=1, first=1, series=1, study=1, rows=16, columns=16)
    with pieces.context.turns.turn() as admit:
        admit(5000)  # another large one is being recorded
        pieces.run()
        shown = pieces.queue.reports.show(large[0].study_uid)
        assert shown is not None
        assert (shown["state"], shown["code"]) == ("queued", "large-study")
        assert not small.path.exists()
        assert all(one.path.exists() for one in large)
    pieces.clock.advance(turns.RETRY_SECONDS + 1)
    pieces.run()
    assert not any(one.path.exists() for one in large)
    # The manifest that is there is weighed, too, before it is read.
    [more] = maker.ct_series(pieces.inbox / "A", slices=1, first=9, series=1, study=0, rows=16, columns=16)
    with pieces.context.turns.turn() as admit:
        admit(5000)
        pieces.run()
        assert more.path.exists()
    pieces.clock.advance(turns.RETRY_SECONDS * 4)
    pieces.run()
    assert not more.path.exists()
    with pieces.context.turns.turn() as admit:
        admit(5000)  # each turn was given back
