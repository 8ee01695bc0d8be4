"""Whatever is done to the audit chain's segments in the archive is told, and by their entries."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import audit_checkpoints, audit_segments
from dicomwatchd.audit.proving import chain_id
from dicomwatchd.doctor import audit_chain
from dicomwatchd.errors import OutOfReach, Permanent
from tests.unit.chains import Place, in_memory
from tests.unit.queues import STUDY

OTHER = "1.2.2"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as path:
        yield path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Three segments: of one study, of another, of the first; and two entries here."""
    place = Place(tmp_path)
    for study in (STUDY, OTHER, STUDY):
        place.delete(2, study)
    place.delete(1)
    place.seal()
    assert len(place.segment_keys()) == 3 and place.here() == [13, 14]
    yield place
    place.bench.queue.close()


def problems(place: Place, study: str = STUDY, *, whole: bool = False) -> str:
    """What is told; empty when all holds. The doctor and the next start say so, too."""
    said = place.prover.prove(study, whole=whole)
    bad = not said["archived"]["holds"]
    if not whole and study == "1.2.9":
        assert (audit_chain(place.prover).outcome == "bad") == bad
        place.restart()
        place.checkpoints.step()
        place.sealing.step()
        assert bool(place.log.events("audit-segments")) == bad
        assert (place.sealing.problem is not None) == bad
    return "; ".join(said["archived"]["problems"])


def text_of(place: Place, number: int) -> list[str]:
    return gzip.decompress(place.store.versions[place.segment_keys()[number]][-1]).decode().splitlines()


def put(place: Place, number: int, lines: list[str]) -> None:
    """Other lines under the same key."""
    place.store.versions[place.segment_keys()[number]] = [gzip.compress("".join(f"{x}\n" for x in lines).encode())]


def test_nothing_was_done(place: Place) -> None:
    assert problems(place) == problems(place, whole=True) == problems(place, "1.2.9") == ""
    assert place.prover.prove(STUDY, whole=True)["archived"]["entries"] == 12
    assert audit_chain(place.prover).outcome == "good"


@pytest.mark.parametrize(("number", "entries"), [(0, "1 to 4"), (1, "5 to 8"), (2, "9 to 12")])
def test_missing(place: Place, number: int, entries: str) -> None:
    """Told by a listing, whatever study is asked for."""
    del place.store.versions[place.segment_keys()[number]]
    assert f"the segment of entries {entries} is missing" in problems(place, "1.2.9")
    assert f"entries {entries} is missing" in problems(place, STUDY) + problems(place, OTHER)


def test_all_missing(place: Place) -> None:
    for key in place.segment_keys():
        del place.store.versions[key]
    assert problems(place, "1.2.9").count("missing") == 3


