"""Runs mutants: a process that has loaded everything foreign forks once for each, and the child runs the tests, on
files in memory. As many children as there are processors, and one alone where other tests run beside this one.

python -m tests.mutants.run [WORD ...]     those whose names hold one of the words, with what the tests say
python -m tests.mutants.run --json         all, as JSON: name to whether it was killed
"""

from __future__ import annotations

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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.mutants.mutations import MUTATIONS, Mutation
from tests.workers import worker

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dicomwatchd"
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
_SECONDS_EACH = 120.0
#: Of one test with a mutant; one that never ends has noticed it.
_TEST_SECONDS = 20
#: The healthy program runs all the tests, and none of them may be taken for failed because the machine is busy.
_HEALTHY_SECONDS = 900.0
_HEALTHY_TEST_SECONDS = 120


@dataclass(frozen=True)
class Verdict:
    mutation: Mutation
    status: int
    seconds: float
    output: str

    @property
    def killed(self) -> bool:
        """1: some test failed. Anything else, a test file that cannot be loaded too, is no verdict."""
        return self.status == 1 and " failed" in self.output


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
    # A test that fails by itself would kill every mutant.
    tests = tuple(dict.fromkeys(t for m, _ in sources for t in m.tests))
    healthy = Mutation("healthy", "errors.py", "", "", tests)
    text = (PACKAGE / healthy.file).read_text(encoding="utf-8")
    at_once = 1 if worker()[1] > 1 else os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-mutants.", dir=_memory()) as scratch:
        found = _Child(healthy, text, _HEALTHY_SECONDS, _HEALTHY_TEST_SECONDS, scratch).verdict()
        if found.status != 0:
            raise AssertionError("the tests fail without any mutation:\n" + found.output)
        verdicts: list[Verdict] = []
        running: list[_Child] = []
        for mutation, source in sources:
            if len(running) >= at_once:
                verdicts.append(_first_to_end(running))
            running.append(_Child(mutation, source, _SECONDS_EACH, _TEST_SECONDS, scratch))
        verdicts += [child.verdict() for child in running]
    of_mutation = {verdict.mutation.name: verdict for verdict in verdicts}
    return [of_mutation[mutation.name] for mutation, _ in sources]


def _memory() -> str | None:
    """A folder that waits for no disk, where there is one with room."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > _ROOM_BYTES else None


def _first_to_end(running: list[_Child]) -> Verdict:
    """Takes it out of those that run."""
    while True:
        for child in running:
            if child.has_ended():
                running.remove(child)
                return child.verdict()
        time.sleep(0.01)


class _Child:
    """A process that runs one mutation's tests."""

    def __init__(self, mutation: Mutation, source: str, seconds: float, test_seconds: int, scratch: str) -> None:
        self._mutation, self._begun = mutation, time.monotonic()
        self._files = tempfile.mkdtemp(dir=scratch)
        self._end = self._begun + seconds
        self._status: int | None = None
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  see verdict
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(_child(mutation, source, self._output.fileno(), test_seconds, self._files))

    def has_ended(self) -> bool:
        """By itself, or because its time is over."""
        if self._status is None:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= self._end:
                os.kill(self._pid, 9)
                os.waitpid(self._pid, 0)
                self._status = 1
        return self._status is not None

    def verdict(self) -> Verdict:
        """Waits for its end."""
        while not self.has_ended():
            time.sleep(0.01)
        assert self._status is not None
        shutil.rmtree(self._files, ignore_errors=True)
        with self._output:
            self._output.seek(0)
            return Verdict(self._mutation, self._status, time.monotonic() - self._begun, self._output.read())


def _child(mutation: Mutation, source: str, output: int, test_seconds: int, files: str) -> int:
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        sys.path.insert(0, os.fspath(ROOT))
        sys.meta_path.insert(0, _Mutant(mutation, source))
        importlib.import_module(mutation.module)
        import pytest

        tests = [test for test in mutation.tests if (ROOT / test.partition("::")[0]).exists()]
        options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", f"--timeout={test_seconds}"]
        status = int(pytest.main([*options, f"--basetemp={files}/files", *tests]))
        sys.stdout.flush()  # os._exit does not, and what the tests say is the verdict
        sys.stderr.flush()
        return status
    except BaseException as error:  # noqa: BLE001  a child never returns into the parent's code
        print(f"the mutant cannot be loaded: {error!r}", flush=True)
        return 99


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
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    survivors = 0
    for verdict in run(chosen):
        print(f"{'killed' if verdict.killed else 'SURVIVED':9} {verdict.seconds:5.1f} s  {verdict.mutation.name}")
        if not verdict.killed:
            survivors += 1
        if words or not verdict.killed:
            print("    " + "\n    ".join(verdict.output.splitlines()[-8:]))
    print(f"{len(chosen)} mutants, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
