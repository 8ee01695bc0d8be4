"""What a command line says of each study that is fetched, and what the archive says of one before anything of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dicomwatchd.cli.studies import cold
from dicomwatchd.cli.studies.access import Amiss, Archive, noting
from dicomwatchd.cli.studies.fetched import Done, say_dicomdirs, say_listing, sentences
from dicomwatchd.cli.terminal import output, progress
from dicomwatchd.errors import Permanent
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.fetch import FetchProgress, FetchReport
    from dicomwatchd.fetch.cold import Cold
    from dicomwatchd.fetch.file_set.writing import Listing
    from dicomwatchd.fetch.layouts import Layout
    from dicomwatchd.fetch.plan import Found, Placed


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line says of every study that it fetches."""

    series: tuple[Uid, ...]
    threads: int
    mode: int
    as_json: bool
    with_dicomdir: bool
    restore: cold.Order | None
    layout: Layout | None
    #: A DICOMDIR is written, and names are as it needs them.
    dicomdir: bool = False
    #: Several studies go to one folder, and their names tell them apart.
    beside_others: bool = False

    def said(self) -> dict[str, Any]:
        """What of it is in the answer, because it was said."""
        return {} if self.layout is None else {"layout": self.layout}

    def places(self, found: Found, number: int = 1) -> list[Placed]:
        """Of the study that is the how-manieth in one place."""
        from dicomwatchd.fetch.layouts import placed
        from dicomwatchd.fetch.plan import of_series

        items = of_series(found.manifest, self.series or None)
        if self.dicomdir:
            from dicomwatchd.fetch.file_set.names import media_names

            return media_names(items, number)
        return placed(self.layout or "uid", found.manifest, items, beside_others=self.beside_others)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study that was looked up: its files with their places, and which of them are in cold storage."""

    found: Found
    places: list[Placed]
    frozen: Cold
    amiss: Amiss
    notes: list[str]


def prepared(archive: Archive, study: Uid, order: Order, target: Path | None, number: int = 1) -> Prepared:
    """Look a study up; what is cold of it and not in the ``target`` yet is asked back, if that is wanted. Raises
    KeyboardInterrupt, Transient, Permanent, Fatal."""
    from dicomwatchd.fetch import look_up
    from dicomwatchd.fetch.cold import not_there_yet

    notes: list[str] = []
    note = noting(notes, quiet=order.as_json)
    amiss = Amiss(note)
    with ThreadPoolExecutor(order.threads) as pool:
        found = look_up(archive.store, archive.catalogue, study, note=note, doubts=amiss.doubts(), map=pool.map)
        places = order.places(found, number)
        items = [item for item, _ in places] if target is None else not_there_yet(places, target)
        frozen = cold.find(archive.store, found, items, order.restore, pool.map)
        if order.restore is not None:
            frozen = cold.restored(archive.store, frozen, order.restore, note, pool.map, with_bar=not order.as_json)
    return Prepared(found, places, frozen, amiss, notes)


@contextmanager
def bar(order: Order, what: str) -> Iterator[Callable[[FetchProgress], None]]:
    with progress.bar(wanted=not order.as_json) as update:
        yield lambda at: update(at.files_done, at.files_total, at.bytes_done, at.bytes_total, what)


def ask_for_all(archive: Archive, targets: Mapping[Uid, Path | None], order: Order) -> None:
    """Ask back what is cold of all studies, before the first of them is waited for: they are restored side by side."""
    from dicomwatchd.fetch import look_up
    from dicomwatchd.fetch.cold import ask_back, not_there_yet

    assert order.restore is not None  # noqa: S101  who waits restores
    with ThreadPoolExecutor(order.threads) as pool:
        for uid, target in targets.items():
            with suppress(Permanent):  # which is told when the study's turn comes
                amiss = Amiss(lambda _text: None)
                found = look_up(archive.store, archive.catalogue, uid, doubts=amiss.doubts(), map=pool.map)
                places = order.places(found)
                items = [item for item, _ in places] if target is None else not_there_yet(places, target)
                frozen = cold.find(archive.store, found, items, order.restore, pool.map)
                ask_back(archive.store, frozen, order.restore.speed, order.restore.days, map=pool.map)


class Delivery(Protocol):
    """Where the studies go, one after the other."""

    def one(self, study: Uid) -> Done:
        """Deliver it, and say what has come of it unless that is for a document. Raises Permanent where nothing of it
        can be had, KeyboardInterrupt, Transient, Fatal."""

    @property
    def is_lacking(self) -> bool:
        """Whether something is amiss that is not one study's."""

    def end(self, done: Sequence[Done]) -> dict[str, Any]:
        """What there is to do and to say after the last; what an answer in JSON has of it. Raises as `one`."""


@dataclass(frozen=True, slots=True)
class ToFolders:
    """Each study to its folder."""

    archive: Archive
    order: Order
    targets: Mapping[Uid, Path]
    is_lacking: bool = False

    def one(self, study: Uid) -> Done:
        from dicomwatchd.fetch import Fetcher
        from dicomwatchd.fetch.dicomdirs import fetch_dicomdirs

        target = self.targets[study]
        ready = prepared(self.archive, study, self.order, target)
        with bar(self.order, "Fetching") as show:
            try:
                report = Fetcher(self.archive.store, threads=self.order.threads).fetch(
                    ready.found.manifest,
                    target,
                    places=ready.places,
                    mode=self.order.mode,
                    elsewhere=ready.found.elsewhere,
                    cold=ready.frozen.instances,
                    progress=show,
                )
            except KeyboardInterrupt:
                output.note("interrupted; fetched files are kept. Run the same command again to fetch the rest")
                raise
        dicomdirs = None
        if self.order.with_dicomdir and report.stopped is None:
            dicomdirs = fetch_dicomdirs(self.archive.store, ready.found.manifest, target, mode=self.order.mode)
        if not self.order.as_json:
            sentences(report, target)
            cold.say(report, ready.frozen, is_asked_for=self.order.restore is not None)
            if dicomdirs is not None:
                say_dicomdirs(dicomdirs, target)
        more = self.order.said()
        unlisted = ""
        if self.order.dicomdir:
            listing = self._list(study, ready, target, report)
            more |= {"dicomdir": asdict(listing)}
            unlisted = listing.reason
            if not self.order.as_json:
                say_listing(listing)
        return Done(report, target, ready.amiss, ready.notes, ready.frozen, dicomdirs, more, unlisted)

    def _list(self, study: Uid, ready: Prepared, target: Path, report: FetchReport) -> Listing:
        from dicomwatchd.fetch.file_set.writing import Listing, list_folder

        if not report.complete:
            return Listing(reason="files are missing: run the same command again when they can be fetched")
        try:
            return list_folder(study, ready.places, target, mode=self.order.mode)
        except Permanent as error:
            return Listing(reason=error.message)

    def end(self, done: Sequence[Done]) -> dict[str, Any]:  # noqa: ARG002  every study has said its own
        return {}
