"""The three kinds of failure, and those that code tells apart: what raised them decides nothing, the pipeline does.

A failure that somebody branches on is a class here, and is told apart by it. ``code`` is for people, logs and JSON; a
failure that only they tell apart has no class, but a kind and a ``code`` of its own.

Every message of these classes may be logged: it never holds a path of an inbox, a patient attribute or a
foreign exception's text. A path that the person at the terminal needs travels in ``path`` and is printed
by the command line tool only; so does the reason of an erasure, in ``because``.
"""

from __future__ import annotations

from collections.abc import Mapping


class DicomwatchdError(Exception):
    """Base of all errors raised on purpose.

    ``code`` is a short stable word for logs and JSON, ``hint`` says what to do about it.
    """

    code = "error"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Transient(DicomwatchdError):
    """Heals by itself: try again later. ``endpoint`` names the store or catalogue that is in trouble as a
    whole (down, throttling, credentials), so that one shared backoff can be kept for it."""

    code = "transient"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        path: str | None = None,
        endpoint: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint, path=path)
        self.endpoint = endpoint
        self.retry_after_seconds = retry_after_seconds


class Permanent(DicomwatchdError):
    """Will fail again the same way: park the study (or quarantine the file) and tell the operator."""

    code = "permanent"


class Fatal(DicomwatchdError):
    """Nothing may go on: refuse to start, or stop."""

    code = "fatal"


# -- configuration and state ------------------------------------------------------------------------------------------


class Misconfigured(Fatal):
    """What the configuration or the environment says cannot be used."""

    code = "config"


class ConfigError(Misconfigured):
    """The configuration is bad; ``problems`` holds every problem at once, ``(place in the file, reason)``. ``paths``
    are the paths that stand at such places, and the keys there that may be one: for whoever asks at a terminal, never
    for a log."""

    def __init__(
        self,
        problems: list[tuple[str, str]],
        *,
        source: str | None = None,
        paths: Mapping[str, object] | None = None,
    ) -> None:
        self.problems = problems
        self.paths = paths or {}
        super().__init__("; ".join(f"{where}: {why}" if where else why for where, why in problems), path=source)

    def lines(self, program: str, file: object) -> str:
        """For whoever has started ``program`` with this configuration file: a line for each problem."""
        return "".join(f"{program}: {file}: {where + ': ' if where else ''}{why}\n" for where, why in self.problems)


class StateFailed(Fatal):
    """The state directory or its database cannot be used. Each raises it with a code "state-..." of its own."""

    code = "state"


class StateUnavailable(Transient):
    """The state cannot be written now: its disk is full, or its database locked. The code is "state-...", too."""

    code = "state"


# -- archive: the store and the catalogue -----------------------------------------------------------------------------


class NotInitialised(Fatal):
    """The archive, or a part of it, is not there."""

    code = "not-initialised"


class ArchiveRefused(Fatal):
    """The archive is there and must not be used: another identity, unencrypted, encryption not honoured."""

    code = "archive-refused"


class OutOfReach(Transient):
    """The store or the catalogue does not answer."""

    code = "out-of-reach"


class NotThere(OutOfReach):
    """The place itself, folder, bucket, table or file, is not there: never made, not mounted, or removed."""

    code = "not-there"


class Throttled(Transient):
    """The service asks for fewer requests."""

    code = "throttled"


class Conflict(Transient):
    """Another request was at the same thing, or has been: what there is now has to be looked at first."""

    code = "conflict"


class CredentialsRefused(Transient):
    """The service does not take the credentials, or their rights do not suffice; or there are none."""

    code = "credentials"


class EncryptionKeyUnusable(Transient):
    """The service cannot use the encryption key."""

    code = "encryption-key"


class NoSuchObject(Permanent):
    """The store has no object under this key, or no such version of it."""

    code = "no-such-object"


class ColdObject(Permanent):
    """The store has the object in cold storage: its bytes cannot be read until it was restored, which takes hours."""

    code = "cold-storage"


class RequestRefused(Permanent):
    """The service refused a request, and with words that we do not know."""

    code = "refused"


class InvalidRequest(Permanent):
    """The request does not even leave: its parameters are not what the service takes."""

    code = "invalid-request"


class NotSupported(Permanent):
    """The service does not know this operation."""

    code = "not-supported"


class StoreUnreliable(Permanent):
    """The store does not hold what it is sent, however often."""

    code = "store-unreliable"


class CatalogueEntryDamaged(Permanent):
    """A study's entry in the catalogue cannot be read."""

    code = "catalogue-damaged"


class StudyNotFound(Permanent):
    """Nobody who was asked knows the study."""

    code = "study-not-found"


class StudyErased(StudyNotFound):
    """The study was erased from the archive on purpose, and nothing may bring it back by itself. ``because`` is the
    reason that was given for it, where it is known: text that nobody has checked, for a person at a terminal and for
    whoever calls the Python API, and in no message, hint, log or HTTP answer."""

    code = "study-erased"

    def __init__(self, message: str, *, because: str | None = None) -> None:
        super().__init__(message)
        self.because = because


# -- manifests --------------------------------------------------------------------------------------------------------


class BadManifest(Permanent):
    """What the store holds in a manifest's place is none, or not the one its key names."""

    code = "bad-manifest"


class NewerManifest(Permanent):
    """A manifest that a newer program wrote, in a format that this one does not know."""

    code = "newer-manifest"


class ForeignManifest(Permanent):
    """A manifest that belongs to another archive."""

    code = "foreign-manifest"


class ManifestTooLarge(Permanent):
    """The study has more than one manifest can list."""

    code = "manifest-too-large"


class BeyondReadLimit(Permanent):
    """A manifest that is not read, for the study has more of them than is read of one."""

    code = "read-limit"


# -- local files, and a study on its way ------------------------------------------------------------------------------


class InboxNotResponding(Transient):
    """The file system of an inbox does not answer: whoever has asked it waits, for nobody knows how long."""

    code = "inbox-not-responding"


class Vanished(Transient):
    """An object that was proven is not there any more, or is another one. The local file is back."""

    code = "object-vanished"


class InvalidUid(Permanent):
    """A value is no DICOM UID (PS3.5 section 9.1). The value itself is not in the message."""

    code = "invalid-uid"


class Unarchivable(Permanent):
    """A file that cannot be archived as an instance of a study: it goes to quarantine and stays where it is."""

    code = "unarchivable"


class NotDicom(Unarchivable):
    """A file whose header is not DICOM's: something else, or an image that is damaged beyond recognition."""

    code = "not-dicom"


class SourceChanged(DicomwatchdError):
    """A local file is not what it was when its study was taken up: it has to settle again."""

    code = "source-changed"


class ClaimLost(DicomwatchdError):
    """The claim on a study was taken away meanwhile (a file of it changed, or a restart): drop the work."""

    code = "claim-lost"


class Stopping(DicomwatchdError):
    """The daemon drains: leave the work in a state from which a restart goes on."""

    code = "stopping"


class RevisionConflict(DicomwatchdError):
    """Somebody else recorded a revision of this study meanwhile: read again, merge, try the next one."""

    code = "revision-conflict"
