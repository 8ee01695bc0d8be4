"""One seed: a world and its story, judged after every step and at the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.model import FileState, Uid
from tests.simulation.archive import OtherSite, Shelf, SimulatedCatalogue
from tests.simulation.chance import Fate, Trace, Violation
from tests.simulation.folders import Folders
from tests.simulation.handed import HandedIn
from tests.simulation.hooks import patched
from tests.simulation.judge import Judge
from tests.simulation.poison import Poison
from tests.simulation.process import Process

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
    duplicates: int
    uploads: int
    meddled: int
    remounts: int
    rules: int
    sealed: int


def simulate(seed: int, trace: Trace | None = None, **forced: Any) -> Result:
    """``forced`` are parts of the world's plan (chance.Plan, chance.More) that are not left to the seed.

    Raises Violation, or whatever the program lets out that it should not."""
    trace = trace or Trace()
    Violation.raised.clear()
    root = Path(tempfile.mkdtemp(prefix="dicomwatchd-sim.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        return _Story(seed, root, trace, forced).told()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _Story:
    def __init__(self, seed: int, root: Path, trace: Trace, forced: dict[str, Any]) -> None:
        self._seed, self._root = seed, root
        self._fate = fate = Fate(seed, trace, forced)
        trace.add(fate.plan)
        plan = fate.plan
        capabilities = Capabilities(
            etag_is_content=plan.etag_is_content,
            checksum_on_head=plan.checksum_on_head,
            creates_only=True,
            etag_follows_content=fate.more.etag_follows_content,
            etag_follows_parts=fate.more.etag_follows_parts,
            lists_versions=plan.versions and fate.more.lists_versions,
            details={"versions": "yes"} if plan.versions else {},
        )
        self._shelf = Shelf(capabilities, plan.single_put_bytes)
        self._catalogue = SimulatedCatalogue(fate)
        self._other = OtherSite(self._shelf, self._catalogue, fate)
        self._folders = Folders(root, fate)
        self._processes = []
        for number in range(fate.more.daemons):
            state = root / f"state{number + 1}"
            state.mkdir()
            self._processes.append(Process(state, self._folders, self._shelf, self._catalogue, fate, seed, number))
        self._judge = Judge(root, fate, self._folders, self._shelf, self._catalogue, self._other, self._processes)
        self._handed = HandedIn(root, fate, self._folders, self._shelf)
        self._parked = 0
        self._kinds: list[tuple[int, Callable[[], None]]] = [
            (40, self._folders.act),
            (25, self._intake),
            (12, lambda: self._one().ship()),
            (6, self._pass_time),
            (6, self._other_ships),
            (3, self._jump),
        ]
        if fate.more.uploads:
            often = 60 if fate.more.small_uploads else 6
            self._kinds += [(often, lambda: self._handed.act(self._one())), (20, self._look_at_uploads)]
        if fate.more.meddles:
            self._kinds.append((6, self._meddle))
        if fate.more.hangs:
            self._kinds.append((5, self._folders.hang))
        if fate.more.remounts:
            self._kinds.append((4, self._remount))
        if fate.more.expires:
            self._kinds += [(4, self._change_rules), (6, lambda: self._one().check_rules())]
        if fate.more.upkeep:
            self._kinds += [(10, lambda: self._one().keep_house()), (2, self._a_day_passes)]
        if fate.more.busy:
            self._kinds.append((60 if fate.more.small_uploads else 8, self._a_while))
        if fate.more.releases:
            self._kinds.append((3, lambda: self._one().release_what_is_held()))
        fate.act = self._meanwhile

    def told(self) -> Result:
        with ExitStack() as stack:
            for process in self._processes:
                stack.callback(process.close)
            patched(stack, self._fate, self._folders, lambda: cast(Process, self._fate.at_work[-1]))
            self._start_what_is_down()
            for _ in range(self._fate.plan.steps):
                self._step(self._something)
            self._come_to_an_end()
            if self._fate.more.poisoned:
                Poison(self._fate, self._folders, self._shelf, lambda: self._step(self._work)).told()
                self._come_to_an_end()
            if self._fate.more.remounts:
                self._remount_at_rest()
            if self._fate.more.upkeep:
                self._seal_everything()
            self._judge.in_the_end()
            return self._result()

    # -- the story --------------------------------------------------------------------------------------------------

    def _step(self, action: Callable[[], None]) -> None:
        action()
        if Violation.raised:
            raise Violation.raised[0]
        for process in self._processes:
            process.tick()
        self._judge_uploads()
        self._start_what_is_down()
        self._judge.after_a_step()

    def _start_what_is_down(self) -> None:
        for process in self._processes:
            if process.fatal is not None:
                self._fate.trace.add("fatal", process.fatal.code)
            while process.is_down:
                process.start()

    def _one(self) -> Process:
        """The daemon, or one of the two."""
        return self._processes[0] if len(self._processes) == 1 else self._fate.random.choice(self._processes)

    def _something(self) -> None:
        random = self._fate.random
        for _ in range(random.randint(1, 4)):
            random.choices(self._kinds, [weight for weight, _ in self._kinds])[0][1]()

    def _meanwhile(self) -> None:
        """What others do while the program is inside a call."""
        if self._fate.more.busy and self._folders.aim is not None and self._fate.random.random() < 0.2:
            self._where_it_hurts(*self._folders.aim)
            return
        for _ in range(self._fate.random.randint(1, 2)):
            self._fate.random.choices(self._kinds, [weight for weight, _ in self._kinds])[0][1]()

    def _where_it_hurts(self, path: Path, inode: int) -> None:
        """A file is about to be deleted: its inbox falls silent, or, once it is out of the way, another file comes to
        its place, and the other daemon comes so far as to delete that one."""
        root = next((root for root in self._folders.roots if path.is_relative_to(root)), None)
        others = [process for process in self._processes if process not in self._fate.at_work]
        if root is None:
            return
        if self._fate.more.hangs and self._fate.random.random() < 0.5:
            self._folders.hang(root)
        elif others and path.parent.is_dir() and not path.exists() and root not in self._folders.away:
            self._folders._write(path, self._folders._make(self._folders._some_instance()))
            for _ in range(4):
                self._fate.clock.advance(61)
                others[0].intake(self._folders.roots.index(root))
            others[0].ship()

    def _a_while(self) -> None:
        """Time passes, and everybody gets on with what there is to do."""
        if self._fate.at_work:
            return
        seconds = self._fate.random.choice((1.5, 25.0, 61.0))  # with or without a scan each time
        for _ in range(self._fate.random.randint(3, 8)):
            self._fate.clock.advance(seconds)
            for process in self._processes:
                for number in range(self._fate.plan.inboxes):
                    process.intake(number)
                self._handed.comes_late(process)
                process.uploads()
                process.ship()
            self._judge_uploads()
            self._start_what_is_down()

    def _intake(self) -> None:
        number = self._fate.random.randrange(self._fate.plan.inboxes)
        if self._fate.random.random() < 0.5:
            self._fate.clock.advance(20)
        else:
            self._one().hint(number, self._fate.random.choice((b"", b"A", b"A/B", b"DOE^J")))
        self._one().intake(number)

    def _pass_time(self) -> None:
        seconds = self._fate.random.choice((0.5, 3.0, 30.0, 120.0, 1000.0))
        if self._fate.more.months and not self._fate.at_work:
            seconds *= 2000.0
        self._fate.clock.advance(seconds)

    def _a_day_passes(self) -> None:
        if not self._fate.at_work:
            self._fate.clock.advance(90_000.0)

    def _change_rules(self) -> None:
        self._shelf.lifecycle.change(self._fate.random)
        self._fate.trace.add("rule", self._shelf.lifecycle.prefix)

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

    def _look_at_uploads(self) -> None:
        self._one().uploads()
        self._judge_uploads()

    def _judge_uploads(self) -> None:
        if not any(process.is_down for process in self._processes):
            self._handed.judge()

    def _meddle(self) -> None:
        """Somebody deletes an object of a versioned store, or writes over it. Only where the daemon can still know, and
        mend it: the local files are there, and nothing of it is being deleted."""
        if self._fate.at_work:
            return
        here = {hashlib.sha256(data).hexdigest() for data in self._folders.ledger.values()}
        gone = {digest for _, digest in self._other.shipped}
        for process in self._processes:
            gone.update(process.unlinked)
        known = [
            key
            for key, data in sorted(self._shelf.objects.items())
            if "/manifests/" not in key
            and (digests := self._shelf.instances(key, data))
            and digests <= here
            and not digests & gone
        ]
        if known:
            key = self._fate.random.choice(known)
            deletes = self._fate.random.random() < 0.6
            self._fate.trace.add("meddled", deletes, key[-12:])
            self._handed.meddled(self._shelf.instances(key, self._shelf.objects[key]))
            self._shelf.cover(key, None if deletes else b"something else")

    def _remount(self) -> None:
        if not self._fate.at_work:
            self._folders.mounts += 1
            self._fate.trace.add("remounted")

    def _come_to_an_end(self) -> None:
        """Nothing goes wrong any more, everybody finishes: now all has to arrive."""
        self._fate.calm = True
        self._fate.trace.add("calm")
        self._folders.finish()
        self._shelf.lifecycle.prefix = None
        for number in range(_ROUNDS):
            if number == _ROUNDS // 2:
                self._fate.clock.jump(10 * 86400.0)  # the clock is put right, and what is kept for a time falls due
            self._step(self._calm_round)
            if self._finished():
                return
        raise Violation(f"does not come to an end: {self._open_ends()}")

    def _remount_at_rest(self) -> None:
        """Whatever is still there is what it was, and is not read again: but for what is tried again at each look."""
        self._step(self._calm_round)
        self._folders.reads = 0
        self._step(self._calm_round)
        at_each_look = self._folders.reads
        self._remount()
        self._folders.reads = 0
        self._step(self._calm_round)
        if self._folders.reads > at_each_look:
            raise Violation("after a remount files are read again")

    def _seal_everything(self) -> None:
        self._fate.clock.advance(2 * 86400.0)
        for _ in range(3):
            self._fate.clock.advance(61)
            self._step(self._keep_house)
        for process in self._processes:
            assert process.parts is not None
            for problem in (process.parts.checkpoints.problem, process.parts.sealing.problem):
                if problem is not None:
                    raise Violation(f"in the end there is a problem: {problem}")

    def _keep_house(self) -> None:
        for process in self._processes:
            for _ in range(20):
                process.keep_house()

    def _calm_round(self) -> None:
        self._fate.clock.advance(61)
        for process in self._processes:
            process.confirm_inboxes()
            if self._fate.more.releases:
                process.release_what_is_held()
        self._work()

    def _work(self) -> None:
        for process in self._processes:
            for number in range(self._fate.plan.inboxes):
                process.intake(number)
            process.uploads()
            process.ship()
            if self._fate.more.expires:
                process.check_rules()
            if self._fate.more.upkeep:
                process.keep_house()
            for study_uid, code in sorted(process.parked.items()):
                if code not in PARKED_BY_DESIGN:
                    raise Violation(f"a study is parked that needs nobody: {code}")
                self._parked += 1
                process.retry(study_uid)

    def _finished(self) -> bool:
        return all(process.at_rest for process in self._processes) and not self._open_ends()

    def _open_ends(self) -> list[Any]:
        unconfirmed = [name for process in self._processes for name in process.unconfirmed]
        ends = [end for process in self._processes for end in self._open_ends_of(process)]
        return [*self._handed.open, *unconfirmed, *ends]

    @staticmethod
    def _open_ends_of(process: Process) -> list[Any]:
        assert process.queue is not None
        with process.queue._database.read() as db:
            studies = db.execute(
                "SELECT study_uid, state, claimed, not_before FROM studies WHERE state != 'archived'"
            ).fetchall()
            files = db.execute(
                "SELECT f.state, f.study_uid, f.due_at FROM files f WHERE state NOT IN (?, ?, ?) OR due_at IS NOT NULL",
                (FileState.KEPT, FileState.QUARANTINED, FileState.IGNORED),
            ).fetchall()
            timers = db.execute("SELECT * FROM arrivals").fetchall()
            timers += db.execute("SELECT name, stage FROM uploads WHERE stage != 'ended'").fetchall()
        return [tuple(row) for row in (*studies, *files, *timers)]

    def _result(self) -> Result:
        repairs = [key for key in self._shelf.objects if key.startswith(keys.STUDIES) and "-" in key.rsplit("/", 1)[-1]]
        undamaged = 0
        for key in repairs:
            # What was damaged as an object of its own may come again in a bundle, and the other way round.
            folder = "/".join(key.split("/")[:2]) if self._fate.plan.bundling else key.rsplit("/", 1)[0]
            undamaged += not any(bad.startswith(folder) for bad in self._shelf.damaged)
        return Result(
            seed=self._seed,
            digest=self._fate.trace.digest(),
            hooks=self._fate.hooks,
            faults=self._fate.faults,
            kills=self._fate.kills,
            starts=sum(process.starts for process in self._processes),
            written=len(self._folders.valid),
            deleted=sum(len(process.unlinked) for process in self._processes),
            parked=self._parked,
            duplicates=undamaged,
            uploads=len(self._handed.done),
            meddled=len(self._shelf.meddled),
            remounts=self._folders.mounts,
            rules=self._shelf.lifecycle.number,
            sealed=sum(key.startswith("audit/segments/") for key in self._shelf.objects),
        )
