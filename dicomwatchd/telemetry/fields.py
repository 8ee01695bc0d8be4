"""What an entry of the log may hold: the field names and the values that each of them accepts, and nothing else.

A patient's name or a path gets into a log by way of a free string: a file name, a foreign exception's text, a
formatted message. So a field has a known name, a string field a pattern that neither paths nor names fit, and
free text comes from errors of our own classes alone.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import TracebackType

from dicomwatchd.config.basics import INBOX_NAME
from dicomwatchd.errors import DicomwatchdError, Transient
from dicomwatchd.model import UID_MAX_LENGTH

FieldValue = str | int | float | bool | tuple[str, ...]
_Check = Callable[[object], FieldValue]


class OwnText(str):
    """Text of one of our own errors, which by their contract hold no path and no patient attribute; or a sentence that
    is a constant, filled with what may be logged.

    Only error_fields() and own_sentence() make one.
    """

    __slots__ = ()


def _text(pattern: str, max_length: int) -> _Check:
    compiled = re.compile(pattern)

    def check(value: object) -> FieldValue:
        if not isinstance(value, str) or len(value) > max_length or not compiled.fullmatch(value):
            raise ValueError("is no value for this field")
        return str(value)

    return check


def _texts(each: _Check) -> _Check:
    def check(value: object) -> FieldValue:
        if not isinstance(value, tuple | list):
            raise ValueError("must be a list")
        return tuple(str(each(item)) for item in value)

    return check


def _whole(value: object) -> FieldValue:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _number(value: object) -> FieldValue:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return round(value, 3)


def _yes_no(value: object) -> FieldValue:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _own_text(value: object) -> FieldValue:
    if not isinstance(value, OwnText):
        raise ValueError("free text comes from error_fields() and own_sentence() only")
    return value


_UID = _text(r"[0-9]+(?:\.[0-9]+)*", UID_MAX_LENGTH)
_WORD = _text(r"[a-z0-9]+(?:[-_][a-z0-9]+)*", 64)
_DOTTED = _text(r"[A-Za-z_]\w*(?:\.\w+)*", 120)
_CODE_PLACE = _text(r"[\w.<>-]+(?:/[\w.-]+)?:\d+(?: [\w.<>]+)?", 200)

_FIELDS: Mapping[str, _Check] = {
    # what it is about
    "study_uid": _UID,
    "series_uid": _UID,
    "sop_instance_uid": _UID,
    "sop_class_uid": _UID,
    "transfer_syntax_uid": _UID,
    "inbox": _text(INBOX_NAME, 63),
    "sources": _texts(_text(INBOX_NAME, 63)),  # inboxes and uploads, where there are several
    "receiver": _text(INBOX_NAME, 63),
    "site": _text(INBOX_NAME, 63),
    "host": _text(INBOX_NAME, 63),
    "receivers": _texts(_text(INBOX_NAME, 63)),
    "destination": _text(INBOX_NAME, 63),
    "certificate": _WORD,  # whose it is, where that has no name
    # Titles as those in use, which are no sentence; and the peer's address.
    "calling_ae_title": _text(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", 16),
    "peer": _text(r"[0-9.]{7,15}|[0-9a-f:.]{2,45}", 45),
    # A request of a browser's: what was asked for is in its address, and stays out.
    "http_method": _text(r"[A-Z]+", 8),
    "http_status": _whole,
    "route": _WORD,
    "revision": _whole,
    "uid": _whole,  # of a user of this system
    # what happened to it; modes and enumerations of ours
    "state": _WORD,
    "old_state": _WORD,
    "new_state": _WORD,
    "study_event": _WORD,
    "stage": _WORD,
    "reason": _WORD,
    "alarm": _WORD,
    "verified_by": _text(r"[a-z0-9]+(?:[-_:+][a-z0-9]+)*", 64),
    "attempt": _whole,
    "attempts": _whole,
    # errors
    "code": _WORD,
    "error_type": _DOTTED,
    "caused_by": _texts(_DOTTED),
    "errno": _whole,
    "exit_status": _whole,
    "error": _own_text,
    "sentence": _own_text,
    "hint": _own_text,
    "stack": _texts(_CODE_PLACE),
    # how much and how long; see also _BY_UNIT
    "files": _whole,
    "instances": _whole,
    "failed_instances": _whole,
    "studies": _whole,
    "series": _whole,
    "bytes": _whole,
    "seconds": _number,
    "sent": _whole,
    "deleted": _whole,
    "kept": _whole,
    "quarantined": _whole,
    "ignored": _whole,
    "parked": _whole,
    "waiting": _whole,
    "retries": _whole,
    "suppressed": _whole,
    "refused_fields": _whole,
    # the audit chain and its head: random digits and hashes
    "audit_chain": _text(r"[0-9a-f]{32}", 32),
    "audit_sequence": _whole,
    "audit_sha256": _text(r"[0-9a-f]{64}", 64),
    "audit_published": _whole,
    # the daemon and its surroundings
    "version": _text(r"[0-9][0-9A-Za-z.+-]*", 32),
    "pid": _whole,
    "workers": _whole,
    "inboxes": _whole,
    "once": _yes_no,
    "clean": _yes_no,
    "signal": _text(r"SIG[A-Z0-9]+", 12),
    "thread": _text(r"[A-Za-z][\w.-]*", 63),
    "store_kind": _WORD,
    "catalogue_kind": _WORD,
    "encryption": _text(r"[A-Za-z0-9]+(?:[:-][A-Za-z0-9]+)*", 32),
    # What our errors call a store, a catalogue or the state that is in trouble.
    "endpoint": _text(
        r"(?:(?:s3|dynamodb) at )?(?:aws:[a-z0-9-]+|https?://(?:[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(?::\d+)?/?)"
        r"|the archive's folder|catalogue file|state",
        255,
    ),
    "bucket": _text(r"[a-z0-9][a-z0-9.-]*", 63),
    "table": _text(r"[A-Za-z0-9_.-]+", 255),
    # what a library said, without what it said
    "logger": _DOTTED,
    "category": _DOTTED,
    "where": _CODE_PLACE,
}
#: Any other name that ends in a unit takes a number, and a number is neither a path nor a name.
_BY_UNIT: tuple[tuple[str, _Check], ...] = (
    ("_seconds", _number),
    ("_minutes", _whole),
    ("_hours", _number),
    ("_days", _whole),
    ("_mb_per_second", _number),
    ("_bytes", _whole),
    ("_files", _whole),
    ("_studies", _whole),
    ("_count", _whole),
)
_NAME = re.compile(r"[a-z]+(?:_[a-z]+)*")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::([,.0-9a-z]+))?\}")
_EVENT = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def checked(fields: Mapping[str, object], *, strict: bool) -> dict[str, FieldValue]:
    """The fields as they may be logged; a value of None is left out.

    An unknown name or an unfit value raises ValueError when ``strict``. Otherwise it is dropped and counted in
    ``refused_fields``: a log call must not stop the daemon, and must not let anything through either.
    """
    accepted: dict[str, FieldValue] = {}
    refused = 0
    for name, value in fields.items():
        if value is None:
            continue
        check = _check_for(name)
        try:
            if check is None:
                raise ValueError("is no field of the log")
            accepted[name] = check(value)
        except ValueError as error:
            if strict:
                # The value stays out of this message: it is what must not be seen.
                raise ValueError(f"log field {name}: {error}") from None
            refused += 1
    if refused:
        accepted["refused_fields"] = refused
    return accepted


def checked_event(event: str, *, strict: bool) -> str:
    """The event's name: lower-case words joined by hyphens. Raises ValueError when ``strict``."""
    if len(event) <= 64 and _EVENT.fullmatch(event):
        return event
    if strict:
        raise ValueError("an event is named by lower-case words joined by hyphens")
    return "unnamed"


