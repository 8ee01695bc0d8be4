"""The cookies, by their names and what browsers are told of them."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope


class Cookie:
    """One cookie of ours. ``secure``: whether browsers come by https; over plain http, on this machine alone, they
    would not keep the names with __Host-, which no other host, path or plain page can set."""

    def __init__(self, name: str, *, secure: bool) -> None:
        self.name = f"__Host-{name}" if secure else name
        self._secure = secure

    def of(self, scope: Scope) -> str | None:
        """Its value. Raises HTTPException where it is there twice: one of the two was put there by somebody else."""
        found = [
            value.strip()
            for header in Headers(scope=scope).getlist("cookie")
            for name, _, value in (part.partition("=") for part in header.split(";"))
            if name.strip() == self.name
        ]
        if len(found) > 1:
            raise HTTPException(400)
        return found[0] if found else None

    def put(self, response: Response, value: str, *, max_age_seconds: int) -> None:
        response.set_cookie(
            self.name, value, max_age=max_age_seconds, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def take(self, response: Response) -> None:
        response.delete_cookie(self.name, path="/", secure=self._secure, httponly=True, samesite="lax")
