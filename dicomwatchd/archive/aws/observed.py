"""What requests to the archive's services show beside what they were made for: how far the clocks are apart, and when
the credentials end.

It listens at a botocore session, so it sees the requests that botocore makes: those of the start, of errors, and a few
an hour. The bulk, which is not botocore's, is not looked at.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.session import Session

#: What a service says of credentials whose time is over.
_ENDED = frozenset(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"))
#: botocore renews what can be renewed, at its next use, from 15 minutes before the end, and lets no request go without
#: from 10 minutes before: what is not renewed soon after such a use cannot be.
_RENEWED_BEFORE_SECONDS = 600.0
_RENEWAL_SECONDS = 30.0
#: Of the kinds of credentials whose end is known this one alone is renewed by nobody: variables of the environment.
_FIXED = "env"


class Observed:
    """Safe to be called from any thread."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._ahead: deque[float] = deque(maxlen=2)
        self._asked_at: float | None = None
        self._refused = False
        self._credentials: Any = None

    def listen(self, session: Session) -> None:
        """To the clients that are made of this session from here on."""
        session.register("before-sign", self._on_sign)
        session.register("response-received", self._on_answer)

    def look_at(self, credentials: object) -> None:
        """Those that a client has just signed with; None: there were none."""
        self._credentials = credentials

    def ahead_seconds(self) -> float | None:
        """How far this machine's clock is ahead of the services' (negative: behind), by the smaller difference of the
        last two answers, as one may have been on its way for long. None: nobody has answered yet."""
        with self._lock:
            return min(self._ahead, key=abs) if len(self._ahead) == 2 else None

    def credentials_end_at(self) -> float | None:
        """When the credentials end that nobody will renew, in seconds since the epoch; None where that is not known, or
        they are renewed in time."""
        end = getattr(self._credentials, "_expiry_time", None)
        if end is None:
            return None
        ends_at = float(end.timestamp())
        if getattr(self._credentials, "method", None) == _FIXED:
            return ends_at
        with self._lock:
            asked_at = self._asked_at
        if (
            asked_at is None
            or self._now() - asked_at < _RENEWAL_SECONDS
            or ends_at - asked_at > _RENEWED_BEFORE_SECONDS
        ):
            return None
        return ends_at

    @property
    def credentials_have_ended(self) -> bool:
        """As the service has said to the last request that it has answered."""
        return self._refused

    def _on_sign(self, request_signer: object = None, **_: object) -> None:
        if request_signer is not None:
            self.look_at(getattr(request_signer, "_credentials", None))
        with self._lock:
            self._asked_at = self._now()

    def _on_answer(
        self,
        response_dict: Mapping[str, Any] | None = None,
        parsed_response: Mapping[str, Any] | None = None,
        **_: object,
    ) -> None:
        if response_dict is None:  # nobody has answered
            return
        error = (parsed_response or {}).get("Error") or {}
        self._refused = error.get("Code") in _ENDED
        try:
            at = parsedate_to_datetime(response_dict["headers"]["date"]).timestamp()
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # a service that says no time
        with self._lock:
            self._ahead.append(self._now() - at)
