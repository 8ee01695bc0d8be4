"""The racing writer: files are changed in every way there is, by another process, while they are shipped and deleted.

What counts as a loss. A version is the content that a file has when its writer has completed it. The writer may destroy
versions of its own, by writing over them; it keeps book of that (see racing_writer). The daemon may destroy none that
the archive does not hold. So in the end every version that was completed and that the writer has not destroyed itself
is in the inbox, what is staged included, or in the archive under its SHA-256.

Without leases one thing cannot be told from the outside: a program that opened a file long before and writes to it only
after its last name is gone writes into nothing, as it would after any rm. Such versions are counted apart; with leases
they count as lost, since there the daemon leaves alone what somebody has open, and so they do where files without a
lease are kept (``without_lease: keep``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from dicomwatchd.pipeline.deletion import proof
from dicomwatchd.pipeline.deletion.staging import staged as staging
from dicomwatchd.pipeline.shipment import AfterArchive, Bundling
from tests.pieces import Pieces
from tests.synthetic import Maker
from tests.system import invariants
from tests.system.racing_writer import UNIQUE, versioned
from tests.unit.test_deletion_races import no_leases
from tests.unpacking import unpacked

ROOT = Path(__file__).parents[2]
#: Until there were deletions enough for a race: fewer fall into the same time on a busy machine.
LONGEST_SECONDS = 90.0
WORDS = {
    "leases": "leases",
    "no-leases": "no leases",
    "no-leases-kept": "no leases and files without a lease kept",
    "bundled": "leases, the files of one study in bundles",
}


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk's file system, and one on tmpfs."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="dicomwatchd-racing.", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("leases", ["leases", "no-leases", "no-leases-kept", "bundled"])
def test_racing(leases: str, place: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    _race(leases, place, monkeypatch, request, trials=600)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("leases", ["leases", "no-leases"])
def test_racing_long(leases: str, place: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    _race(leases, place, monkeypatch, request, trials=5000)


def _template(folder: Path) -> bytes:
    """A valid file whose UIDs hold the digits that the versions replace."""

    class Numbered(Maker):
        def uid(self, *parts: object) -> str:
            last = {"study": "1", "instance": "2"}.get(str(parts[0]))
            return f"2.25.{UNIQUE.decode()}{last}" if last else super().uid(*parts)

    [made] = Numbered(seed=1).ct_series(folder, slices=1, rows=128, columns=128)
    return made.path.read_bytes()


def _race(
    leases: str, place: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, *, trials: int
) -> None:
    if leases.startswith("no-leases"):
        no_leases(monkeypatch)
    template = place / "template"
    template.write_bytes(_template(place / "made"))
    assert versioned(template.read_bytes(), 1) != versioned(template.read_bytes(), 2)
    book = place / "book"
    fast = Path(tempfile.mkdtemp(prefix="dicomwatchd-state.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    rule = AfterArchive(delete=True, needs_lease=leases == "no-leases-kept")
    pieces = Pieces(
        place,
        state=fast,
        after_archive=rule,
        settle_seconds=0,
        quiet_seconds=0,
        scan_interval_seconds=0.001,
        bundling=Bundling(1 << 20, 1 << 20) if leases == "bundled" else None,
        exclude=(".part",),
    )
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.system.racing_writer", pieces.inbox, template, book, "1", str(trials)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
    )
    assert writer.stdin is not None
    enough = -1 if leases == "no-leases-kept" else trials // 20
    latest = time.monotonic() + LONGEST_SECONDS * trials / 600
    shipments = 0
    _hold_up(monkeypatch)
    try:
        while writer.poll() is None:
            pieces.scan()
            shipments += pieces.ship()
            if _deleted(pieces) > enough or time.monotonic() > latest:
                writer.stdin.close()
        assert writer.returncode == 0
        for _ in range(40):
            pieces.clock.advance(1)
            pieces.scan()
            shipments += pieces.ship()
        _judge(pieces, book, shipments, leases, place, enough)
    finally:
        writer.kill()
        writer.stdin.close()
        writer.wait()
        pieces.close()
        shutil.rmtree(fast)


def _hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then the daemon loses the processor at a bad moment, for longer than it would by itself."""
    random = Random(1)

    def slow(target: object, name: str) -> None:
        real = getattr(target, name)

        def slowed(*arguments: object, **named: object) -> object:
            if random.random() < 0.3:
                time.sleep(random.choice((0.0003, 0.001, 0.003)))
            return real(*arguments, **named)

        monkeypatch.setattr(target, name, slowed)

    for name in ("stage_file", "identity", "sha256_of", "lease_held", "restore", "_undisturbed"):
        slow(proof, name)
    for name in ("rename_to_private", "rename_noreplace", "_copy"):
        slow(staging, name)
    slow(os, "unlink")


def _deleted(pieces: Pieces) -> int:
    return sum(1 for entry, _ in pieces.queue.audit._all() if entry.body["kind"] == "deleted")


def _judge(pieces: Pieces, book: Path, shipments: int, leases: str, place: Path, enough: int) -> None:
    assert pieces.fatal is None
    assert pieces.queue.reports.unfinished()["parked"] == 0, pieces.queue.reports.queue(5)
    lines = [line.split() for line in book.read_text().splitlines()]
    complete = {digest for what, digest in lines if what in "PQ"}
    maybe_too_late = {digest for what, digest in lines if what == "Q"} if leases == "no-leases" else set()
    destroyed = {digest for what, digest in lines if what == "S"}
    here = {invariants.digest(path) for path in pieces.left()}
    missing = complete - destroyed - here - pieces.archived()
    lost = missing - maybe_too_late
    left_staged = [p for p in pieces.left() if p.relative_to(pieces.inbox).parts[0].startswith(".dicomwatchd")]
    kept = sum(int(str(fields["files"])) for fields in pieces.log.events("study-kept"))
    assert not lost, f"{len(lost)} of {len(complete)} versions are nowhere"
    assert not left_staged
    quarantined = set(pieces.states().values())
    allowed = "quarantined:|kept:no-lease" if leases == "no-leases-kept" else "quarantined:"
    assert all(re.match(allowed, state) for state in quarantined), quarantined
    deleted = _deleted(pieces)
    if leases == "no-leases-kept":
        assert deleted == 0 and {"kept:no-lease"} <= quarantined
    else:
        assert deleted > enough, "there was no race"
    if leases == "bundled":
        # By the shipments, and by what was in them: on a busy machine there are fewer, and more files in each.
        bundles = [data[-1] for key, data in pieces.memory.versions.items() if "/bundles/" in key]
        assert len(bundles) > shipments // 4, "there was no race of bundles"
        assert sum(len(unpacked(data)) for data in bundles) > enough, "nor of what is in them"
    assert pieces.queue.audit.broken_at() is None
    where = "memory" if place.is_relative_to("/dev/shm") else "disk"
    invariants.report(
        f"racing-{leases}-{where}",
        f"versions of files written by a racing process, {WORDS[leases]}, on {where}",
        tried=len(complete),
        destroyed_by_their_writer=len(complete & destroyed),
        shipments=shipments,
        deleted=deleted,
        found_changed_and_put_back=kept,
        written_after_the_deletion=len(missing & maybe_too_late),
    )
