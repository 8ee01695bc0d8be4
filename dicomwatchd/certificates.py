"""When the certificates in a PEM file end: those that are shown to peers, and those of the CAs that are trusted.

The ssl module shows a certificate of one's own only after a handshake with itself, for which it takes the key, and an
ended one not at all. What is wanted stands at a fixed place of each certificate (RFC 5280 section 4.1), so it is read
from there; whether a certificate is good for anything else is OpenSSL's to say.
"""

from __future__ import annotations

import errno
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

#: (outcome, detail), as the doctor's findings.
Judged = tuple[str, str]

#: Before this a new one should be asked for.
SOON_DAYS = 30
_FILE_MAX_BYTES = 4 << 20
_PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_INTEGER, _SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x02, 0x30, 0x17, 0x18, 0xA0


def judge_shown(path: Path, now: float) -> Judged:
    """Of the certificate that is shown to peers, and of those between it and its CA that stand behind it: a chain is
    good until the first of them ends. ``now``: seconds since the epoch."""
    try:
        first = min(ends(path))
    except (OSError, ValueError) as error:
        return _unread(path, error)
    day, days = _day(first), days_left(first, now)
    if first <= now:
        return "bad", f"it has ended on {day}: peers that check it refuse it; replace it"
    if days < SOON_DAYS:
        return "note", f"it ends on {day}, in {days} days: replace it before"
    return "good", f"it ends on {day}, in {days} days"


def judge_trusted(path: Path, now: float) -> Judged:
    """Of CAs' certificates, of which any may be the one that counts."""
    try:
        found = sorted(ends(path))
    except (OSError, ValueError) as error:
        return _unread(path, error)
    ended = [end for end in found if end <= now]
    soon = [end for end in found if end > now and days_left(end, now) < SOON_DAYS]
    all_of = "the certificate has" if len(found) == 1 else f"all {len(found)} certificates have"
    if len(ended) == len(found):
        return "bad", f"{all_of} ended, on {_day(found[-1])} at last: nobody is trusted; replace the file"
    said = [f"{len(ended)} ended by {_day(ended[-1])}"] if ended else []
    said += [f"{len(soon)} end within {SOON_DAYS} days, the first on {_day(soon[0])}"] if soon else []
    if said:
        return "note", f"of {len(found)} certificate{'s' if len(found) > 1 else ''}, {' and '.join(said)}"
    which = "the certificate" if len(found) == 1 else f"the first of {len(found)}"
    return "good", f"{which} ends on {_day(found[0])}, in {days_left(found[0], now)} days"


def days_left(end: float, now: float) -> int:
    return int((end - now) // 86400)


def ends(path: Path) -> list[float]:
    """Until when each certificate of the file is good, seconds since the epoch, in the file's order. Raises OSError,
    ValueError (no certificate, or none that can be read)."""
    with path.open("rb") as file:
        text = file.read(_FILE_MAX_BYTES).decode("ascii", errors="replace")
    found = [end_of(ssl.PEM_cert_to_DER_cert(one)) for one in _PEM.findall(text)]
    if not found:
        raise ValueError("no certificate")
    return found


def end_of(certificate: bytes) -> float:
    """notAfter of a certificate in DER, seconds since the epoch. Raises ValueError."""
    content, _ = _expect(certificate, _SEQUENCE)
    rest, _ = _expect(content, _SEQUENCE)  # TBSCertificate
    if rest[:1] == bytes((_VERSION,)):
        _, rest = _expect(rest, _VERSION)
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm of the signature, issuer
        _, rest = _expect(rest, kind)
    validity, _ = _expect(rest, _SEQUENCE)
    _, _, not_after = _element(validity)
    kind, text, _ = _element(not_after)
    return _time(kind, text.decode("ascii"))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows, of DER (X.690 section 8.1). Raises ValueError."""
    if len(data) < 2:
        raise ValueError("cut off")
    kind, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise ValueError("cut off")
    return kind, data[at : at + length], data[at + length :]


def _expect(data: bytes, kind: int) -> tuple[bytes, bytes]:
    found, content, rest = _element(data)
    if found != kind:
        raise ValueError("no certificate")
    return content, rest


def _time(kind: int, text: str) -> float:
    if kind == _UTC_TIME and re.fullmatch("[0-9]{12}Z", text):
        text = ("20" if text < "50" else "19") + text  # RFC 5280 section 4.1.2.5.1
    elif kind != _GENERALIZED_TIME or not re.fullmatch("[0-9]{14}Z", text):
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _day(end: float) -> str:
    return datetime.fromtimestamp(end, UTC).date().isoformat()


def _unread(path: Path, error: OSError | ValueError) -> Judged:
    if isinstance(error, PermissionError):
        return (
            "note",
            f"this user may not read {path}, so its end is not known here; as root: openssl x509 -noout -enddate -in"
            f" {path}",
        )
    if isinstance(error, OSError):
        return "bad", f"{path} cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})"
    return "bad", f"{path} holds no certificate in PEM form that can be read"
