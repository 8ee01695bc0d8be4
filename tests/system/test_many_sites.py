"""Eight sites on one archive, all at once: no revision is lost, nor an instance in one, and a study costs what it costs
one site alone. scripts/bench --sites has a hundred."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomwatchd.archive.aws.clients import build_client, new_session
from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.sites import DynamoDBSites
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.catalogues.sqlite.sites import SqliteSites
from dicomwatchd.archive.stores.directory.store import DirectoryStore
from dicomwatchd.config.archive import DirectorySettings, DynamoDBSettings, SqliteSettings
from tests.many_sites import ManySites, Spent, sites_of
from tests.pieces import ARCHIVE_ID
from tests.servers.dynamodb import DynamoDBLocal

SITES = 8


def folder_at(path: Path) -> Callable[[], DirectoryStore]:
    path.mkdir()
    settings = DirectorySettings(kind="directory", path=path)
    DirectoryStore(settings).initialise()
    return lambda: DirectoryStore(settings)


def all_of_it(many: ManySites) -> tuple[int, int]:
    """(revisions, studies)"""
    many.own_studies(2, 3)
    many.shared_studies(4, 2)
    many.common_study()
    many.ship()
    return many.judge(), len(many.wanted)


@pytest.mark.timeout(600)
def test_eight_sites_with_one_catalogue_file(tmp_path: Path) -> None:
    settings = SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db")
    SqliteCatalogue(settings).initialise(ARCHIVE_ID)
    parts = (folder_at(tmp_path / "archive"), lambda: SqliteCatalogue(settings), lambda: SqliteSites(settings))
    with sites_of(tmp_path, SITES, *parts) as many:
        revisions, studies = all_of_it(many)
        assert revisions == studies + 2 * 3 + SITES - 1  # each site has added to what it shares
        for _ in range(3):
            many.beat()
        many.judge_rows(SqliteSites(settings), 3)


@pytest.mark.timeout(600)
def test_eight_sites_with_one_table(
    tmp_path: Path, dynamodb: DynamoDBLocal, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dynamodb.env().items():
        monkeypatch.setenv(name, value)
    settings = DynamoDBSettings(
        kind="dynamodb",
        table=table_name,
        region=dynamodb.region,
        endpoint_url=dynamodb.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )
    DynamoDBCatalogue(settings, sleep=lambda seconds: time.sleep(0.02)).initialise(ARCHIVE_ID)
    spent, session = Spent(), new_session()

    def client() -> Any:
        made = build_client(
            "dynamodb",
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            ca_file=None,
            max_connections=4,
            session=session,
        )
        spent.watch_table(made)
        return made

    store = folder_at(tmp_path / "archive")

    def parts() -> tuple[Callable[[], DirectoryStore], Callable[[], DynamoDBCatalogue], Callable[[], DynamoDBSites]]:
        return (
            store,
            lambda: DynamoDBCatalogue(settings, client=client()),
            lambda: DynamoDBSites(settings, client=client()),
        )

    costs = []
    for number in (1, SITES):
        with sites_of(tmp_path / str(number), number, *parts(), number) as many:
            studies = many.own_studies(3, 3)
            spent.take()
            many.ship()
            of_own = spent.take()
            costs.append((of_own.of("dynamodb") / studies, of_own.read_units / studies, of_own.write_units / studies))
            if number == SITES:
                many.shared_studies(4, 2)
                many.common_study()
                many.ship()
            assert many.judge() >= len(many.wanted)
            if number == SITES:
                for _ in range(3):
                    many.beat()
                many.judge_rows(DynamoDBSites(settings, client=client()), 3)
    assert costs[0] == costs[1], "what a study costs grows with the number of sites"
