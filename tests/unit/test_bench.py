"""What scripts/bench says of its runs: the tables are made of the figures, and of nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import clients, pages, report, request_hooks
from tests.bench.cases import CASES, Case, Goal
from tests.bench.cores import Cores, keep_to, split
from tests.bench.data import DataSet
from tests.bench.document import document, write_json
from tests.bench.measure import Measured
from tests.bench.round_trips import Asked, chain
from tests.bench.round_trips import markdown as listed
from tests.bench.rounds import Result

ROOT = Path(__file__).parents[2]


def _case(**more: Any) -> Case:
    def never(_: object) -> DataSet:
        raise AssertionError

    return Case("ct", "{files:,} slices", never, never, **more)


def _found(case: Case, ours: list[Measured], peer: list[Measured], name: str = "s5cmd mv") -> dict[str, Any]:
    data = DataSet(Path("/nowhere"), "1.2", 1000, 526_000_000)
    result = Result(case, data, {"dicomwatchd": ours, name: peer}, {"ferry run": "ferry run: 1 files left"})
    return document(
        [result], {"dicomwatchd": "1"}, {"dicomwatchd": "all"}, rounds=2, date="2026-11-30", cores="2 processors"
    )


JOB = _found(
    _case(goals=(Goal("wall", "s5cmd mv", 1.15), Goal("cpu", "s5cmd mv", 1.0), Goal("wall", "ferry run", 0.75))),
    [Measured(3.0, 3.0, 100_000_000), Measured(2.2, 2.8, 110_000_000)],
    [Measured(2.0, 2.0, 50_000_000), Measured(2.0, 2.0, 50_000_000)],
)


def test_a_row_says_goal_and_ratio() -> None:
    table = report.markdown(JOB)
    (theirs,) = [line for line in table.splitlines() if "| s5cmd mv |" in line]
    assert theirs.endswith("| 1.30 (best) | 1.45 | wall <= 1.15: NOT reached; CPU <= 1: NOT reached |")
    assert "| 1,000 slices | dicomwatchd | 2.60 (2.20 - 3.00) | 2.90 | 105 |  |  |  |" in table
    assert "left out: 1 files left" in table
    assert "2026-11-30 with Python" in table
    assert "medians of 2 rounds" in table


def test_a_goal_is_judged_by_the_figure_that_is_not_rounded() -> None:
    """0.7501 is shown as 0.75, and is not 0.75."""
    case = _case(goals=(Goal("wall", "s5cmd mv", 0.75),))
    found = _found(case, [Measured(0.7501, 1, 1)], [Measured(1, 1, 1)])
    assert "| 0.75 | 0.75 | NOT reached |" in report.goals(found)
    found = _found(case, [Measured(0.75, 1, 1)], [Measured(1, 1, 1)])
    assert "| 0.75 | 0.75 | reached |" in report.goals(found)


@pytest.mark.parametrize("name", ["least", "beside 1"])
def test_the_floor_and_older_selves_are_no_peers(name: str) -> None:
    found = _found(_case(), [Measured(3, 3, 1), Measured(3, 3, 1)], [Measured(1, 1, 1), Measured(1, 1, 1)], name)
    assert found["cases"][0]["best_peer"] is None
    assert "| 3.00 |" in report.markdown(found)


def test_the_goals_are_listed_with_what_was_measured() -> None:
    """One whose peer has not done the work has no figure, and is not there."""
    assert report.goals(JOB).splitlines()[2:4] == [
        "| 1,000 slices | wall / s5cmd mv's | 1.30 | 1.15 | NOT reached |",
        "|  | CPU / s5cmd mv's | 1.45 | 1 | NOT reached |",
    ]
    assert "ferry" not in report.goals(JOB)


def test_requests_are_counted_and_weighed_for_an_object() -> None:
    case = _case(goals=(Goal("requests", None, 0.4),), measures="requests")
    ours = {"PutObject": (1000, 0.35), "ListObjectVersions": (30, 0.03)}
    theirs = {"PutObject": (1000, 1.9)}
    found = _found(case, [Measured(1, 1, 1, ours)], [Measured(1, 1, 1, theirs)], "botocore")
    table = report.markdown(found)
    assert "| 1,000 slices | dicomwatchd | 0.38 (0.38 - 0.38) | 1.03 |  | ms CPU <= 0.4: reached |" in table
    assert "|  | botocore | 1.90 (1.90 - 1.90) | 1.00 | 0.20 |  |" in table
    assert "| 1,000 slices | CPU for an object | 0.38 ms | 0.4 ms | reached |" in report.goals(found)


def test_every_goal_is_measured_against_somebody_who_takes_part() -> None:
    names = {one.name for one in (clients.Ours, clients.S5cmd, clients.Rclone, clients.Ferry, clients.AwsCli)}
    for case in CASES:
        assert case.goals, case.name
        assert case.takes("dicomwatchd"), case.name
        for goal in case.goals:
            assert goal.peer is None or (goal.peer in names and case.takes(goal.peer)), (case.name, goal)
    assert {case.name for case in CASES if case.takes(clients.ByBotocore.name)} == {"amazon-http", "amazon-https"}


def test_each_request_of_the_data_plane_is_watched() -> None:
    assert request_hooks.of_the_data_plane().keys() >= {"PutObject", "UploadPart", "HeadObject", "ListObjects"}


# --- the pages


def _project(root: Path) -> Path:
    (root / "docs").mkdir()
    for page in pages.PAGES:
        (root / page).write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    return root


def test_the_pages_get_the_tables_and_the_figures_beside_them(tmp_path: Path) -> None:
    root, figures = _project(tmp_path), tmp_path / "run.json"
    write_json(figures, JOB)
    pages.write(root, figures)
    for page, table in pages.PAGES.items():
        text = (root / page).read_text()
        assert text.startswith("before\n")
        assert text.endswith(f"{pages.END}\nafter\n")
        assert pages.between_markers(root / page) == table(JOB)
    assert json.loads((root / pages.FIGURES).read_text()) == JOB


@pytest.mark.parametrize("wrong", ["none", f"{pages.BEGIN} {pages.BEGIN} {pages.END}", f"{pages.END} {pages.BEGIN}"])
def test_without_a_place_nothing_is_written(tmp_path: Path, wrong: str) -> None:
    root, figures = _project(tmp_path), tmp_path / "run.json"
    write_json(figures, JOB)
    last = list(pages.PAGES)[-1]
    (root / last).write_text(wrong)
    with pytest.raises(ValueError, match=r"bench:begin"):
        pages.write(root, figures)
    assert pages.between_markers(root / "README.md") == "old"
    assert not (root / pages.FIGURES).exists()


def test_the_tables_of_this_project_are_what_its_figures_say() -> None:
    """Until there are any, the README owns up to an older table."""
    within = {page: pages.between_markers(ROOT / page) for page in pages.PAGES}
    if not (ROOT / pages.FIGURES).exists():
        assert within[Path("README.md")].startswith("This table is older than the program")
        return
    found = json.loads((ROOT / pages.FIGURES).read_text())
    assert within == {page: table(found) for page, table in pages.PAGES.items()}


# --- processors


def _hyper_threads(processor: int) -> set[int]:
    return {processor, processor ^ 1}


def _alone(processor: int) -> set[int]:
    return {processor}


def test_two_processors_are_shared_and_more_are_not() -> None:
    assert str(split({0, 1}, _alone)) == "2 processors that servers and clients share"
    assert split({2, 3, 5}, _alone) == Cores(frozenset({2, 3}), frozenset({5}))
    four = split({0, 1, 2, 3}, _alone)
    assert four == Cores(frozenset({0, 1}), frozenset({2, 3}))
    assert str(four) == "4 processors, 2 for the servers alone and 2 for the clients"


def test_threads_of_a_core_stay_together() -> None:
    assert split({0, 1, 2, 3}, _hyper_threads) == Cores(frozenset({0, 1}), frozenset({2, 3}))
    assert split({0, 2, 3}, _hyper_threads) == Cores(frozenset({0}), frozenset({2, 3}))  # 1 is somebody else's
    one_core = split({4, 5, 6}, lambda _: {4, 5, 6})
    assert one_core.servers == one_core.clients == {4, 5, 6}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a single processor")
def test_all_threads_of_a_running_server_are_kept_to_its_processors() -> None:
    code = (
        "import sys, threading; b = threading.Barrier(4)\n"
        "def wait(): b.wait(); threading.Event().wait()\n"
        "for _ in range(3): threading.Thread(target=wait, daemon=True).start()\n"
        "b.wait(); print('ready', flush=True); sys.stdin.read()"
    )
    one = frozenset({min(os.sched_getaffinity(0))})
    server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        keep_to(server.pid, one)
        threads = os.listdir(f"/proc/{server.pid}/task")
        assert len(threads) == 4
        assert {frozenset(os.sched_getaffinity(int(thread))) for thread in threads} == {one}
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()
    keep_to(server.pid, one)  # it has ended: nothing to do


# --- requests in sequence


def _asked(asked: float, answered: float, operation: str) -> Asked:
    return Asked(asked, answered, operation, ("stages.py:1 ship",))


def test_the_chain_is_what_waited_for_one_another() -> None:
    first, put, slow_put, last = (
        _asked(0.0, 0.1, "List"),
        _asked(0.11, 0.2, "Put"),
        _asked(0.12, 0.3, "Put"),
        _asked(0.31, 0.4, "Get"),
    )
    beside = _asked(0.05, 0.25, "Beside")  # it was answered while others were under way
    too_late = _asked(0.35, 0.6, "Late")  # nothing has waited for its answer
    assert chain([put, too_late, last, beside, first, slow_put], 0.5) == [first, slow_put, last]


def test_requests_of_one_place_at_one_time_are_one_line() -> None:
    found = [_asked(0.0, 0.1, "Put"), _asked(0.05, 0.15, "Put"), _asked(0.2, 0.3, "Put"), _asked(0.05, 0.1, "Head")]
    assert [line for line in listed(found, 0.31).splitlines() if "ship" in line] == [
        "| * | 0 | 150 | Put | 2 | stages.py:1 ship |",
        "|  | 50 | 50 | Head | 1 | stages.py:1 ship |",
        "| * | 200 | 100 | Put | 1 | stages.py:1 ship |",
    ]
    assert listed(found, 0.31).endswith("4 requests, 2 in the chain: 0.20 of 0.31 s.")
