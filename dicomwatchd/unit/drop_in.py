"""What the unit's drop-in says for a configuration: folders to write to, addresses to talk to, and where keys are.

dicomwatchd-folders writes it, as root; `doctor` compares it with what is there now.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from dicomwatchd.config.archive import DirectorySettings, DynamoDBSettings, S3Settings, SqliteSettings
from dicomwatchd.config.whole import Config
from dicomwatchd.dicom_addresses import address_of
from dicomwatchd.unit import addresses
from dicomwatchd.unit.addresses import Address

DROP_IN = Path("/etc/systemd/system/dicomwatchd.service.d/folders.conf")
#: The same of the receiver's unit.
RECEIVER_DROP_IN = Path("/etc/systemd/system/dicomwatchd-receiver.service.d/folders.conf")
#: Keys of the service, as a shared credentials file (`[default]`), root's; LoadCredential= hands it to the daemon.
CREDENTIALS = Path("/etc/dicomwatchd/aws.credentials")
#: Keys of the service as variables: read by systemd, still valid, and seen in the process's environment.
ENVIRONMENT_FILE = Path("/etc/dicomwatchd/aws.env")
OWN = (Path("/var/lib/dicomwatchd"), Path("/run/dicomwatchd"))  # the unit's StateDirectory= and RuntimeDirectory=
HOME = OWN[0]

#: Where an instance of EC2 asks for the keys of its role.
METADATA = ("169.254.169.254", "fd00:ec2::254")
QUERIES, BETWEEN_QUERIES_SECONDS = 3, 0.5
_FILTER_SWITCH = "# addresses: "
_AMAZON = re.compile(r"(?:^|\.)(?:amazonaws\.com(?:\.cn)?|api\.aws|amazonaws\.eu)\Z")
#: What has keys fetched from somewhere else than the archive's own endpoints.
_FETCHED = re.compile(
    r"^\s*(?:role_arn|credential_process|sso_\w+|web_identity_token_file|login_session)\s*=", re.MULTILINE
)
_FETCHED_VARIABLES = (
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
)


@dataclass(frozen=True, slots=True)
class Service:
    """What is known of the service beside its configuration. ``environment`` are its variables, ``profiles`` the texts
    of the AWS files that it reads."""

    environment: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    has_credential: bool = False
    lookup: Callable[[str], frozenset[Address]] = addresses.lookup
    name_servers: frozenset[Address] = frozenset()
    between_queries_seconds: float = BETWEEN_QUERIES_SECONDS

    @property
    def has_keys(self) -> bool:
        return (
            self.has_credential
            or "AWS_ACCESS_KEY_ID" in self.environment
            or any("aws_access_key_id" in text for text in self.profiles)
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """``allowed`` is None where no list can be kept; ``why`` says so in plain words."""

    allowed: tuple[str, ...] | None
    why: str


# -- folders --------------------------------------------------------------------------------------------------------


def writable_folders(settings: Config) -> list[Path]:
    """Where the daemon has to write, beside what the unit gives it already."""
    folders = [inbox.path for inbox in settings.inboxes]
    store, catalogue = settings.archive.store, settings.archive.catalogue
    if isinstance(store, DirectorySettings):
        folders.append(store.path)
    if isinstance(catalogue, SqliteSettings):
        folders.append(catalogue.path.parent)
    if settings.web is not None and settings.web.may_be_given_uploads:
        # Comes as an open folder. After a restart of the machine it is opened by its path, and that needs this line.
        folders.append(settings.web.staging)
    folders += [*_commitment_folders(settings), settings.state_directory, settings.socket_path.parent]
    chosen: list[Path] = []
    for folder in folders:
        if not any(folder.is_relative_to(known) for known in (*OWN, *chosen)):
            chosen.append(folder)
    return chosen


def _commitment_folders(settings: Config) -> list[Path]:
    """In which receiver and daemon leave each other word, each once."""
    return list(dict.fromkeys(one.commitment.folder for one in settings.receivers if one.commitment is not None))


# -- addresses ------------------------------------------------------------------------------------------------------


def reach(settings: Config, service: Service) -> Reach:
    """The addresses that the daemon needs and no others, or why that is not known."""
    urls = list(endpoints(settings))
    if not urls:
        return Reach((*addresses.LOOPBACK, *scrapers(settings)), "the archive is a folder: only this machine itself")
    hosts: dict[str, bool] = {}  # whether it has to resolve
    for url, is_amazon in urls:
        through = proxy(url, service.environment)
        if through is None and is_amazon:
            return Reach(None, "the archive uses Amazon's public endpoint, whose addresses change")
        if through is not None:
            hosts[through] = True
        if not is_amazon:
            hosts.setdefault(urlsplit(url).hostname or "", through is None)
    if any(name in service.environment for name in _FETCHED_VARIABLES) or any(map(_FETCHED.search, service.profiles)):
        return Reach(None, "the credentials come from another service (a role, a program), whose address is unknown")
    found: set[Address] = set(service.name_servers)
    for host, has_to in hosts.items():
        of_host = steady(host, service)
        if isinstance(of_host, str):
            return Reach(None, of_host)
        if not of_host and has_to:
            return Reach(None, f"{host} does not resolve now: run this again when it does")
        if _AMAZON.search(host) and any(address.is_global for address in of_host):
            return Reach(None, f"{host} is in Amazon's public range, whose addresses change")
        found |= of_host
    listed = sorted({str(address) for address in found if not address.is_loopback})
    metadata = () if service.has_keys else METADATA
    why = "the endpoints of the configuration, proxies and name servers" + (
        ", and the instance role's metadata service" if metadata else ""
    )
    return Reach((*addresses.LOOPBACK, *listed, *scrapers(settings), *metadata), why)


def scrapers(settings: Config) -> tuple[str, ...]:
    """The addresses and networks from which the figures for Prometheus may be fetched."""
    return settings.metrics.allow if settings.metrics is not None else ()


def endpoints(settings: Config) -> Iterator[tuple[str, bool]]:
    """The URLs that the daemon talks to, and whether each is Amazon's own by its region. Every kind is named here: one
    that was forgotten would pass for a folder, and the unit's filter let nothing through to it."""
    store, catalogue = settings.archive.store, settings.archive.catalogue
    match store:
        case S3Settings():
            yield _endpoint(store, f"{store.bucket}.s3")
        case DirectorySettings():
            pass
        case _:
            assert_never(store)
    match catalogue:
        case DynamoDBSettings():
            yield _endpoint(catalogue, "dynamodb")
        case SqliteSettings():
            pass
        case _:
            assert_never(catalogue)


