"""Folders that a person hands in with `upload`, and what becomes of them meanwhile: they grow, vanish, are exchanged,
and uploads are cancelled. What was not asked for must not be deleted, every upload ends, and the word that lets a
person delete is true."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomwatchd.pipeline.deletion.proof import LIFETIME_SECONDS
from tests.simulation.archive import Shelf
from tests.simulation.chance import Fate, Violation
from tests.simulation.folders import Folders
from tests.simulation.process import Process


@dataclass
class Handed:
    """One folder, and the upload's id. ``came``: how often the daemon had begun to look at what was handed in when each
    file came."""

    path: Path
    process: Process
    name: str
    deletes: bool
    came: dict[Path, int] = field(default_factory=dict)
    ended: bool = False


class HandedIn:
    def __init__(self, root: Path, fate: Fate, folders: Folders, shelf: Shelf) -> None:
        self._root, self._fate, self._folders, self._shelf = root, fate, folders, shelf
        self._all: list[Handed] = []
        self._numbers = 0
        self.done: list[dict[str, Any]] = []
        #: SHA-256 to when somebody deleted the object that held it, or wrote over it.
        self._meddled: dict[str, float] = {}

    # -- what a person does -----------------------------------------------------------------------------------------

    def act(self, process: Process) -> None:
        """In the midst of anything."""
        random = self._fate.random
        running = [one for one in self._all if not one.ended]
        if not running or (random.random() < 0.3 and len(running) < 3):
            self._hand_in(process)
            return
        one = random.choice(running)
        kind = random.choices(
            (self._grow, self._take_away, self._vanish, self._exchange, self._cancel), (6, 2, 1, 2, 2)
        )
        self._fate.trace.add("handed in", kind[0].__name__)
        kind[0](one)

    def comes_late(self, process: Process) -> None:
        """A file comes between two last looks, or between the last scan and the look."""
        late = [one for one in self._all if one.process is process and not one.ended and process.is_scanning(one.name)]
        if late and self._fate.random.random() < 0.5:
            self._fate.trace.add("comes late")
            self._grow(self._fate.random.choice(late), "A")

    def meddled(self, digests: Iterable[str]) -> None:
        """Somebody comes to the store's objects."""
        self._meddled.update(dict.fromkeys(digests, self._fate.clock.now()))

    def _hand_in(self, process: Process) -> None:
        if process.parts is None or not process.may_be_asked:
            return
        self._numbers += 1
        path = self._root / f"handed{self._numbers}"
        one = Handed(path, process, "", self._fate.random.random() < 0.5)
        path.mkdir()
        for _ in range(self._fate.random.randint(0, 1 if self._fate.more.small_uploads else 4)):
            self._put_into(one)
        self._folders.handed.append(path)
        one.name = process.hand_in(path, delete=one.deletes)
        if one.name:
            self._all.append(one)
        # Else the daemon died over it, and may have taken the folder in or not.

    def _put_into(self, one: Handed, small: str = "") -> None:
        """Of an upload that is ``small`` it is said where."""
        folders, random = self._folders, self._fate.random
        folder = one.path / (small if self._fate.more.small_uploads else random.choice(("", "A", "A/B")))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"IM{random.randint(1, 6)}"
        is_image = random.random() < 0.9 or self._fate.more.small_uploads
        data = folders._make(folders._some_instance()) if is_image else b"plain text, no DICOM"
        folders._write(path, data)
        one.came[path] = one.process.upload_scans
        if not one.deletes:
            folders.not_given.add(path.stat().st_ino)

    def _grow(self, one: Handed, small: str = "") -> None:
        if one.path.is_dir():
            self._put_into(one, small)

    def _take_away(self, one: Handed) -> None:
        files = sorted(path for path in one.path.rglob("*") if path.is_file() and ".dicomwatchd" not in str(path))
        if files:
            path = self._fate.random.choice(files)
            self._folders._overwritten(path)
            path.unlink()

    def _vanish(self, one: Handed) -> None:
        for path in sorted(one.path.rglob("*")):
            if path.is_file():
                self._folders._overwritten(path)
        shutil.rmtree(one.path, ignore_errors=True)

    def _exchange(self, one: Handed) -> None:
        """Another folder stands in its place, of which nobody has said anything."""
        if one.path.is_dir():
            self._numbers += 1
            other = one.path.with_name(f"{one.path.name}.was{self._numbers}")
            one.path.rename(other)
            self._folders.handed.append(other)
        one.came.clear()
        one.path.mkdir()
        for _ in range(self._fate.random.randint(1, 3)):
            self._put_into(one)
        self._nobody_gives(one.path)

    def _cancel(self, one: Handed) -> None:
        process = one.process
        if process.parts is None or not process.may_be_asked:
            return
        in_the_midst = process.is_at_work
        if process.cancel_upload(one.name) and not in_the_midst:
            self._nobody_gives(one.path)  # a deletion that was under way may come to its end

    def _nobody_gives(self, path: Path) -> None:
        self._folders.not_given.update(found.lstat().st_ino for found in path.rglob("*") if found.is_file())

    # -- what has come of it ----------------------------------------------------------------------------------------

    def judge(self) -> None:
        """After each look and each step: what was said of those that have come to their end."""
        for one in self._all:
            if one.ended or (result := one.process.upload_result(one.name)) is None:
                continue
            one.ended = True
            self.done.append(result)
            self._fate.trace.add("upload ended", result["outcome"], result["deletable"])
            if result["deletable"]:
                self._require_archived(one)

    def _require_archived(self, one: Handed) -> None:
        """By evidence that is as old as a deletion's may be: what somebody did to the store since, nobody can know."""
        since = self._fate.clock.now() - LIFETIME_SECONDS
        held = self._shelf.held() | {digest for digest, at in self._meddled.items() if at >= since}
        for path in sorted(one.path.rglob("*")):
            if not path.is_file() or one.came.get(path, -1) >= one.process.upload_scans:
                continue  # it came after the last look had begun
            if hashlib.sha256(path.read_bytes()).hexdigest() not in held:
                raise Violation("a folder is said to be archived that is not")

    @property
    def open(self) -> list[str]:
        return [f"upload of {one.path.name}" for one in self._all if not one.ended]
