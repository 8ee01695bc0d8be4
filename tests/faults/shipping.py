"""A site inside the test's own process: the real intake, queue and pipeline, on a clock that jumps."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from dicomwatchd import errors
from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.plan import InboxPlan, Plan
from dicomwatchd.errors import Fatal
from dicomwatchd.fetch.fetcher import Fetcher
from dicomwatchd.fetch.plan import plan
from dicomwatchd.intake.inbox import IntakeSettings
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.deletion.vetoes.expiring import WAITING_CHECK_SECONDS
from dicomwatchd.pipeline.pool import InlineWorkers, Workers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive
from dicomwatchd.queue import Queue
from tests.synthetic import Made

#: A study that has not arrived after so many tries, on a clock that jumps over every pause, never will.
MOST_TRIES = 40


class JumpingClock:
    """Time passes when it is told to, and by a microsecond at each look."""

    def __init__(self, start: float) -> None:
        self._now = start

    def now(self) -> float:
        self._now += 1e-6
        return self._now

    def monotonic(self) -> float:
        return self.now()

    def jump(self, seconds: float) -> None:
        self._now += seconds


@dataclass
class Notes:
    """A log that keeps its entries, for a failing test to show."""

    entries: list[tuple[str, str, Mapping[str, object]]] = field(default_factory=list)

    def debug(self, event: str, message: str, **fields: object) -> None:
        """Not kept."""

    def info(self, event: str, message: str, **fields: object) -> None:
        self.entries.append((event, message, fields))

    warning = error = info

    def __str__(self) -> str:
        return "\n".join(f"{event}: {message} {dict(fields)}" for event, message, fields in self.entries)


class Shipping:
    """One inbox and one state directory below ``root``, and the archive they ship to.

    `drop` what is to be archived, then `run`. A Fatal error stops it as it stops the daemon; `restart` is systemd.
    """

    def __init__(self, root: Path, archive: Archive, *, seed: int = 0, workers: Workers | None = None) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.state = root / "state"
        self.inbox.mkdir(parents=True)
        self.state.mkdir()
        self.archive = archive
        self.clock = JumpingClock(1_900_000_000.0)
        self.log = Notes()
        self.fatal: Fatal | None = None
        self.tries = 0
        self._seed = seed
        self._workers = workers or InlineWorkers()
        self.queue: Queue
        self._start()

    def _start(self) -> None:
        self.fatal = None
        settings = IntakeSettings(settle_seconds=0, quiet_seconds=1, scan_interval_seconds=60)
        plan_of_one = Plan(
            self.state,
            (InboxPlan("inbox", self.inbox, settings, AfterArchive(delete=True)),),
            active_shipments=1,
        )
        around = Surroundings(self.clock, Random(self._seed), self.log, self._workers, self._on_fatal)
        self._parts = Parts(plan_of_one, self.archive, around)
        self.queue, self._dispatcher = self._parts.queue, self._parts.dispatcher
        self._parts.begin()
        (self._intake,) = self._parts.sources.intakes.values()

    def _on_fatal(self, error: Fatal) -> None:
        self.fatal = self.fatal or error

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self.queue.close()

    # -- at work ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Look at the inbox, ship what can be shipped, then jump to when something may happen again."""
        self._intake.step()
        self.tries += 1
        self.queue.claims.queue_due()
        self._dispatcher.work_off()
        self._parts.expiring.step()
        if self._parts.expiring.problem is not None:
            self.clock.jump(WAITING_CHECK_SECONDS)
        due = self.queue.claims.next_try_at()
        wait = max((due or 0.0) - self.clock.now(), self._dispatcher.backoff.pause())
        self.clock.jump(max(1.5, wait + 0.01))

    def run(self, after_each_step: Callable[[], None] = lambda: None) -> None:
        """Until everything that is in the inbox is archived, something is parked, or hope is lost. A Fatal error is
        left standing for the caller to look at."""
        self._intake.scan_soon()
        for _ in range(MOST_TRIES):
            self.step()
            after_each_step()
            counts = self.queue.reports.unfinished()
            if self.fatal or counts["parked"] or (not counts["moving"] and not self.left()):
                return

    def left(self) -> list[Path]:
        return sorted(path for path in self.inbox.rglob("*") if not path.is_dir())

    # -- what can be seen -----------------------------------------------------------------------------------------

    def parked(self) -> list[tuple[str | None, str | None]]:
        """(code, reason) of each parked study."""
        return [(row["code"], row["reason"]) for row in self.queue.reports.queue(100) if row["state"] == "parked"]

    def unexpected(self) -> list[Mapping[str, object]]:
        """Log entries of errors that are none of our own."""
        ours = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
        return [fields for _, _, fields in self.log.entries if fields.get("error_type", "Transient") not in ours]

    def why(self) -> str:
        """For the message of a failing assertion."""
        return f"queue: {self.queue.reports.queue(10)}\nlog:\n{self.log}"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def not_lost(shipping: Shipping, made: list[Made], held: Callable[[str], bool]) -> list[Made]:
    """The files that are neither in the inbox any more nor, as ``held`` says of a SHA-256, in the store: lost."""
    there = {sha256_of(path) for path in shipping.left()}
    return [one for one in made if one.sha256 not in there and not held(one.sha256)]