def _endpoint(settings: S3Settings | DynamoDBSettings, name: str) -> tuple[str, bool]:
    if settings.endpoint_url is not None:
        return settings.endpoint_url, False
    return f"https://{name}.{settings.region or 'us-east-1'}.amazonaws.com", True


def proxy(url: str, environment: Mapping[str, str]) -> str | None:
    """The host of the proxy by which the daemon reaches ``url``."""
    known = {name.lower(): value for name, value in environment.items() if value}
    through = known.get(f"{urlsplit(url).scheme}_proxy")
    bypassed = urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
        urlsplit(url).netloc, {"no": known.get("no_proxy", "")}
    )
    if not through or bypassed:
        return None
    return urlsplit(through if "://" in through else f"//{through}").hostname


def steady(host: str, service: Service) -> frozenset[Address] | str:
    """A name's addresses if it has the same ones in each of a few looks, otherwise why not."""
    first = service.lookup(host)
    for _ in range(QUERIES - 1):
        time.sleep(service.between_queries_seconds if first else 0)
        if service.lookup(host) != first:
            return f"the addresses of {host} change from one lookup to the next"
    return first


# -- the drop-in ----------------------------------------------------------------------------------------------------


def drop_in(settings: Config, source: Path, reached: Reach, *, asked: str = "known", credential: bool) -> str:
    """Its text. ``asked`` is what was asked for about the addresses, "known" or "any", and counts for the next run too.
    The dash lets the service start without the folder, so that the daemon can say which one is missing."""
    lines = [
        f"# Written by dicomwatchd-folders from {source}.",
        f"{_FILTER_SWITCH}{asked}: {reached.why}",
        "[Service]",
        *(f'ReadWritePaths="-{quoted(folder)}"' for folder in writable_folders(settings)),
    ]
    if reached.allowed is not None:
        lines += [
            "IPAddressDeny=any",
            f"IPAddressAllow={' '.join(reached.allowed)}",
            f'Environment="{addresses.VARIABLE}={" ".join(reached.allowed)}"',
        ]
    if settings.web is not None and settings.web.may_be_given_uploads:
        # The web process gets the daemon's group for its socket, which may lie in the state: it lists nothing there.
        lines.append("StateDirectoryMode=0710")
    if credential:
        lines += [f"LoadCredential=aws:{CREDENTIALS}", "Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws"]
    return "\n".join([*lines, ""])


