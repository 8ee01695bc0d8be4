"""Two daemons record one study at once, and all that its manifests list would be more than one manifest may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.layout import manifests
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.config.archive import SqliteSettings
from dicomwatchd.errors import OutOfReach
from dicomwatchd.model import Uid
from tests.pieces import ARCHIVE_ID, Pieces
from tests.synthetic import Made, Maker

_STUDY = Uid(Maker(seed=3).study_uid(0))
#: Instances: those of three series are too many.
_LIMIT = 8


class AbsentCatalogue(SqliteCatalogue):
    away = False

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
        if self.away:
            raise OutOfReach("the catalogue does not answer", endpoint="catalogue")
        super().put(record, instead_of=instead_of)


def _drop(pieces: Pieces, series: int) -> list[Made]:
    return Maker(seed=3).ct_series(pieces.inbox / f"S{series}", slices=3, series=series, rows=16, columns=16)


def _there(made: list[Made]) -> bool:
    return all(one.path.exists() for one in made)


def test_what_the_other_records_meanwhile_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has stored its manifest, and the catalogue does not name it yet. There is no room for its instances and
    the second's, so the second goes on from what the catalogue names; then the first comes to its end, and deletes."""
    catalogue = AbsentCatalogue(SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db"))
    catalogue.initialise(ARCHIVE_ID)
    first = Pieces(tmp_path / "first", catalogue=catalogue)
    second = Pieces(tmp_path / "second", catalogue=catalogue, store=first.memory)
    _drop(first, 1)
    first.run()
    assert first.left() == []

    of_first, of_second = _drop(first, 2), _drop(second, 3)
    catalogue.away = True
    first.run(1)
    assert _there(of_first) and manifests.listed(first.memory, _STUDY).revisions.keys() == {1, 2}
    catalogue.away = False
    create, passed_over = manifests.create, list[int]()

    def created(store: ObjectStore, manifest: Manifest) -> bool:
        if len(manifest.instances) > _LIMIT:
            raise manifests.too_many_instances()
        if manifest.revision == 3 and not passed_over:
            passed_over.append(len(manifest.instances))
            first.clock.advance(3600)
            first.run(2)
            assert first.left() == []
        return create(store, manifest)

    monkeypatch.setattr(manifests, "create", created)
    second.run(2)
    assert passed_over == [6], "the case was not reached"
    record = catalogue.get(_STUDY)
    assert record is not None
    newest = manifests.load(first.memory, record.manifest_key, sha256=record.manifest_sha256)
    listed = {one.sha256 for one in newest.instances}
    assert {one.sha256 for one in of_first} <= listed, "deleted, and the manifest that counts does not list it"
    assert _there(of_second)
    assert [one["code"] for one in second.log.events("study-parked")] == ["manifest-too-large"]
