"""The archive, or a state, as an inbox: whatever path it turns up under, nothing in it is taken for an export, and no
object is deleted as a copy of itself."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomwatchd import markers
from dicomwatchd.answering import AlwaysAnswering
from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import Buffer, Standing
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.errors import Permanent
from dicomwatchd.model import FileIdentity, InstanceHeader, Uid
from dicomwatchd.pipeline.deletion import proof as proof_module
from dicomwatchd.pipeline.deletion.port import Stands
from dicomwatchd.pipeline.deletion.vetoes import own as own_module
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from dicomwatchd.queue.rows import LocalFile, Source
from tests.pieces import IDENTITY, Pieces, at
from tests.synthetic import Made, Maker
from tests.unit.uploading import hand_in


@dataclass
class House:
    """A daemon with an archive in a folder, and one study in it."""

    pieces: Pieces
    archive: Path
    store: DirectoryStore
    made: list[Made]

    def objects(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.archive)): path.read_bytes()
            for path in self.archive.rglob("*")
            if path.suffix in (".dcm", ".tar")
        }

    def quarantine(self) -> list[tuple[str, str]]:
        rows = self.pieces.queue.reports.quarantine(10)
        return [(os.path.relpath(row["path"], self.pieces.inbox), row["code"]) for row in rows]

    def kept(self) -> dict[str, str]:
        return {name: state for name, state in self.pieces.states().items() if state.startswith("kept")}


def house(root: Path, **options: object) -> House:
    archive = root / "archive"
    archive.mkdir(parents=True)
    store = DirectoryStore(DirectorySettings(kind="directory", path=archive))
    store.initialise()
    store.put(keys.IDENTITY, Buffer.of(IDENTITY.to_bytes()))
    pieces = Pieces(root, store=store, **options)  # type: ignore[arg-type]
    made = Maker(seed=3).ct_series(pieces.inbox / "DOE^JANE", slices=3, rows=16, columns=16)
    pieces.run()
    assert pieces.left() == []
    return House(pieces, archive, store, made)


@pytest.fixture(params=["instance", "bundled"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def a_house(tmp_path: Path, layout: str) -> Iterator[House]:
    found = house(tmp_path, bundling=Bundling(1 << 20, 1 << 23) if layout == "bundled" else None)
    assert len(found.objects()) == (3 if layout == "instance" else 1)
    yield found
    found.pieces.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[House]:
    found = house(tmp_path)
    yield found
    found.pieces.close()


def without_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a part of the tree that is mounted without the rest."""
    monkeypatch.setattr(markers, "sign_in", lambda *_: None)


# -- a scan does not go in --------------------------------------------------------------------------------------------


def test_the_archive_moved_below_an_inbox(a_house: House) -> None:
    """With a link in its old place, so that the store goes on."""
    held = a_house.objects()
    there = a_house.pieces.inbox / "deep" / "er" / "pacs"
    there.parent.mkdir(parents=True)
    a_house.archive.rename(there)
    a_house.archive.symlink_to(there)
    a_house.pieces.run(2)
    assert a_house.objects() == held
    assert a_house.quarantine() == [("deep/er/pacs/.dicomwatchd-archive", "own-tree")]
    assert a_house.pieces.intakes[0].own_trees == 1
    [entry] = a_house.pieces.log.events("inbox-own-tree")
    assert entry == {"inbox": "inbox1", "folder_count": 1}
    shutil.copytree(there, a_house.pieces.root / "moved", symlinks=True)
    a_house.archive.unlink()
    (a_house.pieces.root / "moved").rename(a_house.archive)
    shutil.rmtree(there)
    a_house.pieces.run(1)
    assert a_house.quarantine() == []
    assert a_house.pieces.intakes[0].own_trees == 0


@pytest.mark.parametrize("part", ["", "studies", "studies/X"])
def test_the_inbox_lies_in_the_archive(a_house: House, part: str) -> None:
    held = a_house.objects()
    study = next(iter((a_house.archive / "studies").iterdir())).name
    a_house.pieces.inbox.rmdir()
    a_house.pieces.inbox.symlink_to(a_house.archive / part.replace("X", study))
    a_house.pieces.run(2)
    assert a_house.objects() == held
    [(path, code)] = a_house.quarantine()
    assert code == "own-tree" and path in (".", ".dicomwatchd-archive")
    assert a_house.pieces.intakes[0].own_trees == 1


