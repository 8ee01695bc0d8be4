"""One study: what its newest manifest lists, against what is seen of its objects. No instance's bytes are read, unless
they are to be hashed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.fixity.erased import CannotTell, Erased, Leavings, erased_at
from dicomwatchd.archive.fixity.findings import WEAKEST_FIRST, Findings, Outcome, Proof, StudyVerdict
from dicomwatchd.archive.fixity.listed import of_listing
from dicomwatchd.archive.fixity.seen import Seen, Sum
from dicomwatchd.archive.fixity.spare import Spare
from dicomwatchd.archive.layout import erasures, lineage
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.lineage import DISPUTED, Lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import Listed
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.verification import may_be_on_its_way
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores import withheld
from dicomwatchd.archive.stores.port import ObjectStore, Receipt, StoredObject
from dicomwatchd.errors import BadManifest, CatalogueEntryDamaged, Permanent, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Cancellation, Map, never_cancelled, timestamp

#: Objects of one study that may come before its manifests in the order of keys: bundles and DICOMDIRs.
_MOST_BEFORE_MANIFESTS = 200_000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An object that is on record."""

    size_bytes: int
    etag: str | None
    sha256: str
    stored_at: str


@dataclass(slots=True)
class _Tally:
    """What has come of going through what is seen of a study."""

    record: StudyRecord | None = None
    found: Lineage | None = None
    findings: Findings = field(default_factory=Findings)
    proofs: Counter[Proof] = field(default_factory=Counter)
    objects: int = 0
    in_no_manifest: int = 0
    in_no_manifest_bytes: int = 0
    on_their_way: int = 0
    copies: int = 0
    derived: int = 0
    #: Of objects on record, for when the study is listed again.
    sums: dict[str, tuple[Sum, ...]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    #: Of a study that was erased; no listing shows them.
    hidden_and_left: list[str] = field(default_factory=list)
    present: dict[str, _Wanted] = field(default_factory=dict)


class StudyVerifier:
    """Safe to use from many threads. ``as_of`` is when what is seen was so (`Source.as_of`), ``now`` the time.

    With ``hashing`` each object's bytes are read, and hashed: where that costs nobody a transfer. ``cancelled`` is
    asked between the pieces. ``erased`` are the studies that were, None where nobody may know."""

    def __init__(
        self,
        store: ObjectStore,
        catalogue: Catalogue | None,
        archive_id: str,
        *,
        now: float,
        as_of: float | None = None,
        erased: Erased | None = None,
        hashing: bool = False,
        cancelled: Cancellation = never_cancelled,
        map: Map = map,
    ) -> None:
        self._store, self._catalogue, self._archive_id = store, catalogue, archive_id
        self._as_of, self._erased = as_of, erased
        self._seen_at = now if as_of is None else as_of
        self._hashing, self._cancelled, self._map = hashing, cancelled, map

    def study(self, study: Uid, seen: Iterable[Seen]) -> StudyVerdict:
        """``seen`` are the study's objects, in the order of keys. What does not agree is looked at again, by a listing
        of the study: what was seen may be older than the manifest, and only what is not there now is missing. What was
        erased is not missing, and what is left of it is nothing that the archive holds. Raises Transient where the
        store or the catalogue does not answer, and Fatal."""
        try:
            erasure = None if self._erased is None else self._erased.of(study)
            tally = self._go_through(study, seen, self._as_of, erasure)
            if tally.findings.outcome in (Outcome.PROVEN, Outcome.NOT_COVERED):
                return self._verdict(study, tally, listed_again=False)
            again = self._listed_again(study, tally, erasure)
            if again.findings.outcome is Outcome.PROBLEM or "unknown" in again.findings.count:
                erasure = None if self._erased is None else self._erased.since(study)
                if erasure is not None:
                    again = self._listed_again(study, again, erasure)
        except CannotTell as error:
            again = _Tally()
            again.findings.add("unknown", reason=str(error))
        return self._verdict(study, again, listed_again=True)

    def _listed_again(self, study: Uid, before: _Tally, erasure: Erasure | None) -> _Tally:
        fresh = map(of_listing, self._store.listing(keys.study_prefix(study)))
        seen = (replace(one, sums=before.sums.get(one.key, ())) for one in fresh)
        tally = self._go_through(study, seen, None, erasure, before.hidden)
        for key in before.hidden_and_left:
            tally.findings.add("left-erased", key)
        return tally

    def absent(self, study: Uid) -> StudyVerdict | None:
        """A study that the catalogue names, and of which nothing was seen. None where it is gone from there, too."""
        record = self._record(study, Findings())
        is_erased = self._erased is not None and study in self._erased.numbers
        if (
            record is not None
            and not is_erased
            and self._as_of is not None
            and record.archived_at > timestamp(self._as_of)
        ):
            tally = _Tally(record=record)
            tally.findings.add("newer")
            return self._verdict(study, tally, listed_again=False)
        verdict = self.study(study, ())
        return verdict if verdict.is_named else None

    # -- once through what is seen --

    def _go_through(
        self,
        study: Uid,
        seen: Iterable[Seen],
        as_of: float | None,
        erasure: Erasure | None,
        hidden: Iterable[str] = (),
    ) -> _Tally:
        tally = _Tally(hidden=set(hidden))
        before: list[Seen] = []
        rest: Iterator[Seen] = iter(seen)
        behind_manifests = f"{keys.manifests_prefix(study).removesuffix('/')}0"  # "0" comes right behind "/"
        for one in rest:
            if one.key >= behind_manifests:
                rest = chain([one], rest)
                break
            if len(before) == _MOST_BEFORE_MANIFESTS:
                tally.findings.add("too-many")
                return tally
            before.append(one)
        try:
            tally.found = self._lineage(study, before, tally, erasures.floor_of(erasure))
        except Transient as error:
            if error.endpoint is not None:
                raise
            tally.findings.add("unknown", reason=error.message)
            return tally
        except Permanent as error:
            tally.findings.add("manifest-unusable", reason=error.message)
            return tally
        leavings = None
        if erasure is not None:
            leavings = Leavings(erasure, self._seen_at, is_archived_again=tally.found is not None)
        if tally.found is None or tally.found.whole is None:
            self._count_unlisted(chain(before, rest), tally, Spare(study, None, tally.found), leavings)
            return tally
        self._compare(study, chain(before, rest), tally, tally.found.whole, leavings, as_of)
        if self._hashing:
            self._hash(tally)
        return tally

    def _lineage(self, study: Uid, before: Iterable[Seen], tally: _Tally, floor: int) -> Lineage | None:
        """What the manifests say, and the catalogue of them, above what was erased. None where there is no manifest."""
        revisions: dict[int, StoredObject] = {}
        strangers = []
        for one in before:
            named = keys.parse_manifest(one.key)
            if named is not None and not one.is_hidden:
                revisions[named[1]] = StoredObject(one.key, one.size_bytes, one.etag)
            elif named is None and one.key.startswith(keys.manifests_prefix(study)):
                strangers.append(one.key)
        recorded = self._record(study, tally.findings)
        record = tally.record = erasures.unless_erased(recorded, floor)
        if record is not recorded:
            tally.findings.add("left-erased")
        if record is not None and record.revision not in revisions:
            # A listing passes by, and an inventory is of some days ago: what the catalogue names is asked for.
            there = self._store.head(keys.manifest(study, record.revision))
            if there is not None:
                revisions[record.revision] = there
        listed = Listed(study, revisions, tuple(strangers)).above(floor)
        if not listed.revisions:
            if record is not None:
                tally.findings.add("manifest-missing")
            if floor and "catalogue-damaged" in tally.findings.count:
                tally.findings.add("left-erased")
            return None
        vouched = self._vouched_for(listed, record, tally.findings)
        found = lineage.trace(self._store, listed, vouched, archive_id=self._archive_id, lenient=True, map=self._map)
        for refused in found.refused:
            kind = "manifest-damaged" if refused.kind is BadManifest else "manifest-unusable"
            tally.findings.add(kind, refused.key, f"revision {refused.revision}: {refused.reason}")
        for other in found.disregarded:
            tally.findings.add(
                "manifests-disagree", keys.manifest(study, other.revision), f"revision {other.revision}: {other.reason}"
            )
        self._compare_record(tally, found.current)
        return found

    def _vouched_for(self, listed: Listed, record: StudyRecord | None, findings: Findings) -> Manifest | None:
        try:
            return lineage.vouched_for(self._store, listed, record)
        except withheld.REFUSALS:
            # Of this object alone, if the store still answers a HEAD of it: it must not stop the others.
            key = keys.manifest(listed.study_uid, record.revision if record is not None else listed.newest)
            self._store.head(key)
            findings.add("manifest-unusable", key, "the store refuses to give the manifest")
            return None

    def _record(self, study: Uid, findings: Findings) -> StudyRecord | None:
        if self._catalogue is None:
            return None
        try:
            return self._catalogue.get(study)
        except CatalogueEntryDamaged:
            findings.add("catalogue-damaged")
            return None

    def _compare_record(self, tally: _Tally, current: Manifest | None) -> None:
        record = tally.record
        if self._catalogue is None or "catalogue-damaged" in tally.findings.count:
            return
        if record is None:
            tally.findings.add("catalogue-missing")
        elif current is None or record.revision > current.revision:
            tally.findings.add("manifest-missing")
        elif record.revision < current.revision:
            tally.findings.add("catalogue-behind")
        elif DISPUTED not in record.flags and record.manifest_sha256 != current.sha256:
            tally.findings.add("catalogue-differs")

    def _compare(
        self,
        study: Uid,
        seen: Iterable[Seen],
        tally: _Tally,
        whole: Manifest,
        leavings: Leavings | None,
        as_of: float | None,
    ) -> None:
        wanted = _on_record(whole)
        tally.objects = len(wanted)
        others = self._others(seen, tally, wanted)
        self._count_unlisted(others, tally, Spare(study, whole, tally.found), leavings)
        made_at = None if as_of is None else timestamp(as_of)
        for key, one in wanted.items():
            if made_at is not None and one.stored_at > made_at:
                tally.findings.add("newer", key)
            else:
                tally.findings.add("hidden" if key in tally.hidden else "missing", key)

    def _others(self, seen: Iterable[Seen], tally: _Tally, wanted: dict[str, _Wanted]) -> Iterator[Seen]:
        """Settles what is on record, takes it out of ``wanted``, and gives what is not."""
        for one in seen:
            on_record = wanted.get(one.key)
            if on_record is None:
                yield one
                continue
            if one.is_hidden:
                tally.hidden.add(one.key)
                continue
            del wanted[one.key]
            if one.sums:
                tally.sums[one.key] = one.sums
            said = _proven_by(one, on_record)
            if not isinstance(said, Proof):
                tally.findings.add(said, one.key)
            elif self._hashing:
                tally.present[one.key] = on_record
            else:
                tally.proofs[said] += 1

    def _count_unlisted(self, seen: Iterable[Seen], tally: _Tally, spare: Spare, leavings: Leavings | None) -> None:
        for one in seen:
            if leavings is not None and not spare.is_copy(one.key) and leavings.has(one):
                self._left(one, tally, leavings)
            elif one.is_hidden or keys.parse_manifest(one.key) is not None:
                continue
            elif keys.parse_series_index(one.key) is not None:
                tally.derived += 1
            elif spare.is_copy(one.key):
                tally.copies += 1
            elif may_be_on_its_way(one.modified_at, self._seen_at):
                tally.on_their_way += 1
            else:
                tally.in_no_manifest += 1
                tally.in_no_manifest_bytes += one.size_bytes

    def _left(self, one: Seen, tally: _Tally, leavings: Leavings) -> None:
        if one.is_hidden:
            # Its versions are there, if that was so when it had been erased.
            if self._as_of is None or self._as_of <= erased_at(leavings.erasure):
                return
            tally.hidden_and_left.append(one.key)
        tally.findings.add("left-erased", one.key, leavings.reason)

    def _hash(self, tally: _Tally) -> None:
        receipts = (Receipt(key, one.size_bytes, one.sha256, created=False) for key, one in tally.present.items())
        for verdict in evidence.examine(self._store, receipts, deep=True, map=self._map, cancelled=self._cancelled):
            if verdict.holds:
                tally.proofs[Proof.HASH] += 1
            else:
                tally.findings.add(verdict.problem or "unknown", verdict.receipt.key)
        tally.present.clear()

    def _verdict(self, study: Uid, tally: _Tally, *, listed_again: bool) -> StudyVerdict:
        found = tally.found
        whole = None if found is None else found.whole
        outcome = tally.findings.outcome
        proof = min(tally.proofs, key=WEAKEST_FIRST.index, default=None) if outcome is Outcome.PROVEN else None
        return StudyVerdict(
            study_uid=study,
            revision=0 if whole is None else whole.revision,
            outcome=outcome,
            proof=proof,
            findings=tuple(tally.findings.kept),
            counts=dict(tally.findings.count),
            objects=tally.objects,
            proofs={str(one): number for one, number in tally.proofs.items()},
            instances=0 if whole is None else len(whole.instances),
            size_bytes=0 if whole is None else sum(item.size_bytes for item in whole.instances),
            damaged_instances=0 if whole is None else len(whole.unsuperseded),
            in_catalogue=tally.record is not None or "catalogue-damaged" in tally.findings.count,
            in_no_manifest=tally.in_no_manifest,
            in_no_manifest_bytes=tally.in_no_manifest_bytes,
            on_their_way=tally.on_their_way,
            copies=tally.copies,
            derived=tally.derived,
            listed_again=listed_again,
        )


def _on_record(whole: Manifest) -> dict[str, _Wanted]:
    """The objects that a manifest lists, by their keys: a bundle once, whatever is in it."""
    wanted: dict[str, _Wanted] = {}
    for item in whole.instances:
        if item.key not in wanted:
            sha256 = keys.bundle_sha256(item.key, whole.study_uid) or item.sha256
            wanted[item.key] = _Wanted(item.object_bytes, item.etag, sha256, item.stored_at)
    for one in whole.exports:
        wanted[one.key] = _Wanted(one.size_bytes, one.etag, one.sha256, one.stored_at)
    return wanted


def _proven_by(seen: Seen, on_record: _Wanted) -> Proof | str:
    """By what an object is proven, or what was found."""
    if seen.size_bytes != on_record.size_bytes:
        return "size"
    of_this = [one for one in seen.sums if _is_of(one, seen)]
    known = {one.sha256 for one in of_this if one.sha256 is not None}
    if known:
        return Proof.CHECKSUM if known == {on_record.sha256} else "content"
    if any(one.sha256 is None and not _is_of_another(one, seen) for one in seen.sums):
        return "no-checksum"
    if on_record.etag is None or seen.etag is None:
        return Proof.SIZE
    return Proof.ETAG if on_record.etag == seen.etag else "etag"


def _is_of(one: Sum, seen: Seen) -> bool:
    """Whether a sum is known to be of what is current under the key, and not of what was before."""
    versions = one.version_id is not None and seen.version_id is not None
    etags = one.etag is not None and seen.etag is not None
    return (versions or etags) and not _is_of_another(one, seen)


def _is_of_another(one: Sum, seen: Seen) -> bool:
    return (None not in (one.version_id, seen.version_id) and one.version_id != seen.version_id) or (
        None not in (one.etag, seen.etag) and one.etag != seen.etag
    )
