"""Every place in the program that can make a file, or a name of one, go away is on this list, with its reason.

`unlink` of a patient's file has exactly one caller. A new call of any of these functions fails this test until somebody
has written down here why it cannot touch what a modality has written.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import dicomwatchd

PACKAGE = Path(dicomwatchd.__file__).parent

#: Functions and methods that remove a name, put something in its place or shorten a file, whatever they are called on.
REMOVING = frozenset(
    [
        "unlink",
        "remove",
        "rmdir",
        "removedirs",
        "rmtree",
        "rename",
        "renames",
        "replace",
        "move",
        "truncate",
        "ftruncate",
        "link",
        "symlink",
        "write_bytes",
        "write_text",
        "touch",
        "system",
        "popen",
        "Popen",
        "renameat2",
        "_renameat2",
        "rename_noreplace",
        "rename_to_private",
    ]
)
#: These open for reading, mostly; with a mode or flags for writing they can empty a file.
OPENING = frozenset(
    ["open", "fdopen", "mkstemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "mkdtemp"]
)
WRITING_FLAGS = frozenset(["O_WRONLY", "O_RDWR", "O_TRUNC", "O_CREAT", "O_APPEND"])
#: Functions that are as dangerous when they are handed on instead of called.
HANDED_ON = frozenset(["unlink", "remove", "rmdir", "rmtree", "rename", "replace", "truncate", "ftruncate"])

Place = tuple[str, str, str]

THE_DELETION: Place = ("pipeline/deletion/proof.py", "_unlink_if_same", "os.unlink")

#: File, function, call; how often; why it cannot cost anybody a file.
ALLOWED: dict[Place, tuple[int, str]] = {
    ("access/record.py", "__init__", "os.open"): (1, "the record of access of the web process, made and never cut"),
    ("access/tokens.py", "_put", "os.open"): (1, "the new file of tokens, under a name that nobody has"),
    ("access/tokens.py", "_put", "os.fdopen"): (1, "as above"),
    ("access/tokens.py", "_put", "os.rename"): (1, "it replaces the file of tokens"),
    ("access/tokens.py", "_put", "os.unlink"): (1, "the new file of tokens, when it could not be written"),
    THE_DELETION: (1, "the one deletion of a patient's file: staged, and compared with what the archive holds"),
    # What dicomwatchctl unpacks of a disc image, in a folder of its own, and removes at its end.
    ("cli/disc/unpacking.py", "_workspace", "tempfile.mkdtemp"): (1, "a new private folder of the caller's"),
    ("cli/disc/unpacking.py", "_workspace", "os.open"): (1, "its lock, a new file"),
    ("cli/disc/unpacking.py", "_remove_leftovers", "os.open"): (1, "the lock of one that a killed command has left"),
    ("cli/disc/unpacking.py", "_unpack", "os.open"): (1, "a new file in it"),
    ("cli/disc/unpacking.py", "_unpack", "os.link"): (1, "a second name in it; fails where the name is taken"),
    ("cli/disc/unpacking.py", "_remove", "shutil.rmtree"): (1, "that folder; the image is never touched"),
    # What people hand in through the page: copies that their browsers have sent, in a folder of the page's own.
    ("web/pages/staging/book.py", "__init__", "path.touch"): (1, "the list of uploads: made, or left as it is"),
    ("web/pages/staging/room.py", "_opened", "os.open"): (1, "a part of an upload, under its number"),
    ("web/pages/staging/room.py", "finish", "part.unlink"): (1, "what arrived and is not what was announced"),
    ("web/pages/staging/room.py", "_publish", "part.rename"): (1, "a part, to a place that no other file has"),
    ("web/pages/staging/room.py", "remove", "shutil.rmtree"): (
        1,
        "an upload that was given up before the daemon had it, or has ended; never one that the daemon has",
    ),
    ("web/pages/staging/custody.py", "_remove", "self._room.remove"): (1, "that"),
    # The page of stats --html.
    ("cli/stats/command.py", "_write", "tempfile.NamedTemporaryFile"): (1, "a new file"),
    ("cli/stats/command.py", "_write", "temporary.unlink"): (1, "that file"),
    ("cli/stats/command.py", "_write", "temporary.replace"): (1, "over an earlier page, known by its mark, or nothing"),
    # The first start: what it makes are commands that it prints; these two are its own.
    ("cli/setup/first_study.py", "_put", "os.open"): (1, "O_EXCL: a new file, the test study of nobody"),
    ("cli/setup/background.py", "start", "subprocess.Popen"): (1, "the daemon, for as long as the test study takes"),
    # The copies that a restore drill has fetched, in a private folder of its own in the state directory.
    ("drill/scratch.py", "_remove", "shutil.rmtree"): (1, "a folder that a drill has made, by its name's pattern"),
    # Moving a file out of the way and back, never onto another one.
    ("localfiles.py", "_renameat2", "_libc.renameat2"): (1, "with RENAME_NOREPLACE"),
    ("localfiles.py", "rename_noreplace", "_renameat2"): (1, "with RENAME_NOREPLACE"),
    ("localfiles.py", "rename_noreplace", "os.link"): (1, "fails where the name is taken"),
    ("localfiles.py", "rename_noreplace", "os.unlink"): (1, "a private name, whose file has just got a second one"),
    ("localfiles.py", "rename_to_private", "_renameat2"): (1, "with RENAME_NOREPLACE"),
    ("localfiles.py", "rename_to_private", "os.rename"): (1, "to a private name that was just seen to be free"),
    ("pipeline/deletion/staging/staged.py", "_moved", "rename_to_private"): (1, "refuses a taken name"),
    ("pipeline/deletion/staging/staged.py", "_moved_into", "rename_to_private"): (1, "refuses a taken name"),
    ("pipeline/deletion/staging/staged.py", "move_back", "rename_noreplace"): (1, "refuses a taken name"),
    ("pipeline/deletion/staging/staged.py", "move_back", "os.rename"): (
        1,
        "to a name with 48 random bits, where nothing stricter is known",
    ),
    ("pipeline/deletion/staging/staged.py", "_new_copy", "os.open"): (2, "O_EXCL, a private name"),
    ("localfiles.py", "renames_strictly", "_renameat2"): (
        1,
        "with RENAME_NOREPLACE, the doctor's own file to its own name",
    ),
    ("pipeline/deletion/staging/staged.py", "_copy", "os.ftruncate"): (1, "of the copy that _new_copy has made"),
    # Directories: rmdir takes empty ones only.
    ("pipeline/deletion/staging/tidying.py", "_remove_upwards", "os.rmdir"): (
        1,
        "fails for a directory with anything in it",
    ),
    ("pipeline/deletion/staging/private.py", "_owned", "os.open"): (
        1,
        "the lock's file: O_EXCL, in a directory that was just made",
    ),
    ("pipeline/deletion/staging/private.py", "_owned", "os.rmdir"): (1, "fails for a directory with anything in it"),
    ("pipeline/deletion/staging/private.py", "left_behind", "os.open"): (1, "the lock's file; no O_TRUNC"),
    ("pipeline/deletion/staging/private.py", "try_locks", "os.open"): (1, "the lock's file; no O_TRUNC"),
    ("pipeline/deletion/staging/private.py", "remove_empty", "os.rmdir"): (
        2,
        "fails for a directory with anything in it",
    ),
    ("pipeline/deletion/staging/private.py", "remove_empty", "os.unlink"): (
        1,
        "the lock's file, which no inbox's file is called",
    ),
    # The doctor tries out with a file of its own what a purge does.
    ("doctor.py", "_try_staging", "os.open"): (1, "O_EXCL, a random name"),
    ("doctor.py", "_try_staging", "rename_noreplace"): (1, "the file it has made"),
    ("doctor.py", "_try_staging", "os.unlink"): (1, "the file it has made"),
    # The archive in a folder: below the archive's folder, which no inbox overlaps.
    ("archive/stores/directory/files.py", "temporary", "os.open"): (1, "O_EXCL, a temporary name"),
    ("archive/stores/directory/files.py", "temporary", "os.unlink"): (1, "the temporary file it has made"),
    ("archive/stores/directory/files.py", "remove_leftovers", "os.unlink"): (1, "temporary files of the archive"),
    ("archive/stores/directory/files.py", "publish", "localfiles.rename_noreplace"): (1, "refuses a taken name"),
    ("archive/stores/directory/files.py", "_publish_by_placeholder", "os.open"): (1, "O_EXCL"),
    ("archive/stores/directory/files.py", "_publish_by_placeholder", "os.rename"): (
        1,
        "onto the empty file it has made",
    ),
    ("archive/stores/directory/files.py", "refuses_second_name", "os.unlink"): (
        1,
        "the file it has made to try it out",
    ),
    ("cli/studies/same_medium.py", "_listed", "os.fdopen"): (1, "a file in memory, which has no name"),
    # A person's command, with rights that no daemon has: the archive's own objects, below one study's folder.
    ("archive/erasing/directory.py", "erase", "os.unlink"): (1, "an object of the study that is erased"),
    ("archive/erasing/directory.py", "_remove_empty", "os.rmdir"): (1, "fails for a directory with anything in it"),
    ("archive/catalogues/sqlite/catalogue.py", "_create_file", "os.open"): (1, "the catalogue's file; no O_TRUNC"),
    # How far a command has come, under names of its own in the state directory, or in a folder that a person names.
    ("archive/repair/progress.py", "_replace", "os.open"): (1, "O_EXCL, a random name"),
    ("archive/repair/progress.py", "_replace", "os.rename"): (1, "onto catalogue-rebuild.json"),
    ("archive/repair/progress.py", "_replace", "os.unlink"): (1, "the new file it has made"),
    ("archive/repair/progress.py", "_remove", "self._path.unlink"): (1, "catalogue-rebuild.json"),
    ("archive/repair/progress.py", "_remove", "left.unlink"): (1, "its new files that killed rebuilds have left"),
    ("archive/fixity/progress.py", "opened", "os.open"): (1, "the lock; no O_TRUNC"),
    ("archive/fixity/progress.py", "_open", "os.open"): (1, "archive-verification.db; no O_TRUNC"),
    ("archive/fixity/progress.py", "_database", "(folder / f'{FILE}{suffix}').unlink"): (
        1,
        "archive-verification.db, and its journal",
    ),
    ("archive/fixity/sorting.py", "_keep", "tempfile.TemporaryFile"): (1, "a new file without a name"),
    ("cli/studies/verify_archive.py", "_progress_folder", "tempfile.TemporaryDirectory"): (1, "a new folder, removed"),
    ("cli/app.py", "_give_up_the_rest", "os.open"): (1, "/dev/null"),
    ("cli/__init__.py", "_lead_nowhere_what_is_closed", "os.open"): (1, "/dev/null"),
    ("cli/__init__.py", "_lead_nowhere_what_is_closed", "open"): (2, "standard output and error, which are open"),
    # The state directory, which no inbox overlaps.
    ("queue/database/schema.py", "open_writer", "os.open"): (2, "the lock and the database; no O_TRUNC"),
    ("markers.py", "write", "os.open"): (1, "O_EXCL, a name of our own"),
    ("control/server.py", "__init__", "path.unlink"): (1, "the control socket that a killed run has left"),
    ("control/server.py", "stop", "self._path.unlink"): (1, "the control socket"),
    # Asks where paths lead, and nothing else: a program of a few constant lines.
    ("alarms/hook.py", "_run", "open"): (1, "memory without a name, which the command of on_alarm reads"),
    ("alarms/hook.py", "_run", "subprocess.Popen"): (1, "the command of on_alarm, which its owner answers for"),
    ("alarms/hook.py", "_limit", "Path(f'/proc/{pid}/oom_score_adj').write_text"): (1, "the kernel's, of that process"),
    ("resolved_paths.py", "resolve", "subprocess.Popen"): (1, "a child that resolves paths; it changes nothing"),
    # The receiver: an object gets a name when it is whole, and none is ever taken away.
    ("localfiles.py", "open_unnamed", "os.open"): (1, "O_TMPFILE: a new file without a name"),
    ("localfiles.py", "give_name", "os.link"): (1, "its name; fails where that is taken"),
    # Requests for storage commitment: in a folder of their own, which no inbox overlaps.
    ("pipeline/committing/rounds.py", "_unlink", "os.unlink"): (
        1,
        "a request, its result or the note that it was reported, by names that nothing else has",
    ),
    # The folder that a person fetches into.
    ("fetch/folder.py", "_create", "os.open"): (1, "O_EXCL, a temporary name"),
    ("fetch/folder.py", "rewind", "os.ftruncate"): (1, "the temporary file it has made"),
    ("fetch/folder.py", "stream", "os.fdopen"): (1, "the temporary file it has made"),
    ("fetch/folder.py", "temporary", "os.unlink"): (1, "the temporary file it has made"),
    ("fetch/folder.py", "remove_leftovers", "os.unlink"): (1, "temporary names of a fetch that was killed"),
    ("fetch/folder.py", "publish", "localfiles.rename_noreplace"): (1, "refuses a taken name"),
    ("fetch/iso.py", "__init__", "tempfile.TemporaryFile"): (1, "a file without a name"),
    ("fetch/send.py", "opened", "os.open"): (1, "appends to what it has made; anything else is refused"),
    ("fetch/send.py", "opened", "open"): (1, "the same descriptor"),
    ("fetch/spool.py", "__init__", "tempfile.TemporaryFile"): (1, "a file without a name"),
    ("fetch/spool.py", "rewind", "os.ftruncate"): (1, "the file without a name that it has made"),
}


class _Calls(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self._function = ""
        self._called: set[int] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._function = self._function, node.name
        self.generic_visit(node)
        self._function = outer

    def visit_Call(self, node: ast.Call) -> None:
        self._called.add(id(node.func))
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if (name in REMOVING and not _is_of_text(node, name)) or (name in OPENING and _writes(node)):
            self.found.append((self._function, ast.unparse(node.func)))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in HANDED_ON and id(node) not in self._called and ast.unparse(node.value) in ("os", "shutil"):
            self.found.append((self._function, f"handed on: {ast.unparse(node)}"))
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module in ("os", "shutil") and any(alias.name in REMOVING for alias in node.names):
            self.found.append((self._function, f"imported: {node.module}"))

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.value in ("unlink", "rmtree", "unlinkat"):  # getattr, ctypes
            self.found.append((self._function, f"named: {node.value}"))


def _is_of_text(node: ast.Call, name: str) -> bool:
    """str.replace, dataclasses.replace, datetime.replace; and the move of a study's state."""
    if name == "replace":
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("os", "shutil"):
            return False
        return isinstance(node.func, ast.Name) or len(node.args) == 2 or (not node.args and bool(node.keywords))
    return name == "move" and isinstance(node.func, ast.Name)


