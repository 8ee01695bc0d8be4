"""Whether a destination is there: by C-ECHO, and, with TLS, how long its certificate and ours are still good."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

from dicomwatchd import certificates
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.fetch.destination import Channel, Destination

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
    days = certificates.days_left(ends, time.time() if now is None else now)
    outcome = "good" if days >= certificates.SOON_DAYS else "note"
    return outcome, f"{to} answers a C-ECHO over TLS; its certificate is good for {days} more days"


def own_files(to: Destination, now: float | None = None) -> Iterator[tuple[str, str, str]]:
    """What it is, outcome and detail, of the certificates on this side: ours, and those of the CAs that its own is
    checked with."""
    if to.tls is None:
        return
    at = time.time() if now is None else now
    if to.tls.certificate_file is not None:
        yield "certificate", *certificates.judge_shown(to.tls.certificate_file, at)
    if to.tls.ca_file is not None:
        yield "CA", *certificates.judge_trusted(to.tls.ca_file, at)


def _certificate_ends(to: Destination) -> float:
    assert to.tls is not None  # noqa: S101  who asks has looked
    with (
        socket.create_connection((to.host, to.port), _CONNECT_SECONDS) as plain,
        to.tls.context().wrap_socket(plain, server_hostname=to.host) as wrapped,
    ):
        found = wrapped.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))
