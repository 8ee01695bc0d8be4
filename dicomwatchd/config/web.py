"""What stands in the configuration under ``web``: where dicomwatchd-web listens, who may log in and how, its limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from dicomwatchd.config.basics import AbsolutePath, Model, Switch, WholeNumber
from dicomwatchd.config.durations import Duration, seconds
from dicomwatchd.config.listening import address_and_port, is_listen, is_network, is_same_port, listens_at
from dicomwatchd.config.metrics import DEFAULT_LISTEN as METRICS_LISTEN
from dicomwatchd.config.receivers import receivers_at_port_of

#: Loopback: whoever is to reach it from elsewhere says so.
DEFAULT_LISTEN = "127.0.0.1:8442"
DEFAULT_STATE = Path("/var/lib/dicomwatchd-web")
#: In the list of a role's groups: everybody who has logged in.
EVERYBODY = "*"

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
#: What a proxy must not be told to say who somebody is by: a browser sends these itself, or they mean something else.
_TAKEN_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "cookie", "host", "origin", "te", "transfer-encoding"}
)
_LOCAL_NAMES = frozenset({"localhost"})
_LOOPBACK = {4: (ip_network("127.0.0.0/8"),), 6: (ip_network("::1/128"),)}


def _is_listen(value: str) -> str:
    try:
        return is_listen(value)
    except ValueError:
        raise ValueError(f"must be ADDRESS:PORT, such as {DEFAULT_LISTEN} or [::1]:8442") from None


def _header(value: str) -> str:
    if not _HEADER.match(value):
        raise ValueError("must be the name of a header: letters, digits and '-'")
    if value.lower() in _TAKEN_HEADERS:
        raise ValueError("must not be a header that browsers send")
    return value


def _base_url(value: str) -> str:
    """A page's origin: scheme, host and perhaps a port, and no path. Returned without a final slash."""
    if not re.match(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?\Z", value):
        raise ValueError("must be https://HOST[:PORT], without a path")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("must be https://HOST[:PORT], without a path") from None
    if port == 0:
        raise ValueError("must be https://HOST[:PORT], without a path")
    if parts.scheme == "http" and not is_local(parts.hostname or ""):
        raise ValueError("must be https: patient data and log-ins would travel unencrypted")
    return value.rstrip("/").lower()


def _issuer(value: str) -> str:
    if not re.match(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?\Z", value):
        raise ValueError("must be the provider's issuer, such as https://login.example.org/realms/hospital")
    if value.startswith("http:") and not is_local(urlsplit(value).hostname or ""):
        raise ValueError("must be https: whoever is on the way could log in as anybody")
    return value


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's own, by what it says."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOCAL_NAMES


Header = Annotated[str, AfterValidator(_header)]
Network = Annotated[str, AfterValidator(is_network)]
Group = Annotated[str, Field(min_length=1, max_length=256)]


class WebTls(Model):
    """TLS by dicomwatchd-web itself. Files are in PEM form."""

    certificate_file: AbsolutePath = Field(description="The certificate, and those between it and its CA")
    key_file: AbsolutePath = Field(description="The certificate's key, without a passphrase")


class WebProxy(Model):
    """A reverse proxy in front has asked who it is, and says so in a header."""

    addresses: tuple[Network, ...] = Field(
        min_length=1, description="From where the proxy connects; what others say in these headers is ignored"
    )
    user_header: Header = Field("X-Remote-User", description="The header with the person's name")
    groups_header: Header | None = Field(None, description="The header with the person's groups, separated by commas")
    secret_header: Header = Field("X-Proxy-Secret", description="The header with the secret of secret_file")
    secret_file: AbsolutePath | None = Field(
        None,
        description="A secret that the proxy sends along; needed where the proxy is on this machine, whose other users"
        " could connect as well",
    )

    @model_validator(mode="after")
    def _is_no_hole(self) -> WebProxy:
        networks = [ip_network(one) for one in self.addresses]
        if self.secret_file is None and any(
            one.overlaps(own) for one in networks for own in _LOOPBACK.get(one.version, ())
        ):
            raise ValueError("must have secret_file: every user of this machine could say who he is")
        names = [one.lower() for one in (self.user_header, self.groups_header, self.secret_header) if one is not None]
        if len(set(names)) != len(names):
            raise ValueError("must have a header of its own for each")
        return self

    def speaks_from(self, address: IPv4Address | IPv6Address) -> bool:
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        return any(plain in ip_network(one) for one in self.addresses)


class WebOidc(Model):
    """OpenID Connect: the hospital's own log-in (authorization code flow with PKCE)."""

    issuer: Annotated[str, AfterValidator(_issuer)] = Field(
        description="The provider, exactly as it calls itself", examples=["https://login.example.org/realms/hospital"]
    )
    client_id: str = Field(min_length=1, max_length=256)
    client_secret_file: AbsolutePath = Field(description="A file with the client's secret")
    name_claim: str = Field("preferred_username", min_length=1, description="The claim with the person's name")
    groups_claim: str = Field("groups", min_length=1, description="The claim with the person's groups")
    scopes: tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")], ...] = ("openid", "profile")
    ca_file: AbsolutePath | None = Field(None, description="Certificates of a private CA, in PEM form")
    label: str = Field("Log in", min_length=1, max_length=60, description="What the button says")


class WebRoles(Model):
    """Which groups of the proxy's or the provider's may do what; "*" is everybody who has logged in."""

    read: tuple[Group, ...] = Field(default=(), description="Find, look at and fetch studies")
    upload: tuple[Group, ...] = Field(default=(), description="Hand in folders")
    administrate: tuple[Group, ...] = Field(default=(), description="Search the record of who has looked at what")


class WebSessions(Model):
    idle: Duration = Field(default="30m", description="A session that was not used for this long has ended")
    longest: Duration = Field(default="10h", description="A session ends after this long, however much it is used")

    @model_validator(mode="after")
    def _ends(self) -> WebSessions:
        if not 60 <= self.idle_seconds <= self.longest_seconds <= 7 * 86400:
            raise ValueError("must have an idle of at least 1m and a longest of at most 7d, which is no shorter")
        return self

    @property
    def idle_seconds(self) -> int:
        return seconds(self.idle)

    @property
    def longest_seconds(self) -> int:
        return seconds(self.longest)


class WebLimits(Model):
    connections: WholeNumber = Field(default=512, ge=8, le=4096, description="Open at once; more are closed unheard")
    connections_each: WholeNumber = Field(
        default=64, ge=4, le=4096, description="Of one address at once; does not count for the proxy"
    )
    requests_each_minute: WholeNumber = Field(
        default=6000, ge=60, le=1_000_000, description="Of one person, or one address that has not logged in"
    )
    failed_logins: WholeNumber = Field(
        default=10, ge=3, le=1000, description="Of one address within 5 minutes; then it has to wait"
    )


class Web(Model):
    """The archive in a browser, by dicomwatchd-web. At least one way to log in is needed."""

    listen: Annotated[str, AfterValidator(_is_listen)] = Field(DEFAULT_LISTEN, description="Address and port")
    public_url: Annotated[str, AfterValidator(_base_url)] | None = Field(
        None,
        description="How browsers reach it; default: listen itself, which is accepted for loopback only",
        examples=["https://images.example.org"],
    )
    tls: WebTls | None = Field(None, description="Default: no TLS, which is accepted behind a proxy or on loopback")
    proxy: WebProxy | None = None
    oidc: WebOidc | None = None
    tokens: Switch = Field(False, description="Whether tokens of `dicomwatchctl web token` are accepted")
    roles: WebRoles = WebRoles()
    sessions: WebSessions = WebSessions()
    limits: WebLimits = WebLimits()
    state: AbsolutePath = Field(DEFAULT_STATE, description="For the tokens' hashes and the record of access")
    viewer: AbsolutePath | None = Field(
        None,
        description="Where scripts/viewer has put OHIF; default: share/dicomwatchd/viewer of where the program is"
        " installed, if it is there",
    )
    aws_profile: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.@-]{1,64}$", description="A profile of the AWS files with rights to read only"
    )

    @model_validator(mode="after")
    def _somebody_may(self) -> Web:
        if self.proxy is None and self.oidc is None and not self.tokens:
            raise ValueError("must have a way to log in: proxy, oidc, or tokens: true")
        if (self.proxy or self.oidc) and not (self.roles.read or self.roles.upload or self.roles.administrate):
            raise ValueError("must have roles: nobody whom the proxy or the provider knows could do anything")
        return self

    @property
    def address(self) -> tuple[IPv4Address | IPv6Address, int]:
        return address_and_port(self.listen)

    @property
    def may_be_given_uploads(self) -> bool:
        """Whether somebody may hand folders in: a group, or whoever gets a token for it."""
        return self.tokens or bool(self.roles.upload)

    @property
    def staging(self) -> Path:
        """Where lies what is handed in on the page, until the daemon has archived it."""
        return self.state / "uploads"

    @property
    def origin(self) -> str:
        """As browsers have it in their address bar, without a final slash."""
        return self.public_url or f"{'http' if self.tls is None else 'https'}://{self.listen}"


def cross_checks(data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """(place in the file, what is wrong). ``data`` may be anything; what is wrong in itself is passed over."""
    web = data.get("web")
    if not isinstance(web, dict):
        return
    found = listens_at(web, DEFAULT_LISTEN)
    if found is None:
        return
    if not found[0].is_loopback:
        if web.get("public_url") is None:
            yield "web.public_url", "is missing: what browsers call this place, such as https://images.example.org"
        if web.get("tls") is None and not web.get("proxy"):
            yield "web.tls", "is missing: patient data and log-ins would travel unencrypted"
    for where in receivers_at_port_of(data, *found):
        yield "web.listen", f"has the port of {where}"
    metrics = data.get("metrics")
    if isinstance(metrics, dict):
        theirs = listens_at(metrics, METRICS_LISTEN)
        if is_same_port(theirs, *found):
            yield "web.listen", "has the port of metrics"
