"""The audit chain of a real queue, an archive in memory, and the parts of the daemon that are between them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomwatchd.archive import keys
from dicomwatchd.audit import checkpoints
from dicomwatchd.audit.checkpoints import Checkpoints
from dicomwatchd.audit.proving import Prover
from dicomwatchd.audit.sealing import Sealing
from tests.pieces import Log
from tests.unit.memory_archive import MemoryStore
from tests.unit.queues import STUDY, Bench


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder on a memory file system, where that is to be had: hundreds of states are made and written to here, and
    how durable they are is for others to try."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="chains-", dir=memory) as path:
        yield Path(path)


class Place:
    """A state, an archive, and the part of the daemon between them; `restart` is what a restart does to it."""

    def __init__(self, directory: Path, *, store: MemoryStore | None = None, entries: int = 4) -> None:
        """``entries`` make a segment."""
        self.bench = Bench(directory)
        self.store = MemoryStore() if store is None else store
        self.entries = entries
        self.log = Log()
        self.begin()

    def begin(self) -> None:
        queue = self.bench.queue
        self.checkpoints = Checkpoints(
            queue.audit, self.store, self.bench.clock, self.log, require_archive=lambda: None
        )
        self.prover = Prover(queue.audit, queue.segments, self.store, "")
        self.sealing = Sealing(
            queue.audit,
            queue.segments,
            self.store,
            lambda: self.checkpoints.covered,
            self.prover.archived,
            self.log,
            require_archive=lambda: None,
            entries=self.entries,
        )

    def restart(self) -> None:
        self.bench.reopen()
        self.begin()

    def delete(self, count: int = 1, study: str = STUDY) -> None:
        """Two entries for each deletion."""
        for _ in range(count):
            claim = self.bench.claimed(f"IM{self.bench.clock.seconds}", study=study)
            self.bench.queue.deletions.purged(study, self.bench.authorise(claim), [], [])
            self.bench.finish(claim)

    def seal(self) -> None:
        """Publish, seal and clear what there is."""
        self.checkpoints.step()
        while self.sealing.step():
            pass

    def here(self) -> list[int]:
        """The entries that are in the state."""
        return [row[0] for row in self.bench.rows("SELECT sequence FROM audit ORDER BY sequence")]

    def segment_keys(self) -> list[str]:
        return [key for key in sorted(self.store.versions) if keys.parse_audit_segment(key)]

    def cut_to(self, sequence: int) -> None:
        self.bench.run("DELETE FROM audit WHERE sequence > ?", sequence)

    def outcome(self) -> str:
        """As somebody with the state and the archive sees it."""
        return checkpoints.compare(self.bench.queue.audit, self.store).outcome

    def heads(self) -> list[int]:
        found = [keys.parse_audit_checkpoint(key) for key in self.store.versions]
        return sorted(number for number in found if number)

    def told(self) -> list[dict[str, object]]:
        return self.log.events("audit-cut")
