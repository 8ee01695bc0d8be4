"""A map that works ahead: in order and lazy like the built-in one, with some of the next items under way already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

from dicomwatchd.ports import Map

_T = TypeVar("_T")
_R = TypeVar("_R")


def ahead(executor: Executor, items_ahead: int) -> Map:
    """A `Map` over the executor's threads with at most ``items_ahead`` items taken and not given out: memory does not
    grow with the number of items, and one that takes long holds nobody up until so many stand behind it. What has not
    begun when the caller leaves off is not begun any more."""

    def run(function: Callable[[_T], _R], items: Iterable[_T], /) -> Iterator[_R]:
        source = iter(items)
        under_way: deque[Future[_R]] = deque()
        try:
            while True:
                under_way.extend(
                    executor.submit(function, item) for item in islice(source, items_ahead - len(under_way))
                )
                if not under_way:
                    return
                yield under_way.popleft().result()
        finally:
            for one in under_way:
                one.cancel()

    return run
