"""What is asked of the state all day long goes by an index, and what `status` tells is counted as it changes: neither
costs more with a million files than with one."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.model import FileState, StudyEvent, StudyState, Uid
from dicomwatchd.queue.claims import BLAMED_OFTEN, First
from dicomwatchd.queue.database.schema import open_writer
from dicomwatchd.queue.database.steps import STEPS
from dicomwatchd.queue.holds import TWO_PATIENTS
from dicomwatchd.queue.rows import DAMAGED, HELD, Arrival, Root
from dicomwatchd.rights import Asker
from tests.unit.queues import STUDY, Bench

#: Tables that hold a row for each file, study, series, deletion or change of state.
LARGE = frozenset(
    {
        "files",
        "studies",
        "series",
        "identities",
        "arrivals",
        "transitions",
        "shipments",
        "audit",
        "upload_results",
        "uploads",
    }
)
#: Indexes of what is in a certain state: walked whole, they hold only what is asked for.
SMALL = frozenset({"files_deleting", "files_quarantined", "studies_by_turn", "studies_ill", "arrivals_quiet"}) | {
    "files_damaged_of_study"
}


class Recording:
    """The state's connection, with the plan of every statement that goes through it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: dict[str, list[str]] = {}

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        self._explain(sql, values)
        return self._connection.execute(sql, values)

    def executemany(self, sql: str, rows: Sequence[Any]) -> sqlite3.Cursor:
        if rows:
            self._explain(sql, rows[0])
        return self._connection.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _explain(self, sql: str, values: Any) -> None:
        # With its values bound, as it will run: an index of certain rows serves no statement that leaves them open.
        if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"):
            plan = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            self.plans[sql] = [row["detail"] for row in plan]


def complaints(plans: dict[str, list[str]]) -> list[str]:
    """The statements that walk a large table, or sort what they find."""
    found = []
    for sql, steps in plans.items():
        aliases = {alias: table for table, alias in re.findall(r"(?:FROM|JOIN|UPDATE) (\w+) (\w+)", sql)}
        for step in steps:
            walk = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
            is_walk = walk is not None and aliases.get(walk[1], walk[1]) in LARGE and walk[2] not in SMALL
            # The last entries of the audit and so on, by their number: SQLite calls that a scan and takes one step.
            is_end = re.search(r"ORDER BY sequence DESC LIMIT 1$", sql) is not None
            if (is_walk and not is_end) or "TEMP B-TREE FOR ORDER BY" in step:
                found.append(f"{step}: {sql}")
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def plans(bench: Bench) -> dict[str, list[str]]:
    recording = Recording(bench.queue._database._connection)
    bench.queue._database._connection = recording  # type: ignore[assignment]
    return recording.plans


def arriving(bench: Bench) -> None:
    queue, source_id = bench.queue, bench.source.source_id
    bench.add("IM1", "IM2", "IM3")
    bench.add("IM2")  # changed
    queue.arrivals.is_known(source_id, b"A", {}, ("x",))
    queue.arrivals.known(source_id, b"A")
    queue.arrivals.known_directories(source_id)
    queue.arrivals.forget([bench.rows("SELECT MAX(file_id) FROM files")[0][0]])
    queue.quiet.next_quiet_at(source_id)
    queue.quiet.postpone(source_id, [STUDY], 1.0)
    queue.arrivals.scanned(source_id)
    [study_uid] = queue.shipments.arriving()
    files = queue.shipments.ready_while_arriving(study_uid, 0, 10)
    queue.shipments.sent_early([(file, "0" * 64, "{}") for file in files])
    bench.wait_until_quiet()


def shipping(bench: Bench) -> None:
    claims, deletions = bench.queue.claims, bench.queue.deletions
    bench.add("IM1", "IM2", "IM3")
    bench.wait_until_quiet()
    claims.queue_due()
    claim = bench.claim()
    claims.next_try_at()
    deletions.pending(claim.study_uid)
    files = bench.record(claim)
    bench.queue.shipments.facts(claim)
    bench.queue.arrivals.on_record(STUDY, f"{STUDY}.1", "digest", "digest")
    deletions.keep(claim, files[:1], None)
    deletions.authorise(claim, [(file, {"sha256": file.sha256}) for file in files[1:]])
    deletions.pending()
    deletions.purged(claim.study_uid, files[1:2], [], files[2:])
    bench.finish(claim)


