"""The series object: what is derived of a series' instances, as a document in the store.

    {"format": "dicomwatchd-series/1", "study_uid": ..., "series_uid": ..., "created_by": ...,
     "common": {tag: element, ...},        the attributes that all instances have alike
     "instances": [
      {"sop_instance_uid": ..., "sha256": ..., "size_bytes": ..., "transfer_syntax_uid": ...,
       "own": {tag: element, ...},         its other attributes
       "bulk": {place: [vr, offset, length], ...},
       "pixels": {"tag", "vr", "offset", "length", "encapsulated", "known_by" or "why_not",
                  "each": bytes of a frame, all of which follow one another; or
                  "pieces": [offset, length, ...], "per_frame": [number of pieces, ...] where that is not 1 of each,
                  "sha256": the SHA-256 of each frame, one after the other},
       "left_out": [place, ...], "unreadable": reason, "deflated": true, "big_endian": true}, ...]}

gzip'd JSON. Attributes are DICOM JSON (PS3.18 Annex F); for places and offsets see `extract`. What is empty or false is
not written. It is named by what it is derived of (`name_of`) and not by its content: it is in no manifest, so whoever
reads it takes it for no more than what it is (see `reader`).
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dicomwatchd.archive.layout import checked
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.reading import has_too_many_values
from dicomwatchd.errors import Permanent
from dicomwatchd.intake.dicom.reading import INFLATED_LIMIT_BYTES
from dicomwatchd.model import Uid
from dicomwatchd.series.extract import Bulk, DicomJson, Extracted
from dicomwatchd.series.pixels import FRAMES_LIMIT, Frame, Pixels

FORMAT = "dicomwatchd-series/1"
#: As it is stored, and what it may inflate to. A thousand slices are 30 KB and 600 KB.
PACKED_LIMIT_BYTES = 48 * 1024**2
LIMIT_BYTES = 192 * 1024**2

_TAG = re.compile(r"[0-9A-F]{8}\Z")
_VR = re.compile(r"[A-Z]{2}\Z")
_PLACE = re.compile(r"[0-9A-F]{8}(?:/[0-9]{1,6}/[0-9A-F]{8}){0,100}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SHA256S = re.compile(r"(?:[0-9a-f]{64})*\Z")
_SIZE_LIMIT_BYTES = 2**50
#: zlib's window, with gzip's header.
_GZIP = 16 + zlib.MAX_WBITS

#: SOP Instance UID and SHA-256: what an entry is of.
Known = tuple[Uid, str]


class BadSeriesObject(Permanent):
    """What is stored in the place of a series object is none."""

    code = "bad-series-object"


class SeriesTooLarge(Permanent):
    """What is derived of the series is more than such a document can hold."""

    code = "series-too-large"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is derived of one instance, whose file has this ``sha256``. See `extract.Extracted`; ``attributes`` may
    share elements with other entries', and nobody changes them."""

    sop_instance_uid: Uid
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    attributes: Mapping[str, dict[str, object]]
    bulk: Mapping[str, Bulk] = field(default_factory=dict)
    pixels: Pixels | None = None
    left_out: tuple[str, ...] = ()
    unreadable: str = ""
    is_deflated: bool = False
    is_big_endian: bool = False

    @property
    def known(self) -> Known:
        return self.sop_instance_uid, self.sha256

    @classmethod
    def of(cls, item: ManifestInstance, found: Extracted) -> Entry:
        """``found`` is of the bytes that the manifest lists as ``item``."""
        return cls(
            item.sop_instance_uid,
            item.sha256,
            item.size_bytes,
            item.transfer_syntax_uid or found.transfer_syntax_uid,
            found.attributes,
            found.bulk,
            found.pixels,
            found.left_out,
            found.unreadable,
            found.is_deflated,
            found.is_big_endian,
        )


