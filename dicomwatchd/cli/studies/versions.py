"""The SOP Instances of a study with several contents, as its manifest lists them: how these differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dicomwatchd.cli.terminal import output

if TYPE_CHECKING:
    from dicomwatchd.archive.layout.manifest import Manifest
    from dicomwatchd.archive.layout.variants import Variants

#: So many are named one by one.
LIMIT = 100

#: How versions differ, by their grade.
DIFFERENCES = {
    "correction": "other attributes, the same pixels",
    "conflict": "other pixels or compression, or could not be compared",
}


@dataclass(frozen=True, slots=True)
class OtherVersions:
    """``instances`` are those with contents that are not the same data set, the first of ``number``; of
    ``same_data_set`` all contents are."""

    instances: tuple[Variants, ...]
    number: int
    same_data_set: int

    @classmethod
    def of(cls, manifest: Manifest) -> OtherVersions:
        differing = [one for one in manifest.variants if one.grade.value in DIFFERENCES]
        return cls(tuple(differing[:LIMIT]), len(differing), len(manifest.variants) - len(differing))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "instances": [
                {"sop_instance_uid": one.sop_instance_uid, "grade": one.grade.value, "versions": len(one.data_sets)}
                for one in self.instances
            ],
            "number": self.number,
            "same_data_set": self.same_data_set,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Name and value, for `output.pairs`."""
        if self.number:
            yield "Versions", f"{output.count(self.number, 'instance has', 'instances have')} several versions:"
        for one in self.instances:
            yield "", f"{one.sop_instance_uid}: {len(one.data_sets)}, {DIFFERENCES[one.grade.value]}"
        if self.number > len(self.instances):
            yield "", f"and {self.number - len(self.instances):,} more"
