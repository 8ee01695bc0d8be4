"""The judge of evidence, clause by clause: an object that differs in one respect, under every kind of backing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import cast

import pytest

from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.evidence import LISTING_PAYS_FROM, Verdict
from dicomwatchd.archive.stores.port import Capabilities, Expiry, ObjectStore, Receipt, StoredObject, composed
from dicomwatchd.errors import CredentialsRefused, NoSuchObject, OutOfReach

DATA = b"the bytes that were sent"
OTHER = b"x" * len(DATA)
BACKINGS = [Capabilities(etag_is_content=e, checksum_on_head=c) for e, c in product((False, True), repeat=2)]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class OneObjectStore:
    """Holds ``data`` under every key; what HEAD and LIST say of it can be set apart from what is read."""

    data: bytes | None
    capabilities: Capabilities
    etag: str | None = None
    checksum: str | None = None
    said_size: int | None = None
    is_withheld: bool = False
    keys: tuple[str, ...] = ()
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    expiry: Expiry = field(default_factory=Expiry)

    def _seen(self, key: str) -> StoredObject | None:
        if self.data is None:
            return None
        size = len(self.data) if self.said_size is None else self.said_size
        return StoredObject(key, size, etag=self.etag, checksum=self.checksum, is_withheld=self.is_withheld)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self.calls.append(("head", version_id))
        return self._seen(key)

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        self.calls.append(("listing", None))
        for key in self.keys:
            if (seen := self._seen(key)) is not None:
                yield seen

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        self.calls.append(("versions", None))
        for key in self.keys:
            yield None
            if (seen := self._seen(key)) is not None:
                yield replace(seen, version_id="v1")

    def read(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        self.calls.append(("read", version_id))
        if self.data is None:
            raise NoSuchObject("no such object")
        yield from (self.data[:5], self.data[5:])


def receipt(number: int = 0, *, etag: bool = True, checksum: bool = True, version_id: str | None = None) -> Receipt:
    return Receipt(
        key=f"studies/1/series/1/{number}/{sha256(DATA)}.dcm",
        size_bytes=len(DATA),
        sha256=sha256(DATA),
        created=True,
        expected_etag=md5(DATA) if etag else None,
        expected_checksum=f"sha256:{sha256(DATA)}" if checksum else None,
        version_id=version_id,
    )


def judge(store: OneObjectStore, *receipts: Receipt, deep: bool = False) -> list[Verdict]:
    return list(evidence.examine(cast(ObjectStore, store), receipts, deep=deep))


def honest(data: bytes | None, capabilities: Capabilities, **changes: object) -> OneObjectStore:
    """What it says of the object is what the object is."""
    checksum = f"sha256:{sha256(data)}" if data is not None and capabilities.checksum_on_head else None
    store = OneObjectStore(data, capabilities, etag=md5(data) if data is not None else None, checksum=checksum)
    return replace(store, **changes)  # type: ignore[arg-type]


def each_way(data: bytes | None, capabilities: Capabilities, *, etag: bool, checksum: bool) -> list[Verdict]:
    """One receipt by itself, so many that a listing pays, and a deep look."""
    many = [receipt(number, etag=etag, checksum=checksum) for number in range(LISTING_PAYS_FROM + 1)]
    store = honest(data, capabilities, keys=tuple(one.key for one in many))
    return judge(store, many[0]) + judge(store, *many) + judge(store, *many, deep=True)


@pytest.mark.parametrize("capabilities", BACKINGS)
@pytest.mark.parametrize("etag", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
class TestEachBacking:
    def test_the_right_bytes_hold(self, capabilities: Capabilities, etag: bool, checksum: bool) -> None:
        verdicts = each_way(DATA, capabilities, etag=etag, checksum=checksum)
        assert all(verdict.holds and verdict.verified_by for verdict in verdicts)
        assert len(verdicts) == 1 + 2 * (LISTING_PAYS_FROM + 1)

    @pytest.mark.parametrize(
        "data", [b"", DATA[:-1], DATA + b"x", b"x" + DATA[1:], DATA[:-1] + b"x", DATA[::-1]], ids=range(6)
    )
    def test_no_other_bytes_do(self, capabilities: Capabilities, etag: bool, checksum: bool, data: bytes) -> None:
        verdicts = each_way(data, capabilities, etag=etag, checksum=checksum)
        assert not any(verdict.holds or verdict.verified_by for verdict in verdicts)
        assert {verdict.problem for verdict in verdicts} == {"size" if len(data) != len(DATA) else "content"}

    def test_nothing_does_not(self, capabilities: Capabilities, etag: bool, checksum: bool) -> None:
        verdicts = each_way(None, capabilities, etag=etag, checksum=checksum)
        assert not any(verdict.holds for verdict in verdicts)
        assert {verdict.problem for verdict in verdicts} == {"missing"}


# -- the ETag of the answer ------------------------------------------------------------------------------------------

FOLLOWS = Capabilities(etag_follows_content=True)
ANSWERED = "kms-0815"


def answered(number: int = 0, *, etag: str | None = ANSWERED, version_id: str | None = None) -> Receipt:
    return replace(receipt(number, etag=False, checksum=False, version_id=version_id), answered_etag=etag)


@pytest.mark.parametrize("shown", [ANSWERED, "kms-0816", None])
@pytest.mark.parametrize("follows", [False, True])
def test_the_etag_of_the_answer_proves_where_etags_follow_the_content(follows: bool, shown: str | None) -> None:
    """The bytes are others in any case: what says that they are right is believed only where the probe bears it out."""
    many = [answered(number) for number in range(LISTING_PAYS_FROM + 1)]
    backs = Capabilities(etag_follows_content=follows)
    store = OneObjectStore(OTHER, backs, etag=shown, keys=tuple(one.key for one in many))
    proves = follows and shown == ANSWERED
    for verdict in judge(store, many[0]) + judge(store, *many):
        assert (verdict.holds, verdict.verified_by) == (proves, "etag-answered" if proves else "")
    assert not any(verdict.holds for verdict in judge(store, *many, deep=True))


def test_an_object_proven_so_costs_a_share_of_a_listing() -> None:
    many = [answered(number) for number in range(1000)]
    store = OneObjectStore(DATA, FOLLOWS, etag=ANSWERED, keys=tuple(one.key for one in many))
    assert all(verdict.holds for verdict in judge(store, *many))
    assert store.calls == [("listing", None)]


def test_no_etag_in_the_answer_and_none_shown_is_not_the_same_etag() -> None:
    (verdict,) = judge(OneObjectStore(OTHER, FOLLOWS), answered(etag=None))
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_the_etag_of_the_answer_of_another_size_proves_nothing() -> None:
    store = OneObjectStore(DATA, FOLLOWS, etag=ANSWERED, said_size=len(DATA) + 1)
    (verdict,) = judge(store, answered())
    assert verdict.verified_by == "read-back"


def test_the_etag_of_an_answer_is_not_one_that_was_computed() -> None:
    """A store whose ETags are MD5s and one whose ETags follow the content back different things."""
    etag = Capabilities(etag_is_content=True)
    (verdict,) = judge(OneObjectStore(OTHER, etag, etag=ANSWERED), answered())
    assert not verdict.holds
    (verdict,) = judge(OneObjectStore(OTHER, FOLLOWS, etag=md5(DATA)), receipt(checksum=False))
    assert not verdict.holds


def test_what_a_listing_cannot_tell_of_is_asked_for_by_itself_and_the_others_are_listed() -> None:
    many = [answered(number) for number in range(LISTING_PAYS_FROM)]
    there_before = receipt(LISTING_PAYS_FROM, etag=False)
    backs = Capabilities(etag_follows_content=True, checksum_on_head=True)
    keys = tuple(one.key for one in (*many, there_before))
    store = OneObjectStore(DATA, backs, etag=ANSWERED, checksum=f"sha256:{sha256(DATA)}", keys=keys)
    verdicts = judge(store, *many, there_before)
    assert sorted(verdict.verified_by for verdict in verdicts) == ["checksum"] + ["etag-answered"] * len(many)
    assert store.calls == [("listing", None), ("head", None)]


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [False, True])
def test_where_versions_are_listed_the_current_one_is_named_by_a_listing(lists: bool) -> None:
    many = [answered(number, version_id="v0") for number in range(LISTING_PAYS_FROM)]
    backs = Capabilities(etag_follows_content=True, lists_versions=lists)
    store = OneObjectStore(DATA, backs, etag=ANSWERED, keys=tuple(one.key for one in many))
    verdicts = judge(store, *many)
    assert all(verdict.holds for verdict in verdicts)
    assert {verdict.seen.version_id for verdict in verdicts if verdict.seen} == ({"v1"} if lists else {None})
    assert set(store.calls) == ({("versions", None)} if lists else {("head", None)})


def test_a_version_that_is_not_current_is_no_object() -> None:
    class Hidden(OneObjectStore):
        def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
            yield from (None for _ in self.keys)

        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            return None

    many = [answered(number, version_id="v0") for number in range(LISTING_PAYS_FROM)]
    backs = Capabilities(etag_follows_content=True, lists_versions=True)
    store = Hidden(DATA, backs, etag=ANSWERED, keys=tuple(one.key for one in many))
    assert {(verdict.holds, verdict.problem) for verdict in judge(store, *many)} == {(False, "missing")}


# -- objects sent in parts -------------------------------------------------------------------------------------------

PARTS = composed([hashlib.sha256(DATA[:5]).digest(), hashlib.sha256(DATA[5:]).digest()])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_checksum_of_parts_proves_where_just_that_is_backed(whole: bool, parts: bool, right: bool) -> None:
    """The bytes are others in any case: what says that they are right is believed only where the probe bears it out."""
    other = composed([hashlib.sha256(OTHER).digest()])
    backs = Capabilities(checksum_on_head=whole, checksum_of_parts=parts)
    store = OneObjectStore(OTHER, backs, etag="0" * 32, checksum=PARTS if right else other)
    (verdict,) = judge(store, replace(receipt(), expected_checksum=PARTS))
    assert verdict.holds is (parts and right)
    assert verdict.verified_by == ("checksum" if parts and right else "")


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("etag", [f"{md5(DATA)}-2", md5(DATA)], ids=["in parts", "in one piece"])
def test_the_etag_of_a_completion_proves_where_just_that_is_backed(single: bool, parts: bool, etag: str) -> None:
    """What the probe has shown of objects in one piece it has not shown of others, nor the other way."""
    backs = Capabilities(etag_follows_content=single, etag_follows_parts=parts)
    (verdict,) = judge(OneObjectStore(OTHER, backs, etag=etag), answered(etag=etag))
    assert verdict.holds is (parts if etag.endswith("-2") else single)
    (verdict,) = judge(OneObjectStore(OTHER, backs, etag="0" * 32 + "-2"), answered(etag=etag))
    assert not verdict.holds


def test_a_checksum_of_parts_is_not_one_of_the_whole() -> None:
    digest = sha256(hashlib.sha256(DATA).digest())
    store = OneObjectStore(
        OTHER, Capabilities(checksum_on_head=True, checksum_of_parts=True), checksum=f"sha256:{digest}"
    )
    (verdict,) = judge(store, replace(receipt(), expected_checksum=composed([hashlib.sha256(DATA).digest()])))
    assert (verdict.holds, verdict.problem) == (False, "content")


# -- objects that may not be decrypted ------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", BACKINGS)
def test_what_is_shown_and_withheld_proves_nothing(capabilities: Capabilities) -> None:
    """It says all the right things; its bytes are what counts, and they are others."""
    store = OneObjectStore(OTHER, capabilities, etag=md5(DATA), checksum=f"sha256:{sha256(DATA)}", is_withheld=True)
    (verdict,) = judge(store, receipt())
    assert (verdict.holds, verdict.problem) == (False, "content")


class Withholding(OneObjectStore):
    def read(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        raise CredentialsRefused("GetObject failed: AccessDenied (403)", endpoint="store")


@pytest.mark.parametrize("capabilities", BACKINGS)
def test_an_object_that_is_shown_and_not_given_is_refused_by_itself(capabilities: Capabilities) -> None:
    store = Withholding(DATA, capabilities, etag="0" * 32, is_withheld=True)
    (verdict,) = judge(store, receipt())
    assert (verdict.holds, verdict.verified_by, verdict.problem) == (False, "", "unreadable")


@dataclass
class Aged(Withholding):
    """Its listing shows what HEAD is refused, as of a key that has been disabled."""

    stored_at: float | None = None

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        for seen in super().listing(prefix):
            yield replace(seen, modified_at=self.stored_at, is_withheld=False)


@pytest.mark.parametrize("method", ["answered", "md5"])
@pytest.mark.parametrize("encryption", ["aws:kms", "aws:kms:dsse", "AES256", None])
@pytest.mark.parametrize(
    ("age_seconds", "is_young"), [(None, False), (0, True), (900, True), (901, False), (-900, True), (-901, False)]
)
def test_a_listing_does_not_tell_whether_an_object_may_still_be_decrypted(
    method: str, encryption: str | None, age_seconds: float | None, is_young: bool
) -> None:
    """Under a KMS key what was stored long ago is asked for by itself, wherever HEAD would tell."""
    now = 1_700_000_000.0
    one = answered if method == "answered" else receipt
    many = [replace(one(number), encryption=encryption) for number in range(LISTING_PAYS_FROM)]
    backs = Capabilities(etag_follows_content=True, etag_is_content=True, checksum_on_head=True)
    store = Aged(
        DATA,
        backs,
        etag=ANSWERED if method == "answered" else md5(DATA),
        is_withheld=True,
        keys=tuple(one.key for one in many),
        stored_at=None if age_seconds is None else now - age_seconds,
    )
    is_told = is_young or encryption in ("AES256", None)
    found = list(evidence.examine(cast(ObjectStore, store), many, now=lambda: now))
    assert {(verdict.holds, verdict.problem) for verdict in found} == {(True, "") if is_told else (False, "unreadable")}
    store.capabilities = replace(backs, checksum_on_head=False)
    assert all(verdict.holds for verdict in evidence.examine(cast(ObjectStore, store), many, now=lambda: now)), (
        "HEAD tells no more than a listing"
    )


def test_who_is_shown_nothing_is_refused_everything() -> None:
    class Closed(Withholding):
        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            raise CredentialsRefused("HeadObject failed: 403", endpoint="store")

    for capabilities in BACKINGS:
        with pytest.raises(CredentialsRefused):
            judge(Closed(DATA, capabilities), receipt())


# -- what the store says and what it holds --------------------------------------------------------------------------


def test_what_is_not_backed_is_not_believed() -> None:
    """It says all the right things, the probe has found none of them enforced, and the bytes are others."""
    store = OneObjectStore(OTHER, Capabilities(), etag=md5(DATA), checksum=f"sha256:{sha256(DATA)}")
    (verdict,) = judge(store, receipt())
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_no_checksum_here_and_none_there_is_not_the_same_checksum() -> None:
    """The ETag was looked at for another receipt's sake, and differs; of a checksum neither side knows."""
    store = OneObjectStore(OTHER, Capabilities(etag_is_content=True, checksum_on_head=True), etag=md5(OTHER))
    (verdict,) = judge(store, receipt(checksum=False))
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_no_etag_here_and_none_there_is_not_the_same_etag() -> None:
    store = OneObjectStore(OTHER, Capabilities(etag_is_content=True, checksum_on_head=True), checksum="sha256:0")
    (verdict,) = judge(store, receipt(etag=False))
    assert (verdict.holds, verdict.problem) == (False, "content")


def test_the_right_etag_of_another_size() -> None:
    store = OneObjectStore(DATA, Capabilities(etag_is_content=True), etag=md5(DATA), said_size=len(DATA) + 1)
    (verdict,) = judge(store, receipt())
    assert verdict.verified_by == "read-back"  # what contradicts itself is read


def test_what_is_current_is_looked_at_and_not_the_version_that_was_stored() -> None:
    many = [receipt(number, version_id="v1") for number in range(LISTING_PAYS_FROM + 1)]
    store = honest(DATA, Capabilities(etag_is_content=True), keys=tuple(one.key for one in many))
    judge(store, *many)
    judge(store, *many, deep=True)
    assert set(store.calls) == {("head", None), ("read", None)}


def test_a_store_that_does_not_answer_is_no_verdict() -> None:
    class Away(OneObjectStore):
        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            raise OutOfReach("no answer", endpoint="store")

    with pytest.raises(OutOfReach):
        judge(Away(DATA, Capabilities(etag_is_content=True)), receipt())
