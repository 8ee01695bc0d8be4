"""The last look at the store, once files are staged: an object that is not there then, or is another one, costs no
file; a page's look is one request for all of them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import localfiles
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.port import Capabilities, Content, Receipt, StoredObject
from dicomwatchd.errors import Stopping, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.deletion.staging import staged as staging_module
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.pipeline.shipment import Bundling
from dicomwatchd.ports import SystemClock
from tests.leases import wait_at_lease
from tests.pieces import Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore

STUDY = Uid("1.2.1")
ETAGS = Capabilities(etag_is_content=True, creates_only=True)
LAYOUTS = [None, Bundling(1 << 16, 1 << 20)]


@dataclass
class Counting(MemoryStore):
    """Says what it was asked since it was told to count."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    #: Called before each answer about an object of the study's.
    before: Callable[[], object] = lambda: None

    def put(self, key: str, content: Content) -> Receipt:
        receipt = super().put(key, content)
        return replace(receipt, expected_etag=MemoryStore.head(self, key).etag)  # type: ignore[union-attr]

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self.asked.append(("head", key))
        self.before()
        return super().head(key, version_id)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        self.asked.append(("listing", prefix))
        self.before()
        found = [MemoryStore.head(self, key) for key in sorted(self.versions) if key.startswith(prefix) and key > after]
        yield from (replace(one, version_id=None) for one in found if one is not None)


@dataclass
class TheInboxItself(Counting):
    """A gateway that serves the very folder that the daemon takes for an inbox: an object is there while its file is
    there, under its name."""

    inbox: Path = Path()
    is_right: bool = False

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        found = super().head(key, version_id)
        return found if found is None or self._is_there(key) else None

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        return (one for one in super().listing(prefix, after) if self._is_there(one.key))

    def _is_there(self, key: str) -> bool:
        if self.is_right or "manifests" in key or not key.startswith("studies/"):
            return True
        data = self.versions[key][-1]
        files = [p for p in self.inbox.rglob("*") if p.is_file() and ".dicomwatchd-" not in str(p)]
        return any(len(one) and one in data for one in (p.read_bytes() for p in files))


def begin(root: Path, store: MemoryStore, files: int = 5, **named: Any) -> Pieces:
    pieces = Pieces(root, store=store, **named)
    pieces.memory = store
    folder = pieces.inbox / "A"
    folder.mkdir()
    for number in range(1, files + 1):
        data = instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number)
        (folder / f"IM{number}").write_bytes(data)
    pieces.settle()
    return pieces


@pytest.fixture(params=LAYOUTS, ids=["instances", "bundles"])
def layout(request: pytest.FixtureRequest) -> Bundling | None:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[5, 20], ids=["few", "many"])
def count(request: pytest.FixtureRequest) -> int:
    """Few are looked up one by one, many by a listing."""
    return int(request.param)


def objects(store: MemoryStore) -> list[str]:
    return sorted(key for key in store.versions if key.startswith("studies/") and "manifests" not in key)


@contextmanager
def when_all_are_staged(pieces: Pieces, action: Callable[[], object]) -> Iterator[None]:
    """Right before the store is asked the last time."""
    done: list[bool] = []

    def look() -> None:
        if not done and not list((pieces.inbox / "A").glob("IM*")):
            done.append(True)
            action()

    with at_each(proof_module, "_differs", look):
        yield
    assert done, "the moment did not come"


