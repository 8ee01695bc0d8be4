"""The DynamoDB table of the catalogue: what it looks like, how it is made, and whether it is what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dicomwatchd.archive.aws.clients import error_code, translated
from dicomwatchd.archive.catalogues.dynamodb.items import IDENTITY_KEY, SITES_PARTITION
from dicomwatchd.archive.stores.port import InitStep
from dicomwatchd.errors import ArchiveRefused, NotInitialised, NotThere, OutOfReach

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

INIT_HINT = "dicomwatchctl archive init"

TABLE_KEYS = ("pk", "sk")
#: Name -> (partition key, sort key); all of them text. Without its attributes an item is not in an index.
INDEXES = {
    "by-patient": ("patient_id", "study_date_uid"),
    "by-accession": ("accession_number", "study_date_uid"),
    "by-study-date": ("shard", "study_date_uid"),
    "by-archived-at": ("shard", "archived_at_uid"),
    "by-term": ("term", "term_order"),
}
#: Those that tables of earlier versions have not: without them some searches take longer, and nothing else.
ADDED = frozenset({"by-term"})
#: Those that lead to items and do not hold them.
_KEYS_ONLY = frozenset({"by-term"})
#: On the identity's item: every study in the table has what some version searches by, of which this is the number.
COMPLETED = "search_entries"
#: What this version searches by: 1 names, birth dates and gaps; 2 modalities, too.
ENTRIES = 2
#: With which names, birth dates and gaps are among them.
NAMED_ENTRIES = 1

_POLL_SECONDS = 1.0
_TABLE_SECONDS = 300.0
_INDEX_SECONDS = 1800.0  # an index added to a full table is filled first
_BACKUPS_SECONDS = 120.0


def definition(table: str) -> dict[str, Any]:
    """The table, as CreateTable takes it. It is encrypted at rest by default, with a key of the service's own."""
    return {
        "TableName": table,
        "AttributeDefinitions": _attribute_definitions(TABLE_KEYS, *INDEXES.values()),
        "KeySchema": _key_schema(TABLE_KEYS),
        "GlobalSecondaryIndexes": [_index(name) for name in INDEXES],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": True,
    }


