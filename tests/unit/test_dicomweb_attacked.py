"""Files and series objects that were made to harm whoever reads them: memory without bounds, frames of another place,
addresses of another site, pictures that are larger than they say."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicomwatchd.config.web import WebProxy
from dicomwatchd.errors import Permanent
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.series import grouping, objects
from dicomwatchd.series.document import BadSeriesObject, SeriesDocument
from dicomwatchd.series.pixels import Frame
from dicomwatchd.web.dicomweb import matching, rendered
from dicomwatchd.web.dicomweb.errors import NotRenderable, Refused
from tests.synthetic import Maker
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_series import Shelf, frames_by_pydicom, lying, shelved

MIB = 1024**2
JPEG, J2K, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"


# --- frames that are large, or far apart ------------------------------------------------------------------------------


class Lazy(MemoryStore):
    """Whose reads hold nothing but the chunk that is taken."""

    def read(self, key: str, version_id: str | None = None, **asked: Any) -> Iterator[bytes]:
        data = memoryview(self.versions[key][-1 if version_id is None else int(version_id)])
        begin, length = asked.get("offset_bytes", 0), asked.get("length_bytes")
        end = len(data) if length is None else begin + length
        for at in range(begin, end, self.chunk_bytes):
            yield bytes(data[at : min(at + self.chunk_bytes, end)])


def lazily(shelf: Shelf) -> SeriesDocument:
    """Its store reads lazily from here on. The series object."""
    store = Lazy(chunk_bytes=256 * 1024)
    store.versions = shelf.store.versions
    shelf.store = store
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    return objects.load(store, shelf.indexes()[0], shelf.study, shelf.series)


def test_a_frame_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    shelf = shelved(Maker().ct_series(tmp_path, slices=1, rows=4096, columns=8192))
    lazily(shelf)
    found = shelf.reader()
    [shown] = found.series(shelf.study, shelf.series).instances
    tracemalloc.start()
    try:
        digest = hashlib.sha256()
        for value in found.contents.frames(shown, [1, 1]):
            for piece in value:
                digest.update(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    [frame] = frames_by_pydicom(shelf.files[shown.sop_instance_uid])
    assert digest.hexdigest() == hashlib.sha256(frame + frame).hexdigest()
    assert peak < 16 * MIB < len(frame)


def test_pieces_that_are_far_apart_take_little_memory(tmp_path: Path) -> None:
    """As a series object says it that somebody has put there: the hash fits, and is of two bytes."""
    shelf = shelved(Maker().ct_series(tmp_path, slices=1, rows=4096, columns=8192))
    document = lazily(shelf)
    [(known, entry)] = document.entries.items()
    assert entry.pixels is not None
    raw = shelf.files[known[0]]
    first, last = entry.pixels.offset_bytes, entry.pixels.offset_bytes + entry.pixels.length_bytes - 1
    both = bytes((raw[first], raw[last]))
    frame = Frame(((first, 1), (last, 1)), hashlib.sha256(both).hexdigest())
    lie = replace(entry, pixels=replace(entry.pixels, is_encapsulated=True, frames=(frame,)))
    shelf.store.versions[shelf.indexes()[0]] = [replace(document, entries={known: lie}).to_bytes()]
    found = shelf.reader()
    [shown] = found.series(shelf.study, shelf.series).instances
    tracemalloc.start()
    try:
        assert list(map(b"".join, found.contents.frames(shown, [1]))) == [both]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


def test_large_frames_are_compared_and_their_files_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "IN_MEMORY_BYTES", 1000)
    clip = shelved(Maker().us_multiframe(tmp_path / "clip", frames=20))
    found = clip.reader()
    [shown] = found.series(clip.study, clip.series).instances
    wanted = frames_by_pydicom(clip.files[shown.sop_instance_uid])
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert list(map(b"".join, found.contents.frames(shown, [3, 1, 20]))) == [wanted[2], wanted[0], wanted[19]]
    begun = found.contents.frames(shown, [1, 2])
    next(iter(next(begun)))
    del begun  # whoever has gone away
    clip.store.versions[shown.item.key] = [b"\0" * shown.item.size_bytes]
    with pytest.raises(Permanent) as refused:
        list(map(b"".join, found.contents.frames(shown, [1])))
    assert refused.value.code == "bad-object"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_wrong_hashes_of_a_deflated_or_large_frame_are_told_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "IN_MEMORY_BYTES", 1000)
    clip = shelved(Maker().us_multiframe(tmp_path / "clip", frames=20))
    entry = clip.reader().series(clip.study, clip.series).instances[0].entry
    assert entry is not None and entry.pixels is not None
    for is_deflated in (False, True):  # what it says of the file's form may be the lie
        frames = tuple(one._replace(sha256="0" * 64) for one in entry.pixels.frames)
        clip.store.versions = {key: one for key, one in clip.store.versions.items() if key not in clip.indexes()}
        lying(clip, pixels=replace(entry.pixels, frames=frames), is_deflated=is_deflated)
        found = clip.reader()
        [shown] = found.series(clip.study, clip.series).instances
        raw = clip.files[shown.sop_instance_uid]
        assert list(map(b"".join, found.contents.frames(shown, [2]))) == [frames_by_pydicom(raw)[1]]


# --- series objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "element",
    [
        {"vr": "OW", "BulkDataURI": "https://elsewhere.example.org/"},
        {"vr": "SQ", "Value": [{"00281201": {"vr": "OW", "BulkDataURI": "https://elsewhere.example.org/"}}]},
        {"vr": "SQ", "Value": [{"00080100": {"vr": "SQ", "Value": [{"0": {"vr": "LO", "Value": ["x"]}}]}}]},
        {"vr": "LO", "Value": [{"00281201": {"vr": "OW", "BulkDataURI": "https://elsewhere.example.org/"}}]},
        {"vr": "PN", "Value": [{"Alphabetic": {"BulkDataURI": "https://elsewhere.example.org/"}}]},
        {"vr": "LO", "Value": [["x"]]},
    ],
)
def test_no_address_of_another_site_comes_out_of_a_series_object(element: dict[str, object], tmp_path: Path) -> None:
    """A client would follow it with the token that it has for us."""
    shelf = shelved(Maker().ct_series(tmp_path, slices=1, rows=16, columns=16))
    document = lazily(shelf)
    [(known, entry)] = document.entries.items()
    lie = replace(entry, attributes={**entry.attributes, "00400555": element})
    data = replace(document, entries={known: lie}).to_bytes()
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(data, shelf.study, shelf.series)


def test_deep_and_endless_ones_are_none() -> None:
    deep = b'{"format":"dicomwatchd-series/1","study_uid":"1.2","series_uid":"1.3","created_by":"","common":'
    for text in (
        deep + b'{"0":' * 100_000,
        b"[" * 1_000_000,
        b"[" + b"0," * 5_000_000 + b"0]",
        json.dumps([]).encode(),
    ):
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        with pytest.raises(BadSeriesObject):
            SeriesDocument.from_bytes(packer.compress(text) + packer.flush(), Uid("1.2"), Uid("1.3"))


# --- pictures ---------------------------------------------------------------------------------------------------------


def described(rows: int, columns: int, samples: int = 1, bits: int = 8) -> DicomJson:
    said = {"00280002": samples, "00280010": rows, "00280011": columns, "00280100": bits, "00280101": bits}
    numbers: DicomJson = {tag: {"vr": "US", "Value": [value]} for tag, value in said.items()}
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
    return {
        **numbers,
        "00280102": {"vr": "US", "Value": [bits - 1]},
        "00280103": {"vr": "US", "Value": [0]},
        "00280006": {"vr": "US", "Value": [0]},
        "00280004": {"vr": "CS", "Value": [photometric]},
    }


def refused(frame: bytes, attributes: DicomJson, syntax: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotRenderable):
            rendered.picture(frame, 1, attributes, syntax, lambda _: b"", rendered.Wanted(rendered.PNG))
        assert tracemalloc.get_traced_memory()[1] < len(frame) + 64 * MIB
    finally:
        tracemalloc.stop()


def test_runs_that_stand_for_more_than_the_image_are_not_decoded() -> None:
    """2 MiB of PackBits that are 128 MiB."""
    refused(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * MIB, described(512, 512), RLE)


def test_runs_that_stand_for_more_than_the_image_are_told_by_their_lengths() -> None:
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 1024
    with pytest.raises(NotRenderable, match="another size"):
        rendered.picture(frame, 1, described(16, 16), RLE, lambda _: b"", rendered.Wanted(rendered.PNG))


def test_an_image_of_runs_is_shown() -> None:
    image = bytes((row // 2) % 256 for row in range(512) for _ in range(512))
    packed = b"".join(bytes((0x81, image[at])) for at in range(0, len(image), 128))
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + packed
    made = rendered.picture(
        frame,
        1,
        described(512, 512),
        RLE,
        lambda _: b"",
        rendered.Wanted(rendered.PNG, window=rendered.Window(128, 256)),
    )
    shown = np.asarray(Image.open(BytesIO(made)))
    assert np.array_equal(shown, np.frombuffer(image, np.uint8).reshape(512, 512))


def siz(width: int, height: int, components: int) -> bytes:
    head = struct.pack(
        ">4H8IH", 0xFF4F, 0xFF51, 38 + 3 * components, 0, width, height, 0, 0, width, height, 0, 0, components
    )
    return head + b"\x07\x01\x01" * components


@pytest.mark.parametrize(
    "frame",
    [
        siz(60000, 60000, 1),
        siz(512, 512, 16384),
        b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 208) + b"free" + siz(512, 512, 1).ljust(200, b"\0")
        + struct.pack(">I", 0) + b"jp2c" + siz(60000, 60000, 1),
        b"junk" + siz(512, 512, 1) + siz(60000, 60000, 1),
        b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 0) + b"free",
        b"\0\0\0\x0cjP  ",
        b"",
    ],
    ids=["larger", "components", "box", "junk", "endless", "cut", "empty"],
)  # fmt: skip
def test_what_a_jpeg_2000_says_before_its_code_stream_does_not_count(frame: bytes) -> None:
    refused(frame, described(512, 512), J2K)


def test_a_jpeg_of_another_size_or_form_is_not_shown() -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    refused(file.getvalue(), described(32, 64, 3), JPEG)
    refused(file.getvalue(), described(64, 64, 1), JPEG)


# --- a careless administrator -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["0.0.0.0/1", "126.0.0.0/7", "::/1", "::/0", "0.0.0.0/0", "127.0.0.1/32", "::1"])
def test_a_network_that_holds_this_machine_needs_the_secret(network: str) -> None:
    with pytest.raises(ValueError, match="secret_file"):
        WebProxy.model_validate({"addresses": (network,)})
    assert WebProxy.model_validate({"addresses": (network,), "secret_file": "/etc/secret"})


# --- searches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PatientName", "ImageComments", "ModalitiesInStudy", "00091001"])
def test_a_pattern_is_no_longer_than_values_are(name: str) -> None:
    """Texts of 64 KB in thousands of instances would be compared with it, for hours, in one of few threads."""
    assert matching.parse([(name, "*" + "a" * 255)]).conditions
    with pytest.raises(Refused):
        matching.parse([(name, "*" + "a" * 256)])
