"""Command line of scripts/bench --receive."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.bench.data import DataSet, Shelf
from tests.bench.document import write_json
from tests.bench.measure import Measured, PeakMemory
from tests.bench.receive.receivers import DebiansOrthanc, Ours, OursToTheArchive, Receiver, Storescp
from tests.bench.receive.report import Key, document, markdown
from tests.bench.receive.senders import SENDERS
from tests.servers.orthanc import PROGRAM as ORTHANC

ASSOCIATIONS = 4
RECEIVERS: tuple[Callable[[], Receiver], ...] = (Ours, Storescp, DebiansOrthanc, OursToTheArchive)


def main(arguments: Sequence[str], cache: Path, reports: Path) -> int:
    """``cache`` keeps what is made once; the work of a run lies beside it, on the same file system."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench --receive", description="1,000 CT slices over loopback, by 4 associations; ten minutes"
    )
    parser.add_argument("--quick", action="store_true", help="100 slices, one round; judges nothing")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 3, with --quick 1")
    parser.add_argument("--sender", action="append", choices=list(SENDERS), help="only this one; repeatable")
    options = parser.parse_args([argument for argument in arguments if argument != "--receive"])
    for program in ("storescu", "storescp", str(ORTHANC)):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed; scripts/setup-test-machine installs it")
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="receive-", dir=cache))
    runs: dict[Key, list[Measured]] = {}
    try:
        data = Shelf(cache / "data").ct_series(100 if options.quick else 1000)
        folders = _dealt(data, work / "scanners")
        for number in range(options.rounds or (1 if options.quick else 3)):
            turn = number % len(RECEIVERS)
            for make in [*RECEIVERS[turn:], *RECEIVERS[:turn]]:
                for sender in options.sender or SENDERS:
                    receiver = make()
                    measured = run(sender, receiver, data, folders, work)
                    runs.setdefault((sender, receiver.name), []).append(measured)
                    print(
                        f"round {number + 1}  {sender:22} {receiver.name:40} {measured.wall_seconds:6.2f} s"
                        f"  cpu {measured.cpu_seconds:5.2f} s  rss {measured.peak_rss_bytes / 1e6:4.0f} MB",
                        flush=True,
                    )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    syncs = {one.name: one.syncs for one in (make() for make in RECEIVERS)}
    table = markdown(runs, syncs, data.files, data.size_bytes)
    print(f"\n{table}")
    name = "bench-receive-quick" if options.quick else "bench-receive"
    write_json(reports / f"{name}.json", document(runs, data.files, data.size_bytes))
    (reports / f"{name}.md").write_text(table + "\n")
    return 0


def run(sender: str, receiver: Receiver, data: DataSet, folders: Sequence[Path], work: Path) -> Measured:
    """The time is from the first byte sent until the receiver has finished; CPU and memory are the receiver's."""
    os.sync()  # what the last run has left to write is not this one's
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    receiver.begin(folder / "receiver")
    try:
        before = _cpu_seconds(receiver.pids())
        memories = [PeakMemory(pid) for pid in receiver.pids()]
        try:
            sending = SENDERS[sender](receiver.port, receiver.called, folders)
            begun = time.perf_counter()
            receiver.finish(data.files)
            wall = sending + time.perf_counter() - begun
            cpu = _cpu_seconds(receiver.pids()) - before
        finally:
            peaks = [memory.stop() for memory in memories]
    finally:
        receiver.end()
        shutil.rmtree(folder)
    return Measured(wall, cpu, sum(peaks))


def _dealt(data: DataSet, folder: Path) -> list[Path]:
    """The files in as many folders as there are associations."""
    folders = [folder / str(number) for number in range(ASSOCIATIONS)]
    for one in folders:
        one.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in data.folder.rglob("*") if path.is_file())):
        os.link(path, folders[number % ASSOCIATIONS] / path.name)
    return folders


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Of the processes and their children: those that run, those that have ended, and those that nobody has waited for
    yet, as storescp leaves its own until the next association."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
