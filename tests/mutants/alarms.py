"""Mutants of the alarms: what is one, that it is told once, and that its command holds up nobody. Rows of
`mutations.Mutation`."""

from __future__ import annotations

RHYTHM = ("tests/unit/test_rhythm.py",)
TOLD = ("tests/unit/test_alarms.py",)
HOOK = ("tests/unit/test_alarm_hook.py",)
_ROUNDS, _CONDITIONS = "alarms/rounds.py", "alarms/conditions.py"

ALARMS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    *(
        (f"alarms, rhythm: {name}", "alarms/rhythm.py", old, new, RHYTHM)
        for name, old, new in (
            ("three weeks are learnt first", "last - first < LEARNING_HOURS or ", ""),
            ("what is seldom used has none", " or len(active_days) < ACTIVE_DAYS", ""),
            ("its own silences", "max(MISSED_HOURS, FACTOR * known)", "MISSED_HOURS"),
            ("twice what it missed", "FACTOR * known)", "known)"),
            ("a few hours are none", "max(MISSED_HOURS, FACTOR * known)", "FACTOR * known"),
            ("hours that nobody watched", "if one.files or one.watched_seconds > _WATCHED_SECONDS", "if True"),
            ("an arrival in an hour that was hardly watched", "if one.files or one.watched", "if one.watched"),
            ("the hour that is has not ended", "if last < number < now]", "if last < number <= now]"),
            ("what has not come yet", "if came and number <= now)", "if came)"),
            ("a long silence wears nothing away", "- KEEP_HOURS < number <= last]", "- KEEP_HOURS < number]"),
            ("what is too old", "if last - KEEP_HOURS < number <= last]", "if number <= last]"),
            ("nights count nothing", "missed = sum(share[local(number).slot] for", "missed = sum(1.0 for"),
            ("nights counted nothing before", "missed + share[at.slot]", "missed + 1.0"),
            ("an arrival ends a silence", "0.0 if came else missed + share", "missed + share"),
            ("weekdays differ", "at.tm_wday * 24 + at.tm_hour", "at.tm_hour"),
        )
    ),
    *(
        (f"alarms, hours: {name}", "queue/hours.py", old, new, RHYTHM)
        for name, old, new in (
            (
                "the future says nothing",
                'WHERE source_id = ? AND hour <= ? ORDER BY hour",\n                (source_id, self.now),',
                'WHERE source_id = ? ORDER BY hour",\n                (source_id,),',
            ),
            (
                "the future prunes nothing",
                '" WHERE hour <= ? GROUP BY source_id",\n                (self.now,),',
                '" GROUP BY source_id",\n                (),',
            ),
            (
                "what is old goes by its number",
                "(source_id, source_id, last, KEEP_HOURS)",
                "(source_id, source_id, last, 10**9)",
            ),
            (
                "a silence is bounded",
                "(source_id, newest, source_id, last, KEEP_HOURS)",
                "(source_id, newest, source_id, last, 10**9)",
            ),
        )
    ),
    (
        "alarms, hours: what could not be written has come",
        "queue/hours.py",
        "                self.note(source_id, files)\n            raise\n",
        "                pass\n            raise\n",
        TOLD,
    ),
    *(
        (f"alarms, conditions: {name}", _CONDITIONS, old, new, TOLD)
        for name, old, new in (
            ("zero is never, of files", "if settings.oldest_file_hours and waiting", "if waiting"),
            ("files wait for their time", "waiting > settings.oldest_file_hours * _HOUR:", "waiting > 0:"),
            ("zero is never, of holds", "if settings.hold_hours and held", "if held"),
            ("holds have their time", "held > settings.hold_hours * _HOUR:", "held > 0:"),
            (
                "a clock that hovers",
                "settings.clock_seconds / 2 < abs(ahead) <= settings",
                "False and abs(ahead) <= settings",
            ),
            (
                "a clock that nobody knows",
                "if ahead is None or settings.clock_seconds / 2",
                "if ahead is not None and settings.clock_seconds / 2",
            ),
            (
                "a clock that is behind",
                "    elif abs(ahead) > settings.clock_seconds:\n",
                "    elif ahead > settings.clock_seconds:\n",
            ),
            (
                "which way",
                'which = "ahead of" if ahead > 0 else "behind"',
                'which = "behind" if ahead > 0 else "ahead of"',
            ),
            ("the service says that they have ended", "if service.credentials_have_ended or (", "if ("),
            ("they have ended by the clock", " or (end is not None and end <= now.now()):", ":"),
            ("they end soon", "end - now.now() < settings.credentials_hours * _HOUR:", "False:"),
            (
                "zero is never, of credentials",
                "if service is None or not settings.credentials_hours:",
                "if service is None:",
            ),
            (
                "zero is never, of certificates",
                "        if not self._settings.certificate_days:\n            return\n",
                "",
            ),
            (
                "a certificate that cannot be read",
                "                yield Unsure(Kind.CERTIFICATE, subject)\n",
                "                pass\n",
            ),
            ("a certificate's time", "settings.certificate_days * 86400", "settings.certificate_days * 864000"),
            ("a share away hides no other", "except (OSError, ValueError, Away):", "except (OSError, ValueError):"),
            ("what comes ends a silence within its hour", "if at != now or judged.is_silent:", "if at != now:"),
            (
                "a drill that failed",
                "    if failed := drills.failed_count():\n",
                "    if (failed := drills.failed_count()) > 9:\n",
            ),
        )
    ),
    *(
        (f"alarms, rounds: {name}", _ROUNDS, old, new, TOLD)
        for name, old, new in (
            ("begun once", "            if known is None:\n", "            if True:\n"),
            ("said once though the state is full", "        if (key, True) not in self._said:\n", "        if True:\n"),
            ("begun anew is said anew", "                self._said.discard((key, True))\n", ""),
            ("its figures", "            elif known.sentence != one.sentence:\n", "            elif False:\n"),
            ("its end", "                self._kept.end(over.alarm_id)\n", ""),
            ("its end is said", "                self._say_ended(key, over)\n", ""),
            ("unsure of one", "key not in unsure and (key[0], None)", "(key[0], None)"),
            ("unsure of all of a kind", " and (key[0], None) not in unsure:", ":"),
            (
                "nobody is told of what was",
                "            self._kept.told(untold)\n            return\n        if self._clock",
                "            return\n        if self._clock",
            ),
            ("the command rests", "        if self._clock.monotonic() < self._hook_at:\n            return\n", ""),
            ("few at once", "self._kept.untold(AT_ONCE)", "self._kept.untold(10**6)"),
            ("the next start tells it", "            return  # the next start tells it\n", "            pass\n"),
            ("one that failed is not run again", "REST_SECONDS\n        self._kept.told(untold)", "REST_SECONDS"),
            (
                "it works again",
                "            self._problem, self._cannot_be_run = None, False\n",
                "            self._cannot_be_run = False\n",
            ),
            ("a begin is told before its end", '(event == "begun" and one.told == 0)', '(event == "begun")'),
            ("watched by the clock that grows", "int(is_seen) * round(passed)", "round(ROUND_SECONDS)"),
            (
                "hours are put down",
                "            self._hours.write(self._all_seconds())\n            self._seconds.clear()\n",
                "            self._hours.write(self._all_seconds())\n",
            ),
            ("those that are over go", "            self._kept.step()\n", ""),
            ("of another version", " if is_known(one.code)]", "]"),
        )
    ),
    (
        "alarms: a code of another version",
        "alarms/kinds.py",
        "Kind(code)] if is_known(code) else 'alarms'}",
        "Kind(code)]}",
        TOLD,
    ),
    *(
        (f"alarms, command: {name}", "alarms/hook.py", old, new, HOOK)
        for name, old, new in (
            (
                "its time",
                "                if self._monotonic() >= until:\n                    raise HookFailed(Why.TOO_LATE)\n",
                "",
            ),
            (
                "its group",
                "                os.killpg(process.pid, signal.SIGKILL)\n",
                "                os.kill(process.pid, signal.SIGKILL)\n",
            ),
            (
                "a session of its own",
                "                start_new_session=True,\n",
                "                process_group=0,\n",
            ),
            ("no variables", "                env=_ENVIRONMENT,\n", ""),
            ("its memory", "    for which, most in _LIMITS:\n", "    for which, most in ():\n"),
            ("its memory dump, to a program", "(resource.RLIMIT_CORE, 1)", "(resource.RLIMIT_CORE, 0)"),
            (
                "first to go",
                '    with suppress(OSError):\n        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")\n',
                "",
            ),
            (
                "what others may write",
                "    if not is_own_link and (why := others_may_write(found, uid)) is not None:\n",
                "    if not is_own_link and (why := None) is not None:\n",
            ),
            ("a link of another's", " and found.st_uid in (0, uid)  # whose", "  # whose"),
            (
                "folders where links lead",
                '        todo = [one for one in target.split("/") if one] + todo\n',
                "        at = os.path.realpath(here)\n",
            ),
            ("an exit code", "        if status:\n", "        if False:\n"),
            (
                "a share away",
                "            if self._monotonic() >= until:\n                leave.set()\n",
                "            if False:\n                leave.set()\n",
            ),
            ("nothing is run late", "        if leave.is_set():\n            raise Interrupted\n", ""),
            (
                "a stop is not held up",
                "                if not begun.done.wait(_GRACE_SECONDS):\n",
                "                if not begun.done.wait():\n",
            ),
            (
                "a link that is no more",
                "        except OSError as error:  # it is no",
                "        except EOFError as error:  # it is no",
            ),
            (
                "nothing is left to run it with",
                "    except OSError as error:\n        raise HookFailed(Why.NOT_STARTED",
                "    except EOFError as error:\n        raise HookFailed(Why.NOT_STARTED",
            ),
        )
    ),
    (
        "alarms, command: no thread is to be had",
        "alarms/aside.py",
        "        except RuntimeError as error:\n",
        "        except EOFError as error:\n",
        HOOK,
    ),
    (
        "alarms, command: one that is away, and no more",
        "alarms/aside.py",
        "        if self._thread is not None and self._thread.is_alive():\n            raise Away\n",
        "",
        HOOK,
    ),
)
