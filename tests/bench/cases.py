"""The cases of the benchmark: what is moved over which link, and what each is meant to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.bench.data import DataSet, Shelf

#: How the store is reached; "amazon" is one that behaves as Amazon's does.
Link = Literal["http", "https", "delayed", "amazon-http", "amazon-https"]
#: Ours, without its data plane.
BY_BOTOCORE = "all by botocore"
#: Another checkout of ours, with a number.
BESIDE = "beside"
#: The least that does as much (tests/bench/least.py).
LEAST = "least"


@dataclass(frozen=True, slots=True)
class Goal:
    """``figure`` of ours divided by that of ``peer`` in the same round, the median of all rounds: at most ``limit``.
    Without a peer it is the figure itself: "requests" is the milliseconds of CPU that the store's requests take for an
    object."""

    figure: Literal["wall", "cpu", "requests"]
    peer: str | None
    limit: float


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    title: str
    data: Callable[[Shelf], DataSet]
    quick_data: Callable[[Shelf], DataSet]
    link: Link = "http"
    direction: Literal["move", "fetch"] = "move"
    goals: tuple[Goal, ...] = ()
    in_quick: bool = True
    #: Ours. The peers know an object for each file alone, so the fastest of them and the one that proves too will do.
    layout: Literal["instance", "bundled"] = "instance"
    #: Ours is a daemon that runs already: from the rename of the folder into its inbox to the last unlink.
    running: bool = False
    #: The whole job, or only what the daemon's requests to the store take of the processor.
    measures: Literal["job", "requests"] = "job"

    def takes(self, client: str) -> bool:
        if self.measures == "requests":
            return client in ("dicomwatchd", BY_BOTOCORE)
        if client == BY_BOTOCORE:
            return False
        if client == LEAST:
            return not self.running and not (self.direction == "fetch" and self.layout == "bundled")
        is_any = self.layout == "instance" and not self.running
        return is_any or client in ("dicomwatchd", "s5cmd mv", "ferry run") or client.startswith(BESIDE)


_MAIN_GOALS = (Goal("wall", "ferry run", 0.75), Goal("wall", "s5cmd mv", 1.15), Goal("cpu", "ferry run", 1.0))
_REQUEST_GOALS = (Goal("requests", None, 0.4),)
_RUNNING_GOALS = (Goal("wall", "s5cmd mv", 1.0),)

CASES = (
    Case(
        "ct-http",
        "{files:,} CT slices of 526 KB",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        goals=_MAIN_GOALS,
    ),
    Case(
        "ct-daemon",
        "{files:,} CT slices, into the inbox of a running daemon",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        goals=_RUNNING_GOALS,
        in_quick=False,
        running=True,
    ),
    Case(
        "ct-https",
        "{files:,} CT slices over https",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        link="https",
        goals=_MAIN_GOALS,
    ),
    Case(
        "mr",
        "{files:,} MR images of 40 KB",
        lambda shelf: shelf.mr_study(5000),
        lambda shelf: shelf.mr_study(500),
        goals=(Goal("wall", "ferry run", 0.6), Goal("wall", "s5cmd mv", 1.25)),
    ),
    Case(
        "mr-daemon",
        "{files:,} MR images, into the inbox of a running daemon",
        lambda shelf: shelf.mr_study(5000),
        lambda shelf: shelf.mr_study(500),
        goals=_RUNNING_GOALS,
        in_quick=False,
        running=True,
    ),
    Case(
        "studies",
        "{files:,} files of many studies at once, of 1 to 400 files each",
        lambda shelf: shelf.studies(20),
        lambda shelf: shelf.studies(5),
        goals=(Goal("wall", "ferry run", 0.75), Goal("wall", "s5cmd mv", 1.0)),
    ),
    Case(
        "big",
        "one multi-frame file of {size_gib:.3g} GiB",
        lambda shelf: shelf.multiframe(2 << 30),
        lambda shelf: shelf.multiframe(256 << 20),
        goals=(Goal("wall", "s5cmd mv", 1.0), Goal("cpu", "s5cmd mv", 1.1)),
    ),
    Case(
        "fetch",
        "{files:,} CT slices brought back",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        direction="fetch",
        goals=(Goal("wall", "s5cmd mv", 1.0),),
    ),
    Case(
        "fetch-https",
        "{files:,} CT slices brought back over https",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        link="https",
        direction="fetch",
        goals=(Goal("wall", "s5cmd mv", 1.0),),
        in_quick=False,
    ),
    Case(
        "far",
        "{files:,} MR images, 50 ms added to each request",
        lambda shelf: shelf.mr_study(5000),
        lambda shelf: shelf.mr_study(500),
        link="delayed",
        goals=(Goal("wall", "s5cmd mv", 0.9),),
    ),
    Case(
        "ct-bundled",
        "{files:,} CT slices, bundled layout",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        goals=(Goal("wall", "s5cmd mv", 0.9),),
        in_quick=False,
        layout="bundled",
    ),
    Case(
        "mr-bundled",
        "{files:,} MR images, bundled layout",
        lambda shelf: shelf.mr_study(5000),
        lambda shelf: shelf.mr_study(500),
        goals=(Goal("wall", "s5cmd mv", 0.45),),
        in_quick=False,
        layout="bundled",
    ),
    Case(
        "fetch-bundled",
        "{files:,} CT slices brought back, bundled layout",
        lambda shelf: shelf.ct_series(1000),
        lambda shelf: shelf.ct_series(200),
        direction="fetch",
        goals=(Goal("wall", "s5cmd mv", 1.0),),
        in_quick=False,
        layout="bundled",
    ),
    Case(
        "amazon-https",
        "{files:,} MR images of 40 KB, like Amazon: KMS, versions, https",
        lambda shelf: shelf.mr_study(1000),
        lambda shelf: shelf.mr_study(200),
        link="amazon-https",
        goals=_REQUEST_GOALS,
        in_quick=False,
        measures="requests",
    ),
    Case(
        "amazon-http",
        "{files:,} MR images of 40 KB, the same over http",
        lambda shelf: shelf.mr_study(1000),
        lambda shelf: shelf.mr_study(200),
        link="amazon-http",
        goals=_REQUEST_GOALS,
        in_quick=False,
        measures="requests",
    ),
)
