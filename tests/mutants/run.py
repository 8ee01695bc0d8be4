"""Runs mutants. Tests run in processes that are forked when pytest has collected them, one for each mutation or more.

- The *loaded* process has loaded the program and all tests that are named, once. A mutation that changes the bodies of
  functions, as nearly all do, is put into these functions in a process forked from it (see `in_place`).
- Another mutation, and one that no test has noticed there, has a process that loads the program with the mutation in
  it. Only this one says that a mutant survives.

The test that killed a mutation last (`killers.json`) runs first, alone. If it does not fail, or is not there any more,
all tests that are named run, in their order, until one fails: what is remembered may be out of date, which costs time
and changes no verdict.

A test that fails by itself would kill every mutant. So all tests that are named run without a mutation first, and those
that have killed run without one in the end, each alone.

As many processes at once as there are processors, and one where other tests run beside this one.

python -m tests.mutants.run [WORD ...]     those whose names hold one of the words, with what the tests say
python -m tests.mutants.run --lacking      those of which it is not on record which test kills them
python -m tests.mutants.run --remember ... writes down, too, which test has killed which of those that were run
python -m tests.mutants.run --json         all, as JSON: name to whether it was killed
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import IO

import pytest

from tests.mutants.each import Collected, Job
from tests.mutants.in_place import Loaded, NotInPlace
from tests.mutants.mutations import MUTATIONS, Mutation
from tests.workers import worker

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dicomwatchd"
KILLERS = Path(__file__).with_name("killers.json")
_FOREIGN = (
    "boto3",
    "botocore.config",
    "click",
    "hypothesis",
    "psutil",
    "pydantic",
    "pydicom",
    "pytest",
    "watchdog",
    "yaml",
)
_ROOM_BYTES = 1 << 30
_SECONDS_EACH = 240.0
#: Of one test with a mutant; one that never ends has noticed it. One that takes seconds alone ends on a busy machine.
_TEST_SECONDS = 60
#: The healthy program runs all the tests, and none of them may be taken for failed because the machine is busy.
_HEALTHY_TEST_SECONDS = 120
#: What the process that has loaded everything may take.
_ALL_SECONDS = 4800.0


@dataclass(frozen=True)
class Verdict:
    mutation: Mutation
    #: The test that has failed.
    killer: str | None
    seconds: float
    output: str

    @property
    def killed(self) -> bool:
        """Some test failed. Anything else, a test file that cannot be loaded too, is no verdict."""
        return self.killer is not None


class NoSuchText(AssertionError):
    """A mutation's text does not stand in its file exactly once: the mutation is out of date."""


def mutated(mutation: Mutation) -> str:
    """The file's source with the mutation in it. Raises NoSuchText."""
    source = (PACKAGE / mutation.file).read_text(encoding="utf-8")
    if source.count(mutation.old) != 1:
        places = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if mutation.old in p.read_text("utf-8")]
        raise NoSuchText(
            f"{mutation.name}: its text stands {source.count(mutation.old)} times in {mutation.file};"
            f" it is to be found in {', '.join(map(str, places)) or 'no file at all'}"
        )
    changed = source.replace(mutation.old, mutation.new)
    compile(changed, mutation.file, "exec")
    return changed


def run(mutations: Iterable[Mutation]) -> list[Verdict]:
    """Raises NoSuchText before any is run."""
    sources = [(mutation, mutated(mutation)) for mutation in mutations]
    for name in _FOREIGN:
        importlib.import_module(name)
    if any(name.partition(".")[0] == "dicomwatchd" for name in sys.modules):
        raise RuntimeError("the program itself must not be loaded here: a mutant would be the healthy one")
    at_once = 1 if worker()[1] > 1 else os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-mutants.", dir=_memory()) as scratch:
        verdicts = _of_the_loaded(sources, at_once, scratch)
        others = [(mutation, source) for mutation, source in sources if mutation.name not in verdicts]
        verdicts |= _of_each_anew(others, at_once, scratch)
        _require_that_they_pass_alone([one.killer for one in verdicts.values() if one.killer], at_once, scratch)
    return [verdicts[mutation.name] for mutation, _ in sources]


def _of_the_loaded(sources: list[tuple[Mutation, str]], at_once: int, scratch: str) -> dict[str, Verdict]:
    """Of those that were killed in the process that loads everything once."""
    child = _Child(partial(_in_place, sources, at_once, scratch), _ALL_SECONDS, scratch)
    killed = child.killed([mutation for mutation, _ in sources])
    if child.status != 0:
        raise AssertionError("the tests fail without any mutation:\n" + child.output)
    return {verdict.mutation.name: verdict for verdict in killed}


