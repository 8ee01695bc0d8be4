"""What dicomwatchd-folders writes for a configuration, and what is said when an address has changed since."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.config import loading
from dicomwatchd.config.metrics import Metrics
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import OutOfReach
from dicomwatchd.unit import addresses, drop_in, web_drop_in
from dicomwatchd.unit.addresses import Address, Filter
from dicomwatchd.unit.drop_in import Reach, Service

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hidden"}
GATEWAY = "https://rgw.hospital.test:8443"
#: A hospital's names: what a name server would say.
NAMES = {
    "rgw.hospital.test": ["10.1.2.3", "fd12::3"],
    "catalogue.hospital.test": ["10.1.2.4"],
    "proxy.hospital.test": ["10.9.9.9"],
    "vpce-1.s3.eu-central-1.vpce.amazonaws.com": ["10.7.0.1"],
    "s3.eu-central-1.amazonaws.com": ["52.219.1.1"],
}


def resolved(host: str) -> frozenset[Address]:
    try:
        return frozenset([ip_address(host)])
    except ValueError:
        return frozenset(map(ip_address, NAMES.get(host, [])))


def settings(store: str | None = GATEWAY, catalogue: str | None = "https://catalogue.hospital.test") -> Config:
    """ "" is Amazon's own endpoint, None no service at all but a folder."""
    s3 = {"kind": "s3", "bucket": "archive", "region": "eu-central-1", "endpoint_url": store or None}
    dynamodb = {"kind": "dynamodb", "table": "studies", "region": "eu-central-1", "endpoint_url": catalogue or None}
    folder = {"kind": "directory", "path": "/srv/archive"}
    sqlite = {"kind": "sqlite", "path": "/srv/archive/catalogue.db"}
    archive = {"store": folder if store is None else s3, "catalogue": sqlite if catalogue is None else dynamodb}
    return loading.parse({"inboxes": [{"name": "ct1", "path": "/srv/dicom/ct 1 100%"}], "archive": archive})


def service(environment: dict[str, str] | None = None, *profiles: str) -> Service:
    servers = frozenset([ip_address("10.0.0.53")])
    known = KEYS if environment is None else environment
    return Service(known, profiles, lookup=resolved, name_servers=servers, between_queries_seconds=0)


def test_the_list_holds_what_the_daemon_talks_to_and_nothing_else() -> None:
    found = drop_in.reach(settings(), service())
    assert found.allowed == ("127.0.0.0/8", "::1/128", "10.0.0.53", "10.1.2.3", "10.1.2.4", "fd12::3")


def test_an_archive_in_a_folder_needs_no_network() -> None:
    assert drop_in.reach(settings(None, None), service()).allowed == ("127.0.0.0/8", "::1/128")


def test_a_role_s_keys_are_to_be_had_where_there_are_no_others() -> None:
    assert set(drop_in.reach(settings(), service({})).allowed or ()) >= {"169.254.169.254", "fd00:ec2::254"}
    by_file = drop_in.reach(settings(), service({}, "[default]\naws_access_key_id = AKIA\n"))
    assert by_file.allowed == drop_in.reach(settings(), service()).allowed


@pytest.mark.parametrize(
    ("store", "environment", "profile", "why"),
    [
        ("", KEYS, "", "public endpoint"),
        ("https://s3.eu-central-1.amazonaws.com", KEYS, "", "public range"),
        ("https://gone.hospital.test", KEYS, "", "gone.hospital.test does not resolve"),
        (GATEWAY, {"AWS_ROLE_ARN": "arn"}, "", "come from another service"),
        (GATEWAY, {}, "[default]\ncredential_process = /usr/bin/keys\n", "come from another service"),
        (GATEWAY, {}, "[profile x]\nrole_arn=arn:aws:iam::1:role/x\n", "come from another service"),
        (
            "",
            {**KEYS, "HTTPS_PROXY": "http://proxy.hospital.test", "NO_PROXY": ".amazonaws.com"},
            "",
            "public endpoint",
        ),
    ],
)
def test_no_list_where_none_can_be_kept(store: str, environment: dict[str, str], profile: str, why: str) -> None:
    found = drop_in.reach(settings(store), service(environment, profile))
    assert (found.allowed, why in found.why) == (None, True), found.why


