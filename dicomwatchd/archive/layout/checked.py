"""JSON of a manifest, checked value by value: whoever uses a manifest relies on its types.

Each function returns what it was given, and raises TypeError or ValueError where it is not that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from dicomwatchd.model import DataSetDigest, DicomJson

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
#: Of attributes. Those that are written have no sequences in them, hence three levels.
_DEPTH_LIMIT = 100


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def texts(value: object) -> tuple[str, ...]:
    return tuple(text(item) for item in items(value))


def number(value: object, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ValueError("no number, or one out of range")
    return value


def digest(value: object) -> str | None:
    if value is not None and not _SHA256.match(text(value)):
        raise ValueError("no SHA-256")
    return value if value is None else str(value)


def data_set_digest(value: dict[str, Any]) -> DataSetDigest:
    """Of a data set that could not be read to its end both are ""."""
    found = DataSetDigest(text(value["data_set_sha256"]), text(value["content_sha256"]))
    for one in (found.data_set_sha256, found.content_sha256):
        digest(one or None)
    return found


def attributes(value: object) -> DicomJson:
    if not isinstance(value, dict) or not all(isinstance(element, dict) for element in value.values()):
        raise TypeError("no DICOM JSON")
    # How deep a text json.loads() reads depends on Python's version and on the stack: what one machine takes, another
    # would call damaged.
    level: list[Any] = list(value.values())
    for _ in range(_DEPTH_LIMIT):
        level = [inner for outer in level for inner in _contents(outer)]
        if not level:
            return value
    raise ValueError("nested too deep")


def _contents(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def finite(number_text: str) -> float:
    """JSON knows no NaN and no infinity, and what is read here must be writable again."""
    number = float(number_text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(", ", ": "))
