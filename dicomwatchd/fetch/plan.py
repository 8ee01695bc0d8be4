"""What a fetch has to bring back: the study's manifest, and the name each of its files gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout import erasures, lineage, manifests
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.lineage import Lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import Listed
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import (
    BadManifest,
    CredentialsRefused,
    DicomwatchdError,
    NoSuchObject,
    Permanent,
    StudyNotFound,
)
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: Instances of one bundle that one thread brings: more would leave the other threads idle at the end.
_TOGETHER = 64
_REPAIR_HINT = "archiving any file of the study again creates a new revision"
SHORT = 8  # hex digits of the SHA-256 in the name of a file whose UID has several contents


#: An instance, and where its file goes: below the target folder, "/"-separated, of plain names.
Placed = tuple[ManifestInstance, str]


@dataclass(frozen=True, slots=True)
class Found:
    """What the archive has of a study: ``manifest`` lists all of it, ``elsewhere`` says at which other places contents
    are, too, by other revisions. ``erasure``: it was erased before, and archived again since."""

    manifest: Manifest
    elsewhere: Mapping[Content, tuple[ManifestInstance, ...]]
    listed: Listed
    erasure: Erasure | None = None


@dataclass(frozen=True, slots=True)
class Doubts:
    """Who is told of revisions that are not what they should be, each with a sentence for the person who asks:
    ``unreadable``, and ``disregarded``, since they do not go on from those that count."""

    unreadable: Callable[[int, str], None]
    disregarded: Callable[[int, str], None]


def plan(
    store: ObjectStore,
    catalogue: Catalogue | None,
    study_uid: Uid,
    *,
    note: Callable[[str], None] = lambda _text: None,
    doubts: Doubts | None = None,
) -> Manifest:
    """The manifest alone of what `look_up` finds."""
    return look_up(store, catalogue, study_uid, note=note, doubts=doubts).manifest


def look_up(
    store: ObjectStore,
    catalogue: Catalogue | None,
    study_uid: Uid,
    *,
    note: Callable[[str], None] = lambda _text: None,
    doubts: Doubts | None = None,
    below: bool = False,
    map: Map = map,
) -> Found:
    """All that the archive lists of a study: the newest revision that counts, and what others list beside it.

    The store's listing says which revision is the newest, so a catalogue that is down, behind or empty costs
    nothing but its word on the manifest's SHA-256, and a reading of the older revisions (see `lineage.trace`, for
    ``below``, too); ``note`` is told in one sentence when that happens. Where not all revisions go on from one another,
    ``doubts`` is told of each that does not, or cannot be read; without it that is an error.

    Raises StudyErased where nothing has been archived since the study was erased, whatever is left of it; Permanent
    with code "study-not-found", "manifest-missing" (the catalogue knows a revision that the
    store does not hold), "manifest-mismatch" (store and catalogue hold different ones of the same revision),
    "bad-manifest", "newer-manifest" or "manifests-disagree"; and what the store raises.
    """
    recorded = _recorded(catalogue, study_uid, note)
    erasure = _erasure(store, study_uid, note)
    floor = erasures.floor_of(erasure)
    record = erasures.unless_erased(recorded, floor)
    listed = manifests.listed(store, study_uid, floor=floor)
    if record is None and not listed.revisions:
        if erasure is not None:
            raise erasure.error()
        raise StudyNotFound(f"study {study_uid} is not in the archive")
    found = lineage.trace(store, listed, _vouched_for(store, record, listed), below=below, map=map)
    if found.current is not None and record is not None and found.current.revision > record.revision:
        note("the catalogue is behind the store; the store's newest manifest is used")
    if found.whole is None and (refusal := next((one.error for one in found.refused if one.error), None)):
        raise refusal
    if doubts is None and not found.holds:
        what = f"the manifests of study {study_uid} are not valid"
        if found.refused:
            raise found.refused[0].kind(what, code=found.refused[0].code, hint=_REPAIR_HINT)
        raise Permanent(what, code="manifests-disagree", hint=_REPAIR_HINT)
    if found.whole is None:
        raise BadManifest(f"no manifest of study {study_uid} in the store can be read", hint=_REPAIR_HINT)
    if doubts is not None:
        _tell(found, found.whole, doubts)
    return Found(found.whole, found.elsewhere, listed, erasure)


def _erasure(store: ObjectStore, study_uid: Uid, note: Callable[[str], None]) -> Erasure | None:
    """The newest record of an erasure, as far as this reader may see any: whoever reads alone changes nothing."""
    try:
        return erasures.newest(store, study_uid)
    except CredentialsRefused:
        note("you may not list what was erased from the archive: whether this study was is not known")
        return None


def _tell(found: Lineage, used: Manifest, doubts: Doubts) -> None:
    for refused in found.refused:
        why = "is damaged in the store" if refused.kind is BadManifest else f"cannot be used ({refused.reason})"
        doubts.unreadable(
            refused.revision,
            f"the manifest of revision {refused.revision} {why}; revision {used.revision} is used, "
            f"which may lack files of the study ({_REPAIR_HINT})",
        )
    for one in found.disregarded:
        doubts.disregarded(
            one.revision,
            f"the manifest of revision {one.revision} is not valid: {one.reason}; files that only it lists, and not "
            f"revision {used.revision}, are also fetched, though another program may have written it ({_REPAIR_HINT})",
        )


def _vouched_for(store: ObjectStore, record: StudyRecord | None, listed: Listed) -> Manifest | None:
    """The manifest that the catalogue records; None where it knows of none, or the store has gone on without it."""
    if record is None or lineage.DISPUTED in record.flags:
        return None
    if listed.newest > record.revision:
        return lineage.vouched_for(store, listed, record)
    try:
        return _read(store, keys.manifest(listed.study_uid, record.revision), record.manifest_sha256)
    except BadManifest:
        return None
    except NoSuchObject as error:
        raise Permanent(
            f"the catalogue records revision {record.revision} of study {listed.study_uid}, but the store does not "
            "hold its manifest",
            code="manifest-missing",
            hint="use --no-catalogue to fetch what the store holds",
        ) from error


def _recorded(catalogue: Catalogue | None, study_uid: Uid, note: Callable[[str], None]) -> StudyRecord | None:
    if catalogue is None:
        return None
    try:
        record = catalogue.get(study_uid)
    except DicomwatchdError as error:
        # Whatever is wrong with it, down, not there, refused: the manifests in the store are self-sufficient.
        note(f"the catalogue does not answer ({error.code}); only the store is used")
        return None
    if record is None:
        note("the catalogue does not know this study; only the store is searched")
    elif lineage.DISPUTED in record.flags:
        note("the catalogue's entry was made from manifests that disagree; only the store is used")
    return record


def _read(store: ObjectStore, key: str, sha256: str | None) -> Manifest:
    manifest = manifests.load(store, key, sha256=sha256)
    if sha256 is not None and manifest.sha256 != sha256:
        raise Permanent(
            "the manifest in the store is not the one that the catalogue records",
            code="manifest-mismatch",
            hint="use --no-catalogue to fetch from the store alone; `dicomwatchctl verify --deep` examines the study",
        )
    return manifest


def of_series(manifest: Manifest, series: Collection[Uid] | None) -> list[ManifestInstance]:
    """The instances of these series; None: of all. Raises Permanent (code "series-not-found")."""
    if series is None:
        return list(manifest.instances)
    unknown = set(series) - {item.series_uid for item in manifest.instances}
    if unknown:
        raise Permanent(f"the study has no series {min(unknown)}", code="series-not-found")
    return [item for item in manifest.instances if item.series_uid in series]


def together(placed: Iterable[Placed]) -> list[list[Placed]]:
    """What is fetched in one go: neighbours in a bundle, in the order in which they lie there; each other instance by
    itself."""
    groups: list[list[Placed]] = []
    in_bundles: dict[str, list[Placed]] = {}
    for item, path in placed:
        if item.is_in_bundle:
            in_bundles.setdefault(item.key, []).append((item, path))
        else:
            groups.append([(item, path)])
    for members in in_bundles.values():
        members.sort(key=lambda member: member[0].offset_bytes)
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
    shorts = Counter((i.series_uid, i.sop_instance_uid, i.sha256[:SHORT]) for i in items)
    named = []
    for item in items:
        suffix = ""
        if contents[item.series_uid, item.sop_instance_uid] > 1:
            unique = shorts[item.series_uid, item.sop_instance_uid, item.sha256[:SHORT]] == 1
            suffix = f"-{item.sha256[:SHORT] if unique else item.sha256}"
        named.append((item, f"{item.sop_instance_uid}{suffix}.dcm"))
    return named


def by_uid(instances: Iterable[ManifestInstance]) -> list[Placed]:
    """The layout of a fetch unless another is asked for: `file_names`, in a folder of each series."""
    return [(item, f"{item.series_uid}/{name}") for item, name in file_names(instances)]


def split(path: str) -> tuple[str, str]:
    """Folder ("" for the target folder itself) and name."""
    folder, _, name = path.rpartition("/")
    return folder, name