def forge_entry(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"kind":"authorised"', '"kind":"restored"'), *lines[2:]]


def forge_chain(lines: list[str]) -> list[str]:
    """The whole segment made anew from a changed entry on: whole in itself."""
    header, previous, made = json.loads(lines[0]), json.loads(lines[1])["previous"], []
    for line in forge_entry(lines)[1:]:
        body = {**json.loads(line), "previous": previous}
        made.append(json.dumps(body, sort_keys=True, separators=(",", ":")))
        previous = hashlib.sha256(made[-1].encode()).hexdigest()
    return [json.dumps({**header, "head": previous}, sort_keys=True, separators=(",", ":")), *made]


def end_early(lines: list[str]) -> list[str]:
    """One entry less, and a header that ends with the one before."""
    head = hashlib.sha256(lines[-2].encode()).hexdigest()
    return [json.dumps({**json.loads(lines[0]), "head": head}, sort_keys=True, separators=(",", ":")), *lines[1:-1]]


CHANGES: dict[str, Callable[[list[str]], list[str]]] = {
    "an entry changed": forge_entry,
    "made anew": forge_chain,
    "an entry taken out": lambda lines: [*lines[:2], *lines[3:]],
    "ended early": end_early,
    "the last taken out": lambda lines: lines[:-1],
    "two swapped": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "one twice": lambda lines: [*lines, lines[-1]],
    "no header": lambda lines: lines[1:],
    "another header": lambda lines: [lines[0].replace('"first":5', '"first":1'), *lines[1:]],
    "another chain": lambda lines: [lines[0].replace('"chain_id":"', '"chain_id":"0'), *lines[1:]],
    "another head": lambda lines: [lines[0].replace('"head":"', '"head":"0'), *lines[1:]],
    "a format of later": lambda lines: [lines[0].replace("segment/1", "segment/2"), *lines[1:]],
    "nothing": lambda _: [],
    "no JSON": lambda lines: [lines[0], "x", *lines[2:]],
    "no ASCII": lambda lines: [lines[0], "\u00e9", *lines[2:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed(place: Place, change: str) -> None:
    put(place, 1, CHANGES[change](text_of(place, 1)))
    assert "5 to 8" in problems(place, OTHER)
    assert "5 to 8" in problems(place, STUDY, whole=True)
    assert place.prover.prove(OTHER)["files"] == [], "what does not hold is not shown"


def _another(column: str) -> str:
    """Another hash than the one that stands there: some have no digit of a kind."""
    return f"CASE substr({column}, 1, 1) WHEN '0' THEN '1' ELSE '0' END || substr({column}, 2)"


@pytest.mark.parametrize(
    "change", [lambda data: data[:-9], lambda _: b"", lambda data: data * 2, lambda data: b"x" + data]
)
def test_damaged(place: Place, change: Callable[[bytes], bytes]) -> None:
    """Another size is told by the listing."""
    key = place.segment_keys()[1]
    place.store.versions[key] = [change(place.store.versions[key][-1])]
    assert "5 to 8" in problems(place, "1.2.9")
    assert "5 to 8" in problems(place, OTHER)


def test_a_segment_in_anothers_place(place: Place) -> None:
    first, second, _ = place.segment_keys()
    place.store.versions[first], place.store.versions[second] = (
        place.store.versions[second],
        place.store.versions[first],
    )
    assert "1 to 4" in problems(place, STUDY) and "5 to 8" in problems(place, OTHER)


def test_another_segment_beside_it(place: Place) -> None:
    key = place.segment_keys()[1]
    name = keys.parse_audit_segment(key)
    assert name is not None
    place.store.versions[keys.audit_segment(name[0], 5, 8, "0" * 64)] = [b"x"]
    assert "another segment of entries 5 to 8" in problems(place, "1.2.9")
    assert place.prover.prove(OTHER)["files"][0]["outcome"] == "deleted", "what was sealed is what is shown"


@pytest.mark.parametrize(("first", "last"), [(2, 3), (6, 20), (12, 12)])
def test_a_segment_that_was_never_sealed(place: Place, first: int, last: int) -> None:
    chain = place.bench.queue.audit.head().chain_id
    place.store.versions[keys.audit_segment(chain, first, last, "0" * 64)] = [b"x"]
    assert f"entries {first} to {last}" in problems(place, "1.2.9")


def test_a_state_from_before_misses_what_was_sealed_since(place: Place, tmp_path: Path) -> None:
    """Told by the segments alone, where the heads are gone."""
    backup = tmp_path / "backup"
    backup.mkdir()
    place.bench.queue.close()
    shutil.copy(tmp_path / "state.db", backup)
    place.bench.reopen()
    place.begin()
    place.delete(3)
    place.seal()
    for key in list(place.store.versions):
        if key.startswith("audit/heads/"):
            del place.store.versions[key]
    old = Place(backup, store=place.store)
    assert "local entries are missing: entries 13 to 16" in problems(old, "1.2.9")
    old.bench.queue.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM audit_segments WHERE first = 5",
        "DELETE FROM audit_segments WHERE first = 9",
        "UPDATE audit_segments SET last = 7 WHERE first = 5",
        f"UPDATE audit_segments SET previous = {_another('previous')} WHERE first = 5",
        f"UPDATE audit_segments SET head = {_another('head')} WHERE first = 9",
        f"UPDATE audit_segments SET sha256 = {_another('sha256')} WHERE first = 5",
        "UPDATE audit_segments SET sealed_at = NULL WHERE first = 9",
        "DELETE FROM audit_segments",
        "DELETE FROM audit",
    ],
)
def test_the_list_here_was_changed(place: Place, change: str) -> None:
    """Whatever is done to the state: the chain, what was published of it, or the segments contradict."""
    place.bench.run(change)
    said = place.prover.prove("1.2.9", whole=True)
    assert not (said["chain_holds"] and said["published"]["holds"] and said["archived"]["holds"])


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (f"UPDATE audit_segments SET previous = {_another('previous')} WHERE first = 5", 5),
        (f"UPDATE audit_segments SET head = {_another('head')} WHERE first = 5", 9),
        ("UPDATE audit_segments SET first = 6 WHERE first = 5", 5),
        ("DELETE FROM audit_segments WHERE first = 1", 1),
    ],
)
def test_a_list_that_does_not_hold_is_told_without_reading(place: Place, change: str, entry: int) -> None:
    place.bench.run(change)
    assert f"is wrong from entry {entry} on" in problems(place, "1.2.9")


