"""Pictures of frames: that they show what the header says, and that nothing takes more memory than it may."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import get_encoder

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import DicomJson
from dicomwatchd.web.dicomweb import rendered
from dicomwatchd.web.dicomweb.errors import NotRenderable, Refused
from dicomwatchd.web.dicomweb.rendered import PNG, Viewport, Wanted, Window, picture, wanted

EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG, JPEG_LOSSLESS, JPEG_LS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
JPEG_2000, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16

LARGER = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16
AS_PNG = Wanted(PNG)


def header(rows: int = 8, columns: int = 8, **values: Any) -> DicomJson:
    """Of sixteen-bit grey, where nothing else is said."""
    data = Dataset()
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = rows, columns
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    for name, value in values.items():
        setattr(data, name, value)
    return data.to_json_dict()


def no_bulk(_place: str) -> bytes:
    raise AssertionError("nothing was left out")


def shown(frame: bytes, attributes: DicomJson, syntax: str = EXPLICIT, asked: Wanted = AS_PNG) -> Any:
    return np.asarray(Image.open(io.BytesIO(picture(frame, 1, attributes, syntax, no_bulk, asked))))


def test_a_window_is_the_one_of_the_standard() -> None:
    """PS3.3 C.11.2.1.2.1: c = 2048, w = 4096 of the standard's example, at its edges and its centre."""
    values = np.array([[0, 2047, 2048, 4095]], np.uint16)
    attributes = header(1, 4, WindowCenter="2048", WindowWidth="4096")
    assert shown(values.tobytes(), attributes).tolist() == [[0, 127, 128, 255]]
    asked = Wanted(PNG, window=Window(10, 20, "SIGMOID"))
    assert shown(np.array([[10, 0, 60000, 20]], np.uint16).tobytes(), header(1, 4), asked=asked).tolist() == [
        [128, 30, 255, 225]
    ]
    asked = Wanted(PNG, window=Window(10, 20, "LINEAR_EXACT"))
    assert shown(np.array([[0, 10, 20, 99]], np.uint16).tobytes(), header(1, 4), asked=asked).tolist() == [
        [0, 128, 255, 255]
    ]


def test_rescale_and_inversion() -> None:
    rescaled = header(WindowCenter="0", WindowWidth="1008", RescaleSlope="1", RescaleIntercept="-504")
    plain = shown(GREY.tobytes(), rescaled)
    assert plain[0, 0] == 0 and plain[7, 7] == 255 and (np.diff(plain.reshape(-1).astype(int)) >= 0).all()
    inverse = shown(GREY.tobytes(), {**rescaled, **header(PhotometricInterpretation="MONOCHROME1")})
    assert (inverse == 255 - plain).all()
    also = shown(GREY.tobytes(), {**rescaled, "20500020": {"vr": "CS", "Value": ["INVERSE"]}})
    assert (also == inverse).all()


def test_without_a_window_padding_does_not_count() -> None:
    values = np.array([[63536, 100, 150, 200]], np.uint16)
    attributes = header(1, 4, PixelPaddingValue=63536)
    assert shown(values.tobytes(), attributes).tolist() == [[255, 0, 128, 255]]
    assert shown(np.full((8, 8), 7, np.uint16).tobytes(), header()).shape == (8, 8)


def test_signed_and_big_endian() -> None:
    values = np.array([[-100, 0, 100, 50]], np.int16)
    attributes = header(1, 4, PixelRepresentation=1)
    assert shown(values.tobytes(), attributes).tolist() == [[0, 128, 255, 191]]
    assert shown(values.astype(">i2").tobytes(), attributes, BIG_ENDIAN).tolist() == [[0, 128, 255, 191]]


