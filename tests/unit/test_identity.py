"""An archive's identity is written once, whoever comes at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dicomwatchd.archive.identity import ArchiveIdentity, read_identity, write_identity
from dicomwatchd.archive.stores.port import Buffer, Content, Receipt
from dicomwatchd.errors import Conflict
from tests.unit.memory_archive import MemoryStore

OURS, OTHERS = (
    ArchiveIdentity(f"00000000-0000-4000-8000-00000000000{number}", "2026-01-31T12:00:00Z") for number in (1, 2)
)


@dataclass
class Busy(MemoryStore):
    """Another creation is under way, as often as said; as Amazon answers it (409 ConditionalRequestConflict)."""

    times: int = 1
    others: ArchiveIdentity | None = None

    def put(self, key: str, content: Content) -> Receipt:
        if self.times:
            self.times -= 1
            if not self.times and self.others is not None:
                super().put(key, Buffer.of(self.others.to_bytes()))
            raise Conflict("PutObject met another writer")
        return super().put(key, content)


@pytest.mark.parametrize(("others", "held"), [(None, OURS), (OTHERS, OTHERS)])
def test_another_that_is_under_way_is_waited_for(others: ArchiveIdentity | None, held: ArchiveIdentity) -> None:
    store, pauses = Busy(times=3, others=others), list[float]()
    assert write_identity(store, OURS, pauses.append) == held == read_identity(store)
    assert len(pauses) == 3 and pauses == sorted(pauses)


def test_one_that_never_ends_is_told() -> None:
    store = Busy(times=1000)
    with pytest.raises(Conflict):
        write_identity(store, OURS, lambda _: None)
    assert read_identity(store) is None
