"""The inboxes, those who write to them, and the ledger of what must never be lost.

The ledger holds, by inode, the bytes of every file that was completely written; an entry goes when a person deletes or
overwrites that file, and when the daemon unlinks it with its bytes in the store. What a person does takes place in an
instant; only writers that keep a file open take their time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomwatchd.localfiles import STAGING_NAME
from tests.simulation import tiny
from tests.simulation.chance import Fate, Violation

FOLDERS = ("", "A", "A/B", "DOE^J", "DOE^J/CT")
JUNK = (b"", b"plain text, no DICOM", bytes(300), tiny.instance("1.2.8", "1.2.8.1", "1.2.8.1.1", 1)[:-5])


@dataclass
class Writer:
    """A descriptor that somebody holds: either a file that is not whole yet, or one opened long ago."""

    fd: int
    inode: int
    data: bytes
    written: int  # how much of it is there; all of it when the file was whole when it was opened


@dataclass(frozen=True)
class Instance:
    study: str
    series: str
    sop_instance: str


class Folders:
    def __init__(self, root: Path, fate: Fate) -> None:
        self._fate, self._random = fate, fate.random
        self.roots = [root / f"inbox{number + 1}" for number in range(fate.plan.inboxes)]
        for path in self.roots:
            path.mkdir()
        self.ledger: dict[int, bytes] = {}
        self.valid: dict[bytes, Instance] = {}  # whole instances, by content
        self.thrown_away: set[int] = set()  # inodes that a person has deleted or overwritten
        self.writers: list[Writer] = []
        self.handed: list[Path] = []  # folders that were handed in with `upload`, and what became of them
        self.not_given: set[int] = set()  # inodes of files in them that nobody has asked to be deleted
        self.hung: set[str] = set()  # names of inboxes that do not answer
        self.on_hang: list[Callable[[str], None]] = []
        self.reads = 0  # how often the daemon has read what a file is
        self.mounts = 0  # how often everything was mounted anew, under another device number
        self.away: dict[Path, Path] = {}  # inboxes that are not there, and where they are instead
        self.instances: list[Instance] = []
        self.aim: tuple[Path, int] | None = None  # the file that the daemon is about to delete: a rewarding one
        self._numbers = 0
        self._kinds: list[tuple[int, Callable[[], None]]] = [
            (40, self.new),
            (8, self.new_content),
            (8, self.send_again),
            (5, self.rename),
            (5, self.replace),
            (5, self.rewrite),
            (4, self.append),
            (3, self.truncate),
            (4, self.delete),
            (5, self.junk),
            (2, self.move_folder),
            (2, self.link),
            (8, self.write_slowly),
            (10, self.open_for_long),
            (20, self.go_on_writing),
            (3, self.unmount),
            (6, self.mount),
        ]
        self._weights = [weight for weight, _ in self._kinds]

    # -- what happens -----------------------------------------------------------------------------------------------

    def act(self) -> None:
        _, kind = self._random.choices(self._kinds, self._weights)[0]
        self._fate.trace.add("user", kind.__name__)
        kind()

    def new(self) -> None:
        self._write(self._place(), self._make(self._new_instance()))

    def new_content(self) -> None:
        """The same SOP Instance UID with other bytes."""
        if self.instances:
            self._write(self._place(), self._make(self._random.choice(self.instances)))

    def send_again(self) -> None:
        if self.valid:
            self._write(self._place(), self._random.choice(list(self.valid)))

    def rename(self) -> None:
        if (path := self._one()) is not None:
            target = self._place() if self._random.random() < 0.7 else self._one()
            if target is not None and target != path:
                self._overwritten(target)
                path.rename(target)

    def replace(self) -> None:
        """As rsync and many modalities do it: a temporary file, renamed over the old one."""
        if (path := self._one()) is not None:
            temporary = path.with_name(f".{path.name}.tmp")
            self._write(temporary, self._make(self._some_instance()))
            self._overwritten(path)
            temporary.rename(path)

    def rewrite(self) -> None:
        """Other bytes in place, with the size kept and the time set back, as rsync -t and cp -p do."""
        if (path := self._one()) is not None and (data := self.ledger.get(path.stat().st_ino)) in self.valid:
            self._change(path, self._make(self.valid[data]), keep_time=True)

    def append(self) -> None:
        if (path := self._one()) is not None and (data := self.ledger.get(path.stat().st_ino)) in self.valid:
            longer = data + b"trailing bytes"
            self.valid[longer] = self.valid[data]
            self._change(path, longer)

    def truncate(self) -> None:
        if (path := self._one()) is not None and (data := self.ledger.get(path.stat().st_ino)) is not None:
            cut = data[: len(data) // 2] if len(self.valid) % 2 else data[:-5]
            if data in self.valid and any(cut.startswith(whole) for whole in self.valid):
                self.valid[cut] = self.valid[data]  # of what was appended to a whole one
            self._change(path, cut)

    def delete(self) -> None:
        if (path := self._one()) is not None:
            self._overwritten(path)
            path.unlink()

    def junk(self) -> None:
        place = self._place()
        if self._random.random() < 0.8:
            self._write(place, self._random.choice(JUNK))
        elif not os.path.lexists(place):
            place.symlink_to("/etc/hostname")

    def move_folder(self) -> None:
        root = self._random.choice(self.roots)
        root = self.away.get(root, root)
        if (root / "A").is_dir() and not (root / "moved").exists():
            (root / "A").rename(root / "moved")
        elif (root / "moved").is_dir() and not (root / "A").exists():
            (root / "moved").rename(root / "A")

    def link(self) -> None:
        """As WinSCP finishes an upload: a hard link, then the old name goes."""
        if (path := self._one()) is not None:
            target = self._place()
            if not os.path.lexists(target):
                os.link(path, target)
                path.unlink()

    def write_slowly(self) -> None:
        if not self._fate.plan.leases:
            return
        place = self._place()
        if os.path.lexists(place):
            return
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.writers.append(Writer(fd, os.fstat(fd).st_ino, self._make(self._new_instance()), 0))

    def open_for_long(self) -> None:
        if (path := self._one()) is not None and (fd := self._opened(path)) is not None:
            inode = os.fstat(fd).st_ino
            if inode in self.ledger:
                self.writers.append(Writer(fd, inode, self.ledger[inode], len(self.ledger[inode])))
            else:
                os.close(fd)

    def go_on_writing(self) -> None:
        if self.writers:
            aimed = [writer for writer in self.writers if self.aim is not None and writer.inode == self.aim[1]]
            self._go_on(self._random.choice(aimed or self.writers))

    def unmount(self) -> None:
        """An inbox is away, or its empty mount point is all that is left of it."""
        root = self._random.choice(self.roots)
        if root not in self.away:
            self.away[root] = root.with_name(root.name + ".away")
            root.rename(self.away[root])
            if self._random.random() < 0.5:
                root.mkdir()

    def mount(self) -> None:
        if self.away:
            self._mount(self._random.choice(list(self.away)))

    def hang(self, root: Path | None = None) -> None:
        """The server of an inbox is away, or has come back."""
        name = (root or self._random.choice(self.roots)).name
        if name in self.hung:
            self.hung.discard(name)
        else:
            self.hung.add(name)
            for told in self.on_hang:
                told(name)
        self._fate.trace.add("hung", *sorted(self.hung))

    def finish(self) -> None:
        """Everybody comes to an end with what they were writing, and every inbox is there again."""
        self.hung.clear()
        while self.writers:
            self._go_on(self.writers[0])
        while self.away:
            self._mount(next(iter(self.away)))

    def _mount(self, root: Path) -> None:
        if root.exists():
            shutil.rmtree(root)  # nobody writes to a mount point
        self.away.pop(root).rename(root)

    # -- the ledger -------------------------------------------------------------------------------------------------

    def unlinked(self, inode: int) -> None:
        """The daemon is about to unlink a name of this file, whose bytes the caller has found in the store."""
        if inode in self.not_given:
            raise Violation("a file was deleted that nobody has asked for")
        if any(writer.inode == inode and writer.written < len(writer.data) for writer in self.writers):
            raise Violation("a file that is still being written was deleted")
        if self._fate.plan.leases and any(writer.inode == inode for writer in self.writers):
            raise Violation("a file that is open for writing was deleted")

    def instance_of(self, data: bytes) -> Instance | None:
        """Which instance this is, or what is left of one."""
        found = self.valid.get(data)
        if found is None and len(data) > 300:
            found = next((instance for whole, instance in self.valid.items() if whole.startswith(data)), None)
        return found

    def forgotten(self, inode: int) -> None:
        self.ledger.pop(inode, None)

    # -- details ----------------------------------------------------------------------------------------------------

    def _new_instance(self) -> Instance:
        self._numbers += 1
        study = f"1.2.{self._random.randint(1, self._fate.plan.studies)}"
        series = f"{study}.{self._random.randint(1, 2)}"
        found = Instance(study, series, f"{series}.{self._numbers}")
        self.instances.append(found)
        return found

    def _some_instance(self) -> Instance:
        if self.instances and self._random.random() < 0.5:
            return self._random.choice(self.instances)
        return self._new_instance()

    def _make(self, instance: Instance) -> bytes:
        patient = "P2" if self._random.random() < 0.05 else "P1"
        # Most files of one instance are the same data set: of the others nothing goes before somebody looks at them.
        payload = self._random.getrandbits(60) if self._random.random() < 0.1 else 1
        data = tiny.instance(
            instance.study,
            instance.series,
            instance.sop_instance,
            payload,
            patient=patient,
            edition=self._random.getrandbits(60),
        )
        self.valid[data] = instance
        return data

    def _place(self) -> Path:
        if self.aim is not None and self._random.random() < 0.3 and self._is_here(self.aim[0].parent):
            return self.aim[0]
        root = self._random.choice(self.roots)
        root = self.away.get(root, root)  # a modality on the other side of the network does not notice
        folder = root / self._random.choice(FOLDERS)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"IM{self._random.randint(1, 9)}"

    def _is_here(self, path: Path) -> bool:
        """In its inbox, and not at a place where an inbox is to be mounted."""
        return path.exists() and not any(path.is_relative_to(root) for root in self.away)

    def _one(self) -> Path | None:
        """A regular file that stands in an inbox under its name and is whole."""
        unfinished = {writer.inode for writer in self.writers}
        if (
            self.aim is not None
            and self._random.random() < 0.5
            and self._is_here(self.aim[0])
            and _is_regular(self.aim[0])
        ):
            return self.aim[0] if self.aim[0].stat().st_ino not in unfinished else None
        found = [
            Path(entry.path)
            for root in self.roots
            if root not in self.away
            for entry in _below(os.fspath(root))
            if entry.is_file(follow_symlinks=False) and entry.inode() not in unfinished
        ]
        return self._random.choice(found) if found else None

    def _write(self, path: Path, data: bytes) -> None:
        """A new file in one go, in place of whatever stands there."""
        if os.path.lexists(path):
            self._overwritten(path)
            path.unlink()
        path.write_bytes(data)
        self.ledger[path.stat().st_ino] = data
        self._fate.trace.add("written", path.name, len(data))

    def _change(self, path: Path, data: bytes, *, keep_time: bool = False) -> None:
        fd = self._opened(path)
        if fd is None:
            return
        try:
            self._put(fd, data, keep_time=keep_time)
        finally:
            os.close(fd)

    def _put(self, fd: int, data: bytes, *, keep_time: bool) -> None:
        before = os.fstat(fd)
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
        if keep_time:
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.ledger[before.st_ino] = data

    def _opened(self, path: Path) -> int | None:
        """Open for writing; None where a lease stands in the way (its holder has been told by that)."""
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except BlockingIOError:
            self._fate.trace.add("blocked by a lease")
            return None

    def _go_on(self, writer: Writer) -> None:
        if writer.written < len(writer.data):
            end = len(writer.data) if self._fate.calm or self._random.random() < 0.5 else writer.written + 100
            os.pwrite(writer.fd, writer.data[writer.written : end], writer.written)
            writer.written = min(end, len(writer.data))
            if writer.written < len(writer.data):
                return
            if writer.inode not in self.thrown_away:
                self.ledger[writer.inode] = writer.data
        elif os.fstat(writer.fd).st_nlink and self._random.random() < 0.7:
            # Into a file that is not there any more it would be lost whatever anybody does.
            data = self.ledger.get(writer.inode)
            if data in self.valid:
                self._put(writer.fd, self._make(self.valid[data]), keep_time=self._random.random() < 0.5)
        self.writers.remove(writer)
        os.close(writer.fd)

    def _overwritten(self, path: Path) -> None:
        """A person takes this name away."""
        if os.path.lexists(path):
            found = path.lstat()
            if found.st_nlink == 1:
                self.thrown_away.add(found.st_ino)
                self.ledger.pop(found.st_ino, None)


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _below(path: str) -> list[os.DirEntry[str]]:
    """Everything below a folder that is no folder and not staged, in an order that depends on names alone."""
    with os.scandir(path) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    found = []
    for entry in ordered:
        if entry.name.startswith(os.fsdecode(STAGING_NAME)):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _below(entry.path)
        else:
            found.append(entry)
    return found
