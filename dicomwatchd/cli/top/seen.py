"""What the daemon's answers come to, one after the other: rates, and how far a study is. Pure; no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

#: Over which time a rate is told: long enough to be readable, short enough to show that something stands still.
WINDOW_SECONDS = 10.0
#: The same of studies, which are fewer than files.
STUDIES_WINDOW_SECONDS = 60.0
_LEAST_SECONDS = 0.5
#: A stage of a shipment at which nothing is counted file by file.
_WITHOUT_FILES = "recording"
SHIPPING = ("uploading", "verifying", "recording", "purging")


class Rates(NamedTuple):
    """By the second, but ``archived_per_minute``; each None until there is a difference to tell it from."""

    sent_bytes: float | None
    sent_files: float | None
    taken_up_files: float | None
    archived_per_minute: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` files have passed the stage; both None where the stage has no files."""

    done: int | None
    total: int | None

    @property
    def share(self) -> float | None:
        return None if self.done is None or not self.total else min(1.0, self.done / self.total)


class Seen:
    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self._answers: deque[dict[str, Any]] = deque()
        #: The most files that a study on its way was seen with: those that are gone already have no row any more.
        self._most: dict[str, int] = {}

    def answer(self, said: dict[str, Any]) -> None:
        """The daemon's newest answer to "top"."""
        if self._answers and not _goes_on(self._answers[-1], said):
            self._answers.clear()  # another daemon, whose counts begin anew
        if not self._answers or said["clock_seconds"] > self._answers[-1]["clock_seconds"]:
            self._answers.append(said)
        while self._answers and said["clock_seconds"] - self._answers[0]["clock_seconds"] > STUDIES_WINDOW_SECONDS:
            self._answers.popleft()
        self.said = said
        self._most = {
            study["study_uid"]: max(self._most.get(study["study_uid"], 0), _here(study))
            for study in said["studies"]
            if study["state"] in SHIPPING
        }

    @property
    def status(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.said.get("status") or {}
        return found

    def rates(self) -> Rates:
        return Rates(
            self._rate("sent_bytes", WINDOW_SECONDS),
            self._rate("sent_files", WINDOW_SECONDS),
            self._rate("files_taken_up", WINDOW_SECONDS),
            _times(self._rate("archived_shipments", STUDIES_WINDOW_SECONDS), 60.0),
        )

    def progress(self, study: Mapping[str, Any]) -> Progress:
        """Of a study of the newest answer, in the stage that it is at."""
        files, state, here = study["files"], study["state"], _here(study)
        if state == _WITHOUT_FILES:
            return Progress(None, None)
        if state == "verifying":
            return Progress(study["verified"] or 0, files["ready"] + files["stored"])
        if state == "purging":
            most = max(self._most.get(study["study_uid"], 0), here)
            return Progress(most - here, most)
        return Progress(files["stored"], here)

    def seconds_until(self, timestamp: str | None) -> float | None:
        """By the daemon's clock; negative for what is past."""
        if not timestamp or not self.said:
            return None
        at = datetime.fromisoformat(timestamp) - datetime.fromisoformat(self.said["taken_at"])
        return at.total_seconds()

    def seconds_since(self, timestamp: str | None) -> float | None:
        until = self.seconds_until(timestamp)
        return None if until is None else max(0.0, -until)

    def _rate(self, key: str, window_seconds: float) -> float | None:
        if not self._answers:
            return None
        last = self._answers[-1]
        first = next(one for one in self._answers if last["clock_seconds"] - one["clock_seconds"] <= window_seconds)
        seconds = last["clock_seconds"] - first["clock_seconds"]
        return None if seconds < _LEAST_SECONDS else max(0.0, (last[key] - first[key]) / seconds)


def _goes_on(before: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    was, now = before["status"], said["status"]
    return (was.get("pid"), was.get("started_at")) == (now.get("pid"), now.get("started_at")) and bool(
        said["clock_seconds"] >= before["clock_seconds"] and said["sent_files"] >= before["sent_files"]
    )


def _here(study: Mapping[str, Any]) -> int:
    return int(sum(study["files"].values()))


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor
