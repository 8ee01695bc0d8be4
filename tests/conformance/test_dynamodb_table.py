"""The DynamoDB table: completed where parts lack, left alone where it is others', used within the policies' rights."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicomwatchd import doctor
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.items import IDENTITY_KEY, to_items
from dicomwatchd.archive.catalogues.dynamodb.setup import ADDED, INDEXES, definition
from dicomwatchd.archive.catalogues.port import OLD_RECORDS
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.repair.rebuild import RebuildReport, rebuild
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.config.archive import DynamoDBSettings
from dicomwatchd.errors import ArchiveRefused, NotInitialised, OutOfReach, Permanent
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity
from tests import aws_template
from tests.conformance.test_catalogue import ARCHIVE_ID, DOE, SMITH, series, study
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.processes import free_port
from tests.unit.memory_archive import MemoryStore
from tests.unit.test_rebuild import manifests

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def client(dynamodb: DynamoDBLocal) -> Iterator[DynamoDBClient]:
    made = dynamodb.client()
    yield made
    made.close()


@pytest.fixture
def calls() -> list[str]:
    """Names of the operations that `catalogue` has called."""
    return []


@pytest.fixture
def settings(dynamodb: DynamoDBLocal, table_name: str) -> DynamoDBSettings:
    return DynamoDBSettings(
        kind="dynamodb",
        table=table_name,
        region=dynamodb.region,
        endpoint_url=dynamodb.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )


@pytest.fixture
def catalogue(settings: DynamoDBSettings, client: DynamoDBClient, calls: list[str]) -> DynamoDBCatalogue:
    client.meta.events.register("before-call.dynamodb", lambda model, **_: calls.append(model.name))
    return DynamoDBCatalogue(settings, client=client, sleep=lambda seconds: time.sleep(0.02))


def create(client: DynamoDBClient, table: str, **changes: Any) -> None:
    client.create_table(**{**definition(table), **changes})


KEYS_ONLY: dict[str, Any] = {
    "GlobalSecondaryIndexes": definition("x")["GlobalSecondaryIndexes"][:1],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", *INDEXES["by-patient"])
    ],
    "DeletionProtectionEnabled": False,
}


def test_a_table_that_lacks_indexes_is_completed(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    create(client, table_name, **KEYS_ONLY)
    with pytest.raises(NotInitialised, match="no index by-accession, by-archived-at, by-study-date"):
        catalogue.check()
    outcomes = {step.what: step.outcome for step in catalogue.initialise(ARCHIVE_ID)}
    assert outcomes["catalogue table"] == "present"
    assert outcomes["catalogue index by-patient"] == "present"
    assert outcomes["catalogue index by-archived-at"] == "created"
    assert outcomes["catalogue deletion protection"] == "set"
    catalogue.check()
    made = client.describe_table(TableName=table_name)["Table"]
    assert {index["IndexName"]: index["KeySchema"] for index in made["GlobalSecondaryIndexes"]} == {
        index["IndexName"]: index["KeySchema"] for index in definition("x")["GlobalSecondaryIndexes"]
    }


def test_a_table_made_from_the_template_needs_its_identity_only(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    create(client, table_name)
    with pytest.raises(NotInitialised):
        catalogue.check()
    steps = catalogue.initialise(ARCHIVE_ID)
    assert [step.what for step in steps if step.outcome == "created"] == ["catalogue identity"]


@pytest.mark.parametrize(
    "changes",
    [
        {"KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]},
        {
            "KeySchema": [
                {"AttributeName": "id", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ]
        },
    ],
    ids=["no sort key", "other name"],
)
def test_a_table_with_other_keys_is_refused_and_not_changed(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str, changes: Any
) -> None:
    names = [key["AttributeName"] for key in changes["KeySchema"]]
    types = [{"AttributeName": name, "AttributeType": "S"} for name in names]
    client.create_table(TableName=table_name, BillingMode="PAY_PER_REQUEST", AttributeDefinitions=types, **changes)  # type: ignore[arg-type]
    for operation in (catalogue.check, lambda: catalogue.initialise(ARCHIVE_ID)):
        with pytest.raises(ArchiveRefused):
            operation()
    table = client.describe_table(TableName=table_name)["Table"]
    assert "GlobalSecondaryIndexes" not in table and not table.get("DeletionProtectionEnabled")


def test_an_index_with_other_keys_is_refused(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    index = {**definition("x")["GlobalSecondaryIndexes"][0]}
    index["KeySchema"] = [{"AttributeName": "patient_id", "KeyType": "HASH"}]
    types = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "patient_id")]
    create(client, table_name, GlobalSecondaryIndexes=[index], AttributeDefinitions=types)
    with pytest.raises(ArchiveRefused):
        catalogue.initialise(ARCHIVE_ID)


def test_another_programs_items_are_refused_and_its_table_not_changed(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    create(client, table_name, **KEYS_ONLY)
    client.put_item(TableName=table_name, Item={"pk": {"S": "USER#1"}, "sk": {"S": "PROFILE"}})
    with pytest.raises(ArchiveRefused):
        catalogue.initialise(ARCHIVE_ID)
    table = client.describe_table(TableName=table_name)["Table"]
    assert len(table["GlobalSecondaryIndexes"]) == 1 and not table.get("DeletionProtectionEnabled")


def test_an_emptied_table_takes_its_identity_and_its_studies_again(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    """As after a restore gone wrong: studies are there and the identity is not."""
    catalogue.initialise(ARCHIVE_ID)
    catalogue.put(study())
    client.delete_item(TableName=table_name, Key={"pk": {"S": "ARCHIVE"}, "sk": {"S": "IDENTITY"}})
    with pytest.raises(NotInitialised):
        catalogue.check()
    catalogue.initialise(ARCHIVE_ID)
    catalogue.check()


def test_a_rebuild_of_the_emptied_table_gives_an_equal_catalogue(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    catalogue.initialise(ARCHIVE_ID)
    studies = [manifests(f"1.2.{number}", 3) for number in range(5)]
    store = MemoryStore()
    for manifest in (manifest for revisions in studies for manifest in revisions):
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
        catalogue.put(manifest.record())
    uids = [revisions[0].study_uid for revisions in studies]
    before = [catalogue.get(uid) for uid in uids], list(catalogue.search(Query()))
    for item in client.scan(TableName=table_name)["Items"]:
        if item["pk"]["S"].startswith("STUDY#"):
            client.delete_item(TableName=table_name, Key={"pk": item["pk"], "sk": item["sk"]})
    assert catalogue.get(uids[0]) is None
    assert rebuild(store, catalogue) == RebuildReport(studies=5, recorded=5)
    assert ([catalogue.get(uid) for uid in uids], list(catalogue.search(Query()))) == before
    assert rebuild(store, catalogue) == RebuildReport(studies=5, unchanged=5)


def test_a_lost_series_item_is_damage_and_a_rebuild_heals_it(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    catalogue.initialise(ARCHIVE_ID)
    revisions = manifests("1.2", 3)
    store = MemoryStore()
    for manifest in revisions:
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
        catalogue.put(manifest.record())
    lost = next(i for i in client.scan(TableName=table_name)["Items"] if i["sk"]["S"].startswith("SERIES#"))
    client.delete_item(TableName=table_name, Key={"pk": lost["pk"], "sk": lost["sk"]})
    with pytest.raises(Permanent) as caught:
        catalogue.get(Uid("1.2"))
    assert caught.value.code == "catalogue-damaged" and "catalogue rebuild" in str(caught.value)
    assert rebuild(store, catalogue) == RebuildReport(studies=1, recorded=1)
    assert catalogue.get(Uid("1.2")) == revisions[2].record()


def test_an_unchanged_series_is_not_written_again(catalogue: DynamoDBCatalogue, calls: list[str]) -> None:
    """A late slice in a study of 50 series is two writes."""
    catalogue.initialise(ARCHIVE_ID)
    uid = "1.2.840.1"
    many = [series(uid, number) for number in range(50)]
    catalogue.put(study(uid, 1, of=tuple(many)))
    calls.clear()
    many[7] = series(uid, 7, instances=11)
    catalogue.put(study(uid, 2, of=tuple(many)))
    assert calls.count("PutItem") == 2
    calls.clear()
    catalogue.get(Uid(uid))
    assert calls == ["GetItem", "BatchGetItem"]


def test_the_daemons_and_the_fetchers_rights_suffice(catalogue: DynamoDBCatalogue, calls: list[str]) -> None:
    catalogue.initialise(ARCHIVE_ID)
    calls.clear()
    catalogue.check()
    catalogue.identity()
    for revision in (1, 2):
        catalogue.put(study(revision=revision))
    assert catalogue.get(Uid("1.2.840.1")) is not None
    assert set(calls) <= aws_template.allowed("DaemonPolicy", "dynamodb")
    calls.clear()
    for query in (Query(), Query(patient_id="PID-1"), Query(accession_number="A-1")):
        assert len(list(catalogue.search(query))) == 1
    catalogue.get(Uid("1.2.840.1"))
    catalogue.check()
    assert set(calls) <= aws_template.allowed("FetchPolicy", "dynamodb")


def test_a_server_that_is_down_is_out_of_reach(
    settings: DynamoDBSettings, dynamodb: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dynamodb.env().items():
        monkeypatch.setenv(name, value)
    down = settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{free_port()}"})
    catalogue = DynamoDBCatalogue(down)
    operations: list[Callable[[], object]] = [
        catalogue.check,
        catalogue.identity,
        lambda: catalogue.initialise(ARCHIVE_ID),
        lambda: catalogue.get(Uid("1.2")),
        lambda: catalogue.put(study()),
        lambda: list(catalogue.search(Query())),
        lambda: list(catalogue.study_uids()),
    ]
    for operation in operations:
        with pytest.raises(OutOfReach) as caught:
            operation()
        assert caught.value.endpoint == f"dynamodb at {down.endpoint_url}"


def test_a_server_that_is_not_trusted_gets_no_request(
    settings: DynamoDBSettings, dynamodb: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dynamodb.env().items():
        monkeypatch.setenv(name, value)
    untrusted = settings.model_copy(update={"endpoint_url": dynamodb.https_endpoint, "ca_file": None})
    with pytest.raises(OutOfReach, match="ca_file"):
        DynamoDBCatalogue(untrusted).check()


def test_a_ca_file_that_is_not_there_is_a_word_about_the_configuration(settings: DynamoDBSettings) -> None:
    broken = settings.model_copy(update={"ca_file": Path("/nonexistent/ca.pem")})
    with pytest.raises(Exception, match="ca_file") as caught:
        DynamoDBCatalogue(broken)
    assert getattr(caught.value, "code", "") == "config"


# --- tables of earlier versions ---


def old_definition(table: str) -> dict[str, Any]:
    """The table as versions before the index of terms made it."""
    made = definition(table)
    made["GlobalSecondaryIndexes"] = [one for one in made["GlobalSecondaryIndexes"] if one["IndexName"] not in ADDED]
    used = {"pk", "sk"} | {key["AttributeName"] for one in made["GlobalSecondaryIndexes"] for key in one["KeySchema"]}
    made["AttributeDefinitions"] = [one for one in made["AttributeDefinitions"] if one["AttributeName"] in used]
    return made


def naming(uid: str, *identities: Identity) -> Manifest:
    """A study that names these patients, the first of them in its attributes."""
    first = identities[0]
    attributes: DicomJson = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": first.name.split("=")[0]}]},
        "00100020": {"vr": "LO", "Value": [first.patient_id]},
        "00100030": {"vr": "DA", "Value": [first.birth_date]},
    }
    return empty(ARCHIVE_ID, Uid(uid)).merged(
        [],
        attributes=attributes,
        series={Uid(f"{uid}.1"): {"00080060": {"vr": "CS", "Value": ["MR"]}}},
        flags=[],
        damaged_keys=[],
        created_at="2024-11-07T10:00:00Z",
        created_by="x",
        identities=identities,
    )


def put_as_before(client: DynamoDBClient, table: str, record: StudyRecord) -> None:
    """The study item and the series items, without what is searched by since."""
    items = to_items(replace(record, identities=None, orders=None, institutions=None))
    for item in (*items.series, {k: v for k, v in items.study.items() if k not in ("term", "term_order")}):
        client.put_item(TableName=table, Item=item)


def test_a_table_of_an_earlier_version_serves_and_is_completed(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str, calls: list[str]
) -> None:
    client.create_table(**old_definition(table_name))
    client.put_item(TableName=table_name, Item={**IDENTITY_KEY, "archive_id": {"S": ARCHIVE_ID}})
    store = MemoryStore()
    made = [naming("2.1", DOE), naming("2.2", SMITH), naming("2.3", DOE, SMITH)]
    for manifest in made:
        store.put(manifest.key, Buffer.of(manifest.to_bytes()))
        put_as_before(client, table_name, manifest.record())
    catalogue.check()
    assert catalogue.identity() == ARCHIVE_ID

    # Without the index: everything is found, by a look at all studies, and that is said.
    [said] = catalogue.shortcomings(Query(name="smith*"))
    assert "by-term" in said and "archive init" in said
    assert _doctor(catalogue) == [("note", said)]
    assert [one.study_uid for one in catalogue.search(Query(name="smith*"))] == [made[1].study_uid]
    assert catalogue.shortcomings(Query(patient_id="S1")) == (OLD_RECORDS,)
    assert catalogue.shortcomings(Query(date_from="20240101")) == ()
    assert catalogue.shortcomings(Query()) == ()

    # With an index that holds nothing of the old studies: as before.
    outcomes = {step.what: step.outcome for step in catalogue.initialise(ARCHIVE_ID)}
    assert outcomes["catalogue index by-term"] == "created"
    assert catalogue.shortcomings(Query(birth_date="19800101")) == (OLD_RECORDS,)
    assert [one.study_uid for one in catalogue.search(Query(birth_date="19800101"))] == [made[1].study_uid]

    report = rebuild(store, catalogue)
    assert (report.studies, report.recorded) == (3, 3)
    assert rebuild(store, catalogue).unchanged == 3
    calls.clear()
    both = {made[1].study_uid, made[2].study_uid}
    assert {one.study_uid for one in catalogue.search(Query(birth_date="19800101"))} == both
    assert {one.study_uid for one in catalogue.search(Query(name="smith*"))} == both
    assert {one.study_uid for one in catalogue.search(Query(patient_id="S1"))} == both
    assert catalogue.shortcomings(Query(name="smith*")) == ()
    assert "Scan" not in calls
    assert [outcome for outcome, _ in _doctor(catalogue)] == ["good"]


def _doctor(catalogue: DynamoDBCatalogue) -> list[tuple[str, str]]:
    """What it says of the indexes."""
    return [(one.outcome, one.detail) for one in doctor._indexes(catalogue)]


def test_what_this_version_writes_an_earlier_one_reads(
    catalogue: DynamoDBCatalogue, client: DynamoDBClient, table_name: str
) -> None:
    """It knows no keys in a document but its own, and reads every item that its indexes hold."""
    catalogue.initialise(ARCHIVE_ID)
    made = naming("2.1", DOE, SMITH)
    catalogue.put(made.record())
    elsewhere = {"series", "identities", "orders", "institutions", "completeness"}
    known = set(StudyRecord.__slots__) - elsewhere
    for index in set(INDEXES) - ADDED:
        for item in client.scan(TableName=table_name, IndexName=index)["Items"]:
            assert set(json.loads(item["document"]["S"])) == known
    held = client.scan(TableName=table_name, IndexName="by-patient")["Items"]
    assert {item["patient_id"]["S"] for item in held} == {"D1", "S1"}


def test_what_a_search_asks_the_table(catalogue: DynamoDBCatalogue, calls: list[str]) -> None:
    catalogue.initialise(ARCHIVE_ID)
    for number in range(30):
        catalogue.put(naming(f"2.{number}", replace(DOE, patient_id=f"D{number}")).record())
    for query, expected in (
        (Query(patient_id="D3"), Counter(Query=1)),
        (Query(accession_number="x"), Counter(Query=1)),
        (Query(date_from="20240101"), Counter(Query=4)),
        # 30 studies: the index, then 25 and 5 of them; before that once what the table has.
        (Query(name="doe*"), Counter(Query=1, BatchGetItem=2, DescribeTable=1, GetItem=1)),
        (Query(birth_date="19700131"), Counter(Query=1, BatchGetItem=2)),
        (Query(archived_from="2024"), Counter(Query=4, BatchGetItem=2)),
    ):
        calls.clear()
        list(catalogue.search(query))
        assert Counter(calls) == expected, query
