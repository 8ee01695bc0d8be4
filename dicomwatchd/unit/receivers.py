"""Which receivers of the configuration put objects into which inbox, whether they are at work (that is another service,
which may not be enabled), and how long the certificates of their TLS are still good."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from dicomwatchd import certificates
from dicomwatchd.config.inboxes import Inbox
from dicomwatchd.config.receivers import Receiver
from dicomwatchd.config.whole import Config
from dicomwatchd.localfiles import is_in_memory, open_root
from dicomwatchd.unit.keyfiles import everybody_may_read

NOBODY = "nobody listens at {}: run systemctl enable --now dicomwatchd-receiver, and see its journal"

IN_MEMORY = (
    "its inbox {} is in memory (tmpfs): until it is archived, what was answered with Success is lost in a power cut"
)
_NOT_OURS = "is not there, or not for this user to write to: install -d -o dicomwatchd-receiver -g dicomwatchd -m 2770"


#: Of the kernel: listening sockets come first (Documentation/networking/proc_net_tcp.rst), with this state.
_LISTENING, _TABLES = b"0A", (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

Address = tuple[IPv4Address | IPv6Address, int]


def names_by_inbox(config: Config) -> dict[str, tuple[str, ...]]:
    """The receivers that put objects into each inbox, in the order of the configuration; who has none is not in it."""
    return {inbox: tuple(one.name for one in found) for inbox, found in by_inbox(config).items()}


def by_inbox(config: Config) -> dict[str, list[Receiver]]:
    found = dict[str, list[Receiver]]()
    for receiver in config.receivers:
        found.setdefault(receiver.inbox, []).append(receiver)
    return found


def listening() -> frozenset[Address] | None:
    """Addresses and ports at which somebody on this machine listens, by the kernel's list: a connection would be one
    more line in the receiver's journal. None where the kernel does not say. Takes a fraction of a millisecond, however
    many connections there are."""
    found = set[Address]()
    try:
        for table in _TABLES:
            with table.open("rb") as lines:
                next(lines, None)
                for line in lines:
                    _, local, _, state, *_ = line.split()
                    if state != _LISTENING:
                        break
                    found.add(_address(local.decode()))
    except (OSError, ValueError):
        return None
    return frozenset(found)


def _address(text: str) -> Address:
    """ "0100007F:2B67": words of four bytes in the machine's order, and the port."""
    address, _, port = text.partition(":")
    words = (address[at : at + 8] for at in range(0, len(address), 8))
    return ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)), int(port, 16)


def findings(config: Config, now: float) -> Iterator[tuple[str, str, str]]:
    """(subject, outcome, detail) for each, as the doctor tells it at ``now``, seconds since the epoch."""
    if not config.receivers:
        return
    at_work = listening()
    for receiver in config.receivers:
        subject = f"receiver {receiver.name}"
        if at_work is None:
            yield subject, "note", "whether somebody listens cannot be seen from here"
        elif receiver.address in at_work:
            yield subject, "good", f"AE title {receiver.ae_title} at {receiver.listen}, into inbox {receiver.inbox}"
        else:
            yield subject, "bad", NOBODY.format(receiver.listen)
        if receiver.tls is not None and everybody_may_read(receiver.tls.key_file):
            yield subject, "bad", "everybody may read its TLS key: chmod 640, owner root, group dicomwatchd-receiver"
        if receiver.commitment is not None and not os.access(receiver.commitment.folder, os.R_OK | os.W_OK | os.X_OK):
            yield f"{subject}: commitment", "bad", f"its folder {receiver.commitment.folder} {_NOT_OURS}"
        yield from _certificates(receiver, now)


def in_memory(config: Config, inbox: Inbox) -> Iterator[tuple[str, str, str]]:
    """As `findings`, of the receivers that put objects into this inbox, whose folder is asked: it may not answer. They
    take such a folder, for somebody may want it."""
    try:
        fd = open_root(os.fsencode(inbox.path))
    except OSError:
        return  # told of the inbox
    try:
        if not is_in_memory(fd):
            return
    finally:
        os.close(fd)
    for receiver in by_inbox(config).get(inbox.name, ()):
        yield f"receiver {receiver.name}", "note", IN_MEMORY.format(inbox.name)


def _certificates(receiver: Receiver, now: float) -> Iterator[tuple[str, str, str]]:
    """Of the files as they are now; the receiver has read them at its start, or at its last reload."""
    if receiver.tls is None:
        return
    yield f"receiver {receiver.name}: certificate", *certificates.judge_shown(receiver.tls.certificate_file, now)
    if receiver.tls.client_ca_file is not None:
        yield f"receiver {receiver.name}: client CA", *certificates.judge_trusted(receiver.tls.client_ca_file, now)
