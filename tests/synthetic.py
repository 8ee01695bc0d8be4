"""Makes synthetic DICOM for tests, the demo and the benchmarks: the same seed gives the same bytes.

Needs nothing but the standard library and pydicom. The persons are invented, the pixels are noise.

    maker = Maker(seed=7)
    files = maker.ct_series(inbox / "DOE^J", slices=20)
    maker.study_uid(0) == files[0].study_uid

or from a shell: python -m tests.synthetic FOLDER --studies 3 --kind mixed --junk
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import UID

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
US_MULTIFRAME_IMAGE = "1.2.840.10008.5.1.4.1.1.3.1"
MULTIFRAME_GRAYSCALE_WORD_SC = "1.2.840.10008.5.1.4.1.1.7.3"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"

KINDS = ("ct", "mr", "us", "sr", "mixed")


@dataclass(frozen=True)
class Patient:
    """Whom a study is of. With `marked`, every attribute and every path of the patient carries the marker, so that
    a test can look for it where no patient data may be."""

    name: str = "DOE^JANE"
    patient_id: str = "P0001"
    birth_date: str = "19700101"
    sex: str = "F"
    marker: str = ""

    @classmethod
    def marked(cls, marker: str = "CANARY^JANE") -> Patient:
        """A patient all of whose texts hold ``marker``, which must be at most 16 characters without a slash."""
        return cls(name=marker, patient_id=f"{marker}-ID", marker=marker)

    def text(self, plain: str) -> str:
        """An attribute's text: as given, or the marker."""
        return self.marker or plain


@dataclass(frozen=True)
class Made:
    """One file that was written. UIDs are "" for what is no instance."""

    path: Path
    size_bytes: int
    sha256: str
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""


