"""The least that a program in this language can do and still know as much: the floor below ours in `scripts/bench`.

python -m tests.bench.least move|fetch [--threads N] [--ca FILE] [--bundled] ENDPOINT REGION BUCKET FOLDER

``move``: each file below FOLDER is read once, hashed with SHA-256 and put under a key of its hash, the hash signed so
that the store compares it; when all are there they are listed, each ETag and length is compared with what its PUT was
answered; each file is hashed once more, compared and unlinked. ``--bundled``: up to 16 MiB of files in one object,
which is hashed as a whole, too. ``fetch``: each object is read, hashed, compared with
its key, and on the disk (fsync) before it has its name. By our own data plane, with one key for all: no DICOM is read,
nothing is put on a queue or on record, no store is probed, no configuration read, botocore not imported, and there is
neither manifest nor catalogue nor audit. So what ours takes beyond it is what it does beyond it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.archive.layout.bundle import BUNDLE_LIMIT_BYTES
from dicomwatchd.archive.stores.s3.connection import Route
from dicomwatchd.archive.stores.s3.data_plane import Address, S3DataPlane

_PREFIX = "least/"
_LISTED = re.compile(
    rb"<Key>([^<]+)</Key><LastModified>[^<]*</LastModified><ETag>&quot;([^<]+)&quot;</ETag><Size>(\d+)</Size>"
)
_NEXT = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Keys:
    """botocore's, without it."""

    access_key: str
    secret_key: str
    token: str | None = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.least")
    parser.add_argument("what", choices=["move", "fetch"])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--ca", default="")
    parser.add_argument("--bundled", action="store_true")
    parser.add_argument("endpoint")
    parser.add_argument("region")
    parser.add_argument("bucket")
    parser.add_argument("folder", type=Path)
    said = parser.parse_args()
    keys = Keys(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    scheme, _, host = said.endpoint.partition("://")
    address = Address(host, scheme == "https", f"/{said.bucket}", said.region, Route(trusted=said.ca))
    plane = S3DataPlane(address, credentials=lambda: keys, user_agent="least")
    with closing(plane), ThreadPoolExecutor(said.threads) as pool:
        if said.what == "move":
            move(plane, said.folder, pool, BUNDLE_LIMIT_BYTES if said.bundled else 0)
        else:
            fetch(plane, said.folder, pool)
    return 0


def bundles(paths: Iterable[str], limit_bytes: int) -> Iterator[list[str]]:
    """Paths of files that go into one object."""
    together: list[str] = []
    filled = 0
    for path in paths:
        size_bytes = Path(path).stat().st_size if limit_bytes else 0
        if together and filled + size_bytes >= limit_bytes:
            yield together
            together, filled = [], 0
        together.append(path)
        filled += size_bytes
    if together:
        yield together


def move(plane: S3DataPlane, folder: Path, pool: Executor, limit_bytes: int) -> None:
    """Raises SystemExit where something is not as it was."""
    known: dict[str, str] = {}
    sent: dict[str, tuple[str, int]] = {}

    def send(paths: Sequence[str]) -> None:
        read = [Path(path).read_bytes() for path in paths]
        known.update(zip(paths, (hashlib.sha256(one).hexdigest() for one in read), strict=True))
        data = read[0] if len(read) == 1 else b"".join(read)
        sha256 = known[paths[0]] if len(read) == 1 else hashlib.sha256(data).hexdigest()
        answer = plane.put(f"{_PREFIX}{sha256}", data, sha256=sha256, headers={"if-none-match": "*"})
        if answer is None or answer.status != 200:
            sys.exit(f"{paths[0]}: not stored")
        sent[sha256] = (answer.headers["etag"].strip('"'), len(data))

    def delete(path: str) -> None:
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_PIECE_BYTES):
                digest.update(data)
        if digest.hexdigest() != known[path]:
            sys.exit(f"{path}: changed")
        os.unlink(path)

    paths = [os.path.join(above, name) for above, _, names in os.walk(folder) for name in names]
    for _ in pool.map(send, bundles(paths, limit_bytes)):
        pass
    stored = listed(plane)
    for sha256, one in sent.items():
        if stored.get(sha256) != one:
            sys.exit(f"{sha256}: is not in the store as it was sent")
    for _ in pool.map(delete, paths):
        pass


def fetch(plane: S3DataPlane, folder: Path, pool: Executor) -> None:
    """Raises SystemExit where something is not as its key says."""
    folder.mkdir(parents=True, exist_ok=True)

    def bring(sha256: str) -> None:
        body = plane.get(f"{_PREFIX}{sha256}", {})
        if body is None:
            sys.exit(f"{sha256}: not read")
        temporary = folder / f".{sha256}"
        digest = hashlib.sha256()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            buffer = memoryview(bytearray(min(body.length, _PIECE_BYTES)))
            for view in body.views(buffer):
                digest.update(view)
                while view:
                    view = view[os.write(fd, view) :]
            if digest.hexdigest() != sha256:
                sys.exit(f"{sha256}: came back otherwise")
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(folder / f"{sha256}.dcm")

    for _ in pool.map(bring, listed(plane)):
        pass


def listed(plane: S3DataPlane) -> dict[str, tuple[str, int]]:
    """ETag and length of each object, by its hash."""
    found: dict[str, tuple[str, int]] = {}
    query = {"list-type": "2", "prefix": _PREFIX}
    while True:
        page = plane.listing(query)
        if page is None:
            sys.exit("the bucket cannot be listed")
        for key, etag, length in _LISTED.findall(page):
            found[key.decode().removeprefix(_PREFIX)] = (etag.decode(), int(length))
        more = _NEXT.search(page)
        if more is None:
            return found
        query = {**query, "continuation-token": more[1].decode()}


if __name__ == "__main__":
    sys.exit(main())
