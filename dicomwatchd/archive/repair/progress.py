"""How far a rebuild has come, in a small file: an interrupted one goes on where it was.

The file says so of one archive, one store and one catalogue, and of one version of the program, for what another one
records may be less. Whatever else stands in it, or whether it can be read at all, decides only where to begin: a file
that is not all that it should be counts as none. It holds no patient's data.

While a rebuild is interrupted, daemons record what they archive. So what has come in between is in the catalogue,
wherever its key sorts; what nobody recorded (a daemon without a catalogue) is found by a rebuild from the start alone,
which is one reason more for a file to count for some days only.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomwatchd.archive import keys
from dicomwatchd.archive.repair.rebuild import MOST_UNRESOLVED, Problem, Progress, RebuildReport
from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid

NAME = "catalogue-rebuild.json"
FORMAT = "dicomwatchd-rebuild/1"
#: Older than this it is not gone on from.
LONGEST_SECONDS = 7 * 86400.0
#: So many problems are kept one by one, of the others their number.
MOST_PROBLEMS = 1000

_EVERY_SECONDS = 2.0
_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Binding:
    """What a progress is of. ``store`` is its `Destination`, ``catalogue`` its name; neither holds a secret."""

    archive_id: str
    store: str
    catalogue: str
    version: str


class ProgressFile:
    """Writes at most every two seconds. What cannot be written is left: the rebuild goes on, and ``unwritten`` hears of
    it once, with the reason."""

    def __init__(
        self,
        path: Path,
        binding: Binding,
        *,
        unwritten: Callable[[str], None] = lambda _: None,
        every_seconds: float = _EVERY_SECONDS,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._binding = binding
        self._unwritten = unwritten
        self._every_seconds = every_seconds
        self._now = now
        self._monotonic = monotonic
        self._written_at = monotonic()
        self._failed = False
        self._latest: Progress | None = None
        self._written: Progress | None = None

    def load(self) -> tuple[Progress | None, str | None]:
        """Where an earlier rebuild was interrupted; or None, and why what is there does not count. (None, None): there
        is nothing, or nothing done yet."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        except OSError as error:
            return None, f"it cannot be read: {os.strerror(error.errno or 0)}"
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None, "it is not a regular file"
            with os.fdopen(os.dup(fd), "rb") as file:
                data = file.read(_LIMIT_BYTES + 1)
        except OSError as error:
            return None, f"it cannot be read: {os.strerror(error.errno or 0)}"
        finally:
            os.close(fd)
        try:
            if len(data) > _LIMIT_BYTES:
                raise ValueError("too long")
            raw = json.loads(data)
            if raw["format"] != FORMAT:
                return None, "another version of the program wrote it"
            binding = Binding(**raw["of"])
            saved_at = float(raw["saved_at"])
            progress = _progress(raw["progress"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, DicomwatchdError):
            return None, "it is damaged"
        if (binding.archive_id, binding.store, binding.catalogue) != (
            self._binding.archive_id,
            self._binding.store,
            self._binding.catalogue,
        ):
            return None, "it is of another archive or catalogue"
        if binding.version != self._binding.version:
            return None, "another version of the program wrote it"
        if not -60.0 < self._now() - saved_at < LONGEST_SECONDS:
            return None, "it is too old"
        self._latest = self._written = progress
        return progress, None

    def discard(self) -> None:
        """Whatever is there does not count any more."""
        self._remove()

    @property
    def is_kept(self) -> bool:
        """Whether a rebuild that is interrupted now leaves something to go on from."""
        return self._latest is not None and not self._failed

    def keep(self, progress: Progress) -> None:
        self._latest = progress
        if self._monotonic() - self._written_at >= self._every_seconds:
            self.write()

    def ended(self) -> None:
        """It came to its end. Where studies are left that could not be examined, the next one begins with them."""
        if self._latest is not None and self._latest.unresolved:
            self.write()
        else:
            self._remove()

    def write(self) -> None:
        """What is not written yet, and so that it survives a power cut: a new file in place of the old one."""
        progress = self._latest
        if progress is None or progress is self._written:
            return
        document = {
            "format": FORMAT,
            "of": asdict(self._binding),
            "saved_at": self._now(),
            "progress": _document(progress),
        }
        try:
            self._replace(json.dumps(document, ensure_ascii=True).encode("ascii") + b"\n")
            self._written, self._failed = progress, False
        except OSError as error:
            first, self._failed = not self._failed, True
            if first:
                self._unwritten(os.strerror(error.errno or 0))
        self._written_at = self._monotonic()

    def _remove(self) -> None:
        """With what killed ones have left."""
        self._latest = self._written = None
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            for left in self._path.parent.glob(f"{self._path.name}.??????????*.new"):
                with suppress(OSError):
                    if left.lstat().st_mtime < self._now() - 86400:
                        left.unlink()

    def _replace(self, data: bytes) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fresh = f"{self._path.name}.{secrets.token_hex(8)}.new"
        try:
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                try:
                    owner = os.fstat(folder)
                    if os.geteuid() == 0:
                        os.fchown(fd, owner.st_uid, owner.st_gid)  # the next one may be run by the daemon's user
                    written = 0
                    while written < len(data):
                        written += os.write(fd, data[written:])
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(fresh, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(fresh, dir_fd=folder)
                raise
            os.fsync(folder)
        finally:
            os.close(folder)


def _document(progress: Progress) -> dict[str, Any]:
    report = progress.report
    return {
        "after": progress.after,
        "studies": report.studies,
        "recorded": report.recorded,
        "unchanged": report.unchanged,
        "erased": report.erased,
        "problems": [asdict(one) for one in report.problems[:MOST_PROBLEMS]],
        "unnamed_problems": report.unnamed_problems + max(0, len(report.problems) - MOST_PROBLEMS),
        "unresolved": progress.unresolved,
        "witness": progress.witness,
    }


def _progress(raw: Any) -> Progress:
    """Raises ValueError, LookupError, TypeError, DicomwatchdError for anything that no rebuild has written."""
    after = raw["after"]
    if not isinstance(after, str) or (after and not (after.startswith(keys.STUDIES) and after.endswith("/"))):
        raise ValueError("no beginning of a study's keys")
    if len(raw["unresolved"]) > MOST_UNRESOLVED or len(raw["problems"]) > MOST_PROBLEMS:
        raise ValueError("more than there can be")
    witness = raw["witness"]
    return Progress(
        after=after,
        report=RebuildReport(
            studies=_count(raw["studies"]),
            recorded=_count(raw["recorded"]),
            unchanged=_count(raw["unchanged"]),
            erased=_count(raw.get("erased", 0)),
            problems=tuple(
                Problem(Uid(one["study_uid"]), _count(one["revision"]), _text(one["reason"])) for one in raw["problems"]
            ),
            unnamed_problems=_count(raw["unnamed_problems"]),
        ),
        unresolved=tuple(dict.fromkeys(Uid(one) for one in raw["unresolved"])),
        witness=None if witness is None else (Uid(witness[0]), _count(witness[1])),
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value
