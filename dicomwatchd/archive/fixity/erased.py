"""What is left of studies that were erased: what an erasure that was interrupted has not reached, and what came too
late. It is no part of the archive, and somebody wants it gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomwatchd.archive import keys
from dicomwatchd.archive.fixity.seen import Seen
from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.proof.verification import may_be_on_its_way
from dicomwatchd.archive.stores import withheld
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.model import Uid

ARCHIVED_AGAIN = (
    "it is from before the study was erased; the study was archived again since, and would be erased with it"
)


class CannotTell(Exception):
    """The record of a study's erasure cannot be read: nothing can be said of the study. Its text may be logged."""


@dataclass(frozen=True, slots=True)
class Erased:
    """The studies that were erased when a run began, each with the number of its newest erasure. A record is read only
    where something of its study is met with."""

    store: ObjectStore
    numbers: Mapping[Uid, int]

    @classmethod
    def listed(cls, store: ObjectStore) -> Erased:
        """One walk through the records' keys. Raises Transient, Permanent, and Fatal where they may not be listed."""
        return cls(store, dict(erasures.numbers(store)))

    def of(self, study: Uid) -> Erasure | None:
        """Raises CannotTell, Transient."""
        number = self.numbers.get(study)
        return None if number is None else self._load(study, number)

    def since(self, study: Uid) -> Erasure | None:
        """The newest erasure, where it is newer than those: it began while this runs. Raises as `of`."""
        number = erasures.newest_number(self.store, study)
        return self._load(study, number) if number > self.numbers.get(study, 0) else None

    def _load(self, study: Uid, number: int) -> Erasure:
        try:
            return erasures.load(self.store, study, number)
        except withheld.REFUSALS as error:
            raise CannotTell("the record of the study's erasure may not be read") from error
        except Transient as error:
            if error.endpoint is not None:
                raise
            raise CannotTell(error.message) from error
        except Permanent as error:
            raise CannotTell(error.message) from error


@dataclass(frozen=True, slots=True)
class Leavings:
    """What of a study's objects its erasure has left. ``seen_at`` is when they were seen, in seconds since the epoch:
    what was stored shortly before may be on its way, where somebody has released the study. ``is_archived_again``: a
    revision that counts is there."""

    erasure: Erasure
    seen_at: float
    is_archived_again: bool

    def has(self, one: Seen) -> bool:
        """``one`` is listed by no revision that counts."""
        named = keys.parse_manifest(one.key)
        if named is not None:
            return named[1] <= self.erasure.through_revision
        if one.modified_at is not None and one.modified_at <= erased_at(self.erasure):
            return True
        return not self.is_archived_again and not may_be_on_its_way(one.modified_at, self.seen_at)

    @property
    def reason(self) -> str:
        """ "" for that of the finding."""
        return ARCHIVED_AGAIN if self.is_archived_again else ""


def erased_at(erasure: Erasure) -> float:
    """In seconds since the epoch; 0 where the record does not say: then nothing is older."""
    try:
        return datetime.fromisoformat(erasure.erased_at).timestamp()
    except ValueError:
        return 0.0
