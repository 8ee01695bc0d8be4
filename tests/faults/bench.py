"""One archive on a real gateway and DynamoDB Local behind two fault proxies, and what must hold after each case."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.identity import ArchiveIdentity, write_identity
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DynamoDBSettings, Encryption, S3Settings
from dicomwatchd.errors import ArchiveRefused
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.pool import Workers
from dicomwatchd.pipeline.shipment import Archive, Bundling
from tests.faults.figures import Figures
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Fault, Rule
from tests.faults.shipping import Shipping, disagreement, not_lost, without_waiting
from tests.servers.amazon import Amazon
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import make_certificate
from tests.synthetic import Made, Maker
from tests.unpacking import unpacked

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "radiology/"
SINGLE_PUT_BYTES = 16 * 1024
KMS = Encryption(mode="aws:kms", key_id=KMS_KEY_ID)


@dataclass
class Bench:
    """One archive behind two proxies, for all cases of this module; each case ships a study of its own."""

    store_proxy: FaultProxy
    catalogue_proxy: FaultProxy
    archive: Archive
    client: S3Client
    bucket: str
    folder: Path
    figures: Figures
    seeds: int = 0

    @property
    def proxies(self) -> dict[str, FaultProxy]:
        return {"store": self.store_proxy, "catalogue": self.catalogue_proxy}

    def drop(self, slices: int = 3, *, workers: Workers | None = None) -> tuple[Shipping, list[Made]]:
        """A fresh site whose inbox holds a study of so many small files and one that is sent in parts."""
        self.seeds += 1
        root = self.folder / f"site{self.seeds}"
        shipping = Shipping(root, self.archive, seed=self.seeds, workers=workers)
        maker = Maker(seed=uuid.uuid4().int)
        made = maker.ct_series(shipping.inbox / "DOE^JANE", slices=slices, rows=16, columns=16)
        made += maker.us_multiframe(shipping.inbox / "DOE^JANE" / "US", study=0, frames=1)
        assert made[-1].size_bytes > SINGLE_PUT_BYTES
        for proxy in self.proxies.values():
            proxy.clear()
            proxy.forget()
        return shipping, made

    def listed(self, made: list[Made]) -> dict[str, int]:
        """The store's own listing of the study, past the proxy: key to size."""
        answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{PREFIX}studies/{made[0].study_uid}/")
        return {item["Key"].removeprefix(PREFIX): item["Size"] for item in answer.get("Contents", [])}

    def held(self, made: list[Made], sha256: str) -> bool:
        """Whether the store holds these bytes under their name, past the proxy."""
        for key in self.listed(made):
            if sha256 in key or key.endswith(".tar"):
                body = self.client.get_object(Bucket=self.bucket, Key=PREFIX + key)["Body"].read()
                of_body = hashlib.sha256(body).hexdigest()
                if of_body == sha256:
                    return True
                if of_body in key and sha256 in {hashlib.sha256(one).hexdigest() for one in unpacked(body)}:
                    return True
        return False

    def check(self, case: str, rules: dict[str, list[Rule]], slices: int = 3) -> list[str]:
        """Ship a study while the rules' faults strike, and again until all is well. Returns what went wrong."""
        shipping, made = self.drop(slices)
        problems: list[str] = []
        try:
            for name, proxy in self.proxies.items():
                proxy.set(rules.get(name, []))
            self._ship(shipping, made, problems)
            for proxy in self.proxies.values():
                proxy.clear()
            self._examine(shipping, made, problems)
            if problems:
                problems.append(shipping.why())
        finally:
            shipping.close()
        self.figures.tried += 1
        shutil.rmtree(shipping.root)
        return [f"{case}: {problem}" for problem in problems]

    def _ship(self, shipping: Shipping, made: list[Made], problems: list[str]) -> None:
        def look() -> None:
            if shipping.queue.reports.unfinished()["moving"]:
                gone = not_lost(shipping, made, lambda sha256: self.held(made, sha256))
                if gone:
                    self.figures.wrong_deletes += len(gone)
                    problems.append(f"{len(gone)} files deleted that the store does not hold")

        shipping.run(look)
        if shipping.fatal is not None:
            if not isinstance(shipping.fatal, ArchiveRefused):
                problems.append(f"stopped for good: {shipping.fatal}")
                return
            struck = [r.number for r in self.store_proxy.requests() if r.fault is Fault.NO_ENCRYPTION_ECHO]
            sent = [r for r in self.store_proxy.requests() if r.number > max(struck) and r.method in ("PUT", "POST")]
            if sent:
                problems.append(f"{len(sent)} requests to write after the refusal, the first: {sent[0].operation}")
            for proxy in self.proxies.values():
                proxy.clear()
            shipping.restart()
            shipping.run(look)

    def _examine(self, shipping: Shipping, made: list[Made], problems: list[str]) -> None:
        if parked := shipping.parked():
            problems.append(f"parked: {parked}")
        if shipping.fatal is not None:
            problems.append(f"stopped for good again: {shipping.fatal}")
        if unexpected := shipping.unexpected():
            problems.append(f"errors that nobody translates: {unexpected}")
        if left := shipping.left():
            problems.append(f"{len(left)} files left in the inbox after {shipping.tries} tries")
        lost = not_lost(shipping, made, lambda sha256: self.held(made, sha256))
        self.figures.lost += len(lost)
        if lost:
            problems.append(f"{len(lost)} files are lost")
        contents: dict[str, set[str]] = {}
        created: Counter[str] = Counter()
        uploads: set[tuple[str, str]] = set()  # some stores answer a repeated completion of one upload with success
        for request in self.store_proxy.requests():
            if request.committed and request.method == "PUT" and not request.query:
                contents.setdefault(request.path, set()).add(request.sent_sha256)
                created[request.path] += 1
            if request.committed and request.method == "POST" and "uploadId" in request.query:
                uploads.add((request.path, request.query["uploadId"]))
        created.update(path for path, _ in uploads)
        if any(len(found) > 1 for found in contents.values()):
            problems.append("a key has held two contents")
        twice = [path for path, times in created.items() if times > 1]
        if twice:
            self.figures.duplicates += len(twice)
            problems.append(f"{len(twice)} objects were created twice")
        if not problems:
            wrong = disagreement(self.archive, Uid(made[0].study_uid), made, self.listed(made))
            if wrong is not None:
                self.figures.duplicates += "too many" in wrong or "damaged" in wrong or "revision" in wrong
                problems.append(wrong)
        if shipping.queue.audit.broken_at() is not None:
            problems.append("the audit chain is broken")