@pytest.mark.parametrize("marked", [True, False], ids=["with its mark", "as the first release left it"])
def test_a_state_below_an_inbox(plain: House, marked: bool) -> None:
    other = plain.pieces.inbox / "var" / "state"
    shutil.copytree(plain.pieces.state, other)
    if not marked:
        (other / ".dicomwatchd-state").unlink()
    Maker(seed=5).ct_series(other / "x", slices=1, rows=16, columns=16)
    plain.pieces.run(2)
    assert [code for _, code in plain.quarantine()] == ["own-tree"]
    assert len(list(other.rglob("*.dcm"))) + len(list((other / "x").iterdir())) >= 1


def test_the_archive_of_another_as_the_first_release_left_it(plain: House) -> None:
    """Known again by its identity and its studies; what it holds may be its only copy."""
    other = plain.pieces.inbox / "x"
    Maker(seed=7).ct_series(other / "studies" / "1.2", slices=2, rows=16, columns=16)
    (other / "archive.json").write_text('{"archive_id": "y"}')
    plain.pieces.run(2)
    assert plain.quarantine() == [("x/archive.json", "own-tree")]
    assert len(list((other / "studies" / "1.2").iterdir())) == 2


def test_a_file_that_is_merely_called_so_hides_nothing(plain: House) -> None:
    [made] = Maker(seed=7).ct_series(plain.pieces.inbox / "A", slices=1, rows=16, columns=16)
    (plain.pieces.inbox / "A" / "archive.json").write_text("{}")
    (plain.pieces.inbox / "A" / "state.db").write_text("not a database")
    (plain.pieces.inbox / "A" / "lock").touch()
    plain.pieces.run(2)
    assert not made.path.exists()


def test_a_mount_that_comes_while_the_daemon_runs_is_met_by_a_hint_too(plain: House) -> None:
    """An event's look begins in the midst of the tree."""
    there = plain.pieces.inbox / "x"
    held = plain.objects()
    plain.archive.rename(there)
    plain.archive.symlink_to(there)
    [intake] = plain.pieces.intakes
    deep = os.fsencode(next(there.rglob("*.dcm")).parent.relative_to(plain.pieces.inbox))
    for is_deep in (False, True):
        intake._schedule.next_scan = plain.pieces.clock.monotonic() + 1000
        intake.hint(deep, deep=is_deep)
        intake.step()
        plain.pieces.clock.advance(10)
        intake.step()
    assert all(row == "own-tree" for _, row in plain.quarantine())
    assert not [state for state in plain.pieces.states().values() if not state.startswith("quarantined")]
    assert plain.objects() == held


def test_what_was_known_of_a_folder_that_turns_out_to_be_an_archive_is_forgotten(plain: House) -> None:
    made = Maker(seed=7).ct_series(plain.pieces.inbox / "A" / "B", slices=2, rows=16, columns=16)
    plain.pieces.settle()
    assert len(plain.pieces.states()) == 2
    (plain.pieces.inbox / "A" / ".dicomwatchd-archive").touch()
    plain.pieces.scan()
    assert plain.pieces.states() == {".dicomwatchd-archive": "quarantined:own-tree"}
    plain.pieces.run(2)
    assert all(one.path.exists() for one in made)


def test_own_names_are_no_exports(plain: House) -> None:
    """A file that the store is just writing, in a tree without marks."""
    [made] = Maker(seed=7).ct_series(plain.pieces.inbox / "A", slices=1, rows=16, columns=16)
    temporary = made.path.rename(made.path.with_name(".dicomwatchd-tmp-0123"))
    plain.pieces.run(2)
    assert temporary.exists() and plain.pieces.states() == {}


# -- marks ------------------------------------------------------------------------------------------------------------


def test_a_released_archive_gets_its_marks_at_the_next_start(plain: House) -> None:
    (plain.archive / ".dicomwatchd-archive").unlink()
    plain.store.probe(keys.PROBE)
    for folder in (plain.archive, plain.archive / "studies"):
        assert (folder / ".dicomwatchd-archive").is_file()
    assert not [stored for stored in plain.store.listing("") if "dicomwatchd" in stored.key]


def test_a_state_gets_its_mark_when_it_is_opened(plain: House) -> None:
    mark = plain.pieces.state / ".dicomwatchd-state"
    mark.unlink()
    plain.pieces.restart()
    assert mark.is_file()


@pytest.mark.parametrize("part", ["", "studies"])
def test_upload_refuses_an_archive(plain: House, part: str) -> None:
    seen_from_elsewhere = plain.pieces.root / "elsewhere"
    plain.archive.rename(seen_from_elsewhere)
    for folder in (seen_from_elsewhere / part, plain.pieces.state):
        with pytest.raises(Permanent) as refused:
            hand_in(plain.pieces.parts.uploads, folder, delete=True)
        assert refused.value.code == "own-tree"
    seen_from_elsewhere.rename(plain.archive)


