"""What a study's record is made of is written to the table at once, and the item that makes it count last of all."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.records import SeriesRecord, StudyRecord
from dicomwatchd.config.archive import DynamoDBSettings
from dicomwatchd.errors import OutOfReach
from dicomwatchd.model import Uid


class Table:
    """Takes a while for each item; ``broken`` is the one that it does not take."""

    def __init__(self, broken: str = "") -> None:
        self._broken = broken
        self._lock = threading.Lock()
        self._now = self.most = 0
        self.ended: list[str] = []
        self.meta = self
        self.region_name = "eu-central-1"

    def get_item(self, **_: Any) -> dict[str, Any]:
        return {}

    def put_item(self, Item: dict[str, Any], **_: Any) -> dict[str, Any]:
        key = Item["sk"]["S"]
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
            self.ended.append(key)
        if self._broken and self._broken in key:
            raise EndpointConnectionError(endpoint_url="http://table")
        return {}


def catalogue(table: Table) -> DynamoDBCatalogue:
    return DynamoDBCatalogue(
        DynamoDBSettings(kind="dynamodb", table="table", insecure_http=False, ca_file=None), client=cast(Any, table)
    )


def record(series: int) -> StudyRecord:
    return StudyRecord(
        study_uid=Uid("1.2.3"),
        revision=1,
        manifest_key="manifest",
        manifest_sha256="0" * 64,
        archived_at="2026-11-30T10:00:00Z",
        instances=series,
        size_bytes=series,
        patient_id="",
        accession_number="",
        study_date="",
        modalities=(),
        flags=(),
        attributes={},
        series=tuple(SeriesRecord(Uid(f"1.2.3.{n}"), "MR", 1, 1, {}) for n in range(1, series + 1)),
    )


def test_the_study_comes_last_when_all_of_its_items_are_there() -> None:
    table = Table()
    catalogue(table).put(record(5))
    assert len(table.ended) == 6
    assert "SERIES" not in table.ended[-1], "by it the others count"
    assert all("SERIES" in key for key in table.ended[:-1])
    assert table.most > 3, "one after the other they take as many ways there and back"


def test_without_one_of_its_items_a_study_is_not_recorded() -> None:
    table = Table(broken="1.2.3.2")
    with pytest.raises(OutOfReach):
        catalogue(table).put(record(5))
    assert table._now == 0, "nobody writes any more"
    whole = Table()
    catalogue(whole).put(record(5))
    assert set(whole.ended) - set(table.ended) == {whole.ended[-1]}
