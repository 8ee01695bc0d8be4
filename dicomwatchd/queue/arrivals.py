"""The intake's side of the queue: sources, and the files found in them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from dicomwatchd.model import DicomJson, FileState, StudyEvent, StudyState, has_value
from dicomwatchd.patients import IDENTITIES_LIMIT, Identity, Order, document, filled_up, is_blank
from dicomwatchd.ports import Clock
from dicomwatchd.queue import dicomdirs, waits
from dicomwatchd.queue.bindings.remounts import FORGET_SECONDS, Remounts
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.quiet import restart_quiet_timer
from dicomwatchd.queue.rows import (
    LEFT,
    MORE,
    UNREADABLE,
    WAITING,
    Arrival,
    OnRecord,
    Source,
    TrackedFile,
    identity_text,
)
from dicomwatchd.queue.transitions import move, state_of

TOO_MUCH_LISTED = "the index of a DICOM medium; the others in this folder list so much that it is not compared"

_STATES = {state.value: state for state in FileState}


class Arrivals:
    def __init__(
        self, database: Database, clock: Clock, came: Callable[[int, int], None] = lambda _id, _n: None
    ) -> None:
        """``came`` hears from which source something has come, and how many files."""
        self._database = database
        self._clock = clock
        self._came = came
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

    def on_record(self, study_uid: str, series_uid: str, identity: str, order: str) -> OnRecord | None:
        """What is on record of this series and its study; None where the series is not. ``identity`` and ``order`` are
        the digests of what a file says of them."""
        with self._database.read() as db:
            found = db.execute(
                "SELECT studies.attributes, series.attributes, EXISTS (SELECT 1 FROM identities i"
                " WHERE i.study_uid = :study AND kind = 'patient' AND digest IN (:identity, :more)),"
                " EXISTS (SELECT 1 FROM identities i"
                " WHERE i.study_uid = :study AND kind = 'order' AND digest IN (:order, :more))"
                " FROM series JOIN studies USING (study_uid) WHERE study_uid = :study AND series_uid = :series"
                # What is archived, with no file here, may be on record no more by the time the file is taken up.
                " AND (state != 'archived' OR EXISTS (SELECT 1 FROM files f WHERE f.study_uid = studies.study_uid))",
                {"study": study_uid, "series": series_uid, "identity": identity, "order": order, "more": MORE},
            ).fetchone()
        if found is None:
            return None
        of_study, of_series, knows_identity, knows_order = found
        return OnRecord(_filled(of_study), _filled(of_series), bool(knows_identity), bool(knows_order))

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
                file_id = self._insert(db, source_id, arrival, now)
                if not dicomdirs.put(db, source_id, file_id, arrival):
                    db.execute("UPDATE files SET reason = ? WHERE file_id = ?", (TOO_MUCH_LISTED, file_id))
                if arrival.header is not None:
                    _merge_study(db, arrival, now)
                    touched[arrival.header.study_uid] = None
            for study_uid in touched:
                move(db, study_uid, StudyEvent.CHANGED, now)
                restart_quiet_timer(db, study_uid, source_id, now, quiet_seconds)
        self._came(source_id, sum(arrival.code != UNREADABLE for arrival in arrivals))

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
            waits.look_again(db, study_uid)
            if not db.execute("SELECT 1 FROM arrivals WHERE study_uid = ?", (study_uid,)).fetchone():
                restart_quiet_timer(db, study_uid, source_id, now, 0)

    # -- details ----------------------------------------------------------------------------------------------

    def _insert(self, db: Transaction, source_id: int, arrival: Arrival, now: float) -> int:
        header = arrival.header
        row = db.execute(
            "INSERT INTO files (source_id, dir, name, identity, size_bytes, state, seen_at, study_uid, series_uid,"
            " sop_instance_uid, sop_class_uid, transfer_syntax_uid, repairs, damage, code, reason, signs)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING file_id",
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
                header.damage if header else "",
                arrival.code,
                arrival.reason,
                arrival.signs,
            ),
        ).fetchone()
        return int(row["file_id"])


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


@lru_cache(256)
def _filled(attributes: str) -> frozenset[str]:
    """Which attributes have a value. Asked for every file, and the text is the same for most of a study."""
    return frozenset(tag for tag, element in json.loads(attributes).items() if has_value(element))


def _merge_study(db: Transaction, arrival: Arrival, now: float) -> None:
    """Make the study known, or add to it. Of each attribute the first value wins; a second patient id is said, never
    merged without a word (PS3.3 C.7.1.1: one study belongs to one patient)."""
    header = arrival.header
    assert header is not None  # noqa: S101  only called for instances
    row = db.execute(
        "SELECT patient_id, flags, attributes FROM studies WHERE study_uid = ?", (header.study_uid,)
    ).fetchone()
    if row is None:
        # A study may have been known before, and forgotten, with a slow shipment of it still about: its tokens must not
        # come again. No study's token grows without a transition, so the number of the last one is above them all.
        db.execute(
            "INSERT INTO studies (study_uid, state, token, changed_at, waits_since, patient_id, attributes)"
            " VALUES (?, ?, (SELECT COALESCE(MAX(transition_id), 0) FROM transitions), ?, ?, ?, ?)",
            (
                header.study_uid,
                StudyState.ARRIVING,
                now,
                now,
                arrival.patient_id,
                json.dumps(arrival.study_attributes or {}),
            ),
        )
    else:
        flags = set(json.loads(row["flags"]))
        if arrival.patient_id and row["patient_id"] and arrival.patient_id != row["patient_id"]:
            flags.add("patient-id-differs")
        db.execute(
            "UPDATE studies SET changed_at = ?, flags = ?, patient_id = ?, attributes = ? WHERE study_uid = ?",
            (
                now,
                json.dumps(sorted(flags)),
                row["patient_id"] or arrival.patient_id,
                _filled_up(row["attributes"], arrival.study_attributes),
                header.study_uid,
            ),
        )
    if arrival.series_attributes is not None:
        series = (header.study_uid, header.series_uid)
        there = db.execute("SELECT attributes FROM series WHERE study_uid = ? AND series_uid = ?", series).fetchone()
        db.execute(
            "INSERT INTO series (study_uid, series_uid, attributes) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET attributes = excluded.attributes",
            (*series, _filled_up(there["attributes"] if there else "{}", arrival.series_attributes)),
        )
    if arrival.patient is not None:
        _say(db, header.study_uid, "patient", *arrival.patient)
    if arrival.order is not None:
        _say(db, header.study_uid, "order", *arrival.order)


def _filled_up(known: str, attributes: DicomJson | None) -> str:
    """Of a study that was archived long ago there are none here (see pruning)."""
    if attributes is None:
        return known
    return json.dumps(filled_up(json.loads(known), attributes) if known != "{}" else attributes)


def _say(db: Transaction, study_uid: str, kind: str, digest: str, said: Identity | Order) -> None:
    """Whom a file names, once for each way to say it. Files in any number that name ever others fill no more than that:
    the last row then says that there are more."""
    if not digest or is_blank(said):
        return
    known = db.execute(
        "SELECT digest FROM identities WHERE study_uid = ? AND kind = ? LIMIT ?",
        (study_uid, kind, IDENTITIES_LIMIT + 1),
    ).fetchall()
    if len(known) > IDENTITIES_LIMIT or digest in [row["digest"] for row in known]:
        return
    row = (digest, json.dumps(document(said))) if len(known) < IDENTITIES_LIMIT else (MORE, "{}")
    db.execute("INSERT INTO identities (study_uid, kind, digest, said) VALUES (?, ?, ?, ?)", (study_uid, kind, *row))


def _owe_an_account(db: Transaction, source_id: int, arrivals: Iterable[Arrival]) -> None:
    """What was once seen in a folder that was handed in is named at the end, whatever becomes of it meanwhile."""
    db.executemany(
        "INSERT INTO upload_results (source_id, dir, name, outcome) VALUES (?, ?, ?, 'seen')"
        " ON CONFLICT DO UPDATE SET outcome = excluded.outcome",
        [(source_id, arrival.dir, arrival.name) for arrival in arrivals if arrival.code != UNREADABLE],
    )


def _source(row: sqlite3.Row) -> Source:
    return Source(row["source_id"], row["name"], row["path"], row["kind"], bool(row["delete_local"]))
