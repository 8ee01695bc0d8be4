"""Where a simulated daemon meets the world: hooks in the state, in the file system's part of a deletion, in listings
and leases. Each goes to the process that is at work; there may be two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from unittest.mock import patch

from dicomwatchd import localfiles
from dicomwatchd.errors import Transient
from dicomwatchd.intake import inbox as inboxes
from dicomwatchd.intake import scan, take
from dicomwatchd.intake.scan import Globs, Listing
from dicomwatchd.pipeline import aside, leases, local, proof, purge
from dicomwatchd.pipeline.aside import Places
from dicomwatchd.queue.rows import LocalFile, Source
from dicomwatchd.queue.schema import Database
from tests.simulation.chance import Fate
from tests.simulation.folders import Folders


class Deleting(Protocol):
    """What a process is told of its deletions."""

    def begins(self, proof_of_it: proof.DeletionProof, path: Path) -> None:
        """It is about to delete this file, the clock as it is."""
        ...

    def unlink(self, name: bytes, *, dir_fd: int) -> None:
        """It calls os.unlink on a patient's file."""
        ...


class HookedDatabase(Database):
    """Every transaction is a place where the process may be killed, before, within and after, or the disk be full."""

    def __init__(self, inner: Database, fate: Fate) -> None:
        super().__init__(inner._connection, inner._lock_fd)
        self._connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
        self._fate = fate

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._fate.at("db")
        if self._fate.strikes("db-full", self._fate.plan.transient_rate / 8):
            raise Transient("the state database cannot be written now", code="state-full", endpoint="state")
        with super().write() as connection:
            yield connection
            self._fate.at("db.commit", actors=False)
        self._fate.at("db.done")


class _HookedOs:
    """`os` with one call replaced."""

    def __init__(self, unlink: Callable[..., None]) -> None:
        self.unlink = unlink

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _VirtualTime:
    """`time` as pipeline.aside sees it."""

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

    def aimed(
        opened: local.Folders,
        places: Places,
        source: Source,
        file: LocalFile,
        proof_of_it: proof.DeletionProof,
        **rest: Any,
    ) -> str | None:
        before = folders.aim
        path = Path(os.fsdecode(b"/".join((source.path, file.dir, file.name))))
        at_work().begins(proof_of_it, path)
        folders.aim = (path, file.identity.inode)
        try:
            fate.at("delete", hot=True)
            return proof.delete_on_proof(opened, places, source, file, proof_of_it, **rest)
        finally:
            folders.aim = before

    def sorted_look(directory_fd: int, parent: bytes, globs: Globs) -> Listing:
        found = real_look(directory_fd, parent, globs)
        for part in fields(found):
            value = getattr(found, part.name)
            if isinstance(value, dict | list):
                setattr(found, part.name, dict(sorted(value.items())) if isinstance(value, dict) else sorted(value))
        return found

    @contextmanager
    def no_lease(fd: int) -> Iterator[bool]:
        yield False

    def no_strict_rename(*_: object) -> None:
        raise localfiles.NoStrictRename(22, "no strict rename")

    def put(modules: tuple[ModuleType, ...], name: str, replacement: object) -> None:
        for module in modules:
            stack.enter_context(patch.object(module, name, replacement))

    real_look = scan.look
    put((scan, inboxes), "look", sorted_look)
    put((purge,), "delete_on_proof", aimed)
    put((proof,), "os", _HookedOs(lambda name, *, dir_fd: at_work().unlink(name, dir_fd=dir_fd)))
    put((proof,), "sha256_of", hooked("compare", local.sha256_of))
    put((aside,), "rename_to_private", hooked("set-aside", localfiles.rename_to_private))
    put((aside,), "rename_noreplace", hooked("put-back", localfiles.rename_noreplace))
    put((aside,), "time", _VirtualTime(fate))
    if not fate.plan.leases:
        put((proof, aside, take, leases), "read_lease", no_lease)
    if not fate.more.strict_rename:
        put((localfiles,), "_renameat2", no_strict_rename)
