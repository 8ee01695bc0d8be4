"""Debian's Orthanc on loopback: its REST interface, and its DICOM server where that is asked for.

It binds all addresses whatever it is told, so it takes requests of this machine alone, with a password, and its DICOM
server stays off unless wanted.
"""

from __future__ import annotations

import base64
import json
import secrets
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.servers import processes

PROGRAM: Final = Path("/usr/sbin/Orthanc")
AE_TITLE: Final = "ORTHANC"
_START_TIMEOUT_SECONDS: Final = 30.0
_REQUEST_TIMEOUT_SECONDS: Final = 60.0


class Orthanc:
    """The server. `directory` must be new or empty; close() removes it.

    `modalities` are those it may send to and, with `dicom`, takes from: AE title and port on loopback by name.
    `settings` go into its configuration. No plugin is loaded.
    """

    def __init__(
        self, directory: Path, modalities: Mapping[str, tuple[str, int]], *, dicom: bool = False, **settings: Any
    ) -> None:
        self.directory = directory.absolute()
        self.http_port, self.dicom_port = processes.free_port(), processes.free_port()
        self._password = secrets.token_hex(20)
        # Proxies of the environment are not for loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._configuration = {
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"test": self._password},
            "DicomServerEnabled": dicom,
            "DicomPort": self.dicom_port,
            "DicomAet": AE_TITLE,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()},
            **settings,
        }

    @property
    def pid(self) -> int:
        return processes.running_pids(self.directory)["orthanc"]

    def start(self) -> Self:
        """Takes 0.3 s. Raises ServerError."""
        if not self.directory.exists() or not any(self.directory.iterdir()):
            processes.claim_directory(self.directory)
            (self.directory / "storage").mkdir()
        configuration = self.directory / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration))
        processes.spawn(self.directory, "orthanc", [str(PROGRAM), str(configuration)], detached=False)
        try:
            processes.wait_for_http(self.directory, ["orthanc"], self.http_port, _START_TIMEOUT_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        processes.end(self.directory, "orthanc", grace_seconds=10)

    def close(self) -> None:
        self.stop()
        processes.remove_directory(self.directory)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- its REST interface -------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        return self._ask(path, None)

    def post(self, path: str, body: bytes | str) -> Any:
        return json.loads(self._ask(path, body.encode() if isinstance(body, str) else body))

    def _ask(self, path: str, body: bytes | None) -> bytes:
        """Raises urllib's HTTPError."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"test:{self._password}".encode()).decode())
        with self._opener.open(request, timeout=_REQUEST_TIMEOUT_SECONDS) as answer:
            found: bytes = answer.read()
        return found
