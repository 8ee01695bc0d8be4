"""Questions about a service's own settings, which it need not answer: whoever asks may not, or it has no such question.

That is an answer of its own (`Unanswered`), never taken for a yes or a no.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import botocore.exceptions

from dicomwatchd.archive.aws import clients as aws
from dicomwatchd.errors import CredentialsRefused

_T = TypeVar("_T")

#: Throttled, or something in front of the store that cannot reach it: no answer to the question.
_LATER = frozenset((429, 502, 503, 504))
#: What is said in the place of a service's word where what it answers is no answer to this question.
OTHER_SHAPE = "something that is no answer"
#: By these a store says that it has no such thing at all.
_NO_SUCH_QUESTION = frozenset(("NotImplemented", "MethodNotAllowed", "UnknownOperationException", "501", "405"))


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question without an answer. ``right`` is the IAM action that it takes, ``code`` what the service said;
    ``is_refused``: whoever asks may not; ``is_unknown_there``: the service has no such question."""

    right: str
    code: str
    is_refused: bool
    is_unknown_there: bool


def asked(right: str, question: Callable[[], _T], absent: frozenset[str] = frozenset()) -> _T | Unanswered | None:
    """The answer; None where the service says by one of these codes that nothing is set. What ``question`` does not
    find in an answer (LookupError, TypeError, AttributeError) was none. Raises foreign errors where there was no answer
    at all, or the service has no time for one."""
    try:
        return question()
    except botocore.exceptions.ClientError as error:
        code = aws.error_code(error)
        if aws.http_status(error) in _LATER:
            raise
        if code in absent:
            return None
        is_refused = isinstance(aws.translate(error, operation="ask", endpoint="s3"), CredentialsRefused)
        return Unanswered(right, code, is_refused, code in _NO_SUCH_QUESTION)
    except (LookupError, TypeError, AttributeError):
        return Unanswered(right, OTHER_SHAPE, is_refused=False, is_unknown_there=False)
