"""DICOMweb of a site's archive, served by uvicorn on a port of loopback, in a thread of the test."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.archive import factory
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config import loading
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.web.dicomweb import routes
from dicomwatchd.web.dicomweb.room import LIMITS, Limits
from dicomwatchd.web.people import Person, Role
from dicomwatchd.web.serving import Patience, Places, server


class Recorded:
    """An access audit that remembers. ``refusal`` is raised where it is set; ``writes`` is how often it was written."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, str]] = []
        self.writes = 0
        self.refusal: DicomwatchdError | None = None

    def record(self, person: Person, action: str, study_uid: Uid) -> None:
        self.record_each(person, action, [study_uid])

    def record_each(self, person: Person, action: str, study_uids: Iterable[Uid]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.entries += [(person.name, action, str(one)) for one in study_uids]
        self.writes += 1


class _Known:
    """Sets the person whom the header "X-Test-Person" names; a reader, without it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            named = dict(scope["headers"]).get(b"x-test-person", b"reader").decode()
            roles = frozenset({Role.READ}) if named != "uploader" else frozenset({Role.UPLOAD})
            if named != "nobody":
                scope.setdefault("state", {})["person"] = Person(named, roles)
        await self._app(scope, receive, send)


@dataclass
class Served:
    url: str
    audit: Recorded
    directory: Path
    failures: list[DicomwatchdError] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition("/")[0].rpartition(":")
        return host, int(port)

    def temporary_bytes(self) -> int:
        """Of all files of this process that have no name any more."""
        found = 0
        for fd in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                if os.readlink(fd).startswith(f"{self.directory}/"):
                    found += fd.stat().st_size
        return found

    def client(self) -> DICOMwebClient:
        return DICOMwebClient(self.url)

    def get(self, path: str, accept: str | None = None, **parameters: Any) -> requests.Response:
        headers = {} if accept is None else {"Accept": accept}
        return requests.get(self.url + path, headers=headers, timeout=120, **parameters)


_PATIENCE = Patience()


async def _tick() -> None:
    pass


@contextmanager
def served(archive: Mapping[str, Any]) -> Iterator[Served]:
    """``archive`` is a configuration's section."""
    with factory.opened(*loading.parse_archive(archive), connections=8) as (store, catalogue):
        assert catalogue is not None
        with served_from(store, catalogue) as running:
            yield running


@contextmanager
def served_from(
    store: ObjectStore,
    catalogue: Catalogue,
    *,
    limits: Limits = LIMITS,
    patience: Patience = _PATIENCE,
    **options: Any,
) -> Iterator[Served]:
    """``options`` are the reader's."""
    with (
        tempfile.TemporaryDirectory() as directory,
        ThreadPoolExecutor(8) as reading,
        ThreadPoolExecutor(2) as pictures,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        audit, failures = Recorded(), list[DicomwatchdError]()
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = Starlette(
            routes=routes(
                SeriesReader(store, catalogue, directory=Path(directory), **options),
                catalogue,
                audit,
                reading=reading,
                pictures=pictures,
                random=secrets.token_bytes,
                failed=failures.append,
                base_url=origin,
                limits=limits,
            )
        )
        places = Places(1000, 1000, lambda _: False, only_the_proxy=False)
        running = server(_Known(app), places, None, _tick, patience)
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield Served(f"{origin}/dicom-web", audit, Path(directory), failures)
        finally:
            running.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
