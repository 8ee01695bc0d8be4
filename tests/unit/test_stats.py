"""`stats`: hours, times to the archive and sizes of a state with known figures; as plots, CSV and a page."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dicomwatchd.cli.app import root
from dicomwatchd.cli.stats import figures, page, plots, table
from dicomwatchd.cli.terminal import charts, glyphs
from dicomwatchd.ports import timestamp
from dicomwatchd.queue.database.pruning import KEEP_SECONDS
from tests import schemas
from tests.unit.queues import Bench
from tests.unit.stand_in import StandIn
from tests.unit.test_queue_plans import Recording, complaints

HOUR, DAY = 3600.0, 86400.0
#: A full hour: 2027-01-15T08:00:00Z.
BEGIN = 1_800_000_000.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    assert bench.clock.seconds == BEGIN and BEGIN % HOUR == 0
    yield bench
    bench.queue.close()


def archive(bench: Bench, study: str, *, takes: float, size_bytes: int, source: str = "ct1") -> None:
    """From its first file to the archive it ``takes`` so many seconds, at least the minute that it is quiet."""
    claim = bench.claimed(f"{study}-{bench._inode}", study=study)
    bench.queue.deletions.purged(study, bench.authorise(claim), [], [])
    bench.clock.seconds += takes - 60
    bench.queue.shipments.finish(
        claim,
        {
            "source": source,
            "revision": 1,
            "started_at": bench.clock.now() - 5,
            "files": 10,
            "bytes": size_bytes,
            "retries": 1,
            "sent_bytes": size_bytes // 2,
            "stages": {"upload": {"seconds": 2.5}, "purge": {"seconds": 0.5}},
        },
    )


@pytest.fixture
def known(bench: Bench) -> Bench:
    """Three in the first hour, of two inboxes; one in the third; one study twice."""
    archive(bench, "1.2.1", takes=100, size_bytes=1_000_000)
    archive(bench, "1.2.2", takes=200, size_bytes=2_000_000)
    archive(bench, "1.2.3", takes=400, size_bytes=40_000_000, source="mr1")
    bench.clock.seconds = BEGIN + 2 * HOUR
    archive(bench, "1.2.1", takes=700, size_bytes=600_000_000)
    return bench


# --- the history -----------------------------------------------------------------------------------------------------


def test_hours_and_inboxes(known: Bench) -> None:
    said = known.queue.history.of(7)
    assert (said["since"], said["until"]) == ("2027-01-08T10:00:00.000Z", timestamp(known.clock.now()))
    told = [
        (one["begins_at"][11:16], one["ends_at"][11:16], one["inbox"], one["shipments"], one["studies"], one["bytes"])
        for one in said["periods"]
    ]
    assert told == [
        ("08:00", "09:00", "ct1", 2, 2, 3_000_000),
        ("08:00", "09:00", "mr1", 1, 1, 40_000_000),
        ("10:00", "11:00", "ct1", 1, 1, 600_000_000),
    ]
    first = said["periods"][0]
    assert (first["files"], first["sent_bytes"], first["retries"]) == (20, 1_500_000, 2)
    assert first["seconds"] == {"upload": 5.0, "purge": 1.0}
    assert first["to_archive"] == {
        "studies": 2,
        "median_seconds": 100.0,
        "p95_seconds": 200.0,
        "longest_seconds": 200.0,
    }


def test_how_long_studies_took_and_how_large_they_were(known: Bench) -> None:
    said = known.queue.history.of(7)
    took = said["to_archive"]
    assert (took["shipments"], took["median_seconds"], took["p95_seconds"]) == (4, 200.0, 700.0)
    assert {one["at_most_seconds"]: one["shipments"] for one in took["buckets"] if one["shipments"]} == {
        120.0: 1,
        300.0: 1,
        600.0: 1,
        1800.0: 1,
    }
    sizes = said["sizes"]
    assert (sizes["shipments"], sizes["median_bytes"], sizes["p95_bytes"]) == (4, 2_000_000, 600_000_000)
    assert {one["at_most_bytes"]: one["shipments"] for one in sizes["buckets"] if one["shipments"]} == {
        1e6: 1,
        1e7: 1,
        5e7: 1,
        1e9: 1,
    }
    assert sizes["buckets"][-1]["at_most_bytes"] is None


def test_a_kept_file_that_falls_due_says_nothing_of_how_long_a_study_took(bench: Bench) -> None:
    """Nobody waited for it; and what an earlier version has archived is not known."""
    claim = bench.claimed("IM1", study="1.2.1")
    bench.queue.deletions.keep(claim, bench.record(claim), bench.clock.now() + 5 * DAY)
    bench.clock.seconds += 40
    bench.finish(claim)
    bench.clock.seconds += 6 * DAY
    bench.queue.claims.queue_due()
    bench.finish(_at_purging(bench))
    bench.run(
        "INSERT INTO shipments SELECT NULL, study_uid, source, revision, started_at, finished_at, files, bytes,"
        " retries, stages, sent_bytes, NULL FROM shipments LIMIT 1"
    )
    said = bench.queue.history.of(30)
    assert sum(one["shipments"] for one in said["periods"]) == 3
    assert (said["to_archive"]["shipments"], said["to_archive"]["median_seconds"]) == (1, 100.0)


def _at_purging(bench: Bench) -> Any:
    from tests.unit.test_queue_plans import at_purging

    return at_purging(bench)


def test_of_days_long_ago_there_are_the_sums(known: Bench) -> None:
    before = known.queue.history.of(100)
    known.clock.seconds += KEEP_SECONDS + 3 * DAY
    archive(known, "1.2.9", takes=100, size_bytes=5_000_000)
    while known.queue.pruning.step():
        pass
    said = known.queue.history.of(100)
    days = [one for one in said["periods"] if one["to_archive"] is None]
    assert [(one["begins_at"], one["ends_at"], one["inbox"], one["bytes"]) for one in days] == [
        ("2027-01-15T00:00:00.000Z", "2027-01-16T00:00:00.000Z", "ct1", 603_000_000),
        ("2027-01-15T00:00:00.000Z", "2027-01-16T00:00:00.000Z", "mr1", 40_000_000),
    ]
    in_all = sum(one["bytes"] for one in before["periods"]) + 5_000_000
    assert sum(one["bytes"] for one in said["periods"]) == in_all
    assert said["to_archive"]["shipments"] == 1
    bins = figures.binned(said, 121)
    assert bins.hours == 24 and sum(one.bytes for one in bins.bins) == in_all


def test_it_is_read_a_page_at_a_time(known: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipments that end at the same moment included, whichever page they are on."""
    known.run("UPDATE shipments SET finished_at = ?", BEGIN + 60)
    whole = known.queue.history.of(7)
    for size in (1, 2, 3):
        monkeypatch.setattr("dicomwatchd.queue.history._PAGE", size)
        assert known.queue.history.of(7) == whole
    assert whole["sizes"]["shipments"] == 4


