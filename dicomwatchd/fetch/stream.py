"""A study one instance after the other, each whole and compared before anybody gets a byte of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from dicomwatchd.archive.stores.port import CHUNK_BYTES, ObjectStore
from dicomwatchd.errors import ColdObject, DicomwatchdError, Fatal
from dicomwatchd.fetch.copying import IN_COLD_STORAGE, Copying
from dicomwatchd.fetch.fetcher import GIVE_UP_AFTER
from dicomwatchd.fetch.folder import DiskFull
from dicomwatchd.fetch.plan import Placed
from dicomwatchd.fetch.report import Run
from dicomwatchd.fetch.spool import Spool


class Verified(NamedTuple):
    """An instance, its place, and its bytes, which are good until the next is asked for."""

    placed: Placed
    spool: Spool


class Streamer:
    """Reads ahead over ``threads`` connections: so many instances are in memory at once, or on the disk below
    ``directory`` if they are large."""

    def __init__(
        self,
        store: ObjectStore,
        directory: Path,
        *,
        threads: int = 16,
        copying: Copying | None = None,
        executor: Callable[[int], Executor] = ThreadPoolExecutor,
    ) -> None:
        self._copying = copying or Copying(store)
        self._directory = directory
        self._threads = threads
        self._executor = executor
        self._local = threading.local()

    @contextmanager
    def verified(self, run: Run, placed: Iterable[Placed]) -> Iterator[Iterator[Verified]]:
        """In their order. What cannot be had is told to the run and left out; a full disk, or a store that is gone,
        ends them, and the run says why. Whoever takes one tells the run that he `got` it, or what `fail`ed. Raises
        Fatal."""
        with closing(self._each(run, placed)) as found:
            yield found

    def _each(self, run: Run, placed: Iterable[Placed]) -> Generator[Verified]:
        left, ahead = iter(placed), deque[tuple[Placed, Future[Spool | None]]]()
        with self._executor(self._threads) as pool:
            try:
                while True:
                    while len(ahead) < self._threads and (one := next(left, None)) is not None:
                        ahead.append((one, pool.submit(self._bring, run, one)))
                    if not ahead:
                        return
                    one, future = ahead.popleft()
                    spool = future.result()
                    if spool is not None:
                        with closing(spool):
                            yield Verified(one, spool)
            finally:
                run.stop(None)
                for _, future in ahead:
                    if not future.cancel() and future.exception() is None and (spool := future.result()) is not None:
                        spool.close()

    def _bring(self, run: Run, placed: Placed) -> Spool | None:
        item, _ = placed
        spool: Spool | None = None
        try:
            run.check()
            if item in run.cold:
                raise ColdObject(IN_COLD_STORAGE)
            spool = Spool(item.size_bytes, self._directory)
            copied = self._copying.fill(run, (item, *run.elsewhere.get(item.content, ())), spool, self._buffer())
        except DicomwatchdError as error:
            if spool is not None:
                spool.close()
            if isinstance(error, Fatal):
                run.stop(error)
                raise
            run.fail(item, error)
            if isinstance(error, DiskFull) or run.out_of_reach_in_a_row >= GIVE_UP_AFTER:
                run.stop(error)
            return None
        except BaseException:
            if spool is not None:
                spool.close()
            raise
        run.note(item, copied.news)
        return spool

    def _buffer(self) -> memoryview:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(CHUNK_BYTES))
        found: memoryview = self._local.buffer
        return found
