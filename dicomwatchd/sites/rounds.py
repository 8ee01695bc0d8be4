"""The thread of the heartbeats: say how this daemon is, see how the others are, and tell of who has fallen silent.

It stands in nobody's way: what it cannot do it leaves until the next time, and what concerns the archive as a whole is
told by those who archive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from dicomwatchd import __version__
from dicomwatchd.archive.catalogues.sites import SiteTable
from dicomwatchd.config.sites import Sites
from dicomwatchd.errors import CredentialsRefused, DicomwatchdError, Fatal, Permanent, Transient
from dicomwatchd.ports import Clock, Log, timestamp
from dicomwatchd.queue.archived import Totals
from dicomwatchd.sites.lookout import Lookout, Seen
from dicomwatchd.sites.own import OwnRow
from dicomwatchd.sites.report import SiteReport, codes_of
from dicomwatchd.telemetry.fields import error_fields

#: How long after the start the first heartbeat comes at the latest: daemons that start together do not write together.
FIRST_SECONDS = 30.0
#: So many sites are named in status and figures.
MOST_NAMED = 200
#: So many that have fallen silent are told of at once; whoever may write heartbeats could make up thousands.
MOST_TOLD = 50
#: What is refused although the archive answers is tried again so seldom.
REFUSED_AGAIN_SECONDS = 3600.0
_TURN_SECONDS = 1.0
#: Of one heartbeat to the next, at random: they must not stay together.
_JITTER = 0.2

REFUSED = (
    "this site can tell the others nothing of itself, or see nothing of them: the archive refuses it (for DynamoDB"
    " dynamodb:PutItem and dynamodb:Query on the items of SITES: update the stack from etc/aws/archive.yaml); sites:"
    " {heartbeat: 0} turns it off"
)


@dataclass(frozen=True, slots=True)
class Own:
    """Who this daemon is: see `SiteReport` and `OwnRow`."""

    site_id: str
    run: str
    name: str
    host: str


class SiteRounds:
    """`run` is the thread; the rest may be asked by any. ``status`` is what `dicomwatchctl status` prints.
    ``reachable`` asks the catalogue for something that every daemon may see, and raises what it meets. While the store
    is in trouble heartbeats go on, and say so: they are few, and the others are to know."""

    def __init__(
        self,
        table: SiteTable,
        own: Own,
        plan: Sites,
        clock: Clock,
        random: Random,
        log: Log,
        *,
        status: Callable[[], Mapping[str, Any]],
        archived: Callable[[], Totals],
        reachable: Callable[[], object],
    ) -> None:
        self._table, self._own, self._plan = table, own, plan
        self._clock, self._random, self._log = clock, random, log
        self._status, self._archived, self._reachable = status, archived, reachable
        self._row = OwnRow(table, own.site_id, own.run)
        self._lookout = Lookout(clock, plan.silent_after_seconds, plan.heartbeat_seconds)
        self._is_stopping: Callable[[], bool] = lambda: False
        self._due = clock.monotonic() + random.random() * min(FIRST_SECONDS, float(plan.heartbeat_seconds))
        self._others: tuple[Seen, ...] = ()
        self._silent: frozenset[str] = frozenset()
        self._twin = ""
        self._namesakes: tuple[str, ...] = ()
        self._is_refused = False

    def run(self, stopping: threading.Event, beat: Callable[[], None]) -> None:
        """The thread, until it is told to stop."""
        self._is_stopping = stopping.is_set
        try:
            while not stopping.wait(_TURN_SECONDS):
                beat()
                self.step()
        finally:
            self._table.close()

    def step(self) -> None:
        """A heartbeat, if one is due. Raises nothing of the archive's; Fatal of the state."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        every = float(self._plan.heartbeat_seconds)
        self._due = now + every * (1 - _JITTER + 2 * _JITTER * self._random.random())
        try:
            made = self._report()
        except Transient:  # the state is busy: whoever needs it says so
            return
        try:
            self._round(made)
        except (Transient, Permanent, Fatal) as error:
            self._lookout.lost_sight()
            if not self._is_stopping():
                self._judge(error)
        else:
            self._is_refused = False

    def _round(self, made: SiteReport) -> None:
        self._row.write(made, self._is_stopping)
        self._tell_of_twin()
        if self._plan.silent_after_seconds and not self._is_stopping():
            self._tell_of_others(self._lookout.look(self._table.rows()))

    def _judge(self, error: DicomwatchdError) -> None:
        """Where the archive answers otherwise, it is the heartbeat that is refused, and somebody has to know, once. An
        outage is told by those whom it keeps from archiving."""
        try:
            self._reachable()
        except (Transient, Permanent, Fatal):
            return
        if _is_outage(error):
            return
        self._due = self._clock.monotonic() + max(REFUSED_AGAIN_SECONDS, float(self._plan.heartbeat_seconds))
        if not self._is_refused:
            self._is_refused = True
            self._log.warning("sites-refused", "the archive refuses this site's heartbeat", **error_fields(error))

    def _report(self) -> SiteReport:
        status, archived = self._status(), self._archived()
        files = status["files"]
        return SiteReport(
            name=self._own.name,
            host=self._own.host,
            at=timestamp(self._clock.now()),
            every_seconds=self._plan.heartbeat_seconds,
            version=__version__,
            started_at=str(status["started_at"]),
            backlog_files=files.get("ready", 0) + files.get("stored", 0),
            backlog_bytes=status["bytes_waiting"],
            oldest_unarchived_seconds=int(status["oldest_unarchived_seconds"] or 0),
            held=status["studies_held"],
            parked=status["studies"].get("parked", 0),
            quarantined=files.get("quarantined", 0),
            archived_studies=archived.studies,
            archived_files=archived.files,
            archived_bytes=archived.bytes,
            last_archived_at=archived.last_at,
            problems=len(status["problems"]),
            codes=codes_of(status),
            twin="",
        )

    # -- what is told -------------------------------------------------------------------------------------------------

    def _tell_of_twin(self) -> None:
        if (twin := self._row.twin) and not self._twin:
            self._log.error(
                "site-state-twice",
                "another daemon works with a copy of this daemon's state: stop one of them, and give it a state of"
                " its own",
                host=twin,
            )
        self._twin = twin

    def _tell_of_others(self, seen: list[Seen]) -> None:
        others = tuple(one for one in seen if one.row.site_id != self._own.site_id)
        silent = {one.row.site_id: one for one in others if one.is_silent}
        for one in [one for site_id, one in silent.items() if site_id not in self._silent][:MOST_TOLD]:
            self._log.warning(
                "site-silent",
                "nothing has come of site {site} for {silent_seconds:.0f} s",
                site=one.report.name,
                host=one.report.host or None,
                silent_seconds=one.age_seconds,
            )
        for one in others:
            if one.row.site_id in self._silent and not one.is_silent:
                self._log.info("site-back", "site {site} is heard of again", site=one.report.name)
        namesakes = tuple(
            sorted({one.report.host for one in others if one.report.name == self._own.name and one.is_alive})
        )
        if namesakes and not self._namesakes:
            self._log.warning(
                "site-name-twice",
                "another daemon of this archive is called {site}, too: give each a name of its own (site.name)",
                site=self._own.name,
                host=namesakes[0] or None,
            )
        self._others, self._silent, self._namesakes = others, frozenset(silent), namesakes

    def document(self) -> dict[str, Any]:
        """What `status` says. ``others`` has the silent ones first, `MOST_NAMED` at most, with what each has last said
        of itself: whoever can reach but one site sees all of them."""
        others = sorted(self._others, key=lambda one: (not one.is_silent, one.report.name, one.row.site_id))
        return {
            "name": self._own.name,
            "seen": len(others),
            "silent": sum(one.is_silent for one in others),
            "others": [
                {
                    "name": one.report.name,
                    "host": one.report.host,
                    "seen_seconds": round(one.age_seconds, 1),
                    "silent": one.is_silent,
                    "backlog_files": one.report.backlog_files,
                    "oldest_unarchived_seconds": one.report.oldest_unarchived_seconds,
                    "problems": one.report.problems,
                }
                for one in others[:MOST_NAMED]
            ],
        }

    def problems(self) -> list[str]:
        """Each with what an administrator should do."""
        found = [
            f"site {one.report.name} (host {one.report.host or 'unknown'}) has been silent for"
            f" {one.age_seconds:.0f} s; look there, or, if it is out of service: dicomwatchctl sites forget"
            f" {one.report.name}"
            for one in self._others
            if one.is_silent
        ]
        if len(found) > MOST_NAMED:
            found = [*found[:MOST_NAMED], f"{len(found) - MOST_NAMED} more sites are silent"]
        if self._twin:
            found.append(
                f"another daemon, on host {self._twin}, works with a copy of this daemon's state (a cloned machine?):"
                " stop one of them, and give it an empty state directory"
            )
        if self._namesakes:
            found.append(
                f"another daemon of this archive, on host {self._namesakes[0] or 'unknown'}, is called"
                f" {self._own.name}, too: give each a name of its own (site: {{name: ...}})"
            )
        if self._is_refused:
            found.append(REFUSED)
        return found


def _is_outage(error: DicomwatchdError) -> bool:
    """What heals by itself, and is no matter of rights."""
    return isinstance(error, Transient) and not isinstance(error, CredentialsRefused)
