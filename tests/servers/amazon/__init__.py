"""Amazon S3 and DynamoDB on loopback: a server that stands before the real gateway and catalogue, and answers as the
documentation says that Amazon does.

Bytes, versions, listings and lifecycle rules are Ceph's, tables are DynamoDB Local's; what those do otherwise than
Amazon is made good here, by rules: one behaviour each, with the page that says so (`checksums`, `encryption`,
`buckets`, `cold`, `trouble`). What no rule is about is passed on as it is. A rule is no proof of what Amazon does:
nobody has asked Amazon.

Clients need no endpoint: with `env()` they come by Amazon's own names, through a tunnel that ends here.
"""

from __future__ import annotations

import re
import ssl
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit

from botocore.credentials import Credentials

from tests.servers.amazon.buckets import ConditionalWrites, DeleteMarkers, ObjectLock, Regions
from tests.servers.amazon.checksums import Checksums, ChecksumsOfParts, Payload, checksum_of_part, of_a_copy
from tests.servers.amazon.cold import StorageClasses
from tests.servers.amazon.encryption import Encryption, EtagsUnderKms, Keys, RightToDecrypt
from tests.servers.amazon.memory import Memory, Part, Upload
from tests.servers.amazon.message import Answer, Request, element, refused
from tests.servers.amazon.places import INTERFACE_ENDPOINT, REGIONS, Place, certificate_names, place_of
from tests.servers.amazon.rules import Rule
from tests.servers.amazon.signature import signed, unchunked
from tests.servers.amazon.trouble import Signatures, SlowDown, Throughput
from tests.servers.amazon.wire import Server, ask
from tests.servers.tls import Certificate, make_certificate

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

    from tests.servers.ceph import CephRgw
    from tests.servers.dynamodb import DynamoDBLocal

#: Of a request what is not passed on: its signature, and what the store behind has no part in.
_KEPT_HERE = (
    "x-amz-server-side-encryption", "x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer", "x-amz-decoded",
    "x-amz-storage-class", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-copy-source", "amz-sdk",
    "authorization", "host", "content-length", "expect", "connection", "transfer-encoding", "accept-encoding",
)  # fmt: skip


@dataclass(slots=True)
class Exchange:
    """A request and its answer. ``uses_key``: Amazon would ask for the KMS key (it is for an object under SSE-KMS, and
    without an S3 Bucket Key)."""

    service: str
    operation: str
    key: str
    sent_bytes: int
    received_bytes: int = 0
    uses_key: bool = False