@contextmanager
def at_each(target: Any, name: str, action: Callable[[], object]) -> Iterator[None]:
    real = getattr(target, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        action()
        return result

    setattr(target, name, wrapped)
    try:
        yield
    finally:
        setattr(target, name, real)


@pytest.mark.parametrize("capabilities", [ETAGS, Capabilities()], ids=["etags", "read-back"])
def test_an_object_that_goes_with_its_file(
    tmp_path: Path, layout: Bundling | None, count: int, capabilities: Capabilities
) -> None:
    store = TheInboxItself(capabilities=capabilities, inbox=tmp_path / "inbox1")
    pieces = begin(tmp_path, store, count, bundling=layout)
    pieces.run(4)
    for _ in range(3):
        pieces.clock.advance(2000)
        pieces.run(2)
    assert len(list((pieces.inbox / "A").glob("IM*"))) == count, "the archive's only copy is gone"
    assert set(pieces.states().values()) == {"kept:own-object"}
    assert pieces.log.events("deletion-stopped")
    assert {one["code"] for one in pieces.log.events("study-delayed")} == {"object-vanished"}
    pieces.close()


def test_a_store_that_was_wrong_for_a_moment_keeps_no_file_for_good(
    tmp_path: Path, layout: Bundling | None, count: int
) -> None:
    """What was missing for as long as its file was staged, and no longer, looks like the file itself, and may have been
    the store's mistake: that is found out the day after, and after each day on which it is so again."""
    store = TheInboxItself(capabilities=ETAGS, inbox=tmp_path / "inbox1")
    pieces = begin(tmp_path, store, count, bundling=layout)
    pieces.run(4)
    for _ in range(3):
        assert set(pieces.states().values()) == {"kept:own-object"}
        pieces.clock.advance(86400.0 + 2000)
        pieces.ship()
        pieces.clock.advance(2000)
        pieces.ship()
    assert len(list((pieces.inbox / "A").glob("IM*"))) == count
    store.is_right = True
    pieces.clock.advance(3600)
    pieces.ship()
    assert len(pieces.left()) == count, "it is not the next day yet"
    pieces.clock.advance(86400.0)
    pieces.ship()
    assert pieces.left() == []
    pieces.close()


def vanish(store: MemoryStore) -> None:
    del store.versions[objects(store)[0]]


def hide(store: MemoryStore) -> None:
    store.mark_deleted(objects(store)[0])


def overwrite(store: MemoryStore) -> None:
    key = objects(store)[0]
    store.overwrite(key, bytes(len(store.versions[key][-1])))


def shorten(store: MemoryStore) -> None:
    key = objects(store)[0]
    store.overwrite(key, store.versions[key][-1][:-1])


@pytest.mark.parametrize("attack", [vanish, hide, overwrite, shorten])
@pytest.mark.parametrize(
    ("capabilities", "versioned"),
    [(ETAGS, False), (ETAGS, True), (Capabilities(), True)],
    ids=["plain", "versioned", "read-back"],
)
def test_an_object_that_is_lost_in_between(
    tmp_path: Path,
    layout: Bundling | None,
    count: int,
    attack: Callable[[MemoryStore], None],
    capabilities: Capabilities,
    versioned: bool,
) -> None:
    """Between proof and unlink; all files of the page are back, it is told, and the study is sent anew."""
    store = Counting(capabilities=capabilities, versioned=versioned)
    pieces = begin(tmp_path, store, count, bundling=layout)
    before = {p.name: p.read_bytes() for p in (pieces.inbox / "A").glob("IM*")}
    with when_all_are_staged(pieces, lambda: attack(store)):
        pieces.ship()
    assert {p.name: p.read_bytes() for p in (pieces.inbox / "A").glob("IM*")} == before
    [told] = pieces.log.events("deletion-stopped")
    assert told["files"] == (1 if layout is None else count)
    assert [one["code"] for one in pieces.log.events("study-delayed")] == ["object-vanished"]
    pieces.clock.advance(2000)
    pieces.run(4)
    assert pieces.left() == []
    assert {hashlib.sha256(one).hexdigest() for one in before.values()} <= pieces.archived()
    pieces.close()


@pytest.mark.parametrize("instead", [None, 1], ids=["missing", "another size"])
def test_one_wrong_answer_is_no_evidence(
    tmp_path: Path, layout: Bundling | None, count: int, instead: int | None
) -> None:
    """A single answer that does not bear an object out, while its file is staged, neither keeps the file nor stops
    anything: it is asked a second time."""

    @dataclass
    class WrongOnce(Counting):
        wrong: list[str] = field(default_factory=list)

        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            found = super().head(key, version_id)
            if key not in self.wrong:
                return found
            self.wrong.remove(key)
            return None if instead is None or found is None else replace(found, size_bytes=instead)

        def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
            return (one for one in super().listing(prefix, after) if one.key not in self.wrong)

    store = WrongOnce(capabilities=ETAGS)
    pieces = begin(tmp_path, store, count, bundling=layout)
    with when_all_are_staged(pieces, lambda: store.wrong.append(objects(store)[0])):
        pieces.ship()
    assert store.wrong == [], "the wrong answer was not given"
    assert pieces.left() == []
    assert not pieces.log.events("deletion-stopped")
    pieces.close()


def test_one_that_is_cut_off_where_no_etag_is_known(tmp_path: Path) -> None:
    @dataclass
    class Plain(Counting):
        def put(self, key: str, content: Content) -> Receipt:
            return MemoryStore.put(self, key, content)

        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            found = super().head(key, version_id)
            return None if found is None else replace(found, etag=None)

    store = Plain()
    pieces = begin(tmp_path, store)
    with when_all_are_staged(pieces, lambda: shorten(store)):
        pieces.ship()
    assert len(list((pieces.inbox / "A").glob("IM*"))) == 5
    pieces.close()


def test_the_same_bytes_sent_again_are_no_other_object(tmp_path: Path) -> None:
    store = Counting(capabilities=ETAGS, versioned=True)
    pieces = begin(tmp_path, store)
    key = []

    def again() -> None:
        key.append(objects(store)[0])
        store.overwrite(key[0], store.versions[key[0]][-1])

    with when_all_are_staged(pieces, again):
        pieces.ship()
    assert key and pieces.left() == []
    pieces.close()


def test_a_store_that_does_not_answer_then_costs_nothing(tmp_path: Path, layout: Bundling | None, count: int) -> None:
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store, count, bundling=layout)
    trouble = Transient("the store does not answer", code="unreachable", endpoint="store")
    with when_all_are_staged(pieces, lambda: setattr(store, "fault", trouble)):
        pieces.ship()
    assert len(list((pieces.inbox / "A").glob("IM*"))) == count
    store.fault = None
    pieces.clock.advance(2000)
    pieces.run(4)
    assert pieces.left() == []
    pieces.close()


