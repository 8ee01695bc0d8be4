"""How long an answer of a service may take to come."""

from __future__ import annotations

#: Until it begins, and from one piece of it to the next.
ANSWER_SECONDS = 60.0
#: So slow may a body come, beside the time for an answer; the slowest line that an archive is of use on is faster.
BODY_BYTES_PER_SECOND = 4096


def body_seconds(length_bytes: int) -> float:
    """How long a body of this length may be waited for, in all."""
    return ANSWER_SECONDS + length_bytes / BODY_BYTES_PER_SECOND
