"""Alarms: what is amiss is told once when it begins and once when it is over, over restarts too."""

from __future__ import annotations

import json
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dicomwatchd.alarms import conditions
from dicomwatchd.alarms.conditions import CertificateFile, Certificates, SilentInboxes
from dicomwatchd.alarms.hook import Hook, HookFailed, Interrupted, Why
from dicomwatchd.alarms.kinds import Found, Kind, Unsure, read_on
from dicomwatchd.alarms.rounds import AT_ONCE, REST_SECONDS, WRITE_SECONDS, Alarms
from dicomwatchd.archive.aws.observed import Observed
from dicomwatchd.config.alarms import Alarms as Settings
from dicomwatchd.config.loading import load
from dicomwatchd.errors import ConfigError, StateUnavailable
from dicomwatchd.queue.drills import Drilled, Outcome
from dicomwatchd.telemetry.journal import Journal
from tests.pieces import Log, Pieces
from tests.servers.tls import make_certificate
from tests.synthetic import Maker
from tests.unit.queues import STUDY, Bench

ROOT = Path(__file__).parents[2]


class Told(Hook):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.error: Exception | None = None
        self.is_wrong: HookFailed | None = None

    def check(self) -> str:
        if self.is_wrong is not None:
            raise self.is_wrong
        return "/told"

    def run(self, text: str, wait: object) -> None:
        if self.error is not None:
            raise self.error
        self.texts.append(text)

    @property
    def said(self) -> list[tuple[str, str, str]]:
        lines = [json.loads(line) for text in self.texts for line in text.splitlines()]
        return [(one["event"], one["alarm"], one["subject"]) for one in lines]