def test_no_list_for_a_name_whose_addresses_change() -> None:
    turns = iter([["10.1.2.3"], ["10.1.2.3"], ["10.1.2.8"]])
    changing = Service(KEYS, lookup=lambda _: frozenset(map(ip_address, next(turns))), between_queries_seconds=0)
    found = drop_in.reach(settings(GATEWAY, None), changing)
    assert (found.allowed, "from one lookup to the next" in found.why) == (None, True)


def test_a_private_endpoint_of_amazon_s_has_a_list() -> None:
    found = drop_in.reach(settings("https://vpce-1.s3.eu-central-1.vpce.amazonaws.com", None), service())
    assert "10.7.0.1" in (found.allowed or ())


def test_through_a_proxy_the_proxy_is_all_that_has_to_be_known() -> None:
    proxied = {**KEYS, "https_proxy": "http://proxy.hospital.test:3128", "NO_PROXY": "localhost,169.254.169.254"}
    assert drop_in.reach(settings("", ""), service(proxied)).allowed == (*addresses.LOOPBACK, "10.0.0.53", "10.9.9.9")
    # The name behind it is the proxy's to resolve.
    assert drop_in.reach(settings("https://gone.test", None), service(proxied)).allowed is not None
    past = drop_in.reach(settings(), service({**proxied, "NO_PROXY": ".hospital.test"}))
    assert past.allowed == drop_in.reach(settings(), service()).allowed


def test_the_drop_in_and_what_is_read_back_from_it() -> None:
    source = Path("/etc/dicomwatchd/config.yaml")
    reached = drop_in.reach(settings(), service())
    text = drop_in.drop_in(settings(), source, reached, credential=True)
    lines = text.splitlines()
    assert 'ReadWritePaths="-/srv/dicom/ct 1 100%%"' in lines
    assert "IPAddressDeny=any" in lines
    assert "IPAddressAllow=127.0.0.0/8 ::1/128 10.0.0.53 10.1.2.3 10.1.2.4 fd12::3" in lines
    assert f"LoadCredential=aws:{drop_in.CREDENTIALS}" in lines
    assert "Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws" in lines
    assert drop_in.allowed_by(text, source) == " ".join(reached.allowed or ())
    assert drop_in.allowed_by(text, Path("/home/other.yaml")) is None
    assert drop_in.asked_before(text) == "known"

    without = drop_in.drop_in(settings(), source, Reach(None, "asked for"), asked="any", credential=False)
    assert not [line for line in without.splitlines() if line.startswith(("IPAddress", "Environment", "LoadCred"))]
    assert drop_in.allowed_by(without, source) is None
    assert drop_in.asked_before(without) == "any"
    # As the version before wrote it: nothing was asked for.
    assert drop_in.asked_before("# Written by dicomwatchd-folders from the configuration.\n[Service]\n") == "known"


def test_who_fetches_the_figures_is_let_through() -> None:
    metrics = Metrics(listen="0.0.0.0:9187", allow=("10.1.9.7", "10.2.0.0/16"))
    watched = settings().model_copy(update={"metrics": metrics})
    reached = drop_in.reach(watched, service())
    assert {*metrics.allow, "10.1.2.3"} <= set(reached.allowed or ())
    allowed = " ".join(reached.allowed or ())
    assert drop_in.changed_addresses(watched, service(), allowed) == []
    before = " ".join(drop_in.reach(settings(), service()).allowed or ())
    assert drop_in.changed_addresses(watched, service(), before) == [
        "metrics.allow 10.1.9.7",
        "metrics.allow 10.2.0.0/16",
    ]
    of_a_folder = settings(None, None).model_copy(update={"metrics": metrics})
    assert drop_in.reach(of_a_folder, service()).allowed == (*addresses.LOOPBACK, *metrics.allow)


