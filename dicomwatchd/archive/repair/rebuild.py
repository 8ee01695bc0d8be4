"""The catalogue from the store alone: every study's newest manifest that counts is recorded again.

May run beside a daemon, may be stopped and run again: what is recorded already is left as it is. Where an interrupted
one goes on, and what is kept for that, see `progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.documents import LEFT_OUT
from dicomwatchd.archive.layout import erasures, lineage, manifests
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.manifests import Listed
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.archive.repair.patience import OwnTrouble, Patience, impatient
from dicomwatchd.archive.stores.budget import ByteBudget
from dicomwatchd.archive.stores.port import ObjectStore
from dicomwatchd.errors import DicomwatchdError, NotInitialised, Permanent, RevisionConflict, Transient
from dicomwatchd.model import Uid
from dicomwatchd.ports import Map

#: So many studies may be left for the end because each could not be read or recorded by itself. More of them are no
#: matter of single studies.
MOST_UNRESOLVED = 1000
#: Of manifests that are read at once: each takes several times its size of memory.
_BUDGET_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """A manifest that was not used, or with revision 0 a study that could not be examined. ``reason`` may be logged."""

    study_uid: Uid
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """``studies`` were found in the store; of these ``recorded`` were written and ``unchanged`` were in the catalogue
    already, in this or a newer revision. The rest have no manifest that can be used: see ``problems``.
    ``unnamed_problems`` are those of an interrupted run that were too many to be kept. ``erased`` are further studies,
    of which the store still holds manifests from before they were erased."""

    studies: int = 0
    recorded: int = 0
    unchanged: int = 0
    problems: tuple[Problem, ...] = ()
    unnamed_problems: int = 0
    erased: int = 0

    @property
    def unusable(self) -> int:
        return self.studies - self.recorded - self.unchanged

    @property
    def has_problems(self) -> bool:
        return bool(self.problems or self.unnamed_problems)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has come: all studies up to ``after`` are in ``report``, the beginning of their keys, and done
    but for those that are ``unresolved``. ``witness``, where there is one, is a study that the catalogue has had since
    then, and its revision: a catalogue without it is another one, or an older copy."""

    after: str = ""
    report: RebuildReport = RebuildReport()
    unresolved: tuple[Uid, ...] = ()
    witness: tuple[Uid, int] | None = None


def holds(catalogue: Catalogue, progress: Progress) -> bool:
    """Whether the catalogue still has what it had then. Raises Transient, Fatal."""
    if progress.witness is None:
        return True
    study_uid, revision = progress.witness
    try:
        there = catalogue.get(study_uid)
    except Permanent:
        return False
    return there is not None and there.revision >= revision


