"""DICOM over TLS."""

from __future__ import annotations

import ssl

from dicomwatchd import server_tls
from dicomwatchd.config.receivers import ReceiverTls
from dicomwatchd.errors import Misconfigured


def server_context(settings: ReceiverTls) -> ssl.SSLContext:
    """Raises Misconfigured."""
    context = server_tls.server_context()
    try:
        server_tls.load_certificate(context, settings.certificate_file, settings.key_file)
        if settings.client_ca_file is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(settings.client_ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Misconfigured(
            "certificate or key of a receiver's TLS cannot be used",
            code="receiver-tls",
            hint="PEM files that the receiver's user can read; the key fits the certificate and has no passphrase",
        ) from error
    return context
