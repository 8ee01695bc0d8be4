"""Tokens for dicomwatchd-web: a file of their hashes, which `dicomwatchctl web token` writes and the web process reads.

A token is 256 random bits, so its plain SHA-256 tells nothing of it, and nobody can try them all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.errors import Permanent, StateFailed, StateUnavailable

FILE_NAME = "tokens.json"
ROLES = ("read", "upload", "administrate")
#: So that a token is recognised where it should not be: in a log, in a repository.
PREFIX = "dicomwatchd_"
#: A token's name is in the record of access and in lists.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")

_FORMAT = 1
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Token:
    """``sha256`` is that of the token's text; times are seconds since the epoch, and ``expires_at`` None for never."""

    name: str
    sha256: str
    roles: tuple[str, ...]
    made_at: float
    expires_at: float | None

    def holds_at(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at


class TokenFile:
    """The file as a command changes it. One at a time: the folder is locked by nobody else than a person."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> tuple[Token, ...]:
        """None of them where there is no file. Raises StateFailed, StateUnavailable."""
        try:
            descriptor = os.open(self._folder / FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _unavailable("read") from error
        with os.fdopen(descriptor, "rb") as file:
            return _parsed(file.read(_MOST_BYTES + 1))

    def add(self, name: str, roles: Iterable[str], now: float, expires_at: float | None) -> str:
        """A new token, whose text nobody can ask for again. Raises Permanent, StateFailed, StateUnavailable."""
        if not NAME.match(name):
            raise Permanent("a token's name is of letters, digits, '_', '.' and '-'", code="token-name")
        known = self.read()
        if any(one.name == name for one in known):
            raise Permanent("there is a token of this name", code="token-exists", hint="revoke it first")
        text = PREFIX + secrets.token_urlsafe(32)
        token = Token(name, sha256_of(text), tuple(one for one in ROLES if one in set(roles)), now, expires_at)
        self._write((*known, token))
        return text

    def revoke(self, name: str) -> bool:
        """Whether there was one. Raises StateFailed, StateUnavailable."""
        known = self.read()
        left = tuple(one for one in known if one.name != name)
        if len(left) == len(known):
            return False
        self._write(left)
        return True

    def _write(self, tokens: tuple[Token, ...]) -> None:
        """Whole or not at all, and the folder's owner's: who writes here may be root, who reads it is not."""
        text = json.dumps({"format": _FORMAT, "tokens": [asdict(one) for one in tokens]}, indent=1)
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._put(folder, text)
            finally:
                os.close(folder)
        except OSError as error:
            raise _unavailable("write") from error

    @staticmethod
    def _put(folder: int, text: str) -> None:
        name = f".{FILE_NAME}.{secrets.token_hex(8)}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                owner = os.fstat(folder)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                os.fsync(file.fileno())
            os.rename(name, FILE_NAME, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise


class Tokens:
    """The tokens as the web process knows them: read again when the file was changed. Safe from many threads.

    A file that is there and cannot be read holds no token: ``unreadable`` is told then.
    """

    def __init__(self, folder: Path, now: Callable[[], float], unreadable: Callable[[StateFailed], None]) -> None:
        self._path, self._file = folder / FILE_NAME, TokenFile(folder)
        self._now, self._unreadable = now, unreadable
        self._lock = threading.Lock()
        self._seen: object = None
        self._known: tuple[Token, ...] = ()

    def named_by(self, text: str) -> Token | None:
        """The token of this text, if it holds now."""
        wanted, found = sha256_of(text), None
        for one in self._current():
            # All of them, whichever it is: how long it takes tells nothing.
            if hmac.compare_digest(one.sha256, wanted):
                found = one
        return found if found is not None and found.holds_at(self._now()) else None

    def holding(self, sha256: str) -> Token | None:
        """The token of this hash as it is now, if it has been neither revoked nor run out."""
        return next((one for one in self._current() if one.sha256 == sha256 and one.holds_at(self._now())), None)

    def _current(self) -> tuple[Token, ...]:
        with self._lock:
            try:
                found = self._path.lstat()
                seen: object = (found.st_ino, found.st_size, found.st_mtime_ns)
            except FileNotFoundError:
                seen = "none"
            except OSError:
                seen = "refused"
            if seen != self._seen:
                self._known = ()
                try:
                    self._known = self._file.read()
                except (StateFailed, StateUnavailable) as error:
                    self._unreadable(StateFailed(error.message, code=error.code, hint=error.hint))
                self._seen = seen
            return self._known


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parsed(data: bytes) -> tuple[Token, ...]:
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT or len(data) > _MOST_BYTES:
            raise ValueError
        return tuple(_token(one) for one in document["tokens"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateFailed(
            "the file of the tokens cannot be understood", code="state-tokens", hint="remove it and make new tokens"
        ) from error


def _token(data: dict[str, Any]) -> Token:
    expires_at = data["expires_at"]
    if not (isinstance(data["name"], str) and NAME.match(data["name"])):
        raise ValueError
    if not re.fullmatch(r"[0-9a-f]{64}", data["sha256"]) or not set(data["roles"]) <= set(ROLES):
        raise ValueError
    return Token(
        data["name"],
        data["sha256"],
        tuple(data["roles"]),
        float(data["made_at"]),
        None if expires_at is None else float(expires_at),
    )


def _unavailable(doing: str) -> StateUnavailable:
    return StateUnavailable(
        f"cannot {doing} the file of the tokens", code="state-tokens", hint="run it as root or as the web process' user"
    )
