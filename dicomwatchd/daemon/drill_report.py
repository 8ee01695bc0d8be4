"""What `status` says of restore drills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dicomwatchd.config.drill import RestoreDrill
from dicomwatchd.drill.trial import DIFFERS, DISK, ELSEWHERE
from dicomwatchd.ports import timestamp
from dicomwatchd.queue.drills import FIGURES_SECONDS, Drilled, Drills, Failed, Outcome

#: So many of the studies that have failed are named.
_NAMED = 20
#: Without a study that was compared for so long something is wrong with the drills.
_STALLED_SECONDS = 7 * 86400.0
#: After a start: for the first drill to begin (`drill.rounds.FIRST_SECONDS`) and to fetch a study.
_HAS_HAD_TIME_SECONDS = 1800.0


def document(drills: Drills, plan: RestoreDrill) -> dict[str, Any]:
    """The figures of the last 30 days. Holds Study Instance UIDs, and nothing else of a study."""
    figures = drills.figures()
    return {
        "studies_per_day": plan.studies_per_day,
        "days": round(FIGURES_SECONDS / 86400),
        "studies": {outcome.value: figures.studies.get(outcome, 0) for outcome in Outcome},
        "instances": figures.instances,
        "instances_equal": figures.equal,
        "bytes": figures.size_bytes,
        "last_at": None if figures.last_at is None else timestamp(figures.last_at),
        "last_compared_at": None if figures.last_compared_at is None else timestamp(figures.last_compared_at),
        "failed": [
            {
                "study_uid": one.study_uid,
                "at": timestamp(one.at),
                "code": one.code,
                "instances": one.instances,
                "instances_equal": one.equal,
            }
            for one in drills.failed(_NAMED)
        ],
        "failed_total": drills.failed_count(),
    }


def problems(drills: Drills, plan: RestoreDrill, now: float, runs_for_seconds: float) -> Iterator[str]:
    """Each with what an administrator should do. ``now`` in seconds since the epoch; ``runs_for_seconds``: one that was
    off for a week makes its first drill soon."""
    named = drills.failed(_NAMED)
    for one in named:
        yield f"restore drill: study {one.study_uid} {sentence(one)}"
    if len(named) == _NAMED and (more := drills.failed_count() - _NAMED) > 0:
        yield f"restore drill: {more:,} more studies did not come back"
    has_had_time = runs_for_seconds > _HAS_HAD_TIME_SECONDS
    if plan.studies_per_day and has_had_time and drills.is_stalled(now - _STALLED_SECONDS):
        yield (
            "restore drill: no study could be fetched for 7 days, so nothing is known of whether the archive can be"
            " restored; the journal gives the reason (event restore-drill-left-out)"
        )


def sentence(one: Failed | Drilled) -> str:
    """What is wrong with a study, and what to do."""
    lacking = one.instances - one.equal
    verify = f"run dicomwatchctl verify --deep {one.study_uid}"
    match one.code:
        case code if code == DIFFERS:
            return (
                f"did not come back whole: {lacking:,} of {one.instances:,} instances are missing or have other bytes;"
                f" {verify}, and archive them again from their source"
            )
        case code if code == ELSEWHERE:
            return (
                "came back, but not from the objects that its manifest names, which were overwritten or deleted;"
                f" {verify}, and find out who writes to the archive"
            )
        case code if code == DISK:
            return (
                f"was fetched, and {lacking:,} of {one.instances:,} files then read otherwise from the disk of the"
                " state directory; check that disk"
            )
        case _:
            return f"has a manifest that cannot be used; {verify}, and archive any of its files again"


def answer(drilled: Drilled | None) -> dict[str, Any]:
    """What has come of a drill that somebody asked for."""
    is_nothing = drilled is None
    drilled = drilled or Drilled("", Outcome.NOT_DONE)
    return {
        "outcome": "nothing" if is_nothing else drilled.outcome.value,
        "study_uid": drilled.study_uid or None,
        "code": drilled.code or None,
        "revision": drilled.revision or None,
        "instances": drilled.instances,
        "instances_equal": drilled.equal,
        "bytes": drilled.size_bytes,
        "seconds": round(drilled.seconds, 3),
        "problem": f"the study {sentence(drilled)}" if drilled.outcome is Outcome.FAILED else None,
    }
