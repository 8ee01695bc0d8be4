"""A study's record as JSON text, and whether it answers a query: what every catalogue adapter needs alike.

The text is ASCII and exact: what a column or an index key cannot hold (lone surrogates, any length) it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dicomwatchd.archive.records import Query, SeriesRecord, StudyRecord, place
from dicomwatchd.errors import CatalogueEntryDamaged, Permanent
from dicomwatchd.model import DicomJson, Uid
from dicomwatchd.patients import (
    Identity,
    Order,
    distinct,
    document,
    folded_name,
    from_document,
    has_form,
    nearest_first,
)
from dicomwatchd.study_completeness import GAPS, StudyCompleteness

REBUILD_HINT = "dicomwatchctl catalogue rebuild"
#: The flag of a record that lacks what the catalogue cannot hold. The manifest has everything.
LEFT_OUT = "attributes-left-out"


_ELSEWHERE = frozenset({"series", "identities", "orders", "institutions", "completeness"})


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
            **({} if record.completeness is None else {"completeness": record.completeness.document()}),
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
            if "completeness" in names:
                exact["completeness"] = StudyCompleteness.of(names["completeness"])
        return StudyRecord(**{**raw, **exact})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Permanent) as error:
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
        _is_of_patient(query, record)
        and (query.accession_number is None or query.accession_number in accession_numbers(record))
        and (query.modality is None or query.modality in record.modalities)
        and (not query.date_from or date >= query.date_from)
        and (not query.date_to or date <= query.date_to)
        and (query.description is None or has_pattern(folded_text(description(record)), folded_text(query.description)))
        and (query.institution is None or _is_of_institution(query.institution, record))
        and record.archived_at >= query.archived_from
        and (not query.is_incomplete or GAPS in record.flags)
        and (query.before is None or place(record) < query.before)
    )


def _is_of_patient(query: Query, record: StudyRecord) -> bool:
    if not query.is_of_patient and query.issuer is None:
        return True
    if query.patient_id == "":
        return not record.patient_id and _is_patient(query, _first_identity(record))
    return any(_is_patient(query, one) for one in searched_identities(record))


def _is_patient(query: Query, one: Identity) -> bool:
    return (
        (query.patient_id is None or one.patient_id == query.patient_id)
        and (query.issuer is None or folded_text(one.issuer) == folded_text(query.issuer))
        and (query.birth_date is None or one.birth_date == query.birth_date)
        and (query.name is None or any(has_pattern(group, folded_name(query.name)) for group in name_groups(one)))
    )


def _is_of_institution(pattern: str, record: StudyRecord) -> bool:
    return any(has_pattern(folded_text(one), folded_text(pattern)) for one in record.institutions or ())


def identities(record: StudyRecord) -> tuple[Identity, ...]:
    """All patients that are on record, one at least; the first is whom the study's attributes name, which may be put
    together from several files."""
    first = _first_identity(record)
    return tuple(nearest_first(record.identities or (first,), first))


def searched_identities(record: StudyRecord) -> tuple[Identity, ...]:
    """With what the attributes say, as earlier versions find the study: there may be more patients than are kept, and
    some files may have only the ID, others only the name."""
    return (*identities(record), _first_identity(record))


def _first_identity(record: StudyRecord) -> Identity:
    return replace(Identity.of(record.attributes), patient_id=record.patient_id)


def orders(record: StudyRecord) -> tuple[Order, ...]:
    """All orders that are on record."""
    first = replace(Order.of(record.attributes), accession_number=record.accession_number)
    return tuple(nearest_first(record.orders or distinct([first]), first))


def patient_ids(record: StudyRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys([record.patient_id, *(one.patient_id for one in identities(record))]))


def accession_numbers(record: StudyRecord) -> tuple[str, ...]:
    numbers = dict.fromkeys(order.accession_number for order in record.orders or () if order.accession_number)
    return (record.accession_number, *(number for number in numbers if number != record.accession_number))


def name_groups(one: Identity) -> list[str]:
    return [folded for group in one.name_groups if (folded := folded_name(group))]


def description(record: StudyRecord) -> str:
    values = record.attributes.get("00081030", {}).get("Value")
    return str(values[0] or "") if isinstance(values, list) and values else ""


def folded_text(text: str) -> str:
    return " ".join(text.casefold().split())


def has_pattern(folded: str, pattern: str) -> bool:
    """Whether text has the form of a pattern, both folded; one without a wildcard is the whole text, or its first
    words."""
    if "*" in pattern or "?" in pattern:
        return has_form(folded, pattern)
    return folded == pattern or (bool(pattern) and folded.startswith(f"{pattern} "))


def literal_start(pattern: str) -> str:
    """What every text of a pattern begins with."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


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
