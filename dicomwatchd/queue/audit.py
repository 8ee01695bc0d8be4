"""The audit chain: append-only, each entry holding the hash of the one before it.

An entry is canonical JSON (sorted keys, no spaces, ASCII). Its hash is the SHA-256 of exactly those bytes, so the
chain can be checked with nothing but the entries. Kinds: "authorised" (durable before the unlink, with the whole
proof), "deleted", "restored" (found changed after it was set aside; nothing was deleted).

What a chain cannot tell by itself is that its newest entries were cut off. So its head, which stands for all before it,
is published outside (see pipeline.anchoring).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dicomwatchd.ports import timestamp
from dicomwatchd.queue.schema import Database

FIRST = "0" * 64
_NOT_OF_THE_PROOF = frozenset({"kind", "at", "file", "sequence", "previous", "study_uid", "verified_at"})


@dataclass(frozen=True, slots=True)
class AuditEntry:
    sequence: int
    study_uid: str
    body: dict[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The newest entry of this state's chain; number 0 with `FIRST` as its hash while there is none. ``chain_id`` is 32
    lower-case hexadecimal digits, random, made with the state."""

    chain_id: str
    sequence: int
    sha256: str


def append(db: sqlite3.Connection, study_uid: str, bodies: list[dict[str, Any]]) -> None:
    """Add entries inside the caller's transaction."""
    last = db.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    sequence, previous = (last["sequence"], last["hash"]) if last else (0, FIRST)
    for body in bodies:
        sequence += 1
        entry = _canonical({**body, "sequence": sequence, "previous": previous, "study_uid": study_uid})
        previous = hashlib.sha256(entry.encode("ascii")).hexdigest()
        db.execute(
            "INSERT INTO audit (sequence, study_uid, entry, hash) VALUES (?, ?, ?, ?)",
            (sequence, study_uid, entry, previous),
        )


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(self, study_uid: str) -> list[AuditEntry]:
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM audit WHERE study_uid = ? ORDER BY sequence", (study_uid,)).fetchall()
        return [_entry(row) for row in rows]

    def proofs(self, study_uid: str) -> dict[str, Any]:
        """Each authorised deletion of a study with its proof and how it ended, and whether the whole chain holds."""
        files: dict[tuple[int, int], dict[str, Any]] = {}
        last: dict[int, tuple[int, int]] = {}
        for entry in self.of_study(study_uid):
            body, file = entry.body, entry.body.get("file")
            if file is None:
                continue  # damaged; the check of the chain says so
            if body["kind"] == "authorised":
                last[file] = (file, entry.sequence)
                files[last[file]] = {
                    "sequence": entry.sequence,
                    "authorised_at": timestamp(body["at"]),
                    "verified_at": timestamp(body["verified_at"]),
                    "outcome": "under way",
                    "ended_at": None,
                    "why": None,
                    "proof": {name: value for name, value in body.items() if name not in _NOT_OF_THE_PROOF},
                }
            elif file in last:
                files[last[file]] |= {
                    "outcome": body["kind"],
                    "ended_at": timestamp(body["at"]),
                    "why": body.get("why"),
                }
        broken_at, entries = self.check()
        return {
            "study_uid": study_uid,
            "files": list(files.values()),
            "chain_holds": broken_at is None,
            "broken_at": broken_at,
            "chain_entries": entries,
        }

    def head(self) -> ChainHead:
        with self._database.read() as db:
            row = db.execute(
                "SELECT value, sequence, hash FROM meta LEFT JOIN audit"
                " ON sequence = (SELECT MAX(sequence) FROM audit) WHERE key = 'audit_chain'"
            ).fetchone()
        return ChainHead(row["value"], row["sequence"] or 0, row["hash"] or FIRST)

    def hash_at(self, sequence: int) -> str | None:
        """The hash of one entry; None where the chain has no such entry."""
        with self._database.read() as db:
            row = db.execute("SELECT hash FROM audit WHERE sequence = ?", (sequence,)).fetchone()
        return None if row is None else str(row["hash"])

    def broken_at(self) -> int | None:
        """The sequence number of the first entry that does not fit the chain; None when all do."""
        return self.check()[0]

    def check(self) -> tuple[int | None, int]:
        """(the first entry that does not fit, or None; how many entries do)."""
        previous, expected = FIRST, 1
        for entry, text in self._all():
            if (
                entry.sequence != expected
                or entry.body.get("sequence") != expected
                or entry.body.get("previous") != previous
                or entry.body.get("study_uid") != entry.study_uid
                or hashlib.sha256(text.encode()).hexdigest() != entry.hash
            ):
                return expected, expected - 1
            previous, expected = entry.hash, expected + 1
        return None, expected - 1

    def _all(self) -> Iterator[tuple[AuditEntry, str]]:
        """All entries in order, in pages, so that a long chain needs no more memory than a short one."""
        after = 0
        while True:
            with self._database.read() as db:
                rows = db.execute(
                    "SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT 1000", (after,)
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield _entry(row), row["entry"]
            after = rows[-1]["sequence"]


def _entry(row: sqlite3.Row) -> AuditEntry:
    try:
        body = json.loads(row["entry"])
    except ValueError:
        body = None
    # What is no entry at all has no body, which no chain holds.
    return AuditEntry(row["sequence"], row["study_uid"], body if isinstance(body, dict) else {}, row["hash"])


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
