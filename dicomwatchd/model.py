"""The nouns of the program and the life of a study: pure data and one table of transitions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dicomwatchd.errors import DicomwatchdError, InvalidUid

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
UID_MAX_LENGTH = 64


class Uid(str):
    """A checked DICOM UID (PS3.5 section 9.1): digits and dots only, at most 64 characters.

    Whatever builds an object key or a path takes this type, so an unchecked value cannot become one.
    Components with leading zeros are let through as they stand: they occur in the wild, are unambiguous as
    text and are safe in a path. Raises InvalidUid.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Uid:
        if isinstance(value, Uid):
            return value
        if len(value) > UID_MAX_LENGTH:
            raise InvalidUid(f"a UID of {len(value)} characters; at most {UID_MAX_LENGTH} are allowed")
        if not _UID.match(value):
            raise InvalidUid("a UID is empty or contains something other than digits and single dots")
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What the kernel says of a file's content; a change of any field means other bytes may be there."""

    dev: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileIdentity:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def same_but_ctime(self, other: FileIdentity) -> bool:
        """Equal up to ctime: a rename moves ctime and nothing else."""
        return (self.dev, self.inode, self.size_bytes, self.mtime_ns) == (
            other.dev,
            other.inode,
            other.size_bytes,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Pieces:
    """The SHA-256 of each piece of a file, in their order; all are of the same length, but the last may be shorter."""

    piece_bytes: int
    sha256s: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """The SHA-256 (lower-case hex) of a whole file, and its length; that of its pieces where it was hashed in these."""

    sha256: str
    size_bytes: int
    pieces: Pieces | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DataSetDigest:
    """Two SHA-256 (lower-case hex) of a file's data set, whatever its file meta information says and however its
    lengths are written: of all of it, and of its pixel data or what it has in their place. ``data_set_sha256`` is "" of
    a file whose data set cannot be read to its end, ``content_sha256`` of one that has no such element."""

    data_set_sha256: str
    content_sha256: str


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """What of a SOP Instance's header the archive goes by (PS3.3 C.12.1, PS3.10 section 7.1).

    ``repairs`` says in plain words what was done to make a value usable ("study UID: trailing NUL dropped").
    ``damage`` says what is missing or wrong of the data set and where, in plain words without any value of the file; ""
    of a file that is whole, or of which it cannot be told.
    """

    study_uid: Uid
    series_uid: Uid
    sop_instance_uid: Uid
    sop_class_uid: str
    transfer_syntax_uid: str
    repairs: tuple[str, ...] = ()
    damage: str = ""


#: What a text may be padded with, and what only separates the components of a name.
BLANK = " \0^="

#: What begins a note in ``repairs`` of an instance of which nobody can tell whether it is whole.
CANNOT_TELL = "completeness cannot be told"

#: DICOM JSON (PS3.18 Annex F): tag "GGGGEEEE" -> {"vr": ..., "Value": [...]}
DicomJson = dict[str, dict[str, object]]

#: What the attributes of a study's series may take on record, as JSON: those of 5,000 usual series. Beyond it a series
#: has no more than its modality there; its files have everything.
SERIES_ATTRIBUTES_LIMIT_BYTES = 8 * 1024**2
#: The flag of such a study.
LIMITED = "series-attributes-limited"


def has_value(element: dict[str, object]) -> bool:
    """Whether an attribute of DICOM JSON says anything: empty text, and a name of separators, do not."""
    values = element.get("Value")
    return isinstance(values, list) and any(_says_something(value) for value in values)


def _says_something(value: object) -> bool:
    if isinstance(value, dict):  # a name, or an item of a sequence
        return any(_says_something(inner) for inner in value.values())
    return bool(value.strip(BLANK)) if isinstance(value, str) else value is not None


def first_values(earlier: DicomJson, later: DicomJson) -> DicomJson:
    """The attributes of both; of each the first that has a value. Nothing that is in ``earlier`` drops out, and what
    ``later`` adds has a value: an empty attribute on record would stand in the way of one to come, for a program that
    takes what was recorded first."""
    found = {tag: element for tag, element in later.items() if has_value(element)}
    return {**found, **{tag: element for tag, element in earlier.items() if tag not in found or has_value(element)}}


def least(series_attributes: DicomJson) -> DicomJson:
    """What is kept of a series in any case."""
    return {tag: element for tag, element in series_attributes.items() if tag == "00080060"}


class StudyState(StrEnum):
    ARRIVING = "arriving"
    QUEUED = "queued"
    UPLOADING = "uploading"
    VERIFYING = "verifying"
    RECORDING = "recording"
    PURGING = "purging"
    ARCHIVED = "archived"
    PARKED = "parked"


class StudyEvent(StrEnum):
    QUIET = "quiet"  # no file of the study has changed for its quiet time
    EMPTIED = "emptied"  # quiet, and no file of it is left to ship
    CLAIMED = "claimed"  # a shipment takes the study up
    STORED = "stored"  # every file of the shipment is in the store, as far as the store says
    VERIFIED = "verified"  # a fresh read of the store agrees for every object
    MISMATCH = "mismatch"  # an object holds other bytes: send it again under the next free key
    RECORDED = "recorded"  # manifest and catalogue hold the revision
    FINISHED = "finished"  # every local file is deleted, or kept as configured
    CHANGED = "changed"  # a file of the study is new or has changed
    RELEASED = "released"  # the shipment stopped half-way: error with retry, drain or restart
    FAILED = "failed"  # an error that will not heal by itself
    RETRY = "retry"  # the operator asks for another try
    DUE = "due"  # a kept file has reached its time of deletion


class FileState(StrEnum):
    READY = "ready"  # settled, header read, waits for a shipment of its study
    STORED = "stored"  # sent; digest and receipt are known; not yet proven
    DELETING = "deleting"  # deletion authorised and on record; may be staged, or gone
    KEPT = "kept"  # archived, and stays here (for good, or until it is due)
    QUARANTINED = "quarantined"  # cannot be archived; stays where it is
    IGNORED = "ignored"  # known for what it is and left: a DICOMDIR


#: Being worked on by a shipment. Every stage can be repeated, so all of them go back to QUEUED.
SHIPPING = frozenset({StudyState.UPLOADING, StudyState.VERIFYING, StudyState.RECORDING, StudyState.PURGING})

_S, _E = StudyState, StudyEvent
TRANSITIONS: Mapping[tuple[StudyState, StudyEvent], StudyState] = {
    (_S.ARRIVING, _E.CHANGED): _S.ARRIVING,
    (_S.ARRIVING, _E.QUIET): _S.QUEUED,
    (_S.ARRIVING, _E.EMPTIED): _S.ARCHIVED,
    (_S.QUEUED, _E.CLAIMED): _S.UPLOADING,
    (_S.QUEUED, _E.CHANGED): _S.ARRIVING,
    (_S.UPLOADING, _E.STORED): _S.VERIFYING,
    (_S.UPLOADING, _E.CHANGED): _S.ARRIVING,
    (_S.VERIFYING, _E.VERIFIED): _S.RECORDING,
    (_S.VERIFYING, _E.MISMATCH): _S.UPLOADING,
    (_S.VERIFYING, _E.CHANGED): _S.ARRIVING,
    (_S.RECORDING, _E.RECORDED): _S.PURGING,
    (_S.RECORDING, _E.CHANGED): _S.ARRIVING,
    # A change while files are being deleted does not stop the deletion of the others, each of which has its own
    # proof: the new file waits for the next revision.
    (_S.PURGING, _E.CHANGED): _S.PURGING,
    (_S.PURGING, _E.FINISHED): _S.ARCHIVED,
    (_S.ARCHIVED, _E.CHANGED): _S.ARRIVING,
    (_S.ARCHIVED, _E.DUE): _S.QUEUED,
    (_S.PARKED, _E.CHANGED): _S.ARRIVING,
    (_S.PARKED, _E.RETRY): _S.QUEUED,
    (_S.QUEUED, _E.RETRY): _S.QUEUED,
    **{(state, _E.RELEASED): _S.QUEUED for state in SHIPPING},
    **{(state, _E.FAILED): _S.PARKED for state in SHIPPING},
}


def advance(state: StudyState, event: StudyEvent) -> StudyState:
    """The state that follows. Raises DicomwatchdError when the event cannot happen in this state."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise DicomwatchdError(f"event {event} cannot happen to a study that is {state}") from None
