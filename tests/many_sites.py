"""Many sites on one archive: the daemon's own parts, with a state, an inbox, a store and a catalogue of its own, in a
thread each, all at once; and what must hold afterwards. For the test of a few and the benchmark of a hundred."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.catalogues.sites import SiteTable
from dicomwatchd.archive.layout.manifests import load
from dicomwatchd.archive.records import Query
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.sites import Sites
from dicomwatchd.model import Uid
from dicomwatchd.sites import report
from dicomwatchd.sites.rounds import Own, SiteRounds
from tests.bench.scale.files import Press
from tests.pieces import Pieces

#: Where each study of these is numbered from, so that no two are one.
_SHARED, _COMMON, _RUN = 10_000_000, 20_000_000, 30_000_000

#: What a daemon at work says of itself, as far as a heartbeat tells it.
STATUS: dict[str, Any] = {
    "inboxes": [{"state": "open", "unreadable": 0, "receivers": []}],
    "studies": {"parked": 2},
    "files": {"ready": 10, "stored": 5, "quarantined": 1},
    "bytes_waiting": 1500,
    "oldest_unarchived_seconds": 75.5,
    "studies_held": 3,
    "disks": [],
    "audit": {"problems": 0},
    "capabilities": {"creates_only": True},
    "backoff": {},
    "archive_verification": None,
    "restore_drill": {"failed": []},
    "started_at": "2026-01-31T11:00:00.000Z",
    "problems": ["a sentence that names study 1.2.3"],
}


@dataclass
class Spent:
    """What was asked of the services. Safe from many threads."""

    requests: Counter[str] = field(default_factory=Counter)
    read_units: float = 0.0
    write_units: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def watch_table(self, client: Any) -> None:
        """Asks DynamoDB for what each request of this client costs, and adds it up."""
        for name in ("Query", "BatchGetItem", "GetItem", "PutItem"):
            client.meta.events.register(f"provide-client-params.dynamodb.{name}", _ask)
        client.meta.events.register("after-call.dynamodb", self._note)

    def count(self, operation: str) -> None:
        with self._lock:
            self.requests[operation] += 1

    def _note(self, parsed: Any, model: Any, **_: object) -> None:
        said = parsed.get("ConsumedCapacity", [])
        units = sum(one["CapacityUnits"] for one in (said if isinstance(said, list) else [said]))
        with self._lock:
            self.requests[f"dynamodb {model.name}"] += 1
            if model.name == "PutItem":
                self.write_units += units
            else:
                self.read_units += units

    def take(self) -> Spent:
        """What there was until now; from here on it is counted anew."""
        with self._lock:
            taken = Spent(Counter(self.requests), self.read_units, self.write_units)
            self.requests.clear()
            self.read_units = self.write_units = 0.0
        return taken

    def of(self, service: str) -> int:
        return sum(number for name, number in self.requests.items() if name.startswith(f"{service} "))


def _ask(params: dict[str, Any], **_: object) -> None:
    params["ReturnConsumedCapacity"] = "TOTAL"


class ManySites:
    """``store``, ``catalogue`` and ``table`` make one more adapter for the same archive, which is there."""

    def __init__(
        self,
        root: Path,
        number: int,
        store: Callable[[], ObjectStore],
        catalogue: Callable[[], Catalogue],
        table: Callable[[], SiteTable],
        run: int = 0,
    ) -> None:
        """``run``: the studies of another number are others."""
        self._store, self._catalogue, self._first = store, catalogue, run * _RUN
        self.press = Press()
        self.wanted: dict[Uid, set[str]] = {}
        self.pieces: list[Pieces] = []
        self.rounds: list[SiteRounds] = []
        for index in range(number):
            probed = store()
            probed.probe(keys.PROBE)
            pieces = Pieces(root / f"site{index:03d}", store=probed, catalogue=catalogue(), settle_seconds=0.0)
            self.pieces.append(pieces)
            chain = pieces.queue.audit.head().chain_id
            self.rounds.append(
                SiteRounds(
                    table(),
                    Own(chain, f"{index:016x}", f"site{index:03d}", f"host{index:03d}"),
                    Sites(),
                    pieces.clock,
                    Random(index),
                    pieces.log,
                    status=lambda: STATUS,
                    archived=pieces.queue.archived.totals,
                    reachable=pieces.catalogue.identity,
                )
            )

    def close(self) -> None:
        for pieces in self.pieces:
            pieces.close()
            pieces.store.close()
            pieces.catalogue.close()

    # -- what they send --------------------------------------------------------------------------------------------

    def own_studies(self, each: int, instances: int) -> int:
        """Each site gets studies that nobody else has; how many in all."""
        for index in range(len(self.pieces)):
            for one in range(each):
                self._drop(index, (index + 1) * 1000 + one, range(instances))
        return each * len(self.pieces)

    def shared_studies(self, at_once: int, instances: int) -> int:
        """A study for each group of so many sites: each has other instances of it, and one that all have."""
        groups = range(0, len(self.pieces), at_once)
        for number, first in enumerate(groups):
            for index in range(first, min(first + at_once, len(self.pieces))):
                own = 1 + (index - first) * instances
                self._drop(index, _SHARED + number, (0, *range(own, own + instances)))
        return len(groups)

    def common_study(self) -> int:
        """One study of which every site has an instance."""
        for index in range(len(self.pieces)):
            self._drop(index, _COMMON, (index,))
        return 1

    def _drop(self, index: int, study: int, numbers: Sequence[int]) -> None:
        study += self._first
        wanted = self.wanted.setdefault(Uid(self.press.study_uid(study)), set())
        for number in numbers:
            data = self.press.instance(study, number)
            wanted.add(hashlib.sha256(data).hexdigest())
            (self.pieces[index].inbox / f"{study}-{number}").write_bytes(data)

    # -- at once ---------------------------------------------------------------------------------------------------

    def ship(self) -> float:
        """Every site takes up what it has, and then all ship at the same moment, until nothing is left anywhere.
        Seconds of the shipping."""
        together = threading.Barrier(len(self.pieces) + 1)

        def one(pieces: Pieces) -> None:
            try:
                pieces.settle()
            finally:
                together.wait(300)
            pieces.ship()
            pieces.run(rounds=60)
            assert pieces.left() == [], "files are left at a site"
            assert pieces.fatal is None

        with ThreadPoolExecutor(len(self.pieces)) as threads:
            under_way = [threads.submit(one, pieces) for pieces in self.pieces]
            together.wait(300)
            begun = time.monotonic()
            for done in under_way:
                done.result()
        return time.monotonic() - begun

    def beat(self) -> None:
        """A heartbeat of every site, at the same moment, and its look at the others."""
        together = threading.Barrier(len(self.rounds))

        def one(pieces: Pieces, rounds: SiteRounds) -> None:
            pieces.clock.advance(500)
            together.wait(60)
            rounds.step()

        with ThreadPoolExecutor(len(self.rounds)) as threads:
            for done in [threads.submit(one, *pair) for pair in zip(self.pieces, self.rounds, strict=True)]:
                done.result()

    # -- what must hold ----------------------------------------------------------------------------------------------

    def judge(self) -> int:
        """No revision is lost, and nothing in one: see the assertions. The number of revisions."""
        store, catalogue = self._store(), self._catalogue()
        revisions = 0
        for pieces in self.pieces:
            assert not pieces.log.events("study-parked"), "a study was parked"
        for study, sha256s in self.wanted.items():
            listed = sorted(one.key for one in store.listing(keys.manifests_prefix(study)))
            history = [load(store, key) for key in listed]
            assert [one.revision for one in history] == list(range(1, len(history) + 1)), "a revision is missing"
            for earlier, later in pairwise(history):
                assert later.previous_sha256 == earlier.sha256, "a revision does not follow the one before it"
                assert set(earlier.instances) <= set(later.instances), "a revision has lost an instance"
            last = history[-1]
            assert {one.sha256 for one in last.instances} == sha256s, "an instance is not in the newest revision"
            assert len(last.instances) == len(sha256s), "an instance is listed twice"
            for one in last.instances:
                assert hashlib.sha256(b"".join(store.read(one.key))).hexdigest() == one.sha256
            assert catalogue.get(study) == last.record(), "catalogue and manifest differ"
            revisions += len(history)
        found = {one.study_uid for one in _all(catalogue)}
        assert found >= self.wanted.keys(), "a study is not found"
        store.close()
        catalogue.close()
        return revisions

    def judge_rows(self, table: SiteTable, beats: int) -> None:
        """Every site's row is there, its own, and the newest that it has written."""
        rows = table.rows()
        names = []
        for row in rows:
            said = report.read(row.document)
            assert said is not None and row.beats == beats and said.twin == ""
            names.append(said.name)
        assert sorted(names) == [f"site{index:03d}" for index in range(len(self.pieces))]
        for rounds in self.rounds:
            said_of_others = rounds.document()
            assert (said_of_others["seen"], said_of_others["silent"]) == (len(self.pieces) - 1, 0)


def _all(catalogue: Catalogue) -> Iterator[Any]:
    return catalogue.search(Query())


@contextmanager
def sites_of(*arguments: Any) -> Iterator[ManySites]:
    made = ManySites(*arguments)
    try:
        yield made
    finally:
        made.close()
