"""The manifest: one revision of one study, self-sufficient, immutable, in the store beside the objects.

`fetch`, `verify` and a rebuild of the catalogue need nothing but manifests and objects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogue import SeriesRecord, StudyRecord
from dicomwatchd.archive.store import Buffer, ObjectStore
from dicomwatchd.errors import Permanent
from dicomwatchd.model import DicomJson, Uid

FORMAT = "dicomwatchd-manifest/1"


@dataclass(frozen=True, slots=True)
class ManifestInstance:
    """One SOP Instance's bytes in the archive.

    ``original_path`` is the path below the inbox it came from; it may name the patient and stays in the manifest.
    ``verified_by`` says what proved the stored bytes: "etag-md5", "checksum" or "read-back".
    """

    series_uid: Uid
    sop_instance_uid: Uid
    sop_class_uid: str
    transfer_syntax_uid: str
    key: str
    size_bytes: int
    sha256: str
    etag: str | None
    version_id: str | None
    original_path: str
    inbox: str
    stored_at: str
    verified_by: str
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """``created_at`` and ``stored_at`` are UTC, ISO 8601, with "Z". ``series`` maps series UID to its DICOM JSON
    attributes (PS3.18 Annex F), ``attributes`` holds those of patient and study. ``flags``, sorted, are plain
    words: "patient-id-differs", "sop-instance-uid-repeated"."""

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
    _text: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        return keys.manifest(self.study_uid, self.revision)

    def to_bytes(self) -> bytes:
        """The manifest as it stands in the store: JSON, UTF-8, sorted keys, one instance a line to be greppable."""
        if "bytes" not in self._text:
            head = {
                "format": FORMAT,
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
            lines = ",\n  ".join(_dumps(asdict(instance)) for instance in self.instances)
            text = _dumps(head)[:-1] + ',\n "instances": [\n  ' + lines + "\n ]}\n"
            self._text["bytes"] = text.encode("ascii")
        return self._text["bytes"]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises Permanent (code "bad-manifest") for anything that is not a manifest in every part."""
        try:
            raw = json.loads(data)
            if raw["format"] != FORMAT:
                raise ValueError("another format")
            study = Uid(raw["study_uid"])
            manifest = cls(
                archive_id=_text(raw["archive_id"]),
                study_uid=study,
                revision=int(raw["revision"]),
                previous_sha256=raw["previous_sha256"],
                created_at=_text(raw["created_at"]),
                created_by=_text(raw["created_by"]),
                flags=tuple(raw["flags"]),
                attributes=dict(raw["attributes"]),
                series={Uid(uid): dict(attributes) for uid, attributes in raw["series"].items()},
                instances=tuple(_instance(study, item) for item in raw["instances"]),
                damaged_keys=tuple(raw.get("damaged_keys", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError, Permanent) as error:
            raise Permanent("a manifest in the store cannot be read", code="bad-manifest") from error
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
    ) -> Manifest:
        """The next revision with these instances added; ``self`` itself if there is nothing new in them.

        An instance that is there already, the same SOP Instance with the same SHA-256, stays as it was first
        recorded, unless its object is among ``damaged_keys``: then the repaired one takes its place. What was
        recorded first of the attributes wins, so that a revision adds and never rewrites.
        """
        damaged = set(damaged_keys) | set(self.damaged_keys)
        known = {_content(item): item for item in self.instances if item.key not in damaged}
        for item in instances:
            known.setdefault(_content(item), item)
        combined = tuple(sorted(known.values(), key=_content))
        next_one = replace(
            self,
            flags=tuple(sorted({*self.flags, *flags, *_repeated(combined)})),
            attributes={**attributes, **self.attributes},
            series={**series, **self.series},
            instances=combined,
            damaged_keys=tuple(sorted(damaged)),
            _text={},
        )
        if next_one == self:
            return self
        return replace(
            next_one,
            revision=self.revision + 1,
            previous_sha256=self.sha256 if self.revision else None,
            created_at=created_at,
            created_by=created_by,
            _text={},
        )

    def instance_with(self, sop_instance: Uid, series: Uid, sha256: str) -> ManifestInstance | None:
        return next((i for i in self.instances if _content(i) == (series, sop_instance, sha256)), None)

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
            flags=self.flags,
            attributes=self.attributes,
            series=series,
        )


def empty(archive_id: str, study_uid: Uid) -> Manifest:
    """Revision 0, which is never stored: what the first revision is merged from."""
    return Manifest(archive_id, study_uid, 0, None, "", "", (), {}, {}, ())


def load(store: ObjectStore, key: str) -> Manifest:
    """Read a manifest and check that it is what its key says. Raises Permanent, Transient."""
    manifest = Manifest.from_bytes(b"".join(store.read(key)))
    if manifest.key != key:
        raise Permanent("a manifest in the store is not the one its key names", code="bad-manifest")
    return manifest


def latest_key(store: ObjectStore, study_uid: Uid) -> str | None:
    """The key of the highest revision the store lists, or None."""
    found = [o.key for o in store.listing(keys.manifests_prefix(study_uid)) if keys.parse_manifest(o.key)]
    return max(found, default=None)


def latest(store: ObjectStore, study_uid: Uid) -> Manifest | None:
    key = latest_key(store, study_uid)
    return load(store, key) if key else None


def create(store: ObjectStore, manifest: Manifest) -> bool:
    """Create this revision in the store; True when the store holds exactly this one afterwards, False when the
    revision belongs to somebody else. Reads it back, so the answer is the store's own."""
    content = Buffer.of(manifest.to_bytes())
    store.put(manifest.key, content)
    return hashlib.sha256(b"".join(store.read(manifest.key))).hexdigest() == content.digest.sha256


def _instance(study: Uid, raw: dict[str, object]) -> ManifestInstance:
    item = ManifestInstance(**{**raw, "repairs": tuple(raw.get("repairs", ()))})  # type: ignore[arg-type]
    item = replace(item, series_uid=Uid(item.series_uid), sop_instance_uid=Uid(item.sop_instance_uid))
    expected = keys.instance(study, item.series_uid, item.sop_instance_uid, item.sha256)
    if not item.key.startswith(expected.removesuffix(".dcm")) or not item.key.endswith(".dcm"):
        raise ValueError("a key that does not belong to its instance")
    if not isinstance(item.size_bytes, int):
        raise TypeError("size_bytes is no number")
    return item


def _content(item: ManifestInstance) -> tuple[Uid, Uid, str]:
    return item.series_uid, item.sop_instance_uid, item.sha256


def _repeated(instances: tuple[ManifestInstance, ...]) -> list[str]:
    """One SOP Instance UID with several contents, or in several series: kept apart, and said."""
    seen: dict[Uid, ManifestInstance] = {}
    return [
        "sop-instance-uid-repeated"
        for item in instances
        if seen.setdefault(item.sop_instance_uid, item) is not item
    ]


def _value(attributes: DicomJson, tag: str) -> str:
    values = attributes.get(tag, {}).get("Value", [])
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else ""


def _study_date(value: str) -> str:
    return value if len(value) == 8 and value.isdigit() else ""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(", ", ": "))
