"""What must hold after every attack, looked up in files and databases, past the program's own reports."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config.archive import DirectorySettings, SqliteSettings
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import open_queue_to_read
from tests.faults.figures import Figures
from tests.unpacking import unpacked

MOST_LOOKS = 1000


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def regular_files(*folders: Path) -> list[Path]:
    return [p for folder in folders for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]


def digests_in(folders: Iterable[Path]) -> set[str]:
    """Of every file in these folders, private directories included, while daemons are at work on them: a file that is
    given another name may be missed by one look and not by the next, so they are looked at until two looks agree."""
    places = list(folders)
    before: dict[Path, str] | None = None
    for _ in range(MOST_LOOKS):
        try:
            found = {path: digest(path) for path in regular_files(*places)}
        except OSError:  # it has vanished, or its folder has, since it was listed
            continue
        if found == before:
            return set(found.values())
        before = found
        time.sleep(0.01)
    raise AssertionError("the inboxes do not hold still")


def objects(archive: Path) -> dict[Path, str]:
    """Every object with the SHA-256 of its bytes, temporary files left out."""
    studies = archive / "studies"
    return {p: digest(p) for p in studies.rglob("*") if p.suffix in (".dcm", ".tar")} if studies.is_dir() else {}


def in_bundles(archive: Path) -> set[str]:
    """The SHA-256 of everything in a bundle that is what its key says."""
    bundles = [path for path, stored in objects(archive).items() if path.suffix == ".tar" and stored in path.name]
    return {hashlib.sha256(one).hexdigest() for path in bundles for one in unpacked(path.read_bytes())}


def somewhere(wanted: Iterable[str], inboxes: Iterable[Path], archive: Path) -> set[str]:
    """The digests of ``wanted`` that are neither in an inbox, private directories included, nor in the archive. First
    the inboxes, then the archive: what goes from the one to the other meanwhile is met there."""
    missing = set(wanted) - digests_in(inboxes)
    return missing - set(objects(archive).values()) - in_bundles(archive) if missing else missing


@dataclass(frozen=True)
class Embedded:
    """The embedded archive of a site, opened to look at it."""

    path: Path

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(DirectorySettings(kind="directory", path=self.path))

    @property
    def catalogue(self) -> SqliteCatalogue:
        return SqliteCatalogue(SqliteSettings(kind="sqlite", path=self.path / "catalogue.db"))

    def manifest(self, study: str) -> Manifest:
        found = lineage.current(self.store, Uid(study))
        assert found is not None, "the archive holds no manifest of the study"
        return found

    def require_whole(self, study: str, wanted: Iterable[str], *, revision: int | None = 1) -> Manifest:
        """Everything in ``wanted`` can be fetched by the manifest, which the catalogue agrees with."""
        manifest = self.manifest(study)
        content: Counter[str] = Counter()
        for item in manifest.instances:
            data = (self.path / item.key).read_bytes()
            if item.is_in_bundle:
                data = data[item.offset_bytes : item.offset_bytes + item.size_bytes]
            stored = hashlib.sha256(data).hexdigest()
            assert stored == item.sha256, "the manifest names an object that holds other bytes"
            content[stored] += 1
        missing = set(wanted) - set(content)
        assert not missing, f"{len(missing)} files cannot be fetched"
        if revision is not None:
            assert manifest.revision == revision, f"revision {manifest.revision}, expected {revision}"
        assert self.catalogue.get(Uid(study)) == manifest.record(), "catalogue and manifest differ"
        for path, stored in objects(self.path).items():
            assert path.name.startswith(stored), "an object's key names other bytes than it holds"
        return manifest


def require_whole_audit(state: Path, deleted: Iterable[str]) -> Counter[str]:
    """The chain is whole, and each of these digests was authorised before it was deleted. How many entries of each
    kind there are."""
    queue = open_queue_to_read(state, SystemClock())
    assert queue is not None
    try:
        assert queue.audit.broken_at() is None, "the audit chain is broken"
        entries = [entry for entry, _ in queue.audit._all()]
    finally:
        queue.close()
    authorised: set[str] = set()
    gone: set[str] = set()
    for entry in entries:
        if entry.body["kind"] == "authorised":
            authorised.add(entry.body["sha256"])
        elif entry.body["kind"] == "deleted":
            assert entry.body["sha256"] in authorised, "a file was deleted without an entry that allows it"
            gone.add(entry.body["sha256"])
    missing = set(deleted) - gone
    assert not missing, f"{len(missing)} deletions are not on record"
    return Counter(entry.body["kind"] for entry in entries)


def report(name: str, what: str, *, tried: int, **details: Any) -> None:
    """Figures of a test in which nothing was lost and all came to its end, or it would not have come this far."""
    Figures(name, what, tried=tried, details=details).write()
