"""When certificates end, by openssl's own word; what the doctor says of those of receivers and of destinations."""

from __future__ import annotations

import errno
import json
import ssl
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import certificates
from dicomwatchd.config import loading
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.unit import page, receivers
from tests.unit.test_cli_archive import Site, bare, elsewhere, site
from tests.unit.test_receiver_config import ARCHIVE, INBOXES
from tests.unit.test_send import free_port

__all__ = ["bare", "elsewhere", "site"]  # fixtures

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC).timestamp()
#: A certificate that ends at that time, as openssl writes it: [CC]YYMMDDHHMMSSZ. Its file.
Make = Callable[..., Path]


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(end: str, *more: str, name: str = "one", key: Sequence[str] = EC) -> Path:
        path = tmp_path / f"{name}.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", *key, "-nodes", "-subj", f"/CN={name}"),
                *("-not_before", "19500101000000Z", "-not_after", end),
                *("-out", str(path), "-keyout", str(tmp_path / f"{name}.key"), *more),
            ],
            check=True,
            capture_output=True,
        )
        return path

    return made


def word_of_openssl(path: Path) -> float:
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", str(path)], check=True, capture_output=True, text=True
    )
    return float(ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter=")))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("20270301120000Z", "2027-03-01T12:00:00"),
        ("20491231235959Z", "2049-12-31T23:59:59"),  # the last that has two digits of its year
        ("20500101000000Z", "2050-01-01T00:00:00"),
        ("99991231235959Z", "9999-12-31T23:59:59"),  # none that is known (RFC 5280 section 4.1.2.5)
        ("19991231235959Z", "1999-12-31T23:59:59"),
        ("19500101000000Z", "1950-01-01T00:00:00"),
    ],
)
def test_the_end_is_openssl_s(make: Make, end: str, expected: str) -> None:
    path = make(end)
    [found] = certificates.ends(path)
    assert found == word_of_openssl(path)
    assert datetime.fromtimestamp(found, UTC) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "more"),
    [
        (("-newkey", "rsa:2048"), ()),
        (("-newkey", "ed25519"), ()),
        (EC, ("-set_serial", "0x" + "7f" * 20)),
        (EC, ("-x509v1",)),  # without a version
        (EC, ("-subj", "/CN=" + "x" * 60 + "/O=" + "y" * 64 + "/OU=" + "z" * 64)),  # an issuer longer than 127 bytes
    ],
)
def test_other_kinds_of_certificates(make: Make, key: Sequence[str], more: Sequence[str]) -> None:
    path = make("20300101000000Z", *more, key=key)
    assert certificates.ends(path) == [word_of_openssl(path)]


def test_every_ca_of_this_machine() -> None:
    """Of many makers; python's own reading of each beside ours."""
    context = ssl.create_default_context()
    both = list(zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True))
    if not both:
        pytest.skip("this machine trusts no CA in one file")
    for words, der in both:
        assert certificates.end_of(der) == ssl.cert_time_to_seconds(str(words["notAfter"]))


def test_what_is_cut_off_or_changed_is_no_certificate(make: Make) -> None:
    """Never anything but ValueError, and never read beyond its end."""
    der = ssl.PEM_cert_to_DER_cert(make("20300101000000Z").read_text())
    good = certificates.end_of(der)
    for length in range(len(der)):
        with pytest.raises(ValueError):  # noqa: PT011
            certificates.end_of(der[:length])
    for at in range(120):  # as far as the time stands
        for value in (0, 0x30, 0x7F, 0x80, 0x84, 0xFF):
            changed = der[:at] + bytes((value,)) + der[at + 1 :]
            with suppress(ValueError):
                assert isinstance(certificates.end_of(changed), float)
    assert certificates.end_of(der) == good