class TableSetup:
    """Looks at one table and makes it. ``sleep`` and ``monotonic`` are time's, or a test's."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        endpoint: str,
        *,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._table = table
        self._endpoint = endpoint
        self._sleep = sleep
        self._monotonic = monotonic

    def identity(self) -> str | None:
        """The archive id in the table. Raises NotInitialised when there is no table."""
        with self._translated("read the table's identity", absent=True):
            answer = self._client.get_item(TableName=self._table, Key=IDENTITY_KEY, ConsistentRead=True)
        item = answer.get("Item")
        return item["archive_id"]["S"] if item else None

    def check(self) -> None:
        description = self._describe()
        if description is None:
            raise _not_initialised("the catalogue's table does not exist")
        self._check_shape(description)
        present = _indexes(description)
        needed = INDEXES.keys() - ADDED
        if lacking := sorted(needed - present.keys()):
            raise _not_initialised(f"the catalogue's table has no index {', '.join(lacking)}")
        busy = description["TableStatus"] not in ("ACTIVE", "UPDATING")
        if busy or any(present[name]["IndexStatus"] not in ("ACTIVE", "UPDATING") for name in needed):
            raise OutOfReach("the catalogue's table is not active", code="not-active", endpoint=self._endpoint)
        if self.identity() is None:
            raise _not_initialised("the catalogue has no identity yet")

    def has_index(self, name: str) -> bool:
        """Whether an index is there and can be asked."""
        index = _indexes(self._expect()).get(name)
        return index is not None and index["IndexStatus"] in ("ACTIVE", "UPDATING")

    def entries(self) -> int:
        """What every study in the table is known to be searched by, as in ENTRIES; 0 where nothing is known."""
        with self._translated("read the table's identity"):
            answer = self._client.get_item(TableName=self._table, Key=IDENTITY_KEY, ConsistentRead=True)
        number = answer.get("Item", {}).get(COMPLETED, {}).get("N", "0")
        return int(number) if number.isascii() and number.isdecimal() else 0

    def complete(self, archive_id: str) -> None:
        with self._translated("write the table's identity"):
            self._client.put_item(
                TableName=self._table,
                Item={**IDENTITY_KEY, "archive_id": {"S": archive_id}, COMPLETED: {"N": str(ENTRIES)}},
                ConditionExpression="archive_id = :archive",
                ExpressionAttributeValues={":archive": {"S": archive_id}},
            )

    def initialise(self, archive_id: str) -> list[InitStep]:
        """Nothing of a table that turns out to be somebody else's is changed."""
        description = self._describe()
        if description is not None:
            self._check_shape(description)
            self._wait_for_table()
            self._check_owner(archive_id)
            steps = [InitStep("catalogue table", "present")]
        else:
            self._create()
            steps = [InitStep("catalogue table", "created")]
        fresh = description is None
        steps += [InitStep(f"catalogue index {name}", self._make_index(name, fresh=fresh)) for name in INDEXES]
        steps.append(InitStep("catalogue deletion protection", self._protect(fresh=fresh)))
        steps.append(InitStep("catalogue point-in-time recovery", self._enable_recovery()))
        steps.append(InitStep("catalogue identity", self._write_identity(archive_id)))
        return steps

    def _create(self) -> None:
        with self._translated("create the table"):
            try:
                self._client.create_table(**definition(self._table))
            except ClientError as error:
                # Somebody else is creating it at this moment: what comes next looks at what it has become.
                if error_code(error) != "ResourceInUseException":
                    raise
        self._wait_for_table()

    def _make_index(self, name: str, *, fresh: bool) -> str:
        made = "created" if fresh else "present"
        if name not in _indexes(self._expect()):
            with self._translated("create an index"):
                self._client.update_table(
                    TableName=self._table,
                    AttributeDefinitions=_attribute_definitions(TABLE_KEYS, INDEXES[name]),
                    GlobalSecondaryIndexUpdates=[{"Create": _index(name)}],  # one a call, says UpdateTable
                )
            made = "created"
        self._wait(
            lambda: _indexes(self._expect())[name]["IndexStatus"] == "ACTIVE", _INDEX_SECONDS, "an index is created"
        )
        self._wait_for_table()
        return made

    def _protect(self, *, fresh: bool) -> str:
        if self._expect().get("DeletionProtectionEnabled"):
            return "set" if fresh else "present"
        with self._translated("protect the table from deletion"):
            self._client.update_table(TableName=self._table, DeletionProtectionEnabled=True)
        self._wait_for_table()
        # A service that does not know it takes the request and forgets it.
        return "set" if self._expect().get("DeletionProtectionEnabled") else "not supported"

    def _enable_recovery(self) -> str:
        """Continuous backups can take a minute to be there after a table was made."""
        outcome = ""

        def tried() -> bool:
            nonlocal outcome
            with self._translated("set point-in-time recovery"):
                try:
                    outcome = self._try_recovery()
                except ClientError as error:
                    if error_code(error) == "UnknownOperationException":
                        outcome = "not supported"
                    elif error_code(error) != "ContinuousBackupsUnavailableException":
                        raise
            return bool(outcome)

        self._wait(tried, _BACKUPS_SECONDS, "point-in-time recovery is set")
        return outcome

    def _try_recovery(self) -> str:
        answer = self._client.describe_continuous_backups(TableName=self._table)
        recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        if recovery.get("PointInTimeRecoveryStatus") == "ENABLED":
            return "present"
        self._client.update_continuous_backups(
            TableName=self._table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        return "set"

    def _write_identity(self, archive_id: str) -> str:
        with self._translated("write the table's identity"):
            try:
                self._client.put_item(
                    TableName=self._table,
                    # What has no identity yet has no studies, and no earlier version will record any without it.
                    Item={**IDENTITY_KEY, "archive_id": {"S": archive_id}, COMPLETED: {"N": str(ENTRIES)}},
                    ConditionExpression="attribute_not_exists(pk)",
                )
                return "created"
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
        self._check_owner(archive_id)
        return "present"

    def _check_owner(self, archive_id: str) -> None:
        there = self.identity()
        if there == archive_id:
            return
        if there is not None:
            raise ArchiveRefused("the catalogue belongs to another archive")
        with self._translated("read the table's items"):
            found = self._client.scan(TableName=self._table, Limit=1, ConsistentRead=True)["Items"]
        if any(not item["pk"]["S"].startswith("STUDY#") and item["pk"]["S"] != SITES_PARTITION for item in found):
            raise ArchiveRefused("the table holds items of another program")

    def _check_shape(self, description: Any) -> None:
        expected = {"": _key_schema(TABLE_KEYS), **{name: _key_schema(of) for name, of in INDEXES.items()}}
        found = {"": description["KeySchema"]}
        found |= {name: index["KeySchema"] for name, index in _indexes(description).items()}
        types = {a["AttributeName"]: a["AttributeType"] for a in description["AttributeDefinitions"]}
        for name, keys in expected.items():
            if name in found and (found[name] != keys or any(types[k["AttributeName"]] != "S" for k in keys)):
                raise ArchiveRefused("the table's keys are not those of a catalogue")

    def _describe(self) -> Any:
        """The table's description, or None when the service says that there is no such table."""
        with self._translated("describe the table"):
            try:
                return self._client.describe_table(TableName=self._table)["Table"]
            except ClientError as error:
                if error_code(error) != "ResourceNotFoundException":
                    raise
                return None

    def _expect(self) -> Any:
        description = self._describe()
        if description is None:
            raise NotThere("the catalogue's table has disappeared", endpoint=self._endpoint)
        return description

    def _wait_for_table(self) -> None:
        def active() -> bool:
            description = self._describe()
            return description is not None and description["TableStatus"] == "ACTIVE"

        self._wait(active, _TABLE_SECONDS, "the table is active")

    def _wait(self, done: Callable[[], bool], seconds: float, until: str) -> None:
        deadline = self._monotonic() + seconds
        while not done():
            if self._monotonic() > deadline:
                hint = f"run {INIT_HINT} again later"
                raise OutOfReach(f"timed out waiting until {until}", hint=hint, endpoint=self._endpoint)
            self._sleep(_POLL_SECONDS)

    @contextmanager
    def _translated(self, operation: str, *, absent: bool = False) -> Iterator[None]:
        """As `aws.translated`; with ``absent`` a table that is not there counts as not made yet."""
        with translated(operation, self._endpoint):
            try:
                yield
            except ClientError as error:
                if absent and error_code(error) == "ResourceNotFoundException":
                    raise _not_initialised("the catalogue's table does not exist") from error
                raise


def _not_initialised(message: str) -> NotInitialised:
    return NotInitialised(message, hint=INIT_HINT)


def _indexes(description: Any) -> dict[str, Any]:
    return {index["IndexName"]: index for index in description.get("GlobalSecondaryIndexes", [])}


def _index(name: str) -> Any:
    return {
        "IndexName": name,
        "KeySchema": _key_schema(INDEXES[name]),
        "Projection": {"ProjectionType": "KEYS_ONLY" if name in _KEYS_ONLY else "ALL"},
    }


def _key_schema(keys: tuple[str, str]) -> list[dict[str, str]]:
    return [
        {"AttributeName": keys[0], "KeyType": "HASH"},
        {"AttributeName": keys[1], "KeyType": "RANGE"},
    ]


def _attribute_definitions(*keys: tuple[str, str]) -> Any:
    names = dict.fromkeys(name for pair in keys for name in pair)
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]
