"""Whether a file says anything of its study that is not on record yet: what is asked of every file, so that its
attributes are worked out only where it does."""

from __future__ import annotations

from dicomwatchd.intake.dicom.header import Header
from dicomwatchd.model import Uid
from dicomwatchd.queue.arrivals import Arrivals
from dicomwatchd.queue.rows import OnRecord

_NOTHING = OnRecord(frozenset(), frozenset(), knows_identity=False, knows_order=False)


class Record:
    """What the queue has, and what the batch that is on its way there will add."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._study_tags: dict[Uid, frozenset[str]] = {}
        self._series_tags: dict[tuple[Uid, Uid], frozenset[str]] = {}
        self._said: set[tuple[Uid, str]] = set()
        #: What files of this batch have said, each in all: another one that says the same says nothing new.
        self._seen: set[tuple[bytes | None, ...]] = set()

    def flushed(self) -> None:
        """The batch is on the queue."""
        self._study_tags.clear()
        self._series_tags.clear()
        self._said.clear()
        self._seen.clear()

    def holds_all_of(self, header: Header) -> bool:
        """Whether nothing that this file says is missing. If something is, the file's attributes go with the batch."""
        said = header.said
        if said in self._seen:
            return True
        self._seen.add(said)
        study, series = header.instance.study_uid, header.instance.series_uid
        identity, order = header.identity_digest, header.order_digest
        queued = self._arrivals.on_record(study, series, identity, order)
        known = queued or _NOTHING
        study_tags, series_tags = header.filled_study_tags, header.filled_series_tags
        if (
            (queued is not None or (study, series) in self._series_tags)
            and study_tags <= known.study_tags | self._study_tags.get(study, frozenset())
            and series_tags <= known.series_tags | self._series_tags.get((study, series), frozenset())
            and (not identity or known.knows_identity or (study, identity) in self._said)
            and (not order or known.knows_order or (study, order) in self._said)
        ):
            return True
        self._study_tags[study] = self._study_tags.get(study, frozenset()) | study_tags
        self._series_tags[study, series] = self._series_tags.get((study, series), frozenset()) | series_tags
        self._said.update(((study, identity), (study, order)))
        return False
