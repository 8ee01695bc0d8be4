"""The files that the benchmark moves: made once, kept on disk, and hard-linked into an inbox for each run."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.synthetic import Maker

SEED = 20


@dataclass(frozen=True, slots=True)
class DataSet:
    """A kept folder of ``files`` files; ``study_uid`` is that of the first study."""

    folder: Path
    study_uid: str
    files: int
    size_bytes: int

    def link_into(self, target: Path) -> None:
        """The same files under new names: no run can change them, all may delete them, and nothing is copied."""
        for path in self.folder.rglob("*"):
            place = target / path.relative_to(self.folder)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, place)


class Shelf:
    """Where the sets are kept, below ``folder``: each is made under a passing name, and named when it is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ct_series(self, slices: int, rows: int = 512) -> DataSet:
        def make(maker: Maker, folder: Path) -> None:
            maker.ct_series(folder / "CT", slices=slices, rows=rows, columns=rows)

        return self._kept(f"ct-{slices}x{rows}", make)

    def mr_study(self, files: int, rows: int = 140) -> DataSet:
        def make(maker: Maker, folder: Path) -> None:
            maker.mr_study(folder / "MR", series=5, slices=files // 5, rows=rows)

        return self._kept(f"mr-{files}x{rows}", make)

    def small_studies(self, studies: int, modality: str, files: int) -> DataSet:
        """Each of so many files, of one series."""

        def make(maker: Maker, folder: Path) -> None:
            for number in range(studies):
                place = folder / f"STUDY{number:03d}"
                if modality == "ct":
                    maker.ct_series(place, slices=files)
                else:
                    maker.mr_study(place, series=1, slices=files)

        return self._kept(f"{modality}-{studies}x{files}", make)

    def studies(self, studies: int) -> DataSet:
        """Of a radiology's size: of five one is a large CT, one a small one, one an MR of many small images, one a few
        localisers, and one a single large image of 20 MB."""

        def make(maker: Maker, folder: Path) -> None:
            for number in range(studies):
                place = folder / f"STUDY{number:03d}"
                match number % 5:
                    case 0:
                        maker.ct_series(place, slices=300)
                    case 1:
                        maker.mr_study(place, series=5, slices=80)
                    case 2:
                        maker.ct_series(place, slices=1, rows=3200, columns=3200)
                    case 3:
                        maker.mr_study(place, series=1, slices=9)
                    case _:
                        maker.ct_series(place, slices=40)

        return self._kept(f"studies-{studies}-mixed", make)

    def multiframe(self, size_bytes: int) -> DataSet:
        def make(maker: Maker, folder: Path) -> None:
            (made,) = maker.sparse_multiframe(folder / "sparse", size_bytes=size_bytes)
            (folder / "US").mkdir()
            shutil.copyfile(made.path, folder / "US" / made.path.name)  # real blocks in place of holes
            shutil.rmtree(folder / "sparse")

        return self._kept(f"multiframe-{size_bytes}", make)

    def _kept(self, name: str, make: Callable[[Maker, Path], None]) -> DataSet:
        folder = self._folder / name
        if not folder.is_dir():
            print(f"making the files of {name} ...", flush=True)
            passing = self._folder / f".making-{uuid.uuid4().hex}"
            passing.mkdir(parents=True)
            make(Maker(seed=SEED), passing)
            passing.rename(folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        return DataSet(folder, Maker(seed=SEED).study_uid(0), len(files), sum(p.stat().st_size for p in files))
