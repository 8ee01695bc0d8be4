"""What stands in the configuration under ``metrics``: where Prometheus may fetch the daemon's figures."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dicomwatchd.config.basics import Model
from dicomwatchd.config.listening import address_and_port, is_listen, is_network, listens_at
from dicomwatchd.config.receivers import receivers_at_port_of

#: Loopback: the figures name no patient, and are nobody else's business all the same.
DEFAULT_LISTEN = "127.0.0.1:9187"


def _is_listen(value: str) -> str:
    try:
        return is_listen(value)
    except ValueError:
        raise ValueError(f"must be ADDRESS:PORT, such as {DEFAULT_LISTEN} or [::1]:9187") from None


class Metrics(Model):
    """A port at which Prometheus fetches the daemon's figures (GET /metrics)."""

    listen: Annotated[str, AfterValidator(_is_listen)] = Field(DEFAULT_LISTEN, description="Address and port")
    allow: tuple[Annotated[str, AfterValidator(is_network)], ...] = Field(
        (),
        description="Addresses or networks that may connect; default: everybody, which is accepted for loopback only",
        examples=[["10.1.2.3", "10.1.3.0/24"]],
    )

    @property
    def address(self) -> tuple[IPv4Address | IPv6Address, int]:
        return address_and_port(self.listen)

    def admits(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether somebody at ``address`` may connect."""
        if not self.allow:
            return True
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        return any(plain in ip_network(one) for one in self.allow)


def cross_checks(data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """(place in the file, what is wrong). ``data`` may be anything; what is wrong in itself is passed over."""
    metrics = data.get("metrics")
    if not isinstance(metrics, dict):
        return
    found = listens_at(metrics, DEFAULT_LISTEN)
    if found is None:
        return
    if not found[0].is_loopback and not metrics.get("allow"):
        yield "metrics.allow", "is missing: whoever reaches this address could read the figures; name who may"
    for where in receivers_at_port_of(data, *found):
        yield "metrics.listen", f"has the port of {where}"
