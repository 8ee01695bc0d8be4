"""All checks of an archive's cloud side, in order; which there are is the kind's of its store and its catalogue."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.archive import Archive, DynamoDBSettings, S3Settings
from dicomwatchd.errors import DicomwatchdError, OutOfReach
from dicomwatchd.findings import Finding

Check = tuple[str, Callable[[], Finding]]


def findings(
    configured: Archive,
    store: ObjectStore,
    catalogue: Catalogue,
    workers: int,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    random_name: Callable[[], str] = secrets.token_hex,
) -> Iterator[Finding]:
    """``store`` was probed. Asks with the store's and the catalogue's own clients, so with the rights that they work
    with. Raises nothing of its own: what fails is a finding."""
    if isinstance(configured.store, S3Settings):
        yield from _of_store(configured.store, store, workers, now, monotonic, random_name)
    if isinstance(configured.catalogue, DynamoDBSettings):
        yield from _of_catalogue(configured.catalogue, catalogue)


def _of_store(
    configured: S3Settings,
    store: ObjectStore,
    workers: int,
    now: Callable[[], float],
    monotonic: Callable[[], float],
    random_name: Callable[[], str],
) -> Iterator[Finding]:
    # Only for what is on S3: its libraries cost every other command their time.
    from dicomwatchd.archive.preflight import pace
    from dicomwatchd.archive.preflight.bucket import BucketChecks
    from dicomwatchd.archive.preflight.rights import RoleChecks
    from dicomwatchd.archive.stores.s3.store import S3Store

    if not isinstance(store, S3Store):
        return
    bucket, capabilities = store.bucket, store.capabilities
    of_bucket = BucketChecks(bucket, configured, creates_only=capabilities.creates_only)
    yield from _made([*of_bucket.all(), *RoleChecks(bucket, capabilities, random_name).all()], bucket.endpoint)
    try:
        with bucket.translated("HeadObject"):
            measured = pace.measure(bucket, now, monotonic)
    except DicomwatchdError as error:
        yield from (Finding(what, "unknown", f"could not be measured: {error}") for what in (pace.CLOCK, pace.LATENCY))
    else:
        yield from pace.findings(measured, workers)


def _of_catalogue(configured: DynamoDBSettings, catalogue: Catalogue) -> Iterator[Finding]:
    from dicomwatchd.archive.aws.clients import is_amazon
    from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
    from dicomwatchd.archive.preflight.table import TableChecks

    if isinstance(catalogue, DynamoDBCatalogue):
        checks = TableChecks(catalogue.client, catalogue.table, is_amazon=is_amazon(configured.endpoint_url))
        yield from _made(checks.all(), catalogue.name)


def _made(checks: Iterable[Check], endpoint: str) -> Iterator[Finding]:
    """Each in turn, until the service does not answer at all: then the others are not waited for."""
    from dicomwatchd.archive.aws.clients import translated

    is_away = False
    for subject, check in checks:
        if is_away:
            yield Finding(subject, "unknown", "could not be asked: the service does not answer")
            continue
        try:
            with translated("a check", endpoint):
                yield check()
        except DicomwatchdError as error:
            is_away = isinstance(error, OutOfReach)
            yield Finding(subject, "unknown", f"could not be asked now: {error}")
