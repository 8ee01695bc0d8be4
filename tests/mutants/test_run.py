"""The run of the mutants itself: what it calls killed was noticed by a test, and by the mutation alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import run
from tests.mutants.in_place import Loaded, NotInPlace
from tests.mutants.mutations import Mutation
from tests.mutants.run import ROOT, Verdict

SLOTS = "tests/unit/test_slots.py"


def _slots(name: str, old: str, new: str, test: str = SLOTS) -> Mutation:
    return Mutation(name, "pipeline/slots.py", old, new, (test,))


DISCARDED = ("self._taken.discard(slot)", "pass")
KILLED = (
    _slots("a function", *DISCARDED),
    _slots("what is run at the import", "@dataclass(eq=False, slots=True)", "@dataclass(slots=True)"),
)
SURVIVES = (
    _slots("a function, to no effect", "_limits.values())", "_limits.values()) + 0"),
    _slots("a constant, to no effect", "LONG_SECONDS = 30.0", "LONG_SECONDS = 40.0"),
    _slots("another test than those that are named", *DISCARDED, f"{SLOTS}::test_what_takes_long_holds_up_nobody"),
)
#: Is not there; is not among those that are named; does not notice it.
REMEMBERED = {
    KILLED[0].name: f"{SLOTS}::test_that_was_renamed",
    KILLED[1].name: f"{SLOTS}::test_what_takes_long_holds_up_nobody",
    SURVIVES[0].name: f"{SLOTS}::test_that_was_renamed",
    SURVIVES[2].name: f"{SLOTS}::test_so_many_at_once_and_a_place_for_each_that_ends",
}
_SCRIPT = """
import json, sys
from pathlib import Path
from tests.mutants import run
from tests.mutants.mutations import Mutation
run.KILLERS = Path(sys.argv[1])
verdicts = run.run([Mutation(**{**one, "tests": tuple(one["tests"])}) for one in json.loads(sys.argv[2])])
json.dump({verdict.mutation.name: verdict.killer for verdict in verdicts}, sys.stdout)
"""


def _run(tmp_path: Path, *mutations: Mutation) -> subprocess.CompletedProcess[str]:
    killers = tmp_path / "killers.json"
    killers.write_text(json.dumps(REMEMBERED))
    given = json.dumps([asdict(mutation) for mutation in mutations])
    command = [sys.executable, "-c", _SCRIPT, str(killers), given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_noticed_is_killed_whatever_is_remembered(tmp_path: Path) -> None:
    done = _run(tmp_path, *KILLED, *SURVIVES)
    assert done.returncode == 0, done.stderr
    killers = json.loads(done.stdout)
    assert [name for name, killer in killers.items() if killer is None] == [one.name for one in SURVIVES]
    assert all(killers[one.name].startswith(f"{SLOTS}::") for one in KILLED)


def test_a_test_that_fails_by_itself_kills_nothing(tmp_path: Path) -> None:
    done = _run(tmp_path, _slots("any", *DISCARDED, "tests/mutants/never_passes.py"))
    assert "the tests fail without any mutation" in done.stderr
    assert "test_what_never_passes" in done.stderr


def test_what_is_remembered_of_some_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what is no mutant any more, and what nobody notices any more."""
    one, other, later, busy = (_slots(name, *DISCARDED) for name in ("one", "other", "later", "busy"))
    known = {"gone": "t::gone", "busy": "t::busy", "other": "t::other", "one": "t::one"}
    monkeypatch.setattr(run, "KILLERS", tmp_path / "killers.json")
    run.KILLERS.write_text(json.dumps(known))
    run.remembered.cache_clear()
    try:
        run.remember(
            [
                Verdict(later, "t::later", 1.0, ""),
                Verdict(one, "t::sooner", 1.0, ""),
                Verdict(busy, "t::busy", 60.0, "Failed: Timeout (>60.0s) from pytest-timeout."),
            ],
            of=(one, other, later, busy),
        )
        found = json.loads(run.KILLERS.read_text())
    finally:
        run.remembered.cache_clear()
    assert list(found.items()) == [("one", "t::sooner"), ("other", "t::other"), ("later", "t::later")]


# -- functions that are loaded ----------------------------------------------------------------------------------------

TEXT = textwrap.dedent(
    """
    from functools import cache

    LIMIT = 3

    def kept(function):
        return [function, lambda: function() + 100]

    def plain(more=1):
        return LIMIT + more

    def outer():
        def inner():
            return 20
        return inner

    @cache
    def cached():
        return 30

    original, wrapped = kept(lambda: 40)

    class Thing:
        SIZE = 50

        @property
        def size(self):
            return self.SIZE + 1

    gone = [one for one in (60,)]
    """
)


def _load(tmp_path: Path) -> tuple[Any, str]:
    path = tmp_path / "loaded.py"
    path.write_text(TEXT)
    loader = SourceFileLoader("loaded", str(path))
    spec = spec_from_loader("loaded", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module, str(path)


@pytest.mark.parametrize(
    ("old", "new", "call", "before", "after"),
    [
        ("LIMIT + more", "LIMIT - more", lambda module: module.plain(), 4, 2),
        ("return 20", "x = 1\n        return 21", lambda module: module.outer()(), 20, 21),
        ("return 30", "return 31", lambda module: module.cached.__wrapped__(), 30, 31),
        ("lambda: 40", "lambda: 41", lambda module: module.wrapped(), 140, 141),
        ("function() + 100", "function() + 200", lambda module: module.wrapped(), 140, 240),
        ("SIZE + 1", "SIZE + True", lambda module: module.Thing().size, 51, 51),
        ("SIZE + 1", "SIZE + 2", lambda module: module.Thing().size, 51, 52),
    ],
)
def test_a_functions_body_is_put_into_what_is_loaded(
    tmp_path: Path, old: str, new: str, call: Any, before: int, after: int
) -> None:
    module, path = _load(tmp_path)
    assert call(module) == before
    Loaded().swap(path, TEXT, TEXT.replace(old, new)).make()
    assert call(module) == after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("more=1", "more=2"),
        ("more=1", "*, more=1"),
        ("def plain", "def other"),
        ("@cache\n", ""),
        ("@property", "@cache"),
        ("SIZE = 50", "SIZE = 51"),
        ("class Thing:", "class Thing(int):"),
        ("gone = [one for", "gone = [one + 1 for"),
        ("[function, lambda: function() + 100]", "[function, lambda: 100]"),
        ("class Thing", "def added():\n    return 1\n\nclass Thing"),
        ("LIMIT = 3", "LIMIT = 3  # nothing"),
    ],
)
def test_what_was_run_at_the_import_is_not(tmp_path: Path, old: str, new: str) -> None:
    module, path = _load(tmp_path)
    loaded = Loaded()
    with pytest.raises(NotInPlace):
        loaded.swap(path, TEXT, TEXT.replace(old, new)).make()
    assert module.plain() == 4


def test_another_text_than_was_loaded(tmp_path: Path) -> None:
    _, path = _load(tmp_path)
    with pytest.raises(NotInPlace):
        Loaded().swap(path, TEXT.replace("LIMIT + more", "LIMIT * more"), TEXT.replace("LIMIT + more", "LIMIT"))
