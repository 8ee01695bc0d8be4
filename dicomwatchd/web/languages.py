"""In which language a person reads."""

from __future__ import annotations

from starlette.requests import Request

LANGUAGES = ("en", "de")
#: What each calls itself.
NAMES = {"en": "English", "de": "Deutsch"}
#: Remembers what was chosen on a page.
COOKIE = "page_language"


def language_of(request: Request) -> str:
    """In which whoever asks reads: one of `LANGUAGES`."""
    return preferred(request.headers.get("accept-language", ""), request.cookies.get(COOKIE))


def preferred(accept_language: str, chosen: str | None) -> str:
    """The language that was chosen, or that the browser asks for first (RFC 9110 12.5.4); English where it wants
    neither."""
    if chosen in LANGUAGES:
        return str(chosen)
    wanted: list[tuple[float, int, str]] = []
    for number, part in enumerate(accept_language.split(",")[:20]):
        name, _, parameters = part.strip().partition(";")
        weight = 1.0
        if parameters.strip().startswith("q="):
            try:
                weight = float(parameters.strip()[2:])
            except ValueError:
                weight = 0.0
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES and weight > 0:
            wanted.append((-weight, number, language))
    return min(wanted)[2] if wanted else "en"
