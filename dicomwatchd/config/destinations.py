"""What stands in the configuration under ``destinations``: the DICOM applications that we call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dicomwatchd.config.basics import INBOX_NAME, AbsolutePath, Model
from dicomwatchd.dicom_addresses import address_of, is_ae_title

CALLING_AE_TITLE = "DICOMWATCHD"


def _ae_title(value: str) -> str:
    if not is_ae_title(value):
        raise ValueError("must be an AE title: 1 to 16 characters, no backslash")
    return value


def _address(value: str) -> str:
    if address_of(value) is None:
        raise ValueError("must be HOST:PORT, or [ADDRESS]:PORT of IPv6")
    return value


class DestinationTls(Model):
    """TLS, with the certificates in PEM form."""

    ca_file: AbsolutePath | None = Field(None, description="Certificates of a private CA; default: those of the system")
    certificate_file: AbsolutePath | None = Field(None, description="Our own certificate, if the destination asks")
    key_file: AbsolutePath | None = Field(None, description="Its key; default: in certificate_file")


class Destination(Model):
    """A DICOM application to which `fetch --send` sends studies."""

    name: str = Field(pattern=f"^{INBOX_NAME}$", description="Short name, for `fetch --send NAME`.")
    ae_title: Annotated[str, AfterValidator(_ae_title)] = Field(description="The called AE title")
    address: Annotated[str, AfterValidator(_address)] = Field(
        description="HOST:PORT", examples=["pacs.example.org:104"]
    )
    calling_ae_title: Annotated[str, AfterValidator(_ae_title)] = Field(
        CALLING_AE_TITLE, description="What we call ourselves"
    )
    tls: DestinationTls | None = Field(None, description="Default: no TLS; patient data is sent unencrypted")


def cross_checks(data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    given = data.get("destinations")
    names = [one.get("name") if isinstance(one, dict) else None for one in given] if isinstance(given, list) else []
    for index, name in enumerate(names):
        if isinstance(name, str) and names.index(name) != index:
            yield f"destinations[{index}].name", f"is used by destinations[{names.index(name)}] already"
