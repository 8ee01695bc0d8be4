"""The audit chain: append-only, each entry holding the hash of the one before it.

An entry is canonical JSON (sorted keys, no spaces, ASCII). Its hash is the SHA-256 of exactly those bytes, so the
chain can be checked with nothing but the entries. Kinds: "authorised" (durable before the unlink, with the whole
proof), "deleted", "restored" (found changed after it was staged; nothing was deleted), "hold-released",
"study-erased" (from the archive, by somebody with rights to do that).

What a chain cannot tell by itself is that its newest entries were cut off. So its head, which stands for all before it,
is published outside (see audit.checkpoints).

Old entries are not here but in the archive, as finished segments (see queue.segments). What is here goes on from the
last of those.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dicomwatchd.ports import timestamp
from dicomwatchd.queue.database.schema import Database, Readable, Transaction

FIRST = "0" * 64
#: The kind of an entry that says of a study that it was erased from the archive.
ERASED = "study-erased"
_END_OF_TIME = 253_402_300_800  # the year 10000, which no timestamp can name
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


def append(db: Transaction, study_uid: str, bodies: list[dict[str, Any]]) -> None:
    """Add entries inside the caller's transaction."""
    sequence, previous = _end(db)
    for body in bodies:
        sequence += 1
        entry = _canonical({**body, "sequence": sequence, "previous": previous, "study_uid": study_uid})
        previous = hashlib.sha256(entry.encode("ascii")).hexdigest()
        db.execute(
            "INSERT INTO audit (sequence, study_uid, entry, hash) VALUES (?, ?, ?, ?)",
            (sequence, study_uid, entry, previous),
        )


def sealed_end(db: Readable) -> tuple[int, str]:
    """(number, hash) of the last entry that is in the archive: what is here goes on from it."""
    row = db.execute(
        "SELECT last, head FROM audit_segments WHERE sealed_at IS NOT NULL ORDER BY last DESC LIMIT 1"
    ).fetchone()
    return (row["last"], row["head"]) if row else (0, FIRST)


