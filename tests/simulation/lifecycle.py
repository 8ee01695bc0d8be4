"""A rule by which the bucket would end objects: somebody sets it, and takes it away. Its answers tell of it, as S3's,
and a daemon that may read the rules finds it there; what follows is for the ExpiryWatch of the program to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import botocore.exceptions

from dicomwatchd.archive.stores.port import Expiry
from dicomwatchd.archive.stores.s3.expiry import ExpiryWatch

#: Long past: by when the objects are to end is of no account here, none is ended.
_HEADER = 'expiry-date="Fri, 21 Dec 2012 00:00:00 GMT", rule-id="tidy"'


@dataclass
class Lifecycle:
    """``prefix`` is that of the rule, None while there is none; ``number`` counts the rules that there have been."""

    prefix: str | None = None
    number: int = 0

    def change(self, random: Random) -> None:
        if self.prefix is not None:
            self.prefix = None
        else:
            self.prefix = random.choice(("", "studies/", "studies/1.2.1/"))
            self.number += 1

    def header(self, key: str) -> str | None:
        return _HEADER if self.prefix is not None and key.startswith(self.prefix) else None


class Watched:
    """What one daemon knows of it, from its start on."""

    def __init__(self, lifecycle: Lifecycle, *, may_read: bool, now: Callable[[], float]) -> None:
        self._lifecycle, self._may_read = lifecycle, may_read
        self._watch = ExpiryWatch("", False, now)
        self._told = 0  # the number of the rule that it was last told of

    @property
    def told(self) -> int:
        """The number of the rule that is in force, if it was told of it; else 0."""
        return self._told if self._lifecycle.prefix is not None and self._told == self._lifecycle.number else 0

    @property
    def found(self) -> Expiry:
        return self._watch.found

    def answered(self, key: str) -> None:
        """The store has answered about the current object under this key."""
        header = self._lifecycle.header(key)
        self._watch.noted(key, header, None)
        if header is not None and key.startswith("studies/"):
            self._told = self._lifecycle.number

    def look(self, exists: Callable[[str], bool]) -> Expiry:
        """Raises as ``exists`` does."""
        rules = self._lifecycle.number if self._may_read and self._lifecycle.prefix is not None else 0
        self._watch.ask(self, "bucket", exists)
        self._told = rules or self._told
        return self.found

    def get_bucket_lifecycle_configuration(self, Bucket: str) -> dict[str, Any]:
        prefix = self._lifecycle.prefix
        if not self._may_read or prefix is None:
            code = "NoSuchLifecycleConfiguration" if self._may_read else "AccessDenied"
            raise botocore.exceptions.ClientError({"Error": {"Code": code}}, "GetBucketLifecycleConfiguration")
        return {
            "Rules": [{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 30}}]
        }
