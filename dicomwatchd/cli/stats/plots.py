"""The figures as plots in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from dicomwatchd.cli.stats import figures
from dicomwatchd.cli.terminal import charts, output
from dicomwatchd.cli.terminal.glyphs import Glyphs

_NARROWEST, _WIDEST = 40, 132
#: Left of the columns: the highest value, and a blank.
_MARGIN = 10


def lines(history: Mapping[str, Any], width: int, how: Glyphs) -> list[str]:
    """None of them wider than ``width``, down to 40."""
    width = max(_NARROWEST, min(_WIDEST, width)) - 1
    bins = figures.binned(history, width - _MARGIN)
    found = [
        f"Archived; each column is {'one ' if ' ' not in bins.step else ''}{bins.step} (UTC)",
        *charts.columns(
            [one.bytes for one in bins.bins],
            how,
            said=output.size,
            begin=f"{bins.bins[0].begins_at:%m-%d %H:%M}",
            end=f"{bins.bins[-1].begins_at:%m-%d %H:%M}",
        ),
    ]
    for title, buckets, said in (
        (
            "From a study's first file to the archive",
            figures.times(history),
            figures.sentence(history["to_archive"], "seconds"),
        ),
        ("Size of shipments", figures.sizes(history), figures.sentence(history["sizes"], "bytes")),
    ):
        if buckets:
            heading = f"{title}: {said}"
            found += [
                "",
                *([heading] if len(heading) <= width else [*textwrap.wrap(title, width), *textwrap.wrap(said, width)]),
            ]
            found += charts.bars(buckets, how, width)
    return [how.safe(line) for line in found]
