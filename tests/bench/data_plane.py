"""What a request to the store costs this process: by the data plane, and by botocore.

python -m tests.bench.data_plane [--tls]

Microseconds of CPU, the median of some rounds that take turns, against a server in a process of its own that reads and
answers and does nothing else. The data plane's bytes are hashed beforehand, as the program's are; botocore hashes them
for its signature over http.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.data_plane import S3DataPlane
from dicomwatchd.archive.stores.s3.listed import Paging
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import S3Settings
from tests.servers.processes import free_port
from tests.servers.tls import make_certificate

ROOT = Path(__file__).parents[2]
ROUNDS = 7
SIZES = (40 * 1024, 526 * 1024)
PAGE = 1000
_FIELDS = (
    b'ETag: "0123456789abcdef0123456789abcdef"\r\nx-amz-request-id: tx0\r\nx-amz-version-id: 0123456789\r\n'
    b"Date: Mon, 30 Nov 2026 14:00:00 GMT\r\nLast-Modified: Mon, 30 Nov 2026 14:00:00 GMT\r\n"
)


def _page() -> bytes:
    rows = b"".join(
        b"<Contents><Key>studies/1.2.840/series/1.3/1.4/%064x.dcm</Key><LastModified>2026-11-30T14:00:00.500Z"
        b"</LastModified><ETag>&quot;%032x&quot;</ETag><Size>526000</Size></Contents>" % (number, number)
        for number in range(PAGE)
    )
    return b"<ListBucketResult>" + rows + b"<IsTruncated>false</IsTruncated></ListBucketResult>"


def serve(port: int) -> None:
    """A key's name says how long it is."""
    page = _page()
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            accepted, _ = server.accept()
            threading.Thread(target=_talk, args=(accepted, page), daemon=True).start()


def _talk(accepted: socket.socket, page: bytes) -> None:
    received = b""
    with accepted, suppress(OSError):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in received:
                if not (more := accepted.recv(65536)):
                    return
                received += more
            head, _, received = received.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            while len(received) < length:
                received += accepted.recv(1 << 20)
            received = received[length:]
            method, target = lines[0].split(b" ")[:2]
            body, told = b"", 0
            if b"list-type" in target:
                body = page
            elif method in (b"get", b"head"):
                told = int(target.partition(b"?")[0].rpartition(b"/")[2].partition(b".")[0])
                body = bytes(told) if method == b"get" else b""
            length_line = b"Content-Length: %d\r\n\r\n" % (told or len(body))
            accepted.sendall(b"HTTP/1.1 200 OK\r\n" + _FIELDS + length_line + body)


def cpu_microseconds(times: int, do: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(times):
        do()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / times * 1e6


def by_the_data_plane(store: S3Store) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    data_plane = store._data_plane
    assert data_plane is not None
    room = memoryview(bytearray(1 << 20))
    for size in SIZES:
        data, sha256, arguments = creation(size)
        found[f"PUT of {size >> 10} KB"] = partial(
            fast_path.put_object, data_plane, f"a/{size}.dcm", data, sha256, arguments
        )
        found[f"GET of {size >> 10} KB"] = partial(_read, data_plane, f"a/{size}.dcm", room)
    found["HEAD"] = partial(fast_path.head_object, data_plane, {"Key": "a/5.dcm"})
    found[f"LIST of {PAGE}"] = partial(fast_path.list_objects, data_plane, "studies/", Paging())
    return found


def _read(data_plane: S3DataPlane, key: str, room: memoryview) -> int:
    body = data_plane.get(key, {})
    return 0 if body is None else sum(map(len, body.views(room)))


def by_botocore(store: S3Store) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    client, bucket = store._bucket.client, store._bucket.name
    for size in SIZES:
        data, _, arguments = creation(size)
        address: Any = {"Bucket": bucket, "Key": f"a/{size}.dcm"}
        found[f"PUT of {size >> 10} KB"] = partial(client.put_object, **address, **arguments, Body=data)
        found[f"GET of {size >> 10} KB"] = partial(_read_whole, client, address)
    found["HEAD"] = partial(client.head_object, Bucket=bucket, Key="a/5.dcm")
    found[f"LIST of {PAGE}"] = partial(client.list_objects_v2, Bucket=bucket, Prefix="studies/")
    return found


def _read_whole(client: Any, address: Any) -> bytes:
    return bytes(client.get_object(**address)["Body"].read())


def creation(size: int) -> tuple[bytes, str, Any]:
    data = bytes(size)
    digest = hashlib.sha256(data)
    checksum = base64.b64encode(digest.digest()).decode("ascii")
    return data, digest.hexdigest(), {
        "ContentType": "application/dicom", "IfNoneMatch": "*", "ChecksumSHA256": checksum,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_EC2_METADATA_DISABLED="true")
    with tempfile.TemporaryDirectory() as folder:
        port, secured = free_port(), free_port()
        servers = [subprocess.Popen([sys.executable, "-m", __spec__.name, "--serve", str(port)], cwd=ROOT)]
        certificate = make_certificate(Path(folder))
        if arguments.tls:
            command = [sys.executable, str(ROOT / "tests" / "servers" / "tls.py"), str(secured), str(port)]
            servers.append(subprocess.Popen([*command, str(certificate.cert_file), str(certificate.key_file)]))
        try:
            for one in (port, secured) if arguments.tls else (port,):
                _await(one)
            measure(
                f"https://localhost:{secured}" if arguments.tls else f"http://127.0.0.1:{port}", certificate.ca_file
            )
        finally:
            for server in servers:
                server.kill()
                server.wait()


def _await(port: int) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def measure(endpoint_url: str, ca_file: Path) -> None:
    settings = S3Settings(
        kind="s3",
        bucket="bucket",
        prefix="",
        region="eu-central-1",
        endpoint_url=endpoint_url,
        insecure_http=endpoint_url.startswith("http:"),
        ca_file=ca_file,
    )
    with closing(S3Store(settings, connections=1)) as store:
        asked = {"data plane": by_the_data_plane(store), "botocore": by_botocore(store)}
        for each in asked["data plane"].values():
            assert each(), "no answer that counts"
        print(f"| CPU microseconds | {' | '.join(asked)} |\n|---|---|---|")
        for name in asked["botocore"]:
            took: dict[str, list[float]] = {way: [] for way in asked}
            for _ in range(ROUNDS):
                for way, ways in asked.items():
                    took[way].append(cpu_microseconds(20 if name.startswith("LIST") else 100, ways[name]))
            print(f"| {name} | {' | '.join(f'{statistics.median(took[way]):.0f}' for way in asked)} |", flush=True)


if __name__ == "__main__":
    main()
