"""Attacks on the manifest and on object keys: nothing hostile gets through, nothing recorded gets lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.stores.port import Buffer, Content, Receipt, StoredObject
from dicomwatchd.errors import BadManifest, Permanent, Transient
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order

STUDY = Uid("1.2.840.1")
SERIES = Uid("1.2.840.1.7")
OTHER_SERIES = Uid("1.2.840.1.8")
CT = "1.2.840.10008.5.1.4.1.1.2"

STUDY_ATTRIBUTES: DicomJson = {
    "00080020": {"vr": "DA", "Value": ["20241107"]},
    "00080050": {"vr": "SH", "Value": ["A-17"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Wáng^Xiǎo", "Ideographic": "王^小東"}]},
    "00100020": {"vr": "LO", "Value": ["PID-1"]},
}
SERIES_ATTRIBUTES: DicomJson = {"00080060": {"vr": "CS", "Value": ["CT"]}}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def instance(
    number: int,
    content: str = "",
    *,
    series: Uid = SERIES,
    attempt: int = 1,
    size_bytes: int = 100,
    stored_at: str = "2024-11-07T10:00:00Z",
) -> ManifestInstance:
    uid, digest = Uid(f"1.2.840.1.7.{number}"), sha(content or f"bytes of {number}")
    return ManifestInstance(
        series_uid=series,
        sop_instance_uid=uid,
        sop_class_uid=CT,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        key=keys.instance(STUDY, series, uid, digest, attempt),
        size_bytes=size_bytes,
        object_bytes=size_bytes,
        sha256=digest,
        etag="0" * 32,
        version_id=None,
        original_path=f"CANARY^Ä/IM{number:04d}",
        inbox="ct1",
        stored_at=stored_at,
        verified_by="etag-md5",
        repairs=("study UID: trailing NUL dropped",) if number == 1 else (),
    )


def add(
    base: Manifest,
    *instances: ManifestInstance,
    attributes: DicomJson = STUDY_ATTRIBUTES,
    series: dict[Uid, DicomJson] | None = None,
    flags: tuple[str, ...] = (),
    damaged_keys: tuple[str, ...] = (),
    created_at: str = "2024-11-07T10:01:00Z",
) -> Manifest:
    return base.merged(
        instances,
        attributes=attributes,
        series={SERIES: SERIES_ATTRIBUTES} if series is None else series,
        flags=flags,
        damaged_keys=damaged_keys,
        created_at=created_at,
        created_by="dicomwatchd 1",
    )


EMPTY = empty("archive-1", STUDY)
FIRST = add(EMPTY, instance(2), instance(1))


def tampered(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The first manifest's JSON after ``change`` has had its way with it."""
    raw = json.loads(FIRST.to_bytes())
    change(raw)
    return json.dumps(raw).encode()


# --- round trip ---


def test_a_manifest_comes_back_as_it_was() -> None:
    again = Manifest.from_bytes(FIRST.to_bytes())
    assert again == FIRST
    assert again.to_bytes() == FIRST.to_bytes()
    assert again.sha256 == FIRST.sha256 == hashlib.sha256(FIRST.to_bytes()).hexdigest()
    assert again.instances[0].repairs == ("study UID: trailing NUL dropped",)
    assert isinstance(again.instances[0].series_uid, Uid)


def test_the_text_is_ascii_json_with_one_instance_a_line() -> None:
    text = FIRST.to_bytes().decode("ascii")
    assert json.loads(text)["attributes"]["00100010"]["Value"][0]["Ideographic"] == "王^小東"
    assert [line for line in text.splitlines() if "IM0002" in line and "IM0001" not in line] != []


def test_a_manifest_without_instances_is_json_too() -> None:
    bare = replace(FIRST, instances=())
    assert Manifest.from_bytes(bare.to_bytes()) == bare


def test_a_path_that_is_no_unicode_survives() -> None:
    odd = add(EMPTY, replace(instance(1), original_path=os.fsdecode(b"Z\xfcrich/\xff")))
    assert os.fsencode(Manifest.from_bytes(odd.to_bytes()).instances[0].original_path) == b"Z\xfcrich/\xff"


