"""Images whose every grey value is known: blocks of one value each, as DICOM in each encoding that can be made here.

What must be on the screen is worked out from the standard (PS3.3 C.11.2.1.2, C.7.6.3.1.2), never from what a viewer
has shown.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.synthetic import CT_IMAGE, MR_IMAGE, Maker

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
BLOCK: Final = 8
SIDE: Final = 64
#: Of the cube: the planes through its middle lie in the middle of blocks.
CUBE: Final = 56
#: The rows of blocks. Below them is noise, which shows a decoder's mistakes and is blurred on a screen.
_SEEN_ROWS: Final = 48

Values = NDArray[np.int64]
Grey = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Phantom:
    """One series of one image. ``stored`` are the values after the modality's rescale, ``shown`` what must be on the
    screen (0 to 255; with a third axis: red, green, blue), ``tolerance`` by how much each may differ there, and
    ``coding_error`` by how much the decoded values may."""

    name: str
    path: Path
    series_uid: str
    rescaled: Grey
    shown: Grey
    tolerance: float
    coding_error: float = 0

    def places(self) -> Iterator[tuple[int, int]]:
        """(row, column) of points well within the blocks, where no interpolation reaches their neighbours."""
        for row in range(0, _SEEN_ROWS, BLOCK):
            for column in range(0, SIDE, BLOCK):
                for inside in (2, BLOCK // 2, BLOCK - 3):
                    yield row + inside, column + inside


def blocks(low: int, high: int, *, seed: int = 1, side: int = SIDE) -> Values:
    """Each block another value, neighbours far from each other, and no symmetry: a picture that is turned, mirrored or
    shifted has other values everywhere."""
    count = (side // BLOCK) ** 2
    order = np.random.default_rng(seed).permutation(count).reshape(side // BLOCK, side // BLOCK)
    values: Values = (low + order * (high - low) // (count - 1)).astype(np.int64)
    return np.kron(values, np.ones((BLOCK, BLOCK), np.int64)).astype(np.int64)


def with_noise(image: Values, low: int, high: int, seed: int) -> Values:
    noisy = image.copy()
    noisy[_SEEN_ROWS:] = np.random.default_rng(seed).integers(low, high + 1, noisy[_SEEN_ROWS:].shape)
    return noisy


def linear(values: Grey, center: float, width: float) -> Grey:
    """PS3.3 C.11.2.1.2.1, for an output from 0 to 255."""
    shown: Grey = np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    return shown


def linear_exact(values: Grey, center: float, width: float) -> Grey:
    """PS3.3 C.11.2.1.3.2."""
    shown: Grey = np.clip((values - center) / width * 255 + 127.5, 0, 255)
    return shown


def sigmoid(values: Grey, center: float, width: float) -> Grey:
    """PS3.3 C.11.2.1.3.1."""
    shown: Grey = 255 / (1 + np.exp(-4 * (values - center) / width))
    return shown


@dataclass(frozen=True)
class Volume:
    """Slices that make a cube of blocks, ``CUBE`` mm a side; ``window`` is center and width."""

    name: str
    series_uid: str
    values: Grey  # by z, y and x, in mm from the first voxel's center
    window: tuple[float, float]

    def grey(self, x: float, y: float, z: float) -> float | None:
        """What must be seen at a place of the patient's space; None near the border of a block, and outside."""
        near = [abs((one + 0.5) % BLOCK - BLOCK / 2) > BLOCK / 2 - 2 for one in (x, y, z)]
        if any(near) or not all(1 <= one <= CUBE - 2 for one in (x, y, z)):
            return None
        return float(linear(self.values[round(z), round(y), round(x)], *self.window))


