"""Parallel copying of a study out of the store: every file is hashed before it gets its name."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from dicomwatchd.archive.layout.instance import Content, ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import ColdObject, DicomwatchdError, Fatal, Permanent, Stopping
from dicomwatchd.fetch.coalesced import CoalescedReads
from dicomwatchd.fetch.copying import IN_COLD_STORAGE, Copying
from dicomwatchd.fetch.folder import PRIVATE, DiskFull, Occupied, SeriesFolder, TargetFolder
from dicomwatchd.fetch.plan import Placed, by_uid, of_series, split, together
from dicomwatchd.fetch.report import FetchProgress, FetchReport, Run
from dicomwatchd.fetch.workplace import Workplace
from dicomwatchd.model import Digest, Uid

#: So many files one after the other that the store did not answer for: it is gone, and not one object damaged.
GIVE_UP_AFTER = 4


class Fetcher:
    """Fetches studies from one store over ``threads`` connections. Memory: two chunks for each thread.

    Neighbours in a bundle come in one read; whatever does not come back right that way is then fetched by itself.

    A read that breaks off is begun again, ``attempts`` times in all, a jittered moment apart: no client repeats a
    request whose body it has begun to hand out. ``token`` gives 16 hex digits for the name of a temporary file,
    ``jitter`` a number in [0, 1).
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        threads: int = 16,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        jitter: Callable[[], float] = random.random,
        executor: Callable[[int], Executor] = ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._coalesced = CoalescedReads(store)
        self._threads = threads
        self._copying = Copying(store, attempts=attempts, sleep=sleep, jitter=jitter)
        self._monotonic = monotonic
        self._token = token
        self._executor = executor

    def fetch(
        self,
        manifest: Manifest,
        directory: Path,
        *,
        series: Collection[Uid] | None = None,
        places: Sequence[Placed] | None = None,
        mode: int = PRIVATE,
        elsewhere: Mapping[Content, tuple[ManifestInstance, ...]] = MappingProxyType({}),
        cold: Collection[ManifestInstance] = (),
        progress: Callable[[FetchProgress], None] = lambda _progress: None,
    ) -> FetchReport:
        """Bring every instance of the manifest, or of the given series, to ``directory``/<SeriesUID>/; or each instance
        of ``places`` to the path that it has there.

        Files get ``mode``, and folders one by which who may read the files finds them.
        What is there already with the right bytes is kept, with other bytes reported and not touched. One bad
        object does not stop the others; a full disk or a store out of reach does, and the report says so. What does not
        come right from where the manifest says is looked for ``elsewhere``. What is known to be ``cold``, with all its
        places, is not asked for: it has failed (code "cold-storage") unless it is there already.
        ``progress`` is called from the working threads, one call at a time; Stopping, which it or ``sleep`` may raise,
        ends the fetch.

        Raises Permanent (code "series-not-found"; the folder cannot be used), Stopping and Fatal.
        """
        begun = self._monotonic()
        placed = by_uid(of_series(manifest, series)) if places is None else places
        groups = together(placed)
        run = Run(manifest, groups, progress, elsewhere, frozenset(cold))
        with TargetFolder.opened(directory, self._token, mode) as folder:
            self._remove_leftovers(folder, {split(path)[0] for _, path in placed})
            self._work_through(run, folder, threads=max(1, min(self._threads, len(groups))))
            for path in sorted(with_those_above(run.folders_with_files)):
                with folder.below(path) as target:
                    target.flush()
            folder.flush()
        return run.report(self._monotonic() - begun)

    def _remove_leftovers(self, folder: TargetFolder, paths: set[str]) -> None:
        for path in sorted(paths):
            try:
                with folder.below(path) as target:
                    target.remove_leftovers()
            except Permanent:
                continue  # each file of the folder will meet the same, and report it

    def _work_through(self, run: Run, folder: TargetFolder, threads: int) -> None:
        with self._executor(threads) as pool:
            try:
                for future in [pool.submit(self._work, run, folder) for _ in range(threads)]:
                    future.result()
            finally:
                # All done, or Ctrl-C: then the threads must not go on with the rest.
                run.stop(None)

    def _work(self, run: Run, folder: TargetFolder) -> None:
        with Workplace(folder) as place:
            for group in run.todo():
                try:
                    together = len(group) > 1 and not any(item in run.cold for item, _ in group)
                    brought = self._coalesced.bring(run, place, group) if together else set()
                except (Fatal, Stopping) as error:
                    run.stop(error)
                    raise
                for item, path in group:
                    if item not in brought:
                        self._bring_one(run, place, item, path)

    def _bring_one(self, run: Run, place: Workplace, item: ManifestInstance, path: str) -> None:
        try:
            run.check()
            self._bring(run, place, item, path)
        except (Fatal, Stopping) as error:
            run.stop(error)
            raise
        except DicomwatchdError as error:
            run.fail(item, error)
            if isinstance(error, DiskFull) or run.out_of_reach_in_a_row >= GIVE_UP_AFTER:
                run.stop(error)

    def _bring(self, run: Run, place: Workplace, item: ManifestInstance, path: str) -> None:
        """One instance to its name, from the first source that has its bytes."""
        folder, name = split(path)
        target = place.folder(folder)
        places = (item, *run.elsewhere.get(item.content, ()))
        if self._is_there(run, target, name, places):
            run.found(item, path)
            return
        if item in run.cold:
            raise ColdObject(IN_COLD_STORAGE)
        with target.temporary() as file:
            copied = self._copying.fill(run, places, file, place.buffer)
            try:
                file.publish(name)
            except Occupied:
                # Another fetch into the same folder was quicker: as good, if it brought the right bytes.
                right = Digest(copied.source.item.sha256, copied.source.item.size_bytes)
                if not target.holds(name, right, run.check):
                    raise
        run.got(item, path, copied.news)

    @staticmethod
    def _is_there(run: Run, target: SeriesFolder, name: str, places: Sequence[ManifestInstance]) -> bool:
        """Whether the name is taken by the bytes, whichever revision is right about their number. Raises Occupied."""
        occupied: Occupied | None = None
        for size_bytes in dict.fromkeys(at.size_bytes for at in places):
            try:
                if target.holds(name, Digest(places[0].sha256, size_bytes), run.check):
                    return True
            except Occupied as error:
                occupied = occupied or error
        if occupied is not None:
            raise occupied
        return False


def with_those_above(folders: Iterable[str]) -> set[str]:
    """Folders, and those between them and the target folder."""
    return {folder.rsplit("/", above)[0] for folder in folders for above in range(folder.count("/") + 1)}
