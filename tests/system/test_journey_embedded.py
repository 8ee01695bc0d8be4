"""The main job on the embedded archive: from an inbox to the archive and back, with the real programs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import Maker
from tests.system.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def digests(paths: list[Path]) -> dict[str, int]:
    """SHA-256 to how often."""
    found: dict[str, int] = {}
    for path in paths:
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = found.get(name, 0) + 1
    return found


def test_a_study_goes_to_the_archive_and_comes_back(site: Site) -> None:
    site.init()
    made = Maker(seed=3).mr_study(site.inbox / "DOE^JANE", series=2, slices=5)
    originals = digests([m.path for m in made])
    assert site.once() == 0
    assert site.left() == []
    assert not (site.inbox / "DOE^JANE").exists()
    assert site.inbox.is_dir()
    study = made[0].study_uid
    site.ctl("fetch", study, "-o", str(site.root / "out"))
    fetched = list((site.root / "out").rglob("*.dcm"))
    assert digests(fetched) == originals
    assert site.ctl("verify", study, "--deep").returncode == 0
    [shipped] = site.events("study-archived")
    assert shipped["study_uid"] == study and shipped["files"] == 10 and shipped["deleted"] == 10
