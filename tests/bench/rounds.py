"""Runs a case: in every round each client once, in an order that turns from round to round, all on fresh names."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from tests.bench import measure
from tests.bench.cases import Case
from tests.bench.clients import PREFIX, Client, Job, Ours
from tests.bench.data import DataSet
from tests.bench.measure import Measured, RunFailed
from tests.bench.store import Endpoint, Servers

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

#: Lets the servers come to rest after what the last run has left them to do.
_REST_SECONDS = 0.5
#: A daemon has looked at its inbox by then, and nothing of its start is left to do.
COMES_TO_REST_SECONDS = 3.0


@dataclass(slots=True)
class Result:
    """``runs``: for each client what was measured, by round. ``failed``: peers that have not done the whole work of a
    round, and what was missing; they have no time to compare."""

    case: Case
    data: DataSet
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run_case(
    case: Case, data: DataSet, clients: Sequence[Client], rounds: int, servers: Servers, endpoint: Endpoint, work: Path
) -> Result:
    """``clients`` that cannot do the case's job are left out. Raises RunFailed where ours has not done its work."""
    result = Result(case, data)
    runner = _kind_of(case)(servers, endpoint, work, data, case.layout)
    try:
        able = [client for client in clients if _try(result, client, runner.begin)]
        result.runs = {client.name: [] for client in able}
        for number in range(rounds):
            turn = number % len(able)
            for client in [*able[turn:], *able[:turn]]:
                measured = None if client.name in result.failed else _try(result, client, runner.round)
                if measured is None:
                    continue
                result.runs[client.name].append(measured)
                print(
                    f"  round {number + 1}  {client.name:12}  {measured.wall_seconds:6.2f} s"
                    f"  cpu {measured.cpu_seconds:5.2f} s  rss {measured.peak_rss_bytes / 1e6:4.0f} MB",
                    flush=True,
                )
    finally:
        runner.end()
    result.runs = {name: runs for name, runs in result.runs.items() if name not in result.failed}
    return result


def _kind_of(case: Case) -> type[_Moving | _Fetching]:
    if case.measures == "requests":
        return _Requests
    if case.direction == "fetch":
        return _Fetching
    return _Running if case.running else _Moving


def _try(result: Result, client: Client, work: Callable[[Client], T]) -> T | None:
    """None, with a note in the result, where a peer fails."""
    try:
        return work(client)
    except RunFailed as error:
        if isinstance(client, Ours):
            raise
        result.failed[client.name] = str(error)
        print(f"  {error}: left out of this case", flush=True)
        return None


class _Runner:
    def __init__(self, servers: Servers, endpoint: Endpoint, work: Path, data: DataSet, layout: str) -> None:
        self._servers, self._endpoint, self._work, self._data = servers, endpoint, work, data
        self._layout = layout

    def _job(self) -> Job:
        name = f"bench-{secrets.token_hex(6)}"
        scratch, inbox, target = (self._work / name / part for part in ("scratch", "inbox", "target"))
        for folder in (scratch, inbox):
            folder.mkdir(parents=True)
        return Job(name, self._endpoint, name, scratch, inbox, target, self._data.study_uid, self._layout)

    def _move(self, client: Client, job: Job) -> Measured:
        self._data.link_into(job.inbox)
        client.prepare(job)
        _rest()
        measured = self._measured(client, job)
        left = [path for path in job.inbox.rglob("*") if not path.is_dir()]
        stored = self._servers.count(job.bucket)
        least = 1 if client.bundles and job.layout == "bundled" else self._data.files
        if left or stored < least:
            raise RunFailed(f"{client.name}: {len(left)} files left, {stored} objects stored")
        return measured

    def _measured(self, client: Client, job: Job) -> Measured:
        command, env = client.move(job)
        return measure.run(command, env=env, log=job.scratch / "log")

    def _clear(self, client: Client, job: Job) -> None:
        self._servers.clear(job.bucket)
        client.finish(job)
        shutil.rmtree(self._work / job.name)


class _Moving(_Runner):
    def begin(self, client: Client) -> bool:
        return True

    def round(self, client: Client) -> Measured:
        job = self._job()
        try:
            return self._move(client, job)
        finally:
            self._clear(client, job)

    def end(self) -> None:
        pass


class _Running(_Moving):
    """Ours runs already, and has come to rest; a peer is a program that begins with the work, as ever."""

    def _measured(self, client: Client, job: Job) -> Measured:
        if not isinstance(client, Ours):
            return super()._measured(client, job)
        arriving = job.inbox.with_name("arriving")
        arriving.mkdir()
        for path in list(job.inbox.iterdir()):
            path.rename(arriving / path.name)
        command, env = client.daemon(job)
        with measure.Daemon(command, env=env, log=job.scratch / "log") as daemon:
            daemon.wait_for((job.scratch / "state" / "control.sock").exists)
            time.sleep(COMES_TO_REST_SECONDS)
            with daemon.measured() as found:
                for path in list(arriving.iterdir()):
                    path.rename(job.inbox / path.name)
                daemon.wait_for(lambda: not holds_a_file(job.inbox))
        return found.measured


class _Requests(_Moving):
    """Of ours alone, with and without its data plane: what its requests to the store take."""

    def _measured(self, client: Client, job: Job) -> Measured:
        assert isinstance(client, Ours)
        file = job.scratch / "requests.json"
        command, env = client.requests(job, file)
        measured = measure.run(command, env=env, log=job.scratch / "log", folder=ROOT)
        return replace(measured, requests={name: tuple(cost) for name, cost in json.loads(file.read_text()).items()})


def holds_a_file(folder: Path) -> bool:
    """Down to the first one. A folder may go while it is looked at."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.is_dir() or holds_a_file(Path(entry.path)) for entry in entries)
    except FileNotFoundError:
        return False


class _Fetching(_Runner):
    """Each client first moves the files into a bucket of its own, and then brings them back again and again."""

    def __init__(self, servers: Servers, endpoint: Endpoint, work: Path, data: DataSet, layout: str) -> None:
        super().__init__(servers, endpoint, work, data, layout)
        self._jobs: list[tuple[Client, Job]] = []

    def begin(self, client: Client) -> bool:
        job = self._job()
        if client.fetch(job) is None:
            return False
        self._jobs.append((client, job))  # before it is filled, so that it is cleared in any case
        self._move(client, job)
        return True

    def round(self, client: Client) -> Measured:
        (job,) = [job for owner, job in self._jobs if owner is client]
        fetching = client.fetch(job)
        assert fetching is not None
        command, env = fetching
        _rest()
        measured = measure.run(command, env=env, log=job.scratch / "log")
        found = [path.stat().st_size for path in job.target.rglob("*") if path.is_file()]
        if len(found) != self._data.files or sum(found) != self._data.size_bytes:
            raise RunFailed(f"{client.name}: {len(found)} files, {sum(found)} bytes fetched")
        shutil.rmtree(job.target)
        return measured

    def end(self) -> None:
        for client, job in self._jobs:
            self._clear(client, job)


def _rest() -> None:
    os.sync()
    time.sleep(_REST_SECONDS)


__all__ = ["PREFIX", "Result", "run_case"]
