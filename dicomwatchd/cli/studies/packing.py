"""`dicomwatchctl fetch --zip` and `--iso`: studies in one file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from dicomwatchd.cli.studies import cold
from dicomwatchd.cli.studies.access import Archive
from dicomwatchd.cli.studies.fetched import Done, say_listing, sentences
from dicomwatchd.cli.studies.fetching import Order, bar, prepared
from dicomwatchd.cli.terminal import output
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.fetch.file_set.writing import Lister
    from dicomwatchd.fetch.iso import IsoWriter
    from dicomwatchd.fetch.pages import OnMedium
    from dicomwatchd.fetch.stream import Verified
    from dicomwatchd.fetch.zipped import ZipWriter

STDOUT = Path("-")


@dataclass(slots=True)
class ToFile:
    """All studies to one ZIP file, or the image of one disc, which gets its name once the last is in it. What cannot be
    had is missing in it, as its pages say; there is no file if that is everything, or if the store or the disk has
    ended it."""

    archive: Archive
    order: Order
    target: Path
    writer: ZipWriter | IsoWriter
    publish: Callable[[], None]
    kind: str = "zip"
    on_medium: list[OnMedium] = field(default_factory=list)
    #: None where no DICOMDIR is wanted.
    lister: Lister | None = None

    @staticmethod
    @contextmanager
    def opened(archive: Archive, order: Order, target: Path | BinaryIO, *, deflate: bool) -> Iterator[ToFile]:
        """To a new file, or to standard output."""
        from dicomwatchd.fetch.zipped import Unseekable, ZipWriter, new_file

        if not isinstance(target, Path):
            with ZipWriter(cast(BinaryIO, Unseekable(target)), mode=order.mode, deflate=deflate) as writer:
                yield ToFile(archive, order, STDOUT, writer, target.flush, lister=_lister(order))
            return
        with (
            new_file(target, order.mode) as (stream, publish),
            ZipWriter(stream, mode=order.mode, deflate=deflate) as writer,
        ):
            yield ToFile(archive, order, target, writer, publish, lister=_lister(order))

    @staticmethod
    @contextmanager
    def image(archive: Archive, order: Order, target: Path) -> Iterator[ToFile]:
        """To the image of a disc."""
        from dicomwatchd.fetch.iso import IsoWriter
        from dicomwatchd.fetch.zipped import new_file

        with new_file(target, order.mode) as (stream, publish), IsoWriter(stream, target.parent) as writer:
            yield ToFile(archive, order, target, writer, publish, "iso", lister=_lister(order))

    def one(self, study: Uid) -> Done:
        from dicomwatchd.fetch.handing import hand_out
        from dicomwatchd.fetch.pages import OnMedium
        from dicomwatchd.fetch.zipped import FOLDER

        ready = prepared(self.archive, study, self.order, None, len(self.on_medium) + 1)
        files = Counter[Uid]()

        def take(one: Verified) -> None:
            item, path = one.placed
            with one.spool.reading() as content:
                place = path if self.order.dicomdir else f"{FOLDER}/{path}"
                self.writer.add(place, content, item.size_bytes, item.transfer_syntax_uid)
            if self.lister is not None:
                with one.spool.reading() as content:
                    self.lister.take(study, item, path, content)
            files[item.series_uid] += 1

        with bar(self.order, "Packing") as show:
            report = hand_out(
                self.archive.store,
                ready.found,
                ready.places,
                take,
                Path(tempfile.gettempdir()) if self.target == STDOUT else self.target.parent,
                cold=ready.frozen.instances,
                threads=self.order.threads,
                progress=show,
            )
        self.on_medium.append(OnMedium(ready.found.manifest, files, report))
        if not self.order.as_json and report.stopped is not None:
            output.problem(report.stopped)
        return Done(report, None, ready.amiss, ready.notes, ready.frozen, None, self.order.said())

    def end(self, done: Sequence[Done]) -> dict[str, Any]:
        from dicomwatchd.fetch.file_set.names import DICOMDIR
        from dicomwatchd.fetch.pages import INDEX, README, index_page, readme

        size_bytes = None
        more: dict[str, Any] = {}
        if any(one.fetched for one in (every.report for every in done)) and not any(one.report.stopped for one in done):
            has_dicomdir = self.lister is not None
            if self.lister is not None:
                self.writer.add_text(DICOMDIR, self.lister.to_bytes())
                more = {"dicomdir": asdict(self.lister.listing)}
            self.writer.add_text(INDEX, index_page(self.on_medium, has_dicomdir=has_dicomdir))
            self.writer.add_text(README, readme(self.on_medium, has_dicomdir=has_dicomdir))
            size_bytes = self.writer.finish()
            self.publish()
            if not self.order.as_json:
                self._say(done)
        elif not self.order.as_json:
            self._say([one for one in done if one.report.stopped is None and not one.report.fetched])
            output.say("No file was written.")
        return {self.kind: {"file": str(self.target), "bytes": size_bytes}, **more}

    def _say(self, done: Sequence[Done]) -> None:
        """Not before the file has its name: until then it may come to nothing."""
        for one in done:
            sentences(one.report, Path("standard output") if self.target == STDOUT else self.target)
            cold.say(one.report, one.frozen, is_asked_for=self.order.restore is not None)
        if self.lister is not None:
            say_listing(self.lister.listing)

    @property
    def is_lacking(self) -> bool:
        return self.lister is not None and bool(self.lister.listing.reason)


def _lister(order: Order) -> Lister | None:
    from dicomwatchd.fetch.file_set.writing import Lister

    return Lister() if order.dicomdir else None
