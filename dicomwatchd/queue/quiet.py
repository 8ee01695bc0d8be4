"""The quiet timers of arriving studies: a study is queued once no file of it has changed for its quiet time, at any of
the sources that it comes from, and nothing of it is waited for (see waits)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from dicomwatchd.model import FileState, StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue import waits
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.rows import WAITING
from dicomwatchd.queue.transitions import move, state_of
from dicomwatchd.queue.waits import WaitNews, Waits

#: Clocks are put right by less than this all the time; what lies further ahead was written before one was set back.
CLOCK_SLACK_SECONDS = 1.0


class QuietTimers:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waits = Waits(CLOCK_SLACK_SECONDS)
        self._news: deque[WaitNews] = deque()

    def wait_at_most(self, seconds: Mapping[int, float]) -> None:
        """How long a study waits for what a DICOMDIR in a source lists, by source; in a source that is not named it
        waits for nothing. Holds for studies that wait already, too."""
        self._waits.at_most = dict(seconds)
        with self._database.write() as db:
            waits.look_again_at_all(db)

    def end_waits(self) -> list[WaitNews]:
        """To be called again and again: studies go on that need not wait any more. Returns which have begun to wait, or
        have waited in vain, since the last call."""
        with self._database.read() as db:
            is_due = self._waits.any_is_due(db, self._clock.now())
        if is_due:
            with self._queueing():
                pass
        return [self._news.popleft() for _ in range(len(self._news))]

    def nearly_quiet(self, source_id: int) -> dict[str, list[bytes]]:
        """Arriving studies whose timer at this source has run out, with the directories their files lie in: to be
        looked at once more before the study counts as quiet."""
        now = self._clock.now()
        with self._database.write() as db:
            _repair_timers(db, now)
            rows = db.execute(
                "SELECT a.study_uid, f.dir FROM arrivals a LEFT JOIN files f ON f.study_uid = a.study_uid AND"
                " f.source_id = a.source_id AND f.state IN (?, ?) WHERE a.source_id = ? AND a.quiet = 0 AND"
                " a.quiet_at <= ? GROUP BY a.study_uid, f.dir",
                (*WAITING, source_id, now),
            ).fetchall()
        found: dict[str, list[bytes]] = {}
        for row in rows:
            found.setdefault(row["study_uid"], [])
            if row["dir"] is not None:
                found[row["study_uid"]].append(row["dir"])
        return found

    def next_quiet_at(self, source_id: int) -> float | None:
        """When `nearly_quiet` will have something to say: at once, too, where the clock was set back since."""
        now = self._clock.now()
        with self._database.read() as db:
            row = db.execute(
                "SELECT MIN(quiet_at) AS at, EXISTS (SELECT 1 FROM arrivals INDEXED BY arrivals_set"
                " WHERE set_at > ? AND source_id = ? AND quiet = 0) AS is_set_back FROM arrivals"
                " WHERE source_id = ? AND quiet = 0",
                (now + CLOCK_SLACK_SECONDS, source_id, source_id),
            ).fetchone()
        if row["at"] is None:
            return None
        return min(now, float(row["at"])) if row["is_set_back"] else float(row["at"])

    def postpone(self, source_id: int, study_uids: Iterable[str], seconds: float) -> None:
        """A file beside these studies' own is still being written and may belong to one of them."""
        now = self._clock.now()
        with self._database.write() as db:
            _repair_timers(db, now)
            db.executemany(
                "UPDATE arrivals SET set_at = ?, quiet_at = MAX(quiet_at, ?)"
                " WHERE source_id = ? AND study_uid = ? AND quiet = 0",
                [(now, now + seconds, source_id, uid) for uid in study_uids],
            )

    def confirm_quiet(self, source_id: int, study_uids: Iterable[str], scanned_at: float) -> None:
        """The source was looked at, beginning at ``scanned_at``, and held nothing new for these studies. A study that
        is quiet at all of its sources is queued."""
        with self._queueing() as db:
            db.executemany(
                "UPDATE arrivals SET quiet = 1 WHERE source_id = ? AND study_uid = ? AND quiet_at <= ?",
                [(source_id, uid, scanned_at) for uid in study_uids],
            )

    @contextmanager
    def _queueing(self) -> Iterator[Transaction]:
        """One transaction; at its end what is quiet by then is queued."""
        news: list[WaitNews] = []
        with self._database.write() as db:
            yield db
            self._queue_quiet(db, news)
        self._news += news

    def _queue_quiet(self, db: Transaction, news: list[WaitNews]) -> None:
        now = self._clock.now()
        rows = db.execute(
            "SELECT study_uid, MAX(quiet_at) AS quiet_at FROM arrivals WHERE study_uid IN"
            " (SELECT study_uid FROM arrivals WHERE quiet = 1) GROUP BY study_uid HAVING MIN(quiet) = 1"
        ).fetchall()
        for row in rows:
            study_uid = row["study_uid"]
            state = state_of(db, study_uid)
            if state is StudyState.PURGING:
                continue  # its new files have to wait for the end of that shipment
            if state is StudyState.ARRIVING and self._waits.holds(db, study_uid, now, news):
                continue
            db.execute("DELETE FROM arrivals WHERE study_uid = ?", (study_uid,))
            if state is StudyState.ARRIVING:
                leave_arriving(db, study_uid, row["quiet_at"], now)

    def retire(self, active: Iterable[int]) -> None:
        """Sources that nobody looks at any more, or that are not there, hold up no study: their quiet timers count as
        run out. To be called again and again, since what happens elsewhere to a study restarts its timers."""
        keep = set(active)
        with self._database.read() as db:
            rows = db.execute("SELECT DISTINCT source_id FROM arrivals WHERE quiet = 0").fetchall()
        idle = [row["source_id"] for row in rows if row["source_id"] not in keep]
        if not idle:
            return
        with self._queueing() as db:
            db.executemany("UPDATE arrivals SET quiet = 1 WHERE source_id = ?", [(one,) for one in idle])

    def release_unheld(self) -> None:
        """At start: a study that arrives, and that no source holds up at all, waits for nobody. Nothing leaves one
        behind so any more; older versions of the program did."""
        now = self._clock.now()
        with self._database.write() as db:
            rows = db.execute(
                "SELECT study_uid FROM studies s WHERE s.state != 'archived' AND s.state = ? AND NOT EXISTS"
                " (SELECT 1 FROM arrivals a WHERE a.study_uid = s.study_uid)",
                (StudyState.ARRIVING,),
            ).fetchall()
            for row in rows:
                leave_arriving(db, row["study_uid"], now, now)


