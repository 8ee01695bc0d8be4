"""docs/dicom.md names every verdict, code, hold and flag that the program has, with what it means and what to do.

They are read out of the program's source, so that a new one without its line fails.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomwatchd.character_sets import GUESSED
from dicomwatchd.errors import NotDicom
from dicomwatchd.intake.dicom.verdict import Completeness, Damaged, DamageFound
from dicomwatchd.model import LIMITED
from dicomwatchd.queue.database.upgrade import OLD_FAULT
from dicomwatchd.study_completeness import Answer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dicom.md").read_text()
#: Where the code is not said in the call: it is one of these.
PASSED_ON = {
    "dicomwatchd/intake/comparison.py": ("not-a-file", "not-ours"),
    "dicomwatchd/intake/dicom/header.py": (),  # that of the damage
    "dicomwatchd/intake/dicom/opening.py": (),
    "dicomwatchd/intake/dicom/verdict.py": (),
    "dicomwatchd/intake/take.py": (),  # that of the error, or of what is left alone
}
#: Raised, and kept for no file: the final scan of an upload says so.
NOT_OF_A_FILE = {"dicomdir"}


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        top = ROOT / folder
        for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            yield path, ast.parse(path.read_text("utf-8"))


def value_of(path: Path, node: ast.expr) -> str | None:
    """Of a text, or of a name or attribute that the module has at its top."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found: object = module
    for name in ast.unparse(node).split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, str) else None


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def calls(path: Path, tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node) in names:
            yield node


def state_of(call: ast.Call) -> str:
    return next((ast.unparse(one) for one in call.args if ast.unparse(one).startswith("FileState.")), "")


def codes_of_files() -> dict[str, set[str]]:
    """Of quarantine and of what is left alone, out of the intake and of what reads local files."""
    found: dict[str, set[str]] = {"quarantine": {OLD_FAULT}, "left alone": set()}
    for path, tree in trees("dicomwatchd/intake", "dicomwatchd/pipeline/local.py"):
        relative = path.relative_to(ROOT).as_posix()
        for call in calls(path, tree, "Unarchivable", "NotDicom", "Damaged", "DamageFound", "Arrival", "LeftAlone"):
            kind = name_of(call)
            given = [one.value for one in call.keywords if one.arg == "code"]
            if kind == "LeftAlone":
                given = call.args[:1]
            elif kind == "DamageFound":
                given += call.args[1:2]
            state = state_of(call)
            if state == "FileState.READY":
                continue
            is_left = kind == "LeftAlone" or state == "FileState.IGNORED"
            into = found["left alone" if is_left else "quarantine"]
            if not given:
                default = {
                    "NotDicom": NotDicom.code,
                    "Damaged": inspect.signature(Damaged.__init__).parameters["code"].default,
                    "DamageFound": inspect.signature(DamageFound.__init__).parameters["code"].default,
                }
                into.add(default[kind])
                continue
            code = value_of(path, given[0])
            if code is not None:
                into.add(code)
                continue
            assert relative in PASSED_ON, f"{relative}:{call.lineno}: which code is it?"
            text = path.read_text()
            assert all(f'"{one}"' in text for one in PASSED_ON[relative])
            into.update(PASSED_ON[relative])
    found["quarantine"] -= NOT_OF_A_FILE
    return found


def codes_given(folder: str, function: str) -> set[str]:
    """Those that calls of the function have as their second argument."""
    found = set()
    for path, tree in trees(folder):
        for call in calls(path, tree, function):
            code = value_of(path, call.args[1])
            assert code is not None, f"{path}:{call.lineno}"
            found.add(code)
    return found


def flags() -> set[str]:
    """A test of the commands' output finds one that is not in the schema."""
    schema = json.loads((ROOT / "docs" / "schema" / "show.json").read_text())
    (listed,) = {tuple(one["items"]["enum"]) for one in _members(schema, "flags")}
    return set(listed)


def _members(schema: object, name: str) -> Iterator[dict[str, dict[str, list[str]]]]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == name and isinstance(value, dict) and "enum" in value.get("items", {}):
                yield value
            else:
                yield from _members(value, name)


def findings() -> dict[str, set[str]]:
    """Of the study's completeness: "gap", "sign", "proof" to the codes."""
    found: dict[str, set[str]] = {"gap": set(), "sign": set(), "proof": set()}
    for path, tree in trees("dicomwatchd/study_completeness.py"):
        for call in calls(path, tree, *found):
            code = value_of(path, call.args[0])
            assert code is not None
            found[name_of(call)].add(code)
    return found


