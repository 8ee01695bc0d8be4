"""Whether a destination is there: by C-ECHO, and, with TLS, how long its certificate is still good."""

from __future__ import annotations

import socket
import ssl
import time

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.fetch.destination import Channel, Destination

_SOON_DAYS = 30
_CONNECT_SECONDS = 10.0


def look(to: Destination, now: float | None = None) -> tuple[str, str]:
    """An outcome as `doctor` has it, "good" or "note" (nothing that is archived depends on a destination), and what was
    found, in plain English."""
    try:
        ends = None if to.tls is None else _certificate_ends(to)
        Channel(to, ()).echo()
    except ssl.SSLCertVerificationError as error:
        return "note", f"{to}: its certificate is not trusted ({error.verify_message})"
    except (OSError, DicomwatchdError) as error:
        what = error.message if isinstance(error, DicomwatchdError) else f"cannot be reached ({type(error).__name__})"
        return "note", f"{to}: {what.removeprefix(f'{to} ')}"
    if ends is None:
        return "good", f"{to} answers a C-ECHO, without TLS: patient data is sent unencrypted"
    days = int((ends - (time.time() if now is None else now)) // 86400)
    outcome = "good" if days >= _SOON_DAYS else "note"
    return outcome, f"{to} answers a C-ECHO over TLS; its certificate is good for {days} more days"


def _certificate_ends(to: Destination) -> float:
    assert to.tls is not None  # noqa: S101  who asks has looked
    with (
        socket.create_connection((to.host, to.port), _CONNECT_SECONDS) as plain,
        to.tls.context().wrap_socket(plain, server_hostname=to.host) as wrapped,
    ):
        found = wrapped.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))
