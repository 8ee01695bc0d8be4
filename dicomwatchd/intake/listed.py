"""What a medium lists of itself (its DICOMDIRs) against what was found on it and is archived.

A listed image counts as archived by its SOP Instance UID, wherever on the medium it stands. By its path it is only
found: to say that it is there and damaged, or that another image stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

from dicomwatchd.errors import SourceChanged, Unarchivable
from dicomwatchd.intake.dicom.dicomdir import Directory, read_dicomdir
from dicomwatchd.intake.scan import join
from dicomwatchd.localfiles import FolderGuard, directory, identity, regular_file
from dicomwatchd.model import FileState
from dicomwatchd.queue.rows import DAMAGED as DAMAGED_COPY
from dicomwatchd.queue.rows import OWN_OBJECT, UploadedFile

MISSING = "is listed in the DICOMDIR, but is not there and not in the archive; ask whoever made the disc for it"
DAMAGED = "is listed in the DICOMDIR as an image, but is not a DICOM file: damaged? copy it from another drive"
#: Of one medium: of how many studies the archive is asked for images that are listed and not there.
ASKED_STUDIES = 50

#: ISO 9660 puts a version behind a name, which some systems show.
_VERSION = re.compile(rb";[0-9]*\Z")


@dataclass(slots=True)
class Tables:
    """``files`` DICOMDIRs were met, of which ``unread`` could not be read, or could not be compared. ``images`` are the
    different images that the others list, of so many ``studies``; ``archived`` of them are in the archive,
    ``from_before`` of these not from here, and ``missing`` are neither there nor in the archive."""

    files: int = 0
    unread: int = 0
    images: int = 0
    studies: int = 0
    archived: int = 0
    from_before: int = 0
    missing: int = 0


class _How(IntEnum):
    MISSING = 0
    ANOTHER = 1  # its file is archived as an image that is not listed
    DAMAGED = 2  # its file was taken for something else
    NAMED = 3  # its file is a failure, and named as such
    ARCHIVED = 4


@dataclass(slots=True)
class _Image:
    sop_instance_uid: str
    path: bytes
    how: _How = _How.MISSING


class ListedImages:
    """The lists of one medium put together: what more than one of them lists is one image."""

    def __init__(self) -> None:
        self.tables = Tables()
        self._images: list[_Image] = []
        self._by_uid: dict[str, _Image] = {}
        self._by_path: dict[bytes, _Image] = {}
        self._studies: set[str] = set()
        self._folders: list[bytes] = []

    def read(self, root_fd: int, path: bytes, guard: FolderGuard | None, beat: Callable[[], None]) -> None:
        """Take what the DICOMDIR at ``path`` lists. One that cannot be read is counted."""
        self.tables.files += 1
        parent, _, name = path.rpartition(b"/")
        try:
            with directory(root_fd, parent, guard) as folder_fd, regular_file(folder_fd, name) as fd:
                found = read_dicomdir(fd, identity(fd).size_bytes, beat)
        except (Unarchivable, SourceChanged, OSError):
            self.tables.unread += 1
            return
        self._add(parent, found)

    @property
    def has_images(self) -> bool:
        return bool(self._images)

    def covers(self, path: bytes) -> bool:
        """Whether a list that was read, of images in this folder or below, speaks for what stands at ``path``."""
        return any(not folder or path.startswith(folder + b"/") for folder in self._folders)

    def compare(
        self,
        files: Iterable[UploadedFile],
        archived: Callable[[Collection[str]], Collection[str]],
        name: Callable[[bytes, str], None],
        beat: Callable[[], None],
    ) -> None:
        """``files`` are all that were found; ``archived`` gives the SOP Instance UIDs that the archive has of these
        studies; ``name`` gets what is missing or damaged, and why."""
        for number, file in enumerate(files):
            if number % 1000 == 0:
                beat()
            self._find(file)
        missing = {image.sop_instance_uid for image in self._images if image.how in (_How.MISSING, _How.DAMAGED)}
        before: Collection[str] = ()
        if missing - {""}:
            before = archived(sorted(self._studies)[:ASKED_STUDIES])
        tables = self.tables
        tables.images, tables.studies = len(self._images), len(self._studies)
        for image in self._images:
            if image.how in (_How.ARCHIVED, _How.ANOTHER):
                tables.archived += 1
            elif image.how is not _How.NAMED and image.sop_instance_uid in before:
                tables.archived += 1
                tables.from_before += 1
            elif image.how is _How.DAMAGED:
                name(image.path, DAMAGED)
            elif image.how is _How.MISSING:
                tables.missing += 1
                name(image.path, MISSING)

    def _add(self, parent: bytes, found: Directory) -> None:
        self._studies |= found.studies
        if found.images:
            self._folders.append(parent)
        for listed in found.images:
            path, uid = join(parent, listed.path), listed.sop_instance_uid
            image = self._by_uid.get(uid) if uid else self._by_path.get(_plain(path))
            if image is None:
                image = _Image(uid, path)
                self._images.append(image)
                if uid:
                    self._by_uid[uid] = image
            self._by_path.setdefault(_plain(path), image)

    def _find(self, file: UploadedFile) -> None:
        is_archived = file.state is FileState.KEPT and file.code not in (OWN_OBJECT, DAMAGED_COPY)
        image = self._by_uid.get(file.sop_instance_uid or "")
        here = self._by_path.get(_plain(file.path)) if image is None else image
        if here is None:
            return
        if is_archived:
            how = _How.ANOTHER if image is None and here.sop_instance_uid else _How.ARCHIVED
        else:
            how = _How.DAMAGED if file.state is FileState.IGNORED else _How.NAMED
        here.how = max(here.how, how)


def _plain(path: bytes) -> bytes:
    """A path as media and systems that show them agree on it: no case, no versions, no dots at the end."""
    return b"/".join(_VERSION.sub(b"", part).rstrip(b".").upper() for part in path.split(b"/"))
