"""Whether all of a study is there: on record with its revision, in the catalogue, and in a search."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.layout import completeness
from dicomwatchd.archive.layout.completeness import judged_by, next_signs
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.records import Query
from dicomwatchd.model import Uid
from dicomwatchd.study_completeness import GAPS, Answer
from dicomwatchd.study_signs import SeriesSigns
from tests.pieces import Pieces
from tests.unit.dicomfiles import STUDY, data_set, encode
from tests.unit.test_study_completeness import key_object

SERIES = Uid(f"{STUDY}.1")


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def put(pieces: Pieces, numbers: Iterable[int], series: int = 1, **changes: object) -> None:
    pieces.inbox.mkdir(exist_ok=True)
    for number in numbers:
        values: dict[str, Any] = {
            "SOPInstanceUID": f"{STUDY}.{series}.{number}",
            "SeriesInstanceUID": f"{STUDY}.{series}",
            "InstanceNumber": str(number),
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 2.5 * number],
        }
        (pieces.inbox / f"IM{series}{number:04}").write_bytes(encode(data_set(**{**values, **changes})))


def answer(pieces: Pieces) -> Answer:
    found = pieces.manifest(STUDY).completeness
    record = pieces.catalogue.get(Uid(STUDY))
    assert record is not None and record.completeness == found
    assert (GAPS in record.flags) == (found is not None and found.answer is Answer.GAPS)
    incomplete = [one.study_uid for one in pieces.catalogue.search(Query(is_incomplete=True))]
    assert incomplete == ([STUDY] if GAPS in record.flags else [])
    return Answer.NOT_KNOWN if found is None else found.answer


def test_a_gap_is_on_record_and_found_until_what_was_missing_has_come(pieces: Pieces) -> None:
    put(pieces, [*range(1, 10), *range(11, 21)])
    pieces.run()
    assert answer(pieces) is Answer.GAPS
    made = pieces.manifest(STUDY)
    assert made.completeness is not None
    assert [(one.code, one.series_uid, one.missing) for one in made.completeness.gaps] == [("slices", SERIES, 1)]
    put(pieces, [10])
    pieces.run()
    assert answer(pieces) is Answer.NO_SIGN
    assert pieces.manifest(STUDY).flags == ()


def test_what_earlier_revisions_list_counts_after_the_state_was_lost(pieces: Pieces) -> None:
    put(pieces, range(1, 11))
    pieces.run()
    pieces.close()
    shutil.rmtree(pieces.state)
    pieces.state.mkdir()
    pieces.start()
    put(pieces, range(12, 21))
    pieces.run()
    assert answer(pieces) is Answer.GAPS
    put(pieces, [11])
    pieces.run()
    assert answer(pieces) is Answer.NO_SIGN


def test_files_that_come_once_more_change_nothing(pieces: Pieces) -> None:
    put(pieces, [*range(1, 10), *range(11, 21)])
    pieces.run()
    before = pieces.manifest(STUDY)
    put(pieces, [*range(5, 10), *range(11, 15)])
    pieces.run()
    assert pieces.manifest(STUDY) == before


def test_files_that_an_earlier_version_has_read_are_not_known(pieces: Pieces) -> None:
    put(pieces, range(1, 9))
    put(pieces, range(1, 9), series=2)
    pieces.scan()
    pieces.settle()
    with pieces.queue.shipments._database.write() as db:
        db.execute("UPDATE files SET signs = NULL WHERE series_uid = ?", (SERIES,))
    put(pieces, range(20, 30))
    pieces.run()
    made = pieces.manifest(STUDY)
    assert answer(pieces) is Answer.NOT_KNOWN
    assert set(made.signs) == {f"{STUDY}.2"}
    assert made.completeness is not None
    assert [(one.code, one.series_uid) for one in made.completeness.signs] == [("earlier-version", SERIES)]


def without_ours(manifest: Manifest) -> Manifest:
    """As an earlier version has recorded it."""
    raw = json.loads(manifest.to_bytes())
    del raw["signs"], raw["completeness"]
    return Manifest.from_bytes(json.dumps(raw).encode())


def test_a_manifest_of_an_earlier_version_tells_of_no_gap(pieces: Pieces) -> None:
    put(pieces, range(1, 9))
    pieces.run()
    old = without_ours(pieces.manifest(STUDY))
    assert (old.signs, old.completeness, old.record().completeness, old.record().flags) == ({}, None, None, ())
    late = replace(old.instances[0], sop_instance_uid=Uid("1.9"), key=old.instances[0].key.replace("1.8", "1.9"))
    told: dict[str, Any] = {"attributes": {}, "series": {}, "flags": (), "damaged_keys": ()}
    signs = {SERIES: SeriesSigns(numbers={20})}
    merged = old.merged([late], signs=signs, created_at="t", created_by="c", **told)
    assert (merged.revision, merged.signs, merged.completeness) == (old.revision + 1, {}, None)
    assert old.merged([], created_at="t", created_by="c", **told) is old, "nothing new is no new revision"


def test_a_revision_that_lists_more_than_it_speaks_for(pieces: Pieces) -> None:
    put(pieces, range(1, 9))
    put(pieces, [1], series=2)
    pieces.run()
    made = pieces.manifest(STUDY)
    assert set(made.signs) == {SERIES, f"{STUDY}.2"}
    other = replace(made.instances[0], sop_instance_uid=Uid("1.9"))
    listed = made.listing([*made.instances, other])
    assert (set(listed.signs), listed.completeness) == ({f"{STUDY}.2"}, None)
    assert made.listing(made.instances) == made


@pytest.mark.parametrize(
    "signs",
    [
        {"numbers": "1+1*99999999"},
        {"numbers": "1+1*999999"},
        {"numbers": "x"},
        {"positions": [1]},
        {"concatenations": {"1.2": 3}},
        {"slices": "many"},
    ],
)
def test_signs_of_another_hand_say_nothing(pieces: Pieces, signs: dict[str, Any]) -> None:
    put(pieces, [1])
    pieces.run()
    made = pieces.manifest(STUDY)
    raw = json.loads(made.to_bytes())
    raw["signs"] = {SERIES: signs}
    forged = Manifest.from_bytes(json.dumps(raw).encode())
    assert judged_by(forged.signs, forged.instances).answer is Answer.NOT_KNOWN
    other = replace(made.instances[0], sop_instance_uid=Uid("1.9"))
    added = {SERIES: SeriesSigns(numbers={1})}
    assert next_signs(forged.signs, made.instances, [*made.instances, other], added) == {}


def test_signs_beyond_the_limit_are_left_out(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "LIMIT_BYTES", 150)
    put(pieces, [1])
    put(pieces, [1], series=2)
    put(pieces, [1], series=3)
    pieces.run()
    made = pieces.manifest(STUDY)
    assert len(made.signs) == 2
    assert answer(pieces) is Answer.NOT_KNOWN


def test_what_a_key_object_refers_to_is_missing_until_it_has_come(pieces: Pieces) -> None:
    put(pieces, range(1, 4))
    note = key_object("113000", f"{STUDY}.1.2", f"{STUDY}.1.4")
    note.SeriesInstanceUID, note.SOPInstanceUID = f"{STUDY}.7", f"{STUDY}.7.1"
    (pieces.inbox / "KO").write_bytes(encode(note))
    pieces.run()
    assert answer(pieces) is Answer.GAPS
    made = pieces.manifest(STUDY)
    assert made.completeness is not None
    assert [(one.code, one.series_uid, one.missing) for one in made.completeness.gaps] == [
        ("references", f"{STUDY}.7", 1)
    ]
    put(pieces, [4])
    pieces.run()
    assert answer(pieces) is Answer.NO_SIGN
