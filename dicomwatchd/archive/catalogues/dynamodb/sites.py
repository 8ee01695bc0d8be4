"""The rows of the daemons in the catalogue's table: one small partition, in no index.

pk SITES   sk <site id>   beats N, run S, document S
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dicomwatchd.archive.aws.clients import build_client, error_code, translated
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.items import SITES_PARTITION
from dicomwatchd.archive.catalogues.sites import MOST_SITES, SiteRow
from dicomwatchd.config.archive import DynamoDBSettings
from dicomwatchd.errors import CatalogueEntryDamaged

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_dynamodb import DynamoDBClient

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 10.0


class DynamoDBSites(DynamoDBCatalogue):
    """Implements SiteTable. Its client is its own, and not patient: what archives waits for none of its connections,
    and the next heartbeat is another attempt."""

    def __init__(
        self, settings: DynamoDBSettings, *, client: DynamoDBClient | None = None, session: Session | None = None
    ) -> None:
        super().__init__(
            settings,
            client=client
            or build_client(
                "dynamodb",
                region=settings.region,
                endpoint_url=settings.endpoint_url,
                ca_file=settings.ca_file,
                max_connections=2,
                connect_timeout_seconds=_CONNECT_SECONDS,
                read_timeout_seconds=_READ_SECONDS,
                attempts=2,
                session=session,
            ),
        )

    def rows(self) -> list[SiteRow]:
        """Half the price of a consistent read: nothing is decided by it."""
        items = self._pages(
            "list the sites",
            self._client.query,
            KeyConditionExpression="pk = :sites",
            ExpressionAttributeValues={":sites": {"S": SITES_PARTITION}},
        )
        return [_readable(item) for item in islice(items, MOST_SITES)]

    def row(self, site_id: str) -> SiteRow | None:
        with translated("read a site", self._endpoint):
            answer = self._client.get_item(TableName=self._table, Key=_key(site_id), ConsistentRead=True)
        item = answer.get("Item")
        return None if item is None else _row(item)

    def write(self, row: SiteRow, over: tuple[int, str] | None) -> bool:
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if over is not None:
            beats, run = over
            condition = {
                "ConditionExpression": "attribute_not_exists(pk) OR (beats = :beats AND #run = :run)",
                "ExpressionAttributeNames": {"#run": "run"},
                "ExpressionAttributeValues": {":beats": {"N": str(beats)}, ":run": {"S": run}},
            }
        item = {
            **_key(row.site_id),
            "beats": {"N": str(row.beats)},
            "run": {"S": row.run},
            "document": {"S": row.document},
        }
        with translated("write a site", self._endpoint):
            try:
                self._client.put_item(TableName=self._table, Item=item, **condition)
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    return False
                raise
        return True


def _key(site_id: str) -> dict[str, Any]:
    return {"pk": {"S": SITES_PARTITION}, "sk": {"S": site_id}}


def _row(item: dict[str, Any]) -> SiteRow:
    try:
        return SiteRow(item["sk"]["S"], int(item["beats"]["N"]), item["run"]["S"], item["document"]["S"])
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogueEntryDamaged("a site's row in the catalogue cannot be read") from error


def _readable(item: dict[str, Any]) -> SiteRow:
    """One that somebody else has put there must not hide the others."""
    try:
        return _row(item)
    except CatalogueEntryDamaged:
        return SiteRow(str(item["sk"]["S"]), 0, "", "")
