"""Pictures of single frames (PS3.18 sections 8.3.5 and 10.4.1.1.3): decoded, windowed, scaled, as JPEG or PNG.

What cannot be shown as it is meant is not shown: an unknown colour space, pixels of another size than the header says,
a compression without a free decoder (JPEG Lossless). Takes memory in proportion to a frame, of at most
`MOST_SAMPLES`; it is for a few threads of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from dicomwatchd.model import DicomJson
from dicomwatchd.web.dicomweb.errors import NotRenderable, Refused
from dicomwatchd.web.dicomweb.negotiation import is_native

#: Rows times columns times samples of what is decoded, and the same of what is written.
MOST_SAMPLES = 40_000_000
#: Of a frame as it is stored: no more is read for a picture.
MOST_FRAME_BYTES = 4 * MOST_SAMPLES
_LARGEST_SIDE = 8192
THUMBNAIL_SIDE = 256
JPEG, PNG = "image/jpeg", "image/png"
_JPEG_QUALITY = 90

_SHARED, _PER_FRAME = "52009229", "52009230"
_FRAME_VOI_LUT, _PIXEL_VALUE_TRANSFORMATION = "00289132", "00289145"
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"})
_NUMBER = r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?(?:[eE][-+]?[0-9]{1,2})?"
_WINDOW = re.compile(rf"({_NUMBER}),({_NUMBER}),(LINEAR|LINEAR_EXACT|SIGMOID|linear|linear-exact|sigmoid)\Z")
RLE = "1.2.840.10008.1.2.5"
#: A row may be filled up to an even number, and some writers fill more.
_RLE_MORE_BYTES = 1 << 16
_JP2 = b"\x00\x00\x00\x0cjP  "
_SOF = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """PS3.3 section C.11.2.1.2."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True)
class Viewport:
    """The region of the image (negative: mirrored), and into how many pixels it is to fit. ``source`` None: all."""

    width: int
    height: int
    source: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    media_type: str = JPEG
    quality: int = _JPEG_QUALITY
    window: Window | None = None
    viewport: Viewport | None = None


