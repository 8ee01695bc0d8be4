"""Mutants of what keeps an inbox in trouble from stopping others: rows of `mutations.Mutation`."""

from __future__ import annotations

ANSWERING = ("tests/unit/test_answering.py",)
REMOUNTS = ("tests/unit/test_remounts.py",)
ARRIVALS = ("tests/unit/test_queue_arrivals.py",)
INTAKE = ("tests/unit/test_intake_inbox.py",)
SCAN = ("tests/unit/test_unreadable.py",)
CLAIMS = ("tests/unit/test_silent_inbox.py",)

INBOXES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "intake: a stop ends a look",
        "intake/inbox.py",
        "            if stopping.is_set():  # in the midst of a look",
        "            if False:  # in the midst of a look",
        ("tests/unit/test_intake_inbox.py::test_a_stop_does_not_wait_for_the_end_of_a_look",),
    ),
    *(
        (f"answering: {name}", "answering.py", old, new, ANSWERING)
        for name, old, new in (
            ("nothing new is begun", "if refusing and source_id in self._since:", "if False:"),
            (
                "what was given up shows no life",
                "            if visit.given_up:\n                raise _not_responding()\n\n    def elsewhere",
                "            pass\n\n    def elsewhere",
            ),
            ("what was given up has no result", "        if visit.given_up and not leaving:", "        if False:"),
            ("until it has ended", "                if is_late or visit.given_up:", "                if is_late:"),
            ("others have answers", "min(waits, no_sign) > self._limit", "waits > self._limit"),
            ("but not for ever", " or waits > PATIENCE * self._limit", ""),
            ("the state is not the inbox", " and not visit.elsewhere\n", "\n"),
            ("the watchdog has it meanwhile", "(v.depth and not v.elsewhere)}", "v.depth}"),
            ("it outlives its visit", "if not visit.depth and not visit.given_up:", "if not visit.depth:"),
            ("an inbox's own thread", "(is_late and visit.may_be_given_up)", "is_late"),
        )
    ),
    (
        "the archive is not the inbox",
        "pipeline/deletion/policy.py",
        "            with self.context.inboxes.elsewhere():  # it is",
        "            if True:  # it is",
        ("tests/unit/test_not_the_inbox.py",),
    ),
    (
        "the state says that it is used",
        "daemon/composition.py",
        "        self.queue.say_when_used(around.inboxes.elsewhere)\n",
        "",
        ("tests/unit/test_not_the_inbox.py",),
    ),
    (
        "pool: what has just come back",
        "pipeline/pool.py",
        "name in self._given_up or not still():",
        "name in self._given_up:",
        ANSWERING,
    ),
    (
        "pool: made up for",
        "pipeline/pool.py",
        "        return len(self._threads) - len(self._given_up)",
        "        return len(self._threads)",
        ANSWERING,
    ),
    (
        "claim: only where all can be asked",
        "queue/claims.py",
        "if not (silent := self.not_responding()):",
        "if True:",
        CLAIMS,
    ),
    (
        "purge: given up is not untouched",
        "pipeline/deletion/purge.py",
        "        unfinished.clear()\n        raise\n",
        "        raise\n",
        CLAIMS,
    ),
    (
        "memory that is held at a hung inbox",
        "archive/stores/budget.py",
        "                    self._out -= loan.size_bytes\n            self._changed",
        "                    pass\n            self._changed",
        ("tests/unit/test_budget_hung.py",),
    ),
    (
        "memory that was written off comes back once",
        "archive/stores/budget.py",
        "        if loan.counts:\n",
        "        if True:\n",
        ("tests/unit/test_budget_hung.py",),
    ),
    *(
        (f"remount: {name}", "intake/folder/mounts.py", old, new, REMOUNTS)
        for name, old, new in (
            ("the same file system", "file_system is not None and self._on(old) == file_system", "True"),
            ("one without an id", "file_system is not None and ", ""),
            ("the rest is the same", "and _without_device(old.identity) == _without_device(found)", ""),
            ("elsewhere is not gone", "return {name for name, old in kept.items() if away[old]}", "return set()"),
            ("here it is gone", "(was := self._on(old)) is not None and was != here", "True"),
        )
    ),
    (
        "due: the same content",
        "queue/bindings/remounts.py",
        " AND name = ? AND sha256 = ?",
        " AND name = ? AND sha256 != ?",
        REMOUNTS,
    ),
    (
        "retire: again and again",
        "queue/quiet.py",
        '[row["source_id"] for row in rows if row["source_id"] not in keep]',
        "[]",
        ARRIVALS,
    ),
    (
        "removed: holds nothing",
        "intake/inbox.py",
        "        return removed_at is None or ",
        "        return True or ",
        INTAKE,
    ),
    *(
        (f"unreadable: {name}", file, old, new, SCAN)
        for name, file, old, new in (
            (
                "costs itself",
                "intake/scan.py",
                "                listing.unreadable.append(name)\n                continue\n",
                "                raise\n",
            ),
            (
                "a listing that broke off",
                "intake/comparison.py",
                "        if listing.error is not None:\n",
                "        if False:\n",
            ),
            ("is not gone", "intake/comparison.py", " or name in barred_names)", ")"),
        )
    ),
)
