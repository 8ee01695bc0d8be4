"""An entry's own figures as people read them behind its message: of which study or inbox, how many, how long."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dicomwatchd.telemetry.fields import FieldValue

#: What is there for whoever searches the journal, or hunts a fault, and would only lengthen the line.
_FIELDS_ALONE = frozenset(
    {
        "audit_chain",
        "audit_published",
        "audit_sequence",
        "audit_sha256",
        "caused_by",
        "code",
        "errno",
        "error",
        "error_type",
        "hint",
        "pid",
        "process_cpu_seconds",
        "refused_fields",
        "rss_bytes",
        "stack",
    }
)
_WORDS = {"study_uid": "study", "series_uid": "series", "sop_instance_uid": "SOP instance", "uid": "user"}


def figures(fields: Mapping[str, FieldValue], named: Collection[str] = ()) -> str:
    """``(study 1.2.3, inbox ct1, 12 files, upload 1.5 s at 80.0 MB/s)``, or "" where there is none; without what is
    ``named`` in the message already, and without zeros. Units are those that the fields' names end in."""
    left = {
        name: value
        for name, value in fields.items()
        if name not in _FIELDS_ALONE and name not in named and value not in (0, "", ())
    }
    told = []
    for name, value in left.items():
        stem = name.removesuffix("_mb_per_second")
        if stem == name or f"{stem}_seconds" not in left:
            speed = left.get(f"{name.removesuffix('_seconds')}_mb_per_second") if name.endswith("_seconds") else None
            told.append(_told(name, value) + (f" at {speed:,.1f} MB/s" if isinstance(speed, int | float) else ""))
    return f"({', '.join(told)})" if told else ""


def _told(name: str, value: FieldValue) -> str:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, tuple):
        value = " ".join(value)
    words = _WORDS.get(name, name.replace("_", " "))
    if isinstance(value, str):
        return f"{words} {value}"
    stem = _stem(name)
    if name.endswith("seconds"):
        return f"{stem}{value:,.1f} s"
    if name.endswith("mb_per_second"):
        return f"{stem}{value:,.1f} MB/s"
    if name.endswith("bytes"):
        return f"{stem}{value / 1e6:,.1f} MB"
    return f"{value:,} {words}" if name.endswith(("files", "studies", "instances")) else f"{words} {value}"


def _stem(name: str) -> str:
    words = name.removesuffix("mb_per_second").removesuffix("seconds").removesuffix("bytes").split("_")
    return "".join(f"{word} " for word in words if word)
