"""Whether the bucket would end the archive's objects by itself: what its lifecycle rules say, and what answers say.

Two sources, for neither is complete: the rules (GetBucketLifecycleConfiguration), which not every daemon may read and
not every store has; and the header x-amz-expiration, by which S3 tells in its answers to PutObject, HeadObject and
GetObject when a rule will end that object.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import botocore.exceptions

from dicomwatchd.archive import keys
from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.archive.stores.port import Expiry
from dicomwatchd.archive.stores.s3 import cold
from dicomwatchd.config.archive import AcceptExpiry, ExpiryAfter, ObjectTag

#: What of the archive is to stay. Objects of the probe are made to expire.
_KEPT = (keys.STUDIES, keys.AUDIT, keys.IDENTITY)
_NONE = frozenset(("NoSuchLifecycleConfiguration", "NoSuchLifecycle"))
#: Throttled, or something in front of the store that cannot reach it.
_LATER = frozenset((429, 502, 503, 504))
_NAMED = cold.CLASSES | {"INTELLIGENT_TIERING", "GLACIER_IR", "STANDARD_IA", "ONEZONE_IA"}
_EXPIRY_DATE = re.compile(r'expiry-date="([^"]*)"')
_RULE_ID = re.compile(r'rule-id="([^"]*)"')
#: Objects that were said to expire, and are asked for again to learn whether they still are.
_REMEMBERED = 4
#: The date is that of the store, rounded up to a midnight; when an object was stored may be by our clock.
_CLOCKS_DIFFER_DAYS = 1.0

WAITS = "local files are kept until that rule is removed or allowed by archive.store.accept_expiry"


def unaccepted_days(accepts: AcceptExpiry, days: float) -> bool:
    """Whether an end so many days after an object was stored is one that nobody has said yes to."""
    return days < accepts.after_days if isinstance(accepts, ExpiryAfter) else not accepts


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rules of a bucket mean for the archive: why deletion has to wait, and what else is worth knowing.
    ``ending_nothing`` are the names of rules that end no current object, whatever a store says of them: Ceph 18 answers
    with x-amz-expiration for a rule that is for noncurrent versions only. ``is_by_tag``: as in `Expiry`."""

    unaccepted: str | None
    notes: tuple[str, ...]
    ending_nothing: frozenset[str] = frozenset()
    is_by_tag: bool = False


def judge(
    rules: Iterable[Mapping[str, Any]], prefix: str, accepts: AcceptExpiry, tag: ObjectTag | None = None
) -> Judged:
    """``prefix`` is that of the archive in its bucket, ``tag`` the one that its instances and bundles are stored with:
    a rule for it is a rule for them."""
    unaccepted, notes, is_by_tag = [], [], False
    rules = list(rules)
    ending_nothing = {str(rule["ID"]) for rule in rules if rule.get("ID") and not _ends(rule.get("Expiration") or {})}
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _concerns(rule, prefix):
            continue
        tags = _tags(rule)
        with_others = any(one != (tag and (tag.key, tag.value)) for one in tags)
        for what, days in _ends(rule.get("Expiration") or {}):
            if with_others:
                is_by_tag = is_by_tag or unaccepted_days(accepts, days)
                notes.append(
                    f"a rule expires objects {what} if they carry its tags, which the archive's objects do not"
                )
            elif unaccepted_days(accepts, days):
                unaccepted.append(f"a lifecycle rule of the bucket expires objects of the archive {what}")
            else:
                notes.append(f"a rule expires objects of the archive {what}, as archive.store.accept_expiry allows")
        if rule.get("NoncurrentVersionExpiration"):
            notes.append(
                "a rule expires noncurrent versions, also those under delete markers: these can then not be fetched"
            )
        notes += _about_transitions(rule, is_for_all=not tags, is_for_others=with_others)
    why = f"{unaccepted[0]}; {WAITS}" if unaccepted else None
    return Judged(why, tuple(dict.fromkeys(notes)), frozenset(ending_nothing), is_by_tag)


def _about_transitions(rule: Mapping[str, Any], *, is_for_all: bool, is_for_others: bool) -> Iterator[str]:
    """What it means that a rule moves objects; one for everything moves manifests, too."""
    moves = [(one.get("StorageClass"), one.get("Days")) for one in rule.get("Transitions") or ()]
    to_cold = any(storage_class in cold.CLASSES for storage_class, _ in moves)
    if is_for_all and to_cold:
        yield (
            "a rule moves objects to cold storage, and manifests with them: until they are restored a study can neither"
            " be fetched nor added to; set archive.store.tag, and a rule for it instead (dicomwatchctl archive init"
            " --lifecycle)"
        )
    if is_for_all or is_for_others:
        return
    for storage_class, days in moves:
        name = storage_class if storage_class in _NAMED else "another storage class"
        when = f" {int(days)} days after they were stored" if days is not None else ""
        yield f"a rule moves instances and bundles to {name}{when}"
    if to_cold:
        yield "what a rule has moved to cold storage must be restored to be fetched (dicomwatchctl fetch --restore)"


