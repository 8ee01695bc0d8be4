"""Mutants of what keeps an exchanged inbox's files: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_roots.py",)

ROOTS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"roots: {name}", file, old, new, TESTS)
    for name, file, old, new in (
        (
            "when it falls due",
            "pipeline/deletion/keeping.py",
            "    if elsewhere:\n",
            "    if elsewhere and context.deletions.keep is None:\n",
        ),
        (
            "right at the deletion",
            "pipeline/deletion/vetoes/pinning.py",
            "                    raise Exchanged\n",
            "                    pass\n",
        ),
        (
            "the pinned folder is the one that is opened",
            "pipeline/deletion/batch.py",
            "            self.policy.pinned(file),",
            "            self.policy.source(file),",
        ),
        (
            "another folder is not the pinned one",
            "queue/bindings/roots.py",
            '        if row is not None and not Root.of(row["root"]).is_same(root):',
            "        if False:",
        ),
        (
            "the folder that it was",
            "queue/bindings/roots.py",
            "            return RootObservation.PINNED, self._release(db, source_id)",
            "            return RootObservation.PINNED, 0",
        ),
        (
            "what a deletion alone has met",
            "queue/bindings/roots.py",
            'row["found"] is None and not waits:',
            'row["found"] is None:',
        ),
        ("an empty folder is not pinned", "queue/bindings/roots.py", " and not holds_something():", " and False:"),
        (
            "the first deletion pins",
            "pipeline/deletion/vetoes/pinning.py",
            "                self.see(source, root_fd)  #",
            "                #",
        ),
        (
            "what waits for the word",
            "queue/bindings/roots.py",
            '            return self._release(db, row["source_id"])',
            "            return 0",
        ),
        (
            "the surest id decides",
            "queue/rows.py",
            "            return mine[kind] == its[kind]",
            "            return True",
        ),
        (
            "the surest id first",
            "queue/rows.py",
            "    for kind in _IDS:",
            "    for kind in reversed(_IDS):",
        ),
        (
            "what one kernel does not tell of its making",
            "queue/rows.py",
            'mine != its and "0" not in (mine, its)',
            "mine != its",
        ),
        (
            "an older state's id",
            "queue/rows.py",
            "not set(mine.values()).isdisjoint(its.values())",
            "False",
        ),
        (
            "a UUID of zeros",
            "intake/folder/mounts.py",
            'told.uuid.strip("0") and told.uuid',
            "told.uuid",
        ),
        ("on record", "queue/bindings/roots.py", '            audit.append(db, "", [{', "            repr([{"),
        (
            "it is told once",
            "queue/bindings/roots.py",
            "                return RootObservation.STILL_EXCHANGED, 0\n",
            "                pass\n",
        ),
        (
            "a new path is a new folder",
            "queue/arrivals.py",
            '                db.execute("DELETE FROM roots WHERE source_id = ?", (row["source_id"],))\n',
            "",
        ),
        ("whose word it is", "daemon/commands.py", "    if not asker.runs_the_daemon:", "    if False:"),
        (
            "kept for that",
            "pipeline/deletion/keeping.py",
            "    _keep_exchanged(outcome.exchanged, shipment, context)\n",
            "",
        ),
        ("looked at by each look", "intake/inbox.py", "        self._on_root(root_fd)\n", ""),
    )
)
