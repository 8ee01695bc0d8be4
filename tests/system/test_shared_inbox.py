"""Two daemons at one folder, as on a share that two machines mount: both list, ship and delete the same files, are
killed at any moment, and start again. Nothing is lost, and nothing is staged in the end."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.synthetic import Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import PYTHON, Site, embedded_archive

#: What the folder's file system cannot do.
WANTING = {
    "all file system features": (),
    "no strict renames": ("strict-renames",),
    "no strict renames, no links, no locks": ("strict-renames", "links", "locks"),
}


@pytest.fixture(params=[next(iter(WANTING)), pytest.param("no strict renames", marks=pytest.mark.long), [*WANTING][2]])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    archive = embedded_archive(tmp_path)
    (tmp_path / "archive").mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    sites = []
    for name in ("one", "other"):
        site = Site(
            tmp_path / name,
            archive,
            inbox={"settle_seconds": 0.05, "quiet_seconds": 0.15, "watch": "poll", "exclude": ["*.part"]},
            scan_interval_seconds=0.3,
            log_level="INFO",
        )
        site.inboxes = [shared]
        site.config["inboxes"][0]["path"] = str(shared)
        site.write_config()
        site.daemon_program = (PYTHON, "-m", "tests.system.meager", *WANTING[request.param], "--")
        sites.append(site)
    sites[0].init()
    yield sites[0], sites[1]
    for site in sites:
        site.close()


def test_two_daemons_at_one_folder(two: tuple[Site, Site], request: pytest.FixtureRequest) -> None:
    _at_one_folder(two, request.node.callspec.params["two"], rounds=2, kills=4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_daemons_at_one_folder_for_long(two: tuple[Site, Site], request: pytest.FixtureRequest) -> None:
    _at_one_folder(two, request.node.callspec.params["two"], rounds=40, kills=60)


def _at_one_folder(two: tuple[Site, Site], talents: str, *, rounds: int, kills: int) -> None:
    random = Random(1)
    inbox, archive = two[0].inbox, two[0].root.parent / "archive"
    wanted: dict[str, str] = {}
    for site in two:
        site.start()
    killed = 0
    for turn in range(rounds):
        _drop(inbox, turn, wanted)
        for _ in range(kills // rounds):
            site = random.choice(two)
            time.sleep(random.uniform(0.05, 0.6))
            site.stop(signal.SIGKILL)
            (site.state / "control.sock").unlink(missing_ok=True)  # it would look ready at once
            killed += 1
            assert not (lost := invariants.somewhere(wanted, [inbox], archive)), f"{len(lost)} files are nowhere"
            site.start()
        two[0].wait_until_empty(90)
        assert not (lost := invariants.somewhere(wanted, [inbox], archive)), f"{len(lost)} files are nowhere"
    two[0].wait_for(lambda: not list(inbox.iterdir()), 90, "the folder to be tidied")
    assert [site.stop() for site in two] == [0, 0], two[0].log_tail() + two[1].log_tail()
    endings: Counter[str] = Counter()
    for study in set(wanted.values()):
        Embedded(archive).require_whole(study, [one for one, of in wanted.items() if of == study], revision=None)
    for site in two:
        endings += invariants.require_whole_audit(site.state, [])
        assert not site.events("study-parked")
    assert endings["deleted"] >= len(wanted) - endings["gone"]
    invariants.report(
        "shared-inbox-" + talents.replace(",", "").replace(" ", "-"),
        f"two daemons on one folder, killed in turn: {talents}",
        tried=killed,
        files=len(wanted),
        audit_entries=dict(endings),
    )


def _drop(inbox: Path, turn: int, wanted: dict[str, str]) -> None:
    """Two studies; their files come as a modality writes them, under a name of its own first."""
    for number in (2 * turn, 2 * turn + 1):
        folder = inbox.parent / f"made-{number}"
        for one in Maker(number).ct_series(folder, slices=8, rows=16, columns=16):
            wanted[one.sha256] = one.study_uid
            place = inbox / f"{number}"
            while True:
                try:
                    place.mkdir(exist_ok=True)
                    part = place / f"{one.path.name}.part"
                    part.write_bytes(one.path.read_bytes())
                    os.rename(part, place / one.path.name)
                    break
                except FileNotFoundError:
                    continue  # the folder was tidied away
