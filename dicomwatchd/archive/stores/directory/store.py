"""The directory store: the store port on a folder or a mounted share, one file for each object."""

from __future__ import annotations

import errno
import hashlib
import heapq
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from dicomwatchd import localfiles, markers
from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.directory import files as files
from dicomwatchd.archive.stores.port import (
    CHUNK_BYTES,
    Capabilities,
    Chunk,
    Content,
    Destination,
    Expiry,
    InitStep,
    Receipt,
    Restoring,
    Speed,
    Standing,
    StoredObject,
    Transition,
)
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.errors import (
    NoSuchObject,
    NotInitialised,
    NotSupported,
    NotThere,
    OutOfReach,
    Permanent,
    SourceChanged,
    Stopping,
    Transient,
)
from dicomwatchd.ports import Clock, SystemClock

SINGLE_PUT_BYTES = 16 * 1024 * 1024
_WRITE_BYTES = 4 * 1024 * 1024
_LEFTOVER_SECONDS = 86400
#: So many names of a folder are in memory at once: some 100 MB.
_NAMES = 500_000

_MARKER = markers.ARCHIVE
_PART = re.compile(rb"[A-Za-z0-9!_.*'()-]{1,255}\Z")
#: How the path of an instance's object ends: its SOP Instance UID, its SHA-256.
_LIKE_AN_OBJECT = re.compile(rb"(?:\A|/)[0-9.]{1,64}/[0-9a-f]{64}(?:-[0-9]{1,6})?\.dcm\Z")
_ENDPOINT = "the archive's folder"
_INIT_HINT = "is the share mounted? If the archive has never been created: dicomwatchctl archive init"


def _never() -> bool:
    return False


