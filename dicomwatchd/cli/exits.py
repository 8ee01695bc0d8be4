"""Exit codes of dicomwatchctl, and which of them an error leads to."""

from __future__ import annotations

from dicomwatchd.errors import (
    ArchiveRefused,
    CredentialsRefused,
    DicomwatchdError,
    Fatal,
    Misconfigured,
    NotInitialised,
    OutOfReach,
    Throttled,
    Transient,
)

OK = 0
NO = 1
USAGE = 2
ARCHIVE = 3
DAEMON = 4
INTERRUPTED = 130

MEANING = {
    OK: "done, and everything is in order",
    NO: "negative result: study not found, files not verified, images missing",
    USAGE: "the command line or the configuration is wrong",
    ARCHIVE: "the archive is not initialised, refuses access or cannot be reached",
    DAEMON: "the daemon does not answer",
    INTERRUPTED: "interrupted by Ctrl-C",
}

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANING.items())


#: Of the daemon's answers, which come as text: the codes that speak of its archive.
_ARCHIVE_CODES = frozenset(
    kind.code for kind in (Transient, OutOfReach, Throttled, Fatal, NotInitialised, ArchiveRefused, CredentialsRefused)
)


def code_for(error: DicomwatchdError) -> int:
    from dicomwatchd.control.client import DaemonRefused, DaemonUnreachable

    match error:
        case DaemonUnreachable():
            return DAEMON
        case DaemonRefused():
            return ARCHIVE if error.code in _ARCHIVE_CODES else NO
        case Misconfigured():
            return USAGE
        case Fatal() | Transient():
            return ARCHIVE
        case _:
            return NO