def wanted(parameters: Mapping[str, str], media_type: str, *, is_thumbnail: bool) -> Wanted:
    """Raises Refused (HTTP 400)."""
    viewport = _viewport(parameters["viewport"], is_thumbnail=is_thumbnail) if parameters.get("viewport") else None
    if is_thumbnail:
        return Wanted(media_type, viewport=viewport or Viewport(THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    quality = _JPEG_QUALITY
    if parameters.get("quality"):
        text = parameters["quality"]
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= 100:
            raise Refused("quality is a whole number from 1 to 100")
        quality = int(text)
    return Wanted(media_type, quality, _window(parameters["window"]) if parameters.get("window") else None, viewport)


def _window(text: str) -> Window:
    match = _WINDOW.match(text)
    if match is None:
        raise Refused("window is center,width,function")
    function = match[3].upper().replace("-", "_")
    width = float(match[2])
    if width < 1 if function == "LINEAR" else width <= 0:
        raise Refused("a window has a width of 1 or more")
    return Window(float(match[1]), width, function)


def _viewport(text: str, *, is_thumbnail: bool) -> Viewport:
    parts = text.split(",")
    if len(parts) not in ((2,) if is_thumbnail else (2, 3, 4, 5, 6)):
        raise Refused("viewport is width,height, and then the region of the image")
    if not all(part == "" or re.fullmatch(_NUMBER, part) for part in parts):
        raise Refused("viewport has something that is no number")
    width, height = (int(float(part)) if part else 0 for part in parts[:2])
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise Refused(f"a viewport has from 1 to {_LARGEST_SIDE} pixels each way")
    if len(parts) == 2:
        return Viewport(width, height)
    x, y, w, h = (float(part) if part else 0.0 for part in [*parts[2:], "", "", ""][:4])
    if x < 0 or y < 0:
        raise Refused("a region begins in the image")
    return Viewport(width, height, (x, y, w, h))


def picture(
    frame: bytes,
    number: int,
    attributes: DicomJson,
    transfer_syntax_uid: str,
    bulk: Callable[[str], bytes],
    asked: Wanted,
) -> bytes:
    """A JPEG or PNG file of one frame. ``bulk`` reads what the attributes have left out, by its path. Raises
    NotRenderable."""
    try:
        data = _described(attributes, number, bulk)
        pixels = _decoded(frame, data, transfer_syntax_uid)
        shown = _shown(pixels, data, asked.window)
        return _written(_fitted(shown, data, asked.viewport), asked)
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError) as error:
        raise NotRenderable("the image cannot be decoded") from error
    except (ValueError, OSError, struct.error, MemoryError) as error:
        raise NotRenderable("the image cannot be decoded") from error


def _described(attributes: DicomJson, number: int, bulk: Callable[[str], bytes]) -> Dataset:
    """What describes the pixels of a frame: the image's own attributes, and those of its functional groups."""
    described: DicomJson = {
        tag: element
        for tag, element in attributes.items()
        if tag.startswith("0028") or tag in ("20500010", "20500020", "00080016")
    }
    for groups, index in ((_SHARED, 0), (_PER_FRAME, number - 1)):
        items = attributes.get(groups, {}).get("Value")
        if not isinstance(items, list) or not 0 <= index < len(items) or not isinstance(items[index], dict):
            continue
        for macro in (_FRAME_VOI_LUT, _PIXEL_VALUE_TRANSFORMATION):
            inner = items[index].get(macro, {}).get("Value")
            if isinstance(inner, list) and inner and isinstance(inner[0], dict):
                described.update(inner[0])
    return Dataset.from_json(described, bulk_data_uri_handler=lambda _tag, _vr, uri: bulk(uri) if uri else b"")


def _decoded(frame: bytes, data: Dataset, transfer_syntax_uid: str) -> Pixels:
    samples = int(data.SamplesPerPixel)
    if samples not in (1, 3) or not 0 < int(data.Rows) * int(data.Columns) * samples <= MOST_SAMPLES:
        raise NotRenderable("the image is too large, or of a form that is not shown")
    if data.PhotometricInterpretation not in {*_GREY, *_COLOUR, "PALETTE COLOR"}:
        raise NotRenderable("the image has a colour space that is not shown")
    data.file_meta = _meta(transfer_syntax_uid)
    data.NumberOfFrames = 1
    if is_native(transfer_syntax_uid):
        data.PixelData = frame
    else:
        _require_size(frame, int(data.Columns), int(data.Rows), samples, transfer_syntax_uid)
        data.PixelData = encapsulate([frame])
    decoder = get_decoder(UID(transfer_syntax_uid))
    if not decoder.is_available:
        raise NotRenderable("there is no decoder for its compression")
    data["PixelData"].VR = "OB" if int(data.BitsAllocated) <= 8 or not is_native(transfer_syntax_uid) else "OW"
    found, description = decoder.as_array(data, index=0)
    data.PhotometricInterpretation = description["photometric_interpretation"]
    return found


def _meta(transfer_syntax_uid: str) -> Any:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return meta


def _require_size(frame: bytes, columns: int, rows: int, samples: int, transfer_syntax_uid: str) -> None:
    """A compressed image says its size itself, and is decoded into as much memory as that takes."""
    if transfer_syntax_uid == RLE:
        _require_size_of_rle(frame, columns * rows)
        return
    if transfer_syntax_uid.startswith(("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")):
        said = _size_of_jpeg_2000(frame)
    elif transfer_syntax_uid.startswith("1.2.840.10008.1.2.4."):
        said = _size_of_jpeg(frame)
    else:
        return
    if said != (columns, rows, samples):
        raise NotRenderable("the compressed image has another size than its header says")


def _require_size_of_rle(frame: bytes, pixels: int) -> None:
    """Each of its segments is a byte of every pixel (PS3.5 annex G), and two bytes may stand for 128."""
    number, *begins = struct.unpack_from("<16I", frame)
    if not 1 <= number <= 15 or sorted(begins[:number]) != begins[:number] or begins[0] < 64:
        raise NotRenderable("the image cannot be decoded")
    for begin, end in zip(begins[:number], [*begins[1:number], len(frame)], strict=True):
        at, decoded = begin, 0
        while at < end and at < len(frame):
            code = frame[at]
            decoded += code + 1 if code < 128 else 0 if code == 128 else 257 - code
            at += code + 2 if code < 128 else 1 if code == 128 else 2
            if decoded > pixels + _RLE_MORE_BYTES:
                raise NotRenderable("the compressed image has another size than its header says")


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int]:
    """Out of its SIZ marker segment (ITU-T T.800 section A.5.1): of the code stream that a decoder takes, which may
    stand in the boxes of a JP2 file (section I.4)."""
    at = 0
    if frame.startswith(_JP2):
        while frame[at + 4 : at + 8] != b"jp2c":
            size_bytes = struct.unpack_from(">I", frame, at)[0]
            if size_bytes < 8:  # to the end of the file, or of 64 bits: not before the code stream
                raise NotRenderable("the image cannot be decoded")
            at += size_bytes
        at += 16 if struct.unpack_from(">I", frame, at)[0] == 1 else 8
    if frame[at : at + 4] != b"\xff\x4f\xff\x51":
        raise NotRenderable("the image cannot be decoded")
    width, height, left, top = struct.unpack_from(">4I", frame, at + 8)
    return width - left, height - top, struct.unpack_from(">H", frame, at + 40)[0]


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int]:
    """Out of its frame header (ITU-T T.81 section B.2.2; T.87)."""
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _SOF:
            height, width = struct.unpack_from(">2H", frame, at + 5)
            return width, height, frame[at + 9]
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    raise NotRenderable("the image cannot be decoded")


