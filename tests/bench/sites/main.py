"""Command line of scripts/bench --sites.

The sites are the daemon's own parts in threads of one process (tests/many_sites.py), the archive a folder, or a Ceph
gateway, and DynamoDB Local, which is started for it. What is measured are requests and capacity
units, which do not depend on the machine; the seconds are those of a hundred sites on one machine together with the
servers, and of no hospital.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dicomwatchd.archive.aws.clients import build_client, new_session
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.sites import DynamoDBSites
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.config.archive import DirectorySettings, DynamoDBSettings, S3Settings
from tests.bench import request_hooks
from tests.bench.document import write_json
from tests.bench.scale.rows import Row, document, markdown
from tests.many_sites import ManySites, Spent, sites_of
from tests.pieces import ARCHIVE_ID
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal

#: Studies of each site's own, and instances in each.
EACH, INSTANCES = 3, 3
#: Sites that send a study at the same moment, and what each has of it beside the instance that all have.
AT_ONCE, OWN = 5, 2
_TABLE, _BUCKET = "catalogue", "sites"


class _Archive:
    """``spent`` counts what is asked of it."""

    def __init__(self, stack: ExitStack, work: Path, kind: str) -> None:
        self.spent = Spent()
        dynamodb = stack.enter_context(DynamoDBLocal(work / "dynamodb"))
        os.environ.update(dynamodb.env())
        self._settings = DynamoDBSettings(
            kind="dynamodb",
            table=_TABLE,
            region=dynamodb.region,
            endpoint_url=dynamodb.http_endpoint,
            ca_file=None,
            insecure_http=True,
        )
        DynamoDBCatalogue(self._settings, sleep=lambda seconds: time.sleep(0.02)).initialise(ARCHIVE_ID)
        self._session = new_session()
        self.store = self._gateway(stack, work) if kind == "rgw" else self._folder(work)
        self.store().initialise()

    def _gateway(self, stack: ExitStack, work: Path) -> Callable[[], ObjectStore]:
        rgw = stack.enter_context(CephRgw(work / "rgw"))
        os.environ.update(rgw.env())  # DynamoDB Local takes any credentials
        settings = S3Settings(
            kind="s3",
            bucket=_BUCKET,
            prefix="",
            region=rgw.region,
            endpoint_url=rgw.http_endpoint,
            ca_file=None,
            insecure_http=True,
        )

        def watch(operation: str, client: Any, ask: Callable[[], Any]) -> Any:
            if request_hooks.service(client) == "s3":
                self.spent.count(f"s3 {operation}")
            return ask()

        request_hooks.install(watch)
        return lambda: S3Store(settings, connections=4, session=self._session)

    @staticmethod
    def _folder(work: Path) -> Callable[[], ObjectStore]:
        path = work / "archive"
        path.mkdir()
        return lambda: DirectoryStore(DirectorySettings(kind="directory", path=path))

    def catalogue(self) -> DynamoDBCatalogue:
        return DynamoDBCatalogue(self._settings, client=self._client())

    def sites(self) -> DynamoDBSites:
        return DynamoDBSites(self._settings, client=self._client())

    def _client(self) -> Any:
        made = build_client(
            "dynamodb",
            region=self._settings.region,
            endpoint_url=self._settings.endpoint_url,
            ca_file=None,
            max_connections=4,
            session=self._session,
        )
        self.spent.watch_table(made)
        return made


def main(arguments: Sequence[str], reports: Path) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench --sites", description="many sites on one archive")
    parser.add_argument("--quick", action="store_true", help="1 and 10 sites")
    parser.add_argument("--number", action="append", type=int, metavar="N", help="so many sites; repeatable")
    parser.add_argument("--store", choices=("directory", "rgw"), default="directory")
    options = parser.parse_args([argument for argument in arguments if argument != "--sites"])
    numbers = options.number or ([1, 10] if options.quick else [1, 10, 100])
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    work = Path(tempfile.mkdtemp(prefix="dicomwatchd-sites.", dir=in_memory))
    rows: list[Row] = []
    begun = time.monotonic()
    try:
        with ExitStack() as stack:
            archive = _Archive(stack, work, options.store)
            for run, number in enumerate(numbers):
                rows += _measure(archive, work / f"run{run}", number, run)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = markdown(rows)
    print(f"\n{table}\n\n{time.monotonic() - begun:.0f} s in all")
    name = "bench-sites" if numbers == [1, 10, 100] else "bench-sites-part"
    write_json(reports / f"{name}.json", document(rows))
    (reports / f"{name}.md").write_text(table + "\n")
    return 0


def _measure(archive: _Archive, work: Path, number: int, run: int) -> list[Row]:
    print(f"{number} sites:", flush=True)
    case = f"{number} site{'s' if number > 1 else ''}"
    spent = archive.spent
    rows: list[Row] = []
    with sites_of(work, number, archive.store, archive.catalogue, archive.sites, run) as many:
        studies = many.own_studies(EACH, INSTANCES)
        rows += _shipped(spent, many, case, "a study of one site", studies)
        if number > 1:
            many.shared_studies(AT_ONCE, OWN)
            rows += _shipped(spent, many, case, f"a site's part of a study of {AT_ONCE} sites", number)
            many.common_study()
            rows += _shipped(spent, many, case, "a site's part of one study of all sites", number)
        begun = time.monotonic()
        revisions = many.judge()
        took = time.monotonic() - begun
        details = {"revisions": float(revisions), "studies": float(len(many.wanted)), "judged in s": took}
        rows.append(Row(case, "revisions and instances lost", 0, "", 0, details))
        spent.take()
        for _ in range(2):
            many.beat()
        beats, of = 2 * number, spent.take()
        many.judge_rows(archive.sites(), 2)
        details = {"write units": of.write_units / beats, "read units": of.read_units / beats}
        rows.append(Row(case, "a heartbeat: requests", of.of("dynamodb") / beats, "", None, details))
        _forget_all(archive)
    for row in rows:
        print(f"  {row.what}: {row.figure:.3g} {row.unit} {row.details}", flush=True)
    return rows


def _shipped(spent: Spent, many: ManySites, case: str, what: str, parts: int) -> list[Row]:
    spent.take()
    seconds = many.ship()
    of = spent.take()
    details = {"reads": of.read_units / parts, "writes": of.write_units / parts, "parts a second": parts / seconds}
    rows = [
        Row(case, f"{what}: requests to DynamoDB", of.of("dynamodb") / parts, "", None, details),
        Row(case, f"{what}: capacity units", (of.read_units + of.write_units) / parts, ""),
    ]
    if of.of("s3"):
        names = {name.removeprefix("s3 "): n / parts for name, n in of.requests.items() if name.startswith("s3 ")}
        rows.append(Row(case, f"{what}: requests to S3", of.of("s3") / parts, "", None, names))
    return rows


def _forget_all(archive: _Archive) -> None:
    """The next run's sites are others."""
    table = archive.sites()
    for row in table.rows():
        table._client.delete_item(TableName=_TABLE, Key={"pk": {"S": "SITES"}, "sk": {"S": row.site_id}})
