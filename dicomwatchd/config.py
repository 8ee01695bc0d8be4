"""The configuration: YAML in, frozen models out, every problem at once with its path in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dicomwatchd import (
    config_alarms,
    config_bandwidth,
    config_metrics,
    config_receiver,
    config_series,
    config_sites,
    config_web,
    resolved_paths,
)
from dicomwatchd.character_sets import USABLE_WHEN_MISSING, corrected
from dicomwatchd.config_drill import RestoreDrill
from dicomwatchd.config_text import SOCKET_NAME, STATE_DIRECTORY, plain_path, problem, read_file
from dicomwatchd.dicom_addresses import address_of, is_ae_title
from dicomwatchd.errors import ConfigError
from dicomwatchd.resolved_paths import ResolvedPath

#: Above what any modality makes: whole slides and long films reach tens of GB.
MAX_FILE_BYTES = 64 * 1024**3

#: A study that waits longer is forgotten by whoever could bring what is missing.
LONGEST_WAIT_SECONDS = 7 * 86400

DEFAULT_PATH = Path("/etc/dicomwatchd/config.yaml")

CALLING_AE_TITLE = "DICOMWATCHD"

#: An inbox's name is in logs and statistics, so it is a short plain word and no path.
INBOX_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_BUCKET_NAME = r"^[A-Za-z0-9._-]{3,255}$"  # Amazon's rules are narrower, those of other stores are not
_TABLE_NAME = r"^[a-zA-Z0-9_.-]{3,255}$"

_TAG = r"^[A-Za-z0-9_.:/@-]+$"
_SHARE = r"^(?:100|[1-9]?[0-9])%$"
_AE_TITLE = f"^{config_receiver.AE_TITLE}$"
_PATTERNS = {
    f"^{INBOX_NAME}$": "must be a short name of letters, digits, '_', '.' and '-', starting with a letter or digit",
    _BUCKET_NAME: "must be a bucket name",
    _TABLE_NAME: "must be a table name",
    _TAG: "must be of letters, digits and '_.:/@-'",
    _SHARE: "must be a whole percentage, such as 10%",
    _AE_TITLE: "must be an AE title: at most 16 letters, digits, '_', '.', '-' and blanks within",
}

_DURATION = re.compile(r"([0-9]+)\s*([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_SECONDS = 100 * 366 * 86400

#: sun_path of sockaddr_un, less its final NUL (unix(7))
_SOCKET_PATH_MAX_BYTES = 107


AbsolutePath = Annotated[Path, AfterValidator(plain_path)]
# Strict: a quoted number is as likely a slip as not, and "yes" must not open the door to plain http.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
WholeNumber = Annotated[int, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def _usable_charset(value: str) -> str:
    name = value if value in USABLE_WHEN_MISSING else corrected(value)
    if name is None or name not in USABLE_WHEN_MISSING:
        raise ValueError(
            "must be a defined term of DICOM, such as ISO_IR 144 or GB18030, or another character set, such as cp1251"
            " or koi8_r; see dicomwatchd.yaml(5)"
        )
    return name


Charset = Annotated[str, AfterValidator(_usable_charset)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DeleteAfter(_Model):
    """Keep the local file for this long after it was archived, then prove again and delete."""

    delete_after: str = Field(description="A whole number and a unit: s, m, h, d or w.", examples=["7d"])
    disk_free_min: str | None = Field(
        None,
        pattern=_SHARE,
        description="While less than this share of the inbox's disk is free, files are deleted before their time",
    )
    disk_free_goal: str | None = Field(None, pattern=_SHARE, description="Until this share of the disk is free")

    @field_validator("delete_after")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        match = _DURATION.match(value)
        if not match:
            raise ValueError("must be a whole number and a unit, such as 12h or 7d")
        if len(match[1]) > 12 or int(match[1]) * _SECONDS[match[2]] > _LONGEST_SECONDS:
            raise ValueError("must be at most 100 years")
        return value

    @model_validator(mode="after")
    def _has_a_goal_above_the_minimum(self) -> DeleteAfter:
        if (self.disk_free_min is None) != (self.disk_free_goal is None):
            raise ValueError("must have disk_free_min and disk_free_goal, or neither")
        if (shares := self.room_shares) is not None and not 0 < shares[0] < shares[1]:
            raise ValueError("must have a disk_free_goal above disk_free_min, and that above 0%")
        return self

    @property
    def room_shares(self) -> tuple[float, float] | None:
        """disk_free_min and disk_free_goal, 0 to 1."""
        if self.disk_free_min is None or self.disk_free_goal is None:
            return None
        return int(self.disk_free_min[:-1]) / 100, int(self.disk_free_goal[:-1]) / 100

    @property
    def seconds(self) -> int:
        match = _DURATION.match(self.delete_after)
        assert match is not None  # noqa: S101  the validator has seen to it
        return int(match[1]) * _SECONDS[match[2]]


def _after_archive_kind(value: object) -> str | None:
    if isinstance(value, str) and value in ("delete", "keep"):
        return "word"
    return "duration" if isinstance(value, dict | DeleteAfter) else None


AfterArchive = Annotated[
    Annotated[Literal["delete", "keep"], Tag("word")] | Annotated[DeleteAfter, Tag("duration")],
    Discriminator(
        _after_archive_kind,
        custom_error_type="after_archive",
        custom_error_message="must be delete, keep, or {delete_after: 7d}",
    ),
]


class Inbox(_Model):
    """A folder that modalities write into."""

    name: str = Field(
        pattern=f"^{INBOX_NAME}$",
        description="Short name for logs and statistics. Must not hold patient data.",
    )
    path: AbsolutePath
    watch: Literal["events", "poll"] = Field(
        "events", description="Use poll for network shares, which do not report changes made by other machines"
    )
    settle_seconds: Number = Field(2, ge=0, description="A file unchanged for this long is considered complete")
    quiet_seconds: Number = Field(60, ge=0, description="A study with no new or changed file for this long is shipped")
    max_wait_seconds: Number | None = Field(
        None,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="How long a quiet study waits for images that a DICOMDIR lists; default: that of all inboxes",
    )
    send_while_arriving: bool = Field(
        True,
        description="Send complete files before their study is quiet; all later steps still wait until it is quiet",
    )
    after_archive: AfterArchive = "delete"
    without_lease: Literal["delete", "keep"] = Field(
        "delete",
        description="What to do with an archived file if no read lease can be taken, so that a program that"
        " has it open cannot be noticed",
    )
    charset_when_missing: Charset | None = Field(
        None,
        description="Character set of text in files that declare none, or one that does not fit; default: that of all",
        examples=["ISO_IR 144", "cp1251"],
    )
    include: tuple[str, ...] = Field(
        ("*",), min_length=1, description="Globs on the file's name; at least one must match"
    )
    exclude: tuple[str, ...] = Field((), description="Globs on the file's name or its path below the inbox")


class Encryption(_Model):
    mode: Literal["aws:kms", "AES256", "store-default"] = "store-default"
    key_id: str | None = None

    @field_validator("key_id")
    @classmethod
    def _key_only_with_kms(cls, value: str | None, info: ValidationInfo) -> str | None:
        # mode is not in data when it is a problem itself
        if value is not None and info.data.get("mode", "aws:kms") != "aws:kms":
            raise ValueError("is allowed only with mode aws:kms")
        return value


class _Endpoint(_Model):
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


class ExpiryAfter(_Model):
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


class ObjectTag(_Model):
    """Must not hold patient data."""

    key: str = Field(pattern=_TAG, max_length=128)
    value: str = Field(pattern=_TAG, max_length=256)

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
    bucket: str = Field(pattern=_BUCKET_NAME)
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


class DirectorySettings(_Model):
    kind: Literal["directory"]
    path: AbsolutePath


class DynamoDBSettings(_Endpoint):
    kind: Literal["dynamodb"]
    table: str = Field(pattern=_TABLE_NAME)


class SqliteSettings(_Model):
    kind: Literal["sqlite"]
    path: AbsolutePath


#: What `archive.factory` opens a store, or a catalogue, by.
StoreSettings: TypeAlias = S3Settings | DirectorySettings
CatalogueSettings: TypeAlias = DynamoDBSettings | SqliteSettings


class InstanceLayout(_Model):
    """Each instance is an object of its own."""

    kind: Literal["instance"] = "instance"


class BundledLayout(_Model):
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


class Archive(_Model):
    store: Annotated[StoreSettings, Field(discriminator="kind")]
    catalogue: Annotated[CatalogueSettings, Field(discriminator="kind")]
    layout: Annotated[InstanceLayout | BundledLayout, Field(discriminator="kind")] = InstanceLayout()


class ReceiverTls(_Model):
    """DICOM over TLS. All files are in PEM form."""

    certificate_file: AbsolutePath = Field(description="The receiver's certificate, and those between it and its CA")
    key_file: AbsolutePath = Field(description="The certificate's key, without a passphrase")
    client_ca_file: AbsolutePath | None = Field(
        None, description="Peers must show a certificate of one of these CAs; default: they need none"
    )


class AllowedPeer(_Model):
    """Who may send: by AE title, by address, or by both together."""

    ae_title: str | None = Field(None, pattern=_AE_TITLE, description="What the peer calls itself; default: anything")
    address: Annotated[str, AfterValidator(config_receiver.is_network)] | None = Field(
        None, description="An address, or a network; default: any", examples=["10.1.2.3", "10.1.2.0/24"]
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> AllowedPeer:
        if self.ae_title is None and self.address is None:
            raise ValueError("must have ae_title, address, or both")
        return self

    def has_address(self, address: IPv4Address | IPv6Address) -> bool:
        return self.address is None or address in ip_network(self.address)


class Commitment(_Model):
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


class Receiver(_Model):
    """A port at which dicomwatchd-receive takes DICOM objects (C-STORE) and puts them into an inbox."""

    name: str = Field(pattern=f"^{INBOX_NAME}$", description="Short name for logs. Must not hold patient data.")
    ae_title: str = Field(pattern=_AE_TITLE, description="The called AE title; associations for another are rejected")
    listen: Annotated[str, AfterValidator(config_receiver.is_listen)] = Field(
        config_receiver.DEFAULT_LISTEN,
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
        "5%", pattern=_SHARE, description="Objects are refused (0xA700) while less than this share of the disk is free"
    )
    commitment: Commitment | None = Field(None, description="Default: Storage Commitment is not offered")

    @property
    def address(self) -> tuple[IPv4Address | IPv6Address, int]:
        return config_receiver.address_and_port(self.listen)

    @property
    def disk_free_min_share(self) -> float:
        return int(self.disk_free_min[:-1]) / 100


def _ae_title(value: str) -> str:
    if not is_ae_title(value):
        raise ValueError("must be an AE title: 1 to 16 characters, no backslash")
    return value


def _address(value: str) -> str:
    if address_of(value) is None:
        raise ValueError("must be HOST:PORT, or [ADDRESS]:PORT of IPv6")
    return value


class DestinationTls(_Model):
    """TLS, with the certificates in PEM form."""

    ca_file: AbsolutePath | None = Field(None, description="Certificates of a private CA; default: those of the system")
    certificate_file: AbsolutePath | None = Field(None, description="Our own certificate, if the destination asks")
    key_file: AbsolutePath | None = Field(None, description="Its key; default: in certificate_file")


class Destination(_Model):
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


class Config(_Model):
    """The whole file. A configuration for `fetch` alone needs only ``archive``."""

    archive: Archive
    state_directory: AbsolutePath = STATE_DIRECTORY
    control_socket: AbsolutePath | None = Field(None, description="Default: control.sock in the state directory")
    workers: WholeNumber = Field(
        256,
        ge=1,
        le=256,
        description="Maximum number of threads that send, verify and delete files; fewer are used if more do not help",
    )
    scan_interval_seconds: Number = Field(60, gt=0, description="Time between two full scans of each inbox")
    inbox_answer_seconds: Number = Field(
        30, gt=0, description="An inbox whose file system has not answered for this long is skipped until it answers"
    )
    max_file_bytes: WholeNumber = Field(
        MAX_FILE_BYTES, ge=1 << 20, description="Larger files are held in quarantine until this is raised"
    )
    sparse_files: Literal["hold", "take"] = Field(
        "hold",
        description="What to do with a sparse file that is almost entirely holes: it uses no disk space, but would"
        " in the archive",
    )
    charset_when_missing: Charset | None = Field(
        None,
        description="Character set of text in files that declare none, or one that does not fit; default: UTF-8 where"
        " the bytes are that, and Latin-1 otherwise",
        examples=["ISO_IR 144", "cp1251"],
    )
    max_wait_seconds: Number = Field(
        1800,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="How long a quiet study waits for images that a DICOMDIR lists and that are neither here nor"
        " archived; then it is archived without them. 0: not at all",
    )
    bandwidth: config_bandwidth.Limits | None = Field(
        None,
        description="How fast the daemon may send to the archive, by weekday and local time; default: unlimited",
        examples=[{"default": "50MB/s", "Mon-Fri 08:00-18:00": "10MB/s"}],
    )
    disk_free_warn: str = Field("10%", pattern=_SHARE, description="Warn when less than this share of a disk is free")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    restore_drill: RestoreDrill = RestoreDrill()
    series_objects: config_series.SeriesObjects | None = Field(
        None,
        description="Whether the daemon writes what viewers read of each series (archive index does it later); default:"
        " as-sent if there is a web section, otherwise off",
        examples=["as-sent"],
    )
    site: config_sites.Site = config_sites.Site()
    sites: config_sites.Sites = config_sites.Sites()
    alarms: config_alarms.Alarms = config_alarms.Alarms()
    on_alarm: config_alarms.OnAlarm | None = Field(
        None,
        description="A program and its arguments, run without a shell when an alarm begins or ends; default: none",
        examples=[["/etc/dicomwatchd/on-alarm", "radiology"]],
    )
    inboxes: tuple[Inbox, ...] = ()
    receivers: tuple[Receiver, ...] = ()
    destinations: tuple[Destination, ...] = ()
    metrics: config_metrics.Metrics | None = Field(None, description="Default: no figures for Prometheus")
    web: config_web.Web | None = Field(None, description="Default: dicomwatchd-web does not start")

    @property
    def disk_free_warn_share(self) -> float:
        return int(self.disk_free_warn[:-1]) / 100

    @property
    def series_objects_written(self) -> config_series.SeriesObjects:
        return self.series_objects or ("off" if self.web is None else "as-sent")

    @property
    def socket_path(self) -> Path:
        return self.control_socket or self.state_directory / SOCKET_NAME


def load(path: Path, *, folders: bool = False, silent: list[str] | None = None) -> Config:
    """Read and check a configuration file; ``folders``: also whether what the daemon needs on disk is there, and where
    links lead. What does not answer is let pass, and its place in the file appended to ``silent``. Without ``folders``
    no file system but the file's own is asked, so that a share that hangs holds up no command.

    Raises ConfigError with all problems.
    """
    data = read_file(path)
    if folders and isinstance(data, dict) and (refused := list(config_alarms.cross_checks(data, path))):
        raise ConfigError(refused, source=str(path))
    return parse(data, source=str(path), folders=folders, silent=silent)


def parse(data: Any, *, source: str | None = None, folders: bool = False, silent: list[str] | None = None) -> Config:
    """A configuration from plain data, as `load`. Raises ConfigError with all problems."""
    if not isinstance(data, dict):
        raise ConfigError([("", "must be a mapping with archive: and inboxes:")], source=source)
    # Not on the finished model: there is none when anything is wrong, and all problems are wanted at once.
    named = dict(_named_folders(data))
    found = resolved_paths.resolve(named.values()) if folders else {}
    problems = [*_cross_checks(data, found), *(_missing_folders(data, named, found) if folders else ())]
    if silent is not None:
        silent += [where for where, path in named.items() if folders and not found[path].answers]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems[:0] = [problem(item, data, _PATTERNS, _every_key()) for item in error.errors()]
        raise ConfigError(problems, source=source, paths=named) from error
    if problems:
        raise ConfigError(problems, source=source, paths=named)
    return config


def parse_archive(
    archive: Mapping[str, Any],
) -> tuple[StoreSettings, CatalogueSettings | None]:
    """What stands in ``archive:``, by itself, for whoever only reads; ``catalogue`` may be left out. Raises ConfigError
    with all problems."""
    # A configuration always has a catalogue; where none is asked for this one is checked and not used.
    unused = {"kind": "sqlite", "path": "/unused"}
    found = parse({"archive": {"catalogue": unused, **archive}}).archive
    return found.store, found.catalogue if "catalogue" in archive else None


def _every_key() -> set[str]:
    models: list[type[BaseModel]] = [RestoreDrill, config_alarms.Alarms, config_sites.Site, config_sites.Sites]
    waiting: list[type[BaseModel]] = [_Model, config_web.Part]
    while waiting:
        models += (below := waiting.pop().__subclasses__())
        waiting += below
    return {name for model in models for name in model.model_fields}


def _named_folders(data: dict[Any, Any]) -> Iterator[tuple[str, Path]]:
    """Every path that must not lie in another: (place in the file, path). Raw data, as in `_cross_checks`."""
    inboxes = data.get("inboxes")
    boxes = [box if isinstance(box, dict) else {} for box in inboxes] if isinstance(inboxes, list | tuple) else []
    archive = data.get("archive")
    store, catalogue = (
        part if isinstance(part, dict) else {}
        for part in ((archive.get("store"), archive.get("catalogue")) if isinstance(archive, dict) else (None, None))
    )
    named = [
        *((f"inboxes[{index}].path", box.get("path")) for index, box in enumerate(boxes)),
        *config_receiver.commitment_folders(data),
        ("state_directory", data.get("state_directory", Config.model_fields["state_directory"].default)),
        ("control_socket", data.get("control_socket")),
        ("web.state", web.get("state", config_web.DEFAULT_STATE) if isinstance(web := data.get("web"), dict) else None),
        ("archive.store.path", store.get("path") if store.get("kind") == "directory" else None),
        ("archive.catalogue.path", catalogue.get("path") if catalogue.get("kind") == "sqlite" else None),
    ]
    for where, given in named:
        if isinstance(given, str | Path):
            with suppress(ValueError):
                yield where, plain_path(Path(given))


def _missing_folders(
    data: dict[Any, Any], named: dict[str, Path], found: dict[Path, ResolvedPath]
) -> Iterator[tuple[str, str]]:
    """What the daemon needs on disk and is not there."""
    if not data.get("inboxes"):
        yield "inboxes", "must name at least one inbox"
    for where, path in named.items():
        if where.startswith(("inboxes", "state_directory")) and found[path].is_folder is False:
            yield where, "is not a folder" + ("" if found[path].exists else ": no such file or folder")


def _cross_checks(data: dict[Any, Any], found: dict[Path, ResolvedPath]) -> Iterator[tuple[str, str]]:
    """What no field can see by itself. ``data`` may be anything; what is wrong in itself is passed over. ``found`` says
    where paths lead, as far as the file systems were asked."""
    inboxes = data.get("inboxes")
    boxes = [box if isinstance(box, dict) else {} for box in inboxes] if isinstance(inboxes, list | tuple) else []
    leading = {
        where: found[path].real if path in found else resolved_paths.by_text(path)
        for where, path in _named_folders(data)
    }
    of_inboxes = [(where, path) for where, path in leading.items() if where.startswith("inboxes")]
    for index, (where, path) in enumerate(of_inboxes):
        yield from ((where, f"overlaps {other}") for other, place in of_inboxes[:index] if _overlap(path, place))
    names = [box.get("name") for box in boxes]
    for index, name in enumerate(names):
        if isinstance(name, str) and names.index(name) != index:
            yield f"inboxes[{index}].name", f"is used by inboxes[{names.index(name)}] already"

    yield from _repeated_destinations(data)
    for where, ours in leading.items():
        if not where.startswith("inboxes"):
            yield from ((where, f"overlaps {inbox}") for inbox, place in of_inboxes if _overlap(ours, place))
    state = data.get("state_directory", Config.model_fields["state_directory"].default)
    socket = data.get("control_socket")
    if socket is None and isinstance(state, str | Path):
        socket = Path(state) / SOCKET_NAME
    if isinstance(socket, str | Path) and len(str(socket).encode(errors="replace")) > _SOCKET_PATH_MAX_BYTES:
        yield "control_socket", f"is too long for a socket: at most {_SOCKET_PATH_MAX_BYTES} bytes"
    yield from config_receiver.cross_checks(data)
    yield from config_metrics.cross_checks(data)
    yield from config_web.cross_checks(data)


def _repeated_destinations(data: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    given = data.get("destinations")
    names = [one.get("name") if isinstance(one, dict) else None for one in given] if isinstance(given, list) else []
    for index, name in enumerate(names):
        if isinstance(name, str) and names.index(name) != index:
            yield f"destinations[{index}].name", f"is used by destinations[{names.index(name)}] already"


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
