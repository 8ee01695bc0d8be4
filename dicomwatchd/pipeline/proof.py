"""DeletionProof, and the one place where a patient's file is unlinked.

A file goes through four steps, each of which can fail without loss: a proof is made from a fresh read of the archive;
it is put on record; the file is set aside by a rename into a private directory on its own file system; there it is
compared once more, byte for byte, with what the archive holds, and only then unlinked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from dicomwatchd.archive.manifest import Manifest
from dicomwatchd.archive.store import Destination, Receipt
from dicomwatchd.errors import Permanent, SourceChanged, Transient, Unarchivable
from dicomwatchd.localfiles import (
    ASIDE,
    WriterPresent,
    identity,
    lease_held,
    make_directory,
    open_root,
    read_lease,
    rename_noreplace,
)
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.local import opened, sha256_of
from dicomwatchd.queue.rows import Claim, LocalFile, Source, identity_text

#: A proof is used within this time or not at all.
LIFETIME_SECONDS = 900.0

_MAKER = object()


class NoProof(Permanent):
    """A clause of the proof does not hold: the file stays."""

    code = "no-proof"


@dataclass(frozen=True, slots=True)
class DeletionProof:
    """That the archive holds these very bytes, as read from it at ``verified_at`` (seconds since the epoch).

    Only `prove` makes one. It is worth something for this file, this destination and this claim alone.
    """

    archive_id: str
    destination: str
    key: str
    version_id: str | None
    sha256: str
    size_bytes: int
    identity: FileIdentity
    verified_by: str
    verified_at: float
    manifest_key: str
    manifest_sha256: str
    manifest_revision: int
    catalogue: str
    catalogue_revision: int
    token: int
    _maker: object

    def __post_init__(self) -> None:
        if self._maker is not _MAKER:
            raise TypeError("a DeletionProof is made by prove() alone")

    def for_audit(self) -> dict[str, Any]:
        """The proof as the audit chain keeps it: no path, no patient attribute."""
        return {
            "archive_id": self.archive_id,
            "destination": self.destination,
            "key": self.key,
            "version_id": self.version_id,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "identity": identity_text(self.identity),
            "verified_by": self.verified_by,
            "verified_at": self.verified_at,
            "manifest_key": self.manifest_key,
            "manifest_sha256": self.manifest_sha256,
            "manifest_revision": self.manifest_revision,
            "catalogue": self.catalogue,
            "catalogue_revision": self.catalogue_revision,
        }


def prove(
    file: LocalFile,
    receipt: Receipt,
    *,
    claim: Claim,
    destination: Destination,
    archive_id: str,
    manifest: Manifest,
    catalogue: str,
    catalogue_revision: int,
    now: float,
) -> DeletionProof:
    """Put together what proves that ``file`` is in the archive. Raises NoProof, naming the clause that fails."""
    header = file.header
    listed = manifest.instance_with(header.sop_instance_uid, header.series_uid, receipt.sha256)
    clauses = (
        (file.verified_by is not None and file.verified_at is not None, "it was not verified under this claim"),
        (now - (file.verified_at or 0) <= LIFETIME_SECONDS, "it was verified too long ago"),
        (file.sha256 == receipt.sha256, "the digest is not the receipt's"),
        (file.identity.size_bytes == receipt.size_bytes, "the size is not the receipt's"),
        (header.study_uid == manifest.study_uid == claim.study_uid, "the manifest is another study's"),
        (manifest.archive_id == archive_id, "the manifest is another archive's"),
        (listed is not None, "the manifest does not list it"),
        (listed is not None and listed.key == receipt.key, "the manifest lists it under another key"),
        (listed is not None and listed.size_bytes == receipt.size_bytes, "the manifest lists another size"),
        (catalogue_revision >= manifest.revision, "the catalogue is behind the manifest"),
    )
    for holds, why_not in clauses:
        if not holds:
            raise NoProof(why_not)
    return DeletionProof(
        archive_id=archive_id,
        destination=str(destination),
        key=receipt.key,
        version_id=receipt.version_id,
        sha256=receipt.sha256,
        size_bytes=receipt.size_bytes,
        identity=file.identity,
        verified_by=file.verified_by or "",
        verified_at=file.verified_at or 0.0,
        manifest_key=manifest.key,
        manifest_sha256=manifest.sha256,
        manifest_revision=manifest.revision,
        catalogue=catalogue,
        catalogue_revision=catalogue_revision,
        token=claim.token,
        _maker=_MAKER,
    )


def delete_on_proof(source: Source, file: LocalFile, proof: DeletionProof, *, now: float) -> str | None:
    """Set the file aside, compare it once more, unlink it. None when it is gone; otherwise why it is still there.

    Whatever is found amiss, the file, as it then is, stands under its name again (or beside it, where that name was
    taken meanwhile). Raises Permanent (code "cannot-delete") when the daemon may not delete here, Transient when
    the file system fails.
    """
    if now - proof.verified_at > LIFETIME_SECONDS:
        return "the proof is too old"
    if file.identity != proof.identity:
        return "the proof is another file's"
    try:
        with opened(source, file) as (directory_fd, fd), read_lease(fd) as leased:
            if identity(fd) != proof.identity:
                return "changed before it was set aside"
            with _set_aside(source, file, directory_fd) as aside_fd:
                why_kept: str | None = "not compared"
                try:
                    why_kept = _differs(fd, aside_fd, file.name, proof, leased)
                    if why_kept is None:
                        os.unlink(file.name, dir_fd=aside_fd)  # the one deletion of a patient's file
                except BaseException:
                    put_back(aside_fd, directory_fd, file.name)
                    raise
                if why_kept is not None:
                    put_back(aside_fd, directory_fd, file.name)
                return why_kept
    except (SourceChanged, Unarchivable) as error:
        return error.message
    except WriterPresent:
        return "a program has it open for writing"
    except FileExistsError:
        return "its place aside is taken by what an earlier run has left"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Permanent(
                "the archive holds the study, but the daemon may not delete in the inbox",
                code="cannot-delete",
                hint="check the owner and mode of the folders, then retry the study",
            ) from error
        raise Transient(f"a file cannot be set aside ({name})", code=f"local-{name}") from error


def _differs(fd: int, aside_fd: int, name: bytes, proof: DeletionProof, leased: bool) -> str | None:
    """Why what was set aside is not what the archive holds, or None if it is, byte for byte."""
    before = identity(fd)
    if not before.same_but_ctime(proof.identity):
        return "changed while it was set aside"
    found = os.stat(name, dir_fd=aside_fd, follow_symlinks=False)
    if (found.st_dev, found.st_ino) != (before.dev, before.inode):
        return "replaced while it was set aside"
    if sha256_of(fd, proof.size_bytes) != proof.sha256:
        return "its content is not what was archived"
    if identity(fd) != before:
        return "changed while it was compared"
    if leased and not lease_held(fd):
        return "a program has begun to open it for writing"
    return None


@contextmanager
def _set_aside(source: Source, file: LocalFile, directory_fd: int) -> Iterator[int]:
    """Rename the file into the private directory, and yield that directory.

    It stands at the top of the inbox and mirrors its folders, so that what a crash leaves can be put back by anybody;
    where another file system is mounted in between, it stands beside the file.
    """
    with ExitStack() as stack:
        root_fd = open_root(source.path)
        stack.callback(os.close, root_fd)
        aside_fd = _descend(root_fd, [ASIDE, *(file.dir.split(b"/") if file.dir else ())])
        stack.callback(lambda: os.close(aside_fd))
        try:
            rename_noreplace(directory_fd, file.name, aside_fd, file.name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            os.close(aside_fd)
            aside_fd = _descend(directory_fd, [ASIDE])
            rename_noreplace(directory_fd, file.name, aside_fd, file.name)
        yield aside_fd


def _descend(start_fd: int, parts: Sequence[bytes]) -> int:
    fd = os.dup(start_fd)
    for part in parts:
        try:
            deeper = make_directory(fd, part, 0o700)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def put_back(aside_fd: int, directory_fd: int, name: bytes) -> bytes:
    """Move a file that was set aside back to its name, or beside it where the name is taken; returns the name it
    has now. Overwrites nothing. Raises OSError."""
    candidate, number = name, 0
    while True:
        try:
            rename_noreplace(aside_fd, name, directory_fd, candidate)
        except FileExistsError:
            number += 1
            suffix = b".restored-%d" % number
            candidate = name[: 255 - len(suffix)] + suffix
        else:
            return candidate
