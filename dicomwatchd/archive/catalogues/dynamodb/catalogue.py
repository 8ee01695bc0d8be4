"""The catalogue on DynamoDB: reads, conditional writes and searches of one table (see dynamodb_items)."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dicomwatchd.archive.aws.clients import build_client, endpoint_name, error_code, translated
from dicomwatchd.archive.catalogues.dynamodb.items import (
    SHARDS,
    Item,
    from_items,
    revision_of,
    series_keys,
    study_key,
    to_items,
)
from dicomwatchd.archive.catalogues.dynamodb.setup import TableSetup
from dicomwatchd.archive.documents import damaged, index_text, matches
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.config import DynamoDBSettings
from dicomwatchd.errors import RevisionConflict, Throttled
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient

_PAGE_ITEMS = 100


class DynamoDBCatalogue:
    """The catalogue port on a DynamoDB table. Safe from many threads.

    A record whose attributes exceed what an item holds comes back without the largest of them and with the flag
    "attributes-left-out"; revision and manifest are always exact. Searches go to indexes, which follow a write
    within moments; `get` is strongly consistent.
    """

    def __init__(
        self,
        settings: DynamoDBSettings,
        *,
        max_connections: int = 16,
        client: DynamoDBClient | None = None,
        session: Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client or build_client(
            "dynamodb",
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            ca_file=settings.ca_file,
            max_connections=max_connections,
            session=session,
        )
        self._table = settings.table
        region = self._client.meta.region_name
        self._endpoint = endpoint_name("dynamodb", region, settings.endpoint_url)
        place = settings.endpoint_url.rstrip("/") if settings.endpoint_url else f"aws:{region}"
        self._name = f"dynamodb|{place}|{settings.table}"
        self._setup = TableSetup(self._client, self._table, self._endpoint, sleep=sleep, monotonic=monotonic)

    @property
    def name(self) -> str:
        return self._name

    def get(self, study_uid: Uid) -> StudyRecord | None:
        """The study item is read first: the series items it names were there before it, and never change."""
        study = self._study_item(study_uid)
        if study is None:
            return None
        keys = series_keys(study)
        found = {item["sk"]["S"]: item for item in self._items(keys)}
        if len(found) != len(keys):
            raise damaged()
        return from_items(study, (found[key["sk"]["S"]] for key in keys))

    def put(self, record: StudyRecord) -> None:
        """Series items that a newer or equal study item does not name are leftovers of a race or a crash, and do
        no harm; a revision written again, such as by a rebuild, writes all of its items again."""
        items = to_items(record)
        there = self._study_item(record.study_uid)
        present: set[str] = set()
        if there is not None:
            revision = revision_of(there)
            if revision[0] >= record.revision and revision != (record.revision, record.manifest_sha256):
                raise _conflict(revision[0])
            if revision[0] < record.revision:
                present = {key["sk"]["S"] for key in series_keys(there)}
        for item in items.series:
            if item["sk"]["S"] not in present:
                with translated("write a series", self._endpoint):
                    self._client.put_item(TableName=self._table, Item=item)
        with translated("write a study", self._endpoint):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=items.study,
                    ConditionExpression="attribute_not_exists(pk) OR revision < :revision"
                    " OR (revision = :revision AND manifest_sha256 = :sha256)",
                    ExpressionAttributeValues={
                        ":revision": items.study["revision"],
                        ":sha256": items.study["manifest_sha256"],
                    },
                )
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    raise _conflict(record.revision) from error
                raise

    def search(self, query: Query) -> Iterator[StudyRecord]:
        """Memory holds one page for each partition asked; `matches` decides what the index could not."""
        if query.accession_number:
            partitions = [("by-accession", "accession_number", index_text(query.accession_number))]
        elif query.patient_id:
            partitions = [("by-patient", "patient_id", index_text(query.patient_id))]
        else:
            partitions = [("by-study-date", "shard", str(shard)) for shard in range(SHARDS)]
        streams = [self._newest_first(*partition, query) for partition in partitions]
        for item in heapq.merge(*streams, key=_date_and_uid, reverse=True):
            record = from_items(item)
            if matches(query, record):
                yield record

    def study_uids(self) -> Iterator[Uid]:
        for item in self._pages(
            "list the studies",
            self._client.scan,
            ConsistentRead=True,
            FilterExpression="sk = :study",
            ExpressionAttributeValues={":study": {"S": "STUDY"}},
            ProjectionExpression="pk",
        ):
            yield Uid(item["pk"]["S"].removeprefix("STUDY#"))

    def identity(self) -> str | None:
        """Raises NotInitialised when there is no table."""
        return self._setup.identity()

    def check(self) -> None:
        self._setup.check()

    def initialise(self, archive_id: str) -> list[InitStep]:
        return self._setup.initialise(archive_id)

    def close(self) -> None:
        self._client.close()

    def _study_item(self, study_uid: Uid) -> Item | None:
        with translated("read a study", self._endpoint):
            answer = self._client.get_item(TableName=self._table, Key=study_key(study_uid), ConsistentRead=True)
        return answer.get("Item")

    def _items(self, keys: list[Item]) -> Iterator[Item]:
        """At most 100 items, the limit of BatchGetItem. What does not fit into an answer is asked for again."""
        while keys:
            with translated("read the series", self._endpoint):
                answer: Any = self._client.batch_get_item(
                    RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}}
                )
            found = answer["Responses"].get(self._table, [])
            yield from found
            rest = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
            if rest and not found:
                raise Throttled("read the series failed: throttled", endpoint=self._endpoint)
            keys = rest

    def _newest_first(self, index: str, key: str, value: str, query: Query) -> Iterator[Item]:
        conditions, values = "#key = :key", {":key": {"S": value}}
        if query.date_from or query.date_to:
            # Digits only: what has no date sorts below "0". "$" comes after the "#" that ends the last date.
            first, last = query.date_from or "0", f"{query.date_to or '99999999'}$"
            if first > last:
                return
            conditions += " AND study_date_uid BETWEEN :first AND :last"
            values |= {":first": {"S": first}, ":last": {"S": last}}
        yield from self._pages(
            "search",
            self._client.query,
            IndexName=index,
            KeyConditionExpression=conditions,
            ExpressionAttributeNames={"#key": key},
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
            Limit=_PAGE_ITEMS,
        )

    def _pages(self, operation: str, call: Callable[..., Any], **request: Any) -> Iterator[Item]:
        """The items of all pages of a Query or Scan; a page may be empty and not the last."""
        while True:
            with translated(operation, self._endpoint):
                answer = call(TableName=self._table, **request)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _date_and_uid(item: Item) -> str:
    return str(item["study_date_uid"]["S"])


def _conflict(revision: int) -> RevisionConflict:
    return RevisionConflict(f"the catalogue records another manifest for revision {revision}, or a newer revision")
