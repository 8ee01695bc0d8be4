"""Receivers in the configuration: every problem with its place, nobody let in by mistake."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import doctor, localfiles
from dicomwatchd.config import loading
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError
from dicomwatchd.receiver.association import may_associate, may_connect
from dicomwatchd.unit import drop_in, receivers

ARCHIVE = {
    "store": {"kind": "directory", "path": "/srv/archive"},
    "catalogue": {"kind": "sqlite", "path": "/srv/archive/catalogue.db"},
}
INBOXES = [{"name": "ct1", "path": "/srv/dicom/ct1"}, {"name": "mr1", "path": "/srv/dicom/mr 100%"}]
NOW = 1_800_000_000.0
TLS = {"certificate_file": "/etc/c.pem", "key_file": "/etc/k.pem"}


def parsed(*receivers: dict[str, Any]) -> Config:
    given = [{"name": "ct", "ae_title": "ARCHIVE", "inbox": "ct1", **one} for one in receivers]
    return loading.parse({"inboxes": INBOXES, "archive": ARCHIVE, "receivers": given})


def test_there_is_none_unless_asked_for_and_then_on_loopback() -> None:
    assert loading.parse({"inboxes": INBOXES, "archive": ARCHIVE}).receivers == ()
    (receiver,) = parsed({}).receivers
    assert receiver.address == (ip_address("127.0.0.1"), 11112)
    assert receiver.disk_free_min_share == 0.05


@pytest.mark.parametrize(
    ("receiver", "where", "why"),
    [
        ({"inbox": "other"}, "receivers[0].inbox", "must be the name of one of inboxes"),
        ({"ae_title": "A" * 17}, "receivers[0].ae_title", "must be an AE title"),
        ({"ae_title": "A\\B"}, "receivers[0].ae_title", "must be an AE title"),
        ({"ae_title": " A"}, "receivers[0].ae_title", "must be an AE title"),
        ({"ae_title": "A\n"}, "receivers[0].ae_title", "must be an AE title"),
        ({"listen": "11112"}, "receivers[0].listen", "must be ADDRESS:PORT"),
        ({"listen": "localhost:11112"}, "receivers[0].listen", "must be ADDRESS:PORT"),
        ({"listen": "127.0.0.1:0"}, "receivers[0].listen", "must be ADDRESS:PORT"),
        ({"listen": "127.0.0.1:65536"}, "receivers[0].listen", "must be ADDRESS:PORT"),
        ({"listen": "0.0.0.0:104"}, "receivers[0].allow", "is missing: whoever reaches this address could send"),
        ({"listen": "[::]:104", "tls": TLS}, "receivers[0].allow", "is missing"),
        ({"listen": "[::]:104", "tls": {**TLS, "client_ca_file": None}}, "receivers[0].allow", "is missing"),
        ({"allow": [{}]}, "receivers[0].allow[0]", "must have ae_title, address, or both"),
        ({"allow": [{"address": "ct1.hospital"}]}, "receivers[0].allow[0].address", "must be an address or a network"),
        ({"allow": [{"address": "10.1.2.3/8"}]}, "receivers[0].allow[0].address", "must be an address or a network"),
        ({"tls": {"certificate_file": "/c"}}, "receivers[0].tls.key_file", "is missing"),
        ({"max_associations": 0}, "receivers[0].max_associations", "must be >= 1"),
        ({"idle_seconds": 0}, "receivers[0].idle_seconds", "must be >= 1"),
        ({"max_pdu_bytes": 100}, "receivers[0].max_pdu_bytes", "must be >= 4096"),
        ({"disk_free_min": "5"}, "receivers[0].disk_free_min", "must be a whole percentage"),
        ({"port": 104}, "receivers[0].port", "is not a known key"),
    ],
)
def test_what_is_wrong(receiver: dict[str, Any], where: str, why: str) -> None:
    with pytest.raises(ConfigError) as found:
        parsed(receiver)
    [(place, reason)] = found.value.problems
    assert place == where and reason.startswith(why)


def test_two_of_one_name_or_at_one_port() -> None:
    with pytest.raises(ConfigError) as found:
        parsed({}, {})
    assert found.value.problems == [
        ("receivers[1].name", "is used by receivers[0] already"),
        ("receivers[1].listen", "is used by receivers[0] already"),
    ]
    assert len(parsed({}, {"name": "mr", "listen": "127.0.0.1:11113"}).receivers) == 2


@pytest.mark.parametrize("patterns", [{"include": ["IM*"]}, {"exclude": ["*.dcm"]}, {"exclude": ["1.2.*"]}])
def test_an_inbox_that_would_leave_the_files_alone(patterns: dict[str, Any]) -> None:
    receiver = {"name": "ct", "ae_title": "ARCHIVE", "inbox": "ct1"}
    with pytest.raises(ConfigError, match="keep its files"):
        loading.parse({"inboxes": [{**INBOXES[0], **patterns}], "archive": ARCHIVE, "receivers": [receiver]})


def test_nonsense_is_no_crash() -> None:
    nonsense: list[Any] = ["x", [1], [{"listen": 1, "tls": 2, "allow": 3}], {"name": []}]
    for one in nonsense:
        with pytest.raises(ConfigError):
            loading.parse({"inboxes": INBOXES, "archive": ARCHIVE, "receivers": one})


def test_who_may() -> None:
    (receiver,) = parsed(
        {"allow": [{"ae_title": "CT1", "address": "10.1.0.0/16"}, {"ae_title": "MR1"}, {"address": "fd12::/64"}]}
    ).receivers
    inside, outside, six = map(ip_address, ("10.1.2.3", "10.2.2.3", "fd12::7"))
    may = {(a, t) for a in (inside, outside, six) for t in ("CT1", "MR1", "XX") if may_associate(receiver.allow, a, t)}
    assert may == {(inside, "CT1"), (inside, "MR1"), (outside, "MR1"), (six, "MR1"), (six, "CT1"), (six, "XX")}
    (narrow,) = parsed({"allow": [{"ae_title": "CT1", "address": "10.1.0.0/16"}]}).receivers
    assert (may_connect(narrow.allow, inside), may_connect(narrow.allow, outside)) == (True, False)
    assert may_associate((), outside, "anybody")


def test_the_unit_s_drop_in() -> None:
    given: list[dict[str, Any]] = [
        {"listen": "0.0.0.0:104", "allow": [{"address": "10.1.2.0/24"}, {"ae_title": "X", "address": "10.0.0.1"}]},
        {"name": "mr", "inbox": "mr1"},
    ]
    text = drop_in.receiver_drop_in(parsed(*given), Path("/etc/c.yaml"))
    assert 'ReadWritePaths="-/srv/dicom/ct1"\nReadWritePaths="-/srv/dicom/mr 100%%"\n' in text
    assert 'RequiresMountsFor="/srv/dicom/ct1"\n' in text
    assert "IPAddressDeny=any\nIPAddressAllow=127.0.0.0/8 ::1/128 10.0.0.1 10.1.2.0/24\n" in text
    given[0]["allow"] = [{"address": "10.1.2.0/24"}, {"ae_title": "X"}]
    assert "IPAddress" not in drop_in.receiver_drop_in(parsed(*given), Path("/etc/c.yaml"))


def test_the_doctor_says_whether_they_are_at_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        free = socket.create_server(("127.0.0.1", 0))
        other = free.getsockname()[1]
        free.close()
        settings = parsed({"listen": f"127.0.0.1:{port}"}, {"name": "mr", "listen": f"127.0.0.1:{other}"})
        found = list(receivers.findings(settings, NOW))
    assert [(subject, outcome) for subject, outcome, _ in found] == [("receiver ct", "good"), ("receiver mr", "bad")]
    assert "dicomwatchd-receiver" in found[1][2]


def test_who_listens_is_what_the_kernel_says() -> None:
    """At addresses of both kinds, and not whoever only has a connection, from or to there."""
    with socket.create_server(("127.0.0.1", 0)) as four, socket.create_server(("::", 0), family=socket.AF_INET6) as six:
        ours = {(ip_address(one.getsockname()[0]), one.getsockname()[1]) for one in (four, six)}
        with socket.create_connection(four.getsockname()) as connection:
            found = receivers.listening()
            assert found is not None and ours <= found
            assert connection.getsockname()[1] not in {port for _, port in found}
    left = receivers.listening()
    assert left is not None and not ours & left


@pytest.mark.parametrize(
    ("file_system", "is_told"),
    [(0x01021994, True), (0x858458F6, True), (0xEF53, False), (0, False)],
    ids=["tmpfs", "ramfs", "ext4", "unknown"],
)
def test_the_doctor_says_that_an_inbox_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: int, is_told: bool
) -> None:
    """What was answered with Success there is gone after a power cut. Of an inbox without a receiver nobody said so."""
    monkeypatch.setattr(localfiles, "_file_system", lambda fd: file_system)
    settings = loading.parse(
        {
            "inboxes": [{"name": name, "path": str(tmp_path / name)} for name in ("ct1", "mr1")],
            "archive": ARCHIVE,
            "receivers": [{"name": "ct", "ae_title": "ARCHIVE", "inbox": "ct1"}],
        }
    )
    for box in settings.inboxes:
        assert list(receivers.in_memory(settings, box)) == [], "it cannot be opened, which is told of it"
        box.path.mkdir()
    found = [one for one in doctor._inboxes(settings, {}) if "memory" in one.detail]
    assert [(one.subject, one.outcome) for one in found] == ([("receiver ct", "note")] if is_told else [])


def test_what_memory_is_is_what_the_kernel_says() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    places = {
        kind: folder for _, folder, kind, *_ in mounts if kind in ("tmpfs", "proc") and os.access(folder, os.R_OK)
    }
    for kind, folder in places.items():
        fd = localfiles.open_root(folder)
        assert localfiles.is_in_memory(fd) == (kind == "tmpfs")
        os.close(fd)
    assert "proc" in places


def test_the_doctor_says_that_everybody_may_read_a_key(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch(0o640)
    settings = parsed({"tls": {"certificate_file": "/c.pem", "key_file": str(key)}})
    assert not any("TLS key" in detail for _, _, detail in receivers.findings(settings, NOW))
    key.chmod(0o644)
    assert any("TLS key" in detail and outcome == "bad" for _, outcome, detail in receivers.findings(settings, NOW))
