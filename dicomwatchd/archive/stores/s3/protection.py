"""What of a bucket's settings the deletion of local files leans on, looked at again and again.

A proof says what the store holds now; that it will hold it tomorrow hangs on nobody's being able to put something else
in its place, or to take it away. Two settings give that away at one blow, whatever role or program is at work: a bucket
that overwrites what is there and keeps no versions, and one that is open to everybody. (A rule that ends objects is the
third: see `expiry`.) What cannot be asked is no reason to keep anything: an installation goes on as it did.
"""

from __future__ import annotations

import threading
from typing import Any

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.aws.questions import Unanswered
from dicomwatchd.archive.stores.s3 import settings

#: So often in a row a store may have no time for these questions while it answers others; then it does not know them.
_LOOKS = 3

UNTIL_THEN = "it is not yet known whether the bucket's settings protect what it holds; local files are kept until then"
OVERWRITTEN = (
    "the store lets objects be overwritten, and the bucket keeps no versions: what is archived could be lost without a"
    " trace; local files are kept until the bucket has versioning"
)
PUBLIC = (
    "by its own settings the bucket is open to everybody ({because} it); local files are kept until these are mended"
)


class ProtectionWatch:
    """What is known of it for one bucket. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overwritten: str | None = None
        self._public: str | None = None
        self._is_known = False
        self._in_vain = 0

    def ask(self, client: Any, bucket: str, *, creates_only: bool) -> None:
        """``creates_only``: the probe has shown that a second creation is refused. Raises foreign errors where the
        store had no answer; what was known before is known still, and so it is where an answer is refused."""
        try:
            versions = "Enabled" if creates_only else settings.versioning(client, bucket)
            found = settings.exposure(client, bucket)
        except aws.FOREIGN:
            with self._lock:
                self._in_vain += 1
                self._is_known = self._is_known or self._in_vain >= _LOOKS
            raise
        with self._lock:
            self._is_known, self._in_vain = True, 0
            if not isinstance(versions, Unanswered):
                self._overwritten = None if versions == "Enabled" else OVERWRITTEN
            if found.is_public is not None:
                self._public = PUBLIC.format(because=found.because) if found.is_public else None

    @property
    def why(self) -> str | None:
        """Why no local file may be deleted now, in plain words; None where nothing speaks against it."""
        with self._lock:
            return (self._overwritten or self._public) if self._is_known else UNTIL_THEN
