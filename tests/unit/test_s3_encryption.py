"""Which answers of a store confirm the encryption that was asked for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import ArchiveRefused

ARN = "arn:aws:kms:eu-central-1:1:"


@pytest.mark.parametrize(
    ("asked", "answer", "accepted"),
    [
        (Encryption(), {}, True),
        (Encryption(mode="AES256"), {"ServerSideEncryption": "AES256"}, True),
        (Encryption(mode="AES256"), {"ServerSideEncryption": "aws:kms"}, False),
        (Encryption(mode="AES256"), {}, False),
        (Encryption(mode="aws:kms"), {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN + "key/1"}, True),
        (Encryption(mode="aws:kms"), {"ServerSideEncryption": "AES256"}, False),
        (Encryption(mode="aws:kms"), {"ServerSideEncryption": "aws:kms:dsse"}, False),
        (Encryption(mode="aws:kms", key_id="k"), {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}, True),
        (Encryption(mode="aws:kms", key_id="k"), {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "l"}, False),
        (Encryption(mode="aws:kms", key_id="k"), {"ServerSideEncryption": "aws:kms"}, False),
        (Encryption(mode="aws:kms", key_id="k"), {"SSEKMSKeyId": "k"}, False),
        (
            Encryption(mode="aws:kms", key_id="k"),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN + "key/k"},
            True,
        ),
        (
            Encryption(mode="aws:kms", key_id=ARN + "key/k"),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN + "key/l"},
            False,
        ),
        (
            Encryption(mode="aws:kms", key_id="alias/dicom"),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN + "key/k"},
            True,
        ),
        (
            Encryption(mode="aws:kms", key_id="alias/dicom"),
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/other"},
            False,
        ),
    ],
)
def test_only_the_encryption_asked_for_is_accepted(asked: Encryption, answer: dict[str, str], accepted: bool) -> None:
    bucket = S3Bucket(client=cast(Any, None), name="b", prefix="", endpoint="s3", encryption=asked)
    if accepted:
        bucket.check_encryption(answer)
    else:
        with pytest.raises(ArchiveRefused):
            bucket.check_encryption(answer)
