"""What `dicomwatchctl doctor` finds out: whether store, catalogue, inboxes and disk are such that the guarantee holds.

Everything is tried, nothing assumed; the files made for it are the doctor's own.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from dicomwatchd import answering, resolved_paths
from dicomwatchd.alarms.hook import DEADLINE_SECONDS, Hook, HookFailed
from dicomwatchd.archive import keys
from dicomwatchd.archive.catalogues.port import Catalogue
from dicomwatchd.archive.identity import read_identity
from dicomwatchd.archive.preflight import run as preflight
from dicomwatchd.archive.records import Query
from dicomwatchd.archive.stores.port import Capabilities, ObjectStore
from dicomwatchd.audit.proving import Prover
from dicomwatchd.config.inboxes import Inbox
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.findings import Finding as Finding
from dicomwatchd.localfiles import (
    WriterPresent,
    open_root,
    read_lease,
    regular_file,
    rename_noreplace,
    renames_strictly,
)
from dicomwatchd.pipeline.deletion.staging import private
from dicomwatchd.ports import DiskUsage
from dicomwatchd.queue.bindings.roots import Pin
from dicomwatchd.unit import addresses, drop_in, keyfiles, page, receivers

_CAP_LEASE = 1 << 28  # capabilities(7)
#: By the inbox's ``without_lease``: what follows where no read lease is to be had on a file.
_FOR_WANT_OF_A_LEASE = {
    "delete": "programs that have a file open are noticed only by comparing its content (without_lease: keep would"
    " keep such files)",
    "keep": "an archived file stays here (without_lease: keep)",
}
#: Searches that are served by what was added to catalogues last.
_NEWEST_INDEXES = (Query(birth_date="19000101"), Query(modality="CT"))
_ENDED_BY_A_RULE = "remove the rule, or allow it by archive.store.accept_expiry in the configuration"
_SAMPLE = 2000  # directory entries looked at for a file of somebody else


OVERWRITES = "the store lets objects be overwritten: only one daemon may send to this archive"


#: Before the inbox's name.
EXCHANGED = (
    "is not the same folder as before: its files are archived, but nothing there is deleted. Check what it is; if it"
    " is the right folder: dicomwatchctl inbox confirm "
)

#: How long an inbox's file system is waited for, and how long all that is tried out there may take.
ANSWER_SECONDS, INBOX_SECONDS = 5.0, 120.0


def examine(
    config: Config,
    store: ObjectStore,
    catalogue: Catalogue,
    silent: Mapping[str, float] | None = None,
    *,
    allowed: str | None = None,
    now: float | None = None,
) -> list[Finding]:
    """Everything the daemon's user can see from here. ``silent`` are the inboxes that are known not to answer, and for
    how many seconds; ``allowed`` the addresses that the unit lets the service talk to, where it has a filter; ``now``
    the time by which certificates are judged. Raises nothing of its own: what fails is a finding."""
    at = time.time() if now is None else now
    return [
        *_archive(config, store, catalogue),
        *_addresses(config, allowed),
        *(Finding(*found) for found in keyfiles.findings(config, os.environ)),
        *_disk(config, "state", config.state_directory),
        *_inboxes(config, silent or {}),
        *_command_for_alarms(config),
        *(Finding(*found) for found in receivers.findings(config, at)),
        *(Finding(*found) for found in page.findings(config, at)),
    ]


def _inboxes(config: Config, silent: Mapping[str, float]) -> Iterator[Finding]:
    found = resolved_paths.resolve((box.path for box in config.inboxes if box.name not in silent), ANSWER_SECONDS)
    for box in config.inboxes:
        subject = f"inbox {box.name}"
        if box.name in silent:
            yield Finding(subject, "bad", f"has not answered for {silent[box.name]:.0f} s")
        elif not found[box.path].answers:
            yield Finding(subject, "bad", f"does not answer within {ANSWER_SECONDS:.0f} s")
        else:
            work = partial(_of_inbox, config, box)
            answer = answering.within(INBOX_SECONDS, work)
            yield from answer or [Finding(subject, "bad", f"was not tested within {INBOX_SECONDS:.0f} s")]


def _of_inbox(config: Config, box: Inbox) -> list[Finding]:
    in_memory = (Finding(*found) for found in receivers.in_memory(config, box))
    return [*_disk(config, box.name, box.path), *_inbox(box), *in_memory]


def _command_for_alarms(config: Config) -> Iterator[Finding]:
    """It is looked at, and not run."""
    if config.on_alarm is None:
        return
    try:
        Hook(config.on_alarm, time.monotonic, DEADLINE_SECONDS).check()
    except HookFailed as error:
        yield Finding("on_alarm", "bad", f"the command {error.in_words}")
    else:
        yield Finding("on_alarm", "good", "the command can be run, and nobody else may change it")


def exchanged(pins: Iterable[Pin]) -> list[Finding]:
    """Of each inbox in whose place another folder stands."""
    return [Finding(f"inbox {pin.name}", "bad", EXCHANGED + pin.name) for pin in pins if pin.exchanged_at is not None]


def audit_chain(prover: Prover) -> Finding:
    """Whether the record of deletions is whole, and holds what the archive holds of it."""
    broken_at, entries = prover.check()
    if broken_at is not None:
        return Finding(
            "audit chain", "bad", f"broken at entry {broken_at}: the record was changed after it was written"
        )
    compared, archived = prover.compare(), prover.archived()
    is_bad, unknown = compared.is_bad or not archived.holds, "unknown" in (compared.outcome, archived.outcome)
    outcome = "bad" if is_bad else "note" if unknown else "good"
    return Finding("audit chain", outcome, f"{entries} entries; {compared.text}; {archived.text}")


def free_share(usage: DiskUsage) -> float:
    """The part of a file system that is free, 0 to 1."""
    return usage.free / usage.total if usage.total else 0.0


def verification(capabilities: Capabilities) -> str:
    """By what a shipment verifies its objects in this store, in plain words."""
    if capabilities.etag_is_content:
        return "by the ETag, which this store computes from the stored bytes"
    in_parts = capabilities.checksum_of_parts or capabilities.etag_follows_parts
    of_parts = "" if in_parts else "; large objects, sent in parts, by reading them back"
    if capabilities.etag_follows_content:
        return f"by the ETag with which this store answers once it has compared the bytes{of_parts}"
    if capabilities.checksum_on_head:
        return f"by the checksum that this store computes{of_parts}"
    return "by reading every object back"


# -- the archive ----------------------------------------------------------------------------------------------------


def _archive(config: Config, store: ObjectStore, catalogue: Catalogue) -> Iterator[Finding]:
    archive_id = None
    try:
        store.check()
        identity = read_identity(store)
        archive_id = identity and identity.archive_id
    except DicomwatchdError as error:
        yield Finding("store", "bad", str(error))
        return
    if archive_id is None:
        yield Finding("store", "bad", "holds no archive; to create it: dicomwatchctl archive init")
    else:
        yield Finding("store", "good", f"holds archive {archive_id}")
    try:
        catalogue.check()
        same = catalogue.identity() == archive_id
        yield Finding(
            "catalogue", "good" if same else "bad", "belongs to this archive" if same else "belongs to another archive"
        )
        yield from _indexes(catalogue)
    except DicomwatchdError as error:
        yield Finding("catalogue", "bad", str(error))
    try:
        capabilities = store.probe(keys.PROBE)
    except DicomwatchdError as error:
        yield Finding("store probe", "bad", str(error))
        return
    for what, answer in sorted(capabilities.details.items()):
        if (what, answer) == ("S3 Bucket Key", "no"):
            yield Finding(f"store: {what}", "note", "not used: each object costs a call of the key service")
        else:
            yield Finding(f"store: {what}", "good", answer)
    if store.destination.kind == "s3":
        single = capabilities.etag_follows_content or capabilities.checksum_on_head
        in_parts = capabilities.checksum_of_parts or capabilities.etag_follows_parts
        fast = capabilities.etag_is_content or (single and in_parts)
        yield Finding("verification", "good" if fast else "note", verification(capabilities))
    if not capabilities.creates_only:
        yield Finding("create-only", "bad", OVERWRITES)
    yield from _expiry(store)
    yield from preflight.findings(config.archive, store, catalogue, config.workers)


def _indexes(catalogue: Catalogue) -> Iterator[Finding]:
    """Whether searches are served by indexes. Nothing depends on that but the time they take, and what they find of
    studies that an earlier version has recorded."""
    subject = "catalogue: indexes"
    try:
        lacking = next(filter(None, map(catalogue.shortcomings, _NEWEST_INDEXES)), ())
    except DicomwatchdError as error:
        yield Finding(subject, "note", f"cannot be looked at now: {error}")
        return
    yield from (Finding(subject, "note", text) for text in lacking)
    if not lacking:
        yield Finding(subject, "good", "every study is in the indexes that searches use")


def _addresses(config: Config, allowed: str | None) -> Iterator[Finding]:
    """Whether what the daemon has to reach still has the addresses that the unit's filter lets through."""
    if allowed is None:
        return
    service = drop_in.Service(environment=os.environ, name_servers=addresses.name_servers())
    changed = drop_in.changed_addresses(config, service, allowed)
    if changed:
        detail = f"{', '.join(changed)}: not among the addresses that the service unit allows"
        yield Finding("addresses", "bad", f"{detail}; {addresses.MEND}")
    else:
        yield Finding("addresses", "good", "the unit's address filter allows everything that the configuration needs")


