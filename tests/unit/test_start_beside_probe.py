"""The inboxes are read while the archive's store is probed; it is asked for nothing before it is known, and nothing is
written down of an archive that may not be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicomwatchd.daemon.composition import Parts, Surroundings
from dicomwatchd.daemon.plan import InboxPlan, Plan
from dicomwatchd.errors import ArchiveRefused
from dicomwatchd.pipeline.pool import InlineWorkers
from dicomwatchd.pipeline.shipment import AfterArchive, Archive
from tests.pieces import ARCHIVE_ID, IDENTITY, FakeClock, Log, settings
from tests.unit.dicomfiles import STUDY, data_set, encode
from tests.unit.memory_archive import MemoryCatalogue, MemoryStore


class Untouched:
    """A store, or a catalogue, of which nobody may ask anything before it is `known`."""

    def __init__(self, real: object, *allowed: str) -> None:
        self._real, self._allowed = real, {*allowed, "close"}
        self.known = False

    def __getattr__(self, name: str) -> Any:
        assert self.known or name in self._allowed, f"{name} was asked of it"
        return getattr(self._real, name)


class Site:
    def __init__(
        self, root: Path, probed: Callable[[Site], None], archive_id: str = ARCHIVE_ID, place: str = "memory"
    ) -> None:
        self.inbox = root / "inbox"
        self.inbox.mkdir(exist_ok=True)
        (root / "state").mkdir(exist_ok=True)
        self.memory, self.clock, self.log = MemoryStore(signed=IDENTITY.to_bytes()), FakeClock(), Log()
        self.store = Untouched(self.memory, "destination")
        self.catalogue = Untouched(MemoryCatalogue(name=place), "name")
        inbox = InboxPlan(
            "inbox", self.inbox, settings(settle_seconds=0.0, quiet_seconds=0.0), AfterArchive(delete=True)
        )
        self.parts = Parts(
            Plan(root / "state", (inbox,), active_shipments=1),
            Archive(archive_id, self.store, self.catalogue),
            Surroundings(self.clock, Random(1), self.log, InlineWorkers(), lambda _: None, probed=lambda: probed(self)),
        )

    def put(self, number: int) -> None:
        (self.inbox / f"IM{number}").write_bytes(encode(data_set(SOPInstanceUID=f"{STUDY}.1.{number}")))

    def look(self) -> None:
        for intake in self.parts.sources.every_intake():
            intake.scan_soon()
            intake.step()
            self.clock.advance(1)
            intake.step()

    def know(self) -> None:
        self.store.known = self.catalogue.known = True

    def files(self) -> list[tuple[str, bool]]:
        """State, and whether a receipt is known, of each."""
        with self.parts.queue._database.read() as db:
            return [tuple(row) for row in db.execute("SELECT state, receipt IS NOT NULL FROM files")]


def know(site: Site) -> None:
    site.know()


def refuse(_: Site) -> None:
    raise ArchiveRefused("not as it should be")


def test_inboxes_are_read_while_the_store_is_probed(tmp_path: Path) -> None:
    is_known = threading.Event()

    def wait(site: Site) -> None:
        assert is_known.wait(20), "and nobody was told that it is known"
        site.know()

    site = Site(tmp_path, wait)
    site.put(1)
    site.parts.prepare()
    site.look()
    assert site.files() == [("ready", False)]
    going = threading.Thread(target=site.parts.go)
    going.start()
    going.join(0.3)
    assert going.is_alive(), "until the store is known nothing goes on"
    is_known.set()
    going.join()
    site.parts.queue.claims.queue_due()
    assert site.parts.dispatcher.work_off() == 1
    assert list(site.inbox.glob("IM*")) == []
    site.parts.close()


def test_a_store_that_is_refused_gets_nothing_and_nothing_is_written_down_of_it(tmp_path: Path) -> None:
    site = Site(tmp_path, refuse)
    site.put(1)
    site.parts.prepare()
    site.look()
    with pytest.raises(ArchiveRefused, match="not as it should be"):
        site.parts.go()
    site.parts.put_checkpoint()
    site.parts.close()
    assert site.memory.versions == {}
    assert len(list(site.inbox.glob("IM*"))) == 1
    other = Site(tmp_path, know, "another-archive")
    other.parts.begin()
    assert other.files() == [("ready", False)], "the state belonged to nobody yet"
    other.parts.close()


def test_what_is_known_of_one_place_is_given_up_for_another_only_once_that_is_known(tmp_path: Path) -> None:
    first = Site(tmp_path, know)
    first.put(1)
    first.parts.begin()
    first.look()
    first.parts.queue.claims.queue_due()
    with first.parts.queue._database.write() as db:
        db.execute("UPDATE files SET state = 'stored', receipt = 'somewhere'")
    first.parts.close()

    with pytest.raises(ArchiveRefused, match="not as it should be"):
        Site(tmp_path, refuse, place="another")
    again = Site(tmp_path, know)
    assert again.files() == [("stored", True)]
    again.parts.close()
    there = Site(tmp_path, know, place="another")
    assert there.files() == [("ready", False)]
    assert there.log.events("archive-moved")
    there.parts.close()


def test_a_state_of_another_archive_is_refused_before_its_store_is_known(tmp_path: Path) -> None:
    first = Site(tmp_path, know)
    first.parts.begin()
    first.parts.close()
    with pytest.raises(ArchiveRefused, match="belongs to"):
        Site(tmp_path, lambda _: pytest.fail("nobody waits for it"), "another-archive")
