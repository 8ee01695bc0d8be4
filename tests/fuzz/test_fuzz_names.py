"""Names from outside: UIDs, keys, file names. Whatever they are, nothing leaves its folder, and the errors are ours."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.audit_checkpoints import AuditCheckpoint
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import DicomwatchdError, InvalidUid, Permanent, Unarchivable
from dicomwatchd.fetch import Fetcher, file_names
from dicomwatchd.intake.dicom.header import Header, read_header
from dicomwatchd.intake.scan import Globs
from dicomwatchd.localfiles import printable
from dicomwatchd.model import UID_MAX_LENGTH, FileIdentity, Uid
from dicomwatchd.queue.rows import identity_of, identity_text
from tests.simulation import tiny
from tests.unit.memory_archive import MemoryStore, archive

#: What makes trouble in paths, keys and patterns, besides digits and dots.
NASTY = st.text(st.sampled_from("0123456789.../\\\0\n %~-*\u00e9\u0661\ud800ab"), max_size=80)
UIDS = st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,12}){0,4}", fullmatch=True).filter(
    lambda text: len(text) <= UID_MAX_LENGTH
)


def is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\\0\n") and os.path.basename(name) == name


@given(NASTY | st.text(max_size=200) | UIDS)
@example("..")
@example(".")
@example("1..2")
@example("1.2\n")
@example("\u0661.2")
@example("../../etc/passwd")
@settings(max_examples=1000, deadline=None)
def test_a_uid_is_a_plain_name_or_none(text: str) -> None:
    try:
        uid = Uid(text)
    except InvalidUid as error:
        assert len(text) < 20 or text not in str(error)  # noqa: PT017
        return
    assert uid == text
    assert is_plain_name(uid)
    assert uid.isascii()
    assert set(uid) <= set("0123456789.")
    assert len(uid) <= UID_MAX_LENGTH


@given(NASTY | st.text(max_size=100))
@example("studies/../manifests/00000001.json")
@example("studies/1.2/manifests/00000001.json\n")
@example("studies/1.2/manifests/00000000.json")
@example("studies/1.2/manifests/\u0660000000\u0661.json")
@settings(max_examples=500, deadline=None)
def test_only_a_manifests_key_is_one(text: str) -> None:
    found = keys.parse_manifest(text)
    if found is not None:
        assert keys.manifest(*found) == text


@given(UIDS, st.integers(-5, keys.HIGHEST_REVISION + 5))
def test_a_manifests_key_comes_back(study: str, revision: int) -> None:
    if 1 <= revision <= keys.HIGHEST_REVISION:
        assert keys.parse_manifest(keys.manifest(Uid(study), revision)) == (study, revision)
    else:
        with pytest.raises(ValueError, match="revisions"):
            keys.manifest(Uid(study), revision)


@given(UIDS, UIDS, UIDS, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.integers(1, 999_999), NASTY)
@settings(max_examples=300, deadline=None)
def test_only_an_instances_own_keys_are_its_keys(
    study: str, series: str, sop: str, digest: str, attempt: int, tail: str
) -> None:
    own = (Uid(study), Uid(series), Uid(sop), digest)
    key = keys.instance(*own, attempt)
    assert keys.is_instance(key, *own)
    assert key.count("/") == 5
    assert all(is_plain_name(part) for part in key.split("/"))
    if tail:
        assert not keys.is_instance(key + tail, *own)
        assert not keys.is_instance(key.removesuffix(".dcm") + tail + ".dcm", *own) or tail.isdigit() or tail[0] == "-"
    assert not keys.is_instance(key, Uid(study + ".1") if len(study) < 60 else Uid("1"), *own[1:])


# -- from the header of a file --------------------------------------------------------------------------------------


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
@example(b"../../etc/passwd", b"1.2", b"1.2")
@example(b"1.2\0\0", b" 1.2 ", b"1.2\0 ")
@settings(max_examples=500, deadline=None)
def test_whatever_uids_a_file_has_its_key_lies_below_the_studies(study: bytes, series: bytes, sop: bytes) -> None:
    data = _instance(study, series, sop)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            header = read_header(file.fileno(), len(data))
        except Unarchivable as error:
            assert error.code in ("no-uid", "bad-uid", "truncated", "malformed", "not-dicom")  # noqa: PT017
            return
    assert isinstance(header, Header)
    uids = header.instance
    key = keys.instance(uids.study_uid, uids.series_uid, uids.sop_instance_uid, "0" * 64)
    assert key.startswith("studies/")
    assert all(is_plain_name(part) for part in key.split("/"))
    assert key.count("/") == 5


def _instance(study: bytes, series: bytes, sop: bytes) -> bytes:
    """A tiny instance with these bytes for its UIDs."""
    template = tiny.instance("1.2.3", "1.2.3.4", "1.2.3.4.5", 1)

    def element(group: int, number: int, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, b"UI", len(value)) + value

    data = template.replace(element(0x0020, 0x000D, b"1.2.3\0"), element(0x0020, 0x000D, study))
    data = data.replace(element(0x0020, 0x000E, b"1.2.3.4\0"), element(0x0020, 0x000E, series))
    return data.replace(element(0x0008, 0x0018, b"1.2.3.4.5\0"), element(0x0008, 0x0018, sop))


# -- what a fetch makes ---------------------------------------------------------------------------------------------

CONTENTS = st.lists(
    st.tuples(st.sampled_from(["1.1", "1.2", "0.0"]), st.sampled_from(["1", "1.1", "2", "00.1"]), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


@given(CONTENTS)
@settings(max_examples=60, deadline=None)
def test_a_fetch_stays_in_its_folder_and_gives_each_content_a_name_of_its_own(
    contents: list[tuple[str, str, int]],
) -> None:
    store = MemoryStore()
    files = [(Uid(series), sop, b"content %d" % number) for series, sop, number in contents]
    manifest = archive(store, files)
    named = file_names(manifest.instances)
    assert len({(item.series_uid, name) for item, name in named}) == len(manifest.instances)
    assert all(is_plain_name(name) and name.endswith(".dcm") for _, name in named)
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "inner" / "target"
        report = Fetcher(store, threads=2).fetch(manifest, target)
        assert report.complete
        made = sorted(path.relative_to(place) for path in Path(place).rglob("*") if path.is_file())
        assert len(made) == len(manifest.instances)
        assert all(path.parts[:2] == ("inner", "target") and len(path.parts) == 4 for path in made)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_manifest_with_any_value_in_any_place(data: st.DataObject) -> None:
    """It is refused in our words, or what it names lies where it belongs."""
    store = MemoryStore()
    raw = json.loads(archive(store, [(Uid("1.2"), "1.3", b"x")]).to_bytes())
    place = data.draw(st.sampled_from(_places(raw)))
    value = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | NASTY
        | st.just("studies/../../x")
        | st.lists(NASTY, max_size=2)
        | st.dictionaries(NASTY, NASTY, max_size=2)
    )
    _put(raw, place, value)
    try:
        manifest = Manifest.from_bytes(json.dumps(raw).encode("utf-8", "surrogatepass"))
    except Permanent as error:
        assert error.code == "bad-manifest"  # noqa: PT017
        return
    for item, name in file_names(manifest.instances):
        assert is_plain_name(name)
        assert is_plain_name(item.series_uid)
        assert item.key.startswith(f"studies/{manifest.study_uid}/series/{item.series_uid}/{item.sop_instance_uid}/")
    manifest.record()
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@given(NASTY | st.text(max_size=100))
@example("audit/heads/" + "0a" * 16 + "/99999999/999999999998.json")
@example("audit/heads/" + "0a" * 16 + "/99999998/999999999998.json")
@example("audit/heads/" + "0a" * 16 + "/99999999/999999999999.json")
@example("audit/heads/" + "0a" * 16 + "/99999999/999999999998.json\n")
@settings(max_examples=500, deadline=None)
def test_only_a_published_heads_key_is_one(text: str) -> None:
    found = keys.parse_audit_checkpoint(text)
    if found is not None:
        assert keys.audit_checkpoint(text.split("/")[2], found) == text
    if keys.parse_audit_chain(text) is not None:
        assert is_plain_name(text.removeprefix(keys.AUDIT_CHAINS))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_published_head_with_any_value_in_any_place(data: st.DataObject) -> None:
    """It is refused in our words, or it is a head in every part."""
    good = AuditCheckpoint("0a" * 16, 7, "0b" * 32, "2026-01-31T12:00:00.000Z")
    raw = json.loads(good.to_bytes())
    place = data.draw(st.sampled_from([*_places(raw), ("more",)]))
    value = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | NASTY
        | st.sampled_from(["0a" * 16, "0c" * 32, "../" * 10, 10**12, 10**400])
        | st.lists(NASTY, max_size=2)
        | st.dictionaries(NASTY, NASTY, max_size=2)
    )
    _put(raw, place, value)
    try:
        head = AuditCheckpoint.from_bytes(json.dumps(raw).encode("utf-8", "surrogatepass"))
    except Permanent as error:
        assert error.code == "bad-audit-head"  # noqa: PT017
        return
    assert keys.parse_audit_checkpoint(head.key) == head.sequence
    assert all(is_plain_name(part) for part in head.key.split("/"))
    assert AuditCheckpoint.from_bytes(head.to_bytes()) == head


@given(st.binary(max_size=200))
def test_a_published_head_of_any_bytes(data: bytes) -> None:
    with pytest.raises(Permanent):
        AuditCheckpoint.from_bytes(data)


def _places(value: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([here] if here else []), *(place for key, part in inner for place in _places(part, (*here, key)))]


def _put(root: object, place: tuple[object, ...], value: object) -> None:
    for key in place[:-1]:
        root = root[key]  # type: ignore[index]
    root[place[-1]] = value  # type: ignore[index]


# -- names of files -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
@example(b"IM\xff\xfe\n")
def test_any_name_can_be_printed_and_put_into_json(name: bytes) -> None:
    text = printable(name)
    assert json.loads(json.dumps(text)) == text
    text.encode("utf-8")


@given(
    st.lists(st.text("*?[]!a.-\u00e9\n", max_size=8), min_size=1, max_size=3),
    st.lists(st.text("*?[]!a./\u00e9\n", max_size=8), max_size=3),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_any_pattern_meets_any_name(include: list[str], exclude: list[str], parent: bytes, name: bytes) -> None:
    assert Globs(include, exclude).admits(parent, name) in (True, False)
    assert Globs(["*"], []).admits(parent, name)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=5))
def test_an_identity_comes_back_from_its_text(numbers: list[int]) -> None:
    identity = FileIdentity(*numbers)
    assert identity_of(identity_text(identity)) == identity


def test_errors_are_ours() -> None:
    assert issubclass(InvalidUid, DicomwatchdError)
