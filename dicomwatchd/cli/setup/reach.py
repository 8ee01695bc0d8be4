"""Whether bucket and table can be reached with the keys that are here, before anything is written down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from dicomwatchd.cli.setup import keys
from dicomwatchd.cli.setup.folders import Refused
from dicomwatchd.errors import DicomwatchdError, NotInitialised

if TYPE_CHECKING:
    from botocore.session import Session

    from dicomwatchd.config.archive import DynamoDBSettings, S3Settings

_OF_STORE = ("store", "region", "endpoint_url")
_OF_CATALOGUE = ("catalogue", "catalogue_endpoint_url")


def bucket(settings: S3Settings, session: Session) -> str:
    """What there is, in a sentence for the person who has named it. Raises Refused."""
    from dicomwatchd.archive import factory
    from dicomwatchd.archive.identity import read_identity

    def look() -> str:
        with closing(factory.open_store(settings, connections=1, session=session)) as store:
            try:
                store.check()
            except NotInitialised:
                return (
                    f"there is no bucket {settings.bucket} yet: `archive init` makes it, or etc/aws/archive.yaml"
                    " (CloudFormation)"
                )
            identity = read_identity(store)
        if identity is None:
            return f"the bucket {settings.bucket} can be reached; it holds no archive yet"
        return f"the bucket {settings.bucket} can be reached; it holds the archive {identity.archive_id}"

    return _reached(look, _OF_STORE)


def table(settings: DynamoDBSettings, session: Session) -> str:
    """As `bucket`."""
    from dicomwatchd.archive import factory

    def look() -> str:
        with closing(factory.open_catalogue(settings, session=session)) as catalogue:
            try:
                archive_id = catalogue.identity()
            except NotInitialised:
                return (
                    f"there is no table {settings.table} yet: `archive init` makes it, or etc/aws/archive.yaml"
                    " (CloudFormation)"
                )
        return f"the table {settings.table} can be reached" + (f"; it is of archive {archive_id}" if archive_id else "")

    return _reached(look, _OF_CATALOGUE)


def _reached(look: Callable[[], str], of: tuple[str, ...]) -> str:
    try:
        return look()
    except DicomwatchdError as error:
        about_keys = f"where keys are missing or refused: {keys.WHERE_THIS_PERSONS}"
        raise Refused(f"{error}; {about_keys}", ask_again=of) from error
