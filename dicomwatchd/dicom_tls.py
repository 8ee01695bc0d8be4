"""DICOM over TLS as the side that calls (PS3.15 section B.12, RFC 9325)."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicomwatchd.errors import Misconfigured


def client_context(ca_file: Path | None, certificate_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, and a name that fits. ``ca_file``: whose certificates are trusted; None: those of this machine.
    The others are ours, if the peer asks. Raises Misconfigured."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate_file is not None:
            context.load_cert_chain(certificate_file, key_file)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the TLS files of the destination cannot be used ({type(error).__name__})") from error
    return context
