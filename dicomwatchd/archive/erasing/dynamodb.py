"""Erasing what the catalogue on DynamoDB has of a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dicomwatchd.archive.aws.clients import translated
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.items import study_key
from dicomwatchd.model import Uid


class DynamoDBRecords(DynamoDBCatalogue):
    """Implements RecordEraser: every item of the study's partition, those that earlier revisions have left, too."""

    def entries(self, study_uid: Uid) -> int:
        return sum(1 for _ in self._keys(study_uid))

    def erase(self, study_uid: Uid) -> int:
        """The study's own item first: without it nobody reads the others."""
        keys = sorted(self._keys(study_uid), key=lambda key: key != study_key(study_uid))
        for key in keys:
            with translated("delete an item of a study", self._endpoint):
                self._client.delete_item(TableName=self._table, Key=key)
        return len(keys)

    def _keys(self, study_uid: Uid) -> Iterator[Any]:
        yield from (
            {"pk": item["pk"], "sk": item["sk"]}
            for item in self._pages(
                "list the items of a study",
                self._client.query,
                KeyConditionExpression="pk = :study",
                ExpressionAttributeValues={":study": study_key(study_uid)["pk"]},
                ProjectionExpression="pk, sk",
                ConsistentRead=True,
            )
        )
