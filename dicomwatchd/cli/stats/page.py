"""The figures as one HTML page that stands for itself: no script, nothing from any other host, charts as SVG within it,
each with its numbers in a table beside it; to be read on a screen, on paper and by a screen reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dicomwatchd import __version__
from dicomwatchd.cli.stats import figures
from dicomwatchd.cli.stats.figures import Bins, Bucket
from dicomwatchd.cli.terminal import output

#: So many columns can be told apart on a page, and listed in a table beside them.
_MOST_COLUMNS = 60
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 240, 76, 26, 12
_BAR, _BAR_LEFT, _BAR_RIGHT = 22, 110, 60

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #b8b8b8; --fill: #1f5fa6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --line: #555; --fill: #6aa9f0; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
figure { margin: 0; flex: 2 1 420px; } .beside { flex: 1 1 260px; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .mark { fill: var(--fill); } svg .axis { stroke: var(--line); stroke-width: 1; }
figcaption { font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { border-bottom: 1px solid var(--line); padding: .15rem .6rem .15rem 0; text-align: right;
  white-space: nowrap; } th:first-child, td:first-child { text-align: left; } th { vertical-align: bottom; }
@media print { :root { --ink: #000; --paper: #fff; --line: #999; --fill: #444; } body { margin: 0; max-width: none; }
  section, figure, tr { break-inside: avoid; } }
"""


#: By which a page is known to be one, and may be replaced by the next.
_MARK = '<meta name="generator" content="dicomwatchctl stats">'


def is_one(path: Path) -> bool:
    """Raises OSError."""
    with path.open("rb") as file:
        return _MARK.encode() in file.read(4096)


def page(said: Mapping[str, Any], days: int) -> str:
    """``said``: the daemon's answer to "stats" with its history."""
    history: Mapping[str, Any] = said["history"]
    bins = figures.binned(history, _MOST_COLUMNS)
    title = f"dicomwatchd: archived in the last {output.count(days, 'day')}"
    totals: Mapping[str, Any] = said.get("totals") or {}
    period = f"{_when(history['since'])} to {_when(history['until'])} UTC"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(period)}. {escape(_totals(totals))}</p>",
        _section("Throughput", _columns(bins, history), _bins_table(bins)),
        _section(
            "Time to archive",
            _bars("took", "Time to archive", _TIME_TEXT, figures.times(history), history["to_archive"], "seconds"),
            _buckets_table("From the first file to the archive", figures.times(history)),
        ),
        _section(
            "Sizes",
            _bars("sizes", "Size of shipments", _SIZE_TEXT, figures.sizes(history), history["sizes"], "bytes"),
            _buckets_table("Size of the files of a shipment", figures.sizes(history)),
        ),
        f"<section><h2>By day and inbox</h2>{_days_table(said.get('days') or ())}</section>",
        f"<p>A shipment is the files of one study that were archived together. dicomwatchd {escape(__version__)}.</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{_MARK}\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


_TIME_TEXT = "How long it took from the moment a study's first file was seen until it was archived."
_SIZE_TEXT = "How many bytes the files of a study had that were archived together."


def _totals(totals: Mapping[str, Any]) -> str:
    speed = totals.get("megabytes_per_second")
    return (
        f"{output.count(totals.get('studies') or 0, 'study', 'studies')} in"
        f" {output.count(totals.get('shipments') or 0, 'shipment')}, {output.count(totals.get('files') or 0, 'file')},"
        f" {output.size(totals.get('bytes') or 0)}" + (f", sent at {speed:,.1f} MB/s." if speed is not None else ".")
    )


def _section(heading: str, figure: str, table: str) -> str:
    beside = f'<div class="beside">{table}</div>'
    return f'<section><h2>{escape(heading)}</h2><div class="pair">{figure}{beside}</div></section>'


# -- charts -----------------------------------------------------------------------------------------------------------