class Site:
    """Alarms over a real state, whose conditions are set by hand."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.log, self.hook = bench, Log(), Told()
        self.now: list[Found | Unsure] = []
        self.start()

    def start(self, *, hook: bool = True) -> None:
        queue = self.bench.queue
        self.alarms = Alarms(
            queue.alarms,
            queue.hours,
            [lambda: list(self.now)],
            lambda: {self.bench.source.source_id: True},
            self.hook if hook else None,
            self.bench.clock,
            self.log,
        )

    def restart(self, *, hook: bool = True) -> None:
        self.bench.reopen()
        self.start(hook=hook)

    def round(self, seconds: float = REST_SECONDS) -> None:
        self.bench.clock.seconds += seconds
        self.alarms.step(lambda _: False)

    @property
    def events(self) -> list[tuple[str, object]]:
        return [(event, fields.get("alarm")) for event, _, fields in self.log.entries]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.queue.close()


@pytest.fixture
def site(bench: Bench) -> Site:
    return Site(bench)


CLOCK = Found(Kind.CLOCK, "", "the clock is {differs_seconds:.0f} s off", {"differs_seconds": 90.0})
SILENT = Found(Kind.INBOX_SILENT, "ct1", "nothing has come into inbox {inbox}", {"inbox": "ct1"})


# -- begins and ends --------------------------------------------------------------------------------------------------


def test_each_is_told_once_and_once_when_it_is_over(site: Site) -> None:
    site.round()
    assert site.events == [] and site.alarms.document() == []
    site.now = [CLOCK, SILENT]
    for _ in range(3):
        site.round()
    assert site.events == [("alarm-begun", "clock"), ("alarm-begun", "inbox-silent")]
    assert site.log.events("alarm-begun")[1]["inbox"] == "ct1"
    clock, silent = site.alarms.document()
    assert (clock["alarm"], clock["inbox"], clock["sentence"]) == ("clock", None, "the clock is 90 s off")
    assert (silent["inbox"], silent["read_on"]) == ("ct1", "docs/operations.md#an-inbox-is-silent")
    site.now = [SILENT]
    site.round()
    site.now = []
    site.round()
    assert site.events[2:] == [("alarm-ended", "clock"), ("alarm-ended", "inbox-silent")]
    assert site.log.events("alarm-ended")[1] == {"alarm": "inbox-silent", "inbox": "ct1", "open_seconds": 40.0}
    assert site.hook.said == [
        ("begun", "clock", ""),
        ("begun", "inbox-silent", "ct1"),
        ("ended", "clock", ""),
        ("ended", "inbox-silent", "ct1"),
    ]
    assert len(site.hook.texts) == 3 and site.alarms.document() == []
    site.now = [CLOCK]
    site.round()
    assert site.events[4:] == [("alarm-begun", "clock")], "another time is another alarm"


def test_a_restart_neither_repeats_nor_forgets(site: Site) -> None:
    site.now = [CLOCK, SILENT]
    site.round()
    site.restart()
    site.round()
    assert len(site.events) == 2 and len(site.hook.texts) == 1 and len(site.alarms.document()) == 2
    site.now = [SILENT]
    site.restart()  # it was over while the daemon was stopped
    site.round()
    assert site.events[2:] == [("alarm-ended", "clock")] and site.hook.said[2:] == [("ended", "clock", "")]


def test_what_the_command_was_not_told_it_is_told_after_a_restart(site: Site) -> None:
    site.now, site.hook.error = [CLOCK], Interrupted()
    site.round()
    assert site.hook.said == []
    site.now, site.hook.error = [], None
    site.restart()
    site.round()
    assert site.hook.said == [("begun", "clock", ""), ("ended", "clock", "")]
    site.round()
    assert len(site.hook.texts) == 1


def test_what_cannot_be_told_now_neither_begins_nor_ends(site: Site) -> None:
    certificate = Found(Kind.CERTIFICATE, "receiver ct", "x")
    for unsure in (Unsure(Kind.CLOCK), Unsure(Kind.CERTIFICATE, "receiver ct")):
        site.now = [unsure]
        site.round()
    assert site.events == []
    site.now = [CLOCK, certificate]
    site.round()
    site.now = [Unsure(Kind.CLOCK), Unsure(Kind.CERTIFICATE, "receiver ct")]
    site.restart()
    site.round()
    assert len(site.events) == 2 and len(site.alarms.document()) == 2
    site.now = [Unsure(Kind.CERTIFICATE, "receiver mr")]
    site.round()
    assert len(site.events) == 4


def test_its_figures_are_kept_up_to_date_without_a_word(site: Site) -> None:
    site.now = [CLOCK]
    site.round()
    site.now = [replace(CLOCK, fields={"differs_seconds": 100.0})]
    site.round()
    assert len(site.events) == 1 and len(site.hook.texts) == 1
    assert site.alarms.document()[0]["sentence"] == "the clock is 100 s off"


def test_a_state_that_is_full_has_it_said_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StateUnavailable("full", code="state-full")

    site.now = [CLOCK]
    with monkeypatch.context() as patched:
        patched.setattr(type(site.bench.queue.alarms), "begin", full)
        for _ in range(5):
            site.round()
    assert site.events == [("alarm-begun", "clock")] and site.hook.texts == []
    site.round()
    assert len(site.events) == 1 and site.hook.said == [("begun", "clock", "")]


def test_a_thousand_at_once_are_told_in_few_runs_that_rest_in_between(site: Site) -> None:
    site.now = [replace(SILENT, subject=f"ct{number}") for number in range(1000)]
    site.round()
    assert len(site.hook.said) == AT_ONCE
    site.round(1.0)
    assert len(site.hook.texts) == 1
    for _ in range(9):
        site.round()
    assert len(site.hook.texts) == 10 and len({subject for _, _, subject in site.hook.said}) == 1000
    assert max(map(len, site.hook.texts)) < 65536


def test_who_configures_a_command_later_is_not_told_of_what_was(site: Site) -> None:
    site.start(hook=False)
    site.now = [CLOCK]
    site.round()
    site.now = []
    site.round()
    site.restart()
    site.now = [SILENT]
    site.round()
    assert site.hook.said == [("begun", "inbox-silent", "ct1")]


def test_a_command_that_fails_is_told_in_the_journal_and_not_run_again(site: Site) -> None:
    site.now, site.hook.error = [CLOCK], HookFailed(Why.FAILED, status=3)
    site.round()
    site.round()
    assert site.log.events("alarm-hook-failed") == [{"reason": "failed", "exit_status": 3}]
    assert site.alarms.problems == ["on_alarm: the command has failed with exit status 3"]
    for _ in range(2):
        site.round(3600)
        assert site.alarms.problems, "that it could be run is no sign that it works"
    site.now, site.hook.error = [], None
    site.round()
    assert site.alarms.problems == [] and site.hook.said == [("ended", "clock", "")]


def test_a_command_that_cannot_be_run_is_told_before_an_alarm_and_until_it_is_put_right(site: Site) -> None:
    site.round()
    site.hook.is_wrong = HookFailed(Why.MISSING, "/etc/on-alarm: No such file or directory")
    site.round(3600)
    site.round()
    assert site.log.events("alarm-hook-failed") == [{"reason": "missing", "exit_status": None}], "once"
    assert site.alarms.problems == ["on_alarm: the command cannot be run: /etc/on-alarm: No such file or directory"]
    site.hook.is_wrong = HookFailed(Why.NOT_SAFE, "/etc/on-alarm can be written to by others")
    site.round()
    assert site.alarms.problems == ["on_alarm: the command cannot be run: /etc/on-alarm can be written to by others"]
    site.hook.is_wrong = None
    site.round()
    assert site.alarms.problems == [] and site.hook.texts == [], "no alarm was needed to see it"
    site.now, site.hook.error = [CLOCK], HookFailed(Why.NOT_SAFE, "x")
    site.round()
    assert site.alarms.problems == ["on_alarm: the command cannot be run: x"]
    site.round()
    assert site.alarms.problems == [], "it was put right since"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HookFailed(Why.FAILED, status=3), "has failed with exit status 3"),
        (HookFailed(Why.FAILED, status=-9), "was ended by signal 9"),
        (HookFailed(Why.TOO_LATE), "was not done within 30 s, and was ended"),
        (HookFailed(Why.TOO_LATE, "it does not answer"), "cannot be run: it does not answer"),
        (HookFailed(Why.NOT_STARTED, "Exec format error"), "cannot be run: Exec format error"),
    ],
)
def test_what_status_says_of_a_command(error: HookFailed, words: str) -> None:
    assert error.in_words == words


def test_one_that_only_another_version_knows_ends_with_it(site: Site) -> None:
    """A state that was restored, or an older package over a newer one, whose states are of the same format."""
    site.bench.queue.alarms.begin("of-another-version", "ct1", "something is amiss")
    site.restart()
    assert site.alarms.document() == [], "nothing that the schema does not know"
    site.round()
    assert site.events == [("alarm-ended", "of-another-version")] and site.alarms.document() == []
    assert '"read_on": "docs/operations.md#alarms"' in site.hook.texts[0]
    assert site.hook.said == [("begun", "of-another-version", "ct1"), ("ended", "of-another-version", "ct1")]


def test_those_that_are_over_are_forgotten_after_a_month(site: Site) -> None:
    site.now = [CLOCK, SILENT]
    site.round()
    site.now = [SILENT]
    site.round()
    site.round(31 * 86400)
    site.round(3700)
    with site.bench.queue.alarms._database.read() as db:
        assert [row["code"] for row in db.execute("SELECT code FROM alarms")] == ["inbox-silent"]


def test_the_hours_are_put_down_once_a_minute(site: Site) -> None:
    site.bench.add("IM1")
    for _ in range(5):
        site.round(WRITE_SECONDS / 2)
    [hour] = site.bench.queue.hours.of(site.bench.source.source_id)
    assert (hour.files, hour.watched_seconds) == (1, 2 * WRITE_SECONDS)


def test_what_has_come_while_the_state_was_full_is_put_down_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hours, source = site.bench.queue.hours, site.bench.source.source_id
    hours.note(source, 5)

    def full(*_: object) -> None:
        raise StateUnavailable("full", code="state-full")

    with monkeypatch.context() as patched:
        patched.setattr(site.bench.queue.alarms._database, "write", full)
        with pytest.raises(StateUnavailable):
            hours.write({source: 60.0})
    hours.note(source, 1)
    hours.write({source: 60.0})
    [hour] = hours.of(source)
    assert hour.files == 6


# -- what is one ------------------------------------------------------------------------------------------------------


class Service:
    def __init__(self, ahead: float | None = None, end: float | None = None, *, ended: bool = False) -> None:
        self._ahead, self._end, self.credentials_have_ended = ahead, end, ended

    def ahead_seconds(self) -> float | None:
        return self._ahead

    def credentials_end_at(self) -> float | None:
        return self._end


def sentences(found: Any) -> list[str]:
    return [one.sentence for one in found if isinstance(one, Found)]


def test_the_oldest_file(bench: Bench) -> None:
    settings = Settings()

    def found(settings: Settings = settings) -> list[str]:
        return sentences(conditions.oldest_file(bench.queue.reports, settings))

    assert found() == []
    bench.add("IM1")
    bench.clock.seconds += 24 * 3600
    assert found() == []
    bench.clock.seconds += 3600
    assert found() == ["a study has had files here that are not archived for 25 hours"]
    assert found(Settings(oldest_file_hours=0)) == [] == found(Settings(oldest_file_hours=30))


def test_a_hold(bench: Bench) -> None:
    def found(**changes: float) -> list[str]:
        return sentences(conditions.hold(bench.queue.holds, Settings(**changes), bench.clock))  # type: ignore[arg-type]

    bench.add("IM1")
    with bench.queue.alarms._database.write() as db:
        db.execute(
            "INSERT INTO holds (study_uid, code, found, held_at) VALUES (?, 'two-patients', ?, ?)",
            (STUDY, '[{"name": "DOE^JANE"}]', bench.clock.now()),
        )
    bench.clock.seconds += 72 * 3600
    assert found() == []
    bench.clock.seconds += 3600
    [said] = found()
    assert said == "a study has been held for 73 hours and waits for a person's decision; studies held in all: 1"
    assert found(hold_hours=0) == []
    with bench.queue.alarms._database.write() as db:
        db.execute("UPDATE holds SET released_at = ?", (bench.clock.now(),))
    assert found() == []


def test_a_drill_that_failed(bench: Bench) -> None:
    bench.queue.drills.record(Drilled(STUDY, Outcome.FAILED, "differs", 1, 4, 3))
    [said] = sentences(conditions.restore_drill(bench.queue.drills))
    assert said.endswith("as they were archived: 1") and STUDY not in said
    bench.queue.drills.record(Drilled(STUDY, Outcome.EQUAL, "", 1, 4, 4))
    assert sentences(conditions.restore_drill(bench.queue.drills)) == []


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (None, [Unsure(Kind.CLOCK)]),
        (0.4, []),
        (-29.0, []),
        (45.0, [Unsure(Kind.CLOCK)]),
        (61.0, ["the clock of this machine is 61 s ahead of that of the archive's service"]),
        (-900.0, ["the clock of this machine is 900 s behind that of the archive's service"]),
    ],
)
def test_the_clock(ahead: float | None, expected: list[Any]) -> None:
    found = list(conditions.clock(Service(ahead), Settings()))
    assert [one.sentence if isinstance(one, Found) else one for one in found] == expected
    assert list(conditions.clock(Service(ahead), Settings(clock_seconds=0))) == []
    assert list(conditions.clock(None, Settings())) == []


def test_credentials(bench: Bench) -> None:
    now = bench.clock.now()

    def found(service: Service | None, settings: Settings | None = None) -> list[str]:
        return sentences(conditions.credentials(service, settings or Settings(), bench.clock))

    assert found(None) == found(Service()) == found(Service(end=now + 3601)) == []
    assert found(Service(end=now + 1800)) == [
        "the archive's credentials end in 30 minutes, and nothing has renewed them"
    ]
    for ended in (Service(end=now - 1), Service(ended=True)):
        assert found(ended) == ["the archive's credentials have ended, and were not renewed"]
    assert found(Service(ended=True), Settings(credentials_hours=0)) == []


def test_certificates(tmp_path: Path, bench: Bench) -> None:
    made = make_certificate(tmp_path / "tls")
    file = tmp_path / "cert.pem"
    shutil.copy(made.cert_file, file)
    from dicomwatchd import certificates

    end = min(certificates.ends(file))
    files = [
        CertificateFile("receiver", "ct", file, is_shown=True),
        CertificateFile("destination", "pacs", file, is_shown=False),
        CertificateFile("archive", "", file, is_shown=False),
        CertificateFile("page", "", file, is_shown=True),
        CertificateFile("provider", "", file, is_shown=False),
        CertificateFile("receiver", "mr", tmp_path / "no-such-file", is_shown=True),
    ]
    condition = Certificates(files, Settings(), bench.clock)
    bench.clock.seconds = end - 22 * 86400
    assert list(condition()) == [Unsure(Kind.CERTIFICATE, "receiver mr")]
    bench.clock.seconds = end - 20 * 86400 - 1
    assert sentences(condition()) == [
        "the certificate of receiver ct ends in 20 days",
        "the last of the CA certificates of destination pacs ends in 20 days",
        "the last of the CA certificates of the archive (ca_file) ends in 20 days",
        "the certificate of the page (web.tls) ends in 20 days",
        "the last of the CA certificates of the provider of the log-in (web.oidc) ends in 20 days",
    ]
    bench.clock.seconds = end + 1
    assert sentences(condition())[0] == "the certificate of receiver ct has ended"
    assert list(Certificates(files, Settings(certificate_days=0), bench.clock)()) == []


def test_a_certificate_on_a_share_that_does_not_answer_hides_no_other(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomwatchd import certificates

    made = make_certificate(tmp_path / "tls")
    away, back, real = tmp_path / "share" / "cert.pem", threading.Event(), certificates.ends

    def ends(path: Path) -> list[float]:
        assert path != away or back.wait(60)
        return real(made.cert_file)

    monkeypatch.setattr(certificates, "ends", ends)
    monkeypatch.setattr(conditions, "ANSWER_SECONDS", 0.2)
    files = [CertificateFile("receiver", name, path, is_shown=True) for name, path in
             (("mr", away), ("ct", made.cert_file))]  # fmt: skip
    condition = Certificates(files, Settings(certificate_days=3650), bench.clock)
    for _ in range(3):
        unsure, found = sorted(condition(), key=lambda one: isinstance(one, Found))
        assert unsure == Unsure(Kind.CERTIFICATE, "receiver mr")
        assert isinstance(found, Found) and found.subject == "receiver ct"
        bench.clock.seconds += 3600
    assert len([one for one in threading.enumerate() if one.name == "certificate"]) == 1
    back.set()
    until = time.monotonic() + 60
    while any(one.name == "certificate" for one in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert {one.subject for one in condition()} == {"receiver mr", "receiver ct"}
    assert not any(isinstance(one, Unsure) for one in condition())


def test_a_silent_inbox(bench: Bench) -> None:
    hours, source = bench.queue.hours, bench.source.source_id
    condition = SilentInboxes(hours, {source: "ct1", 77: "new"})
    for _ in range(25 * 24):
        hours.note(source, 3)
        hours.write({source: 3600.0})
        bench.clock.seconds += 3600
    for _ in range(7):
        assert list(condition()) == []
        hours.write({source: 3600.0})
        bench.clock.seconds += 3600
    assert sentences(condition()) == [
        "nothing has come into inbox ct1 for 8 hours: something usually comes in 7 of them, and no silence of the last"
        " weeks has missed more than 0"
    ]
    hours.note(source, 1)
    hours.write({source: 1.0})
    assert list(condition()) == []


def test_every_sentence_passes_the_journal_and_says_all(bench: Bench, tmp_path: Path) -> None:
    """The journal is strict here: a field that it does not allow is an error, and so is one that is not filled in."""
    test_a_silent_inbox(bench)
    end = Service(end=bench.clock.now() + 100)
    made = make_certificate(tmp_path / "tls")
    soon = Settings(certificate_days=3650)
    owners = (("receiver", "ct"), ("destination", "pacs"), ("archive", ""), ("page", ""), ("provider", ""))
    files = [CertificateFile(whose, name, made.cert_file, is_shown=True) for whose, name in owners]
    found: list[Found | Unsure] = [
        SILENT,
        *conditions.clock(Service(900.0), Settings()),
        *conditions.credentials(end, Settings(), bench.clock),
        *conditions.credentials(Service(ended=True), Settings(), bench.clock),
        *Certificates(files, soon, SimpleNamespace(now=lambda: 1.8e9, monotonic=lambda: 0.0))(),
    ]
    entries: list[Any] = []
    sink: Any = SimpleNamespace(write=entries.append)
    journal = Journal(sink, strict=True)
    alarms = Alarms(bench.queue.alarms, bench.queue.hours, [lambda: found], dict, None, bench.clock, journal)
    alarms.step(lambda _: False)
    assert len(entries) >= 6 and all(one.event == "alarm-begun" and "{" not in one.message for one in entries)
    assert all("{" not in one["sentence"] for one in alarms.document())
    found.clear()
    alarms.step(lambda _: False)
    assert {one.event for one in entries} == {"alarm-begun", "alarm-ended"}
    over = [one for one in entries if one.event == "alarm-ended"]
    assert {"the alarm inbox-silent is over", "the alarm clock is over"} <= {one.message for one in over}
    [silent] = [one.fields for one in over if one.fields["alarm"] == "inbox-silent"]
    assert silent["inbox"] == SILENT.subject
    # Of several certificates one must know which.
    ended = [one.fields for one in over if one.fields["alarm"] == "certificate"]
    whose = [{name: one[name] for name in ("receiver", "destination", "certificate") if name in one}
             for one in ended]  # fmt: skip
    assert sorted(whose, key=str) == [
        *({"certificate": one} for one in ("archive", "page", "provider")),
        {"destination": "pacs"},
        {"receiver": "ct"},
    ]


def test_each_has_its_page() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    }
    for kind in Kind:
        file, _, anchor = read_on(kind).partition("#")
        assert (ROOT / file).is_file() and anchor in anchors, kind
        assert f"`{kind.value}`" in text, kind


def test_the_daemons_parts_are_connected(tmp_path: Path) -> None:
    """What comes into an inbox is put down by the hour, and what waits is an alarm until it is archived."""
    pieces = Pieces(tmp_path)
    alarms, hours, source = pieces.parts.alarms, pieces.queue.hours, pieces.sources[0].source_id
    Maker(3).ct_series(pieces.inbox, slices=2, rows=8, columns=8)
    pieces.settle()
    pieces.clock.advance(60)
    alarms.step(lambda _: False)
    [hour] = hours.of(source)
    assert hour.files == 2 and hour.watched_seconds >= 60
    pieces.clock.advance(25 * 3600)
    alarms.step(lambda _: False)
    assert [one["alarm"] for one in alarms.document()] == ["oldest-file"]
    pieces.restart()
    pieces.scan()
    pieces.ship()
    pieces.parts.alarms.step(lambda _: False)
    assert pieces.parts.alarms.document() == [] and len(pieces.log.events("alarm-begun")) == 1
    pieces.close()


# -- what the archive's service shows ---------------------------------------------------------------------------------


def answer(observed: Observed, at: float, code: str = "") -> None:
    date = datetime.fromtimestamp(at, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    parsed = {"Error": {"Code": code}} if code else {}
    observed._on_answer(response_dict={"headers": {"date": date}}, parsed_response=parsed, context={})


def test_one_slow_answer_makes_no_wrong_clock() -> None:
    observed = Observed(now=lambda: 1_800_000_000.0)
    assert observed.ahead_seconds() is None
    answer(observed, 1_800_000_000.0 - 70)
    assert observed.ahead_seconds() is None
    answer(observed, 1_800_000_000.0 - 1)
    assert observed.ahead_seconds() == 1
    for _ in range(2):
        answer(observed, 1_800_000_000.0 + 300)
    assert observed.ahead_seconds() == -300
    observed._on_answer(response_dict={"headers": {}}, parsed_response={})
    observed._on_answer(response_dict={"headers": {"date": "nonsense"}}, parsed_response={})
    observed._on_answer(response_dict=None, parsed_response=None, exception=OSError())
    assert observed.ahead_seconds() == -300


def test_a_service_that_says_that_they_have_ended() -> None:
    observed, said = Observed(), []
    for code in ("AccessDenied", "ExpiredToken", ""):
        answer(observed, 0, code)
        said.append(observed.credentials_have_ended)
    assert said == [False, True, False]


def test_what_nobody_renews_and_what_is_renewed() -> None:
    now = datetime(2027, 1, 15, 8, tzinfo=UTC)
    observed = Observed(now=lambda: moment.timestamp())
    moment = now
    assert observed.credentials_end_at() is None
    observed.look_at(SimpleNamespace(method="shared-credentials-file"))
    assert observed.credentials_end_at() is None
    of_variables = SimpleNamespace(method="env", _expiry_time=now + timedelta(hours=5))
    observed.look_at(of_variables)
    assert observed.credentials_end_at() == (now + timedelta(hours=5)).timestamp()
    role = SimpleNamespace(method="iam-role", _expiry_time=now + timedelta(minutes=9))
    observed.look_at(role)
    assert observed.credentials_end_at() is None, "nobody has used them, so nobody has renewed them"
    observed._on_sign()
    assert observed.credentials_end_at() is None, "it may be under way"
    moment = now + timedelta(minutes=1)
    assert observed.credentials_end_at() == (now + timedelta(minutes=9)).timestamp()
    role._expiry_time = now + timedelta(hours=6)
    assert observed.credentials_end_at() is None


def test_it_hears_of_what_botocore_sends(tmp_path: Path) -> None:
    """A real client, whose answers come from a server that says another time."""
    import http.server
    import threading

    from botocore.exceptions import ClientError

    from dicomwatchd.archive.aws.clients import build_client, new_session

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", datetime.now(UTC).replace(year=2020).strftime("%a, %d %b %Y %H:%M:%S GMT"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        session = new_session()
        session.set_credentials("a", "b")
        observed = Observed()
        observed.listen(session)
        client = build_client(
            "s3",
            region="x",
            endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
            ca_file=None,
            max_connections=1,
            session=session,
            attempts=1,
        )
        for _ in range(2):
            with pytest.raises(ClientError):
                client.head_bucket(Bucket="bucket")
        ahead = observed.ahead_seconds()
        assert ahead is not None and ahead > 86400
        assert observed._asked_at is not None and observed._credentials.access_key == "a"
    finally:
        server.shutdown()
        server.server_close()


# -- who may say what is run ------------------------------------------------------------------------------------------


def test_a_configuration_that_others_may_write_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "state").mkdir()
    data = {
        "archive": {
            "store": {"kind": "directory", "path": str(tmp_path / "a")},
            "catalogue": {"kind": "sqlite", "path": str(tmp_path / "c.db")},
        },
        "state_directory": str(tmp_path / "state"),
        "inboxes": [{"name": "ct1", "path": str(tmp_path / "inbox")}],
        "on_alarm": ["/bin/true"],
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data))
    file.chmod(0o644)
    assert load(file, folders=True).on_alarm == ("/bin/true",)
    for mode in (0o664, 0o646):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="on_alarm: is refused"):
            load(file, folders=True)
        assert load(file).on_alarm, "who only reads runs nothing"
    del data["on_alarm"]
    file.write_text(yaml.safe_dump(data))
    assert file.stat().st_mode & stat.S_IWOTH and load(file, folders=True).on_alarm is None
    for bad, why in (
        (["true"], "absolute path"),
        ([], "must not be empty"),
        (["/bin/true", "a\nb"], "control characters"),
        ("/bin/true", "must be a list"),
    ):
        file.write_text(yaml.safe_dump(data | {"on_alarm": bad}))
        with pytest.raises(ConfigError, match=why):
            load(file)
