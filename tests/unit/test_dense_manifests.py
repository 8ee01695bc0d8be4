"""A manifest made to cost far more memory than it has bytes, and many of them at once: what is planted in one study
must not end the daemon for all of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from dicomwatchd.archive import keys
from dicomwatchd.archive.documents import dumps
from dicomwatchd.archive.layout import lineage, manifests
from dicomwatchd.archive.layout.manifest import FORMAT, Manifest, empty
from dicomwatchd.archive.stores import reading
from dicomwatchd.archive.stores.reading import has_too_many_values
from dicomwatchd.errors import BadManifest, Permanent
from dicomwatchd.model import Uid
from tests.unit.memory_archive import PATIENT, SERIES, STUDY, MemoryStore, instance

MIB = 1024**2
SMALLEST = ["{},", "[],", '"ab",', "1000,", '{"a":1},']


@pytest.mark.parametrize("value", SMALLEST)
def test_small_values_without_end_are_not_read(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of "{}," a byte costs 28 of memory: one planted object of 128 MiB took 3.5 GiB, and the service with it."""
    monkeypatch.setattr(reading, "VALUES_ALLOWED", 1000)
    monkeypatch.setattr(reading, "_PIECE_BYTES", 4096)
    head = f'{{"format": "{FORMAT}", "x": [{value}'
    data = (head + value * (MIB // len(value)) + "0]}").encode()
    tracemalloc.start()
    try:
        with pytest.raises(Permanent) as caught:
            Manifest.from_bytes(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == BadManifest.code
    assert peak < len(data) // 2


def grown(before: Manifest, numbers: Iterable[int], **changes: Any) -> Manifest:
    told: dict[str, Any] = {"attributes": PATIENT, "series": {}, "flags": (), "damaged_keys": ()}
    items = [instance(SERIES, f"1.2.{number}", b"x") for number in numbers]
    return before.merged(items, **{**told, **changes}, created_at="t", created_by="tests")


def test_what_the_program_writes_is_read() -> None:
    """Eight mebibytes of the smallest attributes, and a path of commas for each instance."""
    one = {"00080008": {"vr": "CS", "Value": ["A"] * 64}}
    series = {Uid(f"1.3.{n}"): one for n in range(8 * MIB // len(dumps(one)))}
    made = grown(empty("archive-1", STUDY), range(100), series=series)
    odd = tuple(replace(item, original_path=',[{"\\' * 800) for item in made.instances)
    made = replace(made, instances=odd)
    assert not has_too_many_values(made.to_bytes())
    assert Manifest.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, MIB])
def test_what_stands_in_strings_does_not_count(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(reading, "VALUES_ALLOWED", 0)
    monkeypatch.setattr(reading, "BYTES_PER_VALUE", 10**9)
    for text in ("", ",[{" * 50, "\\", '\\",[', '"', '",{,', "\\" * 5 + '"' * 5 + ",", "a"):
        told = json.dumps([text, text]).encode()
        assert reading.values(told[1:-1].replace(b"[", b"")) >= 1
        monkeypatch.setattr(reading, "VALUES_ALLOWED", 2)
        assert not has_too_many_values(told), text
        monkeypatch.setattr(reading, "VALUES_ALLOWED", 1)
        assert has_too_many_values(told), text


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the study is parked, as it is with too many instances: nothing is deleted of it."""
    made = replace(empty("archive-1", STUDY), revision=1, flags=("",) * 2000)
    monkeypatch.setattr(reading, "VALUES_ALLOWED", 1000)
    store = MemoryStore()
    with pytest.raises(Permanent) as caught:
        manifests.create(store, made)
    assert caught.value.code == "manifest-too-large" and not store.versions


def traced(store: MemoryStore) -> tuple[lineage.Lineage, list[int]]:
    at_once: list[int] = []

    def note(work: Callable[[Any], Any], tasks: list[Any]) -> Iterable[Any]:
        at_once.append(sum(found.size_bytes for _, found in tasks))
        return map(work, tasks)

    found = lineage.trace(store, manifests.listed(store, STUDY), None, map=note)  # type: ignore[arg-type]
    return found, at_once


def test_large_ones_are_read_one_at_a_time() -> None:
    """Eight at once of 128 MiB each would be eight times what the memory is reckoned for."""
    store = MemoryStore(chunk_bytes=MIB)
    for revision in range(1, 7):
        store.versions[keys.manifest(STUDY, revision)] = [b"." * 5 * MIB]
    for revision in range(7, 30):
        store.versions[keys.manifest(STUDY, revision)] = [b"{}"]
    found, at_once = traced(store)
    assert len(found.refused) == 29
    assert at_once[:5] == [5 * MIB] * 5 and max(at_once) < 6 * MIB and len(at_once) < 12


def test_values_of_all_revisions_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain that goes on as it should, each with more of what is kept beside the instances."""
    monkeypatch.setattr(lineage, "LIMIT_OTHER_VALUES", 50_000)
    store, current = MemoryStore(), empty("archive-1", STUDY)
    for number in range(1, 21):
        current = grown(current, [number], flags=[f"{number}-{n}" for n in range(1000)])
        store.versions[current.key] = [current.to_bytes()]
    found, _ = traced(store)
    assert {one.code for one in found.refused} == {"read-limit"} and not found.holds
    monkeypatch.undo()
    found, _ = traced(store)
    assert found.holds and found.current == current


def test_any_number_of_honest_revisions_below_the_vouched_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large study that grew by hundreds of revisions is not accused by `verify`, which reads all of them."""
    monkeypatch.setattr(lineage, "LIMIT_BYTES", 400_000)
    monkeypatch.setattr(lineage, "LIMIT_REVISIONS", 50)
    monkeypatch.setattr(lineage, "LIMIT_OTHER_VALUES", 2_000)
    store, current = MemoryStore(), empty("archive-1", STUDY)
    for number in range(1, 61):
        current = grown(current, [number], flags=[str(n) for n in range(500)])
        store.versions[current.key] = [current.to_bytes()]
    listed = manifests.listed(store, STUDY)
    found = lineage.trace(store, listed, current, below=True)
    assert found.holds and found.current == current == found.whole
    # One below that lists anything else is still told, though it is the last that is read.
    other = grown(empty("archive-1", STUDY), [99])
    store.versions[keys.manifest(STUDY, 59)] = [replace(other, revision=59).to_bytes()]
    found = lineage.trace(store, manifests.listed(store, STUDY), current, below=True)
    assert [one.revision for one in found.disregarded] == [59]
