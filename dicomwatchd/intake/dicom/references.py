"""Which instances of its own study a report, a key object, a presentation state or a structure set refers to.

These say it in sequences, which the walk of a data set jumps over. So the sequences are read here, of these classes
alone: each is small, and of other files it costs nothing. What is malformed ends the list; nothing is raised.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicomwatchd.errors import Unarchivable
from dicomwatchd.intake.dicom.opening import plain_uid
from dicomwatchd.intake.dicom.reading import ByteSource
from dicomwatchd.intake.dicom.structure import (
    FIRST_ITEM_BYTES,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Elements,
    Encoding,
    first_item,
)
from dicomwatchd.intake.dicom.verdict import DamageFound
from dicomwatchd.study_signs import LIMIT_REFERENCES

_INSTANCE = 0x00081155  # Referenced SOP Instance UID
_TITLE, _CODE = 0x0040A043, 0x00080100
_UID_BYTES = 66
#: Titles of key objects that name what was taken out of the study (PS3.16 CID 7011): it is missing on purpose.
_REJECTED = frozenset({b"113001", b"113037", b"113038", b"113039"})


@dataclass(frozen=True, slots=True)
class _Path:
    """The sequences to the items that name an instance, the outermost first. The item of number ``level`` says by
    ``study`` of which study they are; without it they are of the file's own."""

    sequences: tuple[int, ...]
    study: int = 0
    level: int = -1


#: Current Requested Procedure Evidence (PS3.3 C.17.2), Referenced Series (C.11.11), Referenced Frame of Reference
#: (C.8.8.5).
_EVIDENCE = _Path((0x0040A375, 0x00081115, 0x00081199), 0x0020000D, 0)
_SHOWN = _Path((0x00081115, 0x00081140))
_CONTOURED = _Path((0x30060010, 0x30060012, 0x30060014, 0x30060016), _INSTANCE, 1)
_PATHS = (
    ("1.2.840.10008.5.1.4.1.1.88.", _EVIDENCE),  # structured reports and key objects
    ("1.2.840.10008.5.1.4.1.1.11.", _SHOWN),  # presentation states
    ("1.2.840.10008.5.1.4.1.1.481.3", _CONTOURED),  # RT structure sets
)
_PREFIXES = tuple(prefix.encode() for prefix, _ in _PATHS)


def may_refer(sop_class: bytes) -> bool:
    """Whether `references_of` reads instances of this class, of which it gets the raw value."""
    return sop_class.lstrip(b" \0").startswith(_PREFIXES)


def references_of(
    source: ByteSource, start: int, encoding: Encoding, sop_class: bytes, study: bytes, elements_limit: int
) -> tuple[str, ...]:
    """The SOP Instance UIDs, each once, at most so many as are kept; ``sop_class`` and ``study`` are the raw values."""
    plain = sop_class.strip(b" \0").decode("ascii", "replace")
    path = next((path for prefix, path in _PATHS if plain.startswith(prefix)), None)
    if path is None:
        return ()
    reader = _Reader(source, Elements(source, encoding, elements_limit), encoding, path, study.strip(b" \0"))
    try:
        return tuple(reader.read(start))
    except (DamageFound, Unarchivable):
        return ()


class _Reader:
    def __init__(self, source: ByteSource, elements: Elements, encoding: Encoding, path: _Path, study: bytes) -> None:
        self._source, self._elements, self._encoding = source, elements, encoding
        self._path, self._study = path, study

    def read(self, pos: int) -> list[str]:
        """From the start of the data set up to the sequence."""
        first = self._path.sequences[0]
        while True:
            head = self._source.read(pos, 12)
            if len(head) < 8:
                return []
            tag, length, header_bytes = self._elements.parse(head, 0, self._encoding.explicit)
            pos += header_bytes
            if tag == first:
                found, _ = self._sequence(pos, length, 0)
                return [*dict.fromkeys(found)][:LIMIT_REFERENCES]
            if tag > first:
                return []
            if tag == _TITLE:
                title = first_item(self._source.read(pos, FIRST_ITEM_BYTES), self._encoding, frozenset({_CODE}))
                if title.get(_CODE, b"").strip(b" \0") in _REJECTED:
                    return []
            pos = self._behind(pos, length)

    def _sequence(self, pos: int, length: int, level: int) -> tuple[list[str], int]:
        """What its items name, and where it ends."""
        end = None if length == UNDEFINED else pos + length
        found: list[str] = []
        while end is None or pos < end:
            tag, size, pos = self._header(pos)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise DamageFound("a sequence is malformed", "malformed")
            of_item, pos = self._item(pos, size, level)
            found += of_item
        return found, pos

    def _item(self, pos: int, size: int, level: int) -> tuple[list[str], int]:
        end = None if size == UNDEFINED else pos + size
        path, found = self._path, list[str]()
        within = path.sequences[level + 1] if level + 1 < len(path.sequences) else None
        is_of_study = True
        while end is None or pos < end:
            tag, length, pos = self._header(pos)
            if tag == ITEM_END:
                break
            if tag == within:
                deeper, pos = self._sequence(pos, length, level + 1)
                found += deeper
                continue
            if length <= _UID_BYTES and level == path.level and tag == path.study:
                is_of_study = self._source.read(pos, length).strip(b" \0") == self._study
            elif length <= _UID_BYTES and within is None and tag == _INSTANCE:
                uid = plain_uid(self._source.read(pos, length))
                found += [uid] if uid else []
            pos = self._behind(pos, length)
        return found if is_of_study else [], pos

    def _header(self, pos: int) -> tuple[int, int, int]:
        head = self._source.read(pos, 12)
        if len(head) < 8:
            raise DamageFound("the file ends inside a sequence")
        tag, length, header_bytes = self._elements.parse(head, 0, self._encoding.explicit)
        return tag, length, pos + header_bytes

    def _behind(self, pos: int, length: int) -> int:
        if length != UNDEFINED:
            return pos + length
        return self._elements.skip_items(pos, explicit=self._encoding.explicit, fragments=False)[0]