def _of_each_anew(sources: list[tuple[Mutation, str]], at_once: int, scratch: str) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    waiting, running = iter(sources), list[tuple[_Child, Mutation]]()
    while True:
        while len(running) < at_once and (one := next(waiting, None)) is not None:
            running.append((_Child(partial(_anew, *one, scratch), _SECONDS_EACH, scratch), one[0]))
        if not running:
            return verdicts
        for child, mutation in running[:]:
            if child.has_ended():
                running.remove((child, mutation))
                killed = child.killed([mutation])
                survivor = Verdict(mutation, None, child.seconds, child.output)
                verdicts[mutation.name] = killed[0] if killed else survivor
        time.sleep(0.01)


def _require_that_they_pass_alone(killers: list[str], at_once: int, scratch: str) -> None:
    child = _Child(partial(_alone, tuple(dict.fromkeys(killers)), at_once, scratch), _ALL_SECONDS, scratch)
    child.killed([])
    if child.status != 0:
        raise AssertionError("tests that have killed fail without any mutation, alone:\n" + child.output)


@cache
def remembered() -> dict[str, str]:
    """The test that has killed a mutation last."""
    if not KILLERS.exists():
        return {}
    found: dict[str, str] = json.loads(KILLERS.read_text(encoding="utf-8"))
    return found