def fetched(store: ObjectStore, catalogue: Catalogue, study: Uid) -> dict[tuple[str, str], str]:
    """(series, SOP instance) to SHA-256 of a study that `fetch` brings back, by catalogue and manifest."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = plan(store, catalogue, study)
        report = Fetcher(store, threads=2, attempts=1).fetch(manifest, Path(folder))
        assert report.complete, report
        return {
            (path.parent.name, path.name.removesuffix(".dcm")): sha256_of(path) for path in Path(folder).rglob("*.dcm")
        }


def disagreement(archive: Archive, study: Uid, made: list[Made], listed: Mapping[str, int]) -> str | None:
    """What is wrong with a study that should be archived, once and whole; None if nothing is.

    ``listed`` is the store's own listing below the study, key to size, taken past every proxy.
    """
    latest = lineage.current(archive.store, study)
    if latest is None:
        return "no manifest"
    record = archive.catalogue.get(study)
    if record is None or (record.revision, record.manifest_sha256) != (latest.revision, latest.sha256):
        return "the catalogue does not hold the newest manifest"
    wanted = {(m.series_uid, m.sop_instance_uid, m.sha256, m.size_bytes) for m in made}
    if {(i.series_uid, i.sop_instance_uid, i.sha256, i.size_bytes) for i in latest.instances} != wanted:
        return "the manifest lists something else than what was in the inbox"
    expected = {i.key: i.object_bytes for i in latest.instances}
    if expected != {key: listed.get(key) for key in expected}:
        return "the store lists other sizes than the manifest"
    if archive.bundling is None:
        keys_of_all = {keys.instance(study, Uid(m.series_uid), Uid(m.sop_instance_uid), m.sha256) for m in made}
        if set(expected) != keys_of_all:
            return "the manifest lists other keys than the content's"
    elif len(expected) == len(made):
        return "nothing was bundled"
    if latest.damaged_keys:
        return f"the manifest calls {len(latest.damaged_keys)} good objects damaged"
    if latest.revision != 1:
        return f"revision {latest.revision} of a study that was shipped once"
    surplus = set(listed) - set(expected) - {latest.key}
    if surplus or len(listed) != len(expected) + 1:
        return f"{len(surplus)} objects too many, {len(set(expected) - set(listed))} too few"
    if fetched(archive.store, archive.catalogue, study) != {(m.series_uid, m.sop_instance_uid): m.sha256 for m in made}:
        return "fetch brings something else"
    return None


class _ImpatientTime:
    """The time module whose sleep returns at once."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    @staticmethod
    def sleep(_seconds: float) -> None:
        return


def without_waiting(patch: pytest.MonkeyPatch) -> None:
    """botocore's own short retries go on without their pauses."""
    patch.setattr("botocore.endpoint.time", _ImpatientTime())
