"""An upload under way on the real parts, stepped by the test: time passes when it is told to."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import markers
from dicomwatchd.intake import final_scan, scan
from dicomwatchd.rights import Asker
from dicomwatchd.uploads.jobs import UploadJobs
from tests.pieces import Pieces
from tests.simulation.tiny import instance

STUDY = "1.2.1"
FILES = {f"A/IM{number}": instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, 7)}


def put(folder: Path, files: Mapping[str, bytes] = FILES, *, age_seconds: float = 0.0) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if age_seconds:
            os.utime(path, (path.stat().st_mtime - age_seconds,) * 2)


#: Whoever runs the tests.
SELF = Asker(os.geteuid(), os.getegid(), frozenset(os.getgroups()))


def hand_in(jobs: UploadJobs, folder: Path, *, delete: bool = False, asker: Asker = SELF) -> str:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return jobs.start(fd, asker, delete=delete)
    finally:
        os.close(fd)


class Handed:
    """One folder that was handed in. With `go` a second passes at a time: intakes step, it ships, the desk tends."""

    def __init__(self, pieces: Pieces, folder: Path, *, delete: bool = False) -> None:
        self.pieces, self.folder, self.delete = pieces, folder, delete
        self.name = hand_in(pieces.parts.uploads, folder, delete=delete)

    def second(self, *, ship: bool = True, seconds: float = 1.1) -> None:
        for intake in self.pieces.parts.sources.every_intake():
            intake.step()
        if ship:
            self.pieces.ship()
        self.pieces.parts.uploads.tick()
        self.pieces.clock.advance(seconds)

    def go(
        self, until: Callable[[dict[str, Any]], bool] | None = None, *, rounds: int = 60, **how: Any
    ) -> dict[str, Any]:
        """Until it is done, or ``until`` says so of how it stands."""
        for _ in range(rounds):
            if (until or _done)(now := self.now):
                return now
            self.second(**how)
        raise AssertionError(f"the upload does not get there: {self.now}")

    @property
    def now(self) -> dict[str, Any]:
        return self.pieces.parts.uploads.progress(self.name)

    @property
    def source_id(self) -> int:
        known = self.pieces.queue.uploads.known(self.name)
        assert known is not None
        return known.source_id


def _done(now: dict[str, Any]) -> bool:
    return bool(now["done"])


def named(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in result["failed"]}


@contextmanager
def unlistable(monkeypatch: pytest.MonkeyPatch, relative: bytes, number: int = errno.EACCES) -> Iterator[None]:
    """One directory that gives an error to whoever opens it, as its mode or a scratched disc does."""
    with monkeypatch.context() as patch:
        for module, name in ((scan, "directory"), (markers, "unmarked_directory"), (final_scan, "directory")):
            real = getattr(module, name)

            @contextmanager
            def failing(root_fd: int, path: bytes, judge: Any = None, real: Any = real) -> Iterator[int]:
                if path == relative:
                    raise OSError(number, os.strerror(number))
                with real(root_fd, path, judge) as fd:
                    yield fd

            patch.setattr(module, name, failing)
        yield
