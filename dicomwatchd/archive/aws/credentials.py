"""Credentials that follow the file they came from: a rotation must not need the daemon to be started anew.

botocore renews what expires by itself (instance roles, SSO, assumed roles); a key in a file it reads once and for good.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.credentials
import botocore.exceptions
import botocore.session
from botocore.credentials import Credentials, ReadOnlyCredentials

CHECK_SECONDS = 2.0
#: Nothing can change these from outside a running process.
_FIXED = ("env", "explicit")


class RereadCredentials(Credentials):
    """Long-lived credentials, loaded again when the ``signature`` of where they came from is not ``seen``; asked every
    ``CHECK_SECONDS`` while they are used. ``load`` gives None, or raises a BotoCoreError or OSError, where there are
    none now: then the last ones stay in use."""

    def __init__(
        self,
        first: Credentials,
        seen: object,
        signature: Callable[[], object],
        load: Callable[[], Credentials | None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(first.access_key, first.secret_key, first.token, first.method)
        self._current = first
        self._load = load
        self._signature = signature
        self._seen = seen
        self._monotonic = monotonic
        self._next = monotonic() + CHECK_SECONDS
        self._lock = threading.Lock()

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        with self._lock:
            if self._monotonic() >= self._next:
                self._next = self._monotonic() + CHECK_SECONDS
                if (signature := self._signature()) != self._seen and (found := self._found()) is not None:
                    self._seen, self._current = signature, found
            return self._current.get_frozen_credentials()

    def _found(self) -> Credentials | None:
        try:
            return self._load()
        except (botocore.exceptions.BotoCoreError, OSError):
            return None  # in the middle of being rewritten, perhaps


class Chain:
    """The standard chain, as botocore's component "credential_provider"."""

    def __init__(self, session: botocore.session.Session) -> None:
        self._session = session

    def load_credentials(self) -> Credentials | None:
        files = [self._session.get_config_variable(name) for name in ("credentials_file", "config_file")]
        before = _signature(files)
        found: Any = botocore.credentials.create_credential_resolver(self._session).load_credentials()
        if type(found) is not Credentials or found.method in _FIXED:
            return found  # type: ignore[no-any-return]
        return RereadCredentials(found, before, lambda: _signature(files), lambda: _load_again(found.method))


def _signature(files: list[str | None]) -> object:
    """Changes when one of the files does."""
    signature: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = Path(file or "").expanduser().stat()
            signature.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            signature.append(None)
    return signature


def _load_again(method: str) -> Credentials | None:
    """From the same kind of source only: another one further down the chain is another identity."""
    resolver: Any = botocore.credentials.create_credential_resolver(botocore.session.Session())
    provider = next((one for one in resolver.providers if method == one.METHOD), None)
    found = provider.load() if provider is not None else None
    return found if type(found) is Credentials else None
