"""Mutants of the figures for Prometheus: they hold up nobody, and tell what is so. Rows of `mutations.Mutation`."""

from __future__ import annotations

LISTENER = ("tests/unit/test_metrics_listener.py",)
FIGURES = ("tests/unit/test_metrics.py",)
WAITS = ("tests/unit/test_longest_wait.py",)

PORT = ("tests/unit/test_figures_port.py",)

METRICS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"metrics, listener: {name}", "prometheus/listener.py", old, new, LISTENER)
        for name, old, new in (
            ("who may connect", "        if not self._admits(peer):\n", "        if False:\n"),
            ("seats", " or len(self._open) >= self._limits.connections:", ":"),
            ("seats are left", "            self._open.discard(connection)\n", "            pass\n"),
            ("size of a request", "if len(held) > self._limits.request_bytes:", "if False:"),
            (
                "time of a request",
                "            connection.settimeout(max(deadline - time.monotonic(), 0.001))\n            piece",
                "            connection.settimeout(self._limits.seconds)\n            piece",
            ),
            (
                "time of an answer",
                "        connection.settimeout(max(deadline - time.monotonic(), 0.001))  # for all of it\n",
                "        connection.settimeout(None)\n",
            ),
            ("one path", 'if path.partition("?")[0] != _PATH:', "if False:"),
            ("reading alone", 'if method not in ("GET", "HEAD"):', "if False:"),
            (
                "a stop cuts off",
                "                    connection.shutdown(socket.SHUT_RDWR)\n",
                "                    pass\n",
            ),
        )
    ),
    *(
        (f"metrics, sampler: {name}", "prometheus/sampling.py", old, new, FIGURES)
        for name, old, new in (
            ("its rest", "max(least_seconds, REST * took_seconds)", "least_seconds"),
            (
                "its longest rest",
                "min(max(least_seconds, REST * took_seconds), LONGEST_REST_SECONDS)",
                "REST * took_seconds",
            ),
            ("not more often", " and self._clock.monotonic() >= self._not_before:", ":"),
            (
                "once for all who ask",
                "                self._wanted = False  # whoever asked meanwhile has got this one\n",
                "",
            ),
            ("patience", "or self._stopping, patience_seconds)", "or self._stopping, 30.0)"),
            ("what was there stays", "self._sample = sample or self._sample", "self._sample = sample"),
            ("told once", "        if not self._is_failing:\n", "        if True:\n"),
        )
    ),
    *(
        (f"metrics, figures: {name}", "prometheus/families.py", old, new, FIGURES)
        for name, old, new in (
            ("of the configuration alone", 'if one["name"] in inboxes and one["kind"] == "inbox"', ""),
            ("few endpoints", "[:MOST_ENDPOINTS]", ""),
            ("all that failed", 'said["failed_total"]', 'len(said["failed"])'),
        )
    ),
    *(
        (f"metrics, port: {name}", "daemon/figures.py", old, new, PORT)
        for name, old, new in (
            (
                "taken by others",
                "except (OSError, ImportError, RuntimeError) as error:",
                "except (ImportError, RuntimeError) as error:",
            ),
            ("told once", "            if self.problem is None:\n", "            if True:\n"),
            ("not without end", "        self._again_at = now + AGAIN_SECONDS\n", "        pass\n"),
            ("its end", " or self._is_over:", ":"),
        )
    ),
    (
        "metrics: what is asked for is not repeated",
        "prometheus/exposition.py",
        'choose_encoder(f"{_OPENMETRICS};version=1.0.0" if wants else "")',
        "choose_encoder(accept)",
        LISTENER,
    ),
    (
        "metrics: a drill that hangs",
        "daemon/supervisor.py",
        "parts.drills.run, self._stopping, None)",
        "parts.drills.run, self._stopping, WORKER_SILENCE_SECONDS)",
        ("tests/unit/test_supervisor.py",),
    ),
    *(
        (f"metrics, longest wait: {name}", "queue/transitions.py", old, new, WAITS)
        for name, old, new in (
            ("its end", "state = ?, waits_since = NULL WHERE", "state = ? WHERE"),
            ("from the first file on", "waits_since = COALESCE(waits_since, ?)", "waits_since = ?"),
            ("not of what falls due", "    elif event is StudyEvent.CHANGED:\n", "    elif True:\n"),
        )
    ),
)
