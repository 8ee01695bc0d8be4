"""Under which names files that are handed in lie on the disk.

What a browser calls a file never becomes a path, but the daemon goes by names where a file is not DICOM: a DICOMDIR
names its images by their paths, and whether something was an image is told by its ending (intake.dicom.other). So a
path stays that is a File ID of DICOM media (PS3.10 8.2, in whatever case): letters, digits and "_", and nothing that
could lead elsewhere. Any other name is made up here, and keeps no more than what the daemon's verdict depends on.
"""

from __future__ import annotations

import re

_COMPONENT = re.compile(r"[A-Za-z0-9_]{1,8}")
_DEEPEST = 8
_ENDING = re.compile(r"[A-Za-z0-9_~-]{1,12}")
#: What systems keep for themselves on a medium, as intake.dicom.other knows it.
_HOUSEKEEPING = {one.lower(): one for one in ("System Volume Information", ".Spotlight-V100", ".fseventsd")}
_LETTERS = "abcdefghijklmnop"


def as_it_is(path: str) -> str | None:
    """The path itself where it is a File ID; None otherwise."""
    parts = path.split("/")
    return path if len(parts) <= _DEEPEST and all(map(_COMPONENT.fullmatch, parts)) else None


def made_up(path: str, number: int) -> str:
    """A name that no other file of the upload has: in the folder that it was in as far as its name can stay, with its
    ending, and with a digit or a dot at its beginning where it had such."""
    *folders, name = path.split("/")
    kept = []
    for folder in folders[: _DEEPEST - 1]:
        plain = _HOUSEKEEPING.get(folder.lower()) or (folder if _COMPONENT.fullmatch(folder) else None)
        if plain is None:
            break
        kept.append(plain)
    letters = "".join(_LETTERS[int(digit, 16)] for digit in f"{number:06x}")
    digit = "0" if re.search(r"[0-9]", name) else ""
    dot = "." if name.startswith(".") else ""
    stem, has_ending, ending = name.partition(";")[0].rpartition(".")
    ending = f".{ending}" if has_ending and stem and _ENDING.fullmatch(ending) else ""
    return "/".join([*kept, f"{dot}x-{letters}{digit}{ending}"])


def folders_of(place: str) -> list[str]:
    """Those above it: "A/B/C" -> ["A", "A/B"]."""
    parts = place.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
