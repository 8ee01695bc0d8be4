"""The bundled layout from inbox to inbox: small files travel together, and nothing of the guarantee changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicomwatchd.archive.manifest import Manifest
from dicomwatchd.fetch import Fetcher
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.shipment import Bundling
from tests.pieces import Pieces, unpacked
from tests.simulation.tiny import instance

STUDY = Uid("1.2.1")
SERIES = Uid("1.2.1.1")
SMALL = Bundling(below_bytes=4096, size_bytes=8192)


def made(number: int, *, extra: int = 0) -> bytes:
    return instance(STUDY, SERIES, f"{SERIES}.{number}", number + extra)


def bundled(tmp_path: Path, **more: object) -> Pieces:
    return Pieces(tmp_path, bundling=SMALL, **more)  # type: ignore[arg-type]


def drop(pieces: Pieces, numbers: Iterator[int] | range) -> list[bytes]:
    files = [made(number) for number in numbers]
    for number, data in zip(numbers, files, strict=True):
        (pieces.inbox / f"IM{number:04}").write_bytes(data)
    return files


def objects(pieces: Pieces, part: str) -> list[str]:
    return [key for key in pieces.memory.versions if f"/{part}/" in key]


def fetched(pieces: Pieces, manifest: Manifest, target: Path) -> list[bytes]:
    report = Fetcher(pieces.store, threads=2, sleep=lambda _: None).fetch(manifest, target)
    assert report.complete and not report.bad_objects, report
    return sorted(path.read_bytes() for path in target.rglob("*.dcm"))


def test_small_files_travel_together_and_come_back(tmp_path: Path) -> None:
    pieces = bundled(tmp_path)
    files = drop(pieces, range(1, 41))
    pieces.run()
    assert pieces.left() == []
    assert objects(pieces, "series") == []
    bundles = objects(pieces, "bundles")
    assert 1 < len(bundles) < 10
    assert sorted(one for key in bundles for one in unpacked(pieces.memory.versions[key][0])) == sorted(files)
    assert all(len(pieces.memory.versions[key][0]) <= SMALL.size_bytes for key in bundles)
    manifest = pieces.manifest(STUDY)
    assert {item.key for item in manifest.instances} == set(bundles)
    assert manifest.record().size_bytes == sum(map(len, files))
    assert fetched(pieces, manifest, tmp_path / "back") == sorted(files)
    pieces.close()
