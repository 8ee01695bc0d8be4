"""The judge: does the store hold the very bytes that were sent? Asked afresh, by the cheapest look that proves it.

Evidence is what anybody would be served today: the current version under the key. A version that lies under a delete
marker, or under a newer one, proves nothing, for a rule of the bucket may end it at any time.
"""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Literal

from dicomwatchd.archive.stores import etags
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, StoredObject, of_parts
from dicomwatchd.errors import ColdObject, CredentialsRefused, EncryptionKeyUnusable, NoSuchObject, Permanent
from dicomwatchd.ports import Cancellation, Map, never_cancelled, until_cancelled

GROUP = 2000
LISTING_PAYS_FROM = 8  # a listing costs about as much as so many HEADs
#: So long the creation of an object is evidence that it may be decrypted: as long as any evidence to delete on.
KEY_USABLE_SECONDS = 900.0
_LISTED_AT_LEAST = 1000
_LISTED_PER_RECEIPT = 50

#: The time of a look of which nobody has told the time: no evidence to delete on.
UNDATED = 0.0

#: "cold": there, in cold storage, and nothing but its bytes could prove it, which cannot be read now.
Problem = Literal["", "missing", "size", "content", "unreadable", "cold"]


class Method(StrEnum):
    """What proved an object's content, from the cheapest to the dearest."""

    ETAG = "etag-md5"
    ANSWERED_ETAG = "etag-answered"
    CHECKSUM = "checksum"
    READ_BACK = "read-back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``holds`` is True when, and only when, the store was just seen to hold the receipt's bytes as what is current
    under its key; ``verified_by`` says how, and is "" otherwise. ``seen`` is the store's own view of the object, None
    where there is none. ``asked_at`` is when the request (of a listing and a reading: the first one) was about to be
    sent, in seconds since the epoch: what the store has said is no younger than that."""

    receipt: Receipt
    holds: bool
    verified_by: str
    seen: StoredObject | None
    problem: Problem = ""
    asked_at: float = UNDATED


def _undated() -> float:
    return UNDATED


def examine(
    store: ObjectStore,
    receipts: Iterable[Receipt],
    *,
    deep: bool = False,
    map: Map = map,
    now: Callable[[], float] = _undated,
    cancelled: Cancellation = never_cancelled,
) -> Iterator[Verdict]:
    """One verdict for each receipt, in no particular order. An object that is missing, damaged or refused is a
    verdict; Transient (the store does not answer) is raised, for then nothing is known. ``now`` dates the verdicts:
    seconds since the epoch. ``cancelled`` is asked between the pieces of what is read back.

    Only what the probe has found proves content (`Capabilities`): an ETag or a checksum that equals the one computed
    from the bytes sent, or the ETag with which a store that had checked them answered. A differing one proves nothing
    yet (the object may have been cut into other parts), so the bytes are read back and hashed then, as they are where
    the store backs nothing, and for all objects when ``deep``. What is in cold storage is proven by ETag or checksum
    like anything else, and is never read.
    Works in groups, so memory does not grow with the number of receipts.
    """
    iterator = iter(receipts)
    while group := list(islice(iterator, GROUP)):
        yield from _examine_group(_Verifier(store, now, cancelled), group, deep, map)


def _examine_group(verifier: _Verifier, group: list[Receipt], deep: bool, map: Map) -> Iterator[Verdict]:
    if deep:
        yield from map(verifier.read_back, group)
        return
    doubtful: list[tuple[Receipt, StoredObject | None]] = []
    unlisted: list[Receipt] = []
    for batch in _by_series(group):
        told = [receipt for receipt in batch if verifier.listing_can_tell(receipt)]
        if not verifier.listing_pays(told):
            unlisted += batch
            continue
        unlisted += [receipt for receipt in batch if not verifier.listing_can_tell(receipt)]
        asked_at, listed = verifier.listed(told)
        is_looked_at = verifier.listing_tells_ends
        for receipt in told:
            verdict = verifier.by_listing(receipt, listed.get(receipt.key), asked_at)
            if verdict is not None and verdict.holds and is_looked_at and not verifier.may_be_withheld(verdict):
                yield verdict
            else:
                # Absent, or different: a listing is not the last word on an object. Nor does it tell of the end of one,
                # which HEAD does of at least one of the series, nor whether one may still be decrypted.
                unlisted.append(receipt)
                is_looked_at = True
    backed = [receipt for receipt in unlisted if verifier.can_tell(receipt)]
    for receipt, seen, verdict in map(verifier.by_head, backed):
        if verdict is not None:
            yield verdict
        else:
            doubtful.append((receipt, seen))
    yield from map(verifier.read_back, [receipt for receipt in unlisted if not verifier.can_tell(receipt)])
    yield from map(verifier.read_back_seen, doubtful)


class _Verifier:
    def __init__(self, store: ObjectStore, now: Callable[[], float], cancelled: Cancellation) -> None:
        self._store = store
        self._cancelled = cancelled
        self._now = now
        self._backs = store.capabilities

    def can_tell(self, receipt: Receipt) -> bool:
        """Whether a look at the object without its bytes can prove them."""
        return self._etag_can_tell(receipt) or self._tells_by_checksum(receipt)

    def listing_can_tell(self, receipt: Receipt) -> bool:
        """A listing tells of ETags; of the version, which the proof names where there is one, not in every store."""
        return self._etag_can_tell(receipt) and (receipt.version_id is None or self._backs.lists_versions)

    def listing_pays(self, told: list[Receipt]) -> bool:
        # It does not tell which objects a rule of the store would end, where that is for those that have certain tags.
        return len(told) >= LISTING_PAYS_FROM and not self._store.expiry.is_by_tag

    def may_be_withheld(self, verdict: Verdict) -> bool:
        """Whether HEAD could refuse what a listing shows: under a KMS key that has been disabled since the object was
        stored. What was stored a moment ago was encrypted with one that was usable then."""
        if not self._backs.checksum_on_head or not (verdict.receipt.encryption or "").startswith("aws:kms"):
            return False
        stored_at = verdict.seen.modified_at if verdict.seen is not None else None
        return stored_at is None or abs(verdict.asked_at - stored_at) > KEY_USABLE_SECONDS

    @property
    def listing_tells_ends(self) -> bool:
        """Whether there are no ends that only other answers than a listing tell of."""
        return self._store.expiry.rules_known

    def listed(self, batch: list[Receipt]) -> tuple[float, dict[str, StoredObject]]:
        """What one listing, begun at the time given, says of these objects: of what is current under their keys. It
        breaks off where far more others are in the way."""
        asked_at = self._now()
        wanted = {receipt.key for receipt in batch}
        last = max(wanted)
        found: dict[str, StoredObject] = {}
        limit = _LISTED_AT_LEAST + _LISTED_PER_RECEIPT * len(batch)
        prefix = os.path.commonprefix(sorted(wanted))  # noqa: RUF071  of keys, which are no paths
        with_versions = any(receipt.version_id is not None for receipt in batch)
        listing = self._store.current_versions(prefix) if with_versions else self._store.listing(prefix)
        for seen in until_cancelled(self._cancelled, islice(listing, limit)):
            if seen is None:
                continue
            if seen.key in wanted:
                found[seen.key] = seen
            if seen.key >= last:
                break
        return asked_at, found

    def by_listing(self, receipt: Receipt, seen: StoredObject | None, asked_at: float) -> Verdict | None:
        """What the store's view of an object proves; None if it proves nothing: what differs may be the view."""
        if seen is None:
            return Verdict(receipt, False, "", None, "missing", asked_at)
        if seen.size_bytes != receipt.size_bytes or seen.is_withheld:
            return None
        if self._tells_by_etag(receipt) and seen.etag == receipt.expected_etag:
            return Verdict(receipt, True, Method.ETAG, seen, "", asked_at)
        if self._tells_by_answer(receipt) and seen.etag == receipt.answered_etag:
            return Verdict(receipt, True, Method.ANSWERED_ETAG, seen, "", asked_at)
        if self._tells_by_checksum(receipt) and seen.checksum == receipt.expected_checksum:
            return Verdict(receipt, True, Method.CHECKSUM, seen, "", asked_at)
        return None

    def by_head(self, receipt: Receipt) -> tuple[Receipt, StoredObject | None, Verdict | None]:
        asked_at = self._now()
        try:
            seen = self._store.head(receipt.key)
        except Permanent:
            return receipt, None, Verdict(receipt, False, "", None, "unreadable", asked_at)
        return receipt, seen, self.by_listing(receipt, seen, asked_at)

    def read_back(self, receipt: Receipt) -> Verdict:
        seen = None
        if receipt.version_id is not None:  # what is read does not tell its version; the proof names it
            asked_at = self._now()
            try:
                seen = self._store.head(receipt.key)
            except Permanent:
                return Verdict(receipt, False, "", None, "unreadable", asked_at)
        return self.read_back_seen((receipt, seen))

    def read_back_seen(self, doubtful: tuple[Receipt, StoredObject | None]) -> Verdict:
        """Read every byte out of the store and hash it. Wrong bytes are read once more before they are called so: a
        good object that was damaged on its way here must not be called damaged for ever. What is known to be in cold
        storage is not asked for."""
        receipt, seen = doubtful
        if seen is not None and seen.is_cold:
            is_other = seen.size_bytes != receipt.size_bytes
            return Verdict(receipt, False, "", seen, "size" if is_other else "cold", self._now())
        verdict = self._read_back_once(*doubtful)
        return self._read_back_once(*doubtful) if verdict.problem in ("size", "content") else verdict

    def _read_back_once(self, receipt: Receipt, seen: StoredObject | None) -> Verdict:
        sha256 = hashlib.sha256()
        size_bytes = 0
        asked_at = self._now()
        try:
            for chunk in until_cancelled(self._cancelled, self._store.read(receipt.key)):
                sha256.update(chunk)
                size_bytes += len(chunk)
                if size_bytes > receipt.size_bytes:
                    break  # it is another object, however long it goes on
        except (CredentialsRefused, EncryptionKeyUnusable):
            self._require_answer(receipt.key)
            return Verdict(receipt, False, "", seen, "unreadable", asked_at)
        except ColdObject:
            return Verdict(receipt, False, "", seen, "cold", asked_at)
        except Permanent as error:
            missing = isinstance(error, NoSuchObject)
            problem: Problem = "missing" if missing else "unreadable"
            return Verdict(receipt, False, "", None if missing else seen, problem, asked_at)
        if seen is None:
            seen = StoredObject(receipt.key, size_bytes)
        if size_bytes != receipt.size_bytes:
            return Verdict(receipt, False, "", seen, "size", asked_at)
        if sha256.hexdigest() != receipt.sha256:
            return Verdict(receipt, False, "", seen, "content", asked_at)
        return Verdict(receipt, True, Method.READ_BACK, seen, "", asked_at)

    def _require_answer(self, key: str) -> None:
        """Whether a refusal was of this object alone: then the store answers a look at it all the same. Raises what
        concerns everything."""
        with suppress(Permanent):
            self._store.head(key)

    def _etag_can_tell(self, receipt: Receipt) -> bool:
        return self._tells_by_etag(receipt) or self._tells_by_answer(receipt)

    def _tells_by_etag(self, receipt: Receipt) -> bool:
        return self._backs.etag_is_content and receipt.expected_etag is not None

    def _tells_by_answer(self, receipt: Receipt) -> bool:
        if receipt.answered_etag is None:
            return False
        in_parts = etags.is_composed(receipt.answered_etag)
        return self._backs.etag_follows_parts if in_parts else self._backs.etag_follows_content

    def _tells_by_checksum(self, receipt: Receipt) -> bool:
        if receipt.expected_checksum is None:
            return False
        composed = of_parts(receipt.expected_checksum)
        return self._backs.checksum_of_parts if composed else self._backs.checksum_on_head


def _by_series(group: list[Receipt]) -> list[list[Receipt]]:
    """Receipts whose keys lie in one series, two levels up from the object (see `keys`)."""
    batches: dict[str, list[Receipt]] = {}
    for receipt in group:
        batches.setdefault(receipt.key.rsplit("/", 2)[0], []).append(receipt)
    return list(batches.values())
