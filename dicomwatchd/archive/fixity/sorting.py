"""Lines put into order, more than memory holds: sorted in runs, which are merged from files without a name."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from dicomwatchd.errors import Fatal

#: So many lines are sorted at once, in memory: some 30 MB.
RUN_LINES = 100_000
#: So many files are open at once; where there are more runs they are merged in between.
_MOST_FILES = 64


class Sorter:
    """Takes lines, without their ends and without line breaks in them, and gives them back in the order of their bytes.
    The files are in ``folder``, take as much room as the lines, and go with the process, however it ends. Raises Fatal
    where they cannot be written."""

    def __init__(self, folder: Path, run_lines: int = RUN_LINES) -> None:
        self._folder, self._run_lines = folder, run_lines
        self._lines: list[bytes] = []
        self._files: list[IO[bytes]] = []

    def add(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) >= self._run_lines:
            self._spill()

    def sorted(self) -> Iterator[bytes]:
        """May be asked for again, one after the other; nothing is to be added any more."""
        if self._files:
            self._spill()  # the memory is for what comes next
        self._lines.sort()
        for file in self._files:
            file.seek(0)
        return heapq.merge(*map(_lines, self._files), self._lines)

    def close(self) -> None:
        self._lines.clear()
        for file in self._files:
            file.close()

    def _spill(self) -> None:
        if not self._lines:
            return
        self._lines.sort()
        try:
            self._keep(self._lines)
            self._lines = []
            if len(self._files) >= _MOST_FILES:
                for file in self._files:
                    file.seek(0)
                merged, self._files = self._files, []
                self._keep(heapq.merge(*map(_lines, merged)))
                for file in merged:
                    file.close()
        except OSError as error:
            raise Fatal(
                "the rows of a report cannot be put into order: its files cannot be written",
                code="verification-state",
                hint="is there room? A million objects take some 500 MB; --state-directory names another folder",
                path=str(self._folder),
            ) from error

    def _keep(self, lines: Iterable[bytes]) -> None:
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  it is open as long as it is there
        self._files.append(file)
        file.writelines(line + b"\n" for line in lines)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    return (line[:-1] for line in file)
