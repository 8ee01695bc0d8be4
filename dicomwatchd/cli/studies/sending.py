"""`dicomwatchctl fetch --send`: studies to another DICOM application."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies import cold
from dicomwatchd.cli.studies.access import Archive
from dicomwatchd.cli.studies.fetched import Done, list_failures
from dicomwatchd.cli.studies.fetching import Order, bar, prepared
from dicomwatchd.cli.terminal import output
from dicomwatchd.model import Uid

if TYPE_CHECKING:
    from dicomwatchd.fetch.destination import Destination
    from dicomwatchd.fetch.send import Confirmed, SendReport


def destination_of(invocation: Invocation, text: str, calling_ae_title: str | None) -> Destination:
    """AET@HOST:PORT, or the name of one in the configuration. Raises click.UsageError, ConfigError."""
    from dicomwatchd.config import loading
    from dicomwatchd.dicom_addresses import is_ae_title
    from dicomwatchd.fetch.destination import Destination, of_settings, parse_destination

    found: Destination | None
    if "@" in text:
        found = parse_destination(text)
        if found is None:
            raise click.UsageError("--send takes AET@HOST:PORT, or the name of a destination in the configuration")
    else:
        named = {one.name: one for one in loading.load(invocation.config_path).destinations}
        if text not in named:
            known = ", ".join(sorted(named)) or "none"
            raise click.UsageError(f"the configuration has no such destination; it has: {known}")
        found = of_settings(named[text])
    if calling_ae_title is None:
        return found
    if not is_ae_title(calling_ae_title):
        raise click.UsageError("an AE title has 1 to 16 characters, and no backslash")
    return Destination(found.called_ae_title, found.host, found.port, calling_ae_title, found.tls)


@dataclass(slots=True)
class ToDestination:
    """Each study over associations of its own: another holds other classes."""

    archive: Archive
    order: Order
    to: Destination
    confirmed: Confirmed
    is_lacking: bool = False

    @staticmethod
    @contextmanager
    def opened(archive: Archive, order: Order, to: Destination, resume: Path | None) -> Iterator[ToDestination]:
        from dicomwatchd.fetch.send import Confirmed

        if to.tls is not None:
            to.tls.context()  # before anything is read: files that cannot be used
        with ExitStack() as stack:
            yield ToDestination(archive, order, to, stack.enter_context(Confirmed.opened(resume, to)))

    def one(self, study: Uid) -> Done:
        from dicomwatchd.fetch.destination import Channel
        from dicomwatchd.fetch.send import send_study

        ready = prepared(self.archive, study, self.order, None)
        channel = Channel(self.to, ((item.sop_class_uid, item.transfer_syntax_uid) for item, _ in ready.places))
        try:
            with bar(self.order, "Sending") as show:
                sent = send_study(
                    self.archive.store,
                    ready.found,
                    ready.places,
                    channel,
                    self.confirmed,
                    Path(tempfile.gettempdir()),
                    cold=ready.frozen.instances,
                    threads=self.order.threads,
                    progress=show,
                )
        except KeyboardInterrupt:
            output.note("interrupted; what the destination has confirmed is there")
            raise
        finally:
            channel.close()
        if not self.order.as_json:
            _say(sent, self.to)
            cold.say(sent.report, ready.frozen, is_asked_for=self.order.restore is not None)
        more = {
            "sent": {"to": str(self.to), "attempts": sent.attempts, "results": [asdict(one) for one in sent.results]}
        }
        return Done(sent.report, None, ready.amiss, ready.notes, ready.frozen, None, {**self.order.said(), **more})

    def end(self, done: Sequence[Done]) -> dict[str, Any]:  # noqa: ARG002  every study has said its own
        return {}


def _say(sent: SendReport, to: Destination) -> None:
    report = sent.report
    done = f"{report.fetched:,} sent"
    if report.fetched_bytes and report.seconds:
        done += f" ({output.size(report.fetched_bytes)} at {output.size(report.fetched_bytes / report.seconds)}/s)"
    if report.already_there:
        done += f", {report.already_there:,} confirmed earlier"
    there = report.fetched + report.already_there
    if report.complete:
        output.say(
            f"{to} has confirmed all {output.count(report.files, 'file')} of study {report.study_uid}, revision"
            f" {report.revision}: {done}; every SHA-256 matched before it was sent."
        )
    else:
        output.say(f"{to} has confirmed {there:,} of {output.count(report.files, 'file')}: {done}. Not sent:")
        list_failures(report.failed)
        if report.stopped is not None:
            output.problem(report.stopped)
    warnings = sum(one.status not in ("", "0000") for one in sent.results)
    if warnings:
        output.note(f"confirmed with a warning: {warnings:,}; --json has the status of each")
