"""Command line of scripts/bench --web."""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import queue
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Browser, BrowserContext, Route

from tests.bench.data import DataSet, Shelf
from tests.bench.document import write_json
from tests.bench.web.servers import Server, from_a_bucket, from_a_folder, orthanc
from tests.browser.chromium import PATIENCE_SECONDS, chromium
from tests.synthetic import Maker

ROOT = Path(__file__).parents[3]
FAR_MILLISECONDS = 30
#: As many as a browser opens to one host.
_CONNECTIONS = 6
_PASSES = 4
_ACCEPT = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
#: When the first image is there: a look with each picture that the browser draws.
_LOOK = """(() => {
  const look = () => {
    if (window.cornerstone?.getEnabledElements?.().some(one => one.viewport.getImageData?.()))
      window.shownAfter = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();"""


@dataclass(frozen=True)
class Opened:
    """Seconds from the click to the first image, and from the viewer's first question to the archive."""

    from_the_click: float
    from_the_question: float


@dataclass(frozen=True)
class Frames:
    """Of all frames of the large study, again and again: a pass' frames a second, and the process afterwards."""

    frames_per_second: list[float]
    cpu_ms: float
    rss_mb: list[float]


def main(arguments: Sequence[str], cache: Path, reports: Path) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench --web", description="1,000 CT slices in the viewer")
    parser.add_argument("--viewer", type=Path, required=True, help="a folder of scripts/viewer")
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args([one for one in arguments if one != "--web"])
    cache.mkdir(parents=True, exist_ok=True)
    shelf = Shelf(cache / "data")
    large = shelf.ct_series(options.slices)
    opened: dict[str, list[Opened]] = {}
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="web-", dir=cache))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        short = Path(tempfile.mkdtemp(prefix="dicomwatchd-bench."))  # sockets lie in there
        stack.callback(shutil.rmtree, short, ignore_errors=True)
        sets = [large, _small(work / "small")]
        (work / "folder").mkdir()
        (work / "far").mkdir()
        near = stack.enter_context(from_a_folder(work / "folder", sets, options.viewer))
        others = stack.enter_context(orthanc(short / "orthanc", sets, near))
        far = stack.enter_context(from_a_bucket(short / "rgw", work / "far", sets, options.viewer, FAR_MILLISECONDS))
        browser = stack.enter_context(chromium("--disable-web-security"))
        every = [near, others, far]
        for number in range(options.rounds):
            turn = number % len(every)
            for server in [*every[turn:], *every[:turn]]:
                seen = open_study(browser, server, sets)
                opened.setdefault(server.name, []).append(seen)
                print(
                    f"round {number + 1}  {server.name:36} first image {seen.from_the_click:5.2f} s,"
                    f" {seen.from_the_question:5.2f} s of it from the first question",
                    flush=True,
                )
        frames = {server.name: fetch_frames(server, sets[0]) for server in every}
    table = markdown(opened, frames, large, options.rounds)
    print(f"\n{table}")
    found = {
        "opened": {name: [vars(one) for one in all_of_it] for name, all_of_it in opened.items()},
        "frames": {name: vars(one) for name, one in frames.items()},
        "slices": options.slices,
    }
    write_json(reports / "bench-web.json", found)
    (reports / "bench-web.md").write_text(table + "\n")
    return 0


def _small(folder: Path) -> DataSet:
    """What is opened before, so that the browser has the viewer's own files."""
    made = Maker(seed=161).ct_series(folder, slices=10)
    return DataSet(folder, made[0].study_uid, len(made), sum(one.size_bytes for one in made))


def open_study(browser: Browser, server: Server, sets: list[DataSet]) -> Opened:
    """By a person who has opened another study just before: the viewer's own files are in the browser, the study is
    not."""
    context = browser.new_context(viewport={"width": 1100, "height": 800}, bypass_csp=True)
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    try:
        _lead_to(context, server)
        page = context.new_page()
        page.goto(f"{server.pages}/viewer?StudyInstanceUIDs={sets[1].study_uid}")
        page.get_by_label("token").fill(server.token)
        page.get_by_role("button", name="token").click()
        page.wait_for_function("window.shownAfter")
        page.goto(f"{server.pages}/viewer?StudyInstanceUIDs={sets[0].study_uid}")
        page.wait_for_function("window.shownAfter")
        shown, asked = page.evaluate(
            """() => [window.shownAfter, performance.getEntriesByType('resource').find(
                 one => new URL(one.name).pathname === '/dicom-web/studies').startTime]"""
        )
        return Opened(shown / 1000, (shown - asked) / 1000)
    finally:
        context.close()


