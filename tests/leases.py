"""Whoever opens a file for writing on which the daemon has a lease waits in the kernel until that is given up."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

#: A kernel that does not say where a thread waits is taken at its word after this.
_LONGEST_SECONDS: Final = 5.0


def wait_at_lease(thread: threading.Thread) -> None:
    """Until it has done what it was begun for, or waits for a lease's end."""
    end = time.monotonic() + _LONGEST_SECONDS
    while thread.is_alive() and not _waits_for_a_lease(thread) and time.monotonic() < end:
        time.sleep(0.001)


def _waits_for_a_lease(thread: threading.Thread) -> bool:
    try:
        return "lease" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    except OSError:  # it has just ended
        return False
