"""Where each file of a study goes below its folder: by UIDs, as it lay in its inbox, or so that people can read it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.fetch.attributes import text
from dicomwatchd.fetch.plan import SHORT, Placed, by_uid, file_names, split
from dicomwatchd.fetch.safe_names import extension, folded, safe
from dicomwatchd.model import DicomJson, Uid

Layout = Literal["uid", "original", "readable"]
LAYOUTS: tuple[Layout, ...] = ("uid", "original", "readable")

#: Of a path as it was in an inbox: what is deeper or longer goes by its UIDs. Windows takes 260 characters of all.
_DEEPEST = 16
_LONGEST_BYTES = 200
_PATIENT_NAME, _PATIENT_ID = "00100010", "00100020"
_STUDY_DATE, _STUDY_DESCRIPTION = "00080020", "00081030"
_MODALITY, _SERIES_NUMBER, _SERIES_DESCRIPTION = "00080060", "00200011", "0008103E"
#: Of the parts of a readable path: three folders and a name of up to 64 digits stay within 260 characters.
_PART_BYTES = 48


def placed(
    layout: Layout, manifest: Manifest, instances: Iterable[ManifestInstance], *, beside_others: bool = False
) -> list[Placed]:
    """Each instance with its place, a function of the manifest alone, so that a second fetch finds what the first has
    brought. ``beside_others``: several studies are fetched to one folder, and none may mix with another."""
    items = list(instances)
    if layout == "readable":
        return _readable(manifest, items, beside_others=beside_others)
    found = _original(items) if layout == "original" else by_uid(items)
    return [(item, f"{manifest.study_uid}/{path}") for item, path in found] if beside_others else found


def _readable(manifest: Manifest, items: list[ManifestInstance], *, beside_others: bool) -> list[Placed]:
    """PATIENT/DATE-DESCRIPTION/SERIES/<SOP Instance UID>.dcm. A manifest has no instance numbers; a name that counted
    files would be another one after the next revision."""
    study = _joined(text(manifest.attributes, _STUDY_DATE) or "undated", _described(manifest))
    if beside_others:
        study += f"-{_digits(manifest.study_uid)}"
    folder = f"{_patient(manifest.attributes)}/{study}"
    names = _series_names(manifest, {item.series_uid for item in items})
    return [(item, f"{folder}/{names[item.series_uid]}/{name}") for item, name in file_names(items)]


def _patient(attributes: DicomJson) -> str:
    name = " ".join(part for part in text(attributes, _PATIENT_NAME).split("^") if part.strip())
    number = safe(text(attributes, _PATIENT_ID), _PART_BYTES)
    shown = safe(name, _PART_BYTES) or "unnamed"
    return f"{shown} ({number})" if number else shown


def _described(manifest: Manifest) -> str:
    modalities = {text(of_series, _MODALITY) for of_series in manifest.series.values()} - {""}
    return text(manifest.attributes, _STUDY_DESCRIPTION) or " ".join(sorted(modalities)) or "study"


def _series_names(manifest: Manifest, wanted: set[Uid]) -> dict[Uid, str]:
    """Names of all series are told apart, whichever of them are fetched."""
    names = {uid: _series_name(manifest.series.get(uid, {})) for uid in {*manifest.series, *wanted}}
    times = Counter(folded(name) for name in names.values())
    return {uid: name if times[folded(name)] == 1 else f"{name}-{_digits(uid)}" for uid, name in names.items()}


def _series_name(attributes: DicomJson) -> str:
    number = text(attributes, _SERIES_NUMBER)
    number = f"{int(number):03}" if number.isascii() and number.isdigit() and len(number) < 10 else number
    parts = [number, text(attributes, _MODALITY), text(attributes, _SERIES_DESCRIPTION)]
    return _joined(*(part for part in parts if part)) if any(parts) else "series"


def _joined(*parts: str) -> str:
    return safe("-".join(parts), _PART_BYTES) or "_"


def _digits(uid: Uid) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:SHORT]


def _original(items: list[ManifestInstance]) -> list[Placed]:
    """As below the inbox, made safe. Folders that a file system may take for one become one; of files whose names are,
    each gets digits of its SHA-256, and a file that would stand in the way of a folder does."""
    wanted = {item: _as_it_was(item) for item in items}
    spelt = _spelling({split(path)[0] for path in wanted.values()})
    found = {item: _below(spelt[folded(split(path)[0])], split(path)[1]) for item, path in wanted.items()}
    marks: list[Callable[[ManifestInstance], str]] = [lambda item: item.sha256[:SHORT], _of_content]
    while marks and (mixed := _mixed(found, spelt)):
        mark = marks.pop(0)
        found |= {item: _marked(_below(split(found[item])[0], split(wanted[item])[1]), mark(item)) for item in mixed}
    if _mixed(found, spelt):  # names that somebody has chosen to be in each other's way
        return by_uid(items)
    return list(found.items())


def _as_it_was(item: ManifestInstance) -> str:
    parts = [part for part in item.original_path.split("/") if part]
    names = [safe(part) or "_" for part in parts]
    path = "/".join(names)
    if not parts or len(parts) > _DEEPEST or len(path.encode()) > _LONGEST_BYTES:
        return by_uid([item])[0][1]
    return path


def _spelling(folders: Iterable[str]) -> Mapping[str, str]:
    """Each folder, folded, as the first of its spellings has it, and so every folder above it."""
    spelt = {"": ""}
    for folder in sorted(folders):
        above = ""
        for part in folder.split("/") if folder else ():
            path = _below(above, part)
            above = spelt.setdefault(folded(path), _below(spelt[folded(above)], part))
    return spelt


def _mixed(found: Mapping[ManifestInstance, str], folders: Mapping[str, str]) -> list[ManifestInstance]:
    times = Counter(folded(path) for path in found.values())
    return [item for item, path in found.items() if times[folded(path)] > 1 or folded(path) in folders]


def _of_content(item: ManifestInstance) -> str:
    return hashlib.sha256("/".join(item.content).encode()).hexdigest()


def _marked(path: str, mark: str) -> str:
    folder, name = split(path)
    stem, suffix = extension(name)
    return _below(folder, f"{stem}-{mark}{suffix}")


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
