"""Erasing in the archive's folder: whatever is below the study's folder goes, temporary files of interrupted writes
among it. The bytes are not overwritten: where that matters the file system has to be encrypted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from dicomwatchd import localfiles
from dicomwatchd.archive.erasing.port import Lock, Refusal, StoredVersion, UnfinishedUpload
from dicomwatchd.archive.stores.directory import files
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.errors import Permanent

_ENDPOINT = "the archive's folder"


class DirectoryEraser:
    """Implements ObjectEraser, by descriptors from the archive's root on: no link is followed, and no other file
    system that is mounted below is touched."""

    def __init__(self, settings: DirectorySettings) -> None:
        self._root = settings.path
        self._store = DirectoryStore(settings)

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        for folder, name, size_bytes in self._files(prefix):
            yield StoredVersion(os.fsdecode(folder + b"/" + name), None, size_bytes)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:  # noqa: ARG002  temporary files are among `versions`
        return iter(())

    def may_be_locked(self) -> bool:
        return False

    def lock_of(self, version: StoredVersion) -> Lock | None:  # noqa: ARG002
        return None

    def erase(self, versions: Sequence[StoredVersion]) -> list[Refusal]:
        refused: list[Refusal] = []
        by_folder: dict[bytes, list[bytes]] = {}
        for one in versions:
            folder, _, name = os.fsencode(one.key).rpartition(b"/")
            by_folder.setdefault(folder, []).append(name)
        for folder, names in by_folder.items():
            with self._folder(folder) as folder_fd:
                for name in names if folder_fd is not None else ():
                    try:
                        os.unlink(name, dir_fd=folder_fd)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        code = errno.errorcode.get(error.errno or 0, "unknown")
                        refused.append(Refusal(os.fsdecode(folder + b"/" + name), None, code))
                if folder_fd is not None:
                    files.sync_folder(folder_fd)
        return refused

    def abort(self, upload: UnfinishedUpload) -> None:
        """There are none."""

    def adopt(self, key: str) -> None:
        """Root has made it, perhaps, in folders that the daemon's user could not enter: then nothing could be archived
        any more."""
        if os.geteuid() != 0:
            return
        path = os.fsencode(key).split(b"/")
        with self._folder(b"") as root_fd:
            if root_fd is None:
                return
            owner = os.fstat(root_fd)
            for depth, name in enumerate(path):
                with self._folder(b"/".join(path[:depth])) as folder_fd, suppress(FileNotFoundError):
                    if folder_fd is not None:
                        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=folder_fd, follow_symlinks=False)

    def finish(self, prefix: str) -> None:
        """Folders that are empty by now. Where somebody has put something into one meanwhile, it stays."""
        folder = os.fsencode(prefix.rstrip("/"))
        parent, _, name = folder.rpartition(b"/")
        with self._folder(folder) as top_fd:
            if top_fd is not None:
                for _, folders, _, fd in _walk(top_fd, topdown=False):
                    for one in folders:
                        _remove_empty(one, fd)
        with self._folder(parent) as parent_fd:
            if parent_fd is not None:
                _remove_empty(name, parent_fd)
                files.sync_folder(parent_fd)

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def _folder(self, relative: bytes) -> Iterator[int | None]:
        """A descriptor of a folder of the archive, None where there is none. Raises NotInitialised where this is no
        archive, or its share is not mounted; OutOfReach, Permanent."""
        self._store.check()
        with ExitStack() as stack:
            stack.enter_context(files.translated("open the folder", _ENDPOINT))
            root_fd = localfiles.open_root(os.fspath(self._root))
            stack.callback(os.close, root_fd)
            try:
                fd = stack.enter_context(localfiles.directory(root_fd, relative))
            except FileNotFoundError:
                fd = None
            yield fd

    def _files(self, prefix: str) -> Iterator[tuple[bytes, bytes, int]]:
        """(folder below the root, name, bytes) of all that is no folder. What cannot be looked into is an error, and
        does not pass for empty."""
        start = os.fsencode(prefix.rstrip("/"))
        with self._folder(start) as top_fd:
            if top_fd is None:
                return
            device = os.fstat(top_fd).st_dev
            for below, folders, names, fd in _walk(top_fd):
                if os.fstat(fd).st_dev != device:
                    raise Permanent(
                        "another file system is mounted within the study's folder",
                        code="foreign-file",
                        hint="unmount it, then run this again",
                    )
                folder = start if below == b"." else start + b"/" + below.removeprefix(b"./")
                for name in (*names, *folders):  # links to folders are among these
                    with suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        if not stat.S_ISDIR(found.st_mode):
                            yield folder, name, found.st_size


def _walk(top_fd: int, *, topdown: bool = True) -> Iterator[tuple[bytes, list[bytes], list[bytes], int]]:
    """os.fwalk, which passes over what it cannot read, unless it is told to raise."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return os.fwalk(b".", topdown=topdown, onerror=failed, follow_symlinks=False, dir_fd=top_fd)


def _remove_empty(name: bytes, folder_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=folder_fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
