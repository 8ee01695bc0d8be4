"""What must not lead to a false word of commitment, and whoever writes nonsense into the folder that daemon and
receiver share: he stops nothing but what is his."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
import pytest

from dicomwatchd.commitments import CommitmentFolder, Kind, Reason, Reference, Request, Result
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.committing.judgement import Committed, Open, Verdict
from dicomwatchd.pipeline.committing.rounds import Commitments, Desk
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.received import GONE, HERE, instance_of
from tests.pieces import FakeClock, Log, Pieces
from tests.synthetic import Made
from tests.unit.test_commitment import (
    WAIT_SECONDS,
    ask,
    corrected,
    judged,
    kinds,
    pieces_of,
    receive,
    result,
)

NONE = "0" * 24


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    pieces = pieces_of(tmp_path)
    yield pieces
    pieces.close()


# --- no false word


def test_another_content_in_the_place_of_one_that_is_kept(tmp_path: Path) -> None:
    """Files are kept here, and somebody clears them away: the name is free for the next content, which nobody has
    looked at while the state still tells of the first."""
    pieces = pieces_of(tmp_path, after_archive=AfterArchive(delete=False))
    made = receive(pieces, 1)
    pieces.run()
    assert judged(pieces, made) == ["committed"]
    name = f"{made[0].sop_instance_uid}.dcm"
    (pieces.inbox / name).unlink()
    assert judged(pieces, made) == ["committed"]
    corrected(pieces, made[0], name)
    assert judged(pieces, made) == [Open.WAITS]
    pieces.close()


def test_a_second_content_that_could_not_have_its_name_again(pieces: Pieces) -> None:
    """Staged, put back beside what had come under its name meanwhile."""
    made = receive(pieces, 1)
    pieces.run()
    assert judged(pieces, made) == ["committed"]
    corrected(pieces, made[0], f"{made[0].sop_instance_uid}-0123456789ab.restored-1.dcm")
    assert judged(pieces, made) == [Open.WAITS]


def test_a_second_content_that_went_before_anybody_knew_its_study(pieces: Pieces) -> None:
    made = receive(pieces, 1)
    pieces.run()
    assert judged(pieces, made) == ["committed"]
    broken = pieces.inbox / f"{made[0].sop_instance_uid}.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0garbage")
    pieces.run(2)
    assert pieces.states()[broken.name].startswith("quarantined")
    broken.unlink()
    pieces.run(2)
    assert pieces.states() == {}
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE]


def test_the_inbox_is_not_mounted(pieces: Pieces) -> None:
    """What lies on the disk that is gone nobody can see: absence is no evidence."""
    made = receive(pieces, 1)
    pieces.run()
    corrected(pieces, made[0], f"{made[0].sop_instance_uid}.dcm")
    pieces.inbox.rename(pieces.root / "elsewhere")
    pieces.inbox.mkdir()
    assert judged(pieces, made) == [Open.WAITS]


def test_taken_out_of_an_inbox_that_was_never_seen_with_anything_in_it(pieces: Pieces) -> None:
    """Nobody can tell whether it is the same folder; what was never sent has failed all the same."""
    made = receive(pieces, 1)
    pieces.settle()
    (pieces.inbox / f"{made[0].sop_instance_uid}.dcm").unlink()
    pieces.run()
    with pieces.queue._database.write() as db:
        db.execute("DELETE FROM roots")
    assert judged(pieces, made) == [Reason.PROCESSING_FAILURE]


def test_one_instance_in_two_studies(pieces: Pieces) -> None:
    """Both have to be there."""
    made = receive(pieces, 1)
    pieces.run()
    name = again(pieces, made[0], StudyInstanceUID="1.2.3.4.5")
    assert judged(pieces, made) == [Open.WAITS]
    pieces.settle()
    assert judged(pieces, made) == [Open.WAITS]
    pieces.run()
    assert name not in pieces.states() and judged(pieces, made) == ["committed"]
    [key] = [key for key in pieces.memory.versions if "/1.2.3.4.5/" in key and made[0].sop_instance_uid in key]
    del pieces.memory.versions[key]
    assert judged(pieces, made) == [Open.WAITS]


def test_one_instance_in_two_series(pieces: Pieces) -> None:
    """Two images by one UID: somebody has to look at them first."""
    made = receive(pieces, 1)
    pieces.run()
    again(pieces, made[0], SeriesInstanceUID="1.2.3.4.5")
    pieces.run(2)
    assert judged(pieces, made) == [Open.WAITS]
    pieces.run_and_release()
    assert judged(pieces, made) == ["committed"]


def again(pieces: Pieces, one: Made, **changed: str) -> str:
    """The same instance once more, with other elements."""
    data_set = pydicom.dcmread(one.path)
    for keyword, value in changed.items():
        setattr(data_set, keyword, value)
    name = f"{one.sop_instance_uid}-0123456789ab.dcm"
    data_set.save_as(pieces.inbox / name)
    return name


def test_switched_off_and_on_again(pieces: Pieces) -> None:
    """What went in between nobody has noted: then what was noted before says nothing any more."""
    made = receive(pieces, 1)
    pieces.run()
    assert judged(pieces, made) == ["committed"]
    plans, pieces.commitments = pieces.commitments, ()
    pieces.restart()
    corrected(pieces, made[0], f"{made[0].sop_instance_uid}.dcm")
    pieces.settle()
    (pieces.inbox / f"{made[0].sop_instance_uid}.dcm").unlink()
    pieces.run()
    pieces.commitments = plans
    pieces.restart()
    pieces.run()
    assert pieces.states() == {} and judged(pieces, made) == [Reason.NO_SUCH_INSTANCE]


def test_below_the_inbox_nobody_has_received_anything(pieces: Pieces) -> None:
    """A receiver stores at the top; what lies below, by whatever name, was put there by others."""
    made = receive(pieces, 1)
    (pieces.inbox / "below").mkdir()
    name = f"{made[0].sop_instance_uid}.dcm"
    (pieces.inbox / name).rename(pieces.inbox / "below" / name)
    pieces.run(2)
    assert judged(pieces, made) == [Reason.NO_SUCH_INSTANCE]


@pytest.mark.parametrize(
    "name", ["1.2.3-0123456789ab.restored-2.dcm", "1.2.3-0123456789ab.dcm", "1.2.3.restored-1.dcm"]
)
def test_names(name: str) -> None:
    assert instance_of(name.encode()) == "1.2.3"


# --- whoever writes into the folder


def named(pieces: Pieces, kind: Kind, name: str = f"ct0-{NONE}") -> Path:
    return pieces.root / "asked" / f"{name}.{kind}"


def document(**changed: object) -> str:
    valid = {
        "format": "dicomwatchd-commitment/1",
        "receiver": "ct",
        "transaction_uid": "1.2",
        "received_at": 1.0,
        "references": [["1.2", "1.3"]],
    }
    return json.dumps({**valid, **changed})


def unreadable(pieces: Pieces) -> None:
    named(pieces, Kind.REQUEST).write_text("{}")
    named(pieces, Kind.REQUEST).chmod(0)


def with_result(pieces: Pieces, write: Callable[[Path], object]) -> None:
    named(pieces, Kind.REQUEST).write_text(document())
    write(named(pieces, Kind.RESULT))


def number(text: str) -> str:
    return document(received_at="@").replace('"@"', text)


NONSENSE: dict[str, Callable[[Pieces], object]] = {
    "a link": lambda pieces: named(pieces, Kind.REQUEST).symlink_to("/dev/zero"),
    "a pipe": lambda pieces: os.mkfifo(named(pieces, Kind.REQUEST)),
    "a folder": lambda pieces: named(pieces, Kind.REQUEST).mkdir(),
    "a huge number": lambda pieces: named(pieces, Kind.REQUEST).write_text(number("1" + "0" * 400)),
    "a number too long to read": lambda pieces: named(pieces, Kind.REQUEST).write_text(number("1" * 5000)),
    "no number": lambda pieces: named(pieces, Kind.REQUEST).write_text(number("NaN")),
    "minus infinity": lambda pieces: named(pieces, Kind.REQUEST).write_text(number("-Infinity")),
    "a surrogate": lambda pieces: named(pieces, Kind.REQUEST).write_text(document(receiver="\ud800")),
    "deep": lambda pieces: named(pieces, Kind.REQUEST).write_text("[" * 1_000_000),
    "longer than any": lambda pieces: named(pieces, Kind.REQUEST).write_bytes(b" " * (9 << 20)),
    "not to be read": unreadable,
    "a report that is a folder": lambda pieces: (named(pieces, Kind.REPORTED) / "full").mkdir(parents=True),
    "a result that is a folder": lambda pieces: with_result(pieces, lambda path: (path / "full").mkdir(parents=True)),
    "a result of a huge number": lambda pieces: with_result(
        pieces,
        lambda path: path.write_text(
            '{"format": "dicomwatchd-commitment/1", "failed": {}, "judged_at": 1%s}' % ("0" * 400)
        ),
    ),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_in_the_folder_holds_up_nobody(pieces: Pieces, what: str) -> None:
    made = receive(pieces, 1)
    pieces.run()
    NONSENSE[what](pieces)
    asked = ask(pieces, made)
    for _ in range(3):
        pieces.parts.commitments.step()
        pieces.clock.advance(10)
    assert result(pieces, asked).failed == {}
    assert len(pieces.log.entries) < 40, "told once, not at every look"


def test_a_full_disk(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found out cannot be written down: the archive is not asked again at every look for that."""
    made = receive(pieces, 2)
    pieces.run()
    asked = ask(pieces, made)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CommitmentFolder, "keep_result", full)
        reads = len(pieces.memory.reads)
        for _ in range(30):
            pieces.parts.commitments.step()
            pieces.clock.advance(2)
        assert len(pieces.memory.reads) - reads < 40
    assert kinds(pieces) == {Kind.REQUEST}
    pieces.clock.advance(60)
    pieces.parts.commitments.step()
    assert result(pieces, asked).failed == {}


