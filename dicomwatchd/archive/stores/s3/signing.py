"""Requests to S3 as they are signed: AWS Signature Version 4, for the fast path (`data_plane`)."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(Protocol):
    """botocore's ReadOnlyCredentials."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Signer:
    """AWS Signature Version 4 for S3, in the Authorization header. The day's signing key is worked out once."""

    def __init__(self, region: str, now: Callable[[], float]) -> None:
        self._region = region
        self._now = now
        self._known: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def signed(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        credentials: Credentials,
    ) -> tuple[str, list[str]]:
        """The request's target and its headers as lines; all of ``headers`` are signed, in which names are
        lower-case."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        day = moment[:8]
        signed = {**headers, "x-amz-date": moment}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        listed = ";".join(names)
        values = [f"{name}:{signed[name]}" for name in names]
        text = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
        canonical = "\n".join((method, path, text, *values, "", listed, signed["x-amz-content-sha256"]))
        scope = f"{day}/{self._region}/s3/aws4_request"
        to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = hmac.digest(self._key(credentials.secret_key, day), to_sign.encode(), "sha256").hex()
        lines = [f"{name}: {signed[name]}" for name in names]
        lines.append(
            f"authorization: {_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={listed},"
            f" Signature={signature}"
        )
        return f"{path}{'?' if text else ''}{text}", lines

    def _key(self, secret_key: str, day: str) -> bytes:
        (known_secret, known_day), key = self._known
        if (known_secret, known_day) != (secret_key, day):
            key = f"AWS4{secret_key}".encode()
            for step in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._known = ((secret_key, day), key)
        return key
