"""`fetch --zip`: a ZIP file under its name is whole, holds the archived bytes, and no name in it leads elsewhere."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.errors import ColdObject, OutOfReach
from dicomwatchd.fetch import by_uid, look_up
from dicomwatchd.fetch.folder import DiskFull, Occupied
from dicomwatchd.fetch.handing import hand_out
from dicomwatchd.fetch.spool import MEMORY_BYTES
from dicomwatchd.fetch.stream import Verified
from dicomwatchd.fetch.zipped import Unseekable, ZipWriter, new_file
from dicomwatchd.model import DicomJson, Uid
from tests.unit.memory_archive import OTHER_SERIES, SERIES, STUDY, MemoryStore, archive, content
from tests.unit.test_cli_archive import Site, bare, elsewhere, fetched, site, study
from tests.unit.test_cli_basics import PROGRAM

__all__ = ["bare", "elsewhere", "site", "study"]  # fixtures

PAGES = {"INDEX.HTM", "README.TXT"}


def members(data: bytes | Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data) as packed:
        assert packed.testzip() is None
        assert len(packed.namelist()) == len(set(packed.namelist()))
        return {name: packed.read(name) for name in packed.namelist()}


def instances(data: bytes | Path) -> dict[str, bytes]:
    found = members(data)
    assert found.keys() >= PAGES
    return {name: found[name] for name in found.keys() - PAGES}


EXPECTED = {f"DICOM/{SERIES if n < 3 else OTHER_SERIES}/1.2.{n}.dcm": content(n) for n in range(5)}


@pytest.mark.parametrize("deflate", [(), ("--deflate",)])
def test_a_study_in_one_file(site: Site, study: Manifest, tmp_path: Path, deflate: tuple[str, ...]) -> None:
    target = tmp_path / "study.zip"
    answer = site.json("fetch", STUDY, "--zip", str(target), *deflate)
    assert answer["complete"] and answer["directory"] is None and (answer["fetched"], answer["already_there"]) == (5, 0)
    assert answer["zip"] == {"file": str(target), "bytes": target.stat().st_size}
    assert instances(target) == EXPECTED
    assert target.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir() if "part" in p.name} == set()
    with zipfile.ZipFile(target) as packed:
        for info in packed.infolist():
            assert info.compress_type == (zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
            assert info.external_attr >> 16 == 0o100600


def test_what_is_said_of_it(site: Site, study: Manifest, tmp_path: Path) -> None:
    result = site.ctl("fetch", STUDY, "--zip", str(tmp_path / "study.zip"))
    assert result.exit_code == 0
    assert "All 5 files of study" in result.stdout and "every SHA-256 matches" in result.stdout


def test_other_programs_take_it(site: Site, study: Manifest, tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    assert site.ctl("fetch", STUDY, "--zip", str(target)).exit_code == 0
    if shutil.which("unzip") is None:
        pytest.skip("unzip is not installed")
    done = subprocess.run(["unzip", "-tq", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_to_standard_output(site: Site, study: Manifest) -> None:
    command = [str(PROGRAM), "--config", str(site.config), "fetch", STUDY, "--zip", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert instances(done.stdout) == EXPECTED
    assert b"All 5 files" in done.stderr and b"in standard output: 5 fetched" in done.stderr
    assert site.ctl("fetch", STUDY, "--zip", "-", "--json").exit_code == 2


def test_several_studies_in_one_file(site: Site, study: Manifest, tmp_path: Path) -> None:
    other = Uid("1.2.840.99999.2")
    site.add([(SERIES, "1.2.1", content(9))], study=other)
    target = tmp_path / "patient.zip"
    answer = site.json("fetch", "--patient", "CANARY-ID", "--all", "--zip", str(target), "--layout", "original")
    assert answer["complete"] and answer["zip"]["file"] == str(target)
    assert sorted(instances(target).values()) == sorted([*EXPECTED.values(), content(9)])
    assert {name.split("/")[1] for name in instances(target)} == {STUDY, other}
    page = members(target)["INDEX.HTM"].decode()
    assert STUDY in page and other in page


def test_the_pages(site: Site, tmp_path: Path) -> None:
    hostile: DicomJson = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "<script>alert(1)</script>^\u202eM\u00fcller"}]},
        "00081030": {"vr": "LO", "Value": ['"><img src=x>']},
    }
    site.add([(SERIES, "1.2.1", content(1))], attributes=hostile)
    target = tmp_path / "study.zip"
    assert site.ctl("fetch", STUDY, "--zip", str(target)).exit_code == 0
    found = members(target)
    page, readme = found["INDEX.HTM"].decode("utf-8"), found["README.TXT"].decode("ascii")
    assert "<script" not in page and "<img" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page and "M\u00fcller" in page and STUDY in page
    assert (
        "CANARY" not in readme and "Files: 1, of 1 study." in readme and "\r\n" in readme and "INCOMPLETE" not in readme
    )


def test_what_is_there_is_not_overwritten(site: Site, study: Manifest, tmp_path: Path) -> None:
    target = tmp_path / "study.zip"
    for make in (lambda: target.write_bytes(b"mine"), lambda: target.symlink_to(tmp_path / "nowhere")):
        make()
        result = site.ctl("fetch", STUDY, "--zip", str(target))
        assert result.exit_code == 1 and "not touched" in result.stderr
        assert target.is_symlink() or target.read_bytes() == b"mine"
        target.unlink()
    assert not (tmp_path / "nowhere").exists()


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out" / "study.zip"
    with new_file(target) as (stream, publish):
        stream.write(b"ours")
        target.write_bytes(b"theirs")
        with pytest.raises(Occupied):
            publish()
    assert [p.read_bytes() for p in target.parent.iterdir()] == [b"theirs"]


def test_nothing_is_said_to_be_in_a_file_that_did_not_get_its_name(
    site: Site, study: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "study.zip"
    finish = ZipWriter.finish

    def somebody_is_quicker(writer: ZipWriter) -> int:
        target.write_bytes(b"theirs")
        return finish(writer)

    monkeypatch.setattr(ZipWriter, "finish", somebody_is_quicker)
    result = site.ctl("fetch", STUDY, "--zip", str(target))
    assert result.exit_code == 1 and "All 5 files" not in result.stdout
    assert [p.read_bytes() for p in target.parent.iterdir()] == [b"theirs"]


def test_a_damaged_object_is_left_out_and_said(site: Site, study: Manifest, tmp_path: Path) -> None:
    site.path_of(study.instances[1].key).write_bytes(b"x" * study.instances[1].size_bytes)
    target = tmp_path / "study.zip"
    answer = site.json("fetch", STUDY, "--zip", str(target), code=1)
    assert not answer["complete"] and [one["sop_instance_uid"] for one in answer["failed"]] == ["1.2.1"]
    assert instances(target) == {name: data for name, data in EXPECTED.items() if "1.2.1." not in name}
    found = members(target)
    assert b"1 of 5 files are missing here" in found["INDEX.HTM"] and b"INCOMPLETE: 1 files" in found["README.TXT"]


def test_nothing_to_be_had_makes_no_file(site: Site, study: Manifest, tmp_path: Path) -> None:
    for item in study.instances:
        site.path_of(item.key).unlink()
    target = tmp_path / "sub" / "study.zip"
    answer = site.json("fetch", STUDY, "--zip", str(target), code=1)
    assert answer["zip"] == {"file": str(target), "bytes": None} and len(answer["failed"]) == 5
    assert list(target.parent.iterdir()) == []
    said = site.ctl("fetch", STUDY, "--zip", str(target)).stdout
    assert "missing from the store" in said and said.endswith("No file was written.\n")
    assert site.ctl("fetch", "1.2.3.4", "--zip", str(target)).exit_code == 1
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [("--zip", "a.zip", "-o", "x"), ("--zip", "a.zip", "--with-dicomdir"), ("--deflate",), ("--zip", ".")],
)
def test_what_does_not_go_together(site: Site, study: Manifest, arguments: tuple[str, ...]) -> None:
    assert site.ctl("fetch", STUDY, *arguments).exit_code == 2
    assert fetched(Path()) == {}


def test_a_killed_fetch_leaves_no_name_and_the_next_one_cleans_up(site: Site, tmp_path: Path) -> None:
    site.add([(SERIES, f"1.2.{n}", content(n, 1 << 20)) for n in range(64)])
    target = tmp_path / "out" / "study.zip"
    command = [str(PROGRAM), "--config", str(site.config), "fetch", STUDY, "--zip", str(target), "--deflate"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not list(target.parent.glob(".*.part")) and time.monotonic() < until:
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not target.exists() and len(list(target.parent.iterdir())) == 1
    assert site.ctl("fetch", STUDY, "--zip", str(target)).exit_code == 0
    assert [p.name for p in target.parent.iterdir()] == ["study.zip"] and len(instances(target)) == 64


# --- the parts


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x", "a//x", "./x", ""])
def test_no_name_leads_out_whoever_made_it(name: str) -> None:
    with ZipWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match="elsewhere"):
        writer.add(name, io.BytesIO(b"x"), 1, "")


def test_only_what_is_not_compressed_is_deflated() -> None:
    made = io.BytesIO()
    with ZipWriter(made, deflate=True) as writer:
        writer.add("native", io.BytesIO(b"0" * 1000), 1000, "1.2.840.10008.1.2.1")
        writer.add("jpeg", io.BytesIO(b"0" * 1000), 1000, "1.2.840.10008.1.2.4.70")
        assert writer.finish() == len(made.getvalue())
    with zipfile.ZipFile(made) as packed:
        assert {i.filename: i.compress_type for i in packed.infolist()} == {"native": 8, "jpeg": 0}


def test_unfinished_is_no_zip_file() -> None:
    made = io.BytesIO()
    with ZipWriter(made) as writer:
        writer.add("one", io.BytesIO(b"0" * 1000), 1000, "")
    assert len(made.getvalue()) > 1000 and not zipfile.is_zipfile(made)


class Holes(io.RawIOBase):
    """``size_bytes`` of nothing, a chunk at a time."""

    def __init__(self, size_bytes: int) -> None:
        self.left = size_bytes

    def read(self, size: int = -1) -> bytes:
        given = min(self.left, size)
        self.left -= given
        return bytes(given)


class Sieve(io.RawIOBase):
    """Keeps what is no hole: the heads of members and the list at the end."""

    def __init__(self) -> None:
        self.kept, self.at = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.at += len(piece)
        if len(piece) < 1 << 19:
            self.kept += piece
        return len(piece)


def test_a_member_of_more_than_4_gib_and_more_than_65535_members_are_zip64() -> None:
    size, sieve = (4 << 30) + 10, Sieve()
    with ZipWriter(Unseekable(sieve)) as writer:  # type: ignore[arg-type]
        writer.add("large", Holes(size), size, "")  # type: ignore[arg-type]
        assert writer.finish() == sieve.at
    assert b"PK\x06\x06" in sieve.kept and (size).to_bytes(8, "little") in sieve.kept
    many = io.BytesIO()
    with ZipWriter(many) as writer:
        for n in range(70_000):
            writer.add(f"{n}", io.BytesIO(b""), 0, "")
        writer.finish()
    with zipfile.ZipFile(many) as packed:
        assert len(packed.infolist()) == 70_000


def taken(store: MemoryStore, manifest: Manifest, tmp_path: Path, threads: int = 4) -> tuple[list[bytes], list[str]]:
    found: list[bytes] = []

    def take(one: Verified) -> None:
        with one.spool.reading() as file:
            found.append(file.read())

    report = hand_out(store, look_up(store, None, STUDY), by_uid(manifest.instances), take, tmp_path, threads=threads)
    assert report.fetched == len(found)
    return found, [one.code for one in report.failed]


def test_nothing_is_handed_out_that_was_not_compared(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(5)])

    def other_bytes(key: str, _time: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if key == manifest.instances[2].key:
            chunks = (bytes(len(chunk)) for chunk in chunks)
        yield from chunks

    store.tampering = other_bytes
    found, failed = taken(store, manifest, tmp_path)
    assert found == [content(n) for n in (0, 1, 3, 4)] and failed == ["bad-object"]


def test_large_ones_lie_on_the_disk_without_a_name(tmp_path: Path) -> None:
    store = MemoryStore(chunk_bytes=1 << 20)
    large = content(1, MEMORY_BYTES + 100)
    manifest = archive(store, [(SERIES, "1.2.1", large), (SERIES, "1.2.2", content(2))])
    seen: list[int] = []

    def take(one: Verified) -> None:
        seen.append(sum(p.is_file() for p in tmp_path.iterdir()))
        assert one.spool.path.read_bytes() == (large if one.placed[0].size_bytes > MEMORY_BYTES else content(2))

    open_before = len(os.listdir("/proc/self/fd"))
    assert hand_out(store, look_up(store, None, STUDY), by_uid(manifest.instances), take, tmp_path).complete
    assert seen == [0, 0]
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_not_more_is_read_ahead_than_there_are_threads(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n:03}", content(n)) for n in range(60)])
    ahead: list[int] = []

    def take(_one: Verified) -> None:
        time.sleep(0.002)
        ahead.append(len(store.reads) - len(ahead))

    assert hand_out(store, look_up(store, None, STUDY), by_uid(manifest.instances), take, tmp_path, threads=3).complete
    assert max(ahead[1:]) <= 4 + 1  # those, the one taken, and the manifest's own read


def test_a_store_that_is_gone_ends_it(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(9)])
    found = look_up(store, None, STUDY)
    store.fault = OutOfReach("down", endpoint="x")
    report = hand_out(store, found, by_uid(manifest.instances), lambda _one: None, tmp_path, threads=1)
    assert isinstance(report.stopped, OutOfReach) and report.fetched == 0 and len(report.failed) == 9


def test_whoever_takes_may_end_it_and_nothing_stays_open(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(9)])

    def take(_one: Verified) -> None:
        raise DiskFull("full")

    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskFull):
        hand_out(store, look_up(store, None, STUDY), by_uid(manifest.instances), take, tmp_path)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_what_is_cold_is_not_asked_for(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = archive(store, [(SERIES, f"1.2.{n}", content(n)) for n in range(3)])
    cold = [manifest.instances[1]]
    found = look_up(store, None, STUDY)
    store.reads.clear()
    report = hand_out(store, found, by_uid(manifest.instances), lambda _one: None, tmp_path, cold=cold)
    assert [one.code for one in report.failed] == [ColdObject.code] and len(store.reads) == 2


def test_a_disk_without_room_leaves_no_zip_file(site: Site, study: Manifest, tmp_path: Path) -> None:
    """The limit of a process on the size of a file stands for a full disk."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "from dicomwatchd.cli import main\n"
        "main()\n"
    )
    target = tmp_path / "out" / "study.zip"
    command = [sys.executable, "-c", code, "--config", str(site.config), "fetch", STUDY, "--zip", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert list(target.parent.iterdir()) == []
