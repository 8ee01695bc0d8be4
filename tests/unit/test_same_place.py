"""Another place comes to stand under the archive's address while the daemon runs: it takes and shows objects as the
archive would, and is gone, with all that it took, once the archive is back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.identity import ArchiveIdentity, require_identity
from dicomwatchd.archive.layout.audit_checkpoints import AuditCheckpoint
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.manifest import empty
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.audit import checkpoints
from dicomwatchd.audit.sealing import REST_STEPS, SEGMENT_SECONDS
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.errors import NotThere, OutOfReach, RequestRefused, StoreUnreliable, StudyErased
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import stages
from dicomwatchd.pipeline.erased import LOOK_SECONDS, NOTING_SECONDS
from dicomwatchd.pipeline.revision import Next
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling, Shipment
from tests.pieces import ARCHIVE_ID, IDENTITY, Pieces, at
from tests.simulation.tiny import instance
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_commitment import judged, pieces_of, receive
from tests.unit.test_ranges import answer, answering, partial

STUDY = Uid("1.2.1")
OTHER = ArchiveIdentity("0a7e57a0-0000-4000-8000-000000000002", "2026-01-01T00:00:00.000Z")
FILES = 12

#: What the other place has of an identity.
PLACES: dict[str, bytes | None] = {
    "made anew, empty": None,
    "another archive": OTHER.to_bytes(),
    "what is no archive": b"<html>welcome</html>",
    "what nobody can read": b"[" * 60000,
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


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    store = MemoryStore(capabilities=Capabilities(creates_only=True))
    pieces = Pieces(tmp_path / "site", store=store)
    pieces.memory = store
    yield pieces
    pieces.close()


def archived_elsewhere(root: Path) -> dict[str, list[bytes]]:
    """What another archive has that has archived the same study, too."""
    store = MemoryStore(capabilities=Capabilities(creates_only=True))
    pieces = Pieces(root, store=store)
    exported(pieces)
    pieces.run(2)
    pieces.close()
    mine, others = ARCHIVE_ID.encode(), OTHER.archive_id.encode()
    return {key: [one.replace(mine, others) for one in versions] for key, versions in store.versions.items()}


def erased_elsewhere() -> dict[str, list[bytes]]:
    erasure = Erasure(OTHER.archive_id, STUDY, 1, "2026-01-01T00:00:00Z", "a test", 0, "root", 101)
    return {erasure.key: [erasure.to_bytes()]}


def require_no_lasting_harm(pieces: Pieces, archive: dict[str, list[bytes]], contents: list[bytes]) -> None:
    """While another place is there, and then, once the archive is back."""
    for _ in range(3):
        pieces.ship()
        pieces.clock.advance(1000)
    assert pieces.log.events("study-parked") == []
    assert {one["code"] for one in pieces.log.events("study-delayed")} == {"not-there"}
    assert list(pieces.queue.holds.open(10)) == []
    exchange(pieces.memory, IDENTITY.to_bytes(), archive)
    pieces.run(4)
    assert pieces.left() == []
    pieces.require_nothing_lost(*contents)


def test_no_study_is_parked_for_the_manifest_of_another_archive(pieces: Pieces, tmp_path: Path) -> None:
    contents = exported(pieces)
    archive = exchange(pieces.memory, OTHER.to_bytes(), archived_elsewhere(tmp_path / "elsewhere"))
    require_no_lasting_harm(pieces, archive, contents)


def test_no_study_is_parked_for_what_another_place_does_not_keep(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = exported(pieces)
    archive = exchange(pieces.memory, None, {})
    verify = stages.verify

    def forgetful(*arguments: Any) -> None:
        if pieces.memory.signed is None:
            raise StoreUnreliable("the store does not keep what it is sent")
        verify(*arguments)

    monkeypatch.setattr(stages, "verify", forgetful)
    require_no_lasting_harm(pieces, archive, contents)


def test_no_study_is_parked_for_a_record_of_another_place_that_nobody_can_read(pieces: Pieces) -> None:
    contents = exported(pieces)
    archive = exchange(pieces.memory, None, {key: [b"{}"] for key in erased_elsewhere()})
    require_no_lasting_harm(pieces, archive, contents)


def test_what_was_erased_from_another_archive_is_not_erased_here(pieces: Pieces) -> None:
    contents = exported(pieces)
    archive = exchange(pieces.memory, OTHER.to_bytes(), erased_elsewhere())
    require_no_lasting_harm(pieces, archive, contents)
    assert pieces.queue.erasures.concerning([(STUDY, 1)]) == [(STUDY, 1)], "it is on record here"


def test_what_was_erased_meanwhile_from_another_archive_is_not_noted(pieces: Pieces) -> None:
    exported(pieces)
    pieces.run(2)
    exchange(pieces.memory, OTHER.to_bytes(), erased_elsewhere())
    pieces.clock.advance(NOTING_SECONDS + 1)
    pieces.context.erased.step()
    assert pieces.queue.erasures.concerning([(STUDY, 1)]) == [(STUDY, 1)], "it is on record here"


def test_what_was_erased_from_the_archive_itself_is_asked_for_once(pieces: Pieces) -> None:
    """Not for each of many files."""
    exported(pieces)
    pieces.memory.versions |= {**erased_elsewhere(), keys.IDENTITY: [IDENTITY.to_bytes()]}
    pieces.memory.signed = None
    pieces.memory.reads.clear()
    for _ in range(5):
        with pytest.raises(StudyErased):
            pieces.context.erased.require_none(STUDY)
    assert pieces.memory.reads.count(keys.IDENTITY) == 1
    pieces.clock.advance(LOOK_SECONDS + 1)
    exchange(pieces.memory, None, erased_elsewhere())
    with pytest.raises(NotThere):
        pieces.context.erased.require_none(STUDY)


def test_another_place_is_not_said_to_be_behind_the_catalogue(pieces: Pieces) -> None:
    """A copy of the archive that is not finished, say."""
    exported(pieces)
    pieces.run(2)
    for number in range(97, 100):
        copy = dict(pieces.memory.versions)
        (pieces.inbox / "A").mkdir(exist_ok=True)
        (pieces.inbox / "A" / f"IM{number}").write_bytes(instance(STUDY, "1.2.1.1", f"1.2.1.1.{number}", number))
        if number < 99:
            pieces.run(2)
    pieces.settle()
    exchange(pieces.memory, None, {key: data for key, data in copy.items() if "00003" not in key})
    pieces.ship()
    assert pieces.log.events("catalogue-ahead") == []
    assert {one["code"] for one in pieces.log.events("study-delayed")} == {"not-there"}


def test_a_study_of_which_nothing_is_left_does_not_end_on_the_word_of_another_place(pieces: Pieces) -> None:
    exported(pieces)

    def nothing(shipment: Shipment, *_: object) -> Next:
        exchange(pieces.memory, None, {})
        return Next(empty(ARCHIVE_ID, shipment.claim.study_uid))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "next_manifest", nothing)
        patch.setattr(stages, "purge", lambda *_: None)
        pieces.ship()
    assert {one["code"] for one in pieces.log.events("study-delayed")} == {"not-there"}


def test_what_the_archive_itself_says_parks_a_study(pieces: Pieces, tmp_path: Path) -> None:
    exported(pieces)
    pieces.memory.versions = archived_elsewhere(tmp_path / "elsewhere")
    for _ in range(3):
        pieces.ship()
        pieces.clock.advance(1000)
    assert [one["code"] for one in pieces.log.events("study-parked")] == ["foreign-manifest"]


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
    assert caught.value.endpoint == "memory"


def test_a_directory_is_one_endpoint(tmp_path: Path) -> None:
    """Else two backoffs are kept for it, and `status` shows both."""
    store = DirectoryStore(DirectorySettings(kind="directory", path=tmp_path / "archive"))
    with pytest.raises(NotThere) as of_the_store:
        store.head(keys.IDENTITY)
    store.initialise()
    with pytest.raises(NotThere) as of_the_place:
        require_identity(store, ARCHIVE_ID)
    assert of_the_place.value.endpoint == of_the_store.value.endpoint == "the archive's folder"


def test_a_bucket_is_one_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = partial(0, 9, 1000), answer("200 OK", OTHER.to_bytes())
    with answering(monkeypatch, False, *answers) as (store, server):
        with pytest.raises(OutOfReach) as of_the_store:
            list(store.read(keys.IDENTITY, offset_bytes=100, length_bytes=10))
        with pytest.raises(NotThere) as of_the_place:
            require_identity(store, ARCHIVE_ID)
    assert of_the_place.value.endpoint == of_the_store.value.endpoint == f"s3 at http://127.0.0.1:{server.port}"


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


def test_no_head_of_the_audit_chain_counts_that_went_to_another_place(pieces: Pieces) -> None:
    """Else segments are sealed past the newest head that the archive has, and it looks as if the chain were cut."""
    exported(pieces)
    pieces.run(2)
    pieces.parts.checkpoints.step()
    published = pieces.parts.checkpoints.published
    folder = pieces.inbox / "B"
    folder.mkdir()
    (folder / "IM1").write_bytes(instance(Uid("1.2.2"), "1.2.2.1", "1.2.2.1.1", 1))
    pieces.run(2)
    assert pieces.queue.audit.head().sequence > published > 0
    archive = exchange(pieces.memory, None, {})
    pieces.parts.checkpoints.step()
    assert pieces.parts.checkpoints.covered == published
    assert [one["code"] for one in pieces.log.events("audit-unpublished")] == ["not-there"]

    exchange(pieces.memory, IDENTITY.to_bytes(), archive)
    pieces.clock.advance(SEGMENT_SECONDS + 1)
    for _ in range(2 * REST_STEPS):
        pieces.parts.sealing.step()
    assert checkpoints.compare(pieces.queue.audit, pieces.store).outcome == "fits"
    pieces.parts.checkpoints.step()
    assert pieces.parts.checkpoints.covered == pieces.queue.audit.head().sequence
    assert pieces.parts.checkpoints.problem is None


@pytest.mark.parametrize("is_readable", [True, False])
def test_no_head_of_another_place_says_that_the_chain_was_cut(pieces: Pieces, is_readable: bool) -> None:
    exported(pieces)
    pieces.run(2)
    chain = pieces.queue.audit.head().chain_id
    further = AuditCheckpoint(chain, 10_000, "0" * 64, "2026-01-01T00:00:00Z")
    archive = exchange(pieces.memory, None, {further.key: [further.to_bytes() if is_readable else b"{}"]})
    pieces.parts.checkpoints.step()
    assert pieces.log.events("audit-cut") == []
    exchange(pieces.memory, IDENTITY.to_bytes(), archive)
    pieces.parts.checkpoints.step()
    assert pieces.parts.checkpoints.problem is None
    assert pieces.parts.checkpoints.covered == pieces.queue.audit.head().sequence


def test_where_nothing_may_be_read_a_study_is_parked_for_that(pieces: Pieces) -> None:
    """As where the archive's key is gone: it is no other place, and a person is to be told what is amiss."""
    exported(pieces)
    pieces.memory.fault = RequestRefused("the key is gone")
    pieces.run(4)
    [(_, code)] = [(one["study_uid"], one["code"]) for one in pieces.queue.reports.parked(10)]
    assert code == RequestRefused.code


def test_a_refusal_parks_no_study() -> None:
    with pytest.raises(NotThere):
        require_identity(MemoryStore(signed=IDENTITY.to_bytes(), fault=RequestRefused("refused")), ARCHIVE_ID)
