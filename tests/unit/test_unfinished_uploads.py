"""An unfinished upload of the same key that somebody else has begun, in a way that takes none of our parts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import botocore.exceptions
import pytest

from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.archive.stores.s3.multipart import MIB, MultipartSender
from dicomwatchd.config.archive import Encryption
from dicomwatchd.errors import ArchiveRefused, RequestRefused

THEIRS = "theirs"
DATA = bytes(range(256)) * (6 * MIB // 256)


def error(code: str, status: int) -> botocore.exceptions.ClientError:
    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(details, "UploadPart")


class Client:
    """A bucket with an upload of somebody else's, which the daemon may not abort. ``refuses``: all parts of any."""

    def __init__(self, refusal: botocore.exceptions.ClientError | None, mode: str = "AES256") -> None:
        self.refusal, self.mode, self.refuses_ours = refusal, mode, False
        self.begun, self.calls = 0, list[str]()

    def head_object(self, **_: Any) -> Any:
        raise error("404", 404)

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return {}

    def list_multipart_uploads(self, **_: Any) -> dict[str, Any]:
        return {"Uploads": [{"Key": "p/a", "UploadId": THEIRS, "Initiated": datetime.now(UTC)}]}

    def list_parts(self, **_: Any) -> dict[str, Any]:
        return {}

    def create_multipart_upload(self, **_: Any) -> dict[str, Any]:
        self.begun += 1
        assert self.begun == 1, "over and over"
        return {"UploadId": "ours", "ServerSideEncryption": "AES256"}

    def upload_part(self, UploadId: str, **_: Any) -> dict[str, Any]:
        self.calls.append(UploadId)
        if self.refusal is not None and (UploadId == THEIRS or self.refuses_ours):
            raise self.refusal
        return {"ETag": "x", "ServerSideEncryption": self.mode if UploadId == THEIRS else "AES256"}

    def abort_multipart_upload(self, **_: Any) -> None:
        raise error("AccessDenied", 403)

    def complete_multipart_upload(self, UploadId: str, **_: Any) -> dict[str, Any]:
        self.calls.append(f"complete {UploadId}")
        return {"ServerSideEncryption": "AES256"}


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def put(client: Client, executor: ThreadPoolExecutor) -> None:
    bucket = S3Bucket(
        client=cast(Any, client), name="b", prefix="p/", endpoint="s3", encryption=Encryption(mode="AES256")
    )
    sender = MultipartSender(
        bucket, None, executor=executor, budget=ByteBudget(), part_bytes=5 * MIB, stopping=lambda: False
    )
    assert sender.put("a", Buffer.of(DATA)).created


REFUSED = error("InvalidRequest", 400)  # its parts want another checksum, or a key that only its writer has


@pytest.mark.parametrize("client", [Client(REFUSED), Client(None, "aws:kms")], ids=["parts", "encryption"])
def test_one_of_our_own_is_begun_in_its_place(client: Client, executor: ThreadPoolExecutor) -> None:
    put(client, executor)
    assert client.begun == 1 and client.calls[-1] == "complete ours" and THEIRS in client.calls


def test_what_the_store_refuses_of_our_own_is_refused(executor: ThreadPoolExecutor) -> None:
    client = Client(REFUSED)
    client.refuses_ours = True
    with pytest.raises(RequestRefused):
        put(client, executor)
    assert client.begun == 1
    unencrypted = Client(None, "aws:kms")
    unencrypted.list_multipart_uploads = lambda **_: {}  # type: ignore[method-assign]
    unencrypted.create_multipart_upload = lambda **_: {"UploadId": THEIRS}  # type: ignore[method-assign]
    with pytest.raises(ArchiveRefused):
        put(unencrypted, executor)
