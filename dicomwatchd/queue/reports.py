"""What the state says to somebody who asks: plain data, ready for JSON. Holds no patient attribute; file paths only
in `quarantine` and `show`, which go to a terminal and never to a log."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from typing import Any

from dicomwatchd.errors import StudyErased
from dicomwatchd.localfiles import printable
from dicomwatchd.model import SHIPPING, FileState, StudyState
from dicomwatchd.ports import Clock, timestamp
from dicomwatchd.queue.bindings.remounts import FORGET_SECONDS
from dicomwatchd.queue.database.pruning import KEEP_SECONDS, speed_of
from dicomwatchd.queue.database.schema import Database
from dicomwatchd.queue.dicomdirs import here_of, lists_of
from dicomwatchd.queue.rows import DAMAGED, LEFT, NO_LEASE, OWN_OBJECT, UNREADABLE, WAITING

_ON_THE_WAY = (StudyState.ARRIVING, StudyState.QUEUED, *SHIPPING)
#: Of what a DICOMDIR lists and is missing so many are named.
_MISSING_SHOWN = 100


class Reports:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def status(self) -> dict[str, Any]:
        with self._database.read() as db:
            studies = db.execute("SELECT state, studies AS n FROM study_counts WHERE studies > 0").fetchall()
            files = db.execute(
                "SELECT state, SUM(files) AS n, SUM(size_bytes) AS bytes FROM file_counts GROUP BY state"
            ).fetchall()
            oldest = db.execute(
                "SELECT MIN(queued_at) AS at FROM studies WHERE state = 'queued' AND claimed = 0"
            ).fetchone()
            sources = db.execute(
                "SELECT s.name, s.kind, s.scanned_at, (SELECT COALESCE(SUM(files), 0) FROM file_counts f"
                " WHERE f.source_id = s.source_id AND f.state IN (?, ?)) AS waiting FROM sources s"
                " ORDER BY s.source_id",
                WAITING,
            ).fetchall()
            without_lease = self._kept_without_lease(db)
            on_the_way, parked = _oldest(db, _ON_THE_WAY), _oldest(db, (StudyState.PARKED,))
            waiting_for_listed = db.execute("SELECT COUNT(*) FROM listed_waits WHERE ended = 0").fetchone()[0]
        return {
            "inboxes": [
                {
                    "name": row["name"],
                    "kind": row["kind"],
                    "files_waiting": row["waiting"],
                    "last_scan_at": row["scanned_at"] and timestamp(row["scanned_at"]),
                }
                for row in sources
            ],
            "studies": {row["state"]: row["n"] for row in studies},
            "files": {row["state"]: row["n"] for row in files if row["n"]},
            "kept_without_lease": without_lease,
            "studies_waiting_for_listed": waiting_for_listed,
            "bytes_waiting": sum(row["bytes"] for row in files if row["state"] in WAITING),
            "oldest_waiting_seconds": self._age(oldest["at"]),
            "oldest_unarchived_seconds": self._age(on_the_way),
            "oldest_parked_seconds": self._age(parked),
        }

    def longest_wait_seconds(self) -> float | None:
        """For how long the study has had files that are not archived that has done so for longest, parked or not; None
        where none has. Those that were erased from the archive wait for a release, and do not count."""
        with self._database.read() as db:
            parked = db.execute(
                "SELECT MIN(waits_since) FROM studies WHERE state != 'archived' AND state = ? AND code IS NOT ?",
                (StudyState.PARKED, StudyErased.code),
            ).fetchone()[0]
            on_the_way = _oldest(db, _ON_THE_WAY)
        return self._age(min((at for at in (parked, on_the_way) if at is not None), default=None))

    def _age(self, at: float | None) -> float | None:
        return None if at is None else max(0.0, self._clock.now() - at)

    def kept_elsewhere(self) -> dict[str, int]:
        """By source, how many kept files were archived at another place than this one and wait for their source to be
        looked at again."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT s.name, COUNT(*) AS n FROM sources s CROSS JOIN files f INDEXED BY files_kept_elsewhere"
                " USING (source_id) WHERE f.state = 'kept' AND f.receipt IS NULL GROUP BY s.source_id"
            ).fetchall()
        return {row["name"]: row["n"] for row in rows}

    def former_places(self) -> list[str]:
        """The names of sources in which files may be staged, and which are no inbox's folder any more: their path was
        changed, or the inbox was taken out of the configuration. A former path that nobody has seen for long, and where
        no deletion is open, is told of no more."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT name FROM sources WHERE kind = ? AND created_at > ?"
                " UNION SELECT s.name FROM files f CROSS JOIN sources s USING (source_id)"
                " WHERE f.state = 'deleting' AND s.kind IN ('inbox', ?) ORDER BY name",
                (LEFT, self._clock.now() - FORGET_SECONDS, LEFT),
            ).fetchall()
        return [row["name"] for row in rows]

    def own_objects(self) -> dict[str, int]:
        """By source, how many kept files are no copies of the archive's objects but the objects themselves."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT s.name, COUNT(*) AS n FROM sources s CROSS JOIN files f INDEXED BY files_own_objects"
                f" USING (source_id) WHERE f.state = 'kept' AND f.code = '{OWN_OBJECT}' GROUP BY s.source_id"
            ).fetchall()
        return {row["name"]: row["n"] for row in rows}

    def _kept_without_lease(self, db: sqlite3.Connection) -> dict[str, int]:
        rows = db.execute(
            "SELECT s.name, COUNT(*) AS n FROM sources s CROSS JOIN files f INDEXED BY files_without_lease"
            f" USING (source_id) WHERE f.state = 'kept' AND f.code = '{NO_LEASE}' GROUP BY s.source_id"
        ).fetchall()
        return {row["name"]: row["n"] for row in rows}

    def unfinished(self) -> dict[str, int]:
        """What still has to happen or needs a person: studies arriving or on their way, parked studies, files in
        quarantine, all by number."""
        with self._database.read() as db:
            studies = dict(map(tuple, db.execute("SELECT state, studies FROM study_counts")))
            quarantined = db.execute(
                "SELECT COALESCE(SUM(files), 0) FROM file_counts WHERE state = ?", (FileState.QUARANTINED,)
            ).fetchone()[0]
        return {
            "moving": sum(studies.get(state, 0) for state in _ON_THE_WAY),
            "parked": studies.get(StudyState.PARKED, 0),
            "quarantined": quarantined,
        }

    def progress(self) -> int:
        """Grows with whatever happens: two equal answers mean that nothing has."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT (SELECT COALESCE(MAX(transition_id), 0) FROM transitions)"
                " + MAX((SELECT COALESCE(MAX(sequence), 0) FROM audit),"
                " (SELECT COALESCE(MAX(last), 0) FROM audit_segments))"
                " + (SELECT COALESCE(SUM(CASE state WHEN ? THEN 2 ELSE 1 END * files), 0) FROM file_counts)",
                (FileState.STORED,),
            ).fetchone()
        return int(row[0])

    def queue(self, limit: int) -> list[dict[str, Any]]:
        """Studies that are not archived, those on their way first, then by how long they wait."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT s.*, (SELECT MAX(quiet_at) FROM arrivals a WHERE a.study_uid = s.study_uid) AS quiet_at,"
                " w.missing, w.until FROM studies s LEFT JOIN listed_waits w ON w.study_uid = s.study_uid"
                " AND w.ended = 0 WHERE state != 'archived' ORDER BY claimed DESC, COALESCE(queued_at, changed_at)"
                " LIMIT ?",
                (limit,),
            ).fetchall()
            found = []
            for row in rows:
                files = db.execute(
                    "SELECT COUNT(*) AS n, SUM(size_bytes) AS bytes, GROUP_CONCAT(DISTINCT so.name) AS inboxes"
                    " FROM files f JOIN sources so USING (source_id) WHERE f.study_uid = ? AND f.state IN (?, ?, ?)",
                    (row["study_uid"], *WAITING, FileState.DELETING),
                ).fetchone()
                found.append(
                    {
                        "study_uid": row["study_uid"],
                        "state": row["state"],
                        "files": files["n"],
                        "bytes": files["bytes"] or 0,
                        "inboxes": sorted((files["inboxes"] or "").split(",")) if files["inboxes"] else [],
                        "attempts": row["attempts"],
                        "not_before": timestamp(row["not_before"]) if row["not_before"] else None,
                        "code": row["code"],
                        "reason": row["reason"],
                        "quiet_at": row["quiet_at"] and timestamp(row["quiet_at"]),
                        "claimed": bool(row["claimed"]),
                        "waits_for_listed": None
                        if row["missing"] is None
                        else {"missing": row["missing"], "until": timestamp(row["until"])},
                    }
                )
        return found

    def damaged(self, limit: int) -> list[dict[str, Any]]:
        """Studies of which damaged files are kept, with how many."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid, COUNT(*) AS files FROM files INDEXED BY files_damaged_of_study"
                f" WHERE state = 'kept' AND code = '{DAMAGED}' GROUP BY study_uid LIMIT ?",
                (limit,),
            ).fetchall()
        return [{"study_uid": row["study_uid"], "files": row["files"]} for row in rows]

    def parked(self, limit: int) -> list[dict[str, Any]]:
        """Studies that are parked, those that are so for longest first; without those that wait to be released, which
        are among the held ones."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT study_uid, code, reason FROM studies WHERE state != 'archived' AND state = ?"
                " AND code IS NOT ? ORDER BY changed_at LIMIT ?",
                (StudyState.PARKED, StudyErased.code, limit),
            ).fetchall()
        return [{"study_uid": row["study_uid"], "code": row["code"], "reason": row["reason"]} for row in rows]

    def quarantine(self, limit: int) -> list[dict[str, Any]]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT f.*, s.name AS inbox, s.path FROM files f CROSS JOIN sources s USING (source_id)"
                " WHERE f.state = 'quarantined' ORDER BY f.seen_at DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            {
                "inbox": row["inbox"],
                "path": os.fsdecode(b"/".join(part for part in (row["path"], row["dir"], row["name"]) if part)),
                "code": row["code"],
                "reason": row["reason"],
                "since": timestamp(row["seen_at"]),
            }
            for row in rows
        ]

    def show(self, study_uid: str) -> dict[str, Any] | None:
        with self._database.read() as db:
            study = db.execute("SELECT * FROM studies WHERE study_uid = ?", (study_uid,)).fetchone()
            if study is None:
                return None
            files = db.execute(
                "SELECT state, COUNT(*) AS n FROM files WHERE study_uid = ? GROUP BY state", (study_uid,)
            ).fetchall()
            kept = db.execute(
                "SELECT code, reason, COUNT(*) AS n FROM files WHERE study_uid = ? AND state = ? AND code IS NOT NULL"
                " GROUP BY code, reason",
                (study_uid, FileState.KEPT),
            ).fetchall()
            beside = db.execute(
                "SELECT DISTINCT f.dir, f.name, f.reason FROM files s JOIN files f USING (source_id, dir)"
                f" WHERE s.study_uid = ? AND f.state = 'quarantined' AND f.code = '{UNREADABLE}' LIMIT 100",
                (study_uid,),
            ).fetchall()
            history = db.execute(
                "SELECT at, old, event, new FROM transitions WHERE study_uid = ? ORDER BY transition_id DESC LIMIT 50",
                (study_uid,),
            ).fetchall()
            listed = _listed(db, study_uid)
            shipment = db.execute(
                "SELECT * FROM shipments WHERE study_uid = ? ORDER BY shipment_id DESC LIMIT 1", (study_uid,)
            ).fetchone()
        return {
            "study_uid": study_uid,
            "state": study["state"],
            "revision": study["revision"],
            "attempts": study["attempts"],
            "code": study["code"],
            "reason": study["reason"],
            "flags": json.loads(study["flags"]),
            "files": {row["state"]: row["n"] for row in files},
            "kept": [{"code": row["code"], "reason": row["reason"], "files": row["n"]} for row in kept],
            "unreadable": [
                {"name": printable(b"/".join(filter(None, (row["dir"], row["name"])))), "reason": row["reason"]}
                for row in beside
            ],
            "history": [
                {"at": timestamp(row["at"]), "old": row["old"], "event": row["event"], "new": row["new"]}
                for row in reversed(history)
            ],
            "listed": listed,
            "archived_at": study["archived_at"] and timestamp(study["archived_at"]),
            "history_since": timestamp(self._clock.now() - KEEP_SECONDS),
            "last_shipment": None
            if shipment is None
            else {
                "finished_at": timestamp(shipment["finished_at"]),
                "revision": shipment["revision"],
                "files": shipment["files"],
                "bytes": shipment["bytes"],
                "retries": shipment["retries"],
                "stages": json.loads(shipment["stages"]),
            },
        }

    def stats(self, days: int) -> dict[str, Any]:
        """Shipments of the last ``days`` days, by day (UTC) and inbox, newest first. Of days that are no longer kept
        shipment by shipment (see pruning) the first counts whole, and a study once for each day."""
        since = self._clock.now() - days * 86400
        with self._database.read() as db:
            rows = db.execute(
                "SELECT date(finished_at, 'unixepoch') AS day, * FROM shipments WHERE finished_at >= ?"
                " ORDER BY finished_at DESC",
                (since,),
            ).fetchall()
            sums = db.execute(
                "SELECT * FROM shipment_days WHERE day >= date(?, 'unixepoch') ORDER BY day DESC", (since,)
            ).fetchall()
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            _add_shipment(groups.setdefault((row["day"], row["source"]), _empty()), row)
        for row in sums:
            _add_sum(groups.setdefault((row["day"], row["source"]), _empty()), row)
        totals = _empty()
        for row in rows:
            _add_shipment(totals, row)
        for row in sums:
            _add_sum(totals, row)
        return {
            "days": [{"day": day, "inbox": inbox, **_finished(g)} for (day, inbox), g in groups.items()],
            "totals": _finished(totals),
        }


