"""The DICOMDIRs that are archived with a study: an object for each, under the study's prefix, and its line in the
manifest. They are no instances, and nothing is proved or deleted by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout import checked
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.model import Uid

#: Of one study so many are kept, those that were first.
LIMIT_EXPORTS = 32
_LIMIT_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Export:
    """``original_path`` is the path below the inbox it came from; it may name the patient and stays in the manifest.
    ``verified_by`` says what proved the stored bytes."""

    key: str
    sha256: str
    size_bytes: int
    etag: str | None
    original_path: str
    inbox: str
    stored_at: str
    verified_by: str

    @property
    def receipt(self) -> Receipt:
        return Receipt(self.key, self.size_bytes, self.sha256, created=False, expected_etag=self.etag)

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(one.name for one in fields(Export))
_TEXTS = ("key", "sha256", "original_path", "inbox", "stored_at", "verified_by")


def of_raw(study: Uid, raw: object) -> tuple[Export, ...]:
    """From a manifest's JSON; keys of a newer program are passed over. Raises ValueError, TypeError, KeyError."""
    found = tuple(_export(study, one) for one in checked.items(raw))
    if len({one.sha256 for one in found}) != len(found) or len(found) > LIMIT_EXPORTS:
        raise ValueError("a DICOMDIR is there twice, or there are too many")
    return found


def _export(study: Uid, raw: dict[str, Any]) -> Export:
    one = Export(**{name: raw[name] for name in _NAMES})
    for name in _TEXTS:
        checked.text(getattr(one, name))
    checked.text("" if one.etag is None else one.etag)
    checked.number(one.size_bytes, 1, _LIMIT_BYTES)
    if keys.export_sha256(one.key, study) != one.sha256:
        raise ValueError("a key does not belong to its DICOMDIR")
    return one


def together(recorded: tuple[Export, ...], added: Iterable[Export]) -> tuple[Export, ...]:
    """What is on record stays as it was; of the others as many as there is room for."""
    known = {one.sha256: one for one in recorded}
    for one in added:
        if len(known) < LIMIT_EXPORTS:
            known.setdefault(one.sha256, one)
    return recorded if len(known) == len(recorded) else tuple(sorted(known.values(), key=lambda one: one.sha256))