def _end(db: Readable) -> tuple[int, str]:
    """(number, hash) of the newest entry, wherever it is."""
    row = db.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    sealed = sealed_end(db)
    return sealed if row is None or row["sequence"] <= sealed[0] else (row["sequence"], row["hash"])


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(self, study_uid: str) -> list[AuditEntry]:
        """What is here of a study; older entries may be in the archive (Segments.of_study)."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM audit WHERE study_uid = ? AND sequence > ? ORDER BY sequence",
                (study_uid, sealed_end(db)[0]),
            ).fetchall()
        return [_entry(row) for row in rows]

    def proofs(self, study_uid: str, archived: Iterable[AuditEntry] = ()) -> dict[str, Any]:
        """Each authorised deletion of a study with its proof and how it ended, and whether all of the chain that is
        here holds; ``archived`` are the study's entries that are in the archive, in order."""
        broken_at, number = self.check()
        entries = [*archived, *self.of_study(study_uid)]
        return {
            "study_uid": study_uid,
            "files": deletions(entries),
            "releases": releases(entries),
            "erasures": erasures(entries),
            "chain_holds": broken_at is None,
            "broken_at": broken_at,
            "chain_entries": number,
        }

    def head(self) -> ChainHead:
        with self._database.read() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'audit_chain'").fetchone()
            return ChainHead(row["value"], *_end(db))

    def hash_at(self, sequence: int) -> str | None:
        """The hash of one entry; None where the chain has no such entry. Of a segment that is in the archive only the
        last one is known here."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT head AS hash FROM audit_segments WHERE last = ? AND sealed_at IS NOT NULL", (sequence,)
            ).fetchone()
            if row is None and sequence > sealed_end(db)[0]:
                row = db.execute("SELECT hash FROM audit WHERE sequence = ?", (sequence,)).fetchone()
        return None if row is None else str(row["hash"])

    def broken_at(self) -> int | None:
        """The sequence number of the first entry that does not fit the chain; None when all do."""
        return self.check()[0]

    def check(self) -> tuple[int | None, int]:
        """(the first entry that does not fit, or None; how many entries do), of those that are here; what is in the
        archive is counted as it was when it was sealed."""
        while True:
            with self._database.read() as db:
                sealed, head = sealed_end(db)
            found = self._checked(sealed, head)
            with self._database.read() as db:
                if found[0] is None or sealed_end(db)[0] == sealed:
                    return found
            # A segment was sealed meanwhile, and its entries go from here.

    def broken_between(self, first: int, last: int, previous: str) -> int | None:
        """The first entry of those that does not fit, behind the one of that hash; None when all do."""
        return self._checked(first - 1, previous, last)[0]

    def _checked(self, after: int, previous: str, last: int | None = None) -> tuple[int | None, int]:
        expected = after + 1
        for entry, text in self._all(after):
            if last is not None and expected > last:
                break
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

    def _all(self, after: int = 0) -> Iterator[tuple[AuditEntry, str]]:
        """All entries that are here, in order, in pages: a long chain needs no more memory than a short one."""
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


def deletions(entries: Iterable[AuditEntry]) -> list[dict[str, Any]]:
    """Each authorised deletion on record, with its proof and how it ended. An entry that was changed so that it cannot
    be understood is passed over: the check of the chain says so."""
    files: dict[tuple[int, int], dict[str, Any]] = {}
    last: dict[int, tuple[int, int]] = {}
    for entry in entries:
        body, file = entry.body, entry.body.get("file")
        times = [body.get(name) for name in ("at", "verified_at") if name == "at" or body.get("kind") == "authorised"]
        if type(file) is not int or type(body.get("kind")) is not str or not all(map(_is_time, times)):
            continue
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
    return list(files.values())


def releases(entries: Iterable[AuditEntry]) -> list[dict[str, Any]]:
    """Each release of a hold on record: when, from which hold, by whom and why. What cannot be understood is passed
    over, as in `deletions`."""
    return [
        {
            "sequence": entry.sequence,
            "released_at": timestamp(entry.body["at"]),
            "hold": str(entry.body.get("hold")),
            "because": str(entry.body.get("because")),
            "released_by": {"uid": entry.body.get("uid"), "login": entry.body.get("login")},
        }
        for entry in entries
        if entry.body.get("kind") == "hold-released" and _is_time(entry.body.get("at"))
    ]


def erasures(entries: Iterable[AuditEntry]) -> list[dict[str, Any]]:
    """Each erasure of the study from the archive on record: when it was noted here, and what the archive says of it.
    What cannot be understood is passed over, as in `deletions`."""
    return [
        {
            "sequence": entry.sequence,
            "noted_at": timestamp(entry.body["at"]),
            "number": number,
            "erased_at": str(entry.body.get("erased_at")),
            "because": str(entry.body.get("because")),
            "erased_by": {"uid": by.get("uid"), "login": by.get("login")},
        }
        for entry in entries
        if entry.body.get("kind") == ERASED
        and _is_time(entry.body.get("at"))
        and type(number := entry.body.get("number")) is int
        and isinstance(by := entry.body.get("erased_by"), dict)
    ]


def _is_time(value: object) -> bool:
    """Whether it is seconds since the epoch that a date can be told of."""
    return type(value) in (int, float) and 0 <= value < _END_OF_TIME  # type: ignore[operator]


def archived_entry(text: str) -> AuditEntry:
    """An entry of a segment that was read, and found to hold, from its text."""
    body = json.loads(text)
    return AuditEntry(body["sequence"], body["study_uid"], body, hashlib.sha256(text.encode("ascii")).hexdigest())


def _entry(row: sqlite3.Row) -> AuditEntry:
    try:
        body = json.loads(row["entry"])
    except ValueError:
        body = None
    # What is no entry at all has no body, which no chain holds.
    return AuditEntry(row["sequence"], row["study_uid"], body if isinstance(body, dict) else {}, row["hash"])


def _canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
