"""Who receives: each anew for every run, into a folder on the same disk."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil

from tests.bench.measure import RunFailed
from tests.bench.receive.senders import CALLING
from tests.dcmtk import dcmtk
from tests.servers import processes
from tests.servers.orthanc import AE_TITLE, Orthanc
from tests.system.receiving import Receiving
from tests.system.site import Site

_QUIET_SECONDS = 1.0
_ARCHIVED_WITHIN_SECONDS = 300


class Receiver(Protocol):
    """``syncs`` says what is on the disk when Success is answered. ``begin`` returns once the port listens."""

    name: str
    syncs: str
    port: int
    called: str

    def begin(self, folder: Path) -> None: ...

    def pids(self) -> Sequence[int]: ...

    def finish(self, files: int) -> None:
        """Returns when ``files`` objects are where they should be. Raises RunFailed if they are not."""

    def end(self) -> None: ...


class Ours:
    name = "`dicomwatchd-receive`"
    syncs = "the object, and its name in the folder"
    called = "ARCHIVE"

    def begin(self, folder: Path) -> None:
        self._site = Site(folder, inbox={"settle_seconds": 0, "quiet_seconds": _QUIET_SECONDS}, log_level="INFO")
        self._receiving = Receiving(self._site)
        self.port = self._receiving.port
        self._receiving.start()

    def pids(self) -> Sequence[int]:
        assert self._receiving.process is not None
        return [self._receiving.process.pid]

    def finish(self, files: int) -> None:
        _require(self.name, len(self._receiving.stored()), files)

    def end(self) -> None:
        self._receiving.close()


class OursToTheArchive(Ours):
    """With the daemon beside it: until every object is in the embedded archive, proved, and deleted from the inbox."""

    name = "dicomwatchd, until archived and deleted"
    syncs = "that, and the archive"

    def begin(self, folder: Path) -> None:
        super().begin(folder)
        self._site.init()
        self._site.start()

    def pids(self) -> Sequence[int]:
        assert self._site.daemon is not None
        return [*super().pids(), self._site.daemon.pid]

    def finish(self, files: int) -> None:
        until = time.monotonic() + _ARCHIVED_WITHIN_SECONDS
        while self._site.left():
            if time.monotonic() > until:
                raise RunFailed(f"{len(self._site.left())} files were not archived:\n{self._site.log_tail()}")
            time.sleep(0.1)
        archived = list((self._site.root / "archive" / "studies").rglob("*.dcm"))
        _require(self.name, len(archived), files)

    def end(self) -> None:
        super().end()
        self._site.close()


class Storescp:
    name = "DCMTK's `storescp --fork`"
    syncs = "nothing"
    called = "STORESCP"

    def begin(self, folder: Path) -> None:
        self.port = processes.free_port()
        self._folder = folder / "received"
        self._folder.mkdir(parents=True)
        command = [dcmtk("storescp"), "--fork", "--output-directory", str(self._folder), str(self.port)]
        self._process = subprocess.Popen(command)
        until = time.monotonic() + 10
        while not any(one.laddr.port == self.port for one in psutil.Process(self._process.pid).net_connections("tcp")):
            if time.monotonic() > until:
                raise RunFailed(f"{self.name} does not listen")
            time.sleep(0.05)

    def pids(self) -> Sequence[int]:
        return [self._process.pid]

    def finish(self, files: int) -> None:
        _require(self.name, len(os.listdir(self._folder)), files)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class DebiansOrthanc:
    name = "Orthanc, `SyncStorageArea: true`"
    syncs = "the object"
    called = AE_TITLE

    def begin(self, folder: Path) -> None:
        self._orthanc = Orthanc(folder, {"ct": (CALLING, 104)}, dicom=True, SyncStorageArea=True)
        self.port = self._orthanc.dicom_port
        self._orthanc.start()

    def pids(self) -> Sequence[int]:
        return [self._orthanc.pid]

    def finish(self, files: int) -> None:
        _require(self.name, int(self._orthanc.get("/statistics")["CountInstances"]), files)

    def end(self) -> None:
        self._orthanc.close()


def _require(name: str, found: int, files: int) -> None:
    if found != files:
        raise RunFailed(f"{name}: {found} of {files} objects are there")