def test_it_walks_no_table(known: Bench) -> None:
    recording = Recording(known.queue._database._connection)
    known.queue._database._connection = recording  # type: ignore[assignment]
    known.queue.history.of(7)
    assert recording.plans and complaints(recording.plans) == []


def test_of_nothing_there_is_nothing(bench: Bench) -> None:
    said = bench.queue.history.of(3660)
    assert said["periods"] == [] and said["to_archive"]["median_seconds"] is None
    assert sum(one.bytes for one in figures.binned(said, 60).bins) == 0
    assert figures.times(said) == figures.sizes(said) == []
    answer = {"days": [], "totals": {}, "history": said}
    assert "Nothing was archived" in page.page(answer, 7)
    assert list(csv.DictReader(io.StringIO(table.text(said), newline=""))) == []


@pytest.mark.parametrize("days", [1, 2, 7, 8, 30, 31, 365, 3660])
@pytest.mark.parametrize("most", [29, 60, 121])
def test_no_more_columns_than_there_is_room_for_and_nothing_lost(days: int, most: int) -> None:
    until = BEGIN + 1234.0
    since = (until - days * DAY) // HOUR * HOUR
    periods = [
        {
            "begins_at": timestamp(at),
            "ends_at": timestamp(at + HOUR),
            "shipments": 1,
            "files": 2,
            "bytes": 3,
        }
        for at in (since, since + 5 * HOUR, until // HOUR * HOUR)
    ]
    history = {"since": timestamp(since), "until": timestamp(until), "periods": periods}
    bins = figures.binned(history, most)
    assert len(bins.bins) <= most and sum(one.bytes for one in bins.bins) == 9
    assert sum(one.shipments for one in bins.bins) == 3 and sum(one.files for one in bins.bins) == 6
    assert bins.bins[-1].bytes == 3 or bins.hours > 1
    steps = {(b.begins_at - a.begins_at).total_seconds() for a, b in zip(bins.bins, bins.bins[1:], strict=False)}
    assert steps <= {bins.hours * HOUR}
    assert len(bins.bins) > most // 4 or days == 1 or bins.hours == 1, "nor far fewer"


def test_what_falls_into_one_column_is_added_up() -> None:
    def period(at: float, seconds: float, **amounts: int) -> dict[str, Any]:
        known = {"shipments": 2, "files": 5, "bytes": 7}
        return {"begins_at": timestamp(at), "ends_at": timestamp(at + seconds), **known, **amounts}

    day = BEGIN // DAY * DAY
    since, until = timestamp(day - DAY), timestamp(day + 2 * DAY)
    history = {"since": since, "until": until, "periods": [period(day, HOUR), period(day + 2 * HOUR, HOUR)]}
    [found] = [one for one in figures.binned(history, 4).bins if one.shipments]
    assert (found.shipments, found.files, found.bytes) == (4, 10, 14)
    # Of a day only its sum is kept: it is in one column, and that is a day's, though there would be room for hours.
    bins = figures.binned({**history, "periods": [period(day, DAY), period(day, HOUR)]}, 200)
    assert bins.hours == 24 and [one.shipments for one in bins.bins] == [0, 4, 0, 0]
    # A day begins before what was asked for does.
    bins = figures.binned({**history, "periods": [period(day - 5 * DAY, DAY)]}, 200)
    assert bins.bins[0].begins_at.timestamp() == day - 5 * DAY and bins.bins[0].shipments == 2


def test_the_last_of_the_sizes_is_open() -> None:
    buckets = [{"at_most_bytes": most, "shipments": 1} for most in (1000, 10_000, None)]
    assert [one.name for one in figures.sizes({"sizes": {"buckets": buckets}})] == [
        "up to 1 kB",
        "up to 10 kB",
        "over 10 kB",
    ]


# --- plots -----------------------------------------------------------------------------------------------------------


def test_columns_have_the_heights_of_their_values() -> None:
    drawn = charts.columns([0, 1, 4, 8], glyphs.BLOCKS, said=lambda value: f"{value:.0f}", begin="a", end="b", height=2)
    assert drawn == ["8    █", "   ▂██", "0 ────", "  a  b"]


@pytest.mark.parametrize("how", [glyphs.BLOCKS, glyphs.ASCII])
@pytest.mark.parametrize("width", [40, 80, 132, 400])
def test_plots_fit_the_terminal(known: Bench, how: glyphs.Glyphs, width: int) -> None:
    lines = plots.lines(known.queue.history.of(7), width, how)
    assert all(len(line) < width for line in lines)
    text = "\n".join(lines)
    assert not how.is_ascii or text.isascii()
    for word in ("Archived; each column is", "up to 2 min +1 ", "up to 1 GB", "half at most 3 min 20 s"):
        assert re.search(word, text), f"{word}:\n{text}"


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_csv_is_plain_and_whole(known: Bench) -> None:
    text = table.text(known.queue.history.of(7))
    lines = text.split("\r\n")
    assert lines[-1] == "" and "\n" not in text.replace("\r\n", "") and len(lines) == 5
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0] == {
        "begins_at": "2027-01-15T08:00:00.000Z",
        "ends_at": "2027-01-15T09:00:00.000Z",
        "inbox": "ct1",
        "shipments": "2",
        "studies": "2",
        "files": "20",
        "bytes": "3000000",
        "sent_bytes": "1500000",
        "retries": "2",
        "upload_seconds": "5.0",
        "verify_seconds": "",
        "record_seconds": "",
        "purge_seconds": "1.0",
        "to_archive_median_seconds": "100.0",
        "to_archive_p95_seconds": "200.0",
        "to_archive_longest_seconds": "200.0",
    }
    for row in rows:
        assert datetime.fromisoformat(row["begins_at"]).tzinfo == UTC
    several = {**known.queue.history.of(7)["periods"][0], "inbox": "ct1,mr1"}
    assert '"ct1,mr1"' in table.text({"periods": [several]})