@contextmanager
def bench(
    rgw: CephRgw,
    dynamodb: DynamoDBLocal,
    folder: Path,
    figures: Figures,
    *,
    encryption: Encryption = KMS,
    bundling: Bundling | None = None,
    amazon: Amazon | None = None,
    **store_proxy_options: Any,
) -> Iterator[Bench]:
    """The archive, initialised and probed; botocore's retries do not wait meanwhile. The figures are the caller's to
    write. ``amazon`` stands before this gateway: the store's proxy is then before it, and the program takes the proxy
    for Amazon. Other options go to the store's `FaultProxy`."""
    certificate = make_certificate(folder / "tls")
    name = f"test-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, value in rgw.env().items():
            patch.setenv(variable, value)
        patch.delenv("AWS_CA_BUNDLE", raising=False)
        without_waiting(patch)
        endpoint = rgw.http_endpoint
        if amazon is not None:
            endpoint = amazon.direct_endpoint
            store_proxy_options["trust"] = amazon.ca_file
            encryption = Encryption(mode="aws:kms", key_id=amazon.keys.create(f"alias/{name}"))
        store_proxy = stack.enter_context(FaultProxy(endpoint, certificate=certificate, **store_proxy_options))
        catalogue_proxy = stack.enter_context(FaultProxy(dynamodb.http_endpoint, certificate=certificate))
        common = {"region": rgw.region, "ca_file": certificate.ca_file}
        settings = S3Settings(
            kind="s3",
            bucket=name,
            prefix=PREFIX,
            endpoint_url=store_proxy.endpoint,
            encryption=encryption,
            **common,  # type: ignore[arg-type]
        )
        with pytest.MonkeyPatch.context() as as_amazon:
            if amazon is not None:
                as_amazon.setattr("dicomwatchd.archive.aws.clients.is_amazon", lambda _: True)
            store = S3Store(settings, connections=8, single_put_bytes=SINGLE_PUT_BYTES)
        stack.callback(store.close)
        catalogue = DynamoDBCatalogue(
            DynamoDBSettings(kind="dynamodb", table=name, endpoint_url=catalogue_proxy.endpoint, **common)  # type: ignore[arg-type]
        )
        stack.callback(catalogue.close)
        store.initialise()
        archive_id = str(uuid.uuid4())
        write_identity(store, ArchiveIdentity(archive_id, "2026-01-01T00:00:00.000Z"))
        catalogue.initialise(archive_id)
        store.probe("probe/")
        client = rgw.client()
        stack.callback(client.close)
        archive = Archive(archive_id, store, catalogue, bundling=bundling)
        yield Bench(store_proxy, catalogue_proxy, archive, client, name, folder, figures)
