"""Looks at a folder that is handed in, and at who does it, before anything is begun with it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd import markers
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.intake.folder.mounts import root_of
from dicomwatchd.localfiles import opened_again, path_of
from dicomwatchd.queue.rows import Root
from dicomwatchd.rights import ENTER, READ, Asker

#: How many uploads are under way at most, in all and of one user but root. Each has a thread and a descriptor.
MOST_UPLOADS = 32
MOST_OF_ONE = 8


@dataclass(frozen=True, slots=True)
class Folder:
    """What was handed in: ``path`` is what the kernel calls it, and for showing only."""

    path: bytes
    root: Root


def checked(fd: int, asker: Asker, forbidden: Iterable[Path], *, delete: bool) -> Folder:
    """The folder that ``fd``, which came from somebody else, is open on. Raises Permanent where it is not to be taken
    in."""
    if not _is_listable(fd):
        raise Permanent(
            "the upload is not a folder that can be listed",
            code="no-folder",
            hint="use dicomwatchctl upload FOLDER; is it a folder, and may you list it?",
        )
    try:
        path = path_of(fd)
        if not asker.may(fd, READ | ENTER):
            raise Permanent("you may not list and enter this folder", code="not-yours")
        again = opened_again(fd)
    except OSError as error:
        raise unreadable() from error
    try:
        if os.fstat(again).st_nlink == 0 or not path.startswith(b"/"):
            raise Permanent("the folder was removed", code="no-folder")
        _require_apart(path, forbidden)
        root, is_own_tree = root_of(again), markers.sign_in(again) is not None or markers.is_below(again)
        may_delete = os.access(b".", os.W_OK | os.X_OK, dir_fd=again)
        is_read_only = bool(os.fstatvfs(again).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise unreadable() from error
    finally:
        os.close(again)
    if is_own_tree:
        raise Permanent(
            "the folder belongs to an archive or to dicomwatchd, or is inside such a folder",
            code="own-tree",
            hint="its contents are already archived, and these are the only copies",
        )
    if delete and is_read_only:
        raise Permanent(
            "the medium is read-only, so nothing on it can be deleted",
            code="cannot-delete",
            hint="omit --delete: the files are archived, and the medium stays as it is",
        )
    if delete and not may_delete:
        raise Permanent(
            "the daemon may not delete in this folder",
            code="cannot-delete",
            hint=f"omit --delete or, if the folder is yours, run: setfacl -R -m u:{_own_user()}:rwX FOLDER",
        )
    return Folder(path, root)


def _is_listable(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode) and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH


def _require_apart(path: bytes, forbidden: Iterable[Path]) -> None:
    real = Path(os.fsdecode(path))
    for other in forbidden:
        if real == other or real.is_relative_to(other) or other.is_relative_to(real):
            raise Permanent("the folder overlaps an inbox, the archive or the daemon's state", code="overlap")


def unreadable() -> DicomwatchdError:
    return Permanent(
        "the daemon may not read the folder",
        code="unreadable",
        hint=f"give its user access; if the folder is yours, run: setfacl -R -m u:{_own_user()}:rX FOLDER",
    )


def _own_user() -> str:
    import pwd  # not for those who start a command only

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
