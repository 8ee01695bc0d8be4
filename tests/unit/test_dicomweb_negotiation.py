"""Which media type an answer has, and bodies of several parts."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.fetch.sources import BadObject
from dicomwatchd.web.dicomweb import multipart
from dicomwatchd.web.dicomweb.errors import NotAcceptable, Refused
from dicomwatchd.web.dicomweb.multipart import Part
from dicomwatchd.web.dicomweb.negotiation import (
    Chosen,
    accepted,
    choose,
    choose_json,
    choose_stored,
    media_type_of_frames,
)

EXPLICIT, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
FRAMES = ["image/jls", "application/octet-stream"]


@pytest.mark.parametrize(
    ("accept", "syntax", "expected"),
    [
        (None, JPEG_LS, Chosen("image/jls", True)),
        ("*/*", JPEG_LS, Chosen("image/jls", True)),
        ('multipart/related; type="image/jls"', JPEG_LS, Chosen("image/jls", True)),
        ("multipart/related;type=image/jls;transfer-syntax=*", JPEG_LS, Chosen("image/jls", True)),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", JPEG_LS, Chosen(FRAMES[1], True)),
        ('multipart/related; type="application/octet-stream"', JPEG_LS, Chosen(FRAMES[1], True)),
        (f"multipart/related; type=image/x-jls; transfer-syntax={JPEG_LS}", JPEG_LS, Chosen("image/jls", True)),
        ("MULTIPART/Related; TYPE=Image/JLS", JPEG_LS, Chosen("image/jls", True)),
        ("multipart/related; type=image/*", JPEG_LS, Chosen("image/jls", True)),
        ("multipart/related", JPEG_LS, Chosen("image/jls", True)),
        ("image/jls", JPEG_LS, Chosen("image/jls", False)),
        ("image/jls;q=0.1, multipart/related; type=application/octet-stream", JPEG_LS, Chosen(FRAMES[1], True)),
        ("text/html, */*;q=0.1", JPEG_LS, Chosen("image/jls", True)),
        (f"multipart/related; type=application/octet-stream; transfer-syntax={EXPLICIT}", JPEG_LS, None),
        (f"multipart/related; type=image/jls; transfer-syntax={EXPLICIT}, */*;q=0.5", JPEG_LS, Chosen(FRAMES[0], True)),
        ("image/jpeg", JPEG_LS, None),
        ("image/jls; q=0", JPEG_LS, None),
        ("multipart/related; type=image/jls;q=0", JPEG_LS, None),
    ],
)
def test_what_is_stored(accept: str | None, syntax: str, expected: Chosen | None) -> None:
    ranges = accepted(accept)
    if expected is None:
        with pytest.raises(NotAcceptable):
            choose_stored(ranges, FRAMES, [syntax], may_be_single=True)
    else:
        assert choose_stored(ranges, FRAMES, [syntax], may_be_single=True) == expected


def test_several_frames_are_never_one_body() -> None:
    with pytest.raises(NotAcceptable):
        choose_stored(accepted("image/jls"), FRAMES, [JPEG_LS], may_be_single=False)


def test_a_transfer_syntax_is_asked_of_all() -> None:
    ranges = accepted(f"multipart/related; type=application/dicom; transfer-syntax={EXPLICIT}")
    assert choose_stored(ranges, ["application/dicom"], [EXPLICIT], may_be_single=False).is_multipart
    with pytest.raises(NotAcceptable):
        choose_stored(ranges, ["application/dicom"], [EXPLICIT, JPEG_LS], may_be_single=False)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/dicom+json"),
        ("application/json", "application/json"),
        ("application/dicom+json, application/json", "application/dicom+json"),
        ("application/json, */*", "application/json"),
        ("application/*", "application/dicom+json"),
        ("text/html", None),
        ('multipart/related; type="application/dicom+xml"', None),
    ],
)
def test_json(accept: str | None, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(NotAcceptable):
            choose_json(accepted(accept))
    else:
        assert choose_json(accepted(accept)) == expected


def test_the_query_parameter_comes_first() -> None:
    assert choose(accepted("image/jpeg", "image/png"), ["image/jpeg", "image/png"]).media_type == "image/png"
    assert choose(accepted("image/png", ""), ["image/jpeg", "image/png"]).media_type == "image/png"


@pytest.mark.parametrize(
    "accept", ["a b c", "image/jpeg; q=x", "image/jpeg; q=2", ";", "x" * 9000, ",".join(["a/b"] * 99)]
)
def test_what_cannot_be_read(accept: str) -> None:
    with pytest.raises(Refused):
        accepted(accept)


@given(st.text(max_size=80) | st.text('multipart/related;type="\\,q*0.5 ', max_size=80))
def test_whatever_is_accepted_is_understood_or_refused(accept: str) -> None:
    try:
        ranges = accepted(accept)
        choose_stored(ranges, FRAMES, [JPEG_LS], may_be_single=True)
    except Refused:
        pass


def test_names_of_frames() -> None:
    assert media_type_of_frames("1.2.840.10008.1.2.4.100") == "video/mpeg2"
    assert media_type_of_frames("1.2.840.10008.1.2.4.102.1") == "video/mp4"
    assert media_type_of_frames("1.2.840.10008.1.2.4.107") == "video/H265"
    assert media_type_of_frames("1.2.840.10008.1.2.4.202") == "image/jphc"
    assert media_type_of_frames(EXPLICIT) == media_type_of_frames("9.9") == "application/octet-stream"


@given(
    st.lists(st.lists(st.binary(max_size=64), max_size=3), min_size=1, max_size=5), st.binary(min_size=16, max_size=16)
)
def test_a_body_is_what_its_parts_are(values: list[list[bytes]], random: bytes) -> None:
    """As another reader of MIME has it."""
    mark = multipart.boundary(random)
    headers = {"Content-Type": "application/octet-stream", "Content-Transfer-Encoding": "binary"}
    body = b"".join(multipart.body(mark, [Part(headers, value) for value in values]))
    assert len(body) == multipart.length(mark, [(headers, sum(map(len, value))) for value in values])
    inner = body[: -len(multipart.end(mark))].split(f"--{mark}\r\n".encode())
    assert inner[0] == b"" and len(inner) == len(values) + 1
    for number, (part, value) in enumerate(zip(inner[1:], values, strict=True), 1):
        text, _, content = part.partition(b"\r\n\r\n")
        assert b"Content-Type: application/octet-stream" in text
        assert content == b"".join(value) + (b"\r\n" if number < len(values) else b"")


def test_a_part_that_fails_leaves_the_body_open() -> None:
    def value() -> Iterator[bytes]:
        yield b"half"
        raise BadObject("other bytes")

    body = multipart.body("mark", [Part({}, [b"whole"]), Part({}, value())])
    gone = [next(body) for _ in range(4)]
    with pytest.raises(BadObject):
        next(body)
    assert gone[1::2] == [b"whole", b"half"] and multipart.end("mark") not in b"".join(gone)


def test_a_boundary_cannot_be_guessed() -> None:
    with pytest.raises(ValueError, match="guessed"):
        multipart.boundary(b"short")


def test_a_mail_reader_reads_it() -> None:
    mark = multipart.boundary(bytes(16))
    head = f"Content-Type: {multipart.content_type('text/plain', mark)}\r\n\r\n".encode()
    body = b"".join(multipart.body(mark, [Part({"Content-Type": "text/plain"}, [b"one"]), Part({}, [b"two"])]))
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert [part.get_payload() for part in message.iter_parts()] == ["one", "two"]
