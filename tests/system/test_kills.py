"""The kill matrix: SIGKILL, EIO, ENOSPC, EPERM at every system call of a shipment that changes anything, then a run to
the end. Real processes, real files, real databases; strace does the killing, right before the call."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomwatchd.ports import SystemClock
from dicomwatchd.queue import open_queue
from tests.synthetic import Made, Maker
from tests.system import invariants
from tests.system.invariants import Embedded
from tests.system.site import PYTHON, Site
from tests.system.warm import Warm

if shutil.which("strace") is None:
    pytest.skip("strace is not installed; scripts/setup-test-machine installs it", allow_module_level=True)

#: Each kind of change, with the system calls that make it on one architecture or another.
RENAME = ("rename", "renameat", "renameat2", "link", "linkat")
UNLINK = ("unlink", "unlinkat", "rmdir")
MKDIR = ("mkdir", "mkdirat")
FSYNC = ("fsync",)
COMMIT = ("fdatasync",)  # what makes a transaction of either database durable
WRITE = ("pwrite64",)  # the pages of a transaction
KINDS = {"rename": RENAME, "unlink": UNLINK, "mkdir": MKDIR, "fsync": FSYNC, "commit": COMMIT, "write": WRITE}


@dataclass
class Ground:
    """An initialised archive to start from, and the warm process."""

    root: Path
    template: Path
    warm: Warm
    runs: int = 0
    layout: str = "instance"

    def site(self) -> tuple[Site, list[Made]]:
        """A fresh site with one study of three files in its inbox, one of them a level deeper."""
        self.runs += 1
        root = self.root / f"{self.runs}"
        shutil.copytree(self.template, root / "archive")
        site = Site(root, inbox={"settle_seconds": 0, "quiet_seconds": 0}, log_level="INFO")
        site.config["archive"]["layout"] = {"kind": self.layout}
        site.write_config()
        maker = Maker(seed=3)
        made = maker.ct_series(site.inbox / "DOE^JANE", slices=2, rows=16, columns=16)
        made += maker.ct_series(site.inbox / "DOE^JANE" / "LATE", slices=1, rows=16, columns=16, study=0)
        return site, made


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    root = tmp_path_factory.mktemp("kills")
    first = Site(root / "template")
    first.init()
    warm = Warm()
    yield Ground(root, root / "template" / "archive", warm)
    warm.close()


@pytest.fixture(scope="module")
def bundled_ground(ground: Ground) -> Ground:
    """The three files travel in one bundle."""
    return Ground(ground.root / "bundled", ground.template, ground.warm, layout="bundled")


@pytest.fixture(scope="module")
def calls(ground: Ground) -> Counter[str]:
    return calls_of(ground)


@pytest.fixture(scope="module")
def bundled_calls(bundled_ground: Ground) -> Counter[str]:
    return calls_of(bundled_ground)


def calls_of(ground: Ground) -> Counter[str]:
    """How often an undisturbed run makes each call."""
    site, _ = ground.site()
    every = [name for names in KINDS.values() for name in names]
    undisturbed = ground.warm.run(site.config_file, site.log_file, trace=every)
    assert undisturbed.status == 0, site.log_tail()
    assert site.left() == []
    return Counter(undisturbed.calls)


def points(calls: Counter[str], names: Sequence[str], most: int) -> list[tuple[str, int]]:
    """(system call, which one), all of them or ``most`` spread evenly."""
    every = [(name, number) for name in names for number in range(1, calls[name] + 1)]
    step = max(1.0, len(every) / most)
    return [every[int(at * step)] for at in range(int(len(every) / step))]


def require_all_well(site: Site, made: list[Made], *, revision: int = 1, tidy: bool = True) -> Counter[str]:
    """``tidy`` False: an empty folder may be left, where it was the removal of just that folder that failed."""
    assert site.left() == [], f"left in the inbox: {len(site.left())}"
    assert not tidy or list(site.inbox.iterdir()) == [], "a folder was not tidied away"
    wanted = [m.sha256 for m in made]
    Embedded(site.root / "archive").require_whole(made[0].study_uid, wanted, revision=revision)
    return invariants.require_whole_audit(site.state, wanted)


def retry_what_is_parked(site: Site, study: str) -> None:
    """What an operator does once the cause is gone: dicomwatchctl retry STUDY."""
    queue = open_queue(site.state, SystemClock(), lambda _: None)
    queue.claims.retry(study)
    queue.close()


# -- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS])
def test_killed_right_before(kind: str, ground: Ground, calls: Counter[str]) -> None:
    _killed_at(points(calls, KINDS[kind], 12 if kind == "write" else 1000), kind, ground)


@pytest.mark.parametrize("kind", [*KINDS])
def test_killed_right_before_bundled(kind: str, bundled_ground: Ground, bundled_calls: Counter[str]) -> None:
    _killed_at(points(bundled_calls, KINDS[kind], 12 if kind == "write" else 1000), kind, bundled_ground)


@pytest.mark.long
def test_killed_right_before_every_write(ground: Ground, calls: Counter[str]) -> None:
    _killed_at(points(calls, WRITE, 10_000), "every-write", ground)


def _killed_at(where: list[tuple[str, int]], kind: str, ground: Ground) -> None:
    assert where
    endings: Counter[str] = Counter()
    for name, number in where:
        site, made = ground.site()
        killed = ground.warm.run(site.config_file, site.log_file, inject=[f"{name}:signal=SIGKILL:when={number}"])
        assert killed.killed, f"{name} {number} was not reached"
        lost = invariants.somewhere([m.sha256 for m in made], site.inboxes, site.root / "archive")
        assert not lost, f"killed before {name} {number}: {len(lost)} files are nowhere"
        again = ground.warm.run(site.config_file, site.log_file)
        assert again.status == 0, f"killed before {name} {number}:\n{site.log_tail()}"
        endings += require_all_well(site, made)
        bundles = [path for path in invariants.objects(site.root / "archive") if path.suffix == ".tar"]
        assert len(bundles) == (ground.layout == "bundled")
        shutil.rmtree(site.root)
    of_what = "a shipment" if ground.layout == "instance" else "a shipment in the bundled layout"
    invariants.report(
        f"kills-{kind}" if ground.layout == "instance" else f"kills-bundled-{kind}",
        f"SIGKILL right before every {kind.removeprefix('every-')} of {of_what}, then a run to the end"
        if kind != "write"
        else f"SIGKILL right before some of the writes of {of_what}, then a run to the end",
        tried=len(where),
        audit_entries=dict(endings),
    )


@pytest.mark.long
def test_killed_twice(ground: Ground, calls: Counter[str]) -> None:
    """The run that puts things right is killed too, and then again, until one comes through."""
    first = points(calls, [*RENAME, *UNLINK, *FSYNC, *COMMIT], 25)
    tried = 0
    for name, number in first:
        site, made = ground.site()
        ground.warm.run(site.config_file, site.log_file, inject=[f"{name}:signal=SIGKILL:when={number}"])
        for second in ("renameat2", "unlinkat", "fdatasync", "fsync"):
            for again in (1, 2, 4):
                ground.warm.run(site.config_file, site.log_file, inject=[f"{second}:signal=SIGKILL:when={again}"])
                tried += 1
                lost = invariants.somewhere([m.sha256 for m in made], site.inboxes, site.root / "archive")
                assert not lost, f"{name} {number}, {second} {again}: {len(lost)} files are nowhere"
        assert ground.warm.run(site.config_file, site.log_file).status == 0, site.log_tail()
        require_all_well(site, made)
        shutil.rmtree(site.root)
    invariants.report("kills-twice", "SIGKILL in the run after a SIGKILL, twelve times over", tried=tried)


# -- errors ---------------------------------------------------------------------------------------------------------

ERRORS = [
    ("fsync", FSYNC, "EIO"),
    ("commit", COMMIT, "EIO"),
    ("write", WRITE, "ENOSPC"),
    ("write", WRITE, "EIO"),
    ("file-write", ("write",), "ENOSPC"),
    ("unlink", UNLINK, "EIO"),
    ("unlink", UNLINK, "EPERM"),
    ("rename", RENAME, "EIO"),
    ("rename", RENAME, "EPERM"),
    ("rename", RENAME, "EINVAL"),  # a file system that does not know RENAME_NOREPLACE
    ("mkdir", MKDIR, "ENOSPC"),
]


@pytest.mark.parametrize(("kind", "names", "error"), ERRORS, ids=[f"{kind}-{error}" for kind, _, error in ERRORS])
def test_a_call_fails(kind: str, names: tuple[str, ...], error: str, ground: Ground, calls: Counter[str]) -> None:
    """One call fails once; nothing is lost by it, and what the run does not finish itself a later run does."""
    _failing(kind, names, error, "", points(calls, names, 8) if kind != "file-write" else _writes(8), ground)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "names", "error"), ERRORS, ids=[f"{kind}-{error}" for kind, _, error in ERRORS])
def test_every_call_fails(kind: str, names: tuple[str, ...], error: str, ground: Ground, calls: Counter[str]) -> None:
    _failing(kind, names, error, "-all", points(calls, names, 10_000) if kind != "file-write" else _writes(40), ground)
    _failing(kind, names, error, "-from-then-on", points(calls, names, 12), ground, onwards="+")


def _writes(most: int) -> list[tuple[str, int]]:
    return [("write", number) for number in range(1, most + 1)]


def _failing(
    kind: str,
    names: Sequence[str],
    error: str,
    suffix: str,
    where: list[tuple[str, int]],
    ground: Ground,
    onwards: str = "",
) -> None:
    by_status: Counter[int] = Counter()
    reached = 0
    for name, number in where:
        site, made = ground.site()
        rule = f"{name}:error={error}:when={number}{onwards}"
        patience_seconds = 3.0 if onwards else 30.0  # what never heals need not be waited for
        hit = ground.warm.run(site.config_file, site.log_file, inject=[rule], patience_seconds=patience_seconds)
        assert not hit.killed
        reached += "(INJECTED)" in hit.trace
        assert hit.status in (0, 1, 4), f"{rule}: status {hit.status}\n{site.log_tail()}"
        by_status[hit.status] += 1
        lost = invariants.somewhere([m.sha256 for m in made], site.inboxes, site.root / "archive")
        assert not lost, f"{rule}: {len(lost)} files are nowhere"
        retry_what_is_parked(site, made[0].study_uid)
        again = ground.warm.run(site.config_file, site.log_file)
        assert again.status == 0, f"{rule}:\n{site.log_tail()}"
        require_all_well(site, made, tidy=kind != "unlink")
        shutil.rmtree(site.root)
    assert reached == len(where) or kind == "file-write", "an error was never met"
    invariants.report(
        f"errors-{kind}-{error.lower()}{suffix}",
        f"{error} from {'/'.join(names)} during a shipment, then a run to the end",
        tried=reached,
        ends_of_the_disturbed_run={str(status): number for status, number in by_status.items()},
    )


# -- the daemon as it is --------------------------------------------------------------------------------------------


def _real_kills(ground: Ground, numbers: dict[str, list[int]]) -> None:
    """`dicomwatchd --once` with all its threads, started under strace; it counts for each thread by itself."""
    tried = reached = 0
    for name, which in numbers.items():
        for number in which:
            site, made = ground.site()
            command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "signal=none", "-e", f"trace={name}"]
            command += ["-e", f"inject={name}:signal=SIGKILL:when={number}"]
            command += [PYTHON, "-m", "dicomwatchd", "--config", str(site.config_file), "--once"]
            with site.log_file.open("ab") as log:
                ended = subprocess.run(command, env=site.environment, stdout=log, stderr=log, timeout=120).returncode
            tried += 1
            reached += ended != 0
            lost = invariants.somewhere([m.sha256 for m in made], site.inboxes, site.root / "archive")
            assert not lost, f"killed before {name} {number}: {len(lost)} files are nowhere"
            assert ground.warm.run(site.config_file, site.log_file).status == 0, site.log_tail()
            require_all_well(site, made)
            shutil.rmtree(site.root)
    assert reached >= tried * 2 // 3, "most kills should have met the daemon alive"
    invariants.report(
        "kills-daemon", "SIGKILL of dicomwatchd --once with all its threads", tried=tried, killed_alive=reached
    )


def test_the_real_daemon_killed(ground: Ground) -> None:
    _real_kills(ground, {"renameat2": [1, 3], "unlinkat": [1, 4], "fdatasync": [2, 6], "fsync": [3]})


@pytest.mark.long
def test_the_real_daemon_killed_everywhere(ground: Ground) -> None:
    _real_kills(
        ground,
        {
            "renameat2": [*range(1, 7)],
            "unlinkat": [*range(1, 10)],
            "fdatasync": [*range(1, 16)],
            "fsync": [*range(1, 12)],
            "mkdirat": [*range(1, 10)],
        },
    )
