"""Claims, fencing, and what a shipment commits: a stale token completes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomwatchd.errors import ClaimLost, DicomwatchdError
from dicomwatchd.model import SHIPPING, TRANSITIONS, FileState, StudyEvent, StudyState, Uid, advance
from dicomwatchd.queue.parked import LONGEST_WAIT_SECONDS
from dicomwatchd.queue.rows import Claim, LocalFile, Proven, Root
from dicomwatchd.queue.transitions import move
from dicomwatchd.rights import Asker
from tests.unit.queues import STUDY, Bench, digest, receipt


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


# -- the table ------------------------------------------------------------------------------------------------------

#: The whole table, written down a second time and in another way: what each state answers to each event.
EXPECTED = {
    StudyState.ARRIVING: {"changed": "arriving", "quiet": "queued", "emptied": "archived"},
    StudyState.QUEUED: {"claimed": "uploading", "changed": "arriving", "retry": "queued"},
    StudyState.UPLOADING: {"stored": "verifying", "changed": "arriving", "released": "queued", "failed": "parked"},
    StudyState.VERIFYING: {
        "verified": "recording",
        "mismatch": "uploading",
        "changed": "arriving",
        "released": "queued",
        "failed": "parked",
    },
    StudyState.RECORDING: {"recorded": "purging", "changed": "arriving", "released": "queued", "failed": "parked"},
    StudyState.PURGING: {"changed": "purging", "finished": "archived", "released": "queued", "failed": "parked"},
    StudyState.ARCHIVED: {"changed": "arriving", "due": "queued"},
    StudyState.PARKED: {"changed": "arriving", "retry": "queued"},
}


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("event", StudyEvent)
def test_every_pair_of_state_and_event(bench: Bench, state: StudyState, event: StudyEvent) -> None:
    bench.add("IM1")
    bench.run("UPDATE studies SET state = ?", state)
    expected = EXPECTED[state].get(event)
    with bench.queue._database.write() as db:
        if expected is None:
            with pytest.raises(DicomwatchdError):
                move(db, STUDY, event, 1.0)
        else:
            moved = move(db, STUDY, event, 1.0)
            assert (moved.old, moved.event, moved.new) == (state, event, StudyState(expected))
    assert bench.state() == (expected or state)
    if expected is not None and expected != state:
        last = bench.rows("SELECT old, event, new FROM transitions ORDER BY transition_id DESC LIMIT 1")[0]
        assert tuple(last) == (state, event, expected)


def test_the_table_has_nothing_else() -> None:
    assert sum(len(events) for events in EXPECTED.values()) == len(TRANSITIONS)
    assert advance(StudyState.QUEUED, StudyEvent.CLAIMED) is StudyState.UPLOADING


def test_an_event_of_an_unknown_study(bench: Bench) -> None:
    with bench.queue._database.write() as db, pytest.raises(LookupError):
        move(db, "1.2.99", StudyEvent.CHANGED, 1.0)


@pytest.mark.parametrize("state", sorted(SHIPPING))
def test_going_back_to_arriving_revokes_the_claim(bench: Bench, state: StudyState) -> None:
    claim = bench.claimed()
    bench.run("UPDATE studies SET state = ?, code = 'x', reason = 'y', attempts = 3", state)
    with bench.queue._database.write() as db:
        move(db, STUDY, StudyEvent.CHANGED, 1.0)
    row = bench.rows("SELECT token, claimed, attempts, code FROM studies")[0]
    if state is StudyState.PURGING:
        assert tuple(row) == (claim.token, 1, 3, "x")
    else:
        assert row["token"] > claim.token
        assert tuple(row)[1:] == (0, 0, None)


# -- fencing --------------------------------------------------------------------------------------------------------

Commit = Callable[[Bench, Claim, list[LocalFile]], object]
COMMITS: dict[str, Commit] = {
    "advance": lambda b, c, f: b.queue.shipments.advance(c, StudyEvent.STORED),
    "release": lambda b, c, f: b.queue.claims.release(c, not_before=0, code="x", reason="", attempts=1),
    "park": lambda b, c, f: b.queue.claims.park(c, code="x", reason=""),
    "stored": lambda b, c, f: b.queue.shipments.stored(c, [(f[0], digest(f[0]), receipt(f[0]))]),
    "verified": lambda b, c, f: b.queue.shipments.verified(c, [Proven(f[0], "etag-md5", 1.0)]),
    "send_again": lambda b, c, f: b.queue.shipments.send_again(c, f, {}),
    "recorded": lambda b, c, f: b.queue.shipments.recorded(c, 1),
    "quarantine": lambda b, c, f: b.queue.shipments.quarantine(c, f[0], code="x", reason=""),
    "forget": lambda b, c, f: b.queue.shipments.forget(c, f),
    "keep": lambda b, c, f: b.queue.deletions.keep(c, f, None),
    "authorise": lambda b, c, f: b.queue.deletions.authorise(c, [(f[0], {})]),
    "finish": lambda b, c, f: b.finish(c),
}


def everything(bench: Bench) -> list[list[tuple[object, ...]]]:
    tables = ("files", "studies", "series", "arrivals", "transitions", "shipments", "audit")
    return [[tuple(row) for row in bench.rows(f"SELECT * FROM {table}")] for table in tables]


@pytest.mark.parametrize("name", COMMITS)
def test_a_stale_token_completes_nothing(bench: Bench, name: str) -> None:
    stale = bench.claimed()
    files = bench.files(stale)
    bench.add("IM2")  # the study changes, and is claimed anew
    bench.wait_until_quiet()
    fresh = bench.claim()
    assert fresh.token > stale.token
    before = everything(bench)
    with pytest.raises(ClaimLost):
        COMMITS[name](bench, stale, files)
    assert everything(bench) == before


@pytest.mark.parametrize("name", COMMITS)
@pytest.mark.parametrize("end", ["release", "park"])
def test_a_token_is_worth_nothing_once_the_claim_was_given_up(bench: Bench, name: str, end: str) -> None:
    claim = bench.claimed()
    files = bench.files(claim)
    COMMITS[end](bench, claim, files)
    before = everything(bench)
    with pytest.raises(ClaimLost):
        COMMITS[name](bench, claim, files)
    assert everything(bench) == before


@pytest.mark.parametrize("name", COMMITS)
def test_a_token_is_worth_nothing_after_a_restart(bench: Bench, name: str) -> None:
    stale = bench.claimed()
    files = bench.files(stale)
    bench.reopen()
    bench.queue.claims.recover()
    before = everything(bench)
    with pytest.raises(ClaimLost):
        COMMITS[name](bench, stale, files)
    assert everything(bench) == before


@pytest.mark.parametrize("name", COMMITS)
def test_a_token_is_worth_nothing_for_a_study_that_has_come_again(bench: Bench, name: str) -> None:
    """All files of a study go before it was archived, so it is forgotten; then it arrives anew, while a slow shipment
    of the first time is still about."""
    stale = bench.claimed()
    files = bench.files(stale)
    bench.queue.arrivals.forget([file.file_id for file in files])
    bench.wait_until_quiet()
    assert bench.state() is None
    fresh = bench.claimed("IM1")
    before = everything(bench)
    with pytest.raises(ClaimLost):
        COMMITS[name](bench, stale, files)
    assert everything(bench) == before
    bench.queue.shipments.advance(fresh, StudyEvent.STORED)


def test_facts_of_a_study_that_is_gone(bench: Bench) -> None:
    stale = bench.claimed()
    bench.queue.arrivals.forget([file.file_id for file in bench.files(stale)])
    bench.wait_until_quiet()
    with pytest.raises(ClaimLost):
        bench.queue.shipments.facts(stale)


def test_the_number_of_a_file_is_never_given_again(bench: Bench) -> None:
    """A commit names files by number: were one given again, it would speak of another file."""
    bench.add("IM1")
    (first,) = bench.rows("SELECT file_id FROM files")
    bench.queue.arrivals.forget([first[0]])
    bench.add("IM2")
    (second,) = bench.rows("SELECT file_id FROM files")
    assert second[0] > first[0]


def test_a_file_that_was_replaced_while_it_was_purged_is_not_kept_in_the_new_ones_place(bench: Bench) -> None:
    claim = bench.claimed()
    files = bench.record(claim)
    bench.add("IM1")  # other bytes under the same name
    bench.queue.deletions.keep(claim, files, None)
    assert [row[0] for row in bench.rows("SELECT state FROM files")] == [FileState.READY]


def test_only_what_still_counts_as_sent_is_kept(bench: Bench) -> None:
    """Nor does an upload call verified, and deletable, what is to be sent once more."""
    upload = bench.queue.uploads.begin("upload-1", b"/u1", Root(1, 2, ""), delete=False, asker=Asker(1000, 1000))
    bench.source = upload.source
    claim = bench.claimed("IM1", "IM2", "IM3")
    doubted, remounted, file = bench.record(claim)
    bench.queue.shipments.doubt(claim, {doubted: "a key"})
    other = replace(remounted, identity=replace(remounted.identity, inode=remounted.identity.inode + 1))
    assert bench.queue.deletions.keep(claim, [doubted, other, file], None) == 1
    assert [row[0] for row in bench.rows("SELECT state FROM files ORDER BY file_id")] == ["ready", "stored", "kept"]
    outcomes = bench.rows("SELECT outcome FROM upload_results ORDER BY name")
    assert [row[0] for row in outcomes] == ["seen", "seen", "verified"]


def test_the_number_of_a_source_is_never_given_again(bench: Bench) -> None:
    first = bench.queue.uploads.begin("upload-1", b"/u1", Root(1, 2, ""), delete=False, asker=Asker(1000, 1000)).source
    assert bench.queue.uploads.end(first.source_id, {}, unfinished=False)
    second = bench.queue.uploads.begin("upload-2", b"/u2", Root(1, 2, ""), delete=False, asker=Asker(1000, 1000)).source
    assert second.source_id > first.source_id


# -- claims and retries ---------------------------------------------------------------------------------------------


def test_the_study_that_has_been_quiet_for_longest_comes_first(bench: Bench) -> None:
    for study in ("1.2.3", "1.2.2", "1.2.1"):
        bench.add("IM" + study, study=study)
        bench.wait_until_quiet(study)
    assert [bench.claim().study_uid for _ in range(3)] == ["1.2.3", "1.2.2", "1.2.1"]
    assert bench.queue.claims.claim() is None


def test_a_claimed_study_is_not_claimed_twice(bench: Bench) -> None:
    bench.claimed()
    assert bench.queue.claims.claim() is None


def test_a_released_study_waits_for_its_time(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.claims.release(claim, not_before=bench.clock.now() + 30, code="down", reason="it is", attempts=1)
    assert bench.state() is StudyState.QUEUED
    assert bench.queue.claims.claim() is None
    assert bench.queue.claims.next_try_at() == bench.clock.now() + 30
    bench.clock.seconds += 30
    again = bench.claim()
    assert again.attempts == 1
    assert again.token > claim.token


def test_a_clock_set_back_does_not_hold_a_retry(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.claims.release(claim, not_before=bench.clock.now() + 30, code="down", reason="", attempts=1)
    bench.clock.seconds -= 10 * 86400
    assert (bench.queue.claims.next_try_at() or 0) <= bench.clock.now()
    assert bench.claim()


def test_the_longest_wait_is_waited_for(bench: Bench) -> None:
    claim = bench.claimed()
    until = bench.clock.now() + LONGEST_WAIT_SECONDS
    bench.queue.claims.release(claim, not_before=until, code="down", reason="", attempts=1)
    assert bench.queue.claims.claim() is None
    assert bench.queue.claims.next_try_at() == until


def test_retry_brings_a_parked_study_back(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.claims.park(claim, code="broken", reason="it is")
    assert bench.state() is StudyState.PARKED
    assert bench.queue.claims.claim() is None
    assert bench.queue.claims.retry(STUDY)
    assert bench.claim().attempts == 0


def test_retry_does_not_wait(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.claims.release(claim, not_before=bench.clock.now() + 900, code="down", reason="", attempts=7)
    assert bench.queue.claims.retry(STUDY)
    assert bench.claim().attempts == 0


@pytest.mark.parametrize("study", [STUDY, "1.2.99"])
def test_nothing_to_retry(bench: Bench, study: str) -> None:
    bench.claimed()
    assert not bench.queue.claims.retry(study)


def test_recover_takes_every_claim_away_and_keeps_what_was_sent(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2")
    bench.send(claim)
    bench.reopen()
    bench.queue.claims.recover()
    assert bench.state() is StudyState.QUEUED
    again = bench.claim()
    assert again.token > claim.token
    assert len(bench.files(again, FileState.STORED)) == 2


# -- files ----------------------------------------------------------------------------------------------------------


def test_evidence_is_worth_something_under_its_own_claim_alone(bench: Bench) -> None:
    claim = bench.claimed()
    files = bench.send(claim)
    asked_at = bench.clock.now() - 1000  # the commit comes long after the look
    bench.queue.shipments.verified(claim, [Proven(files[0], "read-back", asked_at)])
    (file,) = bench.files(claim, FileState.STORED)
    assert (file.verified_by, file.verified_at, file.receipt) == ("read-back", asked_at, files[0].receipt)
    bench.queue.shipments.verified(claim, [Proven(file, "read-back", asked_at, "another version")])
    assert bench.files(claim, FileState.STORED)[0].receipt == "another version"
    bench.queue.claims.release(claim, not_before=0, code="x", reason="", attempts=1)
    (file,) = bench.files(bench.claim(), FileState.STORED)
    assert (file.verified_by, file.verified_at) == (None, None)


def test_what_is_sent_again_has_no_evidence(bench: Bench) -> None:
    claim = bench.claimed()
    files = bench.send(claim)
    bench.queue.shipments.verified(claim, [Proven(files[0], "read-back", bench.clock.now())])
    bench.queue.shipments.send_again(claim, [], {files[0]: "k/1"})
    (ready,) = bench.files(claim)
    assert ready.key_attempt == files[0].key_attempt + 1
    (stored,) = bench.send(claim)
    assert stored.verified_by is None
    assert bench.queue.shipments.facts(claim).damaged_keys == ("k/1",)


def test_a_missing_object_is_sent_again_under_its_own_key(bench: Bench) -> None:
    claim = bench.claimed()
    files = bench.send(claim)
    bench.queue.shipments.send_again(claim, files, {})
    (ready,) = bench.files(claim)
    assert ready.key_attempt == files[0].key_attempt
    assert bench.state() is StudyState.UPLOADING


def test_a_file_that_changed_while_it_was_sent_is_not_stored(bench: Bench) -> None:
    claim = bench.claimed()
    (file,) = bench.files(claim)
    bench.run("UPDATE files SET identity = '9:9:9:9:9'")
    bench.queue.shipments.stored(claim, [(file, digest(file), receipt(file))])
    assert [row[0] for row in bench.rows("SELECT state FROM files")] == [FileState.READY]


def test_quarantine_takes_a_file_out_of_its_study(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2")
    file, other = bench.files(claim)
    bench.queue.shipments.quarantine(claim, file, code="unreadable", reason="may not be read")
    assert bench.files(claim) == [other]
    (row,) = bench.queue.reports.quarantine(10)
    assert (row["code"], row["reason"], row["path"]) == ("unreadable", "may not be read", "/inbox/A/IM1")
    assert bench.queue.arrivals.known(bench.source.source_id, b"A")[b"IM1"].state is FileState.QUARANTINED


def test_forget_restarts_the_study(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2")
    file, _ = bench.files(claim)
    bench.queue.shipments.forget(claim, [file])
    assert bench.state() is StudyState.ARRIVING
    assert b"IM1" not in bench.queue.arrivals.known(bench.source.source_id, b"A")
    bench.wait_until_quiet()
    assert bench.state() is StudyState.QUEUED


def test_pages_give_each_file_once(bench: Bench) -> None:
    claim = bench.claimed(*(f"IM{n}" for n in range(7)))
    pages = list(bench.queue.shipments.pages(claim, FileState.READY, 3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({file.name for page in pages for file in page}) == 7


# -- due files ------------------------------------------------------------------------------------------------------


def test_a_kept_file_falls_due(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2")
    first, second = bench.record(claim)
    bench.queue.deletions.keep(claim, [first], bench.clock.now() + 100)
    bench.queue.deletions.keep(claim, [second], None)
    bench.finish(claim)
    assert bench.queue.claims.next_try_at() == bench.clock.now() + 100
    bench.queue.claims.queue_due()
    assert bench.state() is StudyState.ARCHIVED
    bench.clock.seconds += 100
    bench.queue.claims.queue_due()
    assert bench.state() is StudyState.QUEUED
    again = bench.claim()
    (file,) = bench.files(again, FileState.STORED)
    assert (file.name, file.due_at) == (b"IM1", bench.clock.now())
    assert file.verified_by is None  # proven again, before it may go


def test_a_due_file_waits_while_its_study_arrives(bench: Bench) -> None:
    claim = bench.claimed()
    bench.queue.deletions.keep(claim, bench.record(claim), bench.clock.now() + 100)
    bench.finish(claim)
    bench.add("IM2")
    bench.clock.seconds += 200
    bench.queue.claims.queue_due()
    assert bench.state() is StudyState.ARRIVING


# -- the end of a shipment ------------------------------------------------------------------------------------------


def test_a_file_that_came_during_the_purge_makes_the_next_shipment(bench: Bench) -> None:
    claim = bench.claimed()
    files = bench.authorise(claim)
    bench.add("IM2", quiet_seconds=0)
    assert bench.state() is StudyState.PURGING
    bench.wait_until_quiet()  # its quiet time ends before the shipment does
    assert bench.state() is StudyState.PURGING
    bench.queue.deletions.purged(STUDY, files, [], [])
    bench.finish(claim)
    assert bench.state() is StudyState.ARRIVING
    assert bench.queue.quiet.next_quiet_at(bench.source.source_id) is not None
    bench.wait_until_quiet()
    assert [file.name for file in bench.files(bench.claim())] == [b"IM2"]


def test_how_authorised_deletions_end(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2", "IM3")
    deleted, restored, untouched = bench.authorise(claim)
    assert {row[0] for row in bench.rows("SELECT state FROM files")} == {FileState.DELETING}
    bench.queue.deletions.purged(STUDY, [deleted], [(restored, "changed")], [untouched])
    assert [tuple(row) for row in bench.rows("SELECT name, state FROM files")] == [(b"IM3", FileState.STORED)]
    kinds = [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)]
    assert kinds == ["authorised"] * 3 + ["deleted", "restored", "untouched"]


def test_a_file_that_changed_before_its_deletion_was_authorised_is_not_on_record(bench: Bench) -> None:
    claim = bench.claimed("IM1", "IM2")
    changed, same = bench.record(claim)
    bench.add("IM1")
    proofs = [(changed, {"sha256": "1"}), (same, {"sha256": "2"})]
    assert bench.queue.deletions.authorise(claim, proofs) == {same.file_id}
    assert [entry.body["file"] for entry in bench.queue.audit.of_study(STUDY)] == [same.file_id]
    assert [one.file_id for one in bench.queue.deletions.pending()] == [same.file_id]


def test_nothing_is_authorised_twice(bench: Bench) -> None:
    claim = bench.claimed()
    (file,) = bench.authorise(claim)
    assert bench.queue.deletions.authorise(claim, [(file, {})]) == set()
    assert len(bench.queue.audit.of_study(STUDY)) == 1


def test_asides_of_one_study_and_of_all(bench: Bench) -> None:
    for study in ("1.2.1", "1.2.2"):
        bench.authorise(bench.claimed("IM" + study, study=study))
    assert [one.study_uid for one in bench.queue.deletions.pending()] == ["1.2.1", "1.2.2"]
    assert [one.study_uid for one in bench.queue.deletions.pending(Uid("1.2.2"))] == ["1.2.2"]


def test_an_end_is_written_down_once(bench: Bench) -> None:
    bench.authorise(bench.claimed())
    (one,) = bench.queue.deletions.pending()
    bench.queue.deletions.concluded(one, "deleted", "the daemon crashed after the deletion")
    bench.queue.deletions.concluded(one, "restored", "somebody looked twice")
    assert [entry.body["kind"] for entry in bench.queue.audit.of_study(STUDY)] == ["authorised", "deleted"]


def test_the_intake_leaves_a_deletion_under_way_alone(bench: Bench) -> None:
    claim = bench.claimed()
    (file,) = bench.authorise(claim)
    bench.queue.arrivals.forget([file.file_id])
    bench.add("IM1")
    assert [tuple(row) for row in bench.rows("SELECT file_id, state FROM files")] == [
        (file.file_id, FileState.DELETING)
    ]
