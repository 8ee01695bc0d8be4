"""Unpacks the image of a disc into a private folder, which is then handed in like any other folder.

It is done by whoever calls the command, with his own rights: the daemon gets no new power, and an image that is made
to do harm meets a process that may do little. The folder around the files is open to nobody else; the one that is
handed in may be read by everybody who has it open, which is the daemon. It is on a disk (/var/tmp, or $TMPDIR), and
goes with the command; what one that was killed has left goes with the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.cli.disc.iso9660 import MOUNT_IT, Contents, DiscImage, Entry, NoDiscImage
from dicomwatchd.errors import Permanent

#: What stays free on the disk that an image is unpacked to, and what each file takes beside its content.
SPARE_BYTES = 256 * 1024**2
_ENTRY_BYTES = 8192
_STEP_BYTES = 1024 * 1024
_PREFIX, _LOCK, _DISC = "disc-", "lock", "disc"

#: (bytes done, bytes in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """``folder`` is to be handed in. ``notes`` are for people: what of the image is not in it. ``is_cut_off``: the
    image ends before a file does."""

    folder: Path
    is_cut_off: bool
    notes: tuple[str, ...]
    is_unchanged: Callable[[], bool]


@contextmanager
def unpacked(image: Path, in_use: Callable[[Path], bool], progress: Progress = lambda *_: None) -> Iterator[Unpacked]:
    """The files of the image, until the context is left. ``in_use`` says whether an earlier command's folder is still
    being archived. Raises NoDiscImage, Permanent, OSError."""
    base = _own_base()
    _remove_leftovers(base, in_use)
    with _opened(image) as fd, ExitStack() as stack:
        with _in_words("read"):
            disc, before = DiscImage(fd), os.fstat(fd)
            contents = disc.contents()
        _require_readable(contents)
        _require_space(base, contents)
        with _in_words("unpacked"):
            folder = stack.enter_context(_workspace(base))
            _unpack(disc, contents, folder, progress)

        def is_unchanged() -> bool:
            now = os.fstat(fd)
            return (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)

        yield Unpacked(folder, contents.is_cut_off, tuple(_notes(contents)), is_unchanged)


def base_folder() -> Path:
    """Below which images are unpacked; /tmp may be in memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp") / f"dicomwatchctl-{os.getuid()}"  # noqa: S108  see _own_base


def _own_base() -> Path:
    """The caller's own, and nobody else's: names in /var/tmp may be anybody's."""
    base = base_folder()
    with _in_words("unpacked"):
        with suppress(FileExistsError):
            base.mkdir(mode=0o700)
        found = base.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise Permanent("the folder to unpack disc images in is not yours", code="not-yours", path=str(base))
        base.chmod(0o700)
    return base


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Errors of the kernel's as ones that say what could not be done."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Permanent(
            f"the disc image cannot be {what} ({why})",
            code="unreadable",
            hint="it is unpacked below /var/tmp; set TMPDIR to a folder on a large disk"
            if what == "unpacked"
            else None,
        ) from error


@contextmanager
def _opened(image: Path) -> Iterator[int]:
    with _in_words("opened"):
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NoDiscImage("this is neither a folder nor a file", hint="mount it, and upload the mounted folder")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _workspace(base: Path) -> Iterator[Path]:
    """A folder to unpack in, which is locked while this process lives and is gone in the end."""
    place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    lock_fd = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = place / _DISC
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
    finally:
        _remove(place)
        os.close(lock_fd)


def _remove_leftovers(base: Path, in_use: Callable[[Path], bool]) -> None:
    for place in base.glob(f"{_PREFIX}*"):
        try:
            fd = os.open(place / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another command is just making it, or removing it
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not in_use(place):
                _remove(place)
        except OSError:
            continue
        finally:
            os.close(fd)


def _remove(place: Path) -> None:
    """What was unpacked, copies of what the image has; the image itself is never touched."""
    shutil.rmtree(place, ignore_errors=True)


def _require_readable(contents: Contents) -> None:
    if contents.has_udf and not any(entry.path[-1].upper() == b"DICOMDIR" for entry in contents.entries):
        raise NoDiscImage(
            "the disc image has a UDF file system beside ISO 9660, and no DICOMDIR: its files may be in UDF only",
            hint=MOUNT_IT,
        )


def _require_space(base: Path, contents: Contents) -> None:
    needed = contents.unique_bytes + _ENTRY_BYTES * len(contents.entries) + SPARE_BYTES
    found = os.statvfs(base)
    if found.f_bavail * found.f_frsize < needed:
        raise Permanent(
            f"{needed // 1_000_000 + 1:,} MB of free space are needed to unpack the disc image",
            code="no-space",
            hint="free some space in /var/tmp, set TMPDIR to a folder on a larger disk, or mount the image",
        )


def _unpack(disc: DiscImage, contents: Contents, folder: Path, progress: Progress) -> None:
    done, in_all = 0, contents.unique_bytes
    written: dict[object, Path] = {}
    for entry in contents.entries:
        path = folder.joinpath(*map(os.fsdecode, entry.path))
        _make_folders(folder, entry)
        if (twin := written.get(entry.extents)) is not None and entry.size_bytes:
            os.link(twin, path)
            continue
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for extent in entry.extents:
                for piece in _pieces(disc, extent.offset, extent.size_bytes):
                    _write(fd, piece)
                    done += len(piece)
                    progress(done, in_all)
            os.fchmod(fd, 0o644)  # for whoever has the folder open: see above
        finally:
            os.close(fd)
        written[entry.extents] = path


def _make_folders(folder: Path, entry: Entry) -> None:
    for name in map(os.fsdecode, entry.path[:-1]):
        folder = folder / name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o755)


def _pieces(disc: DiscImage, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Where the image became shorter meanwhile, the file stays cut off, and whoever reads it sees that."""
    while size_bytes > 0:
        piece = disc.read(offset, min(_STEP_BYTES, size_bytes))
        if not piece:
            return
        yield piece
        offset, size_bytes = offset + len(piece), size_bytes - len(piece)


def _write(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _notes(contents: Contents) -> Iterator[str]:
    if contents.is_cut_off:
        yield "the disc image is cut off: it ends before some of its files do; make it again from the disc"
    if contents.sessions > 1:
        yield f"the disc was written in {contents.sessions} sessions; the files of all of them are uploaded"
    if contents.has_udf:
        yield "the disc image has a UDF file system, too, which was not read"
    if contents.links:
        yield f"links on the disc ({contents.links:,}) were left out"
