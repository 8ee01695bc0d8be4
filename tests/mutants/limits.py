"""Mutants of the limits: what strangers send may take only so much of the daemon. Rows of `mutations.Mutation`."""

from __future__ import annotations

CONTROL = ("tests/unit/test_control_limits.py",)

INTAKE = ("tests/unit/test_intake_limits.py",)

LIMITS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"limits, control socket: {name}", "control.py", old, new, CONTROL)
        for name, old, new in (
            ("own connections", "for one in set(own)) >= self._limits.own_connections", "for one in set(own)) < 0"),
            ("all users", "full = others >= self._limits.connections or", "full ="),
            ("by user", " or self._taken[user] >= self._limits.by_user", ""),
            ("the administrator's own", "            if user in own:\n", "            if False:\n"),
            ("seats are left", "            self._seats.leave(client_address[0])\n", "            pass\n"),
            ("seats without a thread", "            self._seats.leave(user)\n            raise", "            raise"),
            ("who has none is forgotten", "            self._taken += Counter()", "            pass"),
            ("length of a line", "            if searched > self._limits.line_bytes:", "            if False:"),
            (
                "time of a request",
                "max(deadline - time.monotonic(), 0.001)",
                "self._limits.idle_seconds",
            ),
            ("time of an answer", "self.request.settimeout(limits.send_seconds)", "self.request.settimeout(None)"),
            (
                "no traceback",
                "    def handle_error(",
                "    def _handle_error(",
            ),
            (
                "the refused reads why",
                "                request.send(_line(_refusal(error)), socket.MSG_DONTWAIT)",
                "                pass",
            ),
        )
    ),
    *(
        (f"limits, intake: {name}", f"intake/{file}", old, new, INTAKE)
        for name, file, old, new in (
            ("elements", "structure.py", "        if self._left < 0:", "        if False:"),
            (
                "elements of deflated files",
                "header.py",
                "    for_one = PACKED_BYTES_FOR_AN_ELEMENT if is_deflated else BYTES_FOR_AN_ELEMENT\n",
                "    for_one = 1\n",
            ),
            (
                "the most elements",
                "header.py",
                "return min(ELEMENTS_LIMIT, ELEMENTS_FREE +",
                "return max(0, ELEMENTS_FREE +",
            ),
            (
                "inflation",
                "header.py",
                "min(inflated_limit_bytes, inflated_allowed(source.size_bytes))",
                "inflated_limit_bytes",
            ),
            ("the most inflated", "header.py", "return min(INFLATED_LIMIT_BYTES, INFLATED", "return max(0, INFLATED"),
            ("sizes are asked", "take.py", "            sizes.require(fd)\n", ""),
            ("largest file", "sizes.py", "        if seen.st_size > self.max_file_bytes:", "        if False:"),
            ("holes", "sizes.py", "_is_nearly_all_hole(fd, seen):\n", "False:\n"),
            ("holes may be taken", "sizes.py", "        if not self.takes_sparse and ", "        if "),
            ("what was reserved", "sizes.py", " or seen.st_blocks * 512 * 100 >= seen.st_size * STORED_PERCENT", ""),
            (
                "what compresses",
                "sizes.py",
                "            if stored * 100 >= seen.st_size * STORED_PERCENT:\n",
                "            if False:\n",
            ),
            (
                "holes not told",
                "sizes.py",
                "        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):",
                "        if False:",
            ),
            (
                "very many holes",
                "sizes.py",
                "                return False\n        return True\n",
                "                return False\n        return False\n",
            ),
            ("small files", "sizes.py", "    if seen.st_size < HOLES_FROM_BYTES or ", "    if "),
            ("the file's position", "sizes.py", "        os.lseek(fd, 0, os.SEEK_SET)\n", "        pass\n"),
            ("looked at again", "inbox.py", "UNREADABLE, TOO_LARGE, SPARSE)", "UNREADABLE)"),
            (
                "sizes of the configuration",
                "inbox.py",
                "self._beat, self._sizes, self.source.asker",
                "self._beat, asker=self.source.asker",
            ),
        )
    ),
)
