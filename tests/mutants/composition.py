"""Mutants of the order of the daemon's start: rows of `mutations.Mutation`."""

from __future__ import annotations

COMPOSITION: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "start: what is kept elsewhere is sent again",
        "daemon/composition.py",
        "        self._startup.send_kept_again(active)\n",
        "",
        ("tests/unit/test_moved_archive.py",),
    ),
    (
        "start: what was kept for want of a lease",
        "daemon/startup.py",
        "                self._inboxes.call(source.source_id, partial(self._release_first, source, see))\n",
        "                pass\n",
        ("tests/unit/test_without_lease.py",),
    ),
    (
        "start: what another version has stopped",
        "daemon/startup.py",
        "        retried = self._queue.upgrade.taken_over_by(__version__)\n",
        '        retried = self._queue.upgrade.taken_over_by("")\n',
        ("tests/unit/test_upgrade.py::test_a_file_that_a_fault_has_quarantined",),
    ),
)