def _writes(node: ast.Call) -> bool:
    """Whether a call of an opening function may write; a flag or mode that cannot be read off counts as one."""
    is_method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ("os", "io")
    given = [
        *(node.args[:1] if is_method else node.args[1:2]),
        *(k.value for k in node.keywords if k.arg in ("mode", "flags")),
    ]
    if not given:
        return getattr(node.func, "attr", "") not in ("open", "fdopen", "")
    (mode,) = given[:1]
    if isinstance(mode, ast.Constant):
        return bool(set("wax+") & set(str(mode.value)))
    if is_method:
        return False  # of something of ours; whatever it does is called there by one of these names
    names = {n.attr for n in ast.walk(mode) if isinstance(n, ast.Attribute)}
    names |= {n.id for n in ast.walk(mode) if isinstance(n, ast.Name)} - {"os"}
    return bool(names & WRITING_FLAGS) or not all(name.startswith("O_") or name in READING for name in names)


#: Constants of the program that hold flags for reading; checked below.
READING = frozenset({"_ABOVE", "_DIRECTORY", "_FILE", "_READ"})


def found_in(source: str) -> list[tuple[str, str]]:
    visitor = _Calls()
    visitor.visit(ast.parse(source))
    return visitor.found


def test_every_removing_call_is_on_the_list() -> None:
    found = Counter(
        (str(path.relative_to(PACKAGE)), function, call)
        for path in sorted(PACKAGE.rglob("*.py"))
        for function, call in found_in(path.read_text(encoding="utf-8"))
    )
    unknown = {place: count for place, count in found.items() if count != ALLOWED.get(place, (0, ""))[0]}
    assert not unknown, f"not on the list, or more often: {unknown}"
    assert not set(ALLOWED) - set(found), "on the list, and not there any more"