def _expiry(store: ObjectStore) -> Iterator[Finding]:
    """Whether the store ends the archive's objects by itself."""
    subject = "lifecycle"
    try:
        found = store.refresh_expiry()
    except DicomwatchdError as error:
        yield Finding(subject, "note", f"cannot be read now: {error}")
        return
    if found.unaccepted is not None:
        yield Finding(subject, "bad", found.unaccepted, _ENDED_BY_A_RULE, essential=True)
    elif not found.rules_known:
        yield Finding(
            subject,
            "note",
            "the store's lifecycle rules cannot be read (s3:GetLifecycleConfiguration); a rule that expires objects"
            " shows only in the store's answers about objects",
            "allow s3:GetLifecycleConfiguration to the daemon's role",
        )
    else:
        yield Finding(
            subject, "good", "no lifecycle rule expires the archive's objects earlier than the configuration allows"
        )
    yield from (Finding(f"{subject}: rules", "note", note) for note in found.notes)


# -- this machine ---------------------------------------------------------------------------------------------------


def _disk(config: Config, name: str, path: Path) -> Iterator[Finding]:
    with suppress(OSError):
        share = free_share(shutil.disk_usage(path))
        enough = share >= config.disk_free_warn_share
        yield Finding(f"disk of {name}", "good" if enough else "bad", f"{share:.0%} free")


