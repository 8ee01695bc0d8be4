"""The one place where a study's state changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dicomwatchd.errors import ClaimLost
from dicomwatchd.model import StudyEvent, StudyState, advance
from dicomwatchd.queue.database.schema import Database, Transaction
from dicomwatchd.queue.rows import Claim, Transition


def state_of(db: Transaction, study_uid: str) -> StudyState | None:
    row = db.execute("SELECT state FROM studies WHERE study_uid = ?", (study_uid,)).fetchone()
    return StudyState(row["state"]) if row else None


@contextmanager
def write_under(database: Database, claim: Claim) -> Iterator[Transaction]:
    """A transaction of whoever has the study. Raises ClaimLost, with nothing written, unless this claim still holds."""
    with database.write() as db:
        row = db.execute("SELECT token, claimed FROM studies WHERE study_uid = ?", (claim.study_uid,)).fetchone()
        if row is None or row["token"] != claim.token or not row["claimed"]:
            raise ClaimLost("the study has changed since it was claimed")
        yield db


def move(db: Transaction, study_uid: str, event: StudyEvent, now: float) -> Transition:
    """Apply an event to a study inside the caller's transaction and keep old state, event and new state. What is kept
    is announced after the commit: all but a change of a study that it leaves in its state.

    Leaving a shipment in any other way than by its own claim revokes the claim: the token grows.
    """
    old = state_of(db, study_uid)
    if old is None:
        raise LookupError("no such study")
    new = advance(old, event)
    transition = Transition(study_uid, old, event, new)
    if new != old or event is not StudyEvent.CHANGED:
        db.execute(
            "INSERT INTO transitions (study_uid, at, old, event, new) VALUES (?, ?, ?, ?, ?)",
            (study_uid, now, old, event, new),
        )
        db.transitions.append(transition)
    if new is StudyState.ARRIVING and old is not StudyState.ARRIVING:
        db.execute(
            "UPDATE studies SET token = token + 1, claimed = 0, not_before = 0, attempts = 0, code = NULL,"
            " reason = NULL, endpoint = NULL WHERE study_uid = ?",
            (study_uid,),
        )
    if new is StudyState.ARCHIVED:
        db.execute("UPDATE studies SET state = ?, waits_since = NULL WHERE study_uid = ?", (new, study_uid))
    elif event is StudyEvent.CHANGED:
        db.execute(
            "UPDATE studies SET state = ?, waits_since = COALESCE(waits_since, ?) WHERE study_uid = ?",
            (new, now, study_uid),
        )
    else:  # for a kept file that falls due nobody waits
        db.execute("UPDATE studies SET state = ? WHERE study_uid = ?", (new, study_uid))
    return transition
