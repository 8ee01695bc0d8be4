"""SIGKILL at each call that sealing makes to the state or to an archive in a folder: the record of deletions is
whole after each, here and in the archive together, and the next start goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.audit import sealing
from dicomwatchd.config.archive import DirectorySettings
from tests.faults.figures import Figures
from tests.unit.chains import Place, in_memory
from tests.unit.queues import STUDY

DELETIONS = 6


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """A state with 12 entries, of which an audit checkpoint speaks, and its archive; to be copied for each trial."""
    with in_memory(tmp_path) as root:
        (root / "ground" / "state").mkdir(parents=True)
        (root / "ground" / "archive").mkdir()
        (root / "ground" / "archive" / keys.IDENTITY).write_text("{}")  # that it is one
        place = opened(root / "ground")
        place.delete(DELETIONS)
        place.checkpoints.step()
        place.bench.queue.close()
        yield root


def opened(root: Path) -> Place:
    store: Any = DirectoryStore(DirectorySettings(kind="directory", path=root / "archive"))
    return Place(root / "state", store=store)


class Deadly:
    """Passes every call on, and kills this process right before one of them."""

    def __init__(self, target: Any, counter: list[int]) -> None:
        self._target, self._counter = target, counter

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._target, name)
        if not callable(real):
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self._counter[0] -= 1
            if self._counter[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call


def killed_before(root: Path, number: int) -> bool:
    """Whether the process was killed before it had sealed all."""
    child = os.fork()
    if child == 0:
        try:
            place = opened(root)
            counter = [number]
            database = place.bench.queue._database
            database._connection = Deadly(database._connection, counter)  # type: ignore[assignment]
            place.sealing._store = Deadly(place.store, counter)
            place.checkpoints.step()
            while place.sealing.step():
                pass
            os._exit(0)
        except BaseException:  # noqa: BLE001  a child never returns into the parent's code
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) != 0


def require_whole(place: Place) -> None:
    said = place.prover.prove(STUDY, whole=True)
    assert [file["outcome"] for file in said["files"]] == ["deleted"] * DELETIONS
    assert said["chain_holds"] and said["published"]["holds"], said["published"]["text"]
    assert said["archived"]["outcome"] == "whole", said["archived"]["text"]
    assert place.bench.queue.audit.head().sequence == 2 * DELETIONS


def trials(ground: Path, step: int) -> int:
    tried, number = 0, 1
    while True:
        root = ground / str(number)
        shutil.copytree(ground / "ground", root)
        killed = killed_before(root, number)
        place = opened(root)
        require_whole(place)
        place.seal()
        require_whole(place)
        assert place.here() == []
        place.bench.queue.close()
        shutil.rmtree(root)
        if not killed:
            return tried
        tried, number = tried + 1, number + step


def test_killed_at_some_calls(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CLEAR_ENTRIES", 2)
    assert trials(ground, 17) > 5


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_every_call(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CLEAR_ENTRIES", 2)
    tried = trials(ground, 1)
    Figures(
        name="kills-sealing",
        what="SIGKILL right before every call to the state and the archive while the audit chain is sealed",
        tried=tried,
    ).write()
    assert tried > 100
