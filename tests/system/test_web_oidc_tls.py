"""The log-in at a provider that speaks TLS, with a certificate of a private CA; and certificates that are refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import skip_unless_available
from tests.servers.oidc import CLIENT, SECRET, OidcProvider
from tests.servers.tls import Certificate
from tests.system.oidc_browser import ACCOUNTS, Browser
from tests.system.web_process import WebProcess, site_with_archive

HOST = "localhost"
SAID = "The place where you log in does not answer as it should."


class Authority:
    """A private CA."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        own = self._certificate(self._key, self._name, 30).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str, hosts: list[str], days: int = 30) -> Certificate:
        """For a server; ``days`` from now on, or, below zero, until so many days ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(one) if one.isalpha() else x509.IPAddress(ip_address(one)) for one in hosts]
        made = (
            self._certificate(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), days)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self._folder / f"{name}-cert.pem", self._folder / f"{name}-key.pem"
        cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(*pem))
        return Certificate(self.file, cert_file, key_file)

    def _certificate(self, key: ec.EllipticCurvePrivateKey, name: x509.Name, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
        )


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebProcess]:
    skip_unless_available("oidc")
    web = WebProcess(site_with_archive(tmp_path))
    yield web
    web.close()
    web.site.close()


def told(web: WebProcess, provider: OidcProvider, ca_file: Path | None) -> None:
    """About the provider, and at work."""
    secret = web.site.root / "secret"
    secret.write_text(SECRET + "\n")
    oidc = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret_file": str(secret)}
    web.settings |= {"oidc": {**oidc, **({} if ca_file is None else {"ca_file": str(ca_file)})}}
    web.settings |= {"roles": {"read": ["radiology"]}}
    web.start()


def test_a_whole_log_in_over_tls(web: WebProcess, tmp_path: Path) -> None:
    """All of it: the browser to both, we to the provider, and the provider to us when somebody logs out there."""
    authority = Authority(tmp_path, "hospital")
    ours = authority.certificate("ours", ["127.0.0.1"])
    web.settings["tls"] = {"certificate_file": str(ours.cert_file), "key_file": str(ours.key_file)}
    provider = OidcProvider(ACCOUNTS, [f"{web.url}/login/callback"], authority.certificate("good", [HOST]), HOST)
    provider.trusts = authority.file
    provider.start()
    try:
        told(web, provider, authority.file)
        with Browser(web, authority.file) as browser, Browser(web, authority.file) as nobody:
            assert browser.log_in("mueller", "/viewer?study=1.2.3").headers["location"] == "/viewer?study=1.2.3"
            assert "__Host-dicomwatchd" in browser.http.cookies and browser.status() == 404
            page = nobody.http.get(f"{web.url}/login?left=1").text
            end = re.search(r'href="([^"]+/session/end[^"]*)"', page)
            assert end is not None and end[1].startswith(provider.issuer)
            browser.log_out_at_provider(end[1].replace("&amp;", "&"))
            web.wait_for("web-logout-by-provider")
            assert browser.status() == 401
    finally:
        provider.stop()


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("another CA", "the certificate of the log-in's provider is of no CA that is trusted here"),
        ("no CA told", "the certificate of the log-in's provider is of no CA that is trusted here"),
        ("ended", "the certificate of the log-in's provider has ended"),
        ("another name", "the certificate of the log-in's provider is for another host name"),
        ("another address", "the certificate of the log-in's provider is for another host name"),
        ("no TLS", "the provider of the log-in cannot be reached"),
    ],
)
def test_a_certificate_that_is_not_good_is_refused_in_plain_words(
    web: WebProcess, tmp_path: Path, trouble: str, sentence: str
) -> None:
    authority, other = Authority(tmp_path, "hospital"), Authority(tmp_path, "other")
    made = authority.certificate("made", ["elsewhere"] if "another " in trouble and "CA" not in trouble else [HOST],
                                 -1 if trouble == "ended" else 30)  # fmt: skip
    host = "127.0.0.1" if trouble == "another address" else HOST
    provider = OidcProvider(ACCOUNTS, [f"{web.url}/login/callback"], made, host)
    issuer = provider.issuer
    if trouble == "no TLS":
        provider.certificate = None
    provider.start()
    try:
        ca_file = {"another CA": other.file, "no CA told": None}.get(trouble, authority.file)
        if trouble == "no TLS":
            provider.certificate = made
            assert provider.issuer == issuer
        told(web, provider, ca_file)
        with Browser(web, authority.file) as browser:
            answer = browser.to_provider()
            assert answer.status_code == 503 and SAID in answer.text
            assert int(answer.headers["retry-after"]) <= 10 and "set-cookie" not in answer.headers
            assert browser.http.get(f"{web.url}/login").status_code == 200
        lines = [json.loads(line) for line in web.log().splitlines() if '"web-refused"' in line]
        assert lines and {line["error"] for line in lines} == {sentence}, lines
        if trouble != "ended":
            return
        # As soon as it is in order the log-in works, without a restart of ours.
        provider.certificate = authority.certificate("renewed", [HOST])
        provider.restart()
        end = time.monotonic() + 60
        with Browser(web, authority.file) as browser:
            while browser.to_provider().status_code == 503:
                assert time.monotonic() < end
                time.sleep(0.5)
            assert browser.log_in("mueller").status_code == 303
    finally:
        provider.stop()
