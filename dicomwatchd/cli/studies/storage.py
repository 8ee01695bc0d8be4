"""In which storage classes studies are, as `show` and `search --storage` say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dicomwatchd.cli.studies.access import Noting
from dicomwatchd.cli.terminal import output
from dicomwatchd.errors import Permanent, Transient

if TYPE_CHECKING:
    from dicomwatchd.archive.stores.port import ObjectStore
    from dicomwatchd.fetch.cold import InClass
    from dicomwatchd.model import Uid
    from dicomwatchd.ports import Map


def of_study(store: ObjectStore, study: Uid, note: Noting) -> list[InClass]:
    """Empty where the store does not say; ``note`` is then given the reason. Raises Fatal."""
    from dicomwatchd.fetch.cold import classes

    try:
        return classes(store, study)
    except (Transient, Permanent) as error:
        note(f"the storage classes of the objects are unknown: {error.message}")
        return []


def of_studies(store: ObjectStore, studies: Iterable[Uid], note: Noting, map: Map) -> Mapping[Uid, list[InClass]]:
    """By a listing of each. Raises Fatal."""
    reasons: dict[str, int] = {}

    def refused(reason: str) -> None:
        reasons[reason] = reasons.get(reason, 0) + 1

    uids = list(studies)
    found = dict(zip(uids, map(lambda study: of_study(store, study, refused), uids), strict=True))
    for reason, number in reasons.items():
        note(f"{output.count(number, 'study', 'studies')}: {reason}")
    return found


def document(storage: Iterable[InClass]) -> list[dict[str, Any]]:
    return [
        {
            "storage_class": one.storage_class,
            "objects": one.objects,
            "bytes": one.size_bytes,
            "is_cold": one.is_cold,
        }
        for one in storage
    ]


def rows(storage: list[InClass]) -> list[tuple[str, str]]:
    """The classes of one study, where it is not in the usual one alone, and what bringing it back takes."""
    if all(one.storage_class is None for one in storage):
        return []
    found = [
        f"{output.count(one.objects, 'object')}, {output.size(one.size_bytes)}, in"
        f" {one.storage_class or 'the usual class'}"
        for one in storage
    ]
    if takes := _takes(storage):
        found.append(f"in cold storage, unless restored: {takes}")
    return [("Storage" if not number else "", text) for number, text in enumerate(found)]


def cell(storage: list[InClass]) -> str:
    """The classes of one study among others, each with its part of the objects if it has not all of them."""
    total = sum(one.objects for one in storage)
    return " ".join(
        (one.storage_class or "usual") + (f" {one.objects:,}/{total:,}" if len(storage) > 1 else "") for one in storage
    )


def remark(storages: Iterable[list[InClass]]) -> str:
    """What bringing back the cold ones of these studies takes; empty if there are none."""
    cold = [storage for storage in storages if any(one.is_cold for one in storage)]
    if not cold:
        return ""
    takes = _takes([one for storage in cold for one in storage])
    return f"{output.count(len(cold), 'study has', 'studies have')} objects in cold storage, unless restored: {takes}"


def _takes(storage: Iterable[InClass]) -> str:
    from dicomwatchd.fetch.cold import takes

    cold = [one.storage_class for one in storage if one.is_cold]
    if not cold:
        return ""
    return f"fetch --restore takes {takes(cold, 'standard')}, --restore=bulk {takes(cold, 'bulk')}, and is charged for"
