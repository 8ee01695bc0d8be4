"""When a file counts as complete: a function of what was seen of it and of the clock, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from dicomwatchd.model import FileIdentity

Path = tuple[bytes, bytes]  # (directory below the source, name)


@dataclass(slots=True)
class _Watched:
    identity: FileIdentity
    first_seen: float  # of any identity under this name, monotonic
    unchanged_since: float  # of this very identity, monotonic
    due: float


class Settling:
    """Remembers the files that are still changing, and only those.

    A file is ripe when it has not changed for ``settle_seconds``. On a local file system the kernel testifies to that
    with the file's ctime, which no program can set back, so a file that was there long before needs no second look.
    With ``trust_ctime`` False (network shares, whose server has a clock of its own) it has to be seen twice.
    """

    def __init__(self, settle_seconds: float, *, trust_ctime: bool, limit: int = 50_000) -> None:
        self._settle_seconds = settle_seconds
        self._trust_ctime = trust_ctime
        self._limit = limit
        self._files: dict[Path, _Watched] = {}
        #: More files are changing than are remembered: another look has to find the rest.
        self.overflowed = False

    def begin_look(self) -> None:
        """From here on everything is looked at."""
        self.overflowed = False

    def ripe(self, path: Path, identity: FileIdentity, *, now: float, monotonic: float) -> bool:
        """Whether the file is complete as far as looking can tell. Both clocks in seconds."""
        if self._settle_seconds == 0:
            return True
        watched = self._files.get(path)
        if watched is None or watched.identity != identity:
            age = now - identity.ctime_ns / 1e9
            if self._trust_ctime and watched is None and age >= self._settle_seconds:
                return True
            if watched is None and len(self._files) >= self._limit:
                self.overflowed = True  # not remembered: the next look at it is simply its first
            else:
                first = watched.first_seen if watched else monotonic
                self._files[path] = _Watched(identity, first, monotonic, monotonic + self._settle_seconds)
            return False
        return monotonic - watched.unchanged_since >= self._settle_seconds

    def done(self, path: Path) -> None:
        self._files.pop(path, None)

    def wait(self, path: Path, identity: FileIdentity, *, monotonic: float) -> None:
        """Somebody holds the ripe file open for writing: look again in a while."""
        first = self._files[path].first_seen if path in self._files else monotonic
        pause = max(self._settle_seconds, 0.5)
        self._files[path] = _Watched(identity, first, monotonic - self._settle_seconds, monotonic + pause)

    def retain(self, directory: bytes, names: set[bytes]) -> None:
        """Forget the files of this directory that are gone."""
        for path in [p for p in self._files if p[0] == directory and p[1] not in names]:
            del self._files[path]

    def due_directories(self, monotonic: float) -> set[bytes]:
        return {path[0] for path, watched in self._files.items() if watched.due <= monotonic}

    def next_due(self) -> float | None:
        """When to look again, monotonic; None when nothing is changing."""
        return min((watched.due for watched in self._files.values()), default=None)

    def unsettled_in(self, directories: set[bytes], monotonic: float, *, younger_than_seconds: float) -> bool:
        """Whether a file in one of these directories is still changing, and not since times out of mind."""
        return any(
            path[0] in directories and monotonic - watched.first_seen < younger_than_seconds
            for path, watched in self._files.items()
        )

    def __len__(self) -> int:
        return len(self._files)
