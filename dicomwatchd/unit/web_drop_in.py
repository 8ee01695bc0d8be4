"""What the drop-in of dicomwatchd-web's unit says for a configuration: its state, where that is elsewhere, mounts,
addresses, keys that may only read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dicomwatchd.config.archive import DirectorySettings, SqliteSettings
from dicomwatchd.config.web import DEFAULT_STATE, Web
from dicomwatchd.config.whole import Config
from dicomwatchd.dicom_addresses import address_of
from dicomwatchd.unit import addresses
from dicomwatchd.unit.drop_in import Reach, Service, quoted, reach, steady

DROP_IN = Path("/etc/systemd/system/dicomwatchd-web.service.d/folders.conf")
#: Keys that may read the archive and nothing else, as a shared credentials file (`[default]`), root's.
CREDENTIALS = Path("/etc/dicomwatchd/web.credentials")
USER = "dicomwatchd-web"
#: The user and the group of the daemon.
DAEMON = "dicomwatchd"
#: What the unit hides from its process, and by which of its lines.
_HIDDEN = {
    "ProtectHome=": (Path("/home"), Path("/root"), Path("/run/user")),
    "PrivateTmp=": (Path("/tmp"), Path("/var/tmp")),  # noqa: S108  nothing is put there
}


def drop_in(settings: Config, source: Path, reached: Reach, *, credential: bool) -> str:
    """Its text."""
    lines = [
        f"# Written by dicomwatchd-folders from {source}.",
        f"# addresses: {reached.why}",
        "[Unit]",
        *(f'RequiresMountsFor="{quoted(folder)}"' for folder in (*archive_folders(settings), *own_folders(settings))),
        "[Service]",
        # The dash: it starts without the folder, too, and says itself that it is missing.
        *(f'ReadWritePaths="-{quoted(folder)}"' for folder in own_folders(settings)),
    ]
    needed = [*archive_folders(settings), settings.socket_path]
    if not any(path.is_relative_to(settings.state_directory) for path in needed):
        lines.append(f'InaccessiblePaths="-{quoted(settings.state_directory)}"')
    if settings.web is not None and settings.web.may_be_given_uploads:
        # The group may use the daemon's socket, where this user is told apart (control.limited). systemd sets the mode
        # of the state at each start, and with it its ACL's mask: by 0700 the daemon's entry would count for nothing.
        lines += [f"SupplementaryGroups={DAEMON}", "StateDirectoryMode=0710"]
    if reached.allowed is not None:
        lines += ["IPAddressDeny=any", f"IPAddressAllow={' '.join(reached.allowed)}"]
    if credential:
        lines += [f"LoadCredential=aws:{CREDENTIALS}", "Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws"]
    return "\n".join([*lines, ""])


def own_folders(settings: Config) -> list[Path]:
    """Where it has to write, beside what the unit gives it already."""
    if settings.web is None or settings.web.state.is_relative_to(DEFAULT_STATE):
        return []
    return [settings.web.state]


def hidden_by(path: Path) -> str | None:
    """The line of the unit by which its process sees nothing of what is there, whatever the drop-in says."""
    for line, folders in _HIDDEN.items():
        if any(path.is_relative_to(folder) for folder in folders):
            return line
    return None


def staging_acls(web: Web) -> list[tuple[Path, str]]:
    """What setfacl(1) has to be told, as the web process' user, so that the daemon gets what is handed in and no more:
    through the state and the staging folder it may pass, and neither list nor change them; the folder of an upload it
    may read and empty. What it makes there the web process can take away."""
    return [
        (web.state, f"u:{DAEMON}:x"),
        (web.staging, f"u:{DAEMON}:x,d:u:{DAEMON}:rwx,d:u:{USER}:rwx,d:g::-,d:o::-"),
    ]


def archive_folders(settings: Config) -> list[Path]:
    """What of the archive is on this machine: to be read, and no more."""
    store, catalogue = settings.archive.store, settings.archive.catalogue
    found = [store.path] if isinstance(store, DirectorySettings) else []
    if isinstance(catalogue, SqliteSettings) and not any(catalogue.path.is_relative_to(folder) for folder in found):
        found.append(catalogue.path.parent)
    return found


def web_reach(settings: Config, web: Web, service: Service) -> Reach:
    """The addresses that it needs, of archive, provider, destinations and whoever connects, or why that is not
    known."""
    if not web.address[0].is_loopback and web.proxy is None:
        return Reach(None, "browsers may come from every address")
    archive = reach(settings, service)
    if archive.allowed is None:
        return archive
    found = list(archive.allowed)
    for host in _others(settings, web):
        of_host = steady(host, service)
        if isinstance(of_host, str):
            return Reach(None, of_host)
        if not of_host:
            return Reach(None, f"{host} does not resolve now: run this again when it does")
        found += sorted(str(one) for one in of_host if not one.is_loopback)
        found += sorted(str(one) for one in service.name_servers if not one.is_loopback)
    if web.proxy is not None:
        found += [one for one in web.proxy.addresses if not _is_loopback(one)]
    why = "the archive's endpoints, the provider of the log-in, destinations, and the proxy"
    return Reach(tuple(dict.fromkeys(found)), why)


def _others(settings: Config, web: Web) -> Iterator[str]:
    """Hosts that it talks to besides those of the archive."""
    if web.oidc is not None:
        yield urlsplit(web.oidc.issuer).hostname or ""
    for one in settings.destinations:
        if (of_one := address_of(one.address)) is not None:
            yield of_one[0]


def service_of_web(environment: Mapping[str, str], credential: str | None) -> Service:
    """``credential`` is the text of `CREDENTIALS`, None where there is no such file."""
    return Service(
        environment=environment,
        profiles=() if credential is None else (credential,),
        has_credential=credential is not None,
        name_servers=addresses.name_servers(),
    )


def _is_loopback(network: str) -> bool:
    return addresses.covers(addresses.networks(" ".join(addresses.LOOPBACK)), network)
