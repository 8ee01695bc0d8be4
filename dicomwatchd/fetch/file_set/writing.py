"""Lists files in a DICOMDIR, and puts it beside them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicomwatchd import localfiles
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.errors import Permanent
from dicomwatchd.fetch.file_set.directory import Directory
from dicomwatchd.fetch.file_set.names import DICOMDIR
from dicomwatchd.fetch.file_set.values import read
from dicomwatchd.fetch.folder import PRIVATE, TargetFolder, translated
from dicomwatchd.fetch.plan import Placed, split
from dicomwatchd.model import Digest, Uid


@dataclass(frozen=True, slots=True)
class Listing:
    """What has come of a DICOMDIR: how many files it lists, how many values it needs that files do not have and that
    were invented, how many files have no file meta information (PS3.10), which viewers may refuse. ``reason`` says why
    there is none, or what is not in it; "" if all is well."""

    listed: int = 0
    invented_values: int = 0
    without_file_meta: int = 0
    reason: str = ""


class Lister:
    """Takes one file after the other."""

    def __init__(self) -> None:
        self._directory = Directory()
        self._unreadable = 0

    def take(self, study: Uid, item: ManifestInstance, path: str, file: BinaryIO) -> None:
        """A file that cannot be read is left out, and counted."""
        try:
            said = read(file, item.size_bytes, item.sop_class_uid)
        except Permanent:
            self._unreadable += 1
        else:
            self._directory.add(study, item, path, said)

    def to_bytes(self) -> bytes:
        return self._directory.to_bytes()

    @property
    def listing(self) -> Listing:
        found, lacking = self._directory, self._unreadable
        reason = f"files that are not in it, because they cannot be read: {lacking:,}" if lacking else ""
        return Listing(found.files, found.invented, found.not_part_10, reason)


def list_folder(
    study: Uid,
    placed: Iterable[Placed],
    directory: Path,
    *,
    mode: int = PRIVATE,
    token: Callable[[], str] = lambda: secrets.token_hex(8),
) -> Listing:
    """Write the DICOMDIR of files that a fetch has brought to ``directory``. One that is there already is kept if it is
    the same. Raises Occupied if it is not, Permanent."""
    lister = Lister()
    with TargetFolder.opened(directory, token, mode) as target:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for item, path in placed:
                folder, name = split(path)
                with (
                    localfiles.directory(root, os.fsencode(folder)) as folder_fd,
                    localfiles.regular_file(folder_fd, os.fsencode(name)) as fd,
                    open(fd, "rb", closefd=False) as file,
                ):
                    lister.take(study, item, path, file)
        except OSError as error:
            raise translated(error, "a file that was fetched cannot be read") from error
        finally:
            os.close(root)
        with target.below("") as top:
            data = lister.to_bytes()
            if not top.holds(DICOMDIR, Digest(hashlib.sha256(data).hexdigest(), len(data)), lambda: None):
                with top.temporary() as file_of_directory:
                    file_of_directory.write(data)
                    file_of_directory.publish(DICOMDIR)
            top.flush()
    return lister.listing
