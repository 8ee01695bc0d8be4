"""The configuration: YAML in, frozen models out, every problem at once with its path in the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dicomwatchd.errors import ConfigError

DEFAULT_PATH = Path("/etc/dicomwatchd/config.yaml")

#: An inbox's name is in logs and statistics, so it is a short plain word and no path.
INBOX_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"

_DURATION = re.compile(r"(\d+)\s*([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DeleteAfter(_Model):
    """Keep the local file for this long after it was archived, then prove again and delete."""

    delete_after: str = Field(description="A whole number and a unit: s, m, h, d or w.", examples=["7d"])

    @field_validator("delete_after")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        if not _DURATION.match(value):
            raise ValueError("must be a whole number and a unit, such as 12h or 7d")
        return value

    @property
    def seconds(self) -> int:
        match = _DURATION.match(self.delete_after)
        assert match is not None  # noqa: S101  the validator has seen to it
        return int(match[1]) * _SECONDS[match[2]]


AfterArchive = Literal["delete", "keep"] | DeleteAfter


class Inbox(_Model):
    """A folder that modalities write into."""

    name: str = Field(
        pattern=f"^{INBOX_NAME}$",
        description="Short name for logs and statistics. Must not hold patient data.",
    )
    path: Path
    watch: Literal["events", "poll"] = Field(
        "events", description="poll for network shares, which send no events for changes made elsewhere"
    )
    settle_seconds: float = Field(2, ge=0, description="A file that has not changed for this long is complete")
    quiet_seconds: float = Field(60, ge=0, description="A study with no new or changed file for this long is shipped")
    after_archive: AfterArchive = "delete"
    include: tuple[str, ...] = Field(("*",), description="Globs on the file's name; at least one must match")
    exclude: tuple[str, ...] = Field((), description="Globs on the file's name or its path below the inbox")


class Encryption(_Model):
    mode: Literal["aws:kms", "AES256", "store-default"] = "store-default"
    key_id: str | None = None

    @model_validator(mode="after")
    def _key_only_with_kms(self) -> Encryption:
        if self.key_id is not None and self.mode != "aws:kms":
            raise ValueError("key_id is for mode aws:kms only")
        return self


class _Endpoint(_Model):
    region: str | None = None
    endpoint_url: str | None = None
    ca_file: Path | None = Field(None, description="Certificates of a private CA, in PEM form")
    insecure_http: bool = Field(False, description="Allow an endpoint_url without TLS")

    @model_validator(mode="after")
    def _tls_unless_allowed(self) -> _Endpoint:
        url = self.endpoint_url
        if url is not None and not re.match(r"https?://[^/\s@]+/?\Z", url):
            raise ValueError("endpoint_url: must be https://HOST[:PORT] or http://HOST[:PORT]")
        if url is not None and url.startswith("http://") and not self.insecure_http:
            raise ValueError("endpoint_url: plain http is refused; use https, or set insecure_http: true")
        return self


class S3Settings(_Endpoint):
    kind: Literal["s3"]
    bucket: str = Field(min_length=1)
    prefix: str = ""
    encryption: Encryption = Encryption()

    @field_validator("prefix")
    @classmethod
    def _prefix_is_a_folder(cls, value: str) -> str:
        if not re.match(r"(?:[A-Za-z0-9!_.*'()-]+/)*\Z", value) or ".." in value:
            raise ValueError("must be empty, or plain words each ending in '/', such as radiology/")
        return value


class DirectorySettings(_Model):
    kind: Literal["directory"]
    path: Path


class DynamoDBSettings(_Endpoint):
    kind: Literal["dynamodb"]
    table: str = Field(min_length=3)


class SqliteSettings(_Model):
    kind: Literal["sqlite"]
    path: Path


class Archive(_Model):
    store: Annotated[S3Settings | DirectorySettings, Field(discriminator="kind")]
    catalogue: Annotated[DynamoDBSettings | SqliteSettings, Field(discriminator="kind")]


class Config(_Model):
    """The whole file. A configuration for `fetch` alone needs only ``archive``."""

    archive: Archive
    state_directory: Path = Path("/var/lib/dicomwatchd")
    control_socket: Path | None = Field(None, description="Default: control.sock in the state directory")
    workers: int = Field(16, ge=1, le=256, description="Threads that send, verify and delete files")
    scan_interval_seconds: float = Field(60, gt=0, description="Time between two full looks at each inbox")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    inboxes: tuple[Inbox, ...] = ()

    @property
    def socket_path(self) -> Path:
        return self.control_socket or self.state_directory / "control.sock"


def load(path: Path) -> Config:
    """Read and check a configuration file's own text. Raises ConfigError with all problems."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([("", f"cannot be read: {os.strerror(error.errno or 0)}")], source=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError([("", "is not UTF-8 text")], source=str(path)) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise ConfigError([(where, "is not valid YAML")], source=str(path)) from error
    return parse(data, source=str(path))


