"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicomwatchd.cli.terminal import working

#: files done, files in all, bytes done, bytes in all, what is going on
Update = Callable[[int, int, int, int, str], None]


@contextmanager
def bar(*, wanted: bool) -> Iterator[Update]:
    """Yields what moves the bar, from whichever thread."""
    if not wanted or not sys.stderr.isatty():
        yield lambda *_: None
        return
    working.end()
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, emoji=False),
        transient=True,
    )
    with shown:
        task = shown.add_task("", total=None, files="")

        def update(files_done: int, files_total: int, bytes_done: int, bytes_total: int, phase: str) -> None:
            files = f"{files_done:,}/{files_total:,} files"
            shown.update(task, completed=bytes_done, total=bytes_total or None, description=phase, files=files)

        yield update
