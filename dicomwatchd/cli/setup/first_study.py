"""`dicomwatchctl setup test-study`: a study of nobody goes through the whole of it, and is compared at its end."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli import exits
from dicomwatchd.cli.app import DEFAULT_CONFIG, Invocation
from dicomwatchd.cli.setup import following, phantom
from dicomwatchd.cli.setup.phantom import Phantom
from dicomwatchd.cli.terminal import output
from dicomwatchd.control.client import ControlClient, DaemonRefused
from dicomwatchd.errors import DicomwatchdError, Fatal, NotInitialised, StudyNotFound
from dicomwatchd.model import Uid
from dicomwatchd.ports import timestamp

if TYPE_CHECKING:
    from botocore.session import Session

    from dicomwatchd.archive.catalogues.port import Catalogue
    from dicomwatchd.archive.layout.manifest import Manifest
    from dicomwatchd.archive.stores.port import ObjectStore
    from dicomwatchd.config.inboxes import Inbox
    from dicomwatchd.config.whole import Config

#: How much longer than what the daemon waits for by its configuration the way may take.
_GRACE_SECONDS = 180.0
_MOST_ERASURES = 1000


@click.command()
@click.option("--inbox", "inbox_name", metavar="NAME", help="The inbox that it goes into. Default: the first.")
@click.option(
    "--deadline",
    "deadline_seconds",
    metavar="SECONDS",
    type=click.IntRange(1, 86400),
    help="How long it may take. Default: the inbox's quiet time, the time between two scans, and three minutes.",
)
@output.json_option
@click.pass_obj
def test_study(invocation: Invocation, inbox_name: str | None, deadline_seconds: int | None, as_json: bool) -> int:
    """Send a test study through an inbox.

    Puts one small synthetic image of nobody (patient TEST^SETUP) into the inbox, shows stage by stage how the running
    daemon archives it, then reads it back from the archive and compares every byte. It stays in the archive, and the
    answer says how to take it out. The exit code is 1 if it is not archived in time, or does not come back equal.
    """
    from dicomwatchd.archive.factory import aws_session
    from dicomwatchd.config import loading

    loaded = loading.load(invocation.config_path)
    inbox = _inbox(loaded, inbox_name)
    daemon = ControlClient(loaded.socket_path)
    daemon.call("status")  # who is not running archives nothing: said before anything is put anywhere
    session = aws_session(loaded.archive.store, loaded.archive.catalogue)
    with _opened(loaded, session) as archive:
        study = archive.next_study()
        now = time.time()
        made = phantom.make(study, datetime.fromtimestamp(now), secrets.token_bytes(16))
        path = _put(inbox.path, made)
        _tell(f"  {path}: a test study of nobody, patient {phantom.PATIENT_NAME}")
        way = following.follow(
            lambda: _known(daemon, study),
            timestamp(now),
            lambda text: _tell(f"  {text}"),
            is_in_it=lambda: archive.lists(made),
            deadline_seconds=deadline_seconds or inbox.quiet_seconds + loaded.scan_interval_seconds + _GRACE_SECONDS,
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
        reason = way.reason if not way.archived else archive.why_not_proven(made)
    is_deleted = not os.path.lexists(path)
    document: dict[str, Any] = {
        "study_uid": study,
        "sop_instance_uid": made.sop_instance_uid,
        "inbox": inbox.name,
        "file": str(path),
        "archived": way.archived,
        "proven": way.archived and not reason,
        "reason": reason or None,
        "stages": [{"state": state, "at": at} for state, at in way.stages],
        "seconds": round(time.time() - now, 3),
        "local_file": "deleted" if is_deleted else "there",
        "to_erase": shlex.join(
            [*_ctl(invocation.config_path), "archive", "erase", study, "--because", "test of setup"]
        ),
    }
    for line in _remarks(document):
        _tell(f"  {line}")
    if as_json:
        output.document(document)
    elif document["proven"]:
        output.say(f"The test study {study} is archived, and what the archive holds is equal byte for byte.")
    return exits.OK if document["proven"] else exits.NO


def _ctl(config_path: Path) -> list[str]:
    return ["dicomwatchctl", *([] if config_path == DEFAULT_CONFIG else ["--config", str(config_path)])]


def _tell(text: str) -> None:
    """Beside the answer."""
    click.echo(output.clean(text), err=True)


def _remarks(said: dict[str, Any]) -> list[str]:
    """What remains, and what to do with it."""
    local = (
        f"{said['file']} was deleted on proof, as the inbox is configured"
        if said["local_file"] == "deleted"
        else f"{said['file']} is still there; remove it yourself"
        + (", for the inbox's files are kept" if said["proven"] else "")
    )
    if not said["archived"]:
        return [f"not archived: {said['reason']}", local]
    if not said["proven"]:
        return [f"archived, but not proven: {said['reason']}", local]
    return [local, f"in the archive it stays, some kilobytes of nobody's; to take it out: {said['to_erase']}"]


def _inbox(loaded: Config, name: str | None) -> Inbox:
    for inbox in loaded.inboxes:
        if name in (None, inbox.name):
            return inbox
    raise click.UsageError(f"--inbox {name}: the configuration has no such inbox" if name else "there is no inbox")


def _put(folder: Path, made: Phantom) -> Path:
    """A new file in the inbox, which belongs to whom the inbox belongs to. Raises Fatal."""
    path = folder / f"TEST-SETUP-{made.sop_instance_uid[-8:]}.dcm"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        try:
            owner = folder.stat()
            if os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            view = memoryview(made.content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Fatal(
            f"the test study cannot be put into the inbox ({error.strerror})", code="inbox", path=str(folder)
        ) from error
    return path


def _known(daemon: ControlClient, study: Uid) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = daemon.call("show", study_uid=study)
    except DaemonRefused as error:
        if error.code != StudyNotFound.code:
            raise
        return None
    return found


# -- the archive ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Archive:
    store: ObjectStore
    catalogue: Catalogue

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.catalogue.close()
        self.store.close()

    def next_study(self) -> Uid:
        """The archive's test study; another one for each time that it was erased. Raises NotInitialised, Transient."""
        from dicomwatchd.archive.identity import read_identity
        from dicomwatchd.archive.layout import erasures

        identity = read_identity(self.store)
        if identity is None:
            raise NotInitialised("the store has no identity: it holds no archive", hint="dicomwatchctl archive init")
        for number in range(_MOST_ERASURES):
            study = phantom.study_uid(identity.archive_id, number)
            if not erasures.newest_number(self.store, study):
                return study
        raise Fatal("the archive's test study was erased too often", code="erased-too-often")

    def holds(self, study: Uid) -> bool:
        """Whether it is archived, and every byte of it can be read back. Raises DicomwatchdError."""
        from dicomwatchd.archive.proof.verification import verify
        from dicomwatchd.fetch import look_up

        try:
            manifest = look_up(self.store, self.catalogue, study).manifest
        except StudyNotFound:
            return False
        return verify(self.store, manifest, deep=True).holds

    def was_erased(self) -> bool:
        """Whether one was there, and proven, and somebody has taken it out."""
        from dicomwatchd.archive.identity import read_identity
        from dicomwatchd.archive.layout import erasures

        identity = read_identity(self.store)
        return identity is not None and bool(erasures.newest_number(self.store, phantom.study_uid(identity.archive_id)))

    def lists(self, made: Phantom) -> bool:
        """Whether the study's manifest does, or cannot be read, which `why_not_proven` says then."""
        from dicomwatchd.fetch import look_up

        try:
            manifest = look_up(self.store, self.catalogue, made.study_uid).manifest
        except DicomwatchdError:
            return True
        return _is_in(manifest, made)

    def why_not_proven(self, made: Phantom) -> str:
        """Read back and compared; "" where every byte is there."""
        from dicomwatchd.archive.proof.verification import verify
        from dicomwatchd.fetch import look_up

        try:
            manifest = look_up(self.store, self.catalogue, made.study_uid).manifest
            if not _is_in(manifest, made):
                return "the study's manifest does not list the file that was put into the inbox"
            found = verify(self.store, manifest, deep=True)
        except DicomwatchdError as error:
            return str(error)
        return (
            "" if found.holds else "the archive does not hold what its manifest lists: dicomwatchctl verify says more"
        )


def _is_in(manifest: Manifest, made: Phantom) -> bool:
    wanted = (made.sop_instance_uid, hashlib.sha256(made.content).hexdigest())
    return wanted in {(one.sop_instance_uid, one.sha256) for one in manifest.instances}


def _opened(loaded: Config, session: Session | None) -> _Archive:
    from dicomwatchd.archive import factory

    store = factory.open_store(loaded.archive.store, connections=2, session=session)
    return _Archive(store, factory.open_catalogue(loaded.archive.catalogue, session=session))


def tested_before(loaded: Config, session: Session | None) -> str | None:
    """Whether the archive has its test study, or had it until somebody erased it; None where it has none, or cannot be
    asked."""
    try:
        with _opened(loaded, session) as archive:
            archive.store.check()
            study = archive.next_study()
            if archive.holds(study):
                return f"study {study} is in the archive, and was read back just now"
            return "the test study was archived once, and erased" if archive.was_erased() else None
    except DicomwatchdError:
        return None
