"""The intake's side of the queue: sources, files found, and the quiet timers of arriving studies."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence

from dicomwatchd.model import FileState, StudyEvent, StudyState
from dicomwatchd.ports import Clock
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.remounts import FORGET_SECONDS, Remounts
from dicomwatchd.queue.rows import LEFT, UNREADABLE, Arrival, Source, TrackedFile, identity_text
from dicomwatchd.queue.transitions import move, state_of

#: Clocks are put right by less than this all the time; what lies further ahead was written before one was set back.
CLOCK_SLACK_SECONDS = 1.0
#: Files that a study still has to ship.
WAITING = (FileState.READY, FileState.STORED)
_STATES = {state.value: state for state in FileState}


class Arrivals:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.remounts = Remounts(database, clock)

    # -- sources ----------------------------------------------------------------------------------------------

    def add_source(self, name: str, path: bytes, kind: str, *, delete_local: bool = False) -> Source:
        """Register a folder, or find it again by its name. One that has moved to another path starts anew: what was
        known of its files holds no longer. The old path stays as a source of its own, of the kind "left", until nothing
        is staged there any more (see `dismiss`)."""
        with self._database.write() as db:
            row = db.execute("SELECT * FROM sources WHERE name = ?", (name,)).fetchone()
            if row is not None and row["path"] != path:
                rows = db.execute("SELECT file_id FROM files WHERE source_id = ?", (row["source_id"],)).fetchall()
                self._drop_files(db, [r["file_id"] for r in rows])
                _leave(db, row, self._clock.now())
                db.execute("UPDATE sources SET path = ? WHERE source_id = ?", (path, row["source_id"]))
                db.execute("DELETE FROM roots WHERE source_id = ?", (row["source_id"],))
            if row is None:
                db.execute(
                    "INSERT INTO sources (name, path, kind, delete_local, created_at) VALUES (?, ?, ?, ?, ?)",
                    (name, path, kind, delete_local, self._clock.now()),
                )
            row = db.execute("SELECT * FROM sources WHERE name = ?", (name,)).fetchone()
        return _source(row)

    def dismiss(self, source_id: int, *, unseen: bool = False) -> bool:
        """A source of the kind "left" was looked through, and nothing is staged there: it is forgotten, unless it is
        still open how a deletion in it has ended. One that could not be seen (``unseen``) is, too, as a file system
        that stays away is. Whether it is."""
        before = self._clock.now() - FORGET_SECONDS if unseen else math.inf
        with self._database.write() as db:
            return bool(
                db.execute(
                    "DELETE FROM sources WHERE source_id = ? AND kind = ? AND created_at <= ? AND NOT EXISTS"
                    " (SELECT 1 FROM files WHERE files.source_id = sources.source_id)",
                    (source_id, LEFT, before),
                ).rowcount
            )

    def sources(self) -> list[Source]:
        with self._database.read() as db:
            return [_source(row) for row in db.execute("SELECT * FROM sources ORDER BY source_id")]

    def scanned(self, source_id: int) -> None:
        """A whole look at the source has ended."""
        with self._database.write() as db:
            db.execute("UPDATE sources SET scanned_at = ? WHERE source_id = ?", (self._clock.now(), source_id))

    def retire(self, active: Iterable[int]) -> None:
        """Sources that nobody looks at any more, or that are not there, hold up no study: their quiet timers count as
        run out. To be called again and again, since what happens elsewhere to a study restarts its timers."""
        keep = set(active)
        with self._database.read() as db:
            rows = db.execute("SELECT DISTINCT source_id FROM arrivals WHERE quiet = 0").fetchall()
        idle = [row["source_id"] for row in rows if row["source_id"] not in keep]
        if not idle:
            return
        with self._database.write() as db:
            db.executemany("UPDATE arrivals SET quiet = 1 WHERE source_id = ?", [(one,) for one in idle])
            self._queue_quiet(db)

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

    # -- files ------------------------------------------------------------------------------------------------

    def is_known(self, source_id: int, directory: bytes, files: Mapping[bytes, str], barred: Collection[str]) -> bool:
        """Whether exactly these ``files`` (name to identity) are known directly in a directory, and nothing was put
        into quarantine there with one of the codes ``barred``: what `known` would tell of a directory at rest, in half
        the time."""
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT name, CASE WHEN code IN ({','.join('?' * len(barred))}) THEN '' ELSE identity END FROM files"
                " WHERE source_id = ? AND dir = ?",
                (*barred, source_id, directory),
            ).fetchall()
        return dict(map(tuple, rows)) == files

    def known(self, source_id: int, directory: bytes) -> dict[bytes, TrackedFile]:
        """What is known of the files directly in a directory, by name."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT name, file_id, identity, state, code FROM files WHERE source_id = ? AND dir = ?",
                (source_id, directory),
            ).fetchall()
        return {
            name: TrackedFile(file_id, identity, _STATES[state], code) for name, file_id, identity, state, code in rows
        }

    def known_directories(self, source_id: int) -> list[bytes]:
        with self._database.read() as db:
            # From one directory to the next: DISTINCT would walk all files of each.
            rows = db.execute(
                "WITH RECURSIVE known (dir) AS (SELECT MIN(dir) FROM files WHERE source_id = :source UNION ALL"
                " SELECT (SELECT MIN(dir) FROM files WHERE source_id = :source AND dir > known.dir) FROM known"
                " WHERE known.dir IS NOT NULL) SELECT dir FROM known WHERE dir IS NOT NULL",
                {"source": source_id},
            ).fetchall()
        return [row["dir"] for row in rows]

    def knows_series(self, study_uid: str, series_uid: str) -> bool:
        """Whether the attributes of this series, and so those of its study, are on record."""
        with self._database.read() as db:
            found = db.execute(
                "SELECT 1 FROM series JOIN studies USING (study_uid) WHERE study_uid = ? AND series_uid = ?"
                # What is archived, with no file here, may be on record no more by the time the file is taken up.
                " AND (state != 'archived' OR EXISTS (SELECT 1 FROM files f WHERE f.study_uid = studies.study_uid))",
                (study_uid, series_uid),
            ).fetchone()
        return found is not None

    def add(self, source_id: int, arrivals: Sequence[Arrival], quiet_seconds: float) -> None:
        """Take up new or changed files; the quiet timers of their studies restart. Replaces what was known under
        the same names, except for a file whose deletion is under way: that one is found again later. From a source
        that has ended, an upload that is over, nothing is taken up any more."""
        now = self._clock.now()
        with self._database.write() as db:
            source = db.execute("SELECT kind FROM sources WHERE source_id = ?", (source_id,)).fetchone()
            if source is None:
                return
            if source["kind"] == "upload":
                _owe_an_account(db, source_id, arrivals)
            touched: dict[str, None] = {}
            for arrival in arrivals:
                old = db.execute(
                    "SELECT file_id, state, study_uid FROM files WHERE source_id = ? AND dir = ? AND name = ?",
                    (source_id, arrival.dir, arrival.name),
                ).fetchone()
                if old is not None:
                    if old["state"] == FileState.DELETING:
                        continue
                    db.execute("DELETE FROM files WHERE file_id = ?", (old["file_id"],))
                    if old["study_uid"] and old["state"] in WAITING:
                        touched[old["study_uid"]] = None
                self._insert(db, source_id, arrival, now)
                if arrival.header is not None:
                    _merge_study(db, arrival, now)
                    touched[arrival.header.study_uid] = None
            for study_uid in touched:
                move(db, study_uid, StudyEvent.CHANGED, now)
                _restart_quiet_timer(db, study_uid, source_id, now, quiet_seconds)

    def forget(self, file_ids: Sequence[int]) -> None:
        """These files are no longer under their names. Only what is known of them goes; a deletion that is under
        way is left to its shipment."""
        with self._database.write() as db:
            self._drop_files(db, file_ids)

    def _drop_files(self, db: Transaction, file_ids: Sequence[int]) -> None:
        now = self._clock.now()
        touched: dict[str, int] = {}
        for file_id in file_ids:
            row = db.execute(
                "DELETE FROM files WHERE file_id = ? AND state != ? RETURNING study_uid, state, source_id",
                (file_id, FileState.DELETING),
            ).fetchone()
            if row is not None and row["study_uid"] and row["state"] in WAITING:
                touched[row["study_uid"]] = row["source_id"]
        for study_uid, source_id in touched.items():
            if state_of(db, study_uid) is StudyState.PARKED:
                continue
            move(db, study_uid, StudyEvent.CHANGED, now)
            if not db.execute("SELECT 1 FROM arrivals WHERE study_uid = ?", (study_uid,)).fetchone():
                _restart_quiet_timer(db, study_uid, source_id, now, 0)

    # -- quiet ------------------------------------------------------------------------------------------------

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

    def confirm_quiet(self, source_id: int, study_uids: Iterable[str], looked_at: float) -> None:
        """The source was looked at, beginning at ``looked_at``, and held nothing new for these studies. A study that
        is quiet at all of its sources is queued."""
        with self._database.write() as db:
            db.executemany(
                "UPDATE arrivals SET quiet = 1 WHERE source_id = ? AND study_uid = ? AND quiet_at <= ?",
                [(source_id, uid, looked_at) for uid in study_uids],
            )
            self._queue_quiet(db)

    def _queue_quiet(self, db: Transaction) -> None:
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
            db.execute("DELETE FROM arrivals WHERE study_uid = ?", (study_uid,))
            if state is StudyState.ARRIVING:
                leave_arriving(db, study_uid, row["quiet_at"], now)

    # -- details ----------------------------------------------------------------------------------------------

    def _insert(self, db: Transaction, source_id: int, arrival: Arrival, now: float) -> None:
        header = arrival.header
        db.execute(
            "INSERT INTO files (source_id, dir, name, identity, size_bytes, state, seen_at, study_uid, series_uid,"
            " sop_instance_uid, sop_class_uid, transfer_syntax_uid, repairs, code, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                source_id,
                arrival.dir,
                arrival.name,
                identity_text(arrival.identity),
                arrival.identity.size_bytes,
                arrival.state,
                now,
                header.study_uid if header else None,
                header.series_uid if header else None,
                header.sop_instance_uid if header else None,
                header.sop_class_uid if header else None,
                header.transfer_syntax_uid if header else None,
                json.dumps(header.repairs) if header else "[]",
                arrival.code,
                arrival.reason,
            ),
        )


