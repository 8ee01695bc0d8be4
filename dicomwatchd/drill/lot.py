"""Which studies are tried: chosen at random from all that the store lists, at a cost that does not grow with it.

The keys of studies begin with their makers' prefixes, so a place in the order of keys that is chosen at random meets
the few studies of a rare maker far too often. Here the order is walked through, a piece at a time, and of all studies
of a round a sample is kept in which each has the same chance to be (algorithm R: Vitter, ACM Transactions on
Mathematical Software 11(1), 1985). From the last round's sample the next studies are drawn, none of them twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import InvalidUid
from dicomwatchd.model import Uid

#: So many studies are listed at a time, of S3 in 20 requests.
PIECE = 20_000
#: In a round's sample.
SAMPLE = 100


class Lot:
    """From which the next studies are drawn. ``said`` is what `to_text` gave before; what cannot be read of it begins
    anew."""

    def __init__(self, said: str = "") -> None:
        #: How far this round has come: a prefix, as `ObjectStore.common_prefixes` gives them.
        self.after = ""
        #: So many studies were seen in it.
        self.seen = 0
        self.is_complete = False
        self.sample: list[Uid] = []
        #: Of the last complete round, without those that were drawn.
        self.rest: list[Uid] = []
        try:
            found: Any = json.loads(said) if said else {}
            sample, rest = ([Uid(uid) for uid in found.get(name, [])] for name in ("sample", "rest"))
            after, seen, is_complete = (
                str(found.get("after", "")),
                int(found.get("seen", 0)),
                bool(found.get("complete")),
            )
        except (ValueError, TypeError, AttributeError, InvalidUid):
            return
        if len(sample) <= min(seen, SAMPLE):
            self.after, self.seen, self.is_complete, self.sample, self.rest = after, seen, is_complete, sample, rest

    def to_text(self) -> str:
        return json.dumps(
            {
                "after": self.after,
                "seen": self.seen,
                "complete": self.is_complete,
                "sample": self.sample,
                "rest": self.rest,
            }
        )

    def walk(self, store: ObjectStore, random: Random, beat: Callable[[], None], piece: int = PIECE) -> None:
        """The next piece of this round, unless its sample is ready. ``beat`` is called now and then, and may raise.
        Raises Transient, Permanent, Fatal; what was seen until then is kept."""
        if self.is_complete:
            return
        listed = 0
        for prefix in islice(store.common_prefixes(keys.STUDIES, self.after), piece):
            listed += 1
            if listed % 500 == 0:
                beat()
            self.after = prefix
            if (study := keys.parse_study(prefix)) is not None:
                self._take(study, random)
        self.is_complete = listed < piece

    def draw(self, random: Random) -> Uid | None:
        """One of them; None where no study was seen. While the first round through a large archive lasts it is one of
        those that were seen so far."""
        if not self.rest and self.is_complete:
            self.rest = self.sample
            self.after, self.seen, self.is_complete, self.sample = "", 0, False, []
        if self.rest:
            return self.rest.pop(random.randrange(len(self.rest)))
        return random.choice(self.sample) if self.sample else None

    def _take(self, study: Uid, random: Random) -> None:
        self.seen += 1
        if len(self.sample) < SAMPLE:
            self.sample.append(study)
        elif (place := random.randrange(self.seen)) < SAMPLE:
            self.sample[place] = study
