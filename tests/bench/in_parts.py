"""What one large file costs the daemon's process, step by step: CPU seconds of hashing, sending in parts, verification
and the comparison before the deletion, with an MD5 of each part and without, in turn, on a gateway that it starts.

python -m tests.bench.in_parts [--mib 2048] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dicomwatchd import filebytes
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.stores.budget import keep_no_large_blocks
from dicomwatchd.archive.stores.port import Capabilities
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import Encryption, S3Settings
from dicomwatchd.model import Digest, Pieces
from tests.servers.ceph import CephRgw
from tests.servers.tls import make_certificate

STEPS = ("hash", "send", "verify", "compare")


@dataclass(frozen=True, slots=True)
class _File:
    fd: int
    digest: Digest

    def read(self, offset: int, length: int) -> bytes:
        return filebytes.read_exactly(self.fd, offset, length)

    def fill(self, offset: int, buffer: memoryview) -> None:
        filebytes.fill(self.fd, offset, buffer)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.in_parts", description=__doc__)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_no_large_blocks()
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-parts.") as folder:
        place = Path(folder)
        path = _made(place / "file", options.mib << 20)
        with CephRgw(place / "rgw", certificate=make_certificate(place / "tls")) as rgw:
            os.environ.update(rgw.env())
            store = S3Store(_settings(rgw), connections=8)
            store.initialise()
            shown = store.probe("probe/")
            ways = {"an MD5 of each part": replace(shown, etag_follows_parts=False), "without": shown}
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, backs in ways.items():
                    found[way].append(_shipped(store, backs, path))
            store.close()
    print("| | " + " | ".join((*STEPS, "all")) + " |\n|---|" + "--:|" * (len(STEPS) + 1))
    for way, rounds in found.items():
        medians = [statistics.median(one[step] for one in rounds) for step in STEPS]
        total = statistics.median(sum(one.values()) for one in rounds)
        print(f"| {way} | " + " | ".join(f"{seconds:.2f}" for seconds in (*medians, total)) + " |")
    return 0


def _shipped(store: S3Store, backs: Capabilities, path: Path) -> dict[str, float]:
    """CPU seconds of each step."""
    store._capabilities = backs
    spent: dict[str, float] = {}
    fd = os.open(path, os.O_RDONLY)
    try:
        size_bytes = os.fstat(fd).st_size
        with _counted(spent, "hash"):
            piece_bytes = store.piece_bytes(size_bytes)
            if piece_bytes is None:
                digest = Digest(filebytes.sha256_of(fd, size_bytes), size_bytes)
            else:
                whole, sha256s = filebytes.sha256_in_pieces(fd, size_bytes, piece_bytes)
                digest = Digest(whole, size_bytes, Pieces(piece_bytes, sha256s))
        with _counted(spent, "send"):
            receipt = store.put(f"studies/1.2/series/1.3/1.4/{uuid.uuid4().hex * 2}.dcm", _File(fd, digest))
        with _counted(spent, "verify"):
            [verdict] = evidence.examine(store, [receipt])
        assert verdict.holds and receipt.created
        with _counted(spent, "compare"):
            filebytes.sha256_of(fd, size_bytes)
    finally:
        os.close(fd)
    return spent


@contextmanager
def _counted(spent: dict[str, float], step: str) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent[step] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _made(path: Path, size_bytes: int) -> Path:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(block)
    return path


def _settings(rgw: CephRgw) -> S3Settings:
    return S3Settings(
        kind="s3",
        bucket=f"parts-{uuid.uuid4().hex}",
        prefix="",
        region=rgw.region,
        endpoint_url=rgw.http_endpoint,
        insecure_http=True,
        ca_file=None,
        encryption=Encryption(mode="store-default"),
    )


if __name__ == "__main__":
    sys.exit(main())
