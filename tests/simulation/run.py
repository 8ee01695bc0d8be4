"""One seed: a world, its story, what must hold after every step, and what must have come of it in the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dicomwatchd.archive import manifest as manifests
from dicomwatchd.archive.store import Capabilities
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.fetch import Fetcher
from dicomwatchd.model import FileState, Uid
from tests.simulation.archive import OtherSite, Shelf, SimulatedCatalogue
from tests.simulation.chance import Fate, Killed, Trace, Violation
from tests.simulation.folders import Folders
from tests.simulation.process import Process

T = TypeVar("T")

#: Codes of studies that only a person can help, by design.
PARKED_BY_DESIGN = frozenset({"store-unreliable"})
_ROUNDS = 80


@dataclass(frozen=True)
class Result:
    seed: int
    digest: str
    hooks: int
    faults: int
    kills: int
    starts: int
    written: int
    deleted: int
    parked: int
    restored: int
    duplicates: int


def simulate(seed: int, trace: Trace | None = None) -> Result:
    """Raises Violation, or whatever the program lets out that it should not."""
    trace = trace or Trace()
    root = Path(tempfile.mkdtemp(prefix="dicomwatchd-sim.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        return _Story(seed, root, trace).told()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _Story:
    def __init__(self, seed: int, root: Path, trace: Trace) -> None:
        self._seed, self._root = seed, root
        self._fate = fate = Fate(seed, trace)
        trace.add(fate.plan)
        plan = fate.plan
        capabilities = Capabilities(
            etag_is_content=plan.etag_is_content,
            checksum_on_head=plan.checksum_on_head,
            creates_only=True,
            details={"versions": "yes"} if plan.versions else {},
        )
        self._shelf = Shelf(capabilities)
        self._catalogue = SimulatedCatalogue(fate)
        self._other = OtherSite(self._shelf, self._catalogue, fate)
        self._folders = Folders(root, fate)
        state = root / "state"
        state.mkdir()
        self._process = Process(state, self._folders, self._shelf, self._catalogue, fate, seed)
        self._ever: dict[str, str] = {}  # key to the SHA-256 of what it holds
        self._held: dict[str, bytes] = {}
        self._seen: dict[tuple[int, int, int, int], bytes] = {}
        self._parked = 0
        self._kinds: list[tuple[int, Callable[[], None]]] = [
            (40, self._folders.act),
            (25, self._intake),
            (12, self._process.ship),
            (6, self._pass_time),
            (6, self._other_ships),
            (3, self._jump),
        ]
        fate.act = self._meanwhile

    def told(self) -> Result:
        with self._process:
            self._start()
            for _ in range(self._fate.plan.steps):
                self._step(self._something)
            self._come_to_an_end()
            self._judge()
            return self._result()

    # -- the story --------------------------------------------------------------------------------------------------

    def _step(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Killed:
            self._start()
        if self._process.fatal is not None:
            self._fate.trace.add("fatal", self._process.fatal.code)
            self._start()
        self._check()

    def _start(self) -> None:
        while True:
            self._process.close()
            try:
                self._process.start()
            except (Killed, DicomwatchdError):
                continue
            return

    def _something(self) -> None:
        random = self._fate.random
        for _ in range(random.randint(1, 4)):
            random.choices(self._kinds, [weight for weight, _ in self._kinds])[0][1]()

    def _meanwhile(self) -> None:
        """What others do while the program is inside a call."""
        for _ in range(self._fate.random.randint(1, 2)):
            self._fate.random.choices(self._kinds, [weight for weight, _ in self._kinds])[0][1]()

    def _intake(self) -> None:
        number = self._fate.random.randrange(self._fate.plan.inboxes)
        if self._fate.random.random() < 0.5:
            self._fate.clock.advance(20)
        else:
            self._process.hint(number, self._fate.random.choice((b"", b"A", b"A/B", b"DOE^J")))
        self._process.intake(number)

    def _pass_time(self) -> None:
        self._fate.clock.advance(self._fate.random.choice((0.5, 3.0, 30.0, 120.0, 1000.0)))

    def _jump(self) -> None:
        if self._fate.plan.jumps:
            seconds = self._fate.random.choice((-86400.0, -3600.0, -1.0, 1.0, 3600.0, 86400.0))
            self._fate.trace.add("clock", seconds)
            self._fate.clock.jump(seconds)

    def _other_ships(self) -> None:
        folders, random = self._folders, self._fate.random
        if not folders.valid:
            return
        data = random.choice(list(folders.valid))
        instance = folders.valid[data]
        if random.random() < 0.5:  # something that only the other site has
            data = folders._make(instance)
        self._other.ship(Uid(instance.study), Uid(instance.series), Uid(instance.sop_instance), data)

    def _come_to_an_end(self) -> None:
        """Nothing goes wrong any more, everybody finishes: now all has to arrive."""
        self._fate.calm = True
        self._fate.trace.add("calm")
        self._folders.finish()
        for number in range(_ROUNDS):
            if number == _ROUNDS // 2:
                self._fate.clock.jump(10 * 86400.0)  # the clock is put right, and what is kept for a time falls due
            self._step(self._calm_round)
            if self._finished():
                return
        raise Violation(f"does not come to an end: {self._open_ends()}")

    def _calm_round(self) -> None:
        self._fate.clock.advance(61)
        for number in range(self._fate.plan.inboxes):
            self._process.intake(number)
        self._process.ship()
        assert self._process.queue is not None
        for study_uid, code in sorted(self._process.parked.items()):
            if code not in PARKED_BY_DESIGN:
                raise Violation(f"a study is parked that needs nobody: {code}")
            self._parked += 1
            self._process.queue.shipments.retry(study_uid)

    def _finished(self) -> bool:
        return self._process.at_rest and not self._open_ends()

    def _open_ends(self) -> list[Any]:
        assert self._process.queue is not None
        with self._process.queue._database.read() as db:
            studies = db.execute(
                "SELECT study_uid, state, claimed, not_before FROM studies WHERE state != 'archived'"
            ).fetchall()
            files = db.execute(
                "SELECT f.state, f.study_uid, f.due_at FROM files f WHERE state NOT IN (?, ?, ?) OR due_at IS NOT NULL",
                (FileState.KEPT, FileState.QUARANTINED, FileState.IGNORED),
            ).fetchall()
            timers = db.execute("SELECT * FROM arrivals").fetchall()
        return [tuple(row) for row in (*studies, *files, *timers)]

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """After every step: nothing is lost, nothing in the store has changed."""
        shelf = self._shelf
        while shelf.lost:
            self._ever.pop(shelf.lost.pop(), None)
        for key, digest in self._ever.items():
            if key not in shelf.objects:
                raise Violation("an object was deleted from the store")
            if shelf.objects[key] is not self._held[key] and _sha256(shelf.objects[key]) != digest:
                raise Violation("a key has held two contents")
        for key, data in shelf.objects.items():
            if key not in self._ever:
                self._ever[key], self._held[key] = _sha256(data), data
        found = self._contents()
        for inode, data in self._folders.ledger.items():
            if found.get(inode) != data:
                what = "is gone" if inode not in found else "has changed"
                raise Violation(f"a file {what} that nobody has touched")
        by_digest = {digest for digest in self._process.unlinked if digest not in self._proper()}
        if by_digest:
            raise Violation("something was deleted that the store does not hold")

    def _proper(self) -> set[str]:
        """The SHA-256 of everything that the store holds under a key of its own."""
        return {digest for key, digest in self._ever.items() if digest in key and key in self._shelf.objects}

    def _contents(self) -> dict[int, bytes]:
        """By inode, everything in the inboxes, set aside or not."""
        found: dict[int, bytes] = {}
        todo = [os.fspath(self._folders.away.get(root, root)) for root in self._folders.roots]
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        stat = entry.stat(follow_symlinks=False)
                        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                        if version not in self._seen:
                            self._seen[version] = Path(entry.path).read_bytes()
                        found[stat.st_ino] = self._seen[version]
        return found

    def _judge(self) -> None:
        """In the end everything has arrived, and everything agrees."""
        queue = self._process.queue
        assert queue is not None
        held = self._proper()
        for data in self._contents().values():
            digest = _sha256(data)
            if data in self._folders.valid and digest not in held:
                raise Violation("a whole instance did not arrive")
        for _, digest in self._other.shipped:
            if digest not in held:
                raise Violation("what the other site had archived is gone")
        listed: set[str] = set()
        for study in sorted({key.split("/")[1] for key in self._shelf.objects}):
            listed |= self._judge_study(Uid(study))
        for digest in {*self._process.unlinked, *(digest for _, digest in self._other.shipped)} - listed:
            raise Violation(f"deleted, and in no manifest: {digest[:12]}")
        self._judge_inboxes(listed)
        if (broken := queue.audit.broken_at()) is not None:
            raise Violation(f"the audit chain is broken at {broken}")
        self._judge_audit()

    def _judge_inboxes(self, listed: set[str]) -> None:
        """What is still there has a reason to be."""
        assert self._process.queue is not None
        with self._process.queue._database.read() as db:
            rows = db.execute("SELECT source_id, dir, name, state FROM files").fetchall()
        states = {(row[0], row[1], row[2]): row[3] for row in rows}
        for number, root in enumerate(self._folders.roots):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    relative = os.fsencode(os.path.relpath(folder, root))
                    state = states.get((number + 1, b"" if relative == b"." else relative, os.fsencode(name)))
                    if path.is_symlink() or (data := path.read_bytes()) not in self._folders.valid:
                        expected = {FileState.QUARANTINED}
                    else:
                        expected = {FileState.KEPT} if self._fate.plan.keep_seconds[number] is None else set()
                        if _sha256(data) not in listed:
                            raise Violation("an archived file is in no manifest")
                    if state not in expected:
                        raise Violation(f"a file that is left is {state}, not {expected}: {relative!r} {name}")

    def _judge_study(self, study: Uid) -> set[str]:
        manifest = manifests.latest(self._shelf, study)
        if manifest is None:
            return set()  # objects of a study whose files a person took away again
        with_gaps = {key for key in self._shelf.objects if f"studies/{study}/manifests/" in key}
        if len(with_gaps) != manifest.revision:
            raise Violation("the revisions of a study have gaps")
        for revision in range(1, manifest.revision + 1):
            manifests.load(self._shelf, f"studies/{study}/manifests/{revision:08d}.json")
        if study in {uid for uid, _ in self._other.shipped}:
            self._other.record(study)
        record = self._catalogue.records.get(study)
        if record != manifest.record():
            raise Violation("the catalogue is not what the latest manifest says")
        for item in manifest.instances:
            if _sha256(self._shelf.objects.get(item.key, b"")) != item.sha256:
                raise Violation("a manifest lists an object that does not hold its bytes")
        counter = iter(range(1 << 30))
        fetcher = Fetcher(
            self._shelf,
            threads=1,
            token=lambda: f"{next(counter):016x}",
            jitter=lambda: 0.0,
            sleep=lambda _: None,
            monotonic=self._fate.clock.monotonic,
            executor=lambda _: _Inline(),
        )
        target = self._root / "fetched" / study
        report = fetcher.fetch(manifest, target)
        if not report.complete or report.bad_objects:
            raise Violation("fetch does not bring everything back")
        fetched = sorted(_sha256(p.read_bytes()) for p in target.rglob("*.dcm"))
        if fetched != sorted(item.sha256 for item in manifest.instances):
            raise Violation("fetch brings other bytes back than the manifest lists")
        return {item.sha256 for item in manifest.instances}

    def _judge_audit(self) -> None:
        """Each deletion was authorised before, once, and its end was written down once."""
        assert self._process.queue is not None
        authorised: dict[int, str] = {}
        deleted: list[str] = []
        with self._process.queue._database.read() as db:
            studies = [row[0] for row in db.execute("SELECT DISTINCT study_uid FROM audit ORDER BY 1").fetchall()]
        for study in studies:
            for entry in self._process.queue.audit.of_study(study):
                file, kind = entry.body["file"], entry.body["kind"]
                if kind == "authorised":
                    if file in authorised:
                        raise Violation("a deletion is authorised while an earlier one is open")
                    authorised[file] = entry.body["sha256"]
                elif authorised.pop(file, None) != entry.body["sha256"]:
                    raise Violation(f"{kind}, and was not authorised")
                elif kind == "deleted":
                    deleted.append(entry.body["sha256"])
        if authorised:
            raise Violation("it is not on record how a deletion ended")
        for digest in set(self._process.unlinked):
            if deleted.count(digest) < self._process.unlinked.count(digest):
                raise Violation("a deletion is not on record")

    def _result(self) -> Result:
        assert self._process.queue is not None
        repairs = [key for key in self._shelf.objects if "-" in key.rsplit("/", 1)[-1]]
        undamaged = 0
        for key in repairs:
            folder = key.rsplit("/", 1)[0]
            undamaged += not any(bad.startswith(folder) for bad in self._shelf.damaged)
        return Result(
            seed=self._seed,
            digest=self._fate.trace.digest(),
            hooks=self._fate.hooks,
            faults=self._fate.faults,
            kills=self._fate.kills,
            starts=self._process.starts,
            written=len(self._folders.valid),
            deleted=len(self._process.unlinked),
            parked=self._parked,
            restored=0,
            duplicates=undamaged,
        )


class _Inline(Executor):
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  as an executor does
            future.set_exception(error)
        return future


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
