"""What the archive keeps of a study that was erased: that it was, when, by whom and why. Each record is created once
and never changed, under a key apart from the studies.

It holds nothing of the patient, and outlives the study, so that nothing brings it back by itself: a manifest whose
revision is not above ``through_revision`` of the newest record counts no more, whoever still has it, or puts it there
too late.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import checked
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import Buffer, ObjectStore
from dicomwatchd.archive.stores.reading import at_most
from dicomwatchd.errors import NoSuchObject, Permanent, StudyErased, Transient
from dicomwatchd.model import Uid

FORMAT = "dicomwatchd-erasure/1"
END_FORMAT = "dicomwatchd-erasure-end/1"
#: Of the reason that is on record.
BECAUSE_CHARACTERS = 1000
#: So many revisions above the highest that was there count as erased, too: what other sites were about to record. It
#: is far below what `lineage` takes for a plausible gap.
MARGIN_REVISIONS = 100

#: Whoever erases deletes nothing any more after this time.
MOST_SECONDS = 12 * 3600.0
#: And so long after its beginning, by whatever clock, an erasure that has not said so has ended.
ABANDONED_SECONDS = 2 * MOST_SECONDS

_MOST_BYTES = 65536
_TIME = re.compile(r"[0-9T:.+Z-]{1,40}")


class BadErasure(Permanent):
    """What is there is no record of an erasure: damaged, or put there by somebody else."""

    code = "bad-erasure"


@dataclass(frozen=True, slots=True)
class Erasure:
    """``erased_at`` is when it began: UTC, ISO 8601, with "Z". ``because`` is what whoever erased it has given as the
    reason: for people, and for no log, since nobody has checked what is in it. ``uid`` and ``login`` are that person's
    on the machine where the command ran."""

    archive_id: str
    study_uid: Uid
    number: int
    erased_at: str
    because: str
    uid: int
    login: str
    through_revision: int

    @property
    def key(self) -> str:
        return keys.erasure(self.study_uid, self.number)

    def document(self) -> dict[str, Any]:
        return {
            "archive_id": self.archive_id,
            "study_uid": str(self.study_uid),
            "number": self.number,
            "erased_at": self.erased_at,
            "because": self.because,
            "erased_by": {"uid": self.uid, "login": self.login},
            "through_revision": self.through_revision,
        }

    def to_bytes(self) -> bytes:
        return (json.dumps({"format": FORMAT, **self.document()}, sort_keys=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Erasure:
        """Keys of a newer program are passed over. Raises BadErasure."""
        try:
            raw: Any = json.loads(data)
            if raw["format"] != FORMAT:
                raise ValueError("another format")
            by = raw["erased_by"]
            found = cls(
                checked.text(raw["archive_id"]),
                Uid(checked.text(raw["study_uid"])),
                checked.number(raw["number"], 1, keys.HIGHEST_ERASURE),
                _time(raw["erased_at"]),
                checked.text(raw["because"]),
                checked.number(by["uid"], 0, 2**32),
                checked.text(by["login"]),
                checked.number(raw["through_revision"], 0, keys.HIGHEST_REVISION),
            )
        except (ValueError, KeyError, TypeError, RecursionError, Permanent) as error:
            raise BadErasure("the record of a study's erasure cannot be read") from error
        return found

    def error(self) -> StudyErased:
        """For whoever asks for the study, and for a log: the reason is in ``because`` alone, which no log looks at."""
        return StudyErased(
            f"study {self.study_uid} was erased from the archive at {self.erased_at}", because=self.because
        )


def _time(value: object) -> str:
    """As text, which goes into messages: it has the characters of a time and no others."""
    if not _TIME.fullmatch(checked.text(value)):
        raise ValueError("no time")
    return str(value)


def floor_of(erasure: Erasure | None) -> int:
    """The highest revision that counts as erased; 0 where the study never was."""
    return 0 if erasure is None else erasure.through_revision


def unless_erased(record: StudyRecord | None, floor: int) -> StudyRecord | None:
    """What the catalogue has; None where all of that was erased."""
    return None if record is not None and record.revision <= floor else record


def newest_number(store: ObjectStore, study: Uid) -> int:
    """How often the study was erased; 0 for never. One listing. Raises Transient, Permanent."""
    numbers = [
        found[1] for seen in store.listing(keys.erasures_prefix(study)) if (found := keys.parse_erasure(seen.key))
    ]
    return max(numbers, default=0)


def newest(store: ObjectStore, study: Uid) -> Erasure | None:
    """Raises BadErasure, Transient, Permanent."""
    number = newest_number(store, study)
    return load(store, study, number) if number else None


def load(store: ObjectStore, study: Uid, number: int) -> Erasure:
    """Raises BadErasure, Transient, Permanent."""
    key = keys.erasure(study, number)
    data = _read(store, key)
    try:
        found = Erasure.from_bytes(data)
    except BadErasure:
        if _read(store, key) != data:  # damaged on its way here, perhaps
            raise Transient("two reads of an erasure's record differ", code="damaged-on-the-way") from None
        raise
    if found.key != key:
        raise BadErasure("the record of a study's erasure does not match its key")
    return found


def numbers(store: ObjectStore) -> Iterator[tuple[Uid, int]]:
    """Every study that was ever erased, with the number of its newest erasure. Raises Transient, Permanent."""
    last: tuple[Uid, int] | None = None
    for seen in store.listing(keys.ERASED):
        found = keys.parse_erasure(seen.key)
        if found is None:
            continue
        if last is not None and last[0] != found[0]:
            yield last
        last = found
    if last is not None:
        yield last


def create(store: ObjectStore, erasure: Erasure) -> bool:
    """Put the record into the store; False where that number was taken meanwhile. Raises Transient, Permanent."""
    content = Buffer.of(erasure.to_bytes())
    store.put(erasure.key, content)
    try:
        return _read(store, erasure.key) == content.data
    except NoSuchObject as error:
        raise Transient(
            "the store does not hold the erasure's record that was just sent", code="manifest-lost"
        ) from error


def put_end(store: ObjectStore, erasure: Erasure, ended_at: str) -> str:
    """Say that nothing is deleted by this erasure any more, and nothing of the study was left. Returns the key. Raises
    Transient, Permanent."""
    key = keys.erasure_end(erasure.study_uid, erasure.number)
    said = {"study_uid": str(erasure.study_uid), "number": erasure.number, "ended_at": ended_at}
    store.put(key, Buffer.of((json.dumps({"format": END_FORMAT, **said}, sort_keys=True) + "\n").encode("ascii")))
    return key


def has_ended(store: ObjectStore, erasure: Erasure, now: float) -> bool:
    """Whether nothing is deleted by this erasure any more: by its own word, or since it is so old that it was broken
    off, or was written before there was such a word. Until then what is archived anew may be deleted with the rest.
    Raises Transient, Permanent."""
    with suppress(ValueError):  # nobody has checked that it is a time
        if now - datetime.fromisoformat(erasure.erased_at).timestamp() > ABANDONED_SECONDS:
            return True
    return store.head(keys.erasure_end(erasure.study_uid, erasure.number)) is not None


def _read(store: ObjectStore, key: str) -> bytes:
    return at_most(store, key, _MOST_BYTES)
