"""Mutants of the limit on sending, and of what is deleted early: rows of `mutations.Mutation`."""

from __future__ import annotations

EARLY = ("tests/unit/test_early_deletion.py",)
_EARLY, _DUES = "pipeline/deletion/early.py", "queue/early.py"
UPLINK = ("tests/unit/test_uplink.py",)
SENT = ("tests/unit/test_bandwidth_sent.py",)
_UPLINK, _STORE = "archive/stores/uplink.py", "archive/stores/s3/store.py"

PACING: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"early: {name}", file, old, new, EARLY)
        for name, file, old, new in (
            (
                "a look counts once",
                _EARLY,
                "if disk is not None and newest.monotonic <= disk.decided_at:",
                "if False:",
            ),
            ("what is on its way", _EARLY, "max(on_their_way, disk.on_their_way_bytes)", "0"),
            ("what could not be deleted", _EARLY, " if self._may_delete(one.source)}", "}"),
            ("the goal", _EARLY, "share < one.room.min_share:", "share < one.room.goal_share:"),
            ("of held studies", _DUES, "h.study_uid = f.study_uid AND h.released_at IS NULL", "h.released_at = 0"),
            ("the first", _DUES, "ORDER BY f.due_at LIMIT", "ORDER BY f.due_at DESC LIMIT"),
            ("as much as is called for", _DUES, "if missing <= 0:", "if False:"),
            (
                "what fails for ever",
                _DUES,
                """_GOES = f"s.state != 'parked' AND NOT ({_FAILS})\"""",
                """_GOES = "s.state != 'parked'\"""",
            ),
            (
                "a thread of its own",
                "daemon/composition.py",
                "        self.room = Upkeep([self.early.step])",
                "        self.room = Upkeep([])",
            ),
            ("what met an outage", _DUES, " AND s.endpoint IS NULL)", ")"),
        )
    ),
    *(
        (f"uplink: {name}", file, old, new, tests)
        for name, file, old, new, tests in (
            (
                "what is taken",
                _UPLINK,
                "self._allowed_bytes -= size_bytes + head_bytes",
                "self._allowed_bytes -= head_bytes",
                UPLINK,
            ),
            ("what surrounds it", _UPLINK, "_HEAD_BYTES if begins else 0", "0", UPLINK),
            ("nothing is saved", _UPLINK, "CATCH_UP_SECONDS * rate + _HEAD_BYTES)", "1e18)", UPLINK),
            ("the time of day", _UPLINK, "if now >= self._look_at:", "if False:", UPLINK),
            (
                "who has begun",
                _UPLINK,
                "        if not begins:\n            return self._begun\n",
                "        if not begins:\n            return self._new\n",
                UPLINK,
            ),
            (
                "what is small",
                _UPLINK,
                "return self._small if most_bytes <= _SMALL_BYTES else self._new",
                "return self._new",
                UPLINK,
            ),
            (
                "small ones take turns",
                _UPLINK,
                "        self._small_is_next = woken not in self._small\n",
                "",
                UPLINK,
            ),
            ("who stops", _UPLINK, "if stopping():", "if False and stopping():", UPLINK),
            (
                "no deadline's",
                "archive/stores/s3/connection.py",
                "time.monotonic() - began - self._waited_seconds",
                "time.monotonic() - began",
                SENT,
            ),
            (
                "what the probe alters",
                "archive/stores/s3/probe.py",
                "events.register_first(",
                "events.register(",
                SENT,
            ),
            ("botocore's", _STORE, "(sending := uplink.sending(stopping)) is not None", "False", SENT),
        )
    ),
    (
        "bandwidth: a weekly hour that does not come comes a week later",
        "config/bandwidth.py",
        "range(1, 2 * _WEEK_MINUTES + _DAY_MINUTES)",
        "range(1, _WEEK_MINUTES + _DAY_MINUTES)",
        ("tests/unit/test_config_bandwidth.py",),
    ),
)
