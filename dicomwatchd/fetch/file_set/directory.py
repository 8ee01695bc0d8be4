"""The DICOMDIR of files that stay as they are (PS3.3 annex F). Records are encoded by pydicom; what leads from one to
the next are offsets in the file, which is why it is put together here."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.errors import Unarchivable
from dicomwatchd.fetch.file_set.record_types import COUNTED, LEAVES, PATIENT, SERIES, STUDY, Key
from dicomwatchd.fetch.file_set.values import Said, element
from dicomwatchd.model import Uid

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
#: Of this program, made once (PS3.5 B.2); and of the private records that it writes, whose only key is the file.
IMPLEMENTATION_CLASS = "2.25.221943184523379281163184325081346842187"
PRIVATE_RECORD = "2.25.188342719263254912467323902136749158372"
_PATIENT_ID, _PATIENT_NAME = 0x00100020, 0x00100010
_IN_USE = 0xFFFF
#: (0004,1400) next record, (0004,1410) in use, (0004,1420) first record below, with their values.
_HEAD = struct.Struct("<HH2sHL HH2sHH HH2sHL")
_ITEM = struct.Struct("<HHL")


@dataclass(slots=True)
class _Node:
    body: bytes
    below: dict[tuple[str, ...], _Node] = field(default_factory=dict)
    offset: int = 0


class Directory:
    """Takes instances in any order; about 400 bytes of memory for each. ``invented`` counts values that records must
    have and files did not."""

    def __init__(self) -> None:
        self._root = _Node(b"")
        self._digest = hashlib.sha256()
        self.files = 0
        self.invented = 0
        self.not_part_10 = 0

    def add(self, study: Uid, item: ManifestInstance, file_id: str, said: Said) -> None:
        """``file_id`` is the path from the DICOMDIR, "/"-separated."""
        patient = self._below(
            self._root,
            (said.texts.get(_PATIENT_ID) or f"={said.texts.get(_PATIENT_NAME, '')}",),
            "PATIENT",
            PATIENT,
            said,
        )
        of_study = self._below(patient, (study,), "STUDY", STUDY, said, element(0x0020000D, "UI", study))
        series = self._below(
            of_study, (item.series_uid,), "SERIES", SERIES, said, element(0x0020000E, "UI", item.series_uid)
        )
        referenced = [
            element(0x00041500, "CS", file_id.split("/")),
            element(0x00041510, "UI", said.sop_class_uid),
            element(0x00041511, "UI", item.sop_instance_uid),
            element(0x00041512, "UI", item.transfer_syntax_uid),
        ]
        if said.record_type == "PRIVATE":
            referenced.append(element(0x00041432, "UI", PRIVATE_RECORD))
        self._below(series, (file_id,), said.record_type, LEAVES[said.record_type], said, *referenced)
        self.files += 1
        self.not_part_10 += not said.is_part_10
        self._digest.update(f"{file_id} {item.sop_instance_uid} {item.sha256}\n".encode())

    def _below(
        self, above: _Node, key: tuple[str, ...], record_type: str, keys: Iterable[Key], said: Said, *more: DataElement
    ) -> _Node:
        if key not in above.below:
            record = Dataset()
            record.add(element(0x00041430, "CS", record_type))
            for one in more:
                record.add(one)
            for its_key in keys:
                self._put(record, its_key, said, len(above.below) + 1)
            above.below[key] = _Node(_encoded(record))
        return above.below[key]

    def _put(self, record: Dataset, key: Key, said: Said, count: int) -> None:
        value: Any = said.sequences.get(key.tag) if key.vr == "SQ" else said.texts.get(key.tag)
        if not value and key.is_optional:
            return
        if not value and key.invented is not None:
            self.invented += 1
            value = [_unknown_code()] if key.vr == "SQ" else str(count) if key.invented == COUNTED else key.invented
        if key.vr == "SQ":
            value = Sequence(value or [])
        elif key.vr in ("US", "UL") and value:
            value = int(str(value))
        record.add(element(key.tag, key.vr, value or ("" if key.vr != "SQ" else Sequence())))

    def to_bytes(self, file_set_id: str = "DICOMWATCHD") -> bytes:
        """The whole DICOMDIR; the same for the same files. Raises Unarchivable for one of 4 GiB: it has no offsets."""
        uid = UID(f"2.25.{int.from_bytes(self._digest.digest()[:15], 'big')}")
        head = self._head(uid, file_set_id)
        nodes = list(_in_order(self._root))
        at = len(head) + 12  # behind the header of the sequence
        for node in nodes:
            node.offset = at
            at += _ITEM.size + _HEAD.size + len(node.body)
        if at >= 0xFFFFFFFF:
            raise Unarchivable("there are more files than a DICOMDIR can list", code="too-many-files")
        siblings = dict[int, int]()
        for node in (self._root, *nodes):
            under = list(node.below.values())
            siblings |= {id(one): later.offset for one, later in pairwise(under)}
        made = BytesIO()
        tops = list(self._root.below.values())
        made.write(self._head(uid, file_set_id, tops[0].offset if tops else 0, tops[-1].offset if tops else 0))
        made.write(struct.pack("<HH2sHL", 0x0004, 0x1220, b"SQ", 0, at - len(head) - 12))
        for node in nodes:
            first = next(iter(node.below.values()), None)
            made.write(_ITEM.pack(0xFFFE, 0xE000, _HEAD.size + len(node.body)))
            made.write(_links(siblings.get(id(node), 0), first.offset if first else 0))
            made.write(node.body)
        return made.getvalue()

    @staticmethod
    def _head(uid: UID, file_set_id: str, first: int = 0, last: int = 0) -> bytes:
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\0\1"
        meta.MediaStorageSOPClassUID = UID(MEDIA_STORAGE_DIRECTORY)
        meta.MediaStorageSOPInstanceUID = uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS)
        data = Dataset()
        for tag, vr, value in (
            (0x00041130, "CS", file_set_id),
            (0x00041200, "UL", first),
            (0x00041202, "UL", last),
            (0x00041212, "US", 0),
        ):
            data.add(element(tag, vr, value))
        file = DicomBytesIO()
        file.is_little_endian, file.is_implicit_VR = True, False
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta, enforce_standard=True)
        write_dataset(file, data)
        return file.getvalue()


def _in_order(above: _Node) -> Iterator[_Node]:
    for node in above.below.values():
        yield node
        yield from _in_order(node)


def _links(following: int, below: int) -> bytes:
    return _HEAD.pack(
        *(0x0004, 0x1400, b"UL", 4, following), *(0x0004, 0x1410, b"US", 2, _IN_USE), *(0x0004, 0x1420, b"UL", 4, below)
    )


def _encoded(record: Dataset) -> bytes:
    """By a character set that old viewers know, if it holds the texts, otherwise as UTF-8."""
    charset = _charset(record)
    if charset is not None:
        record.add(element(0x00080005, "CS", charset))
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, record)
    return file.getvalue()


def _charset(record: Dataset) -> str | None:
    text = "".join(_texts(record))
    if text.isascii():
        return None
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def _texts(record: Dataset) -> Iterator[str]:
    for one in record:
        if one.VR == "SQ":
            for item in one.value:
                yield from _texts(item)
        else:
            yield str(one.value)


def _unknown_code() -> Dataset:
    code = Dataset()
    for tag, value in ((0x00080100, "UNKNOWN"), (0x00080102, "99DICOMWATCHD"), (0x00080104, "unknown")):
        code.add(element(tag, "LO" if tag == 0x00080104 else "SH", value))
    return code
