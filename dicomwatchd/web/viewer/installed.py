"""What scripts/viewer has installed, by the listing that it leaves there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicomwatchd.errors import Misconfigured

LISTING: Final = "viewer.json"
_FORMAT: Final = 1
_NAME: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
_HINT: Final = "scripts/viewer FOLDER installs it (of the Debian package: dicomwatchd-viewer)"


def folder_of(configured: Path | None) -> Path | None:
    """Where the viewer is: as configured, otherwise where scripts/install puts it, beside this Python; None where it
    is not installed."""
    if configured is not None:
        return configured
    usual = Path(sys.prefix, "share", "dicomwatchd", "viewer")
    return usual if (usual / LISTING).exists() else None


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """``name`` is relative to the folder, ``compressed`` tells whether its gzip form lies beside it,
    ``corrected`` whether it is another than the one after whose content its authors have named it."""

    name: str
    sha256: str
    size_bytes: int
    compressed: bool
    corrected: bool


def installed(folder: Path) -> tuple[InstalledFile, ...]:
    """All files that may be handed out. Raises Misconfigured where they were not put there by scripts/viewer, and where
    one of them is missing or has another size."""
    try:
        listing = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(f"the folder of the viewer has no {LISTING}", hint=_HINT) from error
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{LISTING} of the viewer cannot be read", hint=_HINT) from error
    if not isinstance(listing, dict) or listing.get("format") != _FORMAT:
        raise Misconfigured(f"{LISTING} of the viewer is of another format", hint=_HINT)
    found = tuple(_listed(listing))
    for file in found:
        try:
            whole = (folder / file.name).stat().st_size == file.size_bytes
        except OSError:
            whole = False
        if not whole:
            raise Misconfigured("the viewer is incomplete", hint=_HINT)
    if "index.html" not in {file.name for file in found}:
        raise Misconfigured("the viewer has no index.html", hint=_HINT)
    return found


def _listed(listing: dict[str, Any]) -> Iterator[InstalledFile]:
    try:
        for name, said in listing["files"].items():
            if _NAME.fullmatch(name) is None:
                raise ValueError("a name that is none")
            compressed, corrected = bool(said["gzip"]), bool(said.get("corrected", False))
            yield InstalledFile(name, str(said["sha256"]), int(said["size_bytes"]), compressed, corrected)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"{LISTING} of the viewer is of another format", hint=_HINT) from error
