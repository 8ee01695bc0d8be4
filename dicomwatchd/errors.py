"""The three kinds of failure, and the few named ones: what raised them decides nothing, the pipeline does.

Every message of these classes may be logged: it never holds a path of an inbox, a patient attribute or a
foreign exception's text. A path that the person at the terminal needs travels in ``path`` and is printed
by the command line tool only.
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


class ConfigError(Fatal):
    """The configuration is bad; ``problems`` holds every problem at once, ``(place in the file, reason)``. ``paths``
    are the paths that stand at such places: for whoever asks at a terminal, never for a log."""

    code = "config"

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


class NotInitialised(Fatal):
    """The archive, or a part of it, is not there."""

    code = "not-initialised"


class ArchiveRefused(Fatal):
    """The archive is there and must not be used: another identity, unencrypted, encryption not honoured."""

    code = "archive-refused"


class OutOfReach(Transient):
    """The store or the catalogue does not answer."""

    code = "out-of-reach"


class InboxSilent(Transient):
    """The file system of an inbox does not answer: whoever has asked it waits, for nobody knows how long."""

    code = "inbox-silent"


class Vanished(Transient):
    """An object that was proven is not there any more, or is another one. The local file is back."""

    code = "object-vanished"


class InvalidUid(Permanent):
    """A value is no DICOM UID (PS3.5 section 9.1). The value itself is not in the message."""

    code = "invalid-uid"


class Unarchivable(Permanent):
    """A file that cannot be archived as an instance of a study: it goes to quarantine and stays where it is."""

    code = "unarchivable"


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
