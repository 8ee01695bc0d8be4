"""Addresses of clients, as limits count them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

#: What a house is given of IPv6, and often a single machine: by address anybody there would be as many as he likes.
_ONE_NETWORK_BITS = 64
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?\Z")


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Without scope and port, and an IPv4 one for one that is written in IPv6; None for what is no address."""
    found = _WITH_PORT.match(text)
    try:
        address = ip_address((found[1] or found[2]) if found else text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def plain(text: str) -> str:
    """The same as text; the text itself where it is no address."""
    address = address_of(text)
    return text if address is None else str(address)


def network_of(text: str) -> str | None:
    """Of an IPv6 address the network that it is in; None for others."""
    address = address_of(text)
    return str(ip_network((address, _ONE_NETWORK_BITS), strict=False)) if isinstance(address, IPv6Address) else None
