"""What has come of a fetch, in sentences and as a document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomwatchd.cli import exits
from dicomwatchd.cli.studies import cold
from dicomwatchd.cli.studies.access import Amiss
from dicomwatchd.cli.terminal import output, tables
from dicomwatchd.errors import ColdObject

if TYPE_CHECKING:
    from dicomwatchd.fetch import FetchFailure, FetchReport
    from dicomwatchd.fetch.cold import Cold
    from dicomwatchd.fetch.dicomdirs import FetchedDicomdir
    from dicomwatchd.fetch.file_set.writing import Listing

_LISTED_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Done:
    report: FetchReport
    target: Path | None
    amiss: Amiss
    notes: list[str]
    frozen: Cold
    #: None where they were not asked for.
    dicomdirs: list[FetchedDicomdir] | None = None
    #: What the command line has asked for besides, and the answer has because of it.
    more: dict[str, Any] = field(default_factory=dict)
    #: Why there is no DICOMDIR, or what is not in it; "" if there is, or nobody has asked for one.
    unlisted: str = ""

    @property
    def code(self) -> int:
        if self.report.complete and not self.amiss and not self._is_lacking:
            return exits.OK
        return exits.code_for(self.report.stopped) if self.report.stopped else exits.NO

    @property
    def _is_lacking(self) -> bool:
        return bool(self.unlisted) or any(one.reason for one in self.dicomdirs or [])

    def document(self) -> dict[str, Any]:
        document = document_of(self.report, self.target, self.amiss, self.notes)
        asked_for = None if self.dicomdirs is None else [asdict(one) for one in self.dicomdirs]
        is_complete = document["complete"] and not self._is_lacking
        frozen = cold.document(self.report, self.frozen)
        return {**document, "complete": is_complete, "cold": frozen, "dicomdirs": asked_for, **self.more}


def say_listing(listing: Listing) -> None:
    """Of a DICOMDIR that was written here."""
    if listing.listed:
        output.say(f"The DICOMDIR lists {output.count(listing.listed, 'file')}.")
    if listing.reason:
        output.say(f"The DICOMDIR {'is incomplete' if listing.listed else 'was not written'}: {listing.reason}.")
    if listing.without_file_meta:
        output.note(
            f"files without file meta information, which some viewers refuse: {listing.without_file_meta:,}; they were"
            " archived like that, and no byte of a file is changed"
        )
    if listing.invented_values:
        output.note(
            "values that a DICOMDIR must have, which the files do not, and that were invented in it:"
            f" {listing.invented_values:,}"
        )


def say_dicomdirs(dicomdirs: list[FetchedDicomdir], target: Path) -> None:
    if not dicomdirs:
        output.say("No DICOMDIR was archived with the study.")
    for one in dicomdirs:
        place = output.clean(target / one.name)
        output.say(f"DICOMDIR: {place}" if not one.reason else f"DICOMDIR not fetched ({one.reason}): {place}")


def document_of(report: FetchReport, target: Path | None, amiss: Amiss, notes: list[str]) -> dict[str, Any]:
    return {
        "study_uid": report.study_uid,
        "revision": report.revision,
        "directory": None if target is None else str(target),
        "complete": report.complete and not amiss,
        **amiss.document(),
        "files": report.files,
        "bytes": report.size_bytes,
        "fetched": report.fetched,
        "fetched_bytes": report.fetched_bytes,
        "already_there": report.already_there,
        "failed": [asdict(failure) for failure in report.failed],
        "bad_objects": [asdict(failure) for failure in report.bad_objects],
        "stopped": report.stopped.message if report.stopped else None,
        "seconds": round(report.seconds, 3),
        "notes": notes,
    }


def sentences(report: FetchReport, target: Path) -> None:
    there = report.fetched + report.already_there
    done = f"{report.fetched:,} fetched"
    if report.fetched_bytes and report.seconds:
        speed = output.size(report.fetched_bytes / report.seconds)
        done += f" ({output.size(report.fetched_bytes)} at {speed}/s)"
    if report.already_there:
        done += f", {report.already_there:,} already present"
    place = output.clean(target)
    if report.complete:
        whole = "The one file" if report.files == 1 else f"All {report.files:,} files"
        output.say(
            f"{whole} of study {report.study_uid}, revision {report.revision}, "
            f"{'is' if report.files == 1 else 'are'} in {place}: {done}; every SHA-256 matches."
        )
    else:
        from dicomwatchd.fetch.report import Stopped

        output.say(f"{there:,} of {output.count(report.files, 'file')} in {place}: {done}. Not fetched:")
        list_failures([failure for failure in report.failed if failure.code not in (Stopped.code, ColdObject.code)])
        stopped = sum(failure.code == Stopped.code for failure in report.failed)
        if report.stopped is not None:
            output.problem(report.stopped)
            if stopped:
                output.note(f"the fetch stopped there; files not tried: {stopped:,}")
    if report.bad_objects:
        output.note(
            "these files are correct, but did not come from the object that the manifest names; "
            f"`dicomwatchctl verify --deep {report.study_uid}` examines the study"
        )
        list_failures(report.bad_objects)


def list_failures(failures: list[FetchFailure] | tuple[FetchFailure, ...]) -> None:
    if not failures:
        return
    rows = [(f.series_uid, f.sop_instance_uid, f.reason) for f in failures[:_LISTED_FAILURES]]
    tables.table(("SERIES", "SOP INSTANCE", "REASON"), rows)
    if len(failures) > _LISTED_FAILURES:
        output.say(f"... and {len(failures) - _LISTED_FAILURES:,} more; --json lists all of them")
