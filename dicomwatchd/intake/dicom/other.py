"""What a file of an uploaded folder is that is not DICOM: nothing for the archive, or something that may be an image
after all.

A patient's CD holds a viewer, pictures and texts beside the images. They are no failure of an upload. But a person
gives the disc away on what is said of it, so a file is called "not DICOM" only for what it is known to be, by its first
bytes or by a name that no image has. A damaged image (zeros, noise, nothing at all) is none of that.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from dicomwatchd.errors import NotDicom

#: ``code`` of a file that is left alone because it is no DICOM file.
NOT_DICOM = NotDicom.code
#: ``code`` of a file that is left alone and may have DICOM files in it: an archive file, or the image of a disc.
NOT_OPENED = "not-opened"

_NOT_DICOM = "not a DICOM file, so it is left alone and not archived"
_NOT_OPENED = "may have images in it (an archive file or a disc image) and was not opened"
_DAMAGED = "named like an image, but it is not DICOM: damaged? compare it with its source"
_MISPLACED = "the mark of a DICOM file stands at the wrong place: damaged? compare it with its source"
_EMPTY = "named like an image, but it is empty: damaged? compare it with its source"

_HEAD_BYTES = 4096
#: What archive files and images of discs begin with.
_CONTAINERS = (
    b"PK\x03\x04",  # ZIP
    b"PK\x05\x06",  # ZIP, empty
    b"PK\x07\x08",  # ZIP, in pieces
    b"\x1f\x8b",  # gzip
    b"\x1f\x9d",  # compress
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\x28\xb5\x2f\xfd",  # Zstandard
    b"\x04\x22\x4d\x18",  # LZ4
    b"QFI\xfb",
    b"conectix",
    b"vhdxfile",
)
_TAR, _TAR_AT = b"ustar", 257
#: An image of a disc: its volume descriptors begin at sector 16 of 2,048 bytes; with 2,352 bytes to a sector after 16.
_DISC = ((32769, (b"CD001", b"BEA01")), (37649, (b"CD001",)), (37657, (b"CD001",)))
#: Programs and documents that are ZIP files by their make.
_ZIP_BY_MAKE = frozenset(
    b"jar war ear aar apk xpi crx whl nupkg docx docm xlsx xlsm pptx pptm odt ods odp odg epub xps oxps".split()
)
#: What operating systems keep on a medium for themselves.
_HOUSEKEEPING = frozenset({b"system volume information", b".spotlight-v100", b".fseventsd"})
#: What files begin with that no damage makes out of an image.
_OTHERS = (
    b"MZ",
    b"\x7fELF",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"%PDF-",
    b"%!PS",
    b"RIFF",
    b"OggS",
    b"ID3",
    b"fLaC",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # Windows media
    b"\0\0\x01\xba",  # MPEG
    b"\0\0\x01\xb3",
    b"II*\0",
    b"MM\0*",
    b"\0\0\x01\0",  # icon
    b"MSCF",
    b"ISc(",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",  # documents and installers of Windows
    b"ITSF",
    b"\xca\xfe\xba\xbe",  # Java, macOS
    b"\xda\xda\xfe\xca",  # what a Java viewer brings along
    b"\xfe\xed\xfe\xed",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\0\x05\x16\x07",  # what macOS keeps beside a file
    b"\0\x05\x16\x00",
    b"\0\0\0\x01Bud1",
    b"SQLite format 3\0",
    b"wOFF",
    b"wOF2",
    b"OTTO",
    b"\0\x01\0\0\0",  # TrueType
    b"L\0\0\0\x01\x14\x02\0",  # a link of Windows
    b"!<arch>\n",
    b"\0asm",
)
_MEDIA_AT_4 = b"ftyp"  # MP4

#: Endings that say of a file that it is an image of DICOM, whatever is in it.
_IMAGE_ENDINGS = frozenset(b"dcm dicom dic dc3 dcom ima acr".split())
#: Endings under which devices write images, and others write something else.
_MODALITY_ENDINGS = frozenset(b"cr ct dx img mg mr nm pt rf sc sr us xa".split())
_MARK = b"DICM"
_DIGITS = re.compile(rb"[0-9]+\Z")
_ENDING = re.compile(rb"[A-Za-z0-9_~-]{1,12}\Z")
#: Characters of a text: no control characters but white space.
_NO_TEXT = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A file that is no failure: ``code`` and ``reason`` for the record."""

    code: str
    reason: str


def left_alone(fd: int, size_bytes: int, directory: bytes, name: bytes) -> LeftAlone:
    """What to say of an open file whose header is not DICOM's. Raises NotDicom where it is a failure: it is named
    like an image, or nothing tells that it is none; OSError."""
    image_by_ending = _ending(name) in _IMAGE_ENDINGS
    if size_bytes == 0:
        # One without a number in its name is a mark that a program has left: "DONE".
        if image_by_ending or (_may_be_an_image(name) and any(byte in b"0123456789" for byte in name)):
            raise NotDicom(_EMPTY, code="empty")
        return LeftAlone(NOT_DICOM, _NOT_DICOM)
    if image_by_ending:
        raise NotDicom(_DAMAGED)
    head = os.pread(fd, _HEAD_BYTES, 0)
    if _MARK in head[:512] and not _is_text(head):
        raise NotDicom(_MISPLACED)
    if _is_container(fd, head):
        is_of_the_system = any(part.lower() in _HOUSEKEEPING for part in directory.split(b"/"))
        if is_of_the_system or (head.startswith(b"PK") and _ending(name) in _ZIP_BY_MAKE):
            return LeftAlone(NOT_DICOM, _NOT_DICOM)
        return LeftAlone(NOT_OPENED, _NOT_OPENED)
    if head.startswith(_OTHERS) or head[4:8] == _MEDIA_AT_4 or _is_text(head):
        return LeftAlone(NOT_DICOM, _NOT_DICOM)
    if _may_be_an_image(name):
        raise NotDicom(_DAMAGED)
    return LeftAlone(NOT_DICOM, _NOT_DICOM)


def _ending(name: bytes) -> bytes:
    """In lower case, without the version that ISO 9660 puts behind it; b"" where there is none."""
    stem, dot, ending = name.partition(b";")[0].rpartition(b".")
    return ending.lower() if dot and stem and _ENDING.match(ending) else b""


def _may_be_an_image(name: bytes) -> bool:
    """By its name: without an ending, as on every medium (PS3.10 section 8.2), with one of digits, as where a UID is
    the name, or a modality's. What begins with a dot is the system's."""
    if name.startswith(b"."):
        return False
    ending = _ending(name)
    return not ending or ending in _MODALITY_ENDINGS or _DIGITS.match(ending) is not None


def _is_container(fd: int, head: bytes) -> bool:
    if head.startswith(_CONTAINERS) or head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return True
    return any(os.pread(fd, 5, offset) in marks for offset, marks in _DISC)


def _is_text(head: bytes) -> bool:
    """ASCII, UTF-8 or a code page of one byte to a character; or UTF-16. What is one byte over and over is what a
    medium has where nothing was written."""
    if len(head) > 64 and len(set(head)) == 1:
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if len(head) >= 4 and not any(head[1::2]) and not _NO_TEXT.search(head[::2]):
        return True
    return _NO_TEXT.search(head) is None and sum(byte < 0x80 for byte in head) * 2 >= len(head)