def _oldest(db: sqlite3.Connection, states: Iterable[StudyState]) -> float | None:
    """Since when the study in one of these states has waited that has done so for longest; the first entry of an index
    for each."""
    found = [
        db.execute("SELECT MIN(waits_since) FROM studies WHERE state != 'archived' AND state = ?", (state,)).fetchone()[
            0
        ]
        for state in states
    ]
    return min((at for at in found if at is not None), default=None)


def _listed(db: sqlite3.Connection, study_uid: str) -> dict[str, Any] | None:
    """What the DICOMDIRs beside or above the study's files list of it; None where there are none."""
    lists = lists_of(db, study_uid)
    if not lists:
        return None
    here = here_of(db, study_uid)
    missing = sorted({uid for one in lists for uid in one.missing(here)})
    wait = db.execute("SELECT until FROM listed_waits WHERE study_uid = ? AND ended = 0", (study_uid,)).fetchone()
    return {
        "dicomdirs": len(lists),
        "images": len({uid for one in lists for uid in one.uids}),
        "missing": len(missing),
        "missing_uids": missing[:_MISSING_SHOWN],
        "waits_until": None if wait is None else timestamp(wait["until"]),
    }


def _empty() -> dict[str, Any]:
    return {
        "shipments": 0,
        "studies": set(),
        "more": 0,
        "files": 0,
        "bytes": 0,
        "seconds": {},
        "sent": 0,
        "sent_seconds": 0.0,
        "retries": 0,
    }


