"""Where a simulated daemon meets the world: hooks in the state, in the file system's part of a deletion, in listings
and leases. Each goes to the process that is at work; there may be two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast
from unittest.mock import patch

from dicomwatchd import filebytes, localfiles
from dicomwatchd.archive.stores.port import Standing
from dicomwatchd.errors import StateUnavailable
from dicomwatchd.intake import comparison, scan, take, traversal
from dicomwatchd.intake.folder import mounts, presence
from dicomwatchd.intake.scan import Globs, Listing
from dicomwatchd.model import FileIdentity
from dicomwatchd.pipeline import local
from dicomwatchd.pipeline.deletion import batch, proof
from dicomwatchd.pipeline.deletion.staging import recover
from dicomwatchd.pipeline.deletion.staging import staged as staging
from dicomwatchd.pipeline.deletion.staging.staged import StagingFolders
from dicomwatchd.pipeline.deletion.vetoes import own, unleased
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.rows import LocalFile, Source, Transition
from tests.simulation.chance import Fate
from tests.simulation.folders import Folders


class Deleting(Protocol):
    """What a process is told of its deletions."""

    def deleting(self, proof_of_it: proof.DeletionProof) -> AbstractContextManager[None]:
        """Entered when it is about to delete a file."""
        ...

    def purging(self) -> None:
        """It is about to ask whether the archive's objects stay, and then to delete some files."""
        ...

    def unlink(self, name: bytes, *, dir_fd: int) -> None:
        """It calls os.unlink on a patient's file."""
        ...


class HookedDatabase(Database):
    """Every transaction is a place where the process may be killed, before, within and after, or the disk be full."""

    def __init__(self, inner: Database, fate: Fate, announce: Callable[[Transition], None]) -> None:
        super().__init__(inner._connection, inner._lock_fd, announce)
        self._connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
        self._fate = fate

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._fate.at("db")
        if self._fate.strikes("db-full", self._fate.plan.transient_rate / 8):
            raise StateUnavailable(
                "the state database cannot be written at the moment", code="state-full", endpoint="state"
            )
        with super().write() as transaction:
            yield transaction
            self._fate.at("db.commit", actors=False)
        self._fate.at("db.done")


class _HookedOs:
    """`os` with some calls replaced."""

    def __init__(self, **replaced: Callable[..., Any]) -> None:
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _Device:
    """The device number of everything, which is another one after each remount. The number is told in some places as
    the system gives it, in others in a text, and is translated once in each."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._true = folders.roots[0].stat().st_dev

    def now(self, device: int) -> int:
        return device + 100_000 * self._folders.mounts if device == self._true else device

    def of(self, real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def call(*arguments: Any, **named: Any) -> os.stat_result:
            found = real(*arguments, **named)
            numbers = list(found)
            numbers[2] = self.now(found.st_dev)
            times = {name: getattr(found, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
            return os.stat_result(numbers, times)

        return call

    def of_identity(self, real: Callable[[os.stat_result], FileIdentity]) -> Callable[[os.stat_result], FileIdentity]:
        def of(found: os.stat_result) -> FileIdentity:
            identity = real(found)
            return replace(identity, dev=self.now(identity.dev))

        return of

    def renumber(self, listing: Listing) -> None:
        for part in (listing.files, listing.special):
            for name, identity in part.items():
                device, _, rest = identity.partition(":")
                part[name] = f"{self.now(int(device))}:{rest}"


class _VirtualTime:
    """`time` as pipeline.deletion.staging sees it."""

    def __init__(self, fate: Fate) -> None:
        self.monotonic, self.sleep = fate.clock.monotonic, fate.clock.advance


def patched(stack: ExitStack, fate: Fate, folders: Folders, at_work: Callable[[], Deleting]) -> None:
    """Until ``stack`` is left; ``at_work`` tells the process that has called."""

    def hooked(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            fate.at(name, hot=True)
            result = real(*arguments)
            fate.at(f"{name}.done", hot=True)
            return result

        return call

    def hooked_named(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            fate.at(name, hot=True)
            return real(*arguments, **named)

        return call

    def aimed(
        opened: local.Folders,
        places: StagingFolders,
        source: Source,
        file: LocalFile,
        proof_of_it: proof.DeletionProof,
        **rest: Any,
    ) -> proof.Deleting:
        """As `delete_on_proof`; whenever it is at work, the simulation knows at which file."""
        path = Path(os.fsdecode(b"/".join((source.path, file.dir, file.name))))
        inner = proof.delete_on_proof(opened, places, source, file, proof_of_it, **rest)

        def at_it(step: Callable[[], Standing]) -> Standing:
            before, folders.aim = folders.aim, (path, file.identity.inode)
            try:
                with at_work().deleting(proof_of_it):
                    fate.at("delete", hot=True)
                    return step()
            finally:
                folders.aim = before

        try:
            stands = at_it(inner.__next__)
            try:
                yield stands
            except BaseException as error:  # noqa: BLE001  handed on to the deletion
                thrown = error
                at_it(lambda: inner.throw(thrown))
            else:
                at_it(inner.__next__)
        except StopIteration as end:
            return cast("str | None", end.value)
        raise AssertionError("a deletion has failed twice")

    def sorted_scan(directory_fd: int, parent: bytes, globs: Globs, *more: Any) -> Listing:
        found = real_scan(directory_fd, parent, globs, *more)
        if fate.more.remounts:
            device.renumber(found)
        for part in fields(found):
            value = getattr(found, part.name)
            if isinstance(value, dict | list):
                setattr(found, part.name, dict(sorted(value.items())) if isinstance(value, dict) else sorted(value))
        return found

    def counted(*arguments: Any, **named: Any) -> Any:
        folders.reads += 1
        return take.take(*arguments, **named)

    def among(*arguments: Any) -> Any:
        at_work().purging()
        return real_among(*arguments)

    @contextmanager
    def no_lease(fd: int) -> Iterator[bool]:
        yield False

    def no_strict_rename(*_: object) -> None:
        raise localfiles.NoStrictRename(22, "no strict rename")

    def put(modules: tuple[ModuleType | type, ...], name: str, replacement: object) -> None:
        for module in modules:
            stack.enter_context(patch.object(module, name, replacement))

    real_scan, real_among = scan.scan_directory, own.among
    put((own,), "among", among)
    put((scan, traversal), "scan_directory", sorted_scan)
    put((comparison,), "take", counted)
    put((batch,), "delete_on_proof", aimed)
    numbered: dict[str, Callable[..., Any]] = {}
    if fate.more.remounts:
        device = _Device(folders)
        numbered = {"fstat": device.of(os.fstat), "stat": device.of(os.stat)}
        put((recover, mounts, presence), "os", _HookedOs(**numbered))
        put((FileIdentity,), "of", device.of_identity(FileIdentity.of))
    put((proof,), "os", _HookedOs(unlink=lambda name, *, dir_fd: at_work().unlink(name, dir_fd=dir_fd), **numbered))
    put((proof,), "sha256_of", hooked("compare", filebytes.sha256_of))
    put((staging,), "rename_to_private", hooked("set-aside", localfiles.rename_to_private))
    put((staging,), "rename_noreplace", hooked("put-back", localfiles.rename_noreplace))
    put((staging,), "time", _VirtualTime(fate))
    if not fate.plan.leases:
        put((proof, staging, take, unleased), "read_lease", no_lease)
    if not fate.more.strict_rename:
        put((localfiles,), "_renameat2", no_strict_rename)
        put((localfiles,), "os", _HookedOs(rename=hooked_named("rename", os.rename)))
