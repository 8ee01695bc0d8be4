"""The archive of a configuration: opened, found usable, and the one that the state knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws.observed import Observed
from dicomwatchd.archive.factory import aws_session, open_catalogue, open_sites, open_store
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.archive import BundledLayout
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon.plan import ACTIVE_SHIPMENTS
from dicomwatchd.errors import ArchiveRefused, NotInitialised
from dicomwatchd.pipeline.shipment import Archive, Bundling
from dicomwatchd.ports import Log
from dicomwatchd.queue import Queue

INIT = "dicomwatchctl archive init"


def open_archive(config: Config, draining: Callable[[], bool], uplink: Uplink | None = None) -> Archive:
    """As `reach_archive`, and found usable. Raises the same."""
    archive = reach_archive(config, draining, uplink)
    try:
        archive.store.probe(keys.PROBE)
    except BaseException:  # whatever ends it: nobody else knows of the two
        archive.store.close()
        archive.catalogue.close()
        raise
    return archive


def reach_archive(config: Config, draining: Callable[[], bool], uplink: Uplink | None = None) -> Archive:
    """The archive, there and the one that its catalogue is of; creates nothing. Until its store was probed nothing may
    be asked of it. Raises NotInitialised, ArchiveRefused, OutOfReach."""
    hint = f"if this is the right place, run: {INIT}"
    memory = ByteBudget()
    session = aws_session(config.archive.store, config.archive.catalogue)
    observed = None if session is None else Observed()
    if session is not None and observed is not None:
        observed.listen(session)
    store = open_store(
        config.archive.store,
        connections=config.workers + ACTIVE_SHIPMENTS,
        stopping=draining,
        budget=memory,
        session=session,
        uplink=uplink,
    )
    catalogue = open_catalogue(config.archive.catalogue, session=session)

    def of_catalogue() -> str | None:
        catalogue.check()
        return catalogue.identity()

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="opening") as beside:  # each is a way there and back, or several
            asked = beside.submit(of_catalogue)
            store.check()
            identity = read_identity(store)
        if identity is None:
            raise NotInitialised("the store holds no archive", hint=hint)
        catalogue_id = asked.result()
        if catalogue_id is None:
            raise NotInitialised("the catalogue is not initialised", hint=hint)
        if catalogue_id != identity.archive_id:
            raise ArchiveRefused("the catalogue belongs to another archive than the store", hint=hint)
        sites = open_sites(config.archive.catalogue, session=session) if config.sites.heartbeat_seconds else None
    except BaseException:  # whatever ends it: nobody else knows of the two
        store.close()
        catalogue.close()
        raise
    layout = config.archive.layout
    bundling = Bundling(layout.below_bytes, layout.size_bytes) if isinstance(layout, BundledLayout) else None
    return Archive(identity.archive_id, store, catalogue, memory, bundling, sites, observed)


class Probing:
    """The probe of an archive's store, which goes on while other parts of the start do: on a far store it takes
    seconds."""

    def __init__(self, archive: Archive) -> None:
        self._store = archive.store
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._probe, name="probing", daemon=True)
        self._thread.start()

    def _probe(self) -> None:
        try:
            self._store.probe(keys.PROBE)
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the result
            self._error = error

    def wait(self) -> None:
        """Until the store is known. Raises what the probe has raised (see `ObjectStore.probe`)."""
        self.end()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Until nobody asks the store any more, whatever came of it."""
        self._thread.join()


def is_bound(queue: Queue, archive: Archive) -> bool:
    """Whether the state is bound to this archive where it is now. Raises ArchiveRefused where it belongs to another
    one, Transient."""
    known, found = queue.binding.archive_id(), archive.archive_id
    if known is not None and known != found:
        raise ArchiveRefused(
            "this is not the archive that the daemon's state belongs to",
            hint=f"is the share mounted, and is it the right bucket? If the change is intended: {INIT} --new-archive",
        )
    return queue.binding.is_to(found, _location(archive))


def bind(queue: Queue, archive: Archive, log: Log) -> None:
    """What the state knows to be archived is in this archive, from here on too. Raises ArchiveRefused, Transient."""
    if not is_bound(queue, archive) and queue.binding.bind(archive.archive_id, _location(archive)):
        log.warning(
            "archive-moved", "the archive's location has changed; files not deleted yet are sent or verified again"
        )


def _location(archive: Archive) -> str:
    return f"{archive.store.destination} {archive.catalogue.name}"
