"""Objects that a study has beside those on record."""

from __future__ import annotations

from functools import cached_property

from dicomwatchd.archive import keys
from dicomwatchd.archive.layout.lineage import Lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.model import Uid


class Spare:
    """Which objects of a study hold what is listed at another place, or were damaged and replaced; by their keys alone,
    for nothing is read."""

    def __init__(self, study: Uid, whole: Manifest | None, found: Lineage | None) -> None:
        self._study, self._whole, self._found = study, whole, found

    @cached_property
    def _known(self) -> frozenset[str]:
        if self._whole is None or self._found is None:
            return frozenset()
        places = (place.key for several in self._found.elsewhere.values() for place in several)
        return frozenset((*self._whole.damaged_keys, *places))

    @cached_property
    def _contents(self) -> frozenset[object]:
        return frozenset() if self._whole is None else frozenset(item.content for item in self._whole.instances)

    @cached_property
    def _sha256s(self) -> frozenset[str | None]:
        """Of whole bundles and DICOMDIRs."""
        if self._whole is None:
            return frozenset()
        bundles = {keys.bundle_sha256(item.key, self._study) for item in self._whole.instances if item.is_in_bundle}
        return frozenset((*bundles, *(one.sha256 for one in self._whole.exports)))

    def is_copy(self, key: str) -> bool:
        if key in self._known:
            return True
        named = keys.parse_instance(key)
        if named is not None:
            return named[1:] in self._contents
        sha256 = keys.bundle_sha256(key, self._study) or keys.export_sha256(key, self._study)
        return sha256 is not None and sha256 in self._sha256s