@dataclass(frozen=True, slots=True)
class SeriesDocument:
    study_uid: Uid
    series_uid: Uid
    entries: Mapping[Known, Entry]
    created_by: str = ""

    def to_bytes(self) -> bytes:
        """As it is stored. Raises SeriesTooLarge."""
        common = _common(self.entries.values())
        head = {
            "format": FORMAT,
            "study_uid": self.study_uid,
            "series_uid": self.series_uid,
            "created_by": self.created_by,
            "common": common,
        }
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        packed: list[bytes] = []
        size_bytes = 0

        def add(text: str) -> None:
            nonlocal size_bytes
            raw = text.encode("ascii")
            size_bytes += len(raw)
            if size_bytes > LIMIT_BYTES:
                raise _too_large()
            packed.append(packer.compress(raw))

        add(_dumps(head)[:-1] + ',"instances":[')
        for number, (_, entry) in enumerate(sorted(self.entries.items())):
            add((",\n" if number else "\n") + _dumps(_document(entry, common)))
        add("\n]}\n")
        packed.append(packer.flush())
        data = b"".join(packed)
        if len(data) > PACKED_LIMIT_BYTES:
            raise _too_large()
        return data

    @classmethod
    def from_bytes(cls, data: bytes, study: Uid, series: Uid) -> SeriesDocument:
        """Raises BadSeriesObject for what is no such document of this series in every part."""
        try:
            text = _inflated(data)
            if has_too_many_values(text):
                raise ValueError("more values than a document of this size has")
            raw = json.loads(text, parse_constant=checked.finite, parse_float=checked.finite)
            if raw["format"] != FORMAT or (raw["study_uid"], raw["series_uid"]) != (study, series):
                raise ValueError("of another series, or another format")
            common = _attributes(raw["common"])
            entries = [_entry(one, common) for one in checked.items(raw["instances"])]
            found = {entry.known: entry for entry in entries}
            if len(found) != len(entries):
                raise ValueError("an instance is there twice")
            return cls(study, series, found, checked.text(raw["created_by"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error, Permanent) as error:
            raise BadSeriesObject("the stored object is no series object of this series") from error


def name_of(instances: Iterable[ManifestInstance]) -> str:
    """By what a series object is found: a SHA-256 over the format and what the series' instances are. The same
    instances give the same name, whoever derives it and whenever; one more, and it is another."""
    digest = hashlib.sha256(f"{FORMAT}\n".encode())
    for uid, sha256 in sorted({(item.sop_instance_uid, item.sha256) for item in instances}):
        digest.update(f"{uid} {sha256}\n".encode())
    return digest.hexdigest()


def shared(attributes: DicomJson, like: Mapping[str, dict[str, object]]) -> DicomJson:
    """The same attributes; those that ``like`` has, too, are its: most are alike in a series, and are kept once."""
    return {tag: like[tag] if like.get(tag) == element else element for tag, element in attributes.items()}


def _common(entries: Iterable[Entry]) -> dict[str, dict[str, object]]:
    rest = iter(entries)
    first = next(rest, None)
    if first is None:
        return {}
    found = dict(first.attributes)
    for entry in rest:
        found = {tag: element for tag, element in found.items() if entry.attributes.get(tag) == element}
    return found


def _document(entry: Entry, common: Mapping[str, object]) -> dict[str, object]:
    raw: dict[str, object] = {
        "sop_instance_uid": entry.sop_instance_uid,
        "sha256": entry.sha256,
        "size_bytes": entry.size_bytes,
        "transfer_syntax_uid": entry.transfer_syntax_uid,
        "own": {tag: element for tag, element in entry.attributes.items() if tag not in common},
        "bulk": {place: [one.vr, one.offset_bytes, one.length_bytes] for place, one in entry.bulk.items()},
        "pixels": _pixels_document(entry.pixels),
        "left_out": entry.left_out,
        "unreadable": entry.unreadable,
        "deflated": entry.is_deflated,
        "big_endian": entry.is_big_endian,
    }
    return {name: value for name, value in raw.items() if value or name == "size_bytes"}


def _pixels_document(pixels: Pixels | None) -> dict[str, object] | None:
    if pixels is None:
        return None
    raw: dict[str, object] = {
        "tag": pixels.tag,
        "vr": pixels.vr,
        "offset": pixels.offset_bytes,
        "length": pixels.length_bytes,
        "encapsulated": pixels.is_encapsulated,
    }
    if not pixels.known_by:
        return {**raw, "why_not": pixels.why_not}
    raw |= {"known_by": pixels.known_by, "sha256": "".join(frame.sha256 for frame in pixels.frames)}
    if not pixels.is_encapsulated:
        return {**raw, "each": pixels.frames[0].pieces[0][1]}
    per_frame = [len(frame.pieces) for frame in pixels.frames]
    if any(number != 1 for number in per_frame):
        raw["per_frame"] = per_frame
    return {**raw, "pieces": [number for frame in pixels.frames for piece in frame.pieces for number in piece]}


def _entry(raw: dict[str, Any], common: DicomJson) -> Entry:
    size_bytes = checked.number(raw["size_bytes"], 0, _SIZE_LIMIT_BYTES)
    is_deflated = _flag(raw, "deflated")
    end = INFLATED_LIMIT_BYTES if is_deflated else size_bytes
    sha256 = checked.text(raw["sha256"])
    if not _SHA256.match(sha256):
        raise ValueError("no SHA-256")
    own = _attributes(raw.get("own", {}))
    return Entry(
        Uid(checked.text(raw["sop_instance_uid"])),
        sha256,
        size_bytes,
        checked.text(raw.get("transfer_syntax_uid", "")),
        {**common, **own} if own else common,
        {_place(place): _bulk(one, end) for place, one in raw.get("bulk", {}).items()},
        _pixels(raw["pixels"], end) if "pixels" in raw else None,
        tuple(map(_place, checked.texts(raw.get("left_out", [])))),
        checked.text(raw.get("unreadable", "")),
        is_deflated,
        _flag(raw, "big_endian"),
    )


def _attributes(raw: object) -> DicomJson:
    """In the form that `extract` gives them, however deep: a URL beside a value, which clients would follow with what
    they log in by, is no part of it."""
    found = checked.attributes(raw)
    _require_form(found)
    return found


def _require_form(attributes: DicomJson) -> None:
    for tag, element in attributes.items():
        if not _TAG.match(tag) or not _VR.match(checked.text(element["vr"])):
            raise ValueError("no DICOM JSON")
        if not element.keys() <= {"vr", "Value", "InlineBinary"}:
            raise ValueError("no DICOM JSON")
        checked.text(element.get("InlineBinary", ""))
        for value in checked.items(element.get("Value", [])):
            if element["vr"] == "SQ" and isinstance(value, dict):
                _require_form(value)
            elif element["vr"] == "PN" and isinstance(value, dict):
                checked.texts(list(value.values()))
            elif isinstance(value, dict | list):
                raise TypeError("no value")


def _place(place: object) -> str:
    if not _PLACE.match(checked.text(place)):
        raise ValueError("no place in a data set")
    return str(place)


def _bulk(raw: object, end: int) -> Bulk:
    vr, offset, length = checked.items(raw)
    if not _VR.match(checked.text(vr)):
        raise ValueError("no VR")
    offset = checked.number(offset, 0, end)
    return Bulk(vr, offset, checked.number(length, 1, end - offset))


def _pixels(raw: dict[str, Any], end: int) -> Pixels:
    tag, vr = checked.text(raw["tag"]), checked.text(raw["vr"])
    if not _TAG.match(tag) or not _VR.match(vr):
        raise ValueError("no pixel data")
    offset = checked.number(raw["offset"], 0, end)
    length = checked.number(raw["length"], 1, end - offset)
    is_encapsulated = _flag(raw, "encapsulated")
    if "known_by" not in raw:
        return Pixels(tag, vr, offset, length, is_encapsulated, why_not=checked.text(raw["why_not"]))
    sha256s = checked.text(raw["sha256"])
    number = len(sha256s) // 64
    if not _SHA256S.match(sha256s) or not 1 <= number <= FRAMES_LIMIT:
        raise ValueError("no SHA-256 of each frame")
    if is_encapsulated:
        places = _pieces(raw, number, offset, offset + length)
    else:
        each = checked.number(raw["each"], 1, length // number)
        places = [((offset + at * each, each),) for at in range(number)]
    frames = tuple(Frame(pieces, sha256s[64 * at : 64 * at + 64]) for at, pieces in enumerate(places))
    return Pixels(tag, vr, offset, length, is_encapsulated, frames, checked.text(raw["known_by"]) or "?")


def _pieces(raw: dict[str, Any], number: int, begin: int, end: int) -> list[tuple[tuple[int, int], ...]]:
    """In their order, none of them over another."""
    flat = checked.items(raw["pieces"])
    per_frame = checked.items(raw.get("per_frame", [1] * number))
    if len(per_frame) != number or len(flat) % 2:
        raise ValueError("no pieces of each frame")
    found: list[tuple[tuple[int, int], ...]] = []
    at = 0
    for count in per_frame:
        pieces = []
        for _ in range(checked.number(count, 1, len(flat))):
            offset = checked.number(flat[at], begin, end)
            length = checked.number(flat[at + 1], 1, end - offset)
            pieces.append((offset, length))
            begin, at = offset + length, at + 2
        found.append(tuple(pieces))
    if at != len(flat):
        raise ValueError("pieces of no frame")
    return found


def _flag(raw: dict[str, Any], name: str) -> bool:
    value = raw.get(name, False)
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    text = unpacker.decompress(data, LIMIT_BYTES + 1)
    if len(text) > LIMIT_BYTES or not unpacker.eof or unpacker.unused_data:
        raise ValueError("too long, cut off, or followed by something")
    return text


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _too_large() -> SeriesTooLarge:
    return SeriesTooLarge("what is derived of the series is more than a series object can hold")