def test_colours() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[1, 1] = (255, 0, 0), (0, 0, 255)
    colour = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    rgb = header(2, 2, PhotometricInterpretation="RGB", PlanarConfiguration=0, **colour)
    assert (shown(pixels.tobytes(), rgb) == pixels).all()
    planar = header(2, 2, PhotometricInterpretation="RGB", PlanarConfiguration=1, **colour)
    assert (shown(pixels.transpose(2, 0, 1).tobytes(), planar) == pixels).all()
    ybr = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    full = header(2, 2, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, **colour)
    assert np.abs(shown(ybr.tobytes(), full).astype(int) - pixels).max() <= 2


def test_a_palette() -> None:
    red = np.array([0, 65535, 0, 32768], np.uint16)
    attributes = header(1, 4, PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8, HighBit=7)
    for tag in ("00281101", "00281102", "00281103"):
        attributes[tag] = {"vr": "US", "Value": [4, 0, 16]}
    for tag in ("00281201", "00281202", "00281203"):
        attributes[tag] = {"vr": "OW", "BulkDataURI": tag}
    asked: list[str] = []

    def bulk(place: str) -> bytes:
        asked.append(place)
        return red.tobytes() if place == "00281201" else bytes(8)

    found = picture(bytes([0, 1, 2, 3]), 1, attributes, EXPLICIT, bulk, Wanted(PNG))
    assert np.asarray(Image.open(io.BytesIO(found)))[0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 0], [128, 0, 0]]
    assert set(asked) == {"00281201", "00281202", "00281203"}


def test_compressed() -> None:
    attributes = header(64, 64, WindowCenter="32760", WindowWidth="65521")
    expected = shown(LARGER.tobytes(), attributes)
    j2k = encode_array(LARGER, bits_stored=16, photometric_interpretation=2)
    assert (shown(j2k, attributes, JPEG_2000) == expected).all()
    jpeg_ls = pytest.importorskip("jpeg_ls")
    assert (shown(bytes(jpeg_ls.encode_array(LARGER)), attributes, JPEG_LS) == expected).all()
    described = Dataset.from_json(attributes)
    rle = get_encoder(RLE).encode(
        LARGER.tobytes(),
        rows=64,
        columns=64,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
        photometric_interpretation=str(described.PhotometricInterpretation),
        encoding_plugin="pydicom",
    )
    assert (shown(rle, attributes, RLE) == expected).all()
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(file, "JPEG")
    eight = header(BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter="128", WindowWidth="256")
    assert np.abs(shown(file.getvalue(), eight, JPEG).astype(int) - 99).max() <= 2


def test_a_window_of_its_own_frame_counts() -> None:
    """Enhanced multi-frame images have it in their functional groups (PS3.3 C.7.6.16)."""

    def group(center: str) -> DicomJson:
        return {
            "00289132": {
                "vr": "SQ",
                "Value": [{"00281050": {"vr": "DS", "Value": [center]}, "00281051": {"vr": "DS", "Value": ["2"]}}],
            }
        }

    attributes: DicomJson = {**header(), "52009230": {"vr": "SQ", "Value": [group("10"), group("50000")]}}
    first = picture(GREY.tobytes(), 1, attributes, EXPLICIT, no_bulk, Wanted(PNG))
    second = picture(GREY.tobytes(), 2, attributes, EXPLICIT, no_bulk, Wanted(PNG))
    assert np.asarray(Image.open(io.BytesIO(first)))[7, 7] == 255
    assert np.asarray(Image.open(io.BytesIO(second)))[7, 7] == 0


def test_into_a_viewport() -> None:
    wide = header(4, 8)
    frame = GREY[:4].tobytes()
    for viewport, shape in (
        (Viewport(16, 16), (8, 16)),
        (Viewport(4, 100), (2, 4)),
        (Viewport(8, 4, (4, 0, 4, 2)), (4, 8)),
        (Viewport(256, 256), (128, 256)),
    ):
        assert shown(frame, wide, asked=Wanted(PNG, viewport=viewport)).shape == shape
    mirrored = shown(frame, wide, asked=Wanted(PNG, viewport=Viewport(8, 4, (0, 0, -8, 4))))
    assert (mirrored == shown(frame, wide)[:, ::-1]).all()
    stretched = header(4, 8, PixelAspectRatio=["2", "1"])
    assert shown(frame, stretched, asked=Wanted(PNG, viewport=Viewport(8, 8))).shape == (8, 8)
    with pytest.raises(Refused):
        shown(frame, wide, asked=Wanted(PNG, viewport=Viewport(8, 4, (100, 0, 4, 2))))


