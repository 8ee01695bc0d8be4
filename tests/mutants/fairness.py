"""Mutants of what keeps one bad study from stopping others: rows of `mutations.Mutation`."""

from __future__ import annotations

BACKOFF = ("tests/unit/test_backoff.py",)
SLOTS = ("tests/unit/test_slots.py",)
TURNS = ("tests/unit/test_queue_turns.py",)
POISONED = ("tests/unit/test_poisoned.py",)
LOOP = ("tests/unit/test_upload_loop.py",)
EARLY = ("tests/unit/test_early.py",)

FAIRNESS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"backoff: {name}", "pipeline/backoff.py", old, new, BACKOFF)
        for name, old, new in (
            ("different studies", "endpoint.unexplained.add(study_uid)", "endpoint.unexplained.add(Uid(str(now)))"),
            ("others pass", "                if not others_pass:\n", "                if True:\n"),
            (
                "a study that fails while others pass",
                "            if others_pass or often_blamed:",
                "            if False:",
            ),
            ("since it failed last", "self._failed_at.get(study_uid, began)", "began"),
            ("many in a row", "len(self.failing) >= DOWN_AFTER_ANY", "False"),
            ("known to be failing", "            if not often_blamed:\n", "            if True:\n"),
            ("those under way", "endpoint.until > now or began < endpoint.opened_at", "endpoint.until > now"),
            ("the pause of those under way", "endpoint.until > now or began < endpoint", "began < endpoint"),
            ("an endpoint's longest pause", "now + min(asked, ENDPOINT_PAUSE_SECONDS)", "now + asked"),
            ("a growing pause", "        endpoint.pauses += 1\n", ""),
            ("a service that throttles", "isinstance(error, Throttled)", "False"),
            ("no blame for it", "if throttled and others_pass and not often_blamed:", "if False:"),
            ("one endpoint's pass", "[n for n in endpoints if n in self._endpoints]", "list(self._endpoints)"),
            ("one item first", "        some = 1\n", "        some = 8\n"),
            ("then more", "            some *= 2\n", ""),
        )
    ),
    *(
        (f"slots: {name}", "pipeline/slots.py", old, new, SLOTS)
        for name, old, new in (
            ("long ones hold up nobody", "if age < LONG_SECONDS]", "]"),
            ("an end to it", "len(ages) >= most", "False"),
            ("of each kind", " if slot.kind is kind)", ")"),
            ("one trial", "Kind.TRIAL: (1, active)", "Kind.TRIAL: (active, active)"),
        )
    ),
    *(
        (f"turns: {name}", "queue/claims.py", old, new, TURNS)
        for name, old, new in (
            ("behind the others", "            if attempts > claim.attempts:\n", "            if False:\n"),
            ("an attempt that does not count", "            if attempts > claim.attempts:\n", "            if True:\n"),
            ("a line of their own", 'f"blamed < {BLAMED_OFTEN}", ', '"blamed >= 0", '),
            ("the newest", "ORDER BY queued_at DESC", "ORDER BY queued_at"),
            ("who was tried", 'f"AND turn > 0 {_IN_TURN}", ', ""),
            ("not those failing themselves", "WHERE endpoint IS NOT NULL AND state", "WHERE state"),
        )
    ),
    (
        "dispatch: one at a time while an endpoint is down",
        "pipeline/dispatch.py",
        "        kinds = (Kind.TRIAL,) if self.backoff.in_trouble else (Kind.STUDY, Kind.BLAMED)\n        for kind",
        "        kinds = (Kind.STUDY, Kind.BLAMED)\n        for kind",
        ("tests/unit/test_dispatch_waits.py",),
    ),
    (
        "dispatch: those that met an outage wait no longer",
        "pipeline/dispatch.py",
        "            self._context.claims.endpoints_back()\n",
        "            pass\n",
        POISONED,
    ),
    (
        "dispatch: a trial takes both ends of the line",
        "pipeline/dispatch.py",
        "return First.UNTRIED if self._begun[kind] % 2 else First.NEWEST",
        "return First.UNTRIED",
        POISONED,
    ),
    (
        "loop: nothing more is sent once all would meet the same",
        "pipeline/sending/loop.py",
        "        if met or not goes_on():",
        "        if not goes_on():",
        LOOP,
    ),
    (
        "loop: what was stored is committed whatever is raised",
        "pipeline/sending/loop.py",
        "    finally:\n        if uncommitted:",
        "    finally:\n        if False:",
        LOOP,
    ),
    (
        "loop: a fatal error goes before others",
        "pipeline/sending/loop.py",
        "next((error for error in met if isinstance(error, Fatal)), met[0] if met else None)",
        "met[0] if met else None",
        LOOP,
    ),
    (
        "early: one that fails is left alone",
        "pipeline/sending/early.py",
        "            if self._rests(study_uid):\n                continue\n",
        "",
        EARLY,
    ),
    (
        "early: what is sent speaks for the endpoint",
        "pipeline/sending/early.py",
        "            self._on_passed(study_uid, self._failed_on)\n",
        "            pass\n",
        EARLY,
    ),
    (
        "backoff: not left alone for ever",
        "pipeline/backoff.py",
        "one.opened_at is not None and now - one.failed_at < LEFT_ALONE_SECONDS",
        "one.opened_at is not None",
        BACKOFF,
    ),
    (
        "backoff: left alone by what a healthy study met",
        "pipeline/backoff.py",
        "                endpoint.failed_at = now\n",
        "                pass\n",
        BACKOFF,
    ),
)