def _inbox(inbox: Inbox) -> Iterator[Finding]:
    subject = f"inbox {inbox.name}"
    try:
        root_fd = open_root(os.fsencode(inbox.path))
    except OSError as error:
        yield Finding(subject, "bad", f"cannot be opened ({_name(error)})")
        return
    try:
        yield from _try_staging(subject, root_fd, _FOR_WANT_OF_A_LEASE[inbox.without_lease])
        yield _lease_of_others(subject, root_fd, _FOR_WANT_OF_A_LEASE[inbox.without_lease])
        yield _listable(subject, inbox.path)
        if inbox.watch == "events":
            yield _watch_limit(subject, inbox.path)
    finally:
        os.close(root_fd)


def _try_staging(subject: str, root_fd: int, otherwise: str) -> Iterator[Finding]:
    """Do with a file of ours what a purge does: rename it into the private directory, lease it, take it away."""
    name = b"doctor-" + secrets.token_hex(8).encode()
    try:
        own = private.make(root_fd)
    except OSError as error:
        yield Finding(subject, "bad", f"the daemon may not write here ({_name(error)}): nothing can be deleted")
        return
    staged_fd = own.fd
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staged_fd))
        try:
            rename_noreplace(staged_fd, name, staged_fd, name + b"-2")
            name += b"-2"
            yield Finding(subject, "good", "files can be staged and deleted")
            yield from _for_several_daemons(subject, own, name)
            with regular_file(staged_fd, name) as fd, read_lease(fd) as leased:
                yield Finding(
                    f"{subject}: read leases",
                    "good" if leased else "note",
                    "programs that have a file open are noticed"
                    if leased
                    else f"not supported by this file system: {otherwise}",
                )
        finally:
            os.unlink(name, dir_fd=staged_fd)  # the doctor's own file
    except OSError as error:
        yield Finding(subject, "bad", f"files cannot be staged here ({_name(error)})")
    finally:
        own.release()


