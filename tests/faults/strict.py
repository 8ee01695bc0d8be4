"""Checksums as Amazon S3 treats them: a wrong one is refused, a right one is kept and given back on HEAD."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from collections.abc import Callable
from email.message import Message

from tests.faults.answers import Response, error_answer
from tests.faults.rules import Request

_CRC64NVME = 0x9A6C9329AC4BC9B5  # AD93D23594C93659 reflected


def _crc64nvme_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC64NVME if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc64nvme_table()


def crc64nvme(data: bytes) -> int:
    """CRC-64/NVME: reflected, all ones in and out. Slow; for small bodies."""
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFFFFFFFFFF


_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
    "x-amz-checksum-sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "x-amz-checksum-crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-crc64nvme": lambda data: crc64nvme(data).to_bytes(8, "big"),
}


class StrictStore:
    """What the strict mode remembers: the checksums given with objects that were stored in one piece."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, str]] = {}

    def refusal(self, request: Request, headers: Message, body: bytes) -> Response | None:
        """BadDigest when a checksum given with a PUT is not that of the body."""
        if request.method != "PUT":
            return None
        for name, work_out in _CHECKSUMS.items():
            given = headers.get(name)
            if given is not None and given != base64.b64encode(work_out(body)).decode("ascii"):
                return error_answer(400, "BadDigest", request)
        return None

    def completed(self, request: Request, headers: Message, answer: Response) -> Response:
        if answer.status != 200 or request.target:
            return answer
        if request.method == "PUT" and not request.query:
            given = {name: headers[name] for name in _CHECKSUMS if headers.get(name)}
            with self._lock:
                self._kept[request.path] = given
            for name, value in given.items():
                answer = answer.with_header(name, value)
        elif request.method == "HEAD" and headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            with self._lock:
                kept = dict(self._kept.get(request.path, {}))
            for name, value in kept.items():
                answer = answer.with_header(name, value)
            if kept:
                answer = answer.with_header("x-amz-checksum-type", "FULL_OBJECT")
        return answer
