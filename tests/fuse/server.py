"""The process behind a mounted folder: passes everything on to another folder, as its orders say.

    python -m tests.fuse.server BACKING MOUNTPOINT ORDERS

ORDERS is a JSON file, read again when it changes: {"broken": [names whose stat fails with EIO], "broken_folders":
[names of folders whose listing fails after its first entry], "stuck": [operations that do not come back while they
are named], "bytes_per_second": how fast files are read,
"names": {a name here: what it is called in BACKING}}. The whole process is stopped for a share whose server is away.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mfusepy

_STAT = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
_VFS = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_files", "f_ffree", "f_favail", "f_namemax")


class Passing(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, backing: str, orders: Path) -> None:
        self._backing = backing
        self._orders_file = orders
        self._orders: dict[str, Any] = {}
        self._orders_at = -1

    # -- orders -------------------------------------------------------------------------------------------------------

    def _order(self, name: str) -> Any:
        changed = self._orders_file.stat().st_mtime_ns
        if changed != self._orders_at:
            self._orders, self._orders_at = json.loads(self._orders_file.read_text()), changed
        return self._orders.get(name)

    def _real(self, path: str, operation: str) -> str:
        while operation in (self._order("stuck") or ()):
            time.sleep(0.02)
        if path.rpartition("/")[2] in (self._order("broken") or ()):
            raise mfusepy.FuseOSError(errno.EIO)
        folder, _, name = path.rpartition("/")
        return f"{self._backing}{folder}/{(self._order('names') or {}).get(name, name)}"

    # -- operations ---------------------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._real(path, "getattr"))
        times = {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        return {name: getattr(found, name) for name in _STAT} | times

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        names = os.listdir(self._real(path, "readdir"))
        if path.rpartition("/")[2] in (self._order("broken_folders") or ()):
            raise mfusepy.FuseOSError(errno.EIO)
        shown = {real: name for name, real in (self._order("names") or {}).items()}
        return iter([".", "..", *(shown.get(name, name) for name in names)])

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path, "statfs"))
        return {name: getattr(found, name) for name in _VFS}

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real(path, "open"), flags & ~os.O_NOFOLLOW)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._real(path, "create"), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._real(path, "read")
        if speed := self._order("bytes_per_second"):
            time.sleep(size / speed)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._real(path, "write")
        return os.pwrite(fh, data, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._real(path, "truncate"), length)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._real(path, "mkdir"), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._real(path, "rmdir"))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._real(path, "unlink"))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._real(old, "rename"), self._real(new, "rename"))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._real(source, "link"), self._real(target, "link"), follow_symlinks=False)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._real(path, "chmod"), mode)
        return 0

    def utimens(self, path: str, times: tuple[int, int]) -> int:
        os.utime(self._real(path, "utimens"), ns=times)
        return 0


class Fuse(mfusepy.FUSE):  # type: ignore[misc]
    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """As many of them do, this file system knows no rename that refuses to replace. The library would drop the flag
        and replace."""
        if flags:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return int(super().rename_fuse_3(old, new, flags))


def main(backing: str, mountpoint: str, orders: str, name: str) -> None:
    Fuse(
        Passing(backing, Path(orders)),
        mountpoint,
        foreground=True,
        nothreads=False,
        fsname=name,
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        allow_other=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
