"""Whether the receivers of the configuration are at work: that is another service, which may not be enabled. And how
long the certificates of their TLS are still good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from dicomwatchd import certificates
from dicomwatchd.config import Config, Receiver

_NOBODY = "nobody listens at {}: run systemctl enable --now dicomwatchd-receiver, and see its journal"


def findings(config: Config, now: float) -> Iterator[tuple[str, str, str]]:
    """(subject, outcome, detail) for each, as the doctor tells it at ``now``, seconds since the epoch. Who listens is
    told by the kernel's list, for a connection would be one more line in the receiver's journal."""
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
        yield from _certificates(receiver, now)


def _certificates(receiver: Receiver, now: float) -> Iterator[tuple[str, str, str]]:
    """Of the files as they are now; the receiver has read them at its start, or at its last reload."""
    if receiver.tls is None:
        return
    yield f"receiver {receiver.name}: certificate", *certificates.judge_shown(receiver.tls.certificate_file, now)
    if receiver.tls.client_ca_file is not None:
        yield f"receiver {receiver.name}: client CA", *certificates.judge_trusted(receiver.tls.client_ca_file, now)


def _everybody_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False  # what may not be looked at from here others may not read either
