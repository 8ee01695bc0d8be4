"""A text that a browser keeps for us for a while, and cannot change: what a log-in at the provider has to know when it
comes back. On the server it would be a store that anybody can fill."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from dicomwatchd.ports import Clock


class Signed:
    """``key`` is random, of this process, and of this use alone."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key, self._clock = key, clock

    def seal(self, values: Any, seconds: float) -> str:
        """``values`` as JSON, for a cookie; it holds for so long, by a clock that nobody sets."""
        text = json.dumps({"until": self._clock.monotonic() + seconds, "values": values}, separators=(",", ":"))
        body = urlsafe_b64encode(text.encode()).decode().rstrip("=")  # of which no cookie may have one
        return f"{body}.{self._mac(body)}"

    def open(self, sealed: str) -> Any:
        """None for what we have not sealed, or too long ago."""
        body, _, mac = sealed.partition(".")
        if not hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), self._mac(body).encode()):
            return None
        found: dict[str, Any] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return found["values"] if self._clock.monotonic() < found["until"] else None

    def _mac(self, body: str) -> str:
        return hmac.new(self._key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