def test_the_command_shows_the_drop_in(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "inboxes: [{name: ct1, path: /srv/dicom/ct1}]\narchive:\n  store: {kind: directory, path: /srv/archive}\n"
        "  catalogue: {kind: sqlite, path: /srv/archive/catalogue.db}\n"
    )
    command: list[str | Path] = [sys.executable, ROOT / "scripts/dicomwatchd-folders", "--config", file, "--print"]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert (shown.returncode, "IPAddressAllow=127.0.0.0/8 ::1/128\n" in shown.stdout) == (0, True), shown.stderr
    assert drop_in.allowed_by(shown.stdout, file) == "127.0.0.0/8 ::1/128"
    anywhere = subprocess.run([*command, "--addresses", "any"], capture_output=True, text=True)
    assert (anywhere.returncode, "IPAddress" in anywhere.stdout) == (0, False)
    file.write_text("inboxes: 7\n")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout, "is not valid" in refused.stderr) == (2, "", True)


# --- later, when an address has changed


def test_what_has_moved_is_named() -> None:
    allowed = " ".join(drop_in.reach(settings(), service()).allowed or ())
    assert drop_in.changed_addresses(settings(), service(), allowed) == []
    moved = Service(
        KEYS,
        lookup=lambda host: frozenset([ip_address("10.1.2.99")]) if host.startswith("rgw") else resolved(host),
        name_servers=frozenset([ip_address("10.0.0.54"), ip_address("127.0.0.53")]),
    )
    assert drop_in.changed_addresses(settings(), moved, allowed) == [
        "rgw.hospital.test at 10.1.2.99",
        "the name server 10.0.0.54",
    ]


def test_the_filter_knows_its_own() -> None:
    assert Filter("127.0.0.0/8 ::1/128").drops("https://127.0.0.1:1") is False
    assert Filter("10.0.0.0/8").drops("https://127.0.0.1:1") is True
    assert Filter("10.0.0.0/8").drops("https://[::1]:1") is True
    assert Filter("nonsense").drops("https://127.0.0.1:1") is True
    assert Filter(None).drops("https://127.0.0.1:1") is False


