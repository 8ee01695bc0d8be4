"""What a fetch has to bring back: the study's manifest, and the name each of its files gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from dicomwatchd.archive import keys, manifests
from dicomwatchd.archive.catalogue import Catalogue, StudyRecord
from dicomwatchd.archive.manifest import BAD, Manifest, ManifestInstance
from dicomwatchd.archive.store import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.model import Uid

#: Instances of one bundle that one thread brings: more would leave the other threads idle at the end.
_TOGETHER = 64
_REPAIR_HINT = "archiving any file of the study again records it anew"
_SHORT = 8  # hex digits of the SHA-256 in the name of a file whose UID has several contents


def plan(
    store: ObjectStore,
    catalogue: Catalogue | None,
    study_uid: Uid,
    *,
    note: Callable[[str], None] = lambda _text: None,
    damaged: Callable[[int, str], None] | None = None,
) -> Manifest:
    """The newest manifest of a study, vouched for by the catalogue where that knows the very same revision.

    The store's listing says which revision is the newest, so a catalogue that is down, behind or empty costs
    nothing but its word on the manifest's SHA-256; ``note`` is told in one sentence when that happens. Where the
    newest is damaged in the store and ``damaged`` is given, that is told of this revision, with a sentence for the
    person who asks, and of any other above the newest that can be read. This one is returned: it may not list all of
    the study.

    Raises Permanent with code "study-not-found", "manifest-missing" (the catalogue knows a revision that the
    store does not hold), "manifest-mismatch" (store and catalogue hold different ones of the same revision),
    "bad-manifest" or "newer-manifest"; and what the store raises.
    """
    record = _recorded(catalogue, study_uid, note)
    try:
        return _newest(store, record, study_uid, note)
    except Permanent as error:
        if error.code != BAD or damaged is None:
            raise
        found = manifests.newest(store, study_uid)
        if found.manifest is None:
            raise Permanent(
                f"no manifest of study {study_uid} in the store can be read", code=BAD, hint=_REPAIR_HINT
            ) from error
    for key in found.damaged:
        revision = manifests.revision_of(key)
        damaged(
            revision,
            f"the manifest of revision {revision} is damaged in the store; revision {found.manifest.revision} is used, "
            f"which may lack files of the study ({_REPAIR_HINT})",
        )
    return found.manifest


def _newest(store: ObjectStore, record: StudyRecord | None, study_uid: Uid, note: Callable[[str], None]) -> Manifest:
    newest = manifests.latest_key(store, study_uid)
    if record is None:
        if newest is None:
            raise Permanent(f"study {study_uid} is not in the archive", code="study-not-found")
        return _read(store, newest, None)
    recorded = keys.manifest(study_uid, record.revision)
    if newest is not None and newest > recorded:  # eight digits each: the order of the text is that of revisions
        note("the catalogue is behind the store; the store's newest manifest is used")
        return _read(store, newest, None)
    try:
        return _read(store, recorded, record.manifest_sha256)
    except Permanent as error:
        if error.code != "no-such-object":
            raise
        raise Permanent(
            f"the catalogue records revision {record.revision} of study {study_uid}, but the store does not hold "
            "its manifest",
            code="manifest-missing",
            hint="--no-catalogue goes by what the store does hold",
        ) from error


def _recorded(catalogue: Catalogue | None, study_uid: Uid, note: Callable[[str], None]) -> StudyRecord | None:
    if catalogue is None:
        return None
    try:
        record = catalogue.get(study_uid)
    except DicomwatchdError as error:
        # Whatever is wrong with it, down, not there, refused: the manifests in the store are self-sufficient.
        note(f"the catalogue gives no answer ({error.code}); the study is read from the store alone")
        return None
    if record is None:
        note("the catalogue does not know this study; it is looked for in the store alone")
    return record


def _read(store: ObjectStore, key: str, sha256: str | None) -> Manifest:
    manifest = manifests.load(store, key, sha256=sha256)
    if sha256 is not None and manifest.sha256 != sha256:
        raise Permanent(
            "the manifest in the store is not the one that the catalogue records",
            code="manifest-mismatch",
            hint="--no-catalogue goes by the store alone; `dicomwatchctl verify --deep` examines the study",
        )
    return manifest


def together(named: Iterable[tuple[ManifestInstance, str]]) -> list[list[tuple[ManifestInstance, str]]]:
    """What is fetched in one go: neighbours in a bundle, in the order in which they lie there; each other instance by
    itself."""
    groups: list[list[tuple[ManifestInstance, str]]] = []
    in_bundles: dict[str, list[tuple[ManifestInstance, str]]] = {}
    for item, name in named:
        if item.offset_bytes is None:
            groups.append([(item, name)])
        else:
            in_bundles.setdefault(item.key, []).append((item, name))
    for members in in_bundles.values():
        members.sort(key=lambda member: member[0].offset_bytes or 0)
        groups += [members[at : at + _TOGETHER] for at in range(0, len(members), _TOGETHER)]
    return groups


def file_names(instances: Iterable[ManifestInstance]) -> list[tuple[ManifestInstance, str]]:
    """Each instance with its file's name inside the series' folder, a function of the manifest alone.

    ``<SOPInstanceUID>.dcm``; where several contents share the UID within the series each of them, not all but
    one, is ``<SOPInstanceUID>-<first 8 hex of its SHA-256>.dcm``: none of them is the original by right. Contents
    that share even these 8 digits, which can be made on purpose, carry all 64.
    """
    items = list(instances)
    contents = Counter((i.series_uid, i.sop_instance_uid) for i in items)
    shorts = Counter((i.series_uid, i.sop_instance_uid, i.sha256[:_SHORT]) for i in items)
    named = []
    for item in items:
        suffix = ""
        if contents[item.series_uid, item.sop_instance_uid] > 1:
            unique = shorts[item.series_uid, item.sop_instance_uid, item.sha256[:_SHORT]] == 1
            suffix = f"-{item.sha256[:_SHORT] if unique else item.sha256}"
        named.append((item, f"{item.sop_instance_uid}{suffix}.dcm"))
    return named
