"""Names of files and folders out of text from files: on every system they are one plain name, and the same one."""

from __future__ import annotations

import hashlib
import re
import unicodedata

#: Bytes of a name in UTF-8. File systems take 255; a tool that packs or copies may add something of its own.
LIMIT_BYTES = 120
_DIGITS = 8
#: What Windows takes in no name, and "/" and NUL, which nobody does.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
#: Control characters; format characters, which turn the direction of text or are not seen; halves of surrogate pairs;
#: private use; what this Unicode does not know yet; line and paragraph separators.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
#: Devices of Windows, whatever the extension, in any case.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CLOCK\$|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?\Z", re.I
)


def safe(text: str, limit_bytes: int = LIMIT_BYTES) -> str:
    """One plain name, visible, that no system reserves or reads differently; "" of text without any. What is cut ends
    with digits of the hash of all of it, so that long names that begin alike stay apart."""
    whole = unicodedata.normalize("NFC", text)
    whole = "".join("_" if unicodedata.category(one) in _UNSEEN else one for one in whole)
    whole = " ".join(_FORBIDDEN.sub("_", whole).split())
    name = _ends(whole)
    if len(name.encode()) > limit_bytes:
        stem, suffix = extension(name)
        mark = f"-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}{suffix}"
        kept = stem.encode()[: limit_bytes - len(mark.encode())].decode("utf-8", "ignore")
        name = kept.rstrip(" .") + mark
    return f"_{name}" if _DEVICE.match(name) else name


def _ends(text: str) -> str:
    """Windows drops spaces and dots at the end; a dot at the beginning hides a file, "-" is an option, "~" a home."""
    name = text.strip(" ").rstrip(" .")
    return f"_{name[1:]}" if name[:1] in (".", "-", "~") else name


def extension(name: str) -> tuple[str, str]:
    """The name without its short extension, and that, with its dot; "" where there is none."""
    stem, dot, after = name.rpartition(".")
    if stem and dot and len(after) <= 8 and after.isascii() and after.isalnum():
        return stem, dot + after
    return name, ""


def folded(name: str) -> str:
    """The same for names that some file system takes for one: in another case, or composed of other characters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
