"""Command line of scripts/bench --send."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.data import DataSet, Shelf
from tests.bench.document import write_json
from tests.bench.measure import Measured
from tests.bench.measure import run as measured_run
from tests.bench.receive.receivers import Ours, Receiver, Storescp
from tests.bench.receive.report import document
from tests.bench.send.report import Key, markdown
from tests.bench.send.senders import Sender, senders

RECEIVERS: tuple[Callable[[], Receiver], ...] = (Ours, Storescp)


def main(arguments: Sequence[str], cache: Path, reports: Path) -> int:
    """``cache`` keeps what is made once; the work of a run lies beside it, on the same file system."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench --send", description="1,000 CT slices over loopback, by one association; ten minutes"
    )
    parser.add_argument("--quick", action="store_true", help="100 slices, one round; judges nothing")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 3, with --quick 1")
    options = parser.parse_args([argument for argument in arguments if argument != "--send"])
    for program in ("dcmsend", "storescu", "storescp"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed; scripts/setup-test-machine installs it")
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="send-", dir=cache))
    runs: dict[Key, list[Measured]] = {}
    try:
        data = Shelf(cache / "data").ct_series(100 if options.quick else 1000)
        every = senders(data, work / "archives")
        for number in range(options.rounds or (1 if options.quick else 3)):
            turn = number % len(every)
            for make in RECEIVERS:
                for sender in [*every[turn:], *every[:turn]]:
                    receiver = make()
                    measured = run(sender, receiver, data, work)
                    runs.setdefault((receiver.name, sender.name), []).append(measured)
                    print(
                        f"round {number + 1}  {receiver.name:26} {sender.name:24} {measured.wall_seconds:6.2f} s"
                        f"  cpu {measured.cpu_seconds:5.2f} s  rss {measured.peak_rss_bytes / 1e6:4.0f} MB",
                        flush=True,
                    )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    does = {one.name: one.does for one in every}
    table = markdown(runs, does, data.files, data.size_bytes)
    print(f"\n{table}")
    name = "bench-send-quick" if options.quick else "bench-send"
    write_json(reports / f"{name}.json", document(_by_sender(runs), data.files, data.size_bytes))
    (reports / f"{name}.md").write_text(table + "\n")
    return 0


def _by_sender(runs: Mapping[Key, Sequence[Measured]]) -> dict[tuple[str, str], Sequence[Measured]]:
    return {(sender, receiver): measured for (receiver, sender), measured in runs.items()}


def run(sender: Sender, receiver: Receiver, data: DataSet, work: Path) -> Measured:
    """From the start of the sender's process to its end; the receiver is new, and has every object then."""
    os.sync()  # what the last run has left to write is not this one's
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    receiver.begin(folder / "receiver")
    try:
        measured = measured_run(sender.command(receiver.port, receiver.called), env=os.environ, log=folder / "log")
        receiver.finish(data.files)
    finally:
        receiver.end()
        shutil.rmtree(folder)
    return measured
