"""Takes one settled file up: opens it safely, reads its header, and says what it is."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from dicomwatchd.errors import DicomwatchdError, NotDicom, SourceChanged, Unarchivable
from dicomwatchd.filebytes import sha256_of
from dicomwatchd.intake.dicom.dicomdir import read_dicomdir
from dicomwatchd.intake.dicom.header import Dicomdir, Header, read_header
from dicomwatchd.intake.dicom.other import left_alone
from dicomwatchd.intake.dicom.sizes import SIZES, Sizes
from dicomwatchd.intake.dicom.verdict import Completeness, Damaged
from dicomwatchd.intake.folder.unreadable import NOT_TO_BE_READ
from dicomwatchd.localfiles import (
    KeptOpen,
    NotRegular,
    WriterPresent,
    identity,
    open_directory,
    read_lease,
    regular_file,
)
from dicomwatchd.model import CANNOT_TELL, FileIdentity, FileState, InstanceHeader
from dicomwatchd.patients import Identity, Order
from dicomwatchd.ports import Log
from dicomwatchd.queue.database.upgrade import FAULT
from dicomwatchd.queue.rows import DICOMDIR, UNREADABLE, Arrival, ListedStudies
from dicomwatchd.rights import READ, Asker
from dicomwatchd.telemetry.fields import error_fields

NO_ACCESS = "no-access"
#: The medium, or the file system on it, has lost what stands there: no other attempt a moment later is any better.
BROKEN = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EREMOTEIO)
NOT_OURS = "named like a private directory of dicomwatchd but owned by another user: nothing in it is read"
NOT_A_FILE = "a symbolic link, FIFO, socket or device; these are neither followed nor read"
NOT_FOR_THE_ASKER = "the user who started the upload may not read it, so it is left out"
NOT_FOR_THE_DAEMON = (
    "the daemon may not read it; give its user access (setfacl -R -m u:dicomwatchd:rX FOLDER), then upload the folder"
    " again"
)
_UNREADABLE = "the daemon may not read it; check the file's owner and permissions"
_DICOMDIR = "the index of a DICOM medium, not an instance of a study"
_CUT = "attributes: longer than their VR allows, shortened in the record"
_FAULT = "a fault in the program; see the log"


class Gone(Exception):
    """The file is not there any more, or something else than a file is."""


class Folder(KeptOpen):
    """The directory ``relative`` below ``root_fd``, opened when it is first asked for. To be left as a context."""

    def __init__(self, root_fd: int, relative: bytes) -> None:
        super().__init__()
        self.relative = relative
        self._root_fd = root_fd

    def fd(self) -> int:
        """Raises OSError."""
        return self.keep(self.relative, lambda: open_directory(self._root_fd, self.relative))


def take(
    folder: Folder,
    name: bytes,
    found: FileIdentity,
    is_on_record: Callable[[Header], bool],
    log: Log,
    heartbeat: Callable[[], None] = lambda: None,
    sizes: Sizes = SIZES,
    asker: Asker | None = None,
    charset_when_missing: str = "",
) -> Arrival:
    """What the file ``name`` in a folder is, seen as ``found`` a moment ago: an instance of a study, a DICOMDIR, or
    something for quarantine. ``is_on_record`` says whose attributes are not needed. What ``asker``, for
    whom the folder is looked at, may not read goes to quarantine; what is not DICOM at all is left alone there, for a
    patient's CD is full of it. ``charset_when_missing``: see `read_header`.

    Raises WriterPresent, SourceChanged and Gone when it has to be looked at again, OSError when it cannot be read now.
    """
    try:
        with regular_file(folder.fd(), name) as fd:
            if identity(fd) != found:
                raise SourceChanged("the file has changed since the scan")
            if asker is not None and not asker.may(fd, READ):
                return Arrival(
                    folder.relative, name, found, FileState.QUARANTINED, code=NO_ACCESS, reason=NOT_FOR_THE_ASKER
                )
            sizes.require(fd)
            with read_lease(fd):
                try:
                    header = read_header(
                        fd, found.size_bytes, heartbeat=heartbeat, charset_when_missing=charset_when_missing
                    )
                except Unarchivable as error:
                    # What is left of a damaged one is archived if it says whose it is: it may be all there is.
                    rest = error.header if isinstance(error, Damaged) else None
                    if rest is None and asker is None:
                        raise
                    if rest is None:
                        return _of_an_upload(error, fd, folder.relative, name, found)
                    header = rest
                if isinstance(header, Dicomdir):
                    return _dicomdir(fd, folder.relative, name, found, heartbeat)
        # Working the attributes out costs more than all the rest; once for each series is enough, and where a file says
        # something new.
        known = is_on_record(header)
        of_study = None if known else header.study_attributes
        instance = _with_verdict(header)
        if not known and header.has_long_attributes:
            instance = replace(instance, repairs=(*instance.repairs, _CUT))
        return Arrival(
            folder.relative,
            name,
            found,
            FileState.READY,
            header=instance,
            patient_id=header.patient_id,
            study_attributes=of_study,
            series_attributes=None if known else header.series_attributes,
            patient=None if of_study is None else (header.identity_digest, Identity.of(of_study)),
            order=None if of_study is None else (header.order_digest, Order.of(of_study, header.issuer_of_order)),
            signs=header.signs_text,
        )
    except WriterPresent:
        raise
    except Unarchivable as error:
        return Arrival(folder.relative, name, found, FileState.QUARANTINED, code=error.code, reason=error.message)
    except NotRegular as error:
        raise Gone from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            reason = _UNREADABLE if asker is None else NOT_FOR_THE_DAEMON
            return Arrival(folder.relative, name, found, FileState.QUARANTINED, code=NO_ACCESS, reason=reason)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
            raise Gone from error
        if error.errno in BROKEN:
            return Arrival(folder.relative, name, found, FileState.QUARANTINED, code=UNREADABLE, reason=NOT_TO_BE_READ)
        raise
    except DicomwatchdError:
        raise
    except Exception as error:  # noqa: BLE001  a fault of ours that one file meets must not stop the others
        log.error("intake-fault", "reading a file's header hit a fault in the program", **error_fields(error))
        return Arrival(folder.relative, name, found, FileState.QUARANTINED, code=FAULT, reason=_FAULT)


def _with_verdict(header: Header) -> InstanceHeader:
    verdict = header.verdict
    if verdict.completeness is Completeness.DAMAGED:
        return replace(header.instance, damage=verdict.text)
    if verdict.completeness is Completeness.CANNOT_TELL:
        return replace(header.instance, repairs=(*header.instance.repairs, f"{CANNOT_TELL}: {verdict.reason}"))
    return header.instance


def _dicomdir(fd: int, parent: bytes, name: bytes, found: FileIdentity, heartbeat: Callable[[], None]) -> Arrival:
    """Raises SourceChanged, OSError."""
    arrival = Arrival(parent, name, found, FileState.IGNORED, code=DICOMDIR, reason=_DICOMDIR)
    try:
        by_study = read_dicomdir(fd, found.size_bytes, heartbeat).by_study()
    except Unarchivable as error:
        return replace(arrival, reason=f"{_DICOMDIR}; what it lists cannot be read: {error.message}")
    return replace(arrival, listed=ListedStudies(sha256_of(fd, found.size_bytes, heartbeat), by_study))


def _of_an_upload(error: Unarchivable, fd: int, parent: bytes, name: bytes, found: FileIdentity) -> Arrival:
    """What cannot be archived, of a folder that somebody has handed in. Raises ``error``, or another Unarchivable,
    where it is a failure; OSError."""
    if name.upper().partition(b";")[0].rstrip(b".") == b"DICOMDIR":  # a damaged one: the final scan says so
        return Arrival(parent, name, found, FileState.IGNORED, code=DICOMDIR, reason=_DICOMDIR)
    if not isinstance(error, NotDicom):
        raise error
    other = left_alone(fd, found.size_bytes, parent, name)
    return Arrival(parent, name, found, FileState.IGNORED, code=other.code, reason=other.reason)
