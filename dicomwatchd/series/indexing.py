"""Series objects for what is archived already: study after study, those that lack them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dicomwatchd import __version__
from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Permanent, StudyErased, StudyNotFound, Transient
from dicomwatchd.fetch.plan import Doubts, Found, look_up
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map
from dicomwatchd.series import objects
from dicomwatchd.series.building import derive
from dicomwatchd.series.document import SeriesDocument

#: Of what could not be done so much is named.
MOST_PROBLEMS = 1000


class Problem(NamedTuple):
    """``series_uid`` is "" where it is the whole study. ``reason`` has no path and nothing of a patient."""

    study_uid: str
    series_uid: str
    code: str
    reason: str


@dataclass(slots=True)
class IndexReport:
    """``present`` series had their object, ``written`` have it now; of ``incomplete`` ones instances could not be read,
    and the object has the others; ``failed`` ones could not be written. ``gone`` studies were erased, or vanished,
    meanwhile."""

    studies: int = 0
    series: int = 0
    present: int = 0
    written: int = 0
    incomplete: int = 0
    failed: int = 0
    gone: int = 0
    instances_read: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    unnamed_problems: int = 0

    @property
    def has_problems(self) -> bool:
        return bool(self.problems)

    def problem(self, study: str, series: str, error: DicomwatchdError) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(study, series, error.code, error.message))
        else:
            self.unnamed_problems += 1


def every_study(store: ObjectStore) -> Iterator[Uid]:
    """All that the store lists, in the order of keys."""
    for prefix in store.common_prefixes(keys.STUDIES):
        study = keys.parse_study(prefix)
        if study is not None:
            yield study


def index(
    store: ObjectStore,
    catalogue: Catalogue | None,
    studies: Iterable[Uid],
    *,
    map: Map = map,
    progress: Callable[[IndexReport], None] = lambda _: None,
) -> IndexReport:
    """Write the series objects that these studies lack. What has one already costs a listing and a small read; what
    lacks it is read whole. A study or a series in trouble stops no other. It may be interrupted at any time, and run
    beside a daemon or another of its kind. Raises Transient where the store is out of reach, Fatal."""
    report = IndexReport()
    for study in studies:
        report.studies += 1
        try:
            doubts = Doubts(lambda _revision, _text: None, lambda _revision, _text: None)
            found = look_up(store, catalogue, study, doubts=doubts, map=map)
            of_series: dict[Uid, list[ManifestInstance]] = {}
            for item in found.manifest.instances:
                of_series.setdefault(item.series_uid, []).append(item)
            for series, items in of_series.items():
                _one(store, found, series, items, report, map)
                progress(report)
        except (StudyErased, StudyNotFound):
            report.gone += 1
        except Permanent as error:
            report.problem(study, "", error)
        except Transient as error:
            if error.endpoint is not None:
                raise
            report.problem(study, "", error)
        progress(report)
    return report


def _one(
    store: ObjectStore, found: Found, series: Uid, items: list[ManifestInstance], report: IndexReport, map: Map
) -> None:
    """Raises StudyErased, Transient, Fatal."""
    study = found.manifest.study_uid
    report.series += 1
    stored = objects.find(store, study, series, items)
    if stored.document is not None:
        report.present += 1
        return
    derived = derive(
        store,
        study,
        items,
        lambda item: (item, *found.elsewhere.get(item.content, ())),
        stored.entries,
        map=map,
    )
    report.read_bytes += derived.read_bytes
    report.instances_read += len(derived.entries) - sum(1 for known in derived.entries if known in stored.entries)
    if derived.failed:
        report.incomplete += 1
        report.problem(study, series, next(iter(derived.failed.values())))
    if len(derived.entries) <= len(stored.entries):
        return
    document = SeriesDocument(study, series, derived.entries, f"dicomwatchd {__version__}")
    try:
        size_bytes = objects.write(store, document, stored.name, found.manifest.revision, stored.attempt)
    except StudyErased:
        raise
    except Permanent as error:
        report.failed += 1
        report.problem(study, series, error)
        return
    report.written += not derived.failed
    report.written_bytes += size_bytes or 0
