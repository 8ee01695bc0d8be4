"""`archive verify` over an archive that is made up as it is read: how much memory it takes, and how long.

    python -m tests.growth.whole STUDIES INSTANCES_EACH listing|inventory FOLDER [ROWS SORTED AT ONCE]

prints one JSON document. The first run with an inventory writes the reports, and does no more.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.fixity import checksums as sums
from dicomwatchd.archive.fixity import progress as kept
from dicomwatchd.archive.fixity.inventory import Inventory, manifest
from dicomwatchd.archive.fixity.listed import Listed
from dicomwatchd.archive.fixity.progress import RunRecord
from dicomwatchd.archive.fixity.reports import InFolder
from dicomwatchd.archive.fixity.run import run
from dicomwatchd.archive.fixity.seen import Source
from dicomwatchd.archive.fixity.sorting import RUN_LINES, Sorter
from dicomwatchd.archive.fixity.study import StudyVerifier
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest, empty
from dicomwatchd.archive.records import Query, StudyRecord
from dicomwatchd.archive.stores.port import Capabilities, ObjectStore, StoredObject
from dicomwatchd.model import Uid
from dicomwatchd.ports import SystemClock
from tests import amazon_reports

BUCKET = "radiology-archive"
MADE = 1_790_000_000.0
_STORED_AT = "2026-01-31T12:00:00.000Z"


def _item(study: Uid, number: int) -> ManifestInstance:
    series, sop = Uid(f"{study}.{number // 500}"), Uid(f"{study}.{number // 500}.{number}")
    sha256 = hashlib.sha256(sop.encode()).hexdigest()
    return ManifestInstance(
        series_uid=series,
        sop_instance_uid=sop,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        key=keys.instance(study, series, sop, sha256),
        size_bytes=526_000,
        object_bytes=526_000,
        sha256=sha256,
        etag=sha256[:32],
        version_id=None,
        original_path=f"in/IM{number}",
        inbox="ct1",
        stored_at=_STORED_AT,
        verified_by="etag-md5",
    )


class MadeUp:
    """A store and a catalogue in one; nothing is kept but the study that was read last."""

    capabilities = Capabilities()

    def __init__(self, studies: int, instances: int) -> None:
        self.uids = [Uid(f"1.2.826.0.1.3680043.10.1.{100_000_000 + n}") for n in range(studies)]
        self.instances = instances
        self.manifest = lru_cache(maxsize=1)(self._manifest)

    def _manifest(self, study: Uid) -> Manifest:
        return empty("archive-1", study).merged(
            [_item(study, number) for number in range(self.instances)],
            attributes={},
            series={},
            flags=(),
            damaged_keys=(),
            created_at=_STORED_AT,
            created_by="tests",
        )

    def objects(self, study: Uid) -> Iterator[StoredObject]:
        found = self.manifest(study)
        yield StoredObject(found.key, len(found.to_bytes()), hashlib.md5(found.to_bytes()).hexdigest())
        for item in sorted(found.instances, key=lambda item: item.key):
            yield StoredObject(item.key, item.size_bytes, item.etag, modified_at=MADE)

    def listing(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        for study in self.uids:
            if prefix == keys.STUDIES or prefix.startswith(keys.study_prefix(study)):
                yield from (one for one in self.objects(study) if one.key > after and one.key.startswith(prefix))

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        return next(self.listing(key), None)

    def read(self, key: str, version_id: str | None = None, **_: Any) -> Iterator[bytes]:
        named = keys.parse_manifest(key)
        assert named is not None, "an instance was read"
        yield self.manifest(named[0]).to_bytes()

    def get(self, study: Uid) -> StudyRecord | None:
        return self.manifest(study).record()

    def search(self, query: Query) -> Iterator[StudyRecord]:
        return (self.manifest(study).record() for study in self.uids)


def _reports(made: MadeUp, folder: Path) -> tuple[Path, Path]:
    """An inventory and a checksum report, written as they are made; rows in no order."""
    parts = [gzip.open(folder / f"part-{n}.csv.gz", "wb", compresslevel=1) for n in range(4)]  # noqa: SIM115
    with (folder / "sums.csv").open("wb") as of_sums:
        for study in reversed(made.uids):
            for number, one in enumerate(made.objects(study)):
                row = amazon_reports.Row(one.key, one.size_bytes, one.etag or "", version_id="v1")
                values = row.values(BUCKET)
                parts[number % 4].write(amazon_reports.csv_text([[values[n] for n in amazon_reports.COLUMNS]]))
                named = keys.parse_instance(one.key)
                if named is not None:
                    task = amazon_reports.task(BUCKET, one.key, named[3], one.etag or "", "v1")
                    of_sums.write(amazon_reports.csv_text([task]))
    listed = []
    for number, part in enumerate(parts):
        part.close()
        data = (folder / f"part-{number}.csv.gz").read_bytes()
        listed.append({"key": f"data/part-{number}.csv.gz", "size": len(data), "MD5checksum": amazon_reports.md5(data)})
    files = amazon_reports.inventory(BUCKET, [], MADE, files=listed)
    text = next(data for name, data in files.items() if name.endswith("manifest.json"))
    (folder / "manifest.json").write_bytes(text)
    return folder / "manifest.json", folder / "sums.csv"


def main(studies: int, instances: int, kind: str, folder: Path, run_lines: int = RUN_LINES) -> dict[str, Any]:
    made = MadeUp(studies, instances)
    place = InFolder(folder)
    store, catalogue = cast(ObjectStore, made), cast(Catalogue, made)
    source: Source = Listed(store)
    if kind == "inventory" and not (folder / "manifest.json").exists():
        _reports(made, folder)
        return {"written": True}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    if kind == "inventory":
        found = Inventory(manifest(place, "manifest.json", BUCKET), Sorter(folder, run_lines))
        found.load(place, "")
        of_objects = sums.Checksums(Sorter(folder, run_lines))
        report = sums.manifest(place, "sums.csv")
        of_objects.load(place, report, BUCKET, "")
        source = sums.Summed(found, of_objects, report.sha256)
    loaded = time.monotonic() - started
    verifier = StudyVerifier(store, catalogue, "archive-1", now=MADE, as_of=source.as_of)
    at = "2027-01-15T08:00:00.000Z"
    wanted = RunRecord("archive-1", "made-up", source.kind, source.identity, False, at, at)
    with kept.opened(folder, wanted, SystemClock(), restart=True, note=print) as progress:
        run(source, catalogue, verifier, progress)
        totals = progress.run.totals
    return {
        "objects": totals.objects,
        "proven": totals.proven,
        "by": dict(totals.studies_by),
        "seconds_loading": round(loaded, 1),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "before_mb": round(before / 1024, 1),
        "progress_bytes": (folder / kept.FILE).stat().st_size,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), *map(int, sys.argv[5:]))))