# -- a proof is refused -----------------------------------------------------------------------------------------------


def in_the_inbox(house: House, how: str) -> None:
    objects = list((house.archive / "studies").rglob("*.dcm"))
    place = house.pieces.inbox / "A"
    place.mkdir()
    for number, path in enumerate(objects):
        match how:
            case "hard link":
                os.link(path, place / f"IM{number}")
            case "copy":
                shutil.copy(path, place / f"IM{number}")


@pytest.mark.parametrize("rule", [AfterArchive(delete=True), AfterArchive(delete=False)], ids=["delete", "keep"])
def test_a_hard_link_of_an_object_is_no_copy(plain: House, rule: AfterArchive) -> None:
    held = plain.objects()
    plain.pieces.after_archive = rule
    in_the_inbox(plain, "hard link")
    plain.pieces.run(3)
    assert plain.objects() == held
    assert len(plain.pieces.left()) == 3
    assert plain.kept() == {f"IM{n}": "kept:own-object" for n in range(3)}
    [entry] = plain.pieces.log.events("kept-own-object")
    assert entry["files"] == 3
    study = next(key.split("/")[1] for key in held)
    shown = plain.pieces.queue.reports.show(study)
    assert shown is not None and shown["kept"][0]["code"] == "own-object"


def test_a_copy_of_an_object_goes(plain: House) -> None:
    in_the_inbox(plain, "copy")
    plain.pieces.run(3)
    assert plain.pieces.left() == [] and len(plain.objects()) == 3


