"""Checksums: compared with what arrives, kept, and given back."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from tests.faults.strict import crc64nvme
from tests.servers.amazon.memory import Facts, Upload
from tests.servers.amazon.message import Answer, Request, element, refused, with_each, with_text
from tests.servers.amazon.rules import Rule
from tests.servers.amazon.signature import encoded

COMPUTED_BYTES: Final = 1024 * 1024
"""The CRC64NVME that Amazon adds by itself is worked out for objects up to this size alone: it is slow in Python."""

_ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: crc64nvme(data).to_bytes(8, "big"),
}
_ELEMENTS = {"sha256": "ChecksumSHA256", "sha1": "ChecksumSHA1", "crc32": "ChecksumCRC32"}
_ELEMENTS["crc64nvme"] = "ChecksumCRC64NVME"


def _given(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[f"x-amz-checksum-{name}"] for name in _ALGORITHMS if f"x-amz-checksum-{name}" in headers}


def has_checksum(request: Request) -> bool:
    return bool(_given(request.headers)) or "content-md5" in request.headers


class Payload(Rule):
    """A signed payload is what was signed: 400 XAmzContentSHA256Mismatch.
    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""

    def before(self, request: Request) -> Answer | None:
        said = request.headers.get("x-amz-content-sha256", "")
        if re.fullmatch(r"[0-9a-f]{64}", said) and said != hashlib.sha256(request.body).hexdigest():
            message = "The provided 'x-amz-content-sha256' header does not match what was computed."
            return refused(request, 400, "XAmzContentSHA256Mismatch", message)
        return None


class Checksums(Rule):
    """A checksum that comes with an object is compared with the bytes (400 BadDigest), kept, and given back: with the
    answer, and on HEAD and GET where ChecksumMode is ENABLED. Without one Amazon keeps a CRC64NVME of its own.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
    """

    def before(self, request: Request) -> Answer | None:
        if request.operation not in ("PutObject", "UploadPart"):
            return None
        given = _given(request.headers)
        if len(given) > 1:
            message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            return refused(request, 400, "InvalidRequest", message)
        for name, value in given.items():
            try:
                well_formed = len(base64.b64decode(value, validate=True)) == len(_ALGORITHMS[name](b""))
            except ValueError:
                well_formed = False
            if not well_formed:
                message = f"Value for x-amz-checksum-{name} header is invalid."
                return refused(request, 400, "InvalidRequest", message)
            if value != encoded(_ALGORITHMS[name](request.body)):
                message = f"The {name.upper()} you specified did not match the calculated checksum."
                return refused(request, 400, "BadDigest", message)
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        facts = request.facts
        if facts is None or not answer.succeeded:
            return answer
        if request.operation == "PutObject":
            facts.checksums = _given(request.headers) or _by_default(request.body)
            return answer.having(_headers(facts))
        if request.operation in ("HeadObject", "GetObject") and "range" not in request.headers:
            asked = request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
            return answer.having(_headers(facts)) if asked else answer
        return answer


def of_a_copy(data: bytes, source: Facts | None, asked: str | None) -> dict[str, str]:
    """A copy has a checksum over its whole, of the algorithm asked for or the source's.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html"""
    names = [asked.lower()] if asked else list(source.checksums) if source is not None else []
    return {name: encoded(_ALGORITHMS[name](data)) for name in names} or _by_default(data)


def _by_default(data: bytes) -> dict[str, str]:
    return {"crc64nvme": encoded(_ALGORITHMS["crc64nvme"](data))} if len(data) <= COMPUTED_BYTES else {}


def _headers(facts: Facts) -> dict[str, str]:
    found = {f"x-amz-checksum-{name}": value for name, value in facts.checksums.items()}
    return {**found, "x-amz-checksum-type": facts.checksum_type} if found else {}