def _leave(db: Transaction, source: sqlite3.Row, now: float) -> None:
    """The source goes to another path; what a crash may have left staged under the old one goes to a source of its
    own, named after it."""
    left = db.execute(
        "INSERT INTO sources (name, path, kind, delete_local, created_at)"
        " VALUES (substr(?, 1, 40) || '-left-' || lower(hex(randomblob(6))), ?, ?, 0, ?) RETURNING source_id",
        (source["name"], source["path"], LEFT, now),
    ).fetchone()
    db.execute(
        "UPDATE files SET source_id = ? WHERE source_id = ? AND state = ?",
        (left["source_id"], source["source_id"], FileState.DELETING),
    )


def _merge_study(db: Transaction, arrival: Arrival, now: float) -> None:
    """Make the study known, or add to it. What was recorded first wins; a second patient id is said, never merged
    without a word (PS3.3 C.7.1.1: one study belongs to one patient)."""
    header = arrival.header
    assert header is not None  # noqa: S101  only called for instances
    row = db.execute(
        "SELECT patient_id, flags, attributes FROM studies WHERE study_uid = ?", (header.study_uid,)
    ).fetchone()
    if row is None:
        # A study may have been known before, and forgotten, with a slow shipment of it still about: its tokens must not
        # come again. No study's token grows without a transition, so the number of the last one is above them all.
        db.execute(
            "INSERT INTO studies (study_uid, state, token, changed_at, patient_id, attributes)"
            " VALUES (?, ?, (SELECT COALESCE(MAX(transition_id), 0) FROM transitions), ?, ?, ?)",
            (
                header.study_uid,
                StudyState.ARRIVING,
                now,
                arrival.patient_id,
                json.dumps(arrival.study_attributes or {}),
            ),
        )
    else:
        flags = set(json.loads(row["flags"]))
        if arrival.patient_id != row["patient_id"]:
            flags.add("patient-id-differs")
        db.execute(
            # Of a study that was archived long ago the attributes are no longer here (see pruning).
            "UPDATE studies SET changed_at = ?, flags = ?,"
            " attributes = CASE attributes WHEN '{}' THEN ? ELSE attributes END WHERE study_uid = ?",
            (now, json.dumps(sorted(flags)), json.dumps(arrival.study_attributes or {}), header.study_uid),
        )
    if arrival.series_attributes is not None:
        db.execute(
            "INSERT INTO series (study_uid, series_uid, attributes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (header.study_uid, header.series_uid, json.dumps(arrival.series_attributes)),
        )


