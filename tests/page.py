"""The page by itself, for tests: whoever asks says so in a header, and what a browser's script does is done here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.control.client import DaemonNotRunning, DaemonRefused
from dicomwatchd.model import Uid
from dicomwatchd.web.pages import PageParts, opened
from dicomwatchd.web.people import Person, Role
from tests.pieces import FakeClock, Log

READ, UPLOAD = frozenset({Role.READ}), frozenset({Role.UPLOAD})
BOTH = READ | UPLOAD


class ByHeader:
    """ASGI, in the place of the log-in: X-Person has a name and roles."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name, _, roles = Request(scope).headers.get("x-person", "nobody:").partition(":")
            scope.setdefault("state", {})["person"] = Person(name, frozenset(Role(r) for r in roles.split("+") if r))
        await self._app(scope, receive, send)


@dataclass
class Recorded:
    """An access audit in memory; ``error`` is raised where it is to fail."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)
    error: Exception | None = None

    def record(self, person: Person, action: str, study_uid: Uid) -> None:
        if self.error is not None:
            raise self.error
        self.entries.append((person.name, action, str(study_uid)))

    def record_each(self, person: Person, action: str, study_uids: Iterable[Uid]) -> None:
        for one in study_uids:
            self.record(person, action, one)


@dataclass
class Daemon:
    """Says what ``answers`` has; takes folders in if it ``runs``."""

    runs: bool = True
    refuses: bool = False
    handed: list[Path] = field(default_factory=list)
    deletes: list[bool] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    loses_the_answer: bool = False

    def call(self, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
        if not self.runs:
            raise DaemonNotRunning("the daemon is not running")
        if command == "upload-list":
            return [{"upload_id": f"upload-{n}", "path": str(path)} for n, path in enumerate(self.handed)]
        if command == "upload-folder":
            assert descriptor is not None
            if self.refuses:
                raise DaemonRefused("too many folders are being archived at once", code="too-many-uploads")
            self.handed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            self.deletes.append(arguments["delete"])
            if self.loses_the_answer:
                self.loses_the_answer = False
                raise DaemonNotRunning("the connection to the daemon broke")
            return {"upload_id": f"upload-{len(self.handed) - 1}"}
        assert command == "upload-show"
        running = {"done": False, "files_done": 0, "files_total": 2, "verified": 0, "failed": [], "not_opened": []}
        return {**running, **self.result}


@contextmanager
def served(parts: PageParts) -> Iterator[httpx.Client]:
    """On a port of its own, without anybody's name yet: see `as_`."""
    with opened(parts) as routes:
        app = ByHeader(Starlette(routes=routes))
        server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            end = time.monotonic() + 60
            while not server.started:
                assert time.monotonic() < end and thread.is_alive(), "the page does not start"
                time.sleep(0.02)
            port = server.servers[0].sockets[0].getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def page(root: Path, daemon: Daemon, **parts: Any) -> Iterator[httpx.Client]:
    """With its scratch and its staged uploads in ``root``; ``parts`` are of `PageParts`."""
    with ThreadPoolExecutor(1) as threads:
        made: dict[str, Any] = {
            "store": None,
            "catalogue": None,
            "audit": Recorded(),
            "daemon": daemon,
            "destinations": {},
            "staging": root / "staging",
            "scratch": root,
            "threads": threads,
            "clock": FakeClock(),
            "log": Log(),
            **parts,
        }
        with served(PageParts(**made)) as client:
            yield client


def as_(name: str, roles: frozenset[Role] = BOTH, language: str = "en") -> dict[str, str]:
    return {"X-Person": f"{name}:{'+'.join(sorted(roles))}", "Accept-Language": language, "Accept": "text/html"}


@dataclass
class Browser:
    """What upload.js does."""

    client: httpx.Client
    headers: dict[str, str]
    piece_bytes: int = 8 << 20

    def begin(self) -> str:
        answer = self.client.post("/uploads", content=b"{}", headers=self.headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["upload"])

    def announce(self, upload: str, files: dict[str, bytes], *, hashed: bool = True) -> list[dict[str, Any]]:
        said = [
            {
                "path": name,
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest() if hashed else "",
                "modified": 1,
            }
            for name, data in files.items()
        ]
        answer = self.client.post(f"/uploads/{upload}/files", content=json.dumps({"files": said}), headers=self.headers)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["files"]
        return found

    def put(self, upload: str, number: int, offset: int, piece: bytes) -> httpx.Response:
        digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        return self.client.put(
            f"/uploads/{upload}/files/{number}",
            params={"offset": offset},
            content=piece,
            headers={**self.headers, "Content-Digest": f"sha-256=:{digest}:"},
        )

    def send(self, upload: str, files: dict[str, bytes], *, hashed: bool = True) -> int:
        """How many had to be sent."""
        sent = 0
        for (_, data), place in zip(files.items(), self.announce(upload, files, hashed=hashed), strict=True):
            offset, there = place["offset"], place["there"]
            sent += not there
            while not there:
                answer = self.put(upload, place["number"], offset, data[offset : offset + self.piece_bytes])
                assert answer.status_code == 200, answer.text
                offset, there = answer.json()["offset"], answer.json()["there"]
        return sent

    def finish(self, upload: str, files: int) -> httpx.Response:
        return self.client.post(f"/uploads/{upload}/finish", content=json.dumps({"files": files}), headers=self.headers)

    def state(self, upload: str) -> dict[str, Any]:
        answer = self.client.get(f"/uploads/{upload}/state", headers=self.headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def whole(self, files: dict[str, bytes]) -> str:
        upload = self.begin()
        self.send(upload, files)
        answer = self.finish(upload, len(files))
        assert answer.status_code == 200, answer.text
        return upload

    def page(self, upload: str) -> str:
        answer = self.client.get(f"/uploads/{upload}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.text


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
