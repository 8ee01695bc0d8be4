"""How large a file may be, and whether so many bytes are there at all.

A hole costs whoever makes it nothing: a slice that claims a terabyte on a megabyte of disk would be hashed and sent in
full.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from dicomwatchd.config.inboxes import MAX_FILE_BYTES
from dicomwatchd.errors import Unarchivable

TOO_LARGE = "too-large"
SPARSE = "sparse"
#: Holes in smaller files cost little.
HOLES_FROM_BYTES = 64 * 1024**2
#: So many bytes in a hundred are to be on the disk: real images have holes, too, where a writer left zeros out.
STORED_PERCENT = 10
#: A file with so little on the disk, in so many pieces, is not looked through any further.
PIECES_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """``takes_sparse``: files that are nearly all hole are taken like others."""

    max_file_bytes: int = MAX_FILE_BYTES
    takes_sparse: bool = False

    def require(self, fd: int) -> None:
        """Of an open regular file, whose position goes to its beginning. Raises Unarchivable (codes "too-large",
        "sparse"), OSError."""
        seen = os.fstat(fd)
        if seen.st_size > self.max_file_bytes:
            raise Unarchivable(
                f"larger than max_file_bytes in the configuration, {self.max_file_bytes}; raise that to archive it",
                code=TOO_LARGE,
            )
        if not self.takes_sparse and _is_nearly_all_hole(fd, seen):
            raise Unarchivable(
                "almost all of it is a hole that uses no disk space; if the file is complete, copy it without holes"
                " (cp --sparse=never), or set sparse_files: take in the configuration",
                code=SPARSE,
            )


def _is_nearly_all_hole(fd: int, seen: os.stat_result) -> bool:
    """Both have to say so: that few blocks are taken, and that the file system names the holes. File systems that
    compress take few blocks for whole files, and name no holes in them; what was only reserved beforehand has blocks,
    and counts as a hole. Where holes are not told (some shares) there are none."""
    if seen.st_size < HOLES_FROM_BYTES or seen.st_blocks * 512 * 100 >= seen.st_size * STORED_PERCENT:
        return False
    stored = at = 0
    try:
        for _ in range(PIECES_LIMIT):
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
            stored, at = stored + end - at, end
            if stored * 100 >= seen.st_size * STORED_PERCENT:
                return False
        return True
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        if error.errno != errno.ENXIO:  # no data behind this place
            raise
        return True
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


SIZES = Sizes()
