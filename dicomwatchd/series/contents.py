"""The bytes of instances as a viewer wants them: files, single frames, values of bulk data.

Every byte that is handed out was compared: a file with the SHA-256 that the manifest has, a frame with the one that the
series object has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dicomwatchd.archive.stores.port import Chunk, ObjectStore
from dicomwatchd.errors import Permanent
from dicomwatchd.fetch.sources import BadObject, Source, chunks, first_right, part
from dicomwatchd.fetch.spool import Spool
from dicomwatchd.model import Uid
from dicomwatchd.series import grouping
from dicomwatchd.series.building import Patience
from dicomwatchd.series.document import Entry
from dicomwatchd.series.extract import Bulk, extract, pass_file_meta
from dicomwatchd.series.forward import Forward, inflated
from dicomwatchd.series.grouping import Held
from dicomwatchd.series.pixels import Frame
from dicomwatchd.series.shown import Instance
from dicomwatchd.series.unreadable import Unreadable

_PIECE_BYTES = 1024**2


class Contents:
    """Reads what instances hold; safe to be used from many threads. ``directory`` is where large files lie, without a
    name, while they are compared; ``distrust`` is told of a series, by the UIDs of its study and its own, whose series
    object says something else than a file."""

    def __init__(
        self, store: ObjectStore, directory: Path, patience: Patience, distrust: Callable[[Uid, Uid], None]
    ) -> None:
        self._store, self._patience, self._distrust = store, patience, distrust
        self.directory = directory

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
        """What `frames` keeps on this machine while these frames are taken, at most. Raises as it does at
        once."""
        frames = _frames_of(instance, list(numbers))
        if instance.entry is not None and instance.entry.is_deflated:
            return grouping.held_for_inflated(instance.item.size_bytes, frames)
        return grouping.held_for_frames(frames)

    def frames(self, instance: Instance, numbers: Iterable[int]) -> Iterator[Iterable[bytes]]:
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
            self._distrust(instance.study_uid, item.series_uid)
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
