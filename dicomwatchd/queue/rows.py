"""The rows of the state database as the rest of the program sees them."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from dicomwatchd.localfiles import FolderGuard, open_root
from dicomwatchd.model import DicomJson, FileIdentity, FileState, InstanceHeader, StudyEvent, StudyState, Uid
from dicomwatchd.patients import Identity, Order, from_document
from dicomwatchd.rights import Asker

_Said = TypeVar("_Said", Identity, Order)

#: ``code`` of a kept file that would be deleted if a read lease were to be had on it.
NO_LEASE = "no-lease"
#: ``code`` of a kept file that would be deleted if the store did not end the archived object by itself.
EXPIRING = "expiring"
#: ``code`` of a kept file that is no copy of the archive's object but the object itself.
OWN_OBJECT = "own-object"
#: ``code`` of a kept file that whoever asked for its deletion may not delete.
NO_RIGHT = "no-right"
#: ``code`` of a kept file that stands in an inbox which is another folder than was confirmed.
EXCHANGED = "exchanged"
#: ``code`` of a kept file whose study is held until somebody has released it.
HELD = "held"
#: ``code`` of a kept file that is damaged, and of whose instance the archive has no whole copy.
DAMAGED = "damaged"
#: In place of a digest in the table of identities: there are more than are kept.
MORE = "more"
#: Files that a study still has to ship.
WAITING = (FileState.READY, FileState.STORED)
#: ``kind`` of a source that is an inbox's former path, where a crash may have left files staged.
LEFT = "left"
#: ``code`` in quarantine of what could not be looked at: an entry, or a folder, and no file that was ever seen.
UNREADABLE = "unreadable"
#: ``code`` of an ignored file that lists what a medium holds; the others are not DICOM (see intake.dicom.other).
DICOMDIR = "dicomdir"
#: The code of one that an earlier version has passed over unread: the intake looks at it again.
OLD_DICOMDIR = "dicomdir-before"


class ListedStudies(NamedTuple):
    """What a DICOMDIR lists: the SOP Instance UIDs by study, ascending; ``sha256`` is the DICOMDIR's."""

    sha256: str
    by_study: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that files come from. ``path`` is absolute. One that was handed in (kind "upload") is opened by
    ``opening`` alone, and its path is only shown; whoever asked for it is ``asker``."""

    source_id: int
    name: str
    path: bytes
    kind: str
    delete_local: bool
    opening: Callable[[], int] | None = field(default=None, compare=False, repr=False)
    asker: Asker | None = field(default=None, compare=False, repr=False)

    def open(self) -> int:
        """A descriptor of the folder, the caller's own. Raises OSError."""
        if self.opening is not None:
            return self.opening()
        if self.kind == "upload":
            raise OSError(errno.ESTALE, "this folder is no longer open")
        return open_root(self.path)

    @property
    def guard(self) -> FolderGuard | None:
        """What tells of the folders below whether they may be entered on behalf of whoever asked."""
        return None if self.asker is None else self.asker.require_entered


class Root(NamedTuple):
    """Which folder it is that stands under a path. ``file_system`` tells the file system under whatever device number
    it is mounted, by one id or several ("kind=id", joined by "+"); it is empty where nothing does."""

    device: int
    inode: int
    file_system: str
    #: See `localfiles.birth`: an inode's number is given again.
    birth: str = ""

    @property
    def text(self) -> str:
        """For the state."""
        return f"{self.device}:{self.inode}:{self.file_system}:{self.birth}"

    @classmethod
    def of(cls, text: str) -> Root:
        """From its `text`; that of an older state tells no birth."""
        device, inode, file_system, *birth = text.split(":")
        return cls(int(device), int(inode), file_system, *birth)

    def is_same(self, other: Root) -> bool:
        if self.inode != other.inode or _is_another_birth(self.birth, other.birth):
            return False
        if self.file_system and other.file_system:
            return _is_same_file_system(self.file_system, other.file_system)
        return self.device == other.device


#: What tells file systems apart, the surest first.
_IDS = ("uuid", "udev", "fsid", "from", "whole")


def _is_same_file_system(one: str, other: str) -> bool:
    """The surest of the kinds that both have decides: another kernel tells more, or less. An older state has one id
    without a kind."""
    mine, its = _ids(one), _ids(other)
    for kind in _IDS:
        if kind in mine and kind in its:
            return mine[kind] == its[kind]
    return ("" in mine or "" in its) and not set(mine.values()).isdisjoint(its.values())


def _ids(text: str) -> dict[str, str]:
    return {kind: known for kind, _, known in (part.rpartition("=") for part in text.split("+"))}


