"""`disk_free_min` and `disk_free_goal` beside `delete_after`."""

from __future__ import annotations

from typing import Any

import pytest

from dicomwatchd.config import loading
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.pipeline.deletion.early import Room
from tests.unit.test_config import problems, with_inbox

BOTH = "must have disk_free_min and disk_free_goal, or neither"
ABOVE = "must have a disk_free_goal above disk_free_min, and that above 0%"


@pytest.mark.parametrize(
    ("rule", "room"),
    [
        ("delete", None),
        ("keep", None),
        ({"delete_after": "7d"}, None),
        ({"delete_after": "7d", "disk_free_min": "10%", "disk_free_goal": "20%"}, Room(0.1, 0.2)),
        ({"delete_after": "7d", "disk_free_min": "1%", "disk_free_goal": "100%"}, Room(0.01, 1.0)),
    ],
)
def test_what_is_planned(rule: Any, room: Room | None) -> None:
    [inbox] = plan_of(loading.parse(with_inbox(after_archive=rule))).inboxes
    assert inbox.room == room


@pytest.mark.parametrize(
    ("rule", "where", "why"),
    [
        ({"delete_after": "7d", "disk_free_min": "10%"}, "", BOTH),
        ({"delete_after": "7d", "disk_free_goal": "10%"}, "", BOTH),
        ({"delete_after": "7d", "disk_free_min": "20%", "disk_free_goal": "20%"}, "", ABOVE),
        ({"delete_after": "7d", "disk_free_min": "30%", "disk_free_goal": "20%"}, "", ABOVE),
        ({"delete_after": "7d", "disk_free_min": "0%", "disk_free_goal": "20%"}, "", ABOVE),
        (
            {"delete_after": "7d", "disk_free_min": "0.1", "disk_free_goal": "20%"},
            ".disk_free_min",
            "must be a whole percentage, such as 10%",
        ),
        ({"disk_free_min": "10%", "disk_free_goal": "20%"}, ".delete_after", "is missing"),
    ],
)
def test_what_is_wrong(rule: Any, where: str, why: str) -> None:
    assert problems(with_inbox(after_archive=rule)) == [(f"inboxes[0].after_archive{where}", why)]
