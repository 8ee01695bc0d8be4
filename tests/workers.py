"""Which worker of how many a process is. Without pytest: the benchmarks, which have none, start the same servers."""

from __future__ import annotations

import os


def worker() -> tuple[int, int]:
    """The number of this worker among how many; (0, 1) where one process runs everything."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(name.removeprefix("gw")), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