def leave_arriving(db: Transaction, study_uid: str, queued_at: float, now: float) -> None:
    """No source holds this arriving study up any more: it is queued, or is at rest where no file of it waits. Of a
    study that is in no archive and has no files nothing is kept."""
    waits.ended(db, study_uid)
    if not _has_waiting_files(db, study_uid) and not _is_half_recorded(db, study_uid):
        move(db, study_uid, StudyEvent.EMPTIED, now)
        db.execute("DELETE FROM studies WHERE study_uid = ? AND revision = 0", (study_uid,))
        return
    move(db, study_uid, StudyEvent.QUIET, now)
    db.execute("UPDATE studies SET queued_at = ? WHERE study_uid = ?", (queued_at, study_uid))


def restart_quiet_timer(db: Transaction, study_uid: str, source_id: int, now: float, quiet_seconds: float) -> None:
    """A change at one source restarts the study's timers at all of them."""
    quiet_at = now + quiet_seconds
    _repair_timers(db, now)
    waits.look_again(db, study_uid)
    db.execute(
        "INSERT INTO arrivals (study_uid, source_id, set_at, quiet_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (study_uid, source_id, now, quiet_at),
    )
    db.execute(
        "UPDATE arrivals SET set_at = ?, quiet_at = MAX(quiet_at, ?), quiet = 0 WHERE study_uid = ?",
        (now, quiet_at, study_uid),
    )


def restart_at(db: Transaction, study_uid: str, source_ids: Iterable[int], now: float) -> None:
    """The study is quiet again once each of these sources was looked at from now on."""
    waits.look_again(db, study_uid)
    db.executemany(
        "INSERT INTO arrivals (study_uid, source_id, set_at, quiet_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET quiet = 0",
        [(study_uid, source_id, now, now) for source_id in source_ids],
    )


def _has_waiting_files(db: Transaction, study_uid: str) -> bool:
    """Files to ship, or whose deletion a shipment has left for the next one to conclude."""
    found = db.execute(
        "SELECT 1 FROM files WHERE study_uid = ? AND state IN (?, ?, ?)", (study_uid, *WAITING, FileState.DELETING)
    ).fetchone()
    return found is not None


def _is_half_recorded(db: Transaction, study_uid: str) -> bool:
    """Whether a shipment of the study came to recording and did not get through: then there may be a manifest in the
    store that the catalogue does not know."""
    row = db.execute(
        "SELECT COALESCE(MAX(transition_id) FILTER (WHERE event = ?), 0)"
        " > COALESCE(MAX(transition_id) FILTER (WHERE event = ?), 0) AS is_half"
        " FROM transitions WHERE study_uid = ?",
        (StudyEvent.VERIFIED, StudyEvent.RECORDED, study_uid),
    ).fetchone()
    return bool(row["is_half"])


def _repair_timers(db: Transaction, now: float) -> None:
    """A clock that was set back must not hold a study for as long as it was wrong: each timer runs its length anew."""
    db.execute(
        "UPDATE arrivals SET quiet_at = ? + MAX(quiet_at - set_at, 0), set_at = ? WHERE set_at > ?",
        (now, now, now + CLOCK_SLACK_SECONDS),
    )
