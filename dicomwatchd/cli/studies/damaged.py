"""The damaged instances of a study, as its manifest lists them: what is wrong, and which have a whole copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dicomwatchd.cli.terminal import output

if TYPE_CHECKING:
    from dicomwatchd.archive.layout.instance import ManifestInstance
    from dicomwatchd.archive.layout.manifest import Manifest

#: So many are named one by one.
LIMIT = 100


@dataclass(frozen=True, slots=True)
class DamagedInstances:
    """``instances`` are those without a whole copy, the first of ``number``; ``superseded`` is how many have one."""

    instances: tuple[ManifestInstance, ...]
    number: int
    superseded: int

    @classmethod
    def of(cls, manifest: Manifest) -> DamagedInstances:
        lacking = manifest.unsuperseded
        damaged = sum(bool(item.damage) for item in manifest.instances)
        return cls(tuple(lacking[:LIMIT]), len(lacking), damaged - len(lacking))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "instances": [
                {"series_uid": item.series_uid, "sop_instance_uid": item.sop_instance_uid, "reason": item.damage}
                for item in self.instances
            ],
            "number": self.number,
            "superseded": self.superseded,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Name and value, for `output.pairs`."""
        if self.number:
            yield "Damaged", f"{output.count(self.number, 'instance')} of which no whole copy is archived:"
        for item in self.instances:
            yield "", f"{item.sop_instance_uid}: {item.damage}"
        if self.number > len(self.instances):
            yield "", f"and {self.number - len(self.instances):,} more"
        if self.superseded:
            copies = output.count(self.superseded, "damaged copy is", "damaged copies are")
            yield "Superseded", f"{copies} archived beside a whole one"