class Maker:
    """Writes files; its ``seed`` decides every UID and every byte of pixels, whatever the order of calls.

    Each study method makes a new study, or adds to study number ``study`` (from 0) when that is given; late slices
    of an old series take ``series`` (from 1) and ``first``. Methods give the files in the order they were written,
    named ``IM0001`` and on by their instance number; a file that is there already is never overwritten.
    """

    def __init__(self, seed: int = 1, patient: Patient | None = None) -> None:
        self.seed = seed
        self.patient = patient or Patient()
        self._studies = 0
        self._series: dict[int, int] = {}

    def uid(self, *parts: object) -> str:
        """A UID below 2.25 (PS3.5 B.2) that depends on the seed and ``parts`` alone."""
        digest = hashlib.sha256(repr((self.seed, *parts)).encode()).digest()
        return f"2.25.{int.from_bytes(digest[:15], 'big')}"

    def study_uid(self, study: int) -> str:
        return self.uid("study", study)

    def ct_series(
        self,
        folder: Path,
        *,
        slices: int = 10,
        study: int | None = None,
        series: int | None = None,
        first: int = 1,
        rows: int = 512,
        columns: int = 512,
    ) -> list[Made]:
        """One CT series of single 16-bit slices; 512 x 512 makes files of about 526 KB."""
        number = self._study(study)
        shape = (rows, columns)
        return list(self._images(folder, CT_IMAGE, "CT", (number, series), range(first, first + slices), shape))

    def mr_study(
        self, folder: Path, *, series: int = 3, slices: int = 10, study: int | None = None, rows: int = 140
    ) -> list[Made]:
        """Several MR series of small square images, in one folder; 140 rows make files of about 40 KB."""
        number = self._study(study)
        made: list[Made] = []
        for _ in range(series):
            numbers = range(len(made) + 1, len(made) + 1 + slices)
            made += self._images(folder, MR_IMAGE, "MR", (number, None), numbers, (rows, rows))
        return made

    def us_multiframe(
        self,
        folder: Path,
        *,
        frames: int = 20,
        study: int | None = None,
        rows: int = 120,
        columns: int = 160,
        compressed: bool = True,
    ) -> list[Made]:
        """One multi-frame ultrasound clip, RLE Lossless or native."""
        number = self._study(study)
        data = self._instance(number, self._new_series(number), 1, US_MULTIFRAME_IMAGE, "US")
        _describe_pixels(data, rows, columns, bits=8)
        data.NumberOfFrames = frames
        data.FrameIncrementPointer = 0x00181063
        data.FrameTime = "40"
        images = [self._noise(f"{data.SOPInstanceUID} {frame}", rows * columns) for frame in range(frames)]
        if compressed:
            data.PixelData = encapsulate([_rle_frame(image, columns) for image in images])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
        else:
            data.PixelData = b"".join(images)
        return [self._write(data, folder / "IM0001", RLE_LOSSLESS if compressed else EXPLICIT_LITTLE_ENDIAN)]

    def structured_report(self, folder: Path, *, study: int | None = None, name: str = "SR0001") -> list[Made]:
        """One Basic Text SR: an instance without pixels."""
        number = self._study(study)
        data = self._instance(number, self._new_series(number), 1, BASIC_TEXT_SR, "SR")
        data.ContentDate, data.ContentTime = "20240102", "101112"
        data.CompletionFlag, data.VerificationFlag = "COMPLETE", "UNVERIFIED"
        data.PerformedProcedureCodeSequence = Sequence([])
        data.ReferencedPerformedProcedureStepSequence = Sequence([])
        data.ValueType, data.ContinuityOfContent = "CONTAINER", "SEPARATE"
        data.ConceptNameCodeSequence = Sequence([_code("18748-4", "LN", "Diagnostic Imaging Report")])
        finding = Dataset()
        finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
        finding.ConceptNameCodeSequence = Sequence([_code("121071", "DCM", "Finding")])
        finding.TextValue = self.patient.text("Nothing to be seen.")
        data.ContentSequence = Sequence([finding])
        return [self._write(data, folder / name, EXPLICIT_LITTLE_ENDIAN)]

    def sparse_multiframe(
        self, folder: Path, *, size_bytes: int, frames: int = 12, study: int | None = None, name: str = "IM0001"
    ) -> list[Made]:
        """One valid multi-frame instance of at least ``size_bytes`` that takes hardly any room on the disk.

        Encapsulated, one fragment a frame: native pixel data ends at 4 GiB. Each fragment begins with noise and goes
        on as a hole. ``sha256`` is not worked out.
        """
        fragment_bytes = -(-size_bytes // frames) // 2 * 2 + 2
        if fragment_bytes >= 0xFFFFFFFF:
            raise ValueError("a fragment ends at 4 GiB: ask for more frames")
        number = self._study(study)
        data = self._instance(number, self._new_series(number), 1, MULTIFRAME_GRAYSCALE_WORD_SC, "OT")
        _describe_pixels(data, 4096, 4096, bits=16)
        data.NumberOfFrames = frames
        data.FrameIncrementPointer = 0x00181063
        data.FrameTime = "40"
        data.ConversionType = "SYN"
        made = self._write(data, folder / name, JPEG_2000_LOSSLESS)
        with made.path.open("r+b") as file:
            file.seek(0, 2)
            file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
            file.write(struct.pack("<HHL", 0xFFFE, 0xE000, 0))
            for frame in range(frames):
                noise = self._noise(f"{data.SOPInstanceUID} {frame}", min(4096, fragment_bytes))
                file.write(struct.pack("<HHL", 0xFFFE, 0xE000, fragment_bytes))
                file.write(noise)
                file.seek(fragment_bytes - len(noise), 1)
            file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
        return [replace(made, size_bytes=made.path.stat().st_size, sha256="")]

    def media(self, folder: Path, files: list[Made]) -> list[Made]:
        """Copies of ``files`` as an export medium has them (PS3.10 section 8): a DICOMDIR, named last, and the
        instances below PT000000/ST000000/..."""
        file_set = FileSet()
        file_set.UID = UID(self.uid("file-set", len(files)))
        by_instance = {made.sop_instance_uid: made for made in files}
        for made in files:
            file_set.add(made.path)
        folder.mkdir(parents=True, exist_ok=True)
        file_set.write(folder)
        copies = []
        for instance in file_set:
            # Writing encodes anew; the copy has to have the very bytes.
            original = by_instance[instance.SOPInstanceUID]
            shutil.copyfile(original.path, instance.path)
            copies.append(replace(original, path=Path(instance.path)))
        return [*copies, _made(folder / "DICOMDIR")]

    def disc(self, folder: Path, files: list[Made]) -> list[Made]:
        """A patient's CD: `media`, and beside it what a hospital puts on one: a viewer that starts by itself, pictures
        and texts. Returns the instances and the DICOMDIR, named last."""
        made = self.media(folder, files)
        noise = self._noise("disc", 4096)
        for name, content in {
            "AUTORUN.INF": b"[autorun]\r\nopen=VIEWER\\VIEWER.EXE\r\n",
            "README": f"Images of {self.patient.name}.\nStart the viewer.\n".encode("latin-1", "replace"),
            "LIESMICH.TXT": "F\xfcr den Arzt\r\n".encode("latin-1"),
            "VIEWER/VIEWER.EXE": b"MZ\x90\0" + noise,
            "VIEWER/DCMLIB.DLL": b"MZ\x90\0" + noise,
            "VIEWER/LUT.DAT": noise,
            "VIEWER/LINUX": b"\x7fELF\x02\x01\x01\0" + noise,
            "VIEWER/HELP.JAR": b"PK\x03\x04" + noise,
            "VIEWER/EMPTY.CFG": b"",
            "JPEG/IMG00001.JPG": b"\xff\xd8\xff\xe0" + noise,
            "JPEG/INDEX.HTM": b"<html></html>",
        }.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return made

    def junk(self, folder: Path) -> list[Made]:
        """What lies about in export folders and is no instance: text, an empty file, noise, the first bytes of a slice,
        which do not say whose it is."""
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{self.patient.marker}-" if self.patient.marker else ""
        whole = self._random_slice(folder / f"{prefix}truncated.dcm")
        cut = whole.read_bytes()[:200]
        contents = {
            "README.TXT": f"Images of {self.patient.name}, exported for the family doctor.\n".encode(),
            "empty.dcm": b"",
            "noise.bin": self._noise("junk", 4096),
            "truncated.dcm": cut,
        }
        made = []
        for name, content in contents.items():
            path = folder / f"{prefix}{name}"
            path.write_bytes(content)
            made.append(_made(path))
        return made

    def study(self, folder: Path, kind: str, *, slices: int = 10) -> list[Made]:
        """A new study of one of KINDS; "mixed" is a CT series with a clip and a report."""
        if kind == "mr":
            return self.mr_study(folder, slices=max(1, slices // 3))
        if kind == "us":
            return self.us_multiframe(folder, frames=slices)
        if kind == "sr":
            return self.structured_report(folder)
        made = self.ct_series(folder, slices=slices)
        if kind == "mixed":
            made += self.us_multiframe(folder / "US", study=self._studies - 1)
            made += self.structured_report(folder / "SR", study=self._studies - 1)
        return made

    def _study(self, study: int | None) -> int:
        number = self._studies if study is None else study
        self._studies = max(self._studies, number + 1)
        return number

    def _new_series(self, study: int) -> int:
        self._series[study] = self._series.get(study, 0) + 1
        return self._series[study]

    def _images(
        self,
        folder: Path,
        sop_class_uid: str,
        modality: str,
        study_and_series: tuple[int, int | None],
        numbers: range,
        shape: tuple[int, int],
    ) -> Iterator[Made]:
        study, given = study_and_series
        series = given or self._new_series(study)
        rows, columns = shape
        for number in numbers:
            data = self._instance(study, series, number, sop_class_uid, modality)
            _describe_pixels(data, rows, columns, bits=16)
            data.ImagePositionPatient = ["-100", "-100", str(number * 2)]
            data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
            data.PixelSpacing = ["0.5", "0.5"]
            data.SliceThickness = "2"
            if modality == "CT":
                data.RescaleIntercept, data.RescaleSlope, data.KVP = "-1024", "1", "120"
            else:
                data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "SE", "NONE", ""
                data.MRAcquisitionType, data.EchoTime, data.EchoTrainLength = "2D", "20", "1"
                data.RepetitionTime = "500"
            data.PixelData = self._noise(data.SOPInstanceUID, rows * columns * 2)
            yield self._write(data, folder / f"IM{number:04d}", EXPLICIT_LITTLE_ENDIAN)

    def _noise(self, name: str, length: int) -> bytes:
        return random.Random(f"{self.seed} {name}").randbytes(length)

    def _random_slice(self, path: Path) -> Path:
        data = self._instance(10_000, 1, 1, CT_IMAGE, "CT")
        _describe_pixels(data, 64, 64, bits=16)
        data.PixelData = self._noise("cut", 64 * 64 * 2)
        return self._write(data, path, EXPLICIT_LITTLE_ENDIAN).path

    def _instance(self, study: int, series: int, number: int, sop_class_uid: str, modality: str) -> Dataset:
        patient = self.patient
        data = Dataset()
        data.SpecificCharacterSet = "ISO_IR 100"
        if modality not in ("SR", "OT"):
            data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY"]
        data.SOPClassUID = sop_class_uid
        data.SOPInstanceUID = self.uid("instance", study, series, number)
        data.StudyDate = data.SeriesDate = f"2024{study // 28 % 12 + 1:02d}{study % 28 + 1:02d}"
        data.StudyTime = data.SeriesTime = f"10{series % 60:02d}00"
        data.AccessionNumber = patient.text(f"ACC{study:06d}")
        data.Modality = modality
        data.Manufacturer = "Synthetic"
        data.InstitutionName = patient.text("General Hospital")
        data.ReferringPhysicianName = patient.text("FAMILY^DOCTOR")
        data.StudyDescription = patient.text("Follow-up")
        data.SeriesDescription = patient.text(f"{modality} series {series}")
        data.PerformingPhysicianName = patient.text("RADIOLOGIST^A")
        data.PatientName = patient.name
        data.PatientID = patient.patient_id
        data.IssuerOfPatientID = patient.text("GH")
        data.PatientBirthDate = patient.birth_date
        data.PatientSex = patient.sex
        data.PatientAge = "054Y"
        if patient.marker:
            data.OtherPatientNames = patient.marker
            data.PatientAddress = patient.marker
            data.PatientTelephoneNumbers = patient.marker
            data.PatientComments = patient.marker
        data.BodyPartExamined = "CHEST"
        data.ProtocolName = patient.text("Routine")
        data.StudyInstanceUID = self.study_uid(study)
        data.SeriesInstanceUID = self.uid("series", study, series)
        data.StudyID = patient.text(str(study))
        data.SeriesNumber = series
        data.InstanceNumber = number
        if modality in ("CT", "MR"):
            data.FrameOfReferenceUID = self.uid("frame", study)
            data.PositionReferenceIndicator = ""
            data.PatientPosition = "HFS"
        return data

    def _write(self, data: Dataset, path: Path, transfer_syntax_uid: str) -> Made:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = data.SOPClassUID
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        meta.ImplementationClassUID = UID("2.25.302019362617424265331415826271830")
        data.file_meta = meta
        if self.patient.marker:
            path = path.with_name(f"{self.patient.marker}-{path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, enforce_file_format=True, overwrite=False)
        return replace(
            _made(path),
            study_uid=data.StudyInstanceUID,
            series_uid=data.SeriesInstanceUID,
            sop_instance_uid=data.SOPInstanceUID,
        )


def _made(path: Path) -> Made:
    content = path.read_bytes()
    return Made(path, len(content), hashlib.sha256(content).hexdigest())


def _describe_pixels(data: Dataset, rows: int, columns: int, *, bits: int) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = rows, columns
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelRepresentation = 0


def _rle_frame(image: bytes, columns: int) -> bytes:
    """A frame as one RLE segment (PS3.5 G.3.1) of literal runs, none of which crosses a row."""
    segment = bytearray()
    for row in range(0, len(image), columns):
        for start in range(row, row + columns, 128):
            run = image[start : min(start + 128, row + columns)]
            segment.append(len(run) - 1)
            segment += run
    segment += b"\0" * (len(segment) % 2)
    return struct.pack("<16L", 1, 64, *[0] * 14) + bytes(segment)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def main(arguments: list[str] | None = None) -> int:
    """Write studies below a folder and print what was written, one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m tests.synthetic", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--studies", type=int, default=1, metavar="N")
    parser.add_argument("--kind", choices=KINDS, default="ct")
    parser.add_argument("--slices", type=int, default=10, metavar="K", help="images of each study")
    parser.add_argument("--rows", type=int, metavar="N", help="for --kind ct: rows and columns, default 512")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--marker", help="put this text into every patient attribute and path")
    parser.add_argument("--junk", action="store_true", help="add files that are no instances")
    parser.add_argument("--disc", action="store_true", help="make a patient's CD of them, with a DICOMDIR and a viewer")
    parser.add_argument("--sparse-bytes", type=int, metavar="N", help="add a multi-frame file of N bytes, sparse")
    options = parser.parse_args(arguments)
    maker = Maker(options.seed, Patient.marked(options.marker) if options.marker else None)
    prefix = f"{options.marker}-" if options.marker else ""

    def report(files: list[Made]) -> None:
        for made in files:
            print(json.dumps({**asdict(made), "path": str(made.path)}))

    if options.disc:
        with TemporaryDirectory() as made_in:
            studies = (Path(made_in, f"{number}") for number in range(options.studies))
            files = [one for place in studies for one in maker.study(place, options.kind, slices=options.slices)]
            report(maker.disc(options.folder, files))
        return 0
    for number in range(options.studies):
        folder = options.folder / f"{prefix}ST{number:04d}"
        if options.kind == "ct" and options.rows:
            report(maker.ct_series(folder, slices=options.slices, rows=options.rows, columns=options.rows))
        else:
            report(maker.study(folder, options.kind, slices=options.slices))
    if options.sparse_bytes:
        report(maker.sparse_multiframe(options.folder / f"{prefix}SPARSE", size_bytes=options.sparse_bytes))
    if options.junk:
        report(maker.junk(options.folder / f"{prefix}JUNK"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
