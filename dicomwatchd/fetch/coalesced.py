"""Neighbours in a bundle, in one read: cut at their borders, each hashed before it gets its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from dicomwatchd.archive.layout.bundle import pieces
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, Fatal, Stopping
from dicomwatchd.fetch.plan import Placed, split
from dicomwatchd.fetch.report import Run
from dicomwatchd.fetch.workplace import Workplace
from dicomwatchd.model import Digest

#: What lies between two instances that are fetched together is read too: up to here that costs less than a request.
_GAP_BYTES = 256 * 1024


class CoalescedReads:
    """The fast path: what does not come back right on it is not reported, but left to whoever fetches one by one."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def bring(self, run: Run, place: Workplace, group: Sequence[Placed]) -> set[ManifestInstance]:
        """Instances of one bundle, in its order, to their names; returns those that are there now, which the run has
        been told. Raises Fatal, Stopping."""
        done: set[ManifestInstance] = set()
        try:
            wanted = [placed for placed in group if not self._is_there(run, place, placed, done)]
            for nearby in _nearby(wanted):
                self._copy(run, place, nearby, done)
        except (Fatal, Stopping):
            raise
        except DicomwatchdError:
            return done
        return done

    @staticmethod
    def _is_there(run: Run, place: Workplace, placed: Placed, done: set[ManifestInstance]) -> bool:
        item, path = placed
        folder, name = split(path)
        there = place.folder(folder).holds(name, Digest(item.sha256, item.size_bytes), run.check)
        if there:
            run.found(item, path)
            done.add(item)
        return there

    def _copy(self, run: Run, place: Workplace, nearby: list[Placed], done: set[ManifestInstance]) -> None:
        first, last = nearby[0][0].span, nearby[-1][0].span
        of_span = {item.span: (item, path) for item, path in nearby}
        chunks = self._store.read(
            nearby[0][0].key,
            offset_bytes=first.offset_bytes,
            length_bytes=last.end_bytes - first.offset_bytes,
            buffer=place.buffer,
        )
        for span, its_pieces in groupby(pieces(chunks, first.offset_bytes, list(of_span)), key=lambda piece: piece[0]):
            if span is not None:
                item, path = of_span[span]
                if self._write(run, place, item, path, (piece for _, piece in its_pieces)):
                    run.got(item, path, None)
                    done.add(item)

    @staticmethod
    def _write(run: Run, place: Workplace, item: ManifestInstance, path: str, its_pieces: Iterable[memoryview]) -> bool:
        came_in, digest, whole = 0, hashlib.sha256(), False
        folder, name = split(path)
        scratch = place.scratch[: item.size_bytes] if item.size_bytes <= len(place.scratch) else None
        try:
            with place.folder(folder).temporary() as file:
                for piece in its_pieces:
                    run.check()
                    if scratch is not None:
                        scratch[came_in : came_in + len(piece)] = piece
                    else:
                        digest.update(piece)
                        file.write(piece)
                    came_in += len(piece)
                    run.count(len(piece))
                if scratch is not None and came_in == item.size_bytes:
                    digest.update(scratch)
                    file.write(scratch, whole=True)
                if came_in == item.size_bytes and digest.hexdigest() == item.sha256:
                    file.publish(name)
                    whole = True
        finally:
            if not whole:
                run.count(-came_in)
        return whole


def _nearby(wanted: Iterable[Placed]) -> Iterator[list[Placed]]:
    nearby: list[Placed] = []
    for item, path in wanted:
        if nearby and item.offset_bytes - nearby[-1][0].span.end_bytes > _GAP_BYTES:
            yield nearby
            nearby = []
        nearby.append((item, path))
    if nearby:
        yield nearby
