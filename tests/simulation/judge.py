"""What must hold after every step of a story, and what must have come of it in the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.fetch import Fetcher
from dicomwatchd.model import FileState, Uid
from dicomwatchd.queue.rows import DAMAGED, HELD
from tests.simulation import record
from tests.simulation.archive import OtherSite, Shelf, SimulatedCatalogue, part
from tests.simulation.chance import Fate, Violation
from tests.simulation.folders import Folders
from tests.simulation.process import Process

T = TypeVar("T")


class Judge:
    def __init__(
        self,
        root: Path,
        fate: Fate,
        folders: Folders,
        shelf: Shelf,
        catalogue: SimulatedCatalogue,
        other: OtherSite,
        processes: list[Process],
    ) -> None:
        self._root, self._fate, self._folders, self._shelf = root, fate, folders, shelf
        self._catalogue, self._other, self._processes = catalogue, other, processes
        self._ever: dict[str, str] = {}  # key to the SHA-256 of what it holds
        self._held: dict[str, bytes] = {}
        self._seen: dict[tuple[int, int, int, int], bytes] = {}
        self._dues: dict[tuple[object, ...], float] = {}

    def after_a_step(self) -> None:
        """After every step: nothing is lost, nothing in the store has changed."""
        shelf = self._shelf
        while shelf.lost:
            self._ever.pop(shelf.lost.pop(), None)
        for key, digest in self._ever.items():
            if key not in shelf.objects:
                raise Violation("an object was deleted from the store")
            if shelf.objects[key] is not self._held[key] and _sha256(shelf.objects[key]) != digest:
                raise Violation("a key has held two contents")
        for key, data in shelf.objects.items():
            if key not in self._ever:
                self._ever[key], self._held[key] = _sha256(data), data
        found = self._contents(handed=True)
        for inode, data in self._folders.ledger.items():
            if found.get(inode) != data:
                what = "is gone" if inode not in found else "has changed"
                raise Violation(f"a file {what} that nobody has touched")
        if self._unlinked() - shelf.held():
            raise Violation("something was deleted that the store does not hold")
        self.due_times()
        if self._fate.more.upkeep:
            for process in self._processes:
                if process.queue is not None:
                    record.require_published(process.queue, shelf)

    def due_times(self) -> None:
        """When a kept file may go is decided once, whatever mounts and restarts come in between. One that was kept for
        another reason meanwhile is due when that is over."""
        for number, process in enumerate(self._processes):
            if process.queue is None or not any(self._fate.plan.keep_seconds):
                continue
            with process.queue._database.read() as db:
                rows = db.execute(
                    "SELECT source_id, dir, name, identity, due_at FROM files WHERE state = 'kept' AND due_at > 0"
                ).fetchall()
            for source_id, folder, name, identity, due_at in rows:
                file = (number, source_id, folder, name, identity.partition(":")[2])
                if due_at > self._dues.setdefault(file, due_at) and due_at > self._fate.clock.now():
                    raise Violation("the due time of a kept file has moved")

    def _contents(self, *, handed: bool) -> dict[int, bytes]:
        """By inode, everything in the inboxes, staged or not; and in the folders that were handed in, if asked."""
        found: dict[int, bytes] = {}
        todo = [os.fspath(self._folders.away.get(root, root)) for root in self._folders.roots]
        if handed:
            todo += [os.fspath(path) for path in self._folders.handed if path.is_dir()]
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        stat = entry.stat(follow_symlinks=False)
                        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                        if version not in self._seen:
                            self._seen[version] = Path(entry.path).read_bytes()
                        found[stat.st_ino] = self._seen[version]
        return found

    def in_the_end(self) -> None:
        """In the end everything has arrived, and everything agrees."""
        held = self._shelf.held()
        for data in self._contents(handed=False).values():
            digest = _sha256(data)
            if data in self._folders.valid and digest not in held and not self._waits_for_a_release(digest):
                raise Violation("a whole instance did not arrive")
        for _, digest in self._other.shipped:
            if digest not in held:
                raise Violation("what the other site had archived is gone")
        listed: set[str] = set()
        for study in sorted({key.split("/")[1] for key in self._shelf.objects if key.startswith(keys.STUDIES)}):
            listed |= self._study(Uid(study))
        for digest in {*self._unlinked(), *(digest for _, digest in self._other.shipped)} - listed:
            raise Violation(f"deleted, and in no manifest: {digest[:12]}")
        for process in self._processes:
            self._inboxes(process, listed)
            assert process.queue is not None
            if (broken := process.queue.audit.broken_at()) is not None:
                raise Violation(f"the audit chain is broken at {broken}")
            self._audit(process)
            if self._fate.more.upkeep:
                record.require_whole(process.queue, self._shelf)

    def _waits_for_a_release(self, digest: str) -> bool:
        """Archived, and kept because its study is held: it is proven anew when that is released, and only then does it
        show that somebody has meddled with its object."""
        if not self._shelf.meddled:
            return False
        for process in self._processes:
            assert process.queue is not None
            with process.queue._database.read() as db:
                row = db.execute(
                    "SELECT 1 FROM files WHERE state = 'kept' AND code = ? AND sha256 = ?", (HELD, digest)
                ).fetchone()
            if row is not None:
                return True
        return False

    def _unlinked(self) -> set[str]:
        return {digest for process in self._processes for digest in process.unlinked}

    def _inboxes(self, process: Process, listed: set[str]) -> None:
        """What is still there has a reason to be."""
        assert process.queue is not None
        with process.queue._database.read() as db:
            rows = db.execute("SELECT source_id, dir, name, state, code, study_uid FROM files").fetchall()
        states = {(row[0], row[1], row[2]): row[3:] for row in rows}
        held = {hold.study_uid for hold in process.queue.holds.open(1000)}
        for number, root in enumerate(self._folders.roots):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    relative = os.fsencode(os.path.relpath(folder, root))
                    state, code, study = states.get(
                        (number + 1, b"" if relative == b"." else relative, os.fsencode(name)), (None, None, None)
                    )
                    if path.is_symlink():
                        expected = {FileState.QUARANTINED}
                    else:
                        data = path.read_bytes()
                        is_kept = (
                            (self._fate.plan.keep_seconds[number] is None and code is None)
                            or (code == HELD and study in held)
                            or (code == DAMAGED and data not in self._folders.valid)
                        )
                        expected = {FileState.KEPT} if is_kept else set()
                        if data not in self._folders.valid and state != FileState.KEPT:
                            expected = {FileState.QUARANTINED}
                        elif _sha256(data) not in listed:
                            raise Violation("an archived file is in no manifest")
                    if state not in expected:
                        raise Violation(f"a file that is left is {state}, not {expected}: {relative!r} {name}")

    def _study(self, study: Uid) -> set[str]:
        manifest = lineage.current(self._shelf, study)
        if manifest is None:
            return set()  # objects of a study whose files a person took away again
        with_gaps = {key for key in self._shelf.objects if key.startswith(keys.manifests_prefix(study))}
        if len(with_gaps) != manifest.revision:
            raise Violation("the revisions of a study have gaps")
        for revision in range(1, manifest.revision + 1):
            manifests.load(self._shelf, keys.manifest(study, revision))
        if study in {uid for uid, _ in self._other.shipped}:
            self._other.record(study)
        record = self._catalogue.records.get(study)
        if record != manifest.record():
            raise Violation("the catalogue is not what the latest manifest says")
        for item in manifest.instances:
            data = self._shelf.objects.get(item.key, b"")
            if item.is_in_bundle:
                data = part(data, item.offset_bytes, item.size_bytes)
            if _sha256(data) != item.sha256:
                if item.key in self._shelf.meddled:
                    return {item.sha256 for item in manifest.instances}  # and the local file was taken away, too
                raise Violation("a manifest lists an object that does not hold its bytes")
            if item.version_id not in (None, self._shelf.versions[item.key]):
                if item.key in self._shelf.meddled and item.sha256 not in self._unlinked():
                    continue  # it was sent anew, and its local file changed by a person before that was on record
                raise Violation("a manifest names a version that is not the current one")
        counter = iter(range(1 << 30))
        fetcher = Fetcher(
            self._shelf,
            threads=1,
            token=lambda: f"{next(counter):016x}",
            jitter=lambda: 0.0,
            sleep=lambda _: None,
            monotonic=self._fate.clock.monotonic,
            executor=lambda _: _Inline(),
        )
        target = self._root / "fetched" / study
        report = fetcher.fetch(manifest, target)
        if not report.complete or report.bad_objects:
            raise Violation("fetch does not bring everything back")
        fetched = sorted(_sha256(p.read_bytes()) for p in target.rglob("*.dcm"))
        if fetched != sorted(item.sha256 for item in manifest.instances):
            raise Violation("fetch brings other bytes back than the manifest lists")
        return {item.sha256 for item in manifest.instances}

    def _audit(self, process: Process) -> None:
        """Each deletion was authorised before, once, and its end was written down once."""
        assert process.queue is not None
        authorised: dict[int, str] = {}
        deleted: list[str] = []
        for entry in record.entries(process.queue, self._shelf):
            if entry.body["kind"] in ("inbox-confirmed", "hold-released"):
                continue
            file, kind = entry.body["file"], entry.body["kind"]
            if kind == "authorised":
                if file in authorised:
                    raise Violation("a deletion is authorised while an earlier one is open")
                authorised[file] = entry.body["sha256"]
            elif authorised.pop(file, None) != entry.body["sha256"]:
                raise Violation(f"{kind}, and was not authorised")
            elif kind in ("deleted", "gone"):  # gone: after a crash, in a folder that nobody can look into any more
                deleted.append(entry.body["sha256"])
        if authorised:
            raise Violation("it is not on record how a deletion ended")
        for digest in set(process.unlinked):
            if deleted.count(digest) < process.unlinked.count(digest):
                raise Violation("a deletion is not on record")


class _Inline(Executor):
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  as an executor does
            future.set_exception(error)
        return future


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
