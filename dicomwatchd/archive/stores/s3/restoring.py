"""Objects asked back from cold storage: RestoreObject, and what its answers mean."""

from __future__ import annotations

from typing import Any

import botocore.exceptions

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.port import Restoring, Speed
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.errors import ColdObject, CredentialsRefused, Permanent

_OPERATION = "RestoreObject"


def restore(bucket: S3Bucket, key: str, speed: Speed, days: int | None) -> Restoring:
    """As `ObjectStore.restore`. https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html"""
    request: dict[str, Any] = {"GlacierJobParameters": {"Tier": speed.capitalize()}}
    if days is not None:
        request["Days"] = days
    arguments: Any = {**bucket.address(key), "RestoreRequest": request}
    try:
        response = bucket.client.restore_object(**arguments)
    except botocore.exceptions.ClientError as error:
        if aws.error_code(error) == "RestoreAlreadyInProgress":
            return Restoring.UNDER_WAY
        if aws.error_code(error) == "GlacierExpeditedRetrievalNotAvailable":
            raise Permanent(
                "the store has no room for expedited restores at the moment",
                code="not-expedited",
                hint="use --restore=standard, or try again later",
            ) from error
        failure = aws.translate(error, operation=_OPERATION, endpoint=bucket.endpoint)
        if isinstance(failure, ColdObject):  # "not allowed for the current storage class": it is warm
            return Restoring.READABLE
        if isinstance(failure, CredentialsRefused):
            failure.hint = "restoring takes the right s3:RestoreObject"
        raise failure from error
    except aws.FOREIGN as error:
        raise aws.translate(error, operation=_OPERATION, endpoint=bucket.endpoint) from error
    # 200: its copy is there, and is kept for so many days from now on.
    is_back = days is not None and response["ResponseMetadata"]["HTTPStatusCode"] == 200
    return Restoring.READABLE if is_back else Restoring.STARTED
