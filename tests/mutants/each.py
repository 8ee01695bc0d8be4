"""Runs tests that pytest has collected in processes that are forked from this one: what a mutation has changed there,
and what tests have left, is gone with the process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PASSED, FAILED, NEITHER = 0, 1, 3
#: For a test that its time-out does not end.
_GRACE_SECONDS = 100.0


@dataclass(frozen=True)
class Ended:
    """How a test has ended, and what it says if it did not pass."""

    nodeid: str
    status: int
    output: str


@dataclass
class Job:
    """Rounds of tests, each in a process of its own, in which ``prepare`` is called before. A test that fails is the
    end of its round; it is the end of the job, too, if it was the test itself that failed."""

    name: str
    rounds: list[list[pytest.Item]]
    prepare: Callable[[], None] = lambda: None
    seconds: float = 0.0
    ended: list[Ended] = field(default_factory=list)

    @property
    def killer(self) -> Ended | None:
        return next((one for one in self.ended if one.status == FAILED), None)

    @property
    def has_passed(self) -> bool:
        return len(self.ended) == len(self.rounds) and all(one.status == PASSED for one in self.ended)


class Collected:
    """A plugin of pytest, which calls ``work`` with the tests that were collected, in the place of running them."""

    def __init__(self, work: Callable[[dict[str, pytest.Item]], None]) -> None:
        self._work = work
        self.reports: list[pytest.TestReport] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("a test file cannot be loaded")
        self._work({item.nodeid: item for item in session.items})
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def run(self, jobs: Iterable[Job], at_once: int, test_seconds: int, scratch: str) -> Iterator[Job]:
        """The jobs as they end."""
        waiting, running = iter(jobs), list[tuple[Job, _Process]]()
        while True:
            while len(running) < at_once and (job := next(waiting, None)) is not None:
                if job.rounds:
                    running.append((job, _Process(self, job, test_seconds, scratch)))
                else:
                    yield job
            if not running:
                return
            for job, process in running[:]:
                if not process.has_ended():
                    continue
                running.remove((job, process))
                job.ended.append(process.result())
                job.seconds += process.seconds
                if job.killer is None and len(job.ended) < len(job.rounds):
                    running.append((job, _Process(self, job, test_seconds, scratch)))
                else:
                    yield job
            time.sleep(0.005)


class _Process:
    """The first round of a job that has not been run."""

    def __init__(self, collected: Collected, job: Job, test_seconds: int, scratch: str) -> None:
        self._tests = job.rounds[len(job.ended)]
        self._files = tempfile.mkdtemp(dir=scratch)
        self._begun = time.monotonic()
        self._end = self._begun + test_seconds * len(self._tests) + _GRACE_SECONDS
        self.seconds = 0.0
        self._status: int | None = None
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  see result
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(self._run(collected, job.prepare, test_seconds))

    def _run(self, collected: Collected, prepare: Callable[[], None], test_seconds: int) -> int:
        status = NEITHER
        try:
            # Else pytest makes a longer path, and the name of a socket may have 107 bytes only.
            self._tests[0].config._tmp_path_factory._basetemp = Path(self._files)  # type: ignore[attr-defined]
            prepare()
            status = PASSED
            for test, following in zip(self._tests, [*self._tests[1:], None], strict=True):
                if test.get_closest_marker("timeout") is None:
                    test.add_marker(pytest.mark.timeout(test_seconds))
                collected.reports.clear()
                test.ihook.pytest_runtest_protocol(item=test, nextitem=following)
                failed = [report for report in collected.reports if report.failed]
                for one in failed:
                    self._output.write(f"{one.nodeid}\n{one.longreprtext}\n{one.when} failed\n")
                if failed:
                    # One that cannot be set up or cleared away has not noticed anything.
                    status = FAILED if any(one.when == "call" for one in failed) else NEITHER
                    break
        except BaseException as error:  # noqa: BLE001  a child never returns into the parent's code
            status = NEITHER
            with suppress(BaseException):
                self._output.write(f"{self._tests[0].nodeid} cannot be run: {error!r}\n")
        with suppress(BaseException):
            self._output.flush()
        return status

    def has_ended(self) -> bool:
        """By itself, or because its time is over."""
        if self._status is None:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= self._end:
                os.kill(self._pid, 9)
                os.waitpid(self._pid, 0)
                self._status = NEITHER
            self.seconds = time.monotonic() - self._begun
        return self._status is not None

    def result(self) -> Ended:
        assert self._status is not None
        shutil.rmtree(self._files, ignore_errors=True)
        with self._output:
            self._output.seek(0)
            text = self._output.read()
        first, _, rest = text.partition("\n")
        # A process that was ended by a signal, or that has ended itself, says nothing of the mutation.
        status = self._status if self._status == PASSED or (self._status == FAILED and rest) else NEITHER
        return Ended(first, status, text or f"{self._tests[0].nodeid} and others ended with {self._status}\n")
