"""A DICOMDIR is archived with each study that it lists, and is never taken for an image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof.verification import verify
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.errors import BadManifest
from dicomwatchd.model import Uid
from dicomwatchd.pipeline import exports
from tests.discs import export
from tests.pieces import Pieces
from tests.synthetic import Made, Maker
from tests.unit.memory_archive import MemoryStore


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def key_of(made: list[Made]) -> str:
    return keys.export(Uid(made[0].study_uid), made[-1].sha256)


def test_it_is_archived_with_each_study_and_stays_in_the_inbox(pieces: Pieces) -> None:
    made = export(pieces, studies=2)
    content = made[-1].path.read_bytes()
    pieces.run()
    assert made[-1].path.read_bytes() == content
    for study in {one.study_uid for one in made[:-1]}:
        [one] = pieces.manifest(study).exports
        assert (one.key, one.sha256, one.size_bytes) == (
            keys.export(Uid(study), made[-1].sha256),
            made[-1].sha256,
            len(content),
        )
        assert (one.original_path, one.inbox) == ("CD/DICOMDIR", "inbox1")
        assert b"".join(pieces.store.read(one.key)) == content
        record = pieces.catalogue.get(Uid(study))
        assert record is not None and record.instances == 3, "it is no instance"


def test_a_later_revision_keeps_it_and_a_changed_one_is_beside_it(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    other = export(pieces, slices=5, folder="CD2")
    made[-1].path.unlink()
    pieces.run()
    found = pieces.manifest(made[0].study_uid)
    assert found.revision == 2 and {one.sha256 for one in found.exports} == {made[-1].sha256, other[-1].sha256}
    assert Manifest.from_bytes(found.to_bytes()) == found


def test_one_that_cannot_be_read_any_more_holds_up_nothing(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.settle()
    made[-1].path.write_bytes(made[-1].path.read_bytes() + b"\0")
    pieces.ship()
    found = pieces.manifest(made[0].study_uid)
    assert len(found.instances) == 3 and found.exports == ()


def test_a_key_that_holds_something_else_is_left_and_the_next_one_taken(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.store.put(key_of(made), Buffer.of(b"planted"))
    pieces.run()
    [one] = pieces.manifest(made[0].study_uid).exports
    assert one.key == keys.export(Uid(made[0].study_uid), made[-1].sha256, 2)
    assert b"".join(pieces.store.read(key_of(made))) == b"planted"


def test_a_large_list_is_not_copied_to_many_small_studies(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "SMALL_BYTES", 10)
    made = export(pieces)
    content = made[-1].path.read_bytes()
    padding = sum(one.path.stat().st_size for one in made[:-1])
    made[-1].path.write_bytes(content + b"\xfc\xff\xfc\xffOB\0\0" + padding.to_bytes(4, "little") + bytes(padding))
    pieces.run()
    found = pieces.manifest(made[0].study_uid)
    assert found.exports == () and found.listed, "what it lists is on record all the same"


def test_a_program_that_does_not_know_of_them_loses_the_line_and_not_the_object(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    raw = json.loads(pieces.manifest(made[0].study_uid).to_bytes())
    assert raw["format"] == "dicomwatchd-manifest/1"
    del raw["exports"]
    assert Manifest.from_bytes(json.dumps(raw).encode()).exports == ()


@pytest.mark.parametrize(
    "change",
    [
        {"key": "studies/1.2/exports/" + "a" * 64 + ".dicomdir"},
        {"key": "../../etc/passwd"},
        {"sha256": "b" * 64},
        {"size_bytes": -1},
        {"size_bytes": 2**40},
        {"etag": 1},
        {"original_path": None},
    ],
)
def test_what_is_no_export_is_no_manifest(pieces: Pieces, change: dict[str, Any]) -> None:
    made = export(pieces)
    pieces.run()
    raw = json.loads(pieces.manifest(made[0].study_uid).to_bytes())
    raw["exports"][0].update(change)
    with pytest.raises(BadManifest):
        Manifest.from_bytes(json.dumps(raw).encode())


def test_verify_looks_at_it_and_takes_it_for_no_stray_object(pieces: Pieces) -> None:
    made = export(pieces)
    pieces.run()
    manifest = pieces.manifest(made[0].study_uid)
    for deep in (False, True):
        found = verify(pieces.store, manifest, deep=deep)
        assert found.holds and (found.exports, found.unrecorded, found.unlisted, found.instances) == (1, 0, (), 3)
    found = verify(pieces.store, replace(manifest, exports=()))
    assert found.holds and not found.unlisted, "one that an earlier version has left out of its revision"
    for content, problem in ((None, "missing"), (b"x", "size"), (made[-1].path.read_bytes()[:-1] + b"?", "content")):
        store = MemoryStore()
        for seen in pieces.store.listing(""):
            kept = b"".join(pieces.store.read(seen.key)) if seen.key != key_of(made) else content
            if kept is not None:
                store.put(seen.key, Buffer.of(kept))
        found = verify(store, manifest, deep=True)
        assert not found.holds and found.held == 3
        assert [(one.key, one.problem) for one in found.export_problems] == [(key_of(made), problem)]


def test_a_revision_after_lost_manifests_takes_it_for_no_image(pieces: Pieces) -> None:
    made = export(pieces)
    study = made[0].study_uid
    pieces.run()
    store = MemoryStore()
    for seen in pieces.store.listing(""):
        data = b"".join(pieces.store.read(seen.key))
        store.put(seen.key, Buffer.of(b"no manifest" if "/manifests/" in seen.key else data))
    pieces.store = store
    pieces.restart()
    late = Maker(seed=3).ct_series(pieces.root / "more", slices=1, first=9)
    (pieces.inbox / "CD" / "LATE").write_bytes(late[0].path.read_bytes())
    pieces.run()
    found = pieces.manifest(study)
    assert len(found.instances) == 4 and [one.sha256 for one in found.exports] == [made[-1].sha256]
