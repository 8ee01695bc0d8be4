"""What archive and daemon know of one study, gathered for its page: as `dicomwatchctl show` has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dicomwatchd.archive.layout import erasures
from dicomwatchd.archive.layout.erasures import Erasure
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.listed import missing_uids
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.layout.variants import Variants
from dicomwatchd.archive.records import StudyRecord
from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable
from dicomwatchd.errors import Permanent, StudyErased, StudyNotFound, Transient
from dicomwatchd.fetch import Doubts, look_up
from dicomwatchd.fetch.cold import InClass, classes
from dicomwatchd.model import Uid
from dicomwatchd.patients import two_patients
from dicomwatchd.web.dicomweb.standing import entries, left_out
from dicomwatchd.web.pages.parts import PageParts

#: Of each list so many are shown one by one.
LISTED = 100
_HELD_LIMIT = 10_000
#: Other versions that are the same data set are no news to whoever reads images.
_DIFFERING = frozenset({"correction", "conflict"})

_T = TypeVar("_T")


@dataclass(slots=True)
class Facts:
    """``record`` is None where the archive does not hold the study: it was erased (``erasure``), or not archived yet
    (``local``). ``left_out`` is how many images the viewer does not show, by their standing. ``local`` is None where
    the daemon knows nothing of it, or ``daemon_trouble`` says why it is not known."""

    study_uid: Uid
    record: StudyRecord | None = None
    erasure: Erasure | None = None
    damaged: list[ManifestInstance] = field(default_factory=list)
    damaged_number: int = 0
    superseded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    names_two_patients: bool = False
    versions: list[Variants] = field(default_factory=list)
    versions_number: int = 0
    missing: list[str] = field(default_factory=list)
    storage: list[InClass] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    local: dict[str, Any] | None = None
    holds: list[dict[str, Any]] = field(default_factory=list)
    daemon_trouble: str = ""

    @property
    def is_known(self) -> bool:
        return self.record is not None or self.erasure is not None or self.local is not None


def gather(parts: PageParts, study_uid: Uid) -> Facts:
    """Raises Transient, Permanent, Fatal where the archive does not answer, or has nothing of it in order."""
    facts = Facts(study_uid)

    def doubt(_revision: int, text: str) -> None:
        if len(facts.doubts) < LISTED:
            facts.doubts.append(text)

    try:
        found = look_up(parts.store, parts.catalogue, study_uid, note=facts.notes.append, doubts=Doubts(doubt, doubt))
    except StudyErased:
        facts.erasure = erasures.newest(parts.store, study_uid)
    except StudyNotFound:
        pass  # the daemon may know it
    else:
        facts.erasure = found.erasure
        _of_manifest(facts, found.manifest)
        try:
            facts.storage = classes(parts.store, study_uid)
        except (Transient, Permanent) as error:
            facts.notes.append(f"the storage classes of the objects are unknown: {error.message}")
    _of_daemon(parts, facts)
    return facts


def _of_manifest(facts: Facts, manifest: Manifest) -> None:
    lacking = manifest.unsuperseded
    differing = [one for one in manifest.variants if one.grade.value in _DIFFERING]
    facts.record = manifest.record()
    facts.damaged, facts.damaged_number = list(lacking[:LISTED]), len(lacking)
    facts.superseded = sum(bool(item.damage) for item in manifest.instances) - len(lacking)
    facts.versions, facts.versions_number = differing[:LISTED], len(differing)
    facts.missing = missing_uids(manifest.listed)
    facts.left_out = left_out(one for one, _ in entries(manifest))
    facts.names_two_patients = two_patients(manifest.all_identities) is not None


def _of_daemon(parts: PageParts, facts: Facts) -> None:
    def ask(command: str, **arguments: Any) -> Any:
        return parts.daemon.call(command, **arguments)

    try:
        facts.local = _or_none(lambda: ask("show", study_uid=facts.study_uid))
        if facts.study_uid in ask("held", limit=_HELD_LIMIT):
            said = ask("attention", limit=_HELD_LIMIT)
            facts.holds = [one for one in said.get("held") or [] if one.get("study_uid") == facts.study_uid]
    except (DaemonUnreachable, DaemonRefused) as error:
        facts.daemon_trouble = error.message


def _or_none(ask: Callable[[], _T]) -> _T | None:
    """None where the daemon does not know the study."""
    try:
        return ask()
    except DaemonRefused as error:
        if error.code == StudyNotFound.code:
            return None
        raise
