"""Whatever stands in the place of a series object is read as one in every part, or refused."""

from __future__ import annotations

import json
import zlib
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomwatchd.model import Uid
from dicomwatchd.series import document as module
from dicomwatchd.series.document import BadSeriesObject, SeriesDocument, SeriesTooLarge
from dicomwatchd.series.extract import Bulk
from dicomwatchd.series.reader import SeriesReader
from tests.synthetic import Maker
from tests.unit.test_series import Shelf, shelved


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> list[Shelf]:
    """A series of slices, and one of a clip whose frames are fragments."""
    folder = tmp_path_factory.mktemp("made")
    return [
        shelved(Maker().ct_series(folder / "ct", slices=2, rows=16, columns=16)),
        shelved(Maker(2).us_multiframe(folder / "us", frames=3)),
    ]


def text_of(shelf: Shelf) -> Any:
    found = SeriesReader(shelf.store).series(shelf.study, shelf.series)
    entries = {one.entry.known: one.entry for one in found.instances if one.entry is not None}
    data = SeriesDocument(shelf.study, shelf.series, entries, "tests").to_bytes()
    return json.loads(zlib.decompress(data, 31))


def packed(raw: Any) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(json.dumps(raw).encode()) + packer.flush()


def places(raw: Any) -> list[tuple[Any, Any]]:
    """Each value within, as what holds it and where."""
    found: list[tuple[Any, Any]] = []
    inner = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for where, value in inner:
        found.append((raw, where))
        found += places(value)
    return found


STRANGE: list[Any] = [None, True, -1, 0, 2**70, 1e300, "", "x", "0" * 64, [], {}, [[]], {"a": 1}, [1, 2, 3], "\ud800"]


def check(shelf: Shelf, raw: Any) -> None:
    try:
        document = SeriesDocument.from_bytes(packed(raw), shelf.study, shelf.series)
    except BadSeriesObject:
        return
    for entry in document.entries.values():
        assert entry.size_bytes >= 0 and len(entry.sha256) == 64
        end = entry.size_bytes if not entry.is_deflated else 1 << 30
        for bulk in entry.bulk.values():
            assert 0 <= bulk.offset_bytes < bulk.offset_bytes + bulk.length_bytes <= end
        for tag, element in entry.attributes.items():
            assert len(tag) == 8 and isinstance(element["vr"], str)
            assert isinstance(element.get("Value", []), list) and isinstance(element.get("InlineBinary", ""), str)
        if entry.pixels is not None:
            assert bool(entry.pixels.frames) == bool(entry.pixels.known_by)
            for frame in entry.pixels.frames:
                assert len(frame.sha256) == 64
                assert all(0 <= at < at + length <= end for at, length in frame.pieces)
    document.to_bytes()


@pytest.mark.parametrize(("at", "value"), [(0, 10**9), (1, 10**9), (1, 0), (2, 0), (0, -1)])
def test_frames_that_lie_elsewhere(shelves: list[Shelf], at: int, value: int) -> None:
    shelf = shelves[1]
    raw = text_of(shelf)
    raw["instances"][0]["pixels"]["pieces"][at] = value
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(packed(raw), shelf.study, shelf.series)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_there_is_read_or_refused(shelves: list[Shelf], data: st.DataObject) -> None:
    shelf = shelves[data.draw(st.integers(0, 1))]
    raw = text_of(shelf)
    for _ in range(data.draw(st.integers(1, 3))):
        where = places(raw)
        holder, key = where[data.draw(st.integers(0, len(where) - 1))]
        match data.draw(st.integers(0, 2)):
            case 0:
                holder[key] = deepcopy(data.draw(st.sampled_from(STRANGE)))  # a later round may change what is in it
            case 1:
                del holder[key]
            case _:
                other, there = where[data.draw(st.integers(0, len(where) - 1))]
                holder[key] = json.loads(json.dumps(other[there]))
    check(shelf, raw)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits(shelves: list[Shelf], data: st.DataObject) -> None:
    shelf = shelves[0]
    whole = bytearray(packed(text_of(shelf)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        SeriesDocument.from_bytes(bytes(whole), shelf.study, shelf.series)
    except BadSeriesObject:
        return


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"format": "dicomwatchd-series/2"}, {"format": ["x"]}, 7, "x"], ids=lambda raw: repr(raw)[:20]
)
def test_other_documents(shelves: list[Shelf], raw: Any) -> None:
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(packed(raw), shelves[0].study, shelves[0].series)