class PhantomMaker:
    """Writes all phantoms of one study into a folder."""

    def __init__(
        self, folder: Path, *, study: int = 0, patient: str = "PHANTOM^BLOCKS", description: str = "Phantoms"
    ) -> None:
        self._folder, self._study, self._description = folder, study, description
        self._maker = Maker(seed=160)
        self._patient = patient
        self._series = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def study_uid(self) -> str:
        return self._maker.study_uid(self._study)

    def dataset(self, description: str, modality: str, sop_class_uid: str, *, instance: int = 1) -> Dataset:
        """Of a new series with the first instance, otherwise of the last one."""
        if instance == 1:
            self._series += 1
        data = Dataset()
        data.SpecificCharacterSet = "ISO_IR 192"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.SOPClassUID = sop_class_uid
        data.SOPInstanceUID = self._maker.uid("phantom", self._study, self._series, instance)
        data.StudyInstanceUID = self.study_uid
        data.SeriesInstanceUID = self._maker.uid("phantoms", self._study, self._series)
        data.StudyDate, data.StudyTime, data.AccessionNumber = "20240102", "101112", "PHANTOM"
        data.SeriesDate, data.SeriesTime = "20240102", f"10{self._series // 60:02d}{self._series % 60:02d}"
        data.PatientName, data.PatientID = self._patient, "PHANTOM-1"
        data.PatientBirthDate, data.PatientSex = "19700101", "O"
        data.StudyDescription, data.SeriesDescription = self._description, description
        data.StudyID, data.ReferringPhysicianName = "1", ""
        data.Modality = modality
        data.SeriesNumber, data.InstanceNumber = self._series, instance
        if sop_class_uid == SECONDARY_CAPTURE:
            data.ConversionType = "SYN"
        else:
            data.FrameOfReferenceUID = self._maker.uid("frame", self._study, self._series)
            data.PositionReferenceIndicator, data.PatientPosition = "", "HFS"
            data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, instance], [1, 0, 0, 0, 1, 0]
            data.PixelSpacing, data.SliceThickness = [1, 1], 1
        return data

    # -- one image, in any encoding -----------------------------------------------------------------------------------

    def ct(self, name: str, syntax: UID = ExplicitVRLittleEndian, *, encoded: _Encoding | None = None) -> Phantom:
        """12 bits in 16, rescaled to Hounsfield units, with a window that cuts off at both ends."""
        stored = with_noise(blocks(724, 1424), 0, 4095, 2)
        data = self.dataset(name, "CT", CT_IMAGE)
        _describe(data, stored, bits_stored=12)
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType, data.KVP = -1024, 1, "HU", 120
        data.WindowCenter, data.WindowWidth = 40, 400
        rescaled = stored - 1024.0
        return self._phantom(name, data, stored, syntax, rescaled, linear(rescaled, 40, 400), encoded)

    def signed(self, name: str, syntax: UID = ExplicitVRLittleEndian) -> Phantom:
        """16 bits with a sign, half of them below 0, and a slope that is no whole number."""
        stored = with_noise(blocks(-1800, 1800), -32768, 32767, 3)
        data = self.dataset(name, "CT", CT_IMAGE)
        _describe(data, stored, bits_stored=16, signed=True)
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType, data.KVP = -10, 0.5, "HU", 120
        data.WindowCenter, data.WindowWidth = 0, 1500
        rescaled = stored * 0.5 - 10
        return self._phantom(name, data, stored, syntax, rescaled, linear(rescaled, 0, 1500))

    def monochrome1(self, name: str) -> Phantom:
        """The lowest value is white."""
        stored = with_noise(blocks(100, 3900), 0, 4095, 4)
        data = self.dataset(name, "MR", MR_IMAGE)
        _describe(data, stored, bits_stored=12)
        data.PhotometricInterpretation = "MONOCHROME1"
        data.WindowCenter, data.WindowWidth = 2000, 3600
        return self._phantom(
            name, data, stored, ExplicitVRLittleEndian, stored * 1.0, 255 - linear(stored * 1.0, 2000, 3600)
        )

    def two_windows(self, name: str) -> Phantom:
        """The first of several windows is the one to begin with (PS3.3 C.11.2.1.2)."""
        stored = with_noise(blocks(0, 1000), 0, 1000, 5)
        data = self.dataset(name, "MR", MR_IMAGE)
        _describe(data, stored, bits_stored=16)
        data.WindowCenter, data.WindowWidth = [300, 800], [500, 100]
        return self._phantom(name, data, stored, ExplicitVRLittleEndian, stored * 1.0, linear(stored * 1.0, 300, 500))

    def voi_function(self, name: str, function: str, shown: Callable[[Grey, float, float], Grey]) -> Phantom:
        """A narrow window, in which the functions are far apart."""
        stored = with_noise(blocks(90, 110), 0, 255, 6)
        data = self.dataset(name, "MR", MR_IMAGE)
        _describe(data, stored, bits_stored=16)
        data.WindowCenter, data.WindowWidth, data.VOILUTFunction = 100, 10, function
        rescaled = stored * 1.0
        return self._phantom(name, data, stored, ExplicitVRLittleEndian, rescaled, shown(rescaled, 100, 10))

    def eight_bits(
        self, name: str, syntax: UID = ExplicitVRLittleEndian, *, encoded: _Encoding | None = None
    ) -> Phantom:
        stored = with_noise(blocks(20, 235), 0, 255, 7)
        if encoded is not None and encoded.error:
            stored[_SEEN_ROWS:] = 128  # what a lossy encoder makes of noise is nobody's promise
        data = self.dataset(name, "OT", SECONDARY_CAPTURE)
        _describe(data, stored, bits_stored=8)
        data.WindowCenter, data.WindowWidth = 128, 256
        return self._phantom(name, data, stored, syntax, stored * 1.0, linear(stored * 1.0, 128, 256), encoded)

    def colour(
        self, name: str, syntax: UID = ExplicitVRLittleEndian, *, planar: int = 0, encoded: _Encoding | None = None
    ) -> Phantom:
        """Red, green and blue are blocks of their own each."""
        stored = np.stack([blocks(20, 235, seed=seed) for seed in (11, 12, 13)], axis=-1)
        data = self.dataset(name, "OT", SECONDARY_CAPTURE)
        _describe(data, stored, bits_stored=8)
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", planar
        return self._phantom(name, data, stored, syntax, stored * 1.0, stored * 1.0, encoded)

    # -- where it is in the patient -----------------------------------------------------------------------------------

    def turned(self, name: str, row: Sequence[int], column: Sequence[int]) -> Phantom:
        """An image whose rows and columns lead along the given axes (PS3.3 C.7.6.2.1.1)."""
        stored = blocks(0, 1000)
        data = self.dataset(name, "MR", MR_IMAGE)
        _describe(data, stored, bits_stored=16)
        data.WindowCenter, data.WindowWidth = 500, 1001
        data.ImageOrientationPatient = [*row, *column]
        rescaled = stored * 1.0
        return self._phantom(name, data, stored, ExplicitVRLittleEndian, rescaled, linear(rescaled, 500, 1001))

    def volume(self, name: str) -> Volume:
        """A cube of blocks."""
        values = np.stack([blocks(-500, 500, seed=20 + z // BLOCK, side=CUBE) for z in range(CUBE)])
        return Volume(name, self.slices(name, values, (0, 1001)), values * 1.0, (0, 1001))

    def slices(self, name: str, values: Values, window: tuple[float, float], spacing_mm: float = 1) -> str:
        """The UID of a CT series of ``values`` (Hounsfield units, by z, y and x): slices from the feet to the head, but
        numbered the other way round, as many modalities do it."""
        series_uid = ""
        for number, z in enumerate(reversed(range(len(values))), start=1):
            data = self.dataset(name, "CT", CT_IMAGE, instance=number)
            _describe(data, values[z], bits_stored=16, signed=True)
            data.ImagePositionPatient, data.PixelSpacing = [0, 0, z * spacing_mm], [spacing_mm, spacing_mm]
            data.SliceThickness = spacing_mm
            data.RescaleIntercept, data.RescaleSlope, data.RescaleType, data.KVP = 0, 1, "HU", 120
            data.WindowCenter, data.WindowWidth = window
            _native(data, values[z], ExplicitVRLittleEndian)
            _save(data, ExplicitVRLittleEndian, self._folder / f"IM{self._series:04d}-{number:03d}")
            series_uid = data.SeriesInstanceUID
        return series_uid

    def _phantom(
        self,
        name: str,
        data: Dataset,
        stored: Values,
        syntax: UID,
        rescaled: Grey,
        shown: Grey,
        encoded: _Encoding | None = None,
    ) -> Phantom:
        path = self._folder / f"IM{self._series:04d}"
        (encoded or _Encoding(_native)).write(data, stored, syntax, path)
        if encoded is not None and encoded.program and encoded.error:
            # DCMTK spreads the values over all bits before it encodes them: what it decodes is what must be seen.
            plain = path.with_suffix(".plain")
            subprocess.run(["dcmdjpeg", str(path), str(plain)], check=True, capture_output=True, timeout=60)
            read = dcmread(plain)
            plain.unlink()
            rescaled = read.pixel_array * float(read.RescaleSlope) + float(read.RescaleIntercept)
            shown = linear(rescaled, float(data.WindowCenter), float(data.WindowWidth))
        error = (encoded.error if encoded else 0.0) * float(data.get("RescaleSlope", 1))
        # The grey value of a step of the stored values, beside what rounding to 256 of them takes.
        steep = 255 / float(data.WindowWidth) if "WindowWidth" in data and error else 1.0
        return Phantom(name, path, data.SeriesInstanceUID, rescaled, shown, 1 + error * steep, error)


@dataclass(frozen=True)
class _Encoding:
    """``error`` is by how much a decoded value may differ from the stored one."""

    put: Callable[[Dataset, Values, UID], None]
    error: float = 0
    #: An encoder of DCMTK, with its options, by which the finished file is encoded.
    program: tuple[str, ...] = ()

    def write(self, data: Dataset, stored: Values, syntax: UID, path: Path) -> None:
        self.put(data, stored, syntax)
        native = path.with_suffix(".native") if self.program else path
        _save(data, ExplicitVRLittleEndian if self.program else syntax, native)
        if self.program:
            subprocess.run([*self.program, str(native), str(path)], check=True, capture_output=True, timeout=60)
            native.unlink()


def _native(data: Dataset, stored: Values, syntax: UID) -> None:
    kind = (
        f"{'<' if syntax.is_little_endian else '>'}{'i' if data.PixelRepresentation else 'u'}{data.BitsAllocated // 8}"
    )
    planar = stored.ndim == 3 and data.PlanarConfiguration == 1
    data.PixelData = (np.moveaxis(stored, -1, 0) if planar else stored).astype(kind).tobytes()
    data["PixelData"].VR = "OW" if data.BitsAllocated == 16 else "OB"


def _compressed(data: Dataset, stored: Values, syntax: UID) -> None:
    """By pydicom and what it finds."""
    _native(data, stored, ExplicitVRLittleEndian)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(syntax, generate_instance_uid=False)


def _put(data: Dataset, frame: bytes) -> None:
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True


def _typed(data: Dataset, stored: Values) -> NDArray[Any]:
    return stored.astype(f"{'i' if data.PixelRepresentation else 'u'}{data.BitsAllocated // 8}")


def _jpeg_2000(data: Dataset, stored: Values, syntax: UID) -> None:
    ratios: list[float] | None = [2] if syntax == JPEG2000 else None
    _put(data, encode_array(_typed(data, stored), data.BitsStored, compression_ratios=ratios))


def _near_lossless(data: Dataset, stored: Values, syntax: UID) -> None:
    jpeg_ls = import_module("jpeg_ls")
    buffer = jpeg_ls.encode_buffer(_typed(data, stored).tobytes(), *stored.shape, 1, data.BitsStored, 3)
    _put(data, bytes(buffer))


def _jpeg_baseline(data: Dataset, stored: Values, syntax: UID) -> None:
    file = BytesIO()
    # Blocks of one value each have no frequencies that could be cut off.
    Image.fromarray(stored.astype("u1")).save(file, "JPEG", quality=100, subsampling=0)
    if stored.ndim == 3:
        data.PhotometricInterpretation, data.PlanarConfiguration = "YBR_FULL", 0
    data.LossyImageCompression, data.LossyImageCompressionMethod = "01", "ISO_10918_1"
    _put(data, file.getvalue())


def _describe(data: Dataset, stored: Values, *, bits_stored: int, signed: bool = False) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[:2]
    data.BitsAllocated = 8 if bits_stored <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits_stored, bits_stored - 1, int(signed)


def _save(data: Dataset, syntax: UID, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID("2.25.302019362617424265331415826271830")
    data.file_meta = meta
    data.save_as(path, enforce_file_format=True, overwrite=False)


_DCMTK = ("dcmcjpeg", "--uid-never")

#: What a pixel means: rescale, sign, window, photometric interpretation.
GREY: Final[dict[str, Callable[[PhantomMaker, str], Phantom]]] = {
    "CT window": lambda maker, name: maker.ct(name),
    "Signed with slope": lambda maker, name: maker.signed(name),
    "Monochrome 1": lambda maker, name: maker.monochrome1(name),
    "Two windows": lambda maker, name: maker.two_windows(name),
    "Function LINEAR": lambda maker, name: maker.voi_function(name, "LINEAR", linear),
    "Function LINEAR_EXACT": lambda maker, name: maker.voi_function(name, "LINEAR_EXACT", linear_exact),
    "Function SIGMOID": lambda maker, name: maker.voi_function(name, "SIGMOID", sigmoid),
    "Eight bits": lambda maker, name: maker.eight_bits(name),
    "Colour by pixel": lambda maker, name: maker.colour(name),
    "Colour by plane": lambda maker, name: maker.colour(name, planar=1),
}

#: The same images in every transfer syntax that can be made here.
ENCODED: Final[dict[str, Callable[[PhantomMaker, str], Phantom]]] = {
    "Implicit little endian": lambda maker, name: maker.ct(name, ImplicitVRLittleEndian),
    "Explicit big endian": lambda maker, name: maker.ct(name, ExplicitVRBigEndian),
    "Signed big endian": lambda maker, name: maker.signed(name, ExplicitVRBigEndian),
    "Deflated": lambda maker, name: maker.ct(name, DeflatedExplicitVRLittleEndian),
    "RLE": lambda maker, name: maker.ct(name, RLELossless, encoded=_Encoding(_compressed)),
    "RLE colour": lambda maker, name: maker.colour(name, RLELossless, encoded=_Encoding(_compressed)),
    "JPEG 2000 lossless": lambda maker, name: maker.ct(name, JPEG2000Lossless, encoded=_Encoding(_jpeg_2000)),
    "JPEG 2000 lossy": lambda maker, name: maker.eight_bits(name, JPEG2000, encoded=_Encoding(_jpeg_2000, error=3)),
    "JPEG baseline": lambda maker, name: maker.eight_bits(
        name, JPEGBaseline8Bit, encoded=_Encoding(_jpeg_baseline, error=2)
    ),
    "JPEG baseline colour": lambda maker, name: maker.colour(
        name, JPEGBaseline8Bit, encoded=_Encoding(_jpeg_baseline, error=3)
    ),
    "JPEG extended": lambda maker, name: maker.ct(
        name, JPEGExtended12Bit, encoded=_Encoding(_native, 1, (*_DCMTK, "+ee", "+q", "100"))
    ),
    "JPEG lossless": lambda maker, name: maker.ct(name, JPEGLossless, encoded=_Encoding(_native, 0, (*_DCMTK, "+el"))),
    "JPEG lossless SV1": lambda maker, name: maker.ct(
        name, JPEGLosslessSV1, encoded=_Encoding(_native, 0, (*_DCMTK, "+e1"))
    ),
}
if find_spec("jpeg_ls") is not None:  # no wheels for Python 3.14 yet
    ENCODED["JPEG-LS lossless"] = lambda maker, name: maker.ct(name, JPEGLSLossless, encoded=_Encoding(_compressed))
    ENCODED["JPEG-LS near-lossless"] = lambda maker, name: maker.eight_bits(
        name, JPEGLSNearLossless, encoded=_Encoding(_near_lossless, error=3)
    )

#: Row and column, each as the direction in the patient that it leads to, and the letters at the left and the top edge.
TURNED: Final = {
    "Sagittal": ((0, 1, 0), (0, 0, -1), "A", "H"),
    "Coronal": ((1, 0, 0), (0, 0, -1), "R", "H"),
    "Prone": ((-1, 0, 0), (0, -1, 0), "L", "P"),
}
