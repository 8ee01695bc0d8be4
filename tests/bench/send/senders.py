"""Who sends: each one study over one association, ours out of an archive, DCMTK's from a folder of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.data import DataSet
from tests.bench.measure import RunFailed
from tests.dcmtk import dcmtk
from tests.system.site import CTL, Site


class Sender(Protocol):
    """``does`` says what it does beside sending."""

    name: str
    does: str

    def command(self, port: int, called: str) -> Sequence[str]: ...


class Ours:
    def __init__(self, layout: str, data: DataSet, folder: Path) -> None:
        """An archive in ``folder``, made once, for all rounds. Raises RunFailed."""
        self.name = "`fetch --send`" + ("" if layout == "instance" else ", bundled")
        self.does = "reads the archive, compares each SHA-256"
        self._study_uid = data.study_uid
        self._site = Site(folder, log_level="INFO", workers=32)
        self._site.config["archive"]["layout"] = {"kind": layout}
        self._site.write_config()
        data.link_into(self._site.inbox)
        self._site.init()
        if self._site.once() != 0 or self._site.left():
            raise RunFailed(f"the study cannot be archived:\n{self._site.log_tail()}")

    def command(self, port: int, called: str) -> Sequence[str]:
        to = f"{called}@127.0.0.1:{port}"
        return [CTL, "--config", str(self._site.config_file), "fetch", self._study_uid, "--send", to]


class Dcmtk:
    does = "reads files"

    def __init__(self, program: str, data: DataSet) -> None:
        self.name = f"DCMTK's {program}"
        self._program, self._folder = dcmtk(program), data.folder

    def command(self, port: int, called: str) -> Sequence[str]:
        return [self._program, "-aec", called, "+sd", "+r", "127.0.0.1", str(port), str(self._folder)]


def senders(data: DataSet, folder: Path) -> list[Sender]:
    return [
        Ours("instance", data, folder / "instance"),
        Ours("bundled", data, folder / "bundled"),
        Dcmtk("dcmsend", data),
        Dcmtk("storescu", data),
    ]