def test_the_same_content_gives_the_same_bytes_whatever_the_order() -> None:
    reversed_attributes = dict(reversed(STUDY_ATTRIBUTES.items()))
    other = add(EMPTY, instance(1), instance(2), attributes=reversed_attributes)
    assert other.to_bytes() == FIRST.to_bytes()


def test_the_digest_is_that_of_the_stored_bytes_not_of_our_way_of_writing_them() -> None:
    """What another version of the program wrote, or a person's editor re-indented, keeps its own digest."""
    data = json.dumps(json.loads(FIRST.to_bytes()), indent=4).encode()
    read = Manifest.from_bytes(data)
    assert read == FIRST
    assert read.sha256 == hashlib.sha256(data).hexdigest()
    assert read.record().manifest_sha256 == hashlib.sha256(data).hexdigest()
    second = add(read, instance(3))
    assert second.previous_sha256 == hashlib.sha256(data).hexdigest()


def test_a_changed_copy_does_not_keep_the_old_bytes() -> None:
    FIRST.to_bytes()
    changed = replace(FIRST, created_by="somebody else")
    assert b"somebody else" in changed.to_bytes()
    assert changed.sha256 != FIRST.sha256


# --- hostile JSON ---


def set_in(path: tuple[str | int, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        where: Any = raw
        for part in path[:-1]:
            where = where[part]
        where[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        where: Any = raw
        for part in path[:-1]:
            where = where[part]
        del where[path[-1]]

    return change


GOOD_KEY = FIRST.instances[0].key
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": set_in(("format",), "dicomwatchd-manifest"),
    "no format": drop("format"),
    "no instances": drop("instances"),
    "study is a path": set_in(("study_uid",), "../../etc"),
    "study is a number": set_in(("study_uid",), 12),
    "archive id is no text": set_in(("archive_id",), None),
    "revision 0": set_in(("revision",), 0),
    "revision below 0": set_in(("revision",), -1),
    "revision of nine digits": set_in(("revision",), 100_000_000),
    "revision is text": set_in(("revision",), "1"),
    "revision is a fraction": set_in(("revision",), 1.5),
    "revision is true": set_in(("revision",), True),
    "previous is no digest": set_in(("previous_sha256",), "abc"),
    "previous is a list": set_in(("previous_sha256",), []),
    "flags are one text": set_in(("flags",), "abc"),
    "a flag is a number": set_in(("flags",), [1]),
    "damaged keys are one text": set_in(("damaged_keys",), "abc"),
    "a damaged key is null": set_in(("damaged_keys",), [None]),
    "attributes are pairs": set_in(("attributes",), [["00100020", {"vr": "LO"}]]),
    "an attribute is text": set_in(("attributes", "00100020"), "PID"),
    "an attribute is null": set_in(("attributes", "00100020"), None),
    "an attribute is NaN": set_in(("attributes", "00100020"), {"vr": "FD", "Value": [float("nan")]}),
    "an attribute is endless": set_in(("attributes", "00100020"), {"vr": "FD", "Value": [float("-inf")]}),
    "series are a list": set_in(("series",), []),
    "a series is no UID": set_in(("series", "../x"), {}),
    "series attributes are pairs": set_in(("series", str(SERIES)), [["a", "b"]]),
    "a series attribute is text": set_in(("series", str(SERIES)), {"00080060": "CT"}),
    "instances are an object": set_in(("instances",), {}),
    "an instance is text": set_in(("instances", 0), "x"),
    "an instance is there twice": lambda raw: raw["instances"].append(raw["instances"][0]),
    "an instance without a key": drop("instances", 0, "key"),
    "an instance with more than we know": set_in(("instances", 0, "delete"), "yes"),
    "instance series is a path": set_in(("instances", 0, "series_uid"), "../../x"),
    "instance UID is a path": set_in(("instances", 0, "sop_instance_uid"), "/etc/passwd"),
    "a size below 0": set_in(("instances", 0, "size_bytes"), -1),
    "a size beyond any store": set_in(("instances", 0, "size_bytes"), 10**30),
    "a size that is text": set_in(("instances", 0, "size_bytes"), "100"),
    "a size that is a fraction": set_in(("instances", 0, "size_bytes"), 1.0),
    "a size that is true": set_in(("instances", 0, "size_bytes"), True),
    "a digest in capitals": set_in(("instances", 0, "sha256"), FIRST.instances[0].sha256.upper()),
    "a digest cut short": set_in(("instances", 0, "sha256"), "ab"),
    "an ETag that is a number": set_in(("instances", 0, "etag"), 5),
    "a version that is a list": set_in(("instances", 0, "version_id"), []),
    "a version that no request can name": set_in(("instances", 0, "version_id"), "\ud800"),
    "an ETag that no request can name": set_in(("instances", 0, "etag"), "\udfff"),
    "a path that is null": set_in(("instances", 0, "original_path"), None),
    "a SOP class that is an object": set_in(("instances", 0, "sop_class_uid"), {}),
    "repairs that are one text": set_in(("instances", 0, "repairs"), "abc"),
    "a repair that is a number": set_in(("instances", 0, "repairs"), [3]),
    "key of another instance": set_in(("instances", 0, "key"), FIRST.instances[1].key),
    "key elsewhere": set_in(("instances", 0, "key"), "archive.json"),
    "key that climbs": set_in(("instances", 0, "key"), GOOD_KEY.removesuffix(".dcm") + "/../../../x.dcm"),
    "key with a wordy suffix": set_in(("instances", 0, "key"), GOOD_KEY.removesuffix(".dcm") + "-evil.dcm"),
    "key with repair 1": set_in(("instances", 0, "key"), GOOD_KEY.removesuffix(".dcm") + "-1.dcm"),
    "key with repair 02": set_in(("instances", 0, "key"), GOOD_KEY.removesuffix(".dcm") + "-02.dcm"),
    "key with a line feed": set_in(("instances", 0, "key"), GOOD_KEY + "\n"),
    "key that is a list": set_in(("instances", 0, "key"), [GOOD_KEY]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tampered_manifest_is_refused_as_a_whole(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(Permanent) as caught:
        Manifest.from_bytes(tampered(change))
    assert caught.value.code == "bad-manifest"
    assert "CANARY" not in str(caught.value) and "etc" not in str(caught.value)


def test_a_newer_programs_manifest_is_refused_and_is_not_called_damaged() -> None:
    """Else the older program would record the study anew, without what the newer one has added."""
    with pytest.raises(Permanent) as caught:
        Manifest.from_bytes(tampered(set_in(("format",), "dicomwatchd-manifest/4")))
    assert caught.value.code == "newer-manifest"


def test_the_untampered_one_is_taken() -> None:
    """The counterpart: the attacks above fail for what they change and not for how they are written."""
    assert Manifest.from_bytes(tampered(lambda raw: None)) == FIRST


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"1e999",
        b"{",
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        FIRST.to_bytes()[:-5],
        FIRST.to_bytes().replace(b'"revision": 1', b'"revision": 1e999'),
        FIRST.to_bytes().replace(b'"revision": 1', b'"revision": NaN'),
        FIRST.to_bytes().replace(b'"vr": "CS"', b'"vr": 1e999'),
        # Which of these Python's reader takes depends on its version and on the stack it has left.
        *(FIRST.to_bytes().replace(b'"vr": "CS"', b'"vr": ' + b"[" * n + b"]" * n) for n in (100, 500, 5_000, 50_000)),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(Permanent) as caught:
        Manifest.from_bytes(data)
    assert caught.value.code == "bad-manifest"


def test_attributes_may_be_nested_deeper_than_any_that_are_written() -> None:
    data = FIRST.to_bytes().replace(b'"vr": "CS"', b'"vr": ' + b"[" * 99 + b"]" * 99)
    assert Manifest.from_bytes(data).to_bytes() == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_fuzz_bytes(data: bytes) -> None:
    with pytest.raises(Permanent):
        Manifest.from_bytes(data)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_fuzz_one_value_changed(data: st.DataObject) -> None:
    """Either refused as a manifest, or whole: then everything that is done with one works."""
    raw = json.loads(FIRST.to_bytes())
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))
            walk(inner)

    walk(raw)
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(json_values)
    try:
        read = Manifest.from_bytes(json.dumps(raw).encode())
    except Permanent:
        return
    record = read.record()
    assert record.instances == len(read.instances) == sum(series.instances for series in record.series)
    assert record.study_date == "" or (len(record.study_date) == 8 and record.study_date.isascii())
    for item in read.instances:
        assert item.key.startswith(keys.series_prefix(read.study_uid, item.series_uid))
        assert "/.." not in item.key
    if read.revision < 99_999_999:
        following = read.merged(
            [instance(77)],
            attributes=STUDY_ATTRIBUTES,
            series={},
            flags=["x"],
            damaged_keys=[],
            created_at="2024-11-08T00:00:00Z",
            created_by="y",
        )
        if read.study_uid == STUDY:
            assert Manifest.from_bytes(following.to_bytes()) == following


# --- merging ---


def test_the_first_revision() -> None:
    assert FIRST.revision == 1
    assert FIRST.previous_sha256 is None
    assert FIRST.key == "studies/1.2.840.1/manifests/00000001.json"
    assert [item.sop_instance_uid for item in FIRST.instances] == ["1.2.840.1.7.1", "1.2.840.1.7.2"]


def test_nothing_new_is_no_revision() -> None:
    assert add(FIRST, instance(1), instance(2), created_at="2025-01-01T00:00:00Z") is FIRST


def test_nothing_new_after_a_round_trip_either() -> None:
    read = Manifest.from_bytes(FIRST.to_bytes())
    assert add(read, instance(2)) is read


def test_a_late_slice_gives_the_next_revision_chained_to_the_last() -> None:
    second = add(FIRST, instance(3), created_at="2024-11-08T00:00:00Z")
    assert (second.revision, second.previous_sha256) == (2, FIRST.sha256)
    assert second.created_at == "2024-11-08T00:00:00Z"
    assert set(second.instances) == {instance(1), instance(2), instance(3)}
    assert FIRST.revision == 1 and len(FIRST.instances) == 2


def test_what_was_recorded_first_of_an_instance_stays() -> None:
    again = replace(instance(1), stored_at="2030-01-01T00:00:00Z", original_path="elsewhere", inbox="ct2")
    assert add(FIRST, again) is FIRST


def test_one_sop_uid_with_other_bytes_keeps_both_and_says_so() -> None:
    second = add(FIRST, instance(1, "other bytes"))
    assert len(second.instances) == 3
    assert second.flags == ("sop-instance-uid-repeated",)


def test_one_sop_uid_in_two_series_keeps_both_and_says_so() -> None:
    second = add(FIRST, instance(1, series=OTHER_SERIES))
    assert len(second.instances) == 3
    assert second.flags == ("sop-instance-uid-repeated",)
    assert [s.instances for s in second.record().series] == [2, 1]


def test_attributes_are_added_and_never_rewritten() -> None:
    second = add(
        FIRST,
        instance(3),
        attributes={
            "00100020": {"vr": "LO", "Value": ["SOMEBODY ELSE"]},
            "00081030": {"vr": "LO", "Value": ["Head"]},
        },
        series={SERIES: {"00080060": {"vr": "CS", "Value": ["MR"]}}, OTHER_SERIES: {}},
        flags=("patient-id-differs",),
    )
    assert second.attributes == {**STUDY_ATTRIBUTES, "00081030": {"vr": "LO", "Value": ["Head"]}}
    assert second.series == {SERIES: SERIES_ATTRIBUTES, OTHER_SERIES: {}}
    assert second.flags == ("patient-id-differs",)


@pytest.mark.parametrize(
    ("known_by", "flags"),
    [("guess", ("charset-guessed",)), ("declaration", ("charset-guessed",)), ("configuration", ()), (["x"], ())],
)
def test_text_that_was_guessed_is_flagged(known_by: object, flags: tuple[str, ...]) -> None:
    name = {"vr": "PN", "Value": [{"Alphabetic": "X"}], "raw": "WA==", "charset": "ISO_IR 100", "charset_by": known_by}
    first = add(EMPTY, attributes={"00081048": name})
    assert first.flags == flags
    assert Manifest.from_bytes(first.to_bytes()) == first
    later = add(FIRST, attributes={"00081048": name})
    assert later.flags == flags and later.record().flags == flags
    assert add(FIRST, series={Uid("1.9"): {"00081070": name}}).flags == flags
    [known, *_] = (tag for tag, element in SERIES_ATTRIBUTES.items() if "Value" in element)
    assert add(FIRST, series={SERIES: {known: name}}).flags == (), "what was recorded first wins"


def test_flags_and_damaged_keys_add_up_sorted() -> None:
    second = add(FIRST, flags=("z", "a"), damaged_keys=("k2", "k1"))
    third = add(second, flags=("m",), damaged_keys=("k0",))
    assert third.flags == ("a", "m", "z")
    assert third.damaged_keys == ("k0", "k1", "k2")
    assert third.revision == 3


def test_a_repaired_object_takes_the_damaged_ones_place() -> None:
    repaired = instance(1, attempt=2)
    second = add(FIRST, repaired, damaged_keys=(instance(1).key,))
    assert second.instances == (repaired, instance(2))
    assert second.damaged_keys == (instance(1).key,)
    assert add(second, repaired) is second
    assert Manifest.from_bytes(second.to_bytes()) == second


def test_a_repair_of_the_repair() -> None:
    second = add(FIRST, instance(1, attempt=2), damaged_keys=(instance(1).key,))
    third = add(second, instance(1, attempt=3), damaged_keys=(instance(1, attempt=2).key,))
    assert third.instances == (instance(1, attempt=3), instance(2))


def test_a_damaged_object_without_a_repair_is_not_forgotten() -> None:
    """The manifest is the only list of what was archived: an instance never drops out of it."""
    second = add(FIRST, damaged_keys=(instance(1).key,))
    assert second.instances == FIRST.instances
    assert second.damaged_keys == (instance(1).key,)
    third = add(second, instance(1, attempt=2))
    assert third.instances == (instance(1, attempt=2), instance(2))


def test_a_damaged_key_never_takes_the_place_of_a_good_one() -> None:
    second = add(FIRST, instance(1, attempt=2), damaged_keys=(instance(1).key,))
    assert add(second, instance(1)) is second


def test_the_better_of_two_in_one_shipment() -> None:
    both = add(EMPTY, instance(1), instance(1, attempt=2), damaged_keys=(instance(1).key,))
    assert both.instances == (instance(1, attempt=2),)
    other_way = add(EMPTY, instance(1, attempt=2), instance(1), damaged_keys=(instance(1).key,))
    assert other_way.to_bytes() == both.to_bytes()


shipments = st.lists(
    st.lists(
        st.builds(
            instance,
            st.integers(1, 5),
            st.sampled_from(["", "x", "y"]),
            series=st.sampled_from([SERIES, OTHER_SERIES]),
            attempt=st.integers(1, 2),
        ),
        max_size=5,
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(shipments, st.sets(st.integers(1, 5), max_size=3))
def test_no_content_is_ever_lost_whatever_is_merged(batches: list[list[ManifestInstance]], damaged: set[int]) -> None:
    damaged_keys = tuple(instance(number).key for number in damaged)
    current, seen = EMPTY, set()
    for batch in batches:
        following = add(current, *batch, damaged_keys=damaged_keys)
        seen |= {(i.series_uid, i.sop_instance_uid, i.sha256) for i in batch}
        assert {(i.series_uid, i.sop_instance_uid, i.sha256) for i in following.instances} == seen
        assert following.revision in (current.revision, current.revision + 1)
        assert (following is current) == (following == current)
        assert add(following, *batch, damaged_keys=damaged_keys) is following
        current = following
    if current.revision:
        assert Manifest.from_bytes(current.to_bytes()).to_bytes() == current.to_bytes()


# --- the catalogue's record ---


def test_the_record() -> None:
    record = add(FIRST, instance(9, series=OTHER_SERIES, size_bytes=7)).record()
    assert record.study_uid == STUDY
    assert (record.revision, record.instances, record.size_bytes) == (2, 3, 207)
    assert (record.patient_id, record.accession_number, record.study_date) == ("PID-1", "A-17", "20241107")
    assert record.modalities == ("CT",)
    assert record.archived_at == "2024-11-07T10:01:00Z"
    assert record.attributes == STUDY_ATTRIBUTES
    first, other = record.series
    assert (first.series_uid, first.modality, first.instances, first.size_bytes) == (SERIES, "CT", 2, 200)
    assert (other.series_uid, other.modality, other.instances, other.attributes) == (OTHER_SERIES, "", 1, {})


def test_the_record_is_a_function_of_the_manifest() -> None:
    assert Manifest.from_bytes(FIRST.to_bytes()).record() == FIRST.record()


@pytest.mark.parametrize(
    ("element", "date"),
    [
        ({"vr": "DA", "Value": ["20241107"]}, "20241107"),
        ({"vr": "DA", "Value": ["2024.11.07"]}, ""),
        ({"vr": "DA", "Value": ["²²²²²²²²"]}, ""),
        ({"vr": "DA", "Value": ["٢٠٢٤١١٠٧"]}, ""),
        ({"vr": "DA", "Value": ["2024110"]}, ""),
        ({"vr": "DA", "Value": []}, ""),
        ({"vr": "DA", "Value": [None]}, ""),
        ({"vr": "DA", "Value": None}, ""),
        ({"vr": "DA", "Value": "20241107"}, ""),
        ({"vr": "DA", "Value": [["20241107"]]}, ""),
        ({"vr": "DA"}, ""),
    ],
)
def test_a_study_date_is_eight_ascii_digits_or_nothing(element: dict[str, object], date: str) -> None:
    assert add(EMPTY, instance(1), attributes={"00080020": element}).record().study_date == date


def test_a_structure_where_text_belongs_is_no_patient_id() -> None:
    attributes: DicomJson = {"00100020": {"vr": "PN", "Value": [{"Alphabetic": "CANARY"}]}}
    assert add(EMPTY, instance(1), attributes=attributes).record().patient_id == ""


# --- in the store ---


class MemoryStore:
    """Objects created once, as the port says; only what manifests need of it."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    def put(self, key: str, content: Content) -> Receipt:
        data = content.read(0, content.digest.size_bytes)
        created = self.objects.setdefault(key, data) is data
        return Receipt(key, len(data), content.digest.sha256, created)

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        yield from (StoredObject(key, len(self.objects[key])) for key in sorted(self.objects) if key.startswith(prefix))

    def read(self, key: str, version_id: str | None = None, **_: Any) -> Iterator[bytes]:
        yield self.objects[key]


def as_store(store: MemoryStore) -> Any:
    return store


def test_create_says_who_owns_the_revision() -> None:
    store = MemoryStore()
    assert manifests.create(as_store(store), FIRST)
    assert manifests.create(as_store(store), FIRST)
    assert not manifests.create(as_store(store), replace(FIRST, created_by="another site"))
    assert lineage.current(as_store(store), STUDY) == FIRST


def test_the_latest_is_the_highest_revision_and_nothing_else_counts() -> None:
    second = add(FIRST, instance(3))
    store = MemoryStore({FIRST.key: FIRST.to_bytes(), second.key: second.to_bytes()})
    for name in ("00000000.json", "99999999.json.tmp", "0000003.json", "00000003.JSON", "x/00000009.json"):
        store.objects[keys.manifests_prefix(STUDY) + name] = b"junk"
    store.objects[f"studies/{STUDY}0/manifests/00000009.json"] = b"another study"
    found = manifests.listed(as_store(store), STUDY)
    assert (found.newest, len(found.revisions), len(found.strangers)) == (2, 2, 5)
    assert lineage.current(as_store(store), STUDY) == second
    assert lineage.current(as_store(store), Uid("1.2.9")) is None


def test_a_bit_changed_on_the_way_here_never_gets_into_the_next_revision() -> None:
    good = FIRST.to_bytes()
    bad = good.replace(b'"size_bytes": 100', b'"size_bytes": 101', 1)
    assert Manifest.from_bytes(bad) != FIRST, "it can be read, and says something else"

    class OnceBad(MemoryStore):
        times = 0

        def read(self, key: str, version_id: str | None = None, **_: Any) -> Iterator[bytes]:
            self.times += 1
            yield bad if self.times == 1 else good

    with pytest.raises(Transient):
        manifests.load(as_store(OnceBad({FIRST.key: good})), FIRST.key)
    with pytest.raises(Transient):
        manifests.load(as_store(OnceBad({FIRST.key: good})), FIRST.key, sha256=FIRST.sha256)
    assert manifests.load(as_store(MemoryStore({FIRST.key: good})), FIRST.key, sha256=FIRST.sha256) == FIRST


def test_a_manifest_under_anothers_key_is_refused() -> None:
    key = keys.manifest(STUDY, 2)
    with pytest.raises(Permanent) as caught:
        manifests.load(as_store(MemoryStore({key: FIRST.to_bytes()})), key)
    assert caught.value.code == "bad-manifest"


# --- keys ---


@pytest.mark.parametrize(
    "key",
    [
        "studies/../manifests/00000001.json",
        "studies/1..2/manifests/00000001.json",
        "studies/./manifests/00000001.json",
        "studies/" + "1." * 40 + "1/manifests/00000001.json",
        "studies/1.2/manifests/00000000.json",
        "studies/1.2/manifests/1.json",
        "studies/1.2/manifests/000000001.json",
        "studies/1.2/manifests/00000001.json\n",
        "studies/1.2/manifests/٠٠٠٠٠٠٠١.json",
        "x/studies/1.2/manifests/00000001.json",
        "studies/1.2/series/3/4/" + "a" * 64 + ".dcm",
        "archive.json",
        "",
    ],
)
def test_what_is_no_manifests_key(key: str) -> None:
    assert keys.parse_manifest(key) is None


@given(st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", fullmatch=True), st.integers(1, 99_999_999))
def test_manifest_keys_round_trip(uid: str, revision: int) -> None:
    assert keys.parse_manifest(keys.manifest(Uid(uid), revision)) == (uid, revision)


@given(st.text(max_size=60))
def test_fuzz_parse_manifest(text: str) -> None:
    found = keys.parse_manifest(text)
    assert found is None or keys.manifest(*found) == text


@pytest.mark.parametrize("revision", [0, -1, 100_000_000])
def test_there_is_no_key_for_a_revision_out_of_range(revision: int) -> None:
    with pytest.raises(ValueError, match="revisions"):
        keys.manifest(STUDY, revision)


def test_instance_keys() -> None:
    digest, sop_instance = "a" * 64, Uid("1.3")
    first = keys.instance(STUDY, SERIES, sop_instance, digest)
    assert first == f"studies/{STUDY}/series/{SERIES}/1.3/{digest}.dcm"
    assert keys.instance(STUDY, SERIES, sop_instance, digest, 2) == first.replace(".dcm", "-2.dcm")
    for bad in ("A" * 64, "a" * 63, "a" * 64 + "\n", "../" + "a" * 61):
        with pytest.raises(ValueError, match="SHA-256"):
            keys.instance(STUDY, SERIES, sop_instance, bad)
    for attempt in (0, -1):
        with pytest.raises(ValueError, match="attempt"):
            keys.instance(STUDY, SERIES, sop_instance, digest, attempt)


# --- the first value of each attribute, and every patient ---

BLANK_NAME: DicomJson = {"00100010": {"vr": "PN"}, "00100020": {"vr": "LO", "Value": [None, " "]}}


def test_what_is_empty_is_filled_by_the_first_who_has_it() -> None:
    without = replace(FIRST, attributes={**STUDY_ATTRIBUTES, **BLANK_NAME}, series={SERIES: {"00080060": {"vr": "CS"}}})
    filled = add(without, instance(3))
    assert filled.attributes == STUDY_ATTRIBUTES and filled.series == {SERIES: SERIES_ATTRIBUTES}
    later = add(filled, instance(4), attributes={"00100020": {"vr": "LO", "Value": ["LATER"]}})
    assert later.attributes == STUDY_ATTRIBUTES


def test_an_empty_attribute_is_not_recorded_so_that_it_can_be_filled() -> None:
    """An earlier version takes a revision that fills one on record for one that changes it."""
    first = add(EMPTY, instance(1), attributes={**STUDY_ATTRIBUTES, **BLANK_NAME})
    assert not {"00100010", "00100020"} & set(first.attributes)
    known = replace(FIRST, attributes={**STUDY_ATTRIBUTES, **BLANK_NAME})
    assert add(known, instance(3), attributes=BLANK_NAME).attributes == known.attributes, "nothing drops out"


OTHER = Identity("PID-2", name="Other^One")


def naming(base: Manifest, *identities: Identity, instances: tuple[ManifestInstance, ...] = ()) -> Manifest:
    return base.merged(
        instances,
        attributes=STUDY_ATTRIBUTES,
        series={SERIES: SERIES_ATTRIBUTES},
        flags=(),
        damaged_keys=(),
        created_at="2024-11-07T10:02:00Z",
        created_by="dicomwatchd 1",
        identities=identities,
        orders=(Order("A-17"),),
    )


def test_every_patient_is_recorded_and_comes_back() -> None:
    mine = Identity.of(STUDY_ATTRIBUTES)
    second = naming(FIRST, OTHER)
    assert second.identities == (mine, OTHER) and second.revision == 2
    again = Manifest.from_bytes(second.to_bytes())
    assert again == second and again.record().identities == (mine, OTHER)
    assert naming(again, OTHER, mine, Identity("PID-2")) is again, "nothing new is no revision"
    third = add(second, instance(3))
    assert third.identities == second.identities


def test_a_manifest_of_an_earlier_version_names_whom_its_attributes_do() -> None:
    assert b'"identities"' not in FIRST.to_bytes() and FIRST.identities == ()
    record = FIRST.record()
    assert record.identities == (Identity.of(STUDY_ATTRIBUTES),) and record.orders == (Order("A-17"),)
    assert naming(FIRST, Identity.of(STUDY_ATTRIBUTES)) is FIRST, "what is known already makes no revision"


@pytest.mark.parametrize("bad", [{}, [1], [{"patient_id": 1}], "x", [["a"]]])
@pytest.mark.parametrize("member", ["identities", "orders"])
def test_identities_that_are_none_are_refused(member: str, bad: object) -> None:
    with pytest.raises(BadManifest):
        Manifest.from_bytes(tampered(set_in((member,), bad)))


def test_a_key_of_a_newer_version_does_no_harm() -> None:
    data = tampered(set_in(("identities",), [{"patient_id": "P", "passport": "X"}]))
    assert Manifest.from_bytes(data).identities == (Identity("P"),)


def lineage_of(*revisions: Manifest) -> lineage.Lineage:
    store = MemoryStore()
    for one in revisions:
        store.put(one.key, Buffer.of(one.to_bytes()))
    return lineage.trace(as_store(store), manifests.listed(as_store(store), STUDY), None)


def test_a_revision_that_fills_an_attribute_counts_and_one_that_changes_it_does_not() -> None:
    empty_one = add(EMPTY, instance(1), attributes={})
    empty_one = replace(empty_one, attributes=BLANK_NAME, series={SERIES: {"00080060": {"vr": "CS"}}})
    filled = add(empty_one, instance(3))
    found = lineage_of(empty_one, filled)
    assert found.current is not None and found.current.revision == 2 and found.holds
    changed = replace(filled, attributes={**filled.attributes, "00100020": {"vr": "LO", "Value": ["X"]}}, revision=3,
                      previous_sha256=filled.sha256)  # fmt: skip
    assert lineage_of(empty_one, filled, changed).current == filled
    of_series = replace(filled, series={SERIES: {"00080060": {"vr": "CS", "Value": ["MR"]}}}, revision=3,
                        previous_sha256=filled.sha256)  # fmt: skip
    assert lineage_of(empty_one, filled, of_series).current == filled


def test_a_program_that_leaves_the_patients_out_hides_none() -> None:
    """An earlier version records no identities; whoever may only create objects must not hide one either."""
    second = naming(FIRST, OTHER)
    third = replace(add(second, instance(3)), identities=(), orders=())
    found = lineage_of(FIRST, second, third)
    assert found.holds and found.current is not None and found.current.revision == 3
    assert set(found.current.record().identities or ()) == {Identity.of(STUDY_ATTRIBUTES), OTHER}
    assert found.current.sha256 == third.sha256
