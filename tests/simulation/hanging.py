"""Inboxes that do not answer for a time, as a hard mount whose server is away, and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from dicomwatchd.answering import AlwaysAnswering
from dicomwatchd.errors import InboxNotResponding
from tests.simulation.chance import Fate
from tests.simulation.folders import Folders

#: How long somebody waits before work on an inbox is given up.
_LIMIT_SECONDS = 60.0

T = TypeVar("T")


@dataclass(slots=True)
class _Visit:
    source_id: int
    given_up: bool = False


class Hanging(AlwaysAnswering):
    """What `answering.Answering` does, without threads: whoever asks a folder that hangs has waited in vain, and work
    in the midst of which it began to hang is given up, and learns of it."""

    def __init__(self, folders: Folders, fate: Fate) -> None:
        self._folders, self._fate = folders, fate
        self._names: dict[int, str] = {}
        self._visits: list[_Visit] = []
        folders.on_hang.append(self._given_up)

    def know(self, source_id: int, name: str) -> None:
        self._names[source_id] = name

    @contextmanager
    def at(self, source_id: int, *, leaving: bool = False) -> Iterator[None]:
        if self._hangs(source_id) and not leaving:
            self._waited()
        visit = _Visit(source_id)
        self._visits.append(visit)
        try:
            yield
        finally:
            self._visits.remove(visit)
        if visit.given_up and not leaving:
            self._waited()

    def begin(self, source_id: int, work: Callable[[], T]) -> Callable[[], T]:
        return lambda: self.call(source_id, work)

    def call(self, source_id: int, work: Callable[[], T]) -> T:
        with self.at(source_id):
            return work()

    def beat(self) -> None:
        if self._visits and self._visits[-1].given_up:
            self._waited()

    @property
    def is_given_up(self) -> bool:
        """What is done now, the innermost of it."""
        return bool(self._visits) and self._visits[-1].given_up

    def not_responding(self) -> dict[int, float]:
        return {source_id: _LIMIT_SECONDS for source_id in self._names if self._hangs(source_id)}

    def _hangs(self, source_id: int) -> bool:
        return self._names.get(source_id) in self._folders.hung

    def _given_up(self, name: str) -> None:
        for visit in self._visits:
            visit.given_up = visit.given_up or self._names.get(visit.source_id) == name

    def _waited(self) -> None:
        self._fate.clock.advance(_LIMIT_SECONDS)
        raise InboxNotResponding("the inbox does not answer")
