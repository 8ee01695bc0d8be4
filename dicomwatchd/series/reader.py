"""Reading an archive as a viewer does: a study, a series with the headers of all its instances, single frames.

Every byte that is handed out was compared: a file with the SHA-256 that the manifest has, a frame with the one that the
series object has. A series object is in no manifest. Whoever may create objects in the archive could have put a false
one there: false headers, or frames of a file in another order. It can never make a frame out of anything but the bytes
under the manifest's own keys, or another instance's; what it says of a study's, a series' and an instance's UIDs is
compared with the manifest; and whoever wants to go by none, `stored` False, has all of it derived anew.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dicomwatchd import __version__
from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import Chunk, ObjectStore, StoredObject
from dicomwatchd.errors import Permanent, Transient
from dicomwatchd.fetch.plan import Doubts, Found, look_up
from dicomwatchd.fetch.sources import BadObject, Source, chunks, first_right, part
from dicomwatchd.fetch.spool import Spool
from dicomwatchd.model import Uid
from dicomwatchd.series import grouping, objects
from dicomwatchd.series.building import PATIENT, Patience, derive
from dicomwatchd.series.document import Entry, Known, SeriesDocument, name_of
from dicomwatchd.series.extract import Bulk, extract, pass_file_meta
from dicomwatchd.series.forward import Forward, inflated
from dicomwatchd.series.grouping import Held
from dicomwatchd.series.pixels import Frame
from dicomwatchd.series.shown import Instance, SeriesObject, as_of, entries_of, series_of
from dicomwatchd.series.unreadable import Unreadable

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
        self.directory = directory or Path(tempfile.gettempdir())
        self._monotonic, self._patience, self._executor = monotonic, patience, executor
        self._lock = threading.Lock()
        self._studies: OrderedDict[Uid, _Known] = OrderedDict()
        self._series: OrderedDict[tuple[Uid, Uid], _CachedSeries] = OrderedDict()
        self._building: dict[tuple[Uid, Uid], threading.Lock] = {}
        #: Of these a series object was seen to say something else than the files.
        self._distrusted: set[tuple[Uid, Uid]] = set()

    # -- studies and series --

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

    # -- bytes --

    def file(self, instance: Instance) -> Generator[bytes, None, None]:
        """The file as it was archived (PS3.10), in pieces. All of it was compared with its SHA-256 before the first is
        handed out. What the key does not give any more is looked for under its recorded version and beside it, as
        `fetch` does. Raises Permanent (code "bad-object") where the store has these bytes nowhere, ColdObject (code
        "cold-storage"), Transient."""
        with closing(Spool(instance.item.size_bytes, self.directory)) as spool:
            self._from_somewhere(instance, lambda source: _filled(spool, self._store, source))
            with spool.reading() as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece

    def held(self, instance: Instance, numbers: Iterable[int]) -> Held:
        """What `frame_values` keeps on this machine while these frames are taken, at most. Raises as it does at
        once."""
        frames = _frames_of(instance, list(numbers))
        if instance.entry is not None and instance.entry.is_deflated:
            return grouping.held_for_inflated(instance.item.size_bytes, frames)
        return grouping.held_for_frames(frames)

    def frames(self, instance: Instance, numbers: Iterable[int]) -> Iterator[bytes]:
        """As `frame_values`, each in memory: for whoever knows how large they are (`Frame.size_bytes`)."""
        return map(b"".join, self.frame_values(instance, numbers))

    def frame_values(self, instance: Instance, numbers: Iterable[int]) -> Iterator[Iterable[bytes]]:
        """Frames as they are stored, in pieces, in the order asked for; the first has number 1. Each is compared with
        its SHA-256 before its first piece is given, and its pieces are to be taken before the next is asked for;
        neighbours are read together, and large ones by way of a temporary file. Raises at once Permanent (codes
        "no-frames" where they cannot be told apart, "no-such-frame"), and while they are taken as `file`."""
        wanted = list(numbers)
        return self._checked_frames(instance, wanted, _frames_of(instance, wanted))

    def _checked_frames(self, instance: Instance, numbers: list[int], frames: list[Frame]) -> Iterator[Iterable[bytes]]:
        done = 0
        assert instance.entry is not None  # noqa: S101  whose frames are these?
        for group in [frames] if instance.entry.is_deflated else grouping.together(frames):
            try:
                found = self._group(instance, group)
            except BadObject:
                # It may be the series object that is wrong, and not the file.
                anew = self._anew(instance)
                if anew.entry == instance.entry:
                    raise
                yield from self._checked_frames(anew, numbers[done:], _frames_of(anew, numbers[done:]))
                return
            yield from found
            done += len(group)

    def _group(self, instance: Instance, group: Sequence[Frame]) -> Iterator[Iterable[bytes]]:
        """All of them compared. Raises as `_from_somewhere`."""
        if instance.entry is not None and instance.entry.is_deflated:
            return self._out_of_deflated(instance, group)
        if not grouping.is_in_memory(group):  # which one frame alone is
            return self._spooled(instance, group[0])
        return self._read_together(instance, group)

    def _anew(self, instance: Instance) -> Instance:
        """With what its file says now; the stored series object is gone by no more if that is something else."""
        item = instance.item
        entry = Entry.of(item, extract(self.file(instance), item.size_bytes, item.transfer_syntax_uid))
        if entry != instance.entry:
            with self._lock:
                self._distrusted.add((instance.study_uid, item.series_uid))
                self._series.pop((instance.study_uid, item.series_uid), None)
        return replace(instance, entry=entry)

    def bulk(self, instance: Instance, bulk: Bulk) -> Iterator[bytes]:
        """A value that is not in the JSON, of ``instance.entry.bulk``, as it is stored. It has no hash of its own: the
        whole file is read and compared. Raises as `file`."""
        assert instance.entry is not None  # noqa: S101  where else would it be from
        file = Forward(self.file(instance))
        data = Forward(_inflated(file, instance)) if instance.entry.is_deflated else file
        data.skip(bulk.offset_bytes)
        for piece in data.pieces(bulk.length_bytes):
            yield bytes(piece)

    def _read_together(self, instance: Instance, group: Sequence[Frame]) -> Iterator[Iterable[bytes]]:
        begin, end = grouping.span(group)
        found: dict[Frame, bytes] = {}

        def read(source: Source) -> None:
            data = b"".join(self._range(source, begin, end))
            for frame in group:
                if frame not in found:
                    raw = b"".join(data[offset - begin : offset - begin + length] for offset, length in frame.pieces)
                    if hashlib.sha256(raw).hexdigest() == frame.sha256:
                        found[frame] = raw
            if any(frame not in found for frame in group):
                raise BadObject("frames in the stored object differ from the recorded ones")

        self._from_somewhere(instance, read)
        return ([found[frame]] for frame in group)

    def _spooled(self, instance: Instance, frame: Frame) -> Iterator[Iterable[bytes]]:
        """One frame, of any size."""
        begin, end = grouping.span([frame])
        with ExitStack() as stack:
            spool = stack.enter_context(closing(Spool(frame.size_bytes, self.directory)))

            def read(source: Source) -> None:
                spool.rewind()
                _fill(spool, Forward(self._range(source, begin, end), sha256="?"), begin, frame)

            self._from_somewhere(instance, read)
            stack.pop_all()  # it is closed by who takes it
        return _in_pieces(spool, [(0, frame.size_bytes)])

    def _out_of_deflated(self, instance: Instance, group: Sequence[Frame]) -> Iterator[Iterable[bytes]]:
        """Frames of a deflated file, in any order. It is read, compared and inflated once for all of them: nothing less
        can be done for one."""
        in_order = sorted(set(group), key=lambda frame: frame.pieces[0][0])
        places: dict[Frame, tuple[int, int]] = {}
        size_bytes = 0
        for frame in in_order:
            places[frame] = size_bytes, frame.size_bytes
            size_bytes += frame.size_bytes
        with ExitStack() as stack:
            spool = stack.enter_context(closing(Spool(size_bytes, self.directory)))
            file = stack.enter_context(closing(self.file(instance)))
            data = Forward(_inflated(Forward(file), instance), sha256="?")
            for frame in in_order:
                _fill(spool, data, 0, frame)
            file.close()
            stack.pop_all()
        return _in_pieces(spool, [places[frame] for frame in group])

    def _range(self, source: Source, begin: int, end: int) -> Iterator[Chunk]:
        return part(self._store, source, begin, end - begin)

    def _from_somewhere(self, instance: Instance, read: Callable[[Source], None]) -> None:
        """From the first of its places where that goes well. Raises BadObject, ColdObject, Transient."""
        first_right(
            self._store, instance.study_uid, instance.places, lambda source: self._patience(partial(read, source))
        )


def _frames_of(instance: Instance, numbers: Sequence[int]) -> list[Frame]:
    """Raises Permanent (codes "no-frames", "no-such-frame"), and why the instance could not be read."""
    pixels = None if instance.entry is None else instance.entry.pixels
    if pixels is None or not pixels.frames:
        raise instance.trouble or Permanent(instance.why_no_frames, code="no-frames")
    if any(not 1 <= number <= len(pixels.frames) for number in numbers):
        raise Permanent("the instance has no such frame", code="no-such-frame")
    return [pixels.frames[number - 1] for number in numbers]


def _fill(spool: Spool, data: Forward, begin: int, frame: Frame) -> None:
    """With a frame, out of bytes of which the first stands at ``begin``. Raises BadObject where they are not it."""
    digest = hashlib.sha256()
    for offset, length in frame.pieces:
        data.skip(offset - begin - data.at)
        for piece in data.pieces(length):
            digest.update(piece)
            spool.write(piece)
    if digest.hexdigest() != frame.sha256:
        raise BadObject("a frame of the stored object differs from the recorded one")


def _in_pieces(spool: Spool, places: Sequence[tuple[int, int]]) -> Iterator[Iterable[bytes]]:
    """A value for each offset and length. The spool is closed behind the last."""
    with closing(spool), spool.reading() as file:
        for offset, length in places:
            yield _piece_by_piece(file, offset, length)


def _piece_by_piece(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    while length > 0 and (piece := file.read(min(length, _PIECE_BYTES))):
        length -= len(piece)
        yield piece


def _inflated(file: Forward, instance: Instance) -> Iterator[bytes]:
    """Raises BadObject, where the file is not of the form that the series object says, too."""
    try:
        pass_file_meta(file)
        yield from inflated(file, instance.item.size_bytes)
    except Unreadable as error:
        raise BadObject("the file cannot be inflated") from error


def _filled(spool: Spool, store: ObjectStore, source: Source) -> None:
    """Raises BadObject where these are not the recorded bytes."""
    spool.rewind()
    digest = hashlib.sha256()
    size_bytes = 0
    for chunk in chunks(store, source):
        size_bytes += len(chunk)
        if size_bytes > source.item.size_bytes:
            raise BadObject("the stored object is longer than recorded")
        digest.update(chunk)
        spool.write(chunk)
    if size_bytes != source.item.size_bytes or digest.hexdigest() != source.item.sha256:
        raise BadObject("the stored object's bytes differ from the recorded ones")