def _columns(bins: Bins, history: Mapping[str, Any]) -> str:
    highest = max((one.bytes for one in bins.bins), default=0)
    room, height = _WIDTH - _LEFT, _HEIGHT - _BOTTOM - _TOP
    width = room / max(1, len(bins.bins))
    marks = []
    for number, one in enumerate(bins.bins):
        tall = height * one.bytes / highest if highest else 0
        if tall:
            tall = max(tall, 1.0)
            at = f'x="{_LEFT + number * width:.1f}" y="{_TOP + height - tall:.1f}"'
            hover = f"{one.begins_at:%Y-%m-%d %H:%M}: {output.size(one.bytes)}, {output.count(one.files, 'file')}"
            size = f'width="{max(width - 1, 0.5):.1f}" height="{tall:.1f}"'
            marks.append(f'<rect class="mark" {at} {size}><title>{escape(hover)}</title></rect>')
    base = _TOP + height
    axis = (
        f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH}" y2="{base}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{escape(output.size(highest))}</text>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">0 B</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{escape(_when(history["since"]))}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">{escape(_when(history["until"]))}</text>'
    )
    text = (
        f"Bytes archived; each column is one {bins.step}."
        if " " not in bins.step
        else (f"Bytes archived; each column is {bins.step}.")
    )
    most = f" The most in one column are {output.size(highest)}." if highest else " Nothing was archived."
    return _figure("throughput", "Throughput", text + most, _HEIGHT, axis + "".join(marks), text)


def _bars(
    name: str, title: str, text: str, buckets: Sequence[Bucket], distribution: Mapping[str, Any], unit: str
) -> str:
    said = figures.sentence(distribution, unit)
    highest = max((one.shipments for one in buckets), default=0)
    room = _WIDTH - _BAR_LEFT - _BAR_RIGHT
    marks = []
    for number, one in enumerate(buckets):
        y, length = number * _BAR, room * one.shipments / highest if highest else 0
        marks.append(
            f'<text x="{_BAR_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(one.name)}</text>'
            f'<rect class="mark" x="{_BAR_LEFT}" y="{y + 3}" width="{length:.1f}" height="{_BAR - 7}"/>'
            f'<text x="{_BAR_LEFT + length + 6:.1f}" y="{y + 15}">{one.shipments:,}</text>'
        )
    height = max(1, len(buckets)) * _BAR + 4
    whole = f"{text} {said[:1].upper()}{said[1:]}." if said else f"{text} There are no figures."
    return _figure(name, title, whole, height, "".join(marks), whole)


def _figure(name: str, title: str, description: str, height: int, inner: str, caption: str) -> str:
    return (
        f'<figure><svg role="img" viewBox="0 0 {_WIDTH} {height}" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        f"{inner}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def _table(caption: str, heads: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = []
    for first, *others in rows:
        cells = "".join(f"<td>{escape(output.clean('' if one is None else one))}</td>" for one in others)
        body.append(f'<tr><th scope="row">{escape(output.clean(first))}</th>{cells}</tr>')
    caption = escape(caption)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _bins_table(bins: Bins) -> str:
    filled = [one for one in bins.bins if one.shipments]
    return _table(
        f"For each {bins.step} (UTC) in which something was archived",
        ("From", "Shipments", "Files", "Size"),
        (
            (f"{one.begins_at:%Y-%m-%d %H:%M}", f"{one.shipments:,}", f"{one.files:,}", output.size(one.bytes))
            for one in filled
        ),
    )


def _buckets_table(caption: str, buckets: Sequence[Bucket]) -> str:
    return _table(caption, ("", "Shipments"), ((one.name, f"{one.shipments:,}") for one in buckets))


def _days_table(days: Sequence[Mapping[str, Any]]) -> str:
    stages = list(dict.fromkeys(stage for row in days for stage in row.get("seconds") or {}))
    return _table(
        "Archived by day (UTC) and inbox, with the seconds of each stage",
        ("Day", "Inbox", "Receivers", "Shipments", "Studies", "Files", "Size", "MB/s", *(f"{one} s" for one in stages)),
        (
            (
                row["day"],
                row["inbox"],
                " ".join(row.get("receivers") or ()),
                f"{row['shipments']:,}",
                f"{row['studies']:,}",
                f"{row['files']:,}",
                output.size(row["bytes"]),
                row.get("megabytes_per_second"),
                *((row.get("seconds") or {}).get(stage) for stage in stages),
            )
            for row in days
        ),
    )


def _when(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ")
