"""The benchmark's servers: a Ceph gateway and DynamoDB Local of its own, and what is put there and cleared away."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench import cores
from tests.servers import processes
from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal

#: Objects that hold no DICOM: manifests, what the probe has tried, heads of the audit chain, the archive's identity.
_OUR_OWN = re.compile(r"/manifests/|(?:^|/)probe/|(?:^|/)audit/|archive\.json$")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a client reaches the gateway. ``url`` is "" where the region tells, ``ca_file`` None over plain http.
    ``environment`` leads there, ``encryption`` is as ours is configured."""

    url: str
    ca_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    encryption: Mapping[str, str] = field(default_factory=dict)
    #: Another one than DynamoDB Local's own.
    catalogue_url: str = ""
    #: For a program that does not find that by itself.
    useful_threads: int = 16

    @property
    def is_plain_http(self) -> bool:
        return self.url.startswith("http:")


class Servers:
    def __init__(self, rgw: CephRgw, dynamodb: DynamoDBLocal) -> None:
        self.rgw = rgw
        self.dynamodb = dynamodb
        self._client = rgw.client(retries={"total_max_attempts": 8})
        self._processors: frozenset[int] | None = None

    def keep_to(self, processors: frozenset[int]) -> None:
        """All of them, and whoever answers for them later."""
        self._processors = processors
        for pid in (*self.rgw.pids().values(), *self.dynamodb.pids().values()):
            cores.keep_to(pid, processors)

    @property
    def http(self) -> Endpoint:
        return Endpoint(self.rgw.http_endpoint)

    @property
    def https(self) -> Endpoint:
        return Endpoint(self.rgw.https_endpoint, self.rgw.ca_file)

    @contextmanager
    def delayed(self, milliseconds: int, directory: Path, catalogue_url: str = "") -> Iterator[Endpoint]:
        """The gateway over http, so much further away."""
        with self._delayed(self.rgw.http_endpoint, milliseconds, directory) as url:
            yield Endpoint(url, catalogue_url=catalogue_url, useful_threads=256)

    @contextmanager
    def catalogue_delayed(self, milliseconds: int, directory: Path) -> Iterator[str]:
        """The URL of DynamoDB Local, so much further away."""
        with self._delayed(self.dynamodb.http_endpoint, milliseconds, directory) as url:
            yield url

    @contextmanager
    def amazon_delayed(self, milliseconds: int, directory: Path, catalogue_url: str) -> Iterator[Endpoint]:
        """As `like_amazon`, so much further away. It is reached through a tunnel, and to set one up takes a request."""
        with self.like_amazon(tls=True) as near:
            through = near.environment["HTTPS_PROXY"]
            with self._delayed(through, milliseconds, directory) as url:
                environment = {**near.environment, "HTTPS_PROXY": url}
                yield replace(near, environment=environment, catalogue_url=catalogue_url)

    @contextmanager
    def _delayed(self, url: str, milliseconds: int, directory: Path) -> Iterator[str]:
        port = processes.free_port()
        target = url.rpartition(":")[2]
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.bench.proxy", str(port), target, str(milliseconds)]
        pid = processes.spawn(directory, "proxy", command, detached=False, cwd=Path(__file__).parents[2])
        if self._processors is not None:
            cores.keep_to(pid, self._processors)
        try:
            processes.wait_for_listener(directory, "proxy", port, 20)
            yield f"http://127.0.0.1:{port}"
        finally:
            processes.end(directory, "proxy", grace_seconds=0)

    @contextmanager
    def like_amazon(self, *, tls: bool) -> Iterator[Endpoint]:
        """The gateway behind the server that answers as Amazon does (tests/servers/amazon), with SSE-KMS, under which
        an ETag is no MD5. Its buckets get versions when they are made."""
        with Amazon(self.rgw) as amazon:
            key = amazon.keys.create("alias/bench")
            way = amazon.env(self.rgw.region)
            yield Endpoint(
                "" if tls else f"http://s3.{self.rgw.region}.amazonaws.com",
                amazon.ca_file if tls else None,
                way | {"HTTP_PROXY": way["HTTPS_PROXY"]},
                {"mode": "aws:kms", "key_id": key},
            )

    def make_bucket(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)

    def count(self, bucket: str, prefix: str = "") -> int:
        """How many DICOM objects (or of whatever name the peers gave) there are, without those of our own use."""
        pages: Any = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sum(not _OUR_OWN.search(key) for key in keys)

    def clear(self, bucket: str) -> None:
        """Removes the bucket with all that is in it, and lets the gateway free the room at once."""
        versions: Any = self._client.get_paginator("list_object_versions").paginate(Bucket=bucket)
        for page in versions:
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if found:
                objects: Any = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
                self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for upload in self._client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            self._client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        self._client.delete_bucket(Bucket=bucket)
        subprocess.run(
            ["radosgw-admin", "-c", str(self.rgw.directory / "ceph.conf"), "gc", "process", "--include-all"],
            cwd=self.rgw.directory,
            capture_output=True,
            check=False,
        )

    def drop_table(self, table: str) -> None:
        client = self.dynamodb.client()
        client.update_table(TableName=table, DeletionProtectionEnabled=False)
        client.delete_table(TableName=table)
        client.close()


@contextmanager
def servers(directory: Path, left_running: Path | None) -> Iterator[Servers]:
    """Starts both in ``directory``; or uses those that `python -m tests.servers up all` has left running."""
    if left_running is not None:
        yield Servers(CephRgw.attach(left_running / "rgw"), DynamoDBLocal.attach(left_running / "dynamodb"))
        return
    with ExitStack() as stack:
        rgw = stack.enter_context(CephRgw(directory / "rgw"))
        dynamodb = stack.enter_context(DynamoDBLocal(directory / "dynamodb"))
        yield Servers(rgw, dynamodb)
