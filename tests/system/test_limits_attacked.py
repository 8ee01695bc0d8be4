"""The daemon under everything at once that is made to fill its memory or to keep it busy: it archives what is whole,
tells what it holds back, stays within its memory, and stops when it is told to."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import Site
from tests.unit.dicomfiles import DEFLATED, data_set, element, encode

CRAFTED = 400
#: These files alone took 352 MiB, and made a manifest of 89 MB, before there were limits; with them 78 MiB and 2 MB.
MOST_MIB = 200
LONG_VALUES = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "InstitutionalDepartmentName",
    "DeviceSerialNumber",
    "AccessionNumber",
    "StudyID",
    "PerformedProcedureStepDescription",
)
BOMBS = 6


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.init()
    yield site
    site.close()


def crafted(folder: Path) -> None:
    """One study, each file a series of its own, with values that take six bytes for each of theirs in JSON."""
    data = data_set(
        StudyInstanceUID="1.2.3.9",
        SeriesInstanceUID="1.2.3.9.10000",
        SOPInstanceUID="1.2.3.9.20000",
        SpecificCharacterSet="ISO_IR 100",
        **dict.fromkeys(LONG_VALUES, "\u00e9" * 4090),
    )
    template = encode(data)
    for number in range(CRAFTED):
        content = template.replace(b"1.2.3.9.10000", b"1.2.3.9.1%04d" % number)
        (folder / f"C{number}").write_bytes(content.replace(b"1.2.3.9.20000", b"1.2.3.9.2%04d" % number))


def bomb() -> bytes:
    content = encode(data_set(PixelData=None), DEFLATED)
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    first = deflate.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS)) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(element(0x00291010, b"LO", b"") * 131_072) + deflate.flush(zlib.Z_FULL_FLUSH)
    return content[:start] + first + again * 60 + deflate.flush()


def peak_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def test_all_at_once(site: Site) -> None:
    crafted(site.inbox)
    for number in range(BOMBS):
        (site.inbox / f"bomb{number}").write_bytes(bomb())
    start = encode(data_set(PixelData=None)) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 8 << 20)
    with (site.inbox / "sparse").open("wb") as file:
        file.write(start)
        file.truncate(1 << 34)
    good = Maker(3).ct_series(site.inbox / "good", slices=3, rows=16, columns=16)
    began = time.monotonic()
    site.start()
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(20)
            with suppress(OSError):
                client.connect(str(site.state / "control.sock"))
        site.wait_for(lambda: not any(one.path.exists() for one in good), 200, "the whole study to be archived")
        site.wait_for(lambda: not list(site.inbox.glob("C*")), 200, "the crafted study to be archived")
    seconds = time.monotonic() - began
    assert site.daemon is not None
    peak = peak_mib(site.daemon.pid)
    assert peak < MOST_MIB
    site.wait_for(
        lambda: len(site.ctl_json("quarantine", check=False).get("files", ())) == BOMBS + 1, 60, "what is held back"
    )
    codes = {Path(one["path"]).name: one["code"] for one in site.ctl_json("quarantine")["files"]}
    assert codes == {**{f"bomb{number}": "too-many-elements" for number in range(BOMBS)}, "sparse": "sparse"}
    assert len(list(site.inbox.glob("bomb*"))) == BOMBS
    assert (site.inbox / "sparse").stat().st_size == 1 << 34
    assert site.stop() == 0
    assert not any("Traceback" in line for line in site.log_file.read_text().splitlines())
    archive = Embedded(site.root / "archive")
    archive.require_whole(good[0].study_uid, [one.sha256 for one in good])
    manifest = max((site.root / "archive" / "studies" / "1.2.3.9").rglob("*.json"), key=os.path.getsize)
    assert manifest.stat().st_size < 5_000_000
    invariants.report(
        "limits", f"files crafted to fill the memory; the daemon's peak was {peak:.0f} MiB", tried=CRAFTED
    )
    assert seconds < 200
