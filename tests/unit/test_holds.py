"""A study that names two patients: archived, and nothing of it is deleted until somebody has released it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomwatchd.control import peer as control_peer
from dicomwatchd.control.peer import BadRequest, Descriptors, Request
from dicomwatchd.daemon.commands import HOLD_REASONS, commands
from dicomwatchd.errors import DicomwatchdError, Permanent
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.database.pruning import Pruning
from dicomwatchd.queue.holds import ERASED, OTHER_VERSIONS, REASONS, TWO_PATIENTS
from dicomwatchd.rights import Asker
from dicomwatchd.upload_text import sentences
from tests import schemas
from tests.pieces import Pieces, at
from tests.synthetic import Made, Maker, Patient
from tests.unit.uploading import Handed

JANE = Patient("DOE^JANE", "P0001", "19700101")
JOHN = Patient("ROE^JOHN", "P0002", "19510213", "M")
BY: dict[str, object] = {"by": {"uid": 0}}


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = Pieces(tmp_path)
    yield pieces
    pieces.close()


def drop(pieces: Pieces, patient: Patient, series: int, count: int = 2) -> list[Made]:
    """Another series of one and the same study."""
    maker = Maker(seed=3, patient=patient)
    return maker.ct_series(pieces.inbox / f"S{series}", slices=count, study=0, series=series, rows=16, columns=16)


STUDY = Uid(Maker(seed=3).study_uid(0))


def audited(pieces: Pieces, kind: str) -> list[dict[str, Any]]:
    return [one.body for one in pieces.queue.audit.of_study(STUDY) if one.body["kind"] == kind]


def test_two_patients_in_one_study_are_archived_and_kept(pieces: Pieces) -> None:
    made = drop(pieces, JANE, 1) + drop(pieces, JOHN, 2)
    pieces.run(3)
    assert all(one.path.exists() for one in made)
    assert {one.sha256 for one in made} <= pieces.archived()
    assert set(pieces.states().values()) == {"kept:held"}
    assert audited(pieces, "authorised") == []
    [hold] = pieces.queue.holds.open(10)
    assert (hold.study_uid, hold.code, hold.files) == (STUDY, "two-patients", 4)
    assert {one["patient_id"] for one in hold.found} == {"P0001", "P0002"}
    assert pieces.queue.holds.count() == 1
    assert pieces.log.events("study-held") == [{"study_uid": STUDY}], "told once, and of no patient"


def test_a_second_patient_who_comes_later_is_held_beside_what_is_gone(pieces: Pieces) -> None:
    """What is gone is in the archive; of what comes, nothing goes."""
    drop(pieces, JANE, 1)
    pieces.run()
    assert pieces.left() == []
    late = drop(pieces, JOHN, 2)
    pieces.run(3)
    assert sorted(one.path for one in late) == pieces.left()
    assert set(pieces.states().values()) == {"kept:held"}


def test_patients_that_another_site_has_recorded_count(pieces: Pieces, tmp_path: Path) -> None:
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    drop(other, JANE, 1)
    other.run()
    assert other.left() == []
    other.close()
    late = drop(pieces, JOHN, 2)
    pieces.run(3)
    assert sorted(one.path for one in late) == pieces.left()


def test_two_that_another_site_has_recorded_hold_what_is_of_one_of_them(pieces: Pieces, tmp_path: Path) -> None:
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    drop(other, JOHN, 1)
    drop(other, JANE, 2)
    other.run(3)
    other.close()
    late = drop(pieces, JOHN, 3)
    pieces.run(3)
    assert sorted(one.path for one in late) == pieces.left()


def test_who_comes_while_the_first_files_are_being_deleted_stops_that(pieces: Pieces) -> None:
    made = drop(pieces, JANE, 1)
    pieces.settle()
    with at(pieces.context.shipments, "recorded", lambda: _arrives(pieces), after=True):
        pieces.ship()
    assert {one.path for one in made} <= set(pieces.left()), "he is in no manifest yet, and known all the same"


def _arrives(pieces: Pieces, series: int = 2) -> None:
    drop(pieces, JOHN, series)
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()


def test_the_same_patient_written_in_several_ways_is_not_held(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, Patient("Doe^Jane^^", "p0001 ", "19700101"), 2)
    drop(pieces, Patient("", "", ""), 3)
    pieces.run()
    assert pieces.left() == [] and list(pieces.queue.holds.open(10)) == []


def test_a_release_lets_all_go_by_their_rules_with_a_word_on_record(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    assert pieces.queue.holds.release(STUDY, "he was registered twice", BY) == 4
    [entry] = audited(pieces, "hold-released")
    assert (
        entry["because"] == "he was registered twice" and entry["hold"] == "two-patients" and entry["by"] == {"uid": 0}
    )
    assert "P0002" not in json.dumps(entry)
    pieces.run(3)
    assert pieces.left() == [] and len(audited(pieces, "deleted")) == 4
    assert list(pieces.queue.holds.open(10)) == []
    with pytest.raises(Permanent, match="not held"):
        pieces.queue.holds.release(STUDY, "again", BY)


def test_a_release_is_for_the_patients_that_were_looked_at(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "registered twice", BY)
    pieces.run(3)
    drop(pieces, Patient("ROE^JOHN", "P0002", "19510213", "M"), 3)
    drop(pieces, Patient("", "P0001", ""), 4)
    pieces.run(3)
    assert pieces.left() == [], "these are the two that the release was given for"
    third = drop(pieces, Patient("POE^ANN", "P0003", "19991231"), 5)
    pieces.run(3)
    assert sorted(one.path for one in third) == pieces.left()
    assert len(pieces.log.events("study-held")) == 2
    assert len(next(pieces.queue.holds.open(10)).found) == 3


def test_a_hold_and_a_release_outlive_restarts(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    pieces.restart()
    pieces.run(2)
    assert len(pieces.left()) == 4
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.restart()
    pieces.run(3)
    assert pieces.left() == []


def test_a_release_in_the_midst_of_a_shipment_leaves_nothing_behind(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.settle()
    with at(pieces.context.deletions, "keep", lambda: pieces.queue.holds.release(STUDY, "seen", BY)):
        pieces.ship()
    assert set(pieces.states().values()) == {"kept"}, "due, not held for ever"
    pieces.run(3)
    assert pieces.left() == []


def test_what_is_to_be_kept_for_a_time_is_kept_for_that_time_after_a_release(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=86400.0))
    made = drop(pieces, JANE, 1) + drop(pieces, JOHN, 2)
    pieces.run(3)
    assert pieces.queue.holds.count() == 1, "told at once, not when it falls due"
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.run(3)
    assert all(one.path.exists() for one in made)
    pieces.clock.advance(86400.0)
    pieces.run(3)
    assert pieces.left() == []
    pieces.close()


def test_what_falls_due_is_held_then_too(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False, keep_seconds=86400.0))
    made = drop(pieces, JANE, 1) + drop(pieces, JOHN, 2)
    pieces.run(3)
    pieces.clock.advance(2 * 86400.0)
    pieces.run(3)
    assert all(one.path.exists() for one in made) and set(pieces.states().values()) == {"kept:held"}
    pieces.close()


def test_a_study_with_more_patients_than_are_kept_on_record_is_held(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that are left out nobody can tell whether they are others."""
    from dicomwatchd import patients
    from dicomwatchd.queue import arrivals, shipments

    for module in (patients, arrivals, shipments):
        monkeypatch.setattr(module, "IDENTITIES_LIMIT", 2)
    for number, name in enumerate(["DOE^JANE", "DOE^JANE^A", "DOE^JANE^B", "DOE^JANE^C"], start=1):
        drop(pieces, Patient(name, "P0001", "19700101"), number)
    pieces.run(3)
    assert pieces.left() and set(pieces.states().values()) == {"kept:held"}
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.run(3)
    assert pieces.left() == []


