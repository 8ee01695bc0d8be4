"""Whether objects that were proven a moment ago are still there, as themselves: the look that comes last before local
files go. Many are looked up by one listing; their bytes were proven before, and are not proven again here."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from itertools import islice

from dicomwatchd.archive.proof.evidence import LISTING_PAYS_FROM
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, StoredObject
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.ports import Cancellation, never_cancelled, until_cancelled

_LISTED_AT_LEAST = 1000
_LISTED_PER_RECEIPT = 50


def missing(store: ObjectStore, wanted: Mapping[str, Receipt], cancelled: Cancellation = never_cancelled) -> set[str]:
    """The keys, of these, whose objects the store does not show any more, or shows as other ones than were proven.

    Only what a listing does not bear out is asked for one by one; as soon as one of those turns out to be gone the
    others are taken at the listing's word: no file goes then in any case. Raises Transient, Stopping.
    """
    gone = set(wanted)
    listing = len(wanted) >= LISTING_PAYS_FROM and not store.capabilities.objects_are_files
    if listing:
        gone -= _listed(store, wanted, cancelled)
    for key in until_cancelled(cancelled, sorted(gone)):
        if _is_there(store, wanted[key]):
            gone.discard(key)
        elif listing:
            break
    return gone


def is_itself(store: ObjectStore, receipt: Receipt, seen: StoredObject) -> bool:
    """Whether this is the object that was proven, by its size, and by its ETag where that is known: the one that proves
    the content, or the one that the object had when it was proven."""
    expected_etag = receipt.expected_etag if store.capabilities.etag_is_content else None
    known = {receipt.seen_etag, receipt.answered_etag, expected_etag} - {None}
    return seen.size_bytes == receipt.size_bytes and (not known or seen.etag in known)


def _listed(store: ObjectStore, wanted: Mapping[str, Receipt], cancelled: Cancellation) -> set[str]:
    keys = sorted(wanted)
    prefix = os.path.commonprefix(keys)  # noqa: RUF071  of keys, which are no paths
    # What sorts before the first of them and after nearly everything else: a listing begins right behind it.
    after = max(prefix, keys[0][:-1])
    limit = _LISTED_AT_LEAST + _LISTED_PER_RECEIPT * len(keys)
    found: set[str] = set()
    for seen in until_cancelled(cancelled, islice(store.listing(prefix, after), limit)):
        receipt = wanted.get(seen.key)
        if receipt is not None and is_itself(store, receipt, seen):
            found.add(seen.key)
        if seen.key >= keys[-1]:
            break
    return found


def _is_there(store: ObjectStore, receipt: Receipt) -> bool:
    """One answer that does not bear it out is no evidence: it is asked a second time, with the file staged all the
    while. What went with its file is missing both times."""
    return any(_is_shown(store, receipt) for _ in range(2))


def _is_shown(store: ObjectStore, receipt: Receipt) -> bool:
    try:
        seen = store.head(receipt.key)
    except Permanent as error:
        raise Transient("the store cannot show an object that it holds", code="unreadable-object") from error
    if seen is not None and seen.is_withheld:
        raise Transient("the store holds an object that it does not let be read", code="unreadable-object")
    return seen is not None and is_itself(store, receipt, seen)
