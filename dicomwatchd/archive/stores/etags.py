"""The ETag of an object that was sent in parts, as most S3 stores compose it: the MD5 of its parts' ETags, in their
order, with "-<parts>" behind it.

What the parts' ETags are made of does not matter here. Where each of them is that of bytes which the store has
compared, and none stays when the bytes change, neither does the ETag of the object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

_OF_A_PART = re.compile(r"[0-9a-f]{32}\Z")
_COMPOSED = re.compile(r"[0-9a-f]{32}-[0-9]+\Z")


def composed(of_parts: Sequence[str]) -> str | None:
    """The object's ETag by those of its parts, without quotes; None where one of these is not 16 bytes in lower-case
    hexadecimal digits, as an ETag must be that goes into another one."""
    if not of_parts or not all(map(_OF_A_PART.match, of_parts)):
        return None
    digest = hashlib.md5(bytes.fromhex("".join(of_parts)), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(of_parts)}"


def is_composed(etag: str) -> bool:
    """Whether it is written as the ETag of an object in parts."""
    return _COMPOSED.match(etag) is not None
