"""The way of a study through the daemon, told stage by stage as the daemon's own record has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dicomwatchd.model import StudyState

#: What the daemon knows of the study, as `show` has it; None where it does not know it yet. Raises DicomwatchdError.
Look = Callable[[], dict[str, Any] | None]

POLL_SECONDS = 0.2
_MEANING = {
    StudyState.ARRIVING: "it was noticed; the study is archived once no file has come for the inbox's quiet time",
    StudyState.QUEUED: "it is quiet, and its turn comes",
    StudyState.UPLOADING: "sent to the archive",
    StudyState.VERIFYING: "what the archive holds is looked at afresh",
    StudyState.RECORDING: "the study's manifest and its entry in the catalogue",
    StudyState.PURGING: "the local file: deleted on proof, or kept",
    StudyState.ARCHIVED: "done",
    StudyState.PARKED: "it cannot be archived",
}


@dataclass(slots=True)
class Way:
    """``stages`` are (state, when: UTC, ISO 8601), in their order; ``reason`` why it was not archived in time."""

    stages: list[tuple[str, str]] = field(default_factory=list)
    archived: bool = False
    reason: str = ""


def follow(
    look: Look,
    since: str,
    tell: Callable[[str], None],
    *,
    is_in_it: Callable[[], bool],
    deadline_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Way:
    """Until the study is archived, parked, or the time is over. ``since``, UTC in ISO 8601: what was before is not told
    again. A stage that is over before anybody looks is told by the daemon's history. ``is_in_it`` is asked of a study
    that is archived: what an earlier run has left in the inbox may be of the same one, and be archived before."""
    way, begun = Way(), monotonic()

    def note(state: str, at: str) -> None:
        if way.stages and way.stages[-1][0] == state:
            return
        way.stages.append((state, at))
        tell(f"{monotonic() - begun:6.1f} s  {state:<10} {_MEANING.get(StudyState(state), '')}")

    while True:
        found = look()
        history = [step for step in found["history"] if step["at"] >= since] if found is not None else []
        is_as_before = found is not None and found.get("state") == StudyState.ARCHIVED and not history
        if found is not None and not is_as_before:
            if not way.stages:
                note(StudyState.ARRIVING, history[0]["at"] if history else since)
            new = history[_told(history, way) :]
            for step in new:
                note(step["new"], step["at"])
            state = way.stages[-1][0]
            if state == StudyState.ARCHIVED and is_in_it():
                way.archived = True
                return way
            if state == StudyState.PARKED:
                way.reason = found.get("reason") or "the study is parked"
                return way
            way.reason = found.get("reason") or ""
        if monotonic() - begun > deadline_seconds:
            stage = f"after {way.stages[-1][0]}" if way.stages else "and the daemon has not noticed it"
            if way.stages and way.stages[-1][0] == StudyState.ARCHIVED:
                stage = "though others of its study are"
            way.reason = way.reason or f"it is not archived after {deadline_seconds:.0f} s, {stage}"
            return way
        sleep(POLL_SECONDS)


def _told(history: list[dict[str, Any]], way: Way) -> int:
    """How many steps of the history have been told: those up to the last stage's time."""
    last = way.stages[-1][1]
    return sum(1 for step in history if (step["at"], step["new"]) in way.stages or step["at"] < last)