@pytest.mark.parametrize(
    ("ends", "outcome", "words"),
    [
        (["20270331120001Z"], "good", ["2027-03-31", "in 30 days"]),
        (["20270331115959Z"], "note", ["2027-03-31", "in 29 days"]),
        (["20270301120001Z"], "note", ["in 0 days"]),
        (["20270301120000Z"], "bad", ["has ended on 2027-03-01"]),
        (["20300101000000Z", "20270310000000Z"], "note", ["2027-03-10"]),
        (["20300101000000Z", "20200101000000Z"], "bad", ["2020-01-01"]),  # the CA between has ended
    ],
)
def test_what_is_shown_to_peers(make: Make, tmp_path: Path, ends: list[str], outcome: str, words: list[str]) -> None:
    chain = tmp_path / "chain.pem"
    pieces = [make(end, name=str(number)).read_text() for number, end in enumerate(ends)]
    chain.write_text("Subject: in words\n" + "between\n".join(pieces) + (tmp_path / "0.key").read_text())
    found, detail = certificates.judge_shown(chain, NOW)
    assert found == outcome and all(word in detail for word in words), detail


@pytest.mark.parametrize(
    ("ends", "outcome", "words"),
    [
        (["20300101000000Z"], "good", ["the certificate ends on 2030-01-01"]),
        (["20310101000000Z", "20300101000000Z"], "good", ["the first of 2 ends on 2030-01-01"]),
        (["20200101000000Z", "20300101000000Z"], "note", ["of 2 certificates, 1 ended by 2020-01-01"]),
        (["20270310000000Z", "20200101000000Z", "20300101000000Z"], "note", ["1 ended", "1 end within 30", "03-10"]),
        (["20270310000000Z"], "note", ["of 1 certificate, 1 end within"]),
        (["20200101000000Z"], "bad", ["the certificate has ended, on 2020-01-01"]),
        (["20200101000000Z", "20210101000000Z"], "bad", ["all 2 certificates have ended, on 2021-01-01 at last"]),
    ],
)
def test_what_is_trusted(make: Make, tmp_path: Path, ends: list[str], outcome: str, words: list[str]) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("".join(make(end, name=str(number)).read_text() for number, end in enumerate(ends)))
    found, detail = certificates.judge_trusted(authorities, NOW)
    assert found == outcome and all(word in detail for word in words), detail


@pytest.mark.parametrize("judge", [certificates.judge_shown, certificates.judge_trusted])
def test_what_cannot_be_read(judge: Callable[[Path, float], tuple[str, str]], make: Make, tmp_path: Path) -> None:
    assert judge(tmp_path / "none.pem", NOW) == ("bad", f"{tmp_path}/none.pem cannot be read (ENOENT)")
    assert judge(tmp_path, NOW)[0] == "bad"
    key = make("20300101000000Z").with_suffix(".key")
    assert judge(key, NOW) == ("bad", f"{key} holds no certificate in PEM form that can be read")
    broken = tmp_path / "broken.pem"
    for body in ("MIIB", "not base64: \u00e9", ""):
        broken.write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        assert judge(broken, NOW) == ("bad", f"{broken} holds no certificate in PEM form that can be read")