def _lead_to(context: BrowserContext, server: Server) -> None:
    context.add_init_script(_LOOK)
    if not server.dicomweb.startswith(server.pages):
        # Our own script asks our own archive, which is not to work for another's images.
        nothing = '{"instances": 1, "left_out": {}, "two_patients": false}'
        context.route("**/left-out", lambda route: route.fulfill(body=nothing, content_type="application/json"))

    def settings(route: Route) -> None:
        text = route.fetch().text()
        route.fulfill(body=text.replace("'/dicom-web'", f"'{server.dicomweb}'"), content_type="text/javascript")

    context.route("**/app-config.js", settings)


def fetch_frames(server: Server, data: DataSet) -> Frames:
    """Each pass asks for every frame once, over as many connections as a browser has."""
    study = f"{server.dicomweb}/studies/{data.study_uid}"
    with httpx.Client(headers=server.headers, timeout=120, trust_env=False) as client:
        found = client.get(f"{study}/instances", headers={"Accept": "application/dicom+json"}).json()
    base = urlsplit(study)
    paths = [
        f"{base.path}/series/{one['0020000E']['Value'][0]}/instances/{one['00080018']['Value'][0]}/frames/1"
        for one in found
    ]
    assert len(paths) == data.files, (server.name, len(paths))
    rates, memory = [], []
    before = server.cpu_seconds
    for _ in range(_PASSES):
        began = time.monotonic()
        _fetch(base.netloc, paths, server.headers)
        rates.append(len(paths) / (time.monotonic() - began))
        memory.append(server.rss_bytes / 1e6)
    cpu_ms = (server.cpu_seconds - before) / (_PASSES * len(paths)) * 1000
    return Frames(rates, cpu_ms, memory)


def _fetch(netloc: str, paths: list[str], headers: dict[str, str]) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    problems: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection(netloc, timeout=120)
        try:
            while not problems:
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                connection.request("GET", path, headers={"Accept": _ACCEPT, **headers})
                answer = connection.getresponse()
                size = len(answer.read())
                if answer.status != 200 or size < 512 * 512 * 2:
                    problems.append(f"{path}: {answer.status}, {size} bytes")
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems


def markdown(opened: dict[str, list[Opened]], frames: dict[str, Frames], data: DataSet, rounds: int) -> str:
    its = next(name for name in opened if name.startswith("Orthanc"))
    lines = [
        "| from | first image s (min - max) | ours / Orthanc's | of it from the first question s | ours / Orthanc's"
        " | frames/s, first pass | later | CPU ms a frame | RSS MB, by pass |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, seen in opened.items():
        clicks = [one.from_the_click for one in seen]
        questions = [one.from_the_question for one in seen]
        of_clicks = statistics.median(a / b.from_the_click for a, b in zip(clicks, opened[its], strict=True))
        of_questions = statistics.median(a / b.from_the_question for a, b in zip(questions, opened[its], strict=True))
        ratios = ("", "") if name == its else (f"{of_clicks:.2f}", f"{of_questions:.2f}")
        first, *later = frames[name].frames_per_second
        lines.append(
            f"| {name} | {statistics.median(clicks):.2f} ({min(clicks):.2f} - {max(clicks):.2f}) | {ratios[0]}"
            f" | {statistics.median(questions):.2f} | {ratios[1]} | {first:.0f} | {statistics.median(later):.0f}"
            f" | {frames[name].cpu_ms:.2f} | {', '.join(f'{one:.0f}' for one in frames[name].rss_mb)} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"{data.files:,} CT slices of {data.size_bytes / data.files / 1000:.0f} KB; medians of {rounds} rounds in"
            f" turn, on {os.cpu_count()} cores that servers and browser share, with Python {platform.python_version()};"
            " ratios are medians of the rounds' own.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], ROOT / ".bench", ROOT / ".test-report"))
