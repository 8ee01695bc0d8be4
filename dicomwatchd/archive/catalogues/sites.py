"""The port of what the daemons of an archive say of themselves, beside the studies in its catalogue: a row each.

Nothing that an archive needs: rows that are lost come back with the next heartbeats, and a catalogue without them is
whole. Earlier versions of the program never read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: In the place of a run: a person has taken the site out of service.
FORGOTTEN = "forgotten"
#: So many rows are read. Whoever may write heartbeats could make millions.
MOST_SITES = 1000


@dataclass(frozen=True, slots=True)
class SiteRow:
    """``site_id`` is the daemon's state (32 hexadecimal digits); ``beats`` a number that each write raises; ``run`` who
    wrote (16 hexadecimal digits, new at each start), or FORGOTTEN; ``document`` what was said."""

    site_id: str
    beats: int
    run: str
    document: str

    @property
    def is_forgotten(self) -> bool:
        return self.run == FORGOTTEN

    @property
    def stamp(self) -> tuple[int, str]:
        """What a write that is to replace this row has to name."""
        return self.beats, self.run


class SiteTable(Protocol):
    """Safe to use from many threads. Raises Transient, Permanent, Fatal; never a foreign exception."""

    def rows(self) -> list[SiteRow]:
        """Every row, the forgotten ones too, in the order of their ids; `MOST_SITES` at most. One that was written a
        moment ago may be missing; one that cannot be read has no document. DynamoDB: Query of one partition."""
        ...

    def row(self, site_id: str) -> SiteRow | None:
        """One row as it is now; None where there is none. Raises CatalogueEntryDamaged. DynamoDB: GetItem,
        ConsistentRead."""
        ...

    def write(self, row: SiteRow, over: tuple[int, str] | None) -> bool:
        """Put ``row`` where there is none of its id, or in the place of the one with this `SiteRow.stamp`. False, and
        nothing is changed, where another one is there. DynamoDB: PutItem with a ConditionExpression."""
        ...

    def close(self) -> None:
        """Give back connections. Raises nothing."""
        ...