def test_no_cell_is_a_formula_or_steers_a_terminal(known: Bench) -> None:
    """`--socket` may name that of anybody."""
    period = known.queue.history.of(7)["periods"][0]
    for name in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\x1b]0;x\x07", "ct1"):
        [_, line] = list(csv.reader(io.StringIO(table.text({"periods": [{**period, "inbox": name}]}), newline="")))
        assert line[2] == "ct1" if name == "ct1" else line[2][0] in "'\ufffd", line
        assert line[2].isprintable() and line[3] == str(period["shipments"])


# --- the page --------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What the page is made of; and whether each element that is opened is closed."""

    _VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def answer(bench: Bench, days: int = 7) -> dict[str, Any]:
    said = bench.queue.reports.stats(days)
    for day in said["days"]:
        day["receivers"] = []
    return {**said, "history": bench.queue.history.of(days)}


def test_the_page_stands_for_itself(known: Bench) -> None:
    text = page.page(answer(known), 7)
    parsed = _Page(text)
    assert parsed.open == []
    assert text.startswith("<!DOCTYPE html>") and parsed.all("html") == [{"lang": "en"}]
    assert not {name for name, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "a"}
    for _, attrs in parsed.tags:
        assert not {"src", "href", "xlink:href", "action", "onload", "style"} & set(attrs)
    assert not re.search(r"(?i)https?:|//|@import|url\(|data:", text.removeprefix("<!DOCTYPE html>"))
    [policy] = [one for one in parsed.all("meta") if "http-equiv" in one]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "@media print" in text


