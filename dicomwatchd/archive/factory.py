"""Which adapter serves which settings; an adapter and its libraries are imported only if they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, assert_never

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.catalogues.sites import SiteTable
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.archive import (
    CatalogueSettings,
    DirectorySettings,
    DynamoDBSettings,
    S3Settings,
    SqliteSettings,
    StoreSettings,
)

if TYPE_CHECKING:
    from botocore.session import Session


def _never() -> bool:
    return False


def aws_session(store: StoreSettings, catalogue: CatalogueSettings | None) -> Session | None:
    """A session that both may be opened with, one after the other, as far as they are AWS's: what it reads of the
    service's description, and the credentials that it finds, are read and found once. None where neither is."""
    if not isinstance(store, S3Settings) and not isinstance(catalogue, DynamoDBSettings):
        return None
    from dicomwatchd.archive.aws.clients import new_session

    return new_session()


def open_store(
    settings: StoreSettings,
    *,
    connections: int,
    stopping: Callable[[], bool] = _never,
    budget: ByteBudget | None = None,
    session: Session | None = None,
    uplink: Uplink | None = None,
    from_memory: bool = False,
) -> ObjectStore:
    """The store that the settings name; whether it is there is for its `check` to say.

    ``connections`` is how many threads will use it at once. ``stopping`` is asked in the middle of long uploads,
    which then raise Stopping; ``budget`` is how much of files may be in memory at once, ``uplink`` how fast they may
    be sent. ``from_memory``: what is read proves nothing, and a folder's files may come out of the kernel's memory.
    Raises Fatal where the settings cannot work at all.
    """
    match settings:
        case DirectorySettings():
            from dicomwatchd.archive.stores.directory.store import DirectoryStore

            return DirectoryStore(settings, stopping=stopping, uplink=uplink, from_memory=from_memory)
        case S3Settings():
            from dicomwatchd.archive.stores.s3.store import S3Store

            return S3Store(
                settings, connections=connections, stopping=stopping, budget=budget, session=session, uplink=uplink
            )
    assert_never(settings)


def open_catalogue(settings: CatalogueSettings, *, session: Session | None = None, connections: int = 16) -> Catalogue:
    """The catalogue that the settings name, as above."""
    match settings:
        case SqliteSettings():
            from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue

            return SqliteCatalogue(settings)
        case DynamoDBSettings():
            from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue

            return DynamoDBCatalogue(settings, session=session, max_connections=connections)
    assert_never(settings)


def open_sites(settings: CatalogueSettings, *, session: Session | None = None) -> SiteTable:
    """Where the daemons of the archive say how they are, in the catalogue that the settings name. As above."""
    match settings:
        case SqliteSettings():
            from dicomwatchd.archive.catalogues.sqlite.sites import SqliteSites

            return SqliteSites(settings)
        case DynamoDBSettings():
            from dicomwatchd.archive.catalogues.dynamodb.sites import DynamoDBSites

            return DynamoDBSites(settings, session=session)
    assert_never(settings)


@contextmanager
def opened(
    store: StoreSettings, catalogue: CatalogueSettings | None, *, connections: int, from_memory: bool = False
) -> Iterator[tuple[ObjectStore, Catalogue | None]]:
    """Both for as long as they are read. The store is there and usable, the catalogue may not be. ``from_memory`` as
    for `open_store`.

    Raises Fatal, NotInitialised, ArchiveRefused, OutOfReach.
    """
    session = aws_session(store, catalogue)
    with ExitStack() as stack:
        opened_store = open_store(store, connections=connections, session=session, from_memory=from_memory)
        stack.callback(opened_store.close)
        opened_store.check()
        opened_catalogue = None
        if catalogue is not None:
            opened_catalogue = open_catalogue(catalogue, session=session, connections=max(connections, 16))
            stack.callback(opened_catalogue.close)
        yield opened_store, opened_catalogue
