"""Mutants of the daemons of one archive: no older row over a newer one, and who is silent. Rows of
`mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_sites.py",)
LISTED = ("tests/unit/test_cli_sites.py",)
_OWN, _LOOKOUT, _ROUNDS, _CLI = "sites/own.py", "sites/lookout.py", "sites/rounds.py", "cli/sites.py"

SITES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"sites, own: {name}", _OWN, old, new, TESTS)
        for name, old, new in (
            ("each write raises the number", "beats = 1 + (self._last[0] if self._last else 0)", "beats = 1"),
            ("each names the one before", "self._table.write(row, self._last)", "self._table.write(row, None)"),
            ("an answer that was lost", "            if there == row:\n", "            if False:\n"),
            ("a race ends", "for _ in range(_ATTEMPTS):", "for _ in range(1):"),
            ("a stop", "            if is_stopping():\n                return False\n", ""),
            ("a predecessor is no twin", "there is not None and self._has_written and", "there is not None and"),
            ("who was forgotten is no twin", " and not there.is_forgotten and", " and"),
            ("what timed out is no twin", " and not self._may_be_ours(there):", ":"),
            ("a copy of this very run", "there.run == self._run and self._is_uncertain", "there.run == self._run"),
            ("what was answered is certain", "        self._is_uncertain = was_uncertain", "        pass"),
            ("a twin is told of in the row", "replace(made, twin=self.twin).to_text()", "made.to_text()"),
            ("a twin that has gone", "        if self._undisturbed >= _ALONE:\n", "        if False:\n"),
            ("a twin in between", "                self._undisturbed = -1\n", ""),
            ("it goes on from what is there", "None if there is None else there.stamp", "None"),
        )
    ),
    *(
        (f"sites, lookout: {name}", _LOOKOUT, old, new, TESTS)
        for name, old, new in (
            ("an outage is no silence", "        self._watched_since = None\n\n", "        pass\n\n"),
            ("nor is a time without looks", " or now - self._looked_at > _WATCH_HEARTBEATS * self._every:", ":"),
            ("a row that changes", "            elif known.stamp != row.stamp:\n", "            elif False:\n"),
            (
                "no clock of theirs where it has changed",
                "            if not known.has_changed:\n",
                "            if True:\n",
            ),
            ("their clock where nothing else is known", "max(age, age_by_clock(said, self._clock.now()))", "age"),
            ("not at once", " and (known.is_silent or has_watched)", ""),
            ("silent until it changes", "(known.is_silent or has_watched)", "has_watched"),
            ("who was not seen to write is not alive", "known.has_changed and not known.is_silent)", "True)"),
            ("who is silent is not alive", "known.has_changed and not known.is_silent)", "known.has_changed)"),
            ("the forgotten", "None if row.is_forgotten else report.read", "report.read"),
            ("zero is never", "bool(after_seconds) and age_seconds", "age_seconds"),
            ("who seldom writes", "max(after_seconds, LEAST_HEARTBEATS * said.every_seconds)", "after_seconds"),
        )
    ),
    *(
        (f"sites, rounds: {name}", _ROUNDS, old, new, TESTS)
        for name, old, new in (
            ("not together", "(1 - _JITTER + 2 * _JITTER * self._random.random())", "1"),
            ("not together at the start", "clock.monotonic() + random.random() * min", "clock.monotonic() + 0 * min"),
            ("what fails has lost sight", "            self._lookout.lost_sight()\n", ""),
            ("an outage is told by others", "        if _is_outage(error):\n            return\n", ""),
            (
                "credentials that serve for nothing",
                "        except (Transient, Permanent, Fatal):\n            return\n        if _is",
                "        except (Transient, Permanent, Fatal):\n            pass\n        if _is",
            ),
            ("refused, seldom", "max(REFUSED_AGAIN_SECONDS, float(self._plan.heartbeat_seconds))", "1.0"),
            ("refused, once", "        if not self._is_refused:\n", "        if True:\n"),
            ("refused no more", "        else:\n            self._is_refused = False\n", ""),
            (
                "itself is no other",
                "one for one in seen if one.row.site_id != self._own.site_id",
                "one for one in seen",
            ),
            ("silence once", "if site_id not in self._silent][", "if True]["),
            ("few are told", "][:MOST_TOLD]:", "]:"),
            (
                "its end",
                "            if one.row.site_id in self._silent and not one.is_silent:\n",
                "            if False:\n",
            ),
            (
                "a name that lives",
                "one.report.name == self._own.name and one.is_alive",
                "one.report.name == self._own.name",
            ),
            ("a name, once", "        if namesakes and not self._namesakes:\n", "        if namesakes:\n"),
            (
                "a twin, once",
                "        if (twin := self._row.twin) and not self._twin:\n",
                "        if twin := self._row.twin:\n",
            ),
            ("few are named", "for one in others[:MOST_NAMED]", "for one in others"),
            ("few problems", "        if len(found) > MOST_NAMED:\n", "        if False:\n"),
            (
                "nothing is read for nobody",
                "        if self._plan.silent_after_seconds and not self._is_stopping():\n",
                "        if not self._is_stopping():\n",
            ),
        )
    ),
    *(
        (f"sites, report: {name}", "sites/report.py", old, new, TESTS)
        for name, old, new in (
            ("the cheapest item", "            if len(text) <= MOST_BYTES or not codes:\n", "            if True:\n"),
            ("no JSON", "except (ValueError, RecursionError):", "except RecursionError:"),
            ("nested without end", "except (ValueError, RecursionError):", "except ValueError:"),
            ("a name of ours", "isinstance(value, str) and pattern.fullmatch(value)", "isinstance(value, str)"),
            ("a number of ours", " and 0 <= value <= _MOST_NUMBER", ""),
            (
                "a heartbeat that may be",
                'LONGEST_HEARTBEAT_SECONDS if name == "every_seconds" else _MOST_NUMBER',
                "_MOST_NUMBER",
            ),
        )
    ),
    *(
        (f"sites, listed: {name}", _CLI, old, new, LISTED)
        for name, old, new in (
            ("a clock that is far ahead", "bool(silent_after) and ahead > silent_after", "False"),
            ("a clock that is a little ahead", "bool(silent_after) and ahead > silent_after", "bool(ahead)"),
            ("silent is an exit code", 'one["state"] != _ALIVE or ', ""),
            ("a twin is an exit code", ' or one["twin_host"] for one in sites)', " for one in sites)"),
            ("a name of two is an exit code", "is_amiss = twice or any", "is_amiss = any"),
            (
                "only the silent of a name are forgotten",
                '        named = [one for one in named if one["state"] == _SILENT]\n',
                "        pass\n",
            ),
            ("one that lives stays", 'FORGOTTEN, "{}"), row.stamp)', 'FORGOTTEN, "{}"), table.row(row.site_id).stamp)'),
            ("the forgotten are listed no more", "        if row.is_forgotten:\n            continue\n", ""),
        )
    ),
)
