"""What archives and states of others hold already, byte by byte: both manifest formats, and both texts of a receipt."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import FileIdentity, InstanceHeader, Uid
from dicomwatchd.pipeline.shipment import location_of
from dicomwatchd.queue.rows import LocalFile

STUDY, SERIES = Uid("1.2.1"), Uid("1.2.1.1")
OWN_SHA256, MEMBER_SHA256, BUNDLE_SHA256 = "a" * 64, "b" * 64, "c" * 64
OWN = keys.instance(STUDY, SERIES, Uid("1.2.1.1.1"), OWN_SHA256)
BUNDLE = keys.bundle(STUDY, BUNDLE_SHA256)

_HEAD = (
    '{"archive_id": "archive-1", "attributes": {"00100020": {"Value": ["P1"], "vr": "LO"}}, "created_at": '
    '"2026-01-31T12:00:00Z", "created_by": "dicomwatchd 1", "damaged_keys": [], "flags": [], "format": "%s", '
    '"previous_sha256": null, "revision": 1, "series": {"1.2.1.1": {}}, "study_uid": "1.2.1",\n "instances": [\n  '
)
_OWN_LINE = (
    f'{{"etag": "{"0" * 32}", "inbox": "ct1", "key": "{OWN}", "original_path": "A/IM1", "repairs": ["odd"], '
    f'"series_uid": "1.2.1.1", "sha256": "{OWN_SHA256}", "size_bytes": 3000, '
    '"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "sop_instance_uid": '
    '"1.2.1.1.1", "stored_at": "2026-01-31T12:00:00Z", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "verified_by": '
    '"etag-md5", "version_id": "v1"}'
)
_MEMBER_LINE = (
    f'{{"bundle_bytes": 4096, "etag": null, "inbox": "ct1", "key": "{BUNDLE}", "offset_bytes": 512, '
    '"original_path": "A/IM2", '
    f'"repairs": [], "series_uid": "1.2.1.1", "sha256": "{MEMBER_SHA256}", "size_bytes": 2000, "sop_class_uid": '
    '"1.2.840.10008.5.1.4.1.1.2", "sop_instance_uid": "1.2.1.1.2", "stored_at": "2026-01-31T12:00:00Z", '
    '"transfer_syntax_uid": "1.2.840.10008.1.2.1", "verified_by": "read-back", "version_id": null}'
)
#: A bundle's key with all of the object: nobody writes such a one, and it is read as a bundle's all the same.
_ALL_OF_A_BUNDLE = _MEMBER_LINE.replace('"offset_bytes": 512', '"offset_bytes": 0').replace(": 4096", ": 2000")


def manifest(version: int, *lines: str) -> bytes:
    return (_HEAD % f"dicomwatchd-manifest/{version}" + ",\n  ".join(lines) + "\n ]}\n").encode()


MANIFESTS = {
    "format 1": manifest(1, _OWN_LINE),
    "format 2": manifest(2, _OWN_LINE, _MEMBER_LINE),
    "all of a bundle": manifest(2, _OWN_LINE, _ALL_OF_A_BUNDLE),
}


@pytest.mark.parametrize("data", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_is_written_as_it_was_read(data: bytes) -> None:
    read = Manifest.from_bytes(data)
    again = replace(read)  # a copy starts without the bytes that were read
    assert again.to_bytes() == data
    assert again == read


def test_fields_of_bundles_that_say_nothing_are_no_fields() -> None:
    """Nulls in format 1, which nobody writes: they are read, and gone with the next writing."""
    nulls = _OWN_LINE.replace('"inbox"', '"offset_bytes": null, "bundle_bytes": null, "inbox"')
    assert replace(Manifest.from_bytes(manifest(1, nulls))).to_bytes() == MANIFESTS["format 1"]


RECEIPTS = {
    "an object of its own": {
        "key": OWN,
        "size_bytes": 3000,
        "sha256": OWN_SHA256,
        "created": True,
        "expected_etag": "0" * 32,
        "expected_checksum": None,
        "version_id": "v1",
        "encryption": None,
    },
    "the same, seen": {
        "key": OWN,
        "size_bytes": 3000,
        "sha256": OWN_SHA256,
        "created": False,
        "expected_etag": "0" * 32,
        "expected_checksum": f"sha256:{OWN_SHA256}",
        "version_id": None,
        "encryption": "aws:kms",
        "seen_etag": "1" * 32,
    },
    "in a bundle": {
        "key": BUNDLE,
        "size_bytes": 4096,
        "sha256": BUNDLE_SHA256,
        "created": True,
        "expected_etag": "0" * 32,
        "expected_checksum": f"sha256:{BUNDLE_SHA256}",
        "version_id": None,
        "encryption": None,
        "part": {"offset_bytes": 512, "size_bytes": 2000, "sha256": MEMBER_SHA256},
    },
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_receipt_is_written_as_it_was_read(name: str) -> None:
    text = json.dumps(RECEIPTS[name], separators=(",", ":"))
    location = location_of(_file(text))
    assert location.to_text() == text
    own = (MEMBER_SHA256, 2000) if "bundle" in name else (OWN_SHA256, 3000)
    assert (location.sha256, location.size_bytes) == own
    assert (location.receipt.key, location.receipt.size_bytes) == (RECEIPTS[name]["key"], RECEIPTS[name]["size_bytes"])


def _file(receipt: str) -> LocalFile:
    return LocalFile(
        file_id=7,
        source_id=1,
        dir=b"A",
        name=b"IM1",
        identity=FileIdentity(1, 2, 3000, 3, 4),
        header=InstanceHeader(STUDY, SERIES, Uid("1.2.1.1.1"), "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"),
        key_attempt=1,
        sha256=OWN_SHA256,
        receipt=receipt,
        verified_by=None,
        verified_at=None,
        due_at=None,
    )
