"""Who is behind an inbox: an entry that names one names its receivers, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def with_receivers(fields: Mapping[str, object], receivers: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """The fields, with ``receiver`` right behind ``inbox`` or ``sources``, or ``receivers`` where there are several:
    which of them a file came through is known to nobody. ``receivers``: those of each inbox, by names."""
    named = dict[str, object]()
    for name, value in fields.items():
        named[name] = value
        if name in ("inbox", "sources"):
            of_inboxes = value if isinstance(value, tuple | list) else (value,)
            found = tuple(dict.fromkeys(one for inbox in of_inboxes for one in receivers.get(str(inbox), ())))
            named |= {"receiver": found[0]} if len(found) == 1 else {"receivers": found} if found else {}
    return named