# -- what people ask for ----------------------------------------------------------------------------------------------


def call(pieces: Pieces, name: str, asker: Asker | None, monkeypatch: pytest.MonkeyPatch, **request: object) -> Any:
    offered = commands(
        pieces.queue,
        lambda _: {},
        list,
        pieces.parts.uploads,
        pieces.parts.dispatcher.wake,
        None,  # type: ignore[arg-type]
    )
    if asker is None:
        return offered[name](request, lambda _: None)
    here, there = socket.socketpair()
    with here, there:
        monkeypatch.setattr(control_peer, "asker_of", lambda _: asker)
        return offered[name](Request(request, here, Descriptors(here)), lambda _: None)


def test_attention_about_many_images_takes_little_memory(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PACS that exports its studies anew, each image with an edited header."""
    import tracemalloc

    images = [{"sop_instance_uid": f"1.2.{n}", "grade": "correction", "data_sets": "a b"} for n in range(5_000)]
    for number in range(20):
        pieces.queue.holds.hold(Uid(f"1.2.3.{number}"), OTHER_VERSIONS, images, lambda _: False)
    tracemalloc.start()
    try:
        said = call(pieces, "attention", None, monkeypatch)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert [one["study_uid"] for one in said["held"]] == [f"1.2.3.{number}" for number in range(20)]
    assert {one["instances_total"] for one in said["held"]} == {5_000}


def test_attention_shows_both_patients_and_what_is_parked(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    (pieces.inbox / "README").write_text("no image")
    said = call(pieces, "attention", None, monkeypatch)
    [held] = said["held"]
    assert [one["patient_id"] for one in held["patients"]] == ["P0001", "P0002"] and held["files"] == 4
    with pieces.queue._database.write() as db:
        db.execute("UPDATE studies SET state = 'parked', code = 'refused', reason = 'the store refuses it'")
    pieces.scan()
    pieces.clock.advance(pieces.settings.settle_seconds + 0.1)
    pieces.look()
    said = call(pieces, "attention", None, monkeypatch)
    assert said["parked"] == [{"study_uid": STUDY, "code": "refused", "reason": "the store refuses it"}]
    assert said["quarantined_files"] == 1
    schemas.check("attention", said)


@pytest.mark.parametrize("uid", [os.getuid(), 4711])
def test_who_may_release(pieces: Pieces, monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    asker = Asker(uid, uid)
    if not asker.runs_the_daemon:
        with pytest.raises(Permanent, match="only root"):
            call(pieces, "release", asker, monkeypatch, study_uid=STUDY, because="seen")
        assert pieces.queue.holds.count() == 1 and audited(pieces, "hold-released") == []
        return
    assert call(pieces, "release", asker, monkeypatch, study_uid=STUDY, because=" seen ")["files"] == 4
    [released] = pieces.queue.audit.proofs(STUDY)["releases"]
    assert released["because"] == "seen" and released["released_by"]["uid"] == uid


def test_a_release_of_what_was_shown(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    [held] = call(pieces, "attention", None, monkeypatch)["held"]
    release = {"study_uid": STUDY, "because": "seen"}
    with pytest.raises(Permanent, match="something else by now"):
        call(pieces, "release", Asker(0, 0), monkeypatch, **release, shown="0" * 12)
    with pytest.raises(BadRequest):
        call(pieces, "release", Asker(0, 0), monkeypatch, **release, shown=5)
    assert call(pieces, "release", Asker(0, 0), monkeypatch, **release, shown=held["shown"])["files"] == 4


@pytest.mark.parametrize("because", ["", "  ", "x" * 1001, None])
def test_a_release_has_a_reason(pieces: Pieces, monkeypatch: pytest.MonkeyPatch, because: object) -> None:
    with pytest.raises(DicomwatchdError):
        call(pieces, "release", Asker(0, 0), monkeypatch, study_uid=STUDY, because=because)
    with pytest.raises(BadRequest):
        call(pieces, "release", None, monkeypatch, study_uid=STUDY, because="not over the socket")


def test_each_hold_has_a_reason_in_words() -> None:
    assert set(HOLD_REASONS) == {TWO_PATIENTS, OTHER_VERSIONS, ERASED} == set(REASONS)


@pytest.mark.parametrize("delete", [False, True])
def test_an_upload_of_two_patients_in_one_study_is_not_called_deletable(
    pieces: Pieces, tmp_path: Path, delete: bool
) -> None:
    folder = tmp_path / "stick"
    for number, patient in enumerate((JANE, JOHN), start=1):
        maker = Maker(seed=3, patient=patient)
        made = maker.ct_series(folder / str(number), slices=1, study=0, series=number, rows=16, columns=16)
    other = Maker(seed=4).ct_series(folder / "other", slices=1, rows=16, columns=16)
    upload = Handed(pieces, folder, delete=delete)
    result = upload.go()
    assert made[0].path.exists() and other[0].path.exists() is not delete
    assert result["complete"] and result["held"] == 2 and not result["deletable"] and not result["images_deletable"]
    said = " ".join(sentences(result, delete=delete))
    assert "2 local copies are kept because a study is held" in said and "may now be deleted" not in said
    assert "All 3 files are verified in the archive." in said
    schemas.check("upload", result)


def test_a_hold_stays_when_the_upload_that_brought_it_has_ended(pieces: Pieces, tmp_path: Path) -> None:
    """Its files are no longer the daemon's affair; that the archive has them under one study still is."""
    folder = tmp_path / "stick"
    for number, patient in enumerate((JANE, JOHN), start=1):
        Maker(seed=3, patient=patient).ct_series(
            folder / str(number), slices=1, study=0, series=number, rows=16, columns=16
        )
    Handed(pieces, folder).go()
    assert [hold.files for hold in pieces.queue.holds.open(10)] == [0]
    late = drop(pieces, JANE, 3)
    pieces.run(3)
    assert all(one.path.exists() for one in late)


def test_what_an_older_state_knows_of_a_study_counts(pieces: Pieces) -> None:
    """It has the attributes of its first file, and of no other."""
    drop(pieces, JANE, 1)
    pieces.settle()
    raw = {"00100020": {"vr": "LO", "Value": ["P0002"]}, "00100030": {"vr": "DA", "Value": ["19510213"]}}
    with pieces.queue._database.write() as db:
        db.execute(
            "INSERT INTO identities (study_uid, kind, digest, said) VALUES (?, 'patient', 'before', ?)",
            (STUDY, json.dumps(raw)),
        )
    pieces.run(3)
    assert pieces.left() and set(pieces.states().values()) == {"kept:held"}


# -- who is another patient -------------------------------------------------------------------------------------------


def test_whom_little_is_known_of_covers_nobody_else(pieces: Pieces) -> None:
    """One of the released says a name and nothing more: whoever has an ID could be he, by that alone."""
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    drop(pieces, Patient("JONES^A", "", "", ""), 3)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.run(3)
    assert pieces.left() == []
    third = drop(pieces, Patient("POE^ANN", "P0003", "19991231"), 4)
    pieces.run(3)
    assert sorted(one.path for one in third) == pieces.left()


def limit_identities(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    from dicomwatchd import patients
    from dicomwatchd.queue import arrivals, shipments

    for module in (patients, arrivals, shipments):
        monkeypatch.setattr(module, "IDENTITIES_LIMIT", limit)


def test_a_full_record_of_another_site_hides_nobody(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_identities(monkeypatch, 2)
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    drop(other, JANE, 1)
    drop(other, Patient("DOE^JANE^A", "P0001", "19700101"), 2)
    other.run()
    other.close()
    late = drop(pieces, JOHN, 3)
    pieces.run(3)
    assert sorted(one.path for one in late) == pieces.left()
    assert "P0002" in [one.get("patient_id") for one in next(pieces.queue.holds.open(10)).found]
    assert "identities-limited" in pieces.manifest(STUDY).flags


def test_who_is_one_too_many_while_the_first_files_are_being_deleted_stops_that(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_identities(monkeypatch, 2)
    made = drop(pieces, JANE, 1) + drop(pieces, Patient("DOE^JANE^A", "P0001", "19700101"), 2)
    pieces.settle()
    with at(pieces.context.shipments, "recorded", lambda: _arrives(pieces, 5), after=True):
        pieces.ship()
    assert {one.path for one in made} <= set(pieces.left())
    # He is taken away again, nothing tells of him any more, and more of the first one comes: it is held for all that.
    for path in (pieces.inbox / "S5").iterdir():
        path.unlink()
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM identities")
    late = drop(pieces, JANE, 6)
    pieces.run(3)
    assert "identities-limited" not in pieces.manifest(STUDY).flags
    assert {one.path for one in (*made, *late)} == set(pieces.left())


def test_more_patients_than_are_on_record_at_another_site_hold_the_study_here(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_identities(monkeypatch, 2)
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    for number, name in enumerate(["DOE^JANE", "DOE^JANE^A", "DOE^JANE^B"], start=1):
        drop(other, Patient(name, "P0001", "19700101"), number)
    other.run(3)
    other.close()
    here = drop(pieces, JANE, 5)
    pieces.run(3)
    assert sorted(one.path for one in here) == pieces.left()


def test_a_release_of_more_than_are_on_record_is_for_those_who_had_come(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_identities(monkeypatch, 2)
    for number, name in enumerate(["DOE^JANE", "DOE^JANE^A", "DOE^JANE^B", "DOE^JANE^C"], start=1):
        drop(pieces, Patient(name, "P0001", "19700101"), number)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.run(3)
    assert pieces.left() == []
    late = drop(pieces, JOHN, 7)
    pieces.run(3)
    assert sorted(one.path for one in late) == pieces.left()


# -- a hold stands until it is released -------------------------------------------------------------------------------


def test_a_hold_stands_though_nothing_tells_of_the_second_patient_any_more(pieces: Pieces) -> None:
    """He came while the first files were being deleted, and was taken away before he was archived; a month later
    the state knows of him by the hold alone, and `attention` says that it is held."""
    made = drop(pieces, JANE, 1)
    pieces.settle()
    with at(pieces.context.shipments, "recorded", lambda: _arrives(pieces), after=True):
        pieces.ship()
    kept = {one.path: one.path.read_bytes() for one in made}
    for path in pieces.left():
        path.unlink()
    pieces.run(2)
    pieces.clock.advance(31 * 86400.0)
    pruning = Pruning(pieces.queue._database, pieces.clock)
    while pruning.step():
        pass
    assert pieces.queue.holds.known(STUDY).patients == ()
    for path, data in kept.items():
        path.write_bytes(data)
    pieces.run(3)
    assert pieces.left() == sorted(kept)
    [hold] = pieces.queue.holds.open(10)
    assert {one["patient_id"] for one in hold.found} == {"P0001", "P0002"} and hold.files == 2


def test_what_stays_anyway_is_held_by_a_patient_who_comes_later(pieces: Pieces, tmp_path: Path) -> None:
    """Its files were kept by their rule before the study was held; nobody may take them for deletable."""
    folder = tmp_path / "stick"
    maker = Maker(seed=3, patient=JANE)
    maker.ct_series(folder / "1", slices=1, study=0, series=1, rows=16, columns=16)
    slow = Maker(seed=4).ct_series(folder / "other", slices=1, rows=16, columns=16)[0].path
    whole = slow.read_bytes()
    upload = Handed(pieces, folder)

    def goes_on(seconds: int) -> None:
        for number in range(seconds):
            slow.write_bytes(whole + b"\0" * (number % 7 + 1))
            upload.second()
            pieces.scan()

    goes_on(20)
    assert "kept" in pieces.states().values(), pieces.states()
    drop(pieces, JOHN, 2, count=1)
    goes_on(30)
    assert next(pieces.queue.holds.open(10)).files == 2, pieces.states()
    slow.write_bytes(whole)
    result = upload.go()
    assert result["complete"] and result["held"] == 1 and not result["deletable"] and not result["images_deletable"]
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.run(3)
    assert pieces.left() == []


def test_what_is_kept_for_good_is_kept_after_a_release(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, after_archive=AfterArchive(delete=False))
    made = drop(pieces, JANE, 1)
    pieces.run(2)
    made += drop(pieces, JOHN, 2)
    pieces.run(2)
    assert set(pieces.states().values()) == {"kept:held"}
    assert pieces.queue.holds.release(STUDY, "seen", BY) == 4
    pieces.run(2)
    assert set(pieces.states().values()) == {"kept"} and all(one.path.exists() for one in made)
    pieces.close()


# -- together with other reasons, and killed in between ---------------------------------------------------------------


class Killed(BaseException):
    pass


def die() -> None:
    raise Killed


@pytest.mark.parametrize(("of", "step"), [("holds", "hold"), ("deletions", "keep"), ("shipments", "finish")])
@pytest.mark.parametrize("after", [False, True])
def test_a_daemon_killed_while_it_holds_a_study_holds_it(pieces: Pieces, of: str, step: str, after: bool) -> None:
    made = drop(pieces, JANE, 1) + drop(pieces, JOHN, 2)
    pieces.settle()
    with at(getattr(pieces.context, of), step, die, after=after), pytest.raises(Killed):
        pieces.ship()
    pieces.restart()
    pieces.run(3)
    assert set(pieces.states().values()) == {"kept:held"} and all(one.path.exists() for one in made)
    pieces.queue.holds.release(STUDY, "seen", BY)
    pieces.restart()
    pieces.run(3)
    assert pieces.left() == []


@pytest.mark.parametrize("code", ["no-lease", "expiring", "exchanged", "no-right"])
def test_what_is_kept_for_another_reason_first_is_held_when_that_has_ended(pieces: Pieces, code: str) -> None:
    made = drop(pieces, JANE, 1)
    pieces.settle()
    pieces.after_archive = AfterArchive(delete=False)
    pieces.ship()
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET code = ?, reason = 'x'", (code,))
    pieces.after_archive = AfterArchive(delete=True)
    made += drop(pieces, JOHN, 2)
    pieces.run(2)
    with pieces.queue._database.write() as db:  # as whatever lets them go does
        db.execute("UPDATE files SET due_at = 1, code = NULL, reason = NULL WHERE code = ?", (code,))
    pieces.run(3)
    assert set(pieces.states().values()) == {"kept:held"} and all(one.path.exists() for one in made)
    assert pieces.queue.holds.release(STUDY, "seen", BY) == 4
    pieces.run(3)
    assert pieces.left() == []


def test_a_hold_moves_with_the_archive(pieces: Pieces) -> None:
    """Another place knows nothing of the study: what is kept is sent there, and stays held."""
    made = drop(pieces, JANE, 1) + drop(pieces, JOHN, 2)
    pieces.run(3)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE meta SET value = 'elsewhere' WHERE key = 'destination'")
    pieces.memory.versions.clear()
    pieces.restart()
    pieces.run(3)
    assert {one.sha256 for one in made} <= pieces.archived()
    assert set(pieces.states().values()) == {"kept:held"} and all(one.path.exists() for one in made)


@pytest.mark.parametrize("because", ["a\nb", "\U0001f600" * 1000, "\x1b[2J"])
def test_a_release_takes_any_text(pieces: Pieces, monkeypatch: pytest.MonkeyPatch, because: str) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    assert call(pieces, "release", Asker(0, 0), monkeypatch, study_uid=STUDY, because=because)["files"] == 4
    assert pieces.queue.audit.broken_at() is None
    [released] = pieces.queue.audit.proofs(STUDY)["releases"]
    assert released["because"] == because


def test_no_patient_is_in_what_is_logged_or_put_on_record(pieces: Pieces) -> None:
    drop(pieces, JANE, 1)
    drop(pieces, JOHN, 2)
    pieces.run(3)
    pieces.queue.holds.release(STUDY, "because of this", BY)
    drop(pieces, Patient("POE^ANN", "P0003", "19991231"), 5)
    pieces.run(4)
    logged = json.dumps(pieces.log.entries, default=str)
    on_record = json.dumps([one.body for one in pieces.queue.audit.of_study(STUDY)])
    for value in ("DOE", "ROE", "POE", "P0001", "P0002", "P0003", "19700101", "19510213", "19991231"):
        assert value not in logged and value not in on_record, value
    assert "because of this" not in logged and "because of this" in on_record


def test_who_is_in_the_record_that_is_read_back_counts(pieces: Pieces, tmp_path: Path) -> None:
    """Another site has recorded him between this site's manifest and its look at the catalogue."""
    other = Pieces(tmp_path / "other", store=pieces.memory, catalogue=pieces.catalogue)
    drop(other, JOHN, 2)
    other.settle()
    made = drop(pieces, JANE, 1)
    pieces.settle()
    with at(pieces.catalogue, "put", other.ship, after=True):
        pieces.ship()
    other.close()
    assert pieces.manifest(STUDY).revision == 2
    assert sorted(one.path for one in made) == pieces.left() and set(pieces.states().values()) == {"kept:held"}


def test_many_orders_of_one_patient_hold_nothing(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_identities(monkeypatch, 2)
    for number in range(1, 6):
        data = pydicom.dcmread(drop(pieces, JANE, number, count=1)[0].path)
        data.AccessionNumber = f"A{number}"
        data.save_as(pieces.inbox / f"S{number}" / "IM0001", overwrite=True)
    pieces.run()
    assert pieces.left() == [] and "orders-limited" in pieces.manifest(STUDY).flags
