"""The archive of a configuration: opened, found usable, and the one that the state knows."""

from __future__ import annotations

from collections.abc import Callable

from dicomwatchd.archive import keys
from dicomwatchd.archive.factory import aws_session, open_catalogue, open_store
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.config import BundledLayout, Config
from dicomwatchd.daemon.plan import ACTIVE_SHIPMENTS
from dicomwatchd.errors import ArchiveRefused, NotInitialised
from dicomwatchd.pipeline.shipment import Archive, Bundling
from dicomwatchd.ports import Log
from dicomwatchd.queue import Queue

INIT = "dicomwatchctl archive init"


def open_archive(config: Config, draining: Callable[[], bool]) -> Archive:
    """The archive, looked at and found usable; creates nothing. Raises NotInitialised, ArchiveRefused, OutOfReach."""
    hint = f"if this is the right place, run: {INIT}"
    memory = ByteBudget()
    session = aws_session(config.archive.store, config.archive.catalogue)
    store = open_store(
        config.archive.store,
        connections=config.workers + ACTIVE_SHIPMENTS,
        stopping=draining,
        budget=memory,
        session=session,
    )
    catalogue = open_catalogue(config.archive.catalogue, session=session)
    try:
        store.check()
        identity = read_identity(store)
        if identity is None:
            raise NotInitialised("the store holds no archive", hint=hint)
        catalogue.check()
        catalogue_id = catalogue.identity()
        if catalogue_id is None:
            raise NotInitialised("the catalogue is not initialised", hint=hint)
        if catalogue_id != identity.archive_id:
            raise ArchiveRefused("the catalogue belongs to another archive than the store", hint=hint)
        store.probe(keys.PROBE)
    except BaseException:  # whatever ends it: nobody else knows of the two
        store.close()
        catalogue.close()
        raise
    layout = config.archive.layout
    bundling = Bundling(layout.below_bytes, layout.size_bytes) if isinstance(layout, BundledLayout) else None
    return Archive(identity.archive_id, store, catalogue, memory, bundling)


def bind(queue: Queue, archive: Archive, log: Log) -> None:
    """What the state knows to be archived is in this archive, from here on too. Raises ArchiveRefused, Transient."""
    known, found = queue.binding.archive_id(), archive.archive_id
    if known is not None and known != found:
        raise ArchiveRefused(
            "this is not the archive that the daemon's state belongs to",
            hint=f"is the share mounted, and is it the right bucket? If the change is intended: {INIT} --new-archive",
        )
    if queue.binding.bind(found, f"{archive.store.destination} {archive.catalogue.name}"):
        log.warning(
            "archive-moved", "the archive's location has changed; files not deleted yet are sent or verified again"
        )
