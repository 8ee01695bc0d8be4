"""From an answer to a page: templates that escape whatever they are given, in the language of whoever reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicomwatchd.plain_text import clean
from dicomwatchd.web.languages import COOKIE, LANGUAGES, NAMES, language_of
from dicomwatchd.web.pages import dates
from dicomwatchd.web.pages.words import Words
from dicomwatchd.web.people import Person, Role

_YEAR_SECONDS = 365 * 86400
#: No page is kept by a browser on a machine that several people use, nor found there by going back after a log-out.
NOT_KEPT = {"Cache-Control": "no-store"}


class Pages:
    """``log_out`` is where logging out is posted, "" where that is nothing of ours."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]], log_out: str) -> None:
        self._words = {language: Words(language, texts[language]) for language in LANGUAGES}
        self._log_out = log_out
        self._templates = Environment(
            loader=PackageLoader("dicomwatchd.web.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.finalize = _shown

    def words(self, request: Request) -> Words:
        return self._words[language_of(request)]

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        words = self.words(request)
        person: Person = request.state.person
        html = self._templates.get_template(template).render(
            t=words,
            language=words.language,
            languages=NAMES,
            person=person,
            may_read=person.may(Role.READ),
            may_upload=person.may(Role.UPLOAD),
            may_administrate=person.may(Role.ADMINISTRATE),
            here=request.url.path,
            log_out=self._log_out,
            day=lambda value: dates.shown(value, words.language),
            moment=lambda value: dates.moment(value, words.language),
            **values,
        )
        return HTMLResponse(html, status, headers={**NOT_KEPT, "Content-Language": words.language})

    def problem(self, request: Request, status: int, name: str, **values: object) -> Response:
        """Something that is not to be had, in a sentence."""
        return self.page(request, "problem.html", status, sentence=self.words(request)(name, **values))


def _shown(value: object) -> object:
    """Nothing that hides or turns text, whatever a file has in its attributes."""
    return clean(value) if type(value) is str else value


def of_role(request: Request, role: Role) -> Person:
    """Who asks, if he may. Raises HTTPException."""
    person = getattr(request.state, "person", None)
    if not isinstance(person, Person):
        raise HTTPException(401)
    if not person.may(role):
        raise HTTPException(403)
    return person


async def choose_language(request: Request) -> Response:
    """Remembered by the browser; then back to the page, which is one of ours whatever is asked for."""
    form = await request.form(max_files=0, max_fields=4)
    language, back = form.get("language"), str(form.get("back", "/"))
    is_ours = back.startswith("/") and not back.startswith("//") and "\\" not in back and back.isprintable()
    answer = RedirectResponse(back if is_ours else "/", 303)
    if language in LANGUAGES:
        answer.set_cookie(
            COOKIE,
            str(language),
            max_age=_YEAR_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
    return answer
