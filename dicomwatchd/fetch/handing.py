"""A study handed to whoever takes one verified instance after the other: a ZIP file, another archive."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.fetch.plan import Found, Placed
from dicomwatchd.fetch.report import FetchProgress, FetchReport, Run, Stopped
from dicomwatchd.fetch.stream import Streamer, Verified


class NotTaken(DicomwatchdError):
    """Whoever takes instances has not taken this one; the others may go on, unless it ``ends`` there."""

    code = "not-taken"
    ends = False


def hand_out(
    store: ObjectStore,
    found: Found,
    places: Collection[Placed],
    take: Callable[[Verified], None],
    directory: Path,
    *,
    cold: Collection[ManifestInstance] = (),
    threads: int = 16,
    progress: Callable[[FetchProgress], None] = lambda _progress: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> FetchReport:
    """Each instance to ``take``, in their order. Large ones lie in ``directory`` meanwhile, without a name.

    ``take`` raises NotTaken for what it leaves out. Raises whatever else it raises, and Fatal.
    """
    begun = monotonic()
    run = Run(found.manifest, [[one] for one in places], progress, found.elsewhere, frozenset(cold))
    has_ended = False
    with Streamer(store, directory, threads=threads).verified(run, places) as verified:
        for one in verified:
            item, path = one.placed
            try:
                if has_ended:
                    run.check()
                take(one)
            except (NotTaken, Stopped) as error:
                run.fail(item, error)
                if isinstance(error, NotTaken) and error.ends:
                    has_ended = True
                    run.stop(None)
            else:
                run.got(item, path, None)
    return run.report(monotonic() - begun)