def section(title: str) -> str:
    """Up to the next heading of the same level or a higher one."""
    mark = re.search(rf"(?m)^(#+) {re.escape(title)}$", PAGE)
    assert mark is not None, title
    rest = PAGE[mark.end() :]
    end = re.search(rf"(?m)^#{{1,{len(mark[1])}}} ", rest)
    return rest[: end.start()] if end else rest


def rows(text: str) -> dict[str, list[str]]:
    """Codes to the other cells of their row."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) >= 2:
            for code in re.findall(r"`([a-z-]+)`", cells[0]):
                assert code not in found, code
                found[code] = cells[1:]
    return found


@pytest.mark.parametrize(
    ("title", "codes"),
    [
        ("Quarantine", codes_of_files()["quarantine"]),
        ("Left alone", codes_of_files()["left alone"]),
        ("Kept", codes_given("dicomwatchd/pipeline/deletion", "_keep")),
        ("Held", codes_given("dicomwatchd/pipeline", "hold")),
        ("Flags of a study", flags()),
    ],
)
def test_each_code_is_in_its_table_with_what_it_means_and_what_to_do(title: str, codes: set[str]) -> None:
    said = rows(section(title))
    assert sorted(codes - said.keys()) == [], "not in docs/dicom.md"
    assert sorted(said.keys() - codes) == [], "not in the program"
    assert len(codes) >= 1
    for code, cells in said.items():
        meaning, to_do = cells
        assert len(meaning) > 10 and len(to_do) > 5, code


def test_the_codes_of_the_program_are_found() -> None:
    """What the search above goes by is there: a code that everybody knows, of each kind."""
    assert {"empty", "not-dicom", "no-uid", "bad-uid", "truncated", "malformed", "tail", "too-large", "sparse"} <= (
        codes_of_files()["quarantine"]
    )
    assert {"no-access", "unreadable", "not-a-file", "own-tree", "unexpected"} <= codes_of_files()["quarantine"]
    assert codes_of_files()["left alone"] == {"dicomdir", "not-dicom", "not-opened"}
    assert {"damaged", "held", "no-lease", "expiring", "own-object", "no-right"} <= codes_given(
        "dicomwatchd/pipeline/deletion", "_keep"
    )
    assert "two-patients" in codes_given("dicomwatchd/pipeline", "hold")
    assert {GUESSED, LIMITED, "gaps", "damaged-instances"} <= flags()


def test_the_verdicts_and_answers_have_their_lines() -> None:
    lines = PAGE.splitlines()
    for verdict in Completeness:
        assert any(line.startswith(f"| {verdict.value} | ") for line in lines), verdict
    for answer in Answer:
        assert any(line.startswith(f"| {answer.value} | ") for line in lines), answer


def test_what_tells_that_a_study_is_complete_or_not_has_its_line() -> None:
    found = findings()
    assert {"slices", "pet", "references"} <= found["gap"] and {"numbers", "counted"} <= found["sign"]
    said = rows(section("Is the study complete?"))
    assert said.keys() == found["gap"] | found["sign"] | found["proof"]


#: The modules that judge whether a file is whole.
JUDGING = [
    f"dicomwatchd/intake/dicom/{name}.py" for name in ("structure", "completeness", "header", "opening", "reading")
]
#: Texts of these that are no damage.
OTHER_TEXTS = {"the file is empty", "the file is not DICOM", "the size of the file has changed since the scan"}
_REASON = re.compile(r"(the (file|(deflated )?data set|pixel data)|a sequence) [a-z ]*(ends|is|has|or) [^\n]{0,80}\Z")


def reasons() -> set[str]:
    """Of damage, as the modules that judge it have them in their source."""
    found = set()
    for _, tree in trees(*JUDGING):
        composed = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        pieces = {id(piece) for node in composed for piece in node.values}
        for text in composed:
            found.add("".join(str(one.value) if isinstance(one, ast.Constant) else "..." for one in text.values))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
                found.add(node.value)
    return {one for one in found if _REASON.match(one)} - OTHER_TEXTS


def test_each_reason_of_damage_has_its_line() -> None:
    assert len(reasons()) >= 12
    table = section("What counts as damage")
    assert sorted(one for one in reasons() if f"`{one}`" not in table) == []