def receiver_drop_in(settings: Config, source: Path) -> str:
    """Its text for the receiver's unit: the inboxes that receivers write to and the folders of commitments, which have
    to be mounted before one does, and who may connect or be called, where that is known."""
    names = {receiver.inbox for receiver in settings.receivers}
    folders = [inbox.path for inbox in settings.inboxes if inbox.name in names] + _commitment_folders(settings)
    peers = receiver_peers(settings)
    return "\n".join(
        [
            f"# Written by dicomwatchd-folders from {source}.",
            "[Unit]",
            *(f'RequiresMountsFor="{quoted(folder)}"' for folder in folders),
            "[Service]",
            *(f'ReadWritePaths="-{quoted(folder)}"' for folder in folders),
            *([] if peers is None else ["IPAddressDeny=any", f"IPAddressAllow={' '.join(peers)}"]),
            "",
        ]
    )


def receiver_peers(settings: Config) -> tuple[str, ...] | None:
    """The addresses of all who may send, and of those who are told of commitments; None where somebody may from any, or
    is called by a name, whose address may be another one tomorrow."""
    found: set[str] = set()
    modalities = {one.name: address_of(one.address) for one in settings.destinations}
    for receiver in settings.receivers:
        for name in receiver.commitment.report_to if receiver.commitment is not None else ():
            host = modalities[name]
            if host is None or not _is_address(host[0]):
                return None
            found.add(host[0])
        if receiver.address[0].is_loopback:
            continue
        if not receiver.allow or any(peer.address is None for peer in receiver.allow):
            return None
        found |= {peer.address for peer in receiver.allow if peer.address is not None}
    return (*addresses.LOOPBACK, *sorted(found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def changed_addresses(settings: Config, service: Service, allowed: str) -> list[str]:
    """What the daemon has to reach and a list of addresses does not hold any more, in words."""
    networks, changed = addresses.networks(allowed), []
    hosts = {proxy(url, service.environment) or urlsplit(url).hostname or "" for url, _ in endpoints(settings)}
    for host in sorted(hosts):
        changed += [f"{host} at {address}" for address in addresses.outside(service.lookup(host), networks)]
    changed += [f"the name server {address}" for address in addresses.outside(service.name_servers, networks)]
    changed += [f"metrics.allow {one}" for one in scrapers(settings) if not addresses.covers(networks, one)]
    return changed


def quoted(folder: Path) -> str:
    """As systemd.syntax(7) wants it inside double quotes."""
    return str(folder).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def asked_before(text: str) -> str:
    """What the drop-in of an earlier run was asked for."""
    found = re.search(rf"(?m)^{_FILTER_SWITCH}(known|any):", text)
    return found[1] if found else "known"


def allowed_by(text: str, source: Path) -> str | None:
    """The addresses in a drop-in that was written for this configuration; None where it has no list or is another's."""
    if f"# Written by dicomwatchd-folders from {source}.\n" not in text:
        return None
    found = re.search(rf'(?m)^Environment="{addresses.VARIABLE}=([^"\n]*)"$', text)
    return found[1] if found else None


def allowed_here(source: Path) -> str | None:
    """The addresses that this machine's service may talk to from its next start on, if it has this configuration."""
    try:
        return allowed_by(DROP_IN.read_text(encoding="utf-8", errors="replace"), source.absolute())
    except OSError:
        return None
