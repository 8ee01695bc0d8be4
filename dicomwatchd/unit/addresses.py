"""The addresses that the service's unit lets the daemon talk to, and whether a name still leads to one of them.

The kernel drops what goes elsewhere, without a word: a server that has moved looks like one that is dead. What the
unit allows is in the environment that dicomwatchd-folders gives the service beside the filter itself.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from dicomwatchd import answering

#: Addresses and networks with blanks between them; not there where the unit has no filter.
VARIABLE = "DICOMWATCHD_ADDRESSES"
LOOPBACK = ("127.0.0.0/8", "::1/128")
MEND = "run dicomwatchd-folders as root, then restart the service"
#: Constant, since it is logged: what exactly is where, `dicomwatchctl doctor` says.
MOVED = (
    "the unit's address filter blocks it: the server, a proxy or a name server has changed its address"
    f" since dicomwatchd-folders ran; {MEND}"
)

CHECK_SECONDS = 5.0
_KEEP_SECONDS = 30.0  # many threads fail on one endpoint at once, and need not ask the name server each
_RESOLVER = Path("/etc/resolv.conf")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """What is no address is passed over: it allows nothing."""
    found: list[Network] = []
    for word in text.split():
        with suppress(ValueError):
            found.append(ip_network(word, strict=False))
    return tuple(found)


def lookup(host: str) -> frozenset[Address]:
    """The addresses that a name has now, or that it is; none where it does not resolve in time."""
    with suppress(ValueError):
        return frozenset([ip_address(host)])
    return answering.within(CHECK_SECONDS, lambda: _resolved(host)) or frozenset()


def _resolved(host: str) -> frozenset[Address]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(ip_address(str(where[0]).split("%")[0]) for *_, where in answers)


def name_servers(resolver: Path | None = None) -> frozenset[Address]:
    """Those that the C library asks."""
    found: set[Address] = set()
    with suppress(OSError):
        text = (resolver or _RESOLVER).read_text(encoding="utf-8", errors="replace")
        for word in re.findall(r"(?m)^\s*nameserver\s+([0-9A-Fa-f.:]+)", text):
            with suppress(ValueError):
                found.add(ip_address(word))
    return frozenset(found)


def outside(found: Iterable[Address], allowed: Iterable[Network]) -> list[str]:
    """Those that are in no allowed network."""
    allowed = list(allowed)
    return sorted(
        str(address)
        for address in found
        if not any(address in network for network in allowed if _alike(address, network))
    )


def covers(allowed: Iterable[Network], network: str) -> bool:
    """Whether all of an address or a network is allowed."""
    wanted = ip_network(network)
    if isinstance(wanted, IPv4Network):
        return any(isinstance(one, IPv4Network) and wanted.subnet_of(one) for one in allowed)
    return any(isinstance(one, IPv6Network) and wanted.subnet_of(one) for one in allowed)


def _alike(address: Address, network: Network) -> bool:
    return address.version == network.version


class Filter:
    """What a unit allows. ``text`` is VARIABLE's value, None where there is no filter."""

    def __init__(self, text: str | None) -> None:
        self.allowed = None if text is None else networks(text)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, bool]] = {}

    def drops(self, url: str) -> bool:
        """Whether what goes to this URL's host, or the question where that is, is dropped. Asks at most every half
        minute."""
        host = urlsplit(url).hostname
        if self.allowed is None or host is None:
            return False
        with self._lock:
            until, answer = self._known.get(host, (0.0, False))
            if time.monotonic() >= until:
                answer = self._asked(host, self.allowed)
                self._known[host] = (time.monotonic() + _KEEP_SECONDS, answer)
            return answer

    def _asked(self, host: str, allowed: tuple[Network, ...]) -> bool:
        found = lookup(host)
        if not found:
            servers = name_servers()
            return bool(servers) and len(outside(servers, allowed)) == len(servers)
        return bool(outside(found, allowed))


_OF_THIS_PROCESS = Filter(os.environ.get(VARIABLE))


def drops(url: str) -> bool:
    """Whether this process's unit drops what goes to ``url``."""
    return _OF_THIS_PROCESS.drops(url)
