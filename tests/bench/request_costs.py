"""The daemon, with what its requests to the S3 store take of the processor.

python -m tests.bench.request_costs FILE [--by-botocore] ARGUMENT...

Runs `dicomwatchd ARGUMENT...` in this process. ``FILE`` gets, as JSON, for each operation how often it was asked for,
and the CPU seconds of the threads that asked: signing, sending, TLS, waiting for the interpreter, and what the answer
says. Hashing an object and reading its file are not in it, nor is what is asked before the probe has come to its end.
``--by-botocore``: without the data plane.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.daemon import process
from tests.bench import request_hooks


class Costs:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, float]] = {}

    def found(self) -> dict[str, tuple[int, float]]:
        with self._lock:
            return dict(self._found)

    def forget(self) -> None:
        with self._lock:
            self._found.clear()

    def watch(self, operation: str, client: Any, ask: Callable[[], Any]) -> Any:
        if request_hooks.service(client) != "s3":
            return ask()
        name = operation if client is None else f"{operation} by botocore"
        begun = time.thread_time()
        try:
            return ask()
        finally:
            took = time.thread_time() - begun
            with self._lock:
                calls, seconds = self._found.get(name, (0, 0.0))
                self._found[name] = calls + 1, seconds + took


def _forgets_the_probe(costs: Costs) -> None:
    probe = S3Store.probe

    @wraps(probe)
    def probing(self: S3Store, scratch_key: str) -> Any:
        found = probe(self, scratch_key)
        costs.forget()
        return found

    S3Store.probe = probing  # type: ignore[method-assign]


def main() -> int:
    file, *arguments = sys.argv[1:]
    costs = Costs()
    if arguments[:1] == ["--by-botocore"]:
        arguments = arguments[1:]
        fast_path.connect = lambda *_: None
    request_hooks.install(costs.watch)
    _forgets_the_probe(costs)
    status = process.main(arguments)
    Path(file).write_text(json.dumps(costs.found()))
    return status


if __name__ == "__main__":
    sys.exit(main())
