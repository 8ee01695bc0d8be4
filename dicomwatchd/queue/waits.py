"""Studies that are quiet and wait all the same: a DICOMDIR lists images of them that are neither here nor archived.

A study waits once for what its DICOMDIRs list, and no longer than its inbox allows, whatever arrives meanwhile: what
does restarts the quiet time alone. It waits again only for a DICOMDIR that came later, and once it was archived in
between. So a DICOMDIR that is written anew for ever holds up nobody for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from dicomwatchd.queue.database.schema import Readable, Transaction
from dicomwatchd.queue.dicomdirs import StudyList, here_of, lists_of


class WaitNews(NamedTuple):
    """A study has begun to wait for so many images, or (``has_ended``) goes on without them; 0 where nothing is missing
    any more, or no DICOMDIR says so."""

    study_uid: str
    missing: int
    has_ended: bool


class Waits:
    """``at_most`` has the seconds by source; one that is not in it, an upload or an inbox that was taken out, lets no
    study wait. ``slack_seconds``: what lies further in the future was written before the clock was set back."""

    def __init__(self, slack_seconds: float) -> None:
        self.at_most: Mapping[int, float] = {}
        self._slack_seconds = slack_seconds

    def holds(self, db: Transaction, study_uid: str, now: float, news: list[WaitNews]) -> bool:
        """Whether a study that is quiet waits on."""
        wait = db.execute("SELECT * FROM listed_waits WHERE study_uid = ?", (study_uid,)).fetchone()
        is_open = wait is not None and not wait["ended"]
        if is_open and not wait["stale"] and not self._is_due(wait, now):
            return True
        lists = lists_of(db, study_uid)
        missing, at_most = self._missing(db, study_uid, lists) if lists else (frozenset[str](), 0.0)
        if not missing:
            if is_open:
                db.execute("DELETE FROM listed_waits WHERE study_uid = ?", (study_uid,))
                news.append(WaitNews(study_uid, 0, has_ended=True))
            return False
        newest = max(one.file_id for one in lists)
        revision = _revision(db, study_uid)
        if not is_open:
            if wait is not None and (newest <= wait["newest"] or revision == wait["revision"]):
                return False
            db.execute(
                "INSERT OR REPLACE INTO listed_waits (study_uid, set_at, until, missing) VALUES (?, ?, ?, ?)",
                (study_uid, now, now + at_most, len(missing)),
            )
            news.append(WaitNews(study_uid, len(missing), has_ended=False))
            return True
        set_at = now if self._is_set_back(wait, now) else wait["set_at"]
        if now < set_at + at_most:
            db.execute(
                "UPDATE listed_waits SET set_at = ?, until = ?, missing = ?, stale = 0 WHERE study_uid = ?",
                (set_at, set_at + at_most, len(missing), study_uid),
            )
            return True
        db.execute(
            "UPDATE listed_waits SET ended = 1, missing = ?, newest = ?, revision = ? WHERE study_uid = ?",
            (len(missing), newest, revision, study_uid),
        )
        news.append(WaitNews(study_uid, len(missing), has_ended=True))
        return False

    def any_is_due(self, db: Readable, now: float) -> bool:
        """Whether a study that is quiet need not wait any more, or it is to be found out anew."""
        found = db.execute(
            "SELECT 1 FROM listed_waits w WHERE ended = 0 AND (until <= ? OR stale = 1 OR set_at > ?)"
            " AND (SELECT MIN(quiet) FROM arrivals a WHERE a.study_uid = w.study_uid) = 1 LIMIT 1",
            (now, now + self._slack_seconds),
        ).fetchone()
        return found is not None

    def _missing(self, db: Transaction, study_uid: str, lists: list[StudyList]) -> tuple[frozenset[str], float]:
        """What is waited for, and for how long."""
        here = here_of(db, study_uid)
        missing: frozenset[str] = frozenset()
        longest = 0.0
        for one in lists:
            at_most = self.at_most.get(one.source_id, 0.0)
            if at_most > 0 and (lacks := one.missing(here)):
                missing |= lacks
                longest = max(longest, at_most)
        return missing, longest

    def _is_due(self, wait: sqlite3.Row, now: float) -> bool:
        return bool(wait["until"] <= now) or self._is_set_back(wait, now)

    def _is_set_back(self, wait: sqlite3.Row, now: float) -> bool:
        return bool(wait["set_at"] > now + self._slack_seconds)


def look_again(db: Transaction, study_uid: str) -> bool:
    """Something of the study has changed; whether it waits."""
    changed = db.execute("UPDATE listed_waits SET stale = 1 WHERE study_uid = ? AND ended = 0", (study_uid,))
    return changed.rowcount > 0


def look_again_at_all(db: Transaction) -> None:
    db.execute("UPDATE listed_waits SET stale = 1 WHERE ended = 0")


def ended(db: Transaction, study_uid: str) -> None:
    """The study waits for nothing any more, whatever is missing."""
    db.execute("UPDATE listed_waits SET ended = 1 WHERE study_uid = ? AND ended = 0", (study_uid,))


def _revision(db: Transaction, study_uid: str) -> int:
    row = db.execute("SELECT revision FROM studies WHERE study_uid = ?", (study_uid,)).fetchone()
    return 0 if row is None else int(row["revision"])