def test_an_object_that_may_not_be_read_any_more_costs_no_file(tmp_path: Path, layout: Bundling | None) -> None:
    """It is shown as what it was, but for its checksum: nobody gets its bytes back."""

    @dataclass
    class Withholding(Counting):
        withholds: bool = False

        def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
            found = super().head(key, version_id)
            return None if found is None else replace(found, is_withheld=self.withholds)

    store = Withholding(capabilities=ETAGS)
    pieces = begin(tmp_path, store, bundling=layout)
    with when_all_are_staged(pieces, lambda: setattr(store, "withholds", True)):
        pieces.ship()
    assert len(list((pieces.inbox / "A").glob("IM*"))) == 5
    assert [one["code"] for one in pieces.log.events("study-delayed")] == ["unreadable-object"]
    store.withholds = False
    pieces.clock.advance(2000)
    pieces.run(4)
    assert pieces.left() == []
    pieces.close()


def test_a_listing_is_not_the_last_word(tmp_path: Path) -> None:
    """What a listing does not show and a HEAD does is there."""

    @dataclass
    class Forgetful(Counting):
        def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
            return iter([*super().listing(prefix, after)][1:] if self.forgets else [*super().listing(prefix, after)])

        forgets: bool = False

    store = Forgetful(capabilities=ETAGS)
    pieces = begin(tmp_path, store, 20)
    with when_all_are_staged(pieces, lambda: setattr(store, "forgets", True)):
        pieces.ship()
    assert pieces.left() == [] and pieces.log.events("deletion-stopped") == []
    pieces.close()


# -- what may happen to a file while the store is asked ----------------------------------------------------------------


@contextmanager
def while_it_is_asked(pieces: Pieces, store: Counting, action: Callable[[], object]) -> Iterator[list[bool]]:
    done: list[bool] = []

    def before() -> None:
        if not done and list(pieces.inbox.glob(".dicomwatchd-aside-*/A/IM1")):
            done.append(True)
            action()

    store.before = before
    yield done
    store.before = lambda: None
    assert done, "nobody has asked while files was staged"


def staged(pieces: Pieces, name: str = "IM1") -> Path:
    return next(pieces.inbox.glob(f".dicomwatchd-aside-*/A/{name}"))


@pytest.fixture(params=[True, False], ids=["leases", "no-leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:

        @contextmanager
        def none(_fd: int) -> Iterator[bool]:
            yield False

        monkeypatch.setattr(proof_module, "read_lease", none)
        monkeypatch.setattr(staging_module, "read_lease", none)
    return bool(request.param)


def test_a_program_that_opens_it_meanwhile_gets_it_back(tmp_path: Path, leases: bool) -> None:
    """It is asked for by a descriptor from before; with a lease the program waits until it is known what becomes of
    the file."""
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store)
    threads: list[threading.Thread] = []
    other = b"x" * 100
    inode = (pieces.inbox / "A" / "IM1").stat().st_ino

    def write(path: Path) -> None:
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, other, 0)
        os.close(fd)

    def begin_to_write() -> None:
        threads.append(threading.Thread(target=write, args=[staged(pieces)]))
        threads[0].start()
        wait_at_lease(threads[0])

    with while_it_is_asked(pieces, store, begin_to_write):
        pieces.ship()
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert [p.name for p in pieces.left()] == ["IM1"]
    assert pieces.left()[0].read_bytes().startswith(other)
    assert pieces.left()[0].stat().st_ino == inode, "it was deleted, and what was written saved"
    pieces.close()


