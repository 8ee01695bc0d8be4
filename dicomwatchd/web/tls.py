"""TLS of the web process itself (RFC 9325)."""

from __future__ import annotations

import ssl

from dicomwatchd.config_web import WebTls
from dicomwatchd.errors import Misconfigured

#: Of TLS 1.2; those of 1.3 are all good. Forward secrecy and AEAD only.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(settings: WebTls) -> ssl.SSLContext:
    """Raises Misconfigured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    load(context, settings)
    return context


def load(context: ssl.SSLContext, settings: WebTls) -> None:
    """The certificate as it is now, for new connections. Raises Misconfigured, and then the old one stays."""
    try:
        context.load_cert_chain(settings.certificate_file, settings.key_file, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Misconfigured(
            "certificate or key of web.tls cannot be used",
            code="web-tls",
            hint="PEM files that the user dicomwatchd-web can read; the key fits the certificate and has no passphrase",
        ) from error


def _no_password() -> str:
    raise ValueError("the key has a passphrase, and there is nobody to ask")
