"""The judge of evidence: only what the store is proven to back counts, and doubt is settled by the bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import pytest

from dicomwatchd.archive.proof.evidence import GROUP, LISTING_PAYS_FROM, Method, Verdict, examine
from dicomwatchd.archive.stores.port import Capabilities, Expiry, ObjectStore, Receipt, StoredObject
from dicomwatchd.errors import NoSuchObject, OutOfReach, RequestRefused

T = TypeVar("T")
R = TypeVar("R")

ETAG = Capabilities(etag_is_content=True)
CHECKSUM = Capabilities(checksum_on_head=True)
NOTHING = Capabilities()


@dataclass
class Store:
    """Objects as the store says they are, and their bytes as it would give them; ``asked`` is what it was asked."""

    capabilities: Capabilities
    said: dict[str, StoredObject] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    fault: Exception | None = None
    asked: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    time: float = 0.0
    #: When the requests that spoke of a key were sent.
    begun: dict[str, list[float]] = field(default_factory=dict)
    expiry: Expiry = field(default_factory=Expiry)

    def add(self, key: str, data: bytes, **said: str) -> Receipt:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        sha256 = hashlib.sha256(data).hexdigest()
        seen = StoredObject(key, len(data), etag=md5, checksum=f"sha256:{sha256}")
        self.said[key] = replace(seen, **said)  # type: ignore[arg-type]
        self.held[key] = data
        return Receipt(key, len(data), sha256, True, expected_etag=md5, expected_checksum=f"sha256:{sha256}")

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self._ask(f"head {version_id}" if version_id else "head", key)
        return self.said.get(key) if version_id or key not in self.hidden else None

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        self._ask("listing", *(key for key in self.said if key.startswith(prefix)))
        for key in sorted(self.said):
            if key.startswith(prefix) and key not in self.unlisted | self.hidden:
                self.asked.append("listed")
                yield self.said[key]

    def read(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        self._ask(f"read {version_id}" if version_id else "read", key)
        if key not in self.held or (key in self.hidden and not version_id):
            raise NoSuchObject("not there")
        yield self.held[key]

    def _ask(self, what: str, *keys: str) -> None:
        self.asked.append(what)
        for one in keys:
            self.begun.setdefault(one, []).append(self.time)
        self.time += 1.0
        if self.fault is not None:
            raise self.fault


def judge(store: Store, receipts: Iterable[Receipt], *, deep: bool = False) -> list[Verdict]:
    return list(examine(cast(ObjectStore, store), receipts, deep=deep))


def key(number: int, series: int = 1) -> str:
    return f"studies/1/series/{series}/{number:06d}/x.dcm"


def test_an_etag_counts_only_where_it_is_proven_to_be_the_content() -> None:
    for capabilities, method, asked in (
        (ETAG, Method.ETAG, ["head"]),
        (CHECKSUM, Method.CHECKSUM, ["head"]),
        (NOTHING, Method.READ_BACK, ["read"]),
    ):
        store = Store(capabilities)
        receipt = store.add(key(1), b"content")
        [verdict] = judge(store, [receipt])
        assert (verdict.holds, verdict.verified_by, store.asked) == (True, method, asked)


def test_a_right_etag_and_checksum_do_not_save_wrong_bytes_in_a_store_that_backs_neither() -> None:
    store = Store(NOTHING)
    receipt = store.add(key(1), b"content")
    store.held[key(1)] = b"damaged"
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.problem, verdict.verified_by) == (False, "content", "")


def test_what_one_answer_proves_the_other_may_not() -> None:
    for capabilities, said in ((ETAG, {"etag": "0" * 32}), (CHECKSUM, {"checksum": "crc64nvme:AAAA"})):
        store = Store(capabilities)
        receipt = store.add(key(1), b"content", **said)
        store.held[key(1)] = b"damaged"
        assert [(v.holds, v.problem) for v in judge(store, [receipt])] == [(False, "content")]


@pytest.mark.parametrize("capabilities", [ETAG, CHECKSUM])
def test_another_etag_or_checksum_alone_is_no_damage(capabilities: Capabilities) -> None:
    store = Store(capabilities)
    receipt = store.add(key(1), b"content", etag="0" * 32 + "-3", checksum="crc64nvme:AAAA")
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.verified_by, store.asked) == (True, "read-back", ["head", "read"])
    store.held[key(1)] = b"damaged"
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_nothing_expected_means_nothing_proven() -> None:
    store = Store(Capabilities(etag_is_content=True, checksum_on_head=True))
    receipt = replace(store.add(key(1), b"content"), expected_etag=None, expected_checksum=None)
    store.said[key(1)] = replace(store.said[key(1)], etag=None, checksum=None)
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.verified_by, store.asked) == (True, "read-back", ["read"])


def test_another_size_proves_nothing_and_the_bytes_decide() -> None:
    store = Store(ETAG)
    receipt = store.add(key(1), b"content")
    store.said[key(1)] = replace(store.said[key(1)], size_bytes=6)
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.verified_by, store.asked) == (True, "read-back", ["head", "read"])
    store.held[key(1)] = b"conten"
    assert [(v.holds, v.problem) for v in judge(store, [receipt])] == [(False, "size")]


def test_bytes_damaged_on_the_way_here_do_not_make_a_good_object_a_damaged_one() -> None:
    store = Store(NOTHING)
    receipt = store.add(key(1), b"content")
    good = store.held[key(1)]

    class OnceWrong(dict[str, bytes]):
        asked = 0

        def __getitem__(self, name: str) -> bytes:
            self.asked += 1
            return b"c0ntent" if self.asked == 1 else good

    store.held = OnceWrong(store.held)
    [verdict] = judge(store, [receipt])
    assert (verdict.holds, verdict.verified_by, store.asked) == (True, "read-back", ["read", "read"])


def test_deep_reads_every_byte_whatever_the_store_says() -> None:
    store = Store(ETAG)
    receipts = [store.add(key(n), b"%d" % n) for n in range(20)]
    store.held[key(7)] = b"?"
    found = {v.receipt.key: v for v in judge(store, receipts, deep=True)}
    assert set(store.asked) == {"read"}
    assert [k for k, v in found.items() if not v.holds] == [key(7)]
    assert found[key(7)].problem == "content"


def test_a_series_is_proven_by_one_listing() -> None:
    store = Store(ETAG)
    receipts = [store.add(key(n, series), b"%d" % n) for series in (1, 2) for n in range(LISTING_PAYS_FROM)]
    receipts += [store.add(key(n, 3), b"%d" % n) for n in range(LISTING_PAYS_FROM - 1)]
    verdicts = judge(store, receipts)
    assert all(v.holds and v.verified_by == "etag-md5" for v in verdicts)
    assert len(verdicts) == len(receipts)
    assert (store.asked.count("listing"), store.asked.count("head")) == (2, LISTING_PAYS_FROM - 1)


def test_where_ends_may_be_of_some_objects_a_listing_proves_none() -> None:
    """Which of them a rule would end, by their tags, HEAD alone tells."""
    store = Store(ETAG, expiry=Expiry(is_by_tag=True))
    verdicts = judge(store, [store.add(key(n), b"%d" % n) for n in range(LISTING_PAYS_FROM)])
    assert all(verdict.holds for verdict in verdicts) and store.asked == ["head"] * LISTING_PAYS_FROM


def test_where_rules_are_unknown_one_of_each_series_is_looked_at() -> None:
    store = Store(ETAG, expiry=Expiry(rules_known=False))
    receipts = [store.add(key(n, series), b"%d" % n) for series in (1, 2) for n in range(LISTING_PAYS_FROM)]
    assert len([verdict for verdict in judge(store, receipts) if verdict.holds]) == len(receipts)
    assert (store.asked.count("listing"), store.asked.count("head")) == (2, 2)
    store.asked.clear()
    store.unlisted = {key(3, 1)}
    judge(store, receipts[:LISTING_PAYS_FROM])
    assert store.asked.count("head") == 2, "the first, and what is not listed"


def test_what_a_listing_lacks_is_asked_for_by_itself() -> None:
    store = Store(ETAG)
    receipts = [store.add(key(n), b"%d" % n) for n in range(20)]
    store.unlisted = {key(3), key(19)}
    del store.said[key(4)], store.held[key(4)]
    found = {v.receipt.key: v for v in judge(store, receipts)}
    assert [k for k, v in found.items() if not v.holds] == [key(4)]
    assert found[key(4)].problem == "missing"
    assert store.asked.count("head") == 3


def test_a_listing_breaks_off_where_far_more_lies_in_the_way() -> None:
    store = Store(ETAG)
    for n in range(5000):
        store.add(key(n), b"x")
    receipts = [store.add(key(n), b"%d" % n) for n in (*range(4), *range(4990, 5000))]
    assert all(v.holds for v in judge(store, receipts))
    assert store.asked.count("listed") < 2000


@pytest.mark.parametrize("capabilities", [ETAG, CHECKSUM, NOTHING])
def test_where_there_are_versions_a_look_tells_which_is_current(capabilities: Capabilities) -> None:
    """And no look is for the version that was sent: that one may lie under a newer one, or under a delete marker."""
    store = Store(capabilities)
    receipts = [replace(store.add(key(n), b"%d" % n, version_id="v2"), version_id="v1") for n in range(20)]
    verdicts = judge(store, receipts)
    assert all(v.holds and v.seen is not None and v.seen.version_id == "v2" for v in verdicts)
    assert set(store.asked) == ({"head", "read"} if capabilities is NOTHING else {"head"})


@pytest.mark.parametrize("capabilities", [ETAG, CHECKSUM, NOTHING])
@pytest.mark.parametrize("deep", [False, True])
def test_a_version_under_a_delete_marker_is_missing(capabilities: Capabilities, deep: bool) -> None:
    """A plain HEAD and a plain GET find nothing, the listing shows nothing; by its id the version is still there."""
    store = Store(capabilities)
    receipts = [replace(store.add(key(n), b"%d" % n), version_id="v1") for n in range(20)]
    store.hidden = {key(n) for n in range(20)}
    verdicts = list(examine(cast(ObjectStore, store), receipts, deep=deep))
    assert {(v.holds, v.problem) for v in verdicts} == {(False, "missing")}


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("capabilities", [ETAG, CHECKSUM, NOTHING])
def test_a_verdict_is_as_old_as_its_first_request(capabilities: Capabilities, deep: bool, versioned: bool) -> None:
    """Time passes with every answer, so a verdict that was dated after it would be too young."""
    store = Store(capabilities)
    receipts = [store.add(key(n, n % 2), b"%d" % n) for n in range(20)]
    if versioned:
        receipts = [replace(receipt, version_id="v1") for receipt in receipts]
    del store.said[key(3, 1)], store.held[key(3, 1)]
    store.held[key(4, 0)] = b"?"
    store.said[key(4, 0)] = replace(store.said[key(4, 0)], etag="0" * 32, checksum=None)
    verdicts = list(examine(cast(ObjectStore, store), receipts, deep=deep, now=lambda: store.time))
    for verdict in verdicts:
        assert verdict.asked_at in store.begun[verdict.receipt.key]
    assert min(v.asked_at for v in verdicts) <= 1.0
    assert [v.receipt.key for v in verdicts if not v.holds and v.problem == "missing"] == [key(3, 1)]
    assert [v.receipt.key for v in verdicts if v.problem == "content"] == [key(4, 0)]


def test_a_look_that_nobody_dates_is_no_evidence_to_delete_on() -> None:
    store = Store(ETAG)
    (verdict,) = judge(store, [store.add(key(1), b"x")])
    assert verdict.asked_at == 0.0


def test_missing_and_refused_are_verdicts_and_silence_is_none() -> None:
    store = Store(NOTHING)
    receipt = Receipt(key(1), 1, "0" * 64, True)
    assert [(v.holds, v.problem, v.seen) for v in judge(store, [receipt])] == [(False, "missing", None)]
    store.fault = RequestRefused("no")
    for store.capabilities in (NOTHING, ETAG):
        receipt = replace(receipt, expected_etag="0" * 32)
        assert [(v.holds, v.problem) for v in judge(store, [receipt])] == [(False, "unreadable")]
    store.fault = OutOfReach("down", endpoint="s3")
    for store.capabilities in (NOTHING, ETAG):
        for count in (1, 20):
            with pytest.raises(OutOfReach):
                judge(store, [replace(receipt, key=key(n)) for n in range(count)])


@pytest.mark.parametrize("capabilities", [ETAG, CHECKSUM, NOTHING])
def test_a_map_out_of_order_mixes_nothing_up(capabilities: Capabilities) -> None:
    store = Store(capabilities)
    receipts = [store.add(key(n, series=n % 7), b"%d" % n) for n in range(200)]
    for n in range(0, 200, 3):
        store.said[key(n, n % 7)] = replace(store.said[key(n, n % 7)], etag="0" * 32, checksum=None)
    for n in range(0, 200, 10):
        store.held[key(n, n % 7)] = b"?" * len(b"%d" % n)
        store.said[key(n, n % 7)] = replace(store.said[key(n, n % 7)], etag="0" * 32, checksum=None)
    shuffle = random.Random(5).shuffle

    def out_of_order(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        listed = list(items)
        shuffle(listed)
        return map(function, listed)

    found = list(examine(cast(ObjectStore, store), receipts, map=out_of_order))
    assert sorted(v.receipt.key for v in found) == sorted(r.key for r in receipts)
    damaged = {key(n, n % 7) for n in range(0, 200, 10)}
    assert {v.receipt.key for v in found if not v.holds} == damaged
    assert all(v.seen is not None and v.seen.key == v.receipt.key for v in found)


def test_receipts_are_taken_a_group_at_a_time() -> None:
    store = Store(ETAG)
    known = store.add(key(1), b"x")
    taken = 0

    def endless() -> Iterator[Receipt]:
        nonlocal taken
        while True:
            taken += 1
            yield known

    verdicts = examine(cast(ObjectStore, store), endless())
    for _ in range(GROUP + 1):
        assert next(verdicts).holds
    assert taken == 2 * GROUP