def test_one_deletion_and_it_takes_a_proof() -> None:
    tree = ast.parse((PACKAGE / THE_DELETION[0]).read_text(encoding="utf-8"))
    callers = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == THE_DELETION[1]
    }
    assert callers == {"delete_on_proof"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() != THE_DELETION[0]:
            assert THE_DELETION[1] not in path.read_text(encoding="utf-8")


def test_flags_for_reading_are_for_reading() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in READING:
                assert not WRITING_FLAGS & {n.attr for n in ast.walk(node.value) if isinstance(n, ast.Attribute)}


@pytest.mark.parametrize(
    "source",
    [
        "os.unlink(a)",
        "Path(a).unlink()",
        "a.unlink(missing_ok=True)",
        "os.remove(a)",
        "shutil.rmtree(a)",
        "os.rename(a, b)",
        "os.replace(a, b)",
        "Path(a).replace(b)",
        "Path(a).rename(b)",
        "shutil.move(a, b)",
        "open(a, 'w')",
        "open(a, mode='r+')",
        "path.open('wb')",
        "io.open(a, 'ab')",
        "os.open(a, os.O_RDONLY | os.O_TRUNC)",
        "os.open(a, flags)",
        "os.truncate(a, 0)",
        "path.write_bytes(b)",
        "run(os.unlink, a)",
        "from os import unlink as u",
        "getattr(os, 'unlink')(a)",
        "libc['unlinkat'](a)",
    ],
)
def test_the_walk_sees(source: str) -> None:
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "'a'.replace('b', 'c')",
        "replace(a, b=1)",
        "at.replace(tzinfo=None)",
        "os.open(a, _FILE)",
        "open(a)",
        "path.open('rb')",
        "move(db)",
    ],
)
def test_the_walk_passes_over(source: str) -> None:
    assert not found_in(source)