def test_each_chart_can_be_heard_and_has_its_table(known: Bench) -> None:
    text = page.page(answer(known), 7)
    parsed = _Page(text)
    charts_ = parsed.all("svg")
    assert len(charts_) == 3
    ids = {attrs.get("id") for _, attrs in parsed.tags}
    for one in charts_:
        assert one["role"] == "img" and set(str(one["aria-labelledby"]).split()) <= ids
    assert text.count("<desc ") == 3 and len(parsed.all("table")) == 4 and text.count("<caption>") == 4
    assert all(one.get("scope") in ("col", "row") for one in parsed.all("th"))
    sections = re.findall(r"<section>.*?</section>", text, flags=re.DOTALL)
    assert sum("<svg" in one and "<table>" in one for one in sections) == 3
    whole = " ".join(parsed.texts)
    for word in ("4 shipments", "643.0 MB", "2027-01-15 06:00", "43.0 MB", "600.0 MB", "mr1"):
        assert word in whole, word


def test_what_the_daemon_says_is_no_markup(known: Bench) -> None:
    said = answer(known)
    said["days"][0]["inbox"] = "<script>alert(1)</script>\x1b[2J"
    text = page.page(said, 7)
    assert "<script" not in text and "\x1b" not in text and "&lt;script&gt;" in text


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    stand_in = StandIn(tmp_path / "c.sock")

    def run(said: object, *arguments: str) -> Result:
        stand_in.result(said)
        result = CliRunner().invoke(root, ["stats", *arguments, "--socket", str(stand_in.path)])
        run.requests = list(stand_in.requests)  # type: ignore[attr-defined]
        return result

    yield run
    stand_in.close()


