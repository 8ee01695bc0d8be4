"""One SOP Instance UID with several contents: the same data set written otherwise, a correction, or a conflict.

Damaged copies are none of them: a whole copy supersedes those, whatever it says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.model import DataSetDigest, Uid

#: The digests of instances' data sets, by the SHA-256 of the instances' bytes.
DataSets = Mapping[str, DataSetDigest]


class Grade(StrEnum):
    SAME_DATA_SET = "same-data-set"
    CORRECTION = "correction"  # the same pixels under another header
    CONFLICT = "conflict"  # other pixels, or nobody can tell


@dataclass(frozen=True, slots=True)
class Variants:
    """``sha256s`` are the contents, ``data_sets`` the different data sets among them: the SHA-256 of each data set, or
    that of the bytes where it is not known. Both are sorted."""

    sop_instance_uid: Uid
    grade: Grade
    sha256s: tuple[str, ...]
    data_sets: tuple[str, ...]


def graded(
    instances: Iterable[ManifestInstance], known: DataSets, damaged_keys: Collection[str]
) -> tuple[Variants, ...]:
    """All SOP Instance UIDs of which the archive holds several contents that are not damaged, in their order. What lies
    under a damaged key alone counts as far as it was compared before."""
    found = []
    for uid, contents in sorted(_repeated(instances).items()):
        sha256s = sorted(
            sha256
            for sha256, item in contents.items()
            if (sha256 in known or item.key not in damaged_keys) and not _is_damaged(item, known)
        )
        if len(sha256s) > 1:
            found.append(_graded(uid, sha256s, known))
    return tuple(found)


def to_compare(
    instances: Iterable[ManifestInstance], known: DataSets, damaged_keys: Collection[str]
) -> list[ManifestInstance]:
    """Those of which the digests are needed and not known."""
    return [
        item
        for contents in _repeated(instances).values()
        for sha256, item in contents.items()
        if sha256 not in known and item.key not in damaged_keys
    ]


def _repeated(instances: Iterable[ManifestInstance]) -> dict[Uid, dict[str, ManifestInstance]]:
    first: dict[Uid, ManifestInstance] = {}
    repeated: dict[Uid, dict[str, ManifestInstance]] = {}
    for item in instances:
        if item.damage:
            continue
        known = first.setdefault(item.sop_instance_uid, item)
        if known.sha256 != item.sha256:
            contents = repeated.setdefault(item.sop_instance_uid, {known.sha256: known})
            contents.setdefault(item.sha256, item)
    return repeated


def _is_damaged(item: ManifestInstance, known: DataSets) -> bool:
    """What was found again in the store may be a damaged copy: then its data set could not be read to its end."""
    return item.is_found_again and known.get(item.sha256) == DataSetDigest("", "")


def _graded(uid: Uid, sha256s: list[str], known: DataSets) -> Variants:
    digests = [known.get(sha256, DataSetDigest("", "")) for sha256 in sha256s]
    data_sets = {one.data_set_sha256 or sha256 for one, sha256 in zip(digests, sha256s, strict=True)}
    contents = {one.content_sha256 for one in digests}
    if len(data_sets) == 1:
        grade = Grade.SAME_DATA_SET
    elif len(contents) == 1 and contents != {""}:
        grade = Grade.CORRECTION
    else:
        grade = Grade.CONFLICT
    return Variants(uid, grade, tuple(sha256s), tuple(sorted(data_sets)))


def document(known: DataSets) -> dict[str, dict[str, str]]:
    """As the manifest has it."""
    return {
        sha256: {"data_set_sha256": one.data_set_sha256, "content_sha256": one.content_sha256}
        for sha256, one in known.items()
    }
