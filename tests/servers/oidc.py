"""A real provider of OpenID Connect: oidc-provider, which is certified, out of the npm registry by its hashes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import RSAKey

from tests.servers import npm
from tests.servers.processes import ServerError, free_port
from tests.servers.tls import Certificate

_NAME: Final = "oidc-provider"
_SOURCE: Final = Path(__file__).with_name("oidc_provider")
_FILES: Final = ("package.json", "package-lock.json", "provider.mjs")
CLIENT: Final = "dicomwatchd"
SECRET: Final = "of-the-tests-and-of-nobody-else"


def cache_directory() -> Path:
    return npm.cached(_NAME, _SOURCE, _FILES)


def signing_key(name: str) -> dict[str, Any]:
    """A new one, with its private part."""
    key = RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"})
    return dict(key.as_dict(private=True))


class OidcProvider:
    """On loopback, at the same port for as long as it lives. ``accounts`` are claims by the names to log in with. With
    a certificate it speaks TLS, and calls itself ``host``."""

    def __init__(
        self,
        accounts: Mapping[str, Mapping[str, Any]],
        redirect_uris: Sequence[str],
        certificate: Certificate | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = free_port()
        self.accounts = accounts
        self.certificate, self.host = certificate, host
        #: The CA of those whom it tells of log-outs.
        self.trusts: Path | None = None
        self.client = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": list(redirect_uris),
            "post_logout_redirect_uris": [uri.replace("/callback", "") for uri in redirect_uris],
            "backchannel_logout_uri": redirect_uris[0].replace("/callback", "/back-channel"),
            "backchannel_logout_session_required": True,
        }
        self.keys = [signing_key("first")]
        self.extra: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        return f"{'http' if self.certificate is None else 'https'}://{self.host}:{self.port}"

    def start(self, seconds: float = 60) -> None:
        settings: dict[str, Any] = {
            "issuer": self.issuer,
            "clients": [self.client],
            "accounts": self.accounts,
            "keys": self.keys,
            "extra": self.extra,
        }
        if self.certificate is not None:
            cert, key = self.certificate.cert_file.read_text(), self.certificate.key_file.read_text()
            settings["tls"] = {"certificate": cert, "key": key}
        program = npm.fetched(_NAME, _SOURCE, _FILES, "14 MB")
        with tempfile.TemporaryFile("w+") as given:
            given.write(json.dumps(settings))
            given.seek(0)
            self._process = subprocess.Popen(
                ["node", "provider.mjs", str(self.port)],
                cwd=program,
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **({} if self.trusts is None else {"NODE_EXTRA_CA_CERTS": str(self.trusts)})},
            )
        end = time.monotonic() + seconds
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerError("oidc-provider does not start")
            time.sleep(0.05)

    def restart(self) -> None:
        """With the settings as they are now."""
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
