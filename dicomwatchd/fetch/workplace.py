"""What one thread of a fetch keeps at hand from one file to the next: the folder it fills, and room for chunks."""

from __future__ import annotations

import mmap
from contextlib import suppress

from dicomwatchd.archive.stores.port import CHUNK_BYTES
from dicomwatchd.fetch.folder import SeriesFolder, TargetFolder


class Workplace:
    """For one thread. ``buffer`` is where the store reads to, ``scratch`` where pieces become a whole file; both are
    pages of memory, from which a file system can write straight to the disk."""

    def __init__(self, folder: TargetFolder) -> None:
        self._folder = folder
        self._open: tuple[str, SeriesFolder] | None = None
        self._memory = mmap.mmap(-1, 2 * CHUNK_BYTES)
        self.buffer = memoryview(self._memory)[:CHUNK_BYTES]
        self.scratch = memoryview(self._memory)[CHUNK_BYTES:]

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        self.buffer.release()
        self.scratch.release()
        with suppress(BufferError):  # a traceback holds a view of it, and it goes with that
            self._memory.close()

    def folder(self, path: str) -> SeriesFolder:
        """A folder below the target, open until another is asked for. Raises as `TargetFolder.below`."""
        if self._open is None or self._open[0] != path:
            self._leave()
            self._open = path, self._folder.below(path)
        return self._open[1]

    def _leave(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
