"""Whether the receivers of the configuration are at work: that is another service, which may not be enabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from dicomwatchd.config import Config

_NOBODY = "nobody listens at {}: run systemctl enable --now dicomwatchd-receiver, and see its journal"


def findings(config: Config) -> Iterator[tuple[str, str, str]]:
    """(subject, outcome, detail) for each, as the doctor tells it. By the kernel's list, for a connection would be one
    more line in the receiver's journal."""
    if not config.receivers:
        return
    listening = {
        (one.laddr.ip, one.laddr.port)
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr
    }
    for receiver in config.receivers:
        host, port = receiver.address
        subject = f"receiver {receiver.name}"
        if (str(host), port) in listening:
            yield subject, "good", f"AE title {receiver.ae_title} at {receiver.listen}, into inbox {receiver.inbox}"
        else:
            yield subject, "bad", _NOBODY.format(receiver.listen)
        if receiver.tls is not None and _everybody_may_read(receiver.tls.key_file):
            yield subject, "bad", "everybody may read its TLS key: chmod 640, owner root, group dicomwatchd-receiver"


def _everybody_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False  # what may not be looked at from here others may not read either
