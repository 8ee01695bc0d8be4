"""TLS as the side that is called, by the BCP 195 profile (RFC 9325; for DICOM PS3.15 section B.12)."""

from __future__ import annotations

import ssl
from pathlib import Path

#: Of TLS 1.2; those of 1.3 are all good. Forward secrecy and AEAD only.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def load_certificate(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    """For new connections, as it is now; the old one stays where it raises OSError (ssl.SSLError is one) or
    ValueError."""
    context.load_cert_chain(certificate_file, key_file, password=_no_password)


def _no_password() -> str:
    raise ValueError("the key has a passphrase, and there is nobody to ask")
