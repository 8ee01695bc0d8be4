"""What is derived of a series: kept in the store, made again wherever it is lost, and never believed without need."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import CredentialsRefused, OutOfReach, Permanent, StudyErased
from dicomwatchd.model import Uid
from dicomwatchd.series import objects
from dicomwatchd.series.building import Patience
from dicomwatchd.series.document import BadSeriesObject, SeriesDocument, name_of
from dicomwatchd.series.pixels import Frame
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.series.standing import Standing
from tests.synthetic import Made, Maker
from tests.unit.memory_archive import MemoryStore, archive, instance


@dataclass
class Shelf:
    """An archive in memory with one study."""

    store: MemoryStore
    study: Uid
    series: Uid
    files: dict[Uid, bytes]
    manifest: Manifest

    def reader(self, **others: object) -> SeriesReader:
        return SeriesReader(self.store, None, current_seconds=0.0, **others)  # type: ignore[arg-type]

    def indexes(self) -> list[str]:
        return [key for key in self.store.versions if keys.parse_series_index(key)]

    def add(self, files: Iterable[tuple[Uid, str, bytes]], **changes: object) -> Manifest:
        self.manifest = archive(self.store, files, study=self.study, before=self.manifest)
        return self.manifest

    def replaced(self, *items: object) -> None:
        """Another manifest in the place of the newest."""
        self.manifest = replace(self.manifest, instances=tuple(items))  # type: ignore[arg-type]
        self.store.versions[self.manifest.key] = [self.manifest.to_bytes()]


def shelved(made: list[Made]) -> Shelf:
    store = MemoryStore(chunk_bytes=4096)
    study, series = Uid(made[0].study_uid), Uid(made[0].series_uid)
    files = {Uid(one.sop_instance_uid): one.path.read_bytes() for one in made}
    listed = [(Uid(one.series_uid), one.sop_instance_uid, files[Uid(one.sop_instance_uid)]) for one in made]
    return Shelf(store, study, series, files, archive(store, listed, study=study))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A series of four slices of 64 x 64."""
    return shelved(Maker().ct_series(tmp_path, slices=4, rows=64, columns=64))


@pytest.fixture
def clip(tmp_path: Path) -> Shelf:
    """One instance of 20 frames, each a fragment."""
    return shelved(Maker().us_multiframe(tmp_path / "clip", frames=20))


def frames_by_pydicom(data: bytes) -> list[bytes]:
    from io import BytesIO

    import pydicom
    from pydicom.encaps import generate_frames

    read = pydicom.dcmread(BytesIO(data))
    number = int(read.get("NumberOfFrames", 1))
    if read["PixelData"].is_undefined_length:
        return list(generate_frames(read.PixelData, number_of_frames=number))
    each = len(read.PixelData) // number
    return [read.PixelData[at : at + each] for at in range(0, each * number, each)]


# --- made, written, read ---------------------------------------------------------------------------------------------


def test_a_series_is_derived_on_demand_and_written(shelf: Shelf) -> None:
    found = shelf.reader(writes=True).series(shelf.study, shelf.series)
    assert not found.is_stored
    assert [one.sop_instance_uid for one in found.instances] == sorted(shelf.files)
    assert {one.standing for one in found.instances} == {Standing.SOUND}
    assert shelf.indexes() == [keys.series_index(shelf.study, shelf.series, name_of(shelf.manifest.instances))]

    shelf.store.reads.clear()
    again = shelf.reader().series(shelf.study, shelf.series)
    assert again.is_stored
    assert [one.entry for one in again.instances] == [one.entry for one in found.instances]
    assert [key for key in shelf.store.reads if keys.holds_instances(key)] == []