def delaying(bench: Bench) -> None:
    claim = bench.claimed("IM1")
    claims = bench.queue.claims
    claims.release(claim, not_before=0.0, code="x", reason="x", attempts=1, endpoint="s3")
    claims.endpoints_back()
    for first in First:
        claim = claims.claim(first=first)  # type: ignore[assignment]
        claims.release(claim, not_before=0.0, code="x", reason="x", attempts=1)
    claims.release(bench.claim(), not_before=0.0, code="x", reason="x", attempts=2, blamed=BLAMED_OFTEN)
    claims.next_try_at(True)
    for first in First:
        claim = claims.claim(often_blamed=True, first=first)  # type: ignore[assignment]
        claims.release(claim, not_before=0.0, code="x", reason="x", attempts=3, blamed=BLAMED_OFTEN)
    claims.park(claims.claim(often_blamed=True), code="x", reason="x")  # type: ignore[arg-type]
    claims.retry(STUDY)
    bench.claim()


def holding(bench: Bench) -> None:
    deletions, holds = bench.queue.deletions, bench.queue.holds
    bench.add("IM1", "IM2", "IM3", "IM4")
    bench.wait_until_quiet()
    claim = bench.claim()
    files = bench.record(claim)
    holds.known(STUDY)
    deletions.keep(claim, files[:1], None)
    assert holds.hold(STUDY, TWO_PATIENTS, [{"patient_id": "P1"}], lambda _: False) == (True, True)
    deletions.keep(claim, files[1:2], None, code=HELD, reason="x")
    deletions.keep(claim, files[2:], None, code=DAMAGED, reason="x")
    for page in deletions.kept_as_damaged(STUDY, lambda *_: True):
        deletions.release_damaged(claim, [(file, 0.0) for file in page[:1]])
    holds.count()
    assert [hold.files for hold in holds.open(10)] == [3]
    bench.queue.reports.damaged(10)
    assert holds.release(STUDY, "seen", {}) == 3
    deletions.keep(claim, files[:1], None, code=HELD, reason="x")
    bench.finish(claim)
    assert bench.queue.claims.retry(STUDY)
    bench.queue.claims.queue_due()


def telling(bench: Bench) -> None:
    bench.queue.reports.status()
    bench.queue.reports.unfinished()
    bench.queue.reports.progress()
    bench.queue.reports.quarantine(10)
    bench.queue.reports.show(STUDY)


@pytest.mark.parametrize("work", [arriving, shipping, delaying, holding, telling])
def test_nothing_that_is_done_all_day_walks_a_table(
    work: Callable[[Bench], None], bench: Bench, plans: dict[str, list[str]]
) -> None:
    work(bench)
    assert len(plans) >= 4
    assert complaints(plans) == []


def test_what_an_upload_is_asked_every_second(bench: Bench, plans: dict[str, list[str]]) -> None:
    bench.queue.uploads.progress(bench.source.source_id)
    assert complaints(plans) == []
    assert not any("files_1 " in step for steps in plans.values() for step in steps), "it walks all files of a source"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM files",
        "SELECT s.name FROM sources s JOIN files f ON f.size_bytes = s.source_id",
        "SELECT state, COUNT(*) FROM studies GROUP BY state",
        "SELECT study_uid FROM studies WHERE study_uid > '1' ORDER BY changed_at",
    ],
)
def test_a_walk_would_be_noticed(sql: str, bench: Bench, plans: dict[str, list[str]]) -> None:
    bench.rows(sql)
    assert complaints(plans)


# -- counts -----------------------------------------------------------------------------------------------------------


def counted(bench: Bench) -> list[Any]:
    files = (
        "SELECT source_id, state, files, size_bytes FROM file_counts WHERE files != 0 OR size_bytes != 0 ORDER BY 1, 2"
    )
    studies = "SELECT state, studies FROM study_counts WHERE studies != 0 ORDER BY 1"
    return [tuple(row) for sql in (files, studies) for row in bench.rows(sql)]


def found(bench: Bench) -> list[Any]:
    files = "SELECT source_id, state, COUNT(*), SUM(size_bytes) FROM files GROUP BY 1, 2 ORDER BY 1, 2"
    studies = "SELECT state, COUNT(*) FROM studies GROUP BY 1 ORDER BY 1"
    return [tuple(row) for sql in (files, studies) for row in bench.rows(sql)]


