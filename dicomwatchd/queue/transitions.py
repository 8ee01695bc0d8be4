"""The one place where a study's state changes."""

from __future__ import annotations

import sqlite3

from dicomwatchd.errors import ClaimLost
from dicomwatchd.model import StudyEvent, StudyState, advance
from dicomwatchd.queue.rows import Claim, Transition


def state_of(connection: sqlite3.Connection, study_uid: str) -> StudyState | None:
    row = connection.execute("SELECT state FROM studies WHERE study_uid = ?", (study_uid,)).fetchone()
    return StudyState(row["state"]) if row else None


def require_claim(connection: sqlite3.Connection, claim: Claim) -> None:
    """Raises ClaimLost unless this claim still holds."""
    row = connection.execute("SELECT token, claimed FROM studies WHERE study_uid = ?", (claim.study_uid,)).fetchone()
    if row is None or row["token"] != claim.token or not row["claimed"]:
        raise ClaimLost("the study has changed since it was claimed")


def move(connection: sqlite3.Connection, study_uid: str, event: StudyEvent, now: float) -> Transition:
    """Apply an event to a study inside the caller's transaction and keep old state, event and new state.

    Leaving a shipment in any other way than by its own claim revokes the claim: the token grows.
    """
    old = state_of(connection, study_uid)
    if old is None:
        raise LookupError("no such study")
    new = advance(old, event)
    if new != old or event is not StudyEvent.CHANGED:
        connection.execute(
            "INSERT INTO transitions (study_uid, at, old, event, new) VALUES (?, ?, ?, ?, ?)",
            (study_uid, now, old, event, new),
        )
    if new is StudyState.ARRIVING and old is not StudyState.ARRIVING:
        connection.execute(
            "UPDATE studies SET token = token + 1, claimed = 0, not_before = 0, attempts = 0, code = NULL,"
            " reason = NULL, endpoint = NULL WHERE study_uid = ?",
            (study_uid,),
        )
    connection.execute("UPDATE studies SET state = ? WHERE study_uid = ?", (new, study_uid))
    return Transition(study_uid, old, event, new)
