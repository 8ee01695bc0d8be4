"""What the page stands on, as whoever builds the process hands it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import gettempdir

from dicomwatchd.access.record import AccessRecord
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.control.client import ControlClient
from dicomwatchd.fetch.destination import Destination, of_settings
from dicomwatchd.model import Uid
from dicomwatchd.ports import Clock, Log
from dicomwatchd.web.pages.limits import LIMITS, UploadLimits
from dicomwatchd.web.pages.staging.custody import Daemon
from dicomwatchd.web.parts import Parts
from dicomwatchd.web.ports import AccessAudit
from dicomwatchd.web.viewer import address


@dataclass(frozen=True, slots=True)
class PageParts:
    """``store`` and ``catalogue`` are only read. ``daemon`` is its control socket. ``staging`` is a folder of our own,
    which hands the daemon's rights down to what is made in it (a default ACL). ``scratch`` is for instances too large
    for memory while they are handed out. ``threads`` send studies. ``viewer`` gives the viewer's address for a Study
    Instance UID. ``record`` is searched by whoever administrates; without it there is no page for that. ``log_out`` is
    the path to which logging out is posted, "" where there is none."""

    store: ObjectStore
    catalogue: Catalogue
    audit: AccessAudit
    daemon: Daemon
    destinations: Mapping[str, Destination]
    staging: Path
    scratch: Path
    threads: Executor
    clock: Clock
    log: Log
    limits: UploadLimits = LIMITS
    viewer: Callable[[Uid], str] | None = None
    record: AccessRecord | None = None
    log_out: str = ""
    today: Callable[[], date] = field(default=date.today)


def parts_of(parts: Parts, record: AccessRecord, *, has_viewer: bool) -> PageParts:
    """As the configuration says."""
    return PageParts(
        store=parts.store,
        catalogue=parts.catalogue,
        audit=parts.audit,
        daemon=ControlClient(parts.config.socket_path),
        destinations={one.name: of_settings(one) for one in parts.config.destinations},
        staging=parts.web.staging,
        scratch=Path(gettempdir()),
        threads=parts.threads,
        clock=parts.clock,
        log=parts.log,
        viewer=address if has_viewer else None,
        record=record,
        log_out="/logout",
    )
