"""What a small study waits for at a far store: the requests from its arrival to its last unlink, and which of them
were made one after the other.

python -m tests.bench.round_trips [--milliseconds N] [--studies N] [--files N] [--kind ct|mr]
                                  [--layout instance|bundled] [--amazon] [--once]

Store and catalogue are so far away (`proxy`), and the daemon runs already, or is started for it. The chain is followed
from the last unlink back: what was answered last before it, what was answered last before that was asked, and so on. A
star stands before what is in it: time is saved where something in it need not wait for what comes before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import measure
from tests.bench.clients import Job, Ours
from tests.bench.data import DataSet, Shelf
from tests.bench.rounds import COMES_TO_REST_SECONDS, ROOT, holds_a_file
from tests.bench.store import Endpoint, Servers, servers


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; seconds since the study arrived. ``places`` in the program, the innermost first."""

    asked: float
    answered: float
    operation: str
    places: tuple[str, ...]


def chain(found: Sequence[Asked], end: float) -> list[Asked]:
    """Those that waited for one another, in their order."""
    links: list[Asked] = []
    while before := [one for one in found if one.answered <= end]:
        links.append(max(before, key=lambda one: one.answered))
        end = links[-1].asked
    return links[::-1]


def markdown(found: Sequence[Asked], end: float) -> str:
    """Requests from one place that were under way together are one line."""
    links = chain(found, end)
    lines = ["| | at ms | took ms | requests | together | from |", "|---|--:|--:|---|--:|---|"]
    for group in _groups(sorted(found, key=lambda one: one.asked)):
        took = max(one.answered for one in group) - group[0].asked
        star = "*" * sum(one in links for one in group)
        first = group[0]
        lines.append(
            f"| {star} | {first.asked * 1000:.0f} | {took * 1000:.0f} | {first.operation} | {len(group)}"
            f" | {' < '.join(first.places)} |"
        )
    waited = sum(one.answered - one.asked for one in links)
    lines += ["", f"{len(found)} requests, {len(links)} in the chain: {waited:.2f} of {end:.2f} s."]
    return "\n".join(lines)


def _groups(found: Sequence[Asked]) -> list[list[Asked]]:
    groups: list[list[Asked]] = []
    for one in found:
        for group in groups:
            same = (one.operation, one.places) == (group[0].operation, group[0].places)
            if same and one.asked < max(other.answered for other in group):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def traced(client: Ours, job: Job, data: DataSet, *, once: bool) -> tuple[list[Asked], float]:
    """Of a daemon that has come to rest, from the rename of the study into its inbox on; or of one run from its start
    to its end."""
    client.prepare(job)
    file = job.scratch / "requests"
    command, env = client.daemon(job, program=(sys.executable, "-m", "tests.bench.request_trace", str(file)))
    log = job.scratch / "log"
    if once:
        data.link_into(job.inbox)
        begun = time.monotonic()
        measure.run([*command, "--once"], env=env, log=log, folder=ROOT)
        end = time.monotonic() - begun
    else:
        begun, end = _of_a_running_one(command, env, job, data)
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    found = [
        Asked(
            one["asked"] - begun,
            one["answered"] - begun,
            f"{one['operation']} ({one['service']})",
            tuple(one["from"]),
        )
        for one in lines
    ]
    return [one for one in found if 0 <= one.asked <= end], end


def _of_a_running_one(command: Sequence[str], env: Mapping[str, str], job: Job, data: DataSet) -> tuple[float, float]:
    arriving = job.inbox.with_name("arriving")
    data.link_into(arriving)
    with measure.Daemon(command, env=env, log=job.scratch / "log", folder=ROOT) as daemon:
        daemon.wait_for((job.scratch / "state" / "control.sock").exists)
        time.sleep(COMES_TO_REST_SECONDS)
        begun = time.monotonic()
        for path in list(arriving.iterdir()):
            path.rename(job.inbox / path.name)
        daemon.wait_for(lambda: not holds_a_file(job.inbox))
        return begun, time.monotonic() - begun


def _far(stack: ExitStack, running: Servers, milliseconds: int, folder: Path, *, amazon: bool) -> Endpoint:
    catalogue = stack.enter_context(running.catalogue_delayed(milliseconds, folder / "catalogue"))
    delayed = running.amazon_delayed if amazon else running.delayed
    return stack.enter_context(delayed(milliseconds, folder / "store", catalogue))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.round_trips", description=__doc__)
    parser.add_argument("--milliseconds", type=int, default=50, metavar="N")
    parser.add_argument("--files", type=int, default=20, metavar="N")
    parser.add_argument("--studies", type=int, default=1, metavar="N", help="that arrive at once")
    parser.add_argument("--kind", choices=["ct", "mr"], default="ct")
    parser.add_argument("--layout", choices=["instance", "bundled"], default="instance")
    parser.add_argument("--amazon", action="store_true", help="a store like Amazon's: KMS, versions, https")
    parser.add_argument("--once", action="store_true", help="dicomwatchd --once, from its start to its end")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="dicomwatchd-bench."))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shelf = Shelf(folder / "data")
        data = shelf.small_studies(options.studies, options.kind, options.files)
        running = stack.enter_context(servers(folder, None))
        endpoint = _far(stack, running, options.milliseconds, folder, amazon=options.amazon)
        scratch, inbox = folder / "scratch", folder / "inbox"
        scratch.mkdir()
        inbox.mkdir()
        name = "bench-round-trips"
        job = Job(name, endpoint, name, scratch, inbox, folder / "target", data.study_uid, options.layout)
        found, end = traced(Ours(running), job, data, once=options.once)
        what = f"{options.studies} x {options.files} files, {data.size_bytes / 1e6:.1f} MB, layout {options.layout}"
        print(f"{what}, {options.milliseconds} ms away{', like Amazon' if options.amazon else ''}\n")
        print(markdown(found, end))


if __name__ == "__main__":
    main()