def _shown(pixels: Pixels, data: Dataset, window: Window | None) -> Pixels:
    """Eight bits a sample, grey or RGB."""
    photometric = str(data.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return _to_eight_bits(apply_color_lut(pixels, data))
    if pixels.ndim == 3:
        if photometric != "RGB":
            raise NotRenderable("the image has a colour space that is not shown")
        shift = max(0, int(data.BitsStored) - 8)
        return np.asarray(pixels >> shift, np.uint8)
    grey: Pixels = _windowed(pixels, data, window)
    is_inverse = photometric == "MONOCHROME1" or data.get("PresentationLUTShape") == "INVERSE"
    return np.asarray(255 - grey if is_inverse else grey)


def _to_eight_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _windowed(pixels: Pixels, data: Dataset, window: Window | None) -> Pixels:
    padding = _padding(pixels, data)
    values = _modality_values(pixels, data)
    if window is None:
        if "VOILUTSequence" in data and data.VOILUTSequence:
            looked_up = apply_voi_lut(values, data)
            bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
            return np.asarray(np.clip(looked_up.astype(np.float32) * (255.0 / (2**bits - 1)), 0, 255), np.uint8)
        window = _own_window(data)
    if window is None:
        kept = values if padding is None or padding.all() else values[~padding]
        least, most = float(kept.min()), float(kept.max())
        window = Window((least + most) / 2, max(most - least, 1e-6), "LINEAR_EXACT")
    return _through(values.astype(np.float32), window)


def _modality_values(pixels: Pixels, data: Dataset) -> Pixels:
    if "ModalityLUTSequence" in data and data.ModalityLUTSequence:
        found: Pixels = apply_modality_lut(pixels, data)
        return found
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    return pixels if (slope, intercept) == (1, 0) else pixels.astype(np.float32) * slope + intercept


def _padding(pixels: Pixels, data: Dataset) -> Pixels | None:
    value = data.get("PixelPaddingValue")
    return None if value is None else pixels == int(value)


def _own_window(data: Dataset) -> Window | None:
    center, width = _first(data.get("WindowCenter")), _first(data.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    function = str(data.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        function = "LINEAR"
    return Window(center, max(width, 1.0) if function == "LINEAR" else width, function)


def _first(value: Any) -> float | None:
    if isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        value = next(iter(value), None)
    return None if value in (None, "") else float(value)


def _through(values: npt.NDArray[np.float32], window: Window) -> Pixels:
    center, width = window.center, window.width
    scaled: npt.NDArray[np.floating[Any]]
    match window.function:
        case "SIGMOID":
            with np.errstate(over="ignore"):
                scaled = 1 / (1 + np.exp(-4 * (values - center) / width))
        case "LINEAR_EXACT":
            scaled = (values - center) / width + 0.5
        case _:
            span = max(width - 1, 1e-6)
            scaled = (values - (center - 0.5)) / span + 0.5
    return np.asarray(np.clip(scaled * 255 + 0.5, 0, 255), np.uint8)


def _fitted(pixels: Pixels, data: Dataset, viewport: Viewport | None) -> Image.Image:
    """Into the viewport as large as it fits, with the shape that its pixels have."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if viewport is None:
        return image
    if viewport.source is not None:
        x, y, w, h = viewport.source
        w, h = w or image.width - x, h or image.height - y
        right, bottom = min(x + abs(w), image.width), min(y + abs(h), image.height)
        if right - x < 1 or bottom - y < 1:
            raise Refused("the region is not in the image")
        image = image.crop((int(x), int(y), int(right), int(bottom)))
        if w < 0:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if h < 0:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    tall = image.height * _aspect(data)
    scale = min(viewport.width / image.width, viewport.height / tall)
    size = max(1, round(image.width * scale)), max(1, round(tall * scale))
    if size[0] * size[1] * len(image.getbands()) > MOST_SAMPLES:
        raise Refused("the viewport is too large")
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _aspect(data: Dataset) -> float:
    """The height of a pixel by its width (PS3.3 C.7.6.3.1.7)."""
    said = data.get("PixelAspectRatio")
    if said is None or len(said) != 2 or not float(said[0]) > 0 or not float(said[1]) > 0:
        return 1.0
    return min(max(float(said[0]) / float(said[1]), 0.01), 100.0)


def _written(image: Image.Image, asked: Wanted) -> bytes:
    file = BytesIO()
    if asked.media_type == PNG:
        image.save(file, "PNG", compress_level=3)
    else:
        image.save(file, "JPEG", quality=asked.quality)
    return file.getvalue()