def _concerns(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule's prefix covers anything of the archive that is to stay, or lies within it."""
    its = _prefix(rule)
    return any(its.startswith(prefix + kept) or (prefix + kept).startswith(its) for kept in _KEPT)


def _prefix(rule: Mapping[str, Any]) -> str:
    """Given in one of three places, or nowhere: then the rule is for the whole bucket."""
    filtered = rule.get("Filter") or {}
    found = filtered.get("Prefix") or (filtered.get("And") or {}).get("Prefix") or rule.get("Prefix")
    return str(found or "")


def _tags(rule: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Keys and values; an object has to carry all of them."""
    filtered = rule.get("Filter") or {}
    found = [*filter(None, [filtered.get("Tag")]), *((filtered.get("And") or {}).get("Tags") or ())]
    return [(one.get("Key"), one.get("Value")) for one in found]


def _ends(expiration: Mapping[str, Any]) -> list[tuple[str, float]]:
    """How a rule ends current objects, in words, and after how many days. The removal of delete markers with nothing
    under them is none; an end at a date comes to whatever was stored a moment before, too."""
    ends: list[tuple[str, float]] = []
    if days := expiration.get("Days"):
        ends.append((f"{int(days)} days after they were stored", float(days)))
    if at := expiration.get("Date"):
        ends.append((f"on {at:%Y-%m-%d}" if isinstance(at, datetime) else "at a date", 0.0))
    return ends


def aborts_after_days(rules: Iterable[Mapping[str, Any]], prefix: str) -> int | None:
    """After how many days a rule ends uploads to anywhere below ``prefix`` that were never completed; None: never."""
    found = [
        int((rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation") or 0)
        for rule in rules
        if rule.get("Status") == "Enabled" and prefix.startswith(_prefix(rule)) and not _tags(rule)
    ]
    return min(filter(None, found), default=None)


class ExpiryWatch:
    """What is known of it for one archive. Safe to use from many threads. ``now`` in seconds since the epoch."""

    def __init__(
        self, prefix: str, accepts: AcceptExpiry, now: Callable[[], float], tag: ObjectTag | None = None
    ) -> None:
        self._prefix, self._accepts, self._now, self._tag = prefix, accepts, now, tag
        self._lock = threading.Lock()
        self._judged: Judged | None = None
        self._asked = False
        #: Key to why, and by which rule: answers said so of these objects.
        self._expiring: dict[str, tuple[str, str | None]] = {}

    def noted(self, key: str, header: str | None, stored_at: datetime | None) -> None:
        """An answer about the object under ``key`` (without prefix), with its x-amz-expiration, None if it had none."""
        if header is None and key not in self._expiring:
            return
        why = None if header is None or not key.startswith(_KEPT) else self._why(header, stored_at)
        with self._lock:
            if why is None:
                self._expiring.pop(key, None)
            elif key in self._expiring or len(self._expiring) < _REMEMBERED:
                named = _RULE_ID.search(header or "")
                self._expiring[key] = why, unquote(named[1]) if named else None

    def _why(self, header: str, stored_at: datetime | None) -> str | None:
        found, end = _EXPIRY_DATE.search(header), None
        with suppress(ValueError, TypeError):
            end = parsedate_to_datetime(found[1]) if found else None
        if end is None:
            days, when = -math.inf, "at some time"
        else:
            end = end if end.tzinfo else end.replace(tzinfo=UTC)
            stored = stored_at or datetime.fromtimestamp(self._now(), UTC)
            days, when = (end - stored) / timedelta(days=1), f"on {end:%Y-%m-%d}"
        if not unaccepted_days(self._accepts, days + _CLOCKS_DIFFER_DAYS):
            return None
        return f"the store says that it will expire objects of the archive, one of them {when}; {WAITS}"

    def ask(self, client: Any, bucket: str, exists: Callable[[str], bool]) -> None:
        """Ask for the rules, and for the objects that were said to expire; ``exists`` looks at one, and its answer
        comes to `noted`. Raises as ``exists`` does, and foreign errors where there was no answer at all."""
        rules = _rules(client, bucket)
        if rules is not None:
            judged = judge(rules, self._prefix, self._accepts, self._tag)
            with self._lock:
                self._judged = judged
        for key in (keys.IDENTITY, *list(self._expiring)):
            # What has ended is no sign that the rule is gone; that no rule ends anything is one.
            if not exists(key) and self._judged is not None and self._judged.unaccepted is None:
                with self._lock:
                    self._expiring.pop(key, None)
        self._asked = True

    @property
    def found(self) -> Expiry:
        with self._lock:
            judged, said = self._judged, list(self._expiring.values())
        nothing = judged.ending_nothing if judged is not None else frozenset()
        seen = next((why for why, rule in said if rule not in nothing), None)
        notes = judged.notes if judged is not None else ()
        is_by_tag = judged is not None and judged.is_by_tag
        if not self._asked:
            return Expiry(
                f"it is not yet known whether lifecycle rules of the store expire objects; {_UNTIL_THEN}", False, notes
            )
        unaccepted = (judged.unaccepted if judged is not None else None) or seen
        return Expiry(unaccepted, judged is not None, notes, is_by_tag)


_UNTIL_THEN = "local files are kept until then"


def _rules(client: Any, bucket: str) -> list[Mapping[str, Any]] | None:
    """The bucket's rules; None where it does not tell them: the daemon may not ask, or the store knows no such
    question, which stores answer in many ways. That it has no time now is no answer: raised as it comes."""
    try:
        return list(client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", []))
    except botocore.exceptions.ClientError as error:
        if aws.http_status(error) in _LATER:
            raise
        return [] if aws.error_code(error) in _NONE else None
