"""What is in cold storage is found before anything is asked for, asked back once, waited for, and then fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.archive import factory, keys
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.stores.port import TIERED, Restore, Restoring, Speed
from dicomwatchd.cli.app import root
from dicomwatchd.errors import CredentialsRefused, NoSuchObject, NotSupported, OutOfReach, Permanent, RequestRefused
from dicomwatchd.fetch import Fetcher, by_uid
from dicomwatchd.fetch.cold import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    NOTHING_COLD,
    Asked,
    ask_back,
    find,
    look_again,
    not_there_yet,
    takes,
    wait_until_back,
)
from dicomwatchd.model import Uid
from tests import schemas
from tests.unit.memory_archive import (
    OTHER_SERIES,
    SERIES,
    STUDY,
    MemoryCatalogue,
    MemoryStore,
    archive,
    content,
)
from tests.unit.test_cold_storage import BACK, GLACIER, UNDER_WAY, freeze
from tests.unit.test_ranges import answer, answering


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def study(store: MemoryStore) -> Manifest:
    """Four instances in two series."""
    return archive(store, [(SERIES if n < 2 else OTHER_SERIES, f"1.2.{n}", content(n)) for n in range(4)])


# -- what is found ---------------------------------------------------------------------------------------------------


def test_a_warm_study_costs_a_listing(store: MemoryStore, study: Manifest) -> None:
    assert find(store, STUDY, study.instances, thorough=True) == NOTHING_COLD
    assert (store.heads, store.reads) == ([], [])


def test_what_is_listed_as_cold_is_looked_at_once(store: MemoryStore, study: Manifest) -> None:
    """A listing shows what has been restored in the same way."""
    one, other, *_ = study.instances
    store.cold = {one.key: GLACIER, other.key: GLACIER}
    store.restores = {other.key: BACK}
    found = find(store, STUDY, study.instances)
    assert found.instances == {one: one.key} and [seen.key for seen in found.objects] == [one.key]
    assert (found.size_bytes, found.under_way) == (one.size_bytes, 0)
    assert sorted(store.heads) == sorted([one.key, other.key]) and store.reads == []


def test_only_what_is_wanted_counts(store: MemoryStore, study: Manifest) -> None:
    freeze(store)
    assert len(find(store, STUDY, study.instances[:1]).instances) == 1


def test_what_its_class_has_moved_is_found_where_it_is_looked_for(store: MemoryStore, study: Manifest) -> None:
    first, second, *_ = study.instances
    store.cold = {first.key: TIERED, second.key: TIERED}
    assert set(find(store, STUDY, study.instances).instances) == {first, second}
    store.restores = {first.key: BACK}
    store.heads.clear()
    assert find(store, STUDY, study.instances) == NOTHING_COLD and store.heads == [first.key]
    assert set(find(store, STUDY, study.instances, thorough=True).instances) == {second}


def test_a_warm_copy_is_as_good(store: MemoryStore, study: Manifest) -> None:
    item = study.instances[0]
    freeze(store)
    copy = keys.instance(STUDY, item.series_uid, item.sop_instance_uid, item.sha256, 2)
    store.versions[copy] = list(store.versions[item.key])
    assert item not in find(store, STUDY, study.instances).instances
    store.cold[copy] = GLACIER
    assert item in find(store, STUDY, study.instances).instances


def test_a_bundle_is_asked_back_once(store: MemoryStore, study: Manifest) -> None:
    """And a copy of the whole bundle, or another place of an instance, will do."""
    one, other, third, _ = study.instances
    bundle = keys.bundle(STUDY, "0" * 64)
    store.versions[bundle] = [b"x" * 10_000]
    members = [
        replace(item, key=bundle, object_bytes=10_000, offset_bytes=n * 5000) for n, item in enumerate((one, other))
    ]
    store.cold = {bundle: GLACIER}
    for item in (one, other):
        del store.versions[item.key]
    found = find(store, STUDY, [*members, third])
    assert set(found.instances) == set(members) and found.size_bytes == 10_000 and len(found.objects) == 1
    elsewhere = {one.content: (third,)}
    assert set(find(store, STUDY, members, elsewhere).instances) == {members[1]}
    store.versions[keys.bundle(STUDY, "0" * 64, 2)] = [b"x" * 10_000]
    assert find(store, STUDY, members) == NOTHING_COLD


def test_what_lies_under_a_cold_object_is_for_the_fetch_to_find(study: Manifest, store: MemoryStore) -> None:
    """Somebody has put another one over it; the recorded version may be warm."""
    item = replace(study.instances[0], version_id="0")
    store.versioned = True
    store.cold = {item.key: GLACIER}
    assert set(find(store, STUDY, [item]).instances) == {item}
    store.overwrite(item.key, b"other")
    assert find(store, STUDY, [item]) == NOTHING_COLD


def test_what_is_in_the_folder_needs_no_restoring(store: MemoryStore, study: Manifest, tmp_path: Path) -> None:
    placed = by_uid(study.instances)
    assert not_there_yet(placed, tmp_path / "none") == list(study.instances)
    Fetcher(store).fetch(study, tmp_path)
    assert not_there_yet(placed, tmp_path) == []
    first, path = placed[0]
    (tmp_path / path).write_bytes(b"short")
    assert not_there_yet(placed, tmp_path) == [first]


# -- asking and waiting ----------------------------------------------------------------------------------------------


def test_asking_again_is_harmless(store: MemoryStore, study: Manifest) -> None:
    freeze(store)
    found = find(store, STUDY, study.instances)
    assert ask_back(store, found, "bulk", 7) == Asked(started=4)
    assert ask_back(store, found, "bulk", 7) == Asked(under_way=4)
    store.restores = dict.fromkeys(store.cold, BACK)
    assert ask_back(store, found, "bulk", 7) == Asked(readable=4)
    assert {(speed, days) for _, speed, days in store.asked_back} == {("bulk", 7)}
    assert look_again(store, found) == NOTHING_COLD


def test_what_is_under_way_goes_on_as_it_was_asked_for(store: MemoryStore, study: Manifest) -> None:
    """A faster request beside it would be charged for, on top of the first."""
    freeze(store)
    ask_back(store, find(store, STUDY, study.instances), "bulk", 7)
    store.asked_back.clear()
    found = find(store, STUDY, study.instances)
    assert ask_back(store, found, "standard", 7) == Asked(under_way=4) and store.asked_back == []
    assert ask_back(store, found, "expedited", 7) == Asked(under_way=4)
    assert {speed for _, speed, _ in store.asked_back} == {"expedited"}


def test_what_is_gone_is_neither_refused_nor_waited_for(
    store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(store)
    found = find(store, STUDY, study.instances)
    restore = store.restore

    def restoring(key: str, speed: Speed, days: int | None) -> Restoring:
        if key == study.instances[0].key:
            raise NoSuchObject("gone")
        return restore(key, speed, days)

    monkeypatch.setattr(store, "restore", restoring)
    assert ask_back(store, found, "bulk", 7) == Asked(started=3)


def test_the_coldest_class_has_no_restore_within_minutes(store: MemoryStore, study: Manifest) -> None:
    store.cold = {study.instances[0].key: "DEEP_ARCHIVE"}
    asked = ask_back(store, find(store, STUDY, study.instances), "expedited", 7)
    assert store.asked_back == [] and len(asked.refused) == 1 and "--restore=standard" in asked.refused[0]


def test_what_its_class_moves_comes_back_for_good(store: MemoryStore, study: Manifest) -> None:
    store.cold = {study.instances[0].key: TIERED}
    ask_back(store, find(store, STUDY, study.instances, thorough=True), "standard", 7)
    assert [days for _, _, days in store.asked_back] == [None]


def test_what_is_refused_is_told_once(store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(store)
    found = find(store, STUDY, study.instances)

    def refusing(key: str, speed: str, days: int | None) -> Restoring:
        raise RequestRefused("no")

    monkeypatch.setattr(store, "restore", refusing)
    assert ask_back(store, found, "expedited", 7) == Asked(refused=("no",))


def test_waiting_looks_with_growing_pauses_until_all_are_back(store: MemoryStore, study: Manifest) -> None:
    freeze(store)
    found = find(store, STUDY, study.instances)
    ask_back(store, found, "bulk", 7)
    pauses: list[float] = []
    told: list[tuple[int, int]] = []
    troubles: list[str] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        store.fault = OutOfReach("down", endpoint="x") if len(pauses) == 2 else None
        if len(pauses) == 3:
            store.restores[study.instances[0].key] = BACK
        if len(pauses) == 12:
            del store.restores[study.instances[1].key]  # its copy has gone again before it was fetched
        if len(pauses) == 14:
            del store.versions[study.instances[2].key]  # which is for the fetch to say
            store.restores = dict.fromkeys(store.cold, BACK)

    wait_until_back(
        store,
        found,
        "bulk",
        7,
        sleep=sleep,
        told=lambda done, size: told.append((done, size)),
        trouble=lambda error: troubles.append(error.message),
    )
    assert pauses[0] == FIRST_PAUSE_SECONDS and pauses[-1] == LONGEST_PAUSE_SECONDS and sorted(pauses) == pauses
    assert told[0] == (0, 0) and told[-1] == (4, found.size_bytes) and set(troubles) == {"down"}
    assert [key for key, _, _ in store.asked_back].count(study.instances[1].key) == 2


def test_what_cannot_be_restored_is_not_waited_for(store: MemoryStore, study: Manifest) -> None:
    freeze(store)
    found = find(store, STUDY, study.instances)

    class Without(MemoryStore):
        def restore(self, key: str, speed: str, days: int | None) -> Restoring:
            raise NotSupported("no")

    troubles: list[Any] = []
    frozen = Without(store.versions, cold=store.cold)
    wait_until_back(frozen, found, "bulk", 7, trouble=troubles.append, sleep=lambda _: pytest.fail("waits"))
    assert len(troubles) == 4


def test_what_the_store_calls_readable_is_not_waited_for(store: MemoryStore, study: Manifest) -> None:
    """Even where HEAD does not show it: it would be asked for again for ever."""
    freeze(store)
    found = find(store, STUDY, study.instances)

    class Readable(MemoryStore):
        def restore(self, key: str, speed: Speed, days: int | None) -> Restoring:
            return Restoring.READABLE

    readable = Readable(store.versions, cold=store.cold)
    wait_until_back(readable, found, "bulk", 7, sleep=lambda _: pytest.fail("waits"))


def test_how_long_it_takes() -> None:
    assert takes({"GLACIER"}, "standard") == "3 to 5 hours"
    assert takes({"GLACIER", "DEEP_ARCHIVE"}, "bulk") == "up to 48 hours"
    assert takes({TIERED}, "standard") == "up to 12 hours"


# -- on the wire -----------------------------------------------------------------------------------------------------


def error(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code></Error>".encode())


ANSWERS = {
    "accepted": (answer("202 Accepted", b""), Restoring.STARTED),
    "back already": (answer("200 OK", b""), Restoring.READABLE),
    "under way": (error("409 Conflict", "RestoreAlreadyInProgress"), Restoring.UNDER_WAY),
    "not cold at all": (error("403 Forbidden", "InvalidObjectState"), Restoring.READABLE),
}


@pytest.mark.parametrize(("answered", "meaning"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_the_store_says_to_it(monkeypatch: pytest.MonkeyPatch, answered: bytes, meaning: Restoring) -> None:
    with answering(monkeypatch, False, answered) as (store, server):
        assert store.restore("studies/1/x.dcm", "bulk", 7) is meaning
    assert server.requests[0].startswith(b"POST /bucket/studies/1/x.dcm?restore ")
    assert b"<Days>7</Days>" in server.requests[0] and b"<Tier>Bulk</Tier>" in server.requests[0]


def test_a_class_that_moves_objects_takes_no_days(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(monkeypatch, False, answer("200 OK", b"")) as (store, server):
        assert store.restore("a.dcm", "standard", None) is Restoring.STARTED
    assert b"<Days>" not in server.requests[0] and b"<Tier>Standard</Tier>" in server.requests[0]


def test_who_may_not_restore_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(monkeypatch, False, error("403 Forbidden", "AccessDenied")) as (store, _),
        pytest.raises(CredentialsRefused, match="s3:RestoreObject"),
    ):
        store.restore("a.dcm", "standard", 7)
    with (
        answering(monkeypatch, False, *[error("503 X", "GlacierExpeditedRetrievalNotAvailable")] * 3) as (store, _),
        pytest.raises(Permanent, match="--restore=standard"),
    ):
        store.restore("a.dcm", "expedited", 7)


# -- show ------------------------------------------------------------------------------------------------------------


def test_show_says_what_is_cold_and_what_bringing_it_back_takes(
    store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[tuple[MemoryStore, None]]:
        yield store, None

    monkeypatch.setattr(factory, "opened", opened)

    def show(*more: str) -> Result:
        words = ["show", STUDY, *more, "--bucket", "bucket"]
        result = CliRunner().invoke(root, words)
        if more:
            schemas.check_output(words, result.stdout, result.exit_code)
        return result

    assert "Storage" not in show().output
    one, other, *_ = study.instances
    store.cold = {one.key: "DEEP_ARCHIVE", other.key: "DEEP_ARCHIVE"}
    result = show()
    assert result.exit_code == 0
    assert "2 objects, 5.0 kB, in the usual class" in result.output
    assert "2 objects, 5.0 kB, in DEEP_ARCHIVE" in result.output and "--restore=bulk up to 48 hours" in result.output
    assert store.heads == [] and not {one.key, other.key} & set(store.reads)
    found = json.loads(show("--json").stdout)["archive"]["storage"]
    assert [(entry["storage_class"], entry["objects"], entry["is_cold"]) for entry in found] == [
        (None, 2, False),
        ("DEEP_ARCHIVE", 2, True),
    ]


# -- search ----------------------------------------------------------------------------------------------------------


def test_search_says_what_is_cold_if_it_is_asked_to(
    store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = MemoryCatalogue()
    catalogue.put(study.record())
    catalogue.put(replace(study.record(), study_uid=Uid("1.9.9")))

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[tuple[MemoryStore, MemoryCatalogue]]:
        yield store, catalogue

    monkeypatch.setattr(factory, "opened", opened)

    def search(*more: str) -> Result:
        words = ["search", *more, "--bucket", "bucket", "--table", "table"]
        result = CliRunner().invoke(root, words)
        if "--json" in more:
            schemas.check_output(words, result.stdout, result.exit_code)
        assert result.exit_code == 0
        return result

    one, *rest = study.instances
    store.cold = {one.key: "DEEP_ARCHIVE"}
    assert "DEEP_ARCHIVE" not in search().output and "storage" not in json.loads(search("--json").stdout)["studies"][0]
    heading, *rows = (line.split("\t") for line in search("--storage").stdout.splitlines())
    stored = {row[-1]: row[heading.index("STORAGE")] for row in rows}
    assert stored == {STUDY: f"usual {len(rest)}/4 DEEP_ARCHIVE 1/4", "1.9.9": ""}
    said = "1 study has objects in cold storage, unless restored: fetch --restore takes up to 12 hours"
    assert said in search("--storage").stderr
    found = json.loads(search("--storage", "--json").stdout)["studies"]
    assert {entry["study_uid"]: [s["is_cold"] for s in entry["storage"]] for entry in found} == {
        STUDY: [False, True],
        "1.9.9": [],
    }

    def refuse(_prefix: str) -> Iterator[Any]:
        raise OutOfReach("the store does not answer")

    monkeypatch.setattr(store, "listing", refuse)
    result = search("--storage")
    assert "2 studies: the storage classes of the objects are unknown: the store does not answer" in result.stderr
    assert STUDY in result.stdout


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ctl(store: MemoryStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[tuple[MemoryStore, None]]:
        yield store, None

    monkeypatch.setattr(factory, "opened", opened)
    monkeypatch.setattr("time.sleep", lambda _seconds: store.restores.update(dict.fromkeys(store.cold, BACK)))

    def run(*arguments: str) -> Result:
        words = ["fetch", STUDY, "-o", str(tmp_path / "out"), *arguments, "--bucket", "bucket"]
        result = CliRunner().invoke(root, words)
        if "--json" in arguments:
            schemas.check_output(words, result.stdout, result.exit_code)
        return result

    return run


def test_without_the_option_the_others_are_fetched(store: MemoryStore, study: Manifest, ctl: Any) -> None:
    store.cold = {study.instances[0].key: GLACIER}
    result = ctl()
    assert result.exit_code == 1 and store.asked_back == []
    assert "3 of 4 files" in result.output and "1 file is in cold storage (1 object, 2.5 kB)" in result.output
    assert "--restore (3 to 5 hours)" in result.output and "--restore=bulk (5 to 12 hours" in result.output
    assert study.instances[0].key not in store.reads
    found = json.loads(ctl("--json").stdout)
    assert found["cold"] == {"files": 1, "objects": 1, "bytes": 2500, "under_way": 0}
    assert [one["code"] for one in found["failed"]] == ["cold-storage"] and not found["complete"]


def test_with_it_they_are_asked_back_and_fetched_by_a_later_call(store: MemoryStore, study: Manifest, ctl: Any) -> None:
    freeze(store)
    result = ctl("--restore=bulk", "--restore-days", "3")
    assert result.exit_code == 1 and {asked[1:] for asked in store.asked_back} == {("bulk", 3)}
    assert "4 requested now" in result.output and "being restored" in result.output
    assert json.loads(ctl("--json").stdout)["cold"]["under_way"] == 4
    again = ctl("--restore").output
    assert "at the speed that they were requested with" in again and "3 to 5 hours" not in again
    store.restores = dict.fromkeys(store.cold, BACK)
    assert ctl("--restore").exit_code == 0 and store.reads.count(study.instances[0].key) == 1


def test_what_is_waited_for_is_fetched(store: MemoryStore, study: Manifest, ctl: Any) -> None:
    freeze(store)
    result = ctl("--restore", "--wait", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["complete"] and found["cold"]["files"] == 0 and len(found["notes"]) == 1
    assert {asked[1:] for asked in store.asked_back} == {("standard", 7)}
    assert store.restores == {key: Restore(False) for key in store.cold}


def test_copies_that_may_expire_before_the_last_is_back(store: MemoryStore, study: Manifest, ctl: Any) -> None:
    store.cold = dict.fromkeys((item.key for item in study.instances), "DEEP_ARCHIVE")
    said = "may expire before the last"
    assert said in ctl("--restore=bulk", "--restore-days", "1", "--wait").output
    store.restores.clear()
    assert said not in ctl("--restore=bulk", "--restore-days", "2", "--wait").output


def test_several_studies_are_restored_side_by_side(
    store: MemoryStore, study: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each would take hours after the other."""
    other = Uid("1.2.840.99999.2")
    second = archive(store, [(SERIES, "1.2.9", content(9))], study=other)
    catalogue = MemoryCatalogue({STUDY: study.record(), other: second.record()})
    freeze(store)
    slept: list[int] = []

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[tuple[MemoryStore, MemoryCatalogue]]:
        yield store, catalogue

    def sleep(_seconds: float) -> None:
        slept.append(len(store.restores))
        store.restores.update(dict.fromkeys(store.cold, BACK))

    monkeypatch.setattr(factory, "opened", opened)
    monkeypatch.setattr("time.sleep", sleep)
    words = ["fetch", "--patient", "CANARY-ID", "--all", "-o", str(tmp_path / "out"), "--restore=bulk", "--wait"]
    result = CliRunner().invoke(root, [*words, "--bucket", "bucket", "--table", "table"])
    assert result.exit_code == 0, result.output
    assert slept == [5], "all are asked for before the first is waited for"
    assert "2 of 2 studies fetched" in result.output


