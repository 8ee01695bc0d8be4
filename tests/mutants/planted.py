"""Mutants of what keeps planted things from stopping the daemon: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_planted.py",)

PLANTED: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"planted: {name}", file, old, new, TESTS)
    for name, file, old, new in (
        ("whose it is", "localfiles.py", "    return found.st_uid == os.geteuid() or ", "    return True or "),
        (
            "where owners are not kept",
            "localfiles.py",
            "found.st_uid == os.geteuid() or _file_system(directory_fd) in _OWNERS_NOT_KEPT",
            "found.st_uid == os.geteuid()",
        ),
        (
            "exchanged while it is made",
            "pipeline/deletion/staging/private.py",
            "        if not is_taken_back(fds[1]):",
            "        if False:",
        ),
        (
            "nothing in it comes back",
            "pipeline/deletion/staging/recover.py",
            "        if not _is_ours(home_fd, name):\n            return\n",
            "",
        ),
        (
            "it holds up no ending",
            "pipeline/deletion/staging/recover.py",
            " for name in found if _is_ours(fd, name)]",
            " for name in found]",
        ),
        (
            "taken back",
            "pipeline/deletion/staging/private.py",
            "            os.fchmod(fd, MODE)\n",
            "            pass\n",
        ),
        (
            "ours, whoever may write to it",
            "pipeline/deletion/staging/recover.py",
            "        return is_our_own(fd, os.stat(name, dir_fd=fd, follow_symlinks=False))",
            "        return private.is_private_to_us(fd, os.stat(name, dir_fd=fd, follow_symlinks=False))",
        ),
        (
            "not all folders first",
            "pipeline/deletion/staging/recover.py",
            "for relative, _ in private.below(private_fd, self._failed))",
            "for relative, _ in list(private.below(private_fd, self._failed)))",
        ),
        (
            "a search ends",
            "pipeline/deletion/staging/recover.py",
            "        if time.monotonic() > self._until:",
            "        if False:",
        ),
        (
            "a search that was left is told",
            "pipeline/deletion/staging/recover.py",
            "            self.is_searched = False\n",
            "            pass\n",
        ),
        (
            "the start's search goes on",
            "daemon/startup.py",
            "                self.unsearched.add(source_id)\n",
            "                pass\n",
        ),
        ("one look is enough then", "intake/folder/leftovers.py", "self._met if self.eager else ", ""),
        (
            "only where it was met",
            "pipeline/deletion/staging/recover.py",
            "                if only is None and",
            "                if",
        ),
        ("it is named", "intake/scan.py", "            listing.foreign[name] = f", "            _ = f"),
        (
            "it is named for as long as it is there",
            "intake/comparison.py",
            "            and not (name in listing.foreign or name in barred_names)\n",
            "            and name not in barred_names\n",
        ),
        (
            "not all is told",
            "pipeline/deletion/staging/recover.py",
            "        if self.left <= MOST_TOLD:",
            "        if True:",
        ),
        ("more time", "telemetry/health.py", "        if now >= self._next_extension:", "        if False:"),
    )
)
