"""What stands in the configuration under ``archive``: store, catalogue and layout, and each kind of them."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from dicomwatchd.config.basics import BUCKET_NAME, TABLE_NAME, TAG, AbsolutePath, Model, Switch, WholeNumber


class Encryption(Model):
    mode: Literal["aws:kms", "AES256", "store-default"] = "store-default"
    key_id: str | None = None

    @field_validator("key_id")
    @classmethod
    def _key_only_with_kms(cls, value: str | None, info: ValidationInfo) -> str | None:
        # mode is not in data when it is a problem itself
        if value is not None and info.data.get("mode", "aws:kms") != "aws:kms":
            raise ValueError("is allowed only with mode aws:kms")
        return value


class _Endpoint(Model):
    region: str | None = None
    insecure_http: Switch = Field(False, description="Allow an endpoint_url without TLS")
    endpoint_url: str | None = None  # after insecure_http, which its validator looks at
    ca_file: AbsolutePath | None = Field(None, description="Certificates of a private CA, in PEM form")

    @field_validator("endpoint_url")
    @classmethod
    def _tls_unless_allowed(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not re.match(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?/?\Z", value) or not _has_port(
            value
        ):
            raise ValueError("must be https://HOST[:PORT] or http://HOST[:PORT]")
        if value.startswith("http://") and not info.data.get("insecure_http", True):
            raise ValueError("plain http is refused; use https, or set insecure_http: true")
        return value


def _has_port(url: str) -> bool:
    """Whether the URL's port, if it names one, is a possible one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class ExpiryAfter(Model):
    """Rules of the bucket may end objects, so many days after they were stored and not before."""

    after_days: WholeNumber = Field(ge=1, le=36600)


def _accept_expiry_kind(value: object) -> str | None:
    if isinstance(value, dict | ExpiryAfter):
        return "days"
    return "switch" if isinstance(value, bool) else None


AcceptExpiry = Annotated[
    Annotated[Switch, Tag("switch")] | Annotated[ExpiryAfter, Tag("days")],
    Field(
        description="Whether local files are deleted although lifecycle rules of the bucket will expire the archived"
        " objects: never, always, or only if the objects expire no earlier than this many days after they were stored",
    ),
    Discriminator(
        _accept_expiry_kind,
        custom_error_type="accept_expiry",
        custom_error_message="must be true, false, or {after_days: 3650}",
    ),
]
_NOT_READ_AT_ONCE = (
    "cannot be read back before it is restored: what was just sent could be neither proven nor fetched; set a tag, and"
    " let a lifecycle rule move objects there later (dicomwatchctl archive init --lifecycle)"
)
_ONE_ZONE = "is kept in one availability zone alone, and lost with it"

#: Why an object is not to be stored in one of the other classes that there are.
_REFUSED_CLASSES = {
    "GLACIER": _NOT_READ_AT_ONCE,
    "DEEP_ARCHIVE": _NOT_READ_AT_ONCE,
    "STANDARD_IA": "costs three times as much as GLACIER_IR, which is read as quickly",
    "ONEZONE_IA": _ONE_ZONE,
    "EXPRESS_ONEZONE": _ONE_ZONE,
    "REDUCED_REDUNDANCY": "is kept in fewer copies than the usual class",
}


def _storage_class(value: object) -> object:
    if isinstance(value, str) and value in _REFUSED_CLASSES:
        raise ValueError(f"must be STANDARD, INTELLIGENT_TIERING or GLACIER_IR; {value} {_REFUSED_CLASSES[value]}")
    return value


StorageClass = Annotated[
    Literal["STANDARD", "INTELLIGENT_TIERING", "GLACIER_IR"],
    BeforeValidator(_storage_class),
    Field(description="Storage class of instances and bundles; manifests and documents stay in the usual one"),
]


class ObjectTag(Model):
    """Must not hold patient data."""

    key: str = Field(pattern=TAG, max_length=128)
    value: str = Field(pattern=TAG, max_length=256)

    @field_validator("key")
    @classmethod
    def _is_not_amazons(cls, value: str) -> str:
        if value.lower().startswith("aws:"):
            raise ValueError("must not begin with aws:")
        return value


Tagging = Annotated[
    ObjectTag,
    Field(description="Tag of instances and bundles, for lifecycle rules; manifests and documents have none"),
]


class S3Settings(_Endpoint):
    kind: Literal["s3"]
    bucket: str = Field(pattern=BUCKET_NAME)
    prefix: str = Field("", max_length=512)
    encryption: Encryption = Encryption()
    accept_expiry: AcceptExpiry = False
    storage_class: StorageClass | None = None
    tag: Tagging | None = None

    @field_validator("prefix")
    @classmethod
    def _prefix_is_a_folder(cls, value: str) -> str:
        if not re.match(r"(?:[A-Za-z0-9!_.*'()-]+/)*\Z", value) or {".", ".."} & set(value.split("/")):
            raise ValueError("must be empty, or plain words each ending in '/', such as radiology/")
        return value


class DirectorySettings(Model):
    kind: Literal["directory"]
    path: AbsolutePath


class DynamoDBSettings(_Endpoint):
    kind: Literal["dynamodb"]
    table: str = Field(pattern=TABLE_NAME)


class SqliteSettings(Model):
    kind: Literal["sqlite"]
    path: AbsolutePath


#: What `archive.factory` opens a store, or a catalogue, by.
StoreSettings: TypeAlias = S3Settings | DirectorySettings
CatalogueSettings: TypeAlias = DynamoDBSettings | SqliteSettings


class InstanceLayout(Model):
    """Each instance is an object of its own."""

    kind: Literal["instance"] = "instance"


class BundledLayout(Model):
    """Small instances of a study travel together, as an uncompressed tar archive with its index in the manifest."""

    kind: Literal["bundled"]
    size_bytes: WholeNumber = Field(
        8 << 20, ge=1 << 20, le=16 << 20, description="Largest size of a bundle; it is sent in one request, from memory"
    )
    below_bytes: WholeNumber = Field(1 << 20, ge=1, description="Larger instances stay separate objects")

    @field_validator("below_bytes")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("size_bytes", value) // 2:
            raise ValueError("must be at most half of size_bytes")
        return value


class Archive(Model):
    store: Annotated[StoreSettings, Field(discriminator="kind")]
    catalogue: Annotated[CatalogueSettings, Field(discriminator="kind")]
    layout: Annotated[InstanceLayout | BundledLayout, Field(discriminator="kind")] = InstanceLayout()
