"""The final scan of a folder that was uploaded: is every single thing in it accounted for?

What follows from its answer is a person who deletes the folder, so it believes nothing that was found before: it walks
the folder once more by itself, by open directories and without following a link, and compares every entry with the
outcome that is on record for this very file (device, inode, size, both times). Whatever it cannot list, cannot look at
or does not find on record as archived is named, with what to do.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dicomwatchd import markers
from dicomwatchd.errors import Transient
from dicomwatchd.intake.dicom.other import NOT_OPENED
from dicomwatchd.intake.folder import own_trees
from dicomwatchd.intake.folder.mounts import is_mounted_here, root_of
from dicomwatchd.intake.listed import ListedImages, Tables
from dicomwatchd.intake.scan import MAX_DEPTH, join
from dicomwatchd.localfiles import STAGING_NAME, FolderGuard, directory, open_root, path_of
from dicomwatchd.model import FileIdentity, FileState
from dicomwatchd.queue.rows import DICOMDIR, UNREADABLE, Root, TrackedFile, UploadedFile, identity_text
from dicomwatchd.queue.uploads import LISTED, Named
from dicomwatchd.rights import NotForTheAsker

#: What a purge holds on to while it lasts: see `pipeline.deletion.staging.private`.
_LOCK = b"/" + markers.OWN + b"lock"

AGAIN = "then upload the folder again"
UNLISTED = (
    "the daemon may not list this folder, so nothing below it was read; give its user read access"
    " (setfacl -R -m u:dicomwatchd:rX FOLDER), " + AGAIN
)
NOT_FOR_THE_ASKER = "the user who started the upload may not list it, so nothing below it was read"
BROKEN = "cannot be read ({errno}): a scratched disc or a failing drive? copy it from another drive, " + AGAIN
TOO_DEEP = f"it is more than {MAX_DEPTH} folders deep, so nothing below it was read; upload it separately"
NOT_ASKED = "cannot be read ({errno}); fix that, " + AGAIN
PRIVATE = "it, or a folder above it, has a name reserved for dicomwatchd, so it is not archived; rename it, " + AGAIN
CAME_LATER = "is not archived: it arrived late, is still being written or is open in a program; close it, " + AGAIN
CHANGED = "has changed since it was archived; " + AGAIN.removeprefix("then ")
NOT_ENDED = "is not archived yet; " + AGAIN.removeprefix("then ")
VANISHED = {
    "seen": "disappeared before it was archived; look for it",
    "verified": "is archived, but has since disappeared from the folder; the daemon did not remove it",
    "unknown": "is archived; because of a crash it is unknown whether the local copy was deleted",
}
UNASKED = (
    "was archived, but was last verified long ago, and files of its study are still arriving: once the study is"
    " archived, upload the folder again"
)
OWN_TREE = "is a folder of an archive or of the daemon; nothing in it is read, archived or deleted"
UNOPENED = "may have images in it (an archive file or a disc image) and was not opened: unpack it, " + AGAIN
MOVED = "the folder is no longer at this path: it was moved, ejected or removed"
EXCHANGED = "the folder is not the one that was uploaded"


@dataclass(slots=True)
class Findings:
    """``named`` are the first of ``odd`` things that are not accounted for. ``archived`` files are there as they were
    archived, ``ignored`` are tables of contents and what is not DICOM, ``barred`` are those that the queue itself has
    named (quarantine). ``news``: the intake may take up something of it yet.

    Of the ignored ones, ``not_dicom`` are not DICOM; ``not_opened`` of these may have images in them, and the lists of
    the medium speak for them. ``tables`` is what these lists came to, once they were compared."""

    archived: int = 0
    ignored: int = 0
    barred: int = 0
    odd: int = 0
    named: list[Named] = field(default_factory=list)
    news: bool = False
    not_dicom: int = 0
    not_opened: list[bytes] = field(default_factory=list)
    dicomdirs: list[bytes] = field(default_factory=list)
    tables: Tables = field(default_factory=Tables)
    read_only: bool = False

    def name(self, path: bytes, why: str, *, news: bool = False) -> None:
        self.odd += 1
        self.news = self.news or news
        if len(self.named) < LISTED:
            self.named.append((path, why))

    @property
    def accounted_for(self) -> bool:
        return not self.odd and not self.barred


class FinalScan:
    """Run once, on the thread of the folder's intake; then ``findings`` is there, or ``failed`` says that the state, or
    the folder itself, did not answer. The folder ``root`` was handed in as ``path``; ``guard`` says which folders
    whoever did so may enter. ``known`` tells what is on record of the files directly in a directory, ``directories``
    where files are known, ``vanished`` what was seen once and is known no more, ``unread`` the errno of what could not
    be read. ``files`` are all that are known, and ``archived`` gives the SOP Instance UIDs that the archive has of some
    studies: for what a DICOMDIR lists."""

    def __init__(
        self,
        path: bytes,
        root: Root | None,
        known: Callable[[bytes], Mapping[bytes, TrackedFile]],
        directories: Callable[[], list[bytes]],
        vanished: Callable[[int], tuple[int, list[tuple[bytes, str]]]],
        unread: Callable[[], Mapping[bytes, int]],
        guard: FolderGuard | None = None,
        files: Callable[[], Iterable[UploadedFile]] = lambda: (),
        archived: Callable[[Collection[str]], Collection[str]] = lambda _: (),
    ) -> None:
        self._path, self._root, self._guard = path, root, guard
        self._files, self._archived = files, archived
        self._known, self._directories, self._vanished, self._unread = known, directories, vanished, unread
        self.findings: Findings | None = None
        self.failed = False

    def __call__(self, root_fd: int, beat: Callable[[], None]) -> None:
        """Raises Transient when the state cannot be read, OSError when the folder itself fails."""
        try:
            self.findings = self._scan(root_fd, beat)
        except (Transient, OSError):
            self.failed = True
            raise

    def _scan(self, root_fd: int, beat: Callable[[], None]) -> Findings:
        findings = Findings()
        if not self._is_root(root_fd):
            findings.name(b"", EXCHANGED)
            return findings
        if markers.is_below(root_fd):
            findings.name(b"", OWN_TREE)
            return findings
        unread = self._unread()
        seen: set[bytes] = set()
        todo = [b""]
        while todo:
            beat()
            parent = todo.pop()
            seen.add(parent)
            below = self._one_directory(root_fd, parent, unread, findings)
            if below and parent.count(b"/") >= MAX_DEPTH:
                findings.name(parent, TOO_DEEP)
                continue
            todo.extend(join(parent, name) for name in below)
        for parent in self._directories():
            if parent not in seen:
                for name, one in self._known(parent).items():
                    if _is_of_a_file(one):
                        findings.name(join(parent, name), VANISHED[_how_far(one)], news=True)
        count, gone = self._vanished(LISTED)
        for path, how_far in gone:
            findings.name(path, VANISHED[how_far])
        findings.odd += count - len(gone)
        self._compare_with_the_lists(root_fd, findings, beat)
        findings.read_only = bool(os.fstatvfs(root_fd).f_flag & os.ST_RDONLY)
        self._require_still_there(root_fd, findings)
        return findings

    def _compare_with_the_lists(self, root_fd: int, findings: Findings, beat: Callable[[], None]) -> None:
        """What the medium says that it holds (DICOMDIR), and what may hold more than can be seen: an archive file on a
        medium whose own list is archived in full is a part of its viewer, as far as anybody can tell."""
        lists = ListedImages()
        for path in findings.dicomdirs:
            lists.read(root_fd, path, self._guard, beat)
        if lists.has_images:
            lists.compare(self._files(), self._archived, findings.name, beat)
        findings.tables = lists.tables
        for path in findings.not_opened:
            if not lists.covers(path):
                findings.name(path, UNOPENED)

    def _require_still_there(self, root_fd: int, findings: Findings) -> None:
        """Whoever deletes, deletes what stands under the path now; a look may take minutes. Where the path leads for
        others need not be where it leads for the daemon (a home, which its sandbox hides), so the kernel is asked what
        the folder is called; and where the path does lead somewhere, that has to be the folder."""
        if path_of(root_fd) != self._path:
            findings.name(b"", MOVED, news=True)
            return
        if not is_mounted_here(root_fd):
            return  # whoever waits for the end looks where the path leads for him
        try:
            there_fd = open_root(self._path)
        except OSError:
            return
        try:
            if not self._is_root(there_fd):
                findings.name(b"", EXCHANGED, news=True)
        finally:
            os.close(there_fd)

    def _is_root(self, fd: int) -> bool:
        return self._root is not None and root_of(fd).is_same(self._root)

    def _one_directory(
        self, root_fd: int, parent: bytes, unread: Mapping[bytes, int], findings: Findings
    ) -> list[bytes]:
        """Compares one directory with what is on record; returns the directories in it."""
        below: list[bytes] = []
        here: dict[bytes, str] = {}
        try:
            with directory(root_fd, parent, self._guard) as fd, os.scandir(fd) as entries:
                if markers.sign_in(fd) is not None:
                    self._own_tree(parent, findings)
                    return []
                for entry in entries:
                    name = os.fsencode(entry.name)
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError as error:
                        _trouble(findings, join(parent, name), error, NOT_ASKED)
                        continue
                    if name.startswith(markers.OWN):
                        self._private(root_fd, join(parent, name), stat.S_ISDIR(found.st_mode), findings)
                    elif stat.S_ISDIR(found.st_mode):
                        below.append(name)
                    else:
                        here[name] = identity_text(FileIdentity.of(found))
        except OSError as error:
            if isinstance(error, NotForTheAsker):
                findings.name(parent, NOT_FOR_THE_ASKER)
            else:
                _trouble(findings, parent, error, UNLISTED if error.errno in (errno.EACCES, errno.EPERM) else BROKEN)
            return []
        known = self._known(parent)
        for name, identity in here.items():
            _compare(findings, join(parent, name), identity, known.get(name), unread)
        for name, one in known.items():
            if name not in here and _is_of_a_file(one):
                findings.name(join(parent, name), VANISHED[_how_far(one)], news=True)
        return sorted(below, reverse=True)

    def _own_tree(self, parent: bytes, findings: Findings) -> None:
        """The queue names it, unless it has become one just now."""
        if any(one.code == own_trees.OWN_TREE for one in self._known(parent).values()):
            findings.barred += 1
        else:
            findings.name(parent, OWN_TREE, news=True)

    def _private(self, root_fd: int, path: bytes, is_directory: bool, findings: Findings) -> None:
        """What is staged is nobody's archived file; a private folder with nothing in it but its empty lock is nothing:
        another daemon, which shares the folder, has it or has left it."""
        if path.endswith(_LOCK) and _is_empty(root_fd, path):
            return
        if not is_directory:
            findings.name(path, PRIVATE)
            return
        try:
            with directory(root_fd, path) as fd, os.scandir(fd) as entries:
                below = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            _trouble(findings, path, error, UNLISTED)
            return
        for name, deeper in below:
            if path.count(b"/") >= MAX_DEPTH:
                findings.name(path, TOO_DEEP)
                return
            self._private(root_fd, join(path, name), deeper, findings)


def _is_empty(root_fd: int, path: bytes) -> bool:
    parent, _, name = path.rpartition(b"/")
    try:
        with directory(root_fd, parent) as fd:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_size and parent.rpartition(b"/")[2].startswith(STAGING_NAME)


def _compare(
    findings: Findings, path: bytes, identity: str, known: TrackedFile | None, unread: Mapping[bytes, int]
) -> None:
    if known is not None and known.code == UNREADABLE:
        findings.name(path, BROKEN.format(errno="the medium reports a read error"))
    elif known is None or known.state is FileState.DELETING:
        if (number := unread.get(path)) is not None:
            findings.name(path, BROKEN.format(errno=errno.errorcode.get(number, number)))
        else:
            findings.name(path, CAME_LATER, news=True)
    elif known.identity != identity:
        findings.name(path, CHANGED, news=True)
    elif known.state is FileState.KEPT:
        findings.archived += 1
    elif known.state is FileState.IGNORED:
        _ignored(findings, path, known.code)
    elif known.state is FileState.QUARANTINED:
        findings.barred += 1
    else:
        findings.name(path, NOT_ENDED, news=True)


def _ignored(findings: Findings, path: bytes, code: str | None) -> None:
    findings.ignored += 1
    if code == DICOMDIR:
        findings.dicomdirs.append(path)
        return
    findings.not_dicom += 1
    if code != NOT_OPENED:
        return
    if len(findings.not_opened) < LISTED:
        findings.not_opened.append(path)
    else:
        findings.name(path, UNOPENED)


def _trouble(findings: Findings, path: bytes, error: OSError, why: str) -> None:
    """What is gone by now is looked for again by the intake; the rest stays as it is until somebody mends it."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
        findings.name(path, VANISHED["seen"], news=True)
        return
    findings.name(path, why.format(errno=errno.errorcode.get(error.errno or 0, str(error.errno))))


def _is_of_a_file(one: TrackedFile) -> bool:
    """Not of one that is on its way out, nor of what could not be looked at."""
    return one.state is not FileState.DELETING and one.code != UNREADABLE


def _how_far(one: TrackedFile) -> str:
    return "verified" if one.state is FileState.KEPT else "seen"
