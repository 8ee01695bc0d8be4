"""The daemon, with a line for each of its requests to store and catalogue.

python -m tests.bench.request_trace FILE ARGUMENT...

Runs `dicomwatchd ARGUMENT...` in this process. ``FILE`` gets a line of JSON for each request once it was answered: when
it was asked and answered (seconds of the monotonic clock, which the processes of a machine share), the thread, the
service, the operation, and from where in the program, the innermost place first.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import dicomwatchd
from dicomwatchd.daemon import process
from tests.bench import request_hooks

_PROGRAM = f"{Path(dicomwatchd.__file__).parent}/"
#: How a request is made, which is the same for all.
_BELOW = ("archive/stores/", "archive/aws/", "ports.py")
PLACES = 5


class Trace:
    def __init__(self, file: TextIO) -> None:
        self._lock = threading.Lock()
        self._file = file

    def watch(self, operation: str, client: Any, ask: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        try:
            return ask()
        finally:
            found = {
                "asked": begun,
                "answered": time.monotonic(),
                "thread": threading.current_thread().name,
                "service": request_hooks.service(client),
                "operation": operation,
                "from": list(_places(sys._getframe(1))),
            }
            with self._lock:
                self._file.write(json.dumps(found) + "\n")
                self._file.flush()


def _places(frame: Any) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < PLACES:
        file = frame.f_code.co_filename
        if file.startswith(_PROGRAM) and not file.removeprefix(_PROGRAM).startswith(_BELOW):
            found.append(f"{file.removeprefix(_PROGRAM)}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return found


def main() -> int:
    file, *arguments = sys.argv[1:]
    with Path(file).open("a") as lines:
        request_hooks.install(Trace(lines).watch)
        return process.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
