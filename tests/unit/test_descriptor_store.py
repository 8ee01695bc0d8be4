"""Descriptors left with the service manager: what is sent to it, and what is taken from it at the next start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.telemetry.descriptors import DescriptorStore, left_before


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_a_folder_is_kept_and_forgotten(manager: socket.socket, tmp_path: Path) -> None:
    store = DescriptorStore.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    fd = os.open(tmp_path, os.O_RDONLY)
    store.keep("upload-0123456789ab", fd)
    text, [copy], _, _ = socket.recv_fds(manager, 1000, 4)
    assert text == b"FDSTORE=1\nFDNAME=upload-0123456789ab\nFDPOLL=0"
    assert os.path.samestat(os.fstat(copy), os.fstat(fd))
    os.close(copy)
    store.forget("upload-0123456789ab")
    text, fds, _, _ = socket.recv_fds(manager, 1000, 4)
    assert (text, fds) == (b"FDSTOREREMOVE=1\nFDNAME=upload-0123456789ab", [])
    os.close(fd)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_without_a_service_manager_nothing_happens(environ: dict[str, str], tmp_path: Path) -> None:
    store = DescriptorStore.from_environment(environ)
    fd = os.open(tmp_path, os.O_RDONLY)
    store.keep("upload-1", fd)
    store.forget("upload-1")
    os.close(fd)


@pytest.mark.parametrize("name", ["", "a\nREADY=1", "a:b", "A", "x" * 65])
def test_a_name_cannot_say_anything_else(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        DescriptorStore("/nowhere").keep(name, 0)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "upload-1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "upload-1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_what_is_another_process_s_is_not_taken(environ: dict[str, str]) -> None:
    assert left_before(environ) == {} and not environ.keys() & {"LISTEN_FDS", "LISTEN_PID"}


PROGRAM = """
import os
from dicomwatchd.telemetry.descriptors import left_before
os.environ["LISTEN_PID"] = str(os.getpid())
found = left_before()
assert "LISTEN_FDS" not in os.environ and "LISTEN_FDNAMES" not in os.environ
for name, fd in sorted(found.items()):
    print(name, os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd))
print(sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if 3 <= int(n) < 7 and
      os.path.exists(f"/proc/self/fd/{n}")))
"""


def test_what_was_left_is_taken_by_name(tmp_path: Path) -> None:
    """Names that are nobody's, or are given twice, are closed."""
    folders = [tmp_path / name for name in ("one", "two", "three", "four")]
    for folder in folders:
        folder.mkdir()

    def placed() -> None:
        opened = [os.open(folder, os.O_RDONLY) for folder in folders]
        high = [os.dup2(fd, 50 + number) for number, fd in enumerate(opened)]
        for number, fd in enumerate(high):
            os.dup2(fd, 3 + number)
            os.close(fd)

    environ = {**os.environ, "LISTEN_FDS": "4", "LISTEN_FDNAMES": "upload-a:upload-b:upload-a:stored odd"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        preexec_fn=placed,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, still = done.stdout.splitlines()
    assert first == f"upload-a {folders[0]} False" and second == f"upload-b {folders[1]} False"
    assert "three" not in still and "four" not in still