def _for_several_daemons(subject: str, own: private.Private, name: bytes) -> Iterator[Finding]:
    """What counts where another daemon, on another machine perhaps, has the same inbox."""
    strict = renames_strictly(own.fd, name)
    yield Finding(
        f"{subject}: strict renames",
        "good" if strict else "note",
        "supported (RENAME_NOREPLACE)"
        if strict
        else "not supported by this file system: a file that is put back uses a hard link or gets another name",
    )
    locked = own.is_locked and private.try_locks(own.fd)
    yield Finding(
        f"{subject}: locks",
        "good" if locked else "note",
        "supported: several daemons on this inbox see each other's work"
        if locked
        else "not supported by this file system: a starting daemon may put back a file that another is deleting; it is"
        " then tried again, and no file is lost",
    )


def _lease_of_others(subject: str, root_fd: int, otherwise: str) -> Finding:
    """Whether a lease on a file that somebody else owns is to be had: it takes CAP_LEASE."""
    subject = f"{subject}: leases on others' files"
    with os.scandir(root_fd) as entries:
        for entry, _ in zip(entries, range(_SAMPLE), strict=False):
            with suppress(OSError, WriterPresent):
                if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    continue
                with regular_file(root_fd, os.fsencode(entry.name)) as fd, read_lease(fd) as leased:
                    return _lease_finding(subject, leased, otherwise)
    return _lease_finding(subject, bool(_effective_capabilities() & _CAP_LEASE), otherwise)


def _lease_finding(subject: str, leased: bool, otherwise: str) -> Finding:
    if leased:
        return Finding(subject, "good", "permitted")
    return Finding(
        subject,
        "note",
        "not permitted: give the daemon CAP_LEASE, as the service unit does, so that it notices programs that have a"
        f" file open; until then {otherwise}",
    )


def _effective_capabilities() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _listable(subject: str, path: Path) -> Finding:
    """Whether every folder below can be listed: what is in one that cannot be is never archived, and nobody would know.
    How many, and not which: the quarantine names them."""
    failed: list[OSError] = []
    for _ in os.walk(path, onerror=failed.append):
        pass
    unlisted = [error for error in failed if error.errno not in (errno.ENOENT, errno.ENOTDIR)]
    if not unlisted:
        return Finding(f"{subject}: folders", "good", "all of them can be listed")
    why = ", ".join(sorted({_name(error) for error in unlisted}))
    return Finding(
        f"{subject}: folders",
        "bad",
        f"{len(unlisted)} cannot be listed ({why}): their files are not archived; see dicomwatchctl quarantine",
    )


def _watch_limit(subject: str, path: Path) -> Finding:
    directories = 1 + sum(len(below) for _, below, _ in os.walk(path))
    limit = 0
    with suppress(OSError, ValueError):
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    if directories * 2 > limit:
        return Finding(
            f"{subject}: watches",
            "note",
            f"{directories} directories, and the kernel allows {limit} watches (fs.inotify.max_user_watches);"
            " unwatched directories are covered by the scan",
        )
    return Finding(f"{subject}: watches", "good", f"{directories} directories of {limit} watches")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown")