def parse(data: Any, *, source: str | None = None) -> Config:
    """A configuration from plain data. Raises ConfigError with all problems."""
    if not isinstance(data, dict):
        raise ConfigError([("", "must be a mapping with archive: and inboxes:")], source=source)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_problem(item) for item in error.errors()], source=source) from error
    problems = _cross_checks(config)
    if problems:
        raise ConfigError(problems, source=source)
    return config


def check_folders(config: Config) -> None:
    """Whether what the daemon needs on disk is there. Raises ConfigError with all problems."""
    problems = []
    if not config.inboxes:
        problems.append(("inboxes", "must name at least one inbox"))
    for index, inbox in enumerate(config.inboxes):
        if not inbox.path.is_dir():
            problems.append((f"inboxes[{index}].path", "is not a folder"))
    if not config.state_directory.is_dir():
        problems.append(("state_directory", "is not a folder"))
    if problems:
        raise ConfigError(problems)


def _problem(item: Any) -> tuple[str, str]:
    kinds = {"s3", "directory", "dynamodb", "sqlite", "DeleteAfter"}
    where = ""
    for part in item["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif part not in kinds and not part.startswith(("literal[", "function-")):
            where += f".{part}" if where else part
    kind, context = item["type"], item.get("ctx", {})
    reasons = {
        "missing": "is missing",
        "extra_forbidden": "is not a known key",
        "greater_than_equal": f"must be >= {context.get('ge')}",
        "greater_than": f"must be > {context.get('gt')}",
        "less_than_equal": f"must be <= {context.get('le')}",
        "literal_error": f"must be {context.get('expected')}",
        "union_tag_not_found": "kind is missing",
        "union_tag_invalid": f"kind must be one of {context.get('expected_tags')}",
        "value_error": str(context.get("error")),
    }
    reason = reasons.get(kind, item["msg"])
    # A model validator speaks of the whole model and names the field itself.
    named = re.match(r"(endpoint_url|key_id): (.*)", reason)
    if named and not where.endswith(named[1]):
        where, reason = f"{where}.{named[1]}" if where else named[1], named[2]
    return where, reason


def _cross_checks(config: Config) -> list[tuple[str, str]]:
    problems = []
    places = [(f"inboxes[{i}].path", Path(os.path.realpath(box.path))) for i, box in enumerate(config.inboxes)]
    for i, (where, path) in enumerate(places):
        if not config.inboxes[i].path.is_absolute():
            problems.append((where, "must be an absolute path"))
        for other_where, other in places[:i]:
            if path == other or path.is_relative_to(other) or other.is_relative_to(path):
                problems.append((where, f"overlaps {other_where}"))
    names = [box.name for box in config.inboxes]
    problems += [
        (f"inboxes[{i}].name", f"is used by inboxes[{names.index(name)}] already")
        for i, name in enumerate(names)
        if names.index(name) != i
    ]
    own = [("state_directory", config.state_directory)]
    if isinstance(config.archive.store, DirectorySettings):
        own.append(("archive.store.path", config.archive.store.path))
    if isinstance(config.archive.catalogue, SqliteSettings):
        own.append(("archive.catalogue.path", config.archive.catalogue.path))
    for where, path in own:
        if not path.is_absolute():
            problems.append((where, "must be an absolute path"))
        real = Path(os.path.realpath(path))
        for inbox_where, inbox in places:
            if real == inbox or real.is_relative_to(inbox) or inbox.is_relative_to(real):
                problems.append((where, f"overlaps {inbox_where}"))
    return problems