def rebuild(
    store: ObjectStore,
    catalogue: Catalogue,
    *,
    progress: Callable[[RebuildReport], None] | None = None,
    map: Map = map,
    begin: Progress | None = None,
    keep: Callable[[Progress], None] = lambda _: None,
    patience: Patience | None = None,
) -> RebuildReport:
    """Record every study that the store has manifests of. ``progress`` is called after each study.

    A manifest that is damaged, or another archive's, is reported; the next lower one takes its place. Where manifests
    do not go on from one another, which is reported too, all that they list is recorded, with a flag that says so, and
    the entry vouches for none of them. What the catalogue says already is not taken for granted either: all revisions
    are read. What was erased is not recorded; what was erased while this runs is reported. The catalogue must be
    initialised.

    ``map`` may work in other threads, and ahead. ``keep`` is called after each study with what a later call takes as
    ``begin``, to go on behind it: studies that have come into the store since, with a key before that, were recorded
    by whoever brought them. A study that fails by itself, as ``patience`` finds, is tried once more at the end and then
    reported. Raises Transient and Fatal, with what was recorded until then recorded.
    """
    archive_id = catalogue.identity()
    if archive_id is None:
        raise NotInitialised("the catalogue has no identity yet", hint="dicomwatchctl archive init")
    patience = patience or impatient()
    budget = ByteBudget(_BUDGET_BYTES)
    now = begin or Progress()
    # Otherwise an entry that is as it should be is written again, for what it is searched by is not.
    erased = patience.of_all(lambda: dict(erasures.numbers(store)))
    target = _Target(catalogue, archive_id, catalogue.is_completed(), erased)

    def one(study_uid: Uid) -> _Outcome | None:
        try:
            return patience.of_study(study_uid, lambda: _record(store, target, study_uid, budget))
        except OwnTrouble as trouble:
            return _Outcome(None, unresolved=trouble.error.message)
        except Permanent as error:
            return _Outcome(None, unresolved=error.message)
        except DicomwatchdError:
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours that one study meets must not stop the others
            return _Outcome(None, unresolved=f"unexpected error: {type(error).__name__}")

    def of_prefix(prefix: str) -> tuple[str, Uid | None, _Outcome | None]:
        study_uid = keys.parse_study(prefix)
        return prefix, study_uid, None if study_uid is None else one(study_uid)

    for prefix, study_uid, outcome in map(of_prefix, _prefixes(store, patience, now.after)):
        now = replace(now, after=prefix)
        if study_uid is not None and outcome is not None:
            now = _with(now, study_uid, outcome, studies=1)
        keep(now)
        if outcome is not None and progress is not None:
            progress(now.report)
    left = []
    for study_uid in now.unresolved:
        again = one(study_uid)
        if again is not None and again.unresolved is not None:
            left.append(Problem(study_uid, 0, again.unresolved))
            continue
        now = replace(now, unresolved=tuple(uid for uid in now.unresolved if uid != study_uid))
        now = _with(now, study_uid, again or _Outcome(None), studies=-1 if again is None else 0)
        keep(now)
    if not left:
        catalogue.completed()
    left += patience.of_all(lambda: list(_erased_meanwhile(store, catalogue, erased)))
    return replace(now.report, problems=(*now.report.problems, *left))