class ChecksumsOfParts(Rule):
    """An upload that was begun with an algorithm wants a checksum of that algorithm with each part, and each of them
    again at its completion, in order from 1. The object's checksum is, for SHA-256, composed of the parts' ("-N").
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompletedPart.html
    The words of the refusals: https://github.com/aws/aws-sdk-php/issues/2648,
    https://github.com/versity/versitygw/issues/1342
    """

    def before(self, request: Request) -> Answer | None:
        if request.operation == "CreateMultipartUpload":
            algorithm = request.headers.get("x-amz-checksum-algorithm", "").lower()
            if algorithm and algorithm not in _ALGORITHMS:
                return refused(request, 400, "InvalidRequest", "Checksum algorithm provided is unsupported.")
            if algorithm.startswith("sha") and request.headers.get("x-amz-checksum-type", "") == "FULL_OBJECT":
                message = f"The FULL_OBJECT checksum type cannot be used with the {algorithm} checksum algorithm."
                return refused(request, 400, "InvalidRequest", message)
            return None
        upload = self.memory.uploads.get(request.query.get("uploadId", ""))
        if upload is None:
            return None
        if request.operation == "UploadPart":
            return self._of_part(request, upload)
        if request.operation == "CompleteMultipartUpload":
            return self._of_completion(request, upload)
        return None

    def _of_part(self, request: Request, upload: Upload) -> Answer | None:
        given = next(iter(_given(request.headers)), None)
        wanted = upload.algorithm
        composite_lacks_it = given is None and wanted is not None and upload.checksum_type == "COMPOSITE"
        if composite_lacks_it or (given is not None and given != wanted):
            message = (
                f"Checksum Type mismatch occurred, expected checksum Type: {wanted or 'null'}, "
                f"actual checksum Type: {given or 'null'}"
            )
            return refused(request, 400, "InvalidRequest", message)
        return None

    def _of_completion(self, request: Request, upload: Upload) -> Answer | None:
        blocks = re.findall(rb"<Part>.*?</Part>", request.body, re.DOTALL)
        numbers = [int(element(block, "PartNumber") or 0) for block in blocks]
        name = _ELEMENTS.get(upload.algorithm or "", "")
        for number, block in zip(numbers, blocks, strict=True):
            part, said = upload.parts.get(number), element(block, name) if name else None
            if part is None or (element(block, "ETag") or "").strip('"') != part.etag:
                message = "One or more of the specified parts could not be found."
                return refused(request, 400, "InvalidPart", message)
            if name and upload.checksum_type == "COMPOSITE" and said is None:
                message = (
                    f"The upload was created using a {upload.algorithm} checksum. The complete request must include "
                    f"the checksum for each part. It was missing for part {number} in the request."
                )
                return refused(request, 400, "InvalidRequest", message)
            if name and said is not None and said != part.checksum:
                message = "One or more of the specified parts could not be found."
                return refused(request, 400, "InvalidPart", message)
        if name and numbers != list(range(1, len(numbers) + 1)):
            return refused(request, 400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        said = _given(request.headers).get(upload.algorithm or "")
        if said is not None and said != _composite(upload):
            message = f"The {upload.algorithm} you specified did not match the calculated checksum."
            return refused(request, 400, "BadDigest", message)
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        if not answer.succeeded:
            return answer
        if request.operation == "CreateMultipartUpload":
            upload = self.memory.uploads[element(answer.body, "UploadId") or ""]
            if upload.algorithm is None:
                return answer
            return answer.having(
                {
                    "x-amz-checksum-algorithm": upload.algorithm.upper(),
                    "x-amz-checksum-type": upload.checksum_type,
                }
            )
        if request.operation == "UploadPart":
            return answer.having({f"x-amz-checksum-{name}": value for name, value in _given(request.headers).items()})
        if request.operation == "CompleteMultipartUpload" and request.facts is not None:
            upload = self.memory.uploads[request.query["uploadId"]]
            if upload.algorithm is not None and upload.checksum_type == "COMPOSITE":
                request.facts.checksums = {upload.algorithm: _composite(upload)}
                request.facts.checksum_type = "COMPOSITE"
                body = with_text(answer.body, _ELEMENTS[upload.algorithm], _composite(upload))
                return answer.saying(with_text(body, "ChecksumType", "COMPOSITE"))
            return answer
        if request.operation == "ListMultipartUploads":
            return answer.saying(with_each(answer.body, "Upload", self._listed_upload))
        if request.operation == "ListParts":
            return self._listed_parts(request, answer)
        return answer

    def _listed_upload(self, block: bytes) -> bytes:
        upload = self.memory.uploads.get(element(block, "UploadId") or "")
        if upload is None or upload.algorithm is None:
            return block
        block = with_text(block, "ChecksumAlgorithm", upload.algorithm.upper())
        return with_text(block, "ChecksumType", upload.checksum_type)

    def _listed_parts(self, request: Request, answer: Answer) -> Answer:
        upload = self.memory.uploads.get(request.query["uploadId"])
        if upload is None or upload.algorithm is None:
            return answer
        name = _ELEMENTS[upload.algorithm]

        def change(block: bytes) -> bytes:
            part = upload.parts.get(int(element(block, "PartNumber") or 0))
            return with_text(block, name, part.checksum) if part is not None and part.checksum else block

        body = with_text(with_each(answer.body, "Part", change), "ChecksumAlgorithm", upload.algorithm.upper())
        return answer.saying(with_text(body, "ChecksumType", upload.checksum_type))


def _composite(upload: Upload) -> str:
    """The checksum over the parts' checksums, with their number behind it."""
    digests = [base64.b64decode(upload.parts[number].checksum or "") for number in sorted(upload.parts)]
    return f"{encoded(_ALGORITHMS[upload.algorithm or ''](b''.join(digests)))}-{len(digests)}"


def checksum_of_part(request: Request) -> str | None:
    return next(iter(_given(request.headers).values()), None)
