"""What `top` shows, as lines of text in colours: for a terminal of any size, and for one page of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from dicomwatchd.cli.terminal import glyphs, output
from dicomwatchd.cli.terminal.glyphs import Glyphs
from dicomwatchd.cli.top.seen import SHIPPING, Seen

#: Texts with the name of a style of rich, "" for none; one after the other they are a line.
Line = list[tuple[str, str]]

HEAD, DIM, GOOD, WARN, BAD = "bold", "dim", "green", "yellow", "bold red"
_STYLES = {"uploading": "cyan", "verifying": "blue", "recording": "magenta", "purging": "green", "parked": BAD}
_BUSY = ("uploading", "verifying", "recording", "purging", "arriving", "queued", "parked", "archived")
_STATES = {"open": GOOD, "starting": WARN}
_WIDE, _VERY_WIDE = 100, 128
_STAGE, _FILES, _TIME, _INBOX = 10, 15, 11, 14
_TINY_UID, _SHORT_UID, _LONG_UID = 11, 21, 64


@dataclass(frozen=True, slots=True)
class Away:
    """Why there is no newer answer, and since when (local time)."""

    text: str
    since: datetime


class Shown(NamedTuple):
    lines: list[Line]
    #: How far the list of studies can be scrolled.
    furthest: int


def plain(lines: Iterable[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def screen(
    seen: Seen, width: int, height: int | None, how: Glyphs, *, away: Away | None = None, scrolled: int = 0
) -> Shown:
    """At most ``height`` lines, of which none is wider than ``width``; all there is where ``height`` is None."""
    upper = [_head(seen, away, width)]
    if seen.said:
        upper += [_rates(seen), _workers(seen, how), _studies_by_state(seen), []]
        room = None if height is None else max(2, (height - 12) // 3)
        upper += _inboxes(seen, width, room) + _trouble(seen, None if height is None else max(1, (height - 14) // 4))
        upper.append([])
    lower = _archived(seen, width, 3 if height is not None and height < 40 else 10) if seen.said else []
    rows = [_study(seen, study, width, how) for study in seen.said.get("studies") or ()]
    title = [_study_title(width)] if seen.said else []
    if height is None:
        whole = [*upper, *title, *(rows or [_nothing()]), [], *lower] if seen.said else upper
        return Shown([_cut(line, width, how) for line in whole], 0)
    while lower and len(upper) + len(lower) + 5 > height:
        lower = lower[:-1] if len(lower) > 2 else []
    room = max(0, height - len(upper) - len(title) - len(lower) - 1 - bool(lower))
    furthest = max(0, len(rows) - room)
    begin = min(scrolled, furthest)
    body = rows[begin : begin + room] or ([_nothing()] if seen.said else [])
    lines = [*upper, *title, *body]
    lines += [[] for _ in range(height - len(lines) - len(lower) - 1)]
    lines = [*lines[: max(0, height - len(lower) - 1)], *lower, _foot(begin, len(rows), room, how)]
    return Shown([_cut(line, width, how) for line in lines[:height]], furthest)


# -- the upper part ---------------------------------------------------------------------------------------------------


def _head(seen: Seen, away: Away | None, width: int) -> Line:
    status = seen.status
    taken = seen.said.get("taken_at")
    at = datetime.fromisoformat(taken).astimezone().strftime("%H:%M:%S") if taken else ""
    if away is not None:
        last = f"   figures of {at}" if at else ""
        since = away.since.strftime("%H:%M:%S")
        return [(f"{away.text} since {since}; trying again", BAD), (last, DIM)]
    if not seen.said:
        return [("dicomwatchd", HEAD), ("   asking the daemon", DIM)]
    up = seen.seconds_since(status.get("started_at"))
    left: Line = [
        (f"dicomwatchd {output.clean(status.get('version'))}", HEAD),
        (f"   running for {output.duration(up)}" if up is not None else "", ""),
        (f"   archive {output.clean(status.get('archive_id'))}" if width >= _WIDE else "", DIM),
    ]
    return [*left, (" " * max(1, width - _length(left) - len(at)), ""), (at, DIM)]


def _rates(seen: Seen) -> Line:
    sent, files, taken, archived = seen.rates()
    line: Line = [("Sending ", HEAD), (_per_second(sent), GOOD if sent else "")]
    line += [("" if files is None else f", {files:,.0f} files/s", "")]
    line += [("   Arriving ", HEAD), ("-" if taken is None else f"{taken:,.0f} files/s", "")]
    line += [("   Archived ", HEAD), ("-" if archived is None else f"{archived:,.0f} studies/min", "")]
    limit = (seen.status.get("bandwidth") or {}).get("bytes_per_second")
    if limit is not None:
        line += [("   Limit ", HEAD), (f"{output.size(limit)}/s", "")]
    return line


def _per_second(rate: float | None) -> str:
    return "-" if rate is None else f"{output.size(rate)}/s"


def _workers(seen: Seen, how: Glyphs) -> Line:
    status = seen.status
    workers = status.get("workers") or {}
    busy, total = workers.get("busy", 0), workers.get("total", 0)
    files = status.get("files") or {}
    waiting = files.get("ready", 0) + files.get("stored", 0)
    oldest = status.get("oldest_unarchived_seconds")
    line: Line = [
        ("Workers ", HEAD),
        (f"{busy} of {total} busy ", ""),
        (glyphs.bar(busy / total if total else 0.0, 8, how), GOOD),
        ("   Waiting ", HEAD),
        (f"{output.count(waiting, 'file')}, {output.size(status.get('bytes_waiting') or 0)}", ""),
    ]
    if oldest is not None:
        line += [(f", oldest {output.duration(oldest)}", "")]
    return line


def _studies_by_state(seen: Seen) -> Line:
    counts = seen.status.get("studies") or {}
    line: Line = [("Studies ", HEAD)]
    told = [(state, counts[state]) for state in _BUSY if counts.get(state)]
    for number, (state, count) in enumerate(told):
        line += [(", " if number else "", ""), (f"{count:,} {state}", _STYLES.get(state, ""))]
    return line if told else [*line, ("none", DIM)]


def _inboxes(seen: Seen, width: int, room: int | None) -> list[Line]:
    inboxes: list[dict[str, Any]] = [one for one in seen.status.get("inboxes") or () if one.get("kind") != "left"]
    # What is in trouble first, then what has most to do; but in their usual order where there is room for all.
    if room is not None and len(inboxes) > room:
        urgent = sorted(inboxes, key=lambda one: (one["state"] in _STATES, -(one.get("files_waiting") or 0)))
        shown = urgent[: max(1, room - 1)]
    else:
        shown = inboxes
    name_width = max([8, *(len(output.clean(one["name"])) for one in shown)])
    name_width = min(name_width, max(8, width - 50))
    lines: list[Line] = [[(f"{'INBOX':<{name_width}}  {'STATE':<14}  {'WAITING':>9}  LAST SCAN", HEAD)]]
    for one in shown:
        since = seen.seconds_since(one.get("last_scan_at"))
        scanned = "not yet" if since is None else f"{output.duration(since)} ago"
        state = str(one["state"])
        receivers = " ".join(str(receiver["name"]) for receiver in one.get("receivers") or ())
        deaf = any(receiver.get("listening") is False for receiver in one.get("receivers") or ())
        lines.append(
            [
                (_pad(output.clean(one["name"]), name_width) + "  ", ""),
                (_pad(output.clean(state), 14) + "  ", _STATES.get(state, BAD)),
                (f"{one.get('files_waiting') or 0:>9,}  ", ""),
                (f"{scanned:<16}", DIM),
                (f"receivers: {output.clean(receivers)}{', not listening' if deaf else ''}" if receivers else "", DIM),
            ]
        )
    if len(inboxes) > len(shown):
        lines.append([(f"and {len(inboxes) - len(shown)} more", DIM)])
    return lines


def _trouble(seen: Seen, room: int | None) -> list[Line]:
    status = seen.status
    lines: list[Line] = [
        [(f"{output.clean(name)}: failing; next attempt in {output.duration(seconds)}", BAD)]
        for name, seconds in (status.get("backoff") or {}).items()
    ]
    lines += [
        [(f"{output.clean(name)}: the disk is too full; archived files are deleted before their time", WARN)]
        for name in status.get("deleting_early") or ()
    ]
    lines += [[(f"Problem: {output.clean(text)}", WARN)] for text in status.get("problems") or ()]
    if room is not None and len(lines) > room:
        more = len(lines) - room + 1
        lines = [*lines[: room - 1], [(f"and {output.count(more, 'problem')}: see dicomwatchctl status", WARN)]]
    return lines


# -- the studies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """How wide those of a study are, in a terminal of a width; 0 for one that has no room."""

    uid: int
    #: With the percentage behind it; also that of a text in its place.
    bar: int
    files: int
    inbox: int
    time: int

    @classmethod
    def of(cls, width: int) -> _Columns:
        uid = _LONG_UID if width >= _VERY_WIDE + _LONG_UID - _SHORT_UID else _SHORT_UID if width >= 60 else _TINY_UID
        files, inbox = _FILES if width >= 60 else 0, _INBOX if width >= _WIDE else 0
        time = _TIME if width >= 74 else 0
        others = sum(one + 2 for one in (uid, _STAGE, files, inbox, time) if one)
        return cls(uid, max(10, min(48, width - others)), files, inbox, time)

    def shortened(self, uid: str) -> str:
        """Both ends tell UIDs apart."""
        if len(uid) <= self.uid:
            return uid
        half = self.uid // 2
        return f"{uid[:half]}\u2026{uid[-half:]}"


def _study_title(width: int) -> Line:
    columns = _Columns.of(width)
    text = f"{'STUDY':<{columns.uid}}  {'STAGE':<{_STAGE}}  {'PROGRESS':<{columns.bar}}"
    text += f"  {'FILES':>{columns.files}}" if columns.files else ""
    text += f"  {'INBOX':<{columns.inbox}}" if columns.inbox else ""
    return [(text + ("  WAITING FOR" if columns.time else ""), HEAD)]


def _study(seen: Seen, study: Mapping[str, Any], width: int, how: Glyphs) -> Line:
    state, columns = str(study["state"]), _Columns.of(width)
    progress = seen.progress(study)
    style = _STYLES.get(state, "")
    waited = seen.seconds_since(study.get("waits_since"))
    if state in SHIPPING and progress.share is not None:
        shown = f"{glyphs.bar(progress.share, columns.bar - 5, how)} {progress.share:>4.0%}"
    else:
        shown = _words(seen, study)
    line: Line = [
        (_pad(columns.shortened(str(study["study_uid"])), columns.uid, how) + "  ", ""),
        (f"{state:<{_STAGE}}  ", style),
        (_pad(output.clean(shown), columns.bar, how), style if state in SHIPPING else DIM),
    ]
    if columns.files:
        files = "" if progress.total is None else f"{progress.done:,}/{progress.total:,}"
        line.append((f"  {files:>{columns.files}}", ""))
    if columns.inbox:
        line.append(("  " + _pad(output.clean(study.get("inbox") or ""), columns.inbox, how), DIM))
    if columns.time and waited is not None:
        line.append((f"  {output.duration(waited)}", DIM))
    return line


def _words(seen: Seen, study: Mapping[str, Any]) -> str:
    """In place of a bar."""
    match study["state"]:
        case "recording":
            return "manifest and catalogue"
        case state if state in SHIPPING:
            return ""
        case "arriving":
            left = seen.seconds_until(study.get("quiet_at"))
            return "files arrive" if left is None or left <= 0 else f"quiet in {output.duration(left)}"
        case "parked":
            return str(study.get("reason") or study.get("code") or "needs attention")
    left = seen.seconds_until(study.get("not_before"))
    if left is not None and left > 0:
        return f"retry in {output.duration(left)}"
    return "waits for its turn"


def _nothing() -> Line:
    return [("No study is on its way.", DIM)]


def _archived(seen: Seen, width: int, most: int) -> list[Line]:
    found: Sequence[Mapping[str, Any]] = seen.said.get("last_archived") or ()
    if not found:
        return []
    lines: list[Line] = [[("ARCHIVED LAST", HEAD)]]
    columns = _Columns.of(width)
    for one in found[:most]:
        ago = seen.seconds_since(one["finished_at"])
        text = f"{output.count(one['files'], 'file')}, {output.size(one['bytes'])} in {one['seconds']:,.1f} s"
        lines.append(
            [
                (_pad(columns.shortened(str(one["study_uid"])), columns.uid) + "  ", ""),
                (f"{output.duration(ago or 0.0) + ' ago':<{_STAGE}}  ", DIM),
                (text, ""),
            ]
        )
    return lines


def _foot(begin: int, rows: int, room: int, how: Glyphs) -> Line:
    keys = f"q quit   {how.arrows} scroll"
    if rows > room:
        keys += f"   studies {begin + 1}-{min(rows, begin + room)} of {rows}"
    return [(keys, DIM)]


# -- text -------------------------------------------------------------------------------------------------------------


def _pad(text: str, width: int, how: Glyphs | None = None) -> str:
    if len(text) <= width:
        return f"{text:<{width}}"
    end = how.ellipsis if how is not None else "\u2026"
    return text[: max(0, width - len(end))] + end


def _length(line: Line) -> int:
    return sum(len(text) for text, _ in line)


def _cut(line: Line, width: int, how: Glyphs) -> Line:
    """Whatever a line is put together from, nothing in it steers the terminal."""
    found: Line = []
    for text, style in line:
        if width <= 0:
            break
        found.append((how.safe(output.clean(text))[:width], style))
        width -= len(text)
    return found
