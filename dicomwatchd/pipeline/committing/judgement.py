"""Whether the archive provably holds SOP Instances: on evidence as fresh as a file is deleted on, and with the same
vetoes. For whoever is told that it does may delete the originals."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from dicomwatchd.archive import keys
from dicomwatchd.archive.identity import require_identity
from dicomwatchd.archive.layout import lineage
from dicomwatchd.archive.layout.instance import ManifestInstance
from dicomwatchd.archive.layout.manifest import Manifest
from dicomwatchd.archive.proof import evidence
from dicomwatchd.archive.proof.evidence import Method
from dicomwatchd.archive.stores.port import Receipt
from dicomwatchd.commitments import Reason, Reference
from dicomwatchd.errors import StudyErased
from dicomwatchd.model import FileIdentity, FileState, Uid
from dicomwatchd.pipeline.deletion import fresh
from dicomwatchd.pipeline.deletion.fresh import Recorded
from dicomwatchd.pipeline.deletion.proof import Exchanged
from dicomwatchd.pipeline.deletion.vetoes import held, versions
from dicomwatchd.pipeline.shipment import Context
from dicomwatchd.ports import Map
from dicomwatchd.queue.received import Received, ReceivedFile, instance_of
from dicomwatchd.queue.rows import Source

#: A SOP Instance as one of its contents: its UID, and the SHA-256 of the file.
_Content = tuple[str, str]


class Open(Enum):
    """Nothing can be said yet. WAITS: it is on its way, or something stands against its deletion that may pass.
    DAMAGED: the archive has it as a damaged copy, which nobody is told to be safe; a whole one may stand for it."""

    WAITS = "waits"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Committed:
    """``asked_at`` is when the archive was about to be asked, in seconds since the epoch."""

    asked_at: float


Verdict = Committed | Reason | Open


class Judgement:
    """Of what came by receivers into one inbox."""

    def __init__(self, context: Context, received: Received, source: Source, lane: Callable[[], Map]) -> None:
        self._context, self._received, self._source, self._lane = context, received, source, lane

    def of(
        self, references: Iterable[Reference], *, until_one_waits: bool, beat: Callable[[], None] = lambda: None
    ) -> dict[Reference, Verdict]:
        """``until_one_waits``: the archive need not be asked if one has to be waited for. ``beat`` is a sign of life in
        between. Raises Transient, Permanent, Fatal, Stopping, OSError: then nothing can be said."""
        references = list(references)
        local = self._local(references)
        verdicts: dict[Reference, Verdict] = {}
        wanted: dict[str, set[_Content]] = {}
        for one in references:
            found = local[one.sop_instance_uid]
            if isinstance(found, dict):
                for study, sums in found.items():
                    wanted.setdefault(study, set()).update((one.sop_instance_uid, sha256) for sha256 in sums)
            else:
                verdicts[one] = found
        if until_one_waits and Open.WAITS in verdicts.values():
            return verdicts
        archived = {study: self._in_archive(Uid(study), contents, beat) for study, contents in wanted.items()}
        for one in references:
            if one not in verdicts:
                verdicts[one] = _together(one, local[one.sop_instance_uid], archived)
        return verdicts

    # -- what is here ------------------------------------------------------------------------------------------------

    def _local(self, references: list[Reference]) -> dict[str, dict[str, set[str]] | Verdict]:
        """Of each instance the contents that came of it, by study; or what can be said without the archive."""
        uids = {str(one.sop_instance_uid) for one in references}
        waits: dict[str, dict[str, set[str]] | Verdict] = dict.fromkeys(uids, Open.WAITS)
        if self._context.is_exchanged(self._source):
            return waits
        try:
            # The folder first: what is deleted meanwhile is in the state by then.
            names = self._context.inboxes.call(self._source.source_id, partial(self._names, uids))
        except Exchanged:  # what lies in the true one nobody can see; what has failed without it has failed
            known = self._received.of(self._source.source_id, uids)
            failed = Reason.PROCESSING_FAILURE
            return waits | {uid: failed for uid, files in known.items() if _here(files, {}) is failed}
        known = self._received.of(self._source.source_id, uids)
        return {uid: _here(files, names.get(uid, {})) for uid, files in known.items()}

    def _names(self, uids: Collection[str]) -> dict[str, dict[bytes, FileIdentity | None]]:
        """What lies in the inbox of these instances, and which file it is; None where that cannot be told. What was
        stored before the request came has its name there, long before it is in the state. Raises Exchanged, OSError,
        Transient."""
        found: dict[str, dict[bytes, FileIdentity | None]] = {}
        fd = self._context.pinned(self._source).open()
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if (uid := instance_of(name)) is not None and uid in uids:
                        found.setdefault(uid, {})[name] = _identity(entry)
        finally:
            os.close(fd)
        return found

    # -- what the archive has ----------------------------------------------------------------------------------------

    def _in_archive(
        self, study: Uid, wanted: Collection[_Content], beat: Callable[[], None]
    ) -> dict[_Content, tuple[str, Verdict]]:
        """The SOP class that is on record of each content, "" where none is, and what can be said of it."""
        context = self._context
        beat()
        try:
            context.erased.require_none(study)
        except StudyErased:
            return dict.fromkeys(wanted, ("", Reason.NO_SUCH_INSTANCE))
        waits: dict[_Content, tuple[str, Verdict]] = dict.fromkeys(wanted, ("", Open.WAITS))
        if context.stops_deleting() is not None:
            return waits
        asked_at = context.clock.now()
        record = context.archive.catalogue.get(study)
        manifest = lineage.current(context.archive.store, study, record)
        if (
            record is None
            or manifest is None
            or manifest.archive_id != context.archive.archive_id
            or record.revision < manifest.revision
            or fresh.has_other_versions(record, manifest)
        ):
            return waits
        recorded = Recorded(manifest, record.revision, asked_at, record.identities or ())
        if held.is_held(recorded, context):
            return waits
        by_versions = versions.held_instances(manifest, context)
        items = {content: item for content, item in _listed(manifest, wanted).items() if content[0] not in by_versions}
        proven = self._proven(study, items.values(), beat)
        found = dict(waits)
        for content, item in items.items():
            if item.damage:
                found[content] = item.sop_class_uid, Open.DAMAGED
            elif item.key in proven:
                found[content] = item.sop_class_uid, Committed(min(asked_at, proven[item.key]))
        require_identity(context.archive.store, context.archive.archive_id)  # last: all of that was there
        return found

    def _proven(self, study: Uid, items: Iterable[ManifestInstance], beat: Callable[[], None]) -> dict[str, float]:
        """The keys of these whose objects the store was just seen to hold, and when it was asked."""
        receipts = {item.key: _receipt(study, item) for item in items if not item.damage}
        context = self._context

        def cancelled() -> bool:
            beat()
            return context.cancelled()

        proven: dict[str, float] = {}
        for verdict in evidence.examine(
            context.archive.store,
            receipts.values(),
            map=self._lane(),
            now=context.clock.now,
            cancelled=cancelled,
        ):
            beat()
            if verdict.holds:
                proven[verdict.receipt.key] = verdict.asked_at
        return proven


def _identity(entry: os.DirEntry[str]) -> FileIdentity | None:
    try:
        return FileIdentity.of(entry.stat(follow_symlinks=False))
    except OSError:
        return None


def _here(files: list[ReceivedFile], names: Mapping[bytes, FileIdentity | None]) -> dict[str, set[str]] | Verdict:
    if names.keys() - {file.name for file in files if file.state is not None}:
        return Open.WAITS  # there, and not looked at yet
    if any(file.name in names and names[file.name] != file.identity for file in files if file.state is not None):
        return Open.WAITS  # another file by now than was looked at
    contents: dict[str, set[str]] = {}
    for file in files:
        if file.state in (FileState.QUARANTINED, FileState.IGNORED):
            return Reason.PROCESSING_FAILURE
    for file in files:
        if file.state not in (FileState.KEPT, None):
            return Open.WAITS
        if file.sha256 is None:
            # One that has gone before it was sent; or that is kept for another archive.
            return Reason.PROCESSING_FAILURE
        contents.setdefault(file.study_uid, set()).add(file.sha256)
    return contents or Reason.NO_SUCH_INSTANCE


def _listed(manifest: Manifest, wanted: Collection[_Content]) -> dict[_Content, ManifestInstance]:
    """Where a content is listed twice, in two series, one that is whole."""
    found: dict[_Content, ManifestInstance] = {}
    for item in manifest.instances:
        content = (str(item.sop_instance_uid), item.sha256)
        if content in wanted and (content not in found or found[content].damage):
            found[content] = item
    return found


def _receipt(study: Uid, item: ManifestInstance) -> Receipt:
    """What the store must say of the object if it holds what was proven when the manifest was made. The ETag in it is
    the object's own of that time; it proves today what it proved then."""
    sha256 = keys.bundle_sha256(item.key, study) or item.sha256
    return Receipt(
        item.key,
        item.object_bytes,
        sha256,
        created=False,
        expected_etag=item.etag if item.verified_by == Method.ETAG else None,
        answered_etag=item.etag if item.verified_by == Method.ANSWERED_ETAG else None,
        expected_checksum=f"sha256:{sha256}",
        # By which key it was encrypted no manifest says. It may be one that was disabled since: then it is asked for by
        # itself, as any object under such a key.
        encryption="aws:kms",
    )


def _together(
    one: Reference,
    local: dict[str, set[str]] | Verdict,
    archived: Mapping[str, Mapping[_Content, tuple[str, Verdict]]],
) -> Verdict:
    """All contents that came of an instance have to be there; a damaged one if a whole one is, too."""
    if not isinstance(local, dict):
        return local
    of_all = [archived[study][one.sop_instance_uid, sha256] for study, sums in local.items() for sha256 in sums]
    found = [(sop_class, verdict) for sop_class, verdict in of_all if verdict is not Open.DAMAGED]
    verdicts = [verdict for _, verdict in found]
    if not verdicts:
        return Reason.PROCESSING_FAILURE
    for verdict in verdicts:
        if isinstance(verdict, Reason):
            return verdict
    if Open.WAITS in verdicts:
        return Open.WAITS
    if any(sop_class != one.sop_class_uid for sop_class, _ in found):
        return Reason.CLASS_INSTANCE_CONFLICT
    return Committed(min(verdict.asked_at for verdict in verdicts if isinstance(verdict, Committed)))
