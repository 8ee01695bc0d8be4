"""What a request must be like before anybody asks whose it is: its host, its headers, where it comes from, its size."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomwatchd.config.web import is_local
from dicomwatchd.web.needs import BODY_LIMIT, DEFAULT_BODY_BYTES

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
#: Twice in one request, two programs could take either of them.
_ONCE = ("host", "authorization", "origin", "sec-fetch-site", "content-type")
_CONTROL = re.compile(r"[\x00-\x1f]")
#: The longest is of a thousand frames, each by its number.
_MOST_PATH_BYTES = 8192
_MOST_QUERY_BYTES = 8192


class Sound:
    """ASGI: refuses what is called by another host's name, what is said twice, what is too long, and bodies above what
    an endpoint takes. ``hosts`` are the values of Host that are ours, lower-case."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            raise HTTPException(405)
        if any(len(headers.getlist(name)) > 1 for name in _ONCE):
            raise HTTPException(400)
        if "content-length" in headers and "transfer-encoding" in headers:
            raise HTTPException(400)  # where the body ends, two programs see twice
        if headers.get("host", "").lower() not in self._hosts:
            raise HTTPException(421)  # DNS rebinding, and links made of a forged name
        raw_path: bytes = scope.get("raw_path") or b""
        if len(raw_path) > _MOST_PATH_BYTES or len(scope["query_string"]) > _MOST_QUERY_BYTES:
            raise HTTPException(414)
        if not _is_plain(scope["path"], raw_path):
            raise HTTPException(400)
        scope.setdefault("state", {})[BODY_LIMIT] = DEFAULT_BODY_BYTES
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > scope["state"][BODY_LIMIT]:
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)


def _is_plain(path: str, raw_path: bytes) -> bool:
    """No segment that leads up, nothing that another program would read in another way."""
    if not path.startswith("/") or path.startswith("//") or "\\" in path or _CONTROL.search(path):
        return False
    lowered = raw_path.lower()
    if b"%2f" in lowered or b"%5c" in lowered or b"%00" in lowered:
        return False
    return not {".", ".."} & set(path.split("/"))


def comes_from_ourselves(scope: Scope, origin: str) -> bool:
    """Whether an unsafe request was made by a page of ours, and by no other site's (CSRF).

    Browsers say so in Sec-Fetch-Site, on https and on localhost, which scripts cannot forge; older ones in Origin. What
    has neither was made by no browser that is in use, and a session is of no use to it: it is refused.

    A token in the page would say the same, but every page and script would have to carry it, those of the viewer,
    which are not ours, too. SameSite=Lax of the cookie is the second line.
    """
    if scope["method"] in _SAFE:
        return True
    headers = Headers(scope=scope)
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return headers.get("origin", "").lower() == origin


def hosts_of(origin: str, listen: str) -> frozenset[str]:
    """What Host may say: the public name, and the address that is listened on, for whoever is on this machine. Without
    a port, too, as dicomweb-client says it whatever the port is: the name is what a page of another site lacks."""
    parts = urlsplit(origin)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    local = {f"localhost:{port}"} if is_local(parts.hostname or "") else set()
    return frozenset({parts.netloc.lower(), f"{host}:{port}", f"{host}", listen.lower()}) | local
