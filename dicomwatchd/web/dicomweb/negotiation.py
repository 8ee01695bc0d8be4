"""Which media type an answer has (PS3.18 section 8.7, RFC 9110 section 12.5.1).

Nothing is transcoded: a transfer syntax that is asked for is the stored one, ``*``, or not acceptable. A request
without that parameter takes what is stored, too: PS3.18 has Explicit VR Little Endian for its default, which would be
other bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicomwatchd.web.dicomweb.errors import NotAcceptable, Refused

#: A header, or parameter, that is longer is no client's.
_LIMIT_CHARACTERS = 8192
_LIMIT_RANGES = 64
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*;\s*(?:({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?\s*')
_TYPE = re.compile(rf"\s*({_NAME}(?:/{_NAME})?)\s*")

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
OCTETS = "application/octet-stream"
MULTIPART = "multipart/related"

#: What frames are in each transfer syntax (PS3.18 table 8.7.3-5 and its neighbours). Others are octets.
_OF_FRAMES: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10([0-8])(\.1)?\Z")
#: Names that older clients have for them.
_OLD_NAMES = {"image/x-dicom-rle": "image/dicom-rle", "image/x-jls": "image/jls", "image/dicom+rle": "image/dicom-rle"}
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})


def is_native(transfer_syntax_uid: str) -> bool:
    """Whether frames are pixels and nothing else (PS3.5 annex A)."""
    return transfer_syntax_uid in _NATIVE


def media_type_of_frames(transfer_syntax_uid: str) -> str:
    video = _VIDEO.match(transfer_syntax_uid)
    if video is not None:
        return "video/mpeg2" if video[1] in "01" else "video/mp4" if video[1] in "23456" else "video/H265"
    return _OF_FRAMES.get(transfer_syntax_uid, OCTETS)


@dataclass(frozen=True, slots=True)
class Range:
    """One media range that a client takes. ``is_multipart``: as the type of a part (RFC 2387)."""

    media_type: str
    is_multipart: bool
    transfer_syntax: str  # "" where nothing is said
    quality: float

    def takes(self, media_type: str) -> bool:
        mine = _OLD_NAMES.get(self.media_type, self.media_type)
        main, _, sub = mine.partition("/")
        return mine in ("*/*", media_type.lower()) or (
            sub in ("*", "") and main == media_type.lower().partition("/")[0]
        )

    def takes_syntax(self, transfer_syntax_uid: str) -> bool:
        return self.transfer_syntax in ("", "*", transfer_syntax_uid)

    @property
    def is_anything(self) -> bool:
        return self.media_type == "*/*"


def accepted(header: str | None, parameter: str | None = None) -> list[Range]:
    """What a client takes, the best first. The ``accept`` query parameter stands before the header (PS3.18 section
    8.3.3.1); neither is anything. Raises Refused where it is none of RFC 9110's."""
    text = parameter if parameter is not None and parameter.strip() else header
    if text is None or not text.strip():
        return [Range("*/*", False, "", 1.0)]
    if len(text) > _LIMIT_CHARACTERS:
        raise Refused("what is accepted is too long")
    found: list[Range] = []
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        match = _TYPE.match(text, at)
        if match is None:
            raise Refused("what is accepted cannot be read")
        at, main = match.end(), match[1].lower()
        parameters: dict[str, str] = {}
        while at < len(text) and (given := _PARAMETER.match(text, at)) is not None:
            at = given.end()
            if given[1]:
                value = given[3] if given[2] is None else re.sub(r"\\(.)", r"\1", given[2])
                parameters.setdefault(given[1].lower(), value.strip())
        if at < len(text) and text[at] != ",":
            # A type without quotes has a slash in it, which no token has (OHIF's and other clients' way): taken above.
            raise Refused("what is accepted cannot be read")
        found.append(_range(main, parameters))
        if len(found) > _LIMIT_RANGES:
            raise Refused("too many media types are accepted")
    taken = [one for one in found if one.quality > 0]
    # Among those of the same weight the more particular one comes first, then the order in which they were named.
    return sorted(taken, key=lambda one: (-one.quality, one.media_type.count("*")))


def _range(main: str, parameters: Mapping[str, str]) -> Range:
    try:
        quality = float(parameters.get("q", "1") or "1")
    except ValueError:
        raise Refused("what is accepted has a weight that is no number") from None
    if not 0 <= quality <= 1:
        raise Refused("what is accepted has a weight that is none")
    syntax = parameters.get("transfer-syntax", "")
    if main == MULTIPART:
        return Range(parameters.get("type", "*/*").lower() or "*/*", True, syntax, quality)
    if main == "multipart/*":
        return Range("*/*", True, syntax, quality)
    return Range("*/*" if main == "*" else main, False, syntax, quality)


@dataclass(frozen=True, slots=True)
class Chosen:
    media_type: str
    is_multipart: bool


def choose(ranges: Sequence[Range], offered: Iterable[str]) -> Chosen:
    """One of the offered media types, which are no multipart's; the first offered one for who takes several alike."""
    types = list(offered)
    for one in ranges:
        for media_type in types:
            if not one.is_multipart and one.takes(media_type):
                return Chosen(media_type, False)
    raise NotAcceptable(f"this is to be had as {', '.join(types)}")


def choose_json(ranges: Sequence[Range]) -> str:
    """`application/dicom+json`, or the same under the name of any JSON."""
    return choose([*ranges], (DICOM_JSON, JSON)).media_type


def choose_stored(
    ranges: Sequence[Range], media_types: Sequence[str], transfer_syntax_uids: Iterable[str], *, may_be_single: bool
) -> Chosen:
    """One of the media types of something stored, in parts, or alone where that ``may_be_single`` and the client says
    so or prefers it. Who takes anything gets parts. Raises NotAcceptable."""
    syntaxes = set(transfer_syntax_uids)
    for one in ranges:
        if not all(map(one.takes_syntax, syntaxes)):
            continue
        for media_type in media_types:
            if not one.takes(media_type):
                continue
            if one.is_multipart or one.is_anything:
                return Chosen(media_type, True)
            if may_be_single:
                return Chosen(media_type, False)
    offered = " or ".join(media_types)
    raise NotAcceptable(
        f"this is to be had as it is stored, as parts of {offered}",
        hint="nothing is transcoded: ask with transfer-syntax=*",
    )
