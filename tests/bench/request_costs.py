"""The daemon, with what its requests to the S3 store take of the processor.

python -m tests.bench.request_costs FILE [--by-botocore] ARGUMENT...

Runs `dicomwatchd ARGUMENT...` in this process. ``FILE`` gets, as JSON, for each operation how often it was asked for,
and the CPU seconds of the threads that asked: signing, sending, TLS, waiting for the interpreter, and what the answer
says. Hashing an object and reading its file are not in it, nor is what is asked before the probe has come to its end.
``--by-botocore``: without the data plane.
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from botocore.client import BaseClient

from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.data_plane import S3DataPlane
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.daemon import process

_Name = Callable[..., str | None]


class Costs:
    """What was asked within something else that is counted is counted as that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, float]] = {}
        self._at = threading.local()

    def found(self) -> dict[str, tuple[int, float]]:
        with self._lock:
            return dict(self._found)

    def forget(self) -> None:
        with self._lock:
            self._found.clear()

    def counted(self, named: _Name, do: Callable[..., Any]) -> Callable[..., Any]:
        """``named`` gets the arguments, and says None for what is not counted."""

        @wraps(do)
        def counting(*args: Any, **kwargs: Any) -> Any:
            name = None if getattr(self._at, "work", False) else named(*args, **kwargs)
            if name is None:
                return do(*args, **kwargs)
            self._at.work, begun = True, time.thread_time()
            try:
                return do(*args, **kwargs)
            finally:
                took, self._at.work = time.thread_time() - begun, False
                with self._lock:
                    calls, seconds = self._found.get(name, (0, 0.0))
                    self._found[name] = calls + 1, seconds + took

        return counting


def count(costs: Costs) -> None:
    """From now on, for the whole process."""
    for name, function in inspect.getmembers(fast_path, inspect.isfunction):
        if next(iter(inspect.signature(function).parameters), "") == "data_plane":
            operation = "".join(map(str.capitalize, name.split("_")))
            setattr(fast_path, name, costs.counted(lambda *_, said=operation, **__: said, function))
    S3DataPlane.get = costs.counted(lambda *_, **__: "GetObject", S3DataPlane.get)  # type: ignore[method-assign]
    client: Any = BaseClient
    client._make_api_call = costs.counted(_by_botocore, client._make_api_call)
    probe = S3Store.probe

    @wraps(probe)
    def probing(self: S3Store, scratch_key: str) -> Any:
        found = probe(self, scratch_key)
        costs.forget()
        return found

    S3Store.probe = probing  # type: ignore[method-assign]


def _by_botocore(client: Any, operation: str, _: Any) -> str | None:
    return f"{operation} by botocore" if client.meta.service_model.service_name == "s3" else None


def main() -> int:
    file, *arguments = sys.argv[1:]
    costs = Costs()
    if arguments[:1] == ["--by-botocore"]:
        arguments = arguments[1:]
        fast_path.connect = lambda *_: None
    count(costs)
    status = process.main(arguments)
    Path(file).write_text(json.dumps(costs.found()))
    return status


if __name__ == "__main__":
    sys.exit(main())
