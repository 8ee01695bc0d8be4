"""A warm process that forks daemons: all is imported already, so a run costs milliseconds, and strace can attach to it.

A forked daemon is the real one in all its parts, on real files and real databases, but its threads are folded into
one: intake, dispatcher and workers take turns. So the nth system call of a kind is the same one in every run, which
strace, counting for each thread by itself, cannot give for the daemon with its threads.

Speaks JSON lines: {"config": FILE, "log": FILE, "inject": [...]} in, {"status": N, "killed": bool, "calls": [...]} out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """``calls`` are the traced system calls, by name, in order; empty unless asked for."""

    status: int
    killed: bool
    calls: tuple[str, ...]
    trace: str


class Warm:
    """The client's half: start it once, ask it for runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.warm"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(
        self,
        config: Path,
        log: Path,
        *,
        trace: Sequence[str] = (),
        inject: Sequence[str] = (),
        patience_seconds: float = 30.0,
    ) -> Outcome:
        """Run the daemon as with --once. ``trace``: system calls to list; ``inject``: strace's own expressions, such as
        "fsync:signal=SIGKILL:when=3". Ends with 1 after ``patience_seconds`` in which nothing has moved."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {
            "config": str(config),
            "log": str(log),
            "trace": list(trace),
            "inject": list(inject),
            "patience": patience_seconds,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(answer["status"], answer["killed"], tuple(answer["calls"]), answer["trace"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def once(config_file: Path, patience_seconds: float) -> int:
    """What `dicomwatchd --once` does, in one thread: 0 when all is archived, 1 when something is not."""

    from dicomwatchd.config.loading import load
    from dicomwatchd.daemon.composition import Parts, Surroundings
    from dicomwatchd.daemon.opening import open_archive
    from dicomwatchd.daemon.plan import plan_of
    from dicomwatchd.daemon.process import Process
    from dicomwatchd.errors import DicomwatchdError, Fatal
    from dicomwatchd.pipeline import backoff
    from dicomwatchd.pipeline.pool import InlineWorkers
    from dicomwatchd.ports import SystemClock
    from dicomwatchd.telemetry.foreign import redirect_foreign_logging
    from dicomwatchd.telemetry.journal import open_journal

    backoff.FIRST_PAUSE_SECONDS = 0.02
    config = load(config_file)
    journal = open_journal(sys.stderr, level=config.log_level)
    redirect_foreign_logging(journal, config.log_level)
    clock = SystemClock()
    fatal: list[Fatal] = []
    try:
        around = Surroundings(clock, Random(1), journal, InlineWorkers(), fatal.append)
        parts = Parts(plan_of(config), open_archive(config, lambda: False), around)
        parts.begin()
    except DicomwatchdError as error:
        journal.error("refused", "the daemon cannot start", code=error.code)
        return 4
    try:
        last, since = -1, clock.monotonic()
        while True:
            pause = min([intake.step() for intake in parts.sources.every_intake()], default=0.05)
            parts.queue.claims.queue_due()
            worked = parts.dispatcher.work_off()
            if fatal:
                return Process._failed(_Bare(journal), fatal[0])  # type: ignore[arg-type]
            ends = parts.queue.reports.unfinished()
            if parts.sources.at_rest and not ends["moving"]:
                return 1 if ends["parked"] or ends["quarantined"] else 0
            if (progress := parts.queue.reports.progress()) != last:
                last, since = progress, clock.monotonic()
            elif clock.monotonic() - since > patience_seconds:
                return 1
            if not worked:
                time.sleep(min(pause, 0.02))
    except DicomwatchdError as error:
        journal.error("failed", "the daemon cannot continue", code=error.code)
        return 4
    finally:
        parts.close()


@dataclass
class _Bare:
    _journal: Any


_CALL = re.compile(r"(?:\d+ +)?(?:[\d.]+ )?(\w+)\(")


def _serve() -> None:
    import dicomwatchd.cli.studies.archive  # everything a run needs, in memory before the first fork
    import dicomwatchd.daemon.process  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    traced = bool(request["trace"] or request["inject"])
    pid = os.fork()
    if pid == 0:
        _child(request, stopped=traced)
    tracer, trace_file = None, None
    if traced:
        os.waitpid(pid, os.WUNTRACED)
        with tempfile.NamedTemporaryFile(prefix="trace.", delete=False) as file:
            trace_file = Path(file.name)
        tracer = _attach(pid, request, trace_file)
        os.kill(pid, signal.SIGCONT)
    _, status = os.waitpid(pid, 0)
    calls: list[str] = []
    text = ""
    if tracer is not None and trace_file is not None:
        tracer.wait(30)
        text = trace_file.read_text(errors="replace")
        calls = [match[1] for entry in text.splitlines() if (match := _CALL.match(entry)) and match[1] != "wait4"]
        trace_file.unlink()
    killed = os.WIFSIGNALED(status)
    code = os.WTERMSIG(status) if killed else os.waitstatus_to_exitcode(status)
    return {"status": code, "killed": killed, "calls": calls if request["trace"] else [], "trace": text}


def _child(request: dict[str, Any], *, stopped: bool) -> None:
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        os.umask(0o077)
        code = once(Path(request["config"]), request["patience"])
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  the top of this process
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    os._exit(code)


def _attach(pid: int, request: dict[str, Any], trace_file: Path) -> subprocess.Popen[str]:
    # Without -f: the one thread that works is the main one; the control socket's is of no interest.
    names = sorted({*request["trace"], *(rule.split(":")[0] for rule in request["inject"])})
    command = ["strace", "-p", str(pid), "-y", "-o", str(trace_file), "-e", "signal=none"]
    command += ["-e", "trace=" + ",".join(name for entry in names for name in entry.split(","))]
    for rule in request["inject"]:
        command += ["-e", f"inject={rule}"]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        raise RuntimeError(f"strace does not attach: {said}{tracer.stderr.read()}")
    return tracer


if __name__ == "__main__":
    _serve()
