"""What every store must do, run against a folder and against a real Ceph gateway over http and over https."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from dicomwatchd.archive.identity import ArchiveIdentity, read_identity, write_identity
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.port import CHUNK_BYTES, Buffer, ObjectStore, Receipt
from dicomwatchd.errors import (
    ArchiveRefused,
    DicomwatchdError,
    NotInitialised,
    OutOfReach,
    Permanent,
    SourceChanged,
    Stopping,
    Transient,
)
from dicomwatchd.model import Digest
from tests.conformance.conftest import FolderPlace, Place

KEY = "studies/1.2/series/1.2.3/1.2.3.4/" + "0" * 64 + ".dcm"
MIB = 1024 * 1024


class Source:
    """Content that is read piece by piece, as a file is; ``claimed`` is what it was when it was taken up."""

    def __init__(self, data: bytes, claimed: bytes | None = None) -> None:
        self.data = data
        claimed = data if claimed is None else claimed
        self._digest = Digest(hashlib.sha256(claimed).hexdigest(), len(claimed))

    @property
    def digest(self) -> Digest:
        return self._digest

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def fill(self, offset: int, buffer: memoryview) -> None:
        data = self.read(offset, len(buffer))
        if len(data) != len(buffer):
            raise SourceChanged("shorter")
        buffer[:] = data


def bytes_of(store: ObjectStore, key: str) -> bytes:
    return b"".join(store.read(key))


def verdicts(store: ObjectStore, receipts: list[Receipt], *, deep: bool = False) -> dict[str, evidence.Verdict]:
    found = {verdict.receipt.key: verdict for verdict in evidence.examine(store, receipts, deep=deep)}
    assert len(found) == len(receipts)
    return found


# -- there or not ---------------------------------------------------------------------------------------------------


def test_an_archive_that_was_never_made_is_told_as_such(place: Place) -> None:
    with pytest.raises(NotInitialised):
        place.open().check()


def test_initialise_makes_it_once_and_changes_nothing_after(place: Place) -> None:
    store = place.open()
    first = store.initialise()
    assert "created" in {step.outcome for step in first}
    store.check()
    second = place.open().initialise()
    assert {step.outcome for step in second} <= {"present", "not supported"}
    assert [step.what for step in second] == [step.what for step in first]


def test_a_place_that_is_gone_is_no_empty_archive(place: Place) -> None:
    store = place.open()
    attempts: list[Callable[[], object]] = [
        lambda: store.head(KEY),
        lambda: list(store.listing("studies/")),
        lambda: list(store.read(KEY)),
        lambda: store.put(KEY, Buffer.of(b"x")),
        lambda: list(evidence.examine(store, [Receipt(KEY, 1, "0" * 64, True)])),
    ]
    for attempt in attempts:
        with pytest.raises(OutOfReach) as caught:
            attempt()
        assert caught.value.endpoint
        assert KEY not in str(caught.value)


def test_nothing_is_missing_by_exception_but_a_read(store: ObjectStore) -> None:
    assert store.head(KEY) is None
    assert list(store.listing("studies/")) == []
    with pytest.raises(Permanent) as caught:
        list(store.read(KEY))
    assert caught.value.code == "no-such-object"


# -- created once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, 5 * MIB + 1])
def test_what_is_put_is_what_is_held(store: ObjectStore, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    receipt = store.put(KEY, Source(data))
    assert (receipt.created, receipt.key, receipt.size_bytes) == (True, KEY, size_bytes)
    assert receipt.sha256 == hashlib.sha256(data).hexdigest()
    chunks = list(store.read(KEY))
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= MIB for chunk in chunks)
    seen = store.head(KEY)
    assert seen is not None
    assert (seen.key, seen.size_bytes) == (KEY, size_bytes)
    assert [(item.key, item.size_bytes) for item in store.listing("studies/")] == [(KEY, size_bytes)]
    if store.capabilities.etag_is_content:
        assert seen.etag == receipt.known_etag


SIZE = 2 * MIB + 100


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, SIZE), (1, SIZE - 1), (1000, 512), (MIB - 1, MIB + 2), (SIZE - 1, 1), (0, SIZE + 7), (SIZE - 3, 10)],
)
def test_a_part_is_those_bytes_and_no_others(store: ObjectStore, offset: int, length: int) -> None:
    """Where the object ends before, it is what there is of it."""
    data = os.urandom(SIZE)
    store.put(KEY, Buffer.of(data))
    chunks = list(store.read(KEY, offset_bytes=offset, length_bytes=length))
    assert b"".join(chunks) == data[offset : offset + length]
    assert all(0 < len(chunk) <= MIB for chunk in chunks)


@pytest.mark.parametrize(("offset", "length"), [(0, None), (0, SIZE), (MIB - 1, MIB + 2), (SIZE - 3, 10)])
def test_bytes_read_into_memory_of_the_callers_are_the_same(
    store: ObjectStore, offset: int, length: int | None
) -> None:
    """A chunk counts until the next one is asked for."""
    data = os.urandom(SIZE)
    store.put(KEY, Buffer.of(data))
    lent = memoryview(bytearray(CHUNK_BYTES))
    found = b""
    for chunk in store.read(KEY, offset_bytes=offset, length_bytes=length, buffer=lent):
        assert 0 < len(chunk) <= CHUNK_BYTES
        found += bytes(chunk)
    assert found == data[offset:][:length]


def test_a_checksum_that_comes_with_the_bytes_is_of_the_whole_object(store: ObjectStore) -> None:
    """Where there is none nothing is told, and the bytes are the same."""
    data = os.urandom(SIZE)
    store.put(KEY, Buffer.of(data))
    told: list[str] = []
    assert b"".join(map(bytes, store.read(KEY, checksum=told.append))) == data
    assert told in ([], [f"sha256:{hashlib.sha256(data).hexdigest()}"])
    told.clear()
    assert b"".join(map(bytes, store.read(KEY, offset_bytes=2, length_bytes=3, checksum=told.append))) == data[2:5]
    assert told == []


def test_what_is_in_memory_is_created_whatever_its_size(store: ObjectStore) -> None:
    data = os.urandom(store.single_put_bytes + 1)
    assert store.put(KEY, Buffer.of(data)).created
    again = store.put(KEY, Buffer.of(data))
    assert not again.created
    assert verdicts(store, [again])[KEY].holds


@pytest.mark.parametrize("offset", [3, 4, 10_000_000])
def test_a_part_beyond_the_end_is_empty(store: ObjectStore, offset: int) -> None:
    store.put(KEY, Buffer.of(b"abc"))
    assert list(store.read(KEY, offset_bytes=offset, length_bytes=5)) == []


def test_a_part_of_nothing_is_missing_too(store: ObjectStore) -> None:
    with pytest.raises(Permanent) as caught:
        list(store.read(KEY, offset_bytes=3, length_bytes=5))
    assert caught.value.code == "no-such-object"


def test_the_same_again_sends_nothing(store: ObjectStore) -> None:
    first = store.put(KEY, Buffer.of(b"content"))
    again = store.put(KEY, Buffer.of(b"content"))
    assert (first.created, again.created) == (True, False)
    assert (again.size_bytes, again.sha256) == (7, first.sha256)
    told = first.answered_etag if store.capabilities.checksum_on_head else None
    assert again.answered_etag == told, "where its checksum is beside it; else nobody knows what it was given for"
    if store.capabilities.etag_is_content:
        assert again.expected_etag == first.known_etag


@pytest.mark.parametrize("probed", [False, True])
def test_other_bytes_never_take_a_key_that_is_taken(place: Place, probed: bool) -> None:
    store = place.open()
    store.initialise()
    if probed:
        assert store.probe("probe/x/").creates_only
    store.put(KEY, Buffer.of(b"first"))
    receipt = store.put(KEY, Buffer.of(b"second!"))
    assert not receipt.created
    assert bytes_of(store, KEY) == b"first"
    assert not verdicts(store, [receipt])[KEY].holds


def test_of_eight_at_once_exactly_one_creates(store: ObjectStore) -> None:
    for attempt in range(5):
        key = f"race/{attempt}"
        contents = [Buffer.of(b"%d" % number * 1000) for number in range(8)]
        barrier = threading.Barrier(8)

        def put(content: Buffer, key: str = key, barrier: threading.Barrier = barrier) -> Receipt:
            barrier.wait()
            while True:
                with suppress(Transient):  # Amazon refuses one of two at the same moment: it may try again
                    return store.put(key, content)

        with ThreadPoolExecutor(8) as pool:
            receipts = list(pool.map(put, contents))
        [winner] = [receipt for receipt in receipts if receipt.created]
        assert hashlib.sha256(bytes_of(store, key)).hexdigest() == winner.sha256


@pytest.mark.parametrize(
    "source",
    [
        Source(b"changed!", claimed=b"original"),
        Source(b"short", claimed=b"much longer"),
        Source(b"", claimed=b"emptied"),
        Source(b"x" * (17 * MIB), claimed=b"y" * (17 * MIB)),
        Source(b"x" * (17 * MIB), claimed=b"x" * (17 * MIB + 1)),
    ],
    ids=["other bytes", "shorter", "emptied", "big", "big and shorter"],
)
def test_content_that_has_changed_leaves_no_object(place: Place, source: Source) -> None:
    store = place.open()
    store.initialise()
    with pytest.raises(SourceChanged):
        store.put(KEY, source)
    assert store.head(KEY) is None
    assert list(store.listing("")) == []
    if isinstance(place, FolderPlace):
        assert [path for path in place.path.rglob("*") if path.is_file()] == [place.path / ".dicomwatchd-archive"]


def test_an_interrupted_put_can_be_repeated(place: Place) -> None:
    store = place.open(stopping=lambda: True)
    store.initialise()
    data = os.urandom(17 * MIB)
    with pytest.raises(Stopping):
        store.put(KEY, Source(data))
    assert store.head(KEY) is None
    again = place.open()
    assert again.put(KEY, Source(data)).created
    assert bytes_of(again, KEY) == data


# -- names ----------------------------------------------------------------------------------------------------------


def test_every_allowed_character_can_be_in_a_key(store: ObjectStore) -> None:
    key = "Az09/!_.*'()-/" + "a" * 200 + "/.hidden/..two/-dash"
    store.put(key, Buffer.of(b"x"))
    assert [item.key for item in store.listing("Az09/!")] == [key]
    assert bytes_of(store, key) == b"x"


@pytest.mark.parametrize(
    "key",
    ["", "/", "/absolute", "a//b", "a/", "../up", "a/../b", "a/..", ".", "a/./b", "a\0b", "ä", "a b", "a\nb", "a\\b",
     "a+b", "a%2e", "x" * 600],
)  # fmt: skip
def test_no_other_key_is_taken(store: ObjectStore, key: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: store.put(key, Buffer.of(b"x")),
        lambda: store.head(key),
        lambda: list(store.read(key)),
    ]
    for attempt in attempts:
        with pytest.raises(Permanent) as caught:
            attempt()
        assert caught.value.code == "bad-key"


def test_a_listing_of_more_than_a_page_is_whole_and_in_key_order(store: ObjectStore) -> None:
    random.seed(1)
    names = {f"l/{random.choice('aA0')}{random.choice(['-', '/', '0', '.', ''])}{number}" for number in range(1100)}
    names |= {"l/a-b", "l/a/b", "l/a.b", "l/a0", "l/ab/c/d", "m/other"}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, Buffer.of(key.encode())), names))
    listed = list(store.listing("l/"))
    assert [item.key for item in listed] == sorted(name for name in names if name.startswith("l/"))
    assert all(item.size_bytes == len(item.key) for item in listed)
    assert [item.key for item in store.listing("l/a")] == sorted(name for name in names if name.startswith("l/a"))
    assert [item.key for item in store.listing("l/a/")] == sorted(n for n in names if n.startswith("l/a/"))
    assert list(store.listing("l/nothing")) == []
    assert list(store.listing("nowhere/at/all/")) == []


def test_a_listing_begins_behind_the_key_that_is_named(store: ObjectStore) -> None:
    """The key need not be there; "/" sorts as the character that it is."""
    names = ["l/a-b", "l/a/b", "l/a0", "l/b/c/d", "m/x"]
    for name in names:
        store.put(name, Buffer.of(b"x"))
    for after in ["", "a", *names, "l/a", "l/a/", "l/a.", "l/b/c", "l/zzz", "z"]:
        assert [item.key for item in store.listing("l/", after)] == [n for n in names if n[:2] == "l/" and n > after]


def test_common_prefixes_are_the_folders_right_below(store: ObjectStore) -> None:
    """In the order of their keys, whatever stands below them; of more than a page, too."""
    names = ["l/1.2/a", "l/1.2/b/c", "l/1.2.3/x", "l/1.23/x", "l/1.2-/x", "l/object", "m/1/x", "l/1.2.3/y/z"]
    for name in names:
        store.put(name, Buffer.of(b"x"))
    assert list(store.common_prefixes("l/")) == ["l/1.2-/", "l/1.2.3/", "l/1.2/", "l/1.23/"]
    for after, left in (
        ("", 4),
        ("a", 4),
        ("l/1.2-/", 3),
        ("l/1.2.3/", 2),
        ("l/1.2.3/y", 2),
        ("l/1.2/", 1),
        ("l/1.2", 4),
        ("l/1.23/", 0),
        ("l/~", 0),
        ("z", 0),
    ):
        assert len(list(store.common_prefixes("l/", after))) == left, after
    assert list(store.common_prefixes("l/1.2/")) == ["l/1.2/b/"]
    assert list(store.common_prefixes("nowhere/")) == []
    with ThreadPoolExecutor(16) as pool:
        made = [f"p/{number}{end}" for number in range(1100) for end in ("/x", "/y/z")]
        list(pool.map(lambda key: store.put(key, Buffer.of(b"x")), made))
    found = list(store.common_prefixes("p/"))
    assert found == sorted(f"p/{number}/" for number in range(1100))
    assert list(store.common_prefixes("p/", found[1003])) == found[1004:]


# -- evidence -------------------------------------------------------------------------------------------------------


def _series(store: ObjectStore, count: int) -> list[Receipt]:
    with ThreadPoolExecutor(8) as pool:
        return list(
            pool.map(lambda n: store.put(f"studies/1/series/2/{n}/{n}.dcm", Buffer.of(b"%d" % n * 500)), range(count))
        )


@pytest.mark.parametrize("count", [3, 20])
@pytest.mark.parametrize("deep", [False, True])
def test_evidence_tells_right_damaged_and_missing(place: Place, store: ObjectStore, count: int, deep: bool) -> None:
    receipts = _series(store, count)
    place.overwrite(receipts[0].key, b"other content of another size")
    place.overwrite(receipts[1].key, b"X" * receipts[1].size_bytes)
    receipts.append(Receipt("studies/1/series/2/none/none.dcm", 4, "0" * 64, True, expected_etag="0" * 32))
    found = verdicts(store, receipts, deep=deep)
    problems = {receipt.key: found[receipt.key].problem for receipt in receipts}
    assert problems == {
        **dict.fromkeys((receipt.key for receipt in receipts), ""),
        receipts[0].key: "size",
        receipts[1].key: "content",
        receipts[-1].key: "missing",
    }
    method = "etag-answered" if store.capabilities.etag_follows_content and not deep else "read-back"
    for receipt in receipts:
        verdict = found[receipt.key]
        assert verdict.holds == (verdict.problem == "")
        assert verdict.verified_by == (method if verdict.holds else "")
        assert (verdict.seen is None) == (verdict.problem == "missing")


def test_a_store_that_was_not_probed_is_read_back(place: Place, store: ObjectStore) -> None:
    [receipt] = _series(store, 1)
    unprobed = place.open()
    assert verdicts(unprobed, [receipt])[receipt.key].verified_by == "read-back"


def test_two_that_initialise_at_once_agree_on_one_identity(place: Place) -> None:
    place.open().initialise()
    barrier = threading.Barrier(4)

    def write(number: int) -> ArchiveIdentity:
        store = place.open()
        identity = ArchiveIdentity(f"00000000-0000-4000-8000-00000000000{number}", "2026-01-31T12:00:00Z")
        barrier.wait()
        return write_identity(store, identity)

    assert read_identity(place.open()) is None
    with ThreadPoolExecutor(4) as pool:
        identities = set(pool.map(write, range(4)))
    assert len(identities) == 1
    assert read_identity(place.open()) in identities


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"\xff", b'{"format": "dicomwatchd-archive/1", "archive_id": "x", "created_at": ""}']
)
def test_an_identity_that_cannot_be_read_is_refused_and_kept(place: Place, store: ObjectStore, text: bytes) -> None:
    store.put("archive.json", Buffer.of(text))
    with pytest.raises(ArchiveRefused):
        write_identity(store, ArchiveIdentity("00000000-0000-4000-8000-000000000000", "2026-01-31T12:00:00Z"))
    assert bytes_of(store, "archive.json") == text


def test_destinations_differ_by_place_and_not_by_adapter(place: Place, tmp_path: Path) -> None:
    assert place.open().destination == place.open().destination
    assert place.open().destination != FolderPlace(tmp_path / "another").open().destination


def test_errors_are_ours_only(store: ObjectStore) -> None:
    class Broken(Source):
        def read(self, offset: int, length: int) -> bytes:
            raise SourceChanged("gone")

    with pytest.raises(DicomwatchdError):
        store.put(KEY, Broken(b"x"))
    assert store.head(KEY) is None
