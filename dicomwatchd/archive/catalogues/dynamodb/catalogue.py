"""The catalogue on DynamoDB: reads, conditional writes and searches of one table (see dynamodb_items)."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
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
    modality_term,
    name_term,
    revision_of,
    series_keys,
    study_key,
    term_of,
    term_start,
    to_items,
)
from dicomwatchd.archive.catalogues.dynamodb.setup import ENTRIES, INIT_HINT, NAMED_ENTRIES, TableSetup
from dicomwatchd.archive.catalogues.port import NO_INDEX, OLD_MODALITIES, OLD_RECORDS
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
from dicomwatchd.config.archive import DynamoDBSettings
from dicomwatchd.errors import RevisionConflict, Throttled
from dicomwatchd.model import Uid
from dicomwatchd.patients import folded_name

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient

#: The first page of an index that is read in the order of the answer. Each further one has as many items as those
#: before it together: whoever wants few reads at most twice of what he takes, and whoever wants all reads whole pages.
_PAGE_ITEMS = 100
#: Above it a page is what the service gives, up to 1 MB.
_LARGE_PAGE_ITEMS = 10_000
#: Of studies that an index only names so many are read at once: at most 16 MB come in one answer.
_NAMED_ITEMS = 100
_TERMS = "by-term"
#: Items of a study that are written at once.
_AT_ONCE = 8


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
        self._entries = 0
        self._has_term_index = False
        self._setup = TableSetup(self._client, self._table, self._endpoint, sleep=sleep, monotonic=monotonic)

    @property
    def name(self) -> str:
        return self._name

    @property
    def table(self) -> str:
        """The table's name; with `client`, for those who ask for what no catalogue has in common
        (`archive.preflight`)."""
        return self._table

    @property
    def client(self) -> DynamoDBClient:
        return self._client

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

    def put(self, record: StudyRecord, *, instead_of: str | None = None) -> None:
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
        self._write_all([item for item in (*items.series, *items.also) if item["sk"]["S"] not in present])
        older, values = "attribute_not_exists(pk) OR revision < :revision", {}
        if instead_of is not None:
            older, values = "(revision < :revision AND manifest_sha256 = :before)", {":before": {"S": instead_of}}
        with translated("write a study", self._endpoint):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=items.study,
                    ConditionExpression=f"{older} OR (revision = :revision AND manifest_sha256 = :sha256)",
                    ExpressionAttributeValues={
                        ":revision": items.study["revision"],
                        ":sha256": items.study["manifest_sha256"],
                        **values,
                    },
                )
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    raise _conflict(record.revision) from error
                raise

    def _write_all(self, items: list[dict[str, Any]]) -> None:
        """At once, for far away each takes a way there and back; not by BatchWriteItem, which those may delete by who
        may call it. All of them have come to an end before an error is raised."""

        def write(item: dict[str, Any]) -> None:
            with translated("write an item of a study", self._endpoint):
                self._client.put_item(TableName=self._table, Item=item)

        if len(items) < 2:
            for item in items:
                write(item)
            return
        with ThreadPoolExecutor(min(len(items), _AT_ONCE), thread_name_prefix="catalogue") as threads:
            for written in [threads.submit(write, item) for item in items]:
                written.result()

    def search(self, query: Query) -> Iterator[StudyRecord]:
        """Memory holds one page for each partition asked, or, of studies that an index only names, where they stand;
        `matches` decides what the index could not."""
        if query.accession_number:
            items = self._newest_first("by-accession", "accession_number", index_text(query.accession_number), query)
        elif query.patient_id:
            items = self._newest_first("by-patient", "patient_id", index_text(query.patient_id), query)
        elif (query.birth_date or query.is_incomplete) and self._has_terms(NAMED_ENTRIES):
            items = self._named(
                self._newest_of_term(birth_term(query.birth_date) if query.birth_date else GAPS_TERM, query)
            )
        elif _start_of_name(query) and self._has_terms(NAMED_ENTRIES):
            items = self._named(self._newest(self._places_by_name(query), query))
        elif query.archived_from and not (query.date_from and query.date_to):
            items = self._named(self._newest(self._places_by_archival(query), query))
        elif query.modality and self._has_terms(ENTRIES):
            terms = [modality_term(query.modality, str(shard)) for shard in range(SHARDS)]
            places = heapq.merge(*(self._newest_of_term(term, query) for term in terms), reverse=True)
            items = self._named(places)
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
            return () if self._known_entries() >= NAMED_ENTRIES else (OLD_RECORDS,)
        if query.birth_date or query.name or query.is_incomplete:
            wanted, old = NAMED_ENTRIES, OLD_RECORDS
        elif query.modality and not query.archived_from:
            wanted, old = ENTRIES, OLD_MODALITIES
        else:
            of_old = query.institution and self._known_entries() < NAMED_ENTRIES
            is_unserved = (query.institution or query.description) and not query.archived_from
            return (*((OLD_RECORDS,) if of_old else ()), *((NO_INDEX,) if is_unserved else ()))
        if not self._setup.has_index(_TERMS):
            return (
                f"the table has no index {_TERMS}, so all its studies are read: `{INIT_HINT}` creates it, and"
                f" `{REBUILD_HINT}` fills it",
            )
        if self._known_entries() < wanted:
            return (old,)
        if query.name and not query.birth_date and not _start_of_name(query) and not query.is_incomplete:
            return ("no index serves a name that begins with a wildcard: all studies of the given dates are read",)
        return ()

    def completed(self) -> None:
        archive_id = self._setup.identity()
        if archive_id is not None:
            self._setup.complete(archive_id)

    def is_completed(self) -> bool:
        return self._setup.entries() >= ENTRIES

    def _known_entries(self) -> int:
        """What holds once holds for good."""
        if self._entries < ENTRIES:
            self._entries = max(self._entries, self._setup.entries())
        return self._entries

    def _has_terms(self, entries: int) -> bool:
        if self._known_entries() < entries:
            return False
        self._has_term_index = self._has_term_index or self._setup.has_index(_TERMS)
        return self._has_term_index

    def _newest_of_term(self, term: str, query: Query) -> Iterator[str]:
        """Where the studies stand that have this term and nothing more to it."""
        for item in self._newest_first(_TERMS, "term", index_text(term), query, order="term_order", start="#"):
            yield term_of(item)[1]

    def _places_by_name(self, query: Query) -> Iterator[str]:
        pattern = folded_name(query.name or "")
        start = literal_start(pattern)
        first, condition = term_start(start), "begins_with(term_order, :first)"
        values = {":term": {"S": index_text(name_term(start))}, ":first": {"S": first}}
        if start == pattern == first:
            # The whole name or its first words: behind it come " " and more words, or the "#" that ends a name.
            condition = "term_order BETWEEN :first AND :last"
            values |= {":first": {"S": f"{first} "}, ":last": {"S": f"{first}#~"}}
        for item in self._pages(
            "search",
            self._client.query,
            IndexName=_TERMS,
            KeyConditionExpression=f"term = :term AND {condition}",
            ExpressionAttributeValues=values,
        ):
            name, place = term_of(item)
            if not name or has_pattern(name, pattern):
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

    @staticmethod
    def _newest(places: Iterable[str], query: Query) -> list[str]:
        """Those that are wanted of places in any order."""
        first, last = query.date_from, f"{query.date_to or '99999999'}$"
        if query.date_from or query.date_to:
            first = first or "0"
        wanted = {place for place in places if first <= place <= last}
        if query.before is not None:
            wanted = {place for place in wanted if place < query.before}
        return sorted(wanted, reverse=True)

    def _named(self, places: Iterable[str]) -> Iterator[Item]:
        """The study items that stand there, in this order; read when they are wanted, more and more at once."""
        source, some = iter(places), _NAMED_ITEMS // 4
        while page := list(islice(source, some)):
            # A study may have had another date in an earlier revision, and be named at both places.
            uids = dict.fromkeys(Uid(place.partition("#")[2]) for place in page)
            found = {_date_and_uid(item): item for item in self._items([study_key(uid) for uid in uids], fresh=False)}
            yield from (found[place] for place in page if place in found)
            some = min(2 * some, _NAMED_ITEMS)

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

    def _items(self, keys: list[Item], *, fresh: bool = True) -> Iterator[Item]:
        """At most 100 items, the limit of BatchGetItem. What does not fit into an answer is asked for again. Without
        ``fresh`` each costs half."""
        while keys:
            with translated("read the series", self._endpoint):
                answer: Any = self._client.batch_get_item(
                    RequestItems={self._table: {"Keys": keys, "ConsistentRead": fresh}}
                )
            found = answer["Responses"].get(self._table, [])
            yield from found
            rest = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
            if rest and not found:
                raise Throttled("read the series failed: throttled", endpoint=self._endpoint)
            keys = rest

    def _newest_first(
        self, index: str, key: str, value: str, query: Query, *, order: str = "study_date_uid", start: str = ""
    ) -> Iterator[Item]:
        """A partition of an index by its sort key ``order``, which is ``start`` and the study's place."""
        conditions, values = "#key = :key", {":key": {"S": value}}
        if query.date_from or query.date_to:
            # Digits only: what has no date sorts below "0". "$" comes after the "#" that ends the last date.
            first, last = query.date_from or "0", f"{query.date_to or '99999999'}$"
            if query.before is not None:
                last = min(last, query.before)
            if first > last:
                return
            conditions += f" AND {order} BETWEEN :first AND :last"
            values |= {":first": {"S": start + first}, ":last": {"S": start + last}}
        elif query.before is not None:
            conditions += f" AND {order} < :before"
            values[":before"] = {"S": start + query.before}
        yield from self._pages(
            "search",
            self._client.query,
            limit=_PAGE_ITEMS,
            IndexName=index,
            KeyConditionExpression=conditions,
            ExpressionAttributeNames={"#key": key},
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
        )

    def _pages(self, operation: str, call: Callable[..., Any], *, limit: int = 0, **request: Any) -> Iterator[Item]:
        """The items of all pages of a Query or Scan; a page may be empty and not the last. ``limit``: of the first; 0
        for whole pages."""
        read = 0
        while True:
            some = {"Limit": max(limit, read)} if limit and read < _LARGE_PAGE_ITEMS else {}
            with translated(operation, self._endpoint):
                answer = call(TableName=self._table, **request, **some)
            yield from answer["Items"]
            read += len(answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _start_of_name(query: Query) -> str:
    return literal_start(folded_name(query.name or ""))


def _date_and_uid(item: Item) -> str:
    return str(item["study_date_uid"]["S"])


def _conflict(revision: int) -> RevisionConflict:
    return RevisionConflict(f"the catalogue records another manifest for revision {revision}, or a newer revision")