def test_what_is_asked_is_as_before_where_nobody_wants_plots(known: Bench, ctl: Callable[..., Result]) -> None:
    """So that scripts, and a daemon of an earlier version, see no difference."""
    said = known.queue.reports.stats(7)
    assert ctl(said).exit_code == 0
    assert json.loads(ctl(said, "--json").stdout) == said
    assert ctl.requests == [{"command": "stats", "days": 7}] * 2  # type: ignore[attr-defined]


def test_each_way_to_have_it(known: Bench, ctl: Callable[..., Result], tmp_path: Path) -> None:
    said = answer(known)
    plotted = ctl(said, "--plots")
    assert (
        plotted.exit_code == 0
        and "DAY\tINBOX" in plotted.stdout
        and "Size of shipments: half at most" in plotted.stdout
    )
    result = ctl(said, "--plots", "--json")
    schemas.check_output(["stats"], result.stdout, result.exit_code)
    assert json.loads(result.stdout)["history"] == said["history"]
    assert CliRunner().invoke(root, ["stats", "--csv", "--json"]).exit_code == 2
    # Bytes: a text would have its ends of lines exchanged.
    assert ctl(said, "--csv").stdout_bytes == table.text(said["history"]).encode()
    file = tmp_path / "page.html"
    for one in ({**said, "days": []}, said):  # an earlier page is replaced
        done = ctl(one, "--html", str(file))
        assert done.exit_code == 0 and done.stdout == f"Written: {file}\n"
    assert file.read_text() == page.page(said, 7)
    assert ctl(said, "--html", "-").stdout == page.page(said, 7) and not Path("-").exists()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".dicomwatchctl")] == []
    assert all(one.get("history") is True for one in ctl.requests)  # type: ignore[attr-defined]


def test_no_other_file_is_replaced(known: Bench, ctl: Callable[..., Result], tmp_path: Path) -> None:
    """Somebody may mistype: it could be an image."""
    file = tmp_path / "IM0001"
    file.write_bytes(b"\0" * 128 + b"DICM")
    done = ctl(answer(known), "--html", str(file))
    assert done.exit_code == 1 and "it was left unchanged" in done.stderr
    assert file.read_bytes() == b"\0" * 128 + b"DICM"
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".dicomwatchctl")] == []


@pytest.mark.timeout(60)
def test_what_is_no_file_is_not_waited_for(known: Bench, ctl: Callable[..., Result], tmp_path: Path) -> None:
    """A pipe without anybody at its other end, which /dev/stdout may be."""
    os.mkfifo(tmp_path / "pipe")
    done = ctl(answer(known), "--html", str(tmp_path / "pipe"))
    assert done.exit_code == 1 and "it was left unchanged" in done.stderr
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_interrupted_page_leaves_nothing(
    known: Bench, ctl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    done = ctl(answer(known), "--html", str(tmp_path / "page.html"))
    assert done.exit_code != 0
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".dicomwatchctl")] == []
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written_leaves_nothing(known: Bench, ctl: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "there" / "page.html"
    done = ctl(answer(known), "--html", str(file))
    assert done.exit_code == 1 and "the page cannot be written (No such file or directory)" in done.stderr
    assert not file.exists()


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_daemon_of_an_earlier_version_is_said_to_be_one(
    known: Bench, ctl: Callable[..., Result], option: str, tmp_path: Path
) -> None:
    said = known.queue.reports.stats(7)
    arguments = [option] if option == "--csv" else [option, str(tmp_path / "page.html")]
    done = ctl(said, *arguments)
    assert done.exit_code == 1 and done.stdout == "" and "older than this dicomwatchctl" in done.stderr
    plotted = ctl(said, "--plots")
    assert plotted.exit_code == 0 and "no plots: the running daemon is older" in plotted.stderr
