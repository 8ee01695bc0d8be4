"""What a search of the DynamoDB catalogue reads: counted by the items that the service says it has looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from dicomwatchd import doctor
from dicomwatchd.archive.catalogues.dynamodb import catalogue as module
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.items import IDENTITY_KEY, SHARDS, to_items
from dicomwatchd.archive.catalogues.dynamodb.setup import COMPLETED
from dicomwatchd.archive.catalogues.port import NO_INDEX, OLD_MODALITIES, OLD_RECORDS
from dicomwatchd.archive.records import Query, StudyRecord, place
from dicomwatchd.archive.repair.rebuild import rebuild
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.config.archive import DynamoDBSettings
from tests.servers.dynamodb import DynamoDBLocal
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_rebuild import manifests
from tests.unit.test_search_pages import KINDS, RECORDS, by

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PAGE = 10


@dataclass
class Reads:
    """``items``: those that Query and BatchGetItem have looked at."""

    items: int = 0
    calls: list[str] = field(default_factory=list)

    def note(self, parsed: Any, model: Any, **_: object) -> None:
        self.calls.append(model.name)
        self.items += parsed.get("ScannedCount", 0)
        self.items += sum(map(len, parsed.get("Responses", {}).values()))

    def clear(self) -> None:
        self.items, self.calls = 0, []


@pytest.fixture
def client(dynamodb: DynamoDBLocal) -> Iterator[DynamoDBClient]:
    made = dynamodb.client()
    yield made
    made.close()


@pytest.fixture
def reads(client: DynamoDBClient) -> Reads:
    reads = Reads()
    client.meta.events.register("after-call.dynamodb", reads.note)
    return reads


@pytest.fixture
def empty(
    dynamodb: DynamoDBLocal, client: DynamoDBClient, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> DynamoDBCatalogue:
    monkeypatch.setattr(module, "_PAGE_ITEMS", PAGE)
    monkeypatch.setattr(module, "_NAMED_ITEMS", PAGE)
    settings = DynamoDBSettings(
        kind="dynamodb",
        table=table_name,
        region=dynamodb.region,
        endpoint_url=dynamodb.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )
    made = DynamoDBCatalogue(settings, client=client, sleep=lambda seconds: time.sleep(0.02))
    made.initialise("archive-1")
    return made


@pytest.fixture
def stocked(empty: DynamoDBCatalogue) -> DynamoDBCatalogue:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(empty.put, RECORDS))
    return empty


def test_no_more_is_read_than_the_answer_has(stocked: DynamoDBCatalogue, reads: Reads) -> None:
    """An index that has the studies themselves gives each once, one that names them twice: its entry, and the study.
    For each part of an index a page may be begun that the answer does not need."""
    unserved = [kind for kind in KINDS if stocked.shortcomings(kind[0])]
    assert all(stocked.shortcomings(query) == (NO_INDEX,) for query, _ in unserved) and len(unserved) == 3
    for query, condition in KINDS:
        reads.clear()
        found = [one.study_uid for one in stocked.search(query)]
        assert found == by(condition), query
        if query.is_of_patient or query.accession_number or (query, condition) not in unserved:
            assert reads.items <= 2 * len(found) + SHARDS * PAGE, query
        assert "Scan" not in reads.calls and len(reads.calls) <= len(found) + 2 * SHARDS + 2, query


def test_a_list_reads_as_many_pages_as_are_taken(stocked: DynamoDBCatalogue, reads: Reads) -> None:
    for query, each in ((Query(), 1), (Query(modality="CT"), 2), (Query(date_from="20240101"), 1)):
        reads.clear()
        assert len(list(islice(stocked.search(query), 25))) == 25
        assert reads.items <= each * (25 + SHARDS * 2 * PAGE), query


def test_pages_grow_where_much_is_read(stocked: DynamoDBCatalogue, reads: Reads) -> None:
    reads.clear()
    assert len(list(stocked.search(Query()))) == len(RECORDS)
    assert reads.calls.count("Query") <= SHARDS * 5, "10, 10, 20, 40 and the rest of a hundred"


def put_as_before(client: DynamoDBClient, table: str, record: StudyRecord) -> None:
    """Without the entries for its modalities."""
    items = to_items(replace(record, modalities=()))
    whole = to_items(record)
    for item in (*whole.series, *items.also, {**items.study, "document": whole.study["document"]}):
        client.put_item(TableName=table, Item=item)


def test_a_table_of_an_earlier_version_is_searched_as_before_and_completed(
    empty: DynamoDBCatalogue, client: DynamoDBClient, table_name: str, reads: Reads
) -> None:
    """Names and birth dates are served meanwhile. The rebuild writes what is recorded as it should be once more."""
    client.put_item(
        TableName=table_name,
        Item={**IDENTITY_KEY, "archive_id": {"S": "archive-1"}, COMPLETED: {"N": "1"}},
    )
    store = MemoryStore()
    made = [manifests(f"1.2.{number}", 1)[0] for number in range(30)]
    for manifest in made:
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
        put_as_before(client, table_name, manifest.record())
    of_modality, of_name = Query(modality="MR"), Query(birth_date="19700101")
    assert empty.shortcomings(of_modality) == (OLD_MODALITIES,)
    assert empty.shortcomings(of_name) == empty.shortcomings(Query(patient_id="x")) == ()
    assert _doctor(empty) == [("note", OLD_MODALITIES)]
    assert len(list(empty.search(of_modality))) == 30 and not empty.is_completed()
    empty.put(manifests("1.3", 1)[0].record())
    assert len(list(empty.search(of_modality))) == 31
    assert rebuild(store, empty).unchanged == 30
    assert empty.is_completed() and empty.shortcomings(of_modality) == ()
    reads.clear()
    assert len(list(empty.search(of_modality))) == 31
    assert "BatchGetItem" in reads.calls
    assert [outcome for outcome, _ in _doctor(empty)] == ["good"]
    reads.clear()
    assert rebuild(store, empty).unchanged == 30 and reads.calls.count("PutItem") == 1
    # A rebuild by an earlier version says no more than it knows.
    client.put_item(
        TableName=table_name,
        Item={**IDENTITY_KEY, "archive_id": {"S": "archive-1"}, COMPLETED: {"N": "1"}},
    )
    assert not empty.is_completed()
    client.put_item(TableName=table_name, Item={**IDENTITY_KEY, "archive_id": {"S": "archive-1"}})
    fresh = DynamoDBCatalogue(_settings(empty, table_name), client=client)
    assert fresh.shortcomings(of_name) == (OLD_RECORDS,)


def _settings(catalogue: DynamoDBCatalogue, table_name: str) -> DynamoDBSettings:
    place_of = catalogue.name.split("|")
    return DynamoDBSettings(
        kind="dynamodb",
        table=table_name,
        region="us-east-1",
        endpoint_url=place_of[1],
        ca_file=None,
        insecure_http=True,
    )


def _doctor(catalogue: DynamoDBCatalogue) -> list[tuple[str, str]]:
    return [(one.outcome, one.detail) for one in doctor._indexes(catalogue)]


def test_a_study_whose_modality_or_date_has_changed_is_found_once_and_as_it_is(empty: DynamoDBCatalogue) -> None:
    first = replace(RECORDS[5], modalities=("CT",), study_date="20240101")
    second = replace(first, revision=2, manifest_sha256="b" * 64, modalities=("CT", "PT"), study_date="20240202")
    third = replace(second, revision=3, manifest_sha256="c" * 64, modalities=("PT",))
    empty.put(first)
    empty.put(second)
    for query in (Query(modality="CT"), Query(modality="PT"), Query(modality="CT", date_from="20240202")):
        assert [place(one) for one in empty.search(query)] == [place(second)], query
    assert list(empty.search(Query(modality="CT", date_to="20240131"))) == []
    empty.put(third)
    assert list(empty.search(Query(modality="CT"))) == []
    assert [one.revision for one in empty.search(Query(modality="PT"))] == [3]
