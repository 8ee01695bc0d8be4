"""When a file counts as complete: a function of what was seen of it and of the clock, nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass

Path = tuple[bytes, bytes]  # (directory below the source, name)


@dataclass(slots=True)
class _Watched:
    identity: str
    first_seen: float  # of any identity under this name, monotonic
    unchanged_since: float  # of this very identity, monotonic
    due: float


class Settling:
    """Remembers the files that are still changing, and only those. Identities are text, as the queue keeps them.

    A file has settled when it has not changed for ``settle_seconds``. On a local file system the kernel testifies to
    that with the file's ctime, which no program can set back, so a file that was there long before needs no second
    look. With ``trust_ctime`` False (network shares, whose server has a clock of its own) it has to be seen twice."""

    def __init__(self, settle_seconds: float, *, trust_ctime: bool, limit: int = 50_000) -> None:
        self._settle_seconds = settle_seconds
        self._trust_ctime = trust_ctime
        self._limit = limit
        self._directories: dict[bytes, dict[bytes, _Watched]] = {}
        self._count = 0
        # (due, directory, name), the next one first; one that is due at another time by now counts no longer.
        self._dues: list[tuple[float, bytes, bytes]] = []
        #: More files are changing than are remembered: another look has to find the rest.
        self.overflowed = False

    def begin_scan(self) -> None:
        """From here on everything is looked at."""
        self.overflowed = False

    def settled(self, path: Path, identity: str, *, now: float, monotonic: float) -> bool:
        """Whether the file is complete as far as looking can tell. Both clocks in seconds."""
        if self._settle_seconds == 0:
            return True
        watched = self._watched(path)
        if watched is None or watched.identity != identity:
            if self._trust_ctime and watched is None and now - _ctime(identity) >= self._settle_seconds:
                return True
            if watched is None and self._count >= self._limit:
                self.overflowed = True  # not remembered: the next look at it is simply its first
            else:
                first = watched.first_seen if watched else monotonic
                due = monotonic + self._settle_seconds
                self._watch(path, _Watched(identity, first, monotonic, due))
            return False
        return monotonic - watched.unchanged_since >= self._settle_seconds

    def watches(self, directory: bytes) -> bool:
        return directory in self._directories

    def done(self, path: Path) -> None:
        directory, name = path
        files = self._directories.get(directory)
        if files is not None and files.pop(name, None) is not None:
            self._count -= 1
            if not files:
                del self._directories[directory]

    def wait(self, path: Path, identity: str, *, monotonic: float) -> None:
        """Somebody holds the settled file open for writing: look again in a while."""
        watched = self._watched(path)
        first = watched.first_seen if watched else monotonic
        pause = max(self._settle_seconds, 0.5)
        self._watch(path, _Watched(identity, first, monotonic - self._settle_seconds, monotonic + pause))

    def retain(self, directory: bytes, names: Container[bytes]) -> None:
        """Forget the files of this directory that are gone."""
        for name in [name for name in self._directories.get(directory, ()) if name not in names]:
            self.done((directory, name))

    def due_directories(self, monotonic: float) -> set[bytes]:
        found: list[tuple[float, bytes, bytes]] = []
        while (due := self.next_due()) is not None and due <= monotonic:
            found.append(heapq.heappop(self._dues))
        for entry in found:  # until they were looked at
            heapq.heappush(self._dues, entry)
        return {directory for _, directory, _ in found}

    def next_due(self) -> float | None:
        """When to look again, monotonic; None when nothing is changing."""
        while self._dues:
            due, directory, name = self._dues[0]
            watched = self._watched((directory, name))
            if watched is not None and watched.due == due:
                return due
            heapq.heappop(self._dues)
        return None

    def unsettled_in(self, directories: set[bytes], monotonic: float, *, younger_than_seconds: float) -> bool:
        """Whether a file in one of these directories is still changing, and not since times out of mind."""
        return any(
            monotonic - watched.first_seen < younger_than_seconds
            for directory in directories
            for watched in self._directories.get(directory, {}).values()
        )

    def __len__(self) -> int:
        return self._count

    def _watched(self, path: Path) -> _Watched | None:
        files = self._directories.get(path[0])
        return None if files is None else files.get(path[1])

    def _watch(self, path: Path, watched: _Watched) -> None:
        directory, name = path
        files = self._directories.setdefault(directory, {})
        self._count += name not in files
        files[name] = watched
        heapq.heappush(self._dues, (watched.due, directory, name))
        if len(self._dues) > 4 * self._count + 1000:
            # Files that keep changing leave an entry behind at each look.
            self._dues = [
                (w.due, d, n) for d, watched_files in self._directories.items() for n, w in watched_files.items()
            ]
            heapq.heapify(self._dues)


def _ctime(identity: str) -> float:
    return int(identity[identity.rindex(":") + 1 :]) / 1e9