def test_the_counts_are_what_a_count_would_find(bench: Bench) -> None:
    """Through everything that adds, moves, changes or removes a row."""
    looks = 0
    for work in (arriving, shipping, delaying):
        work(bench)
        assert counted(bench) == found(bench), work.__name__
        looks += len(found(bench))
    other = bench.queue.uploads.begin(
        "upload-2", b"/other", Root(1, 2, ""), delete=False, asker=Asker(1000, 1000)
    ).source
    bench.add("IM1", "IM2", study="1.2.2", source=other)
    bench.queue.arrivals.add(
        other.source_id, [Arrival(b"A", b"IM1", bench.identity(7), FileState.QUARANTINED, code="x", reason="x")], 0
    )
    claim = bench.claimed("IM8", "IM9", study="1.2.3")
    ready, again = bench.files(claim)
    bench.queue.shipments.stored(claim, [(file, "0" * 64, "{}") for file in (ready, again)])
    bench.queue.shipments.advance(claim, StudyEvent.STORED)
    bench.queue.shipments.send_again(claim, [again], {})
    bench.queue.shipments.quarantine(claim, again, code="x", reason="x")
    bench.queue.shipments.forget(claim, [ready])
    assert counted(bench) == found(bench)
    bench.queue.arrivals.add_source("ct1", b"/moved", "inbox")
    assert bench.queue.uploads.end(other.source_id, {}, unfinished=True)
    assert counted(bench) == found(bench)
    assert looks > 5


def test_a_change_that_is_taken_back_is_not_counted(bench: Bench) -> None:
    bench.add("IM1")
    before = counted(bench)

    def delete_and_fail() -> None:
        with bench.queue._database.write() as db:
            db.execute("DELETE FROM files")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        delete_and_fail()
    assert counted(bench) == before == found(bench)


def test_a_state_of_the_first_version_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    database = open_writer(tmp_path, STEPS[:1])
    with database.write() as db:
        db.execute("INSERT INTO sources VALUES (1, 'ct1', x'2f696e626f78', 'inbox', 0, 0.0, NULL)")
        for number, state in enumerate((FileState.READY, FileState.READY, FileState.KEPT)):
            db.execute(
                "INSERT INTO files (source_id, dir, name, identity, size_bytes, state, seen_at)"
                " VALUES (1, x'', ?, '1:1:1:1:1', 10, ?, 0.0)",
                (b"%d" % number, state),
            )
        db.execute("INSERT INTO studies (study_uid, state, changed_at) VALUES ('1.2', 'parked', 0.0)")
    database.close()
    bench = Bench(tmp_path)
    assert counted(bench) == found(bench) == [(1, "kept", 1, 10), (1, "ready", 2, 20), ("parked", 1)]
    assert bench.queue.reports.status()["files"] == {"kept": 1, "ready": 2}
    assert bench.queue.reports.status()["bytes_waiting"] == 20
    bench.queue.close()


# -- the same answers as before, by other ways ------------------------------------------------------------------------


def test_the_next_try_is_that_of_a_study_that_can_be_tried(bench: Bench) -> None:
    """A kept file that is due concerns nobody while its study is parked: the dispatcher would look again and again."""
    claims, deletions, now = bench.queue.claims, bench.queue.deletions, bench.clock.now()
    claim = bench.claimed("IM1", "IM2")
    files = bench.record(claim)
    deletions.keep(claim, files, now - 5)
    claims.park(claim, code="x", reason="x")
    assert claims.next_try_at() is None
    assert bench.state() is StudyState.PARKED
    claims.retry(STUDY)
    assert claims.next_try_at() == 0.0
    bench.finish(at_purging(bench))
    assert claims.next_try_at() == now - 5


def at_purging(bench: Bench) -> Any:
    claim = bench.claim()
    for event in (StudyEvent.STORED, StudyEvent.VERIFIED):
        bench.queue.shipments.advance(claim, event)
    bench.queue.shipments.recorded(claim, 1)
    return claim


def test_a_wait_of_a_clock_that_was_set_back_ends_at_once(bench: Bench) -> None:
    for study in ("1.2.1", "1.2.2"):
        claim = bench.claimed("IM" + study, study=study)
        bench.queue.claims.release(claim, not_before=bench.clock.now() + 3000, code="x", reason="", attempts=1)
    assert bench.queue.claims.next_try_at() > bench.clock.now()  # type: ignore[operator]
    bench.run("UPDATE studies SET not_before = ? WHERE study_uid = '1.2.2'", bench.clock.now() + 90_000)
    assert bench.queue.claims.next_try_at() == 0.0
    assert bench.claim().study_uid == Uid("1.2.2")


def test_every_directory_is_known_once(bench: Bench) -> None:
    other = bench.queue.arrivals.add_source("ct2", b"/other", "inbox")
    names = [b"", b"A", b"A/B", b"\xff", b"Z"]
    for source, directories in ((bench.source, names), (other, [b"C"])):
        arrivals = [
            Arrival(directory, name, bench.identity(), FileState.IGNORED)
            for directory in directories
            for name in (b"1", b"2")
        ]
        bench.queue.arrivals.add(source.source_id, arrivals, 0)
    assert bench.queue.arrivals.known_directories(bench.source.source_id) == sorted(names)
    assert bench.queue.arrivals.known_directories(other.source_id) == [b"C"]
    assert bench.queue.arrivals.known_directories(99) == []
