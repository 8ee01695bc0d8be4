"""Whether a folder can be an inbox, or hold the archive or the state: asked before anything is made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicomwatchd import markers, resolved_paths
from dicomwatchd.cli.setup.machine import Machine
from dicomwatchd.rights import ENTER, Asker

#: Nothing of ours goes there or below.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/run",
)
#: Of the machine, too, but a folder below may be ours.
_NOT_ITSELF = (
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/tmp",  # noqa: S108  to be refused
    "/var",
    "/var/lib",
    "/var/tmp",  # noqa: S108
    "/var/log",
)
#: Below these the service's sandbox has folders of its own, or nothing (ProtectHome=, PrivateTmp=).
_HIDDEN_FROM_THE_SERVICE = ("/dev/shm", "/home", "/root", "/tmp", "/var/tmp")  # noqa: S108
#: Below /dev, and no device: of whoever tries something out.
_IN_MEMORY = "/dev/shm/"  # noqa: S108
_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"}
)
_COUNTED = 1000


class Refused(Exception):
    """An answer that cannot be; the message says why, and what to do. ``ask_again``: the questions whose answers are
    in doubt, if it is not the one that was asked last."""

    def __init__(self, message: str, *, ask_again: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.ask_again = ask_again


def checked(text: str, machine: Machine, *, service: bool) -> Path:
    """The path, if it may be a folder of ours: absolute, plain, no system directory, and one that the service sees.
    Raises Refused."""
    # POSIX leaves two slashes at the beginning to the system, where they mean one.
    path = Path("/" + os.path.normpath(text).lstrip("/")) if text else Path()
    if not text.startswith("/"):
        raise Refused("must be an absolute path, such as /srv/dicom/ct1")
    if not text.isprintable():
        raise Refused("must not hold control characters")
    found = resolved_paths.resolve([path])[path]
    if not found.answers:
        raise Refused("its file system does not answer: is the share mounted, and its server up?")
    for one in {path, found.real}:
        _require_not_the_systems(one)
        if service and any(one.is_relative_to(hidden) for hidden in _HIDDEN_FROM_THE_SERVICE):
            raise Refused(f"the service cannot see {one}: homes and temporary folders are hidden from it")
    if found.exists and not found.is_folder:
        raise Refused("is there, and is not a folder")
    _require_usable(path, found.is_folder is True, machine, service=service)
    return path


def require_not_the_systems(paths: Iterable[Path]) -> None:
    """Of folders that a configuration names: where they lead now. Raises Refused."""
    for path, found in resolved_paths.resolve(paths).items():
        for one in (path, found.real):
            try:
                _require_not_the_systems(one)
            except Refused as refused:
                raise Refused(f"{path}: {refused.message}") from refused


def _require_not_the_systems(path: Path) -> None:
    where = str(path)
    is_below = any(path.is_relative_to(system) for system in _SYSTEM) and not where.startswith(_IN_MEMORY)
    if where in _NOT_ITSELF or is_below:
        raise Refused(f"{path} belongs to the system: choose a folder of its own, such as /srv/dicom/ct1")


def require_the_daemons(path: Path, machine: Machine) -> None:
    """What is in there was made by the daemon's user; an empty folder can become that user's. Raises Refused."""
    if machine.daemon is not None and owner(path) not in (None, machine.daemon.uid) and entries(path):
        login = machine.daemon.login
        raise Refused(f"belongs to another user than {login}, and is not empty: chown -R {login}: {path}, or another")


def _require_usable(path: Path, exists: bool, machine: Machine, *, service: bool) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise Refused("cannot be made: what is above it is a file") from None
    except OSError as error:
        raise Refused(f"cannot be looked at: {error.strerror}") from error
    above = path if exists else next(one for one in path.parents if one.exists())
    try:
        if os.statvfs(above).f_flag & os.ST_RDONLY:
            raise Refused(f"the file system of {above} is read-only")
    except OSError as error:
        raise Refused(f"{above} cannot be looked at: {error.strerror}") from error
    # A service is set up by root; who plans one (--dry-run) may be anybody.
    if not service and not machine.is_root and not os.access(above, os.R_OK | os.W_OK | os.X_OK):
        what = "it" if exists else f"{above} (it would be made there)"
        raise Refused(f"you may not read, write and enter {what}: give yourself the right, or run this as root")
    if service and machine.daemon is not None:
        for parent in reversed(path.parents):
            if parent.exists() and not _may_enter(machine.daemon, parent):
                raise Refused(
                    f"the user {machine.daemon.login} may not enter {parent}: setfacl -m u:{machine.daemon.login}:x"
                    f" {parent}, or chmod o+x"
                )


def _may_enter(user: Asker, folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True  # nobody could tell, and the start will
    try:
        return user.may(fd, ENTER)
    except OSError:
        return True
    finally:
        os.close(fd)


def require_apart(path: Path, what: str, others: Iterator[tuple[str, Path]]) -> None:
    """No two of them may lie in one another. Raises Refused."""
    for name, other in others:
        places = resolved_paths.resolve([path, other])
        one, another = places[path].real, places[other].real
        if one.is_relative_to(another) or another.is_relative_to(one):
            raise Refused(f"overlaps {name} {other}: {what} must be a folder apart")


def require_no_tree_of_ours(path: Path) -> None:
    """An inbox is neither in an archive nor in a state, whatever the path. Raises Refused."""
    above = next((one for one in (path, *path.parents) if one.is_dir()), None)
    if above is None:
        return
    try:
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if markers.sign_in(fd) is not None or markers.is_below(fd):
            raise Refused("lies in the folder of an archive, or of a daemon's state")
    except OSError:
        return
    finally:
        os.close(fd)


def is_archive(path: Path) -> bool:
    """Whether there is an archive in the folder already."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return markers.sign_in(fd) in (markers.ARCHIVE, b"archive.json")
    except OSError:
        return False
    finally:
        os.close(fd)


def entries(path: Path) -> int:
    """How many things are in the folder itself, at most `_COUNTED`."""
    try:
        with os.scandir(path) as found:
            return sum(1 for _ in zip(found, range(_COUNTED), strict=False))
    except OSError:
        return 0


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of file system that a path is on, or would be, as /proc/self/mountinfo (proc(5)) names it; "" where that
    does not tell."""
    try:
        text = Path("/proc/self/mountinfo").read_text("utf-8", "replace") if mounts is None else mounts
    except OSError:
        return ""
    best, kind = -1, ""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        place = words[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if path.is_relative_to(place) and len(place) >= best:
            best, kind = len(place), right.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether changes that other machines make there send no events here."""
    return kind in _NETWORK


def owner(path: Path) -> int | None:
    """The user whom a folder belongs to; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_uid if stat.S_ISDIR(found.st_mode) else None