def test_deep_json_is_refused(shelves: list[Shelf]) -> None:
    shelf = shelves[0]
    raw = text_of(shelf)
    value: Any = []
    for _ in range(200):
        value = [value]
    raw["common"]["00081115"] = {"vr": "SQ", "Value": value}
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(packed(raw), shelf.study, shelf.series)
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(packer.compress(deep) + packer.flush(), shelf.study, shelf.series)


def test_what_would_be_too_large_is_not_written(shelves: list[Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = shelves[0]
    found = SeriesReader(shelf.store).series(shelf.study, shelf.series)
    entries = {one.entry.known: one.entry for one in found.instances if one.entry is not None}
    for limit in ("LIMIT_BYTES", "PACKED_LIMIT_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, 100)
            with pytest.raises(SeriesTooLarge):
                SeriesDocument(shelf.study, shelf.series, entries).to_bytes()
            assert len(SeriesReader(shelf.store, writes=True).series(shelf.study, shelf.series).instances) == 2
    assert SeriesDocument(shelf.study, Uid("1.2"), {}).to_bytes()


def test_what_is_archived_already_is_read_by_every_later_version() -> None:
    """Byte by byte, as the first version writes it. Whoever changes what this is read as breaks archives of others."""
    a, b = "a" * 64, "b" * 64
    text = (
        '{"format":"dicomwatchd-series/1","study_uid":"1.2","series_uid":"1.3","created_by":"dicomwatchd 0.1.0",'
        '"common":{"00080060":{"vr":"CS","Value":["US"]}},"instances":[\n'
        f'{{"sop_instance_uid":"1.4","sha256":"{a}","size_bytes":900,"transfer_syntax_uid":"1.2.840.10008.1.2.1",'
        '"own":{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A"}]}},"bulk":{"54000100/0/54001010":["OW",300,20]},'
        '"pixels":{"tag":"7FE00010","vr":"OW","offset":400,"length":500,"encapsulated":false,"known_by":"computed",'
        f'"sha256":"{a}{b}","each":250}}}},\n'
        f'{{"sop_instance_uid":"1.5","sha256":"{b}","size_bytes":900,"transfer_syntax_uid":"1.2.840.10008.1.2.4.50",'
        '"pixels":{"tag":"7FE00010","vr":"OB","offset":400,"length":300,"encapsulated":true,'
        f'"known_by":"basic-offset-table","sha256":"{a}{b}","per_frame":[2,1],"pieces":[408,10,426,10,444,20]}},'
        '"left_out":["00081115"],"unreadable":"why","deflated":true,"big_endian":true},\n'
        f'{{"sop_instance_uid":"1.6","sha256":"{a}","size_bytes":0,"pixels":{{"tag":"7FE00010","vr":"OB","offset":400,'
        '"length":300,"encapsulated":true,"why_not":"it is video"},"deflated":true}\n]}\n'
    )
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    read = SeriesDocument.from_bytes(packer.compress(text.encode()) + packer.flush(), Uid("1.2"), Uid("1.3"))
    first, second, third = (read.entries[known] for known in sorted(read.entries))
    assert first.attributes == {
        "00080060": {"vr": "CS", "Value": ["US"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A"}]},
    }
    assert first.bulk == {"54000100/0/54001010": Bulk("OW", 300, 20)}
    assert first.pixels is not None and [one.pieces for one in first.pixels.frames] == [((400, 250),), ((650, 250),)]
    assert [one.sha256 for one in first.pixels.frames] == [a, b]
    assert second.pixels is not None and [one.pieces for one in second.pixels.frames] == [
        ((408, 10), (426, 10)),
        ((444, 20),),
    ]
    assert (second.left_out, second.unreadable) == (("00081115",), "why")
    assert second.is_deflated and second.is_big_endian and not first.is_deflated
    assert third.pixels is not None and (third.pixels.frames, third.pixels.why_not) == ((), "it is video")
