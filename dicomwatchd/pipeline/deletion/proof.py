"""DeletionProof, and the one place where a patient's file is unlinked.

A file goes through five steps, each of which can fail without loss: a proof is made from a fresh read of the archive;
it is put on record; the file is staged by a rename into a private directory on its own file system; there it is
compared once more, byte for byte, with what the archive holds; the store is asked whether the object is still there,
now that the file is no longer at its path; and only then it is unlinked. Where leases are to be had, one is held from
before the comparison until after the unlink, so no program has the file open for writing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.bundle import Span
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import Destination, Receipt, Standing
from dicomwatchd.errors import Permanent, SourceChanged, Transient, Unarchivable
from dicomwatchd.filebytes import sha256_of
from dicomwatchd.localfiles import WriterPresent, identity, lease_held, read_lease
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline.deletion.staging.staged import (
    StagedFile,
    StagingFolders,
    restore,
    save_late_writes,
    stage_file,
)
from dicomwatchd.pipeline.local import Folders
from dicomwatchd.queue.parked import NO_PROOF
from dicomwatchd.queue.rows import Claim, LocalFile, Source, identity_text

#: A proof is used within this time or not at all.
LIFETIME_SECONDS = 900.0

#: A deletion under way. It stops once, where the file is staged and compared, and says what that is to its object;
#: going on is the unlink. Its value is None when the file is gone, otherwise why it is still there.
Deleting = Generator[Standing, None, str | None]

_MAKER = object()


class LeaseRefused(Exception):
    """No read lease is to be had on a file that is to go under one alone: it stays as it is."""


class NoRight(Exception):
    """Whoever has asked for the deletion may not delete the file himself: it stays as it is."""


class Itself(Exception):
    """The file is the archive's object: it stays as it is."""


class Exchanged(Exception):
    """The inbox is another folder than was confirmed: nothing in it goes."""


class Restored(Exception):
    """Thrown into a deletion that is not to go on: the file stands under its name again."""


class NoProof(Permanent):
    """A clause of the proof does not hold: the file stays."""

    code = NO_PROOF


