"""Discs and sticks: the next one in the drive has the same device number, the same root, often the same names."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomwatchd.intake.folder import mounts
from dicomwatchd.intake.folder.mounts import file_system_id, root_of
from dicomwatchd.queue.rows import Root

DRIVE = 11


@pytest.fixture(params=["iso9660", "vfat", "exfat", "ntfs3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A medium of this kind in a drive, as seen by a kernel that does not tell its id; udev's record is empty."""
    monkeypatch.setattr(mounts, "_mount_of", lambda _: (request.param, "/dev/sr0"))
    monkeypatch.setattr(mounts, "_uuid", lambda _: "")
    monkeypatch.setattr(mounts, "_UDEV", tmp_path)
    monkeypatch.setattr(os, "major", lambda _: DRIVE)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_fsid=os.fstat(fd).st_dev))
    return str(request.param)


def put_in(tmp_path: Path, text: str) -> Root:
    device = tmp_path.stat().st_dev
    (tmp_path / f"b{DRIVE}:{os.minor(device)}").write_text(text)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        return root_of(fd)
    finally:
        os.close(fd)


def test_the_next_medium_in_the_drive_is_another_one(kind: str, tmp_path: Path) -> None:
    first = put_in(tmp_path, "S:cdrom\nE:ID_FS_UUID=2026-01-02-03-04-05-00\nE:ID_FS_TYPE=x\n")
    second = put_in(tmp_path, "E:ID_FS_UUID=2026-01-02-03-04-06-00\n")
    assert first[:2] == second[:2] and not first.is_same(second)
    assert first.is_same(put_in(tmp_path, "E:ID_FS_UUID=2026-01-02-03-04-05-00\n"))


def test_a_device_number_is_nobodys_id(kind: str, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert file_system_id(fd) is None
    finally:
        os.close(fd)
    assert put_in(tmp_path, "S:cdrom\n").file_system == ""
