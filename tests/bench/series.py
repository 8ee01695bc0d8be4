"""What series objects cost, and what they save: `python -m tests.bench.series`.

CPU is this process's (time.process_time), for nothing here waits for anybody; the archive is a folder in memory. Each
figure is the least of some rounds: what else the machine does only adds to it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config.archive import DirectorySettings
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Bundling
from dicomwatchd.series.extract import extract
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.series.values import Seen
from tests.pieces import Pieces
from tests.synthetic import Made, Maker

MEMORY = Path("/dev/shm")
BUNDLED = Bundling(below_bytes=1 << 20, size_bytes=8 << 20)


def least(work: Callable[[], object], rounds: int) -> float:
    """Seconds of CPU."""
    found = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def of_extraction(name: str, files: list[Made], rounds: int) -> dict[str, Any]:
    """Microseconds of CPU for a file."""
    contents = [one.path.read_bytes() for one in files]

    def ours(known: bool) -> Callable[[], object]:
        seen = Seen()

        def work() -> None:
            for data, one in zip(contents, files, strict=True):
                extract([data], len(data), "", seen, sha256=one.sha256 if known else "")

        return work

    def by_pydicom() -> None:
        for data in contents:
            pydicom.dcmread(BytesIO(data)).to_json_dict(
                bulk_data_threshold=1024, bulk_data_element_handler=lambda _: "uri"
            )

    def hashed() -> None:
        for data in contents:
            hashlib.sha256(data).hexdigest()

    each = 1e6 / len(files)
    return {
        "files": name,
        "bytes_each": sum(map(len, contents)) // len(files),
        "while_sent_us": round(least(ours(True), rounds) * each),
        "read_back_us": round(least(ours(False), rounds) * each),
        "of_it_one_sha256_us": round(least(hashed, rounds) * each),
        "pydicom_json_us": round(least(by_pydicom, rounds) * each),
    }


def of_reading(name: str, files: list[Made], root: Path, rounds: int) -> dict[str, Any]:
    """What a series is to whoever opens it, with a series object and without."""
    pieces = Pieces(root, store=_store(root), series_objects="as-sent")
    _drop(files, pieces.inbox)
    pieces.run()
    series = pieces.parts.series
    assert series is not None
    began = time.process_time()
    while series.step():
        pass
    writing = time.process_time() - began
    uid, series_uid = files[0].study_uid, files[0].series_uid
    [key] = [seen.key for seen in pieces.store.listing(keys.series_index_prefix(Uid(uid), Uid(series_uid)))]
    stored = pieces.store.head(key)
    assert stored is not None

    def opening(stored: bool) -> Callable[[], object]:
        return lambda: SeriesReader(pieces.store, stored=stored).series(uid, series_uid)

    found = {
        "series": name,
        "instances": len(files),
        "object_bytes": stored.size_bytes,
        "object_bytes_each": round(stored.size_bytes / len(files)),
        "writing_ms": round(writing * 1e3, 1),
        "opening_with_ms": round(least(opening(True), rounds) * 1e3, 1),
        "opening_without_ms": round(least(opening(False), 1) * 1e3, 1),
    }
    pieces.close()
    return found


def of_archiving(name: str, files: list[Made], root: Path, rounds: int, bundling: Bundling | None) -> dict[str, Any]:
    """From inbox to deleted, microseconds of CPU for a file; writing the objects included."""

    def once(setting: Any, number: int) -> tuple[float, float]:
        place = root / f"{setting}{number}"
        pieces = Pieces(place, store=_store(place), series_objects=setting, bundling=bundling)
        _drop(files, pieces.inbox)
        gc.collect()
        began = time.process_time()
        pieces.run()
        until_deleted = time.process_time() - began
        assert pieces.left() == []
        if pieces.parts.series is not None:
            while pieces.parts.series.step():
                pass
        in_all = time.process_time() - began
        pieces.close()
        return until_deleted, in_all

    # In turn, for the machine is not the same from one minute to the next.
    pairs = [(once("off", number), once("as-sent", number)) for number in range(rounds)]
    each = 1e6 / len(files)
    off = min(one[0][0] for one in pairs)
    on = min(one[1][0] for one in pairs)
    return {
        "files": name,
        "off_us": round(off * each),
        "until_deleted_us": round(on * each),
        "in_all_us": round(min(one[1][1] for one in pairs) * each),
        "more": round(on / off - 1, 3),
    }


def _store(root: Path) -> DirectoryStore:
    path = root / "archive"
    path.mkdir(parents=True)
    store = DirectoryStore(DirectorySettings(kind="directory", path=path))
    store.initialise()
    store.probe("probe/")
    return store


def _drop(files: list[Made], inbox: Path) -> None:
    for one in files:
        (inbox / one.path.name).write_bytes(one.path.read_bytes())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.series", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder)
        sets = {
            "CT, 512 x 512": Maker(1).ct_series(root / "ct", slices=options.slices),
            "MR, 140 x 140": Maker(2).mr_study(root / "mr", series=1, slices=options.slices),
            "US, 20 frames of 160 x 120, RLE": [
                one for seed in range(20) for one in Maker(100 + seed).us_multiframe(root / f"us{seed}", frames=20)
            ],
        }
        for name, files in sets.items():
            print(json.dumps(of_extraction(name, files, options.rounds)))
        for number, (name, files) in enumerate(list(sets.items())[:2]):
            print(json.dumps(of_reading(name, files, root / f"reading{number}", options.rounds)))
            for layout, bundling in (("an object each", None), ("bundles", BUNDLED)):
                place = root / f"archiving{number}{layout[:2]}"
                print(json.dumps(of_archiving(f"{name}; {layout}", files, place, options.rounds, bundling)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
