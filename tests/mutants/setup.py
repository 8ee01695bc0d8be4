"""Mutants of the first start: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_setup.py",)

SETUP: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"setup: {name}", f"cli/setup/{file}", old, new, TESTS)
    for name, file, old, new in (
        ("nothing is overwritten", "plan.py", " && ln {new} {there} && rm {new}", " && mv {new} {there}"),
        ("nothing is written through what is there", "plan.py", "rm -f {new}; set -C; ", ""),
        (
            "no rights on what is the system's by now",
            "command.py",
            "        self._require_folders_of_its_own(there)\n",
            "",
        ),
        (
            "an empty folder of the state",
            "plan.py",
            "            and not folders.entries(path)\n",
            "            and False\n",
        ),
        ("deletion is switched on in its own file alone", "answers.py", "text_of(data).encode() != content or ", ""),
        (
            "after a failure nothing more is done",
            "steps.py",
            "            report.taken.append(Taken(step, Told(Outcome.LEFT)))\n            continue\n",
            "            pass\n",
        ),
        ("a lost connection", "background.py", "        raise SystemExit(128 + number)\n", "        pass\n"),
        ("nohup", "background.py", "if signal.getsignal(number) is not signal.SIG_IGN:", "if True:"),
        ("a dry run does nothing", "steps.py", "        if dry_run:\n", "        if False:\n"),
        ("an inbox is no archive", "questions.py", "    folders.require_no_tree_of_ours(path)\n", ""),
        (
            "files are kept until the test study is proven",
            "command.py",
            "wanted.keep_text, wanted.delete_text if deletes",
            "wanted.delete_text, wanted.delete_text if deletes",
        ),
        (
            "delete needs a test study",
            "command.py",
            '        if self._given.get("after_archiving") == DELETE and not self._ways.test_study:',
            "        if False:",
        ),
        ("what others make later is the daemon's, too", "plan.py", " and hands_down(fd, daemon.uid, _ALL)", ""),
        (
            "a stage that nobody saw is told",
            "following.py",
            "            for step in new:\n",
            "            for step in new[-1:]:\n",
        ),
        ("the file itself is archived, and not its study alone", "following.py", " and is_in_it()", ""),
        ("what is proven is the file", "first_study.py", "if not _is_in(manifest, made):", "if False:"),
        ("the service's keys and no others", "keys.py", "    without = [word for", "    without = [] and [word for"),
    )
)
