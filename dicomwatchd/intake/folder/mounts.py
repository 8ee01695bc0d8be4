"""Knowing a file system again under another device number, as after a remount or a restart of the machine.

A device number (st_dev) is given out anew at each mount of a share, and at the next start perhaps to another disk. What
stays is the file system's own id. A file whose inode, size, mtime and ctime are what they were, on what is provably the
same file system, is the same file. Nothing is deleted on that: a deletion compares the file's bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dicomwatchd.localfiles import birth, directory
from dicomwatchd.model import FileState
from dicomwatchd.queue.bindings.remounts import Remounts
from dicomwatchd.queue.rows import Root, TrackedFile

#: ioctl(2) of Linux 6.9 and later: struct fsuuid2, a length and up to 16 bytes.
_FS_IOC_GETFSUUID = 0x80111500
#: Their f_fsid of statvfs(3) is made of the device number; that of others may be the device number itself.
_FSID_IS_DEVICE = ("xfs", "vfat", "msdos", "iso9660", "udf")
#: Where udev(7) keeps what it has read of each disk, by the device number: the id of a disc or stick, for one.
_UDEV = Path("/run/udev/data")
_IS_UUID = re.compile(r"(?!0*\Z)[0-9a-f]{32}")


class Mounts:
    """The file systems of one inbox, as one thread sees them."""

    def __init__(self, source_id: int, remounts: Remounts) -> None:
        self._source_id = source_id
        self._remounts = remounts
        self._seen: dict[int, str | None] = {}

    def begin_scan(self) -> None:
        """From here on what is mounted may be another one."""
        self._seen.clear()

    def see(self, fd: int) -> int:
        """Put on record which file system this directory is on; returns its device. Raises OSError, Transient."""
        device = os.fstat(fd).st_dev
        if device not in self._seen:
            self._seen[device] = file_system = file_system_id(fd)
            if file_system is not None:
                self._remounts.record(self._source_id, device, file_system)
        return device

    def known_again(
        self, root_fd: int, parent: bytes, known: Mapping[bytes, TrackedFile], files: Mapping[bytes, str]
    ) -> bool:
        """Whether files that are known in this directory stand there under another device number, on the file system
        that they were on: then the queue knows them by that one now. Raises Transient."""
        olds = {
            _device(old.identity)
            for name, old in known.items()
            if (found := files.get(name)) is not None
            and old.identity != found
            and _without_device(old.identity) == _without_device(found)
        }
        if not olds:
            return False
        try:
            with directory(root_fd, parent) as fd:
                device = self.see(fd)
        except OSError:
            return False
        file_system = self._seen[device]
        same = [old for old in olds if file_system is not None and self._on(old) == file_system]
        for old in same:
            self._remounts.rebase(self._source_id, parent, old, device)
        return bool(same)

    def elsewhere(self, root_fd: int, parent: bytes, known: Mapping[bytes, TrackedFile]) -> set[bytes]:
        """Names of kept files that are not there because their file system is not: what stands in its place says
        nothing of them."""
        kept = {name: _device(old.identity) for name, old in known.items() if old.state is FileState.KEPT}
        if not kept:
            return set()
        try:
            device = self._device_at(root_fd, parent)
        except OSError:
            return set(kept)
        here = self._seen[device]
        away = {old: old != device and (was := self._on(old)) is not None and was != here for old in set(kept.values())}
        return {name for name, old in kept.items() if away[old]}

    def _on(self, device: int) -> str | None:
        return self._remounts.file_system(self._source_id, device)

    def _device_at(self, root_fd: int, parent: bytes) -> int:
        """Of a directory, or of the nearest one above it that is still there. Raises OSError."""
        while True:
            try:
                with directory(root_fd, parent) as fd:
                    return self.see(fd)
            except OSError as error:
                if not parent or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                parent = parent.rpartition(b"/")[0]


def root_of(fd: int) -> Root:
    """Which folder this is, for as long as there is one. Raises OSError."""
    found = os.fstat(fd)
    return Root(found.st_dev, found.st_ino, _medium_of(fd, found.st_dev), birth(fd))


def is_mounted_here(fd: int) -> bool:
    """Whether what is open stands on a mount of this process's own namespace: otherwise its path leads elsewhere
    here."""
    return _mount_of(fd) != ("", "")


def _medium_of(fd: int, device: int) -> str:
    """All that tells this file system from others, each with its kind (see `Root.is_same`); "" where nothing does. Not
    one of it alone: what a kernel, or udev, tells of a file system is more after the next upgrade, and the folder is
    the same. UUIDs come first, which are the same from whatever namespace the descriptor comes."""
    told = _told_of(fd, device)
    known = {"uuid": told.uuid.strip("0") and told.uuid}
    if medium := _uuid_by_udev(device):
        plain = medium.partition("=")[2].replace("-", "").lower()
        kind = "uuid" if _IS_UUID.fullmatch(plain) else "udev"
        known[kind] = known.get(kind) or plain
    if told.fsid and told.kind:
        known["fsid"] = str(told.fsid)
    if told.has_source and os.major(device) == 0:
        known["from"] = f"{told.kind} {told.source}"
    ids = {how: _digest(how, what) for how, what in known.items() if what}
    if whole := _whole_id(told, device):
        ids["whole"] = whole
    return "+".join(f"{how}={what}" for how, what in ids.items())


def file_system_id(fd: int) -> str | None:
    """What tells this file system from every other one, under whatever number it is mounted; None where nothing does.

    Its UUID or f_fsid; of a share, which has neither, where it comes from. Raises OSError.
    """
    device = os.fstat(fd).st_dev
    return _whole_id(_told_of(fd, device), device)


class _Told(NamedTuple):
    """What the kernel tells of the file system that a descriptor is on. ``fsid`` is 0 where it says no more than the
    device number: the next stick that is put in has the same."""

    kind: str
    source: str
    uuid: str
    fsid: int

    @property
    def has_source(self) -> bool:
        """Whether it comes from something that has a name of its own."""
        return self.source not in ("", "none", self.kind)


def _told_of(fd: int, device: int) -> _Told:
    kind, source = _mount_of(fd)
    fsid = os.fstatvfs(fd).f_fsid
    return _Told(kind, source, _uuid(fd), 0 if kind in _FSID_IS_DEVICE or fsid == device else fsid)


def _whole_id(told: _Told, device: int) -> str | None:
    if told.uuid or told.fsid:
        return _digest(told.kind, told.uuid, str(told.fsid))
    if os.major(device) != 0:
        medium = _uuid_by_udev(device)
        return None if medium is None else _digest(told.kind, medium, "udev")
    return _digest(told.kind, "from", told.source) if told.has_source else None


def _digest(*parts: str) -> str:
    """Where a share comes from need not be told to whoever reads the state."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _uuid(fd: int) -> str:
    buffer = bytearray(17)
    with suppress(OSError):
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, buffer)
        return bytes(buffer[1 : 1 + buffer[0]]).hex()
    return ""


def _uuid_by_udev(device: int) -> str | None:
    """What udev has read of the medium with this number; None where there is no udev, or no id."""
    with suppress(OSError, StopIteration):
        lines = (_UDEV / f"b{os.major(device)}:{os.minor(device)}").read_text("utf-8", "surrogateescape").splitlines()
        return next(line for line in lines if line.startswith("E:ID_FS_UUID="))
    return None


def _mount_of(fd: int) -> tuple[str, str]:
    """(type, source) of the mount that a descriptor is on: proc_pid_mountinfo(5), proc_pid_fdinfo(5)."""
    with suppress(OSError, ValueError, StopIteration):
        info = Path(f"/proc/self/fdinfo/{fd}").read_text("utf-8")
        mount_id = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
            fields = line.split(" ")
            if fields[0] == mount_id:
                kind, source = fields[fields.index("-") + 1 :][:2]
                return kind, source
    return "", ""


def _device(identity: str) -> int:
    return int(identity.partition(":")[0])


def _without_device(identity: str) -> str:
    return identity.partition(":")[2]