def _is_another_birth(one: str, other: str) -> bool:
    """By what both tell: 0 stands for what a kernel did not."""
    return any(
        mine != its and "0" not in (mine, its) for mine, its in zip(one.split("/"), other.split("/"), strict=False)
    ) and bool(one and other)


class OnRecord(NamedTuple):
    """What is on record of a study and a series of it that a file need not say once more: the tags that have a value,
    and whether patient and order are known as this file has them."""

    study_tags: frozenset[str]
    series_tags: frozenset[str]
    knows_identity: bool
    knows_order: bool


class UploadedFile(NamedTuple):
    """A file of an upload, as it is on record: ``path`` below the folder."""

    path: bytes
    state: FileState
    code: str | None
    sop_instance_uid: str | None


class TrackedFile(NamedTuple):
    """What a look at a directory is compared with. ``identity`` is `identity_text`."""

    file_id: int
    identity: str
    state: FileState
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A settled file, new or changed, as the intake found it: an instance of a study, junk, or a DICOMDIR.

    ``header`` is None for junk (``code``, ``reason`` say why; state QUARANTINED) and for what is IGNORED.
    """

    dir: bytes
    name: bytes
    identity: FileIdentity
    state: FileState
    header: InstanceHeader | None = None
    patient_id: str = ""
    study_attributes: DicomJson | None = None
    series_attributes: DicomJson | None = None
    #: What it says of patient and order, each behind what tells it from others' ("" where it says nothing).
    patient: tuple[str, Identity] | None = None
    order: tuple[str, Order] | None = None
    #: What it says of how many there should be (`study_signs.Signs.text`).
    signs: str | None = None
    code: str | None = None
    reason: str | None = None
    #: Of a DICOMDIR that could be read.
    listed: ListedStudies | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a study on its way. ``receipt`` (the archive's own text, kept as it is) and ``sha256`` are there once
    it was sent, ``verified_by`` once this claim has verified it; ``verified_at`` is when the store was asked for that
    (seconds since the epoch). ``signs`` (`study_signs.Signs.text`) is None of a file that an earlier version has read.
    """

    file_id: int
    source_id: int
    dir: bytes
    name: bytes
    identity: FileIdentity
    header: InstanceHeader
    key_attempt: int
    sha256: str | None
    receipt: str | None
    verified_by: str | None
    verified_at: float | None
    due_at: float | None
    signs: str | None = None


class Proven(NamedTuple):
    """That a fresh read of the store, asked for at ``asked_at`` (seconds since the epoch), has proved a file's object;
    ``receipt`` where it is to take the place of the file's: the object's current version is another one by now."""

    file: LocalFile
    verified_by: str
    asked_at: float
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a study; void as soon as the study's token is another one. ``last_code`` is how the attempt
    before this one has failed, if it has; ``blamed`` how many have while other studies passed."""

    study_uid: Uid
    token: int
    attempts: int
    revision: int
    last_code: str | None = None
    blamed: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    study_uid: str
    old: StudyState
    event: StudyEvent
    new: StudyState


def identity_text(identity: FileIdentity) -> str:
    i = identity
    return f"{i.dev}:{i.inode}:{i.size_bytes}:{i.mtime_ns}:{i.ctime_ns}"


def identity_of(text: str) -> FileIdentity:
    return FileIdentity(*map(int, text.split(":")))


def said_by(kind: type[_Said], row: sqlite3.Row) -> _Said:
    """What a row of the identities says; that of an older state has the study's attributes."""
    raw = json.loads(row["said"])
    return kind.of(raw) if row["digest"] == "before" else from_document(kind, raw)


def local_file(row: sqlite3.Row, token: int) -> LocalFile:
    verified = row["evidence"] is not None and row["evidence_token"] == token
    return LocalFile(
        file_id=row["file_id"],
        source_id=row["source_id"],
        dir=row["dir"],
        name=row["name"],
        identity=identity_of(row["identity"]),
        header=InstanceHeader(
            study_uid=Uid(row["study_uid"]),
            series_uid=Uid(row["series_uid"]),
            sop_instance_uid=Uid(row["sop_instance_uid"]),
            sop_class_uid=row["sop_class_uid"],
            transfer_syntax_uid=row["transfer_syntax_uid"],
            repairs=() if row["repairs"] == "[]" else tuple(json.loads(row["repairs"])),
            damage=row["damage"],
        ),
        key_attempt=row["key_attempt"],
        sha256=row["sha256"],
        receipt=row["receipt"],
        verified_by=row["evidence"] if verified else None,
        verified_at=row["evidence_at"] if verified else None,
        due_at=row["due_at"],
        signs=row["signs"],
    )
