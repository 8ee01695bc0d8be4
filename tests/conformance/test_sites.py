"""The rows of the daemons, in every catalogue: conditional writes, of which none is lost, and studies left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from dicomwatchd.archive.catalogues.dynamodb.catalogue import DynamoDBCatalogue
from dicomwatchd.archive.catalogues.dynamodb.sites import DynamoDBSites
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.catalogues.sites import SiteRow, SiteTable
from dicomwatchd.archive.catalogues.sqlite.catalogue import SqliteCatalogue
from dicomwatchd.archive.catalogues.sqlite.sites import SqliteSites
from dicomwatchd.archive.erasing.dynamodb import DynamoDBRecords
from dicomwatchd.archive.erasing.sqlite import SqliteRecords
from dicomwatchd.archive.records import Query
from dicomwatchd.config.archive import DynamoDBSettings, SqliteSettings
from dicomwatchd.errors import CatalogueEntryDamaged, CredentialsRefused, OutOfReach
from dicomwatchd.model import Uid
from tests.conformance.test_catalogue import ARCHIVE_ID, found, study
from tests.servers.dynamodb import DynamoDBLocal


class Place:
    """One catalogue, with studies and sites in it."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        sites: Callable[[], SiteTable],
        records: Callable[[], Any],
    ) -> None:
        self.catalogue, self.sites, self.records = catalogue, sites, records


@pytest.fixture(params=["sqlite", "dynamodb"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "sqlite":
        tmp_path: Path = request.getfixturevalue("tmp_path")
        of_file = SqliteSettings(kind="sqlite", path=tmp_path / "catalogue.db")
        SqliteCatalogue(of_file).initialise(ARCHIVE_ID)
        yield Place(lambda: SqliteCatalogue(of_file), lambda: SqliteSites(of_file), lambda: SqliteRecords(of_file))
        return
    server: DynamoDBLocal = request.getfixturevalue("dynamodb")
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    settings = DynamoDBSettings(
        kind="dynamodb",
        table=request.getfixturevalue("table_name"),
        region=server.region,
        endpoint_url=server.http_endpoint,
        ca_file=None,
        insecure_http=True,
    )
    DynamoDBCatalogue(settings, sleep=lambda seconds: time.sleep(0.02)).initialise(ARCHIVE_ID)
    yield Place(lambda: DynamoDBCatalogue(settings), lambda: DynamoDBSites(settings), lambda: DynamoDBRecords(settings))


def row(beats: int = 1, run: str = "a", site: str = "1") -> SiteRow:
    return SiteRow(site * 32, beats, run, f'{{"name": "s{site}"}}')


def test_a_row_is_written_over_the_one_that_was_named_and_no_other(place: Place) -> None:
    table = place.sites()
    assert table.rows() == [] and table.row("1" * 32) is None
    assert table.write(row(1), None)
    assert not table.write(row(1, "b"), None)
    assert table.write(row(2), (1, "a"))
    assert not table.write(row(2, "b"), (1, "a")), "an older heartbeat has got over a newer one"
    assert not table.write(row(3, "b"), (2, "b"))
    assert table.write(row(3, "b"), (2, "a"))
    assert table.write(row(1, site="2"), (7, "gone")), "where there is none"
    assert table.rows() == [row(3, "b"), row(1, site="2")]
    assert place.sites().row("1" * 32) == row(3, "b")


def test_of_many_at_once_one_writes(place: Place) -> None:
    assert place.sites().write(row(1), None)
    tables = [place.sites() for _ in range(8)]
    together = threading.Barrier(len(tables))

    def one(number: int) -> bool:
        together.wait(30)
        return tables[number].write(row(2, f"run{number}"), (1, "a"))

    with ThreadPoolExecutor(len(tables)) as threads:
        assert sorted(threads.map(one, range(len(tables)))) == [False] * 7 + [True]


def test_studies_and_sites_know_nothing_of_each_other(place: Place) -> None:
    catalogue, table = place.catalogue(), place.sites()
    queries = [
        Query(),
        Query(patient_id="PID-1"),
        Query(accession_number="A-1"),
        Query(name="doe*"),
        Query(modality="CT"),
        Query(archived_from="2000-01-01"),
        Query(date_from="20000101"),
    ]
    catalogue.put(study())
    before = [found(catalogue, query) for query in queries]
    assert before[0] == ["1.2.840.1"]
    for number in "123456789":
        assert table.write(row(site=number), None)
    assert [found(catalogue, query) for query in queries] == before
    assert list(catalogue.study_uids()) == ["1.2.840.1"]
    assert catalogue.get(Uid("1.2.840.1")) == study()
    catalogue.check()
    assert catalogue.identity() == ARCHIVE_ID and catalogue.is_completed()
    # What is erased of a study is nothing of a site; what `archive init` and a rebuild do leaves all as it is.
    records = place.records()
    assert records.entries(Uid("1.2.840.1")) == records.erase(Uid("1.2.840.1")) > 0
    assert not any(step.outcome == "created" for step in catalogue.initialise(ARCHIVE_ID))
    catalogue.completed()
    catalogue.put(study())
    assert [found(catalogue, query) for query in queries] == before
    assert len(table.rows()) == 9


@pytest.mark.parametrize("place", ["dynamodb"], indirect=True)
def test_a_table_that_has_lost_its_identity_and_kept_its_sites(place: Place) -> None:
    """Whoever restores it writes the identity again; heartbeats are no other program's items."""
    catalogue = place.catalogue()
    assert isinstance(catalogue, DynamoDBCatalogue)
    assert place.sites().write(row(), None)
    client: Any = catalogue._client
    client.delete_item(TableName=catalogue._table, Key={"pk": {"S": "ARCHIVE"}, "sk": {"S": "IDENTITY"}})
    catalogue.initialise(ARCHIVE_ID)
    assert catalogue.identity() == ARCHIVE_ID


@pytest.mark.parametrize("place", ["dynamodb"], indirect=True)
def test_what_a_policy_refuses_and_what_is_no_row(place: Place) -> None:
    table = place.sites()
    assert isinstance(table, DynamoDBSites)
    client: Any = table._client
    item = {"pk": {"S": "SITES"}, "sk": {"S": "2" * 32}, "beats": {"S": "many"}}
    client.put_item(TableName=table._table, Item=item)
    assert table.write(row(), None)
    assert table.rows() == [row(), SiteRow("2" * 32, 0, "", "")], "one that cannot be read has hidden the others"
    with pytest.raises(CatalogueEntryDamaged):
        table.row("2" * 32)

    class Body:
        def stream(self, **_: object) -> Iterator[bytes]:
            yield b'{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not authorized"}'

    def refuse(request: Any, **_: object) -> AWSResponse:
        headers: Any = {"content-type": "application/x-amz-json-1.0"}
        return AWSResponse(request.url, 400, headers, Body())

    client.meta.events.register("before-send.dynamodb", refuse)
    for ask in (table.rows, lambda: table.row("1" * 32), lambda: table.write(row(2), (1, "a"))):
        with pytest.raises(CredentialsRefused):
            ask()


def test_a_catalogue_that_is_gone(tmp_path: Path) -> None:
    table = SqliteSites(SqliteSettings(kind="sqlite", path=tmp_path / "gone.db"))
    with pytest.raises(OutOfReach):
        table.rows()
    with pytest.raises(OutOfReach):
        table.write(row(), None)