def test_a_list_that_was_made_to_hold_is_told_by_reading(place: Place) -> None:
    forged = "f" * 64
    place.bench.run("UPDATE audit_segments SET head = ? WHERE first = 5", forged)
    place.bench.run("UPDATE audit_segments SET previous = ? WHERE first = 9", forged)
    assert problems(place, "1.2.9") == ""
    assert "5 to 8 does not fit" in problems(place, OTHER) and "9 to 12 does not fit" in problems(place, STUDY)


def test_other_things_below_the_segments_are_passed_over(place: Place) -> None:
    prefix = keys.audit_segments_prefix(place.bench.queue.audit.head().chain_id)
    for name in ("x", "0-0-0.jsonl.gz", f"{8:012d}-{5:012d}-{'0' * 64}.jsonl.gz", ".tmp"):
        place.store.versions[prefix + name] = [b"x"]
    assert problems(place, "1.2.9") == ""


def test_another_daemons_chain_is_none_of_this_one(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other", store=place.store)
    other.delete(2, "1.2.7")
    other.seal()
    assert problems(place, "1.2.9") == problems(other, "1.2.9") == ""
    assert other.prover.prove(STUDY)["files"] == []
    assert len(other.prover.prove("1.2.7")["files"]) == 2
    for key in place.segment_keys():
        if other.bench.queue.audit.head().chain_id in key:
            del place.store.versions[key]
    assert problems(place, "1.2.9") == "" and "missing" in problems(other, "1.2.9")
    other.bench.queue.close()


def test_an_archive_out_of_reach_is_no_alarm(place: Place) -> None:
    place.store.fault = OutOfReach("the store does not answer", endpoint="s3")
    said = place.prover.prove(STUDY)
    assert (said["archived"]["outcome"], said["archived"]["holds"]) == ("unknown", True)
    assert [file["sequence"] for file in said["files"]] == [13], "what is here"
    assert audit_chain(place.prover).outcome == "note"
    place.restart()
    for _ in range(30):
        place.sealing.step()
    assert place.log.events("audit-segments") == [] and place.sealing.problem is None


# -- a state that was lost ---------------------------------------------------------------------------------------------


@pytest.fixture
def lost(place: Place, tmp_path: Path) -> Iterator[tuple[Place, str]]:
    """Another state over the same archive, and the chain of the one that is gone."""
    (tmp_path / "fresh").mkdir()
    fresh = Place(tmp_path / "fresh", store=place.store)
    fresh.delete(2, "1.2.8")
    fresh.seal()
    yield fresh, place.bench.queue.audit.head().chain_id
    fresh.bench.queue.close()


def by_archive(lost: tuple[Place, str], study: str = STUDY) -> dict[str, Any]:
    return lost[0].prover.prove_by_archive(study, lost[1])


def test_an_old_chain_is_proven_by_the_archive_alone(lost: tuple[Place, str]) -> None:
    said = by_archive(lost)
    assert [file["outcome"] for file in said["files"]] == ["deleted"] * 4
    assert said["chain_holds"] and said["chain_entries"] == 12
    assert "entries 13 to 14 were published" in said["published"]["text"]
    assert [file["outcome"] for file in by_archive(lost, OTHER)["files"]] == ["deleted"] * 2
    assert by_archive(lost, "1.2.8")["files"] == []
    assert lost[0].prover.prove(STUDY)["files"] == [], "it is not this chain's"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_segment_of_an_old_chain_is_missing(lost: tuple[Place, str], number: int) -> None:
    place = lost[0]
    mine = [key for key in place.segment_keys() if lost[1] in key]
    del place.store.versions[mine[number]]
    said = by_archive(lost, "1.2.9")
    if number == 2:
        assert said["chain_holds"] and "entries 9 to 14 were published" in said["published"]["text"]
    else:
        assert not said["chain_holds"] and f"entries {4 * number + 1} to {4 * number + 4} are missing" in str(said)


@pytest.mark.parametrize("change", CHANGES)
def test_a_segment_of_an_old_chain_was_changed(place: Place, lost: tuple[Place, str], change: str) -> None:
    mine = [key for key in place.segment_keys() if lost[1] in key]
    text = CHANGES[change](gzip.decompress(place.store.versions[mine[1]][-1]).decode().splitlines())
    place.store.versions[mine[1]] = [gzip.compress("".join(f"{x}\n" for x in text).encode())]
    said = by_archive(lost, OTHER)
    assert not said["chain_holds"] and "5 to 8" in str(said["archived"]["problems"])


def test_a_forged_segment_of_an_old_chain_does_not_fit(place: Place, lost: tuple[Place, str]) -> None:
    """With a key of its own, and whole in itself: the next one does not follow. In place of the last one it would take
    a head that was published at its end, or in the journal, to contradict it."""
    mine = [key for key in place.segment_keys() if lost[1] in key]
    for number, (first, last) in enumerate(((1, 4), (5, 8))):
        text = "".join(
            f"{x}\n" for x in forge_chain(gzip.decompress(place.store.versions[mine[number]][-1]).decode().splitlines())
        )
        key = keys.audit_segment(lost[1], first, last, hashlib.sha256(text.encode()).hexdigest())
        before = place.store.versions.pop(mine[number])
        place.store.versions[key] = [gzip.compress(text.encode())]
        assert not by_archive(lost, OTHER)["chain_holds"], number
        place.store.versions[mine[number]] = before
        del place.store.versions[key]


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "made anew"])
def test_a_forged_key_does_not_help(place: Place, lost: tuple[Place, str], change: str) -> None:
    """What is under it is what it names, and still no part of the chain."""
    mine = [key for key in place.segment_keys() if lost[1] in key]
    lines = CHANGES[change](gzip.decompress(place.store.versions.pop(mine[1])[-1]).decode().splitlines())
    text = "".join(f"{line}\n" for line in lines).encode()
    place.store.versions[keys.audit_segment(lost[1], 5, 8, hashlib.sha256(text).hexdigest())] = [gzip.compress(text)]
    said = by_archive(lost, OTHER)
    assert "5 to 8" in said["archived"]["problems"][0] and said["files"] == []


