"""What stands in the configuration under ``receivers``, and what only several sections together show of it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from dicomwatchd.config.basics import AE_TITLE, INBOX_NAME, SHARE, AbsolutePath, Model, Number, WholeNumber
from dicomwatchd.config.listening import address_and_port, is_listen, is_network, is_same_port, listens_at

#: As receivers call their files.
_OUR_NAME = "1.2.3.dcm"
#: The port for DICOM that needs no rights of root's, on this machine alone.
DEFAULT_LISTEN = "127.0.0.1:11112"


class ReceiverTls(Model):
    """DICOM over TLS. All files are in PEM form."""

    certificate_file: AbsolutePath = Field(description="The receiver's certificate, and those between it and its CA")
    key_file: AbsolutePath = Field(description="The certificate's key, without a passphrase")
    client_ca_file: AbsolutePath | None = Field(
        None, description="Peers must show a certificate of one of these CAs; default: they need none"
    )


class AllowedPeer(Model):
    """Who may send: by AE title, by address, or by both together."""

    ae_title: str | None = Field(None, pattern=AE_TITLE, description="What the peer calls itself; default: anything")
    address: Annotated[str, AfterValidator(is_network)] | None = Field(
        None, description="An address, or a network; default: any", examples=["10.1.2.3", "10.1.2.0/24"]
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> AllowedPeer:
        if self.ae_title is None and self.address is None:
            raise ValueError("must have ae_title, address, or both")
        return self

    def has_address(self, address: IPv4Address | IPv6Address) -> bool:
        return self.address is None or address in ip_network(self.address)


class Commitment(Model):
    """Storage Commitment: a modality asks whether the archive holds its images, and is told so later."""

    folder: AbsolutePath = Field(description="Where requests wait, on a local disk; receiver and daemon write to it")
    report_to: tuple[str, ...] = Field(
        min_length=1, description="Names of `destinations`: the modalities that may ask, by their AE title"
    )
    wait_seconds: Number = Field(
        86400,
        ge=0,
        le=30 * 86400,
        description="How long the answer may wait for images that are not archived yet; what is not by then has failed",
    )


class Receiver(Model):
    """A port at which dicomwatchd-receive takes DICOM objects (C-STORE) and puts them into an inbox."""

    name: str = Field(pattern=f"^{INBOX_NAME}$", description="Short name for logs. Must not hold patient data.")
    ae_title: str = Field(pattern=AE_TITLE, description="The called AE title; associations for another are rejected")
    listen: Annotated[str, AfterValidator(is_listen)] = Field(
        DEFAULT_LISTEN,
        description="Address and port; 0.0.0.0 and [::] are all addresses of the machine",
    )
    inbox: str = Field(pattern=f"^{INBOX_NAME}$", description="Name of the inbox that the objects go into")
    allow: tuple[AllowedPeer, ...] = Field(
        (), description="Who may send; default: everybody, which is accepted for loopback or with client certificates"
    )
    tls: ReceiverTls | None = None
    max_associations: WholeNumber = Field(64, ge=1, le=256, description="More at once are rejected for the time being")
    max_pdu_bytes: WholeNumber = Field(131072, ge=4096, le=1048576, description="Maximum length of a P-DATA PDU")
    idle_seconds: Number = Field(
        60, ge=1, le=3600, description="An association of which nothing, or no whole PDU, came for this long is aborted"
    )
    disk_free_min: str = Field(
        "5%", pattern=SHARE, description="Objects are refused (0xA700) while less than this share of the disk is free"
    )
    commitment: Commitment | None = Field(None, description="Default: Storage Commitment is not offered")

    @property
    def address(self) -> tuple[IPv4Address | IPv6Address, int]:
        return address_and_port(self.listen)

    @property
    def disk_free_min_share(self) -> float:
        return int(self.disk_free_min[:-1]) / 100


def receivers_at_port_of(data: dict[Any, Any], address: IPv4Address | IPv6Address, port: int) -> Iterator[str]:
    """The places of the receivers that could not listen beside somebody at this address and port."""
    given = data.get("receivers")
    for index, receiver in enumerate(given if isinstance(given, list | tuple) else []):
        if isinstance(receiver, dict) and is_same_port(listens_at(receiver, DEFAULT_LISTEN), address, port):
            yield f"receivers[{index}]"


def cross_checks(data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """(place in the file, what is wrong). ``data`` may be anything; what is wrong in itself is passed over."""
    receivers, inboxes = (
        [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list | tuple) else []
        for found in (data.get("receivers"), data.get("inboxes"))
    )
    names = [one.get("name") for one in inboxes]
    for index, receiver in enumerate(receivers):
        where = f"receivers[{index}]"
        inbox, listen = receiver.get("inbox"), receiver.get("listen", DEFAULT_LISTEN)
        if isinstance(inbox, str) and inbox not in names:
            yield f"{where}.inbox", "must be the name of one of inboxes"
        for box in inboxes:
            if box.get("name") == inbox and not _takes_our_names(box):
                yield f"{where}.inbox", "names an inbox whose include or exclude keep its files (*.dcm) out"
        for key in ("name", "listen"):
            used = [one.get(key, DEFAULT_LISTEN if key == "listen" else None) for one in receivers]
            if isinstance(used[index], str) and used.index(used[index]) != index:
                yield f"{where}.{key}", f"is used by receivers[{used.index(used[index])}] already"
        yield from _of_commitment(where, receiver, data)
        if isinstance(listen, str) and not receiver.get("allow") and not _has_client_certificates(receiver):
            try:
                is_local = address_and_port(listen)[0].is_loopback
            except ValueError:
                continue
            if not is_local:
                yield (
                    f"{where}.allow",
                    "is missing: whoever reaches this address could send; name the peers, or demand certificates"
                    " (tls.client_ca_file)",
                )


def commitment_folders(data: dict[Any, Any]) -> Iterator[tuple[str, object]]:
    """(place in the file, path) of the folders in which requests for commitment wait."""
    given = data.get("receivers")
    for index, receiver in enumerate(given if isinstance(given, list | tuple) else []):
        if commitment := _commitment(receiver):
            yield f"receivers[{index}].commitment.folder", commitment.get("folder")


def _of_commitment(where: str, receiver: dict[Any, Any], data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """Each modality is found by what it calls itself, so no two may be called the same."""
    given = data.get("destinations")
    destinations = [one for one in given if isinstance(one, dict)] if isinstance(given, list | tuple) else []
    ae_titles = {one.get("name"): one.get("ae_title") for one in destinations}
    names = _commitment(receiver).get("report_to")
    seen: dict[object, object] = {}
    for index, name in enumerate(names if isinstance(names, list | tuple) else []):
        if not isinstance(name, str):
            continue
        place = f"{where}.commitment.report_to[{index}]"
        if name not in ae_titles:
            yield place, "must be the name of one of destinations"
        elif (title := ae_titles[name]) in seen:
            yield place, f"has the same ae_title as {seen[title]}: which of the two asks could not be told"
        else:
            seen[title] = name


def _commitment(receiver: object) -> dict[Any, Any]:
    found = receiver.get("commitment") if isinstance(receiver, dict) else None
    return found if isinstance(found, dict) else {}


def _has_client_certificates(receiver: dict[Any, Any]) -> bool:
    tls = receiver.get("tls")
    return isinstance(tls, dict) and tls.get("client_ca_file") is not None


def _takes_our_names(inbox: dict[Any, Any]) -> bool:
    """Whether an inbox's patterns admit what a receiver calls its files: what they leave out would stay for ever."""
    include, exclude = inbox.get("include", ["*"]), inbox.get("exclude", [])
    if not all(
        isinstance(one, list | tuple) and all(isinstance(glob, str) for glob in one) for one in (include, exclude)
    ):
        return True
    return any(fnmatchcase(_OUR_NAME, one) for one in include) and not any(
        fnmatchcase(_OUR_NAME, one) for one in exclude
    )
