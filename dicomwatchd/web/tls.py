"""TLS of the web process itself."""

from __future__ import annotations

import ssl

from dicomwatchd import server_tls
from dicomwatchd.config.web import WebTls
from dicomwatchd.errors import Misconfigured


def server_context(settings: WebTls) -> ssl.SSLContext:
    """Raises Misconfigured."""
    context = server_tls.server_context()
    context.set_alpn_protocols(["http/1.1"])
    load(context, settings)
    return context


def load(context: ssl.SSLContext, settings: WebTls) -> None:
    """The certificate as it is now, for new connections. Raises Misconfigured, and then the old one stays."""
    try:
        server_tls.load_certificate(context, settings.certificate_file, settings.key_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Misconfigured(
            "certificate or key of web.tls cannot be used",
            code="web-tls",
            hint="PEM files that the user dicomwatchd-web can read; the key fits the certificate and has no passphrase",
        ) from error