def test_the_archive_without_its_marks(plain: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it, mounted into the inbox without the rest."""
    without_marks(monkeypatch)
    held = plain.objects()
    there = plain.pieces.inbox / "x"
    plain.archive.rename(there)
    plain.archive.symlink_to(there)
    plain.pieces.run(3)
    assert plain.objects() == held
    assert set(plain.kept().values()) == {"kept:own-object"} and len(plain.kept()) == 3


class OtherNumbers(DirectoryStore):
    """A second mount of the share: the same files with other device and inode numbers."""

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        other = os.stat_result((found.st_mode, found.st_ino + 1000, *found[2:]))
        return super().standing(key, path, other)


class OtherNames(OtherNumbers):
    """And the names tell nothing either."""

    def standing(self, key: str, path: bytes, found: os.stat_result) -> Standing:
        return super().standing(key, b"IM1", found)


@pytest.mark.parametrize("kind", [OtherNumbers, OtherNames])
def test_a_second_mount_of_the_share(plain: House, monkeypatch: pytest.MonkeyPatch, kind: type[DirectoryStore]) -> None:
    without_marks(monkeypatch)
    held = plain.objects()
    there = plain.pieces.inbox / "x"
    plain.archive.rename(there)
    plain.archive.symlink_to(there)
    plain.pieces.close()
    plain.pieces.store = kind(DirectorySettings(kind="directory", path=plain.archive))
    plain.pieces.start()
    plain.pieces.run(3)
    assert plain.objects() == held
    assert set(plain.kept().values()) == {"kept:own-object"} and len(plain.kept()) == 3


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (b"x/1.2.3/" + b"a" * 64 + b".dcm", True),
        (b"1.2.3/" + b"a" * 64 + b"-2.dcm", True),
        (b"DOE/" + b"a" * 64 + b".dcm", False),
        (b"1.2.3/" + b"a" * 63 + b".dcm", False),
        (b"1.2.3/IM1", False),
    ],
)
def test_an_object_of_another_layout_is_known_by_its_path(plain: House, path: bytes, is_one: bool) -> None:
    key = next(iter(plain.objects()))
    found = (plain.pieces.state / "state.db").stat()
    assert plain.store.standing(key, path, found) is (Standing.ITSELF if is_one else Standing.APART)


def test_a_file_with_the_object_s_own_name_is_taken_for_it(plain: House) -> None:
    key = next(iter(plain.objects()))
    found = (plain.pieces.state / "state.db").stat()
    assert plain.store.standing(key, os.path.basename(key).encode(), found) is Standing.ITSELF


def test_what_is_handed_in_and_is_the_archive_counts_as_no_copy(plain: House) -> None:
    in_the_inbox(plain, "hard link")
    folder = plain.pieces.root / "handed-in"
    (plain.pieces.inbox / "A").rename(folder)
    uploads = plain.pieces.parts.uploads
    name = hand_in(uploads, folder)
    for _ in range(40):
        for intake in plain.pieces.parts.sources.every_intake():
            intake.scan_soon()
            intake.step()
        plain.pieces.ship()
        plain.pieces.clock.advance(3)
        uploads.tick()
    result = uploads.progress(name)
    assert result["done"] and not result["deletable"]
    assert len(result["failed"]) == 3 and result["verified"] == 0


def link_it(house: House) -> None:
    """The copy in the inbox is exchanged for the object itself, times and all."""
    [path] = [p for p in house.pieces.left() if p.name == "IM0"]
    os.link(path, house.archive / "spare")
    sha256 = next(m.sha256 for m in house.made if m.sha256 == _sha256(path))
    [target] = (house.archive / "studies").rglob(f"{sha256}.dcm")
    target.unlink()
    os.link(house.archive / "spare", target)
    (house.archive / "spare").unlink()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


#: Right before: (target, function). Linking moves the ctime, so the file is found changed; it must never go.
MOMENTS: dict[str, Callable[[House], tuple[object, str]]] = {
    "before anything is looked at": lambda _: (own_module, "among"),
    "before it is put on record": lambda house: (type(house.pieces.queue.deletions), "authorise"),
    "before it is staged": lambda _: (proof_module, "stage_file"),
    "before it is compared": lambda _: (proof_module, "_differs"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_becomes_the_object_in_the_midst_of_it(plain: House, moment: str) -> None:
    in_the_inbox(plain, "copy")
    held = plain.objects()
    plain.pieces.settle()
    target, name = MOMENTS[moment](plain)
    done: list[bool] = []

    def change() -> None:
        if not done and [p for p in plain.pieces.left() if p.name == "IM0"]:
            done.append(True)
            link_it(plain)

    for when in (1, 2, 3):
        with at(target, name, change, when=when):
            plain.pieces.ship()
    assert done
    plain.pieces.run(3)
    assert plain.objects() == held


@pytest.mark.parametrize("when", ["among", "staged"])
def test_the_archive_comes_below_the_inbox_while_a_study_is_shipped(
    plain: House, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very folder that is being shipped turns out to be an archive's, and its files are the objects."""
    in_the_inbox(plain, "copy")
    held = plain.objects()
    plain.pieces.settle()

    def mark() -> None:
        (plain.pieces.inbox / "A" / ".dicomwatchd-archive").touch()

    target, name = (own_module, "among") if when == "among" else (type(plain.pieces.queue.deletions), "authorise")
    with at(target, name, mark):
        plain.pieces.ship()
    assert len(plain.pieces.left()) == 4 and plain.objects() == held
    assert set(plain.kept().values()) == {"kept:own-object"}


def test_an_object_that_has_gone_is_no_reason_to_keep_a_file_for_good(plain: House) -> None:
    in_the_inbox(plain, "copy")
    plain.pieces.settle()
    [taken, *_] = (plain.archive / "studies").rglob("*.dcm")
    with at(type(plain.pieces.queue.deletions), "authorise", taken.unlink):
        plain.pieces.ship()
    assert plain.kept() == {}
    plain.pieces.clock.advance(1000)
    plain.pieces.run(4)
    assert plain.pieces.left() == [] and len(plain.objects()) == 3


@dataclass
class Apart:
    """A policy by which the files of one source may go at once, and are no objects of the archive."""

    of: Source

    def source(self, file: LocalFile) -> Source:
        return self.of

    def pinned(self, file: LocalFile) -> Source:
        return self.of

    def due_at(self, file: LocalFile) -> float | None:
        return 0.0

    def needs_lease(self, file: LocalFile) -> bool:
        return False

    def standing(self, file: LocalFile) -> Stands | None:
        return lambda _: Standing.APART


def test_a_page_of_files_is_looked_at_with_signs_of_life(tmp_path: Path) -> None:
    """Whether each is the archive's own object: on a slow share that takes longer than an inbox may be silent."""
    header = InstanceHeader(Uid("1.2.1"), Uid("1.2.1.1"), Uid("1.2.1.1.1"), Uid("1.2.2"), Uid("1.2.3"))
    source, files = Source(1, "ct", os.fsencode(tmp_path), "inbox", True), []
    for number in range(3):
        path = tmp_path / f"IM{number}"
        path.write_bytes(b"x")
        identity = FileIdentity.of(path.stat())
        name = os.fsencode(path.name)
        files.append(LocalFile(number, 1, b"", name, identity, header, 1, None, None, None, None, None))
    signs: list[int] = []

    class Watched(AlwaysAnswering):
        def beat(self) -> None:
            signs.append(1)

    found = own_module.among(files, map, Apart(source), Watched())
    assert found == [] and len(signs) >= len(files)
