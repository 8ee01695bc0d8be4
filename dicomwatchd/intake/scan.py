"""The truth about what is in a folder: one look at one directory, and a walk over all of them."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from dicomwatchd import markers
from dicomwatchd.localfiles import RESTORED, STAGING_NAME, FolderGuard, directory, is_our_own

#: Deeper trees than this are not walked; what lies below is reported, never touched.
MAX_DEPTH = 256
#: Entries of a directory between two signs of life: on a slow share each of them may take a tenth of a second.
SIGN_EVERY = 256


def _unwatched() -> None: ...


@dataclass(slots=True)
class Listing:
    """What stands directly in one directory, name by name with its identity, which is the text that the queue keeps:
    to compare it costs less than to take it apart. ``special`` are symbolic links, FIFOs, sockets and devices,
    ``unreadable`` what stands there and does not say what it is. ``error`` is what the listing broke off with: then
    there may be more, and what is not in it may be there all the same. ``marks`` is what says that the directory is an
    archive's or a state's own (see markers): of those nothing else is listed. ``private`` are names of our own under
    which files may be staged, ``foreign`` directories that are called so and are somebody else's."""

    files: dict[bytes, str] = field(default_factory=dict)
    directories: list[bytes] = field(default_factory=list)
    special: dict[bytes, str] = field(default_factory=dict)
    unreadable: list[bytes] = field(default_factory=list)
    error: OSError | None = None
    marks: dict[bytes, str] = field(default_factory=dict)
    private: list[bytes] = field(default_factory=list)
    foreign: dict[bytes, str] = field(default_factory=dict)


class Globs:
    """The include and exclude patterns of an inbox (fnmatch, case-sensitive). A file that had to be put back beside its
    own name counts under that."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        #: Every name is admitted, wherever it stands.
        self.all = "*" in include and not exclude
        self._include = _one_of(include)
        self._exclude = _one_of(exclude) if exclude else None

    def admits(self, parent: bytes, name: bytes) -> bool:
        name = re.sub(RESTORED, b"", name)
        text = os.fsdecode(name)
        if not self._include.match(text):
            return False
        if self._exclude is None:
            return True
        path = os.fsdecode(b"/".join((parent, name))) if parent else text
        return not (self._exclude.match(text) or self._exclude.match(path))


def scan_directory(
    directory_fd: int, parent: bytes, globs: Globs, heartbeat: Callable[[], None] = _unwatched
) -> Listing:
    """List one open directory. One entry that cannot be looked at costs that entry. Raises OSError where there is no
    listing at all. ``heartbeat`` shows that a long look goes on."""
    listing = Listing()
    files, is_regular, encoded, admits_all = listing.files, stat.S_ISREG, os.fsencode, globs.all
    signs: list[bytes] = []
    with os.scandir(directory_fd) as entries:
        for entry in _as_far_as_it_goes(entries, listing, heartbeat):
            name = encoded(entry.name)
            if name in markers.SIGNS:
                signs.append(name)
            if name.startswith(markers.OWN):
                if name.startswith(STAGING_NAME):
                    _see_private(directory_fd, entry, name, listing)
                continue  # our own: see pipeline.deletion.staging, and markers
            try:
                if entry.is_dir(follow_symlinks=False):
                    listing.directories.append(name)
                    continue
                if not (admits_all or globs.admits(parent, name)):
                    continue
                found = entry.stat(follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ESTALE):
                    continue  # gone between the listing and the look
                listing.unreadable.append(name)
                continue
            kind = files if is_regular(found.st_mode) else listing.special
            # rows.identity_text, spelt out for what is done to every file of every look.
            kind[name] = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
    if listing.error is not None:
        signs = list(markers.SIGNS)  # one may stand where the listing did not come
    if signs and (mark := markers.sign_in(directory_fd, signs)) is not None:
        own = os.fstat(directory_fd)
        return Listing(marks={mark: f"{own.st_dev}:{own.st_ino}:0:0:0"})
    return listing


def _see_private(directory_fd: int, entry: os.DirEntry[str], name: bytes, listing: Listing) -> None:
    try:
        if not entry.is_dir(follow_symlinks=False) or is_our_own(directory_fd, entry.stat(follow_symlinks=False)):
            listing.private.append(name)
        else:
            # What it is, and not when somebody last put something into it: it is told once.
            found = entry.stat(follow_symlinks=False)
            listing.foreign[name] = f"{found.st_dev}:{found.st_ino}:0:0:0"
    except OSError:
        listing.private.append(name)  # whoever would bring back what lies there meets it too


def _as_far_as_it_goes(
    entries: Iterator[os.DirEntry[str]], listing: Listing, heartbeat: Callable[[], None]
) -> Iterator[os.DirEntry[str]]:
    for number in count():
        if number % SIGN_EVERY == 0:
            heartbeat()
        try:
            entry = next(entries)
        except StopIteration:
            return
        except OSError as error:
            listing.error = error
            return
        yield entry


def walk(
    root_fd: int,
    globs: Globs,
    on_error: Callable[[bytes, OSError], None],
    start: bytes = b"",
    heartbeat: Callable[[], None] = _unwatched,
    guard: FolderGuard | None = None,
) -> Iterator[tuple[bytes, Listing]]:
    """Every directory from ``start`` down, parents first, each with its listing. A directory that cannot be read, or
    that ``guard`` does not let pass, is handed to ``on_error`` and passed over; one whose listing breaks off is handed
    to it, and what was listed counts.
    """
    todo = [start]
    while todo:
        parent = todo.pop()
        try:
            with directory(root_fd, parent, guard) as fd:
                listing = scan_directory(fd, parent, globs, heartbeat)
            if listing.directories and parent.count(b"/") >= MAX_DEPTH:
                raise OSError(errno.ENAMETOOLONG, "too deep")
        except OSError as error:
            on_error(parent, error)
            continue
        if listing.error is not None:
            on_error(parent, listing.error)
        yield parent, listing
        todo.extend(join(parent, name) for name in sorted(listing.directories, reverse=True))


def join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _one_of(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))