def _erased_meanwhile(store: ObjectStore, catalogue: Catalogue, before: Mapping[Uid, int]) -> Iterator[Problem]:
    """Studies whose erasure began while this ran, and that may have been recorded once more since."""
    for study, number in erasures.numbers(store):
        if number == before.get(study) or (record := catalogue.get(study)) is None:
            continue
        if record.revision <= erasures.load(store, study, number).through_revision:
            yield Problem(study, record.revision, "the study was erased meanwhile: erase it again")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``recorded`` is True, False (there already) or None (no usable manifest). ``unresolved``: why nothing is known of
    the study. ``revision``: the catalogue has this one of it now, or a newer one. ``is_erased``: what is there was
    erased, and counts no more."""

    recorded: bool | None
    problems: tuple[Problem, ...] = ()
    unresolved: str | None = None
    revision: int | None = None
    is_erased: bool = False


def _with(now: Progress, study_uid: Uid, outcome: _Outcome, *, studies: int) -> Progress:
    """Raises Transient where too many studies are left for the end."""
    if outcome.unresolved is not None and len(now.unresolved) >= MOST_UNRESOLVED:
        raise Transient(f"more than {MOST_UNRESOLVED} studies cannot be examined, such as: {outcome.unresolved}")
    report = now.report
    if outcome.is_erased:  # it is none of the studies
        return replace(now, report=replace(report, studies=report.studies + studies - 1, erased=report.erased + 1))
    return replace(
        now,
        report=replace(
            report,
            studies=report.studies + studies,
            recorded=report.recorded + (outcome.recorded is True),
            unchanged=report.unchanged + (outcome.recorded is False),
            problems=report.problems + outcome.problems,
        ),
        unresolved=now.unresolved if outcome.unresolved is None else (*now.unresolved, study_uid),
        witness=now.witness if outcome.revision is None else (study_uid, outcome.revision),
    )


def _prefixes(store: ObjectStore, patience: Patience, after: str) -> Iterator[str]:
    """What the keys of each study begin with: a request for each thousand studies, however many objects they have."""
    found = store.common_prefixes(keys.STUDIES, after)

    def following() -> str | None:
        nonlocal found
        try:
            return next(found, None)
        except Transient:
            found = store.common_prefixes(keys.STUDIES, after)
            raise

    while (prefix := patience.of_all(following)) is not None:
        after = prefix
        yield prefix


@dataclass(frozen=True, slots=True)
class _Target:
    catalogue: Catalogue
    archive_id: str
    is_completed: bool
    #: The studies that were erased, each with the number of its newest erasure.
    erased: Mapping[Uid, int]


def _record(store: ObjectStore, target: _Target, study_uid: Uid, budget: ByteBudget) -> _Outcome | None:
    """None where the study has no manifest: nothing of it counts as archived."""
    listed = manifests.listed(store, study_uid)
    if not listed.revisions:
        return None
    if number := target.erased.get(study_uid):
        listed = listed.above(erasures.load(store, study_uid, number).through_revision)
        if not listed.revisions:
            return _Outcome(None, is_erased=True)
    try:
        there = target.catalogue.get(study_uid)
    except Permanent:
        there = None  # an entry that cannot be read is one to write again
    # One above the whole budget is let through alone, and what `trace` does not read takes no memory.
    with budget.held(min(sum(one.size_bytes for one in listed.revisions.values()), lineage.LIMIT_BYTES)):
        try:
            return _of_manifests(store, target, listed, there)
        except Transient:
            if erasures.newest_number(store, study_uid) == target.erased.get(study_uid, 0):
                raise
            return _Outcome(None, is_erased=True)  # its manifests go at this moment


def _of_manifests(store: ObjectStore, target: _Target, listed: Listed, there: StudyRecord | None) -> _Outcome:
    try:
        vouched = lineage.vouched_for(store, listed, there)
        found = lineage.trace(
            store, listed, vouched, archive_id=target.archive_id, below=vouched is not None, lenient=True
        )
    except Permanent as error:
        _index_again(target, there)
        return _Outcome(None, (Problem(listed.study_uid, listed.newest, error.message),))
    amiss = [(one.revision, one.reason) for one in found.refused]
    amiss += [(other.revision, other.reason) for other in found.disregarded]
    problems = [Problem(listed.study_uid, revision, reason) for revision, reason in sorted(amiss, reverse=True)]
    if found.whole is None:
        _index_again(target, there)
        return _Outcome(None, tuple(problems))
    record = found.whole.record()
    if found.whole is not found.current or found.disregarded:
        if vouched is not None and not _hides(vouched, found):
            _index_again(target, there)
            # It is as good as it can be until a daemon has recorded the study.
            return _Outcome(False, tuple(problems), revision=vouched.revision)
        record = replace(record, flags=tuple(sorted({*record.flags, lineage.DISPUTED})))
    try:
        return _Outcome(_put(target, record, there), tuple(problems), revision=record.revision)
    except Permanent as error:
        # The manifest is good: an older one would be no better and would hide this.
        return _Outcome(None, (*problems, Problem(listed.study_uid, record.revision, error.message)))


def _index_again(target: _Target, there: StudyRecord | None) -> None:
    """An entry that stays as it is, of an earlier version, is found by what it has."""
    if there is not None and (there.identities is None or not target.is_completed):
        with suppress(RevisionConflict):
            target.catalogue.put(there)


def _hides(vouched: Manifest, found: lineage.Lineage) -> bool:
    """Whether one below lists what the vouched one leaves out: then it was no daemon of ours that had it recorded."""
    return any(one.revision < vouched.revision for one in found.disregarded)


def _put(target: _Target, record: StudyRecord, there: StudyRecord | None) -> bool:
    """Whether the catalogue had to be written. Reading costs less than writing."""
    if there is not None and _holds(there, record):
        _index_again(target, there)
        return False
    try:
        target.catalogue.put(record)
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