def leave_arriving(db: Transaction, study_uid: str, queued_at: float, now: float) -> None:
    """No source holds this arriving study up any more: it is queued, or is at rest where no file of it waits. Of a
    study that is in no archive and has no files nothing is kept."""
    if not _has_waiting_files(db, study_uid) and not _is_half_recorded(db, study_uid):
        move(db, study_uid, StudyEvent.EMPTIED, now)
        db.execute("DELETE FROM studies WHERE study_uid = ? AND revision = 0", (study_uid,))
        return
    move(db, study_uid, StudyEvent.QUIET, now)
    db.execute("UPDATE studies SET queued_at = ? WHERE study_uid = ?", (queued_at, study_uid))


def _owe_an_account(db: Transaction, source_id: int, arrivals: Iterable[Arrival]) -> None:
    """What was once seen in a folder that was handed in is named at the end, whatever becomes of it meanwhile."""
    db.executemany(
        "INSERT INTO upload_results (source_id, dir, name, outcome) VALUES (?, ?, ?, 'seen')"
        " ON CONFLICT DO UPDATE SET outcome = excluded.outcome",
        [(source_id, arrival.dir, arrival.name) for arrival in arrivals if arrival.code != UNREADABLE],
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


def _restart_quiet_timer(db: Transaction, study_uid: str, source_id: int, now: float, quiet_seconds: float) -> None:
    """A change at one source restarts the study's timers at all of them."""
    quiet_at = now + quiet_seconds
    _repair_timers(db, now)
    db.execute(
        "INSERT INTO arrivals (study_uid, source_id, set_at, quiet_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (study_uid, source_id, now, quiet_at),
    )
    db.execute(
        "UPDATE arrivals SET set_at = ?, quiet_at = MAX(quiet_at, ?), quiet = 0 WHERE study_uid = ?",
        (now, quiet_at, study_uid),
    )


def _repair_timers(db: Transaction, now: float) -> None:
    """A clock that was set back must not hold a study for as long as it was wrong: each timer runs its length anew."""
    db.execute(
        "UPDATE arrivals SET quiet_at = ? + MAX(quiet_at - set_at, 0), set_at = ? WHERE set_at > ?",
        (now, now, now + CLOCK_SLACK_SECONDS),
    )


def _source(row: sqlite3.Row) -> Source:
    return Source(row["source_id"], row["name"], row["path"], row["kind"], bool(row["delete_local"]))
