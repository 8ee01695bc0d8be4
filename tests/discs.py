"""Exports of one patient as media have them, and images of discs, as a burning program makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pycdlib

from tests.pieces import Pieces
from tests.synthetic import Made, Maker


def make_image(folder: Path, image: Path, *, joliet: bool = False, rock_ridge: bool = False, udf: bool = False) -> Path:
    """Of a folder with names as ISO 9660 has them (8.3, upper case)."""
    disc = pycdlib.PyCdlib()
    disc.new(
        interchange_level=1,
        joliet=3 if joliet else None,
        rock_ridge="1.09" if rock_ridge else None,
        udf="2.60" if udf else None,
    )
    for path in sorted(folder.rglob("*")):
        relative = "/" + path.relative_to(folder).as_posix()
        names: dict[str, Any] = {}
        if joliet:
            names["joliet_path"] = relative
        if rock_ridge:
            names["rr_name"] = path.name.lower()
        if udf:
            names["udf_path"] = relative
        if path.is_dir():
            disc.add_directory(relative, **names)
        else:
            iso_path = relative if "." in path.name else relative + "."
            disc.add_file(str(path), iso_path + ";1", **names)
    disc.write(str(image))
    disc.close()
    return image


def export(pieces: Pieces, *, studies: int = 1, slices: int = 3, folder: str = "CD") -> list[Made]:
    """What a medium of one patient has, in a folder of the inbox; the DICOMDIR last."""
    maker = Maker(seed=3)
    files = [
        one
        for number in range(studies)
        for one in maker.ct_series(
            pieces.root / f"made-{folder}-{number}".replace("/", "-"), slices=slices, study=number
        )
    ]
    return maker.media(pieces.inbox / folder, files)
