"""Where a section listens, and who may connect: addresses with ports, and networks."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any


def address_and_port(listen: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Raises ValueError."""
    match = re.match(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})\Z", listen)
    try:
        if match is None or not 0 < int(match[3]) < 65536:
            raise ValueError
        return ip_address(match[1] or match[2]), int(match[3])
    except ValueError:
        raise ValueError("must be ADDRESS:PORT, such as 127.0.0.1:11112, 0.0.0.0:104 or [::]:11112") from None


def listens_at(section: dict[Any, Any], default: str) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Where a part of the configuration listens; None where that is wrong in itself."""
    listen = section.get("listen", default)
    try:
        return address_and_port(listen) if isinstance(listen, str) else None
    except ValueError:
        return None


def is_same_port(
    other: tuple[IPv4Address | IPv6Address, int] | None, address: IPv4Address | IPv6Address, port: int
) -> bool:
    """Whether the two could not be listened at side by side."""
    if other is None or other[1] != port:
        return False
    return other[0] == address or other[0].is_unspecified or address.is_unspecified


def is_listen(value: str) -> str:
    """Raises ValueError."""
    address_and_port(value)
    return value


def is_network(value: str) -> str:
    """Raises ValueError."""
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.1.2.3 or 10.1.2.0/24") from None
    return value
