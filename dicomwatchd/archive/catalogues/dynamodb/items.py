"""A study's record as items of the DynamoDB table, and back.

    pk STUDY#<study UID>   sk STUDY                              the study, and which of the items below are current
                           sk SERIES#<series UID>#<16 hex>       one series (a few in large studies), never changed
                           sk ALSO#<16 hex>                      what else the study is found by
    pk ARCHIVE             sk IDENTITY                           the archive this table belongs to
    pk SITES               sk <site id>                          what a daemon says of itself (see dynamodb/sites.py)

A series item's key holds the hash of its content, so that writing one can never disturb a reader: a revision adds
the items it lacks, then the one conditional write of the study item makes it current. Nothing is ever deleted; what
earlier revisions leave behind is a few small items that no read touches.

Index keys are attributes of the study item: ``patient_id`` and ``accession_number`` where they are not empty,
``study_date_uid`` and ``archived_at_uid`` (value, "#", study UID: unique, so that the order is total), and ``shard``,
the partition for the two orders over all studies. One partition would take 1,000 writes a second, and a partition for
each month cannot answer a range without an end; a few fixed ones do both.

``term`` and ``term_order`` are for what several studies share and a pattern looks for: ("name#" and the first
character, the whole name), ("born#" and the date, nothing), ("flag#gaps", nothing) or ("modality#", shard, "#" and a
modality of its series, nothing). The second of each is followed by "#" and ``study_date_uid``, so that studies with
the same term are in the order of their dates. An ALSO item holds one more patient ID, accession number and term that
the study has, each an index key like that of the study item, which alone has the first of each. It says where to look:
the study item is read and decides, so what an earlier revision has left there does no harm. An earlier version of
the program reads the document in it, finds that it does not match, and passes it over.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from typing import Any, TypeVar

from dicomwatchd.archive.documents import (
    LEFT_OUT,
    accession_numbers,
    damaged,
    dumps,
    fitted,
    index_text,
    name_groups,
    naming_document,
    patient_ids,
    read_study,
    searched_identities,
    series_document,
    study_document,
)
from dicomwatchd.archive.records import SeriesRecord, StudyRecord, place
from dicomwatchd.model import Uid
from dicomwatchd.patients import Identity, Order, document
from dicomwatchd.study_completeness import GAPS

#: An item as the low-level client takes and gives it: name -> {"S": text} and so on.
Item = dict[str, Any]

#: How the sort key of an item begins that leads to a study.
ALSO = "ALSO#"

#: The partition of all studies with gaps.
GAPS_TERM = f"flag#{GAPS}"

_Said = TypeVar("_Said", Identity, Order)

#: Number of partitions of the indexes over all studies. Another number needs all studies written again.
SHARDS = 4
#: An item may have 400 KB (409,600 bytes), names and index keys included.
_DOCUMENT_BYTES = 300_000
_NAMING_BYTES = 30_000
#: An index's sort key may have 1,024 bytes, and a character four of them.
_TERM_CHARACTERS = 128
#: One BatchGetItem reads 100 items.
_MOST_SERIES_ITEMS = 100

IDENTITY_KEY: Item = {"pk": {"S": "ARCHIVE"}, "sk": {"S": "IDENTITY"}}
SITES_PARTITION = "SITES"


@dataclass(frozen=True, slots=True)
class StudyItems:
    study: Item
    series: list[Item]
    also: list[Item]


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
        "shard": {"S": _shard(record)},
        "study_date_uid": {"S": place(record)},
        "archived_at_uid": {"S": f"{index_text(record.archived_at)}#{record.study_uid}"},
    }
    # DynamoDB refuses empty text as a key; an item without the attribute is not in the index.
    if record.patient_id:
        study["patient_id"] = {"S": index_text(record.patient_id)}
    if record.accession_number:
        study["accession_number"] = {"S": index_text(record.accession_number)}
    if (naming := naming_document(record)) is not None:
        study["naming"] = {"S": naming}
    ids: list[Item] = [{"patient_id": {"S": index_text(one)}} for one in _others(record)]
    numbers: list[Item] = [{"accession_number": {"S": index_text(one)}} for one in accession_numbers(record)[1:]]
    first, *terms = [*_terms(record)] or [{}]
    study |= first
    also: Iterator[tuple[Item, ...]] = zip_longest(ids, numbers, terms, fillvalue={})
    return StudyItems(study, series, [_also_item(record, *keys) for keys in also])


def _shard(record: StudyRecord) -> str:
    return str(zlib.crc32(record.study_uid.encode()) % SHARDS)


def _others(record: StudyRecord) -> list[str]:
    return [one for one in patient_ids(record) if one and one != record.patient_id]


def _also_item(record: StudyRecord, id: Item, number: Item, term: Item) -> Item:
    keys = {**id, **number, **term, "study_date_uid": {"S": place(record)}}
    content = hashlib.sha256(dumps(keys).encode()).hexdigest()[:16]
    small = replace(record, attributes={}, flags=(), modalities=())
    return {
        "pk": {"S": f"STUDY#{record.study_uid}"},
        "sk": {"S": f"{ALSO}{content}"},
        **keys,
        "document": {"S": study_document(small)},
    }


def _terms(record: StudyRecord) -> Iterator[Item]:
    found: dict[tuple[str, str], None] = {}
    for one in searched_identities(record):
        found |= dict.fromkeys((name_term(group), group[:_TERM_CHARACTERS]) for group in name_groups(one))
        if one.birth_date:
            found[birth_term(one.birth_date), ""] = None
    if GAPS in record.flags:
        found[GAPS_TERM, ""] = None
    found |= dict.fromkeys((modality_term(one, _shard(record)), "") for one in record.modalities if one)
    for term, value in found:
        order = f"{index_text(value)}#{place(record)}"
        yield {"term": {"S": index_text(term)}, "term_order": {"S": order}}


def name_term(folded: str) -> str:
    """The partition of all names that begin like this one."""
    return f"name#{folded[:1]}"


def birth_term(date: str) -> str:
    return f"born#{index_text(date)}"


def modality_term(modality: str, shard: str) -> str:
    """A part of a modality's studies: all of a common one are too many writes for one partition."""
    return f"modality#{shard}#{index_text(modality)}"


def term_start(folded: str) -> str:
    """What the order of every name begins with that begins like this."""
    return index_text(folded[:_TERM_CHARACTERS])


def term_of(item: Item) -> tuple[str, str]:
    """(the name, if it is one and was not cut; the study's `place`) of an item of the index of terms."""
    value, date, uid = str(item["term_order"]["S"]).rsplit("#", 2)
    return value if len(value) < _TERM_CHARACTERS else "", f"{date}#{uid}"


def from_items(study: Item, series: Iterable[Item] = ()) -> StudyRecord:
    """Raises Permanent (code "catalogue-damaged")."""
    try:
        naming = study["naming"]["S"] if "naming" in study else None
        return read_study(study["document"]["S"], [item["document"]["S"] for item in series], naming)
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


def _naming_fitted(said: tuple[_Said, ...] | None) -> tuple[_Said, ...] | None:
    """As many as fit, the first ones."""
    if said is None:
        return None
    sizes = accumulate(len(dumps(document(one))) for one in said)
    return tuple(one for one, size in zip(said, sizes, strict=True) if size <= _NAMING_BYTES)


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
        identities=_naming_fitted(record.identities),
        orders=_naming_fitted(record.orders),
        institutions=record.institutions and tuple(one[:64] for one in record.institutions),
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