def compose(template: str, fields: Mapping[str, FieldValue], *, strict: bool) -> str:
    """A sentence from a template, its ``{name}`` and ``{name:.1f}`` filled with fields that have passed checked();
    ``{name:mb}`` is a number of bytes as "12.3 MB".

    A field that was not given stays as it stands, or raises ValueError when ``strict``.
    """

    def fill(match: re.Match[str]) -> str:
        try:
            value = fields[match[1]]
            return f"{float(str(value)) / 1e6:,.1f} MB" if match[2] == "mb" else format(value, match[2] or "")
        except (KeyError, ValueError):
            if strict:
                raise ValueError(f"the message names the field {match[1]}, which was not given, or not so") from None
            return match[0]

    return _PLACEHOLDER.sub(fill, template)


def own_sentence(template: str, fields: Mapping[str, object]) -> OwnText:
    """``template`` is a constant of the program; of the ``fields`` that it names those that may not be logged are left
    out."""
    return OwnText(compose(template, checked(fields, strict=False), strict=False))


def named_in(template: str) -> frozenset[str]:
    """The fields that a template names."""
    return frozenset(match[1] for match in _PLACEHOLDER.finditer(template))


def error_fields(error: BaseException) -> dict[str, object]:
    """How an error is logged.

    Our own errors: ``code``, ``error_type``, their message and hint as ``error`` and ``hint``, ``endpoint`` and
    ``retry_after_seconds`` of a Transient, and the types and errno of what caused them. Foreign errors: type,
    errno and the places in the code they came through. Never their text: that of an OSError holds a path, that of
    pydicom a patient's attributes.
    """
    causes = list(_causes(error))
    fields: dict[str, object] = {
        "error_type": _type_name(error),
        "caused_by": tuple(_type_name(cause) for cause in causes) or None,
        "errno": next((e.errno for e in (error, *causes) if isinstance(e, OSError)), None),
    }
    if isinstance(error, DicomwatchdError):
        fields["code"] = error.code
        fields["error"] = OwnText(_one_line(error.message))
        fields["hint"] = OwnText(_one_line(error.hint)) if error.hint else None
        if isinstance(error, Transient):
            fields["endpoint"] = error.endpoint
            fields["retry_after_seconds"] = error.retry_after_seconds
    else:
        fields["code"] = "unexpected"
        fields["stack"] = stack_places(error.__traceback__)
    return {name: value for name, value in fields.items() if value is not None}


def stack_places(trace: TracebackType | None, *, limit: int = 25) -> tuple[str, ...]:
    """``package/file.py:line function`` of the innermost ``limit`` frames, outermost first."""
    return tuple(
        f"{code_place(frame.f_code.co_filename, line)} {frame.f_code.co_name}"
        for frame, line in list(traceback.walk_tb(trace))[-limit:]
    )


def code_place(filename: str, line: int) -> str:
    """``package/file.py:line``: where in the code, without where on this machine."""
    return f"{'/'.join(PurePath(filename).parts[-2:]).lstrip('/')}:{line}"


def _check_for(name: str) -> _Check | None:
    known = _FIELDS.get(name)
    if known is not None or not _NAME.fullmatch(name):
        return known
    return next((check for unit, check in _BY_UNIT if name.endswith(unit)), None)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ == "builtins" or kind.__module__.startswith("dicomwatchd."):
        return kind.__name__
    return f"{kind.__module__}.{kind.__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What the error was raised from, nearest first."""
    seen = {id(error)}
    current = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while current is not None and id(current) not in seen and len(seen) < 10:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
