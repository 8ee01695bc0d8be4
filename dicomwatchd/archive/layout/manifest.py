"""The manifest: one revision of one study, self-sufficient, immutable. `manifests` finds them in a store.

`fetch`, `verify` and a rebuild of the catalogue need nothing but manifests and objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import checked, exports, instance, variants
from dicomwatchd.archive.layout.completeness import SignsDocument, judged_by, next_signs, unchanged
from dicomwatchd.archive.layout.exports import Export
from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.listed import ListedDocument, next_listed, verdicts
from dicomwatchd.archive.layout.listed import of_raw as listed_of_raw
from dicomwatchd.archive.layout.variants import DataSets, Grade, Variants
from dicomwatchd.archive.records import SeriesRecord, StudyRecord
from dicomwatchd.archive.stores.reading import has_too_many_values
from dicomwatchd.character_sets import GUESSED, is_guessed
from dicomwatchd.errors import BadManifest, NewerManifest, Permanent
from dicomwatchd.model import DicomJson, Uid, first_values
from dicomwatchd.patients import (
    IDENTITIES_LIMITED,
    Identity,
    Order,
    distinct,
    document,
    filled_up,
    from_document,
    leaves_out,
)
from dicomwatchd.study_completeness import GAPS, Answer, StudyCompleteness
from dicomwatchd.study_signs import SeriesSigns

FORMAT = "dicomwatchd-manifest/1"
#: Of a manifest with instances in bundles: a version that does not know of them must not take it for damaged.
BUNDLED_FORMAT = "dicomwatchd-manifest/2"
#: Of a manifest with damaged instances: a version that does not know of them would take them for whole.
DAMAGED_FORMAT = "dicomwatchd-manifest/3"
#: The flag of a study of which the archive has a damaged instance, and no whole copy of that.
DAMAGED_INSTANCES = "damaged-instances"
#: Those of a study of which the archive has several versions of an instance: with the same pixels, and with other ones.
CORRECTED_INSTANCES = "corrected-instances"
CONFLICTING_INSTANCES = "conflicting-instances"

#: So many institutions of a study the catalogue names.
INSTITUTIONS = 16

_NEWER = re.compile(r"dicomwatchd-manifest/[0-9]{1,6}\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """``created_at`` and ``stored_at`` are UTC, ISO 8601, with "Z". ``series`` maps series UID to its DICOM JSON
    attributes (PS3.18 Annex F), ``attributes`` holds those of patient and study. ``flags``, sorted, are plain
    words: "patient-id-differs", "sop-instance-uid-repeated", "charset-guessed". ``identities`` and ``orders`` are all
    that the files have named, of what the attributes hold one each; a manifest of an earlier version has none.
    ``data_sets`` are the digests of those instances whose SOP Instance UID has several contents.
    ``signs`` is what the instances say of how many there should be, of the series of which all is known, and
    ``completeness`` the verdict; a manifest of an earlier version has neither. ``listed`` is what DICOMDIRs list,
    ``exports`` are those that are archived with the study: a program that knows nothing of them leaves both out of its
    next revision, so no format of its own tells of them."""

    archive_id: str
    study_uid: Uid
    revision: int
    previous_sha256: str | None
    created_at: str
    created_by: str
    flags: tuple[str, ...]
    attributes: DicomJson
    series: dict[Uid, DicomJson]
    instances: tuple[ManifestInstance, ...]
    damaged_keys: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    orders: tuple[Order, ...] = ()
    signs: SignsDocument = field(default_factory=dict)
    completeness: StudyCompleteness | None = None
    data_sets: DataSets = field(default_factory=dict)
    listed: ListedDocument = field(default_factory=dict)
    exports: tuple[Export, ...] = ()
    # What was worked out of the rest: the bytes, made or read, their SHA-256, and the instances by their content. No
    # parameters, so that a copy with other values starts without them.
    _text: dict[str, bytes] = field(default_factory=dict, init=False, compare=False, repr=False)
    _sha256: list[str] = field(default_factory=list, init=False, compare=False, repr=False)
    _by_content: dict[Content, ManifestInstance] = field(default_factory=dict, init=False, compare=False, repr=False)
    _variants: list[tuple[Variants, ...]] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def key(self) -> str:
        return keys.manifest(self.study_uid, self.revision)

    @property
    def _format(self) -> str:
        if any(item.damage for item in self.instances):
            return DAMAGED_FORMAT
        return BUNDLED_FORMAT if any(item.is_in_bundle for item in self.instances) else FORMAT

    def to_bytes(self) -> bytes:
        """The manifest as it stands in the store: JSON, UTF-8, sorted keys, one instance a line to be greppable."""
        if "bytes" not in self._text:
            head: dict[str, object] = {
                "format": self._format,
                "archive_id": self.archive_id,
                "study_uid": self.study_uid,
                "revision": self.revision,
                "previous_sha256": self.previous_sha256,
                "created_at": self.created_at,
                "created_by": self.created_by,
                "flags": self.flags,
                "attributes": self.attributes,
                "series": self.series,
                "damaged_keys": self.damaged_keys,
            }
            if self.identities:
                head["identities"] = [document(one) for one in self.identities]
            if self.orders:
                head["orders"] = [document(one) for one in self.orders]
            if self.signs:
                head["signs"] = self.signs
            if self.listed:
                head["listed"] = self.listed
            if self.exports:
                head["exports"] = [one.document() for one in self.exports]
            if self.completeness is not None:
                head["completeness"] = self.completeness.document()
            if self.data_sets:
                head["data_sets"] = variants.document(self.data_sets)
            lines = ",\n  ".join(checked.dumps(instance.document(item)) for item in self.instances)
            text = checked.dumps(head)[:-1] + ',\n "instances": [\n  ' + lines + "\n ]}\n"
            self._text["bytes"] = text.encode("ascii")
        return self._text["bytes"]

    @property
    def sha256(self) -> str:
        if not self._sha256:  # every file's proof names it
            self._sha256.append(hashlib.sha256(self.to_bytes()).hexdigest())
        return self._sha256[0]

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest that ``data``, read from the store, holds; its ``sha256`` is that of ``data`` itself.

        Raises BadManifest for anything that is not a manifest in every part: whoever uses one relies on its types, on
        its keys lying below its study, and on no instance being there twice. For one that a newer program wrote in
        another format, which is none of that, NewerManifest.
        """
        try:
            if has_too_many_values(data):
                raise ValueError("more values than a manifest of this size has")
            raw = json.loads(data, parse_constant=checked.finite, parse_float=checked.finite)
            if raw["format"] not in (FORMAT, BUNDLED_FORMAT, DAMAGED_FORMAT):
                if _NEWER.match(raw["format"]):
                    raise _newer_format()
                raise ValueError("another format")
            study = Uid(raw["study_uid"])
            manifest = cls(
                archive_id=checked.text(raw["archive_id"]),
                study_uid=study,
                revision=checked.number(raw["revision"], 1, keys.HIGHEST_REVISION),
                previous_sha256=checked.digest(raw["previous_sha256"]),
                created_at=checked.text(raw["created_at"]),
                created_by=checked.text(raw["created_by"]),
                flags=checked.texts(raw["flags"]),
                attributes=checked.attributes(raw["attributes"]),
                series={Uid(uid): checked.attributes(attributes) for uid, attributes in raw["series"].items()},
                instances=tuple(instance.from_document(study, item) for item in checked.items(raw["instances"])),
                damaged_keys=checked.texts(raw.get("damaged_keys", [])),
                identities=tuple(from_document(Identity, one) for one in checked.items(raw.get("identities", []))),
                orders=tuple(from_document(Order, one) for one in checked.items(raw.get("orders", []))),
                signs={Uid(uid): one for uid, one in checked.attributes(raw.get("signs", {})).items()},
                completeness=StudyCompleteness.of(raw["completeness"]) if "completeness" in raw else None,
                data_sets={
                    digest: checked.data_set_digest(one)
                    for digest, one in checked.attributes(raw.get("data_sets", {})).items()
                },
                listed=listed_of_raw(raw.get("listed", {})),
                exports=exports.of_raw(study, raw.get("exports", [])),
            )
            if len({item.content for item in manifest.instances}) != len(manifest.instances):
                raise ValueError("an instance is there twice")
            if raw["format"] != manifest._format:
                raise ValueError("the format of other instances")
            instance.require_disjoint(manifest.instances)
        except NewerManifest:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Permanent) as error:
            raise BadManifest("a manifest in the store cannot be read") from error
        manifest._text["bytes"] = data
        return manifest

    def merged(
        self,
        instances: Iterable[ManifestInstance],
        *,
        attributes: DicomJson,
        series: dict[Uid, DicomJson],
        flags: Iterable[str],
        damaged_keys: Iterable[str],
        created_at: str,
        created_by: str,
        healed_keys: Iterable[str] = (),
        identities: Iterable[Identity] = (),
        orders: Iterable[Order] = (),
        signs: Mapping[Uid, SeriesSigns] | None = None,
        data_sets: DataSets | None = None,
        listed: Mapping[str, Collection[str]] | None = None,
        exported: Iterable[Export] = (),
    ) -> Manifest:
        """The next revision with these instances added; ``self`` itself if there is nothing new in them.

        An instance that is there already, the same SOP Instance with the same SHA-256, stays as it was first
        recorded, unless the given one, which was verified just now, has another key that is not among the
        ``damaged_keys``: a repair takes its place; so does the version of its key that is current by now, where the
        one recorded lies under a newer one or under a delete marker. ``healed_keys`` are damaged no more. Nothing that
        was archived ever drops out of the list. What was found in the store without its particulars has them again
        when its file comes once more. Of each attribute the value that was recorded first wins, so that a revision adds
        and never rewrites. ``signs`` are those of the series of which every new instance's are known;
        ``listed``: see `next_listed`; ``exported`` are DICOMDIRs that are archived by now.
        """
        damaged = {*damaged_keys, *self.damaged_keys} - set(healed_keys)
        known = {item.content: item for item in self.instances}
        for item in instances:
            present = known.setdefault(item.content, item)
            if present.is_found_again and not item.is_found_again and item.key not in damaged:
                known[item.content] = item  # what was lost of it is known again
                continue
            if item.is_located_as(present):
                continue
            if present.key == item.key:
                known[item.content] = replace(present, version_id=item.version_id)
            elif item.key not in damaged:
                known[item.content] = item
        combined = tuple(sorted(known.values(), key=lambda item: item.content))
        attributes = filled_up(self.attributes, attributes)
        series = {
            **self.series,
            **{uid: first_values(self.series.get(uid, {}), added) for uid, added in series.items()},
        }
        guessed = (GUESSED,) if any(map(is_guessed, (attributes, *series.values()))) else ()
        identities = tuple(identities)
        patients = distinct(self.all_identities, identities)
        limited = (IDENTITIES_LIMITED,) if leaves_out(patients, identities) else ()
        next_one = replace(
            self,
            flags=tuple(sorted({*self.flags, *flags, *limited, *instance.repeated(combined), *guessed})),
            attributes=attributes,
            series=series,
            instances=combined,
            damaged_keys=tuple(sorted(damaged)),
            identities=_or_none(patients, self.identities, self.all_identities),
            orders=_or_none(distinct(self.all_orders, orders), self.orders, self.all_orders),
            data_sets={**(data_sets or {}), **self.data_sets},
            exports=exports.together(self.exports, exported),
        )
        of_dicomdirs = self.listed
        if of_dicomdirs or listed:
            of_dicomdirs = next_listed(self.listed, listed or {}, {item.sop_instance_uid for item in combined})
        is_judged = self.completeness is not None or not (self.signs or self.listed)
        if len(combined) != len(self.instances) or of_dicomdirs != self.listed or not is_judged:
            of_study = next_signs(self.signs, self.instances, combined, signs or {})
            verdict = judged_by(of_study, combined, verdicts(of_dicomdirs)) if of_study or of_dicomdirs else None
            next_one = replace(next_one, signs=of_study, listed=of_dicomdirs, completeness=verdict)
        if next_one == self:
            return self
        return replace(
            next_one,
            revision=self.revision + 1,
            previous_sha256=self.sha256 if self.revision else None,
            created_at=created_at,
            created_by=created_by,
        )

    @property
    def all_identities(self) -> tuple[Identity, ...]:
        """Whom the study's files name. In a manifest of an earlier version the attributes, of one file, tell."""
        return self.identities or distinct([Identity.of(self.attributes)])

    @property
    def all_orders(self) -> tuple[Order, ...]:
        return self.orders or distinct([Order.of(self.attributes)])

    def naming(self, identities: tuple[Identity, ...], orders: tuple[Order, ...]) -> Manifest:
        """This revision, as the store holds it, with what others name, too."""
        if (identities, orders) == (self.identities, self.orders):
            return self
        same = replace(self, identities=identities, orders=orders)
        same._sha256.append(self.sha256)
        return same

    def instance_with(self, sop_instance: Uid, series: Uid, sha256: str) -> ManifestInstance | None:
        if not self._by_content:
            self._by_content.update((item.content, item) for item in self.instances)
        return self._by_content.get((series, sop_instance, sha256))

    @property
    def whole(self) -> list[ManifestInstance]:
        """The instances that may stand in the place of damaged copies: none of an object that was found damaged, for
        nobody knows whether it can be had."""
        bad = frozenset(self.damaged_keys)
        return [item for item in self.instances if item.is_whole and item.key not in bad]

    @property
    def unsuperseded(self) -> list[ManifestInstance]:
        """The damaged instances of which it lists no whole copy."""
        superseded = self.superseded_uids
        return [item for item in self.instances if item.damage and item.sop_instance_uid not in superseded]

    @property
    def superseded_uids(self) -> frozenset[Uid]:
        """The SOP Instance UIDs of which it lists a damaged copy and a whole one."""
        damaged = {item.sop_instance_uid for item in self.instances if item.damage}
        if not damaged:
            return frozenset()
        return frozenset(item.sop_instance_uid for item in self.whole) & damaged

    def sop_instance_uids(self) -> list[str]:
        return [str(item.sop_instance_uid) for item in self.instances]

    @property
    def variants(self) -> tuple[Variants, ...]:
        """Its SOP Instance UIDs with several contents, and what these are to each other."""
        if not self._variants:
            self._variants.append(variants.graded(self.instances, self.data_sets, frozenset(self.damaged_keys)))
        return self._variants[0]

    def shared(self, alike: dict[ManifestInstance, ManifestInstance]) -> Manifest:
        """The same manifest, without its bytes, and with instances that are in ``alike`` already as they are there."""
        same = replace(self, instances=tuple(alike.setdefault(item, item) for item in self.instances))
        same._sha256.append(self.sha256)
        return same

    def listing(self, instances: Iterable[ManifestInstance]) -> Manifest:
        """This revision, as the store holds it, with other instances: what all revisions of the study list."""
        listed = tuple(sorted(instances, key=lambda item: item.content))
        same = replace(self, instances=listed, signs=unchanged(self.signs, self.instances, listed))
        if same.signs != self.signs or len(listed) != len(self.instances):
            same = replace(same, completeness=None)
        same._sha256.append(self.sha256)
        return same

    def record(self) -> StudyRecord:
        """What the catalogue holds of this revision: a function of the manifest alone, so a rebuild is exact."""
        per_series: dict[Uid, list[ManifestInstance]] = {uid: [] for uid in self.series}
        for item in self.instances:
            per_series.setdefault(item.series_uid, []).append(item)
        series = tuple(
            SeriesRecord(
                series_uid=uid,
                modality=_value(self.series.get(uid, {}), "00080060"),
                instances=len(items),
                size_bytes=sum(item.size_bytes for item in items),
                attributes=self.series.get(uid, {}),
            )
            for uid, items in sorted(per_series.items())
        )
        return StudyRecord(
            study_uid=self.study_uid,
            revision=self.revision,
            manifest_key=self.key,
            manifest_sha256=self.sha256,
            archived_at=self.created_at,
            instances=len(self.instances),
            size_bytes=sum(item.size_bytes for item in self.instances),
            patient_id=_value(self.attributes, "00100020"),
            accession_number=_value(self.attributes, "00080050"),
            study_date=_study_date(_value(self.attributes, "00080020")),
            modalities=tuple(sorted({s.modality for s in series if s.modality})),
            flags=tuple(sorted({*self.flags, *self._flags_of_record()})),
            attributes=self.attributes,
            series=series,
            identities=self.all_identities,
            orders=self.all_orders,
            institutions=tuple(sorted({_value(one.attributes, "00080080") for one in series} - {""}))[:INSTITUTIONS],
            completeness=self.completeness,
        )

    def _flags_of_record(self) -> Iterator[str]:
        """What a later revision may put right."""
        if self.unsuperseded:
            yield DAMAGED_INSTANCES
        grades = {one.grade for one in self.variants}
        if Grade.CORRECTION in grades:
            yield CORRECTED_INSTANCES
        if Grade.CONFLICT in grades:
            yield CONFLICTING_INSTANCES
        if self.completeness is not None and self.completeness.answer is Answer.GAPS:
            yield GAPS


_Said = TypeVar("_Said")


def _or_none(merged: tuple[_Said, ...], own: tuple[_Said, ...], known: tuple[_Said, ...]) -> tuple[_Said, ...]:
    """What a revision records: as it was, where that is all of it, so that nothing new is no new revision."""
    return own if merged == known else merged


def empty(archive_id: str, study_uid: Uid) -> Manifest:
    """Revision 0, which is never stored: what the first revision is merged from."""
    return Manifest(archive_id, study_uid, 0, None, "", "", (), {}, {}, ())


def _newer_format() -> NewerManifest:
    return NewerManifest("a manifest in the store was written by a newer dicomwatchd", hint="update this dicomwatchd")


def _value(attributes: DicomJson, tag: str) -> str:
    values = attributes.get(tag, {}).get("Value")
    value = values[0] if isinstance(values, list) and values else ""
    return str(value) if isinstance(value, str | int | float) else ""


def _study_date(value: str) -> str:
    return value if len(value) == 8 and value.isascii() and value.isdecimal() else ""
