"""Pictures of docs/pictures, behind scripts/pictures: `top` and `stats` as a terminal shows them (`dashboard.svg` is of
tests/dashboard_page.py).

The daemon is a real one at work, with an archive in a folder and studies that are made up; what it answers goes through
the very code that draws on a terminal. For `stats`, what was archived just now is spread over a week, with other times
and sizes.
"""

from __future__ import annotations

import io
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

from rich.console import Console
from rich.text import Text

from dicomwatchd.cli.stats import plots
from dicomwatchd.cli.terminal import glyphs
from dicomwatchd.cli.top.asking import ask
from dicomwatchd.cli.top.screen import Line, screen
from dicomwatchd.cli.top.seen import Seen
from dicomwatchd.control.client import ControlClient
from tests.synthetic import Maker
from tests.system.site import Site

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
NAMES = ("dashboard.svg", "stats.svg", "top.svg")
WIDTH, HEIGHT = 100, 30
_PATIENCE_SECONDS = 120
#: rich's own, without the fonts that it has fetched from another host.
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" role="img" aria-label="%s" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-pictures-") as folder:
        site = Site(Path(folder), inboxes=2, bandwidth={"default": "6MB/s"}, workers=8)
        site.config["inboxes"][0]["name"], site.config["inboxes"][1]["name"] = "ct1", "mr1"
        site.write_config()
        site.init()
        site.start()
        try:
            lines = _of_a_daemon_at_work(site)
            (FOLDER / "top.svg").write_text(picture("dicomwatchctl top", lines))
            site.stop()
            _spread_over_the_week(site)
            site.start()
            said = ControlClient(site.state / "control.sock").call("stats", days=7, history=True)
            plotted = plots.lines(said["history"], WIDTH, glyphs.BLOCKS)
            (FOLDER / "stats.svg").write_text(picture("dicomwatchctl stats", [[(line, "")] for line in plotted]))
            site.stop()
        finally:
            site.close()
    for name in ("stats.svg", "top.svg"):
        print(f"Written: {FOLDER / name}")
    return 0


def _of_a_daemon_at_work(site: Site) -> list[Line]:
    """Once several studies are on their way at different stages, and some are archived."""
    maker = Maker(seed=2026)
    for number in range(24):
        maker.ct_series(site.inboxes[number % 2] / f"first{number}", slices=2, rows=64, columns=64)
    connection = ControlClient(site.state / "control.sock")
    site.wait_for(lambda: len(ask(connection)["last_archived"]) >= 10, _PATIENCE_SECONDS, "studies to be archived")
    for number, slices in enumerate((160, 90, 60, 40, 30, 20)):
        maker.ct_series(site.inboxes[number % 2] / f"then{number}", slices=slices, rows=256, columns=256)
    seen, end = Seen(), time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        seen.answer(ask(connection))
        rates, states = seen.rates(), [one["state"] for one in seen.said["studies"]]
        if rates.sent_bytes and "uploading" in states and len(set(states)) > 1 and len(states) >= 3:
            return screen(seen, WIDTH, HEIGHT, glyphs.BLOCKS).lines
        time.sleep(1.0)
    raise SystemExit("no moment with studies at several stages was met")


def _spread_over_the_week(site: Site) -> None:
    """As if a department had worked for seven days."""
    chance, now = Random(7), time.time()
    with sqlite3.connect(site.state / "state.db") as db:
        rows = db.execute("SELECT * FROM shipments").fetchall()
        names = [column[1] for column in db.execute("PRAGMA table_info(shipments)")]
        for hour in range(7 * 24):
            at = now - hour * 3600
            local = time.gmtime(at)
            busy = 12 if 6 <= local.tm_hour < 17 and local.tm_wday < 5 else 2
            for _ in range(chance.randrange(busy + 1)):
                row = dict(zip(names, chance.choice(rows), strict=True))
                took = chance.lognormvariate(5.5, 0.8)
                row |= {"shipment_id": None, "finished_at": at, "started_at": at - 20, "waited_since": at - took}
                row["bytes"] = int(chance.lognormvariate(18.5, 1.5))
                db.execute(f"INSERT INTO shipments VALUES ({','.join('?' * len(names))})", [row[one] for one in names])
    db.close()


def picture(title: str, lines: Iterable[Line]) -> str:
    """The SVG of these lines in a terminal's window."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), no_wrap=True, overflow="crop", crop=True)
    drawn = console.export_svg(title=title, code_format=_FORMAT % title, unique_id=re.sub(r"\W+", "-", title))
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())


if __name__ == "__main__":
    sys.exit(main())
