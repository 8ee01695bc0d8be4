"""docs/dashboard.md and its picture, behind scripts/pictures: what the dashboard's panels show of real daemons at work.

Two daemons archive made-up studies into one archive, a real Prometheus asks both for their figures, and each panel's
query is put to it. What the page says is what it has answered.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dicomwatchd.cli.terminal import charts, glyphs, output
from tests import alerts, pictures
from tests.alerts import Panel
from tests.servers.prometheus import Prometheus
from tests.servers.tls import make_certificate
from tests.synthetic import Maker, Patient
from tests.system.watched import Watched, at_once

PAGE = alerts.ROOT / "docs" / "dashboard.md"
PICTURE = pictures.FOLDER / "dashboard.svg"
#: So many seconds the daemons are at work; a column of the picture is two of them.
SECONDS = 150
STEP_SECONDS = 2.0
#: Of these panels and legends the picture shows the course.
DRAWN = (
    ("Files waiting, by inbox", "north ct1"),
    ("Bytes, by stage", "upload"),
    ("Studies an hour, by daemon", "north"),
    ("Alarms open, by kind", "certificate"),
    ("Since a site was heard of", "south"),
    ("Processors", "north"),
)
_MOST_LINES = 8

HEAD = """\
# The dashboard, by its queries

`etc/grafana/dashboard.json` ([how to import it](operations.md#prometheus)) has the panels below; `scripts/dashboard`
writes it. The answers are those of a real Prometheus that watched two real daemons, `north` and `south`, at work on
one archive for {seconds} seconds: studies arrive at both, a certificate of `north` ends soon, a file is no DICOM, a
study names two patients. `scripts/pictures dashboard` does that again and writes this page;
`tests/system/test_prometheus.py` holds that each query has an answer. Where the dashboard has the chosen daemons and
Grafana's interval, the answers are of all daemons and a minute.

Grafana is not among what the tests can install, so this is no picture of it: the one below is drawn from these
answers.

![The course of six of these panels, drawn from Prometheus' answers](pictures/dashboard.svg)
"""


@dataclass(frozen=True)
class Answered:
    """``lines``: what each query of the panel was answered with, as the panel's legend and unit have it."""

    panel: Panel
    lines: tuple[str, ...]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-dashboard-") as folder, ExitStack() as stack:
        answered, drawn = _of_daemons_at_work(Path(folder), stack)
    PAGE.write_text(page(answered))
    PICTURE.write_text(pictures.picture("The dashboard's answers", [[(line, "")] for line in drawn]))
    print(f"Written: {PAGE}\nWritten: {PICTURE}")
    return 0


def page(answered: Sequence[Answered]) -> str:
    parts = [HEAD.format(seconds=SECONDS)]
    for row, of_row in groupby(answered, key=lambda one: one.panel.row):
        parts += [f"## {row}\n", "| panel | query | answer |\n|---|---|---|"]
        parts += [
            f"| {title(one.panel)} | {'<br>'.join(code(query) for _, query in one.panel.queries)}"
            f" | {'<br>'.join(one.lines)} |"
            for one in of_row
        ]
        parts.append("")
    return "\n".join(parts)


def title(panel: Panel) -> str:
    return f"**{panel.title}**{f': {panel.what}' if panel.what else ''}"


def code(query: str) -> str:
    """Within a table."""
    plain = query.replace('{job="dicomwatchd",instance=~".*"}', "").replace('job="dicomwatchd",instance=~".*",', "")
    return f"`{plain.replace('|', chr(92) + '|')}`"


# -- the daemons ------------------------------------------------------------------------------------------------------


def _of_daemons_at_work(folder: Path, stack: ExitStack) -> tuple[list[Answered], list[str]]:
    north, south = (_site(folder, stack, name) for name in ("north", "south"))
    south.config["archive"] = north.config["archive"]
    tls = {"ca_file": str(make_certificate(folder / "tls").cert_file)}
    north.config["destinations"] = [{"name": "pacs", "ae_title": "PACS", "address": "127.0.0.1:2762", "tls": tls}]
    north.config["alarms"] = {"certificate_days": 1}
    for one in (north, south):
        one.write_config()
    north.init()
    targets = {f"{name}:9187": one.target for name, one in (("north", north), ("south", south))}
    prometheus = stack.enter_context(Prometheus(folder / "prometheus", targets, at_once()))
    north.start()
    south.start()
    begun = time.time()
    _work(north, south)
    prometheus.wait_for_rounds(2)
    answered = [_answered(prometheus, panel) for panel in alerts.panels()]
    drawn = _drawn(prometheus, begun)
    assert south.stop() == north.stop() == 0
    return answered, drawn


def _site(folder: Path, stack: ExitStack, name: str) -> Watched:
    heartbeats = {"heartbeat": "5s", "silent_after": "5m"}
    site = Watched(folder / name, inboxes=2, site={"name": name}, sites=heartbeats, bandwidth={"default": "2MB/s"})
    stack.callback(site.close)
    site.config["inboxes"][0]["name"], site.config["inboxes"][1]["name"] = "ct1", "mr1"
    site.config["receivers"][0]["inbox"] = "ct1"
    return site


def _work(north: Watched, south: Watched) -> None:
    """A study every other second; in the midst of it what an administrator is to see."""
    makers = {id(site): Maker(seed) for seed, site in ((2026, north), (2027, south))}
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        for site in (north, south) if number % 3 == 0 else (north,):
            slices = (6, 20, 3, 40)[number % 4]
            makers[id(site)].ct_series(site.inboxes[number % 2] / str(number), slices=slices, rows=128, columns=128)
        if number == 5:
            (north.inbox / "readme").write_text("no DICOM")
            for series, name in enumerate(("DOE^JANE", "ROE^JOHN"), start=1):
                maker = Maker(63, Patient(name, name[:3]))
                maker.ct_series(north.inbox / name[:3], slices=1, study=0, series=series, rows=16, columns=16)
        if number == 15:
            north.ctl("drill")
            north.ctl("archive", "verify", "--pace", "10000")
        if number == 20:
            north.config["alarms"] = {"certificate_days": 3650}
            north.reconfigure()
        number += 1
        time.sleep(2.0)
    large = makers[id(north)].ct_series(north.inbox / "large", slices=400, rows=256, columns=256)
    folder = north.root / "archive" / "studies" / large[0].study_uid
    north.wait_for(lambda: len(list(folder.rglob("*.dcm"))) > 40, 90, "a large study to be on its way")


# -- the answers ------------------------------------------------------------------------------------------------------


def _answered(prometheus: Prometheus, panel: Panel) -> Answered:
    lines = []
    for legend, query in panel.queries:
        found = [
            (labelled(legend, one["metric"]), float(one["value"][1]))
            for one in prometheus.query(query)
            if one["value"][1] != "NaN"
        ]
        if not found:
            raise SystemExit(f"panel {panel.title}: {query} has no answer")
        lines += [f"{name}{': ' if name else ''}{said(value, panel.unit)}" for name, value in sorted(found)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more"]
    return Answered(panel, tuple(lines))


def labelled(legend: str, labels: dict[str, Any]) -> str:
    """As Grafana fills a legend in; an instance by its machine alone."""
    filled = re.sub(r"{{\s*(\w+)\s*}}", lambda found: str(labels.get(found[1], "")), legend)
    return filled.replace(":9187", "")


def said(value: float, unit: str) -> str:
    match unit:
        case "s":
            return output.duration(value) if value >= 60 else f"{value:.3g} s"
        case "bytes":
            return output.size(value)
        case "Bps":
            return f"{output.size(value)}/s"
        case "ops":
            return f"{value:.3g} a second"
        case "percentunit":
            return f"{value:.0%}"
        case "none":
            return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
    raise ValueError(f"a unit that the page does not know: {unit}")


def _drawn(prometheus: Prometheus, begun: float) -> list[str]:
    by_title = {panel.title: panel for panel in alerts.panels()}
    end = time.time()
    columns = int((end - begun) / STEP_SECONDS)
    lines: list[str] = []
    for title_of_it, name in DRAWN:
        panel = by_title[title_of_it]
        [series] = [
            one
            for legend, query in panel.queries
            for one in prometheus.range(query, begun, end, STEP_SECONDS)
            if labelled(legend, one["metric"]) == name
        ][:1]
        values = {round((at - begun) / STEP_SECONDS): float(value) for at, value in series["values"]}
        filled = [values.get(number, 0.0) for number in range(columns)]
        lines += [f"{panel.title}: {name}"]
        lines += charts.columns(
            filled,
            glyphs.BLOCKS,
            said=lambda value, unit=panel.unit: said(value, unit),  # type: ignore[misc]
            begin="0 s",
            end=f"{end - begun:.0f} s",
            height=4,
        )
        lines.append("")
    return lines[:-1]


if __name__ == "__main__":
    sys.exit(main())