def test_another_file_in_its_place_aside_does_not_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system, too, on which a rename leaves no trace on the file itself."""
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store)
    real = localfiles.identity
    monkeypatch.setattr(proof_module, "identity", lambda fd: seen.setdefault(fd, real(fd)))
    seen: dict[int, Any] = {}

    def exchange() -> None:
        path = staged(pieces)
        path.rename(pieces.root / "mine")
        path.write_bytes(b"another one")

    with while_it_is_asked(pieces, store, exchange):
        pieces.ship()
    assert (pieces.root / "mine").exists()
    assert b"another one" in [p.read_bytes() for p in pieces.left()]
    pieces.close()


def test_what_is_taken_back_meanwhile_stays(tmp_path: Path) -> None:
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store)

    def keep() -> None:
        pieces.after_archive = type(pieces.after_archive)(delete=False)

    with while_it_is_asked(pieces, store, keep):
        pieces.ship()
    assert len(list((pieces.inbox / "A").glob("IM*"))) == 5
    pieces.close()


def test_a_stop_meanwhile_puts_all_back(tmp_path: Path) -> None:
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store)

    def stop() -> None:
        raise Stopping("stopped")

    left: list[int] = []

    def count() -> None:
        left.append(len(list((pieces.inbox / "A").glob("IM*"))))

    with while_it_is_asked(pieces, store, stop), at(type(pieces.queue.deletions), "purged", count):
        pieces.ship()
    assert left == [5]
    pieces.run()
    assert pieces.left() == []
    pieces.close()


def test_a_private_directory_that_is_taken_meanwhile_costs_no_other_file(tmp_path: Path) -> None:
    """While some files lie in it already. What was opened of it stays so: a number that is used again would lead the
    deletion somewhere else."""
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store)
    real, calls = localfiles.rename_to_private, [0]

    def taken(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise FileNotFoundError(2, "taken")
        real(*arguments)

    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch, while_it_is_asked(pieces, store, lambda: seen.append(1)):
        patch.setattr(staging_module, "rename_to_private", taken)
        pieces.ship()
    assert calls[0] == 6 and pieces.left() == []
    assert not list(pieces.inbox.glob(".dicomwatchd-aside*"))
    pieces.close()


def test_a_crash_while_the_store_is_asked(tmp_path: Path, layout: Bundling | None) -> None:
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store, bundling=layout)

    def die() -> None:
        raise KeyboardInterrupt

    def nothing(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, while_it_is_asked(pieces, store, die):
        patch.setattr(proof_module, "restore", nothing)
        patch.setattr(type(pieces.queue.deletions), "purged", nothing)
        with pytest.raises(KeyboardInterrupt):
            pieces.ship()
    assert not list(pieces.inbox.glob("A/IM*"))
    pieces.restart()
    assert len(list(pieces.inbox.glob("A/IM*"))) == 5
    pieces.run()
    assert pieces.left() == []
    pieces.close()


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundling", LAYOUTS, ids=["instances", "bundles"])
def test_no_request_for_each_file(tmp_path: Path, bundling: Bundling | None) -> None:
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store, 300, bundling=bundling)
    with at(proof_module, "stage_file", store.asked.clear):
        pieces.ship()
    assert pieces.left() == []
    asked = [one for one in store.asked if "manifests" not in one[1]]
    assert 1 <= len(asked) <= 300 / 64 + 1, asked
    pieces.close()


def test_workers_share_a_look(tmp_path: Path) -> None:
    """Whoever is ready while a look is under way waits for the next one, which is for all who are ready by then."""
    store = Counting(capabilities=ETAGS)
    pieces = begin(tmp_path, store, 400)
    pool = Pool(Pace(8, SystemClock()))
    threading_lane = pool.lane
    pieces.dispatcher._lane = threading_lane
    store.before = lambda: threading.Event().wait(0.2)
    with at(proof_module, "stage_file", store.asked.clear):
        pieces.ship()
    pool.close()
    assert pieces.left() == []
    assert len([one for one in store.asked if "manifests" not in one[1]]) <= 2, "all are staged by then"
    pieces.close()


def test_series_that_have_come_mixed_are_each_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To verify them: objects are looked up in groups, in the order of their keys."""
    monkeypatch.setattr(evidence, "GROUP", 20)
    store = Counting(capabilities=ETAGS)
    pieces = Pieces(tmp_path, store=store)
    pieces.memory = store
    for number in range(20):
        for series in ("1.2.1.1", "1.2.1.2", "1.2.1.3"):
            (pieces.inbox / f"{series}.{number}").write_bytes(instance(STUDY, series, f"{series}.{number}", number))
        pieces.settle()
    asked: list[str] = []
    real = stages.verify

    def verified(*arguments: Any) -> None:
        store.asked.clear()
        real(*arguments)
        asked.extend(what for what, _ in store.asked)

    monkeypatch.setattr(stages, "verify", verified)
    pieces.run()
    assert pieces.left() == [] and asked.count("listing") == 3, asked
    pieces.close()