class DirectoryStore:
    """Implements ObjectStore. Every operation opens the root anew and works below that descriptor, and only if the
    archive's marker is in it: the empty folder under an unmounted share is no archive, and neither takes nor misses
    an object. The store vouches for no content, so evidence is read back.
    """

    def __init__(
        self,
        settings: DirectorySettings,
        *,
        stopping: Callable[[], bool] = _never,
        clock: Clock | None = None,
        random_name: Callable[[], str] = secrets.token_hex,
        uplink: Uplink | None = None,
        from_memory: bool = False,
    ) -> None:
        """``from_memory``: what is read may be what the kernel has in memory, and not what is on the device: for
        whoever looks at images, and proves nothing by it."""
        self._root, self._from_memory = settings.path, from_memory
        self._stopping = stopping
        self._uplink = uplink
        self._clock = clock or SystemClock()
        self._random_name = random_name
        self._folders = files.DurableFolders()
        self._capabilities = Capabilities(creates_only=True, objects_are_files=True)

    @property
    def destination(self) -> Destination:
        return Destination(kind="directory", endpoint="file", container=str(self._root), prefix="")

    @property
    def endpoint(self) -> str:
        return _ENDPOINT

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def piece_bytes(self, size_bytes: int) -> int | None:  # noqa: ARG002  nothing compares them
        return None

    @property
    def single_put_bytes(self) -> int:
        return SINGLE_PUT_BYTES

    def put(self, key: str, content: Content) -> Receipt:
        folder, name = _split(key)
        with self._archive() as root_fd, _at_work("put"), self._folders.open(root_fd, folder) as folder_fd:
            if _stat(folder_fd, name) is not None:
                files.make_durable(folder_fd, name)
                return _receipt(key, content, created=False)
            with files.temporary(folder_fd, self._random_name()) as (fd, temporary):
                self._write(fd, content)
                # After a failed fsync the pages count as clean and another try would succeed over lost data: this
                # file goes away, the next attempt starts with a new one.
                os.fsync(fd)
                created = files.publish(folder_fd, temporary, name)
            if not created:
                files.make_durable(folder_fd, name)
            files.sync_folder(folder_fd)
            return _receipt(key, content, created=created)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:  # noqa: ARG002  has no versions
        folder, name = _split(key)
        with self._archive() as root_fd, _at_work("head"):
            with _if_there(root_fd, folder) as folder_fd:
                seen = None if folder_fd is None else _stat(folder_fd, name)
            return None if seen is None else _stored(key, seen)

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        folder, own_name = _split(key)
        with self._archive() as root_fd, _at_work("stat"), _if_there(root_fd, folder) as folder_fd:
            seen = None if folder_fd is None else _opened(folder_fd, own_name)
        if seen is None:
            return Standing.MISSING
        if (seen.st_dev, seen.st_ino) == (found.st_dev, found.st_ino):
            return Standing.ITSELF
        # Over two mounts of one share the numbers differ; the name, which holds the content's hash, does not. Nor does
        # that of another object with these bytes, from when the archive had another layout.
        if path.rpartition(b"/")[2] == own_name or _LIKE_AN_OBJECT.search(path):
            return Standing.ITSELF
        return Standing.APART

    def current_versions(self, prefix: str) -> Iterator[StoredObject | None]:
        return self.listing(prefix)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """One folder's names are in memory at a time, for each level. Links are not followed, and not listed."""
        folder, _, _ = prefix.rpartition("/")
        if folder:
            _split(folder + "/x")
        # Only that the folder is not there means that there is nothing; one that goes away meanwhile is trouble.
        with (
            self._archive() as root_fd,
            _at_work("listing"),
            _if_there(root_fd, folder.encode("ascii")) as folder_fd,
        ):
            if folder_fd is not None:
                found = self._walk(folder_fd, f"{folder}/" if folder else "", prefix)
                yield from (one for one in found if one.key > after)

    def common_prefixes(self, prefix: str, after: str = "") -> Iterator[str]:
        """The names of a folder, so many at a time as memory should hold: it is read anew for the next ones, and closed
        while the caller is at work, who may take hours."""
        folder = prefix.removesuffix("/")
        if folder:
            _split(folder + "/x")
        while True:
            with (
                self._archive() as root_fd,
                _at_work("listing"),
                _if_there(root_fd, folder.encode("ascii")) as folder_fd,
            ):
                names = [] if folder_fd is None else _folders(folder_fd, prefix, after)
            yield from names
            if len(names) < _NAMES:
                return
            after = names[-1]

    def read(
        self,
        key: str,
        version_id: str | None = None,  # noqa: ARG002  has no versions
        *,
        offset_bytes: int = 0,
        length_bytes: int | None = None,
        buffer: memoryview | None = None,
        checksum: Callable[[str], None] | None = None,  # noqa: ARG002  files have none
    ) -> Iterator[Chunk]:
        """Out of the device, as far as the kernel can be told to forget what it has in memory, unless that may be
        read."""
        folder, name = _split(key)
        with self._archive() as root_fd, _at_work("read"):
            try:
                with (
                    localfiles.directory(root_fd, folder) as folder_fd,
                    localfiles.regular_file(folder_fd, name) as fd,
                ):
                    if not self._from_memory:
                        os.posix_fadvise(fd, offset_bytes, length_bytes or 0, os.POSIX_FADV_DONTNEED)
                    left = sys.maxsize if length_bytes is None else length_bytes
                    while chunk := files.read_at(fd, offset_bytes, min(left, CHUNK_BYTES), buffer):
                        offset_bytes += len(chunk)
                        left -= len(chunk)
                        yield chunk
            except FileNotFoundError as error:
                raise NoSuchObject("the object is not in the archive") from error

    def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:  # noqa: ARG002  nothing is ever cold
        raise NotSupported("a folder has no cold storage")

    def check(self) -> None:
        try:
            with self._archive():
                pass
        except NotThere as error:
            raise NotInitialised("the archive's folder does not exist", hint=_INIT_HINT) from error

    def initialise(self) -> list[InitStep]:
        """Makes the folder itself but not the one it is in: that would be the place a share was to be mounted at."""
        steps = []
        try:
            with _at_work("initialise"):
                try:
                    self._root.mkdir(0o750)
                    steps.append(InitStep("folder", "created"))
                except FileExistsError:
                    steps.append(InitStep("folder", "present"))
                parent_fd = localfiles.open_root(os.fspath(self._root.parent))
                try:
                    files.sync_folder(parent_fd)
                finally:
                    os.close(parent_fd)
                root_fd = localfiles.open_root(os.fspath(self._root))
        except OutOfReach as error:
            if isinstance(error.__cause__, FileNotFoundError):
                hint = "is the share mounted? The parent folder of the archive must exist"
                raise NotInitialised("the archive's folder cannot be created", hint=hint) from error
            raise
        try:
            with _at_work("initialise"):
                steps.append(InitStep("marker", "created" if self._write_marker(root_fd) else "present"))
                now = self._clock.now()
                if removed := files.remove_leftovers(root_fd, lambda mtime: mtime < now - _LEFTOVER_SECONDS):
                    steps.append(InitStep("leftovers of interrupted writes", "set", f"{removed} removed"))
        finally:
            os.close(root_fd)
        return steps

    def add_transitions(self, transitions: Sequence[Transition]) -> InitStep:  # noqa: ARG002
        raise NotSupported("a folder has no lifecycle rules")

    def probe(self, scratch_key: str) -> Capabilities:  # noqa: ARG002  leaves no objects behind, so needs no key
        """Whether a name can be taken only once; the content is for read-back to prove."""
        with self._archive() as root_fd, _at_work("probe"):
            self._mark(root_fd)
            refused = files.refuses_second_name(root_fd, self._random_name())
        self._capabilities = Capabilities(
            creates_only=refused,
            objects_are_files=True,
            details={"second creation of a name": "refused" if refused else "accepted"},
        )
        return self._capabilities

    @property
    def expiry(self) -> Expiry:
        return Expiry()  # a folder has no such rules

    def refresh_expiry(self) -> Expiry:
        return self.expiry

    def close(self) -> None:
        pass

    @contextmanager
    def _archive(self) -> Iterator[int]:
        """A descriptor of the root. Raises NotThere when it is not there or not the archive's."""
        try:
            root_fd = localfiles.open_root(os.fspath(self._root))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise files.translate(error, "open the folder", _ENDPOINT) from error
            raise NotThere("the archive's folder does not exist", hint=_INIT_HINT, endpoint=_ENDPOINT) from error
        try:
            with _at_work("check for the marker"):
                known = any(_stat(root_fd, name) for name in (_MARKER, keys.IDENTITY.encode("ascii")))
            if not known:
                raise NotThere("the archive's folder holds no archive", hint=_INIT_HINT, endpoint=_ENDPOINT)
            yield root_fd
        finally:
            os.close(root_fd)

    def _write(self, fd: int, content: Content) -> None:
        digest, sha256 = content.digest, hashlib.sha256()
        at_once = digest.size_bytes if digest.size_bytes <= SINGLE_PUT_BYTES else _WRITE_BYTES
        offset = 0
        while offset < digest.size_bytes:
            if self._stopping():
                raise Stopping("stopped in the middle of a file")
            length = min(at_once, digest.size_bytes - offset)
            try:
                data = content.read(offset, length)
            except OSError as error:
                raise Transient("a local file cannot be read", code="source-unreadable") from error
            if len(data) != length:
                raise SourceChanged("a file is shorter than when it was read first")
            sha256.update(data)
            sending = None if self._uplink is None else self._uplink.sending(self._stopping)
            for piece in (data,) if sending is None else sending.pieces(data):
                files.write_all(fd, piece)
            offset += length
        if sha256.hexdigest() != digest.sha256:
            raise SourceChanged("a file's content has changed since it was read first")

    def _mark(self, root_fd: int) -> None:
        """Of an archive that was made before there were marks; and of the folder of the studies, which may be mounted
        somewhere without the rest."""
        self._write_marker(root_fd)
        with _if_there(root_fd, keys.STUDIES.rstrip("/").encode("ascii")) as studies_fd:
            if studies_fd is not None:
                self._write_marker(studies_fd)

    def _write_marker(self, root_fd: int) -> bool:
        if _stat(root_fd, _MARKER) is not None:
            return False
        with files.temporary(root_fd, self._random_name()) as (fd, temporary):
            files.write_all(fd, markers.ARCHIVE_TEXT)
            os.fsync(fd)
            created = files.publish(root_fd, temporary, _MARKER)
        files.sync_folder(root_fd)
        return created

    def _walk(self, folder_fd: int, base: str, prefix: str) -> Iterator[StoredObject]:
        with os.scandir(folder_fd) as entries:
            # A folder sorts as its name with the slash, which is what its keys go on with.
            names = sorted(
                entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "")
                for entry in entries
                if _is_key_part(os.fsencode(entry.name))
            )
        for name in names:
            key = base + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    with localfiles.directory(folder_fd, name[:-1].encode("ascii")) as deeper:
                        yield from self._walk(deeper, key, prefix)
            elif key.startswith(prefix):
                seen = _stat(folder_fd, name.encode("ascii"))
                if seen is not None and stat.S_ISREG(seen.st_mode):
                    yield _stored(key, seen)


