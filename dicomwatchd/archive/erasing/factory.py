"""Which eraser serves which settings."""

from __future__ import annotations

from typing import assert_never

from dicomwatchd.archive.erasing.port import ObjectEraser, RecordEraser
from dicomwatchd.config.archive import (
    CatalogueSettings,
    DirectorySettings,
    DynamoDBSettings,
    S3Settings,
    SqliteSettings,
    StoreSettings,
)


def open_objects(settings: StoreSettings, *, connections: int) -> ObjectEraser:
    """Raises Fatal where the settings cannot work at all."""
    match settings:
        case DirectorySettings():
            from dicomwatchd.archive.erasing.directory import DirectoryEraser

            return DirectoryEraser(settings)
        case S3Settings():
            from dicomwatchd.archive.erasing.s3 import S3Eraser

            return S3Eraser(settings, connections=connections)
    assert_never(settings)


def open_records(settings: CatalogueSettings) -> RecordEraser:
    """As above."""
    match settings:
        case SqliteSettings():
            from dicomwatchd.archive.erasing.sqlite import SqliteRecords

            return SqliteRecords(settings)
        case DynamoDBSettings():
            from dicomwatchd.archive.erasing.dynamodb import DynamoDBRecords

            return DynamoDBRecords(settings)
    assert_never(settings)
