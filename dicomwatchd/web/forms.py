"""Forms as our own pages send them: few fields, each once."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

_MOST_FIELDS = 16


async def fields(request: Request) -> dict[str, str]:
    """By their names, without blanks around the values. Raises HTTPException for what is no such form."""
    try:
        pairs = parse_qsl((await request.body()).decode("utf-8"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise HTTPException(400) from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise HTTPException(400)
    return {name: value.strip() for name, value in pairs}
