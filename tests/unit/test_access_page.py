"""The page of the record of access: for whoever administrates, and with nothing in an address."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from dicomwatchd.access.record import AccessRecord
from dicomwatchd.model import Uid
from dicomwatchd.web.pages import access
from dicomwatchd.web.pages.rendering import Pages
from dicomwatchd.web.pages.words import load
from dicomwatchd.web.people import Person, Role
from tests.asgi import Answer, asked

CHIEF = Person("chief", frozenset({Role.ADMINISTRATE}))
DAY = datetime(2026, 1, 1).astimezone().timestamp()  # by this machine's clock, as people mean it


@pytest.fixture
def record(tmp_path: Path) -> AccessRecord:
    record = AccessRecord(tmp_path, writing=True)
    for number in range(5):
        record.append(DAY + number * 43200, "<b>müller" if number % 2 else "meier", "frames", Uid(f"1.2.{number}"))
    return record


def ask(record: AccessRecord, who: Person = CHIEF, target: str = "/access", /, **form: str) -> Answer:
    body = urlencode(form).encode()
    method = "POST" if form else "GET"
    page = access.AccessPages(Pages(load(), ""), record, lambda: date(2026, 2, 1)).access
    app = Router([Route("/access", page, methods=["GET", "POST"])])
    return asked(app, target, method, body=body, state={"person": who})


def entries(answer: Answer) -> list[int]:
    return [int(one) for one in re.findall(r">(\d+)</td></tr>", answer.text)]


def test_it_is_for_who_administrates(record: AccessRecord) -> None:
    assert entries(ask(record)) == [5, 4, 3, 2, 1]
    forms: tuple[dict[str, str], ...] = ({}, {"person": "meier"})
    for form in forms:
        answer = ask(record, Person("x", frozenset({Role.READ, Role.UPLOAD})), **form)
        assert isinstance(answer.torn, HTTPException) and answer.torn.status_code == 403 and answer.body == b""


def test_it_finds_by_whom_what_and_when(record: AccessRecord) -> None:
    assert entries(ask(record, person="meier")) == [5, 3, 1]
    assert entries(ask(record, study="1.2.3")) == [4]
    assert entries(ask(record, **{"from": "2026-01-02"})) == [5, 4, 3]
    assert entries(ask(record, to="2026-01-01")) == [2, 1], "all of that day"
    assert entries(ask(record, **{"from": "2026-01-02", "to": "2026-01-02"})) == [4, 3]
    assert "No entry matches." in ask(record, person="nobody").text


def test_what_is_shown_is_text(record: AccessRecord) -> None:
    page = ask(record, person="<b>müller").text
    assert "<b>" not in page and ">&lt;b&gt;müller</td>" in page and 'value="&lt;b&gt;müller"' in page
    assert "<script>" not in ask(record, study="<script>").text


def test_what_is_no_search_is_said(record: AccessRecord) -> None:
    for name, value, said in (
        ("from", "yesterday", "from-problem"),
        ("to", "2026-13-01", "to-problem"),
        ("to", "9999-12-31", "to-problem"),
        ("study", "../x", "study-problem"),
    ):
        answer = ask(record, **{name: value})
        assert answer.status == 400 and f'id="{said}"' in answer.text and entries(answer) == []
    answer = ask(record, before="x")
    assert isinstance(answer.torn, HTTPException) and answer.torn.status_code == 400


def test_pages_are_all_there_is_and_nothing_is_in_their_address(
    record: AccessRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "PAGE_ENTRIES", 2)
    seen, form = list[int](), {"person": ""}
    for _ in range(3):
        page = ask(record, **form)
        seen += entries(page)
        assert 'method="get"' not in page.text.lower() and page.text.count('method="post"') == page.text.count("<form")
        older = re.search(r'name="before" value="(\d+)"', page.text)
        if older is None:
            break
        form = {"person": "", "before": older[1]}
    assert seen == [5, 4, 3, 2, 1]
    assert entries(ask(record, CHIEF, "/access?person=meier")) == [5, 4], "an address searches for nothing"