def _add_shipment(group: dict[str, Any], row: Any) -> None:
    group["shipments"] += 1
    group["studies"].add(row["study_uid"])
    group["files"] += row["files"]
    group["bytes"] += row["bytes"]
    group["retries"] += row["retries"]
    sent_bytes, sent_seconds = speed_of(row)
    group["sent"] += sent_bytes
    group["sent_seconds"] += sent_seconds
    for stage, figures in json.loads(row["stages"]).items():
        group["seconds"][stage] = round(group["seconds"].get(stage, 0.0) + figures["seconds"], 3)


def _add_sum(group: dict[str, Any], row: Any) -> None:
    group["shipments"] += row["shipments"]
    group["more"] += row["studies"]
    group["files"] += row["files"]
    group["bytes"] += row["bytes"]
    group["retries"] += row["retries"]
    group["sent"] += row["sent_bytes"]
    group["sent_seconds"] += row["sent_seconds"]
    for stage, seconds in json.loads(row["seconds"]).items():
        group["seconds"][stage] = round(group["seconds"].get(stage, 0.0) + seconds, 3)


def _finished(group: dict[str, Any]) -> dict[str, Any]:
    """A speed is told of what was really sent; None where nothing was, or nobody has measured it."""
    sent, seconds, more = group.pop("sent"), group.pop("sent_seconds"), group.pop("more")
    return {
        **group,
        "studies": len(group["studies"]) + more,
        "megabytes_per_second": round(sent / 1e6 / seconds, 1) if seconds > 0 else None,
    }
