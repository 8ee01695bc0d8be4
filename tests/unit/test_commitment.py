"""Whether the archive provably holds what a modality asks for, and what becomes of the request."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd import commitments
from dicomwatchd.archive import keys
from dicomwatchd.commitments import CommitmentFolder, Kind, Reason, Reference, Request, Unreadable
from dicomwatchd.daemon.plan import CommitmentPlan
from dicomwatchd.errors import Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.committing.judgement import Committed, Judgement, Open, _receipt
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from dicomwatchd.queue.received import KEEP_SECONDS, Received, instance_of
from tests.pieces import ARCHIVE_ID, Pieces, at
from tests.synthetic import CT_IMAGE, MR_IMAGE, Made, Maker, Patient
from tests.unit.erasing import BECAUSE, WHO, eraser
from tests.unit.memory_archive import MemoryCatalogue

STUDY = Uid(Maker(seed=3).study_uid(0))
WAIT_SECONDS = 3600.0


def pieces_of(root: Path, **options: Any) -> Pieces:
    (root / "asked").mkdir(parents=True, exist_ok=True)
    plan = CommitmentPlan("ct", "inbox1", root / "asked", WAIT_SECONDS)
    return Pieces(root, commitments=(plan,), **options)


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = pieces_of(tmp_path)
    yield pieces
    pieces.close()


def receive(pieces: Pieces, count: int = 3, *, patient: Patient | None = None, series: int = 1) -> list[Made]:
    """As a receiver stores them: by their SOP Instance UIDs, without folders."""
    maker = Maker(seed=3, patient=patient) if patient else Maker(seed=3)
    made = maker.ct_series(pieces.root / f"S{series}", slices=count, study=0, series=series, rows=16, columns=16)
    for one in made:
        os.link(one.path, pieces.inbox / f"{one.sop_instance_uid}.dcm")
    return made


def corrected(pieces: Pieces, one: Made, name: str) -> bytes:
    """The same instance with other pixels."""
    data = one.path.read_bytes()[:-2] + b"\1\2"
    (pieces.inbox / name).write_bytes(data)
    return data


def reference(one: Made) -> Reference:
    return Reference(Uid(CT_IMAGE), Uid(one.sop_instance_uid))


def judged(pieces: Pieces, made: list[Made]) -> list[Reason | Open | str]:
    desk = Judgement(pieces.context, pieces.queue.received, pieces.sources[0], lambda: map)
    verdicts = desk.of([reference(one) for one in made], until_one_waits=False)
    return ["committed" if isinstance(one, Committed) else one for one in verdicts.values()]


# --- what the archive holds


@pytest.mark.parametrize("bundling", [None, Bundling(1 << 20, 8 << 20)])
@pytest.mark.parametrize("rule", [AfterArchive(delete=True), AfterArchive(delete=False)])
def test_archived_and_proven(bundling: Bundling | None, rule: AfterArchive, tmp_path: Path) -> None:
    pieces = pieces_of(tmp_path, bundling=bundling, after_archive=rule)
    made = receive(pieces)
    pieces.run(2)
    assert len(pieces.left()) == (0 if rule.delete else 3)
    assert judged(pieces, made) == ["committed"] * 3
    pieces.close()


def test_the_evidence_is_of_now(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    pieces.run()
    pieces.clock.advance(5000)
    before, reads = pieces.clock.now(), len(pieces.memory.reads)
    desk = Judgement(pieces.context, pieces.queue.received, pieces.sources[0], lambda: map)
    [verdict] = desk.of([reference(made[0])], until_one_waits=True).values()
    assert isinstance(verdict, Committed) and before <= verdict.asked_at <= pieces.clock.now()
    assert len(pieces.memory.reads) > reads


@pytest.mark.parametrize("harm", ["gone", "hidden", "changed"])
def test_what_the_store_does_not_hold_any_more(pieces: Pieces, harm: str) -> None:
    made = receive(pieces)
    pieces.run()
    [key] = [key for key in pieces.memory.versions if made[0].sop_instance_uid in key]
    match harm:
        case "gone":
            del pieces.memory.versions[key]
        case "hidden":
            pieces.memory.hidden.add(key)
        case "changed":
            pieces.memory.versions[key].append(pieces.memory.versions[key][-1][:-1] + b"\7")
    assert judged(pieces, made) == [Open.WAITS, "committed", "committed"]


@pytest.mark.parametrize("what", ["catalogue", "manifest", "expiring", "two patients", "exchanged"])
def test_what_stands_against_a_deletion_stands_against_a_commitment(pieces: Pieces, what: str) -> None:
    made = receive(pieces)
    if what == "two patients":
        receive(pieces, series=2, patient=Patient("ROE^JOHN", "P0002", "19510213", "M"))
    pieces.run(2)
    match what:
        case "catalogue":
            assert isinstance(pieces.catalogue, MemoryCatalogue)
            pieces.catalogue.records.clear()
        case "manifest":
            for key in [key for key in pieces.memory.versions if key.startswith(keys.study_prefix(STUDY))]:
                if keys.parse_manifest(key) is not None:
                    del pieces.memory.versions[key]
        case "expiring":
            pieces.memory.expires = "a rule"
        case "exchanged":
            object.__setattr__(pieces.context, "is_exchanged", lambda _: True)
    assert judged(pieces, made) == [Open.WAITS] * 3


def test_erased(pieces: Pieces) -> None:
    made = receive(pieces)
    pieces.run()
    assert isinstance(pieces.catalogue, MemoryCatalogue)
    pieces.catalogue.archive_id = ARCHIVE_ID
    eraser(pieces.memory, pieces.catalogue, ARCHIVE_ID).erase(STUDY, BECAUSE, WHO)
    pieces.clock.advance(100)
    assert judged(pieces, made) == [Reason.NO_SUCH_INSTANCE] * 3


def test_another_sop_class(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    pieces.run()
    desk = Judgement(pieces.context, pieces.queue.received, pieces.sources[0], lambda: map)
    other = Reference(Uid(MR_IMAGE), Uid(made[0].sop_instance_uid))
    assert desk.of([other], until_one_waits=True) == {other: Reason.CLASS_INSTANCE_CONFLICT}


# --- what is here


def test_on_their_way_from_the_first_moment(pieces: Pieces) -> None:
    made = receive(pieces)
    assert judged(pieces, made) == [Open.WAITS] * 3, "nobody has looked at them yet"
    pieces.scan()
    assert judged(pieces, made) == [Open.WAITS] * 3
    pieces.settle()
    assert judged(pieces, made) == [Open.WAITS] * 3
    with at(pieces.context.shipments, "recorded", lambda: found.append(judged(pieces, made)), after=True):
        found: list[list[Reason | Open | str]] = []
        pieces.ship()
    assert found == [[Open.WAITS] * 3], "recorded, and not yet gone"
    assert judged(pieces, made) == ["committed"] * 3


def test_nobody_has_heard_of_it(pieces: Pieces) -> None:
    receive(pieces, 1, series=2)
    pieces.run()
    made = receive(pieces)
    for path in pieces.left():
        path.unlink()
    assert judged(pieces, made) == [Reason.NO_SUCH_INSTANCE] * 3


def test_another_content_under_the_name_that_is_free_again(pieces: Pieces) -> None:
    """The archive has the first. The second has its name, and has not been looked at."""
    made = receive(pieces, 1)
    pieces.run()
    assert judged(pieces, made) == ["committed"]
    corrected(pieces, made[0], f"{made[0].sop_instance_uid}.dcm")
    assert judged(pieces, made) == [Open.WAITS]
    pieces.run(2)
    assert judged(pieces, made) == [Open.WAITS], "held, until somebody has looked at the versions"
    pieces.run_and_release()
    assert judged(pieces, made) == ["committed"]


def test_another_content_beside_it(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    corrected(pieces, made[0], f"{made[0].sop_instance_uid}-0123456789ab.dcm")
    assert judged(pieces, made) == [Open.WAITS]
    pieces.run_and_release()
    assert judged(pieces, made) == ["committed"]
    both = [key for key in pieces.memory.versions if made[0].sop_instance_uid in key]
    assert len(both) == 2
    for key in both:
        data = pieces.memory.versions.pop(key)
        assert judged(pieces, made) == [Open.WAITS], "one of the two is not enough"
        pieces.memory.versions[key] = data


def test_one_that_was_taken_away_before_it_was_sent(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.settle()
    (pieces.inbox / f"{made[0].sop_instance_uid}.dcm").unlink()
    pieces.run()
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE, "committed"]


def test_a_second_content_that_was_taken_away(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    pieces.run()
    second = pieces.inbox / f"{made[0].sop_instance_uid}.dcm"
    corrected(pieces, made[0], second.name)
    pieces.settle()
    second.unlink()
    pieces.run()
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE], "what the modality has now is nowhere else"


def test_in_quarantine(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    broken = pieces.inbox / f"{made[0].sop_instance_uid}.dcm"
    broken.unlink()
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0garbage")
    pieces.run(2)
    assert pieces.states()[broken.name].startswith("quarantined")
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE]


def test_a_damaged_copy_is_none_until_a_whole_one_stands_for_it(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    whole = pieces.inbox / f"{made[0].sop_instance_uid}.dcm"
    data = whole.read_bytes()
    whole.unlink()
    whole.write_bytes(data[:-100])
    pieces.run(2)
    assert pieces.states()[whole.name] == "kept:damaged"
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE]
    (pieces.inbox / f"{made[0].sop_instance_uid}-0123456789ab.dcm").write_bytes(data)
    pieces.run()
    assert pieces.left() == [] and judged(pieces, made) == ["committed"]


def test_what_has_gone_is_known_for_a_while_and_of_no_other_inbox(tmp_path: Path) -> None:
    pieces = pieces_of(tmp_path, inboxes=2)
    made = receive(pieces)
    elsewhere = Maker(seed=8).ct_series(pieces.inboxes[1], slices=2, rows=16, columns=16)
    pieces.run()
    assert pieces.left() == [] and elsewhere

    def known() -> int:
        with pieces.queue._database.read() as db:
            return int(db.execute("SELECT COUNT(*) AS n FROM received").fetchone()["n"])

    assert known() == 3
    pieces.queue.received.step()
    pieces.clock.advance(KEEP_SECONDS - 10)
    pieces.queue.received.step()
    assert known() == 3 and judged(pieces, made) == ["committed"] * 3
    pieces.clock.advance(20)
    pieces.queue.received.step()
    assert known() == 0 and judged(pieces, made) == [Reason.NO_SUCH_INSTANCE] * 3
    pieces.close()


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (b"1.2.3.dcm", "1.2.3"),
        (b"1.2.3-0123456789ab.dcm", "1.2.3"),
        (b"1.2.3.restored-2.dcm", "1.2.3"),
        (b"1.2.3-0123456789AB.dcm", None),
        (b"IMG1.dcm", None),
        (b"1.2.3.dcm.tmp", None),
    ],
)
def test_names(name: bytes, uid: str | None) -> None:
    assert instance_of(name) == uid


# --- what becomes of the request


def ask(pieces: Pieces, made: list[Made], receiver: str = "ct") -> str:
    with CommitmentFolder(pieces.root / "asked") as folder:
        references = tuple(reference(one) for one in made)
        return folder.keep_request("ct1", Request(receiver, Uid("1.2.3"), pieces.clock.now(), references))


def kinds(pieces: Pieces) -> set[Kind]:
    with CommitmentFolder(pieces.root / "asked") as folder:
        found = folder.requests()
    assert len(found) <= 1
    return next(iter(found.values()), set())


def result(pieces: Pieces, request_id: str) -> commitments.Result:
    with CommitmentFolder(pieces.root / "asked") as folder:
        return folder.result(request_id)


def test_from_the_request_to_its_end(pieces: Pieces) -> None:
    made = receive(pieces)
    asked = ask(pieces, made)
    pieces.parts.commitments.step()
    assert kinds(pieces) == {Kind.REQUEST} and pieces.parts.commitments.open == 1
    pieces.run()
    pieces.clock.advance(10)
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == {} and result(pieces, asked).judged_at == pytest.approx(
        pieces.clock.now(), abs=0.1
    )
    assert pieces.log.events("commitment-judged")[0]["failed_instances"] == 0
    with CommitmentFolder(pieces.root / "asked") as folder:
        folder.keep_reported(asked)
    pieces.parts.commitments.step()
    assert kinds(pieces) == set() and pieces.parts.commitments.open == 0


def test_one_on_its_way_holds_up_the_report_of_the_others(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.run()
    late = receive(pieces, 1, series=2)
    asked = ask(pieces, made + late)
    pieces.parts.commitments.step()
    assert kinds(pieces) == {Kind.REQUEST}
    pieces.clock.advance(WAIT_SECONDS + 1)
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == {2: Reason.PROCESSING_FAILURE}


def test_one_that_the_store_does_not_show_holds_up_the_report_of_the_others(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.run()
    [key] = [key for key in pieces.memory.versions if made[0].sop_instance_uid in key]
    pieces.memory.hidden.add(key)
    asked = ask(pieces, made)
    pieces.parts.commitments.step()
    assert kinds(pieces) == {Kind.REQUEST}
    pieces.memory.hidden.clear()
    pieces.clock.advance(10)
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == {}


def test_a_result_is_as_old_as_the_oldest_look(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.run()
    asked = ask(pieces, made)
    began = pieces.clock.now()
    with at(pieces.memory, "read", lambda: pieces.clock.advance(300)):
        pieces.parts.commitments.step()
    assert result(pieces, asked).judged_at == pytest.approx(began, abs=5)


def test_after_the_wait_what_is_not_proven_has_failed(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.run()
    asked = ask(pieces, made)
    pieces.memory.fault = Transient("it does not answer")
    pieces.parts.commitments.step()
    assert kinds(pieces) == {Kind.REQUEST}
    pieces.clock.advance(WAIT_SECONDS + 1)
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == dict.fromkeys((0, 1), Reason.PROCESSING_FAILURE)


def test_an_old_result_is_renewed_before_it_is_reported(pieces: Pieces) -> None:
    made = receive(pieces, 2)
    pieces.run()
    asked = ask(pieces, made)
    pieces.parts.commitments.step()
    first = result(pieces, asked)
    pieces.clock.advance(commitments.RESULT_SECONDS / 2 - 1)
    pieces.parts.commitments.step()
    assert result(pieces, asked) == first
    pieces.clock.advance(2)
    pieces.parts.commitments.step()
    assert (
        result(pieces, asked).judged_at == pytest.approx(pieces.clock.now(), abs=0.1)
        and result(pieces, asked).failed == {}
    )
    assert len(pieces.log.events("commitment-judged")) == 1, "told once"
    # What cannot be found out now stays as it was, and grows too old to be told.
    pieces.memory.fault = Transient("it does not answer")
    before = result(pieces, asked)
    pieces.clock.advance(commitments.RESULT_SECONDS)
    pieces.parts.commitments.step()
    assert result(pieces, asked) == before


def test_a_result_of_the_future_is_none(pieces: Pieces) -> None:
    """The clock was set back since."""
    made = receive(pieces, 1)
    pieces.run()
    asked = ask(pieces, made)
    pieces.parts.commitments.step()
    pieces.restart()
    pieces.clock.advance(-5000)
    pieces.parts.commitments.step()
    assert result(pieces, asked).judged_at == pytest.approx(pieces.clock.now(), abs=0.1)


def test_one_that_cannot_be_read_is_told_once_and_stays(pieces: Pieces) -> None:
    ask(pieces, receive(pieces, 1))
    [path] = (pieces.root / "asked").iterdir()
    path.write_text("{}")
    for _ in range(3):
        pieces.parts.commitments.step()
    assert len(pieces.log.events("commitment-unreadable")) == 1 and path.exists()


def test_one_of_a_receiver_that_is_not_configured(pieces: Pieces) -> None:
    ask(pieces, receive(pieces, 1), receiver="other")
    for _ in range(3):
        pieces.parts.commitments.step()
    assert len(pieces.log.events("commitment-without-receiver")) == 1 and kinds(pieces) == {Kind.REQUEST}


def test_a_folder_that_goes_and_comes_back(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    pieces.run()
    asked = ask(pieces, made)
    (pieces.root / "asked").rename(pieces.root / "away")
    for _ in range(3):
        pieces.parts.commitments.step()
    assert len(pieces.log.events("commitment-folder-unusable")) == 1
    (pieces.root / "away").rename(pieces.root / "asked")
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == {}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"format": "dicomwatchd-commitment/2"},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": 1.0, "references": []},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": 1.0, "references": [["1.2", "../../etc"]]},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": "?", "references": [["1.2", "1.3"]]},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": 1.0, "references": [["1.2"]]},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": 1.0, "references": [["1.2", 3]]},
        {"receiver": "ct", "transaction_uid": "1.2", "received_at": 1.0, "references": [["1.2", "1.3"]] * 20_001},
    ],
)
def test_requests_that_are_none(document: Any, tmp_path: Path) -> None:
    if isinstance(document, dict):
        document = {"format": "dicomwatchd-commitment/1", **document}
    (tmp_path / f"ct1-{'0' * 24}.request").write_text(json.dumps(document))
    with CommitmentFolder(tmp_path) as folder, pytest.raises(Unreadable):
        folder.request(f"ct1-{'0' * 24}")


def test_a_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(json.dumps({"format": "dicomwatchd-commitment/1"}))
    (tmp_path / f"ct1-{'0' * 24}.request").symlink_to(tmp_path / "secret")
    with CommitmentFolder(tmp_path) as folder, pytest.raises(Unreadable):
        folder.request(f"ct1-{'0' * 24}")


@pytest.mark.parametrize(
    ("verified_by", "expected", "answered"),
    [("etag-md5", "e", None), ("etag-answered", None, "e"), ("checksum", None, None), ("read-back", None, None)],
)
def test_an_etag_proves_what_it_proved_then(
    verified_by: str, expected: str | None, answered: str | None, pieces: Pieces
) -> None:
    """Of a key that may be disabled by now nobody knows: then a listing does not stand for the object."""
    receive(pieces, 1)
    pieces.run()
    [item] = pieces.manifest(STUDY).instances
    receipt = _receipt(STUDY, replace(item, etag="e", verified_by=verified_by))
    assert (receipt.expected_etag, receipt.answered_etag) == (expected, answered)
    assert receipt.encryption == "aws:kms" and receipt.expected_checksum == f"sha256:{item.sha256}"


def test_a_state_that_cannot_be_written_at_the_start_can_be_opened_again(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fails to begin closes what is open: nobody else could go on otherwise."""

    def full(*_: object) -> None:
        raise Transient("the disk is full")

    pieces.close()
    with monkeypatch.context() as patched:
        patched.setattr(Received, "keep_for", full)
        with pytest.raises(Transient):
            pieces.start()
    pieces.parts.queue.close()
    pieces.start()
