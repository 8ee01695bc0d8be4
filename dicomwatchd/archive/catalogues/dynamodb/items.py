"""A study's record as items of the DynamoDB table, and back.

    pk STUDY#<study UID>   sk STUDY                              the study, and which of the items below are current
                           sk SERIES#<series UID>#<16 hex>       one series (a few in large studies), never changed
    pk ARCHIVE             sk IDENTITY                           the archive this table belongs to

A series item's key holds the hash of its content, so that writing one can never disturb a reader: a revision adds
the items it lacks, then the one conditional write of the study item makes it current. Nothing is ever deleted; what
earlier revisions leave behind is a few small items that no read touches.

Index keys are attributes of the study item alone: ``patient_id`` and ``accession_number`` where they are not empty,
``study_date_uid`` and ``archived_at_uid`` (value, "#", study UID: unique, so that the order is total), and ``shard``,
the partition for the two orders over all studies. One partition would take 1,000 writes a second, and a partition
for each month cannot answer a range without an end; a few fixed ones do both.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dicomwatchd.archive.documents import (
    LEFT_OUT,
    damaged,
    fitted,
    index_text,
    read_study,
    series_document,
    study_document,
)
from dicomwatchd.archive.records import SeriesRecord, StudyRecord
from dicomwatchd.model import Uid

#: An item as the low-level client takes and gives it: name -> {"S": text} and so on.
Item = dict[str, Any]

#: Number of partitions of the indexes over all studies. Another number needs all studies written again.
SHARDS = 4
#: In place of a date that a study does not have; sorts below all digits.
NO_DATE = "-"

#: An item may have 400 KB (409,600 bytes), names and index keys included.
_DOCUMENT_BYTES = 300_000
#: One BatchGetItem reads 100 items.
_MOST_SERIES_ITEMS = 100

IDENTITY_KEY: Item = {"pk": {"S": "ARCHIVE"}, "sk": {"S": "IDENTITY"}}


@dataclass(frozen=True, slots=True)
class StudyItems:
    study: Item
    series: list[Item]


def study_key(study_uid: Uid) -> Item:
    return {"pk": {"S": f"STUDY#{study_uid}"}, "sk": {"S": "STUDY"}}


def series_keys(study: Item) -> list[Item]:
    """Keys of the series items that a study item names as current. Raises Permanent."""
    try:
        return [{"pk": study["pk"], "sk": {"S": one["S"]}} for one in study["series_items"]["L"]]
    except (KeyError, TypeError) as error:
        raise damaged() from error


def to_items(record: StudyRecord) -> StudyItems:
    record = _fitting(record)
    pk = {"S": f"STUDY#{record.study_uid}"}
    series = [_series_item(pk, group) for group in _groups(record.series)]
    study: Item = {
        **study_key(record.study_uid),
        "revision": {"N": str(record.revision)},
        "manifest_key": {"S": record.manifest_key},
        "manifest_sha256": {"S": record.manifest_sha256},
        "series_items": {"L": [item["sk"] for item in series]},
        "document": {"S": study_document(record)},
        "shard": {"S": str(zlib.crc32(record.study_uid.encode()) % SHARDS)},
        "study_date_uid": {"S": f"{record.study_date or NO_DATE}#{record.study_uid}"},
        "archived_at_uid": {"S": f"{index_text(record.archived_at)}#{record.study_uid}"},
    }
    # DynamoDB refuses empty text as a key; an item without the attribute is not in the index.
    if record.patient_id:
        study["patient_id"] = {"S": index_text(record.patient_id)}
    if record.accession_number:
        study["accession_number"] = {"S": index_text(record.accession_number)}
    return StudyItems(study, series)


def from_items(study: Item, series: Iterable[Item] = ()) -> StudyRecord:
    """Raises Permanent (code "catalogue-damaged")."""
    try:
        return read_study(study["document"]["S"], [item["document"]["S"] for item in series])
    except (KeyError, TypeError) as error:
        raise damaged() from error


def revision_of(study: Item) -> tuple[int, str]:
    """(revision, SHA-256 of its manifest)."""
    try:
        return int(study["revision"]["N"]), str(study["manifest_sha256"]["S"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error


def _series_item(pk: Item, group: tuple[SeriesRecord, ...]) -> Item:
    document = series_document(group)
    content = hashlib.sha256(document.encode()).hexdigest()[:16]
    return {"pk": pk, "sk": {"S": f"SERIES#{group[0].series_uid}#{content}"}, "document": {"S": document}}


def _groups(series: tuple[SeriesRecord, ...]) -> list[tuple[SeriesRecord, ...]]:
    size = _group_size(len(series))
    return [series[i : i + size] for i in range(0, len(series), size)]


def _group_size(count: int) -> int:
    return max(1, -(-count // _MOST_SERIES_ITEMS))


def _fitting(record: StudyRecord) -> StudyRecord:
    """The record itself, or one that fits into its items, flagged."""
    share = _DOCUMENT_BYTES // _group_size(len(record.series)) - 500
    small = replace(
        record,
        # DICOM allows 64 characters (PS3.5 section 6.2, LO), 16 (SH, CS); a hostile file may hold millions.
        patient_id=record.patient_id[:1024],
        accession_number=record.accession_number[:1024],
        modalities=tuple(modality[:64] for modality in record.modalities[:100]),
        attributes=fitted(record.attributes, _DOCUMENT_BYTES - 50_000),
        series=tuple(
            replace(one, modality=one.modality[:64], attributes=fitted(one.attributes, share)) for one in record.series
        ),
    )
    if small == record:
        return record
    return replace(small, flags=tuple(sorted({*record.flags, LEFT_OUT})))