@pytest.mark.parametrize("words", [["--restore=fast"], ["--wait"], ["--restore", "--restore-days", "0"]])
def test_what_cannot_be_meant_is_refused(ctl: Any, study: Manifest, words: list[str]) -> None:
    assert ctl(*words).exit_code == 2


def test_what_was_asked_back_and_is_under_way(store: MemoryStore, study: Manifest, ctl: Any) -> None:
    freeze(store)
    store.restores = dict.fromkeys(store.cold, UNDER_WAY)
    assert "being restored: repeat the command later" in ctl().output


def test_a_cold_version_under_a_delete_marker_is_not_said_to_be_restored(
    store: MemoryStore, study: Manifest, ctl: Any
) -> None:
    """Nothing was asked for, so repeating the command would never bring it."""
    items = [replace(item, version_id="0") for item in study.instances]
    store.versions[study.key] = [replace(study, instances=tuple(items)).to_bytes()]
    store.cold = {items[0].key: GLACIER}
    store.mark_deleted(items[0].key)
    result = ctl("--restore")
    assert result.exit_code == 1 and store.asked_back == []
    assert "3 of 4 files" in result.output and "1 file is in cold storage as an older version" in result.output
    assert "REASON" not in result.output, "a table of nothing"
    assert f"verify {STUDY}" in result.output and "when they are restored" not in result.output
