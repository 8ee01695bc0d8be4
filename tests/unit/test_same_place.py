"""Another place comes to stand under the archive's address while the daemon runs: it takes and shows objects as the
archive would, and is gone, with all that it took, once the archive is back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.identity import ArchiveIdentity, require_identity
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.audit.sealing import REST_STEPS, SEGMENT_SECONDS
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.errors import NotThere, RequestRefused
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from tests.pieces import ARCHIVE_ID, IDENTITY, Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_commitment import judged, pieces_of, receive

STUDY = Uid("1.2.1")
OTHER = ArchiveIdentity("0a7e57a0-0000-4000-8000-000000000002", "2026-01-01T00:00:00.000Z")
FILES = 12

#: What the other place has of an identity.
PLACES: dict[str, bytes | None] = {
    "made anew, empty": None,
    "another archive": OTHER.to_bytes(),
    "what is no archive": b"<html>welcome</html>",
}


def exchange(store: MemoryStore, place: bytes | None, versions: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """Another place under its address, or the archive again; what was there."""
    before, store.versions, store.signed = store.versions, versions, place
    return before


def exported(pieces: Pieces) -> list[bytes]:
    folder = pieces.inbox / "A"
    folder.mkdir()
    contents = [instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number) for number in range(1, FILES + 1)]
    for number, content in enumerate(contents):
        (folder / f"IM{number}").write_bytes(content)
    pieces.settle()
    return contents


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("moment", ["upload", "verify", "record"])
@pytest.mark.parametrize("bundling", [None, Bundling(1 << 16, 1 << 20)], ids=["instances", "bundles"])
def test_nothing_goes_on_the_word_of_another_place(
    tmp_path: Path, place: str, moment: str, bundling: Bundling | None
) -> None:
    store = MemoryStore(capabilities=Capabilities(creates_only=True))
    pieces = Pieces(tmp_path, store=store, bundling=bundling)
    pieces.memory = store
    contents = exported(pieces)
    archive = store.versions
    with at(stages, moment, lambda: exchange(store, PLACES[place], {})) as calls:
        for _ in range(3):
            pieces.ship()
            pieces.clock.advance(1000)
    assert calls[0]
    assert len(list((pieces.inbox / "A").glob("IM*"))) == FILES, "files went, and only the other place had them"
    assert {one["code"] for one in pieces.log.events("study-delayed")} <= {"not-there", "object-lost"}

    exchange(store, IDENTITY.to_bytes(), archive)  # mounted again: all is as it should be, by itself
    pieces.run(4)
    assert pieces.left() == []
    pieces.require_nothing_lost(*contents)
    pieces.close()


def test_kept_files_are_no_word_either(tmp_path: Path) -> None:
    """Whoever has handed in a folder is told that it may be deleted, once its files are at their end."""
    store = MemoryStore(capabilities=Capabilities(creates_only=True))
    pieces = Pieces(tmp_path, store=store, after_archive=AfterArchive(delete=False))
    pieces.memory = store
    exported(pieces)
    exchange(store, None, {})
    for _ in range(3):
        pieces.ship()
        pieces.clock.advance(1000)
    assert "kept" not in set(pieces.states().values())
    pieces.close()


def test_the_folder_under_an_unmounted_share_is_an_archive_of_its_own(tmp_path: Path) -> None:
    """Somebody ran `archive init` before the share was mounted, and again afterwards: when it is unmounted the first
    one comes to light."""
    root, away = tmp_path / "archive", tmp_path / "away"
    store = DirectoryStore(DirectorySettings(kind="directory", path=root))
    store.initialise()
    pieces = Pieces(tmp_path / "site", store=store)
    contents = exported(pieces)
    root.rename(away)
    store.initialise()
    (root / keys.IDENTITY).write_bytes(OTHER.to_bytes())
    for _ in range(3):
        pieces.ship()
        pieces.clock.advance(1000)
    left = list((pieces.inbox / "A").glob("IM*"))
    shutil.rmtree(root)
    away.rename(root)
    assert sorted(one.read_bytes() for one in left) == sorted(contents), (
        "files went, and only the hidden folder has them"
    )
    pieces.run(4)
    assert pieces.left() == []
    assert sorted(one.read_bytes() for one in root.rglob("*.dcm")) == sorted(contents)
    pieces.close()


def _cold(store: MemoryStore) -> None:
    store.cold[keys.IDENTITY] = "DEEP_ARCHIVE"


@pytest.mark.parametrize("change", [lambda store: None, _cold], ids=["as it was", "in cold storage"])
def test_the_archive_itself(change: Callable[[MemoryStore], None]) -> None:
    """A rule of the bucket may have moved everything: nobody can read it, and no place that has just come to be has
    anything there."""
    store = MemoryStore({keys.IDENTITY: [IDENTITY.to_bytes()]})
    change(store)
    require_identity(store, ARCHIVE_ID)


@pytest.mark.parametrize("place", PLACES)
def test_another_place(place: str) -> None:
    with pytest.raises(NotThere) as caught:
        require_identity(MemoryStore(signed=PLACES[place]), ARCHIVE_ID)
    assert caught.value.endpoint == "memory at memory"


def test_no_modality_is_told_that_another_place_holds_what_it_has_sent(tmp_path: Path) -> None:
    pieces = pieces_of(tmp_path, store=MemoryStore(capabilities=Capabilities(creates_only=True)))
    made = receive(pieces)
    pieces.run(2)
    assert judged(pieces, made) == ["committed"] * 3
    assert isinstance(pieces.store, MemoryStore)
    pieces.store.signed = None  # a copy of some of it, say
    with pytest.raises(NotThere):
        judged(pieces, made)
    pieces.close()


def test_no_entry_of_the_audit_chain_goes_for_what_another_place_holds(tmp_path: Path) -> None:
    store = MemoryStore(capabilities=Capabilities(creates_only=True))
    pieces = Pieces(tmp_path, store=store)
    exported(pieces)
    pieces.run(2)
    pieces.clock.advance(SEGMENT_SECONDS + 1)
    pieces.parts.checkpoints.step()
    entries = pieces.queue.audit.head().sequence
    archive = exchange(store, None, {})

    def sealed() -> int:
        for _ in range(2 * REST_STEPS):
            pieces.parts.sealing.step()
        with pieces.queue._database.read() as db:
            return entries - int(db.execute("SELECT count(*) FROM audit").fetchone()[0])

    assert entries and sealed() == 0
    exchange(store, IDENTITY.to_bytes(), archive)
    assert sealed() == entries
    pieces.close()


def test_a_refusal_parks_no_study() -> None:
    with pytest.raises(NotThere):
        require_identity(MemoryStore(signed=IDENTITY.to_bytes(), fault=RequestRefused("refused")), ARCHIVE_ID)