def test_who_may_not_write_reads_all_the_same(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise CredentialsRefused("no")

    monkeypatch.setattr(MemoryStore, "put", refused)
    reader = shelf.reader(writes=True)
    assert len(reader.series(shelf.study, shelf.series).instances) == 4
    assert shelf.indexes() == []


def test_frames_and_files(shelf: Shelf, clip: Shelf) -> None:
    for one in (shelf, clip):
        reader = one.reader()
        for shown in reader.series(one.study, one.series).instances:
            raw = one.files[shown.sop_instance_uid]
            assert b"".join(reader.contents.file(shown)) == raw
            wanted = frames_by_pydicom(raw)
            assert list(map(b"".join, reader.contents.frames(shown, range(1, len(wanted) + 1)))) == wanted
            assert list(map(b"".join, reader.contents.frames(shown, [len(wanted), 1]))) == [wanted[-1], wanted[0]]
            for number in (0, len(wanted) + 1):
                with pytest.raises(Permanent) as refused:
                    list(map(b"".join, reader.contents.frames(shown, [number])))
                assert refused.value.code == "no-such-frame"


def test_neighbouring_frames_are_one_read(clip: Shelf) -> None:
    reader = clip.reader()
    shown = reader.series(clip.study, clip.series).instances[0]
    clip.store.reads.clear()
    assert len(list(map(b"".join, reader.contents.frames(shown, range(3, 9))))) == 6
    assert len(clip.store.reads) == 1


@pytest.fixture
def deflated(tmp_path: Path) -> Shelf:
    """One instance of 30 native frames of 8 KB in a deflated data set."""
    [made] = Maker().us_multiframe(tmp_path / "deflated", frames=1)
    read = pydicom.dcmread(made.path)
    read.Rows, read.Columns, read.NumberOfFrames, read.BitsAllocated = 64, 128, 30, 8
    read.SamplesPerPixel, read.PhotometricInterpretation = 1, "MONOCHROME2"
    read.PixelData = b"".join(hashlib.shake_128(bytes([number])).digest(64 * 128) for number in range(30))
    read["PixelData"].VR, read["PixelData"].is_undefined_length = "OB", False
    read.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    read.save_as(made.path, enforce_file_format=True)
    return shelved([made])


def test_frames_of_a_deflated_file_are_one_read(deflated: Shelf) -> None:
    deflated.reader(writes=True).series(deflated.study, deflated.series)
    found = deflated.reader()
    [shown] = found.series(deflated.study, deflated.series).instances
    assert shown.number_of_frames == 30
    frames = frames_by_pydicom(deflated.files[shown.sop_instance_uid])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for numbers in ([30], [*range(1, 31)], [7, 3, 3, 30, 1, 7]):
        deflated.store.reads.clear()
        assert list(map(b"".join, found.contents.frames(shown, numbers))) == [frames[number - 1] for number in numbers]
        assert deflated.store.reads.count(shown.item.key) == 1
    begun = found.contents.frames(shown, [1, 2])
    next(iter(next(begun)))
    del begun  # whoever has gone away
    deflated.store.versions[shown.item.key] = [b"\0" * shown.item.size_bytes]
    with pytest.raises(Permanent, match="differ"):
        list(map(b"".join, found.contents.frames(shown, [1, 2])))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_places_in_a_deflated_file_that_a_series_object_says_wrongly(deflated: Shelf) -> None:
    """Two frames that lie within one another, or the wrong way round: each may be where it says, together they are
    not."""
    entry = deflated.reader().series(deflated.study, deflated.series).instances[0].entry
    assert entry is not None and entry.pixels is not None
    [raw] = deflated.files.values()
    wanted = frames_by_pydicom(raw)[:3]
    first, second, *rest = entry.pixels.frames
    (at, length), *_ = first.pieces
    digest = hashlib.sha256(wanted[0][16 : 16 + length // 2]).hexdigest()
    within = Frame(((at + 16, length // 2),), digest)
    for frames in ((second, first, *rest), (first, within, *rest)):
        deflated.store.versions = {
            key: one for key, one in deflated.store.versions.items() if key not in deflated.indexes()
        }
        lying(deflated, pixels=replace(entry.pixels, frames=tuple(frames)))
        found = deflated.reader()
        [shown] = found.series(deflated.study, deflated.series).instances
        answer = list(map(b"".join, found.contents.frames(shown, [1, 2, 3])))
        assert answer == wanted or (frames[0] is second and sorted(answer) == sorted(wanted))


def test_one_more_slice_reads_only_that(shelf: Shelf, tmp_path: Path) -> None:
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    late = Maker().ct_series(tmp_path / "late", slices=1, first=9, study=0, series=1, rows=64, columns=64)
    assert late[0].series_uid == shelf.series
    shelf.add([(shelf.series, late[0].sop_instance_uid, late[0].path.read_bytes())])
    shelf.store.reads.clear()
    found = shelf.reader(writes=True).series(shelf.study, shelf.series)
    assert len(found.instances) == 5
    [read] = [key for key in shelf.store.reads if keys.holds_instances(key)]
    assert late[0].sop_instance_uid in read
    assert len(shelf.indexes()) == 2
    assert shelf.reader().series(shelf.study, shelf.series).is_stored


def test_a_new_revision_is_seen(shelf: Shelf, tmp_path: Path) -> None:
    reader = shelf.reader()
    assert len(reader.series(shelf.study, shelf.series).instances) == 4
    late = Maker().ct_series(tmp_path / "late", slices=1, first=9, study=0, series=1, rows=64, columns=64)
    shelf.add([(shelf.series, late[0].sop_instance_uid, late[0].path.read_bytes())])
    assert len(reader.series(shelf.study, shelf.series).instances) == 5


def test_what_is_current_costs_one_listing(shelf: Shelf) -> None:
    reader = shelf.reader()
    reader.series(shelf.study, shelf.series)
    shelf.store.reads.clear()
    reader.series(shelf.study, shelf.series)
    assert shelf.store.reads == []


def test_what_is_at_hand_asks_nobody(shelf: Shelf) -> None:
    now = [0.0]
    reader = SeriesReader(shelf.store, None, current_seconds=10.0, monotonic=lambda: now[0])
    assert reader.study_at_hand(shelf.study) is None
    found = reader.study(shelf.study)
    shelf.store.fault = CredentialsRefused("nobody is to be asked")
    assert reader.study_at_hand(shelf.study) is found
    now[0] = 10.0
    assert reader.study_at_hand(shelf.study) is None


def test_many_ask_at_once_and_it_is_derived_once(shelf: Shelf) -> None:
    reader = shelf.reader(writes=True)
    found = []
    asking = [threading.Thread(target=lambda: found.append(reader.series(shelf.study, shelf.series))) for _ in range(6)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(found) == 6
    assert len([key for key in shelf.store.reads if keys.holds_instances(key)]) == 4


# --- lost, damaged, lying --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"noise", zlib.compress(b"{}"), b"\x1f\x8b\x08\0" + bytes(50)], ids=["empty", "noise", "zlib", "cut"]
)
def test_a_damaged_one_is_made_again_beside_it(shelf: Shelf, data: bytes) -> None:
    name = name_of(shelf.manifest.instances)
    first = keys.series_index(shelf.study, shelf.series, name)
    shelf.store.versions[first] = [data]
    assert not shelf.reader(writes=True).series(shelf.study, shelf.series).is_stored
    assert shelf.indexes() == [first, keys.series_index(shelf.study, shelf.series, name, 2)]
    assert shelf.reader().series(shelf.study, shelf.series).is_stored


def test_one_of_another_series_or_instance_does_not_count(shelf: Shelf, clip: Shelf) -> None:
    clip.reader(writes=True).series(clip.study, clip.series)
    [theirs] = clip.indexes()
    mine = keys.series_index(shelf.study, shelf.series, name_of(shelf.manifest.instances))
    shelf.store.versions[mine] = clip.store.versions[theirs]
    assert not shelf.reader().series(shelf.study, shelf.series).is_stored


def lying(shelf: Shelf, **changes: object) -> None:
    """A series object whose first entry says something else."""
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    [key] = shelf.indexes()
    document = objects.load(shelf.store, key, shelf.study, shelf.series)
    first, *_ = sorted(document.entries)
    entries = {**document.entries, first: replace(document.entries[first], **changes)}  # type: ignore[arg-type]
    shelf.store.versions[key] = [replace(document, entries=entries).to_bytes()]


def test_the_uids_that_it_says_are_compared(shelf: Shelf) -> None:
    wrong: dict[str, dict[str, object]] = {"00080018": {"vr": "UI", "Value": ["1.2.3"]}}
    lying(shelf, attributes=wrong)
    found = shelf.reader().series(shelf.study, shelf.series)
    assert not found.is_stored
    assert all(one.attributes["00080018"]["Value"] == [one.sop_instance_uid] for one in found.instances)


def test_false_headers_are_not_noticed_but_by_who_uses_none(shelf: Shelf) -> None:
    """The limit that docs/security.md names: it is derived, and nothing vouches for it."""
    true = shelf.reader().series(shelf.study, shelf.series).instances[0]
    lying(shelf, attributes={**true.attributes, "00281050": {"vr": "DS", "Value": [7]}})
    assert shelf.reader().series(shelf.study, shelf.series).instances[0].attributes["00281050"]
    found = shelf.reader(stored=False, writes=True).series(shelf.study, shelf.series)
    assert found.instances[0].attributes == true.attributes


def test_frames_that_it_says_wrongly_are_told_by_the_file(clip: Shelf) -> None:
    """Swapped on purpose, with the hashes of what is there, it cannot be noticed; a wrong hash is."""
    reader = clip.reader(writes=True)
    entry = reader.series(clip.study, clip.series).instances[0].entry
    assert entry is not None and entry.pixels is not None
    frames = tuple(one._replace(sha256="0" * 64) for one in entry.pixels.frames)
    lying(clip, pixels=replace(entry.pixels, frames=frames))
    reader = clip.reader()
    found = reader.series(clip.study, clip.series)
    assert found.is_stored
    raw = clip.files[found.instances[0].sop_instance_uid]
    assert list(map(b"".join, reader.contents.frames(found.instances[0], [1, 2, 20]))) == [
        frames_by_pydicom(raw)[at] for at in (0, 1, 19)
    ]
    assert not reader.series(clip.study, clip.series).is_stored  # it is not believed any more


# --- what is wrong with the instances --------------------------------------------------------------------------------


def test_an_instance_that_is_damaged_in_the_store_stops_no_other(shelf: Shelf) -> None:
    bad = shelf.manifest.instances[1]
    shelf.store.versions[bad.key] = [b"\0" * bad.size_bytes]
    reader = shelf.reader(writes=True)
    found = reader.series(shelf.study, shelf.series)
    assert [one.trouble is None for one in found.instances] == [True, False, True, True]
    broken = found.instances[1]
    assert broken.attributes == {} and broken.number_of_frames == 0
    with pytest.raises(Permanent) as refused:
        list(map(b"".join, reader.contents.frames(broken, [1])))
    assert refused.value.code == "bad-object"
    assert len(shelf.indexes()) == 1  # of the others

    shelf.store.reads.clear()
    assert [one.trouble is None for one in shelf.reader(writes=True).series(shelf.study, shelf.series).instances] == [
        True,
        False,
        True,
        True,
    ]
    assert {key for key in shelf.store.reads if keys.holds_instances(key)} == {bad.key}
    assert len(shelf.indexes()) == 1
    shelf.store.versions[bad.key] = [shelf.files[bad.sop_instance_uid]]
    assert shelf.reader(writes=True).series(shelf.study, shelf.series).instances[1].trouble is None
    assert len(shelf.indexes()) == 2 and shelf.reader().series(shelf.study, shelf.series).is_stored


def test_what_could_not_be_read_is_not_tried_at_every_turn(shelf: Shelf) -> None:
    now = [0.0]
    bad = shelf.manifest.instances[1]
    right, shelf.store.versions[bad.key] = shelf.store.versions[bad.key], [b"other"]
    reader = shelf.reader(monotonic=lambda: now[0])
    reader.series(shelf.study, shelf.series)
    shelf.store.reads.clear()
    assert reader.series(shelf.study, shelf.series).instances[1].trouble is not None
    assert shelf.store.reads == []
    shelf.store.versions[bad.key] = right
    now[0] += 61
    assert reader.series(shelf.study, shelf.series).instances[1].trouble is None
    assert {key for key in shelf.store.reads if keys.holds_instances(key)} == {bad.key}


def test_bytes_are_found_where_they_were_repaired(shelf: Shelf) -> None:
    reader = shelf.reader()
    found = reader.series(shelf.study, shelf.series)
    bad = shelf.manifest.instances[1]
    repaired = keys.instance(shelf.study, shelf.series, bad.sop_instance_uid, bad.sha256, 2)
    shelf.store.versions[repaired] = shelf.store.versions[bad.key]
    shelf.store.versions[bad.key] = [b"\0" * bad.size_bytes]
    raw = shelf.files[bad.sop_instance_uid]
    for one in (reader, shelf.reader()):
        shown = one.series(shelf.study, shelf.series).instances[1]
        assert b"".join(one.contents.file(shown)) == raw
        assert list(map(b"".join, one.contents.frames(shown, [1]))) == frames_by_pydicom(raw)
    assert found.instances[1].trouble is None


def test_a_read_that_breaks_off_is_begun_again(shelf: Shelf) -> None:
    paused: list[float] = []
    reader = shelf.reader(patience=Patience(sleep=paused.append, jitter=lambda: 0.0))

    def breaking(key: str, number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if not keys.holds_instances(key) or number % 3 == 0:
            yield from chunks
            return
        yield next(chunks)[:100]
        raise OutOfReach("ended early", endpoint="x")

    shelf.store.tampering = breaking
    shown = reader.series(shelf.study, shelf.series).instances[0]
    assert shown.trouble is None and paused[:2] == [0.5, 1.0] and len(paused) == 8
    assert b"".join(reader.contents.file(shown)) == shelf.files[shown.sop_instance_uid]
    shelf.store.tampering = lambda _key, _number, _chunks: (_ for _ in ()).throw(OutOfReach("down", endpoint="x"))
    for read in (reader.contents.file(shown), map(b"".join, reader.contents.frames(shown, [1]))):
        with pytest.raises(OutOfReach):
            next(read)


def test_no_byte_of_a_wrong_file_is_handed_out(shelf: Shelf) -> None:
    reader = shelf.reader()
    shown = reader.series(shelf.study, shelf.series).instances[0]
    raw = bytearray(shelf.files[shown.sop_instance_uid])
    raw[-1] ^= 1
    shelf.store.versions[shown.item.key] = [bytes(raw)]
    got: list[bytes] = []
    with pytest.raises(Permanent):
        got.extend(reader.contents.file(shown))
    assert got == []
    with pytest.raises(Permanent) as refused:
        list(map(b"".join, reader.contents.frames(shown, [1])))
    assert refused.value.code == "bad-object"


def test_standing(shelf: Shelf) -> None:
    first, second, third, fourth = shelf.manifest.instances
    other = shelf.files[third.sop_instance_uid][:-2] + b"\1\2"
    twin = replace(instance(shelf.series, third.sop_instance_uid, other, study=shelf.study), stored_at="2027")
    shelf.store.versions[twin.key] = [other]
    shelf.replaced(
        replace(first, damage="cut off"), replace(second, repairs=("found-in-the-store",)), third, fourth, twin
    )
    found = shelf.reader().series(shelf.study, shelf.series)
    assert [one.standing for one in found.instances] == ["damaged", "unknown", "conflicting", "sound"]
    shown = found.instances[2]
    assert shown.item.sha256 == twin.sha256  # what came last
    assert shown.others == (third.sha256,)
    assert [one.item.sha256 for one in found.beside] == [third.sha256]
    assert found.beside[0].standing is Standing.CONFLICTING


def test_a_whole_copy_is_shown_and_not_the_damaged_one(shelf: Shelf) -> None:
    first, *rest = shelf.manifest.instances
    cut = shelf.files[first.sop_instance_uid][:600]
    damaged = replace(
        instance(shelf.series, first.sop_instance_uid, cut, study=shelf.study), damage="cut off", stored_at="2027"
    )
    shelf.store.versions[damaged.key] = [cut]
    shelf.replaced(first, damaged, *rest)
    found = shelf.reader().series(shelf.study, shelf.series)
    assert found.instances[0].item.sha256 == first.sha256
    assert found.instances[0].standing is Standing.SOUND
    assert [one.standing for one in found.beside] == [Standing.DAMAGED]


def test_standing_follows_the_manifest_and_not_the_series_object(shelf: Shelf) -> None:
    reader = shelf.reader(writes=True)
    assert {one.standing for one in reader.series(shelf.study, shelf.series).instances} == {Standing.SOUND}
    first, *rest = shelf.manifest.instances
    shelf.replaced(replace(first, damage="cut off"), *rest)
    found = reader.series(shelf.study, shelf.series)
    assert [one.standing for one in found.instances] == ["damaged", "sound", "sound", "sound"]


# --- erased, and gone ------------------------------------------------------------------------------------------------


def erased(shelf: Shelf) -> Erasure:
    one = Erasure("archive-1", shelf.study, 1, "2027-01-01T00:00:00.000Z", "asked for", 0, "root", 100)
    assert erasures.create(shelf.store, one)
    return one


def test_nothing_is_written_of_a_study_that_was_erased_meanwhile(shelf: Shelf) -> None:
    def erasing(key: str, _number: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if keys.holds_instances(key) and not erasures.newest_number(shelf.store, shelf.study):
            erased(shelf)
        return chunks

    shelf.store.tampering = erasing
    reader = shelf.reader(writes=True)
    reader.series(shelf.study, shelf.series)
    assert shelf.indexes() == []
    with pytest.raises(StudyErased):
        objects.write(shelf.store, SeriesDocument(shelf.study, shelf.series, {}), "0" * 64, 100)
    assert objects.write(shelf.store, SeriesDocument(shelf.study, shelf.series, {}), "0" * 64, 101)


def test_an_erased_study_is_not_shown_from_memory(shelf: Shelf) -> None:
    reader = shelf.reader()
    reader.series(shelf.study, shelf.series)
    erased(shelf)
    for key in [key for key in shelf.store.versions if key.startswith("studies/")]:
        del shelf.store.versions[key]
    with pytest.raises(StudyErased):
        reader.series(shelf.study, shelf.series)


def test_what_is_not_there_is_said(shelf: Shelf) -> None:
    reader = shelf.reader()
    for study, series, sop, code in (
        ("1.2.3", shelf.series, "1", "study-not-found"),
        (shelf.study, "1.2.3", "1", "series-not-found"),
        (shelf.study, shelf.series, "1.2.3", "instance-not-found"),
        ("../x", shelf.series, "1", "invalid-uid"),
    ):
        with pytest.raises(Permanent) as refused:
            reader.instance(study, series, sop)
        assert refused.value.code == code
    shelf.store.fault = OutOfReach("down", endpoint="x")
    with pytest.raises(OutOfReach):
        reader.series(shelf.study, shelf.series)


# --- the document ----------------------------------------------------------------------------------------------------


def test_a_document_is_the_same_again(shelf: Shelf, clip: Shelf) -> None:
    for one in (shelf, clip):
        one.reader(writes=True).series(one.study, one.series)
        [key] = one.indexes()
        data = one.store.versions[key][0]
        document = SeriesDocument.from_bytes(data, one.study, one.series)
        assert document.to_bytes() == data
        with pytest.raises(BadSeriesObject):
            SeriesDocument.from_bytes(data, one.study, Uid("1.2.3"))
        for cut in (0, 1, len(data) // 2, len(data) - 1):
            with pytest.raises(BadSeriesObject):
                SeriesDocument.from_bytes(data[:cut], one.study, one.series)
        with pytest.raises(BadSeriesObject):
            SeriesDocument.from_bytes(data + b"x", one.study, one.series)


def test_what_inflates_to_too_much_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(BadSeriesObject):
        SeriesDocument.from_bytes(bomb, Uid("1.2"), Uid("1.3"))


def test_the_name_is_by_what_the_instances_are(shelf: Shelf) -> None:
    items = list(shelf.manifest.instances)
    assert name_of(items) == name_of(reversed(items)) == name_of(replace(one, etag=None) for one in items)
    assert name_of(items) != name_of(items[:-1])
    assert keys.parse_series_index(keys.series_index(shelf.study, shelf.series, name_of(items), 7)) == (
        shelf.study,
        shelf.series,
        name_of(items),
        7,
    )
    assert hashlib.sha256().digest_size * 2 == len(name_of([]))


# --- read ahead ------------------------------------------------------------------------------------------------------


def test_what_is_read_ahead_is_at_hand(shelf: Shelf) -> None:
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    reader = SeriesReader(shelf.store)
    reader.read_ahead(shelf.study)
    shelf.store.reads.clear()
    assert reader.series(shelf.study, shelf.series).is_stored
    assert shelf.store.reads == []


def test_nothing_is_derived_ahead(shelf: Shelf) -> None:
    """That takes the reading of all files, for somebody who may not ask for them."""
    reader = SeriesReader(shelf.store, writes=True)
    reader.read_ahead(shelf.study)
    assert [key for key in shelf.store.reads if keys.holds_instances(key)] == [] == shelf.indexes()
    assert len(reader.series(shelf.study, shelf.series).instances) == 4


def test_of_a_large_study_nothing_is_read_ahead(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others look at is not pushed out of memory for it."""
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    monkeypatch.setattr("dicomwatchd.series.reader._AHEAD_INSTANCES", 3)
    shelf.store.reads.clear()
    SeriesReader(shelf.store).read_ahead(shelf.study)
    assert [key for key in shelf.store.reads if keys.parse_series_index(key)] == []


def test_what_is_read_ahead_is_no_older_than_the_study(shelf: Shelf, tmp_path: Path) -> None:
    shelf.reader(writes=True).series(shelf.study, shelf.series)
    reader = shelf.reader()
    reader.read_ahead(shelf.study)
    [more] = Maker(seed=9).ct_series(tmp_path / "more", slices=1, rows=64, columns=64)
    raw = more.path.read_bytes()
    shelf.add([(shelf.series, more.sop_instance_uid, raw)])
    assert len(reader.series(shelf.study, shelf.series).instances) == 5
