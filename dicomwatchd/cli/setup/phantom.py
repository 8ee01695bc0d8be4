"""The test study: one small synthetic image of nobody, made here so that no file has to be shipped.

Its Study Instance UID is 2.25 and a UUID as a number (PS3.5 annex B.2): the UUID is of version 5 (RFC 9562), of
`NAMESPACE` and the identity of the archive, so an archive has one test study, however often setup is run. Series
and instance are new each time.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from datetime import datetime

from dicomwatchd import __version__
from dicomwatchd.model import Uid

NAMESPACE = uuid.UUID("6f1d1f0e-6a5c-5d0b-9f43-2f5a1d3c7b10")
PATIENT_NAME, PATIENT_ID = "TEST^SETUP", "TEST-SETUP"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
#: Rows and columns: 4 kB of pixels.
_SIDE = 64


@dataclass(frozen=True, slots=True)
class Phantom:
    """``content`` is the whole file."""

    study_uid: Uid
    sop_instance_uid: Uid
    content: bytes


def study_uid(archive_id: str, erasures: int = 0) -> Uid:
    """Of the archive's test study. One that was erased stays away for good, so after ``erasures`` it is another."""
    name = f"{archive_id} {erasures}" if erasures else archive_id
    return _uid(uuid.uuid5(NAMESPACE, name))


def make(study: Uid, now: datetime, random_bytes: bytes) -> Phantom:
    """A new image of the study: a Secondary Capture of a disc and a wedge. ``random_bytes`` (16) make its UIDs."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    own = uuid.UUID(bytes=random_bytes, version=4)
    instance = _uid(own)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.SOPClassUID, data.SOPInstanceUID = _SECONDARY_CAPTURE, instance
    data.StudyDate = data.SeriesDate = data.ContentDate = now.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.ContentTime = now.strftime("%H%M%S")
    data.AccessionNumber, data.Modality, data.ConversionType = "", "OT", "SYN"
    data.Manufacturer, data.SoftwareVersions = "dicomwatchd", __version__
    data.ReferringPhysicianName = ""
    data.StudyDescription = data.SeriesDescription = "Test of dicomwatchctl setup: no patient"
    data.PatientName, data.PatientID = PATIENT_NAME, PATIENT_ID
    data.PatientBirthDate, data.PatientSex = "", "O"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, _uid(uuid.uuid5(own, "series"))
    data.StudyID, data.SeriesNumber, data.InstanceNumber = "SETUP", 1, 1
    data.PatientOrientation = data.Laterality = ""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = _SIDE
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = _pixels()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(_EXPLICIT_LITTLE_ENDIAN), UID(_implementation())
    data.file_meta = meta
    written = io.BytesIO()
    data.save_as(written, enforce_file_format=True)
    return Phantom(study, instance, written.getvalue())


def _implementation() -> str:
    """Of whoever wrote the file (PS3.7 D.3.3.2)."""
    return _uid(uuid.uuid5(NAMESPACE, "implementation"))


def _uid(value: uuid.UUID) -> Uid:
    return Uid(f"2.25.{value.int}")


def _pixels() -> bytes:
    middle = (_SIDE - 1) / 2
    return bytes(
        255 if (row - middle) ** 2 + (column - middle) ** 2 < (_SIDE / 4) ** 2 else column * 4
        for row in range(_SIDE)
        for column in range(_SIDE)
    )