def _at_work(operation: str) -> AbstractContextManager[None]:
    return files.translated(operation, _ENDPOINT)


def _split(key: str) -> tuple[bytes, bytes]:
    """(folder below the root, name). Raises Permanent for a key that is no plain path downwards."""
    parts = key.encode("ascii", "replace").split(b"/")
    if not all(_is_key_part(part) for part in parts):
        raise Permanent("an object key is not a plain path or contains unusual characters", code="bad-key")
    return b"/".join(parts[:-1]), parts[-1]


def _is_key_part(name: bytes) -> bool:
    return _PART.match(name) is not None and name not in (b".", b"..") and not name.startswith(files.OWN)


def _folders(folder_fd: int, base: str, after: str) -> list[str]:
    """The next ones behind ``after``, ``_NAMES`` of them at most. Raises OSError."""
    with os.scandir(folder_fd) as entries:
        names = (
            f"{base}{entry.name}/"
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and _is_key_part(os.fsencode(entry.name))
        )
        return heapq.nsmallest(_NAMES, (name for name in names if name > after))


@contextmanager
def _if_there(root_fd: int, folder: bytes) -> Iterator[int | None]:
    """A descriptor of a folder below the root, None if it is not there."""
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(localfiles.directory(root_fd, folder))
        except FileNotFoundError:
            fd = None
        yield fd


def _stat(folder_fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _opened(folder_fd: int, name: bytes) -> os.stat_result | None:
    """As `_stat`, by opening it: where shares are slow, what stands under a name is remembered for a while, and only
    opening it asks the server."""
    try:
        with localfiles.regular_file(folder_fd, name) as fd:
            return os.fstat(fd)
    except localfiles.NotRegular:
        return None  # whatever it is, an object it is not
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise


def _stored(key: str, seen: os.stat_result) -> StoredObject:
    if not stat.S_ISREG(seen.st_mode):
        raise localfiles.NotRegular(errno.EINVAL, "not a regular file")
    return StoredObject(key=key, size_bytes=seen.st_size, modified_at=seen.st_mtime)


def _receipt(key: str, content: Content, *, created: bool) -> Receipt:
    return Receipt(key=key, size_bytes=content.digest.size_bytes, sha256=content.digest.sha256, created=created)
