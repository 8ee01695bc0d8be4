"""What the main job asks of Amazon, for each layout: requests, bytes and dollars, counted by the server that stands for
it in the tests.

python -m tests.bench.amazon [--program FOLDER] [--slices N]

``--program`` counts another state of the program: a checkout of it. Dollars are list prices (archive/prices.yaml), for
1,000 studies of 1,000 instances, without storage, traffic and what the table charges.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.servers.amazon import Amazon, Exchange
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import make_certificate
from tests.synthetic import Maker
from tests.system.site import Site

ROOT = Path(__file__).parents[2]
SCALED_TO = 1_000_000
#: Amazon counts listings among them.
_LIKE_PUT = ("Put", "Create", "Upload", "Complete", "List", "Copy")
_FREE = ("Abort", "Delete")
COLUMNS = ("job", "layout", "PUT", "LIST", "HEAD", "GET", "table", "key", "MB sent", "MB received", "$")


@dataclass(frozen=True)
class Prices:
    put: float
    get: float
    key: float

    @classmethod
    def load(cls) -> Prices:
        found: dict[str, Any] = yaml.safe_load((ROOT / "dicomwatchd" / "archive" / "prices.yaml").read_text())
        usual = found["storage_classes"]["STANDARD"]
        return cls(
            usual["usd_per_1000_put"] / 1000,
            usual["usd_per_1000_get"] / 1000,
            found["key"]["usd_per_10000_requests"] / 10_000,
        )

    def of(self, exchanges: list[Exchange]) -> float:
        total = 0.0
        for one in exchanges:
            if one.service == "s3" and not one.operation.startswith(_FREE):
                total += self.put if one.operation.startswith(_LIKE_PUT) else self.get
                total += self.key * one.uses_key
        return total


def row(job: str, layout: str, exchanges: list[Exchange], instances: int, prices: Prices) -> tuple[object, ...]:
    exchanges = [one for one in exchanges if "/probe/" not in f"/{one.key}"]
    s3 = [one for one in exchanges if one.service == "s3"]
    kinds = Counter(
        "LIST" if one.operation.startswith("List") else "PUT" if one.operation.startswith(_LIKE_PUT) else one.operation
        for one in s3
    )
    return (
        job,
        layout,
        kinds["PUT"],
        kinds["LIST"],
        kinds["HeadObject"],
        kinds["GetObject"],
        sum(one.service == "dynamodb" for one in exchanges),
        sum(one.uses_key for one in s3),
        f"{sum(one.sent_bytes for one in s3) / 1e6:.1f}",
        f"{sum(one.received_bytes for one in s3) / 1e6:.1f}",
        f"{prices.of(exchanges) * SCALED_TO / instances:.2f}",
    )


def journey(
    root: Path, amazon: Amazon, layout: str, slices: int, program: Path | None, prices: Prices
) -> list[tuple[object, ...]]:
    """A CT and an MR study, and a large object: archived, brought again to a daemon that has lost its state, verified
    and fetched."""
    bucket, table = f"bench-{uuid.uuid4().hex[:12]}", f"bench-{uuid.uuid4().hex[:12]}"
    place = {"region": "us-east-1", "ca_file": str(amazon.ca_file)}
    key = amazon.keys.create(f"alias/{bucket}")
    store = {"kind": "s3", "bucket": bucket, "encryption": {"mode": "aws:kms", "key_id": key}, **place}
    archive: dict[str, Any] = {"store": store, "catalogue": {"kind": "dynamodb", "table": table, **place}}
    if layout == "bundled":
        archive["layout"] = {"kind": "bundled"}
    environment = amazon.env()
    if program is not None:
        environment |= {"PYTHONPATH": os.fspath(program), "PYTHONSAFEPATH": "1"}
    site = Site(root, archive, environment=environment)
    site.init()
    maker = Maker(seed=12)
    made = [
        *maker.ct_series(root / "made" / "ct", slices=slices),
        *maker.mr_study(root / "made" / "mr", series=1, slices=slices),
        *maker.ct_series(root / "made" / "large", slices=1, rows=3200, columns=3200),
    ]
    rows = []

    def count(job: str) -> None:
        rows.append(row(job, layout, amazon.exchanges(), len(made), prices))
        amazon.forget()

    def archived(job: str) -> None:
        for one in made:
            shutil.copy(one.path, site.inbox / f"{one.sop_instance_uid}.dcm")
        site.once()
        left = list(site.inbox.rglob("*.dcm"))
        assert not left, f"{len(left)} files were not archived; see {site.log_file}"
        count(job)

    amazon.forget()
    archived("archive")
    shutil.rmtree(site.state)
    site.state.mkdir()
    archived("again, without a state")
    studies = list(dict.fromkeys(one.study_uid for one in made))
    for uid in studies:
        site.ctl("verify", uid)
    count("verify")
    for uid in studies:
        site.ctl("fetch", uid, "-o", str(root / "out" / uid))
    count("fetch")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.amazon", description=__doc__)
    parser.add_argument("--program", type=Path, metavar="FOLDER", help="a checkout of the program to count instead")
    parser.add_argument("--slices", type=int, default=200, metavar="N", help="instances of each of the two studies")
    options = parser.parse_args()
    prices = Prices.load()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicomwatchd-bench.")))
        certificate = make_certificate(folder / "tls")
        rgw = stack.enter_context(CephRgw(folder / "rgw", certificate=certificate))
        dynamodb = stack.enter_context(DynamoDBLocal(folder / "dynamodb", certificate=certificate))
        amazon = stack.enter_context(Amazon(rgw, dynamodb))
        print("|", " | ".join(COLUMNS), "|", flush=True)
        print("|", " | ".join("---" for _ in COLUMNS), "|", flush=True)
        for layout in ("instance", "bundled"):
            for one in journey(folder / layout, amazon, layout, options.slices, options.program, prices):
                print("|", " | ".join(map(str, one)), "|", flush=True)


if __name__ == "__main__":
    main()
