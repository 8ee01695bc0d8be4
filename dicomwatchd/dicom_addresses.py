"""Where a DICOM application is: its AE title, its address and port, as text."""

from __future__ import annotations

import re

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}\Z")  # PS3.5 6.2: no backslash, no control character
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})\Z")


def is_ae_title(text: str) -> bool:
    return _AE_TITLE.match(text) is not None and bool(text.strip())


def address_of(text: str) -> tuple[str, int] | None:
    """HOST:PORT, or [ADDRESS]:PORT of IPv6; None if it is neither."""
    match = _ADDRESS.match(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        return None
    return match["six"] or match["host"], int(match["port"])
