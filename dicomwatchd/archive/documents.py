"""A study's record as JSON text, and whether it answers a query: what every catalogue adapter needs alike.

The text is ASCII and exact: what a column or an index key cannot hold (lone surrogates, any length) it can.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord
from dicomwatchd.errors import CatalogueEntryDamaged, Permanent
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import Identity, Order, document, from_document

REBUILD_HINT = "dicomwatchctl catalogue rebuild"
#: The flag of a record that lacks what the catalogue cannot hold. The manifest has everything.
LEFT_OUT = "attributes-left-out"


_ELSEWHERE = frozenset({"series", "identities", "orders", "institutions"})


def dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def study_document(record: StudyRecord) -> str:
    """Everything but the series, and what `naming_document` has: earlier versions read this one, and refuse what they
    do not know."""
    return dumps({name: getattr(record, name) for name in StudyRecord.__slots__ if name not in _ELSEWHERE})


def naming_document(record: StudyRecord) -> str | None:
    """Whom and what the study's files name; None of a record that does not tell."""
    if record.identities is None:
        return None
    return dumps(
        {
            "identities": [document(one) for one in record.identities],
            "orders": [document(one) for one in record.orders or ()],
            "institutions": record.institutions or (),
        }
    )


def series_document(series: Iterable[SeriesRecord]) -> str:
    return dumps([{name: getattr(one, name) for name in SeriesRecord.__slots__} for one in series])


def read_study(study: str, series_documents: Iterable[str], naming: str | None = None) -> StudyRecord:
    """The record again, equal in every field, from its documents. Raises Permanent (code "catalogue-damaged")."""
    try:
        raw = {name: value for name, value in json.loads(study).items() if name in StudyRecord.__slots__}
        names = json.loads(naming) if naming is not None else None
        series = [
            SeriesRecord(**{**one, "series_uid": Uid(one["series_uid"])})
            for text in series_documents
            for one in json.loads(text)
        ]
        exact: dict[str, Any] = {
            "study_uid": Uid(raw["study_uid"]),
            "modalities": tuple(raw["modalities"]),
            "flags": tuple(raw["flags"]),
            "series": tuple(series),
        }
        if names is not None:
            exact["identities"] = tuple(from_document(Identity, one) for one in names["identities"])
            exact["orders"] = tuple(from_document(Order, one) for one in names["orders"])
            exact["institutions"] = tuple(str(one) for one in names["institutions"])
        return StudyRecord(**{**raw, **exact})
    except (ValueError, KeyError, TypeError, RecursionError, Permanent) as error:
        raise damaged() from error


def damaged() -> CatalogueEntryDamaged:
    return CatalogueEntryDamaged("a study's entry in the catalogue is damaged", hint=REBUILD_HINT)


def index_text(value: str, characters: int = 256) -> str:
    """``value`` as an index can hold it, for queries to find and `matches` to decide: cut, and valid UTF-8."""
    return value[:characters].encode("utf-8", "replace").decode("utf-8")


def matches(query: Query, record: StudyRecord) -> bool:
    """Whether every condition holds. A study without a date lies in no range of dates, not even an open one."""
    date = record.study_date
    if (query.date_from or query.date_to) and not date:
        return False
    return (
        (query.patient_id is None or record.patient_id == query.patient_id)
        and (query.accession_number is None or record.accession_number == query.accession_number)
        and (query.modality is None or query.modality in record.modalities)
        and (not query.date_from or date >= query.date_from)
        and (not query.date_to or date <= query.date_to)
    )


def fitted(attributes: DicomJson, limit_bytes: int) -> DicomJson:
    """As many of the attributes as fit, the largest left out first; the very same object if all do."""
    sizes = {tag: len(dumps({tag: element})) for tag, element in attributes.items()}
    total = sum(sizes.values())
    if total <= limit_bytes:
        return attributes
    kept = dict(attributes)
    for tag in sorted(sizes, key=lambda tag: (-sizes[tag], tag)):
        del kept[tag]
        total -= sizes[tag]
        if total <= limit_bytes:
            break
    return kept
