"""A store that ignores what it is asked: headers are taken out of each request, and it is signed anew.

The proxy then holds credentials of the real store: without a new signature the store would refuse what was changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_SIGNATURE = ("authorization", "x-amz-date", "x-amz-content-sha256", "host")


class _UnsignedPayload(S3SigV4Auth):
    def payload(self, request: Any) -> str:
        return "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Liar:
    """``ignores`` are header names, or beginnings of them, in lower case. The payload is not signed any more, so the
    store does not notice either when a body was altered. ``of_parts_alone``: all other requests are as they were."""

    access_key: str
    secret_key: str
    region: str
    ignores: tuple[str, ...]
    of_parts_alone: bool = False

    def is_told(self, target: str) -> bool:
        """Whether this request is one that it ignores something of."""
        return not self.of_parts_alone or "partNumber=" in target

    def rewritten(self, method: str, url: str, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers to send to ``url`` instead of those that came."""
        kept = [(n, v) for n, v in headers if not n.lower().startswith((*self.ignores, *_SIGNATURE))]
        request = AWSRequest(method=method, url=url, headers=dict(kept))
        _UnsignedPayload(Credentials(self.access_key, self.secret_key), "s3", self.region).add_auth(request)
        return [(name, value) for name, value in request.prepare().headers.items() if name.lower() != "content-length"]
