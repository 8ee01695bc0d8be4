"""What is looked at in each round, and from when on it is an alarm. Nothing waits for an inbox or the archive here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from dicomwatchd import certificates
from dicomwatchd.alarms.aside import Aside, Away
from dicomwatchd.alarms.kinds import Found, Kind, Unsure
from dicomwatchd.alarms.rhythm import Judged, judge
from dicomwatchd.config.alarms import Alarms as Settings
from dicomwatchd.ports import Clock
from dicomwatchd.queue.drills import Drills
from dicomwatchd.queue.holds import Holds
from dicomwatchd.queue.hours import InboxHours
from dicomwatchd.queue.reports import Reports

_HOUR = 3600.0
#: Files of certificates are read so often.
_CERTIFICATES_SECONDS = 3600.0
#: So long the file system of one is waited for.
ANSWER_SECONDS = 5.0

#: Whose certificates are not one of several's, in words.
_WITHOUT_NAME = {
    "archive": "the archive (ca_file)",
    "page": "the page (web.tls)",
    "provider": "the provider of the log-in (web.oidc)",
}

#: One kind of condition, asked in each round. Raises Transient, Fatal of the state.
Condition = Callable[[], Iterable[Found | Unsure]]


class Service(Protocol):
    """What is known of the archive's service, if it has one: see `archive.aws.observed.Observed`."""

    def ahead_seconds(self) -> float | None: ...

    def credentials_end_at(self) -> float | None: ...

    @property
    def credentials_have_ended(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """``whose``: "receiver" or "destination", with its ``name``; or one of `_WITHOUT_NAME`, of which there is one.
    ``is_shown``: it is shown to peers, and good until its first ends; else it holds CAs' certificates, of which any may
    count."""

    whose: str
    name: str
    path: Path
    is_shown: bool

    @property
    def subject(self) -> str:
        return f"{self.whose} {self.name}".rstrip()


class SilentInboxes:
    """``inboxes``: the configured ones, name by source. Asked again once an hour, and while one is silent."""

    def __init__(self, hours: InboxHours, inboxes: Mapping[int, str]) -> None:
        self._hours, self._inboxes = hours, inboxes
        self._judged: dict[int, tuple[int, Judged]] = {}

    def __call__(self) -> Iterator[Found]:
        now = self._hours.now
        for source_id, name in self._inboxes.items():
            at, judged = self._judged.get(source_id, (None, Judged()))
            if at != now or judged.is_silent:
                judged = judge(self._hours.of(source_id), now)
                self._judged[source_id] = (now, judged)
            if judged.is_silent:
                yield Found(
                    Kind.INBOX_SILENT,
                    name,
                    "nothing has come into inbox {inbox} for {silent_hours} hours: something usually comes in"
                    " {missed_hours:.0f} of them, and no silence of the last weeks has missed more than"
                    " {known_hours:.0f}",
                    {
                        "inbox": name,
                        "silent_hours": judged.silent_hours,
                        "missed_hours": judged.missed_hours,
                        "known_hours": judged.known_hours,
                    },
                )


def oldest_file(reports: Reports, settings: Settings) -> Iterator[Found]:
    waiting = reports.longest_wait_seconds()
    if settings.oldest_file_hours and waiting is not None and waiting > settings.oldest_file_hours * _HOUR:
        yield Found(
            Kind.OLDEST_FILE,
            "",
            "a study has had files here that are not archived for {waiting_hours:.0f} hours",
            {"waiting_hours": waiting / _HOUR},
        )


def hold(holds: Holds, settings: Settings, clock: Clock) -> Iterator[Found]:
    held_at = holds.oldest()
    held = 0.0 if held_at is None else clock.now() - held_at
    if settings.hold_hours and held > settings.hold_hours * _HOUR:
        yield Found(
            Kind.HOLD,
            "",
            "a study has been held for {held_hours:.0f} hours and waits for a person's decision; studies held in all:"
            " {held_studies}",
            {"held_hours": held / _HOUR, "held_studies": holds.count()},
        )


def restore_drill(drills: Drills) -> Iterator[Found]:
    if failed := drills.failed_count():
        yield Found(
            Kind.RESTORE_DRILL,
            "",
            "restore drill: studies that did not come back from the archive as they were archived: {failed_studies}",
            {"failed_studies": failed},
        )


def clock(service: Service | None, settings: Settings) -> Iterator[Found | Unsure]:
    """Over at half of what it begins at, so that it does not begin again and again."""
    if service is None or not settings.clock_seconds:
        return
    ahead = service.ahead_seconds()
    if ahead is None or settings.clock_seconds / 2 < abs(ahead) <= settings.clock_seconds:
        yield Unsure(Kind.CLOCK)
    elif abs(ahead) > settings.clock_seconds:
        which = "ahead of" if ahead > 0 else "behind"
        yield Found(
            Kind.CLOCK,
            "",
            f"the clock of this machine is {{differs_seconds:.0f}} s {which} that of the archive's service",
            {"differs_seconds": abs(ahead)},
        )


def credentials(service: Service | None, settings: Settings, now: Clock) -> Iterator[Found]:
    if service is None or not settings.credentials_hours:
        return
    end = service.credentials_end_at()
    if service.credentials_have_ended or (end is not None and end <= now.now()):
        yield Found(Kind.CREDENTIALS, "", "the archive's credentials have ended, and were not renewed")
    elif end is not None and end - now.now() < settings.credentials_hours * _HOUR:
        yield Found(
            Kind.CREDENTIALS,
            "",
            "the archive's credentials end in {left_minutes} minutes, and nothing has renewed them",
            {"left_minutes": int((end - now.now()) // 60)},
        )


class Certificates:
    """The file of each is read once an hour."""

    def __init__(self, files: Collection[CertificateFile], settings: Settings, clock: Clock) -> None:
        self._files, self._settings, self._clock = files, settings, clock
        self._read_at: float | None = None
        self._ends: dict[str, tuple[CertificateFile, float] | None] = {}
        self._readers = {one.path: Aside("certificate") for one in files}

    def __call__(self) -> Iterator[Found | Unsure]:
        if not self._settings.certificate_days:
            return
        if self._read_at is None or self._clock.monotonic() - self._read_at >= _CERTIFICATES_SECONDS:
            self._read_at = self._clock.monotonic()
            self._ends = self._read()
        now = self._clock.now()
        for subject, first in self._ends.items():
            if first is None:
                yield Unsure(Kind.CERTIFICATE, subject)
            elif first[1] < now + self._settings.certificate_days * 86400:
                yield _ending(*first, now)

    def _read(self) -> dict[str, tuple[CertificateFile, float] | None]:
        """Of each subject the file that ends first, and when; None where one cannot be read, which `doctor` tells."""
        found: dict[str, tuple[CertificateFile, float] | None] = {}
        unread = set()
        for one in self._files:
            try:
                ends = self._readers[one.path].within(ANSWER_SECONDS, partial(certificates.ends, one.path))
            except (OSError, ValueError, Away):
                unread.add(one.subject)
                continue
            end = min(ends) if one.is_shown else max(ends)
            known = found.get(one.subject)
            if known is None or end < known[1]:
                found[one.subject] = (one, end)
        return found | {subject: None for subject in unread if subject not in found}


def _ending(one: CertificateFile, end: float, now: float) -> Found:
    what = "the certificate" if one.is_shown else "the last of the CA certificates"
    whose = f"{one.whose} {{{one.whose}}}" if one.name else _WITHOUT_NAME[one.whose]
    when = "ends in {left_days} days" if end > now else "has ended"
    fields: dict[str, object] = {one.whose: one.name} if one.name else {"certificate": one.whose}
    if end > now:
        fields["left_days"] = certificates.days_left(end, now)
    return Found(Kind.CERTIFICATE, one.subject, f"{what} of {whose} {when}", fields)
