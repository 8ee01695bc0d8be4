"""Where studies are sent to by C-STORE, and the association with it (PS3.7, PS3.8, PS3.15 B.12)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from dicomwatchd.config.destinations import CALLING_AE_TITLE
from dicomwatchd.config.destinations import Destination as Settings
from dicomwatchd.dicom_addresses import address_of, is_ae_title
from dicomwatchd.dicom_tls import client_context
from dicomwatchd.errors import Transient, Unarchivable
from dicomwatchd.fetch.association import Association, AssociationOver, Pair, Rejected
from dicomwatchd.fetch.handing import NotTaken
from dicomwatchd.intake.dicom.opening import plain_uid, read_meta
from dicomwatchd.intake.dicom.reading import FileBytes

#: Presentation contexts of an association have odd numbers of a byte.
CONTEXTS_LIMIT = 128
_ACSE_SECONDS, _DIMSE_SECONDS, _STALLED_SECONDS, _RELEASE_SECONDS = 30.0, 300.0, 120.0, 10.0
_NO_META = "the file has no file meta information, without which it cannot be sent as it is"
_VERIFICATION: Pair = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


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


class Channel:
    """One association at a time, made when it is needed, for instances of these ``pairs`` of SOP class and transfer
    syntax. What is stored is what is offered, and a file goes as it is: nothing is transcoded."""

    def __init__(self, destination: Destination, pairs: Iterable[Pair]) -> None:
        self._destination = destination
        ordered = sorted(set(pairs))
        self._groups = [ordered[at : at + CONTEXTS_LIMIT] for at in range(0, len(ordered), CONTEXTS_LIMIT)]
        self._open: tuple[int, Association] | None = None

    def group_of(self, pair: Pair) -> int:
        """By which instances are best ordered: each group has its own association."""
        return next((number for number, group in enumerate(self._groups) if pair in group), -1)

    def send(self, pair: Pair, path: Path) -> int:
        """The status, success or a warning, with which the destination has confirmed the file. Raises Refused,
        NotAccepted, NotTaken, Lost, Unreachable."""
        association = self._association(self.group_of(pair))
        if pair not in association.accepted:
            raise NotAccepted(f"the destination does not accept {UID(pair[0]).name} as {UID(pair[1]).name}")
        try:
            with path.open("rb", buffering=0) as file:
                its_pair, sop_instance_uid, offset_bytes = _meta_of(file.fileno())
                if its_pair not in association.accepted:
                    raise NotTaken("the file meta information is not of the recorded SOP class and transfer syntax")
                status = association.store(its_pair, sop_instance_uid, file.fileno(), offset_bytes)
        except NotTaken:
            raise
        except (OSError, AssociationOver) as error:
            self.close()
            raise Lost("the association was lost, or the destination has not answered") from error
        except BaseException:  # an interruption, in the midst of a message
            self.close()
            raise
        if status != 0 and status & 0xF000 != 0xB000:
            raise Refused(f"the destination has refused it with status {status:04X} ({_meaning(status)})")
        return status

    def echo(self) -> None:
        """C-ECHO. Raises Unreachable, NotAccepted."""
        association = self._associate([_VERIFICATION])
        try:
            if association.echo(_VERIFICATION) != 0:
                raise Unreachable("the destination does not answer a C-ECHO")
        except AssociationOver as error:
            raise Unreachable("the destination does not answer a C-ECHO") from error
        finally:
            association.release(_RELEASE_SECONDS)

    def close(self) -> None:
        """Release the association, or break it off in the midst of a message."""
        if self._open is not None:
            _, association = self._open
            self._open = None
            association.release(_RELEASE_SECONDS)

    def _association(self, group: int) -> Association:
        if group < 0:
            raise NotAccepted("its SOP class or transfer syntax is not on record: it cannot be offered")
        if self._open is not None and (self._open[0] != group or self._open[1].is_over):
            self.close()
        if self._open is None:
            self._open = group, self._associate(self._groups[group])
        return self._open[1]

    def _associate(self, pairs: list[Pair]) -> Association:
        """Raises Unreachable, NotAccepted, Misconfigured (TLS files)."""
        to = self._destination
        tls = None if to.tls is None else to.tls.context()
        hint = "check address, AE titles and, with TLS, the certificates; `dicomwatchctl doctor` tries named ones"
        try:
            association = Association(
                (to.host, to.port),
                (to.called_ae_title, to.calling_ae_title),
                pairs,
                tls,
                connect_seconds=_ACSE_SECONDS,
                seconds=_DIMSE_SECONDS,
                stalled_seconds=_STALLED_SECONDS,
            )
        except Rejected as error:
            raise Unreachable(f"{to} rejects the association: AE titles may be wrong", hint=hint) from error
        except (OSError, AssociationOver) as error:
            raise Unreachable(f"{to} cannot be reached", hint=hint) from error
        if not association.accepted:
            association.release(_RELEASE_SECONDS)
            raise NotAccepted("the destination accepts none of the study's SOP classes and transfer syntaxes")
        return association


def _meta_of(file: int) -> tuple[Pair, str, int]:
    """What the file meta information of the open ``file`` says that it is (SOP class and transfer syntax, SOP Instance
    UID), and where its data set begins. Raises NotTaken."""
    try:
        meta = read_meta(FileBytes(file, os.fstat(file).st_size))
    except Unarchivable as error:
        raise NotTaken(_NO_META) from error
    pair, sop_instance_uid = (plain_uid(meta.sop_class), meta.transfer_syntax_uid), plain_uid(meta.sop_instance)
    if not (all(pair) and sop_instance_uid):
        raise NotTaken(_NO_META)
    return pair, sop_instance_uid, meta.end


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