@dataclass(frozen=True, slots=True)
class DeletionProof:
    """That the archive holds these very bytes, as what is current under ``key`` (in version ``version_id``, where there
    are versions). ``verified_at`` is when the oldest of what it rests on was asked for (seconds since the epoch).

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
    #: Where in the object its bytes begin, and what the object is.
    offset_bytes: int
    object_bytes: int
    object_sha256: str

    def __post_init__(self) -> None:
        if self._maker is not _MAKER:
            raise TypeError("a DeletionProof is made by prove() alone")

    def is_fresh(self, now: float) -> bool:
        """Whether it may be used at this time (seconds since the epoch)."""
        return _is_fresh(self.verified_at, now)

    def same_bytes_as(self, other: DeletionProof) -> bool:
        """Whether it proves the same file by the same object; that may have another version by now."""
        mine, its = self, other
        return (mine.destination, mine.key, mine.sha256, mine.size_bytes, mine.offset_bytes, mine.identity) == (
            (its.destination, its.key, its.sha256, its.size_bytes, its.offset_bytes, its.identity)
        )

    def for_audit(self) -> dict[str, Any]:
        """The proof as the audit chain keeps it: no path, no patient attribute."""
        of_bundle = {
            "offset_bytes": self.offset_bytes,
            "bundle_bytes": self.object_bytes,
            "bundle_sha256": self.object_sha256,
        }
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
            **(of_bundle if keys.is_bundle(self.key) else {}),
        }


def prove(
    file: LocalFile,
    receipt: Receipt,
    span: Span,
    *,
    claim: Claim,
    destination: Destination,
    archive_id: str,
    manifest: Manifest,
    catalogue: str,
    catalogue_revision: int,
    recorded_at: float,
    now: float,
) -> DeletionProof:
    """Put together what proves that ``file`` is in the archive: as this ``span`` of the receipt's object.
    ``recorded_at`` is when the manifest and the catalogue were asked for. Raises NoProof, naming the clause that fails;
    Transient when the evidence is only too old by the clock, which may have been set since: it is to be looked for
    again."""
    header = file.header
    listed = manifest.instance_with(header.sop_instance_uid, header.series_uid, span.sha256)
    if keys.is_bundle(receipt.key):
        fits_key = keys.bundle_sha256(receipt.key, header.study_uid) == receipt.sha256
    else:  # under any other key an instance is all of the object
        fits_key = span == Span(0, receipt.size_bytes, receipt.sha256)
    clauses = (
        (file.verified_by is not None and file.verified_at is not None, "it was not verified in this attempt"),
        (file.sha256 == span.sha256, "the digest differs from the receipt"),
        (file.identity.size_bytes == span.size_bytes, "the size differs from the receipt"),
        (header.study_uid == manifest.study_uid == claim.study_uid, "the manifest belongs to another study"),
        (manifest.archive_id == archive_id, "the manifest belongs to another archive"),
        (listed is not None, "the manifest does not list it"),
        (listed is not None and listed.key == receipt.key, "the manifest lists it under another key"),
        (listed is not None and listed.size_bytes == span.size_bytes, "the manifest lists another size"),
        (listed is not None and listed.offset_bytes == span.offset_bytes, "the manifest lists it at another location"),
        (0 <= span.offset_bytes <= receipt.size_bytes - span.size_bytes, "the bundle ends before it"),
        (fits_key, "the bundle's key names another digest"),
        (catalogue_revision >= manifest.revision, "the catalogue is behind the manifest"),
    )
    for holds, why_not in clauses:
        if not holds:
            raise NoProof(why_not)
    verified_at = min(file.verified_at or 0.0, recorded_at)
    if not (_is_fresh(file.verified_at, now) and _is_fresh(recorded_at, now)):
        raise Transient("by the clock, the evidence is too old or in the future", code="stale-evidence")
    return DeletionProof(
        archive_id=archive_id,
        destination=str(destination),
        key=receipt.key,
        version_id=receipt.version_id,
        sha256=span.sha256,
        size_bytes=span.size_bytes,
        identity=file.identity,
        verified_by=file.verified_by or "",
        verified_at=verified_at,
        manifest_key=manifest.key,
        manifest_sha256=manifest.sha256,
        manifest_revision=manifest.revision,
        catalogue=catalogue,
        catalogue_revision=catalogue_revision,
        token=claim.token,
        _maker=_MAKER,
        offset_bytes=span.offset_bytes,
        object_bytes=receipt.size_bytes,
        object_sha256=receipt.sha256,
    )


def _is_fresh(asked_at: float | None, now: float) -> bool:
    """Of evidence of the future nobody can tell the age, be it by a second only: the clock was set back since."""
    return asked_at is not None and 0 <= now - asked_at <= LIFETIME_SECONDS


def delete_on_proof(
    folders: Folders,
    staging: StagingFolders,
    source: Source,
    file: LocalFile,
    proof: DeletionProof,
    *,
    now: float,
    needs_lease: bool = False,
    standing: Callable[[os.stat_result], Standing] | None = None,
    still_wanted: Callable[[], None] = lambda: None,
    heartbeat: Callable[[], None] = lambda: None,
    still_proven: Callable[[], None] = lambda: None,
) -> Deleting:
    """Stage the file, compare it once more, stop; then unlink it. None when it is gone; otherwise why it is still
    there. Where it stops somebody asks the store whether the object is there: see `batch`.

    Whatever is found amiss, the file, as it then is, stands under its name again (or beside it, where that name was
    taken meanwhile). ``standing`` says what it is to the object, where objects are files too. ``still_wanted`` is a
    sign of life, and raises where nobody waits for this any more, as after hours at a share that did not answer, or
    when the daemon is to stop; it is asked last before the unlink. ``still_proven`` is asked right before: to compare a
    large file on a slow share may take longer than a proof holds; it raises where the archive does not prove the file
    any more. After the unlink ``heartbeat`` only shows that the work goes on. Raises LeaseRefused, before anything is
    touched, where ``needs_lease`` and none is to be had; Itself when the file is the very object; NoRight where whoever
    has asked may not delete it; Permanent (code "cannot-delete") when the daemon may not delete here, LeftStaged when a
    file cannot be put back now, Transient when the file system fails otherwise, or when the proof has grown too old:
    the file is as it was, and is proven anew.
    """
    if not proof.is_fresh(now):
        raise Transient("the proof had expired when the file was to be deleted", code="stale-evidence")
    if file.identity != proof.identity:
        return "the proof belongs to another file"
    try:
        with folders.opened(source, file) as (directory_fd, fd):
            with read_lease(fd) as leased:
                if needs_lease and not leased:
                    raise LeaseRefused
                if identity(fd) != proof.identity:
                    return "changed before it was staged"
                _require_apart(fd, standing)
                if source.asker is not None and not source.asker.may_remove(directory_fd, os.fstat(fd)):
                    raise NoRight
                with stage_file(staging, source, file.dir, file.name, directory_fd) as staged:
                    why_kept = yield from _unlink_if_same(
                        fd, staged, directory_fd, file.name, proof, leased, standing, still_wanted, still_proven
                    )
                if why_kept is not None:
                    return why_kept
                undisturbed = _undisturbed(fd, proof, leased, heartbeat)
            if undisturbed or not save_late_writes(fd, proof.sha256, source, directory_fd, file.name, heartbeat):
                return None
            return "it was written to while it was being deleted; the written file was put back"
    except (SourceChanged, Unarchivable) as error:
        return error.message
    except WriterPresent:
        return "a program has it open for writing"
    except FileExistsError:
        return "its staging name is taken by a leftover of an earlier run"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Permanent(
                "the study is archived, but the daemon may not delete its files in the inbox",
                code="cannot-delete",
                hint="check the owner and permissions of the folders, then retry the study",
            ) from error
        raise Transient(f"a file cannot be staged ({name})", code=f"local-{name}") from error


def _unlink_if_same(
    fd: int,
    staged: StagedFile,
    directory_fd: int,
    name: bytes,
    proof: DeletionProof,
    leased: bool,
    standing: Callable[[os.stat_result], Standing] | None,
    still_wanted: Callable[[], None],
    still_proven: Callable[[], None],
) -> Deleting:
    """Unlink what was staged if it is what the archive holds; otherwise put it back, and say why."""
    try:
        stands = Standing.APART if standing is None else standing(os.fstat(fd))
        if stands is Standing.ITSELF:
            raise Itself
        why_kept = _differs(fd, staged, proof, leased, still_wanted)
        if why_kept is None:
            compared = identity(fd)
            yield stands
            why_kept = _disturbed(fd, staged, compared, leased)
        if why_kept is None:
            still_proven()
            still_wanted()
            os.unlink(staged.name, dir_fd=staged.fd)  # the one deletion of a patient's file
            return None
    except BaseException:  # whatever ends it, a stop thrown in as well: the file has its name again
        restore(staged, directory_fd, name)
        raise
    restore(staged, directory_fd, name)
    return why_kept


def _require_apart(fd: int, standing: Callable[[os.stat_result], Standing] | None) -> None:
    """Raises Itself where the object would go with the file, Transient where there is none any more."""
    match Standing.APART if standing is None else standing(os.fstat(fd)):
        case Standing.ITSELF:
            raise Itself
        case Standing.MISSING:
            raise Transient("an object is missing from the store", code="object-lost")


def _differs(
    fd: int, staged: StagedFile, proof: DeletionProof, leased: bool, heartbeat: Callable[[], None]
) -> str | None:
    """Why what was staged is not what the archive holds, or None if it is, byte for byte."""
    before = identity(fd)
    if not before.same_but_ctime(proof.identity):
        return "changed while it was staged"
    found = os.stat(staged.name, dir_fd=staged.fd, follow_symlinks=False)
    if (found.st_dev, found.st_ino) != (before.dev, before.inode):
        return "replaced while it was staged"
    if sha256_of(fd, proof.size_bytes, heartbeat) != proof.sha256:
        return "its content is not what was archived"
    if identity(fd) != before:
        return "changed while it was compared"
    if leased and not lease_held(fd):
        return "a program has started to open it for writing"
    return None


def _disturbed(fd: int, staged: StagedFile, compared: FileIdentity, leased: bool) -> str | None:
    """Whether somebody came to the file since it was compared, while the store was asked."""
    if identity(fd) != compared:
        return "changed while the archive was checked"
    found = os.stat(staged.name, dir_fd=staged.fd, follow_symlinks=False)
    if (found.st_dev, found.st_ino) != (compared.dev, compared.inode):
        return "replaced while the archive was checked"
    if leased and not lease_held(fd):
        return "a program started to open it while the archive was checked"
    return None


def _undisturbed(fd: int, proof: DeletionProof, leased: bool, heartbeat: Callable[[], None]) -> bool:
    """Whether nobody came to the file between the last comparison and the unlink, looked at right after the unlink.

    A program that looked the name up before the file was staged may be about to open it, which the lease tells; one
    that holds it open from before may have written to it, which, without a lease, the content tells.
    """
    if leased:
        return lease_held(fd)
    return os.fstat(fd).st_size == proof.size_bytes and sha256_of(fd, proof.size_bytes, heartbeat) == proof.sha256