def test_what_this_user_may_not_read_is_not_told_as_broken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's certificate may be for its own user alone, and the doctor asks as the daemon's."""
    path = make("20300101000000Z")
    real = Path.open

    def refuse(self: Path, *arguments: Any) -> Any:  # root, as which tests may run, reads everything
        if self == path:
            raise PermissionError(errno.EACCES, "not for you")
        return real(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    outcome, detail = certificates.judge_shown(path, NOW)
    assert outcome == "note" and "this user may not read" in detail and "openssl x509 -noout -enddate" in detail


def test_the_doctor_on_a_receiver(make: Make, tmp_path: Path) -> None:
    ours, authority = make("20270310000000Z", name="ours"), make("20200101000000Z", name="authority")
    tls = {"certificate_file": str(ours), "key_file": str(ours.with_suffix(".key")), "client_ca_file": str(authority)}
    given = [{"name": "ct", "ae_title": "ARCHIVE", "inbox": "ct1", "tls": tls}]
    given.append({"name": "mr", "ae_title": "ARCHIVE", "inbox": "ct1", "listen": "127.0.0.1:11113"})
    parsed = loading.parse({"inboxes": INBOXES, "archive": ARCHIVE, "receivers": given})
    found = {subject: (outcome, detail) for subject, outcome, detail in receivers.findings(parsed, NOW)}
    assert found["receiver ct: certificate"][0] == "note" and "2027-03-10" in found["receiver ct: certificate"][1]
    assert found["receiver ct: client CA"][0] == "bad" and "2020-01-01" in found["receiver ct: client CA"][1]
    assert not [subject for subject in found if subject.startswith("receiver mr:")], "it has no TLS"


def test_the_doctor_on_the_page(make: Make, tmp_path: Path) -> None:
    ours, authority = make("20270310000000Z", name="ours"), make("20200101000000Z", name="authority")
    keys = {name: tmp_path / name for name in ("key", "oidc", "proxy")}
    for path in keys.values():
        path.touch(0o640)
    web = {
        "tls": {"certificate_file": str(ours), "key_file": str(keys["key"])},
        "oidc": {
            "issuer": "https://login.example.org",
            "client_id": "page",
            "client_secret_file": str(keys["oidc"]),
            "ca_file": str(authority),
        },
        "proxy": {"addresses": ["127.0.0.1"], "secret_file": str(keys["proxy"])},
        "public_url": "https://page.example.org",
        "roles": {"read": ["*"]},
    }
    parsed = loading.parse({"inboxes": INBOXES, "archive": ARCHIVE, "web": web})
    found = {subject: (outcome, detail) for subject, outcome, detail in page.findings(parsed, NOW)}
    assert found.keys() == {"page: certificate", "page: CA of the provider"}
    assert found["page: certificate"][0] == "note" and "2027-03-10" in found["page: certificate"][1]
    assert found["page: CA of the provider"][0] == "bad" and "2020-01-01" in found["page: CA of the provider"][1]
    # Who rings when one of them ends has the same files.
    watched = [(one.whose, one.path, one.is_shown) for one in plan_of(parsed).certificates]
    assert watched == [("page", ours, True), ("provider", authority, False)]
    for name, said in (
        ("key", "its TLS key"),
        ("oidc", "the secret that the provider"),
        ("proxy", "the proxy's secret"),
    ):
        keys[name].chmod(0o644)
        [(_, outcome, detail)] = [one for one in page.findings(parsed, NOW) if one[0] == "page"]
        assert outcome == "bad" and detail.startswith(f"everybody may read {said}")
        keys[name].chmod(0o640)
    assert list(page.findings(loading.parse({"inboxes": INBOXES, "archive": ARCHIVE}), NOW)) == []


def test_the_doctor_on_a_destination(site: Site, make: Make) -> None:
    """By the command, and the clock of this machine: an end that has been and one that is far away."""
    ended, good = make("20200101000000Z", name="ended"), make("20990101000000Z", name="good")
    tls = f"{{ca_file: {good}, certificate_file: {ended}, key_file: {ended.with_suffix('.key')}}}"
    site.config.write_text(
        site.config.read_text()
        + f"destinations:\n  - {{name: pacs, ae_title: P, address: '127.0.0.1:{free_port()}', tls: {tls}}}\n"
        + f"  - {{name: plain, ae_title: P, address: '127.0.0.1:{free_port()}'}}\n"
    )
    result = site.ctl("doctor", "--json")
    found = {one["subject"]: one for one in json.loads(result.stdout)["findings"]}
    assert found["destination pacs: certificate"]["outcome"] == "bad" and result.exit_code == 1
    assert "ended on 2020-01-01" in found["destination pacs: certificate"]["detail"]
    assert (
        found["destination pacs: CA"]["outcome"] == "good" and "2099-01-01" in found["destination pacs: CA"]["detail"]
    )
    assert not [subject for subject in found if subject.startswith("destination plain:")]
