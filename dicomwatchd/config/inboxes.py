"""What stands in the configuration under ``inboxes``: folders, and what becomes of their files."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from dicomwatchd.config.basics import INBOX_NAME, SHARE, AbsolutePath, Charset, Model, Number

#: Above what any modality makes: whole slides and long films reach tens of GB.
MAX_FILE_BYTES = 64 * 1024**3

#: A study that waits longer is forgotten by whoever could bring what is missing.
LONGEST_WAIT_SECONDS = 7 * 86400

_DURATION = re.compile(r"([0-9]+)\s*([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_SECONDS = 100 * 366 * 86400


class DeleteAfter(Model):
    """Keep the local file for this long after it was archived, then prove again and delete."""

    delete_after: str = Field(description="A whole number and a unit: s, m, h, d or w.", examples=["7d"])
    disk_free_min: str | None = Field(
        None,
        pattern=SHARE,
        description="While less than this share of the inbox's disk is free, files are deleted before their time",
    )
    disk_free_goal: str | None = Field(None, pattern=SHARE, description="Until this share of the disk is free")

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


class Inbox(Model):
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
