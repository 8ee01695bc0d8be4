"""Which processors the servers have and which the clients: cores of their own, where there are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of processors; the same for both where they share all."""

    servers: frozenset[int]
    clients: frozenset[int]

    def __str__(self) -> str:
        if self.servers == self.clients:
            return f"{len(self.servers)} processors that servers and clients share"
        both = len(self.servers) + len(self.clients)
        return f"{both} processors, {len(self.servers)} for the servers alone and {len(self.clients)} for the clients"


def siblings(processor: int) -> set[int]:
    """The processors of the same core, itself among them: hyper-threads share what is measured here."""
    try:
        text = (_SYSTEM / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return {processor}
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def split(allowed: Iterable[int], same_core: Callable[[int], Collection[int]] = siblings) -> Cores:
    """Of more than two processors the servers get half the cores, and the odd one, for they have the greater part of
    the work. Two are shared: with one each, either side would wait for the other most of the time, which is how nobody
    runs them."""
    allowed = frozenset(allowed)
    cores = sorted({frozenset(same_core(one)) & allowed for one in allowed}, key=min)
    if len(allowed) <= 2 or len(cores) < 2:
        return Cores(allowed, allowed)
    half = (len(cores) + 1) // 2
    return Cores(frozenset().union(*cores[:half]), frozenset().union(*cores[half:]))


def keep_to(pid: int, processors: Collection[int]) -> None:
    """All threads of a process, and those that they will start. Does nothing where it has ended."""
    done: set[str] = set()
    with suppress(FileNotFoundError):
        while new := set(os.listdir(f"/proc/{pid}/task")) - done:  # a thread may have started another meanwhile
            for thread in new:
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), processors)
            done |= new
