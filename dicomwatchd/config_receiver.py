"""What values of a receiver in the configuration must be like, and what only several of them together show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

#: AE titles may be more (PS3.5 table 6.2-1), but hardly any is; and it is in the log.
AE_TITLE = r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,14}[A-Za-z0-9_.-])?"
#: As receivers call their files.
_OUR_NAME = "1.2.3.dcm"
#: The port for DICOM that needs no rights of root's, on this machine alone.
DEFAULT_LISTEN = "127.0.0.1:11112"


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


def receivers_at_port_of(data: dict[Any, Any], address: IPv4Address | IPv6Address, port: int) -> Iterator[str]:
    """The places of the receivers that could not listen beside somebody at this address and port."""
    given = data.get("receivers")
    for index, receiver in enumerate(given if isinstance(given, list | tuple) else []):
        if isinstance(receiver, dict) and is_same_port(listens_at(receiver, DEFAULT_LISTEN), address, port):
            yield f"receivers[{index}]"


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
