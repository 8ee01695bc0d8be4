"""One instance's bytes out of the store, from the first place that has them: hashed on their way, and begun again where
a read breaks off."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import ColdObject, DicomwatchdError, Transient
from dicomwatchd.fetch.report import Run
from dicomwatchd.fetch.sources import BadObject, MissingObject, Source, chunks, sources

IN_COLD_STORAGE = "in cold storage: it must be restored before it can be fetched"


class Sink(Protocol):
    """Where the bytes go."""

    def rewind(self) -> None:
        """Start over, empty."""

    def write(self, data: bytes | memoryview, *, whole: bool = False) -> None:
        """Append all of ``data``, or the ``whole`` content in one piece. Raises Permanent."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Where the bytes came from, and what was wrong with the places before it."""

    source: Source
    trouble: BadObject | None

    @property
    def news(self) -> BadObject | None:
        """What is to be told of the object that the manifest names."""
        return _in_words(self.trouble) if self.trouble and self.source.version_id is not None else self.trouble


class Copying:
    """``attempts`` in all for a read that breaks off, a jittered moment apart: no client repeats a request whose body
    it has begun to hand out. ``jitter`` gives a number in [0, 1)."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._sleep = sleep
        self._jitter = jitter

    def fill(self, run: Run, places: Iterable[ManifestInstance], file: Sink, buffer: memoryview | None) -> Copied:
        """Fill ``file`` with exactly the recorded bytes, from the first source that has them. Raises ColdObject,
        BadObject, Transient, and what the file raises."""
        trouble: BadObject | None = None
        is_cold = False
        for source in sources(self._store, run.manifest.study_uid, places):
            try:
                self._copy(run, source, file, buffer)
            except BadObject as error:
                trouble = trouble or error
                continue
            except ColdObject:
                is_cold = True  # which is no news where another place has the bytes
                continue
            return Copied(source, trouble)
        if is_cold:
            raise ColdObject(IN_COLD_STORAGE)
        raise trouble or BadObject("nothing in the store could be read")

    def _copy(self, run: Run, source: Source, file: Sink, buffer: memoryview | None) -> None:
        """Raises BadObject when the source has other bytes."""
        item = source.item
        for attempt in range(1, self._attempts + 1):
            run.check()
            file.rewind()
            came_in = 0
            digest = hashlib.sha256()
            try:
                for chunk in chunks(self._store, source, buffer):
                    run.check()
                    came_in += len(chunk)
                    if came_in > item.size_bytes:
                        came_in -= len(chunk)
                        raise BadObject(f"the stored object is longer than the recorded {item.size_bytes} bytes")
                    digest.update(chunk)
                    file.write(chunk, whole=len(chunk) == item.size_bytes)
                    run.count(len(chunk))
                if came_in != item.size_bytes:
                    raise BadObject(f"the stored object has {came_in} bytes instead of {item.size_bytes}")
                if digest.hexdigest() != item.sha256:
                    raise BadObject("the stored object's SHA-256 is not the recorded one")
                return
            except Transient:
                run.count(-came_in)
                if attempt == self._attempts:
                    raise
            except DicomwatchdError:
                run.count(-came_in)
                raise
            self._sleep(attempt * (0.5 + self._jitter()))


def _in_words(trouble: BadObject) -> BadObject:
    """What was wrong with what is current, now that the recorded version has come right from under it."""
    if isinstance(trouble, MissingObject):
        return BadObject("the object is hidden by a delete marker; its recorded version was fetched", code="hidden")
    return BadObject("the object was overwritten; its recorded version was fetched", code="overwritten")