def test_what_is_larger_than_it_says_is_not_decoded() -> None:
    """A few bytes that decode into gigabytes."""
    j2k = bytearray(encode_array(LARGER, bits_stored=16, photometric_interpretation=2))
    at = j2k.find(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">2I", j2k, at, 60000, 60000)
    with pytest.raises(NotRenderable, match="another size"):
        shown(bytes(j2k), header(64, 64), JPEG_2000)
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 60000, 60000, 1) + bytes(20)
    with pytest.raises(NotRenderable, match="another size"):
        shown(jpeg, header(BitsAllocated=8, BitsStored=8, HighBit=7), JPEG)
    with pytest.raises(NotRenderable, match="too large"):
        shown(b"", header(60000, 60000))
    with pytest.raises(NotRenderable):
        shown(jpeg.replace(struct.pack(">2H", 60000, 60000), struct.pack(">2H", 8, 8)), header(), JPEG_LOSSLESS)


@pytest.mark.parametrize(
    ("attributes", "frame"),
    [
        ({}, b""),
        (header(PhotometricInterpretation="HSV"), GREY.tobytes()),
        (header(SamplesPerPixel=4), GREY.tobytes()),
        (header(), GREY.tobytes()[:-3]),
        ({**header(), "00280010": {"vr": "US", "Value": ["x"]}}, GREY.tobytes()),
        ({**header(), "00281050": {"vr": "DS", "Value": ["x"]}}, GREY.tobytes()),
        (header(PhotometricInterpretation="PALETTE COLOR"), GREY.tobytes()),
    ],
)
def test_what_cannot_be_shown_is_refused(attributes: DicomJson, frame: bytes) -> None:
    with pytest.raises(NotRenderable):
        shown(frame, attributes)


@given(st.binary(max_size=200), st.sampled_from([JPEG, JPEG_LS, JPEG_2000, RLE, JPEG_LOSSLESS, EXPLICIT, "1.2.3"]))
def test_whatever_a_frame_is_it_is_shown_or_refused(frame: bytes, syntax: str) -> None:
    try:
        shown(frame, header(), syntax)
    except DicomwatchdError as error:
        assert isinstance(error, NotRenderable)  # noqa: PT017


@pytest.mark.parametrize(
    "parameters",
    [
        {"window": "1,2"},
        {"window": "1,0,LINEAR"},
        {"window": "nan,1,LINEAR"},
        {"window": "1,2,CUBIC"},
        {"viewport": "0,1"},
        {"viewport": "9000,1"},
        {"viewport": "8,8,-1,0,1,1"},
        {"viewport": "x"},
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "9" * 5000},
    ],
)
def test_parameters_that_are_none(parameters: dict[str, str]) -> None:
    with pytest.raises(Refused):
        wanted(parameters, PNG, is_thumbnail=False)


def test_parameters() -> None:
    found = wanted(
        {"window": "40,400,linear-exact", "viewport": "10,20,,,5,", "quality": "7"}, "image/jpeg", is_thumbnail=False
    )
    assert found == Wanted("image/jpeg", 7, Window(40, 400, "LINEAR_EXACT"), Viewport(10, 20, (0, 0, 5, 0)))
    small = wanted({"window": "40,400,LINEAR"}, PNG, is_thumbnail=True)
    assert small.viewport == Viewport(rendered.THUMBNAIL_SIDE, rendered.THUMBNAIL_SIDE) and small.window is None
