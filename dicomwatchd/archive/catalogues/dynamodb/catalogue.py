"""The catalogue on DynamoDB: reads, conditional writes and searches of one table (see dynamodb_items)."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dicomwatchd.archive.aws.clients import build_client, endpoint_name, error_code, location, translated
from dicomwatchd.archive.catalogues.dynamodb.items import (
    ALSO,
    GAPS_TERM,
    SHARDS,
    Item,
    birth_term,
    from_items,
    name_term,
    revision_of,
    series_keys,
    study_key,
    term_of,
    term_start,
    to_items,
)
from dicomwatchd.archive.catalogues.dynamodb.setup import INIT_HINT, TableSetup
from dicomwatchd.archive.catalogues.port import OLD_RECORDS
from dicomwatchd.archive.documents import (
    REBUILD_HINT,
    damaged,
    has_pattern,
    index_text,
    literal_start,
    matches,
)
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.config import DynamoDBSettings
from dicomwatchd.errors import RevisionConflict, Throttled
from dicomwatchd.model import Uid
from dicomwatchd.patients import folded_name

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient

_PAGE_ITEMS = 100
#: Of studies that an index only names so many are read at once: at most 16 MB come in one answer.
_NAMED_ITEMS = 25
_TERMS = "by-term"


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
        self._name = f"dynamodb|{location(region, settings.endpoint_url)}|{settings.table}"
        self._completed = self._terms_served = False
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
        for item in (*items.series, *items.also):
            if item["sk"]["S"] not in present:
                with translated("write an item of a study", self._endpoint):
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
        """Memory holds one page for each partition asked, or, of studies that an index only names, where they stand;
        `matches` decides what the index could not."""
        if query.accession_number:
            items = self._newest_first("by-accession", "accession_number", index_text(query.accession_number), query)
        elif query.patient_id:
            items = self._newest_first("by-patient", "patient_id", index_text(query.patient_id), query)
        elif (query.birth_date or _start_of_name(query) or query.is_incomplete) and self._has_terms():
            items = self._named(self._places_by_term(query), query)
        elif query.archived_from and not (query.date_from and query.date_to):
            items = self._named(self._places_by_archival(query), query)
        else:
            streams = [self._newest_first("by-study-date", "shard", str(shard), query) for shard in range(SHARDS)]
            items = heapq.merge(*streams, key=_date_and_uid, reverse=True)
        last = ""
        for item in items:
            if item["sk"]["S"].startswith(ALSO):
                study = self._study_item(Uid(item["pk"]["S"].removeprefix("STUDY#")))
                if study is None or _date_and_uid(study) != _date_and_uid(item):
                    continue
                item = study
            if _date_and_uid(item) == last:
                continue
            record = from_items(item)
            if matches(query, record):
                last = _date_and_uid(item)
                yield record

    def shortcomings(self, query: Query) -> tuple[str, ...]:
        if query.patient_id or query.accession_number:
            return () if self._is_completed() else (OLD_RECORDS,)
        if not (query.birth_date or query.name or query.is_incomplete):
            return (OLD_RECORDS,) if query.institution and not self._is_completed() else ()
        if not self._setup.has_index(_TERMS):
            return (
                f"the table has no index {_TERMS}, so all its studies are read: `{INIT_HINT}` creates it, and"
                f" `{REBUILD_HINT}` fills it",
            )
        if not self._is_completed():
            return (OLD_RECORDS,)
        if not query.birth_date and not _start_of_name(query) and not query.is_incomplete:
            return ("no index serves a name that begins with a wildcard: all studies of the given dates are read",)
        return ()

    def completed(self) -> None:
        archive_id = self._setup.identity()
        if archive_id is not None:
            self._setup.complete(archive_id)

    def _is_completed(self) -> bool:
        """What holds once holds for good."""
        self._completed = self._completed or self._setup.is_completed()
        return self._completed

    def _has_terms(self) -> bool:
        self._terms_served = self._terms_served or (self._is_completed() and self._setup.has_index(_TERMS))
        return self._terms_served

    def _places_by_term(self, query: Query) -> Iterator[str]:
        """Where the studies stand that the index of terms names."""
        conditions, values = "term = :term", {}
        pattern = folded_name(query.name or "")
        if query.birth_date:
            values[":term"] = {"S": birth_term(query.birth_date)}
        elif query.is_incomplete:
            values[":term"] = {"S": GAPS_TERM}
        else:
            start = literal_start(pattern)
            conditions += " AND begins_with(term_order, :start)"
            values |= {":term": {"S": index_text(name_term(start))}, ":start": {"S": term_start(start)}}
        for item in self._pages(
            "search",
            self._client.query,
            IndexName=_TERMS,
            KeyConditionExpression=conditions,
            ExpressionAttributeValues=values,
        ):
            name, place = term_of(item)
            if query.birth_date or query.is_incomplete or not name or has_pattern(name, pattern):
                yield place

    def _places_by_archival(self, query: Query) -> Iterator[str]:
        for shard in range(SHARDS):
            for item in self._pages(
                "search",
                self._client.query,
                IndexName="by-archived-at",
                KeyConditionExpression="#shard = :shard AND archived_at_uid >= :since",
                ExpressionAttributeNames={"#shard": "shard"},  # a word of the service's own
                ExpressionAttributeValues={":shard": {"S": str(shard)}, ":since": {"S": query.archived_from}},
                ProjectionExpression="study_date_uid",
            ):
                yield _date_and_uid(item)

    def _named(self, places: Iterable[str], query: Query) -> Iterator[Item]:
        """The study items that stand there, newest first; read when they are wanted, some at once."""
        first, last = query.date_from, f"{query.date_to or '99999999'}$"
        if query.date_from or query.date_to:
            first = first or "0"
        wanted = {place for place in places if first <= place <= last}
        if query.before is not None:
            wanted = {place for place in wanted if place < query.before}
        ordered = sorted(wanted, reverse=True)
        for at in range(0, len(ordered), _NAMED_ITEMS):
            page = ordered[at : at + _NAMED_ITEMS]
            # A study may have had another date in an earlier revision, and be named at both places.
            uids = dict.fromkeys(Uid(place.partition("#")[2]) for place in page)
            found = {_date_and_uid(item): item for item in self._items([study_key(uid) for uid in uids])}
            yield from (found[place] for place in page if place in found)

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
        if query.before is not None and ":first" not in values:
            conditions += " AND study_date_uid < :before"
            values[":before"] = {"S": query.before}
        elif query.before is not None:
            values[":last"] = {"S": min(values[":last"]["S"], query.before)}
            if values[":first"]["S"] > values[":last"]["S"]:
                return
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


def _start_of_name(query: Query) -> str:
    return literal_start(folded_name(query.name or ""))


def _date_and_uid(item: Item) -> str:
    return str(item["study_date_uid"]["S"])


def _conflict(revision: int) -> RevisionConflict:
    return RevisionConflict(f"the catalogue records another manifest for revision {revision}, or a newer revision")
