"""What the rooms of the web process are handed by whoever builds them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.web import Web
from dicomwatchd.config.whole import Config
from dicomwatchd.ports import Clock, Log
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.web.ports import AccessAudit


@dataclass(frozen=True, slots=True)
class Parts:
    """``store`` and ``catalogue`` are only ever read. ``threads`` run what waits for them, ``pictures`` what decodes
    images: few, for each may take some hundred MiB."""

    config: Config
    web: Web
    store: ObjectStore
    catalogue: Catalogue
    series: SeriesReader
    audit: AccessAudit
    threads: ThreadPoolExecutor
    pictures: ThreadPoolExecutor
    clock: Clock
    log: Log
