"""Mutants of the limits: what strangers send may take only so much of the daemon. Rows of `mutations.Mutation`."""

from __future__ import annotations

CONTROL = ("tests/unit/test_control_limits.py",)

LIMITS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
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
)
