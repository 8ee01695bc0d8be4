"""What a room says of its endpoints: which role they need, and how much they may be sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomwatchd.web.people import Person, Role

#: What a request's body may have where its endpoint says nothing else.
DEFAULT_BODY_BYTES = 64 << 10
BODY_LIMIT = "body_limit_bytes"

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def person_of(request: Request) -> Person:
    """Who asks. Raises HTTPException where nobody has logged in."""
    person = getattr(request.state, "person", None)
    if not isinstance(person, Person):
        raise HTTPException(401)
    return person


def needs(role: Role) -> Callable[[_Endpoint], _Endpoint]:
    """For an endpoint: whoever lacks the role gets 403, and the endpoint is not called."""

    def decorate(endpoint: _Endpoint) -> _Endpoint:
        def admit(request: Request) -> None:
            if not person_of(request).may(role):
                raise HTTPException(403)

        if iscoroutinefunction(endpoint):

            @wraps(endpoint)
            async def later(request: Request) -> Response:
                admit(request)
                answering: Awaitable[Response] = endpoint(request)
                return await answering

            return later  # type: ignore[return-value]

        @wraps(endpoint)
        def now(request: Request) -> Response:
            admit(request)
            answer: Response = endpoint(request)
            return answer

        return now  # type: ignore[return-value]

    return decorate


def accept_body(request: Request, size_bytes: int) -> None:
    """To be called before the body is read: it may have so many bytes."""
    setattr(request.state, BODY_LIMIT, size_bytes)
