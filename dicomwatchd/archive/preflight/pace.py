"""How long the store takes to answer, what that means for a study, and how its clock stands to ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.stores.s3.bucket import S3Bucket
from dicomwatchd.findings import Finding

CLOCK = "clock"
LATENCY = "store: latency"
#: Requests that are measured, after one that opens the connection.
LOOKS = 9
STUDY_FILES = 1000
#: A Date has whole seconds, and an answer is some time on its way.
GOOD_SKEW_SECONDS = 5.0
#: Services refuse what is signed by a clock that differs by 15 minutes (RequestTimeTooSkewed).
BAD_SKEW_SECONDS = 300.0
SLOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """``seconds`` that each request took; ``ahead_seconds`` by how much our clock is ahead of the store's, None where
    the store does not say its time."""

    seconds: tuple[float, ...]
    ahead_seconds: float | None


def measure(bucket: S3Bucket, now: Callable[[], float], monotonic: Callable[[], float]) -> Pace:
    """HeadObject of the archive's identity, one after the other. Raises foreign errors."""
    seconds, ahead = [], []
    for number in range(LOOKS + 1):
        began, began_at = monotonic(), now()
        answer: Any = bucket.client.head_object(**bucket.address(keys.IDENTITY))
        took = monotonic() - began
        if number:
            seconds.append(took)
        with suppress(KeyError, ValueError, TypeError):
            said = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
            # The fraction that a Date leaves out is half a second on average, and it was written half-way.
            ahead.append(began_at + took / 2 - (said + 0.5))
    return Pace(tuple(seconds), median(ahead) if ahead else None)


def findings(pace: Pace, workers: int) -> Iterator[Finding]:
    yield _clock(pace.ahead_seconds)
    yield _latency(pace.seconds, workers)


def _clock(ahead_seconds: float | None) -> Finding:
    if ahead_seconds is None:
        return Finding(CLOCK, "unknown", "the store does not say its time")
    apart = abs(ahead_seconds)
    if apart <= GOOD_SKEW_SECONDS:
        return Finding(CLOCK, "good", "this machine's clock and the store's agree within a few seconds")
    where = "ahead of" if ahead_seconds > 0 else "behind"
    text = f"this machine's clock is {apart:,.0f} s {where} the store's; at 900 s stores refuse every request"
    fix = "synchronise this machine's clock (timedatectl, chrony)"
    return Finding(CLOCK, "bad" if apart > BAD_SKEW_SECONDS else "note", text, fix)


def _latency(seconds: tuple[float, ...], workers: int) -> Finding:
    typical = median(seconds)
    alone, together = STUDY_FILES * typical, STUDY_FILES * typical / workers
    text = (
        f"a small request takes {_ms(typical)} (median of {len(seconds)}, {_ms(min(seconds))} to {_ms(max(seconds))}):"
        f" about {1 / max(typical, 1e-6):,.0f} requests a second on one connection. With a study of {STUDY_FILES:,}"
        f" files, each an object, the answers alone take {_s(alone)} on one connection and {_s(together)} with all"
        f" {workers} workers; reading, hashing and sending the bytes comes on top"
    )
    if typical <= SLOW_SECONDS:
        return Finding(LATENCY, "good", text)
    fix = "find out what is slow on the way (ping, traceroute); the bundled layout sends fewer, larger objects"
    return Finding(LATENCY, "note", text, fix)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _s(seconds: float) -> str:
    return f"{seconds:,.1f} s"