def test_two_segments_of_the_same_entries(place: Place, lost: tuple[Place, str]) -> None:
    mine = [key for key in place.segment_keys() if lost[1] in key]
    text = "".join(
        f"{x}\n" for x in forge_chain(gzip.decompress(place.store.versions[mine[1]][-1]).decode().splitlines())
    )
    key = keys.audit_segment(lost[1], 5, 8, hashlib.sha256(text.encode()).hexdigest())
    place.store.versions[key] = [gzip.compress(text.encode())]
    assert not by_archive(lost, OTHER)["chain_holds"]


def test_the_published_head_contradicts(place: Place, lost: tuple[Place, str]) -> None:
    for key in list(place.store.versions):
        if key.startswith(keys.audit_checkpoints_prefix(lost[1])):
            del place.store.versions[key]
    said = by_archive(lost)
    assert not said["chain_holds"] and not said["published"]["holds"], "what is sealed was published before"
    assert "its head was never published, though 12 entries were sealed" in str(said)
    audit_checkpoints.publish(
        place.store, audit_checkpoints.AuditCheckpoint(lost[1], 12, "0" * 64, "2026-01-31T12:00:00.000Z")
    )
    said = by_archive(lost)
    assert not said["chain_holds"] and "entry 12 differs from the published one" in str(said)


def test_a_head_within_a_segment_contradicts_too(place: Place, lost: tuple[Place, str]) -> None:
    """A chain that was cut behind its state's back goes on, and is sealed beyond the newest head: that names another
    entry than the chain has there by now."""
    for key in list(place.store.versions):
        if key.startswith(keys.audit_checkpoints_prefix(lost[1])):
            del place.store.versions[key]
    lines = text_of(place, [lost[1] in key for key in place.segment_keys()].index(True) + 1)
    right = hashlib.sha256(lines[2].encode()).hexdigest()
    audit_checkpoints.publish(
        place.store, audit_checkpoints.AuditCheckpoint(lost[1], 6, right, "2026-01-31T12:00:00.000Z")
    )
    said = by_archive(lost)
    assert not said["chain_holds"] and "entries 7 to 12 were never published" in str(said)
    assert "differs from the published one" not in str(said)
    for key in list(place.store.versions):
        if key.startswith(keys.audit_checkpoints_prefix(lost[1])):
            del place.store.versions[key]
    audit_checkpoints.publish(
        place.store, audit_checkpoints.AuditCheckpoint(lost[1], 6, "0" * 64, "2026-01-31T12:00:00.000Z")
    )
    said = by_archive(lost)
    assert not said["chain_holds"] and "entry 6 differs from the published one" in str(said)


def test_a_chain_of_which_the_archive_knows_nothing(lost: tuple[Place, str]) -> None:
    said = lost[0].prover.prove_by_archive(STUDY, "f" * 32)
    assert said["chain_holds"] and said["published"]["outcome"] == "none" and said["files"] == []


@pytest.mark.parametrize("given", ["", "x", "../../x", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n"])
def test_what_names_no_chain(given: str) -> None:
    with pytest.raises(Permanent):
        chain_id(given)


def test_an_entry_of_another_number_does_not_follow() -> None:
    text = json.dumps({"sequence": 5, "previous": "p", "study_uid": STUDY})
    assert audit_segments.follows(text, 5, "p") == hashlib.sha256(text.encode("ascii")).hexdigest()
    assert audit_segments.follows(text, 6, "p") is None
    assert audit_segments.follows(text, 5, "q") is None
