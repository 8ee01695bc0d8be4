"""The catalogue from the store alone: every study's newest manifest that counts is recorded again.

May run beside a daemon, may be stopped and run again: what is recorded already is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.documents import LEFT_OUT
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import Listed
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import NotInitialised, Permanent, RevisionConflict
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: Studies handed to `map` at once: enough to keep its threads busy, few enough to keep memory flat.
_BATCH_STUDIES = 256


@dataclass(frozen=True, slots=True)
class Problem:
    """A manifest that was not used. ``reason`` may be logged."""

    study_uid: Uid
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """``studies`` were found in the store; of these ``recorded`` were written and ``unchanged`` were in the catalogue
    already, in this or a newer revision. The rest have no manifest that can be used: see ``problems``."""

    studies: int = 0
    recorded: int = 0
    unchanged: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def unusable(self) -> int:
        return self.studies - self.recorded - self.unchanged


def rebuild(
    store: ObjectStore,
    catalogue: Catalogue,
    *,
    progress: Callable[[RebuildReport], None] | None = None,
    map: Map = map,
) -> RebuildReport:
    """Record every study that the store has manifests of. ``progress`` is called after each study.

    A manifest that is damaged, or another archive's, is reported; the next lower one takes its place. Where manifests
    do not go on from one another, which is reported too, all that they list is recorded, with a flag that says so, and
    the entry vouches for none of them. What the catalogue says already is not taken for granted either: all revisions
    are read. The catalogue must be initialised. Raises Transient and Fatal, with what was
    recorded until then recorded.
    """
    archive_id = catalogue.identity()
    if archive_id is None:
        raise NotInitialised("the catalogue has no identity yet", hint="dicomwatchctl archive init")
    report = RebuildReport()

    def one(study: Listed) -> _Outcome:
        return _record(store, catalogue, archive_id, study)

    studies = _studies(store)
    while batch := list(islice(studies, _BATCH_STUDIES)):
        for outcome in map(one, batch):
            report = RebuildReport(
                report.studies + 1,
                report.recorded + (outcome.recorded is True),
                report.unchanged + (outcome.recorded is False),
                report.problems + outcome.problems,
            )
            if progress is not None:
                progress(report)
    catalogue.completed()
    return report


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``recorded`` is True, False (there already) or None (no usable manifest)."""

    recorded: bool | None
    problems: tuple[Problem, ...]


def _studies(store: ObjectStore) -> Iterator[Listed]:
    """Studies with manifests. The listing is in key order, so a study's manifests follow one another.

    It passes by every object's key. A listing for each study would take one request a study, this takes one for a
    thousand objects: about the same, without asking more of the store than the port has.
    """
    found = ((keys.parse_manifest(stored.key), stored) for stored in store.listing(keys.STUDIES))
    ours = ((key, stored) for key, stored in found if key is not None)
    for study_uid, group in groupby(ours, key=lambda one: one[0][0]):
        yield Listed(study_uid, {revision: stored for (_, revision), stored in group})


def _record(store: ObjectStore, catalogue: Catalogue, archive_id: str, listed: Listed) -> _Outcome:
    try:
        there = catalogue.get(listed.study_uid)
    except Permanent:
        there = None  # an entry that cannot be read is one to write again
    try:
        vouched = lineage.vouched_for(store, listed, there)
        found = lineage.trace(store, listed, vouched, archive_id=archive_id, below=vouched is not None, lenient=True)
    except Permanent as error:
        _index_again(catalogue, there)
        return _Outcome(None, (Problem(listed.study_uid, listed.newest, error.message),))
    amiss = [(one.revision, one.reason) for one in found.refused]
    amiss += [(other.revision, other.reason) for other in found.disregarded]
    problems = [Problem(listed.study_uid, revision, reason) for revision, reason in sorted(amiss, reverse=True)]
    if found.whole is None:
        _index_again(catalogue, there)
        return _Outcome(None, tuple(problems))
    record = found.whole.record()
    if found.whole is not found.current or found.disregarded:
        if vouched is not None and not _hides(vouched, found):
            _index_again(catalogue, there)
            return _Outcome(False, tuple(problems))  # it is as good as it can be until a daemon has recorded the study
        record = replace(record, flags=tuple(sorted({*record.flags, lineage.DISPUTED})))
    try:
        return _Outcome(_put(catalogue, record, there), tuple(problems))
    except Permanent as error:
        # The manifest is good: an older one would be no better and would hide this.
        return _Outcome(None, (*problems, Problem(listed.study_uid, record.revision, error.message)))


def _index_again(catalogue: Catalogue, there: StudyRecord | None) -> None:
    """An entry that stays as it is, of an earlier version, is found by what it has."""
    if there is not None and there.identities is None:
        with suppress(RevisionConflict):
            catalogue.put(there)


def _hides(vouched: Manifest, found: lineage.Lineage) -> bool:
    """Whether one below lists what the vouched one leaves out: then it was no daemon of ours that had it recorded."""
    return any(one.revision < vouched.revision for one in found.disregarded)


def _put(catalogue: Catalogue, record: StudyRecord, there: StudyRecord | None) -> bool:
    """Whether the catalogue had to be written. Reading costs less than writing."""
    if there is not None and _holds(there, record):
        _index_again(catalogue, there)
        return False
    try:
        catalogue.put(record)
    except RevisionConflict as error:
        if there is not None and there.revision == record.revision:
            raise Permanent(
                "the catalogue names another manifest of this revision", code="catalogue-differs"
            ) from error
        return False  # a daemon has recorded a newer revision since the listing passed
    return True


def _holds(there: StudyRecord, record: StudyRecord) -> bool:
    if there.revision > record.revision:
        return True
    if LEFT_OUT in there.flags and there.identities is not None:
        return (there.revision, there.manifest_sha256) == (record.revision, record.manifest_sha256)
    return there == record