def test_the_error_says_that_the_filter_drops_what_goes_there() -> None:
    """In a process of its own, since a unit's environment is there before its process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        endpoint = f"s3 at http://127.0.0.1:{taken.getsockname()[1]}"
        program = (
            "from dicomwatchd.archive.aws import clients as aws\n"
            "import botocore.exceptions as e\n"
            f"error = e.ConnectTimeoutError(endpoint_url='x')\n"
            f"print(aws.translate(error, operation='list', endpoint={endpoint!r}).hint)\n"
        )
        said = {}
        for allowed in ("10.0.0.1", "127.0.0.1", None):
            environment = {} if allowed is None else {addresses.VARIABLE: allowed}
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
            said[allowed] = done.stdout.strip()
    assert said["10.0.0.1"] == addresses.MOVED
    assert said["127.0.0.1"] == said[None]
    assert "check endpoint_url" in said["127.0.0.1"]
    away = aws.translate(ConnectionRefusedError(), operation="list", endpoint="s3 at aws:eu-central-1")
    assert isinstance(away, OutOfReach)


@pytest.mark.parametrize(
    ("web", "is_given"),
    [
        ({"tokens": True}, True),
        ({"proxy": {"addresses": ["10.0.0.9"]}, "roles": {"upload": ["radiology"]}}, True),
        ({"proxy": {"addresses": ["10.0.0.9"]}, "roles": {"read": ["radiology"]}}, False),
        (None, False),
    ],
)
def test_the_two_units_meet_only_where_somebody_may_hand_in(web: dict[str, object] | None, is_given: bool) -> None:
    found = loading.parse({**settings(None, None).model_dump(mode="json"), "web": web})
    source, reached = Path("/etc/dicomwatchd/config.yaml"), Reach(None, "-")
    of_daemon = drop_in.drop_in(found, source, reached, credential=False).splitlines()
    of_web = web_drop_in.drop_in(found, source, reached, credential=False).splitlines()
    assert ('ReadWritePaths="-/var/lib/dicomwatchd-web/uploads"' in of_daemon) is is_given
    assert ("StateDirectoryMode=0710" in of_daemon) is is_given
    assert ("SupplementaryGroups=dicomwatchd" in of_web) is is_given
    assert ("StateDirectoryMode=0710" in of_web) is is_given


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        (None, []),
        ("/var/lib/dicomwatchd-web/two", []),
        ("/srv/a 100% web", ['RequiresMountsFor="/srv/a 100%% web"', 'ReadWritePaths="-/srv/a 100%% web"']),
    ],
)
def test_the_web_s_state_may_be_elsewhere(state: str | None, lines: list[str]) -> None:
    web = {"tokens": True, **({} if state is None else {"state": state})}
    found = loading.parse({**settings().model_dump(mode="json"), "web": web})
    text = web_drop_in.drop_in(found, Path("/etc/x"), Reach(None, "-"), credential=False)
    assert [line for line in text.splitlines() if line.startswith(("Req", "ReadWrite"))] == lines
    if lines:
        assert text.index("[Unit]") < text.index("RequiresMountsFor") < text.index("[Service]") < text.index("ReadWr")
        assert 'ReadWritePaths="-/srv/a 100%% web/uploads"' in drop_in.drop_in(
            found, Path("/etc/x"), Reach(None, "-"), credential=False
        )


WORKSTATION = {"name": "desk", "ae_title": "DESK"}
#: Addresses that the process of the page has to reach in any case, where the archive is a folder.
ONLY_HERE = ("127.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("destination", "allowed"),
    [
        (None, ONLY_HERE),
        ("10.20.0.7:11112", (*ONLY_HERE, "10.20.0.7", "10.0.0.53")),
        ("[fd20::7]:11112", (*ONLY_HERE, "fd20::7", "10.0.0.53")),
        ("catalogue.hospital.test:104", (*ONLY_HERE, "10.1.2.4", "10.0.0.53")),
        ("gone.hospital.test:104", None),
    ],
)
def test_the_page_reaches_the_workstations_that_it_sends_to(
    destination: str | None, allowed: tuple[str, ...] | None
) -> None:
    """An address filter without them lets nothing of what it sends through, and says so nowhere."""
    destinations = [] if destination is None else [{**WORKSTATION, "address": destination}]
    found = loading.parse(
        {**settings(None, None).model_dump(mode="json"), "web": {"tokens": True}, "destinations": destinations}
    )
    assert found.web is not None
    reached = web_drop_in.web_reach(found, found.web, service())
    assert reached.allowed == allowed
    if allowed is None:
        assert reached.why == "gone.hospital.test does not resolve now: run this again when it does"


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_a_unit_has_no_memory_dump(unit: Path) -> None:
    """A limit of 0 is not enforced for a dump that is piped to a program (core(5)); 1 is, by the kernel's own words."""
    assert re.findall(r"(?m)^LimitCORE=(.*)", unit.read_text()) == ["1"]


def test_what_the_web_s_unit_hides() -> None:
    shown = ("/srv/web", "/homes/web", "/var/lib/x", "/var/tmpx")
    assert [web_drop_in.hidden_by(Path(one)) for one in shown] == [None] * 4
    assert {web_drop_in.hidden_by(Path(one)) for one in ("/home/x", "/root", "/run/user/1/x")} == {"ProtectHome="}
    assert {web_drop_in.hidden_by(Path(one)) for one in ("/tmp/x", "/var/tmp/x")} == {"PrivateTmp="}
    unit = (ROOT / "systemd/dicomwatchd-web.service").read_text()
    assert "ProtectHome=yes\n" in unit and "PrivateTmp=yes\n" in unit