# --- whose turn it is, and what it costs


class Judge:
    """In place of the archive: what it says takes as long as it says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.takes = clock, 0.0
        self.asked: list[str] = []
        self.verdict: Verdict | None = None

    def of(
        self, references: Iterable[Reference], *, until_one_waits: bool, beat: Callable[[], None] = lambda: None
    ) -> dict[Reference, Verdict]:
        references = list(references)
        self.asked.append(references[0].sop_instance_uid)
        asked_at = self.clock.now()
        self.clock.advance(self.takes)
        return dict.fromkeys(references, self.verdict or Committed(asked_at))


class Office:
    def __init__(self, root: Path) -> None:
        self.root, self.clock, self.log = root, FakeClock(), Log()
        self.judge = Judge(self.clock)
        self.restart()

    def restart(self) -> None:
        desk = Desk("ct", self.root, WAIT_SECONDS, self.judge)  # type: ignore[arg-type]
        self.commitments = Commitments([desk], self.clock, self.log)

    def ask(self, destination: str, instance: str, instances: int = 1) -> str:
        references = [Reference(Uid("1.2"), Uid(instance))]
        references += [Reference(Uid("1.2"), Uid(f"{instance}.{number}")) for number in range(instances - 1)]
        with CommitmentFolder(self.root) as folder:
            return folder.keep_request(destination, Request("ct", Uid("1.2.3"), self.clock.now(), tuple(references)))

    def result(self, request_id: str) -> Result:
        with CommitmentFolder(self.root) as folder:
            return folder.result(request_id)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_modality_with_many_requests_holds_up_no_other(office: Office) -> None:
    for _ in range(50):
        office.ask("a", "1.1")
    office.ask("b", "1.2")
    office.judge.takes = 5
    end = office.clock.now() + 12
    while office.clock.now() < end:
        office.commitments.step()
    assert "1.2" in office.judge.asked, "two judgements are as long as it may have to wait"
    while office.commitments.step():
        pass
    assert len(office.judge.asked) == 51


def test_nothing_is_read_that_is_not_due(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 requests of 5,000 instances: to read them all takes seconds."""
    office.judge.verdict = Open.WAITS
    for _ in range(20):
        office.ask("a", "1.1", 100)
    reads: list[str] = []
    original = CommitmentFolder.request

    def counted(self: CommitmentFolder, request_id: str) -> Request:
        reads.append(request_id)
        return original(self, request_id)

    monkeypatch.setattr(CommitmentFolder, "request", counted)
    for _ in range(200):
        office.commitments.step()
        office.clock.advance(2)
    looks = 20 * (5 + 400 / 60 + 1)
    assert len(reads) <= looks and len(office.judge.asked) <= looks


