"""The memory budget, and threads that hang at an inbox with some of it."""

from __future__ import annotations

import threading

from dicomwatchd.archive.stores.budget import ByteBudget
from tests.unit.test_budget import full, never


def test_memory_that_is_held_at_a_hung_inbox_is_waited_for_by_nobody() -> None:
    """Four large files of a share that does not answer would stop every other inbox. When their threads come back, what
    they held is not given back a second time."""
    budget, hung, goes_on = ByteBudget(100), threading.Event(), threading.Event()
    rooms: list[bytearray] = []

    def work() -> None:
        with budget.held(60):
            rooms.append(budget.buffer(40, never))
            hung.set()
            goes_on.wait(30)
            budget.release_buffer(rooms[0])

    thread = threading.Thread(target=work, name="worker-7")
    thread.start()
    assert hung.wait(30) and full(budget, 1)
    budget.write_off("worker-8")
    assert full(budget, 1)
    for _ in range(2):
        budget.write_off("worker-7")
        assert not full(budget, 100)
    with budget.held(100):
        goes_on.set()
        thread.join(30)
        assert full(budget, 1)
    assert not full(budget, 100)
