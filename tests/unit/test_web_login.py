"""The parts of a log-in, by themselves: names and groups, sessions, the sealed cookie, where one goes afterwards."""

from __future__ import annotations

import http.cookies

import pytest

from dicomwatchd.config.web import WebRoles, WebSessions
from dicomwatchd.web.login.log_outs import LogOut
from dicomwatchd.web.login.pages import own_path
from dicomwatchd.web.login.roles import known_by
from dicomwatchd.web.login.sessions import Sessions, Subject
from dicomwatchd.web.login.signed import Signed
from dicomwatchd.web.people import Person, Role
from tests.pieces import FakeClock as Clock

ROLES = WebRoles(read=("radiology",), upload=("*",), administrate=("privacy",))
READER = Person("reader", frozenset({Role.READ}))


@pytest.mark.parametrize("name", ["", " x", "x ", "x\n", "a\x00", "token:x", "x" * 129, "a\u202eb", "\u200b"])
def test_what_is_no_name_is_nobody(name: str) -> None:
    assert known_by(ROLES, name, ["radiology"]) is None


def test_groups_make_roles_and_everybody_is_a_group() -> None:
    known = known_by(ROLES, "Müller, Eva", ["radiology", "privacy", "x"])
    assert known is not None and known.roles == {Role.READ, Role.UPLOAD, Role.ADMINISTRATE}
    guest = known_by(ROLES, "guest", [])
    assert guest is not None and guest.roles == {Role.UPLOAD}
    assert known_by(WebRoles(read=("radiology",)), "guest", ["*"]) == Person("guest", frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "//evil.example.org",
        "https://evil.example.org",
        "/\\evil",
        "/x\\y",
        "",
        "x",
        "/x\r\nSet-Cookie: a=b",
        "/ä",
        "/login",
    ],
)
def test_no_way_leads_elsewhere(text: str) -> None:
    assert own_path(text) == "/"


def test_a_way_of_ours_is_kept() -> None:
    assert own_path("/viewer?StudyInstanceUIDs=1.2.3&x=//y") == "/viewer?StudyInstanceUIDs=1.2.3&x=//y"


@pytest.mark.parametrize("length", range(1, 9))
def test_what_is_sealed_is_a_cookie_of_any_length(length: int) -> None:
    signed = Signed(b"k" * 32, Clock())
    sealed = signed.seal({"state": "s" * length}, 60)
    cookie = http.cookies.SimpleCookie()
    cookie["x"] = sealed
    assert cookie["x"].coded_value == sealed, "a browser gives it back as it is"
    assert signed.open(sealed) == {"state": "s" * length}
    assert Signed(b"l" * 32, Clock()).open(sealed) is None


def test_what_is_sealed_ends() -> None:
    clock = Clock()
    signed = Signed(b"k" * 32, clock)
    sealed = signed.seal({}, 60)
    clock.advance(59)
    assert signed.open(sealed) == {}
    clock.advance(2)
    assert signed.open(sealed) is None


@pytest.mark.parametrize("sealed", ["", ".", "x.y", "ä", "e30.\udcff", "a" * 5000])
def test_what_is_not_sealed_is_nothing(sealed: str) -> None:
    assert Signed(b"k" * 32, Clock()).open(sealed) is None


def test_a_session_ends_when_it_is_idle_and_in_any_case() -> None:
    clock = Clock()
    sessions = Sessions(WebSessions(idle="10m", longest="1h"), clock)
    idle, busy = sessions.begin(READER), sessions.begin(READER)
    used = []
    for _ in range(11):
        clock.advance(330)
        used.append(sessions.find(busy) is not None)
    assert used == [True] * 10 + [False], "ten times 330 s, and then it is more than an hour"
    assert sessions.find(idle) is None
    later = sessions.begin(READER)
    clock.advance(599)
    assert sessions.find(later) is not None
    clock.advance(602)
    assert sessions.find(later) is None, "twenty minutes old, and not used for ten of them"


def test_one_person_has_so_many_sessions_and_the_oldest_ends() -> None:
    sessions = Sessions(WebSessions(), Clock())
    values = [sessions.begin(READER) for _ in range(25)]
    assert [sessions.find(value) is None for value in values] == [True] * 5 + [False] * 20


def test_there_are_so_many_sessions_and_the_one_longest_unused_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.web.login.sessions._MOST", 3)
    sessions = Sessions(WebSessions(), Clock())
    values = [sessions.begin(Person(name, frozenset())) for name in "abc"]
    assert sessions.find(values[0]) is not None
    values.append(sessions.begin(Person("d", frozenset())))
    assert [sessions.find(value) is None for value in values] == [False, True, False, False]


@pytest.mark.parametrize(
    ("sub", "sid", "out", "is_meant"),
    [
        ("eva", "1", LogOut("eva", "1"), True),
        ("eva", "1", LogOut(None, "1"), True),
        ("eva", "1", LogOut("eva", None), True),
        ("eva", None, LogOut("eva", "1"), True),
        ("eva", None, LogOut(None, "1"), False),
        ("eva", "1", LogOut("eva", "2"), False),
        ("eva", "1", LogOut(None, "2"), False),
        ("eva", "1", LogOut("ada", "1"), False),
        ("eva", "1", LogOut("ada", None), False),
    ],
)
def test_whose_sessions_a_log_out_of_the_provider_ends(sub: str, sid: str | None, out: LogOut, is_meant: bool) -> None:
    sessions = Sessions(WebSessions(), Clock())
    theirs, token = sessions.begin(READER, subject=Subject(sub, sid)), sessions.begin(READER, "0" * 64)
    assert sessions.end_all(out) == is_meant
    assert (sessions.find(theirs) is None) is is_meant and sessions.find(token) is not None


def test_a_log_out_that_comes_while_somebody_logs_in_counts() -> None:
    sessions = Sessions(WebSessions(), Clock())
    sessions.end_all(LogOut("eva", None))
    since = sessions.log_outs()
    assert not sessions.was_logged_out(Subject("eva"), since)
    sessions.end_all(LogOut("ada", None))
    assert not sessions.was_logged_out(Subject("eva"), since)
    sessions.end_all(LogOut("eva", "1"))
    sessions.end_all(LogOut("ada", None))
    assert sessions.was_logged_out(Subject("eva", "1"), since) and not sessions.was_logged_out(
        Subject("eva", "2"), since
    )
    for _ in range(1000):
        sessions.end_all(LogOut("ada", None))
    assert sessions.was_logged_out(Subject("eva", "2"), since), "nobody remembers all that came since"


def test_a_clock_that_is_set_prolongs_nothing() -> None:
    class Set(Clock):
        off = 0.0

        def now(self) -> float:
            return super().now() + self.off

    clock = Set()
    signed, sessions = Signed(b"k" * 32, clock), Sessions(WebSessions(idle="10m"), clock)
    sealed, value = signed.seal([], 60), sessions.begin(READER)
    clock.off = -86400
    assert signed.open(sealed) == [] and sessions.find(value) is not None
    clock.advance(601)
    assert signed.open(sealed) is None and sessions.find(value) is None