def test_evidence_that_takes_too_long(office: Office) -> None:
    """A result that is too old to be told as soon as it is there is none; and once the wait is over it has failed."""
    asked = office.ask("a", "1.1")
    office.judge.takes = 1000
    began = office.clock.now()
    while office.clock.now() < began + WAIT_SECONDS:
        office.commitments.step()
        office.clock.advance(2)
    assert len(office.judge.asked) < 4, "it is not asked without a pause"
    office.clock.advance(5000)
    office.commitments.step()
    assert office.result(asked).failed == {0: Reason.PROCESSING_FAILURE}


def test_a_modality_that_is_away_costs_less_with_time(office: Office) -> None:
    """A week, with a report that nobody takes: it is found out anew now and then, not every minute."""
    office.ask("a", "1.1")
    for _ in range(7 * 1440):
        office.commitments.step()
        office.clock.advance(60)
    assert 100 < len(office.judge.asked) < 250


def test_a_request_of_the_future_comes_to_an_end(office: Office) -> None:
    """The clock was a year ahead when it came."""
    office.clock.advance(365 * 86400)
    asked = office.ask("a", "1.1")
    office.clock.advance(-365 * 86400)
    office.judge.verdict = Open.WAITS
    began = office.clock.now()
    while office.clock.now() < began + WAIT_SECONDS + 200:
        office.commitments.step()
        office.clock.advance(20)
    assert office.result(asked).failed == {0: Reason.PROCESSING_FAILURE}


