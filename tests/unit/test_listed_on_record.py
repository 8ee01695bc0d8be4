"""What a DICOMDIR in an inbox lists is on record in the state, for as long as the DICOMDIR is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pieces import Pieces
from tests.synthetic import Made, Maker


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Pieces]:
    made = Pieces(tmp_path)
    yield made
    made.close()


def export(pieces: Pieces, *, studies: int = 1, slices: int = 3, folder: str = "CD") -> list[Made]:
    """What a medium of one patient has; the DICOMDIR last."""
    maker = Maker(seed=3)
    files = [
        one
        for number in range(studies)
        for one in maker.ct_series(pieces.root / f"made{number}", slices=slices, study=number)
    ]
    return maker.media(pieces.inbox / folder, files)


def test_one_that_an_earlier_version_has_passed_over_is_looked_at_again(pieces: Pieces) -> None:
    export(pieces)
    pieces.run(3)
    with pieces.queue._database.write() as db:
        db.execute("UPDATE files SET code = 'dicomdir-before' WHERE code = 'dicomdir'")
    pieces.settle()
    assert pieces.states() == {"DICOMDIR": "ignored:dicomdir"}
