"""How a command gets at the archive: from the configuration, or from options alone on a machine that has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.terminal import output
from dicomwatchd.cli.terminal.identifiers import UID as UID
from dicomwatchd.errors import ConfigError

if TYPE_CHECKING:
    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.stores.port import ObjectStore
    from dicomwatchd.config.archive import CatalogueSettings, StoreSettings
    from dicomwatchd.fetch import Doubts

_Function = TypeVar("_Function", bound=Callable[..., Any])
#: Takes a remark for whoever reads the answer.
Noting = Callable[[str], None]
#: Of what is amiss with a study's manifests so many are told one by one.
_TOLD = 20


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """What was said of the archive on the command line; with a bucket or a directory no configuration is read."""

    bucket: str | None
    prefix: str
    endpoint_url: str | None
    directory: Path | None
    table: str | None
    table_endpoint_url: str | None
    catalogue_file: Path | None
    region: str | None
    ca_file: Path | None
    insecure_http: bool
    no_catalogue: bool = False

    @property
    def given(self) -> bool:
        return self.bucket is not None or self.directory is not None


_FILE = click.Path(path_type=Path)
_OPTIONS = [
    click.option("--bucket", metavar="NAME", help="The S3 bucket of the archive; no configuration is read then."),
    click.option("--prefix", metavar="TEXT", default="", help="Prefix of the keys in the bucket."),
    click.option("--endpoint-url", metavar="URL", help="The S3 service. Default: Amazon's own in the region."),
    click.option("--directory", metavar="DIR", type=_FILE, help="The folder of the archive, instead of a bucket."),
    click.option("--table", metavar="NAME", help="The DynamoDB table of the catalogue."),
    click.option("--table-endpoint-url", metavar="URL", help="The DynamoDB service. Default: Amazon's own."),
    click.option("--catalogue-file", metavar="FILE", type=_FILE, help="The SQLite file of the catalogue."),
    click.option("--region", metavar="NAME", help="The AWS region of bucket and table."),
    click.option("--ca-file", metavar="FILE", type=_FILE, help="Certificates of a private CA, in PEM form."),
    click.option("--insecure-http", is_flag=True, help="Allow a URL without TLS."),
    click.option("--no-catalogue", is_flag=True, help="Use only the store."),
]


def archive_options(function: _Function) -> _Function:
    """Adds the options; the command receives them as one ``where``."""
    return _with_options(function, _OPTIONS)


def archive_and_catalogue_options(function: _Function) -> _Function:
    """As `archive_options`, for a command that is nothing without the catalogue."""
    return _with_options(function, _OPTIONS[:-1])


def threads_option(help: str, *, default: int = 16) -> Callable[[_Function], _Function]:
    """``--threads``: how much of what is done at once."""
    return click.option(
        "--threads", metavar="N", type=click.IntRange(1, 256), default=default, show_default=True, help=help
    )


def _with_options(function: _Function, options: list[Callable[[Any], Any]]) -> _Function:
    @wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        said = {field.name: kwargs.pop(field.name) for field in fields(ArchiveOptions) if field.name in kwargs}
        return function(*args, where=ArchiveOptions(**said), **kwargs)

    for option in reversed(options):
        collected = option(collected)
    return collected  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Archive:
    """``catalogue`` is None where there is none, or it is not wanted."""

    store: ObjectStore
    catalogue: Catalogue | None

    def needed_catalogue(self) -> Catalogue:
        """The catalogue, there and usable. Raises click.UsageError, NotInitialised, ArchiveRefused, OutOfReach."""
        if self.catalogue is None:
            raise click.UsageError("a catalogue is needed: --table, --catalogue-file or a configuration")
        self.catalogue.check()
        return self.catalogue


@contextmanager
def opened(invocation: Invocation, where: ArchiveOptions, *, connections: int = 4) -> Iterator[Archive]:
    """The archive; its store is there and usable, its catalogue may not be.

    Raises click.UsageError, ConfigError, NotInitialised, ArchiveRefused, OutOfReach.
    """
    from dicomwatchd.archive import factory

    store_settings, catalogue_settings = settings(invocation, where)
    if where.no_catalogue:
        catalogue_settings = None
    with factory.opened(store_settings, catalogue_settings, connections=connections) as (store, catalogue):
        yield Archive(store, catalogue)


def settings(invocation: Invocation, where: ArchiveOptions) -> tuple[StoreSettings, CatalogueSettings | None]:
    """Store and catalogue as options or configuration say. Raises click.UsageError, ConfigError."""
    from dicomwatchd.config import loading

    if not where.given:
        if where.table or where.catalogue_file or where.endpoint_url or where.prefix:
            raise click.UsageError("also say where the objects are: --bucket or --directory")
        try:
            loaded = loading.load(invocation.config_path)
        except ConfigError as error:
            error.hint = "use --config FILE for another one, or --bucket or --directory for none"
            raise
        return loaded.archive.store, loaded.archive.catalogue
    if where.bucket is not None and where.directory is not None:
        raise click.UsageError("--bucket and --directory exclude each other")
    if where.table is not None and where.catalogue_file is not None:
        raise click.UsageError("--table and --catalogue-file exclude each other")
    service = {
        "region": where.region,
        "ca_file": where.ca_file and where.ca_file.absolute(),
        "insecure_http": where.insecure_http,
    }
    store: dict[str, Any]
    if where.bucket is not None:
        store = {"kind": "s3", "bucket": where.bucket, "prefix": where.prefix, "endpoint_url": where.endpoint_url}
        store |= service
    else:
        assert where.directory is not None  # noqa: S101  one of the two is given
        store = {"kind": "directory", "path": where.directory.absolute()}
    given: dict[str, Any] = {"store": store}
    if where.table is not None:
        place = {"table": where.table, "endpoint_url": where.table_endpoint_url}
        given["catalogue"] = {"kind": "dynamodb", **place, **service}
    elif where.catalogue_file is not None:
        given["catalogue"] = {"kind": "sqlite", "path": where.catalogue_file.absolute()}
    try:
        return loading.parse_archive(given)
    except ConfigError as error:
        problems = [
            (_option(place), reason.replace("set insecure_http: true", "add --insecure-http"))
            for place, reason in error.problems
        ]
        raise ConfigError(problems) from error


def _option(place: str) -> str:
    """The option that stands for a place in the configuration."""
    names = {
        "archive.store.path": "--directory",
        "archive.catalogue.path": "--catalogue-file",
        "archive.catalogue.endpoint_url": "--table-endpoint-url",
    }
    return names.get(place, "--" + place.rpartition(".")[2].replace("_", "-"))


def noting(notes: list[str], *, quiet: bool) -> Noting:
    """Collects remarks for the answer and says them at once, unless the answer is JSON."""

    def note(text: str) -> None:
        notes.append(text)
        if not quiet:
            output.note(text)

    return note


@dataclass(slots=True)
class Amiss:
    """The revisions whose manifests are not what they should be; ``note`` is told of each."""

    note: Noting
    unreadable: list[int] = field(default_factory=list)
    disregarded: list[int] = field(default_factory=list)
    _told: int = 0

    def __bool__(self) -> bool:
        return bool(self.unreadable or self.disregarded)

    def doubts(self) -> Doubts:
        from dicomwatchd.fetch import Doubts

        return Doubts(self._noting(self.unreadable), self._noting(self.disregarded))

    def document(self) -> dict[str, list[int]]:
        return {"unreadable_revisions": self.unreadable, "disregarded_revisions": self.disregarded}

    def _noting(self, revisions: list[int]) -> Callable[[int, str], None]:
        def noting(revision: int, text: str) -> None:
            revisions.append(revision)
            self._told += 1
            if self._told <= _TOLD:
                self.note(text)
            elif self._told == _TOLD + 1:
                self.note("there are more; --json lists all of them")

        return noting
