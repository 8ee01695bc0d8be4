"""Command line of the benchmark; see scripts/bench."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from tests.bench import cores, pages, report
from tests.bench.cases import BY_BOTOCORE, CASES, LEAST
from tests.bench.clients import AwsCli, Beside, ByBotocore, Client, Ferry, Least, Ours, Rclone, S5cmd
from tests.bench.data import Shelf
from tests.bench.document import document, write_json
from tests.bench.measure import RunFailed
from tests.bench.receive import main as receive
from tests.bench.rounds import Result, run_case
from tests.bench.scale import main as scale
from tests.bench.send import main as send
from tests.bench.sites import main as sites
from tests.bench.store import Servers, servers

ROOT = Path(__file__).parents[2]
#: Git ignores both. The kept files are hard-linked into the runs' inboxes, so they share a file system.
CACHE = ROOT / ".bench"
REPORTS = ROOT / ".test-report"
CLIENTS: dict[str, Callable[[Servers], Client]] = {
    "ours": Ours,
    "s5cmd": S5cmd,
    "rclone": Rclone,
    "ferry": Ferry,
    "aws": AwsCli,
    "botocore": ByBotocore,
    LEAST: Least,
}
DELAY_MILLISECONDS = 50
#: The name of a whole run's reports: those of other runs do not take its place.
_WHOLE = "bench"


def main() -> int:
    if "--scale" in sys.argv:
        return scale.main(sys.argv[1:], CACHE / "scale", REPORTS)
    if "--receive" in sys.argv:
        return receive.main(sys.argv[1:], CACHE, REPORTS)
    if "--send" in sys.argv:
        return send.main(sys.argv[1:], CACHE, REPORTS)
    if "--sites" in sys.argv:
        return sites(sys.argv[1:], REPORTS)
    parser = argparse.ArgumentParser(prog="scripts/bench", description="dicomwatchd beside the tools for moving files")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="smaller data, under three minutes; judges no goal")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one; repeatable"
    )
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="only this one; repeatable")
    parser.add_argument(
        "--beside",
        action="append",
        type=Path,
        metavar="TREE",
        default=[],
        help="another checkout of dicomwatchd, taking turns with the clients; repeatable",
    )
    parser.add_argument(
        "--servers", type=Path, metavar="DIR", help="use what `python -m tests.servers up all DIR` left"
    )
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="measure nothing: put the tables of the last whole run into README.md and docs/performance.md",
    )
    options = parser.parse_args()
    if options.write_readme:
        figures = REPORTS / f"{_WHOLE}.json"
        if not figures.exists():
            parser.error("there are no figures of a whole run: run it without --quick, --case and --client first")
        pages.write(ROOT, figures)
        return 0
    rounds = options.rounds or (1 if options.quick else 5)
    results: list[Result] = []
    failed = False
    begun, today = time.monotonic(), datetime.now().astimezone().date()
    CACHE.mkdir(exist_ok=True)
    shelf = Shelf(CACHE / "data")
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        at_work = Path(tempfile.mkdtemp(prefix="dicomwatchd-bench."))  # short: sockets lie in there
        stack.callback(shutil.rmtree, at_work, ignore_errors=True)
        running = stack.enter_context(servers(at_work, options.servers))
        processors = cores.split(os.sched_getaffinity(0))
        running.keep_to(processors.servers)
        os.sched_setaffinity(0, processors.clients)  # who is started from here on has them, too
        clients: list[Client] = [
            CLIENTS[name](running) for name in options.client or [name for name in CLIENTS if name != LEAST]
        ]
        clients += [Beside(running, tree.resolve(), number) for number, tree in enumerate(options.beside, start=1)]
        for case in CASES:
            if case.name not in options.case if options.case else options.quick and not case.in_quick:
                continue
            able = [client for client in clients if case.takes(client.name)]
            if not able:
                continue
            data = (case.quick_data if options.quick else case.data)(shelf)
            print(f"{case.name}: {data.files} files, {data.size_bytes / 1e6:.0f} MB, {case.link}", flush=True)
            with ExitStack() as link:
                match case.link:
                    case "http":
                        endpoint = running.http
                    case "https":
                        endpoint = running.https
                    case "delayed":
                        endpoint = link.enter_context(running.delayed(DELAY_MILLISECONDS, at_work / "proxy"))
                    case "amazon-http" | "amazon-https":
                        endpoint = link.enter_context(running.like_amazon(tls=case.link == "amazon-https"))
                try:
                    results.append(run_case(case, data, able, rounds, running, endpoint, work))
                except RunFailed as error:
                    print(f"bench: {case.name}: {error}", file=sys.stderr)
                    failed = True
        seen = [client for client in clients if any(client.name in result.runs for result in results)]
        versions = {client.name: client.version() for client in seen if client.name != BY_BOTOCORE}
        knows = {client.name: client.knows for client in seen if client.name != BY_BOTOCORE}
    found = document(results, versions, knows, rounds=rounds, date=today.isoformat(), cores=str(processors))
    table = report.markdown(found)
    print(f"\n{table}\n\n{time.monotonic() - begun:.0f} s in all")
    is_part = failed or options.case or options.client or options.beside
    name = f"{_WHOLE}-quick" if options.quick else f"{_WHOLE}-part" if is_part else _WHOLE
    write_json(REPORTS / f"{name}.json", found)
    (REPORTS / f"{name}.md").write_text(table + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