class Amazon:
    """Listens on loopback while it is started. It knows one user, the gateway's, and what he may not do is said through
    the rules: `keys`, `slow_down`, `storage`, `signatures`, `conditional`, `throughput`."""

    def __init__(self, rgw: CephRgw, dynamodb: DynamoDBLocal | None = None) -> None:
        self._rgw = rgw
        self._dynamodb = dynamodb
        self._credentials = Credentials(rgw.access_key, rgw.secret_key)
        self._server: Server | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._certificate: Certificate | None = None
        self._exchanges: list[Exchange] = []
        self._of_key = [threading.RLock() for _ in range(256)]
        self.memory = memory = Memory()
        self.keys = Keys(REGIONS[0])
        self.keys.create("alias/aws/s3")
        self.signatures = Signatures(memory, rgw.access_key, rgw.secret_key)
        self.slow_down = SlowDown(memory)
        self.throughput = Throughput(memory)
        self.storage = StorageClasses(memory)
        self.conditional = ConditionalWrites(memory, self._is_there)
        self._rules: tuple[Rule, ...] = (
            self.slow_down,
            self.throughput,
            Regions(memory),
            self.signatures,
            Payload(memory),
            Encryption(memory, self.keys),
            RightToDecrypt(memory, self.keys),
            self.storage,
            ObjectLock(memory),
            Checksums(memory),
            ChecksumsOfParts(memory),
            EtagsUnderKms(memory),
            DeleteMarkers(memory),
            self.conditional,
        )

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="dicomwatchd-amazon.")
        self._certificate = make_certificate(Path(self._directory.name), *certificate_names())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate.cert_file, self._certificate.key_file)
        self._server = Server(context, self._serve)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="amazon", daemon=True).start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._directory is not None:
            self._directory.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- for clients --------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def ca_file(self) -> Path:
        assert self._certificate is not None
        return self._certificate.ca_file

    @property
    def direct_endpoint(self) -> str:
        """Without a tunnel: an endpoint of the first region, under a name that is not Amazon's."""
        return f"https://localhost:{self.port}"

    def interface_endpoint(self, region: str = REGIONS[0]) -> str:
        return INTERFACE_ENDPOINT.format(region=region)

    def env(self, region: str = REGIONS[0]) -> dict[str, str]:
        """What leads a client to this server, by Amazon's own names."""
        return {
            **self._rgw.env(),
            "AWS_DEFAULT_REGION": region,
            "AWS_REGION": region,
            "AWS_CA_BUNDLE": str(self.ca_file),
            "HTTPS_PROXY": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "localhost,127.0.0.1",
        }

    def s3(self, region: str = REGIONS[0], *, token: str | None = None, **settings: Any) -> S3Client:
        """boto3 as it comes, but for ``settings`` of botocore's Config."""
        client: S3Client = self._session(region, token).client("s3", **self._way(settings))
        return client

    def dynamodb(self, region: str = REGIONS[0], *, token: str | None = None, **settings: Any) -> DynamoDBClient:
        client: DynamoDBClient = self._session(region, token).client("dynamodb", **self._way(settings))
        return client

    def _session(self, region: str, token: str | None) -> Any:
        import boto3

        return boto3.session.Session(self._rgw.access_key, self._rgw.secret_key, token, region_name=region)

    def _way(self, settings: dict[str, Any]) -> Any:
        from botocore.config import Config

        proxies = {"https": f"http://127.0.0.1:{self.port}"}
        return {"verify": str(self.ca_file), "config": Config(**{"proxies": proxies, **settings})}

    def requests(self) -> list[str]:
        """The operations so far, as the API reference names them."""
        return [exchange.operation for exchange in self._exchanges]

    def exchanges(self) -> list[Exchange]:
        return list(self._exchanges)

    def forget(self) -> None:
        self._exchanges.clear()

    # -- one exchange -------------------------------------------------------------------------------------------

    def _serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        host = headers.get("host", "")
        place = place_of(host) or (Place("s3", REGIONS[0], None) if host.startswith("localhost:") else None)
        path, _, query = target.partition("?")
        if place is not None and place.bucket is not None:
            path = f"/{place.bucket}{path}"
        forwarded = {name: value for name, value in headers.items() if not name.startswith(_KEPT_HERE)}
        if "aws-chunked" in headers.get("content-encoding", ""):
            body, trailers = unchunked(body)
            headers = {**headers, **trailers}
            forwarded.pop("content-encoding")
        request = Request(
            method=method,
            host=host,
            raw_target=target,
            service=place.service if place is not None else "",
            region=place.region if place is not None else "",
            path=path,
            raw_query=query,
            headers=headers,
            body=body,
            forwarded=forwarded,
        )
        if place is None:
            return refused(request, 404, "NoSuchHost", f"no service of Amazon's is called {host}")
        if place.service == "dynamodb":
            request.forwarded = {name: value for name, value in headers.items() if name != "content-length"}
        operation = request.target or request.operation or method
        exchange = Exchange(request.service, operation, request.key, len(request.body))
        self._exchanges.append(exchange)
        asked: list[Rule] = []
        try:
            answer = self._answer(request, asked)
            exchange.received_bytes = len(answer.body)
            facts = request.facts
            exchange.uses_key = facts is not None and facts.encryption == "aws:kms" and not facts.bucket_key
            return answer
        finally:
            for rule in asked:
                rule.ended(request)

    def _answer(self, request: Request, asked: list[Rule]) -> Answer:
        for rule in self._rules:
            asked.append(rule)
            if (refusal := rule.before(request)) is not None:
                return refusal
        if request.service == "dynamodb":
            assert self._dynamodb is not None
            return ask(self._dynamodb.http_endpoint, request.method, "/", request.forwarded, request.body)
        # Nobody may see an object before what is remembered of it: to others both come into being at once.
        with self._of_key[hash((request.bucket, request.key)) % len(self._of_key)]:
            return self._answer_of_store(request)

    def _answer_of_store(self, request: Request) -> Answer:
        answer = self._copied(request) if request.operation == "CopyObject" else self._behind(request)
        if answer.succeeded:
            self._begin(request, answer)
        for rule in self._rules:
            answer = rule.after(request, answer)
        if answer.succeeded:
            self._remember(request, answer)
        return answer

    def _behind(self, request: Request) -> Answer:
        body, query = request.body, request.query
        if request.operation == "CompleteMultipartUpload" and query["uploadId"] in self.memory.uploads:
            body = _as_the_store_knows_them(request, self.memory.uploads[query["uploadId"]])
        if request.operation == "CreateBucket":
            body = b""  # the store behind knows no such region
        target = request.path + (f"?{request.raw_query}" if request.raw_query else "")
        return self._ask(request.method, target, request.forwarded, body)

    def _ask(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        endpoint = self._rgw.http_endpoint
        to_send = signed(method, endpoint + target, headers, self._credentials, self._rgw.region)
        return ask(endpoint, method, target, {"host": urlsplit(endpoint).netloc, **to_send}, body)

    def _is_there(self, request: Request) -> bool:
        return self._ask("HEAD", request.path, {}).succeeded

    def _copied(self, request: Request) -> Answer:
        """The gateway refuses a copy of an object onto itself, which is how Amazon's encryption is changed: it is read
        and written here."""
        source, _, version = request.headers["x-amz-copy-source"].partition("?versionId=")
        source = "/" + source.lstrip("/")
        found = self._ask("GET", source + (f"?versionId={version}" if version else ""), {})
        if not found.succeeded:
            return found
        kept = {n: v for n, v in found.headers.items() if n == "content-type" or n.startswith("x-amz-meta-")}
        made = self._ask("PUT", request.path, kept, found.body)
        if made.succeeded and request.facts is not None:
            bucket, _, key = unquote(source).lstrip("/").partition("/")
            asked = request.headers.get("x-amz-checksum-algorithm")
            known = self.memory.find(bucket, key, version or None)
            request.facts.checksums = of_a_copy(found.body, known, asked)
            etag = made.headers["etag"].strip('"')
            body = f'<CopyObjectResult><ETag>"{etag}"</ETag></CopyObjectResult>'
            headers = {n: v for n, v in made.headers.items() if n.startswith("x-amz-")}
            return Answer(200, {**headers, "content-type": "application/xml"}).saying(body.encode())
        return made

    def _begin(self, request: Request, answer: Answer) -> None:
        """Before the rules look at a success."""
        memory, query = self.memory, request.query
        with memory.lock:
            if request.operation == "CreateMultipartUpload" and request.facts is not None:
                algorithm = request.headers.get("x-amz-checksum-algorithm", "").lower() or None
                whole = algorithm == "crc64nvme" or request.headers.get("x-amz-checksum-type") == "FULL_OBJECT"
                memory.uploads[element(answer.body, "UploadId") or ""] = Upload(
                    request.bucket, request.key, request.facts, algorithm, "FULL_OBJECT" if whole else "COMPOSITE"
                )
            elif (upload := memory.uploads.get(query.get("uploadId", ""))) is not None:
                request.facts = upload.facts
                if request.operation == "UploadPart":
                    etag = answer.headers["etag"].strip('"')
                    upload.parts[int(query["partNumber"])] = Part(etag, etag, checksum_of_part(request))
                elif request.operation == "CompleteMultipartUpload":
                    request.facts = replace(upload.facts)
            elif request.operation in ("HeadObject", "GetObject"):
                request.facts = memory.find(request.bucket, request.key, answer.headers.get("x-amz-version-id"))

    def _remember(self, request: Request, answer: Answer) -> None:
        memory, facts = self.memory, request.facts
        version = answer.headers.get("x-amz-version-id")
        written = request.operation in ("PutObject", "CopyObject", "CompleteMultipartUpload")
        if written and facts is not None and b"<Error>" not in answer.body:
            facts.version = version
            memory.add(request.bucket, request.key, facts)
        with memory.lock:
            if request.operation in ("CompleteMultipartUpload", "AbortMultipartUpload"):
                memory.uploads.pop(request.query["uploadId"], None)
            elif request.operation == "DeleteObject":
                memory.forget(request.bucket, request.key, request.query.get("versionId"))


def _as_the_store_knows_them(request: Request, upload: Upload) -> bytes:
    blocks = re.findall(rb"<Part>.*?</Part>", request.body, re.DOTALL)
    numbers = [int(element(block, "PartNumber") or 0) for block in blocks]
    parts = [f"<Part><PartNumber>{n}</PartNumber><ETag>{upload.parts[n].kept_etag}</ETag></Part>" for n in numbers]
    return f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()


__all__: Final = ["Amazon"]
