"""Mutants of the restore drill: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_drill.py",)
ATTACKED = ("tests/unit/test_drill_attacked.py",)

_UNDER_ATTACK: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"drill attacked: {name}", file, old, new, ATTACKED)
    for name, file, old, new in (
        (
            "a fault ends no daemon",
            "drill/rounds.py",
            "        except Exception as error:",
            "        except ZeroDivisionError as error:",
        ),
        (
            "on record before its first byte",
            "drill/rounds.py",
            "        self.drill_id = self._drills.begin(self._study, size_bytes)",
            "        pass",
        ),
        (
            "which says nothing of the archive",
            "queue/drills.py",
            "SUM(CASE WHEN code != :cut_off THEN bytes ELSE 0 END)",
            "SUM(bytes)",
        ),
        ("what came of no use counts", "drill/trial.py", "            meter.size_bytes,\n", "            0,\n"),
        (
            "what is left of the day",
            "drill/rounds.py",
            "            left -= drilled.size_bytes",
            "            left -= 0",
        ),
        (
            "a clock that was ahead",
            "queue/drills.py",
            '"UPDATE drills SET at = ? WHERE at > ?"',
            '"UPDATE drills SET at = ? WHERE at > 1e300 + ?"',
        ),
        (
            "an old erasure excuses nothing",
            "drill/trial.py",
            "            return Drilled(study, Outcome.FAILED, MANIFEST)\n",
            "            return Nothing.ERASED\n",
        ),
        (
            "others in between",
            "drill/rounds.py",
            "again = None if self._was_again else self._drills",
            "again = self._drills",
        ),
        (
            "never is a problem",
            "queue/drills.py",
            "(SUM(at >= :since) = 0 OR SUM(at >= :since AND outcome != 'cold') > 0)",
            "SUM(at >= :since AND outcome NOT IN ('cold', 'too-large')) > 0",
        ),
        (
            "what could not be removed",
            "drill/scratch.py",
            "            _clear(fd)\n            os.mkdir",
            "            os.mkdir",
        ),
        ("whole blocks", "drill/scratch.py", " - files * _BLOCK_BYTES >=", " >="),
        (
            "a disk that others fill",
            "drill/trial.py",
            "            if not self._scratch.has_room(0):\n",
            "            if False:\n",
        ),
        (
            "room for the inboxes",
            "daemon/plan.py",
            ", *(one.room.goal_share for one in inboxes if one.room is not None)]",
            "]",
        ),
        (
            "nobody waits any more",
            "drill/rounds.py",
            "        if self._current is not None and self._current.is_given_up:\n",
            "        if False:\n",
        ),
        (
            "nor for the next",
            "drill/rounds.py",
            "            self._wanted = [one for one in self._wanted if one is not wanted]\n",
            "            pass\n",
        ),
        (
            "a study without a manifest did not come back",
            "cli/drill.py",
            'if studies["failed"] else ""',
            'if False else ""',
        ),
    )
)

DRILL: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = _UNDER_ATTACK + tuple(
    (f"drill: {name}", file, old, new, TESTS)
    for name, file, old, new in (
        (
            "what lies on the disk is compared",
            "drill/trial.py",
            "        if digest.hexdigest() == item.sha256:",
            "        if digest.hexdigest():",
        ),
        ("other bytes are a failure", "drill/trial.py", "    if BadObject.code in codes:\n", "    if False:\n"),
        ("a disk that lies is a failure", "drill/trial.py", "    if compared.other:\n", "    if False:\n"),
        ("a manifest that counts no more is one", "drill/trial.py", "    if doubtful:\n", "    if False:\n"),
        ("what came from elsewhere is one", "drill/trial.py", "    if report.bad_objects:\n", "    if False:\n"),
        (
            "what did not come is not equal",
            "drill/trial.py",
            "    if report.failed or compared.equal != report.files:\n",
            "    if False:\n",
        ),
        (
            "cold storage is not asked for",
            "drill/trial.py",
            "            if self._is_cold(found):\n",
            "            if False:\n",
        ),
        (
            "what was erased meanwhile is no failure",
            "drill/trial.py",
            "        return erasure is not None and erasure.through_revision >= revision",
            "        return False",
        ),
        (
            "an erasure excuses no later revision",
            "drill/trial.py",
            "        return erasure is not None and erasure.through_revision >= revision",
            "        return erasure is not None",
        ),
        (
            "there is room",
            "drill/trial.py",
            "            if not self.scratch.has_room(size_bytes, len(manifest.instances)):\n",
            "            if False:\n",
        ),
        ("as many bytes as are left", "drill/trial.py", "        if size_bytes > most_bytes:\n", "        if False:\n"),
        (
            "a share of the disk stays free",
            "drill/scratch.py",
            "usage.free - size_bytes - files * _BLOCK_BYTES >= usage.total * self._free_share",
            "usage.free - files * _BLOCK_BYTES >= size_bytes",
        ),
        (
            "only what a drill has made is removed",
            "drill/scratch.py",
            "        if _OURS.match(name) and stat.S_ISDIR",
            "        if stat.S_ISDIR",
        ),
        ("the folder is nobody else's", "drill/scratch.py", "os.O_DIRECTORY | os.O_NOFOLLOW |", "os.O_DIRECTORY |"),
        (
            "and private",
            "drill/scratch.py",
            "            if found.st_uid != os.geteuid() or found.st_mode & 0o077:\n",
            "            if False:\n",
        ),
        (
            "a copy goes whatever happens",
            "drill/scratch.py",
            "  # what stays goes before the next drill\n                    _remove(fd, name)",
            "\n                    pass",
        ),
        (
            "each has the same chance",
            "drill/lot.py",
            "        elif (place := random.randrange(self.seen)) < SAMPLE:",
            "        elif (place := random.randrange(SAMPLE)) < 0:",
        ),
        (
            "no more than a piece is listed",
            "drill/lot.py",
            "islice(store.common_prefixes(keys.STUDIES, self.after), piece)",
            "store.common_prefixes(keys.STUDIES, self.after)",
        ),
        (
            "none is drawn twice",
            "drill/lot.py",
            "            return self.rest.pop(random.randrange(len(self.rest)))",
            "            return self.rest[random.randrange(len(self.rest))]",
        ),
        (
            "a restart makes none earlier",
            "drill/rounds.py",
            "            self._due = soon if last is None else max(soon, last + self._pause())",
            "            self._due = now",
        ),
        (
            "a clock that was set back",
            "drill/rounds.py",
            "        self._due = min(self._due, now + longest)  # a clock that was set back\n",
            "",
        ),
        ("a day's bytes", "drill/rounds.py", "        if left > 0:\n", "        if True:\n"),
        (
            "a store in trouble is left alone",
            "drill/rounds.py",
            " and self._is_due() and not self._in_trouble():",
            " and self._is_due():",
        ),
        ("others go first", "drill/rounds.py", "        if self._busy():\n", "        if False:\n"),
        (
            "a stop ends it",
            "drill/rounds.py",
            "        if self._stopping.is_set():\n            raise",
            "        if False:\n            raise",
        ),
        (
            "what has failed is tried again",
            "drill/rounds.py",
            "            self._turn(again, left)\n",
            "            self._turn(None, left)\n",
        ),
        (
            "once a day",
            "drill/rounds.py",
            "self._drills.due_again(self._clock.now() - AGAIN_SECONDS)",
            "self._drills.due_again(self._clock.now())",
        ),
        (
            "an erased study is forgotten",
            "drill/rounds.py",
            "                    self._drills.forget(chosen)\n",
            "                    pass\n",
        ),
        (
            "and no other",
            "drill/rounds.py",
            "            if tried is Nothing.ABSENT and self._drills.has_failed(chosen):",
            "            if False:",
        ),
        (
            "what is still wrong is kept",
            "queue/drills.py",
            'f" AND NOT ({_OPEN}) LIMIT ?)"',
            '" LIMIT ?)"',
        ),
        (
            "a week without any",
            "daemon/drill_report.py",
            "    if plan.studies_per_day and has_had_time and drills.is_stalled",
            "    if False and drills.is_stalled",
        ),
        (
            "off for a week",
            "daemon/drill_report.py",
            "    if plan.studies_per_day and has_had_time and drills.is_stalled",
            "    if plan.studies_per_day and drills.is_stalled",
        ),
        ("whose archive it was", "queue/drills.py", '            db.execute("DELETE FROM drills")\n', ""),
    )
)
