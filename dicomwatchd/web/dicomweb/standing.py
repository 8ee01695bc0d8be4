"""Which instances of a study may be shown: what a manifest says of them, one entry for each that a client can name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import Uid
from dicomwatchd.patients import two_patients
from dicomwatchd.series.standing import Standing, standing_of


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """One SOP Instance UID of a series. Of several contents that are one data set, one."""

    series_uid: Uid
    sop_instance_uid: Uid
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    sha256: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """``version`` changes whenever any of the rest does. Instances are sorted by series and SOP Instance UID, and
    found by both in ``by_name``."""

    study_uid: Uid
    version: str
    instances: tuple[HeldInstance, ...]
    names_two_patients: bool
    by_name: Mapping[tuple[Uid, Uid], HeldInstance] = field(repr=False, compare=False)


def left_out(instances: Iterable[HeldInstance]) -> dict[str, int]:
    """How many of them are not shown, by their standing (`Standing.DAMAGED` and others); without those of none."""
    found = Counter(str(one.standing) for one in instances if one.standing is not Standing.SOUND)
    return dict(sorted(found.items()))


def of_manifest(manifest: Manifest, instances: Iterable[HeldInstance]) -> HeldStudy:
    """With these `entries` of it."""
    held = tuple(instances)
    names_two = two_patients(manifest.all_identities) is not None
    said = [manifest.sha256, str(names_two), *(f"{one.sha256} {one.standing}" for one in held)]
    version = hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]
    by_name = {(one.series_uid, one.sop_instance_uid): one for one in held}
    return HeldStudy(manifest.study_uid, version, held, names_two, by_name)


def entries(manifest: Manifest) -> Iterator[tuple[HeldInstance, ManifestInstance]]:
    """Each with the content that stands for it, chosen as `series.shown` does: a whole one where there is one, and the
    one that was archived last."""
    variants = {one.sop_instance_uid: one for one in manifest.variants}
    by_name = sorted(manifest.instances, key=lambda item: item.content)
    for (series, sop_instance), items in groupby(by_name, key=lambda item: item.content[:2]):
        item = max(items, key=lambda item: (not item.damage, item.stored_at, item.sha256))
        yield (
            HeldInstance(
                series,
                sop_instance,
                item.sop_class_uid,
                item.transfer_syntax_uid,
                item.size_bytes,
                item.sha256,
                standing_of(item, variants.get(sop_instance)),
            ),
            item,
        )