def remember(verdicts: Iterable[Verdict], of: Iterable[Mutation] = MUTATIONS) -> None:
    """But for those that came to no end: another test may notice it sooner, and the machine may have been busy. What is
    on record of mutations that were not run stays, of those that are ``of`` the mutants still."""
    ran = {verdict.mutation.name: verdict for verdict in verdicts}
    noticed = {
        name: verdict.killer
        for name, verdict in ran.items()
        if verdict.killed and "from pytest-timeout" not in verdict.output
    }
    found = {name: killer for name, killer in remembered().items() if name not in ran} | noticed
    killers = {mutation.name: found[mutation.name] for mutation in of if mutation.name in found}
    KILLERS.write_text(json.dumps(killers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _memory() -> str | None:
    """A folder that waits for no disk, where there is one with room."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > _ROOM_BYTES else None


def _in_place(sources: list[tuple[Mutation, str]], at_once: int, scratch: str, answers: IO[str]) -> int:
    """Runs all tests without a mutation, then those of each mutation that can be put into what is loaded."""
    healthy = Job("healthy", [])

    def work(tests: dict[str, pytest.Item]) -> None:
        loaded = Loaded()
        gc.collect()
        gc.freeze()
        healthy.rounds.append(list(tests.values()))
        list(collected.run([healthy], 1, _HEALTHY_TEST_SECONDS, scratch))
        if healthy.has_passed:
            jobs = filter(None, (_swapped(mutation, source, loaded, tests) for mutation, source in sources))
            for job in collected.run(jobs, at_once, _TEST_SECONDS, scratch):
                _answer(job, answers)

    collected = Collected(work)
    status = _pytest(collected, tuple(dict.fromkeys(test for mutation, _ in sources for test in mutation.tests)))
    print("".join(one.output for one in healthy.ended), flush=True)
    return status or int(not healthy.has_passed)


def _alone(killers: tuple[str, ...], at_once: int, scratch: str, answers: IO[str]) -> int:
    """Runs each of them without a mutation; all must pass."""
    failed: list[Job] = []

    def work(tests: dict[str, pytest.Item]) -> None:
        gc.freeze()
        jobs = [Job(killer, [[tests[killer]]]) for killer in killers]
        failed.extend(job for job in collected.run(jobs, at_once, _HEALTHY_TEST_SECONDS, scratch) if not job.has_passed)

    if not killers:
        return 0
    collected = Collected(work)
    # Their files: a parameter in a test's name may hold what pytest would take for a part of the path.
    status = _pytest(collected, tuple(dict.fromkeys(killer.partition("::")[0] for killer in killers)))
    print("".join(one.output for job in failed for one in job.ended), flush=True)
    return status or int(bool(failed))


def _swapped(mutation: Mutation, changed: str, loaded: Loaded, tests: dict[str, pytest.Item]) -> Job | None:
    """None: it cannot be put into what is loaded."""
    path = PACKAGE / mutation.file
    prepare: Callable[[], None]
    if mutation.module in sys.modules:
        try:
            prepare = loaded.swap(os.fspath(path), path.read_text(encoding="utf-8"), changed).make
        except NotInPlace:
            return None
    else:
        prepare = partial(sys.meta_path.insert, 0, _Mutant(mutation, changed))
    return Job(mutation.name, _rounds(mutation, tests), prepare)


def _anew(mutation: Mutation, source: str, scratch: str, answers: IO[str]) -> int:
    """Loads the program with the mutation in it, and runs the mutation's tests."""
    sys.meta_path.insert(0, _Mutant(mutation, source))
    importlib.import_module(mutation.module)

    def work(tests: dict[str, pytest.Item]) -> None:
        for job in collected.run([Job(mutation.name, _rounds(mutation, tests))], 1, _TEST_SECONDS, scratch):
            _answer(job, answers)

    collected = Collected(work)
    return _pytest(collected, mutation.tests)


def _rounds(mutation: Mutation, tests: dict[str, pytest.Item]) -> list[list[pytest.Item]]:
    """The test that killed it last, if that is among those that are named; then all of these."""
    beginnings = [(test, f"{test}::", f"{test}[") for test in mutation.tests]
    named = dict.fromkeys(
        nodeid for test, *longer in beginnings for nodeid in tests if nodeid == test or nodeid.startswith(tuple(longer))
    )
    killer = remembered().get(mutation.name)
    first = [[tests[killer]]] if killer in named else []
    return [*first, [tests[nodeid] for nodeid in named]]


def _pytest(collected: Collected, tests: Iterable[str]) -> int:
    there = [test for test in tests if (ROOT / test.partition("::")[0]).exists()]
    options = ["-q", "-p", "no:cacheprovider", "--no-header"]
    return int(pytest.main([*options, *there], plugins=[collected]))


def _answer(job: Job, answers: IO[str]) -> None:
    killer = job.killer
    if killer is not None:
        json.dump([job.name, killer.nodeid, job.seconds, killer.output], answers)
        answers.write("\n")
        answers.flush()


class _Child:
    """A process that runs ``work``, which writes down what was killed."""

    def __init__(self, work: Callable[[IO[str]], int], seconds: float, scratch: str) -> None:
        self._begun = time.monotonic()
        self._end = self._begun + seconds
        self.status: int | None = None
        self.seconds = 0.0
        self.output = ""
        self._said, self._answers = (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", dir=scratch)  # noqa: SIM115  see has_ended
            for _ in range(2)
        )
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(self._run(work))

    def _run(self, work: Callable[[IO[str]], int]) -> int:
        try:
            os.dup2(self._said.fileno(), 1)
            os.dup2(self._said.fileno(), 2)
            os.chdir(ROOT)
            sys.path.insert(0, os.fspath(ROOT))
            status = work(self._answers)
            sys.stdout.flush()  # os._exit does not
            sys.stderr.flush()
            return status
        except BaseException as error:  # noqa: BLE001  a child never returns into the parent's code
            print(f"the mutant cannot be loaded: {error!r}", flush=True)
            return 99

    def has_ended(self) -> bool:
        """By itself, or because its time is over."""
        if self.status is None:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= self._end:
                os.kill(self._pid, 9)
                os.waitpid(self._pid, 0)
                self.status = -9
            self.seconds = time.monotonic() - self._begun
        return self.status is not None

    def killed(self, mutations: Iterable[Mutation]) -> list[Verdict]:
        """Which of these it says are. Waits for its end."""
        while not self.has_ended():
            time.sleep(0.01)
        of_name = {mutation.name: mutation for mutation in mutations}
        with self._said, self._answers:
            self._said.seek(0)
            self.output = self._said.read()
            self._answers.seek(0)
            answers = [json.loads(line) for line in self._answers]
        return [Verdict(of_name[name], killer, seconds, output) for name, killer, seconds, output in answers]


class _Mutant(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from another text."""

    def __init__(self, mutation: Mutation, source: str) -> None:
        self._name, self._source = mutation.module, source
        self._path = os.fspath(PACKAGE / mutation.file)

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec"), module.__dict__)


def main() -> int:
    if sys.argv[1:] == ["--json"]:
        json.dump({verdict.mutation.name: verdict.killed for verdict in run(MUTATIONS)}, sys.stdout)
        return 0
    words = [word for word in sys.argv[1:] if word not in ("--remember", "--lacking")]
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    if "--lacking" in sys.argv[1:]:
        chosen = [m for m in chosen if m.name not in remembered()]
    verdicts = run(chosen)
    for verdict in verdicts:
        print(f"{'killed' if verdict.killed else 'SURVIVED':9} {verdict.seconds:5.1f} s  {verdict.mutation.name}")
        if words or not verdict.killed:
            print("    " + "\n    ".join(verdict.output.splitlines()[-8:]))
    survivors = sum(not verdict.killed for verdict in verdicts)
    used = sum(os.times()[:4])
    print(f"{len(chosen)} mutants, {survivors} survived; {used:.0f} s of processor time")
    if "--remember" in sys.argv[1:]:
        remember(verdicts)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
