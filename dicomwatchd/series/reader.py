"""Reading an archive as a viewer does: a study, and a series with the headers of all its instances.

A series object is in no manifest. Whoever may create objects in the archive could have put a false
one there: false headers, or frames of a file in another order. It can never make a frame out of anything but the bytes
under the manifest's own keys, or another instance's; what it says of a study's, a series' and an instance's UIDs is
compared with the manifest; and whoever wants to go by none, `stored` False, has all of it derived anew.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomwatchd import __version__
from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore, StoredObject
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.fetch.plan import Doubts, Found, look_up
from dicomwatchd.model import Uid
from dicomwatchd.series import objects
from dicomwatchd.series.building import PATIENT, Patience, derive
from dicomwatchd.series.contents import Contents
from dicomwatchd.series.document import Entry, Known, SeriesDocument, name_of
from dicomwatchd.series.shown import Instance, SeriesObject, as_of, entries_of, series_of

_PIECE_BYTES = 1024**2
_STUDIES_KEPT = 64
#: Of series so many instances are kept, of 10 KB each; so many frames take as much as one.
_INSTANCES_KEPT = 12_000
_FRAMES_OF_ONE = 25
#: Of a study so many instances are read ahead at most.
_AHEAD_INSTANCES = 3000
_TRIED_AGAIN_SECONDS = 60.0


@dataclass(slots=True)
class _Known:
    """A study as it was when it was looked at. ``listing`` tells whether it still is that."""

    found: Found
    listing: tuple[tuple[str, str | None, int], ...]
    looked_at: float


@dataclass(frozen=True, slots=True)
class _CachedSeries:
    """A series as of what was ``found`` of its study. ``weight`` is about so many instances' memory."""

    series: SeriesObject
    found: Found
    made_at: float
    has_troubles: bool = field(init=False)
    weight: int = field(init=False)

    def __post_init__(self) -> None:
        every = (*self.series.instances, *self.series.beside)
        object.__setattr__(self, "has_troubles", any(one.trouble is not None for one in every))
        object.__setattr__(self, "weight", sum(1 + one.number_of_frames // _FRAMES_OF_ONE for one in every))


class SeriesReader:
    """Reads one archive; safe to be used from many threads. ``threads`` is how many connections the reading of a series
    takes at once, ``writes`` whether what was derived is written to the store, where the credentials may do so.

    Within ``current_seconds`` of a look a study is taken to be as it was then; after that one listing of its manifests
    says whether it is. ``stored`` False: no series object of the store is gone by. ``directory`` is where large files
    lie, without a name, while they are compared."""

    def __init__(
        self,
        store: ObjectStore,
        catalogue: Catalogue | None = None,
        *,
        threads: int = 8,
        writes: bool = False,
        stored: bool = True,
        current_seconds: float = 10.0,
        directory: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        patience: Patience = PATIENT,
        executor: Callable[[int], Executor] = ThreadPoolExecutor,
    ) -> None:
        self._store, self._catalogue = store, catalogue
        self._threads, self._writes, self._stored = threads, writes, stored
        self._current_seconds = current_seconds
        self._monotonic, self._patience, self._executor = monotonic, patience, executor
        self.contents = Contents(store, directory or Path(tempfile.gettempdir()), patience, self._distrust)
        self._lock = threading.Lock()
        self._studies: OrderedDict[Uid, _Known] = OrderedDict()
        self._series: OrderedDict[tuple[Uid, Uid], _CachedSeries] = OrderedDict()
        self._building: dict[tuple[Uid, Uid], threading.Lock] = {}
        #: Of these a series object was seen to say something else than the files.
        self._distrusted: set[tuple[Uid, Uid]] = set()

    def study(self, study_uid: str) -> Found:
        """What the archive has of a study, manifests that are not in order or not; as it is now. Raises as
        `fetch.plan.look_up`: StudyErased, StudyNotFound (Permanent, codes "study-erased", "study-not-found"),
        Permanent, Transient."""
        study = Uid(study_uid)
        now = self._monotonic()
        with self._lock:
            known = self._studies.get(study)
            if known is not None:
                self._studies.move_to_end(study)
        if known is not None and self._is_current(known, now):
            return known.found
        listing = self._listing(study)
        if known is None or known.listing != listing or not listing:
            doubts = Doubts(lambda _revision, _text: None, lambda _revision, _text: None)
            with self._lock:
                self._studies.pop(study, None)
            known = _Known(look_up(self._store, self._catalogue, study, doubts=doubts), listing, now)
        known.looked_at = now
        with self._lock:
            self._studies[study] = known
            while len(self._studies) > _STUDIES_KEPT:
                self._studies.popitem(last=False)
        return known.found

    def study_at_hand(self, study_uid: Uid) -> Found | None:
        """The same, where it was looked at just now; asks nobody."""
        with self._lock:
            known = self._studies.get(study_uid)
        return known.found if known is not None and self._is_current(known, self._monotonic()) else None

    def _is_current(self, known: _Known, now: float) -> bool:
        return now - known.looked_at < self._current_seconds

    def _listing(self, study: Uid) -> tuple[tuple[str, str | None, int], ...]:
        def shown(one: StoredObject) -> tuple[str, str | None, int]:
            return one.key, one.etag, one.size_bytes

        return tuple(map(shown, self._store.listing(keys.manifests_prefix(study))))

    def series(self, study_uid: str, series_uid: str) -> SeriesObject:
        """A series with what is derived of its instances: as the store has it, or else derived now, which reads all of
        its files. Raises as `study`, Permanent (code "series-not-found"), OutOfReach."""
        study, series = Uid(study_uid), Uid(series_uid)
        found = self.study(study)
        known = self._at_hand(found, series)
        if known is not None:
            return known
        items = [item for item in found.manifest.instances if item.series_uid == series]
        if not items:
            raise Permanent("the study has no such series", code="series-not-found")
        made = self._made_once(found, series, items, derives=True)
        assert made is not None  # noqa: S101  it was derived, or that has raised
        return made

    def read_ahead(self, study_uid: str) -> None:
        """Has the series of a study at hand for whoever is about to ask for them: those that the store has an object
        of, up to so many instances. Nothing is derived. Raises as `study`."""
        found = self.study(study_uid)
        by_series: dict[Uid, list[ManifestInstance]] = {}
        for item in found.manifest.instances:
            by_series.setdefault(item.series_uid, []).append(item)
        room = _AHEAD_INSTANCES
        for series, items in by_series.items():
            room -= len(items)
            if room < 0:
                return
            if self._at_hand(found, series) is None:
                self._made_once(found, series, items, derives=False)

    def _at_hand(self, found: Found, series: Uid) -> SeriesObject | None:
        with self._lock:
            cached = self._series.get((found.manifest.study_uid, series))
        if cached is None or cached.found is not found or self._is_to_be_tried_again(cached):
            return None
        return cached.series

    def _made_once(
        self, found: Found, series: Uid, items: Sequence[ManifestInstance], *, derives: bool
    ) -> SeriesObject | None:
        """By whoever comes first; None where the store has none and none is derived."""
        study, name = found.manifest.study_uid, name_of(items)
        with self._lock:
            building = self._building.setdefault((study, series), threading.Lock())
        with building:
            with self._lock:
                cached = self._series.get((study, series))
            before: Mapping[Known, Entry] = {} if cached is None else entries_of(cached.series)
            if cached is None or cached.series.name != name or self._is_to_be_tried_again(cached):
                made = self._made(found, series, items, name, before, derives=derives)
                if made is None:
                    return None
                cached = _CachedSeries(made, found, self._monotonic())
            elif cached.found is not found:
                cached = _CachedSeries(as_of(cached.series, found), found, cached.made_at)
            self._keep(study, series, cached)
            return cached.series

    def _is_to_be_tried_again(self, cached: _CachedSeries) -> bool:
        """What could not be read before may have been repaired, or restored."""
        return cached.has_troubles and self._monotonic() - cached.made_at >= _TRIED_AGAIN_SECONDS

    def _made(
        self,
        found: Found,
        series: Uid,
        items: Sequence[ManifestInstance],
        name: str,
        before: Mapping[Known, Entry],
        *,
        derives: bool,
    ) -> SeriesObject | None:
        study = found.manifest.study_uid
        stored = objects.Stored(name)
        if self._stored and (study, series) not in self._distrusted:
            stored = objects.find(self._store, study, series, items)
        if stored.document is not None:
            return series_of(found, series, items, name, stored.document.entries, {}, is_stored=True)
        if not derives:
            return None
        with self._executor(self._threads) as pool:
            derived = derive(
                self._store,
                study,
                items,
                lambda item: (item, *found.elsewhere.get(item.content, ())),
                {**before, **stored.entries},
                map=pool.map,
                patience=self._patience,
            )
        if self._writes and len(derived.entries) > len(stored.entries):
            document = SeriesDocument(study, series, derived.entries, f"dicomwatchd {__version__}")
            # Whoever may read alone writes nothing, and a store in trouble has told that already.
            with suppress(Transient, Permanent):
                objects.write(self._store, document, name, found.manifest.revision, stored.attempt)
        return series_of(found, series, items, name, derived.entries, derived.failed, is_stored=False)

    def _keep(self, study: Uid, series: Uid, cached: _CachedSeries) -> None:
        with self._lock:
            self._series[study, series] = cached
            self._series.move_to_end((study, series))
            kept = sum(one.weight for one in self._series.values())
            while len(self._series) > 1 and kept > _INSTANCES_KEPT:
                kept -= self._series.popitem(last=False)[1].weight
            for key in [key for key in self._building if key not in self._series and not self._building[key].locked()]:
                del self._building[key]

    def instance(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> Instance:
        """The content that is shown of a SOP Instance. Raises as `series`, Permanent (code "instance-not-found")."""
        return self.series(study_uid, series_uid).instance(sop_instance_uid)

    def _distrust(self, study: Uid, series: Uid) -> None:
        """The stored object of this series is gone by no more."""
        with self._lock:
            self._distrusted.add((study, series))
            self._series.pop((study, series), None)
