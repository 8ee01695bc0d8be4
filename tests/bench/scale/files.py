"""Tiny instances by the hundred thousand: one is made with care, the others are its bytes with other UIDs."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

from tests.synthetic import Made, Maker


class Press:
    """Prints instances of about 1 kB. Numbers become UIDs of the template's length below 2.25."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (self._made,) = Maker(seed=11).ct_series(Path(folder), slices=1, rows=4, columns=4)
            self._content = self._made.path.read_bytes()

    def study_uid(self, study: int) -> str:
        return _numbered(self._made.study_uid, study)

    def instance(self, study: int, number: int) -> bytes:
        made: Made = self._made
        content = self._content.replace(made.study_uid.encode(), self.study_uid(study).encode())
        content = content.replace(made.series_uid.encode(), _numbered(made.series_uid, study).encode())
        instance = _numbered(made.sop_instance_uid, study * 100_000 + number)
        return content.replace(made.sop_instance_uid.encode(), instance.encode())


def _numbered(like: str, number: int) -> str:
    return f"2.25.1{number:0{len(like) - 6}d}"


def inbox_of(folder: Path, directories: int, files: int) -> Path:
    """A kept folder of so many directories with so many files each, a study in each directory."""
    path = folder / f"inbox-{directories}x{files}"
    if not path.is_dir():
        print(f"making {directories * files:,} files ...", flush=True)
        passing = folder / f".making-{uuid.uuid4().hex}"
        press = Press()
        for study in range(directories):
            parent = passing / f"DEPT{study // 100:03d}" / f"ST{study:05d}"
            parent.mkdir(parents=True)
            for number in range(files):
                (parent / f"IM{number:04d}").write_bytes(press.instance(study, number))
        passing.rename(path)
    return path


def size_of(path: Path) -> int:
    return os.stat(path).st_size
