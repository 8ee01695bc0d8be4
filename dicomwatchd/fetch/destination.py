"""Where studies are sent to by C-STORE, and the association with it (PS3.7, PS3.8, PS3.15 B.12)."""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicomwatchd.config import CALLING_AE_TITLE
from dicomwatchd.config import Destination as Settings
from dicomwatchd.dicom_addresses import address_of, is_ae_title
from dicomwatchd.dicom_tls import client_context
from dicomwatchd.errors import Transient
from dicomwatchd.fetch.handing import NotTaken

#: Presentation contexts of an association have odd numbers of a byte.
CONTEXTS_LIMIT = 128
_ACSE_SECONDS, _DIMSE_SECONDS, _STALLED_SECONDS = 30.0, 300.0, 120.0
#: PDUs that wait to be sent. pynetdicom would take all of an instance into its queue if the network is slower than the
#: disk.
_PDUS_AHEAD = 64

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """``ca_file``: whose certificates are trusted; None: those of this machine. The others are ours, if it asks."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises Misconfigured."""
        return client_context(self.ca_file, self.certificate_file, self.key_file)


@dataclass(frozen=True, slots=True)
class Destination:
    called_ae_title: str
    host: str
    port: int
    calling_ae_title: str = CALLING_AE_TITLE
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.called_ae_title}@{host}:{self.port}"


def parse_destination(text: str) -> Destination | None:
    """AET@HOST:PORT; None if it is not that."""
    title, at, address = text.rpartition("@")
    found = address_of(address)
    return Destination(title, *found) if at and is_ae_title(title) and found is not None else None


def of_settings(settings: Settings) -> Destination:
    """What the configuration says of one."""
    address, tls = address_of(settings.address), settings.tls
    assert address is not None  # noqa: S101  the configuration was checked
    files = None if tls is None else TlsFiles(tls.ca_file, tls.certificate_file, tls.key_file)
    return Destination(settings.ae_title, *address, settings.calling_ae_title, files)


class Unreachable(Transient):
    """The destination does not answer, or refuses the association."""

    code = "destination"


class Lost(NotTaken):
    """The association has ended before the destination confirmed the instance."""

    code = "destination-lost"
    ends = True


class Refused(NotTaken):
    """The destination has answered that it did not store the instance."""

    code = "refused"


class NotAccepted(Refused):
    """It takes no such instances at all: asking again changes nothing."""

    code = "not-accepted"


class _Bounded(queue.Queue[Any]):
    """Holds up who sends until there is room; not for ever, should nobody take anything out."""

    def __init__(self) -> None:
        super().__init__(_PDUS_AHEAD)
        self.is_given_up = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        if self.is_given_up:
            return
        try:
            super().put(item, timeout=_STALLED_SECONDS)
        except queue.Full:
            self.is_given_up = True
            raise TimeoutError from None


class Channel:
    """One association at a time, made when it is needed, for instances of these ``pairs`` of SOP class and transfer
    syntax. What is stored is what is offered, and a file goes as it is: nothing is transcoded."""

    def __init__(self, destination: Destination, pairs: Iterable[Pair]) -> None:
        self._destination = destination
        ordered = sorted(set(pairs))
        self._groups = [ordered[at : at + CONTEXTS_LIMIT] for at in range(0, len(ordered), CONTEXTS_LIMIT)]
        self._open: tuple[int, Association, frozenset[Pair]] | None = None
        self._message = 0

    def group_of(self, pair: Pair) -> int:
        """By which instances are best ordered: each group has its own association."""
        return next((number for number, group in enumerate(self._groups) if pair in group), -1)

    def send(self, pair: Pair, path: Path) -> int:
        """The status, success or a warning, with which the destination has confirmed the file. Raises Refused,
        NotAccepted, NotTaken, Lost, Unreachable."""
        association, accepted = self._association(self.group_of(pair))
        if pair not in accepted:
            raise NotAccepted(f"the destination does not accept {UID(pair[0]).name} as {UID(pair[1]).name}")
        self._message = self._message % 65535 + 1
        try:
            answer = association.send_c_store(path, msg_id=self._message)
        except (AttributeError, InvalidDicomError) as error:
            raise NotTaken("the file has no file meta information, without which it cannot be sent as it is") from error
        except ValueError as error:
            raise NotTaken("the file meta information is not of the recorded SOP class and transfer syntax") from error
        except (OSError, RuntimeError) as error:
            self.close()
            raise Lost("the association was lost") from error
        if "Status" not in answer:
            self.close()
            raise Lost("the destination has not answered, or ended the association")
        status = int(answer.Status)
        if status != 0 and status & 0xF000 != 0xB000:
            raise Refused(f"the destination has refused it with status {status:04X} ({_meaning(status)})")
        return status

    def echo(self) -> None:
        """C-ECHO. Raises Unreachable."""
        association = self._associate([("1.2.840.10008.1.1", "1.2.840.10008.1.2")])
        try:
            if "Status" not in (answer := association.send_c_echo()) or answer.Status != 0:
                raise Unreachable("the destination does not answer a C-ECHO")
        finally:
            association.release()

    def close(self) -> None:
        """Release the association, or break it off if nobody takes anything from it."""
        if self._open is None:
            return
        _, association, _ = self._open
        self._open = None
        pending = association.dul.to_provider_queue
        if association.is_established and not getattr(pending, "is_given_up", False):
            association.release()
            return
        # Nobody may be waited for here: its threads are in the midst of sending, and end with the connection.
        with suppress(OSError, AttributeError):
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _association(self, group: int) -> tuple[Association, frozenset[Pair]]:
        if group < 0:
            raise NotAccepted("its SOP class or transfer syntax is not on record: it cannot be offered")
        if self._open is not None and (self._open[0] != group or not self._open[1].is_established):
            self.close()
        if self._open is None:
            association = self._associate(self._groups[group])
            accepted = frozenset(
                (str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts
            )
            association.dul.to_provider_queue = _Bounded()
            self._open = group, association, accepted
        return self._open[1], self._open[2]

    def _associate(self, pairs: list[Pair]) -> Association:
        _config.STORE_SEND_CHUNKED_DATASET = True  # the only way to say that an instance is not to be read at once
        to = self._destination
        application = AE(to.calling_ae_title)
        application.acse_timeout, application.connection_timeout = _ACSE_SECONDS, _ACSE_SECONDS
        application.dimse_timeout, application.network_timeout = _DIMSE_SECONDS, None
        association = application.associate(
            to.host,
            to.port,
            contexts=[build_context(abstract, transfer) for abstract, transfer in pairs],
            ae_title=to.called_ae_title,
            tls_args=None if to.tls is None else (to.tls.context(), to.host),
        )
        if association.is_established:
            return association
        rejected = association.is_rejected
        if not rejected and association.acceptor.primitive is not None:
            raise NotAccepted("the destination accepts none of the study's SOP classes and transfer syntaxes")
        raise Unreachable(
            f"{to} {'rejects the association: AE titles may be wrong' if rejected else 'cannot be reached'}",
            hint="check address, AE titles and, with TLS, the certificates; `dicomwatchctl doctor` tries named ones",
        )


def _meaning(status: int) -> str:
    if status & 0xFF00 == 0xA700:
        return "out of resources"
    if status & 0xFF00 == 0xA900:
        return "the data set does not match its SOP class"
    if status & 0xF000 == 0xC000:
        return "cannot understand"
    return {0x0122: "SOP class not supported", 0x0124: "not authorised", 0x0110: "processing failure"}.get(
        status, "failure"
    )