def test_a_result_stays_while_the_archive_cannot_be_asked(office: Office) -> None:
    """After its wait, too: what was proven has not failed for that."""
    asked = office.ask("a", "1.1")
    office.commitments.step()
    first = office.result(asked)
    office.clock.advance(2 * WAIT_SECONDS)
    in_trouble = True
    office.commitments = Commitments(
        [Desk("ct", office.root, WAIT_SECONDS, office.judge)],  # type: ignore[arg-type]
        office.clock,
        office.log,
        lambda: in_trouble,
    )
    office.commitments.step()
    assert office.result(asked) == first
    in_trouble = False
    office.clock.advance(60)
    office.commitments.step()
    assert office.result(asked).judged_at > first.judged_at and office.result(asked).failed == {}


def test_no_inbox_is_read_as_a_whole_for_one_instance(pieces: Pieces) -> None:
    """20,000 instances among a million files: by the index, name by name."""
    parameters = (1, b"1.dcm", 1, b"1-", b"1.", 1, b"1.restored-", b"1.restored.")
    with pieces.queue._database.read() as db:
        for query in (HERE, GONE):
            plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", parameters)]
            searches = [one for one in plan if one.startswith(("SEARCH", "SCAN"))]
            assert len(searches) == 3 and all("name" in one for one in searches), plan


def test_signs_of_life_in_the_midst_of_a_judgement(pieces: Pieces) -> None:
    made = receive(pieces, 30)
    pieces.run(2)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    ask(pieces, made)
    pieces.parts.commitments.step(beat)
    assert beats >= 30
