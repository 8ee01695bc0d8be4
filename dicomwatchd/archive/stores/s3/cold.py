"""Storage classes, and what S3 says of them: which objects cannot be read, and how far their restoring is.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html (x-amz-storage-class, x-amz-archive-status,
x-amz-restore), https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html (StorageClass in a listing)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from dicomwatchd.archive.stores.port import Restore

#: What is in one of these cannot be read before it was restored.
CLASSES = frozenset(("GLACIER", "DEEP_ARCHIVE"))
_USUAL = "STANDARD"
_UNDER_WAY = re.compile(r'ongoing-request="(true|false)"')
_UNTIL = re.compile(r'expiry-date="([^"]*)"')


def other_than_usual(storage_class: str | None) -> str | None:
    """None for the usual class, which HEAD leaves out and a listing names."""
    return storage_class if storage_class != _USUAL else None


def told(response: Mapping[str, Any]) -> dict[str, Any]:
    """What HeadObject's answer tells, as `StoredObject` has it. An object of a class that moves it by itself is in cold
    storage where the answer has an x-amz-archive-status."""
    storage_class = other_than_usual(response.get("StorageClass"))
    restore = _restore(response.get("Restore"))
    is_in_archive = storage_class in CLASSES or bool(response.get("ArchiveStatus"))
    is_back = restore is not None and not restore.is_under_way
    return {"storage_class": storage_class, "is_cold": is_in_archive and not is_back, "restore": restore}


def _restore(header: str | None) -> Restore | None:
    """Of x-amz-restore; None where it says nothing that is understood: then nothing is back."""
    found = _UNDER_WAY.search(header or "")
    if found is None:
        return None
    until = None
    with suppress(ValueError, TypeError):
        end = _UNTIL.search(header or "")
        until = parsedate_to_datetime(end[1]).timestamp() if end else None
    return Restore(found[1] == "true", until)
