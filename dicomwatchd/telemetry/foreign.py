"""What libraries and crashes say, passed on to the journal without their words.

Messages of foreign code hold what they were handed: paths, patient attributes, access keys. Of a log record only
the logger, the level and the exception's type go on; of a warning its category and place; of a crash its type and
the places in the code.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from dicomwatchd.telemetry.fields import code_place, error_fields
from dicomwatchd.telemetry.journal import Journal, Level

#: Their DEBUG holds credentials and object metadata; not even the fact of a record is worth passing on.
_NEVER_DEBUG = ("boto3", "botocore", "s3transfer", "urllib3")
#: Logger and function of what is called an error there and is none: a watch that ends, as at each reload, while the
#: kernel tells of something.
_IN_GOOD_ORDER = ("watchdog.observers.inotify", "queue_events")


class _ToJournal(logging.Handler):
    def __init__(self, journal: Journal, level: int) -> None:
        super().__init__(level)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.INFO and record.name.split(".")[0] in _NEVER_DEBUG:
            return
        level = _level_of(record)
        say = {
            "ERROR": self._journal.error,
            "WARNING": self._journal.warning,
            "INFO": self._journal.info,
            "DEBUG": self._journal.debug,
        }[level]
        error = record.exc_info[1] if record.exc_info else None
        say(
            "library",
            "a library logged a message; its text is withheld",
            logger=record.name if _is_dotted(record.name) else None,  # it can be any text
            where=code_place(record.pathname, record.lineno) if _is_code(record.pathname) else None,
            error_type=error_fields(error)["error_type"] if error is not None else None,
        )

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the default prints the record with its arguments to stderr."""


def _level_of(record: logging.LogRecord) -> Level:
    if (record.name, record.funcName) == _IN_GOOD_ORDER:
        return "DEBUG"
    if record.levelno >= logging.ERROR:
        return "ERROR"
    if record.levelno >= logging.WARNING:
        return "WARNING"
    return "DEBUG"  # what a library does in good order nobody can follow whom its words are withheld from


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_code(filename: str) -> bool:
    return filename.endswith(".py")


def redirect_foreign_logging(journal: Journal, level: Level) -> Callable[[], None]:
    """From now on nothing but the journal writes to the log: logging, warnings and uncaught exceptions go there.

    Records below ``level`` are dropped; repeats are held back by the journal. Returns what undoes it.
    """
    root = logging.getLogger()
    known = [item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    handlers = {logger: logger.handlers[:] for logger in (root, *known)}
    before = (root.level, warnings.showwarning, warnings.filters[:], logging.raiseExceptions)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)

    for logger in known:
        logger.handlers = []
    root.handlers = [_ToJournal(journal, logging.getLevelNamesMapping()[level])]
    root.setLevel(logging.getLevelNamesMapping()[level])
    logging.raiseExceptions = False

    def show_warning(
        message: Warning | str,  # noqa: ARG001  never looked at
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        journal.warning(
            "library-warning",
            "a library issued a warning; its text is withheld",
            category=category.__name__,
            where=code_place(filename, lineno) if _is_code(filename) else None,
        )

    warnings.showwarning = show_warning
    # "default" keeps every distinct text for good, and texts hold values: that is patient data, and without bound.
    warnings.simplefilter("always")
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)  # for developers; off in Python's own defaults too

    def crashed(error: BaseException | None, thread: str | None) -> None:
        try:
            journal.error(
                "crash",
                "unexpected error; its text is withheld",
                thread=thread if thread and thread.isascii() and thread.replace("-", "").isidentifier() else None,
                **(error_fields(error) if error is not None else {}),
            )
        except BaseException:  # noqa: BLE001  where a hook fails, Python prints what crashed, with its text
            return

    def main_crash(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        crashed(error, "main")

    def thread_crash(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, SystemExit):
            crashed(args.exc_value, args.thread.name if args.thread else None)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        crashed(args.exc_value, None)

    sys.excepthook, threading.excepthook, sys.unraisablehook = main_crash, thread_crash, unraisable

    def undo() -> None:
        for logger, old in handlers.items():
            logger.handlers = old
        root.setLevel(before[0])
        warnings.showwarning = before[1]
        warnings.filters[:] = before[2]  # type: ignore[index]
        logging.raiseExceptions = before[3]
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks

    return undo
