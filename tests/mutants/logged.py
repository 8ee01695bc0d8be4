"""Mutants of what keeps patients and paths out of the log: rows of `mutations.Mutation`."""

from __future__ import annotations

_CONFIG = ("tests/unit/test_config.py",)
_JOURNAL = ("tests/unit/test_journal.py",)

LOGGED: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"logged: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "a crash that cannot be logged is not printed",
            "telemetry/foreign.py",
            "        except BaseException:  # noqa: BLE001  where a hook",
            "        except OSError:  # noqa: BLE001  where a hook",
            _JOURNAL,
        ),
        (
            "a key that may be a path",
            "config/text.py",
            "    return str(key) if _PLAIN_KEY.fullmatch(str(key)) else _A_KEY\n",
            "    return str(key)\n",
            _CONFIG,
        ),
    )
)
